"""Threads of the process: few for small matrices, and none that a fork has left behind."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import ThreadpoolController

TRACING = threading.RLock()
"""Held while a model is traced: NumPyro has one stack of handlers for all threads of a process."""

FITTING = threading.RLock()
"""Held by a fit, which keeps all cores busy: fits of several threads take turns."""

_counting = threading.Lock()
_inside = 0
_limits: Any = None
_process = 0


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """One thread for sums of small matrices, which several would hinder.

    The setting is the process's own: where blocks overlap in threads, the first makes it and the
    last restores what was before the first.
    """
    global _inside, _limits
    with _counting:
        if not _inside:
            _limits = ThreadpoolController().limit(limits=1, user_api="blas")
        _inside += 1
    try:
        yield
    finally:
        with _counting:
            _inside -= 1
            if not _inside:
                _limits.restore_original_limits()
                _limits = None


def stop_in_a_fork() -> None:
    """Raise RuntimeError in a fork of a process that has computed: JAX would hang in it."""
    global _process
    if not _process:
        _process = os.getpid()
    if _process != os.getpid():
        raise RuntimeError(
            "this process is a fork of one in which JAX has computed, where it would hang; start "
            'it with `multiprocessing.get_context("spawn")`'
        )

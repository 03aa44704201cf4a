"""What JAX compiles: how hard it tries, what is kept on disk, when it is dropped from memory."""

import gc
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pooch

from laddercast.sampling.threads import TRACING

SWITCH = "LADDERCAST_COMPILED"
"""Environment variable: another folder, or `off`."""

KEYED_BY = ("laddercast", "jax", "jaxlib", "numpyro")
AT_LEAST_SECONDS = 0.2
"""What compiles faster is not worth a file."""

QUICKLY: Any = {"xla_backend_optimization_level": 0}
"""Compiler options for what runs so briefly that its compilation takes longer."""

WELL: Any = {"xla_backend_optimization_level": 1, "xla_cpu_experimental_ynn_fusion_type": ""}
"""Compiler options for what runs for long.

Beyond this level nothing runs faster here. Sums of many numbers stay with the compiler: a library
would divide each between threads, and take longer to do so than for the sum.
"""

BATCH = 250
"""Rows that `in_batches` gives what it compiled at a time."""

FULLEST = 0.5
"""Share of the memory maps allowed beyond which compiled programs are dropped."""


def folder() -> Path | None:
    """Where compiled programs are kept, one folder per versions and machine; None if switched off.

    Programs hold instructions of the processor that they were compiled on, so a home that several
    machines share has a folder for each kind.
    """
    given = os.environ.get(SWITCH, "")
    if given.lower() in ("off", "0"):
        return None
    root = Path(given) if given else Path(pooch.os_cache("laddercast")) / "compiled"
    key = [*(f"{name} {version(name)}" for name in KEYED_BY), platform.machine(), _processor()]
    key += [sys.version, *sorted(os.environ.get("XLA_FLAGS", "").split())]
    return root / sha256("\n".join(key).encode()).hexdigest()[:16]


def keep() -> Path | None:
    """Have JAX keep what it compiles in `folder()`, if that can be written. Returns the folder.

    A choice that the user has made by JAX's own settings stands.
    """
    place = folder()
    if place is None or jax.config.jax_compilation_cache_dir:
        return None
    with suppress(OSError):
        place.mkdir(parents=True, exist_ok=True)
        if os.access(place, os.W_OK):
            settings: Any = jax.config
            settings.update("jax_compilation_cache_dir", str(place))
            settings.update("jax_persistent_cache_min_compile_time_secs", AT_LEAST_SECONDS)
            return place
    return None


def in_batches(one: Callable[..., Any], rows: Any, *rest: Any) -> Any:
    """What a function of one row and the rest makes of each of arrays (rows, ...), in NumPy.

    Compiled, it sees as many rows at a time, the last filled up: once for all numbers of rows, if
    the function is the same object. After the first batch others are shared between the cores.
    """
    count, function = len(jax.tree.leaves(rows)[0]), _of_rows(one)

    def part(first: int) -> Any:
        index = np.minimum(np.arange(first, first + BATCH), count - 1)
        return function(jax.tree.map(lambda x: x[index], rows), *rest)

    def write(first: int, part: Any) -> None:
        some = slice(first, min(first + BATCH, count))
        for whole, new in zip(jax.tree.leaves(found), jax.tree.leaves(part), strict=True):
            whole[some] = np.asarray(new)[: some.stop - first]

    with TRACING:
        begun = part(0)
    # Written to as it comes: parts and the whole at once would be twice as much.
    found = jax.tree.map(lambda x: np.empty((count, *x.shape[1:]), x.dtype), begun)
    write(0, begun)
    on_cores(lambda first: write(first, part(first)), range(BATCH, count, BATCH))
    return found


@cache
def _of_rows(one: Callable[..., Any]) -> Callable[..., Any]:
    def batch(rows: Any, *rest: Any) -> Any:
        # Row by row: all together take far longer to compile than it saves.
        return jax.lax.map(lambda row: one(row, *rest), rows)

    return jax.jit(batch, compiler_options=QUICKLY)


def few_sizes(count: int, least: int = 1) -> int:
    """So many or some more, or `least`: arrays padded to it share what was compiled for one.

    Up to 16 a power of two, beyond a multiple of 16, or of an eighth of the next power of two.
    """
    power = 1 << (count - 1).bit_length()
    unit = min(power, max(16, power // 8))
    return max(least, -(-count // unit) * unit)


def on_cores(function: Callable[[Any], Any], each: Iterable[Any]) -> list[Any]:
    """What a function that calls compiled ones makes of each, in threads.

    What it calls should be compiled before: threads would each compile it.
    """
    # JAX's settings are a thread's own.
    x64, device = jax.config.jax_enable_x64, jax.config.jax_default_device

    def one(given: Any) -> Any:
        with jax.enable_x64(x64), jax.default_device(device):
            return function(given)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(threads.map(one, each))


def make_room(*, alone: bool = False) -> None:
    """Drop compiled programs from memory where the system soon allows no more of them.

    Linux limits the memory maps of a process, of which a fit of a new shape takes some thousands;
    at the limit the compiler crashes. A thread beside the main one drops nothing unless it is
    `alone`: others may be at work with it.
    """
    if not alone and threading.current_thread() is not threading.main_thread():
        return
    with suppress(OSError, ValueError):
        with open("/proc/self/maps") as maps:
            used = sum(1 for _ in maps)
        if used > FULLEST * int(Path("/proc/sys/vm/max_map_count").read_text()):
            jax.clear_caches()  # type: ignore[no-untyped-call]
            gc.collect()


def _processor() -> str:
    """Model and features of the processor, as far as the system tells them."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "\n".join(sorted({x for x in lines if x.startswith(("model name", "flags"))}))
    return platform.processor()


def once(x: Any) -> Any:
    """The same: a hint to XLA, which would compute it again in each place that reads it."""
    return jax.lax.optimization_barrier(x)  # type: ignore[no-untyped-call]

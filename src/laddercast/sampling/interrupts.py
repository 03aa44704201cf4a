"""^C that is heard: Python raises it once, wherever it is, and some callbacks swallow it there."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

AGAIN = 0.5
"""Seconds after which an interrupt that nothing has heard is raised again."""

_heard = threading.Event()
_heard.set()


def heard() -> None:
    """Say that the interrupt has arrived: what is cleared up now shall not be cut short by it."""
    _heard.set()


@contextmanager
def insisting() -> Iterator[None]:
    """Raise KeyboardInterrupt again and again until `heard` is called, or it leaves this block.

    What runs inside a compiler's callback or a finaliser can only raise once, into the void. Does
    nothing in threads beside the main one, and where the user handles the signal.
    """
    main = threading.main_thread()
    if threading.current_thread() is not main or (
        signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    interrupted = False

    def again() -> None:
        while not _heard.wait(AGAIN):
            signal.pthread_kill(main.ident or 0, signal.SIGINT)

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            _heard.clear()
            threading.Thread(target=again, daemon=True).start()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
        if interrupted:
            raise KeyboardInterrupt
    finally:
        _heard.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

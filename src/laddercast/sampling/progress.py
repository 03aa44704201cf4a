"""Progress with the time left: the notebook's own bar where one can be shown, a bar of text in a
terminal, and plain lines, now and then, in a file or a pipe."""

import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from threading import Lock
from time import monotonic
from typing import Any, ClassVar

from tqdm import tqdm

SECONDS = 30.0
"""Between two plain lines."""
TELLING = 0.05
"""The share that must be done for a line to tell the time left."""


def progress_bar(total: int, shown: bool, what: str = "sampling", unit: str = "step") -> Any:
    """A tqdm bar; inside another one it goes when it is done."""
    bar = _kind()(total=total, desc=what, unit=unit, disable=not shown)
    bar.leave = getattr(bar, "pos", 0) == 0
    return bar


def lengthen(bar: Any, by: int) -> None:
    """Raise a bar's total while it runs: it never falls, so that what is done never shrinks."""
    assert by >= 0
    bar.total += by
    if getattr(bar, "container", None) is not None:
        bar.container.children[1].max = bar.total  # the notebook's bar reads its total only once
    bar.refresh()


def with_progress[T](items: Sequence[T], shown: bool, what: str, unit: str) -> Iterator[T]:
    """The items, counted by a bar if there are several."""
    with progress_bar(len(items), shown and len(items) > 1, what, unit) as bar:
        for item in items:
            yield item
            bar.update()


def _kind() -> Any:
    # tqdm.auto would do, but warns where ipywidgets is not installed.
    if _in_notebook() and find_spec("ipywidgets") is not None:
        from tqdm import notebook

        if notebook.IProgress is not None:
            return notebook.tqdm
    return tqdm if _in_notebook() or sys.stderr.isatty() else Lines


class Lines:
    """What a bar says, as a line every half a minute and at the end; an inner one's end is silent,
    if the outer one is shown.

    As a bar of tqdm is used: chains in several threads update one.
    """

    open: ClassVar[int] = 0

    def __init__(self, total: int, desc: str, unit: str, disable: bool) -> None:
        self.total, self.desc, self.unit, self.disable = total, desc, unit, disable
        self.n, self.pos, self.leave = 0, Lines.open, True
        self.began = self.told = monotonic()
        self.lock = Lock()

    def __enter__(self) -> "Lines":
        Lines.open += not self.disable
        return self

    def __exit__(self, *_: object) -> None:
        Lines.open -= not self.disable
        self.close()

    def update(self, n: int = 1) -> None:
        """Count so many steps as done."""
        with self.lock:
            self.n += n
            if monotonic() - self.told >= SECONDS and self.n < self.total:
                self._tell()

    def set_description(self, desc: str) -> None:
        """Change what is counted."""
        self.desc = desc

    def refresh(self) -> None:
        """Nothing: lines come when they are due."""

    def close(self) -> None:
        """Say how long all of it took."""
        if self.leave:
            self._tell()
        self.disable = True

    def _tell(self) -> None:
        if self.disable:
            return
        self.told = monotonic()
        gone, left = self.told - self.began, ""
        # Before, most of the time went into compiling.
        if TELLING * self.total <= self.n < self.total:
            time = tqdm.format_interval(gone * (self.total - self.n) / self.n)
            left = f", about {time} left"
        done = f"{self.desc}: {self.n:,} of {self.total:,} {self.unit}s"
        said = f"{done}, {tqdm.format_interval(gone)} gone{left}"
        print(said, file=sys.stderr, flush=True)


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config

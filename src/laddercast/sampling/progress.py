"""Progress bars with the time left: the notebook's own where one can be shown, text elsewhere."""

import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from tqdm import tqdm


def progress_bar(total: int, shown: bool, what: str = "sampling", unit: str = "step") -> Any:
    """A tqdm bar; inside another one it goes when it is done."""
    bar = _kind()(total=total, desc=what, unit=unit, disable=not shown)
    bar.leave = getattr(bar, "pos", 0) == 0
    return bar


def lengthen(bar: Any, by: int) -> None:
    """Change a bar's total while it runs, by less than 0 to shorten it."""
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


def _kind() -> type[tqdm]:
    # tqdm.auto would do, but warns where ipywidgets is not installed.
    if _in_notebook() and find_spec("ipywidgets") is not None:
        from tqdm import notebook

        if notebook.IProgress is not None:
            return notebook.tqdm
    return tqdm


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config

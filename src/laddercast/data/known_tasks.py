"""Well-known tasks, of which logs often lack the accuracy of guessing and the number of questions.

`known_tasks.csv` has one row per task: `choices` (0: the answer is written, empty: questions differ
in it), `items` (questions of the split that is usually evaluated, empty: there are several uses),
`split`, and as `source` the publication of the task.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from laddercast.data import words as c


def known_tasks() -> pd.DataFrame:
    """Tasks of which chance and number of questions are known, by the names that logs use.

    Index: `task`; columns: `chance, items, split, source`. NaN is what differs between questions
    or uses of a task.

    >>> lc.known_tasks().loc["hellaswag", "chance"]
    """
    return _read().copy()


def chance_of(task: str) -> float:
    """Accuracy of guessing, also under a name like `csqa_val` or `csqa:mc`; NaN if not known."""
    known = _read()
    names = [name for name in _names(task) if name in known.index]
    return float(known.loc[names[0], c.CHANCE]) if names else float("nan")


def items_of(task: str) -> float:
    """Number of questions of exactly this name, which is of one split; NaN if not known."""
    known = _read()
    return float(known.loc[task, c.ITEMS]) if task in known.index else float("nan")


def is_task(task: str, known: str) -> bool:
    """Whether a log's name, such as `csqa_val` or `csqa:mc`, means this known task."""
    return known in _names(task)


def _names(task: str) -> list[str]:
    """The name, and what stands before each `_` and `:` in it, the longest first."""
    return [task] + [task[:i] for i in range(len(task) - 1, 0, -1) if task[i] in "_:"]


@cache
def _read() -> pd.DataFrame:
    table = pd.read_csv(Path(__file__).with_suffix(".csv"), index_col=c.TASK)
    choices = table["choices"]
    chance = np.where(choices == 0, 0.0, 1 / choices.mask(choices == 0))
    return table.assign(**{c.CHANCE: chance})[[c.CHANCE, c.ITEMS, "split", "source"]]

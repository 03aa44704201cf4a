"""Which tasks no rung solves: the one rule of decisions and of the report."""

import numpy as np
import pandas as pd
from scipy.stats import norm

from laddercast.data import words as c
from laddercast.model.design import DEFAULT_ITEMS

ERRORS = 2.0
"""Standard errors above chance that one rung has to reach."""


def beside_guessing(runs: pd.DataFrame, tasks: pd.DataFrame) -> pd.DataFrame:
    """What rungs measured of each task beside what guessing gives, a row a task.

    `runs` has `task, accuracy`, a row for each rung at its end; `tasks`, indexed by task, `chance,
    items`. Columns: `chance, items`, `error` (the standard error of guessing; of 1,000 questions
    where their number is not known), `rungs`, `best` (the highest accuracy measured), `limit` and
    `at_chance`, 1 where `best` is below it. Of one rung the limit is chance and two standard
    errors. Of more it is higher, such that the best of so many guessers stays below it as surely as
    one does. Tasks that were not measured have a `best` of NaN, and are not said to be at chance.

    >>> runs = pd.DataFrame({"task": ["easy", "hard"], "accuracy": [0.61, 0.26]})
    >>> tasks = pd.DataFrame({"chance": 0.25, "items": 1000.0}, index=["easy", "hard"])
    >>> beside_guessing(runs, tasks)["at_chance"].to_dict()
    {'easy': False, 'hard': True}
    """
    measured = runs.dropna(subset=[c.ACCURACY]).groupby(c.TASK)[c.ACCURACY]
    table = tasks[[c.CHANCE, c.ITEMS]].astype(float)
    items = table[c.ITEMS].fillna(DEFAULT_ITEMS)
    # Where nothing can be guessed, one right answer may still be luck.
    spread = np.sqrt(table[c.CHANCE] * (1 - table[c.CHANCE]) / items)
    table["error"] = np.maximum(spread, 1 / items)
    table["rungs"] = measured.size().reindex(table.index).fillna(0).astype(int)
    table["best"] = measured.max().reindex(table.index)
    # Bonferroni: the best of many would pass the limit of one by luck.
    errors = norm.isf(norm.sf(ERRORS) / table["rungs"].clip(lower=1))
    table["limit"] = table[c.CHANCE] + errors * table["error"]
    table["at_chance"] = table["best"] < table["limit"]
    return table


def tasks_at_chance(runs: pd.DataFrame, tasks: pd.DataFrame) -> list[str]:
    """Names of the tasks in which no rung is above chance; arguments as `beside_guessing`."""
    found = beside_guessing(runs, tasks)["at_chance"]
    return [str(name) for name in found.index[found]]

"""Forecasts that say of a target: the same as a rung."""

import numpy as np
import pandas as pd

from laddercast.baselines.published import target_rows
from laddercast.data import words as c
from laddercast.data.ladder import Ladder, run_ends
from laddercast.data.sources import Table


def best_rung(ladder: Ladder, targets: Table) -> pd.DataFrame:
    """Each target as good as the best rung: per task, the highest accuracy at the end of a run.

    Returns rows and columns as `baseline` does, of accuracy alone; `method` is `best_rung`. Raises
    ValueError for a ladder of losses alone.

    >>> points = lc.best_rung(ladder, targets)
    """
    ends = ends_with_accuracy(ladder)
    return _points(ladder, targets, ends.groupby(c.TASK)[c.ACCURACY].max(), "best_rung")


def lowest_loss_rung(ladder: Ladder, targets: Table) -> pd.DataFrame:
    """Each target as good as the rung of the lowest loss at the end of its run.

    That is `reference_loss` where the ladder has any, else the mean task loss of the models that
    have one for every task. A task that this rung lacks takes the next lowest rung that has it.
    Returns rows and columns as `baseline` does, of accuracy alone; `method` is `lowest_loss_rung`.
    Raises ValueError if no model has all task losses, or the ladder no accuracies or losses.

    >>> points = lc.lowest_loss_rung(ladder, targets)
    """
    ends = ends_with_accuracy(ladder).dropna(subset=[c.ACCURACY])
    ends = ends.assign(rank=ends[c.MODEL].map(_loss_of_models(ladder.table))).dropna(
        subset=["rank"]
    )
    lowest = ends.sort_values("rank", kind="stable").groupby(c.TASK)[c.ACCURACY].first()
    return _points(ladder, targets, lowest, "lowest_loss_rung")


def ends_with_accuracy(ladder: Ladder) -> pd.DataFrame:
    """As `run_ends`. Raises ValueError for a ladder of losses alone."""
    if not c.measured(ladder.table, c.ACCURACY):
        raise ValueError(f"{ladder.name} has no accuracies")
    return run_ends(ladder.table)


def _loss_of_models(table: pd.DataFrame) -> pd.Series:
    ends = run_ends(table)
    if c.measured(ends, c.REFERENCE_LOSS):
        return ends.groupby(c.MODEL)[c.REFERENCE_LOSS].mean()
    if not c.measured(ends, c.LOSS):
        raise ValueError("the ladder has no losses")
    losses = ends.groupby(c.MODEL)[c.LOSS].agg(["mean", "count"])
    losses = losses.loc[losses["count"] == ends[c.TASK].nunique(), "mean"]
    if losses.empty:
        raise ValueError("no model has a loss of every task at its end; leave out tasks")
    return losses


def _points(ladder: Ladder, targets: Table, accuracy: pd.Series, method: str) -> pd.DataFrame:
    rows = target_rows(ladder, targets)
    measured = rows.get(c.ACCURACY, np.nan)
    rows = rows.assign(
        quantity=c.ACCURACY, q50=rows[c.TASK].map(accuracy), measured=measured, method=method
    )
    return rows.reindex(columns=[*c.FORECAST_COLUMNS, "method"])

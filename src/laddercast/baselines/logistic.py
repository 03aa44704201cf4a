"""A simple rival: per task, a logistic curve of accuracy in the log of compute."""

from typing import Literal

import numpy as np
import pandas as pd
from scipy.optimize import least_squares
from scipy.special import expit, logit

from laddercast.baselines.published import by_task, target_rows
from laddercast.baselines.rungs import ends_with_accuracy
from laddercast.data import words as c
from laddercast.data.ladder import Ladder
from laddercast.data.sizes import log10_flops
from laddercast.data.sources import Table

STEEPNESS = 0.1, 0.5, 1.5, 3.0
"""Of the logit per e-fold of compute, at which fits begin."""


def logistic(
    ladder: Ladder, targets: Table, lower: Literal["chance", "free"] = "chance"
) -> pd.DataFrame:
    """Accuracy as `lower + (1 - lower) / (1 + exp(-k (log C - c)))`, by least squares per task.

    C is 6ND at the ends of runs, `k` at least 0, `lower` the chance of the task, or
    between 0 and 1 where it is free (of fewer than 3 rungs, it stays at chance). Returns rows and
    columns as `baseline` does, of accuracy alone; `method` is `logistic` or `logistic_free`. A task
    without accuracies is NaN. Raises ValueError for another `lower`, for a ladder of losses alone,
    and for targets as `read_targets` does.

    >>> points = lc.logistic(ladder, targets)
    """
    if lower not in ("chance", "free"):
        raise ValueError(f'lower={lower!r}: use "chance" or "free"')
    ends = ends_with_accuracy(ladder)
    rows = target_rows(ladder, targets)
    at = _log_compute(rows)
    found = pd.Series(np.nan, index=rows.index)
    for task, own, chance in by_task(ends, ladder):
        known = own.dropna(subset=[c.ACCURACY])
        if known.empty:
            continue
        here = (rows[c.TASK] == task).to_numpy()
        curve = _fit(
            _log_compute(known), known[c.ACCURACY].to_numpy(float), chance,
            lower == "free" and len(known) > 2,
        )  # fmt: skip
        found[here] = _curve(curve, at[here])
    measured = rows.get(c.ACCURACY, np.nan)
    method = "logistic" if lower == "chance" else "logistic_free"
    rows = rows.assign(quantity=c.ACCURACY, q50=found, measured=measured, method=method)
    return rows.reindex(columns=[*c.FORECAST_COLUMNS, "method"])


def _log_compute(table: pd.DataFrame) -> np.ndarray:
    return np.asarray(np.log(10) * log10_flops(table))


def _curve(theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    middle, steepness, lower = theta
    return np.asarray(lower + (1 - lower) * expit(steepness * (x - middle)))


def _fit(x: np.ndarray, y: np.ndarray, chance: float, free: bool) -> np.ndarray:
    """Middle, steepness and lower end of the best curve from several starts."""
    share = np.clip((y.mean() - chance) / (1 - chance), 0.01, 0.99)
    count = 3 if free else 2

    def off(theta: np.ndarray) -> np.ndarray:
        return _curve(np.append(theta, [chance][: 3 - count]), x) - y

    fits = []
    for steepness in STEEPNESS:
        start = np.array([x.mean() - logit(share) / steepness, steepness, min(chance, 0.95)])
        bounds = np.array([-np.inf, 0.0, 0.0])[:count], np.array([np.inf, np.inf, 1.0])[:count]
        fits.append(
            least_squares(off, start[:count], bounds=bounds, x_scale=[1.0, 0.1, 0.1][:count])
        )
    best = min(fits, key=lambda fit: fit.cost).x
    return np.append(best, [chance][: 3 - count])

"""Runs that lie far off all others, and runs that share their measurements."""

import numpy as np
import pandas as pd
from scipy.special import logit

from laddercast.data import words as c
from laddercast.data.writing import listed

FAR = 7.0
"""Typical residuals of a task by which a run lies off, in the middle of its tasks, to be told."""

LEAST = {c.LOSS: 0.05, c.REFERENCE_LOSS: 0.05, c.ACCURACY: 0.3}
"""What a run must be off by at least, in logs of losses and logits of accuracy."""

FEWEST = 6
"""Runs of a task from which a plane in log params and log tokens tells what lies off it."""

WITHIN = 0.02
"""Accuracies are taken to be no closer to 0 and 1."""

ITERATIONS = 50

SAME_IN = 3
"""Tasks in which two runs must have the same measurements for that to be no accident."""


def far_off(ends: pd.DataFrame) -> list[str]:
    """In words: runs that lie far off what the others say of most tasks, and by how much.

    For each quantity and task a plane in log params and log tokens is fitted to the `ends` of runs,
    as `run_ends` gives them, by least absolute deviations, which one or two wrong runs do not bend.
    """
    found: list[str] = []
    for quantity, least in LEAST.items():
        if quantity not in ends:
            continue
        rows = ends.dropna(subset=[quantity])
        if quantity == c.REFERENCE_LOSS:
            rows = rows.drop_duplicates(c.MODEL)
        # Recipes may lie far apart.
        groups = rows.groupby([word for word in (c.RECIPE, c.TASK) if word in rows])
        off = [_off(own, quantity, least) for _, own in groups if len(own) >= FEWEST]
        if not off:
            continue
        of_runs = pd.concat(off).groupby(c.MODEL)[["off", "typical"]].median()
        for model, own in of_runs[of_runs["typical"].abs() > FAR].iterrows():
            size, side = abs(own["off"]), "above" if own["off"] > 0 else "below"
            much = f"{size:.2g} logits" if quantity == c.ACCURACY else f"{100 * size:.0f} %"
            found.append(
                f"{model}: its {quantity.replace('_', ' ')} lies {much} {side} what the other runs "
                f"say, {abs(own['typical']):.0f} times what they are off by"
            )
    return found


def _off(rows: pd.DataFrame, quantity: str, least: float) -> pd.DataFrame:
    """By how much each run of a task is off a plane: `model, off`, and `typical`, in residuals."""
    value = rows[quantity].to_numpy(float)
    y = logit(value.clip(WITHIN, 1 - WITHIN)) if quantity == c.ACCURACY else np.log(value)
    sizes = np.log(rows[[c.PARAMS, c.TOKENS]].to_numpy(float))
    x = np.column_stack([np.ones(len(y)), sizes - sizes.mean(axis=0)])
    off = y - x @ _least_absolute(x, y)
    # A plane goes through as many points as it has numbers.
    typical = np.median(np.sort(np.abs(off))[x.shape[1] :])
    far = off / max(typical, least / FAR)
    return pd.DataFrame({c.MODEL: rows[c.MODEL].to_numpy(), "off": off, "typical": far})


def _least_absolute(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Coefficients of least absolute deviations, by least squares with weights made anew."""
    weight = np.ones(len(y))
    for _ in range(ITERATIONS):
        found = np.linalg.lstsq(x * weight[:, None], y * weight, rcond=None)[0]
        weight = np.maximum(np.abs(y - x @ found), 1e-6) ** -0.5
    return found


def same_measurements(ends: pd.DataFrame) -> list[str]:
    """In words: runs whose `ends` have the same measurements as another run's."""
    found: list[str] = []
    for quantity in (c.LOSS, c.ACCURACY):
        if quantity not in ends:
            continue
        wide = ends.pivot_table(quantity, c.MODEL, c.TASK)
        # A task that no run changes says nothing.
        wide = wide.loc[:, wide.max() > wide.min()]
        if wide.shape[1] < SAME_IN:
            continue
        wide = wide[wide.notna().sum(axis=1) >= SAME_IN]
        same = wide.groupby(wide.columns.to_list(), dropna=False, sort=False).groups.values()
        found += [
            f"{listed(map(str, names))} have the same {quantity} in all tasks"
            for names in same
            if len(names) > 1
        ]
    return found

"""Forecasts of the mean over tasks, draw by draw, which keeps the errors that tasks share."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr

from laddercast.data import words as c
from laddercast.forecasting.forecasts import forecast_table


def mean_over_tasks(
    forecast: xr.DataTree, weights: Mapping[str, float] | None = None
) -> xr.DataTree:
    """A forecast with one row per target, of task `all`: the mean of each draw over its tasks.

    `weights` by task make it a weighted mean; tasks without one are left out. Groups `predictions`
    and, where the forecast has them, `measured` and `truth` (NaN where a task is lacking);
    `forecast_table`, `score` and `plot_forecast` read it as any other. Raises ValueError for
    weights of no task, or that are not numbers of at least 0 with a sum above 0.

    >>> lc.plot_forecast(lc.mean_over_tasks(forecast))
    """
    predictions = forecast["predictions"].to_dataset()
    models, tasks = (predictions[word].to_numpy().astype(str) for word in (c.MODEL, c.TASK))
    share = shares(list(dict.fromkeys(tasks)), weights)
    kept_rows = np.array([task in share for task in tasks])
    rows = [np.flatnonzero((models == name) & kept_rows) for name in dict.fromkeys(models)]
    first = [own[0] for own in rows]
    coords = {
        name: ("row", value.to_numpy()[first])
        for name, value in predictions.coords.items()
        if value.dims == ("row",)
    }
    coords[c.TASK] = ("row", np.full(len(first), c.ALL))
    kept = {name: value for name, value in predictions.coords.items() if "row" not in value.dims}

    of = np.array([share.get(task, 0.0) for task in tasks])

    def averaged(data: xr.Dataset) -> xr.Dataset:
        values = {
            name: (
                value.dims,
                np.stack([_mean(value[..., own].to_numpy(), of[own]) for own in rows], -1),
            )
            for name, value in data.transpose(..., "row").data_vars.items()
        }
        return xr.Dataset(values, coords=coords)

    groups = {"predictions": averaged(predictions).assign_coords(kept)}
    for name in ("measured", "truth"):
        if name in forecast.children:
            groups[name] = averaged(forecast[name].to_dataset())
    tree = xr.DataTree.from_dict(groups)
    tree.attrs.update(forecast.attrs)
    return tree


def with_average(forecast: xr.DataTree, table: pd.DataFrame) -> pd.DataFrame:
    """The `forecast_table` of a forecast with rows of task `all`, the mean accuracy over tasks.

    Each follows its target's tasks. As it is where there is one task, or no accuracy.
    """
    if c.ACCURACY not in forecast["predictions"] or table[c.TASK].nunique() < 2:
        return table
    average = forecast_table(mean_over_tasks(forecast))
    whole = pd.concat([table, average[average["quantity"] == c.ACCURACY]], ignore_index=True)
    order = pd.Categorical(whole[c.MODEL], whole[c.MODEL].unique()).codes
    return whole.iloc[order.argsort(kind="stable")].reset_index(drop=True)


def shares(tasks: list[str], weights: Mapping[str, float] | None) -> dict[str, float]:
    """The share of each task in a mean, of those that have any; equal without weights."""
    if not (weights is None or isinstance(weights, Mapping)):
        raise ValueError(
            f"weights={weights!r:.60}: give a dict of numbers by task, or leave it out"
        )
    given = dict.fromkeys(tasks, 1.0) if weights is None else dict(weights)
    faults = [f"no task {name}" for name in given if name not in tasks]
    faults += [f"{name}: {x}" for name, x in given.items() if not (np.isfinite(x) and x >= 0)]
    total = sum(given.values())
    if faults or not total > 0:
        raise ValueError(
            f"weights ({'; '.join(faults) or 'all are 0'}): give numbers of at least 0, not all of "
            f"them 0, to some of {', '.join(tasks)}"
        )
    return {name: x / total for name, x in given.items() if x > 0}


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    return np.asarray((values * weights).sum(axis=-1) / weights.sum())

"""Scores of forecasts against measurements: error, CRPS, coverage and width of intervals."""

import numpy as np
import pandas as pd
import xarray as xr

from laddercast.data import words as c
from laddercast.data.ladder import read_targets
from laddercast.data.sources import Table

UNITS = {c.LOSS: 1.0, c.ACCURACY: 100.0}
"""Accuracies are scored in points, losses in their own unit."""


def score(forecast: xr.DataTree, measured: Table | None = None) -> pd.DataFrame:
    """Score a forecast against measurements, as `score_cells` takes them.

    One row per quantity x task, then one of task `all` per quantity. Columns: `quantity, task,
    cells` (how many), `error` (mean absolute error of the median), `crps`, `cover50, cover80,
    cover95` (share of cells within the central interval), `width50, width80, width95` (its mean
    width). Accuracy in points, loss in its own unit. Raises ValueError as `score_cells` does.

    >>> scores = lc.score(forecast)
    """
    return summarise(score_cells(forecast, measured))


def score_cells(forecast: xr.DataTree, measured: Table | None = None) -> pd.DataFrame:
    """The forecast of each measured cell against its measurement: one row per quantity x cell.

    `measured` is a table as `read_targets` takes it, matched on model x task; without it, what was
    measured of the forecast's targets counts. Columns: `model, params, tokens, task, quantity,
    median, measured, error` (absolute), `crps, pit` (share of draws below the measurement, of ties
    a half), `mean, sd` and the quantiles of `forecast_table`, `inside50, inside80, inside95`,
    `width50, width80, width95`; accuracies, errors and widths of them in points, losses in their
    own unit. What was not measured has no row. Raises ValueError if nothing was.
    """
    predictions = forecast["predictions"].to_dataset()
    rows = pd.DataFrame(
        {word: predictions[word].to_numpy() for word in (c.MODEL, c.PARAMS, c.TOKENS, c.TASK)}
    ).astype({c.MODEL: str, c.TASK: str})
    if measured is None:
        known = _own_measurements(forecast)
    else:
        known = _matched(predictions, measured, forecast.attrs.get("loss", c.LOSS))
    parts = []
    for quantity, unit in UNITS.items():
        if quantity not in predictions:  # a route may forecast accuracy alone
            continue
        values = known.get(quantity, np.full(len(rows), np.nan))
        here = np.isfinite(values)
        draws = predictions[quantity].transpose("row", "chain", "draw").to_numpy()
        draws = draws.reshape(len(rows), -1)[here]
        part = rows[here].assign(quantity=quantity)
        parts.append(part.join(_scores(unit * draws, unit * values[here], part.index)))
    cells = pd.concat(parts, ignore_index=True)
    if cells.empty:
        raise ValueError(_nothing_measured(rows, measured))
    return cells


def summarise(
    cells: pd.DataFrame, by: tuple[str, ...] = (), also: tuple[str, ...] = ()
) -> pd.DataFrame:
    """Means over cells as `score` gives them, for each value of the columns `by`.

    Likewise for the columns `also`. A mean is NaN if one of the cells lacks the value.
    """
    every = pd.concat([cells, cells.assign(**{c.TASK: c.ALL})])
    keys = [*by, "quantity", c.TASK]
    names = {"error": "error", "crps": "crps"}
    names |= {f"inside{level}": f"cover{level}" for level in c.INTERVALS}
    names |= {f"width{level}": f"width{level}" for level in c.INTERVALS}
    names |= {name: name for name in also}
    groups = every.groupby(keys, sort=False)
    table = groups[list(names)].mean(skipna=False).rename(columns=names)
    table.insert(0, "cells", groups.size())
    table = table.reset_index()
    # Groups are in the order of the cells: put `all` last within each quantity.
    order = [pd.factorize(table[key])[0] for key in keys[:-1]]
    return table.iloc[np.lexsort(order[::-1])].reset_index(drop=True)


def _scores(draws: np.ndarray, values: np.ndarray, index: pd.Index) -> pd.DataFrame:
    """Scores of `draws` (cells, draws) against `values` (cells,)."""
    median = np.median(draws, axis=1)
    below, ties = draws < values[:, None], draws == values[:, None]
    table = pd.DataFrame(
        {
            "median": median,
            "measured": values,
            "error": np.abs(median - values),
            "crps": _crps(draws, values),
            "pit": below.mean(axis=1) + ties.mean(axis=1) / 2,
        },
        index=index,
    )
    table["mean"], table["sd"] = draws.mean(axis=1), draws.std(axis=1)
    for name, level in c.QUANTILES.items():
        table[name] = np.quantile(draws, level, axis=1)
    ends = {
        level: np.quantile(draws, [0.5 - level / 200, 0.5 + level / 200], axis=1)
        for level in c.INTERVALS
    }
    for level, (low, high) in ends.items():
        table[f"inside{level}"] = (low <= values) & (values <= high)
    for level, (low, high) in ends.items():
        table[f"width{level}"] = high - low
    return table


def _crps(draws: np.ndarray, values: np.ndarray) -> np.ndarray:
    """E|X - value| - E|X - X'| / 2, X and X' of a cell's draws; Gneiting and Raftery 2007."""
    count = draws.shape[1]
    # The i-th smallest draw is above i - 1 others and below count - i.
    signs = 2 * np.arange(1, count + 1) - count - 1
    between = np.sort(draws, axis=1) @ signs / count**2
    return np.abs(draws - values[:, None]).mean(axis=1) - between


def _own_measurements(forecast: xr.DataTree) -> dict[str, np.ndarray]:
    if "measured" not in forecast.children:
        return {}
    own = forecast["measured"].to_dataset()
    return {quantity: own[quantity].to_numpy() for quantity in UNITS if quantity in own}


def _matched(predictions: xr.Dataset, measured: pd.DataFrame, loss: str) -> dict[str, np.ndarray]:
    """Measurements of each row of the predictions, NaN where there are none."""
    table = read_targets(measured)
    if c.TASK not in table:
        return {}
    models, tasks = (predictions[word].to_numpy().astype(str) for word in (c.MODEL, c.TASK))
    by_cell = table.set_index([c.MODEL, c.TASK]).reindex(pd.MultiIndex.from_arrays([models, tasks]))
    named = {loss: c.LOSS, c.ACCURACY: c.ACCURACY}
    return {q: by_cell[word].to_numpy(float) for word, q in named.items() if word in by_cell}


def _nothing_measured(rows: pd.DataFrame, measured: pd.DataFrame | None) -> str:
    if measured is None:
        return (
            "the forecast's targets have no measurements; give a table of them as `measured`, "
            "or `task`, `loss` and `accuracy` with the targets"
        )
    return (
        "no measured loss or accuracy matches the forecast; it has models "
        f"{', '.join(rows[c.MODEL].unique())} and tasks {', '.join(rows[c.TASK].unique())}"
    )

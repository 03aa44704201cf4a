"""What if: the accuracy of models of any size and length that one fit forecasts, as a table."""

import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from laddercast.data import words as c
from laddercast.data.cautions import FarTargetWarning, NotConvergedWarning
from laddercast.data.checks import check_one_recipe
from laddercast.data.lines import line_through, off_line
from laddercast.data.settings import as_sizes, is_whole, whole
from laddercast.data.sizes import flops
from laddercast.forecasting.averages import mean_over_tasks
from laddercast.forecasting.forecasts import (
    FAR_DECADES,
    decades_beyond,
    forecast,
    forecast_table,
    unlike_length,
)
from laddercast.inference.results import converged, points_of, recipes_of, rungs_of
from laddercast.model.routes import Route

TOKENS_POINTS = 25
"""Lengths along each curve, evenly in logs, where none are given."""

MANY_CHECKPOINTS = 1e6
"""The mean of so many checkpoints has no checkpoint noise: only that of the run is left."""


def what_if(
    fitted: xr.DataTree,
    params: Sequence[float | str] | float | str,
    tokens: Sequence[float | str] | float | str | None = None,
    *,
    route: Route | Sequence[Route] = (),
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Forecast every pair of `params` and `tokens`: what one run of that size and length would get.

    Each is one number or several, also as text with a unit ("7B").
    Noise between checkpoints is averaged away, that between runs is not. `tokens` left out are 25
    lengths from the ladder's fewest to its most tokens per parameter at the largest of `params`.
    Each forecast is made from `draws` evenly thinned draws of the posterior; `route` as `forecast`
    takes it.

    One row per pair x task x quantity, and of accuracy one of task `all`, the mean over tasks of
    each draw: `params, tokens, flops` (6ND), `task, quantity, mean, sd`, the quantiles of
    `forecast_table`, `decades` (of compute beyond the largest rung; negative inside the ladder),
    `supported` (whether `forecast` would not warn of the distance, or of rungs on one line) and
    `converged` (1 or 0, of the fit). Raises ValueError for sizes and lengths that are not positive,
    or 100 times below every rung.

    >>> table = lc.what_if(fitted, params=[1e9, 7e9])
    """
    sizes, draws = as_sizes(params), whole(draws)
    lengths = None if tokens is None else as_sizes(tokens)
    wrong = [
        f"{name} {values}"
        for name, values in ((c.PARAMS, sizes), (c.TOKENS, lengths))
        if values is not None
        and not (values and all(isinstance(x, float) and 1 <= x < np.inf for x in values))
    ]
    if not is_whole(draws):
        wrong.append(f"draws {draws}")
    if wrong:
        raise ValueError(f"{'; '.join(wrong)}: give one or more finite numbers of at least 1")
    check_one_recipe(recipes_of(fitted), "a what-if")
    rungs = rungs_of(fitted)
    if lengths is None:
        longest = (rungs[c.TOKENS] / rungs[c.PARAMS]).max() * max(sizes)
        most = max(longest, rungs[c.TOKENS].max())
        lengths = np.geomspace(rungs[c.TOKENS].min(), most, TOKENS_POINTS).tolist()
    pairs = [(round(n), round(d)) for n in sizes for d in lengths]
    grid = pd.DataFrame(list(dict.fromkeys(pairs)), columns=[c.PARAMS, c.TOKENS])
    grid.index = pd.Index([f"what-if-{n}" for n in range(len(grid))])  # as no rung is called
    table = expected_table(fitted, grid, route=route, draws=draws, seed=seed)
    table = table.drop(columns=c.MODEL)
    table.insert(2, c.FLOPS, flops(table[c.PARAMS], table[c.TOKENS]))
    table["decades"], supported = distance(rungs, table)
    table["supported"] = supported & ~off_line(line_through(points_of(fitted)), table)
    table["converged"] = int(bool(converged(fitted)))
    return table


def expected_table(
    fitted: xr.DataTree,
    runs: pd.DataFrame,
    *,
    route: Route | Sequence[Route] = (),
    draws: int,
    seed: int = 0,
) -> pd.DataFrame:
    """`forecast_table` of what each run would get without checkpoint noise, with task `all`.

    `runs` has `params, tokens`, maybe `recipe`, and is named by its index; losses have no mean over
    tasks. Does not warn of distance or convergence.
    """
    found = forecast_of_runs(fitted, runs, route=route, draws=draws, seed=seed)
    average = forecast_table(mean_over_tasks(found))
    tables = [forecast_table(found), average[average["quantity"] == c.ACCURACY]]
    return pd.concat(tables, ignore_index=True).drop(columns="measured")


def forecast_of_runs(
    fitted: xr.DataTree,
    runs: pd.DataFrame,
    *,
    route: Route | Sequence[Route] = (),
    draws: int,
    seed: int = 0,
) -> xr.DataTree:
    """The forecast of what each run would get without checkpoint noise; arguments and warnings as
    `expected_table`.
    """
    words = [word for word in (c.PARAMS, c.TOKENS, c.RECIPE) if word in runs]
    targets = runs[words].assign(
        **{c.MODEL: runs.index.astype(str), c.CHECKPOINTS: MANY_CHECKPOINTS}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FarTargetWarning)
        # Few draws may warn; whether the fit has converged is known.
        warnings.simplefilter("ignore", NotConvergedWarning)
        return forecast(thinned(fitted, draws), targets, route=route, seed=seed)


def distance(rungs: pd.DataFrame, targets: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Decades of compute beyond the largest rung, and whether a ladder supports that far.

    Both tables have `params, tokens`. The limits are those beyond which `forecast` warns.
    """
    decades = decades_beyond(rungs, targets)
    return decades, (decades <= FAR_DECADES) & ~unlike_length(rungs, targets)


def thinned(fitted: xr.DataTree, draws: int) -> xr.DataTree:
    """The fit with about `draws` of its draws, evenly from each chain."""

    def thin(data: xr.Dataset) -> xr.Dataset:
        if "draw" not in data.dims:
            return data
        length = data.sizes["draw"]
        count = min(length, -(-draws // data.sizes.get("chain", 1)))
        return data.isel(draw=np.linspace(0, length - 1, count).astype(int))

    tree = fitted.map_over_datasets(thin)
    tree.attrs.update(fitted.attrs)
    return tree

"""What more questions would buy: narrower forecasts, as runs tell their accuracy better."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from laddercast.data import words as c
from laddercast.data.checks import check_one_recipe
from laddercast.data.ladder import read_targets
from laddercast.data.settings import as_list, as_number
from laddercast.decisions.measurements import Drawn, drawn_from_fit, told_of
from laddercast.decisions.regression import halves_of, left, with_measured
from laddercast.forecasting.forecasts import models_of
from laddercast.inference.results import recipes_of, routes_of, rungs_of, tasks_of
from laddercast.model.design import DEFAULT_ITEMS
from laddercast.model.routes import Route
from laddercast.sampling.threads import one_blas_thread

MOST_RUNGS = 32
"""Rungs that are asked again, those of most compute: of a larger ladder the gain is at least so."""

FEW_DRAWS = 200
"""Enough for the variance of noise, which draws hardly differ in."""

Z80 = 1.2815515655446004
"""Half the width of a normal 80 % interval, in SDs."""


def more_items(
    fitted: xr.DataTree,
    targets: str | Path | pd.DataFrame,
    *,
    times: Sequence[float] | float = (2, 4, 10),
    route: Route | Sequence[Route] = (),
    draws: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """What so many times as many questions would buy: the width of 80 % intervals, per task.

    `targets` as `read_targets` takes them. The target is thought of as measured with `times` as
    many questions, and each rung of the ladder as asked `times - 1` as many new ones. One row a
    target, task and number of times: `model, params, tokens, task, times, items` (questions then,
    of 1000 now where that is not known), `width80_now`, `width80_target` (the target alone has
    more), `width80` (the ladder, too), in points, as of normal distributions, and
    `equivalent_items`, p (1 - p) over the variance of the forecast now: so many questions would be
    as uncertain by themselves. `draws` and `route` as `plan_rungs` takes them. Raises ValueError
    for a fit without accuracies, and for `times` that are not above 1.

    >>> lc.more_items(fitted, targets, times=[4])
    """
    wanted, times = read_targets(targets), [as_number("times", k) for k in as_list(times)]
    check_one_recipe(recipes_of(fitted), "the worth of more questions")
    if not times or not all(np.isfinite(k) and k > 1 for k in times):
        raise ValueError(f"times={times}: give numbers above 1")
    if not all(c.ACCURACY in own["log_likelihood"] for own in routes_of(fitted).values()):
        raise ValueError("the fit has no accuracies: no question was asked that more could add to")
    rungs = rungs_of(fitted)
    largest = (rungs[c.PARAMS] * rungs[c.TOKENS]).nlargest(MOST_RUNGS).index
    again = rungs.loc[largest].rename_axis(c.MODEL).reset_index()

    def drawn(k: float, count: int | None) -> dict[str, Drawn]:
        asked = _with_items(fitted, k)
        return drawn_from_fit(asked, again, wanted, route=route, draws=count, seed=seed)

    noise = {k: _noise(drawn(k, FEW_DRAWS)) for k in (1, *times)}
    parts = [_rows(drawn(k - 1, draws), noise[1], noise[k], fitted, wanted, k) for k in times]
    table = pd.concat(parts, ignore_index=True)
    order = [c.MODEL, c.TASK, "times"]
    known = {word: dict.fromkeys(table[word]) for word in order}
    place = [pd.Categorical(table[word], list(known[word])).codes for word in order]
    return table.iloc[np.lexsort(place[::-1])].reset_index(drop=True)


def _with_items(fitted: xr.DataTree, times: float) -> xr.DataTree:
    """The fit with so many times as many questions of each task."""
    tree = fitted.copy()
    for own in routes_of(tree).values():
        constant = own["constant_data"].to_dataset()
        items = constant[c.ITEMS].astype(float).fillna(DEFAULT_ITEMS)
        own["constant_data"] = xr.DataTree(constant.assign({c.ITEMS: times * items}))
    return tree


def _noise(drawn: Mapping[str, Drawn]) -> np.ndarray:
    """Variance (targets, tasks) of the targets' noise, over routes."""
    return np.asarray(np.mean([own.noise for own in drawn.values()], axis=0))


def _rows(
    drawn: Mapping[str, Drawn], noise_now: np.ndarray, noise: np.ndarray, fitted: xr.DataTree,
    targets: pd.DataFrame, times: float,
) -> pd.DataFrame:  # fmt: skip
    """Rows of one number of times, of targets by tasks."""
    tasks, models = tasks_of(fitted), models_of(targets)
    means = np.array([own.target.mean(axis=0) for own in drawn.values()])
    between = means.var(axis=0)
    known = np.mean([own.target.var(axis=0) for own in drawn.values()], axis=0)
    with one_blas_thread():
        then = np.mean([_left(own) for own in drawn.values()], axis=0)
    p, before = means.mean(axis=0) / 100, known + between + noise_now
    rows = models[[c.MODEL, c.PARAMS, c.TOKENS]].merge(
        pd.DataFrame({c.TASK: list(tasks.index)}), how="cross"
    )
    items = tasks[c.ITEMS].fillna(DEFAULT_ITEMS).to_numpy()
    values = {
        "width80_now": 2 * Z80 * np.sqrt(before),
        "width80_target": 2 * Z80 * np.sqrt(known + between + noise),
        "width80": 2 * Z80 * np.sqrt(then + between + noise),
        "equivalent_items": 100**2 * p * (1 - p) / before,
    }
    rows["times"], rows[c.ITEMS] = times, np.tile(times * items, len(models))
    return rows.assign(**{name: value.ravel() for name, value in values.items()})


def _left(drawn: Drawn) -> np.ndarray:
    """Variance (targets, tasks) of what is expected of targets, once rungs were asked again.

    Their losses are measured anew, too, but count as known before: what is told is what accuracies
    add to them.
    """
    found = np.empty(drawn.target.shape[1:])
    for i in range(found.shape[1]):
        of_loss, of_accuracy = (told_of(x, i) for x in (drawn.loss, drawn.accuracy))
        first, rungs = of_loss.shape[-1] > 0, of_accuracy.shape[1]
        wide = max(of_loss.shape[-1], of_accuracy.shape[-1])
        x = [
            np.pad(part, [(0, 0), (0, 0), (0, wide - part.shape[-1])])
            for part in ([of_loss] if first else []) + [of_accuracy]
        ]
        halves = halves_of(np.concatenate(x, axis=1), drawn.target[..., i])
        start = left(halves)
        if first:
            for rung in range(rungs):
                halves = with_measured(halves, rung)
        before = left(halves)
        for rung in range(rungs):
            halves = with_measured(halves, rung + (rungs if first else 0))
        found[:, i] = start * np.minimum(left(halves) / before, 1.0)
    return found

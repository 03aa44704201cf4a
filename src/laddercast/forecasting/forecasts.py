"""Forecasts of targets from a saved fit: the joint posterior predictive over all tasks."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from numpyro import handlers

from laddercast.data import words as c
from laddercast.data.cautions import (
    FarTargetWarning,
    NotConvergedWarning,
    OffLineWarning,
    warn,
)
from laddercast.data.ladder import read_targets
from laddercast.data.lines import line_through, off_line
from laddercast.data.sources import Table
from laddercast.data.targets import check_targets
from laddercast.forecasting.pools import pool
from laddercast.inference.results import (
    complaints_of,
    frame_of,
    known_routes,
    mark,
    own_draws,
    points_of,
    recipes_of,
    routes_of,
    rungs_of,
    tasks_of,
    with_complaints,
)
from laddercast.model.design import SITES, Design, Observed, in_few_shapes, target_design
from laddercast.model.discrepancy import BEYOND, INTERVAL
from laddercast.model.priors import Priors
from laddercast.model.routes import Route
from laddercast.sampling.chains import on_device
from laddercast.sampling.programs import in_batches

FAR_DECADES = 3.0
"""A target further beyond the largest rung, in decades of compute, is forecast with a warning."""
FAR_TOKENS_PER_PARAM = 10.0
"""So is one with tokens per parameter beyond this many times the ladder's range."""

LEVELS = ("law", "discrepancy", c.ACCURACY)
"""Sites of one forecast of accuracy, each with more sources of variance than the one before."""

NOISE = ("run", "checkpoint")


def forecast(
    fitted: xr.DataTree,
    targets: Table,
    *,
    weights: Mapping[str, float] | None = None,
    route: Route | Sequence[Route] = (),
    seed: int = 0,
) -> xr.DataTree:
    """The distribution of each target's loss and accuracy, jointly over tasks and targets.

    `targets` as `read_targets` takes them. A fit of several routes gives their pool, with `weights`
    by route as `pool` takes them, and the forecast of each as a child of its name. Of a fit of your
    own routes, give these as `route`. Group `predictions`: `loss`, `accuracy` (chain, draw, row),
    with coordinates `model, task, params, tokens, checkpoints` on row and `route` on draw; group
    `variance`: where that of each accuracy comes from (points squared): `law` (as the ladder bends
    it), `discrepancy` (beyond the ladder), `run`, `checkpoint`, `route` (between routes), and
    `total`; group `measured`, where targets were. Loss is that of the task where a route has it; a
    route to losses alone gives no accuracy and no group `variance`. Warns of targets beyond what
    the ladder supports, and where draws cannot be trusted.
    Raises ValueError as `read_targets` does, and for targets that cannot be meant: of other tasks,
    100 times below every rung, or of a rung's name and another size.

    >>> forecast = lc.forecast(fitted, targets)
    >>> forecast["predictions"]["accuracy"].mean(("chain", "draw"))
    """
    table = of_recipes(read_targets(targets), recipes_of(fitted))
    check_targets(table, rungs_of(fitted), tasks_of(fitted).index)
    models = models_of(table)
    warn_of_far_targets(fitted, models)
    routes = routes_of(fitted)
    known = known_routes(routes, route)
    each = [_forecast(known[name], own, table, models, seed) for name, own in routes.items()]
    tree = pool(each, weights)
    for name, own in routes_of(tree).items():
        with_complaints(own, complaints_of(routes[name]))
        own.attrs["settings"] = routes[name].attrs["settings"]
    attrs = {word: tree.attrs[word] for word in ("routes", "route", "loss")}
    tree.attrs |= fitted.attrs | attrs | {"forecast_seed": seed}
    return mark(tree, "the forecast")


def forecast_of_laws(
    fitted: xr.DataTree,
    targets: pd.DataFrame,
    *,
    route: Route | Sequence[Route] = (),
    seed: int = 0,
) -> xr.DataTree:
    """What `forecast` gives, but for all that is of one size, run or checkpoint: laws and walks.

    A choice among sizes is made by these, as nobody can choose a size for its luck. `targets` have
    `model, params, tokens`. Draws belong together with those of `forecast` of the same targets from
    the same seed. Group `predictions` alone; does not warn.
    """
    routes, models = routes_of(fitted), models_of(targets)
    known = known_routes(routes, route)
    each = [
        _forecast(known[name], own, targets, models, seed, noise=False)
        for name, own in routes.items()
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)
        tree = pool(each)
    return xr.DataTree.from_dict({"predictions": tree["predictions"].to_dataset()})


def _forecast(
    route: Route,
    fitted: xr.DataTree,
    table: pd.DataFrame,
    models: pd.DataFrame,
    seed: int,
    *,
    noise: bool = True,
) -> xr.DataTree:
    """The forecast of one route; without `noise`, sizes have no deviations of their own either."""
    tasks = tasks_of(fitted)
    design, rows = target_design(models, tasks, frame_of(fitted), of_sizes=noise)
    sizes = fitted["posterior"].sizes
    chains, length = sizes["chain"], sizes["draw"]
    try:
        sites = sites_of(_predict(route.model, noise), fitted, design, seed)
    except LookupError as error:
        if type(error) is not LookupError:
            raise
        by = json.loads(fitted.root.attrs.get("versions", "{}")).get("laddercast", "unknown")
        raise ValueError(
            f"this fit of {route.name} lacks {error}: it was made by release {by} of laddercast, "
            f"or with another model than this one ({version('laddercast')}); fit again"
        ) from None

    def of_rows(site: str) -> np.ndarray:
        """(chains, draws, rows) of (all draws, models, tasks), or one task for all."""
        value = np.broadcast_to(sites[site], (chains * length, len(models), len(tasks)))
        return value.reshape(chains, length, -1)

    coords = {
        word: ("row", rows[word].to_numpy()) for word in (c.MODEL, c.TASK, c.PARAMS, c.TOKENS)
    }
    coords[c.CHECKPOINTS] = ("row", rows[c.CHECKPOINTS].to_numpy())
    if c.RECIPE in rows:
        coords[c.RECIPE] = ("row", rows[c.RECIPE].to_numpy().astype(str))
    dims = ("chain", "draw", "row")
    levels, variances = {}, {}
    if c.ACCURACY in sites:
        levels = {level: np.clip(of_rows(level), 0.0, 1.0) for level in LEVELS}
        variances = {source: of_rows(f"{source}_variance") for source in NOISE}
    variables = {c.ACCURACY: (dims, levels[c.ACCURACY])} if levels else {}
    losses = c.LOSS, c.REFERENCE_LOSS
    loss = next((quantity for quantity in losses if SITES[quantity] in sites), "")
    if loss:
        variables[c.LOSS] = (dims, np.exp(of_rows(SITES[loss])))
    predictions = xr.Dataset(
        variables,
        coords=coords | {"chain": np.arange(chains), "draw": np.arange(length)},
    ).assign_coords(route=("draw", np.repeat(route.name, length)))
    groups = {"predictions": predictions}
    if levels:
        groups["variance"] = _variance(levels, variances, coords)
    measured = _measured(table, rows, loss or c.LOSS)
    if measured is not None:
        groups["measured"] = measured.assign_coords(coords)
    truth = _truth(table, rows)
    if truth is not None:
        groups["truth"] = truth.assign_coords(coords)
    tree = xr.DataTree.from_dict(groups)
    tree.attrs |= {"route": route.name, "loss": loss, "forecast_seed": seed}
    return tree


def sites_of(
    one: Callable[..., dict[str, Any]], fitted: xr.DataTree, own: Design, seed: int
) -> dict[str, np.ndarray]:
    """Sites (all draws, models, tasks or 1) that `one` makes of each draw of one route's fit.

    `one` takes a pair of a key and a draw, the design, as `target_design` gives it, in an array of
    few sizes, and priors that it does not need.
    """
    design = in_few_shapes(own)
    posterior = fitted["posterior"].to_dataset()
    draws = own_draws(posterior)
    flat = {site: value.reshape(-1, *value.shape[2:]) for site, value in draws.items()}
    for site, value in flat.items():
        if INTERVAL in posterior[site].dims:
            more = design.walk.shape[1] - value.shape[1]
            flat[site] = np.pad(value, [(0, 0), (0, more), (0, 0)][: value.ndim])
    count = posterior.sizes["chain"] * posterior.sizes["draw"]
    with on_device(jax.devices("cpu")[0]):
        keys = jax.random.split(jax.random.key(seed), count)
        placed = jax.tree.map(jnp.asarray, design)
        found = in_batches(one, (keys, flat), placed, Priors())
    return {site: x[:, : len(own.end)] for site, x in found.items()}


@cache
def _predict(model: Callable[..., None], noise: bool) -> Callable[..., dict]:
    def one(pair: tuple, design: object, priors: Priors) -> dict:
        key, draw = pair
        # Seeded first: with noise or without, a site has the same key, and so the same draw.
        given = handlers.seed(model, key)
        if not noise:
            given = handlers.substitute(given, substitute_fn=_without_noise)
        given = handlers.substitute(given, data=draw)
        sites = handlers.trace(given).get_trace(design, priors, Observed())
        # What a fit does not have would be drawn from its prior, and nobody would know.
        if lacking := [name for name, site in sites.items() if name not in draw and _of_fit(site)]:
            raise LookupError(", ".join(lacking))
        wanted = (*SITES.values(), *LEVELS, *(f"{source}_variance" for source in NOISE))
        return {name: sites[name]["value"] for name in wanted if name in sites}

    return one


def _of_fit(site: dict) -> bool:
    """Whether a site is known from a fit: no new run, nothing that is measured, no step beyond."""
    new = {frame.name for frame in site["cond_indep_stack"]} & {c.MODEL, BEYOND}
    return site["type"] == "sample" and site["name"] not in SITES.values() and not new


def _without_noise(site: dict) -> Any:
    """The value of a site of runs or measurements that adds nothing to what was expected of it."""
    if site["type"] != "sample":
        return None
    if site["name"] in SITES.values():
        return site["fn"].loc
    of_runs = c.MODEL in {frame.name for frame in site["cond_indep_stack"]}
    return jnp.zeros(site["fn"].shape()) if of_runs else None


def models_of(table: pd.DataFrame) -> pd.DataFrame:
    """One row per target: `model, params, tokens, checkpoints`."""
    ends = table.sort_values(c.TOKENS).groupby(c.MODEL, sort=False).tail(1)
    ends = ends.sort_values([c.PARAMS, c.TOKENS], kind="stable")
    checkpoints = table.groupby(c.MODEL)[c.CHECKPOINTS].max() if c.CHECKPOINTS in table else None
    words = [c.MODEL, c.PARAMS, c.TOKENS, *([c.RECIPE] if c.RECIPE in table else [])]
    result = ends[words].reset_index(drop=True)
    result[c.CHECKPOINTS] = 1.0 if checkpoints is None else result[c.MODEL].map(checkpoints)
    return result


def of_recipes(targets: pd.DataFrame, recipes: list[str]) -> pd.DataFrame:
    """The targets with a recipe each: one that has none is a target of each, by both names.

    Raises ValueError for a recipe that is not among these, if there are any.
    """
    if not recipes:
        return targets.drop(columns=c.RECIPE, errors="ignore")
    if c.RECIPE not in targets:
        targets = targets.assign(**{c.RECIPE: None})
    given = targets[c.RECIPE].notna()
    if unknown := sorted(set(targets.loc[given, c.RECIPE].astype(str)) - set(recipes)):
        raise ValueError(
            f"targets: the fit has no recipe {', '.join(unknown)}; its recipes are "
            f"{', '.join(recipes)}"
        )
    each = targets[~given].drop(columns=c.RECIPE)
    each = each.merge(pd.DataFrame({c.RECIPE: recipes}), how="cross")
    each[c.MODEL] = each[c.MODEL].astype(str) + " " + each[c.RECIPE]
    return pd.concat([targets[given], each], ignore_index=True)


def _variance(
    levels: dict[str, np.ndarray], noise: dict[str, np.ndarray], coords: dict
) -> xr.Dataset:
    """Variance of the accuracy forecast in points squared, by source."""
    points = {name: 100 * value.reshape(-1, value.shape[-1]) for name, value in levels.items()}
    parts = {"law": points["law"].var(axis=0)}
    parts["discrepancy"] = ((points["discrepancy"] - points["law"]) ** 2).mean(axis=0)
    parts |= {name: 100**2 * value.mean(axis=(0, 1)) for name, value in noise.items()}
    parts["total"] = points[c.ACCURACY].var(axis=0)
    return xr.Dataset({name: ("row", value) for name, value in parts.items()}, coords=coords)


def _measured(table: pd.DataFrame, rows: pd.DataFrame, loss: str) -> xr.Dataset | None:
    return _of_rows(table, rows, {loss: c.LOSS, c.ACCURACY: c.ACCURACY})


def _truth(table: pd.DataFrame, rows: pd.DataFrame) -> xr.Dataset | None:
    """What the laws of simulated targets give, as `simulate` tells it."""
    return _of_rows(table, rows, {f"law_{word}": word for word in (c.LOSS, c.ACCURACY)})


def _of_rows(table: pd.DataFrame, rows: pd.DataFrame, names: dict[str, str]) -> xr.Dataset | None:
    """Columns of the targets' table for each row of the forecast, under other names."""
    found = [word for word in names if word in table]
    if c.TASK not in table or not found:
        return None
    joined = rows[[c.MODEL, c.TASK]].merge(
        table[[c.MODEL, c.TASK, *found]], on=[c.MODEL, c.TASK], how="left"
    )
    return xr.Dataset({names[word]: ("row", joined[word].to_numpy(float)) for word in found})


def decades_beyond(rungs: pd.DataFrame, targets: pd.DataFrame) -> np.ndarray:
    """Decades of compute of each target beyond the largest rung; both have `params, tokens`."""
    compute = np.log10(targets[c.PARAMS].to_numpy(float) * targets[c.TOKENS].to_numpy(float))
    return np.asarray(compute - np.log10(rungs[c.PARAMS] * rungs[c.TOKENS]).max())


def unlike_length(rungs: pd.DataFrame, targets: pd.DataFrame) -> np.ndarray:
    """Whether each target's tokens per parameter lie too far beyond the range of the rungs."""
    ratio = rungs[c.TOKENS] / rungs[c.PARAMS]
    own = targets[c.TOKENS].to_numpy(float) / targets[c.PARAMS].to_numpy(float)
    most, least = FAR_TOKENS_PER_PARAM * ratio.max(), ratio.min() / FAR_TOKENS_PER_PARAM
    return np.asarray((own > most) | (own < least))


def warn_of_far_targets(fitted: xr.DataTree, models: pd.DataFrame) -> None:
    """Warn of each target that lies beyond what the ladder supports."""
    rungs = rungs_of(fitted)
    ratio = rungs[c.TOKENS] / rungs[c.PARAMS]
    far = decades_beyond(rungs, models), unlike_length(rungs, models)
    for target, decades, unlike in zip(models.itertuples(), *far, strict=True):
        if decades > FAR_DECADES:
            warn(
                f"target {target.model} lies {decades:.1f} decades of compute beyond the largest "
                f"rung; beyond {FAR_DECADES:g} a ladder says little",
                FarTargetWarning,
            )
        if unlike:
            warn(
                f"target {target.model} has {target.tokens / target.params:.3g} tokens per "
                f"parameter, the ladder {ratio.min():.3g} to {ratio.max():.3g}; beyond "
                f"{FAR_TOKENS_PER_PARAM:g} times that range a ladder says little",
                FarTargetWarning,
            )
    line = line_through(points_of(fitted))
    for target in models[off_line(line, models)].itertuples():
        warn(
            f"target {target.model} lies off the line of the ladder ({line}): what that changes "
            "rests on the priors, not on data",
            OffLineWarning,
        )


def predictions(forecast: xr.DataTree) -> xr.Dataset:
    """The group `predictions`, to be selected by model and task.

    Dimension `row` has both as levels of one index. NetCDF cannot hold such an index, so that the
    forecast itself has plain coordinates.

    >>> lc.predictions(forecast).sel(model="made-up-7B", task="piqa")["accuracy"]
    """
    data = forecast["predictions"].to_dataset()
    names = {word: ("row", data[word].to_numpy().astype(str)) for word in (c.MODEL, c.TASK)}
    return data.assign_coords(names).set_xindex([c.MODEL, c.TASK])


def forecast_table(forecast: xr.DataTree) -> pd.DataFrame:
    """One row per model x task x quantity: moments, quantiles, and what was measured.

    With `recipe` where the fit has several.

    >>> lc.forecast_table(forecast).to_csv("forecast.csv", index=False)
    """
    predictions = forecast["predictions"].to_dataset()
    more = [c.RECIPE] if c.RECIPE in predictions.coords else []
    words, parts = [c.MODEL, c.PARAMS, c.TOKENS, c.TASK, *more], []
    for quantity in (c.LOSS, c.ACCURACY):
        if quantity not in predictions:
            continue
        draws = predictions[quantity].to_numpy().reshape(-1, predictions.sizes["row"])
        part = pd.DataFrame({word: predictions[word].to_numpy() for word in words})
        part["quantity"] = quantity
        part["mean"], part["sd"] = draws.mean(axis=0), draws.std(axis=0)
        for name, level in c.QUANTILES.items():
            part[name] = np.quantile(draws, level, axis=0)
        known = "measured" in forecast.children and quantity in forecast["measured"]
        part["measured"] = forecast["measured"][quantity].to_numpy() if known else np.nan
        parts.append(part)
    return pd.concat(parts, ignore_index=True)[[*c.FORECAST_COLUMNS, *more]]

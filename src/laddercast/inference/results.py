"""The result of a fit as a DataTree: what it holds, and what a forecast reads of it."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from arviz_base import dict_to_dataset, from_dict
from numpyro import handlers

from laddercast.data import words as c
from laddercast.data.cautions import NotConvergedWarning, warn
from laddercast.model.design import SITES, Design, Frame, Labels, Observed, cells
from laddercast.model.discrepancy import INTERVAL
from laddercast.model.priors import Priors
from laddercast.model.routes import ROUTES, Route
from laddercast.sampling.density import is_latent
from laddercast.sampling.diagnostics import Complaint, summary
from laddercast.sampling.nuts import Samples
from laddercast.sampling.programs import in_batches

POINT, COMPLAINTS = "point", "complaints"


def as_tree(
    route: Route,
    samples: Samples,
    priors: Priors,
    padded: tuple[Design, Observed],
    *,
    design: Design,
    observed: Observed,
    labels: Labels,
    frame: Frame,
    tasks: pd.DataFrame,
    runs: pd.DataFrame,
) -> xr.DataTree:
    """The DataTree of a route's draws (chains, draws, ...); `runs` has one row per model.

    Draws are of `padded` arrays: the design's own part of them is kept.
    """
    model, task = np.array(labels.model), np.array(labels.task)
    length = {c.MODEL: len(model), c.TASK: len(task), INTERVAL: design.walk.shape[1]}

    def own_part(dims: tuple[str | None, ...]) -> Any:
        return (..., *(slice(length.get(str(dim))) for dim in dims))

    posterior = {name: x[own_part(samples.dims[name])] for name, x in samples.values.items()}
    dims: dict[str, list[Any]] = {name: list(own) for name, own in samples.dims.items()}
    derived = route.letters(posterior, frame, tasks[c.CHANCE].to_numpy(float))
    dims |= {name: [c.TASK] for name, x in derived.items() if x.shape[2:] == (len(task),)}
    if labels.recipe:
        both = len(labels.recipe), len(task)
        dims |= {name: [c.RECIPE, c.TASK] for name, x in derived.items() if x.shape[2:] == both}
    log_likelihood, log_prior = _densities(route, samples.values, (padded[0], priors, padded[1]))
    points = {
        f"point_{c.MODEL}": (POINT, model[design.run]),
        f"point_{c.TOKENS}": (POINT, np.exp(design.log_tokens) * frame.tokens),
    }
    data, of_data = observed_data(design, observed, list(log_likelihood))
    constant = {
        c.CHANCE: (c.TASK, tasks[c.CHANCE]), c.ITEMS: (c.TASK, tasks[c.ITEMS]),
        c.PARAMS: (c.MODEL, runs[c.PARAMS]), c.TOKENS: (c.MODEL, runs[c.TOKENS]),
    }  # fmt: skip
    tree = from_dict(
        {
            "posterior": posterior | derived,
            "sample_stats": samples.stats,
            "observed_data": data,
            "constant_data": {name: np.asarray(value) for name, (_, value) in constant.items()},
        },
        coords={c.MODEL: model, c.TASK: task, INTERVAL: np.arange(length[INTERVAL])}
        | ({c.RECIPE: np.array(labels.recipe)} if labels.recipe else {}),
        dims=dims | of_data | {name: [dim] for name, (dim, _) in constant.items()},
        check_conventions=False,
    )
    tree["observed_data"] = xr.DataTree(tree["observed_data"].to_dataset().assign_coords(points))
    if labels.recipe:
        of_run = np.array(labels.recipe)[design.recipe[design.end]]
        constant_data = tree["constant_data"].to_dataset()
        tree["constant_data"] = xr.DataTree(
            constant_data.assign_coords({f"{c.MODEL}_{c.RECIPE}": (c.MODEL, of_run)})
        )
    # A site's log prior is one number a draw, whatever dimensions the site itself has.
    tree["log_prior"] = xr.DataTree(
        dict_to_dataset(log_prior, sample_dims=["chain", "draw"], check_conventions=False)
    )
    tree["log_likelihood"] = xr.DataTree(_of_cells(log_likelihood, design, model, task))
    if samples.complaints:
        tree[COMPLAINTS] = xr.DataTree(_as_dataset(samples.complaints))
    for own in tree.children.values():
        own.attrs.pop("created_at", None)  # the same fit is the same file
    tree.attrs["route"] = route.name
    tree.attrs["frame"] = json.dumps(frame._asdict())
    return tree


def observed_data(
    design: Design, observed: Observed, quantities: list[str]
) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """What was measured, NaN elsewhere, and its dimensions: values at points, spreads of runs."""
    data: dict[str, np.ndarray] = {}
    dims: dict[str, list[str]] = {}
    for quantity in quantities:
        seen = getattr(design, quantity)
        last = [] if quantity == c.REFERENCE_LOSS else [c.TASK]
        value = getattr(observed, SITES[quantity])
        value = np.exp(value) if SITES[quantity] != quantity else value
        value = np.where(seen.at, value, np.nan)
        spread = np.where(seen.spread_dof > 0, getattr(observed, f"{quantity}_spread"), np.nan)
        data |= {
            quantity: value if last else value[:, 0],
            f"{quantity}_spread": spread if last else spread[:, 0],
        }
        dims |= {quantity: [POINT, *last], f"{quantity}_spread": [c.MODEL, *last]}
    return data, dims


def _densities(
    route: Route, values: dict[str, np.ndarray], args: tuple[Any, ...]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Log likelihoods by quantity (chains, draws, runs, tasks or 1), log priors by site."""
    own = next(iter(values.values())).shape[:2]
    flat = {name: x.reshape(-1, *x.shape[2:]) for name, x in values.items()}
    found = in_batches(_densities_of(route.model), flat, args)
    likelihood, prior = jax.tree.map(lambda x: x.reshape(*own, *x.shape[1:]), found)
    return likelihood, prior


@cache
def _densities_of(model: Callable[..., None]) -> Callable[..., tuple[dict, dict]]:
    def one(values: dict[str, Any], args: tuple[Any, ...]) -> tuple[dict, dict]:
        put = handlers.substitute(handlers.seed(model, jax.random.key(0)), data=values)
        trace = handlers.trace(put).get_trace(*args)
        prior = {
            name: jnp.sum(site["fn"].log_prob(site["value"]))
            for name, site in trace.items()
            if is_latent(site)
        }
        # Conditional on its effect, every run would seem to be predicted as well as its
        # checkpoints allow, and leave-one-out comparisons would be blind to the laws.
        likelihood = {
            quantity: trace[name]["fn"].by_run(trace[name]["value"])
            for quantity, name in SITES.items()
            if name in trace
        }
        return likelihood, prior

    return one


def _of_cells(
    log_likelihood: dict[str, np.ndarray], design: Design, model: np.ndarray, task: np.ndarray
) -> xr.Dataset:
    """Log likelihoods of what was measured, a number a draw and cell: "model, task" or "model"."""
    variables: dict[str, Any] = {}
    coords: dict[str, Any] = {}
    for quantity, value in log_likelihood.items():
        run, column = np.nonzero(cells(design, quantity))
        cell, common = f"{quantity}_cell", quantity == c.REFERENCE_LOSS
        # Two cells of different kinds share a dataset, so each has a coordinate of its own.
        if len(run) == value[0, 0].size:
            kept = value.reshape(*value.shape[:2], -1)  # of many tasks, a copy is large
        else:
            kept = value[..., run, column]
        variables[quantity] = (("chain", "draw", cell), kept)
        # One label, as an index: ArviZ stacks cells of all kinds for prior sensitivity.
        names = (
            model[run]
            if common
            else [", ".join(x) for x in zip(model[run], task[column], strict=True)]
        )
        coords[cell] = (cell, np.asarray(names))
    chains, draws = value.shape[:2]
    coords |= {"chain": np.arange(chains), "draw": np.arange(draws)}
    return xr.Dataset(variables, coords=coords)


def _as_dataset(found: list[Complaint]) -> xr.Dataset:
    columns = {
        name: ("complaint", [own[i] for own in found]) for i, name in enumerate(Complaint._fields)
    }
    return xr.Dataset(columns)


def with_complaints(tree: xr.DataTree, found: list[Complaint]) -> xr.DataTree:
    """The tree with a group `complaints`, if there are any."""
    if found:
        tree[COMPLAINTS] = xr.DataTree(_as_dataset(found))
    return tree


def complaints_of(tree: xr.DataTree) -> list[Complaint]:
    """Why the draws of one route, or of a forecast, cannot be trusted."""
    if COMPLAINTS not in tree.children:
        return []
    table = tree[COMPLAINTS].to_dataset().to_dataframe()
    return [Complaint(*row) for row in table[list(Complaint._fields)].itertuples(index=False)]


def diagnose(tree: xr.DataTree) -> pd.DataFrame:
    """Why the draws of a fit or a forecast cannot be trusted, a row a reason.

    Columns: `route` (empty for the pool of a forecast), `site` (empty for all draws), `measure`,
    `value` of the worst element, `limit` that it does not keep. Empty if all has converged.

    >>> reasons = lc.diagnose(fitted)
    """
    of = {name: complaints_of(own) for name, own in routes_of(tree).items()}
    rows = [(name, *own) for name, found in of.items() for own in found]
    rows += [("", *own) for own in complaints_of(tree)]
    return pd.DataFrame(rows, columns=["route", *Complaint._fields])


def mark(tree: xr.DataTree, what: str) -> xr.DataTree:
    """Record convergence in the attributes; warn where it failed."""
    found = {name: complaints_of(own) for name, own in routes_of(tree).items()}
    for name, own in routes_of(tree).items():
        own.attrs |= {"converged": int(not found[name]), "complaints": summary(found[name])}
    texts = [f"{name}: {summary(own)}" for name, own in found.items() if own]
    texts += [text for text in [summary(complaints_of(tree))] if text]
    tree.attrs |= {"converged": int(not texts), "complaints": "; ".join(texts)}
    if texts:
        warn(
            f"{what} has not converged ({'; '.join(texts)}; all reasons: `lc.diagnose`). "
            "Do not rely on it; give more warmup or draws, or more rungs",
            NotConvergedWarning,
        )
    return tree


def converged(tree: xr.DataTree) -> bool | None:
    """Whether a fit or forecast has converged; None where it does not say, as of a damaged file."""
    found = tree.attrs.get("converged")
    return None if found is None else bool(found)


def routes_of(fitted: xr.DataTree) -> dict[str, xr.DataTree]:
    """The tree of each route of a fit or a forecast, by name; of a route's own tree, itself."""
    if "posterior" in fitted.children:
        return {str(fitted.attrs["route"]): fitted}
    return {str(name): own for name, own in fitted.children.items() if "route" in own.attrs}


def known_routes(names: Iterable[str], given: Route | Sequence[Route]) -> dict[str, Route]:
    """Routes by name: ours, and those given. Raises ValueError where a fit's is not among them."""
    known = ROUTES | {one.name: one for one in ([given] if isinstance(given, Route) else given)}
    if lacking := [name for name in names if name not in known]:
        raise ValueError(f"give the routes {', '.join(lacking)} as `route`: a fit has names alone")
    return known


def one_of(fitted: xr.DataTree) -> xr.DataTree:
    """A route's tree, for what all routes of a fit have alike. A route's own tree is one."""
    return fitted if "constant_data" in fitted.children else next(iter(routes_of(fitted).values()))


def frame_of(fitted: xr.DataTree) -> Frame:
    """Reference sizes of the ladder behind a fit, and where discrepancy is told."""
    return Frame(**json.loads(one_of(fitted).attrs["frame"]))


def tasks_of(fitted: xr.DataTree) -> pd.DataFrame:
    """`chance, items` of a fit's tasks, indexed by task."""
    return _constant(fitted, c.TASK, (c.CHANCE, c.ITEMS))


def rungs_of(fitted: xr.DataTree) -> pd.DataFrame:
    """`params, tokens` of the runs behind a fit, one row per model (its index).

    With `recipe` where there are several.
    """
    runs = _constant(fitted, c.MODEL, (c.PARAMS, c.TOKENS))
    of_run = one_of(fitted)["constant_data"].coords.get(f"{c.MODEL}_{c.RECIPE}")
    return runs if of_run is None else runs.assign(**{c.RECIPE: of_run.to_numpy().astype(str)})


def runs_measured(fitted: xr.DataTree, quantity: str = c.ACCURACY) -> pd.DataFrame:
    """A quantity at the ends of the runs behind a fit, a row for each model x task that has one.

    Columns: `model, params, tokens, task`, the quantity, and `recipe` where there are several.
    """
    for own in routes_of(fitted).values():
        data: Any = own["observed_data"] if "observed_data" in own.children else {}
        # `predictive` leaves measurements in cells: those of another route may be as they were.
        if quantity not in data or not {POINT, c.TASK} <= set(data[quantity].dims):
            continue
        points = pd.DataFrame(
            data[quantity].transpose(POINT, c.TASK).to_numpy(),
            columns=data[c.TASK].to_numpy().astype(str),
        ).assign(
            **{c.MODEL: data[f"point_{c.MODEL}"].to_numpy().astype(str)},
            at=data[f"point_{c.TOKENS}"].to_numpy(),
        )
        ends = points.sort_values("at", kind="stable").groupby(c.MODEL, sort=False).tail(1)
        long = ends.drop(columns="at").melt(c.MODEL, var_name=c.TASK, value_name=quantity)
        return long.dropna(subset=[quantity]).join(rungs_of(fitted), on=c.MODEL)
    return pd.DataFrame(columns=[c.MODEL, c.PARAMS, c.TOKENS, c.TASK, quantity])


def recipes_of(fitted: xr.DataTree) -> list[str]:
    """Names of the recipes that a fit tells apart; none where it has one."""
    runs = rungs_of(fitted)
    return sorted(runs[c.RECIPE].unique()) if c.RECIPE in runs else []


def points_of(fitted: xr.DataTree) -> pd.DataFrame:
    """`params, tokens` of the points that spoke for the laws of a fit: ends or checkpoints."""
    own, runs = one_of(fitted), rungs_of(fitted)
    words = [f"point_{word}" for word in (c.MODEL, c.TOKENS)]
    # `predictive` leaves measurements in cells: the ends of runs are known still.
    if "observed_data" not in own.children or not set(words) <= set(own["observed_data"].coords):
        return runs
    observed = own["observed_data"]
    model, tokens = (observed[word].to_numpy() for word in words)
    params = runs.loc[model.astype(str), c.PARAMS].to_numpy()
    return pd.DataFrame({c.PARAMS: params, c.TOKENS: tokens.astype(float)})


def _constant(fitted: xr.DataTree, dim: str, names: tuple[str, ...]) -> pd.DataFrame:
    constant = one_of(fitted)["constant_data"]
    index = pd.Index(constant[dim].to_numpy().astype(str), name=dim)
    return pd.DataFrame({name: constant[name].to_numpy().astype(float) for name in names}, index)


def own_draws(posterior: xr.Dataset) -> Mapping[str, np.ndarray]:
    """Draws by site of what is not of the fitted runs alone, as effects of runs are."""
    return {str(name): x.to_numpy() for name, x in posterior.items() if c.MODEL not in x.dims}

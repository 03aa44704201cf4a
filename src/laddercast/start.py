"""Where chains start, and the coordinates in which they move: from measurements and curvature."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from scipy.optimize import minimize

from laddercast.compiled import QUICKLY
from laddercast.density import (
    CENTRED,
    LEANING,
    Data,
    Leaves,
    Pivot,
    bijection,
    constrained,
    is_latent,
    leaning,
    plain,
    position_of,
    potential_of,
    sampled_trace,
    sites_at,
    trace_of,
)
from laddercast.design import MEASURED, Design, Observed, cells
from laddercast.geometry import Curvature, Geometry, Layout, geometry, positive, refined
from laddercast.model import RUN_DOF, Route
from laddercast.priors import Priors
from laddercast.sampler import Potential, value_and_gradient

NOISE = ("noise_", "share_checkpoint_", "walk_", "_correlation")
"""Beginnings and ends of the names of sites that tell of noise and discrepancy."""


def start(route: Route, design: Design, priors: Priors, observed: Observed) -> tuple[Data, Layout]:
    """Where to start, `like` of the data: levels as measured, prior means elsewhere; its layout."""

    def mean(value: Any, seen: Any, default: float) -> np.ndarray:
        count = seen.at.sum(axis=0)
        total = np.where(seen.at, value, 0.0).sum(axis=0)
        return np.where(count > 0, total / np.maximum(count, 1), default)

    accuracy: Any = observed.accuracy
    share = np.clip((accuracy - design.chance) / (1 - design.chance), 0.02, 0.98)
    logit = np.log(share / (1 - share))
    values = {
        "loss_level": mean(observed.log_loss, design.loss, 0.0),
        "reference_level": mean(observed.log_reference_loss, design.reference_loss, 1.0)[0],
        "accuracy_level": mean(logit, design.accuracy, -1.0),
    }

    plates, tasks = _plates(route, design, priors), len(design.chance)
    centred = {
        site: np.full(tasks if "task" in plates[site] else (), share)
        for site, share in CENTRED.items()
        if site in plates
    }
    level = 1 / (1 + np.exp(-values["accuracy_level"]))
    pivot = Pivot(design.chance + (1 - design.chance) * level, np.zeros(tasks))
    data = Data(design, priors, observed, centred, pivot, {}, {})
    data = data._replace(like=_unconstrained(route)(values, data))
    data = data._replace(lean=_upright(data.like, design))
    return data, _layout(data.like, plates, tasks)


def _upright(like: dict[str, Any], design: Design) -> dict[str, Any]:
    """As `Data` has it where nothing leans."""
    counts = {name: [len(x) for x in leaning(name, like)] for name in LEANING}
    intervals, tasks = design.walk.shape[1], len(design.chance)
    return {
        name: np.zeros((sites, steps * intervals, tasks)[: 3 if name == "tasks" else 2])
        for name, (sites, steps) in counts.items()
        if steps
    }


def _layout(like: dict[str, Any], plates: dict[str, set[str]], tasks: int) -> Layout:
    """The layout of a position, from the sites that lie in the plate of tasks."""
    every_task = np.zeros(tasks, int)
    shared, blocks, alone, color = [], [np.zeros((tasks, 0), int)], [], []
    at_tasks, at_shared = {}, {}
    first = colors = 0
    for name in sorted(like):  # as ravel_pytree has them
        shape = np.shape(like[name])
        index = first + np.arange(int(np.prod(shape)))
        site = name.removesuffix("_decentered")
        if "model" in plates[site]:
            # Given the laws, what runs share in all tasks is independent between runs.
            alone.append(index)
            own = np.zeros(len(index), int)
        elif "task" in plates[site]:
            at_tasks[name] = sum(x.shape[1] for x in blocks) + np.arange(len(index) // tasks)
            blocks.append(index.reshape(-1, tasks).T)
            own = np.add.outer(np.arange(len(index) // tasks), every_task).ravel()
        else:
            at_shared[name] = sum(map(len, shared)) + np.arange(len(index))
            shared.append(index)
            own = np.arange(len(index))
        color.append(colors + own)
        first, colors = first + len(index), colors + own.max(initial=-1) + 1
    joined = [np.concatenate([np.zeros(0, int), *parts]) for parts in (shared, alone, color)]
    return Layout(
        joined[0], np.concatenate(blocks, axis=1), joined[1], joined[2], at_tasks, at_shared
    )


@cache
def _unconstrained(route: Route) -> Callable[..., dict[str, jax.Array]]:
    """Compiled: the unconstrained values of all latent sites, those given and prior means."""

    def unconstrained(values: dict, data: Data) -> dict[str, jax.Array]:
        def substitute(site: dict[str, Any]) -> Any:
            if not is_latent(site):
                return None
            name = site["name"]
            return values[name] if name in values else _middle(site["fn"])

        trace = sampled_trace(route, data, substitute)
        return {
            name: bijection(site).inv(jnp.asarray(site["value"]))
            for name, site in trace.items()
            if is_latent(site)
        }

    return jax.jit(unconstrained)


def _plates(route: Route, design: Design, priors: Priors) -> dict[str, set[str]]:
    """The plates that each site of a route lies in."""
    found = {}

    def look(design: Design, priors: Priors) -> None:
        trace = handlers.trace(handlers.seed(route, jax.random.key(0))).get_trace(design, priors)
        for name, site in trace.items():
            if site["type"] == "sample":
                found[name] = {frame.name for frame in site["cond_indep_stack"]}

    jax.eval_shape(look, design, priors)
    return found


def _middle(fn: dist.Distribution) -> Any:
    # The mean of a Cauchy prior does not exist; its median is then its location.
    mean = jnp.broadcast_to(fn.mean, fn.shape())
    return jnp.where(jnp.isfinite(mean), mean, getattr(fn, "loc", 1.0))


@cache
def _at_rest(route: Route) -> Callable[[jax.Array, Data], Data]:
    """The data had every run and checkpoint obeyed the laws exactly.

    There, curvature is the information about the laws, without the noise that the residuals of one
    data set lend it in directions that they leave nearly flat.
    """

    def at_rest(position: jax.Array, data: Data) -> Data:
        parameters = constrained(sites_at(position, data))

        def rest(site: dict[str, Any]) -> Any:
            return plain(site["fn"]).loc if site["name"] in measured else parameters(site)

        measured = tuple(MEASURED.values())
        # As a forecast, in which each site that is measured reads those before it.
        ahead = sampled_trace(route, data._replace(observed=Observed()), rest)
        here = sampled_trace(route, data, parameters)
        expected = {name: ahead[name]["value"] for name in measured if name in ahead}
        expected |= {
            name: plain(here[name]["fn"]).mean
            for name in Observed._fields
            if name in here and name not in measured
        }
        expected = {
            name: jnp.broadcast_to(x, getattr(data.observed, name).shape)
            for name, x in expected.items()
        }
        return data._replace(observed=data.observed._replace(**expected))

    return jax.jit(at_rest)


def information(data: Data) -> np.ndarray:
    """Expected information about the scales of run effects, which residuals of zero cannot show."""
    like, design = data.like, data.design
    per_cell = 2 * RUN_DOF / (RUN_DOF + 3)  # of a Student-t about its log scale
    found = {name: np.zeros(np.shape(value)) for name, value in like.items()}
    sites = {name.removesuffix("_decentered"): name for name in like}
    for site, correlation, quantity in (
        ("log_noise_loss", "run_loss_correlation", "loss"),
        ("log_noise_accuracy", "run_accuracy_correlation", "accuracy"),
        ("noise_reference", None, "reference_loss"),
    ):
        if site not in sites:
            continue
        site = sites[site]
        known = cells(design, quantity)
        count = known.sum(axis=0)
        found[site] += per_cell * (count if np.ndim(found[site]) else count[0])
        if correlation:
            # Roughly, for the logits of the correlations: a quarter of the same, over all cells.
            found[correlation] += per_cell * known.sum() / 8
    return np.concatenate([found[name].ravel() for name in sorted(found)])


class Gradient:
    """Value and gradient in the order of positions, from the function compiled for the chains."""

    def __init__(self, potential: Potential, layout: Layout) -> None:
        tasks, size = layout.blocks.shape
        shared, alone = len(layout.shared), len(layout.alone)
        plain = Curvature(
            np.eye(shared),
            np.zeros((tasks, size, shared)),
            np.tile(np.eye(size), (tasks, 1, 1)),
            np.ones(alone),
        )
        self.layout = layout
        self.identity = jax.tree.map(jnp.asarray, geometry(plain, layout))
        self.zero = jnp.zeros(len(layout.color))
        self.compiled = value_and_gradient(potential)
        self.order = np.asarray(self.identity.order)

    def __call__(self, position: np.ndarray, data: Any) -> tuple[float, np.ndarray]:
        placed = self.identity._replace(center=position), data
        value, gradient = self.compiled(self.zero, placed)
        return float(value), np.asarray(gradient)[self.order]

    def change(self, position: np.ndarray, step: np.ndarray, data: Any) -> np.ndarray:
        """Of the gradient by a step, by central differences extrapolated to a step of zero."""

        def central(step: np.ndarray) -> np.ndarray:
            difference: np.ndarray = self(position + step, data)[1] - self(position - step, data)[1]
            return difference / 2

        return (8 * central(step / 2) - central(step)) / 3

    def curvature(self, position: np.ndarray, step: np.ndarray, data: Any) -> Curvature:
        """Second derivatives, all coordinates of one color at once; `step` is one for each."""
        shared, blocks, alone, color = self.layout[:4]
        changes = np.array(
            [
                self.change(position, np.where(color == one, step, 0.0), data)
                for one in range(color.max() + 1)
            ]
        )
        within = changes[color[blocks[0]]][:, blocks] / step[blocks.T][..., None]
        between = changes[color[shared]] / step[shared][:, None]
        square = between[:, shared]
        of_tasks = np.moveaxis(within, 0, -1)
        return Curvature(
            (square + square.T) / 2,
            np.moveaxis(between[:, blocks], 0, -1),
            (of_tasks + np.swapaxes(of_tasks, 1, 2)) / 2,
            changes[color[alone], alone] / step[alone],
        )


def conditional_mode(
    potential: Potential, like: dict[str, Any], leaves: Leaves, layout: Layout
) -> tuple[np.ndarray, np.ndarray]:
    """Mode given the prior medians of noise scales, and the scale of each coordinate there.

    The joint mode is of no use: it lies where noise scales are too small by far.
    """
    gradient = Gradient(potential, layout)
    position = np.asarray(ravel_pytree(like)[0])
    curved = gradient.curvature(position, np.full_like(position, 1e-6), leaves)
    diagonal = np.empty_like(position)
    diagonal[layout.shared] = np.diag(curved.shared)
    diagonal[layout.blocks] = np.diagonal(curved.blocks, axis1=1, axis2=2)
    diagonal[layout.alone] = curved.alone
    scale = 1 / np.sqrt(np.maximum(np.abs(diagonal), 0.5))
    fixed = {
        name: np.full(np.shape(value), any(word in name for word in NOISE))
        for name, value in like.items()
    }
    step = np.where(np.asarray(ravel_pytree(fixed)[0]), 0.0, scale)

    def scaled(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = gradient(position + step * x, leaves)
        return value, slope * step

    best = minimize(
        scaled, np.zeros_like(position), jac=True, method="L-BFGS-B",
        options={"maxiter": 1000, "maxcor": 30},
    )  # fmt: skip
    return position + step * best.x, scale


class Found(NamedTuple):
    """What a trace at each position tells: unconstrained sites, pooled ones, the curves."""

    sites: dict[str, Any]
    pooled: dict[str, tuple[Any, Any, Any]]  # value, mean, scale
    curve: tuple[Any, ...]  # accuracy at each point, ends, level and steepness of the logit


@cache
def _traced(route: Route) -> Callable[[jax.Array, Data], Found]:
    """Compiled: what is found at positions (draws, dim)."""

    def traced(positions: jax.Array, data: Data) -> Found:
        def one(position: jax.Array) -> Found:
            sites = sites_at(position, data)
            own = sampled_trace(route, data, constrained(sites))
            values = {name: site["value"] for name, site in own.items()}
            trace = trace_of(
                route, lambda site: values.get(site["name"]), data.design, data.priors,
                data.observed,
            )  # fmt: skip
            pooled = {name: (values[name], plain(trace[name]["fn"])) for name in data.centred}
            steep = next(values[name] for name in ("log_slope", "log_rise") if name in values)
            curve = (
                values["law"], data.design.chance * jnp.exp(values["log_lower"]),
                1 - values["gap"], values["accuracy_level"], jnp.exp(steep),
            )  # fmt: skip
            return Found(
                sites, {name: (x, *_location(fn, x)) for name, (x, fn) in pooled.items()}, curve
            )

        return jax.lax.map(one, positions)

    return jax.jit(traced, compiler_options=QUICKLY)


@cache
def _positions(route: Route) -> Callable[[dict[str, Any], Data], jax.Array]:
    """Compiled: the positions of unconstrained sites, each with a first dimension of draws."""

    def positions(sites: dict[str, Any], data: Data) -> jax.Array:
        return jax.lax.map(lambda own: position_of(own, data), sites)

    return jax.jit(positions, compiler_options=QUICKLY)


def _location(fn: Any, value: Any) -> tuple[Any, Any]:
    own = fn.base_dist if isinstance(fn, dist.ExpandedDistribution) else fn
    return jnp.broadcast_to(own.loc, value.shape), jnp.broadcast_to(own.scale, value.shape)


def _pivot(found: Found) -> Pivot:
    """Of each task, where its accuracy lies furthest from both ends of its curve."""
    accuracy, lower, upper, level, steep = (x.mean(axis=0) for x in found.curve)
    share = np.clip((accuracy - lower) / (upper - lower), 1e-4, 1 - 1e-4)
    point = np.abs(share - 0.5).argmin(axis=0)
    of_task = np.arange(share.shape[1])
    at = share[point, of_task]
    away = np.clip((level - np.log(at / (1 - at))) / steep, -1.0, 2.0)
    return Pivot(accuracy[point, of_task], away)


def repositioned(
    route: Route, draws: np.ndarray, data: Data, layout: Layout, *, centre: bool = True
) -> tuple[np.ndarray, Data]:
    """The draws (chains, draws, dim) at positions that hang together less, and data for those.

    Curves turn about a pivot found from the draws. Pooled sites are centred by the share of their
    prior variance which the data take away, as for a normal mean of which prior and data know
    something (arXiv 1906.03028 finds it by optimisation), or as they were. Sites lean by what the
    curvature in the middle of the draws says.
    """
    flat = jnp.asarray(draws.reshape(-1, draws.shape[-1]))
    found: Found = jax.tree.map(np.asarray, _traced(route)(flat, data))
    centred, sites = dict(data.centred), dict(found.sites)
    if centre:
        for name, (value, loc, scale) in found.pooled.items():
            left = (value - loc).var(axis=0) / (scale**2).mean(axis=0)
            left = left.reshape(-1, *np.shape(data.centred[name])).mean(axis=0)
            share = centred[name] = np.clip(1 - left, 0.0, 1.0)
            sites[f"{name}_decentered"] = share * loc + (value - loc) * scale ** (share - 1)
    new = data._replace(
        centred=jax.tree.map(jnp.asarray, centred),
        pivot=jax.tree.map(jnp.asarray, _pivot(found)),
        lean=jax.tree.map(jnp.zeros_like, data.lean),
    )
    upright = np.asarray(_positions(route)(sites, new))
    scale = np.maximum(upright.std(axis=0), 1e-6)
    curved = _curvature(route, upright.mean(axis=0), scale, new, layout)
    scales = {name: np.exp(np.mean(np.log(found.pooled[name][2]), axis=0)) for name in found.pooled}
    new = new._replace(lean=_lean(curved, new, layout, scales))
    return np.asarray(_positions(route)(sites, new)).reshape(draws.shape), new


def _lean(
    curved: Curvature, data: Data, layout: Layout, scales: dict[str, np.ndarray]
) -> dict[str, Any]:
    """How sites follow the steps of walks where all else stands still."""
    lean = {}
    for name in data.lean:
        sites, steps = leaning(name, data.like)
        at = layout.at_tasks if name == "tasks" else layout.at_shared
        own, walk = (np.concatenate([at[site] for site in names]) for names in (sites, steps))
        square = curved.blocks if name == "tasks" else curved.shared[None]
        factor = np.concatenate(
            [
                scales[step] ** (1 - np.asarray(data.centred[step]))
                for step in (base.removesuffix("_decentered") for base in steps)
            ]
        )
        cross = np.take(np.take(square, own, axis=1), walk, axis=2)
        inner = positive(np.take(np.take(square, own, axis=1), own, axis=2))
        found = -np.linalg.solve(inner, cross)
        if name == "tasks":
            lean[name] = jnp.asarray(np.moveaxis(found, 0, 2) / factor)
        else:
            lean[name] = jnp.asarray(found[0] / factor)
    return lean


def from_draws(
    route: Route, draws: np.ndarray, data: Any, layout: Layout, extra: np.ndarray
) -> Geometry:
    """Standard coordinates around the middle of draws (chains, draws, dim)."""
    flat = draws.reshape(-1, draws.shape[-1])
    # Draws of chains that stood still have no scale, and differences need a step.
    scale = np.maximum(flat.std(axis=0), 1e-9)
    curved = standardised(route, flat.mean(axis=0), scale, data, layout, extra)
    return refined(curved, flat)


def standardised(
    route: Route,
    position: np.ndarray,
    scale: np.ndarray,
    data: Data,
    layout: Layout,
    extra: np.ndarray,
) -> Geometry:
    """Standard coordinates from the curvature at rest around this position, plus `extra`."""
    found = _curvature(route, position, scale, data, layout)
    size = np.arange(layout.blocks.shape[1])
    found.shared[np.diag_indices_from(found.shared)] += extra[layout.shared]
    found.blocks[:, size, size] += extra[layout.blocks]
    return jax.tree.map(jnp.asarray, geometry(found, layout))


def _curvature(
    route: Route, position: np.ndarray, scale: np.ndarray, data: Data, layout: Layout
) -> Curvature:
    leaves, form = jax.tree.flatten(_at_rest(route)(jnp.asarray(position), data))
    gradient = Gradient(potential_of(route, form), layout)
    return gradient.curvature(position, 1e-3 * scale, leaves)

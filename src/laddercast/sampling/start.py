"""Where chains start, and the coordinates in which they move: from measurements and curvature."""

from collections.abc import Callable
from functools import cache
from itertools import product
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro import distributions as dist
from numpyro import handlers
from scipy.optimize import minimize

from laddercast.model.design import MEASURED, Design, Observed, binomial_variance, cells
from laddercast.model.priors import Priors
from laddercast.model.routes import RUN_DOF, Route, run_model
from laddercast.sampling.chains import Potential, gradients
from laddercast.sampling.density import (
    BENT,
    CENTRED,
    LEANING,
    Bent,
    Data,
    Leaves,
    Pinned,
    Pivot,
    as_sampled,
    bijection,
    constrained,
    is_latent,
    leaning,
    plain,
    position_of,
    potential_of,
    sampled_trace,
    sites_at,
)
from laddercast.sampling.preconditioner import (
    FLATTEST,
    Curvature,
    Geometry,
    Layout,
    geometry,
    positive,
    refined,
)
from laddercast.sampling.programs import QUICKLY, in_batches, on_cores
from laddercast.sampling.replay import Found, find

FIXED = (
    "walk_loss_center", "walk_loss_scale", "log_walk_loss", "walk_reference_scale",
    "walk_accuracy_center", "walk_accuracy_scale", "log_walk_accuracy", "run_loss_correlation",
    "run_accuracy_correlation", "alpha_scale", "beta_scale", "share_a_scale", "share_e_scale",
    "slope_scale", "rise_scale", "power_scale", "share_rest_scale", "noise_loss_scale",
    "noise_accuracy_scale", "share_checkpoint_loss_scale", "share_checkpoint_accuracy_scale",
)  # fmt: skip
"""Scales of what is not integrated out: at a joint mode they are too small by far."""


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
    # As if laws explained little of how rungs differ: where noise is far too small, the rungs that
    # lie furthest off rule the search.
    unit = np.sqrt((mean(accuracy, design.accuracy, 0.25) * 0.5 + 1 / design.items) / design.items)

    def noise(value: Any, seen: Any, prior: Any, unit: Any = 1.0) -> np.ndarray:
        off = np.where(seen.at, value - mean(value, seen, 0.0), 0.0) ** 2
        spread = np.sqrt(off.sum(axis=0) / np.maximum(seen.at.sum(axis=0), 1)) / unit
        return np.maximum(spread / 3, prior)

    # Pooled sites are their own base, centred in full.
    of_loss, of_accuracy = (
        np.exp(_middle(getattr(priors, f"noise_{word}_center"))) for word in ("loss", "accuracy")
    )
    values |= {
        "log_noise_loss_decentered": np.log(noise(observed.log_loss, design.loss, of_loss)),
        "log_noise_accuracy_decentered": np.log(
            noise(accuracy, design.accuracy, of_accuracy, unit)
        ),
    }
    prior = priors.noise_reference
    of_reference = noise(observed.log_reference_loss, design.reference_loss, _middle(prior))[0]
    if prior.support(of_reference):
        values["noise_reference"] = of_reference

    plates, shapes = _plates(route, design, priors)
    tasks = len(design.chance)
    centred = {
        site: np.full(shapes[site], share) for site, share in CENTRED.items() if site in shapes
    }
    level = 1 / (1 + np.exp(-values["accuracy_level"]))
    middle = design.chance + (1 - design.chance) * level
    pivot = Pivot(middle, np.full(tasks, WIDEST), np.zeros(tasks), np.full((2, tasks), np.inf))
    trend = {"loss": _trend_of_loss(design), "accuracy": np.zeros((2, len(design.end), tasks))}
    data = Data(design, priors, observed, centred, pivot, {}, {}, {}, trend, {})
    data = data._replace(like=_unconstrained(route)(values, data))
    data = data._replace(lean=_upright(data.like, design))
    data = as_arrays(data._replace(pinned=_unknown(data.like), bent=_straight(data.like)))
    return data, _layout(data.like, plates, tasks)


def as_arrays(data: Data) -> Data:
    """All of it as JAX has it: given anew to each compiled call, it takes far longer."""
    arrays: Data = jax.tree.map(jnp.asarray, data)
    return arrays


def _upright(like: dict[str, Any], design: Design) -> dict[str, Any]:
    """As `Data` has it where nothing leans."""
    counts = {name: [len(x) for x in leaning(name, like)] for name in LEANING}
    intervals, tasks = design.walk.shape[1], len(design.chance)
    return {
        name: np.zeros((sites, steps * intervals, tasks)[: 3 if name == "tasks" else 2])
        for name, (sites, steps) in counts.items()
        if steps
    }


def _unknown(like: dict[str, Any]) -> dict[str, Pinned]:
    """As `Data` has it where data tell nothing of the steps of tasks."""
    shapes = {base.removesuffix("_decentered"): np.shape(like[base])
              for base in leaning("tasks", like)[1]}  # fmt: skip
    return {
        walk: Pinned(np.tile(np.eye(steps)[..., None], tasks), np.zeros((steps, tasks)))
        for walk, (steps, tasks) in shapes.items()
    }


FAR = 1e3
"""Where no site comes near."""


def _straight(like: dict[str, Any]) -> dict[str, Bent]:
    """As `Data` has it where data tell nothing of what a curve tends to."""
    return {
        name: Bent(np.full(np.shape(like[name]), FAR), np.ones(np.shape(like[name])))
        for name in as_sampled(BENT, like)
    }


def _trend_of_loss(design: Design) -> np.ndarray:
    """Level and slopes of loss (3, runs, tasks) per effect of a run, by least squares."""
    known = design.loss.at[design.end].T[..., None]
    ends = np.stack([np.ones(len(design.end)), design.log_params[design.end],
                     design.log_tokens[design.end]], axis=1)  # fmt: skip
    return np.moveaxis(np.linalg.pinv(known * ends), 0, -1)


RUNS_TOGETHER = 64
"""Runs whose shared effects are held together with the laws of all tasks, which many tasks bind to
them; with more runs the laws say little of any one of them, and all together would take long."""


def _layout(like: dict[str, Any], plates: dict[str, set[str]], tasks: int) -> Layout:
    """The layout of a position, from the sites that lie in the plate of tasks."""
    every_task = np.zeros(tasks, int)
    nothing = np.zeros(0, int)
    shared, blocks, alone, color = [nothing], [np.zeros((tasks, 0), int)], [nothing], [nothing]
    at_tasks, at_shared, at_alone = {}, {}, {}
    first = colors = 0
    for name in sorted(like):  # as ravel_pytree has them
        shape = np.shape(like[name])
        index = first + np.arange(int(np.prod(shape)))
        site = name.removesuffix("_decentered")
        if "model" in plates[site] and len(index) > RUNS_TOGETHER:
            # Given the laws, what runs share in all tasks is independent between runs.
            at_alone[name] = sum(map(len, alone)) + np.arange(len(index))
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
    of_tasks = np.concatenate(blocks, axis=1)
    return Layout(
        np.concatenate(shared), of_tasks, np.concatenate(alone), np.concatenate(color),
        at_tasks, at_shared, at_alone,
    )  # fmt: skip


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


type Plates = tuple[dict[str, set[str]], dict[str, tuple[int, ...]]]


def _plates(route: Route, design: Design, priors: Priors) -> Plates:
    """The plates that each site of a route lies in, and its shape."""
    leaves, form = jax.tree.flatten((design, priors))
    like = tuple((np.shape(leaf), np.asarray(leaf).dtype) for leaf in leaves)
    return _plates_of(route, form, like)


@cache
def _plates_of(route: Route, form: Any, like: tuple[tuple[tuple[int, ...], Any], ...]) -> Plates:
    found, shapes = {}, {}

    def look(design: Design, priors: Priors) -> None:
        model = handlers.seed(route, jax.random.key(0))
        for name, site in run_model(model, design, priors).items():
            if site["type"] == "sample":
                found[name] = {frame.name for frame in site["cond_indep_stack"]}
                shapes[name] = np.shape(site["value"])

    like_arrays: Any = jax.ShapeDtypeStruct
    leaves = [like_arrays(shape, kind) for shape, kind in like]
    jax.eval_shape(look, *jax.tree.unflatten(form, leaves))
    return found, shapes


def _middle(fn: dist.Distribution) -> Any:
    # The mean of a Cauchy prior does not exist; its median is then its location.
    mean = jnp.broadcast_to(fn.mean, fn.shape())
    return jnp.where(jnp.isfinite(mean), mean, getattr(fn, "loc", 1.0))


def _turns(design: Design) -> jax.Array:
    """Residuals (points, 1) of checkpoints about their run, in SDs: up and down in turn.

    Their squares are as large as expected, while they hardly bear on anything smooth.
    """
    number = jnp.arange(len(design.run)) - jnp.searchsorted(design.run, design.run)
    count = jnp.bincount(design.run, length=len(design.end))[design.run]
    odd = count % 2
    off = 1.0 - 2.0 * (number % 2) - odd / count
    return (off * jnp.sqrt((count - 1) / jnp.where(count > 1, count - odd / count, 1)))[:, None]


@cache
def _at_rest(route: Route, form: Any) -> Callable[[jax.Array, Leaves, float], Leaves]:
    """The data had every run lain as far `off` the laws, in scales, and checkpoints as expected.

    At plus and minus one scale, the mean of both curvatures is the information about laws and noise
    alike, without what the residuals of one data set lend it in directions that they leave nearly
    flat: the pull of the one on the laws undoes that of the other, and scales are at rest.
    """

    def at_rest(position: jax.Array, leaves: Leaves, off: float) -> Leaves:
        data: Data = jax.tree.unflatten(form, leaves)
        turns = _turns(data.design)
        parameters = constrained(sites_at(position, data))
        measured = tuple(MEASURED.values())

        def rest(site: dict[str, Any]) -> Any:
            if site["name"] not in measured:
                return parameters(site)
            return plain(site["fn"]).loc + off * plain(site["fn"]).scale

        # A forecast, in which each site that is measured reads those before it.
        ahead = data.observed._replace(**dict.fromkeys(measured))
        trace = sampled_trace(route, data._replace(observed=ahead), rest)
        expected = {
            name: site["value"] + turns * jnp.sqrt(plain(site["fn"]).noise_variance)
            if name in measured
            else plain(site["fn"]).mean
            for name, site in trace.items()
            if name in Observed._fields
        }
        expected = {
            name: jnp.broadcast_to(x, getattr(data.observed, name).shape)
            for name, x in expected.items()
        }
        rested = data._replace(observed=data.observed._replace(**expected))
        return jax.tree.leaves(rested)

    return jax.jit(at_rest, compiler_options=QUICKLY)


def information(data: Data) -> np.ndarray:
    """Expected information about the scales of run effects, on top of what curvature shows.

    Where first steps are too long in these, chains are slow to begin.
    """
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


def curvature(
    potential: Potential, position: np.ndarray, step: np.ndarray, leaves: Leaves, layout: Layout
) -> Curvature:
    """Second derivatives, all coordinates of one color at once; `step` (dim,) is one for each."""
    shared, blocks, alone, color = layout[:4]
    steps = np.where(color == np.arange(color.max() + 1)[:, None], step, 0.0)
    points = position + np.array([1.0, -1.0])[:, None, None] * steps
    _, slopes = gradients(potential, points.reshape(-1, len(position)), leaves)
    ahead, back = slopes.reshape(points.shape)
    changes = (ahead - back) / 2
    # Far off, where a search strays, some are not defined: they count as flat.
    changes = np.where(np.isfinite(changes), changes, 0.0)
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


HELD = 1e12
"""Curvature by which a coordinate stands still."""

LENGTH = {"maxiter": 50, "maxcor": 20}
SLIGHT = 0.1
"""A search of that length that has gained no more than this has come close enough."""

STEP = 0.01
"""Scale of all coordinates, before there is another: small beside any of them."""


def conditional_mode(route: Route, data: Data, layout: Layout, extra: np.ndarray) -> np.ndarray:
    """Best mode (dim,) given the prior medians of pooling scales.

    Searched from the start, and from curves that end where accuracies do; of each task the better.
    With hundreds of tasks a search can leave one astray while it gains in all others.
    """
    leaves, form = jax.tree.flatten(data)
    potential = potential_of(route, form)
    fixed = {
        name: np.full(np.shape(value), name.removesuffix("_decentered") in FIXED)
        for name, value in data.like.items()
    }
    held = extra + HELD * np.asarray(ravel_pytree(fixed)[0])

    def steps_at(position: np.ndarray) -> Any:
        # As a sparse matrix: two more calls of compiled functions would take longer.
        return standardised(route, position[None], STEP, data, layout, held).matrix()

    def search(begin: tuple[np.ndarray, Any]) -> tuple[float, np.ndarray]:
        position, ahead = begin
        lowest, gain = np.inf, np.inf
        while gain > SLIGHT:
            back, center = ahead.T.tocsr(), position
            best = lowest, position

            def at(
                u: np.ndarray, ahead: Any = ahead, back: Any = back, center: np.ndarray = center
            ) -> tuple[float, np.ndarray]:
                nonlocal best
                there = center + ahead @ u
                (value,), (slope,) = gradients(potential, there[None], leaves)
                # A search that strays where nothing is defined ends there.
                best = (float(value), there) if value < best[0] else best
                return float(value), back @ slope

            still = np.zeros_like(position)
            minimize(at, still, jac=True, method="L-BFGS-B", options=LENGTH)
            gain = lowest - best[0] if best[0] < lowest else 0.0
            lowest, position = best
            ahead = steps_at(position) if gain > SLIGHT else ahead
        return lowest, position

    likely = [data.like, data.like | _ending(data)]
    begin, ends = in_batches(
        _positions(form), jax.tree.map(lambda *x: np.stack(x), *likely), leaves
    )
    ways = [(one, steps_at(one)) for one in (begin, ends)]  # before threads, as it compiles
    found = sorted(on_cores(search, ways), key=itemgetter(0))
    (_, mode), (_, other) = found
    mixed = mode
    for one in (other, begin, ends):
        mixed = best_blocks(potential, mixed, one, leaves, layout)
    if np.all(mixed == mode):
        return mode
    return best_blocks(potential, search((mixed, steps_at(mixed)))[1], mixed, leaves, layout)


def best_blocks(
    potential: Potential, position: np.ndarray, other: np.ndarray, leaves: Leaves, layout: Layout
) -> np.ndarray:
    """The position (dim,) with the coordinates of another for those tasks to which they do good."""
    blocks = layout.blocks
    trials = np.tile(position, (1 + len(blocks), 1))
    np.put_along_axis(trials[1:], blocks, other[blocks], axis=1)
    found, _ = gradients(potential, trials, leaves)
    value, *values = np.where(np.isnan(found), np.inf, found)
    # Each by itself, as tasks do not bear on one another.
    better = blocks[np.array(values) < value]
    best = position.copy()
    best[better] = other[better]
    return best


def _ending(data: Data) -> dict[str, Any]:
    """Sites of curves that end a little above the best accuracy measured of each task."""
    design, accuracy = data.design, np.asarray(data.observed.accuracy)
    chance, known = np.asarray(design.chance), np.asarray(design.accuracy.at)
    end = np.clip(np.where(known, accuracy, 0.0).max(axis=0) + 0.02, 0.05, 0.98)
    share = np.clip((accuracy - chance) / np.maximum(end - chance, 0.02), 0.02, 0.98)
    logit = np.where(known, np.log(share / (1 - share)), 0.0).sum(axis=0)
    return {
        "logit_gap": np.log((1 - end) / end),
        "accuracy_level": logit / np.maximum(known.sum(axis=0), 1),
    }


NARROWEST, WIDEST = 0.005, 0.05
"""Widths of a pivot: at least, and before there are draws that tell."""


@cache
def _positions(form: Any) -> Callable[[dict[str, Any], Leaves], jax.Array]:
    """Compiled: the positions of unconstrained sites, each with a first dimension of draws."""

    def positions(sites: dict[str, Any], leaves: Leaves) -> jax.Array:
        data: Data = jax.tree.unflatten(form, leaves)
        return jax.lax.map(lambda own: position_of(own, data), sites)

    return jax.jit(positions, compiler_options=QUICKLY)


FLATTEST_FALL = 0.01
"""Laws flatter than this do not make up for trends of runs in full."""

FLATTEST_RISE = 0.02
"""Of a curve's level and steepness, what rungs tell less of, relatively, makes up for nothing."""


def _pivot(found: Found, design: Design) -> tuple[Pivot, np.ndarray]:
    """Of each task, the middle of its points, weighted by what they tell of the logit.

    And what runs have in common of accuracy (2, runs, tasks), by weighted least squares: level of
    the logit at the pivot and log of the steepness, per effect of a run.
    """
    accuracy, lower, upper, level, steep, walk, fall = found.curve
    lower, upper, level, steep = (x[:, None] for x in (lower, upper, level, steep))
    share = np.clip((accuracy - lower) / (upper - lower), 1e-9, 1 - 1e-9)
    x = np.median((level + walk - np.log(share / (1 - share))) / steep, axis=0)
    rise = np.median((upper - lower) * share * (1 - share), axis=0)
    middle = np.median(accuracy, axis=0)
    weight = rise**2 / (middle * (1 - middle) + NARROWEST)
    weight /= weight.sum(axis=0)
    spread = accuracy.std(axis=0) if len(accuracy) > 1 else np.full_like(middle, WIDEST)
    width = np.maximum(2 * (weight * spread).sum(axis=0), NARROWEST)
    away = (weight * x).sum(axis=0)
    pivot = Pivot(
        (weight * middle).sum(axis=0), width, away,
        np.maximum(np.median(fall, axis=0), FLATTEST_FALL),
    )  # fmt: skip
    end = np.asarray(design.end)
    known, items = np.asarray(design.accuracy.at)[end], np.asarray(design.items)
    x, rise = x[end], rise[end]
    # Rise of accuracy over the scale of its noise, with level and steepness of the logit.
    told = known * rise / np.sqrt(binomial_variance(middle[end], items))
    by = np.stack([told, -told * (x - away) * np.median(steep, axis=0)])
    per_effect = np.linalg.pinv(np.moveaxis(by, 0, -1).swapaxes(0, 1), rcond=FLATTEST_RISE)
    return pivot, np.moveaxis(per_effect, 0, -1)


def repositioned(
    route: Route, draws: np.ndarray, data: Data, layout: Layout
) -> tuple[np.ndarray, Data]:
    """The draws (chains, draws, dim) at positions that hang together less, and data for those.

    Curves turn about a pivot found from the draws. What the curvature in their middle says settles
    the rest: by how much sites lean, and by which share pooled ones are centred. That is the share
    of their prior variance which the data take away, as for a normal mean of which prior and data
    know something (arXiv 1906.03028 finds it by optimisation).
    """
    flat = draws.reshape(-1, draws.shape[-1])
    leaves, form = jax.tree.flatten(data)
    found: Found = in_batches(find(route, form), flat, leaves)
    pivot, of_accuracy = _pivot(found, data.design)
    upright = as_arrays(
        data._replace(
            pivot=pivot,
            lean=jax.tree.map(jnp.zeros_like, data.lean),
            pinned=_unknown(data.like),
            bent=_straight(data.like),
            trend=data.trend | {"accuracy": of_accuracy},
        )
    )
    leaves = jax.tree.leaves(upright)
    positions = in_batches(_positions(form), found.sites, leaves)
    scale = np.maximum(positions.std(axis=0), 1e-6)
    curved = _curvature(route, form, positions.mean(axis=0)[None], scale, leaves, layout)
    scales = {name: np.exp(np.log(x[2]).mean(axis=0)) for name, x in found.pooled.items()}
    left = _left(curved, layout)
    centred = _shares(left, upright, scales)
    noise = {
        walk: np.exp(found.pooled[f"log_noise_{walk.removeprefix('walk_')}"][0].mean(axis=0))
        for walk in data.pinned
    }
    bent, stretched = _bent(left, upright, found, scales, centred)
    lean, pinned = _lean(curved, upright, layout, scales, centred, noise, stretched)
    new = as_arrays(upright._replace(centred=centred, bent=bent, lean=lean, pinned=pinned))
    based = {
        f"{name}_decentered": centred[name] * loc + (value - loc) * scale ** (centred[name] - 1)
        for name, (value, loc, scale) in found.pooled.items()
    }
    moved = in_batches(_positions(form), found.sites | based, jax.tree.leaves(new))
    return np.asarray(moved).reshape(draws.shape), new


def _shares(
    left: dict[str, np.ndarray], data: Data, scales: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """By how much to centre each pooled site."""
    shares = {}
    for name, share in data.centred.items():
        if name in data.pinned:
            shares[name] = np.zeros(np.shape(share))
            continue
        # In units of the prior: the base is the value over its scale to the power of 1 - share.
        own = left[f"{name}_decentered"].reshape(np.shape(share))
        shares[name] = np.clip(1 - own / scales[name] ** (2 * np.asarray(share)), 0.0, 1.0)
    return shares


def _left(curved: Curvature, layout: Layout) -> dict[str, np.ndarray]:
    """Variances that are left of bases (elements, tasks) or (elements,).

    Of a task's given what all tasks share, of shared ones given all tasks'.
    """
    of_tasks = np.diagonal(np.linalg.inv(positive(curved.blocks)), axis1=1, axis2=2)
    of_all = np.diagonal(np.linalg.inv(positive(curved.shared)))
    alone = 1 / np.maximum(curved.alone, FLATTEST)
    return (
        {name: of_tasks[:, at].T for name, at in layout.at_tasks.items()}
        | {name: of_all[at] for name, at in layout.at_shared.items()}
        | {name: alone[at] for name, at in layout.at_alone.items()}
    )


def _bent(
    left: dict[str, np.ndarray],
    data: Data,
    found: Found,
    scales: dict[str, np.ndarray],
    centred: dict[str, np.ndarray],
) -> tuple[dict[str, Bent], dict[str, np.ndarray]]:
    """From where sites, centred anew, are bent; their steps in the middle over those before."""
    bent, stretched = {}, {}
    for base in data.bent:
        site = base.removesuffix("_decentered")
        if site in found.pooled:
            value, center, _ = (x.mean(axis=0) for x in found.pooled[site])
            share, unit = centred[site], scales[site] ** (1 - centred[site])
            middle = share * center + (value - center) / unit
            prior = scales[site] ** (2 * np.asarray(data.centred[site]))
        else:
            fn = getattr(data.priors, site)
            middle, unit = found.sites[base].mean(axis=0), 1.0
            # Of a prior that is not on the reals, the variance is not that of what is sampled.
            on_reals = fn.support is dist.constraints.real
            prior = np.nan_to_num(fn.variance, nan=np.inf) if on_reals else 0.0
        shape = np.shape(middle)
        # Curvature below `FLATTEST` was raised to that.
        known = np.minimum(prior, 1 / FLATTEST) / left[base].reshape(shape) - 1
        root = np.sqrt(np.maximum(known, LITTLE))
        rate = _nearing(found, data) if site == "log_lower" else np.ones(shape)
        bent[base] = Bent(middle - np.log(root) / (rate * unit), rate * unit)
        stretched[base] = -np.expm1(-root) / root
    return bent, stretched


def _nearing(found: Found, data: Data) -> np.ndarray:
    """How fast (tasks,) what data tell of a lower end grows with its log.

    As one over its distance from the least accuracy of a rung.
    """
    known, width = (np.asarray(x) for x in (data.design.accuracy.at, data.pivot.width))
    accuracy, lower = found.curve[:2]
    off = np.where(known, accuracy, np.inf).min(axis=1) - lower
    near = np.median(np.logaddexp(0, off / width) * width, axis=0)
    return 1 + np.where(known.any(axis=0), np.median(lower, axis=0) / near, 0.0)


LITTLE = 1e-6
"""Of the prior's information, a part that is nothing."""


def _lean(
    curved: Curvature,
    data: Data,
    layout: Layout,
    scales: dict[str, np.ndarray],
    centred: dict[str, np.ndarray],
    noise: dict[str, np.ndarray],
    stretched: dict[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, Pinned]]:
    """How sites, centred anew, follow the steps of walks where all else stands still.

    And what data tell of those steps while sites follow them.
    """
    lean, pinned = {}, {}
    for name in data.lean:
        of_tasks = name == "tasks"
        at = layout.at_tasks if of_tasks else layout.at_shared
        square = curved.blocks if of_tasks else curved.shared[None]
        sites, steps = leaning(name, data.like)

        def per_base(
            base: str, share: dict[str, Any], at: Any = at, of_tasks: Any = of_tasks
        ) -> Any:
            """A value over its base: (rows, tasks) or (rows,)."""
            site = base.removesuffix("_decentered")
            shape = len(at[base]), *((layout.blocks.shape[0],) if of_tasks else ())
            if site not in data.centred:
                return np.ones(shape)
            return np.broadcast_to(scales[site] ** (1 - np.asarray(share[site])), shape)

        own, walk = (np.concatenate([at[base] for base in bases]) for bases in (sites, steps))
        cross = np.take(np.take(square, own, axis=1), walk, axis=2)
        inner = positive(np.take(np.take(square, own, axis=1), own, axis=2))
        found = -np.moveaxis(np.linalg.solve(inner, cross), 0, -1)
        found = found if of_tasks else found[..., 0]
        before, after = (
            np.concatenate([per_base(base, share) * step.get(base, 1.0) for base in sites])
            for share, step in ((data.centred, {}), (centred, stretched))
        )
        of_steps = np.concatenate([per_base(base, data.centred) for base in steps])
        lean[name] = found * (before / after)[:, None] / of_steps[None]
        if of_tasks:
            # What is left of curvature once sites follow, less that of the prior of deviates.
            left = np.take(np.take(square, walk, axis=1), walk, axis=2)
            left = left + np.swapaxes(cross, 1, 2) @ np.moveaxis(found, -1, 0) - np.eye(len(walk))
            known = left / (of_steps.T[:, :, None] * of_steps.T[:, None])
            for base, end in zip(steps, np.cumsum([len(at[base]) for base in steps]), strict=True):
                some, site = slice(end - len(at[base]), end), base.removesuffix("_decentered")
                precision, directions = np.linalg.eigh(known[:, some, some])
                precision = np.maximum(precision, 0.0).T * noise[site] ** 2
                pinned[site] = Pinned(np.moveaxis(directions, 0, -1), precision)
    return lean, pinned


def standardised(
    route: Route,
    draws: np.ndarray,
    scale: np.ndarray | float,
    data: Data,
    layout: Layout,
    extra: np.ndarray,
) -> Geometry:
    """Standard coordinates from the curvature at rest, in the mean over some draws (draws, dim).

    `scale` (dim,) is that of each coordinate, or one of all; `extra` (dim,) curvature to be added.
    """
    some = draws[np.linspace(0, len(draws) - 1, min(len(draws), PLACES)).astype(int)]
    leaves, form = jax.tree.flatten(data)
    found = _curvature(route, form, some, scale, leaves, layout)
    size = np.arange(layout.blocks.shape[1])
    found.shared[np.diag_indices_from(found.shared)] += extra[layout.shared]
    found.blocks[:, size, size] += extra[layout.blocks]
    return jax.tree.map(jnp.asarray, geometry(found, layout))


PLACES = 8
"""Draws over which curvature is averaged: where it varies, one place misleads."""


def from_draws(
    route: Route, draws: np.ndarray, data: Data, layout: Layout, extra: np.ndarray
) -> Geometry:
    """Standard coordinates for draws (chains, draws, dim)."""
    flat = draws.reshape(-1, draws.shape[-1])
    # Draws of chains that stood still have no scale, and differences need a step.
    scale = np.maximum(flat.std(axis=0), 1e-9)
    return refined(standardised(route, flat, scale, data, layout, extra), flat)


def _curvature(
    route: Route,
    form: Any,
    positions: np.ndarray,
    scale: np.ndarray | float,
    leaves: Leaves,
    layout: Layout,
) -> Curvature:
    """At rest, in the mean over positions (rows, dim)."""
    potential, step = potential_of(route, form), np.full(positions.shape[1], 1e-3 * scale)

    def at(given: tuple[np.ndarray, float]) -> Curvature:
        position, off = given
        at_rest = _at_rest(route, form)(jnp.asarray(position), leaves, off)
        return curvature(potential, position, step, at_rest, layout)

    first, *others = product(positions, (1.0, -1.0))
    found = [at(first), *on_cores(at, others)]  # the first compiles
    return jax.tree.map(lambda *parts: np.mean(parts, axis=0), *found)

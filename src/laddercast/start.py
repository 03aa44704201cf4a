"""Where chains start, and the coordinates in which they move: from measurements and curvature."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.infer.reparam import LocScaleReparam, Reparam
from scipy.optimize import minimize

from laddercast.design import Design, Observed, cells
from laddercast.geometry import Curvature, Geometry, Layout, geometry, refined
from laddercast.model import LATENT, RUN_DOF, Route
from laddercast.priors import Priors
from laddercast.sampler import Potential, value_and_gradient

# What the data pin down about as well as the pooling does is centred halfway: centred, its pooling
# scale makes a funnel; as a standard deviate, the scale is bound to every well-measured task.
HALF_CENTRED = (
    "log_alpha",
    "log_beta",
    "share_e",
    "share_a",
    "log_checkpoint_loss",
    "log_checkpoint_accuracy",
)
# The steps of a walk, which the law can take over, are pinned less.
QUARTER_CENTRED = ("walk_loss", "walk_reference", "walk_accuracy")

PARTLY_CENTRED = {site: LocScaleReparam(0.5) for site in HALF_CENTRED} | {
    site: LocScaleReparam(0.25) for site in QUARTER_CENTRED
}

NOISE = (
    "run_loss", "run_reference", "run_accuracy", "checkpoint_loss", "checkpoint_reference",
    "checkpoint_accuracy", "walk_loss_scale", "walk_reference_scale", "walk_accuracy_scale",
)  # fmt: skip


class Pin(NamedTuple):
    """What measurements of one quantity alone say of latent values: their mean, of how many."""

    mean: Any  # (runs, tasks), or (runs,)
    checkpoints: Any  # 0 where there is none


type Pins = dict[str, Pin]
"""By latent site, as `LATENT` names them."""

type Data = tuple[Design, Priors, Observed, Pins, dict[str, Any]]
"""What a density reads; the last is a start, for the names and shapes of sites."""

type Leaves = list[Any]
"""The arrays of `Data` alone: a compiled call spends most of its time on taking trees apart."""


class Pinned(Reparam):  # type: ignore[misc]
    """A latent value in units of its conditional distribution, given the law and its measurements.

    Centred, it makes a funnel where run effects are smaller than noise between checkpoints; as a
    standard deviate, the law is bound to every well-measured run. This is neither.
    """

    def __init__(self, pin: Pin) -> None:
        self.pin = pin

    def __call__(self, name: str, fn: Any, obs: None) -> tuple[None, jax.Array]:
        """The latent value; its density replaces that of the base, which is flat."""
        fn, _, _ = self._unwrap(fn)
        own, measured = fn.scale**-2, self.pin.checkpoints * fn.noise**-2
        scale = (own + measured) ** -0.5
        middle = (own * fn.loc + measured * self.pin.mean) * scale**2
        base = numpyro.sample(
            f"{name}_base", dist.ImproperUniform(dist.constraints.real, jnp.shape(fn.loc), ())
        )
        value = middle + scale * base
        numpyro.factor(f"{name}_density", fn.log_prob(value) + jnp.log(scale))
        return None, value


def sampled(route: Route, pins: Pins) -> Callable[..., None]:
    """The route in the parameters that are sampled."""
    return handlers.reparam(
        route, config=PARTLY_CENTRED | {s: Pinned(pin) for s, pin in pins.items()}
    )


@cache
def potential_of(route: Route, form: Any) -> Potential:
    """Negative log density of an unconstrained position up to a constant, given leaves of `Data`.

    One function per route and form (tree structure of `Data`), so that it is compiled once.
    """

    def potential(position: jax.Array, leaves: Leaves) -> jax.Array:
        design, priors, observed, pins, like = jax.tree.unflatten(form, leaves)
        sites = ravel_pytree(like)[1](position)
        trace = trace_of(sampled(route, pins), constrained(sites), design, priors, observed)
        normal = {name: fn for name in sites if (fn := _normal(trace[name]["fn"])) is not None}
        total = _normal_log_prob(position, normal, like)
        for name, site in trace.items():
            if site["type"] != "sample" or name in normal:
                continue
            total += jnp.sum(_log_prob(site["fn"], site["value"]))
            if is_latent(site):
                slope = _bijection(site).log_abs_det_jacobian(sites[name], site["value"])
                total += jnp.sum(slope)
        return -total

    return potential


def constrained(sites: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    """For `trace_of`: the values of latent sites at these unconstrained ones."""
    return lambda site: _bijection(site)(sites[site["name"]]) if is_latent(site) else None


def _bijection(site: dict[str, Any]) -> Any:
    return dist.biject_to(site["fn"].support)


def _log_prob(fn: Any, value: Any) -> Any:
    """Log density up to a constant: not its gamma functions of known numbers, slow to compile."""
    own = _plain(fn)
    if type(own) is dist.Beta:
        a, b = own.concentration1, own.concentration0
        log_prob = (a - 1) * jnp.log(value) + (b - 1) * jnp.log1p(-value)
    elif type(own) is dist.Gamma:
        shape, rate = own.concentration, own.rate
        log_prob = shape * jnp.log(rate) + (shape - 1) * jnp.log(value) - rate * value
    else:
        return fn.log_prob(value)
    return log_prob if own is fn else jnp.where(fn._mask, log_prob, 0.0)


def _normal(fn: Any) -> Any:
    """The distribution itself where it is normal as it is sampled, else None."""
    fn = fn.base_dist if type(fn) is dist.ExpandedDistribution else fn
    return fn if type(fn) in (dist.Normal, dist.LogNormal) else None


def _normal_log_prob(position: jax.Array, of: dict[str, Any], like: dict[str, Any]) -> jax.Array:
    """Log density, up to a constant, of all coordinates that are normal as they are sampled.

    All at once: for one site after the other, it would take half of the model's compilation.
    """

    def each(word: str, other: float) -> jax.Array:
        # As ravel_pytree has them.
        parts = [
            jnp.broadcast_to(getattr(of[name], word) if name in of else other, np.shape(like[name]))
            for name in sorted(like)
        ]
        return jnp.concatenate([part.ravel() for part in parts])

    is_normal = np.concatenate([np.full(np.size(like[name]), name in of) for name in sorted(like)])
    # XLA would take the vectors apart again.
    parts = each("loc", 0.0), each("scale", 1.0)
    loc, scale = jax.lax.optimization_barrier(parts)  # type: ignore[no-untyped-call]
    density = -0.5 * ((position - loc) / scale) ** 2 - jnp.log(scale)
    return jnp.sum(jnp.where(is_normal, density, 0.0))


def trace_of(
    model: Callable[..., None], substitute: Callable[[dict[str, Any]], Any], *args: Any
) -> dict[str, Any]:
    """The sites of a model in which these values are put."""
    seeded = handlers.seed(model, jax.random.key(0))
    return handlers.trace(handlers.substitute(seeded, substitute_fn=substitute)).get_trace(*args)


def is_latent(site: dict[str, Any]) -> bool:
    """Whether a site is sampled."""
    return site["type"] == "sample" and not site["is_observed"]


def _plain(fn: Any) -> Any:
    return fn.base_dist if isinstance(fn, dist.MaskedDistribution) else fn


def pin(design: Design, observed: Observed) -> Pins:
    """What the measurements alone say of the latent values, in logs for losses."""

    def pinned(value: np.ndarray, seen: Any) -> Pin:
        weight = np.where(seen.at, seen.checkpoints, 0.0)
        count, total = (np.zeros((len(design.end), seen.at.shape[1])) for _ in range(2))
        np.add.at(count, design.run, weight)
        np.add.at(total, design.run, weight * value)
        return Pin(total / np.where(count > 0, count, 1.0), count)

    measured: Any = observed
    reference = pinned(np.log(measured.reference_loss), design.reference_loss)
    return {
        "log_latent_reference_loss": Pin(*(x[:, 0] for x in reference)),
        "log_latent_loss": pinned(np.log(measured.loss), design.loss),
        "run_mean_accuracy": pinned(measured.accuracy, design.accuracy),
    }


def start(
    route: Route, design: Design, priors: Priors, observed: Observed, pins: Pins
) -> tuple[dict[str, jax.Array], Layout]:
    """Unconstrained start, levels as measured and prior means elsewhere, and its layout."""

    def mean(value: np.ndarray, seen: Any, default: float) -> np.ndarray:
        count = seen.at.sum(axis=0)
        total = np.where(seen.at, value, 0.0).sum(axis=0)
        return np.where(count > 0, total / np.maximum(count, 1), default)

    loss: Any = observed.loss
    reference_loss: Any = observed.reference_loss
    accuracy: Any = observed.accuracy
    share = np.clip((accuracy - design.chance) / (1 - design.chance), 0.02, 0.98)
    logit = np.log(share / (1 - share))
    values = {
        "loss_level": mean(np.log(loss), design.loss, 0.0),
        "reference_level": mean(np.log(reference_loss), design.reference_loss, 1.0)[0],
        "accuracy_level": mean(logit, design.accuracy, -1.0),
    }

    like = _unconstrained(route)(values, design, priors, observed, pins)
    return like, _layout(like, _plates(route, design, priors), len(design.chance))


def _layout(like: dict[str, Any], plates: dict[str, set[str]], tasks: int) -> Layout:
    """The layout of a position, from the sites that lie in the plate of tasks."""
    every_task = np.zeros(tasks, int)
    shared, blocks, alone, color = [], [np.zeros((tasks, 0), int)], [], []
    first = colors = 0
    for name in sorted(like):  # as ravel_pytree has them
        shape = np.shape(like[name])
        index = first + np.arange(int(np.prod(shape)))
        site = name.removesuffix("_base").removesuffix("_decentered")
        # Given the laws, latent values are independent standard normals but for their tails, and
        # those of one task do not bear on another's.
        if site in LATENT:
            alone.append(index)
            own = np.zeros(len(index), int)
        elif "task" in plates[site]:
            blocks.append(index.reshape(-1, tasks).T)
            own = np.add.outer(np.arange(len(index) // tasks), every_task).ravel()
        else:
            shared.append(index)
            own = np.arange(len(index))
        color.append(colors + own)
        first, colors = first + len(index), colors + own.max(initial=-1) + 1
    joined = [np.concatenate([np.zeros(0, int), *parts]) for parts in (shared, alone, color)]
    return Layout(joined[0], np.concatenate(blocks, axis=1), joined[1], joined[2])


@cache
def _unconstrained(route: Route) -> Callable[..., dict[str, jax.Array]]:
    """Compiled: the unconstrained values of all latent sites, those given and prior means."""

    def unconstrained(
        values: dict, design: Design, priors: Priors, observed: Observed, pins: Pins
    ) -> dict[str, jax.Array]:
        def substitute(site: dict[str, Any]) -> Any:
            if not is_latent(site):
                return None
            name = site["name"]
            if name.removesuffix("_base") in LATENT:
                return jnp.zeros(site["fn"].shape())
            return values[name] if name in values else _middle(site["fn"])

        trace = trace_of(sampled(route, pins), substitute, design, priors, observed)
        return {
            name: _bijection(site).inv(jnp.asarray(site["value"]))
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
def _at_rest(route: Route) -> Callable[[jax.Array, Data], tuple[jax.Array, Data]]:
    """The position and data had every run and checkpoint obeyed the laws exactly.

    There, curvature is the information about the laws, without the noise that the residuals of one
    data set lend it in directions that they leave nearly flat.
    """

    def at_rest(position: jax.Array, data: Data) -> tuple[jax.Array, Data]:
        design, priors, observed, pins, like = data
        sites = ravel_pytree(like)[1](position)
        expected: dict[str, Any] = {}

        def substitute(site: dict[str, Any]) -> Any:
            name = site["name"]
            if site["type"] != "sample":
                return None
            fn = _plain(site["fn"])
            if name in LATENT:
                return fn.loc
            if name in Observed._fields:
                lognormal = isinstance(fn, dist.LogNormal)
                # In the middle of what is observed: the median of a loss, the mean of the others.
                expected[name] = jnp.exp(fn.loc) if lognormal else fn.mean
                return None
            return dist.biject_to(fn.support)(sites[name])

        trace = trace_of(
            handlers.reparam(route, config=PARTLY_CENTRED), substitute, design, priors, observed
        )
        rest = {
            name: jnp.zeros_like(value) if name.removesuffix("_base") in LATENT else value
            for name, value in sites.items()
        }
        pinned = {
            name: pin._replace(mean=trace[name]["value"]) if name in trace else pin
            for name, pin in pins.items()
        }
        expected = {
            name: jnp.broadcast_to(x, getattr(observed, name).shape) for name, x in expected.items()
        }
        moved = design, priors, observed._replace(**expected), pinned, like
        return ravel_pytree(rest)[0], moved

    return jax.jit(at_rest)


def information(like: dict[str, Any], design: Design) -> np.ndarray:
    """Expected information about the scales of run effects, which residuals of zero cannot show."""
    per_cell = 2 * RUN_DOF / (RUN_DOF + 3)  # of a Student-t about its log scale
    found = {name: np.zeros(np.shape(value)) for name, value in like.items()}
    for site, correlation, quantity in (
        ("log_run_loss", "run_loss_correlation", "loss"),
        ("log_run_accuracy", "run_accuracy_correlation", "accuracy"),
        ("run_reference", None, "reference_loss"),
    ):
        if site not in found:
            continue
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
        shared, blocks, alone, color = self.layout
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
        name: np.full(np.shape(value), any(word in name for word in NOISE) and "shared" not in name)
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
    data: Any,
    layout: Layout,
    extra: np.ndarray,
) -> Geometry:
    """Standard coordinates from the curvature at rest around this position, plus `extra`."""
    moved, at_rest = _at_rest(route)(jnp.asarray(position), data)
    rest = np.asarray(moved)
    leaves, form = jax.tree.flatten(at_rest)
    gradient = Gradient(potential_of(route, form), layout)
    found = gradient.curvature(rest, 1e-3 * scale, leaves)
    size = np.arange(layout.blocks.shape[1])
    found.shared[np.diag_indices_from(found.shared)] += extra[layout.shared]
    found.blocks[:, size, size] += extra[layout.blocks]
    return jax.tree.map(jnp.asarray, geometry(found, layout))

"""Fitting the joint model with NUTS: start, parameterisation, settings, and what is kept."""

import json
from collections.abc import Callable
from dataclasses import fields
from importlib.metadata import version
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.infer.reparam import LocScaleReparam, Reparam
from numpyro.infer.util import potential_energy
from scipy.optimize import minimize

from laddercast import columns as c
from laddercast.design import Design, Observed, ladder_design
from laddercast.fitted import ESS_PARAMETERS, LATENT, as_tree, complaints, mark
from laddercast.geometry import Geometry, geometry
from laddercast.ladder import Ladder
from laddercast.model import RUN_DOF, two_stage
from laddercast.priors import Priors
from laddercast.progress import lengthen, progress_bar
from laddercast.sampler import (
    Draws,
    Settings,
    on_device,
    run_chains,
    steps_taken,
    value_and_gradient,
)

# What the data pin down about as well as the pooling does is centred halfway: centred, its pooling
# scale makes a funnel; as a standard deviate, the scale is bound to every well-measured task.
HALF_CENTRED = ("log_alpha", "log_beta", "share_e", "share_a")

HALFWAY = {site: LocScaleReparam(0.5) for site in HALF_CENTRED}

# Noise between checkpoints where a ladder does not show it: SD of log loss, factor of accuracy.
TYPICAL_LOSS_SD = 0.003
TYPICAL_ACCURACY_FACTOR = 0.35


class Pins(NamedTuple):
    """What the measurements alone say of each cell's latent value: mean, and precision or 0."""

    loss_mean: Any
    loss_precision: Any
    accuracy_mean: Any
    accuracy_precision: Any


class Pinned(Reparam):  # type: ignore[misc]
    """A latent value in units of its conditional distribution, given the law and its measurements.

    Centred, it makes a funnel where run effects are smaller than noise between checkpoints; as a
    standard deviate, the law is bound to every well-measured run. This is neither.
    """

    def __init__(self, mean: jax.Array, precision: jax.Array) -> None:
        self.mean, self.precision = mean, precision

    def __call__(self, name: str, fn: Any, obs: None) -> tuple[None, jax.Array]:
        """The latent value; its density replaces that of the base, which is flat."""
        fn, _, _ = self._unwrap(fn)
        own = fn.scale**-2
        scale = (own + self.precision) ** -0.5
        middle = (own * fn.loc + self.precision * self.mean) * scale**2
        base = numpyro.sample(
            f"{name}_base", dist.ImproperUniform(dist.constraints.real, jnp.shape(fn.loc), ())
        )
        value = middle + scale * base
        numpyro.factor(f"{name}_density", fn.log_prob(value) + jnp.log(scale))
        return None, value


def sampled_model(pins: Pins) -> Callable[..., None]:
    """The joint model in the parameters that are sampled."""
    latent = {
        "log_latent_loss": Pinned(pins.loss_mean, pins.loss_precision),
        "run_mean_accuracy": Pinned(pins.accuracy_mean, pins.accuracy_precision),
    }
    return handlers.reparam(two_stage, config=HALFWAY | latent)


NOISE = (
    "run_loss", "run_accuracy", "checkpoint_loss", "checkpoint_accuracy",
    "walk_loss_scale", "walk_accuracy_scale",
)  # fmt: skip
PER_CURVE = (
    "loss_level", "log_alpha_decentered", "log_beta_decentered", "share_e_decentered",
    "share_a_decentered", "log_run_loss", "log_checkpoint_loss", "walk_loss",
)  # fmt: skip
PER_TASK = (
    "accuracy_level", "gap", "log_lower", "log_slope",
    "log_run_accuracy", "log_checkpoint_accuracy", "walk_accuracy",
)  # fmt: skip

type Data = tuple[Design, Priors, Observed, Pins, dict[str, Any]]
"""What the potential reads; the last is a start, for the names and shapes of sites."""

TARGET_ACCEPT = 0.9
# A first warm-up from the start, in poor coordinates, is not worth long trajectories.
MAX_TREE_DEPTH = (7, 9)
# Where that has not converged: shorter steps, as divergences ask for, and longer trajectories.
SECOND_TARGET_ACCEPT = 0.98
SECOND_MAX_TREE_DEPTH = (8, 10)

WARMUPS = 3
FEW_STEPS = 100
"""Warm-ups, each in the coordinates that the one before found, go on while trajectories are longer
than this on average, up to their number."""

RECORDED = ("laddercast", "numpyro", "jax", "arviz", "numpy", "pandas", "xarray")


def fit(
    ladder: Ladder,
    priors: Priors | None = None,
    *,
    seed: int = 0,
    chains: int = 4,
    warmup: int = 300,
    draws: int = 2000,
    device: Literal["cpu", "gpu"] = "cpu",
    progress: bool = True,
) -> xr.DataTree:
    """Fit the two-stage model to a ladder with NUTS.

    Warm-ups of `warmup` steps, each of which finds the coordinates for the next, then `draws` per
    chain. Where these have not converged, once more from where they ended, in coordinates
    found from them, with shorter steps and twice the draws. Groups: `posterior`, `sample_stats`,
    `log_likelihood` (per model x task and site), `log_prior`, `observed_data`, `constant_data`.
    Warns, and sets the attribute `converged` to 0 and `complaints`, where the draws cannot be
    trusted even so. Raises ValueError for settings below 1 and a device that JAX does not have.
    """
    wrong = [
        f"{name}={value}"
        for name, value in {"chains": chains, "warmup": warmup, "draws": draws}.items()
        if value < 1
    ]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: give whole numbers of at least 1")
    priors = Priors() if priors is None else priors
    design, observed, labels, frame = ladder_design(ladder)
    runs = ladder.table.groupby(c.MODEL)[[c.PARAMS, c.TOKENS]].max().loc[labels.model]
    place = _device(device)
    one_warmup = chains * steps_taken(warmup)
    total = WARMUPS * one_warmup + chains * steps_taken(warmup + draws)
    with on_device(place), progress_bar(total, progress) as bar:
        # Settings of one warm-up length share one compiled kernel.
        settings = Settings(warmup, TARGET_ACCEPT, MAX_TREE_DEPTH)
        pins = pin(design, observed)
        like = start(design, observed, priors, pins)
        arrays = jax.tree.map(jnp.asarray, (design, priors, observed, pins, like))
        data = jax.device_put(arrays, place)
        group = task_of_coordinate(like, design)
        information = _information(like, design)
        keys = jax.random.split(jax.random.key(seed), WARMUPS + 2)

        mode, scale = _conditional_mode(like, data, group)
        coordinates = _standardised(mode, scale, data, group, information)
        centers = np.tile(mode, (chains, 1))
        for left, key in zip(range(WARMUPS - 1, -1, -1), keys[:WARMUPS], strict=True):
            found = run_chains(potential, settings, centers, coordinates, data, key, 0, bar, place)
            early, steps = found.position[:, warmup // 2 :], found.num_steps[:, warmup // 2 :]
            centers = early[:, -1]
            if steps.mean() < FEW_STEPS:
                lengthen(bar, -left * one_warmup)
                break
            coordinates = _from_draws(early, data, group, information)
        careful = Settings(warmup, SECOND_TARGET_ACCEPT, SECOND_MAX_TREE_DEPTH)
        for key, length, chosen in zip(
            keys[WARMUPS:], (draws, 2 * draws), (settings, careful), strict=True
        ):
            coordinates = _from_draws(early, data, group, information)
            found = run_chains(
                potential, chosen, early[:, -1], coordinates, data, key, length, bar, place
            )
            kept = Draws(*(field[:, warmup : warmup + length] for field in found))
            sites, log_likelihood, log_prior = jax.tree.map(
                np.asarray, _replay(jnp.asarray(kept.position), data)
            )
            stats = {
                "diverging": kept.diverging,
                "n_steps": kept.num_steps,
                "acceptance_rate": kept.accept_prob,
                "energy": kept.energy,
            }
            tree = as_tree(
                sites, log_likelihood, log_prior, stats, design, observed, labels, frame,
                ladder.tasks, runs,
            )  # fmt: skip
            doubts = complaints(tree)
            # Fewer draws than the limit on effective ones cannot converge, nor can twice of them.
            if not doubts or chains * draws < ESS_PARAMETERS:
                break
            if length == draws:
                lengthen(bar, chains * steps_taken(warmup + 2 * draws))
                bar.set_description("not converged, sampling on")
            early = kept.position
    settings_text = json.dumps(
        {"chains": chains, "warmup": warmup, "draws": kept.diverging.shape[1], "device": device,
         "target_accept": chosen.target_accept, "max_tree_depth": chosen.max_tree_depth,
         "rungs": ladder.rungs}
    )  # fmt: skip
    tree.attrs.update(
        {
            "seed": seed,
            "settings": settings_text,
            "priors": json.dumps(_described(priors)),
            "fingerprint": ladder.fingerprint,
            "versions": json.dumps({name: version(name) for name in RECORDED}),
        }
    )
    return mark(tree, doubts)


def _device(name: str) -> Any:
    try:
        return jax.devices(name)[0]
    except RuntimeError as error:
        raise ValueError(
            f"device={name!r}: JAX has no such device here ({error}); "
            'use device="cpu", or install JAX for your GPU'
        ) from None


def potential(position: jax.Array, data: Data) -> jax.Array:
    """Negative log density of an unconstrained position."""
    design, priors, observed, pins, like = data
    sites = ravel_pytree(like)[1](position)
    return potential_energy(sampled_model(pins), (design, priors), observed._asdict(), sites)


def _trace(
    model: Callable[..., None],
    substitute: Callable[[dict[str, Any]], Any],
    *args: Any,
    **kwargs: Any,
) -> dict[str, Any]:
    seeded = handlers.seed(model, jax.random.key(0))
    substituted = handlers.substitute(seeded, substitute_fn=substitute)
    return handlers.trace(substituted).get_trace(*args, **kwargs)


def _is_latent(site: dict[str, Any]) -> bool:
    return site["type"] == "sample" and not site["is_observed"]


def pin(design: Design, observed: Observed) -> Pins:
    """What the measurements alone say of the latent values, in logs for loss."""

    def pinned(
        value: np.ndarray, variance: np.ndarray, count: np.ndarray, cell: np.ndarray, cells: int
    ) -> tuple[np.ndarray, np.ndarray]:
        weight = count / variance
        precision = np.bincount(cell, weight, minlength=cells)
        total = np.bincount(cell, weight * value, minlength=cells)
        return total / np.where(precision > 0, precision, 1.0), precision

    curve = design.loss_cell_curve[design.loss_cell]
    variance = _means(
        observed.loss_spread,
        design.loss_cell_curve[design.loss_spread_cell],
        len(design.curve),
        TYPICAL_LOSS_SD**2,
    )
    loss = pinned(
        np.log(observed.loss),
        variance[curve],
        design.loss_checkpoints,
        design.loss_cell,
        len(design.loss_cell_run),
    )
    task = design.accuracy_cell_task[design.accuracy_cell]
    items, p = design.items[task], observed.accuracy
    binomial = (p * (1 - p) + 1 / items) / items
    accuracy = pinned(
        p,
        TYPICAL_ACCURACY_FACTOR**2 * binomial,
        design.accuracy_checkpoints,
        design.accuracy_cell,
        len(design.accuracy_cell_run),
    )
    return Pins(*loss, *accuracy)


def start(design: Design, observed: Observed, priors: Priors, pins: Pins) -> dict[str, jax.Array]:
    """Unconstrained start: levels as measured, prior means elsewhere."""
    log_loss = np.log(observed.loss)
    curve_of_row = design.loss_cell_curve[design.loss_cell]
    task_of_row = design.accuracy_cell_task[design.accuracy_cell]
    chance = design.chance[task_of_row]
    share = np.clip((observed.accuracy - chance) / (1 - chance), 0.02, 0.98)
    logit = np.log(share / (1 - share))
    values = {
        "loss_level": _means(log_loss, curve_of_row, len(design.curve), log_loss.mean()),
        "accuracy_level": _means(logit, task_of_row, len(design.chance), -1.0),
        "log_latent_loss_base": np.zeros(len(design.loss_cell_run)),
        "run_mean_accuracy_base": np.zeros(len(design.accuracy_cell_run)),
    }
    return _start(values, design, priors, observed, pins)


@jax.jit
def _start(
    values: dict[str, Any], design: Design, priors: Priors, observed: Observed, pins: Pins
) -> dict[str, jax.Array]:
    def substitute(site: dict[str, Any]) -> Any:
        if not _is_latent(site):
            return None
        return values[site["name"]] if site["name"] in values else _middle(site["fn"])

    model = sampled_model(pins)
    trace = _trace(model, substitute, design, priors, **observed._asdict())
    return {
        name: dist.biject_to(site["fn"].support).inv(site["value"])
        for name, site in trace.items()
        if _is_latent(site)
    }


def _middle(fn: dist.Distribution) -> Any:
    # The mean of a Cauchy prior does not exist; its median is then its location.
    mean = jnp.broadcast_to(fn.mean, fn.shape())
    return jnp.where(jnp.isfinite(mean), mean, getattr(fn, "loc", 1.0))


def _means(values: np.ndarray, index: np.ndarray, size: int, default: Any) -> np.ndarray:
    count = np.bincount(index, minlength=size)
    total = np.bincount(index, values, minlength=size)
    return np.where(count > 0, total / np.maximum(count, 1), default)


@jax.jit
def _at_rest(position: jax.Array, data: Data) -> tuple[jax.Array, Data]:
    """The position and data had every run and checkpoint obeyed the laws exactly.

    There, curvature is the information about the laws, without the noise that the residuals of one
    data set lend it in directions that they leave nearly flat.
    """
    design, priors, observed, pins, like = data
    sites = ravel_pytree(like)[1](position)

    def substitute(site: dict[str, Any]) -> Any:
        name = site["name"]
        if site["type"] != "sample":
            return None
        if name in LATENT or name == "accuracy":
            return site["fn"].loc
        if name == "loss":
            return jnp.exp(site["fn"].loc)
        if name in ("loss_spread", "accuracy_spread"):
            return site["fn"].mean
        return dist.biject_to(site["fn"].support)(sites[name])

    trace = _trace(handlers.reparam(two_stage, config=HALFWAY), substitute, design, priors)
    rest = {
        name: jnp.zeros_like(value) if name.removesuffix("_base") in LATENT else value
        for name, value in sites.items()
    }
    measured = Observed(
        *(
            trace[name]["value"] if name in trace else getattr(observed, name)
            for name in Observed._fields
        )
    )
    pins = pins._replace(
        loss_mean=trace["log_latent_loss"]["value"],
        accuracy_mean=trace["run_mean_accuracy"]["value"],
    )
    return ravel_pytree(rest)[0], (design, priors, measured, pins, like)


def task_of_coordinate(start: dict[str, jax.Array], design: Design) -> np.ndarray:
    """The task to which each unconstrained coordinate belongs, -1 for those shared by all."""
    tasks = len(design.chance)
    own_curves = len(design.curve) == tasks
    groups = {}
    for name, value in start.items():
        shape = np.shape(value)
        if name == "log_latent_loss_base":
            group = design.loss_cell_curve if own_curves else -1
        elif name == "run_mean_accuracy_base":
            group = design.accuracy_cell_task
        elif name in PER_CURVE:
            group = np.arange(tasks) if own_curves else -1
        elif name in PER_TASK:
            group = np.arange(tasks)
        else:
            group = -1
        groups[name] = np.broadcast_to(np.asarray(group, float), shape)
    return np.asarray(ravel_pytree(groups)[0]).astype(int)


def _information(like: dict[str, Any], design: Design) -> np.ndarray:
    """Expected information about the scales of run effects, which residuals of zero cannot show."""
    per_cell = 2 * RUN_DOF / (RUN_DOF + 3)  # of a Student-t about its log scale
    information = {name: np.zeros(np.shape(value)) for name, value in like.items()}
    information["log_run_loss"] += per_cell * np.bincount(
        design.loss_cell_curve, minlength=len(design.curve)
    )
    information["log_run_accuracy"] += per_cell * np.bincount(
        design.accuracy_cell_task, minlength=len(design.chance)
    )
    # Roughly, for the logits of the correlations: a quarter of the same, over all cells.
    information["run_loss_correlation"] += per_cell * len(design.loss_cell_run) / 8
    information["run_accuracy_correlation"] += per_cell * len(design.accuracy_cell_run) / 8
    return np.asarray(ravel_pytree(information)[0])


class _Gradient:
    """Value and gradient in the order of positions, from the function compiled for the chains."""

    def __init__(self, group: np.ndarray) -> None:
        self.identity = geometry(np.eye(len(group)), group)
        order = np.concatenate([self.identity.global_index, self.identity.block_index.ravel()])
        self.index = np.argsort(order, kind="stable")[: len(group)]
        self.zero = np.zeros(len(order))
        self.compiled = value_and_gradient(potential)

    def __call__(self, position: np.ndarray, data: Any) -> tuple[float, np.ndarray]:
        value, gradient = self.compiled(self.zero, (self.identity._replace(center=position), data))
        return float(value), np.asarray(gradient)[self.index]

    def difference(self, position: np.ndarray, i: int, step: float, data: Any) -> np.ndarray:
        """One column of the curvature, by central differences extrapolated to a step of zero."""

        def central(h: float) -> np.ndarray:
            up, down = position.copy(), position.copy()
            up[i] += h
            down[i] -= h
            return (self(up, data)[1] - self(down, data)[1]) / (2 * h)

        return (4 * central(step / 2) - central(step)) / 3


def _conditional_mode(
    like: dict[str, Any], data: Any, group: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mode given the prior medians of noise scales, and the scale of each coordinate there.

    The joint mode is of no use: it lies where noise scales are too small by far.
    """
    gradient = _Gradient(group)
    position = np.asarray(ravel_pytree(like)[0])
    diagonal = [gradient.difference(position, i, 1e-6, data)[i] for i in range(len(position))]
    scale = 1 / np.sqrt(np.maximum(np.abs(diagonal), 0.5))
    fixed = {
        name: np.full(np.shape(value), any(word in name for word in NOISE) and "shared" not in name)
        for name, value in like.items()
    }
    step = np.where(np.asarray(ravel_pytree(fixed)[0]), 0.0, scale)

    def scaled(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = gradient(position + step * x, data)
        return value, slope * step

    best = minimize(
        scaled, np.zeros_like(position), jac=True, method="L-BFGS-B",
        options={"maxiter": 1000, "maxcor": 30},
    )  # fmt: skip
    return position + step * best.x, scale


def _from_draws(
    draws: np.ndarray, data: Any, group: np.ndarray, information: np.ndarray
) -> Geometry:
    """Standard coordinates around the middle of draws (chains, draws, dim)."""
    flat = draws.reshape(-1, draws.shape[-1])
    # Draws of chains that stood still have no scale, and differences need a step.
    scale = np.maximum(flat.std(axis=0), 1e-9)
    return _standardised(flat.mean(axis=0), scale, data, group, information)


def _standardised(
    position: np.ndarray, scale: np.ndarray, data: Any, group: np.ndarray, information: np.ndarray
) -> Geometry:
    """Standard coordinates from the curvature at rest around this position."""
    gradient = _Gradient(group)
    rest, at_rest = _at_rest(position, data)
    rest = np.asarray(rest)
    columns = [gradient.difference(rest, i, 1e-3 * scale[i], at_rest) for i in range(len(rest))]
    curvature = np.array(columns)
    curvature = (curvature + curvature.T) / 2 + np.diag(information)
    return jax.tree.map(jnp.asarray, geometry(curvature, group))


@jax.jit
def _replay(positions: jax.Array, data: Data) -> tuple[dict, dict, dict]:
    """Constrained sites, log likelihood per cell and log prior per site of each draw."""
    design, priors, observed, pins, like = data
    unravel = ravel_pytree(like)[1]
    measured = observed._asdict()

    def one(position: jax.Array) -> tuple[dict, dict, dict]:
        unconstrained = unravel(position)

        def constrained(site: dict[str, Any]) -> Any:
            if not _is_latent(site):
                return None
            return dist.biject_to(site["fn"].support)(unconstrained[site["name"]])

        sampled = _trace(sampled_model(pins), constrained, design, priors, **measured)
        # Once more in the model's own sites, for their densities.
        plain = _trace(
            two_stage,
            lambda site: sampled[site["name"]]["value"] if _is_latent(site) else None,
            design,
            priors,
            **measured,
        )
        latent = {name: site for name, site in plain.items() if _is_latent(site)}
        sites = {name: site["value"] for name, site in latent.items()}
        prior = {
            name: jnp.sum(site["fn"].log_prob(site["value"]))
            for name, site in latent.items()
            if name not in LATENT
        }
        return sites, _marginal_likelihood(plain, design), prior

    chains, draws, dim = positions.shape
    flat = jax.lax.map(one, positions.reshape(-1, dim), batch_size=100)
    return jax.tree.map(lambda x: x.reshape(chains, draws, *x.shape[1:]), flat)


NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(12)


def _marginal_likelihood(trace: dict[str, Any], design: Design) -> dict[str, jax.Array]:
    """Log likelihood per cell and site, integrated over the cell's own run effect (quadrature).

    Conditional on it, every cell would seem to be predicted as well as its checkpoints allow, and
    leave-one-out comparisons would be blind to the laws.
    """

    def marginal(site: str, latent: str, cell: Any, measured: jax.Array) -> jax.Array:
        prior, value = trace[latent]["fn"], trace[latent]["value"]
        row = trace[site]["fn"]
        cells = value.shape[0]
        precision = jax.ops.segment_sum(row.scale**-2, cell, cells)
        offset = row.loc - value[cell]
        residual = measured - offset
        precision = jnp.where(precision > 0, precision, 1.0)  # of cells without a row
        mean = jax.ops.segment_sum(residual * row.scale**-2, cell, cells) / precision
        sd = precision**-0.5
        # The rows' joint density is a constant times a normal density of the latent value.
        constant = (
            jax.ops.segment_sum(dist.Normal(mean[cell], row.scale).log_prob(residual), cell, cells)
            + 0.5 * jnp.log(2 * jnp.pi)
            + jnp.log(sd)
        )
        nodes = mean + sd * NODES[:, None]
        weights = np.log(WEIGHTS / np.sqrt(2 * np.pi))[:, None]
        return constant + jax.nn.logsumexp(prior.log_prob(nodes) + weights, axis=0)

    log_loss = jnp.log(trace["loss"]["value"])
    jacobian = jax.ops.segment_sum(log_loss, design.loss_cell, design.loss_cell_run.shape[0])
    return {
        "loss": marginal("loss", "log_latent_loss", design.loss_cell, log_loss) - jacobian,
        "accuracy": marginal(
            "accuracy", "run_mean_accuracy", design.accuracy_cell, trace["accuracy"]["value"]
        ),
    }


def _described(priors: Priors) -> dict[str, str]:
    def describe(prior: dist.Distribution) -> str:
        given = ", ".join(
            f"{float(getattr(prior, name)):g}"
            if np.ndim(getattr(prior, name)) == 0
            else str(getattr(prior, name))
            for name in prior.arg_constraints
        )
        return f"{type(prior).__name__}({given})"

    return {prior.name: describe(getattr(priors, prior.name)) for prior in fields(priors)}

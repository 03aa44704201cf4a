"""Fitting the joint model with NUTS: start, parameterisation, settings, and what is kept."""

import json
from dataclasses import fields
from importlib.metadata import version
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.infer.reparam import LocScaleReparam
from numpyro.infer.util import potential_energy
from scipy.optimize import minimize

from laddercast import columns as c
from laddercast.design import Design, Observed, ladder_design
from laddercast.fitted import ESS_PARAMETERS, LATENT, as_tree, complaints, mark
from laddercast.geometry import Geometry, geometry
from laddercast.ladder import Ladder
from laddercast.model import RUN_DOF, two_stage
from laddercast.priors import Priors
from laddercast.sampler import (
    Draws,
    Settings,
    on_device,
    progress_bar,
    run_chains,
    value_and_gradient,
)

# What the data pin down about as well as the pooling does is centred halfway: centred, its pooling
# scale makes a funnel; as a standard deviate, the scale is bound to every well-measured task.
HALF_CENTRED = ("log_alpha", "log_beta", "share_e", "share_a")

sampled_model = handlers.reparam(
    two_stage, config={site: LocScaleReparam(0.5) for site in HALF_CENTRED}
)

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

TARGET_ACCEPT = 0.85
# A first warm-up from the start, in poor coordinates, is not worth long trajectories.
MAX_TREE_DEPTH = (7, 9)

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
    found from them and with twice the draws. Groups: `posterior`, `sample_stats`, `log_likelihood`
    (per model x task and site), `log_prior`, `observed_data`, `constant_data`. Warns, and sets the
    attribute `converged` to 0 and `complaints`, where the draws cannot be trusted even so. Raises
    ValueError for settings below 1, and RuntimeError for a device that JAX does not have.
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
    with on_device(place), progress_bar(chains * (3 * warmup + draws), progress) as bar:
        # Settings of one warm-up length share one compiled kernel.
        settings = Settings(warmup, TARGET_ACCEPT, MAX_TREE_DEPTH)
        like = start(design, observed, priors)
        data = jax.device_put(jax.tree.map(jnp.asarray, (design, priors, observed, like)), place)
        group = task_of_coordinate(like, design)
        information = _information(like, design)
        keys = jax.random.split(jax.random.key(seed), WARMUPS + 2)

        mode, scale = _conditional_mode(like, data, group)
        coordinates = _standardised(mode, scale, data, group, information)
        centers = np.tile(mode, (chains, 1))
        for key in keys[:WARMUPS]:
            found = run_chains(potential, settings, centers, coordinates, data, key, 0, bar, place)
            early, steps = found.position[:, warmup // 2 :], found.num_steps[:, warmup // 2 :]
            centers = early[:, -1]
            if steps.mean() < FEW_STEPS:
                break
            coordinates = _from_draws(early, data, group, information)
        for key, length in zip(keys[WARMUPS:], (draws, 2 * draws), strict=True):
            coordinates = _from_draws(early, data, group, information)
            found = run_chains(
                potential, settings, early[:, -1], coordinates, data, key, length, bar, place
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
                bar.total += chains * (warmup + 2 * draws)
                bar.set_description("not converged, sampling on")
            early = kept.position
    settings_text = json.dumps(
        {"chains": chains, "warmup": warmup, "draws": kept.diverging.shape[1], "device": device,
         "target_accept": TARGET_ACCEPT, "max_tree_depth": MAX_TREE_DEPTH, "rungs": ladder.rungs}
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
        raise RuntimeError(
            f"device={name!r}: JAX has no such device here ({error}); "
            'use device="cpu", or install JAX for your GPU'
        ) from None


def potential(position: jax.Array, data: tuple[Design, Priors, Observed, dict]) -> jax.Array:
    """Negative log density of an unconstrained position."""
    design, priors, observed, like = data
    sites = ravel_pytree(like)[1](position)
    return potential_energy(sampled_model, (design, priors), observed._asdict(), sites)


@jax.jit
def _start(values: dict[str, Any], design: Design, priors: Priors, observed: Observed) -> dict:
    def substitute(site: dict[str, Any]) -> Any:
        if site["type"] != "sample" or site["is_observed"]:
            return None
        return values[site["name"]] if site["name"] in values else _middle(site["fn"])

    model = handlers.substitute(
        handlers.seed(sampled_model, jax.random.key(0)), substitute_fn=substitute
    )
    trace = handlers.trace(model).get_trace(design, priors, **observed._asdict())
    return {
        name: dist.biject_to(site["fn"].support).inv(site["value"])
        for name, site in trace.items()
        if site["type"] == "sample" and not site["is_observed"]
    }


def _middle(fn: dist.Distribution) -> Any:
    # The mean of a Cauchy prior does not exist; its median is then its location.
    mean = jnp.broadcast_to(fn.mean, fn.shape())
    return jnp.where(jnp.isfinite(mean), mean, getattr(fn, "loc", 1.0))


def start(design: Design, observed: Observed, priors: Priors) -> dict[str, jax.Array]:
    """Unconstrained start: what is measured where it was measured, prior medians elsewhere."""
    log_loss = np.log(observed.loss)
    curve_of_row = design.loss_cell_curve[design.loss_cell]
    level = _means(log_loss, curve_of_row, len(design.curve), log_loss.mean())
    latent = _means(
        log_loss, design.loss_cell, len(design.loss_cell_run), level[design.loss_cell_curve]
    )
    task_of_row = design.accuracy_cell_task[design.accuracy_cell]
    chance, accuracy = design.chance[task_of_row], observed.accuracy
    share = np.clip((accuracy - chance) / (1 - chance), 0.02, 0.98)
    tasks = len(design.chance)
    logit = _means(np.log(share / (1 - share)), task_of_row, tasks, -1.0)
    mean = _means(accuracy, task_of_row, tasks, accuracy.mean())
    run_mean = _means(
        accuracy,
        design.accuracy_cell,
        len(design.accuracy_cell_run),
        mean[design.accuracy_cell_task],
    )
    values = {
        "loss_level": level,
        "accuracy_level": logit,
        "log_latent_loss": latent,
        "run_mean_accuracy": run_mean,
    }
    return _start(values, design, priors, observed)


def _means(values: np.ndarray, index: np.ndarray, size: int, default: Any) -> np.ndarray:
    count = np.bincount(index, minlength=size)
    total = np.bincount(index, values, minlength=size)
    return np.where(count > 0, total / np.maximum(count, 1), default)


@jax.jit
def _at_rest(position: jax.Array, data: tuple[Design, Priors, Observed, dict]) -> tuple:
    """The position and measurements had every run and checkpoint obeyed the laws exactly.

    There, curvature is the information about the laws, without the noise that the residuals of one
    data set lend it in directions that they leave nearly flat.
    """
    design, priors, observed, like = data
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

    model = handlers.substitute(
        handlers.seed(sampled_model, jax.random.key(0)), substitute_fn=substitute
    )
    trace = handlers.trace(model).get_trace(design, priors)
    rest = {
        name: trace[name]["value"] if name in LATENT else value for name, value in sites.items()
    }
    measured = Observed(
        *(
            trace[name]["value"] if name in trace else getattr(observed, name)
            for name in Observed._fields
        )
    )
    return ravel_pytree(rest)[0], measured


def task_of_coordinate(start: dict[str, jax.Array], design: Design) -> np.ndarray:
    """The task to which each unconstrained coordinate belongs, -1 for those shared by all."""
    tasks = len(design.chance)
    own_curves = len(design.curve) == tasks
    groups = {}
    for name, value in start.items():
        shape = np.shape(value)
        if name == "log_latent_loss":
            group = design.loss_cell_curve if own_curves else -1
        elif name == "run_mean_accuracy":
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
    design, priors, _, like = data
    rest, measured = _at_rest(position, data)
    rest = np.asarray(rest)
    at_rest = (design, priors, measured, like)
    columns = [gradient.difference(rest, i, 1e-3 * scale[i], at_rest) for i in range(len(rest))]
    curvature = np.array(columns)
    curvature = (curvature + curvature.T) / 2 + np.diag(information)
    return jax.tree.map(jnp.asarray, geometry(curvature, group))


@jax.jit
def _replay(positions: jax.Array, data: tuple[Design, Priors, Observed, dict]) -> tuple:
    """Constrained sites, log likelihood per cell and log prior per site of each draw."""
    design, priors, observed, like = data
    unravel = ravel_pytree(like)[1]

    def one(position: jax.Array) -> tuple[dict, dict, dict]:
        unconstrained = unravel(position)

        def substitute(site: dict[str, Any]) -> Any:
            if site["type"] != "sample" or site["is_observed"]:
                return None
            return dist.biject_to(site["fn"].support)(unconstrained[site["name"]])

        model = handlers.substitute(
            handlers.seed(sampled_model, jax.random.key(0)), substitute_fn=substitute
        )
        trace = handlers.trace(model).get_trace(design, priors, **observed._asdict())
        sites = {
            name: site["value"]
            for name, site in trace.items()
            if (site["type"] == "sample" and not site["is_observed"]) or name in HALF_CENTRED
        }
        prior = {
            name: jnp.sum(site["fn"].log_prob(site["value"]))
            for name, site in trace.items()
            if site["type"] == "sample" and not site["is_observed"] and name not in LATENT
        }
        return sites, _marginal_likelihood(trace, design), prior

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

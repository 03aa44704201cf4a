"""The routes from params and tokens to accuracy: each one NumPyro function, to fit and forecast.

A route conditions on what was observed and forecasts what was not, in the order of the design's
points. Sites `law`, `discrepancy`, `run` and `accuracy` are the successive levels of one forecast:
the laws as the ladder bends them, then with discrepancy beyond the ladder, with the run's effect,
and as measured.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, nn
from jax.typing import ArrayLike
from numpyro import handlers

from laddercast import columns as c
from laddercast import laws
from laddercast.design import Design, Observed, Seen
from laddercast.priors import Priors

RUN_DOF = 4.0
"""Degrees of freedom of run effects: heavy tails, so that an outlying rung does not bend a law."""

LATENT = ("log_latent_reference_loss", "log_latent_loss", "run_mean_accuracy")
"""Sites of what each run's checkpoints scatter about."""

NOTHING = Observed()

type Route = Callable[..., None]


class RunEffect(dist.StudentT):  # type: ignore[misc]
    """Student-t with `RUN_DOF` = 4 degrees of freedom: heavy tails, and quick draws.

    `noise` is the SD of one checkpoint about the effect: no part of its density, but of how well
    measurements pin it down.
    """

    def __init__(self, loc: ArrayLike, scale: ArrayLike, noise: ArrayLike) -> None:
        self.noise = noise
        super().__init__(RUN_DOF, loc, scale)

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """By the inverse of the distribution function, which for 4 degrees has a closed form."""
        dtype = jnp.result_type(float)
        tiny = float(np.finfo(dtype).tiny)
        u = jax.random.uniform(key, sample_shape + self.batch_shape, dtype, tiny)
        root = jnp.sqrt(4 * u * (1 - u))
        size = 2 * jnp.sqrt(jnp.maximum(jnp.cos(jnp.arccos(root) / 3) / root - 1, 0))
        return self.loc + self.scale * jnp.sign(u - 0.5) * size

    def log_prob(self, value: ArrayLike) -> Array:
        """Closed as well: the general form would compile gamma functions of known numbers."""
        z = (jnp.asarray(value) - self.loc) / self.scale
        return float(np.log(3 / 8)) - jnp.log(self.scale) - 2.5 * jnp.log1p(z**2 / RUN_DOF)


class Path(NamedTuple):
    """Log of what stage 2 reads, relative to its value at the reference sizes: (points, tasks).

    As the law has it within the ladder, with discrepancy beyond, and with the run's effect.
    """

    law: Array
    discrepancy: Array
    run: Array


def two_stage(design: Design, priors: Priors, observed: Observed = NOTHING) -> None:
    """Task loss from params and tokens, accuracy from the run's latent task loss."""
    _accuracy(design, priors, observed, _task_loss(design, priors, observed), "slope")


def by_reference(design: Design, priors: Priors, observed: Observed = NOTHING) -> None:
    """Reference loss from params and tokens, accuracy from the run's latent reference loss."""
    _accuracy(design, priors, observed, _reference_loss(design, priors, observed), "slope")


def direct(design: Design, priors: Priors, observed: Observed = NOTHING) -> None:
    """Accuracy from params and tokens, through no measured loss."""
    plate = _tasks(design)
    alpha, beta, log_a, log_b = _terms(plate, priors)
    q = _scalar(priors, "q")
    log_x = laws.log_reducible(
        design.log_params[:, None], design.log_tokens[:, None],
        log_a / q, log_b / q, alpha, beta, q,
    )  # fmt: skip
    _accuracy(design, priors, observed, Path(log_x, log_x, log_x), "rise")


ROUTES: dict[str, Route] = {
    "two_stage": two_stage,
    "by_reference": by_reference,
    "direct": direct,
}

READS = {
    "two_stage": (c.LOSS, c.ACCURACY),
    "by_reference": (c.REFERENCE_LOSS, c.ACCURACY),
    "direct": (c.ACCURACY,),
}
"""What was measured that a route conditions on."""


def _tasks(design: Design) -> numpyro.plate:
    return numpyro.plate("task", design.chance.shape[0], dim=-1)


def _scalar(priors: Priors, name: str) -> Array:
    return numpyro.sample(name, getattr(priors, name))


def _pooled(
    plate: numpyro.plate,
    priors: Priors,
    name: str,
    site: str | None = None,
    about: ArrayLike = 0.0,
) -> Array:
    center, scale = _scalar(priors, f"{name}_center"), _scalar(priors, f"{name}_scale")
    with plate:
        return numpyro.sample(site or f"log_{name}", dist.Normal(about + center, scale))


def _terms(plate: numpyro.plate, priors: Priors) -> tuple[Array, Array, Array, Array]:
    """Exponents of N and D, and logs of their parts (summing to 1) at the reference sizes."""
    alpha = jnp.exp(_pooled(plate, priors, "alpha"))
    beta = jnp.exp(_pooled(plate, priors, "beta"))
    share_a = _pooled(plate, priors, "share_a", "share_a")
    return alpha, beta, nn.log_sigmoid(share_a), nn.log_sigmoid(-share_a)


def _walk(design: Design, name: str, scale: Array, *, common: bool) -> tuple[Array, Array]:
    """A random walk (points, tasks), or (points, 1) if `common`: in the ladder's reach, in full."""

    def part(site: str, weights: ArrayLike) -> Array:
        steps = jnp.shape(weights)[1]
        if common:
            with numpyro.plate(f"{site}_step", steps):
                step = numpyro.sample(site, dist.Normal(0, scale))[:, None]
        else:
            with numpyro.plate(f"{site}_step", steps, dim=-2), _tasks(design):
                step = numpyro.sample(site, dist.Normal(0, scale))
        # A sum of products: for matrices as small, compiled dot products take several times longer.
        return jnp.sum(jnp.asarray(weights)[..., None] * step, axis=1)

    within = part(name, design.walk)
    if not design.beyond.shape[1]:
        return within, within
    return within, within + part(f"{name}_beyond", design.beyond)


def _at_ends(x: Array, design: Design) -> Array:
    """Of (points, ...) those at which runs end, (runs, ...)."""
    return _once(x) if _one_each(design) else x[design.end]


def _at_points(x: Array, design: Design) -> Array:
    """Of (runs, ...) that of each point's run, (points, ...)."""
    return _once(x) if _one_each(design) else x[design.run]


def _one_each(design: Design) -> bool:
    """Whether each run has one point: they then stand in the order of the runs."""
    return bool(design.end.shape == design.run.shape)


def _once(x: Array) -> Array:
    # XLA would compute the law again in each place that reads it.
    return jnp.asarray(jax.lax.optimization_barrier(x))  # type: ignore[no-untyped-call]


def _task_loss(design: Design, priors: Priors, observed: Observed) -> Path:
    plate = _tasks(design)
    with plate:
        level = numpyro.sample("loss_level", priors.loss_level)
    alpha, beta, log_a, log_b = _terms(plate, priors)
    share_e = _pooled(plate, priors, "share_e", "share_e")
    log_run = _pooled(plate, priors, "run_loss")
    # About the noise between runs: where each run was measured once, only their sum shows.
    log_checkpoint = _pooled(plate, priors, "checkpoint_loss", about=log_run)
    q = _scalar(priors, "q")
    log_law = level + laws.log_loss(
        design.log_params[:, None], design.log_tokens[:, None],
        log_a / q + nn.log_sigmoid(-share_e), log_b / q + nn.log_sigmoid(-share_e),
        nn.log_sigmoid(share_e), alpha, beta, q,
    )  # fmt: skip
    scale = _scalar(priors, "walk_loss_scale")
    near, walk = _walk(design, "walk_loss", scale, common=False)
    log_mean = log_law + walk

    correlation = _scalar(priors, "run_loss_correlation")
    with numpyro.plate("model", design.end.shape[0]):
        shared = numpyro.sample("run_loss_shared", dist.Normal())[:, None]
    scale, checkpoint = jnp.exp(log_run), jnp.exp(log_checkpoint)
    at_end = _at_ends(log_mean, design)
    with numpyro.plate("model_of_task", design.end.shape[0], dim=-2), plate:
        latent = numpyro.sample(
            "log_latent_loss",
            RunEffect(
                at_end + scale * jnp.sqrt(correlation) * shared,
                scale * jnp.sqrt(1 - correlation),
                checkpoint,
            ),
        )
    # A run's deviation from the law is the same at all its points.
    log_latent = log_mean + _at_points(latent - at_end, design)
    _measure("loss", dist.LogNormal, log_latent, checkpoint, design.loss, observed.loss)
    _spread("loss", checkpoint**2, design.loss, observed.loss_spread)
    return Path(log_law + near - level, log_mean - level, log_latent - level)


def _reference_loss(design: Design, priors: Priors, observed: Observed) -> Path:
    level = _scalar(priors, "reference_level")
    share_e, share_a = _scalar(priors, "reference_share_e"), _scalar(priors, "reference_share_a")
    q = _scalar(priors, "q")
    log_reducible = nn.log_sigmoid(-share_e)
    log_law = level + laws.log_loss(
        design.log_params, design.log_tokens,
        log_reducible + nn.log_sigmoid(share_a) / q, log_reducible + nn.log_sigmoid(-share_a) / q,
        nn.log_sigmoid(share_e),
        _scalar(priors, "reference_alpha"), _scalar(priors, "reference_beta"), q,
    )[:, None]  # fmt: skip
    scale = _scalar(priors, "walk_reference_scale")
    near, walk = _walk(design, "walk_reference", scale, common=True)
    log_mean = log_law + walk
    at_end = _at_ends(log_mean, design)[:, 0]
    run, checkpoint = _scalar(priors, "run_reference"), _scalar(priors, "checkpoint_reference")
    with numpyro.plate("model", design.end.shape[0]):
        latent = numpyro.sample("log_latent_reference_loss", RunEffect(at_end, run, checkpoint))
    log_latent = log_mean + _at_points(latent - at_end, design)[:, None]
    seen = design.reference_loss
    _measure("reference_loss", dist.LogNormal, log_latent, checkpoint, seen,
             observed.reference_loss)  # fmt: skip
    _spread("reference_loss", checkpoint**2, seen, observed.reference_loss_spread)
    return Path(log_law + near - level, log_mean - level, log_latent - level)


def _accuracy(
    design: Design, priors: Priors, observed: Observed, path: Path, steepness: str
) -> None:
    """Stage 2: the logit falls with a relative loss (`slope`) or with the direct law (`rise`)."""
    plate = _tasks(design)
    with plate:
        level = numpyro.sample("accuracy_level", priors.accuracy_level)
        gap = numpyro.sample("gap", priors.gap)
        log_lower = numpyro.sample("log_lower", priors.log_lower)
    steep = jnp.exp(_pooled(plate, priors, steepness))
    log_run = _pooled(plate, priors, "run_accuracy")
    log_checkpoint = _pooled(plate, priors, "checkpoint_accuracy", about=log_run)
    upper = 1 - gap
    lower = jnp.minimum(design.chance * jnp.exp(log_lower), upper)
    scale = _scalar(priors, "walk_accuracy_scale")
    near, walk = _walk(design, "walk_accuracy", scale, common=False)

    def curve(log_x: Array, shift: Array) -> Array:
        return laws.between(level - steep * jnp.expm1(log_x) + shift, lower, upper)

    def binomial_sd(p: Array) -> Array:
        # One pseudo-count keeps the noise above zero where a curve ends at 0 or 1.
        return jnp.sqrt((p * (1 - p) + 1 / design.items) / design.items)

    p = curve(path.run, walk)
    p_end = _at_ends(p, design)
    unit = binomial_sd(p_end)
    correlation = _scalar(priors, "run_accuracy_correlation")
    with numpyro.plate("model", design.end.shape[0]):
        shared = numpyro.sample("run_accuracy_shared", dist.Normal())[:, None]
    scale, checkpoint = jnp.exp(log_run) * unit, jnp.exp(log_checkpoint)
    with numpyro.plate("model_of_task", design.end.shape[0], dim=-2), plate:
        run_mean = numpyro.sample(
            "run_mean_accuracy",
            RunEffect(
                p_end + scale * jnp.sqrt(correlation) * shared,
                scale * jnp.sqrt(1 - correlation),
                checkpoint * unit,
            ),
        )
    mean = p + _at_points(run_mean - p_end, design)
    numpyro.deterministic("law", curve(path.law, near))
    numpyro.deterministic("discrepancy", curve(path.discrepancy, walk))
    numpyro.deterministic("run", mean)
    seen = design.accuracy
    _measure("accuracy", dist.Normal, mean, checkpoint * binomial_sd(p), seen, observed.accuracy)
    _spread("accuracy", (checkpoint * unit) ** 2, seen, observed.accuracy_spread)


def _measure(
    quantity: str,
    kind: type[dist.Distribution],
    loc: Array,
    sd: Array,
    seen: Seen,
    value: ArrayLike | None,
) -> None:
    """A mean of checkpoints with this SD each, at the points where it was measured."""
    with handlers.mask(mask=seen.at):
        numpyro.sample(quantity, kind(loc, sd / jnp.sqrt(seen.checkpoints)), obs=value)


def _spread(quantity: str, variance: Array, seen: Seen, value: ArrayLike | None) -> None:
    """The variance between the last checkpoints of each run; no part of a forecast."""
    if value is None:
        return
    known = seen.spread_dof > 0
    half = jnp.where(known, seen.spread_dof, 1.0) / 2
    rate = half / jnp.broadcast_to(variance, half.shape)
    with handlers.mask(mask=known):
        numpyro.sample(f"{quantity}_spread", dist.Gamma(half, rate), obs=value)

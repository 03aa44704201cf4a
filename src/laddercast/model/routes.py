"""The routes from params and tokens to accuracy: each one NumPyro function, to fit and forecast.

A route conditions on what was observed and forecasts what was not, in the order of the design's
points. Sites `law` and `discrepancy` are successive levels of the forecast of accuracy: the laws as
the ladder bends them, then with discrepancy beyond the ladder; `run_variance` and
`checkpoint_variance` are what the run's effect and its checkpoints' noise add to the latter.
"""

from collections.abc import Callable
from threading import RLock
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array, nn
from jax.typing import ArrayLike
from numpyro import distributions as dist
from numpyro import handlers

from laddercast.data import words as c
from laddercast.model import laws
from laddercast.model.design import Design, Observed, Seen, binomial_variance
from laddercast.model.priors import Priors

RUN_DOF = 4.0
"""Degrees of freedom of run effects: heavy tails, so that an outlying rung does not bend a law."""

T_VARIANCE = RUN_DOF / (RUN_DOF - 2)
"""Variance of a Student-t over its scale squared."""

NOTHING = Observed()

type Route = Callable[..., None]


class Runs(dist.Distribution):  # type: ignore[misc]
    """Measurements (points, tasks) of runs: each run off as a whole, its checkpoints about that.

    The mean of a run's deviations, each weighted by its precision, is Student-t with `RUN_DOF`
    degrees of freedom; about that, checkpoints are normal. The run's own effect is integrated out;
    `effect` says what the measurements tell of it.
    """

    support = dist.constraints.real_matrix

    def __init__(
        self, loc: Array, run: ArrayLike, noise: ArrayLike, design: Design, seen: Seen
    ) -> None:
        """`loc` (points, tasks); squares of scales `run` (runs, tasks), `noise` (points, tasks)."""
        self.loc, self.at = loc, jnp.asarray(seen.at)
        self.runs = design.end.shape[0]
        self.run = None if _one_each(design) else design.run
        self.run_variance, self.noise_variance = _once((jnp.asarray(run), jnp.asarray(noise)))
        super().__init__((), jnp.shape(loc))

    def _of_runs(self, x: Array) -> Array:
        """Sums (runs, tasks) of what was measured (points, tasks)."""
        x = jnp.where(self.at, x, 0.0)
        return x if self.run is None else jax.ops.segment_sum(x, self.run, self.runs)

    def _mean(self, value: Any) -> tuple[Array, Array, Array]:
        """Each run's mean deviation, its variance from noise, and whether it was measured."""
        off = value - self.loc
        if self.run is None:
            return off, self.noise_variance, self.at
        precision = self._of_runs(1 / self.noise_variance)
        known = precision > 0
        precision = jnp.where(known, precision, 1.0)
        return self._of_runs(off / self.noise_variance) / precision, 1 / precision, known

    @property
    def scale(self) -> Array:
        """Scale of each run's mean, at its points (points, tasks)."""
        _, noise, known = self._mean(self.loc)
        scale = jnp.sqrt(self.run_variance + jnp.where(known, noise, 0.0))
        return scale if self.run is None else scale[self.run]

    def by_run(self, value: Any) -> Array:
        """Log density of each run's measurements (runs, tasks), zero where there are none."""
        mean, noise, known = self._mean(value)
        mean, total = _once((mean, self.run_variance + noise))
        # As -5 / 2 log(1 + mean^2 / (4 total)) - log(total) / 2, with one logarithm.
        ratio = total / (RUN_DOF * total + mean**2)
        density = jnp.log(ratio**5 / total) / 2
        if self.run is not None:
            rest = (value - self.loc - mean[self.run]) ** 2 / self.noise_variance
            density += (jnp.log(noise) - self._of_runs(rest + jnp.log(self.noise_variance))) / 2
            # What a normal density has for each measurement beyond the first.
            density -= LOG_ROOT_2PI * (self._of_runs(jnp.ones_like(rest)) - 1)
        return jnp.where(known, density + LOG_T, 0.0)

    def log_prob(self, value: ArrayLike) -> Array:
        """Log density of all measurements together."""
        return jnp.sum(self.by_run(value))

    def effect(self, value: ArrayLike) -> tuple[Array, Array]:
        """Mean of each run's effect given its measurements, and the variance that is left of it.

        Both (runs, tasks); the latter in squares of a scale, as that of a Student-t.
        """
        mean, noise, known = self._mean(value)
        share = _once(jnp.where(known, self.run_variance / (self.run_variance + noise), 0.0))
        return _once((share * mean, self.run_variance * (1 - share)))

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """As measured, also where `at` says that nothing was."""
        if sample_shape:
            keys = jax.random.split(key, int(np.prod(sample_shape)))
            return jax.vmap(self.sample)(keys).reshape(sample_shape + self.event_shape)
        of_run, of_points = jax.random.split(key)
        shape = self.event_shape
        if self.run is None:
            draws = _student_t(of_run, shape)
            return self.loc + jnp.sqrt(self.run_variance + self.noise_variance) * draws
        noise = jnp.sqrt(self.noise_variance) * jax.random.normal(of_points, shape)
        mean, own, known = self._mean(self.loc + noise)
        total = self.run_variance + jnp.where(known, own, 0.0)
        run = jnp.sqrt(total) * _student_t(of_run, total.shape)
        return self.loc + noise + (run - mean)[self.run]


LOG_T = float(np.log(3 / 8 * RUN_DOF**2.5))
LOG_ROOT_2PI = float(np.log(2 * np.pi) / 2)
"""Constants of the density of a Student-t with 4 degrees of freedom, and of a normal one."""


def _student_t(key: jax.Array, shape: tuple[int, ...]) -> Array:
    """Student-t with 4 degrees, by the inverse of its distribution function, which is closed."""
    dtype = jnp.result_type(float)
    u = jax.random.uniform(key, shape, dtype, float(np.finfo(dtype).tiny))
    root = jnp.sqrt(4 * u * (1 - u))
    size = 2 * jnp.sqrt(jnp.maximum(jnp.cos(jnp.arccos(root) / 3) / root - 1, 0))
    return jnp.sign(u - 0.5) * size


class Path(NamedTuple):
    """What stage 2 reads: logs (points, tasks) relative to the value at the reference sizes.

    As the law has it within the ladder, with discrepancy beyond, and with what is known of the
    run's effect; then the variance (runs, tasks) that is left of that effect, in squares of a
    scale, and all of its variance.
    """

    law: Array
    discrepancy: Array
    run: Array
    left: ArrayLike = 0.0
    variance: ArrayLike = 0.0


def two_stage(design: Design, priors: Priors, observed: Observed = NOTHING) -> None:
    """Task loss from params and tokens, accuracy from what is known of the run's task loss."""
    plate = _tasks(design)
    alpha, beta, log_a, log_b = _terms(plate, priors)
    share_e, q = _pooled(plate, priors, "share_e", "share_e"), _scalar(priors, "q")
    log_e, log_reducible = _log_parts(share_e)
    log_law = laws.log_loss(
        design.log_params[:, None], design.log_tokens[:, None],
        log_a / q + log_reducible, log_b / q + log_reducible, log_e, alpha, beta, q,
    )  # fmt: skip
    path = _task_loss(design, priors, observed, Path(log_law, log_law, log_law))
    _accuracy(design, priors, observed, path, "slope")


def chain(design: Design, priors: Priors, observed: Observed = NOTHING) -> None:
    """Reference loss from params and tokens, task loss from that, accuracy from task loss.

    The task loss is a shifted power of the reference loss (as in arXiv 2411.12925). What is left
    unknown of a run's reference loss counts in the noise of each task loss by itself.
    """
    reference = _reference_loss(design, priors, observed)
    plate = _tasks(design)
    rest = _pooled(plate, priors, "share_rest", "share_rest")
    power = jnp.exp(_pooled(plate, priors, "power"))
    log_rest, log_power = _log_parts(rest)

    def law(log_x: Array) -> Array:
        return laws.log_sum(log_power + power * log_x, log_rest)

    log_law = law(reference.run)
    # By how much the log of a task's loss falls with that of the reference loss.
    fall = power * (1 - jnp.exp(log_rest - _at_ends(log_law, design)))
    path = Path(
        law(reference.law), law(reference.discrepancy), log_law,
        fall**2 * reference.left, fall**2 * reference.variance,
    )  # fmt: skip
    _accuracy(design, priors, observed, _task_loss(design, priors, observed, path), "slope")


def by_reference(design: Design, priors: Priors, observed: Observed = NOTHING) -> None:
    """Reference loss from params and tokens, accuracy from what is known of the run's."""
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
    "chain": chain,
}

POOLED = ("two_stage", "by_reference", "direct")
"""Routes that a forecast pools by default: backtests said that a chain adds nothing to these."""

READS = {
    "two_stage": (c.LOSS, c.ACCURACY),
    "by_reference": (c.REFERENCE_LOSS, c.ACCURACY),
    "direct": (c.ACCURACY,),
    "chain": (c.REFERENCE_LOSS, c.LOSS, c.ACCURACY),
}
"""What was measured that a route conditions on."""


_RUNNING = RLock()


def run_model(model: Callable[..., None], *args: Any) -> dict[str, Any]:
    """The sites of a route, as handlers have it; one thread at a time runs a model.

    NumPyro has one stack of handlers for all threads.
    """
    with _RUNNING:
        found: dict[str, Any] = handlers.trace(model).get_trace(*args)
    return found


def _tasks(design: Design) -> numpyro.plate:
    return numpyro.plate("task", design.chance.shape[0], dim=-1)


def _scalar(priors: Priors, name: str) -> Array:
    return numpyro.sample(name, getattr(priors, name))


def _pooled(plate: numpyro.plate, priors: Priors, name: str, site: str | None = None) -> Array:
    return _with_center(plate, priors, name, site)[1]


def _with_center(
    plate: numpyro.plate, priors: Priors, name: str, site: str | None = None
) -> tuple[Array, Array]:
    """A pooled site's mean between tasks, and its values (tasks,)."""
    center, scale = _scalar(priors, f"{name}_center"), _scalar(priors, f"{name}_scale")
    with plate:
        return center, numpyro.sample(site or f"log_{name}", dist.Normal(center, scale))


class Noise(NamedTuple):
    """Squares of scales (tasks,) of a run's effect, of one checkpoint about that; effects shared.

    `correlation` is the share of the first that all tasks have in common, `shared` (runs, tasks)
    that part of the effect itself.
    """

    run: Array
    checkpoint: Array
    correlation: Array
    shared: Array


def _noise(plate: numpyro.plate, priors: Priors, quantity: str, runs: int) -> Noise:
    """Noise of a quantity that each task has.

    Sampled are the sum of both squares, and how much of it is a checkpoint's: where each run was
    measured once, only the sum shows. The shared effects are those of a task with typical noise:
    many tasks pin them, and not what they are in units of a scale.
    """
    name = f"share_checkpoint_{quantity}"
    typical_noise, log_noise = _with_center(plate, priors, f"noise_{quantity}")
    typical_share, share = _with_center(plate, priors, name, name)
    run, checkpoint = _split(log_noise, share)
    typical, _ = _split(typical_noise, typical_share)
    correlation = _scalar(priors, f"run_{quantity}_correlation")
    with numpyro.plate("model", runs):
        shared = numpyro.sample(
            f"run_{quantity}_shared", dist.Normal(0, jnp.sqrt(correlation * typical))
        )[:, None]
    return Noise(run, checkpoint, correlation, jnp.sqrt(run / typical) * shared)


def _split(log_noise: Array, share: Array) -> tuple[Array, Array]:
    variance, of_checkpoint = jnp.exp(2 * log_noise), nn.sigmoid(share)
    return variance * (1 - of_checkpoint), variance * of_checkpoint


def _variance(noise: Noise) -> Array:
    """All of the variance (tasks,) of a run's effect."""
    return noise.run * (noise.correlation + T_VARIANCE * (1 - noise.correlation))


def _terms(plate: numpyro.plate, priors: Priors) -> tuple[Array, Array, Array, Array]:
    """Exponents of N and D, and logs of their parts (summing to 1) at the reference sizes."""
    alpha = jnp.exp(_pooled(plate, priors, "alpha"))
    beta = jnp.exp(_pooled(plate, priors, "beta"))
    share_a = _pooled(plate, priors, "share_a", "share_a")
    return alpha, beta, *_log_parts(share_a)


def _log_parts(logit: Array) -> tuple[Array, Array]:
    """Logs of a share, given as a logit, and of the rest."""
    log_share = nn.log_sigmoid(logit)
    return log_share, log_share - logit


def _walk(design: Design, name: str, scale: Array) -> tuple[Array, Array]:
    """A random walk of this scale, (tasks,) or () if common to all: in the ladder's reach, in full.

    Both are (points, tasks), or (points, 1) if common.
    """
    common = not jnp.ndim(scale)

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


def _once(x: Any) -> Any:
    # XLA would compute it again in each place that reads it.
    return jax.lax.optimization_barrier(x)  # type: ignore[no-untyped-call]


def _task_loss(design: Design, priors: Priors, observed: Observed, law: Path) -> Path:
    """What is known of each run's task loss, of which `law` has the logs less the level."""
    plate = _tasks(design)
    with plate:
        level = numpyro.sample("loss_level", priors.loss_level)
    noise = _noise(plate, priors, "loss", design.end.shape[0])
    near, walk = _walk(design, "walk_loss", jnp.exp(_pooled(plate, priors, "walk_loss")))
    known = law.run + walk + _at_points(noise.shared, design)

    seen = design.loss
    runs = Runs(
        level + known,
        (1 - noise.correlation) * noise.run + law.left,
        noise.checkpoint / seen.checkpoints,
        design,
        seen,
    )
    value = numpyro.sample("log_loss", runs, obs=observed.log_loss)
    _spread("loss", noise.checkpoint, seen, observed.loss_spread)
    effect, left = runs.effect(value)
    return Path(
        law.law + near, law.discrepancy + walk, known + _at_points(effect, design),
        left, _variance(noise) + law.variance,
    )  # fmt: skip


def _reference_loss(design: Design, priors: Priors, observed: Observed) -> Path:
    level = _scalar(priors, "reference_level")
    share_e, share_a = _scalar(priors, "reference_share_e"), _scalar(priors, "reference_share_a")
    q = _scalar(priors, "q")
    (log_e, log_reducible), (log_a, log_b) = _log_parts(share_e), _log_parts(share_a)
    log_law = level + laws.log_loss(
        design.log_params, design.log_tokens,
        log_a / q + log_reducible, log_b / q + log_reducible, log_e,
        _scalar(priors, "reference_alpha"), _scalar(priors, "reference_beta"), q,
    )[:, None]  # fmt: skip
    near, walk = _walk(design, "walk_reference", _scalar(priors, "walk_reference_scale"))
    log_mean = log_law + walk
    of_run, of_checkpoint = _split(
        jnp.log(_scalar(priors, "noise_reference")),
        _scalar(priors, "share_checkpoint_reference"),
    )
    seen = design.reference_loss
    runs = Runs(log_mean, of_run, of_checkpoint / seen.checkpoints, design, seen)
    value = numpyro.sample("log_reference_loss", runs, obs=observed.log_reference_loss)
    _spread("reference_loss", of_checkpoint, seen, observed.reference_loss_spread)
    effect, left = runs.effect(value)
    log_latent = log_mean + _at_points(effect, design)
    variance = T_VARIANCE * of_run
    return Path(log_law + near - level, log_mean - level, log_latent - level, left, variance)


def _accuracy(
    design: Design, priors: Priors, observed: Observed, path: Path, steepness: str
) -> None:
    """Stage 2: the logit falls with a relative loss (`slope`) or with the direct law (`rise`)."""
    plate = _tasks(design)
    with plate:
        level = numpyro.sample("accuracy_level", priors.accuracy_level)
        logit_gap = numpyro.sample("logit_gap", priors.logit_gap)
        log_lower = numpyro.sample("log_lower", priors.log_lower)
    steep = jnp.exp(_pooled(plate, priors, steepness))
    noise = _noise(plate, priors, "accuracy", design.end.shape[0])
    upper = nn.sigmoid(-logit_gap)
    lower = jnp.minimum(design.chance * jnp.exp(log_lower), upper)
    scale = jnp.exp(_pooled(plate, priors, "walk_accuracy"))
    near, walk = _walk(design, "walk_accuracy", scale)

    def share(x: Array, shift: Array) -> Array:
        return nn.sigmoid(level - steep * (x - 1) + shift)

    def curve(share: Array) -> Array:
        return lower + (upper - lower) * share

    x = jnp.exp(path.run)
    of_upper = _once(share(x, walk))
    p = curve(of_upper)
    p_end, of_upper, x_end = (_at_ends(x, design) for x in (p, of_upper, x))
    unit = binomial_variance(p_end, design.items)
    # The fall of accuracy with the log of what stage 2 reads.
    fall = steep * x_end * (upper - lower) * of_upper * (1 - of_upper)
    of_checkpoint, seen = noise.checkpoint * unit, design.accuracy
    runs = Runs(
        p + _at_points(noise.shared * jnp.sqrt(unit), design),
        (1 - noise.correlation) * noise.run * unit + fall**2 * path.left,
        _at_points(of_checkpoint, design) / seen.checkpoints, design, seen,
    )  # fmt: skip
    numpyro.sample("accuracy", runs, obs=observed.accuracy)
    _spread("accuracy", of_checkpoint, seen, observed.accuracy_spread)
    numpyro.deterministic("law", curve(share(jnp.exp(path.law), near)))
    numpyro.deterministic("discrepancy", curve(share(jnp.exp(path.discrepancy), walk)))
    own = _variance(noise) * unit
    numpyro.deterministic("run_variance", own + fall**2 * path.variance)
    numpyro.deterministic(
        "checkpoint_variance",
        T_VARIANCE * of_checkpoint / _at_ends(jnp.asarray(seen.checkpoints), design),
    )


def _spread(quantity: str, variance: Array, seen: Seen, value: ArrayLike | None) -> None:
    """The variance between the last checkpoints of each run; no part of a forecast."""
    if value is None:
        return
    known = seen.spread_dof > 0
    half = jnp.where(known, seen.spread_dof, 1.0) / 2
    rate = half / jnp.broadcast_to(variance, half.shape)
    with handlers.mask(mask=known):
        numpyro.sample(f"{quantity}_spread", dist.Gamma(half, rate), obs=value)

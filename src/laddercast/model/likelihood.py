"""The likelihood of runs: a run is off as a whole, its checkpoints scatter about that."""

from math import lgamma, log, pi
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from laddercast.model.design import Design, Seen
from laddercast.sampling.programs import once

RUN_DOF = 4.0
"""Degrees of freedom of run effects: heavy tails, so that an outlying rung does not bend a law."""

T_VARIANCE = RUN_DOF / (RUN_DOF - 2)
"""Variance of a Student-t over its scale squared."""

LOG_T = lgamma((RUN_DOF + 1) / 2) - lgamma(RUN_DOF / 2) + (RUN_DOF * log(RUN_DOF) - log(pi)) / 2
"""Constant of its log density, as `Runs.by_run` writes it."""

LOG_ROOT_2PI = log(2 * pi) / 2

FLOOR = {"loss": 2e-4, "accuracy": 0.1}
"""Least scale of noise, of a run and of a checkpoint: values that repeat are not without noise."""


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
        self.run = None if one_each(design) else design.run
        self.run_variance, self.noise_variance = once((jnp.asarray(run), jnp.asarray(noise)))
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

    def by_run(self, value: Any) -> Array:
        """Log density of each run's measurements (runs, tasks), zero where there are none."""
        mean, noise, known = self._mean(value)
        mean, total = once((mean, self.run_variance + noise))
        # As -(dof + 1) / 2 log(1 + mean^2 / (dof total)) - log(total) / 2, with one logarithm.
        ratio = total / (RUN_DOF * total + mean**2)
        density = jnp.log(ratio ** (RUN_DOF + 1) / total) / 2
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
        total = self.run_variance + noise
        share = once(jnp.where(known, self.run_variance / total, 0.0))
        # The further off a run lies, the larger the scale that it was drawn with.
        wider = jnp.where(known, (RUN_DOF + mean**2 / total) / (RUN_DOF + 1), 1.0)
        return once((share * mean, self.run_variance * (1 - share) * wider))

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """As measured, also where `at` says that nothing was."""
        if sample_shape:
            keys = jax.random.split(key, int(np.prod(sample_shape)))
            return jax.vmap(self.sample)(keys).reshape(sample_shape + self.event_shape)
        of_run, of_points = jax.random.split(key)
        shape, dtype = self.event_shape, jnp.result_type(float)
        if self.run is None:
            draws = jax.random.t(of_run, RUN_DOF, shape, dtype)
            return self.loc + jnp.sqrt(self.run_variance + self.noise_variance) * draws
        noise = jnp.sqrt(self.noise_variance) * jax.random.normal(of_points, shape, dtype)
        mean, own, known = self._mean(self.loc + noise)
        total = self.run_variance + jnp.where(known, own, 0.0)
        run = jnp.sqrt(total) * jax.random.t(of_run, RUN_DOF, total.shape, dtype)
        return self.loc + noise + (run - mean)[self.run]

    def expected_data(self, sds: float) -> Array:
        """Measurements of which each run's mean lies so many scales off, checkpoints as expected.

        Checkpoints lie up and down about their run in turn: the squares of their residuals are as
        large as expected, while they hardly bear on anything smooth.
        """
        _, noise, known = self._mean(self.loc)
        scale = jnp.sqrt(self.run_variance + jnp.where(known, noise, 0.0))
        if self.run is None:
            return self.loc + sds * scale
        number = jnp.arange(len(self.run)) - jnp.searchsorted(self.run, self.run)
        count = jnp.bincount(self.run, length=self.runs)[self.run]
        odd = count % 2
        off = 1.0 - 2.0 * (number % 2) - odd / count
        turns = off * jnp.sqrt((count - 1) / jnp.where(count > 1, count - odd / count, 1))
        return self.loc + sds * scale[self.run] + turns[:, None] * jnp.sqrt(self.noise_variance)


def one_each(design: Design) -> bool:
    """Whether each run has one point: they then stand in the order of the runs."""
    return bool(design.end.shape == design.run.shape)

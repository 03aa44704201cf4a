"""Least squares, or the Huber loss, of a curve with bounded coefficients: many fits at once.

Levenberg's and Marquardt's steps, with the Huber loss as reweighted squares; coefficients are held
at a bound that they press on.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from laddercast.sampling.chains import on_device
from laddercast.sampling.programs import few_sizes

HUBER_DELTA = 1e-3
BATCH = 4
"""Fits made side by side: each batch takes as many steps as the slowest of it."""
STEPS = 400
DAMPED, UNDAMPED = 1e12, 1e-12
"""Damping relative to the curvature: where steps are lost in rounding, and where it is no more."""
AT_REST = 1e-10
"""The share by which a step must lower the objective to count as progress."""
IDLE = 3
"""Steps without progress that end a fit."""


class Law(NamedTuple):
    """A curve of fixed shape: its coefficients' bounds and scales, and how it is fitted."""

    predict: Callable[[jax.Array, jax.Array], jax.Array]
    """From coefficients and x, of shape (variables, rows), to y, of shape (rows,)."""
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    scale: tuple[float, ...]
    """By how much each coefficient may move at once."""
    huber: bool


class Found(NamedTuple):
    """Fits from some starts."""

    theta: np.ndarray  # (fits, coefficients)
    loss: np.ndarray  # (fits,) sum of squares over 2, or Huber loss
    ended: np.ndarray  # (fits,) whether at rest, not for want of steps


def fit_all(
    law: Law, x: np.ndarray, y: np.ndarray, weights: np.ndarray, starts: np.ndarray,
    *, far: bool = True, steps: int = STEPS,
) -> Found:  # fmt: skip
    """Coefficients of the least weighted loss from each start, as near to it as a descent leads.

    `x` (variables, points), `y` (points,), `weights` (fits, points), `starts` (fits, coefficients).
    From starts that are `far`, least squares come first: the Huber loss leads to far worse optima.
    """
    more = few_sizes(len(y), 16) - len(y)  # so that few shapes compile
    x, y = np.pad(x, ((0, 0), (0, more)), "edge"), np.pad(y, (0, more))
    weights = np.pad(weights, ((0, 0), (0, more)))
    theta = np.clip(starts, law.lower, law.upper)
    with on_device(jax.devices("cpu")[0]):
        if far and law.huber:
            theta, *_ = _fit(law, x, y, weights, theta, np.inf, steps)
        found = _fit(law, x, y, weights, theta, HUBER_DELTA if law.huber else np.inf, steps)
    return Found(*map(np.asarray, found))


def curves(law: Law, thetas: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The law of each `thetas` (fits, coefficients) at its own `x` (fits, variables, points)."""
    with on_device(jax.devices("cpu")[0]):
        return np.asarray(_curves(law, thetas, x))


@partial(jax.jit, static_argnums=0)
def _curves(law: Law, thetas: jax.Array, x: jax.Array) -> jax.Array:
    return jax.vmap(law.predict)(thetas, x)


@partial(jax.jit, static_argnums=0)
def _fit(
    law: Law,
    x: jax.Array,
    y: jax.Array,
    weights: jax.Array,
    starts: jax.Array,
    delta: jax.Array,
    steps: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The fields of `Found`; `delta` is that of the Huber loss, infinite for least squares."""
    lower, upper, scale = (jnp.asarray(v) for v in (law.lower, law.upper, law.scale))

    def residuals(theta: jax.Array) -> jax.Array:
        return law.predict(theta, x) - y

    def loss(theta: jax.Array, w: jax.Array) -> jax.Array:
        off = jnp.abs(residuals(theta))
        near = jnp.minimum(off, delta)
        return w @ (near * (off - near / 2))

    def one(pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        w, start = pair

        def step(state: tuple) -> tuple:
            theta, value, damping, idle, count = state
            off, slopes = residuals(theta), jax.jacfwd(residuals)(theta) * scale
            pull = w * jnp.minimum(1.0, delta / jnp.maximum(jnp.abs(off), 1e-300))
            gradient, curvature = (pull * off) @ slopes, (slopes.T * pull) @ slopes
            held = ((theta <= lower) & (gradient > 0)) | ((theta >= upper) & (gradient < 0))
            free = ~held
            curvature = jnp.where(free[:, None] & free, curvature, 0.0)
            diagonal = jnp.diag(curvature)
            ridge = damping * diagonal + UNDAMPED * diagonal.max() + held
            move = jnp.linalg.solve(curvature + jnp.diag(ridge), jnp.where(free, -gradient, 0.0))
            # Where a curve is nearly flat in a coefficient, a full step would leave its optimum.
            move /= jnp.maximum(jnp.abs(move).max(), 1.0)
            new = jnp.clip(theta + scale * move, lower, upper)
            new_value = loss(new, w)
            better = new_value < value
            progress = better & (new_value < (1 - AT_REST) * value)
            damping = jnp.where(better, jnp.maximum(damping / 5, UNDAMPED), damping * 4)
            idle = jnp.where(progress, 0, idle + better)
            theta, value = (jnp.where(better, a, b) for a, b in ((new, theta), (new_value, value)))
            return theta, value, damping, idle, count + 1

        def going(state: tuple) -> jax.Array:
            _, _, damping, idle, count = state
            return (damping < DAMPED) & (idle < IDLE) & (count < steps)

        begin = (start, loss(start, w), jnp.asarray(1e-3), jnp.asarray(0), jnp.asarray(0))
        theta, value, _, _, count = jax.lax.while_loop(going, step, begin)
        return theta, value, count < steps

    return jax.lax.map(one, (weights, starts), batch_size=BATCH)

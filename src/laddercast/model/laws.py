"""The laws as pure functions of arrays, evaluated in logs around reference sizes.

Stage 1 and 2 are eqs. 1 and 2 of arXiv 2412.04403, with an interaction of N and D beside them.
`log_params` and `log_tokens` are natural logs relative to reference sizes (zero there), so that no
power of 1e10 is ever taken.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


def log_reducible(
    log_params: ArrayLike,
    log_tokens: ArrayLike,
    log_a: ArrayLike,
    log_b: ArrayLike,
    alpha: ArrayLike,
    beta: ArrayLike,
    q: ArrayLike = 1.0,
) -> jax.Array:
    """Log of `((A / N^alpha)^q + (B / D^beta)^q)^(1/q)`, all arguments broadcast together.

    `log_a` and `log_b` are the logs of the two terms at the reference sizes. With q = 1 they add
    up, as published; the larger q, the more the greater of the two rules alone.
    """
    of_params = jnp.asarray(log_a) - jnp.asarray(alpha) * log_params
    of_tokens = jnp.asarray(log_b) - jnp.asarray(beta) * log_tokens
    return log_sum(q * of_params, q * of_tokens) / q


def log_loss(
    log_params: ArrayLike,
    log_tokens: ArrayLike,
    log_a: ArrayLike,
    log_b: ArrayLike,
    log_e: ArrayLike,
    alpha: ArrayLike,
    beta: ArrayLike,
    q: ArrayLike = 1.0,
) -> jax.Array:
    """Log of `((A / N^alpha)^q + (B / D^beta)^q)^(1/q) + E` (stage 1), arguments broadcast.

    `log_a`, `log_b`, `log_e` are the logs of the three terms at the reference sizes.
    """
    return log_sum(log_reducible(log_params, log_tokens, log_a, log_b, alpha, beta, q), log_e)


@jax.custom_jvp
def log_sum(a: ArrayLike, b: ArrayLike) -> jax.Array:
    """Log of `exp(a) + exp(b)`, both finite and broadcast together.

    To within 1e-15; where `jnp.logaddexp`, which is closer still near 0, takes two more
    exponentials for its derivative, this takes none.
    """
    return jnp.maximum(a, b) + jnp.log(1 + jnp.exp(-jnp.abs(jnp.subtract(a, b))))


@log_sum.defjvp
def _log_sum_jvp(given: Any, steps: Any) -> tuple[jax.Array, jax.Array]:
    (a, b), (of_a, of_b) = given, steps
    lesser = jnp.exp(-jnp.abs(a - b))
    # Kept as it is: XLA would compute it again for each argument of a and of b. No derivative is
    # taken of it, which where both are equal would not be right.
    share = jax.lax.optimization_barrier(  # type: ignore[no-untyped-call]
        jnp.where(a > b, 1.0, lesser) / (1 + lesser)
    )
    return jnp.maximum(a, b) + jnp.log(1 + lesser), of_b + share * (of_a - of_b)


def accuracy(
    loss: ArrayLike,
    k: ArrayLike,
    L0: ArrayLike,  # noqa: N803 - the paper's letter
    lower: ArrayLike,
    upper: ArrayLike,
) -> jax.Array:
    """Stage 2: `b + a / (1 + exp(-k (loss - L0)))` with `upper = b` and `lower = a + b`."""
    return between(jnp.asarray(k) * (jnp.asarray(L0) - loss), lower, upper)


def between(logit: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> jax.Array:
    """Accuracy between its lower and its upper end at this logit."""
    return jnp.asarray(lower) + (jnp.asarray(upper) - lower) * jax.nn.sigmoid(logit)


def ends(log_lower: ArrayLike, logit_gap: ArrayLike, chance: ArrayLike) -> tuple[Array, Array]:
    """Lower and upper end of a curve of accuracy: chance times a factor, and 1 less a gap."""
    upper = jax.nn.sigmoid(-jnp.asarray(logit_gap))
    return jnp.minimum(chance * jnp.exp(jnp.asarray(log_lower)), upper), upper


def log_loss_of_flops(
    log_flops: ArrayLike, log_a: ArrayLike, log_e: ArrayLike, alpha: ArrayLike
) -> jax.Array:
    """Log of `A / C^alpha + E`, the law in compute alone; arguments as in `log_loss`."""
    terms = jnp.broadcast_arrays(log_a - jnp.asarray(alpha) * log_flops, jnp.asarray(log_e))
    return jax.nn.logsumexp(jnp.stack(terms), axis=0)


def accuracy_of_task_ce(
    task_ce: ArrayLike,
    a: ArrayLike,
    k: ArrayLike,
    L0: ArrayLike,  # noqa: N803 - the paper's letter
) -> jax.Array:
    """`1 - a log(1 - sigmoid(k (task_ce - L0)))` with `a` below 0, all arguments broadcast."""
    return 1.0 + jnp.asarray(a) * jax.nn.softplus(jnp.asarray(k) * (jnp.asarray(task_ce) - L0))

"""From positions of the sampler to what is kept of them: sites, log likelihoods, log priors."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree

from laddercast.model import LATENT, Route
from laddercast.start import Data, constrained, is_latent, sampled, trace_of


@cache
def replay(route: Route) -> Callable[[jax.Array, Data], tuple[dict, dict, dict]]:
    """Compiled: constrained sites, log likelihood per run x task and log prior per site.

    Of positions (chains, draws, dim), with the same two leading dimensions in every result.
    """

    def all_draws(positions: jax.Array, data: Data) -> tuple[dict, dict, dict]:
        chains, draws, dim = positions.shape
        # Draw by draw: a batch takes far longer to compile than it saves.
        flat = jax.lax.map(lambda position: _one(route, position, data), positions.reshape(-1, dim))
        return jax.tree.map(lambda x: x.reshape(chains, draws, *x.shape[1:]), flat)

    return jax.jit(all_draws)


def _one(route: Route, position: jax.Array, data: Data) -> tuple[dict, dict, dict]:
    design, priors, observed, pins, like = data
    sites = ravel_pytree(like)[1](position)
    of_sampler = trace_of(sampled(route, pins), constrained(sites), design, priors, observed)
    # Once more in the model's own sites, for their densities.
    plain = trace_of(
        route,
        lambda site: of_sampler[site["name"]]["value"] if is_latent(site) else None,
        design,
        priors,
        observed,
    )
    latent = {name: site for name, site in plain.items() if is_latent(site)}
    prior = {
        name: jnp.sum(site["fn"].log_prob(site["value"]))
        for name, site in latent.items()
        if name not in LATENT
    }
    likelihood = {
        site: _marginal(plain[site], plain[name], design.run, site != "accuracy")
        for site, name in (
            ("reference_loss", "log_latent_reference_loss"),
            ("loss", "log_latent_loss"),
            ("accuracy", "run_mean_accuracy"),
        )
        if name in plain
    }
    return {name: site["value"] for name, site in latent.items()}, likelihood, prior


NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(12)


def _marginal(row: dict[str, Any], latent: dict[str, Any], run: Any, logs: bool) -> jax.Array:
    """Log likelihood per run x task, integrated over the run's own effect (quadrature).

    Conditional on it, every run would seem to be predicted as well as its checkpoints allow, and
    leave-one-out comparisons would be blind to the laws. Zero where nothing was measured.
    """
    masked = row["fn"]
    fn, seen = masked.base_dist, jnp.asarray(masked._mask)
    prior, value = latent["fn"], latent["value"]
    if value.ndim == 1:
        seen = seen[:, 0]
    shape = seen.shape
    loc, scale, measured = (
        jnp.reshape(x, shape)
        for x in (fn.loc, jnp.broadcast_to(fn.scale, fn.loc.shape), row["value"])
    )
    y = jnp.log(measured) if logs else measured

    def of_runs(x: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(jnp.where(seen, x, 0.0), run, value.shape[0])

    residual = y - (loc - value[run])
    precision = of_runs(scale**-2)
    known = precision > 0
    precision = jnp.where(known, precision, 1.0)
    mean = of_runs(residual * scale**-2) / precision
    sd = precision**-0.5
    # The rows' joint density is a constant times a normal density of the latent value.
    constant = (
        of_runs(dist.Normal(mean[run], scale).log_prob(residual))
        + 0.5 * jnp.log(2 * jnp.pi)
        + jnp.log(sd)
    )
    nodes = mean + sd * NODES.reshape(-1, *[1] * value.ndim)
    weights = np.log(WEIGHTS / np.sqrt(2 * np.pi)).reshape(-1, *[1] * value.ndim)
    total = constant + jax.nn.logsumexp(prior.log_prob(nodes) + weights, axis=0)
    jacobian = of_runs(y) if logs else 0.0
    return jnp.where(known, total - jacobian, 0.0)

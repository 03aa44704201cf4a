"""From positions of the sampler to what is kept of them: sites, log likelihoods, log priors."""

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp

from laddercast.compiled import QUICKLY
from laddercast.density import Data, constrained, is_latent, sampled_trace, sites_at, trace_of
from laddercast.design import MEASURED
from laddercast.model import Route


@cache
def replay(route: Route) -> Callable[[jax.Array, Data], tuple[dict, dict, dict]]:
    """Compiled: constrained sites, log likelihood per run x task and log prior per site.

    Of positions (draws, dim), with the same first dimension in every result.
    """

    def all_draws(positions: jax.Array, data: Data) -> tuple[dict, dict, dict]:
        # Draw by draw: a batch takes far longer to compile than it saves.
        return jax.lax.map(lambda position: _one(route, position, data), positions)

    return jax.jit(all_draws, compiler_options=QUICKLY)


def _one(route: Route, position: jax.Array, data: Data) -> tuple[dict, dict, dict]:
    of_sampler = sampled_trace(route, data, constrained(sites_at(position, data)))
    # Once more in the model's own sites, for their densities.
    plain = trace_of(
        route,
        lambda site: of_sampler[site["name"]]["value"] if is_latent(site) else None,
        data.design,
        data.priors,
        data.observed,
    )
    latent = {name: site for name, site in plain.items() if is_latent(site)}
    prior = {name: jnp.sum(site["fn"].log_prob(site["value"])) for name, site in latent.items()}
    likelihood = {}
    for quantity, name in MEASURED.items():
        if name in plain:
            # Conditional on its effect, every run would seem to be predicted as well as its
            # checkpoints allow, and leave-one-out comparisons would be blind to the laws.
            found = plain[name]["fn"].by_run(plain[name]["value"])
            likelihood[quantity] = found[:, 0] if quantity == "reference_loss" else found
    return {name: site["value"] for name, site in latent.items()}, likelihood, prior

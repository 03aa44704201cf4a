"""What a route tells at positions of the sampler, to be kept, and to place them anew."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from numpyro import distributions as dist

from laddercast.model.design import MEASURED
from laddercast.model.routes import Route
from laddercast.sampling.density import (
    STEEPNESS,
    Data,
    Leaves,
    constrained,
    is_latent,
    of_exponents,
    plain,
    sampled_trace,
    sites_at,
    trace_of,
)
from laddercast.sampling.programs import QUICKLY


class Kept(NamedTuple):
    """Constrained sites, log likelihood per run x task, log prior per site."""

    values: dict[str, Any]
    likelihood: dict[str, Any]
    prior: dict[str, Any]


class Found(NamedTuple):
    """Unconstrained sites as they are sampled, pooled ones, the curves."""

    sites: dict[str, Any]
    pooled: dict[str, tuple[Any, Any, Any]]  # value, mean, scale
    # Accuracy at each point, ends, level, steepness and walk of the logit, fall of the loss.
    curve: tuple[Any, ...]


@cache
def keep(route: Route, form: Any) -> Callable[[jax.Array, Leaves], Kept]:
    """Compiled: of positions (draws, dim), with the same first dimension in every result."""

    def one(position: jax.Array, data: Data) -> Kept:
        _, values, trace = _sites(route, position, data)
        latent = {name: site for name, site in trace.items() if is_latent(site)}
        prior = {name: jnp.sum(site["fn"].log_prob(site["value"])) for name, site in latent.items()}
        likelihood = {}
        for quantity, name in MEASURED.items():
            if name in trace:
                # Conditional on its effect, every run would seem to be predicted as well as its
                # checkpoints allow, and leave-one-out comparisons would be blind to the laws.
                of_runs = trace[name]["fn"].by_run(trace[name]["value"])
                likelihood[quantity] = of_runs[:, 0] if quantity == "reference_loss" else of_runs
        return Kept({name: values[name] for name in latent}, likelihood, prior)

    return _of_each(one, form)


@cache
def find(route: Route, form: Any) -> Callable[[jax.Array, Leaves], Found]:
    """Compiled, likewise."""

    def one(position: jax.Array, data: Data) -> Found:
        sites, values, trace = _sites(route, position, data)
        pooled = {
            name: (values[name], *_location(trace[name]["fn"], values[name]))
            for name in data.centred
        }
        steep = next(values[name] for name in STEEPNESS if name in values)
        curve = (
            values["law"], data.design.chance * jnp.exp(values["log_lower"]),
            jax.nn.sigmoid(-values["logit_gap"]), values["accuracy_level"], jnp.exp(steep),
            jnp.asarray(data.design.walk) @ values["walk_accuracy"], _fall(values),
        )  # fmt: skip
        return Found(sites, pooled, curve)

    return _of_each(one, form)


def _of_each(one: Callable[[jax.Array, Data], Any], form: Any) -> Callable[..., Any]:
    def all_draws(positions: jax.Array, leaves: Leaves) -> Any:
        data: Data = jax.tree.unflatten(form, leaves)
        # Draw by draw: a batch takes far longer to compile than it saves.
        return jax.lax.map(lambda position: one(position, data), positions)

    return jax.jit(all_draws, compiler_options=QUICKLY)


def _sites(
    route: Route, position: jax.Array, data: Data
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Unconstrained sites, constrained ones as they are sampled, the trace in the model's own."""
    sites = sites_at(position, data)
    own = sampled_trace(route, data, constrained(sites))
    values = {name: site["value"] for name, site in own.items()}
    trace = trace_of(
        route,
        lambda site: values[site["name"]] if is_latent(site) else None,
        data.design,
        data.priors,
        data.observed,
    )
    return sites, values, trace


def _location(fn: Any, value: Any) -> tuple[Any, Any]:
    own = plain(fn)
    own = own.base_dist if isinstance(own, dist.ExpandedDistribution) else own
    return jnp.broadcast_to(own.loc, value.shape), jnp.broadcast_to(own.scale, value.shape)


def _fall(values: dict[str, Any]) -> Any:
    """Of the log of a task's loss with log params and tokens (2, tasks), at the reference sizes."""
    if "share_e" not in values:
        return jnp.full((2, values["log_lower"].shape[0]), jnp.inf)
    left = jax.nn.log_sigmoid(-values["share_e"])
    exponents = jnp.stack([values["log_alpha"], values["log_beta"]])
    return jnp.exp(exponents - jnp.stack(of_exponents(values["share_a"], left)))

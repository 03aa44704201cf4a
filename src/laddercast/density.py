"""The density that is sampled: a route, at positions where parameters hang together little."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.infer.reparam import Reparam

from laddercast.design import Design, Observed, Seen
from laddercast.model import Route
from laddercast.priors import Priors
from laddercast.sampler import Potential

CENTRED = {
    "log_alpha": 0.5, "log_beta": 0.5, "share_e": 0.5, "share_a": 0.5, "log_power": 1.0,
    "share_rest": 0.5, "log_slope": 1.0, "log_rise": 1.0, "log_noise_loss": 1.0,
    "share_checkpoint_loss": 0.5, "log_noise_accuracy": 1.0, "share_checkpoint_accuracy": 0.5,
    "log_walk_loss": 0.0, "log_walk_accuracy": 0.0, "walk_loss": 0.0, "walk_reference": 0.25,
    "walk_accuracy": 0.25, "run_loss_shared": 0.0, "run_accuracy_shared": 0.0,
}  # fmt: skip
"""How far each pooled site is centred before anything is known of it: 0 is a standard deviate.

Centred, what the data say little of makes a funnel with its pooling scale; as a standard deviate,
the scale is bound to all that the data pin down.
"""


STEEPNESS = ("log_slope_decentered", "log_rise_decentered")


class Pivot(NamedTuple):
    """Where, on its curve, the accuracy of each task is told best: there, the sampler holds it.

    The lower end of a curve is known from the prior alone as long as no rung is at chance. What is
    known instead are an accuracy and its rise at some rung: as the end moves, level and steepness
    of the logit must follow. Positions hold what is left of them when they do.
    """

    accuracy: Any  # (tasks,)
    width: Any  # (tasks,) an end closer to it than this is followed no further
    away: Any  # (tasks,) relative loss there, less its 1 at the reference sizes


LEANING = {
    "tasks": (
        ("accuracy_level", "log_alpha", "log_beta", "log_power", "log_rise", "log_slope",
         "loss_level", "share_a", "share_e", "share_rest"),
        ("walk_accuracy", "walk_loss"),
    ),
    "all": (
        ("q", "reference_alpha", "reference_beta", "reference_level", "reference_share_a",
         "reference_share_e"),
        ("walk_reference",),
    ),
}  # fmt: skip
"""Sites that make up for steps of a random walk which they could have made, and those steps.

How much steps matter depends on their scale, so that their product tells: positions hold what is
left of the former once a fixed multiple of the latter is taken off.
"""


FURTHEST = 0.3
"""By which a logarithm or a logit leans at most."""


class Data(NamedTuple):
    """What a density reads."""

    design: Design
    priors: Priors
    observed: Observed
    centred: dict[str, Any]  # share by which each pooled site is centred, in its shape
    pivot: Pivot
    lean: dict[str, Any]  # by name in `LEANING`: (sites, steps, tasks) or (sites, steps)
    like: dict[str, Any]  # unconstrained sites, for their names and shapes


type Leaves = list[Any]
"""The arrays of `Data` alone: a compiled call spends most of its time on taking trees apart."""


class Centred(Reparam):  # type: ignore[misc]
    """A pooled site, centred by a share: of one task like another, or not."""

    def __init__(self, share: Any) -> None:
        self.share = share

    def __call__(self, name: str, fn: Any, obs: None) -> tuple[None, jax.Array]:
        """The site's value."""
        fn, shape, _ = self._unwrap(fn)
        log_scale = jnp.log(fn.scale)
        own = dist.Normal(fn.loc * self.share, jnp.exp(self.share * log_scale)).expand(shape)
        base = numpyro.sample(f"{name}_decentered", own)
        value = fn.loc + jnp.exp((1 - self.share) * log_scale) * (base - self.share * fn.loc)
        return None, value


def sampled(route: Route, centred: dict[str, Any]) -> Callable[..., None]:
    """The route in the parameters that are sampled."""
    return handlers.reparam(route, config={site: Centred(x) for site, x in centred.items()})


@cache
def potential_of(route: Route, form: Any) -> Potential:
    """Negative log density of an unconstrained position up to a constant, given leaves of `Data`.

    One function per route and form (tree structure of `Data`), so that it is compiled once.
    """

    def potential(position: jax.Array, leaves: Leaves) -> jax.Array:
        data: Data = jax.tree.unflatten(form, leaves)
        sites = sites_at(position, data)
        trace = sampled_trace(route, data, constrained(sites))
        normal = {name: fn for name in sites if (fn := _normal(trace[name]["fn"])) is not None}
        total = _normal_log_prob(ravel_pytree(sites)[0], normal, data.like)
        for name, site in trace.items():
            if site["type"] != "sample" or name in normal:
                continue
            total += jnp.sum(_log_prob(site["fn"], site["value"]))
            if is_latent(site):
                slope = bijection(site).log_abs_det_jacobian(sites[name], site["value"])
                total += jnp.sum(slope)
        return -total

    return potential


def sites_at(position: jax.Array, data: Data) -> dict[str, Any]:
    """Unconstrained sites at a position (dim,)."""
    return _turned(_leaned(ravel_pytree(data.like)[1](position), data, 1.0), data, 1.0)


def position_of(sites: dict[str, Any], data: Data) -> jax.Array:
    """The position of unconstrained sites, in the order of their names: undoes `sites_at`."""
    position: jax.Array = ravel_pytree(_leaned(_turned(sites, data, -1.0), data, -1.0))[0]
    return position


def leaning(name: str, like: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The sites of `LEANING` that are sampled, by the names that they have then."""
    return tuple(  # type: ignore[return-value]
        [base for site in sites for base in (site, f"{site}_decentered") if base in like]
        for sites in LEANING[name]
    )


def _leaned(sites: dict[str, Any], data: Data, sign: float) -> dict[str, Any]:
    """Sites with what they make up for; volumes stay as they are, as in `_turned`."""
    moved = {}
    for name, lean in data.lean.items():
        leaners, steps = leaning(name, data.like)
        walk = jnp.concatenate([_steps(sites, step.removesuffix("_decentered"), data)
                                for step in steps])  # fmt: skip
        by = jnp.sum(lean * walk, axis=1)
        for i, site in enumerate(leaners):
            # Logs follow a walk no further than they are straight.
            own = by[i] if "level" in site else FURTHEST * jnp.tanh(by[i] / FURTHEST)
            moved[site] = sites[site] + sign * own
    return sites | moved


def _steps(sites: dict[str, Any], site: str, data: Data) -> Any:
    """The steps of a walk, as `Centred` has them."""
    log_scale = (
        _of_base(sites, f"log_{site}", data) if f"log_{site}" in data.centred
        else sites[f"{site}_scale"]
    )  # fmt: skip
    return jnp.exp((1 - data.centred[site]) * log_scale) * sites[f"{site}_decentered"]


def _turned(sites: dict[str, Any], data: Data, sign: float) -> dict[str, Any]:
    """Sites with level and steepness of accuracy turned about the pivot."""
    name = next(name for name in STEEPNESS if name in sites)
    lower = data.design.chance * jnp.exp(sites["log_lower"])
    accuracy, width, away = data.pivot
    shift = sign * jnp.log(jax.nn.softplus((accuracy - lower) / width) * width)
    turned = sites | {name: sites[name] - shift}
    steep = _of_base(turned if sign > 0 else sites, name.removesuffix("_decentered"), data)
    swing = sign * jnp.exp(steep) * away
    turned |= {"accuracy_level": sites["accuracy_level"] + shift + swing}
    for word, side in (("alpha", 1.0), ("beta", -1.0)):
        # What is known of an exponent is the slope of the loss at the reference sizes.
        if f"log_{word}_decentered" in sites:
            part = jax.nn.log_sigmoid(side * _of_base(sites, "share_a", data))
            if "share_e" in data.centred:
                part += jax.nn.log_sigmoid(-_of_base(sites, "share_e", data))
            turned[f"log_{word}_decentered"] -= sign * part
        if f"reference_{word}" in sites:
            part = jax.nn.log_sigmoid(side * sites["reference_share_a"])
            part += jax.nn.log_sigmoid(-sites["reference_share_e"])
            turned[f"reference_{word}"] -= sign * part
    if "log_power_decentered" in sites:
        part = jax.nn.log_sigmoid(-_of_base(sites, "share_rest", data))
        turned["log_power_decentered"] -= sign * part
    for quantity in ("loss", "accuracy"):
        # Many checkpoints tell their own noise, and a sum only with what runs add.
        name, base = f"share_checkpoint_{quantity}", f"log_noise_{quantity}_decentered"
        if base in sites:
            log_share = jax.nn.log_sigmoid(_of_base(sites, name, data))
            known = _share_of_checkpoints(getattr(data.design, quantity), data.design)
            turned[base] = sites[base] - sign * known * log_share / 2
    return turned


def _share_of_checkpoints(seen: Seen, design: Design) -> Any:
    """Of what is known of noise (tasks,), how much is known of that between checkpoints."""
    runs = design.end.shape[0]
    within = jnp.maximum(jnp.sum(seen.at, axis=0) - runs, 0) + jnp.sum(seen.spread_dof, axis=0)
    return within / (within + runs)


def _of_base(sites: dict[str, Any], site: str, data: Data) -> Any:
    """The value of a pooled site as `Centred` has it."""
    pooled, share = site.removeprefix("log_"), data.centred[site]
    center, log_scale = sites[f"{pooled}_center"], sites[f"{pooled}_scale"]
    return center + jnp.exp((1 - share) * log_scale) * (
        sites[f"{site}_decentered"] - share * center
    )


def sampled_trace(
    route: Route, data: Data, substitute: Callable[[dict[str, Any]], Any]
) -> dict[str, Any]:
    """The sites of a route as it is sampled, with these values put in."""
    model = sampled(route, data.centred)
    return trace_of(model, substitute, data.design, data.priors, data.observed)


def constrained(sites: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    """For `trace_of`: the values of latent sites at these unconstrained ones."""
    return lambda site: bijection(site)(sites[site["name"]]) if is_latent(site) else None


def bijection(site: dict[str, Any]) -> Any:
    """From unconstrained values to those of a site."""
    return dist.biject_to(site["fn"].support)


def _log_prob(fn: Any, value: Any) -> Any:
    """Log density up to a constant: not its gamma functions of known numbers, slow to compile."""
    own = plain(fn)
    if type(own) is dist.Beta:
        a, b = own.concentration1, own.concentration0
        log_prob = (a - 1) * jnp.log(value) + (b - 1) * jnp.log1p(-value)
    elif type(own) is dist.Gamma:
        shape, rate = own.concentration, own.rate
        log_prob = shape * jnp.log(rate) + (shape - 1) * jnp.log(value) - rate * value
    else:
        return fn.log_prob(value)
    return log_prob if own is fn else jnp.where(fn._mask, log_prob, 0.0)


def _normal(fn: Any) -> Any:
    """The distribution itself where it is normal as it is sampled, else None."""
    fn = fn.base_dist if type(fn) is dist.ExpandedDistribution else fn
    return fn if type(fn) in (dist.Normal, dist.LogNormal) else None


def _normal_log_prob(flat: jax.Array, of: dict[str, Any], like: dict[str, Any]) -> jax.Array:
    """Log density, up to a constant, of all coordinates that are normal as they are sampled.

    All at once: for one site after the other, it would take half of the model's compilation.
    """

    def each(word: str, other: float) -> jax.Array:
        # As ravel_pytree has them.
        parts = [
            jnp.broadcast_to(getattr(of[name], word) if name in of else other, np.shape(like[name]))
            for name in sorted(like)
        ]
        return jnp.concatenate([part.ravel() for part in parts])

    is_normal = np.concatenate([np.full(np.size(like[name]), name in of) for name in sorted(like)])
    # XLA would take the vectors apart again.
    parts = each("loc", 0.0), each("scale", 1.0)
    loc, scale = jax.lax.optimization_barrier(parts)  # type: ignore[no-untyped-call]
    density = -0.5 * ((flat - loc) / scale) ** 2 - jnp.log(scale)
    return jnp.sum(jnp.where(is_normal, density, 0.0))


def trace_of(
    model: Callable[..., None], substitute: Callable[[dict[str, Any]], Any], *args: Any
) -> dict[str, Any]:
    """The sites of a model in which these values are put."""
    seeded = handlers.seed(model, jax.random.key(0))
    return handlers.trace(handlers.substitute(seeded, substitute_fn=substitute)).get_trace(*args)


def is_latent(site: dict[str, Any]) -> bool:
    """Whether a site is sampled."""
    return site["type"] == "sample" and not site["is_observed"]


def plain(fn: Any) -> Any:
    """A distribution without its mask."""
    return fn.base_dist if isinstance(fn, dist.MaskedDistribution) else fn

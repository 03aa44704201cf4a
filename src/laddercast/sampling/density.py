"""The density that is sampled: a route, at positions where parameters hang together little."""

from collections.abc import Callable, Iterable
from functools import cache
from math import exp, log, log1p
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
from jax.flatten_util import ravel_pytree
from numpyro import distributions as dist
from numpyro import handlers
from numpyro.infer.reparam import Reparam

from laddercast.model.design import Design, Observed, Seen
from laddercast.model.priors import Priors
from laddercast.model.routes import Route, run_model
from laddercast.sampling.chains import Potential

CENTRED = {
    "log_alpha": 0.5, "log_beta": 0.5, "share_e": 0.5, "share_a": 0.5, "log_power": 1.0,
    "share_rest": 0.5, "log_slope": 1.0, "log_rise": 1.0, "log_noise_loss": 1.0,
    "share_checkpoint_loss": 0.5, "log_noise_accuracy": 1.0, "share_checkpoint_accuracy": 0.5,
    "log_walk_loss": 0.0, "log_walk_accuracy": 0.0, "walk_loss": 0.0, "walk_reference": 0.25,
    "walk_accuracy": 0.0, "run_loss_shared": 0.0, "run_accuracy_shared": 0.0,
}  # fmt: skip
"""How far each pooled site is centred before anything is known of it: 0 is a standard deviate.

Centred, what the data say little of makes a funnel with its pooling scale; as a standard deviate,
the scale is bound to all that the data pin down.
"""


STEEPNESS = ("log_slope", "log_rise")


class Pivot(NamedTuple):
    """Where, on its curve, the accuracy of each task is told best: there, the sampler holds it.

    An end of a curve is known from the prior alone as long as no rung is near it. What is known
    instead are an accuracy and its rise at some rung: as the end moves, level and steepness of the
    logit must follow. Positions hold what is left of them when they do.
    """

    accuracy: Any  # (tasks,)
    width: Any  # (tasks,) an end closer to it than this is followed no further
    away: Any  # (tasks,) relative loss there, less its 1 at the reference sizes
    fall: Any  # (2, tasks) of log loss with log params and tokens, at the reference sizes


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


FURTHEST, FURTHEST_BENT = 0.3, 1.0
"""By which a logit, or `q`, leans at most; a logit that is bent, as it is before."""

FALL = 5.0
"""Less all of itself, a rate is log 2 over this of what it was, and smaller yet beyond."""


class Pinned(NamedTuple):
    """What data tell of a walk's steps, in directions of which they tell one apart from the other.

    Steps have the scale of their prior where data tell little, and that of the data where they tell
    more. A scale can lie in both reaches, and one share of centring is wrong in one of them:
    positions hold steps over the scale that prior and data together leave.
    """

    directions: Any  # (steps, steps, tasks) orthogonal, side by side
    precision: Any  # (steps, tasks) of steps in these directions, were the scale of noise 1


BENT = ("share_e", "share_rest", "reference_share_e", "log_lower")
"""Sites of which data tell little where they are low, and more with each unit where they are high.

An asymptote shows by how much a law bends, which is in proportion to its odds, not to their log; a
lower end shows as it comes close to what was measured. Positions are stretched there.
"""


class Bent(NamedTuple):
    """Where a site is stretched: what data tell of it grows exponentially, its prior stays."""

    start: Any  # (tasks,) or (): where, as the site is sampled, data tell as much as the prior
    rate: Any  # at which one over its standard deviation, from data alone, grows per unit


class Data(NamedTuple):
    """What a density reads."""

    design: Design
    priors: Priors
    observed: Observed
    centred: dict[str, Any]  # share by which each pooled site is centred, in its shape
    pivot: Pivot
    lean: dict[str, Any]  # by name in `LEANING`: (sites, steps, tasks) or (sites, steps)
    pinned: dict[str, Pinned]  # by walk of tasks
    bent: dict[str, Bent]  # by the names in `BENT` that are sampled, as they are then
    trend: dict[str, Any]  # by quantity, (2 or 3, runs, tasks): see `_trend_of_runs`
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
        sites, pooled, log_volume = _placed(ravel_pytree(data.like)[1](position), data)
        value = {name: pooled.of(name) for name in pooled.base}
        put = constrained(sites)
        # What is pooled is given as it is: its density is that of all such sites together.
        model = sampled(route, {k: x for k, x in data.centred.items() if k not in value})
        trace = trace_of(
            model,
            lambda site: value[site["name"]] if site["name"] in value else put(site),
            data.design, data.priors, data.observed,
        )  # fmt: skip
        others = {name: site for name, site in trace.items()
                  if site["type"] == "sample" and name not in value}  # fmt: skip
        normal = {name: fn for name, site in others.items()
                  if is_latent(site) and (fn := _normal(site["fn"])) is not None}  # fmt: skip
        total = log_volume + pooled.log_prob + _normal_log_prob(sites, normal)
        for name, site in others.items():
            if name in normal:
                continue
            total += jnp.sum(_log_prob(site["fn"], site["value"]))
            if is_latent(site):
                slope = bijection(site).log_abs_det_jacobian(sites[name], site["value"])
                total += jnp.sum(slope)
        return -total

    # Programs that hold it share one trace.
    return jax.jit(potential, inline=True)


class Pooled(NamedTuple):
    """All sites of which each task has a value of its own about a mean, by site.

    What they are scaled by, and their density, is one operation for all of them: each by itself
    would take as long.
    """

    base: dict[str, jax.Array]  # (tasks,)
    share: dict[str, jax.Array]  # (tasks,) by which they are centred
    center: dict[str, jax.Array]  # ()
    log_scale: dict[str, jax.Array]  # ()
    factor: dict[str, jax.Array]  # (tasks,) a step of the value over one of the base

    def off(self, name: str) -> jax.Array:
        """How far one site's values (tasks,) lie from their mean."""
        return self.factor[name] * (self.base[name] - self.share[name] * self.center[name])

    def of(self, name: str) -> jax.Array:
        """The values (tasks,) of one site, as `Centred` has them."""
        return self.center[name] + self.off(name)

    @property
    def log_prob(self) -> jax.Array:
        """Log density of the bases, up to a constant."""
        share, off = jnp.stack([*self.share.values()]), jnp.stack([self.off(x) for x in self.base])
        log_scale = jnp.stack([*self.log_scale.values()])[:, None]
        return -jnp.sum((off * jnp.exp(-log_scale)) ** 2 / 2 + share * log_scale)

    def base_step(self, name: str, by: Any) -> Any:
        """By how much a base moves as the value does by this."""
        return by / self.factor[name]

    def moved(self, by: dict[str, Any]) -> "Pooled":
        """With bases further on by this, by the names of bases."""
        base = {name: x + by.get(f"{name}_decentered", 0.0) for name, x in self.base.items()}
        return self._replace(base=base)


def _pooled(sites: dict[str, Any], data: Data) -> Pooled:
    """The pooled sites at unconstrained ones."""
    field = {name: name.removeprefix("log_") for name in data.centred}
    # Of a walk, it is the scale that is pooled, not the steps.
    names = [
        name for name in field if f"{field[name]}_center" in sites and f"log_{name}" not in field
    ]
    center = {name: _hyper(f"{field[name]}_center", sites, data) for name in names}
    log_scale = {name: _log_hyper(f"{field[name]}_scale", sites, data) for name in names}
    base = {name: sites[f"{name}_decentered"] for name in names}
    share = {name: jnp.asarray(data.centred[name]) for name in names}
    factor = jnp.exp((1 - jnp.stack([*share.values()])) * jnp.stack([*log_scale.values()])[:, None])
    each = jax.lax.split(factor, [1] * len(names))
    return Pooled(
        base, share, center, log_scale,
        {name: jnp.squeeze(one, 0) for name, one in zip(names, each, strict=True)},
    )  # fmt: skip


def _hyper(name: str, sites: dict[str, Any], data: Data) -> Any:
    return dist.biject_to(getattr(data.priors, name).support)(sites[name])


def _log_hyper(name: str, sites: dict[str, Any], data: Data) -> Any:
    to_scale = dist.biject_to(getattr(data.priors, name).support)
    if isinstance(to_scale, dist.transforms.ExpTransform):
        return sites[name]
    return jnp.log(to_scale(sites[name]))


def sites_at(position: jax.Array, data: Data) -> dict[str, Any]:
    """Unconstrained sites at a position (dim,)."""
    return _placed(ravel_pytree(data.like)[1](position), data)[0]


def _placed(sites: dict[str, Any], data: Data) -> tuple[dict[str, Any], Pooled, jax.Array]:
    """Sites from what a position has of them, those that are pooled, and the log of the volume."""
    pooled, log_volume = _pooled(sites, data), jnp.zeros(())

    def shift(by: dict[str, Any]) -> None:
        nonlocal sites, pooled
        sites = sites | {name: sites[name] + more for name, more in by.items()}
        pooled = pooled.moved(by)

    shift(_noisier(pooled, data))
    for walk, (directions, _) in data.pinned.items():
        narrower, base = _narrower(walk, pooled, data), f"{walk}_decentered"
        sites = sites | {base: jnp.sum(directions * (narrower * sites[base]), axis=1)}
        log_volume += jnp.sum(jnp.log(narrower))
    shift(_lean(sites, pooled, data))
    for site, bent in data.bent.items():
        straight = sites[site]
        shift({site: bend(straight, bent) - straight})
        log_volume += jnp.sum(log_steepness(straight, bent))
    shift(_turn(sites, pooled, data, ahead=True))
    return sites, pooled, log_volume


def position_of(sites: dict[str, Any], data: Data) -> jax.Array:
    """The position of unconstrained sites, in the order of their names: undoes `sites_at`."""

    def less(by: dict[str, Any]) -> None:
        nonlocal sites
        sites = sites | {name: sites[name] - more for name, more in by.items()}

    less(_turn(sites, _pooled(sites, data), data, ahead=False))
    less({site: sites[site] - straightened(sites[site], bent) for site, bent in data.bent.items()})
    less(_lean(sites, _pooled(sites, data), data))
    pooled = _pooled(sites, data)
    for walk, (directions, _) in data.pinned.items():
        narrower, base = _narrower(walk, pooled, data), f"{walk}_decentered"
        sites = sites | {base: jnp.sum(directions * sites[base][:, None], axis=0) / narrower}
    less(_noisier(pooled, data))
    position: jax.Array = ravel_pytree(sites)[0]
    return position


STRAIGHT = 40.0
"""Further below zero, the log of `softplus` is its argument as far as numbers show."""


def bend(x: Any, bent: Bent) -> Any:
    """The site at what a position has of it: as it is below the start, above it the log of that."""
    far = bent.rate * (x - bent.start)
    return x + (_log_softplus(far) - far) / bent.rate


def _log_softplus(x: Any) -> Any:
    near = jnp.maximum(x, -STRAIGHT)
    return jnp.log(jax.nn.softplus(near)) + (x - near)


def log_steepness(x: Any, bent: Bent) -> Any:
    """Log of the derivative of `bend`."""
    far = bent.rate * (x - bent.start)
    return jax.nn.log_sigmoid(far) - _log_softplus(far)


def straightened(value: Any, bent: Bent) -> Any:
    """What a position has of a site: undoes `bend`."""
    far = bent.rate * (value - bent.start)
    near = jnp.maximum(far, -STRAIGHT)
    # The log of exp(exp(near)) - 1, which is too large a number where it is much.
    straight = jnp.exp(near) + jnp.log(-jnp.expm1(-jnp.exp(near)))
    return value + (straight - near) / bent.rate


def _narrower(walk: str, pooled: Pooled, data: Data) -> jax.Array:
    """The scale of steps (steps, tasks) that prior and data leave, over that of their prior."""
    of_noise = pooled.of(f"log_noise_{walk.removeprefix('walk_')}")
    known = data.pinned[walk].precision * jnp.exp(2 * (pooled.of(f"log_{walk}") - of_noise))
    return jax.lax.rsqrt(1 + known)


def _noisier(pooled: Pooled, data: Data) -> dict[str, Any]:
    """By how much all noise is more than what data tell of, of which positions hold the log.

    Many checkpoints tell their own noise, and a sum only with what runs add.
    """
    shifts = {}
    for quantity in ("loss", "accuracy"):
        if f"log_noise_{quantity}" in pooled.base:
            log_share = jax.nn.log_sigmoid(pooled.of(f"share_checkpoint_{quantity}"))
            known = _share_of_checkpoints(getattr(data.design, quantity), data.design)
            shifts[f"log_noise_{quantity}_decentered"] = -known * log_share / 2
    return shifts


def as_sampled(sites: Iterable[str], like: dict[str, Any]) -> list[str]:
    """Those of the sites that are sampled, by the names that they have then."""
    return [base for site in sites for base in (site, f"{site}_decentered") if base in like]


def leaning(name: str, like: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The sites of `LEANING` that are sampled, and the steps."""
    sites, steps = LEANING[name]
    return as_sampled(sites, like), as_sampled(steps, like)


def _lean(sites: dict[str, Any], pooled: Pooled, data: Data) -> dict[str, Any]:
    """By how much sites make up for steps; volumes stay as they are, as in `_turn`."""
    shifts: dict[str, Any] = {}
    for name, lean in data.lean.items():
        leaners, steps = leaning(name, data.like)
        walk = jnp.concatenate([_steps(sites, pooled, step.removesuffix("_decentered"), data)
                                for step in steps])  # fmt: skip
        by = jnp.sum(lean * walk, axis=1)
        for i, base in enumerate(leaners):
            site = base.removesuffix("_decentered")
            unit = pooled.factor.get(site, 1.0)
            shifts[base] = _followed(site, by[i] * unit) / unit
    return shifts


def _followed(site: str, by: Any) -> Any:
    """By how much a site follows a walk: as far as what it stands for is straight in that."""
    if site in ("accuracy_level", "loss_level", "reference_level"):
        return by
    if site.startswith("log_") or site in ("reference_alpha", "reference_beta"):
        # The log of a rate to which the walk adds: as log(1 + by), but defined where the walk takes
        # off more than all of it.
        return _log_softplus(FALL * (1 + by)) - log(log1p(exp(FALL)))
    furthest = FURTHEST_BENT if site in BENT else FURTHEST
    return furthest * jnp.tanh(by / furthest)


def _steps(sites: dict[str, Any], pooled: Pooled, site: str, data: Data) -> Any:
    """The steps of a walk."""
    log_scale = (
        pooled.of(f"log_{site}") if f"log_{site}" in pooled.base
        else _log_hyper(f"{site}_scale", sites, data)
    )  # fmt: skip
    return _about_zero(site, log_scale, sites, data)


def _about_zero(site: str, log_scale: Any, sites: dict[str, Any], data: Data) -> Any:
    """The values of a site whose prior mean is zero, as `Centred` has them."""
    return jnp.exp((1 - data.centred[site]) * log_scale) * sites[f"{site}_decentered"]


def _turn(sites: dict[str, Any], pooled: Pooled, data: Data, ahead: bool) -> dict[str, Any]:
    """By how much sites turn about the pivot, and with what else tells them.

    Seen from before it (`ahead`), or from sites that have turned.
    """
    steep = next(name for name in STEEPNESS if name in pooled.base)
    accuracy, width, away, fall = data.pivot
    lower = data.design.chance * jnp.exp(_hyper("log_lower", sites, data))
    upper = jax.nn.sigmoid(-_hyper("logit_gap", sites, data))
    above, below = (
        jnp.log(jax.nn.softplus(off / width) * width)
        for off in (accuracy - lower, upper - accuracy)
    )
    rise = above + below - jnp.log(jax.nn.softplus((upper - lower) / width) * width)
    at_pivot, steeper = _trend_of_runs("accuracy", sites, pooled, data)
    turn = {f"{steep}_decentered": -rise - pooled.base_step(steep, steeper)}
    turned = pooled.moved(turn) if ahead else pooled
    steepness = jnp.exp(turned.of(steep))
    shifts = turn | {"accuracy_level": above - below + steepness * away - at_pivot}
    if "log_alpha" in pooled.base:
        left = jax.nn.log_sigmoid(-pooled.of("share_e")) if "share_e" in pooled.base else 0.0
        names = "log_alpha_decentered", "log_beta_decentered"
        shifts |= dict(zip(names, of_exponents(pooled.of("share_a"), left), strict=True))
    if "reference_alpha" in sites:
        share_e, share_a = (_hyper(f"reference_{x}", sites, data) for x in ("share_e", "share_a"))
        left = jax.nn.log_sigmoid(-share_e)
        names = "reference_alpha", "reference_beta"
        shifts |= dict(zip(names, of_exponents(share_a, left), strict=True))
    if "log_power" in pooled.base:
        shifts["log_power_decentered"] = -jax.nn.log_sigmoid(-pooled.of("share_rest"))
    if "run_loss_shared_decentered" in sites:
        level, *slopes = _trend_of_runs("loss", sites, pooled, data)
        shifts["loss_level"] = -level
        shifts["accuracy_level"] += steepness * (1 + away) * level
        for name, slope, per_unit in zip(("log_alpha", "log_beta"), slopes, fall, strict=True):
            if name in pooled.base:
                shifts[f"{name}_decentered"] += pooled.base_step(name, slope / per_unit)
    return shifts


def _trend_of_runs(quantity: str, sites: dict[str, Any], pooled: Pooled, data: Data) -> Any:
    """What runs have in common (2 or 3, tasks) that a task's laws could have had as well.

    Of loss in its log at the reference sizes, and by log params and tokens; of accuracy in its
    logit at the pivot, and in the log of the steepness. What a task has of it depends on its noise,
    so that many tasks bind them together along curves, unless positions have laws less all this.
    """
    names = f"log_noise_{quantity}", f"share_checkpoint_{quantity}"
    noise, share = (pooled.of(name) for name in names)
    typical = [pooled.center[name] for name in names]

    def log_run(noise: Any, share: Any) -> Any:
        return noise + jax.nn.log_sigmoid(-share) / 2

    log_typical = log_run(*typical)
    log_scale = log_typical + jnp.log(_hyper(f"run_{quantity}_correlation", sites, data)) / 2
    shared = _about_zero(f"run_{quantity}_shared", log_scale, sites, data)
    trend = jnp.sum(data.trend[quantity] * shared[:, None], axis=1)
    return jnp.exp(log_run(noise, share) - log_typical) * trend


def of_exponents(share_a: Any, left: Any) -> tuple[Any, Any]:
    """Shifts of those of N and D: what is known of them is the loss's slope at reference sizes."""
    return -left - jax.nn.log_sigmoid(share_a), -left - jax.nn.log_sigmoid(-share_a)


def _share_of_checkpoints(seen: Seen, design: Design) -> Any:
    """Of what is known of noise (tasks,), how much is known of that between checkpoints."""
    runs = design.end.shape[0]
    within = jnp.maximum(jnp.sum(seen.at, axis=0) - runs, 0) + jnp.sum(seen.spread_dof, axis=0)
    return within / (within + runs)


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


def _normal_log_prob(sites: dict[str, Any], of: dict[str, Any]) -> jax.Array:
    """Log density, up to a constant, of all coordinates that are normal as they are sampled.

    All at once: for one site after the other, it would take half of the model's compilation.
    """

    def each(word: str) -> jax.Array:
        parts = [jnp.broadcast_to(getattr(fn, word), jnp.shape(sites[name]))
                 for name, fn in of.items()]  # fmt: skip
        return jnp.concatenate([part.ravel() for part in parts])

    flat = jnp.concatenate([jnp.ravel(sites[name]) for name in of])
    # XLA would take the vectors apart again.
    parts = each("loc"), each("scale")
    loc, scale = jax.lax.optimization_barrier(parts)  # type: ignore[no-untyped-call]
    return -jnp.sum(((flat - loc) / scale) ** 2 / 2 + jnp.log(scale))


def trace_of(
    model: Callable[..., None], substitute: Callable[[dict[str, Any]], Any], *args: Any
) -> dict[str, Any]:
    """The sites of a model in which these values are put."""
    seeded = handlers.seed(model, jax.random.key(0))
    return run_model(handlers.substitute(seeded, substitute_fn=substitute), *args)


def is_latent(site: dict[str, Any]) -> bool:
    """Whether a site is sampled."""
    return site["type"] == "sample" and not site["is_observed"]


def plain(fn: Any) -> Any:
    """A distribution without its mask."""
    return fn.base_dist if isinstance(fn, dist.MaskedDistribution) else fn

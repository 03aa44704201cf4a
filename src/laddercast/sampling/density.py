"""The density of a NumPyro model at positions in transformed coordinates.

A position is one vector: the coordinates of all latent sites, in the order of their names. A site's
unconstrained value is what its transform makes of its coordinate, times its unit, plus its offset.

What a model may declare where it samples a site, in `infer=`:
`offset`: an array that depends on sites sampled before; data tell of the site less this.
`unit`: another, above 0; the SD with which data tell of the site goes with it in proportion.
`followed`: true for what sites that are sampled after it could have stood for as well.
`held`: true for what stays where it is while a mode is searched, as scales of hierarchies do.
An observed distribution may have `expected_data(sds)`, data that lie so many SDs off.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.ops.provenance import eval_provenance
from numpyro.primitives import Messenger

from laddercast.sampling.transforms import Prior, Transform

type Model = Callable[..., Any]
type Sites = dict[str, Any]
type ValueOf = Callable[[dict[str, Any]], Any]
"""What a site of NumPyro's trace gets for a value."""


class Data(NamedTuple):
    """What a density reads; a pytree of arrays."""

    args: tuple[Any, ...]  # of the model
    transforms: dict[str, Transform]  # by site
    follows: dict[str, Sites]  # by site: steps (n, ...) per unit of each site (n, ...) it follows
    observed: Sites  # values by observed site
    like: Sites  # unconstrained latent values, for their names and shapes


class Observed(Messenger):  # type: ignore[misc]
    """Puts other values in the place of what was observed, as a function of the site has them."""

    def __init__(self, fn: Model, value: Callable[[dict[str, Any]], Any]) -> None:
        super().__init__(fn)
        self.value = value

    def process_message(self, msg: dict[str, Any]) -> None:
        """Put the value into the site."""
        if msg["type"] == "sample" and msg["is_observed"]:
            msg["value"] = self.value(msg)


class Trace(NamedTuple):
    """A model's sites at a position, their unconstrained values, the log of the volume."""

    sites: dict[str, dict[str, Any]]
    unconstrained: Sites
    log_det: Any


def trace_at(
    model: Model, data: Data, value: ValueOf, observed: ValueOf | None = None
) -> dict[str, Any]:
    """The model's sites with these values of latent sites, and of observed ones if given."""
    replaced = Observed(model, observed or (lambda site: data.observed[site["name"]]))
    seeded = handlers.seed(replaced, jax.random.key(0))
    put = handlers.substitute(seeded, substitute_fn=lambda x: value(x) if is_latent(x) else None)
    found: dict[str, Any] = handlers.trace(put).get_trace(*data.args)
    return found


def forward(model: Model, data: Data, position: Array, observed: ValueOf | None = None) -> Trace:
    """The model at a position (dim,)."""
    coordinates = ravel_pytree(data.like)[1](position)
    unconstrained: Sites = {}
    log_det = jnp.zeros(())

    def value(site: dict[str, Any]) -> Any:
        nonlocal log_det
        name = site["name"]
        x, offset, unit = coordinates[name], _offset(site, data, unconstrained), unit_of(site)
        if name in data.transforms:
            prior = prior_in(site, offset, unit, x)
            x, log_det = (
                data.transforms[name].forward(x, prior),
                log_det + data.transforms[name].log_det(prior),
            )
        if "unit" in site["infer"]:
            log_det += jnp.sum(jnp.log(jnp.broadcast_to(unit, jnp.shape(x))))
        unconstrained[name] = x * unit + offset
        to = bijection(site)
        found = to(unconstrained[name])
        log_det += jnp.sum(to.log_abs_det_jacobian(unconstrained[name], found))
        return found

    return Trace(trace_at(model, data, value, observed), unconstrained, log_det)


def inverse(model: Model, data: Data, unconstrained: Sites) -> Array:
    """The position (dim,) of unconstrained values of all latent sites."""
    coordinates: Sites = {}

    def value(site: dict[str, Any]) -> Any:
        name = site["name"]
        offset, unit = _offset(site, data, unconstrained), unit_of(site)
        x = (unconstrained[name] - offset) / unit
        if name in data.transforms:
            x = data.transforms[name].inverse(x, prior_in(site, offset, unit, x))
        coordinates[name] = x
        return bijection(site)(unconstrained[name])

    trace_at(model, data, value)
    position: Array = ravel_pytree(coordinates)[0]
    return position


def _offset(site: dict[str, Any], data: Data, unconstrained: Sites) -> Any:
    offset = site["infer"].get("offset", 0.0)
    for leader, steps in data.follows.get(site["name"], {}).items():
        offset += jnp.sum(steps * unconstrained[leader], axis=0)
    return offset


def unit_of(site: dict[str, Any]) -> Any:
    """The unit that a site declares, 1 if none."""
    return site["infer"].get("unit", 1.0)


def prior_in(site: dict[str, Any], offset: Any, unit: Any, x: Any) -> Prior:
    """The normal prior of a site less an offset, in a unit, of the shape of `x`."""
    prior = normal_prior(site["fn"])
    if prior is None:
        return Prior(None, None)
    loc = jnp.broadcast_to((prior.loc - offset) / unit, jnp.shape(x))
    return Prior(loc, jnp.broadcast_to(prior.scale / unit, jnp.shape(x)))


@cache
def potential_of(model: Model, form: Any) -> Callable[[Array, list[Any]], Array]:
    """Negative log density of a position up to a constant, given the leaves of `Data`.

    `form` is the tree structure of `Data`: one function for each, so that it is compiled once.
    A compiled call spends most of its time on taking trees apart, so leaves are given.
    """

    def potential(position: Array, leaves: list[Any]) -> Array:
        found = forward(model, jax.tree.unflatten(form, leaves), position)
        total = found.log_det
        for site in found.sites.values():
            if site["type"] == "sample":
                total += jnp.sum(log_prob(site["fn"], site["value"]))
        return -total

    # Programs that hold it share one trace.
    return jax.jit(potential, inline=True)


def log_prob(fn: Any, value: Any) -> Any:
    """Log density up to a constant: not its gamma functions of known numbers, slow to compile."""
    own = plain(fn)
    if type(own) is dist.Beta:
        a, b = own.concentration1, own.concentration0
        found = (a - 1) * jnp.log(value) + (b - 1) * jnp.log1p(-value)
    elif type(own) is dist.Gamma:
        shape, rate = own.concentration, own.rate
        found = shape * jnp.log(rate) + (shape - 1) * jnp.log(value) - rate * value
    else:
        return fn.log_prob(value)
    return found if own is fn else jnp.where(fn._mask, found, 0.0)


def normal_prior(fn: Any) -> Prior | None:
    """Location and scale of what is normal as it is sampled, else None."""
    fn = plain(fn)
    fn = fn.base_dist if type(fn) is dist.ExpandedDistribution else fn
    return Prior(fn.loc, fn.scale) if type(fn) in (dist.Normal, dist.LogNormal) else None


def bijection(site: dict[str, Any]) -> Any:
    """From unconstrained values to those of a site."""
    return dist.biject_to(site["fn"].support)


def is_latent(site: dict[str, Any]) -> bool:
    """Whether a site is sampled."""
    return site["type"] == "sample" and not site["is_observed"]


def plain(fn: Any) -> Any:
    """A distribution without its mask."""
    return fn.base_dist if isinstance(fn, dist.MaskedDistribution) else fn


class Site(NamedTuple):
    """What a model says of a latent site."""

    plates: dict[str, int]  # the dimension of each in the site's array, counted from the last, -1
    varies: bool  # whether its prior is normal and depends on other sites
    held: bool  # whether it stays where it is while a mode is searched
    followed: bool  # whether sites sampled after it follow it
    offset: bool  # whether it has one


def structure(model: Model, data: Data) -> dict[str, Site]:
    """What the model says of each latent site, in the order in which they are sampled."""
    found: dict[str, Site] = {}

    def priors(**values: Any) -> Sites:
        trace = trace_at(model, data, lambda site: values[site["name"]])
        normal = {}
        for name, site in trace.items():
            if not is_latent(site):
                continue
            fn, declared = site["fn"], site["infer"]
            prior = normal_prior(fn)
            normal[name] = prior or ()
            event = fn.event_dim
            plates = {frame.name: frame.dim - event for frame in site["cond_indep_stack"]}
            found[name] = Site(
                plates, False, bool(declared.get("held")),
                bool(declared.get("followed")), "offset" in declared,
            )  # fmt: skip
        return normal

    # Values that all supports have; only what depends on them is read.
    like = {name: jnp.full_like(x, 0.5) for name, x in data.like.items()}
    depends = eval_provenance(priors, **like)
    return {
        name: site._replace(varies=any(jax.tree.leaves(depends[name], is_leaf=_is_names)))
        for name, site in found.items()
    }


def _is_names(x: Any) -> bool:
    return isinstance(x, frozenset)

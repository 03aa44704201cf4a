"""Changes of coordinates of single sites: forward, inverse, and the log of the determinant.

A transform is a pytree of arrays. It sees the site's normal prior at the current values of all that
this depends on, so that funnels between a site and its scale are straightened.
"""

from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
from jax import Array


class Prior(NamedTuple):
    """Location and scale of a site's normal prior, broadcast to the site's shape."""

    loc: Any
    scale: Any


class Transform(Protocol):
    """What all transforms of a site can do."""

    def forward(self, x: Array, prior: Prior) -> Array:
        """The site's unconstrained value at a coordinate."""
        ...

    def inverse(self, value: Array, prior: Prior) -> Array:
        """The coordinate of an unconstrained value."""
        ...

    def log_det(self, prior: Prior) -> Array:
        """Log of the volume that a unit of coordinates has."""
        ...


class Scaled(NamedTuple):
    """A site in units of a fixed scale, of the site's shape."""

    scale: Any

    def forward(self, x: Array, prior: Prior) -> Array:
        return self.scale * x

    def inverse(self, value: Array, prior: Prior) -> Array:
        return value / self.scale

    def log_det(self, prior: Prior) -> Array:
        return jnp.sum(jnp.log(self.scale))


class Conditional(NamedTuple):
    """From standard deviates to a normal site, given its prior and what data tell of it.

    Were the likelihood of the site normal, with this `precision` and the mean `pull / precision`,
    coordinates would be independent standard deviates whatever the prior's location and scale:
    with no precision they are the site's standard deviates, with much they are the site itself
    up to constants. Without the `prior` (0, else 1) they are the site in units of fixed scales,
    `1 / sqrt(precision)`. `directions`, if any, are orthonormal columns (n, n, ...) of the first
    dimension of the site, of which data tell different amounts; all else has the site's shape.
    """

    precision: Any
    pull: Any
    directions: Any = None
    prior: Any = 1.0

    def _moments(self, prior: Prior) -> tuple[Array, Array]:
        loc = prior.loc if self.directions is None else _turned(self.directions, prior.loc)
        variance = prior.scale**2
        shrink = 1 / (self.prior + self.precision * variance)
        return (self.prior * loc + variance * self.pull) * shrink, prior.scale * jnp.sqrt(shrink)

    def forward(self, x: Array, prior: Prior) -> Array:
        mean, scale = self._moments(prior)
        value: Array = mean + scale * x
        return value if self.directions is None else jnp.sum(self.directions * value, axis=1)

    def inverse(self, value: Array, prior: Prior) -> Array:
        mean, scale = self._moments(prior)
        value = value if self.directions is None else _turned(self.directions, value)
        return (value - mean) / scale

    def log_det(self, prior: Prior) -> Array:
        return jnp.sum(jnp.log(self._moments(prior)[1]))


def _turned(directions: Array, x: Array) -> Array:
    """Along directions (n, n, ...), of x (n, ...): their transpose times it."""
    return jnp.sum(directions * x[:, None], axis=0)

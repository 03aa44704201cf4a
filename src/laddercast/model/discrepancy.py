"""Discrepancy: how laws are wrong by more than noise, a random walk in log10 compute."""

from typing import NamedTuple

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from laddercast.model.design import Design

INTERVAL, BEYOND = "interval", "beyond"
"""Plates of the steps inside the ladder, and of those beyond it."""


class Walk(NamedTuple):
    """A random walk (points, tasks or 1): as far as the ladder reaches, and in full."""

    near: Array
    full: Array


def walk(design: Design, name: str, scale: Array) -> Walk:
    """A random walk with this SD per root decade, (tasks,), or () if common to all.

    Laws could have bent as it does: sites that are sampled after its steps follow them.
    """
    common = not jnp.ndim(scale)
    declared = {"followed": True}

    def part(site: str, plate: str, weights: ArrayLike) -> Array:
        steps = jnp.shape(weights)[1]
        prior = dist.Normal(0, scale)
        if common:
            with numpyro.plate(plate, steps):
                step = numpyro.sample(site, prior, infer=declared)[:, None]
        else:
            tasks = numpyro.plate("task", design.chance.shape[0], dim=-1)
            with numpyro.plate(plate, steps, dim=-2), tasks:
                step = numpyro.sample(site, prior, infer=declared)
        # A sum of products: for matrices as small, compiled dot products take several times longer.
        return jnp.sum(jnp.asarray(weights)[..., None] * step, axis=1)

    within = part(name, INTERVAL, design.walk)
    if not design.beyond.shape[1]:
        return Walk(within, within)
    return Walk(within, within + part(f"{name}_beyond", BEYOND, design.beyond))

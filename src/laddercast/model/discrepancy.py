"""Discrepancy: how laws are wrong by more than noise.

A random walk in log10 params, one in log10 tokens, and a deviation of each size, all in units of
one scale: the SD per root decade.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from laddercast.model.design import Design

INTERVAL, BEYOND = "interval", "beyond"
"""Plates of the steps inside the ladder, and of those beyond it."""


WIDEST = 0.5
"""Scale that none exceeds: what is off by more, from one rung to the next, is noise."""


def scale_of(log_scale: Any) -> Any:
    """The SD per root decade, of its log as it is sampled: alike where it is far below `WIDEST`."""
    return WIDEST / (1 + WIDEST * jnp.exp(-log_scale))


class Walk(NamedTuple):
    """Discrepancy (points, tasks or 1): as far as the ladder reaches, and in full."""

    near: Array
    full: Array


def walk(design: Design, name: str, common: ArrayLike | None, own: ArrayLike | None = None) -> Walk:
    """Discrepancy with the scales `common` () of what all tasks share, `own` (tasks,) of the rest.

    Laws could have bent as it does: sites that are sampled after its steps follow them.
    """
    declared = {"followed": True}
    alone = declared if own is None else {}

    def part(suffix: str, plate: str, weights: ArrayLike) -> Array:
        steps = jnp.shape(weights)[1]
        found: Array = jnp.zeros((steps, 1))
        if common is not None:
            with numpyro.plate(plate, steps):
                site = f"{name}{suffix}" if own is None else f"{name}_common{suffix}"
                found += numpyro.sample(site, dist.Normal(0, common), infer=alone)[:, None]
        if own is not None:
            tasks = numpyro.plate("task", design.chance.shape[0], dim=-1)
            with numpyro.plate(plate, steps, dim=-2), tasks:
                found += numpyro.sample(f"{name}{suffix}", dist.Normal(0, own), infer=declared)
        # A sum of products: for matrices as small, compiled dot products take several times longer.
        return jnp.sum(jnp.asarray(weights)[..., None] * found, axis=1)

    within = part("", INTERVAL, design.walk)
    if not design.beyond.shape[1]:
        return Walk(within, within)
    return Walk(within, within + part("_beyond", BEYOND, design.beyond))

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

from laddercast.model.design import Design, recipes

INTERVAL, BEYOND = "interval", "beyond"
"""Plates of the steps inside the ladder, and of those beyond it."""

WIDEST = 0.5
"""Scale that none exceeds: what is off by more, from one rung to the next, is noise."""

LEAST_BEYOND = {"walk_loss": 0.005}
"""SD per root decade beyond the ladder, added to what rungs tell: a law was bent to fit these."""


def scale_of(log_scale: Any) -> Any:
    """The SD per root decade, of its log as it is sampled: alike where it is far below `WIDEST`."""
    return WIDEST / (1 + WIDEST * jnp.exp(-log_scale))


class Scales(NamedTuple):
    """SDs per root decade, of what all tasks share () and of the rest (tasks,); one may be none."""

    common: ArrayLike | None
    own: ArrayLike | None


class Walk(NamedTuple):
    """Discrepancy (points, tasks or 1): as far as the ladder reaches, and in full.

    Then the parts of both that sizes are off by.
    """

    near: Array
    full: Array
    size_near: ArrayLike = 0.0
    size_full: ArrayLike = 0.0


def walk(
    design: Design, name: str, inside: Scales, beyond: Scales, share: ArrayLike | None = None
) -> Walk:
    """Discrepancy, with its scales inside the ladder and beyond it.

    Laws could have bent as it does: sites that are sampled after its steps follow them. Inside the
    ladder it is common to all recipes; beyond, each has the `share` () of the variance to itself.
    """
    declared = {"followed": True}
    alone = declared if inside.own is None else {}
    tasks = numpyro.plate("task", design.chance.shape[0], dim=-1)

    def at(weights: ArrayLike, found: Array) -> Array:
        # A sum of products: for matrices as small, compiled dot products take several times longer.
        return jnp.sum(jnp.asarray(weights)[..., None] * found, axis=-2)

    def part(
        suffix: str, plate: str, weights: ArrayLike, of_size: ArrayLike, scales: Scales,
        times: ArrayLike = 1.0,
    ) -> tuple[Array, Array]:  # fmt: skip
        """Of all steps at points, and of those of sizes alone."""
        common, own = scales
        steps = jnp.shape(weights)[1]
        found: Array = jnp.zeros((steps, 1))
        if common is not None:
            with numpyro.plate(plate, steps):
                site = f"{name}{suffix}" if own is None else f"{name}_common{suffix}"
                normal = dist.Normal(0, common * times)
                found += numpyro.sample(site, normal, infer=alone)[:, None]
        if own is not None:
            with numpyro.plate(plate, steps, dim=-2), tasks:
                normal = dist.Normal(0, own * times)
                found += numpyro.sample(f"{name}{suffix}", normal, infer=declared)
        return at(weights, found), at(weights * of_size, found)

    def of_recipes(share: ArrayLike) -> Array:
        """What each recipe has to itself beyond the ladder, at points."""
        common, own = beyond
        count, steps = recipes(design), design.beyond.shape[1]
        found: Array = jnp.zeros((count, steps, 1))
        each = numpyro.plate("recipe", count, dim=-3), numpyro.plate(BEYOND, steps, dim=-2)
        if common is not None:
            with each[0], each[1]:
                normal = dist.Normal(0, common * jnp.sqrt(share))
                site = f"{name}_common_recipe_beyond"
                found += numpyro.sample(site, normal.expand((count, steps, 1)))
        if own is not None:
            with each[0], each[1], tasks:
                normal = dist.Normal(0, own * jnp.sqrt(share))
                found += numpyro.sample(f"{name}_recipe_beyond", normal)
        return at(design.beyond, found[design.recipe])

    near, size_near = part("", INTERVAL, design.walk, design.of_size, inside)
    if not design.beyond.shape[1]:
        return Walk(near, near, size_near, size_near)
    left = 1.0 if share is None else jnp.sqrt(1 - jnp.asarray(share))
    full, size_full = part("_beyond", BEYOND, design.beyond, design.of_new_size, beyond, left)
    if share is not None:
        full += of_recipes(share)
    return Walk(near, near + full, size_near, size_near + size_full)

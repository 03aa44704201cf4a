"""Second derivatives of a potential, by the structure of a hierarchy, at data as expected."""

from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from laddercast.sampling.chains import Potential, gradients
from laddercast.sampling.density import Data, Model, Site, forward, plain, potential_of
from laddercast.sampling.preconditioner import Curvature, Layout
from laddercast.sampling.programs import QUICKLY, on_cores

OFF = 1.0, -1.0
"""SDs by which expected data lie off.

Where all lie at one SD, up or down, scales of noise are at rest, and the mean of both curvatures is
the information about locations and scales alike, without what the residuals of one data set lend it
in directions that they leave nearly flat.
"""

MANY = 64
"""Elements of a site outside the blocks from which on each is taken to be independent."""


def layout_of(sites: dict[str, Site], like: dict[str, Any], blocks: str | None) -> Layout:
    """The layout of a position; sites in the plate `blocks` make a block for each of its elements.

    Without such a plate all coordinates are shared, but for those of sites with `MANY` elements.
    """
    axes = {name: site.plates for name, site in sites.items()}
    count = max(
        [np.shape(like[name])[own[blocks]] for name, own in axes.items() if blocks in own],
        default=0,
    )  # fmt: skip
    nothing = np.zeros(0, int)
    shared, each, alone, color = [nothing], [np.zeros((count, 0), int)], [nothing], [nothing]
    at_blocks, at_shared, at_alone = {}, {}, {}
    first = colors = 0
    for name in sorted(like):  # as ravel_pytree has them
        shape = np.shape(like[name])
        index = first + np.arange(int(np.prod(shape)))
        if blocks in axes[name]:
            of_block = np.moveaxis(index.reshape(shape), axes[name][blocks], 0).reshape(count, -1)
            at_blocks[name] = sum(x.shape[1] for x in each) + np.arange(of_block.shape[1])
            each.append(of_block)
            own = np.empty(len(index), int)
            own[of_block - first] = np.arange(of_block.shape[1])
        elif len(index) > MANY:
            # Given all else, elements of a plate are independent.
            at_alone[name] = sum(map(len, alone)) + np.arange(len(index))
            alone.append(index)
            own = np.zeros(len(index), int)
        else:
            at_shared[name] = sum(map(len, shared)) + np.arange(len(index))
            shared.append(index)
            own = np.arange(len(index))
        color.append(colors + own)
        first, colors = first + len(index), colors + own.max(initial=-1) + 1
    return Layout(
        np.concatenate(shared), np.concatenate(each, axis=1), np.concatenate(alone),
        np.concatenate(color), at_blocks, at_shared, at_alone,
    )  # fmt: skip


def expected_curvature(
    model: Model, data: Data, positions: np.ndarray, scale: np.ndarray | float, layout: Layout
) -> Curvature:
    """Curvature at expected data, in the mean over positions (rows, dim).

    `scale` (dim,) is that of each coordinate, or one of all.
    """
    leaves, form = jax.tree.flatten(data)
    potential, step = potential_of(model, form), np.full(positions.shape[1], 1e-3 * scale)

    def at(given: tuple[np.ndarray, float]) -> Curvature:
        position, sds = given
        expected = _expected_data(model, form)(jnp.asarray(position), leaves, sds)
        return curvature(potential, position, step, expected, layout)

    first, *others = product(positions, OFF)
    found = [at(first), *on_cores(at, others)]  # the first compiles
    return jax.tree.map(lambda *parts: np.mean(parts, axis=0), *found)


@cache
def _expected_data(model: Model, form: Any) -> Callable[..., list[Any]]:
    """Compiled: leaves of data with measurements as a model at a position expects them."""

    def with_expected(position: jax.Array, leaves: list[Any], sds: float) -> list[Any]:
        data: Data = jax.tree.unflatten(form, leaves)

        def expected(site: dict[str, Any]) -> Any:
            fn, shape = plain(site["fn"]), jnp.shape(data.observed[site["name"]])
            if hasattr(fn, "expected_data"):
                found = fn.expected_data(sds)
            elif fn.support is dist.constraints.real:
                found = fn.mean + sds * jnp.sqrt(fn.variance)
            else:
                found = fn.mean
            return jnp.broadcast_to(found, shape)

        trace = forward(model, data, position, expected).sites
        return jax.tree.leaves(
            data._replace(observed={name: trace[name]["value"] for name in data.observed})
        )

    return jax.jit(with_expected, compiler_options=QUICKLY)


def curvature(
    potential: Potential, position: np.ndarray, step: np.ndarray, leaves: list[Any], layout: Layout
) -> Curvature:
    """Second derivatives, all coordinates of one color at once; `step` (dim,) is one for each."""
    shared, blocks, alone, color = layout[:4]
    steps = np.where(color == np.arange(color.max() + 1)[:, None], step, 0.0)
    points = position + np.array([1.0, -1.0])[:, None, None] * steps
    _, slopes = gradients(potential, points.reshape(-1, len(position)), leaves)
    ahead, back = slopes.reshape(points.shape)
    # Far off, where a search strays, some are not defined: they count as flat.
    with np.errstate(invalid="ignore", over="ignore"):
        changes = (ahead - back) / 2
    changes = np.where(np.isfinite(changes), changes, 0.0)
    between = changes[color[shared]] / step[shared][:, None]
    square = between[:, shared]
    within = np.zeros((*blocks.T.shape, blocks.shape[1]))
    if len(blocks):
        within = changes[color[blocks[0]]][:, blocks] / step[blocks.T][..., None]
    of_blocks = np.moveaxis(within, 0, -1)
    return Curvature(
        (square + square.T) / 2,
        np.moveaxis(between[:, blocks], 0, -1),
        (of_blocks + np.swapaxes(of_blocks, 1, 2)) / 2,
        changes[color[alone], alone] / step[alone],
    )

"""Transforms and preconditioner found from draws: which prior, which data, which curvature."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from laddercast.sampling.curvature import expected_curvature
from laddercast.sampling.density import (
    Data,
    Model,
    Site,
    Sites,
    forward,
    inverse,
    prior_in,
    unit_of,
)
from laddercast.sampling.preconditioner import (
    FLATTEST,
    Curvature,
    Layout,
    Preconditioner,
    from_curvature,
    positive,
    refined,
)
from laddercast.sampling.programs import in_batches
from laddercast.sampling.transforms import Conditional, Scaled

PLACES = 8
"""Draws over which curvature is averaged: where it varies, one place misleads."""


class Found(NamedTuple):
    """Sites at draws: unconstrained values, and location and scale of normal priors.

    `less`, locations and scales are less the site's offset and in its unit.
    """

    unconstrained: Sites
    less: Sites
    loc: Sites
    scale: Sites
    unit: Sites


@cache
def _find(model: Model) -> Callable[[jax.Array, Data], Found]:
    def one(position: jax.Array, data: Data) -> Found:
        trace = forward(model, data, position)
        less, loc, scale, units = {}, {}, {}, {}
        for name, value in trace.unconstrained.items():
            site = trace.sites[name]
            offset, unit = site["infer"].get("offset", 0.0), unit_of(site)
            prior = prior_in(site, offset, unit, value)
            if prior.loc is not None:
                less[name] = (value - offset) / unit
                loc[name], scale[name] = prior
                units[name] = jnp.broadcast_to(unit, jnp.shape(value))
        return Found(trace.unconstrained, less, loc, scale, units)

    return one


def find(model: Model, data: Data, positions: np.ndarray) -> Found:
    """Sites at positions (draws, dim)."""
    found: Found = in_batches(_find(model), positions, data)
    return found


def adapted(
    model: Model, data: Data, layout: Layout, sites: dict[str, Site], draws: np.ndarray
) -> tuple[np.ndarray, Data]:
    """The draws (chains, draws, dim) in new coordinates, and the data with their transforms.

    How much data tell of each site with a normal prior is read off the curvature in the middle of
    the draws, where sites are in units of their priors' scales: what of the precision of the site,
    all others of its block left free, is more than one. So are the steps by which sites make up
    for those that they follow.
    """
    found = find(model, data, draws.reshape(-1, draws.shape[-1]))
    scales = {name: np.exp(np.log(x).mean(axis=0)) for name, x in found.scale.items()}
    plain = scaled(data, layout, sites, scales)
    positions = repositioned(model, plain, found.unconstrained)
    step = np.maximum(positions.std(axis=0), 1e-6)
    curved = expected_curvature(model, plain, positions.mean(axis=0)[None], step, layout)
    units = {name: np.exp(np.log(x).mean(axis=0)) for name, x in found.unit.items()}
    follows = _follows(curved, layout, sites, {name: scales[name] * units[name] for name in scales})
    found = _less(found, follows)
    transforms = {
        name: _conditional(found, name, covariance, scales[name], layout)
        for name, covariance in _covariances(curved, layout).items()
        if isinstance(plain.transforms.get(name), Conditional)
    }
    new = plain._replace(transforms=plain.transforms | transforms, follows=follows)
    new = jax.tree.map(jnp.asarray, new)
    return repositioned(model, new, found.unconstrained).reshape(draws.shape), new


def scaled(data: Data, layout: Layout, sites: dict[str, Site], scales: Sites) -> Data:
    """The data with sites in units of these scales, following nothing.

    Where a prior's scale varies and the data are not known to tell more, units follow it. All has
    the form that `adapted` gives it, so that what is compiled for one serves the other.
    """
    transforms: dict[str, Any] = {}
    for name, scale in scales.items():
        shape, own = np.shape(data.like[name]), sites[name]
        scale = np.broadcast_to(np.asarray(scale), shape)
        if not (own.varies or own.offset):
            transforms[name] = Scaled(scale)
            continue
        of_prior = float(not own.offset)
        precision = np.zeros(shape) if of_prior else scale**-2.0
        directions = None
        if _has_directions(layout.elements(name), scale):
            eye = np.eye(shape[0]).reshape(shape[0], shape[0], *[1] * (len(shape) - 1))
            directions = np.broadcast_to(eye, (shape[0], *shape))
        transforms[name] = Conditional(precision, np.zeros(shape), directions, np.array(of_prior))
    follows: dict[str, Sites] = {}
    for leader, others, at in _pairs(layout, sites, scales):
        for name in others:
            if len(at[name]) == 1:
                still = np.zeros((len(at[leader]), *np.shape(data.like[name])))
                follows.setdefault(name, {})[leader] = still
    new = data._replace(transforms=transforms, follows=follows)
    return jax.tree.map(jnp.asarray, new)


def _has_directions(elements: np.ndarray, scale: np.ndarray) -> bool:
    """Whether data tell of directions of a site: of its first dimension.

    It has several `elements` along that, as `Layout.elements` has them, and one prior's scale.
    """
    n = elements.shape[1]
    along_first = np.array_equal(elements.T, np.arange(scale.size).reshape(n, -1))
    return n > 1 and along_first and scale.shape[0] == n and not np.ptp(scale, axis=0).any()


def _less(found: Found, follows: dict[str, Sites]) -> Found:
    """The same with sites less what they follow."""
    less, loc = dict(found.less), dict(found.loc)
    for name, steps in follows.items():
        by = sum((step * found.unconstrained[leader]).sum(axis=1) for leader, step in steps.items())
        by = by / found.unit[name]
        less[name], loc[name] = less[name] - by, loc[name] - by
    return found._replace(less=less, loc=loc)


def _pairs(
    layout: Layout, sites: dict[str, Site], scales: Sites
) -> Iterator[tuple[str, list[str], dict[str, np.ndarray]]]:
    """Sites that are followed, all of its block sampled after each, and where those stand there."""
    order = list(sites)
    for at in (layout.at_blocks, layout.at_shared):
        for leader in order:
            if not (sites[leader].followed and leader in at):
                continue
            after = order[order.index(leader) + 1 :]
            others = [x for x in after if x in at and x in scales and not sites[x].followed]
            if others:
                yield leader, others, at


def _follows(
    curved: Curvature, layout: Layout, sites: dict[str, Site], scales: Sites
) -> dict[str, Sites]:
    """How far sites move, per unit of those that they follow, where all else stands still."""
    follows: dict[str, Sites] = {}
    for leader, others, at in _pairs(layout, sites, scales):
        square = curved.blocks if at is layout.at_blocks else curved.shared[None]
        rows, columns = np.concatenate([at[name] for name in others]), at[leader]
        inner = positive(square[:, rows[:, None], rows])
        moves = -np.linalg.solve(inner, square[:, rows[:, None], columns])
        first = 0
        for name in others:
            part = moves[:, first]  # (blocks, steps)
            first += len(at[name])
            if len(at[name]) == 1:
                shape = len(columns), *np.shape(scales[name])
                per, of_leader = part.T.reshape(shape), scales[leader].reshape(shape)
                follows.setdefault(name, {})[leader] = scales[name] * per / of_leader
    return follows


def repositioned(model: Model, data: Data, unconstrained: Sites) -> np.ndarray:
    """Positions (draws, dim) of unconstrained sites (draws, ...)."""
    return np.asarray(in_batches(_positions(model), unconstrained, data))


@cache
def _positions(model: Model) -> Callable[[Sites, Data], jax.Array]:
    return lambda sites, data: inverse(model, data, sites)


def _covariances(curved: Curvature, layout: Layout) -> Sites:
    """Covariances left of each site's elements (rows, n, n), as `Layout.elements` has them in rows.

    Of a block given what is shared, of shared ones given all blocks.
    """
    of_blocks = np.linalg.inv(positive(curved.blocks))
    of_shared = np.linalg.inv(positive(curved.shared))[None]
    alone = 1 / np.maximum(curved.alone, FLATTEST)[:, None, None]
    return (
        {name: of_blocks[:, at[:, None], at] for name, at in layout.at_blocks.items()}
        | {name: of_shared[:, at[:, None], at] for name, at in layout.at_shared.items()}
        | {name: alone[at] for name, at in layout.at_alone.items()}
    )


def _conditional(
    found: Found, name: str, covariance: np.ndarray, scale: np.ndarray, layout: Layout
) -> Conditional:
    less, loc, variance = found.less[name], found.loc[name], found.scale[name] ** 2
    shape, elements, directions = less.shape[1:], layout.elements(name), None
    if _has_directions(elements, scale):
        n = shape[0]
        values, vectors = np.linalg.eigh(np.linalg.inv(covariance) - np.eye(n))
        directions = np.moveaxis(vectors, 0, -1).reshape(n, n, *shape[1:])
        less, loc = (np.einsum("ij...,di...->dj...", directions, x) for x in (less, loc))
        precision = np.maximum(values.T, 0.0).reshape(shape) / scale**2
    else:
        left = np.empty(elements.size)
        left[elements] = np.diagonal(covariance, axis1=1, axis2=2)
        precision = np.maximum(1 / left.reshape(shape) - 1, 0.0) / scale**2
    # What makes the conditional means right in the mean over draws. Those of a narrow prior, which
    # tell little, count for little.
    shrink = 1 / (1 + precision * variance)
    pull = (less - loc * shrink).sum(axis=0) / (variance * shrink).sum(axis=0)
    return Conditional(precision, np.where(precision > 0, pull, 0.0), directions, np.array(1.0))


def preconditioned(
    model: Model, data: Data, layout: Layout, draws: np.ndarray, scale: np.ndarray | float | None
) -> Preconditioner:
    """Standard coordinates from the curvature in the mean over some draws (draws, dim).

    `scale` (dim,) is that of each coordinate; left out, it is that of the draws, whose covariance
    then corrects the curvature.
    """
    some = draws[np.linspace(0, len(draws) - 1, min(len(draws), PLACES)).astype(int)]
    # Draws of chains that stood still have no scale, and differences need a step.
    step = np.maximum(draws.std(axis=0), 1e-9) if scale is None else scale
    found = from_curvature(expected_curvature(model, data, some, step, layout), layout)
    found = jax.tree.map(jnp.asarray, found)
    return refined(found, draws) if scale is None else found

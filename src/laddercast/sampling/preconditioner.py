"""Coordinates in which the posterior is near a standard normal: an affine map from curvature."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import sparse
from scipy.linalg import cholesky, solve_triangular


class Layout(NamedTuple):
    """The structure of the curvature: blocks that bear on each other through shared ones alone."""

    shared: np.ndarray  # (shared,) coordinates that bear on all others
    blocks: np.ndarray  # (blocks, size) coordinates of each block
    alone: np.ndarray  # those that are independent as they are
    color: np.ndarray  # (dim,) equal for coordinates of which none bears on another
    at_blocks: dict[str, np.ndarray]  # columns of `blocks` by site
    at_shared: dict[str, np.ndarray]  # places in `shared` by site
    at_alone: dict[str, np.ndarray]  # places in `alone` by site

    def elements(self, name: str) -> np.ndarray:
        """The elements of a site, counted in the order of its array: a row (n,) for each block.

        A site outside the blocks has one row of all that are shared, or rows of one where they
        stand alone.
        """
        if name in self.at_blocks:
            index = self.blocks[:, self.at_blocks[name]]
        elif name in self.at_shared:
            index = self.shared[self.at_shared[name]][None]
        else:
            index = self.alone[self.at_alone[name]][:, None]
        return index - (index.min() if index.size else 0)


class Curvature(NamedTuple):
    """Second derivatives by the parts of a layout; what is left out is small or zero."""

    shared: np.ndarray  # (shared, shared)
    cross: np.ndarray  # (blocks, size, shared)
    blocks: np.ndarray  # (blocks, size, size)
    alone: np.ndarray  # (alone,) the diagonal

    def raised(self, by: np.ndarray, layout: Layout) -> "Curvature":
        """With more curvature on the diagonal, `by` (dim,) in the order of positions."""
        shared, blocks = self.shared.copy(), self.blocks.copy()
        shared[np.diag_indices_from(shared)] += by[layout.shared]
        size = np.arange(layout.blocks.shape[1])
        blocks[:, size, size] += by[layout.blocks]
        return Curvature(shared, self.cross, blocks, self.alone + by[layout.alone])


FLATTEST, STEEPEST = 0.5, 1e13
"""Curvature below this is raised to it: half that of a standard normal prior; above, it is lowered,
as in one matrix with the former it would be lost in rounding."""


class Preconditioner(NamedTuple):
    """Affine map from standard coordinates to the sampler's: blocks beside shared ones.

    `position = center + L_shared u_shared` for the shared part, for each block
    `center + L_block u_block + C_block u_shared`, and `center + scale u` for those that stand
    alone: the inverse Cholesky factor of the curvature, with what lies between two blocks, and
    between one that stands alone and any other, left out.
    """

    center: Any  # (dim,)
    shared_factor: Any  # (shared, shared)
    block_factor: Any  # (blocks, size, size)
    coupling: Any  # (blocks, size, shared)
    scale: Any  # (alone,)
    order: Any  # (dim,) where each of the sampler's coordinates stands among the standard ones
    inverse: Any  # (dim,) the reverse

    def position(self, u: jax.Array) -> jax.Array:
        """The sampler's position (dim,) at standard coordinates `u`."""
        blocks, size, shared = self.coupling.shape
        u_shared, u_blocks, u_alone = jnp.split(u, [shared, shared + blocks * size])
        steps = jnp.einsum("bij,bj->bi", self.block_factor, u_blocks.reshape(blocks, size))
        steps = steps + self.coupling @ u_shared
        moved = [self.shared_factor @ u_shared, steps.ravel(), self.scale * u_alone]
        return self.center + _permuted(jnp.concatenate(moved), self.order, self.inverse)

    def pulled(self, slope: jax.Array) -> jax.Array:
        """The gradient (dim,) by standard coordinates, of what has this one by the sampler's."""
        pulled: jax.Array = jax.vjp(self.position, jnp.zeros_like(slope))[1](slope)[0]
        return pulled

    def matrix(self) -> sparse.csr_array:
        """What `position` multiplies standard coordinates by (dim, dim)."""
        here = jax.tree.map(np.asarray, self)
        blocks, size, shared = here.coupling.shape
        rows_of_blocks = blocks * size
        columns = np.arange(rows_of_blocks).reshape(blocks, 1, size).repeat(size, axis=1)
        ends = size * np.arange(rows_of_blocks + 1)
        own = sparse.csr_array(
            (here.block_factor.ravel(), columns.ravel(), ends), shape=(rows_of_blocks,) * 2
        )
        rows: list[list[Any]] = [
            [here.shared_factor, None, None],
            [here.coupling.reshape(rows_of_blocks, shared), own, None],
            [None, None, sparse.diags_array(here.scale)],
        ]
        return sparse.block_array(rows, format="csr")[here.order]


@jax.custom_vjp
def _permuted(x: jax.Array, order: jax.Array, inverse: jax.Array) -> jax.Array:
    return x[order]


def _permuted_forward(x: jax.Array, order: jax.Array, inverse: jax.Array) -> tuple:
    return x[order], inverse


def _permuted_backward(inverse: jax.Array, slope: jax.Array) -> tuple:
    # By the inverse permutation: adding up at indices, as JAX would, takes far longer.
    return slope[inverse], None, None


_permuted.defvjp(_permuted_forward, _permuted_backward)


def empty(layout: Layout) -> Preconditioner:
    """Zeros of the shapes that preconditioners of a layout have."""
    dim, shared, (blocks, size) = len(layout.color), len(layout.shared), layout.blocks.shape
    return Preconditioner(
        np.zeros(dim), np.zeros((shared, shared)), np.zeros((blocks, size, size)),
        np.zeros((blocks, size, shared)), np.zeros(len(layout.alone)), *np.zeros((2, dim), int),
    )  # fmt: skip


def from_curvature(curvature: Curvature, layout: Layout) -> Preconditioner:
    """Preconditioner, centred at zero, in which this curvature is near the identity."""
    blocks, size, shared = curvature.cross.shape
    block_factor, coupling = np.empty((blocks, size, size)), np.empty((blocks, size, shared))
    remaining = curvature.shared.copy()
    most = np.sqrt(np.maximum(np.diag(remaining), FLATTEST))
    for number, (block, cross) in enumerate(zip(curvature.blocks, curvature.cross, strict=True)):
        values, vectors = np.linalg.eigh(block)
        lower = cholesky(_raised(values, vectors), lower=True)
        # No more than a matrix may have that is positive with these on its diagonal.
        bound = np.sqrt(np.maximum(values, 0))[:, None] * most
        cross = vectors @ np.clip(vectors.T @ cross, -bound, bound)
        solved = solve_triangular(lower, cross, lower=True)
        remaining -= solved.T @ solved
        block_factor[number] = solve_triangular(lower, np.eye(size), lower=True).T
        coupling[number] = -block_factor[number] @ solved
    lower = cholesky(positive(remaining), lower=True)
    shared_factor = solve_triangular(lower, np.eye(shared), lower=True).T
    scale = np.maximum(curvature.alone, FLATTEST) ** -0.5
    inverse = np.concatenate([layout.shared, layout.blocks.ravel(), layout.alone])
    order = np.argsort(inverse)
    center = np.zeros(len(inverse))
    return Preconditioner(
        center, shared_factor, block_factor, coupling @ shared_factor, scale, order, inverse
    )


def positive(matrix: np.ndarray) -> np.ndarray:
    """The nearest matrix (..., n, n) with curvatures within `FLATTEST, STEEPEST`."""
    return _raised(*np.linalg.eigh(matrix))


def _raised(values: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    raised = vectors * np.clip(values, FLATTEST, STEEPEST)[..., None, :]
    return np.asarray(raised @ np.swapaxes(vectors, -1, -2))


PER_DRAW = 4
"""Draws of a chain that count for one: they hang together."""

LEAST = 1e-3
"""No variance is taken to be a smaller part of what it was held for."""


def refined(found: Preconditioner, draws: np.ndarray) -> Preconditioner:
    """The same geometry with its factors corrected by the covariance of draws (draws, dim).

    Curvature at one point is that of the middle alone: along a ridge that bends, draws reach
    further. Their covariance in standard coordinates, of each block and of the shared part, is
    shrunk towards the identity by the number of its dimensions over that of the draws.
    """
    g = jax.tree.map(np.asarray, found)
    blocks, size, shared = g.coupling.shape
    z_shared, z_blocks, z_alone = np.split(
        (draws - draws.mean(axis=0))[:, g.inverse], [shared, shared + blocks * size], axis=1
    )
    u_shared = np.linalg.solve(g.shared_factor, z_shared.T).T
    off = z_blocks.reshape(len(draws), blocks, size) - np.einsum(
        "bij,nj->nbi", g.coupling, u_shared
    )
    own = _shrunk(u_shared)
    u_shared = np.linalg.solve(own, u_shared.T).T
    coupling, block_factor = g.coupling @ own, np.empty_like(g.block_factor)
    for b in range(blocks):
        u = np.linalg.solve(g.block_factor[b], off[:, b].T).T
        follows = _plain_slopes(u_shared, u)
        coupling[b] += g.block_factor[b] @ follows
        block_factor[b] = g.block_factor[b] @ _shrunk(u - u_shared @ follows.T)
    return found._replace(
        shared_factor=jnp.asarray(g.shared_factor @ own),
        block_factor=jnp.asarray(block_factor),
        coupling=jnp.asarray(coupling),
        scale=jnp.asarray(g.scale * np.clip((z_alone / g.scale).std(axis=0), 0.5, 2.0)),
    )


def _plain_slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Slopes (y's dim, x's dim) of y (draws, dim) on standardised x, those near zero made zero."""
    slopes = (y.T @ x) / len(x)
    least = 2 * y.std(axis=0)[:, None] / np.sqrt(len(x) / PER_DRAW)
    return np.asarray(slopes * np.maximum(1 - (least / np.maximum(np.abs(slopes), 1e-300)) ** 2, 0))


def _shrunk(u: np.ndarray) -> np.ndarray:
    """Cholesky factor of the covariance of u (draws, dim), shrunk.

    Variances smaller than chance leaves of ones (Marchenko and Pastur) are as much smaller here.
    """
    count, dim = len(u) / PER_DRAW, u.shape[1]
    values, vectors = np.linalg.eigh(np.cov(u.T).reshape(dim, dim))
    least = max(1 - np.sqrt(dim / count), LEAST) ** 2
    shrunk = (count * np.maximum(values, least) + dim) / (count + dim)
    shrunk *= np.clip(values / least, LEAST, 1)
    return np.asarray(cholesky(vectors * shrunk @ vectors.T, lower=True))

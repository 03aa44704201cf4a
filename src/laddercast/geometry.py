"""Coordinates in which the posterior is near a standard normal: an affine map from curvature."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import cholesky, solve_triangular

GLOBAL, ALONE = -1, -2
"""Groups of coordinates that all tasks share, and of those that are independent as they are."""

FLATTEST = 0.5
"""Curvature below this is raised to it: half that of a standard normal prior."""


class Geometry(NamedTuple):
    """Affine map from standard coordinates to the sampler's: blocks per task beside global ones.

    `position = center + L_global u_global` for the global part, for each block
    `center + L_block u_block + C_block u_global`, and `center + scale u` for those that stand
    alone: the inverse Cholesky factor of the curvature, with what lies between two blocks, and
    between one that stands alone and any other, left out.
    """

    center: Any  # (dim,)
    global_factor: Any  # (global, global)
    block_factor: Any  # (blocks, size, size)
    coupling: Any  # (blocks, size, global)
    scale: Any  # (alone,)
    order: Any  # (dim,) where each of the sampler's coordinates stands among the standard ones
    inverse: Any  # (standard coordinates,) the reverse, dim for those that only fill up a block

    def position(self, u: jax.Array) -> jax.Array:
        """The sampler's position (dim,) at standard coordinates `u`."""
        blocks, size, shared = self.coupling.shape
        u_global, u_blocks, u_alone = jnp.split(u, [shared, shared + blocks * size])
        steps = jnp.einsum("bij,bj->bi", self.block_factor, u_blocks.reshape(blocks, size))
        steps = steps + self.coupling @ u_global
        moved = [self.global_factor @ u_global, steps.ravel(), self.scale * u_alone]
        return self.center + _permuted(jnp.concatenate(moved), self.order, self.inverse)

    def padding(self) -> jax.Array:
        """1 for standard coordinates that only fill up a block, else 0."""
        return jnp.asarray(self.inverse == self.order.shape[0], float)


@jax.custom_vjp
def _permuted(x: jax.Array, order: jax.Array, inverse: jax.Array) -> jax.Array:
    return x[order]


def _permuted_forward(x: jax.Array, order: jax.Array, inverse: jax.Array) -> tuple:
    return x[order], inverse


def _permuted_backward(inverse: jax.Array, slope: jax.Array) -> tuple:
    # By the inverse permutation: adding up at indices, as JAX would, takes far longer.
    return jnp.append(slope, 0.0)[inverse], None, None


_permuted.defvjp(_permuted_forward, _permuted_backward)


def geometry(curvature: np.ndarray, group: np.ndarray) -> Geometry:
    """Geometry, centred at zero, in which this curvature is near the identity.

    `group` is the block of each coordinate, `GLOBAL` or `ALONE`.
    """
    dim = curvature.shape[0]
    members = [np.flatnonzero(group == task) for task in np.unique(group[group >= 0])]
    shared, alone = np.flatnonzero(group == GLOBAL), np.flatnonzero(group == ALONE)
    size = max(len(block) for block in members)
    block_index = np.full((len(members), size), dim)
    block_factor = np.tile(np.eye(size), (len(members), 1, 1))
    coupling = np.zeros((len(members), size, len(shared)))
    remaining = curvature[np.ix_(shared, shared)].copy()
    solved = []
    for number, block in enumerate(members):
        n = len(block)
        block_index[number, :n] = block
        lower = cholesky(_positive(curvature[np.ix_(block, block)]), lower=True)
        cross = solve_triangular(lower, curvature[np.ix_(block, shared)], lower=True)
        remaining -= cross.T @ cross
        block_factor[number, :n, :n] = solve_triangular(lower, np.eye(n), lower=True).T
        solved.append(-block_factor[number, :n, :n] @ cross)
    lower = cholesky(_positive(remaining), lower=True)
    global_factor = solve_triangular(lower, np.eye(len(shared)), lower=True).T
    for number, block in enumerate(members):
        coupling[number, : len(block)] = solved[number] @ global_factor
    scale = np.maximum(np.diag(curvature)[alone], FLATTEST) ** -0.5
    inverse = np.concatenate([shared, block_index.ravel(), alone])
    order = np.argsort(inverse, kind="stable")[:dim]
    return Geometry(np.zeros(dim), global_factor, block_factor, coupling, scale, order, inverse)


def _positive(matrix: np.ndarray) -> np.ndarray:
    """The nearest matrix with no direction flatter than `FLATTEST`."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, FLATTEST)) @ vectors.T


def refined(found: Geometry, draws: np.ndarray) -> Geometry:
    """The same geometry with its factors corrected by the covariance of draws (draws, dim).

    Curvature at one point is that of the middle alone: along a ridge that bends, draws reach
    further. Their covariance in standard coordinates, of each block and of the global part, is
    shrunk towards the identity by the number of its dimensions over that of the draws.
    """
    g = jax.tree.map(np.asarray, found)
    blocks, size, shared = g.coupling.shape
    padded = np.concatenate([draws - draws.mean(axis=0), np.zeros((len(draws), 1))], axis=1)
    z_global, z_blocks, z_alone = np.split(
        padded[:, g.inverse], [shared, shared + blocks * size], axis=1
    )
    u_global = np.linalg.solve(g.global_factor, z_global.T).T
    off = z_blocks.reshape(-1, blocks, size) - np.einsum("bij,nj->nbi", g.coupling, u_global)
    u_blocks = np.linalg.solve(g.block_factor[None], off[..., None])[..., 0]
    real = (g.inverse != len(g.order))[shared : shared + blocks * size].reshape(blocks, size)
    own = _shrunk(u_global)
    of_blocks = np.array(
        [_shrunk(np.where(real[b], u_blocks[:, b], np.nan)) for b in range(blocks)]
    )
    return found._replace(
        global_factor=jnp.asarray(g.global_factor @ own),
        block_factor=jnp.asarray(g.block_factor @ of_blocks),
        coupling=jnp.asarray(g.coupling @ own),
        scale=jnp.asarray(g.scale * np.clip((z_alone / g.scale).std(axis=0), 0.5, 2.0)),
    )


def _shrunk(u: np.ndarray) -> np.ndarray:
    """Cholesky factor of the covariance of u (draws, dim), shrunk; 1 for columns of NaN."""
    known = np.isfinite(u).all(axis=0)
    factor = np.eye(u.shape[1])
    # Draws of chains hang together: a fourth of them counts.
    count, dim = len(u) / 4, known.sum()
    covariance = (count * np.cov(u[:, known].T) + dim * np.eye(dim)) / (count + dim)
    factor[np.ix_(known, known)] = cholesky(covariance, lower=True)
    return factor

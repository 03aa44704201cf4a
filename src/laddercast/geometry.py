"""Coordinates in which the posterior is near a standard normal: an affine map from curvature."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import cholesky, solve_triangular

FLATTEST = 0.5
"""Curvature below this is raised to it: half that of a standard normal prior."""


class Geometry(NamedTuple):
    """Affine map from standard coordinates to the sampler's: per-task blocks beside global ones.

    `position = center + L_global u_global` for the global part, and for each block
    `center + L_block u_block + C_block u_global`: the inverse Cholesky factor of the curvature,
    with the coupling between two blocks left out.
    """

    center: Any  # (dim,)
    global_index: Any  # (global,)
    block_index: Any  # (blocks, size), padded with dim
    global_factor: Any  # (global, global)
    block_factor: Any  # (blocks, size, size)
    coupling: Any  # (blocks, size, global)
    padding: Any  # (standard coordinates,) 1 where a coordinate only fills up a block

    def position(self, u: jax.Array) -> jax.Array:
        """The sampler's position (dim,) at standard coordinates `u`."""
        blocks, size = self.block_index.shape
        split = self.global_index.shape[0]
        u_global, u_blocks = u[:split], u[split:].reshape(blocks, size)
        steps = jnp.einsum("bij,bj->bi", self.block_factor, u_blocks) + self.coupling @ u_global
        z = jnp.zeros(self.center.shape[0] + 1)
        z = z.at[self.block_index.ravel()].add(steps.ravel())
        z = z.at[self.global_index].add(self.global_factor @ u_global)
        return self.center + z[:-1]


def geometry(curvature: np.ndarray, group: np.ndarray) -> Geometry:
    """Geometry, centred at zero, in which this curvature is near the identity.

    Blocks are the groups >= 0; curvature between two of them is left out.
    """
    dim = curvature.shape[0]
    members = [np.flatnonzero(group == task) for task in np.unique(group[group >= 0])]
    shared = np.flatnonzero(group < 0)
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
    padding = np.concatenate([np.zeros(len(shared)), (block_index == dim).ravel()])
    return Geometry(
        np.zeros(dim), shared, block_index, global_factor, block_factor, coupling, padding
    )


def _positive(matrix: np.ndarray) -> np.ndarray:
    """The nearest matrix with no direction flatter than `FLATTEST`."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, FLATTEST)) @ vectors.T

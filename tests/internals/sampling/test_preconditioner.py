"""Standard coordinates from a curvature, and what draws correct of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laddercast.sampling.chains import on_device
from laddercast.sampling.preconditioner import (
    FLATTEST,
    STEEPEST,
    Curvature,
    Layout,
    from_curvature,
    positive,
    refined,
)

GROUPS, SIZE, COUNT, ALONE = 3, 4, 5, 6
DIM = GROUPS * SIZE + COUNT + ALONE


@pytest.fixture(autouse=True)
def exact():
    with on_device(jax.devices("cpu")[0]):
        yield


def arrow(seed=0):
    """A layout in no order, a curvature, and the same as one matrix."""
    rng = np.random.default_rng(seed)
    shared, blocks, alone = np.split(rng.permutation(DIM), [COUNT, COUNT + GROUPS * SIZE])
    blocks = blocks.reshape(GROUPS, SIZE)
    root = rng.normal(size=(GROUPS, SIZE, SIZE))
    found = Curvature(
        100 * np.eye(COUNT),
        rng.normal(size=(GROUPS, SIZE, COUNT)),
        root @ np.swapaxes(root, 1, 2) + np.eye(SIZE),
        rng.uniform(1, 9, ALONE),
    )
    layout = Layout(shared, blocks, alone, np.zeros(DIM, int), {}, {}, {})
    return layout, found, dense_of(found, layout)


def dense_of(found, layout):
    dense = np.zeros((DIM, DIM))
    dense[np.ix_(layout.shared, layout.shared)] = found.shared
    dense[layout.alone, layout.alone] = found.alone
    for number, block in enumerate(layout.blocks):
        dense[np.ix_(block, block)] = found.blocks[number]
        dense[np.ix_(block, layout.shared)] = found.cross[number]
        dense[np.ix_(layout.shared, block)] = found.cross[number].T
    return dense


def identity(layout):
    """The coordinates as they are, centred at zero."""
    count, size = layout.blocks.shape
    shared, each = len(layout.shared), np.tile(np.eye(size), (count, 1, 1))
    cross, alone = np.zeros((count, size, shared)), np.ones(len(layout.alone))
    return from_curvature(Curvature(np.eye(shared), cross, each, alone), layout)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_in_standard_coordinates_the_curvature_of_the_parts_is_one(seed):
    layout, found, dense = arrow(seed)
    made = jax.tree.map(jnp.asarray, from_curvature(found, layout))
    to_position = np.asarray(jax.jacobian(made.position)(jnp.zeros(DIM)))
    slope = jnp.arange(float(DIM))
    back = np.asarray(jax.grad(lambda u: made.position(u) @ slope)(jnp.zeros(DIM)))
    np.testing.assert_allclose(to_position.T @ dense @ to_position, np.eye(DIM), atol=1e-9)
    np.testing.assert_allclose(back, to_position.T @ slope, atol=1e-9)
    np.testing.assert_allclose(made.pulled(slope), back, atol=1e-9)
    np.testing.assert_allclose(made.matrix().toarray(), to_position, atol=1e-12)
    moved = made._replace(center=jnp.ones(DIM)).position(jnp.zeros(DIM))
    np.testing.assert_array_equal(moved, 1.0)


@pytest.mark.parametrize("without", ["shared", "blocks", "alone"])
def test_a_part_may_be_missing(without):
    layout, found, dense = arrow()
    if without == "blocks":
        left = layout._replace(blocks=np.zeros((0, 0), int))
        found = found._replace(cross=np.zeros((0, 0, COUNT)), blocks=np.zeros((0, 0, 0)))
    elif without == "shared":
        left = layout._replace(shared=np.zeros(0, int))
        found = found._replace(cross=np.zeros((GROUPS, SIZE, 0)), shared=np.zeros((0, 0)))
    else:
        left = layout._replace(alone=np.zeros(0, int))
        found = found._replace(alone=np.zeros(0))
    kept = np.sort(np.concatenate([left.shared, left.blocks.ravel(), left.alone]))
    # The coordinates that are left, numbered anew.
    left = left._replace(
        **{x: np.searchsorted(kept, getattr(left, x)) for x in ("shared", "blocks", "alone")}
    )
    made = jax.tree.map(jnp.asarray, from_curvature(found, left))
    to_position = np.asarray(jax.jacobian(made.position)(jnp.zeros(len(kept))))
    inner = dense[np.ix_(kept, kept)]
    np.testing.assert_allclose(to_position.T @ inner @ to_position, np.eye(len(kept)), atol=1e-9)
    np.testing.assert_allclose(made.matrix().toarray(), to_position, atol=1e-12)
    draws = np.random.default_rng(0).normal(size=(500, len(kept)))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(refined(made, draws)))


def test_coordinates_as_they_are():
    layout, *_ = arrow()
    u = np.random.default_rng(0).normal(size=DIM)
    made = jax.tree.map(jnp.asarray, identity(layout))
    expected = np.empty(DIM)
    expected[np.concatenate([layout.shared, layout.blocks.ravel(), layout.alone])] = u
    np.testing.assert_allclose(made.position(jnp.asarray(u)), expected)


def test_more_curvature_is_added_on_the_diagonal():
    layout, found, dense = arrow()
    by = np.random.default_rng(0).uniform(0, 5, DIM)
    raised = dense_of(found.raised(by, layout), layout)
    np.testing.assert_allclose(raised, dense + np.diag(by), atol=1e-12)
    np.testing.assert_array_equal(dense_of(found, layout), dense)  # as it was


def test_flat_and_steep_directions_are_kept_within_limits():
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    values = np.array([-3.0, 0.1, 7.0, 90.0])
    np.testing.assert_allclose(
        positive(turn * values @ turn.T), turn * [FLATTEST, FLATTEST, 7.0, 90.0] @ turn.T,
        atol=1e-12,
    )  # fmt: skip
    np.testing.assert_allclose(positive(np.diag([1.0, 1e200])), np.diag([1.0, STEEPEST]))
    layout, found, _ = arrow()
    made = from_curvature(found._replace(alone=np.array([-1.0, 0, 0.5, 2, 8, 32])), layout)
    scale = np.array([FLATTEST, FLATTEST, 0.5, 2, 8, 32]) ** -0.5
    np.testing.assert_allclose(made.scale, scale)


def test_draws_correct_scales_however_wrong_and_leave_those_that_were_right():
    rng, dim, groups = np.random.default_rng(0), 40, 3
    numbers = np.arange(dim + groups)
    layout = Layout(
        numbers[:dim], numbers[dim:, None], np.zeros(0, int), np.zeros(len(numbers)), {}, {}, {}
    )
    plain = identity(layout)
    # Two directions across the shared ones, of which curvature had the scale wrong.
    narrow, wide = (np.repeat([a, b], dim // 2) / np.sqrt(dim) for a, b in ((1, 1), (1, -1)))
    scale = np.eye(dim) + (0.05 - 1) * np.outer(narrow, narrow) + (20 - 1) * np.outer(wide, wide)
    draws = rng.normal(size=(1000, dim + groups))
    draws[:, :dim] = draws[:, :dim] @ scale
    found = refined(plain, draws).matrix().toarray()
    left = np.linalg.inv(found) @ np.cov(draws.T) @ np.linalg.inv(found).T
    assert np.sqrt(np.linalg.eigvalsh(left)).min() > 0.4
    assert np.sqrt(np.linalg.eigvalsh(left)).max() < 2

    right = refined(plain, rng.normal(size=(1000, dim + groups))).matrix().toarray()
    assert np.abs(np.log(np.linalg.svd(right, compute_uv=False))).max() < 0.35


def test_draws_correct_how_blocks_follow_shared_ones():
    layout, found, dense = arrow()
    rng = np.random.default_rng(0)
    made = from_curvature(found, layout)
    # Blocks follow three times as much as curvature had it, and single ones lie half as far.
    truth = made._replace(coupling=3 * made.coupling, scale=made.scale / 1.5)
    draws = rng.normal(size=(4000, DIM)) @ truth.matrix().toarray().T
    inverse = np.linalg.inv(refined(made, draws).matrix().toarray())
    left = np.linalg.eigvalsh(inverse @ np.cov(draws.T) @ inverse.T)
    before = np.linalg.inv(made.matrix().toarray())
    was = np.linalg.eigvalsh(before @ np.cov(draws.T) @ before.T)
    # Slopes that chance may have made are left out, hence not closer to one.
    assert np.abs(np.log(left)).max() < 0.25 < np.abs(np.log(was)).max()
    assert dense.shape == inverse.shape

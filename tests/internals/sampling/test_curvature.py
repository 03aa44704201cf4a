"""Curvature of all blocks at once, against second derivatives taken one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree

from laddercast.sampling.chains import on_device
from laddercast.sampling.curvature import MANY, curvature, expected_curvature, layout_of
from laddercast.sampling.density import forward, potential_of, structure
from laddercast.sampling.mode import conditional_mode, started
from laddercast.sampling.preconditioner import from_curvature

GROUPS, EACH, COMMON = 5, 4, MANY + 6


@pytest.fixture(autouse=True)
def exact():
    with on_device(jax.devices("cpu")[0]):
        yield


def model(x, y):
    """Groups with a level and two slopes each, noise of their own, and many common effects."""
    mu = numpyro.sample("mu", dist.Normal(0, 2))
    tau = numpyro.sample("tau", dist.LogNormal(0, 0.5), infer={"held": True})
    nu = numpyro.sample("nu", dist.Gamma(4.0, 2.0))
    with numpyro.plate("rows", EACH * COMMON):
        effect = numpyro.sample("effect", dist.Normal(0, 0.3))
    with numpyro.plate("group", GROUPS, dim=-1):
        level = numpyro.sample("level", dist.Normal(mu, tau))
        noise = numpyro.sample("noise", dist.LogNormal(-1.0, nu))
        with numpyro.plate("slopes", 2, dim=-2):
            slope = numpyro.sample("slope", dist.Normal(0, tau))
    at = effect.reshape(-1, EACH).mean(axis=1)[: y.shape[0], None]
    numpyro.sample("y", dist.Normal(level + jnp.einsum("nk,kg->ng", x, slope) + at, noise), obs=y)


def placed():
    rng = np.random.default_rng(0)
    args = rng.normal(size=(COMMON, 2)), rng.normal(size=(COMMON, GROUPS))
    data, _ = started(model, args, {})
    data = jax.tree.map(jnp.asarray, data)
    sites = structure(model, data)
    layout = layout_of(sites, data.like, "group")
    leaves, form = jax.tree.flatten(data)
    position = 0.2 * rng.normal(size=len(layout.color))
    return data, sites, layout, potential_of(model, form), position, leaves


def test_a_layout_has_every_coordinate_once_and_blocks_of_all_sites_of_the_plate():
    data, _, layout, *_ = placed()
    where = ravel_pytree(data.like)[1](jnp.arange(float(len(layout.color))))
    found = [*layout.shared, *layout.blocks.ravel(), *layout.alone]
    assert sorted(found) == list(range(len(layout.color)))
    assert set(layout.at_shared) == {"mu", "tau", "nu"}
    assert set(layout.at_alone) == {"effect"}
    np.testing.assert_array_equal(layout.alone[layout.at_alone["effect"]], where["effect"])
    for name, of in layout.at_blocks.items():
        own = np.moveaxis(np.asarray(where[name]), -1, 0).reshape(GROUPS, -1)
        np.testing.assert_array_equal(layout.blocks[:, of], own)
    assert set(layout.at_blocks) == {"level", "noise", "slope"}
    # All blocks share their colors, as all that stand alone do.
    assert len(set(layout.color)) == 3 + 4 + 1
    assert (layout.color[layout.blocks] == layout.color[layout.blocks[0]]).all()


def test_without_blocks_all_but_large_sites_is_shared():
    data, sites, *_ = placed()
    layout = layout_of(sites, data.like, None)
    assert layout.blocks.shape == (0, 0)
    assert set(layout.at_shared) == set(sites) - {"effect"}
    assert set(layout.at_alone) == {"effect"}
    assert len(set(layout.color)) == 3 + 4 * GROUPS + 1


@pytest.mark.slow
@pytest.mark.parametrize("blocks", ["group", None])
def test_differences_of_many_coordinates_at_once_are_the_second_derivatives(blocks):
    data, sites, _, potential, position, leaves = placed()
    layout = layout_of(sites, data.like, blocks)
    exact = np.asarray(jax.hessian(potential)(jnp.asarray(position), leaves))
    found = curvature(potential, position, np.full(len(position), 1e-5), leaves, layout)
    shared, each, _ = layout[:3]
    close = {"rtol": 1e-5, "atol": 1e-6 * np.abs(exact).max()}
    np.testing.assert_allclose(found.shared, exact[np.ix_(shared, shared)], **close)
    for number, block in enumerate(each):
        np.testing.assert_allclose(found.blocks[number], exact[np.ix_(block, block)], **close)
        np.testing.assert_allclose(found.cross[number], exact[np.ix_(block, shared)], **close)
    if blocks:
        # What one color holds together does not bear on each other, or the sums would mix.
        np.testing.assert_allclose(exact[np.ix_(each[0], each[1])], 0, atol=1e-9)


@pytest.mark.slow
def test_elements_that_are_independent_have_the_diagonal():
    def independent(y):
        scale = numpyro.sample("scale", dist.LogNormal(0, 1))
        with numpyro.plate("rows", len(y)):
            own = numpyro.sample("own", dist.Normal(0, scale))
            numpyro.sample("y", dist.StudentT(4.0, own, 0.5), obs=y)

    rng = np.random.default_rng(0)
    data, _ = started(independent, (rng.normal(size=MANY + 1),), {})
    data = jax.tree.map(jnp.asarray, data)
    layout = layout_of(structure(independent, data), data.like, None)
    leaves, form = jax.tree.flatten(data)
    potential, position = potential_of(independent, form), rng.normal(size=MANY + 2)
    exact = np.asarray(jax.hessian(potential)(jnp.asarray(position), leaves))
    found = curvature(potential, position, np.full(MANY + 2, 1e-5), leaves, layout)
    np.testing.assert_allclose(found.alone, np.diag(exact)[layout.alone], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found.shared, exact[np.ix_(layout.shared, layout.shared)], rtol=1e-6)


@pytest.mark.slow
def test_expected_curvature_is_the_mean_over_data_one_sd_up_and_down():
    data, _, layout, _, position, _ = placed()
    positions = np.stack([position, position + 0.1])
    found = expected_curvature(model, data, positions, 0.01, layout)

    def at(position, sds):
        trace = forward(model, data, jnp.asarray(position)).sites
        fn = trace["y"]["fn"]
        expected = data._replace(
            observed={"y": fn.loc + sds * jnp.broadcast_to(fn.scale, fn.shape())}
        )
        leaves, form = jax.tree.flatten(expected)
        return np.asarray(jax.hessian(potential_of(model, form))(jnp.asarray(position), leaves))

    exact = np.mean([at(p, sds) for p in positions for sds in (1.0, -1.0)], axis=0)
    shared, each, _ = layout[:3]
    close = {"rtol": 1e-5, "atol": 1e-6 * np.abs(exact).max()}
    np.testing.assert_allclose(found.shared, exact[np.ix_(shared, shared)], **close)
    for number, block in enumerate(each):
        np.testing.assert_allclose(found.blocks[number], exact[np.ix_(block, block)], **close)
        np.testing.assert_allclose(found.cross[number], exact[np.ix_(block, shared)], **close)


def test_coordinates_are_finite_where_a_curvature_is_absurd():
    _, _, layout, potential, position, leaves = placed()
    found = curvature(potential, position, np.full_like(position, 1e-3), leaves, layout)
    found.blocks[0, 1, 1] = 1e200
    assert all(np.isfinite(part).all() for part in from_curvature(found, layout))
    far = curvature(potential, position + 800.0, np.full_like(position, 1e-3), leaves, layout)
    assert all(np.isfinite(part).all() for part in far)


def test_a_mode_is_flat_in_all_that_is_not_held():
    data, sites, layout, potential, position, leaves = placed()
    mode = conditional_mode(model, data, layout, sites, position)
    _, by_site = ravel_pytree(data.like)
    slope = by_site(jax.grad(potential)(jnp.asarray(mode), leaves))
    steep = by_site(jax.grad(potential)(jnp.asarray(position), leaves))
    assert float(by_site(mode)["tau"]) == pytest.approx(float(by_site(position)["tau"]), abs=1e-6)
    assert potential(mode, leaves) < potential(position, leaves) - 100
    # A search ends where little is to be gained: a tenth in the potential.
    for name in ("mu", "level", "noise", "slope"):
        assert np.abs(slope[name]).max() < 0.1 * np.abs(steep[name]).max() + 1

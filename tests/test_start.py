"""Coordinates of the sampler against second derivatives taken one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree
from numpyro.infer.util import potential_energy

from laddercast.data.ladder import Ladder, read_ladder
from laddercast.evaluation.simulation import demo_ladder
from laddercast.model.design import ladder_design
from laddercast.model.priors import Priors
from laddercast.model.routes import POOLED, ROUTES
from laddercast.sampling.chains import on_device
from laddercast.sampling.density import (
    Bent,
    bend,
    constrained,
    log_steepness,
    potential_of,
    sampled_trace,
    sites_at,
    straightened,
)
from laddercast.sampling.preconditioner import Curvature, Layout, geometry, plain_geometry, refined
from laddercast.sampling.start import (
    _turns,
    best_blocks,
    conditional_mode,
    curvature,
    information,
    repositioned,
    start,
)


def some_way_off(route, table, priors):
    """Data of a density, the layout, and positions (2, 8, dim), as a fit has them after a while."""
    design, observed, *_ = ladder_design(read_ladder(table))
    begun, layout = start(route, design, priors, observed)
    data = jax.tree.map(jnp.asarray, begun)
    position = np.asarray(ravel_pytree(data.like)[0])
    draws = position + np.random.default_rng(0).normal(0, 0.1, (2, 8, len(position)))
    moved, data = repositioned(route, draws, data, layout)
    return jax.tree.map(jnp.asarray, data), layout, moved, (draws, begun)


@pytest.fixture(params=[*POOLED, pytest.param("chain", marks=pytest.mark.slow)])
def placed(request, wide_table):
    """Potential, gradient, a position off the start, leaves and layout of a route."""
    route = ROUTES[request.param]
    with on_device(jax.devices("cpu")[0]):
        data, layout, draws, _ = some_way_off(route, wide_table, Priors())
        leaves, form = jax.tree.flatten(data)
        yield potential_of(route, form), draws[0, 0], leaves, layout


@pytest.mark.slow
@pytest.mark.parametrize("name", ROUTES)
def test_the_density_is_that_of_numpyro_up_to_a_constant(wide_table, name):
    route, rng = ROUTES[name], np.random.default_rng(0)
    # Sites of other families than the default's, too.
    priors = Priors(
        q=dist.Gamma(4.0, 2.0), logit_gap=dist.StudentT(3.0, -4.0), rise_center=dist.Cauchy(1.0),
        log_lower=dist.Uniform(-0.2, 0.2), reference_share_e=dist.Cauchy(0.0, 1.0),
    )  # fmt: skip
    with on_device(jax.devices("cpu")[0]):
        data, *_ = some_way_off(route, wide_table, priors)
        leaves, form = jax.tree.flatten(data)
        position = ravel_pytree(data.like)[0]
        args = data.design, data.priors, data.observed

        def own(position):
            """Unconstrained values of the route's own sites, in the order of `like`."""
            sites = sites_at(position, data)
            trace = sampled_trace(route, data, constrained(sites))
            plain = {}
            for name, value in sites.items():
                site = name.removesuffix("_decentered")
                plain[site] = value if site == name else trace[site]["value"]
            return plain

        def of_numpyro(position):
            # Shears keep volumes; what partial centring stretches, the second term makes good.
            density = potential_energy(route, args, {}, own(position))
            jacobian = jax.jacobian(lambda x: ravel_pytree(own(x))[0])(position)
            return density - jnp.linalg.slogdet(jacobian)[1]

        found, expected = [], []
        for _ in range(2):
            at = position + 0.3 * jnp.asarray(rng.normal(size=position.shape))
            found.append(jax.value_and_grad(potential_of(route, form))(at, leaves))
            expected.append(jax.value_and_grad(of_numpyro)(at))
    for (_, slope), (_, its) in zip(found, expected, strict=True):
        np.testing.assert_allclose(slope, its, rtol=1e-7, atol=1e-7 * np.abs(its).max())
    np.testing.assert_allclose(
        found[1][0] - found[0][0], expected[1][0] - expected[0][0], rtol=1e-8
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ROUTES)
def test_draws_put_at_other_positions_are_the_same_draws(wide_table, name):
    route = ROUTES[name]
    with on_device(jax.devices("cpu")[0]):
        data, _, moved, (draws, begun) = some_way_off(route, wide_table, Priors())
        for before, after in zip(draws[0, :3], moved[0, :3], strict=True):
            one, other = (
                sampled_trace(route, own, constrained(sites_at(jnp.asarray(position), own)))
                for own, position in ((begun, before), (data, after))
            )
            for site in one:
                if one[site]["type"] == "sample" and not site.endswith("_decentered"):
                    np.testing.assert_allclose(
                        one[site]["value"], other[site]["value"], rtol=1e-9, atol=1e-9
                    )
    # Else the test would compare a thing with itself.
    assert np.abs(draws - moved).max() > 0.1


@pytest.mark.slow
def test_differences_of_many_coordinates_at_once_are_the_second_derivatives(placed):
    potential, position, leaves, layout = placed
    exact = np.asarray(jax.hessian(potential)(jnp.asarray(position), leaves))
    # As fits have it, for positions as far off as these: there are coordinates of which a standard
    # deviation is 3e-4.
    step = np.linspace(2e-7, 4e-7, len(position))
    found = curvature(potential, position, step, leaves, layout)
    shared, blocks, alone = layout[:3]
    close = {"rtol": 1e-5, "atol": 1e-6 * np.abs(exact).max()}
    np.testing.assert_allclose(found.shared, exact[np.ix_(shared, shared)], **close)
    np.testing.assert_allclose(found.alone, np.diag(exact)[alone], **close)
    for task, block in enumerate(blocks):
        np.testing.assert_allclose(found.blocks[task], exact[np.ix_(block, block)], **close)
        np.testing.assert_allclose(found.cross[task], exact[np.ix_(block, shared)], **close)
    # What one color holds together does not bear on each other, or the sums would mix.
    np.testing.assert_allclose(exact[np.ix_(blocks[0], blocks[1])], 0, atol=1e-9)
    assert sorted([*shared, *blocks.ravel(), *alone]) == list(range(len(position)))


@pytest.mark.parametrize("rate", [0.7, 20.0])
def test_a_bent_site_comes_back_and_its_steepness_is_its_derivative(rate):
    with on_device(jax.devices("cpu")[0]):
        bent = Bent(jnp.asarray(0.3), jnp.asarray(rate))
        x = 0.3 + jnp.linspace(-60, 60, 241) / rate
        value = bend(x, bent)
        np.testing.assert_allclose(straightened(value, bent), x, rtol=1e-12, atol=1e-12)
        slope = jax.vmap(jax.grad(lambda x: bend(x, bent)))(x)
        np.testing.assert_allclose(jnp.exp(log_steepness(x, bent)), slope, rtol=1e-10)
        # As it is far below the start; above, the logarithm of how far it has come.
        np.testing.assert_allclose(value[:40], x[:40], rtol=1e-12)
        np.testing.assert_allclose(value[-1], 0.3 + np.log(60) / rate, rtol=1e-12)


def test_coordinates_are_finite_where_a_curvature_is_absurd(placed):
    potential, position, leaves, layout = placed
    found = curvature(potential, position, np.full_like(position, 1e-3), leaves, layout)
    found.blocks[0, 1, 1] = 1e200
    assert all(np.isfinite(part).all() for part in geometry(found, layout))


def test_a_task_astray_is_put_back_and_no_other_moved(placed):
    potential, position, leaves, layout = placed
    astray = position.copy()
    astray[layout.blocks[-1]] += 3.0
    # Some are not defined there.
    for one, other in ((astray, position), (position, astray)):
        found = best_blocks(potential, one, other, leaves, layout)
        np.testing.assert_array_equal(found, position)


def test_in_standard_coordinates_the_curvature_of_the_parts_is_one():
    rng = np.random.default_rng(0)
    tasks, size, count, dim = 3, 4, 5, 3 * 4 + 5 + 6
    places = rng.permutation(dim)
    shared, blocks, alone = np.split(places, [count, count + tasks * size])
    blocks = blocks.reshape(tasks, size)
    root = rng.normal(size=(tasks, size, size))
    found = Curvature(
        100 * np.eye(count),
        rng.normal(size=(tasks, size, count)),
        root @ np.swapaxes(root, 1, 2) + np.eye(size),
        rng.uniform(1, 9, len(alone)),
    )
    dense = np.zeros((dim, dim))
    dense[np.ix_(shared, shared)] = found.shared
    dense[alone, alone] = found.alone
    for task, block in enumerate(blocks):
        dense[np.ix_(block, block)] = found.blocks[task]
        dense[np.ix_(block, shared)] = found.cross[task]
        dense[np.ix_(shared, block)] = found.cross[task].T
    with on_device(jax.devices("cpu")[0]):
        made = geometry(found, Layout(shared, blocks, alone, np.zeros(dim, int), {}, {}, {}))
        made = jax.tree.map(jnp.asarray, made)
        to_position = np.asarray(jax.jacobian(made.position)(jnp.zeros(dim)))
        back = np.asarray(jax.grad(lambda u: made.position(u) @ places)(jnp.zeros(dim)))
    np.testing.assert_allclose(to_position.T @ dense @ to_position, np.eye(dim), atol=1e-9)
    np.testing.assert_allclose(back, to_position.T @ places)
    np.testing.assert_allclose(made.matrix().toarray(), to_position, atol=1e-12)


def test_a_start_is_finite_whatever_the_priors_of_noise(wide_table):
    design, observed, *_ = ladder_design(read_ladder(wide_table))
    priors = Priors(noise_loss_center=dist.Cauchy(-5.0), noise_reference=dist.Uniform(0.0, 0.001))
    with on_device(jax.devices("cpu")[0]):
        for route in ROUTES.values():
            data, _ = start(route, design, priors, observed)
            assert all(np.isfinite(x).all() for x in data.like.values())


def test_residuals_of_checkpoints_are_as_large_as_expected_and_have_no_mean(wide_table):
    design, *_ = ladder_design(read_ladder(wide_table, rungs="every"))
    with on_device(jax.devices("cpu")[0]):
        turns = np.asarray(_turns(jax.tree.map(jnp.asarray, design)))[:, 0]
    for run in range(len(design.end)):
        own = turns[design.run == run]
        assert own.mean() == pytest.approx(0, abs=1e-12)
        assert np.sum(own**2) == pytest.approx(len(own) - 1)


@pytest.mark.slow
def test_a_mode_is_found_where_thousands_of_checkpoints_speak():
    demo = demo_ladder()[0]
    design, observed, *_ = ladder_design(Ladder(demo.table, demo.tasks, "every"))
    route = ROUTES["two_stage"]
    with on_device(jax.devices("cpu")[0]):
        begun, layout = start(route, design, Priors(), observed)
        data = jax.tree.map(jnp.asarray, begun)
        extra = information(begun)
        mode = conditional_mode(route, data, layout, extra)
        leaves, form = jax.tree.flatten(data)
        potential = potential_of(route, form)
        begin = np.asarray(ravel_pytree(data.like)[0])
        assert np.isfinite(mode).all()
        assert potential(mode, leaves) < potential(begin, leaves) - 1000


def test_draws_correct_scales_however_wrong_and_leave_those_that_were_right() -> None:
    rng, dim, tasks = np.random.default_rng(0), 40, 3
    numbers = np.arange(dim + tasks)
    layout = Layout(
        numbers[:dim], numbers[dim:, None], np.zeros(0, int), np.zeros(len(numbers)), {}, {}, {}
    )
    plain = plain_geometry(layout)
    # Two directions across the shared ones, of which curvature had the scale wrong.
    narrow, wide = (np.repeat([a, b], dim // 2) / np.sqrt(dim) for a, b in ((1, 1), (1, -1)))
    scale = np.eye(dim) + (0.05 - 1) * np.outer(narrow, narrow) + (20 - 1) * np.outer(wide, wide)
    draws = rng.normal(size=(1000, dim + tasks))
    draws[:, :dim] = draws[:, :dim] @ scale
    found = refined(plain, draws).matrix().toarray()
    left = np.linalg.inv(found) @ np.cov(draws.T) @ np.linalg.inv(found).T
    assert np.sqrt(np.linalg.eigvalsh(left)).min() > 0.4
    assert np.sqrt(np.linalg.eigvalsh(left)).max() < 2

    right = refined(plain, rng.normal(size=(1000, dim + tasks))).matrix().toarray()
    assert np.abs(np.log(np.linalg.svd(right, compute_uv=False))).max() < 0.35

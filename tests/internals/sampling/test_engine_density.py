"""The density at positions against NumPyro's, and coordinates found from draws against old ones."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree
from numpyro.infer.util import potential_energy

from laddercast.data.ladder import read_ladder
from laddercast.evaluation.simulation import demo_ladder
from laddercast.model.design import ladder_design
from laddercast.model.priors import Priors
from laddercast.model.routes import ROUTES
from laddercast.model.start import start
from laddercast.sampling.adapt import adapted, preconditioned, repositioned, scaled
from laddercast.sampling.chains import on_device
from laddercast.sampling.curvature import layout_of
from laddercast.sampling.density import forward, inverse, potential_of, structure
from laddercast.sampling.mode import conditional_mode, started

pytestmark = pytest.mark.slow

OTHERS = {
    "q": dist.Gamma(4.0, 2.0), "logit_gap": dist.StudentT(3.0, -4.0),
    "log_rise_center": dist.Cauchy(1.0), "log_lower": dist.Uniform(-0.2, 0.2),
    "logit_reference_share_e": dist.Cauchy(0.0, 1.0),
}  # fmt: skip
"""Priors of other families than the default's."""


@pytest.fixture(autouse=True)
def exact():
    with on_device(jax.devices("cpu")[0]):
        yield


class Placed:
    """A route's density as a fit has it: at first, and in coordinates found from draws."""

    def __init__(self, name, table, priors, rungs="last"):
        self.model = ROUTES[name].model
        design, observed, *_ = ladder_design(read_ladder(table, rungs=rungs))
        self.args = design, priors, observed
        begun, scales = started(self.model, self.args, start(*self.args))
        self.sites = structure(self.model, begun)
        self.layout = layout_of(self.sites, begun.like, "task")
        self.begun = scaled(begun, self.layout, self.sites, scales)
        like = jax.tree.map(lambda x: np.asarray(x)[None], begun.like)
        (self.position,) = repositioned(self.model, self.begun, like)
        off = np.random.default_rng(0).normal(0, 0.1, (2, 8, len(self.position)))
        self.draws = self.position + off
        self.moved, self.data = adapted(self.model, self.begun, self.layout, self.sites, self.draws)


def check_density(placed):
    """Differences of values, and gradients, at two positions off the draws."""
    model, data, rng = placed.model, placed.data, np.random.default_rng(1)
    leaves, form = jax.tree.flatten(data)

    def unconstrained(position):
        return forward(model, data, position).unconstrained

    def volume(position):
        jacobian = jax.jacobian(lambda x: ravel_pytree(unconstrained(x))[0])(position)
        return jnp.linalg.slogdet(jacobian)[1]

    @jax.jit
    def of_numpyro(position):
        density = potential_energy(model, placed.args, {}, unconstrained(position))
        return density - volume(position)

    both = jax.jit(jax.value_and_grad(of_numpyro))
    found, expected = [], []
    for row in placed.moved[:, 0]:
        at = jnp.asarray(row + 0.1 * rng.normal(size=row.shape))
        found.append(jax.value_and_grad(potential_of(model, form))(at, leaves))
        expected.append(both(at))
    for (value, slope), (_, its) in zip(found, expected, strict=True):
        assert np.isfinite(value)
        np.testing.assert_allclose(slope, its, rtol=1e-7, atol=1e-7 * np.abs(its).max())
    np.testing.assert_allclose(
        found[1][0] - found[0][0], expected[1][0] - expected[0][0], rtol=1e-8
    )


def check_all_kinds(placed):
    """Else a density would be tested of which parts are not used."""
    data = placed.data
    assert data.follows
    assert any(getattr(x, "directions", None) is not None for x in data.transforms.values())


@pytest.mark.parametrize(
    "name", ["direct", *(pytest.param(x, marks=pytest.mark.long) for x in ROUTES if x != "direct")]
)
def test_the_density_is_that_of_numpyro_up_to_a_constant(wide_table, name):
    placed = Placed(name, wide_table, Priors())
    check_all_kinds(placed)
    check_density(placed)


@pytest.mark.long
@pytest.mark.parametrize("name", ROUTES)
def test_the_density_is_that_of_numpyro_with_priors_of_other_families(wide_table, name):
    check_density(Placed(name, wide_table, Priors(**OTHERS)))


@pytest.mark.long
@pytest.mark.parametrize("name", ["two_stage", "by_reference"])
def test_the_density_is_that_of_numpyro_where_every_checkpoint_is_a_point(small_table, name):
    check_density(Placed(name, small_table, Priors(), "every"))


@pytest.mark.parametrize(
    "name", ["direct", *(pytest.param(x, marks=pytest.mark.long) for x in ROUTES if x != "direct")]
)
def test_draws_put_at_other_positions_are_the_same_draws(wide_table, name):
    placed = Placed(name, wide_table, Priors())
    model = placed.model
    again, data = adapted(model, placed.data, placed.layout, placed.sites, placed.moved)
    for draw in ((0, 0), (1, 7)):
        one, *others = (
            forward(model, own, jnp.asarray(positions[draw])).unconstrained
            for own, positions in (
                (placed.begun, placed.draws), (placed.data, placed.moved), (data, again)
            )
        )  # fmt: skip
        for other in others:
            assert set(other) == set(one) == set(placed.sites)
            for site, value in one.items():
                np.testing.assert_allclose(other[site], value, rtol=1e-9, atol=1e-9, err_msg=site)
    # Else the test would compare a thing with itself.
    assert np.abs(placed.draws - placed.moved).max() > 0.1


def test_a_position_comes_back_from_its_sites(wide_table):
    placed = Placed("direct", wide_table, Priors())
    for data, rows in ((placed.begun, placed.draws[0]), (placed.data, placed.moved[0])):
        for row in rows[:2]:
            sites = forward(placed.model, data, jnp.asarray(row)).unconstrained
            np.testing.assert_allclose(
                inverse(placed.model, data, sites), row, rtol=1e-8, atol=1e-8
            )


@pytest.mark.long
def test_a_start_is_finite_whatever_the_priors_of_noise(wide_table):
    design, observed, *_ = ladder_design(read_ladder(wide_table))
    priors = Priors(
        log_noise_loss_center=dist.Cauchy(-5.0), noise_reference=dist.Uniform(0.0, 0.001)
    )
    for route in ROUTES.values():
        values = start(design, priors, observed)
        data, _ = started(route.model, (design, priors, observed), values)
        assert set(data.like) == set(structure(route.model, data))
        assert all(np.isfinite(x).all() for x in data.like.values())


@pytest.mark.long
def test_a_mode_is_found_where_thousands_of_checkpoints_speak():
    demo = demo_ladder()[0]
    placed = Placed("two_stage", demo.table.merge(demo.tasks.reset_index()), Priors(), "every")
    model, data = placed.model, placed.begun
    mode = conditional_mode(model, data, placed.layout, placed.sites, placed.position)
    leaves, form = jax.tree.flatten(data)
    potential = potential_of(model, form)
    assert np.isfinite(mode).all()
    assert potential(mode, leaves) < potential(placed.position, leaves) - 1000
    # What is held is where it was.
    before, after = (
        forward(model, data, jnp.asarray(at)).unconstrained for at in (placed.position, mode)
    )
    for name, site in placed.sites.items():
        if site.held:
            np.testing.assert_allclose(after[name], before[name], rtol=1e-6, atol=1e-6)
    # In coordinates from the curvature there, the potential is steep nowhere.
    ((there,),), data = adapted(model, data, placed.layout, placed.sites, mode[None, None])
    found = preconditioned(model, data, placed.layout, there[None], 0.01)
    assert all(np.isfinite(part).all() for part in jax.tree.leaves(found))


def test_what_a_model_declares_is_read(wide_table):
    placed = Placed("two_stage", wide_table, Priors())
    sites, tasks = placed.sites, wide_table["task"].nunique()
    assert [name for name, site in sites.items() if site.followed] == ["walk_loss", "walk_accuracy"]
    alpha = sites["log_alpha"]
    assert (alpha.plates, alpha.varies, alpha.offset) == ({"task": -1}, True, True)
    level = sites["log_loss_level"]
    assert (level.varies, level.offset) == (False, True)
    assert sites["log_alpha_scale"].held
    assert not sites["log_alpha_center"].held
    assert not sites["log_alpha_center"].varies
    assert sites["run_loss_shared"].plates == {"model": -1}
    assert sites["walk_loss"].plates == {"interval": -2, "task": -1}
    # Blocks hold what is of tasks, each with the same number of coordinates.
    layout = placed.layout
    assert layout.blocks.shape[0] == tasks
    assert set(layout.at_blocks) == {x for x, site in sites.items() if "task" in site.plates}
    every = [*layout.shared, *layout.blocks.ravel(), *layout.alone]
    assert sorted(every) == list(range(len(placed.position)))


def test_values_given_for_sites_that_are_not_there_do_no_harm():
    def model(y):
        x = numpyro.sample("x", dist.Normal(2.0, 3.0))
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y)

    data, scales = started(model, (jnp.zeros(3),), {"z": np.ones(2)})
    assert set(data.like) == {"x"}
    assert float(data.like["x"]) == 2.0
    assert float(scales["x"]) == 3.0
    data, _ = started(model, (jnp.zeros(3),), {"x": np.asarray(5.0)})
    assert float(data.like["x"]) == 5.0


def test_priors_with_whole_numbers_have_real_coordinates():
    def model(y):
        x = numpyro.sample("x", dist.Normal(0, 2))
        z = numpyro.sample("z", dist.Normal(0.5, 1.5))
        numpyro.sample("y", dist.Normal(x + z, 1.0), obs=y)

    data, _ = started(model, (jnp.zeros(3),), {})
    leaves, form = jax.tree.flatten(data)
    slope = jax.grad(potential_of(model, form))(jnp.asarray([0.7, 0.5]), leaves)
    np.testing.assert_allclose(slope, [0.7 / 4 + 3 * 1.2, 3 * 1.2])

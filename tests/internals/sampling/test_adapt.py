"""Coordinates of sites that lie in several plates, in any order of these."""

from contextlib import ExitStack

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.stats import spearmanr

from laddercast.sampling.adapt import Found, _conditional, adapted, repositioned, scaled
from laddercast.sampling.chains import on_device
from laddercast.sampling.curvature import layout_of
from laddercast.sampling.density import structure
from laddercast.sampling.mode import started
from laddercast.sampling.preconditioner import Layout
from laddercast.sampling.transforms import Prior

SIZES = {"group": 4, "row": 3, "column": 2}


def crossed(names):
    """Effects about one mean in these plates, measured with known precisions."""

    def model(precision, y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        tau = numpyro.sample("tau", dist.LogNormal(0.0, 0.1), infer={"held": True})
        with ExitStack() as plates:
            for dim, name in enumerate(reversed(names), 1):
                plates.enter_context(numpyro.plate(name, SIZES[name], dim=-dim))
            theta = numpyro.sample("theta", dist.Normal(mu, tau))
            numpyro.sample("y", dist.Normal(theta, precision**-0.5), obs=y)

    return model


def transform_of(names, precision, blocks):
    """The transform of the effects, found about zero; and that of a prior of scale .7 to it."""
    rng = np.random.default_rng(1)
    args, model = (precision, np.zeros(precision.shape)), crossed(names)
    data, scales = started(model, args, {})
    sites = structure(model, data)
    assert sites["theta"].plates == {name: at - len(names) for at, name in enumerate(names)}
    layout = layout_of(sites, data.like, blocks)
    data = scaled(data, layout, sites, scales)
    theta = rng.normal(0, 0.1, (20, precision.size)).reshape(20, *precision.shape)
    drawn = {"mu": rng.normal(0, 0.1, 20), "tau": rng.normal(0, 0.1, 20), "theta": theta}
    draws = repositioned(model, data, drawn)[None]
    return adapted(model, data, layout, sites, draws)[1].transforms["theta"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "names", [("group",), ("row", "group"), ("group", "row"), ("row", "group", "column")],
    ids=" x ".join,
)  # fmt: skip
def test_a_transform_knows_what_data_tell_of_each_element(names):
    precision = 10 ** np.random.default_rng(0).uniform(-1, 3, [SIZES[name] for name in names])
    prior = Prior(np.zeros(precision.shape), np.full(precision.shape, 0.7))
    with on_device(jax.devices("cpu")[0]):
        transform = transform_of(names, precision, "group")
        slopes = np.asarray(
            jax.jacobian(lambda x: transform.forward(x.reshape(precision.shape), prior).ravel())(
                jnp.zeros(precision.size)
            )
        )
    expected = np.diag(1 / (1 / 0.7**2 + precision.ravel()))
    np.testing.assert_allclose(slopes @ slopes.T, expected, rtol=1e-5, atol=1e-9)


def test_without_blocks_plates_may_come_in_any_order():
    precision = 10 ** np.random.default_rng(0).uniform(-1, 3, (3, 2, 4))
    with on_device(jax.devices("cpu")[0]):
        one = transform_of(("row", "column", "group"), precision, None)
        other = transform_of(("row", "group", "column"), np.swapaxes(precision, 1, 2), None)
    np.testing.assert_allclose(one.precision, np.swapaxes(other.precision, 1, 2), rtol=0.05)
    # What data tell most is told most, though some of it is of the mean that all share.
    assert spearmanr(one.precision.ravel(), precision.ravel()).statistic > 0.9


def test_pulls_are_those_of_the_data_though_scales_of_the_prior_vary_by_orders() -> None:
    generator, count = np.random.default_rng(0), 2000
    precision, pull = np.array([0.05, 2.0, 50.0]), np.array([0.3, -4.0, 100.0])
    variance = np.exp(2 * generator.normal(-0.5, 1.5, (count, 1))) * np.ones(3)
    loc = generator.normal(0, 0.2, (count, 3))
    shrink = 1 / (1 + precision * variance)
    mean, sd = (loc + variance * pull) * shrink, np.sqrt(variance * shrink)
    less = mean + sd * generator.normal(size=(count, 3))
    none = np.zeros(0, int)
    layout = Layout(none, np.zeros((0, 0), int), np.arange(3), np.zeros(3, int), {}, {},
                    {"x": np.arange(3)})  # fmt: skip
    scale = np.full(3, 0.7)
    left = 1 / (1 + precision * scale**2)
    unit = {"x": np.ones_like(less)}
    found = Found({"x": less}, {"x": less}, {"x": loc}, {"x": np.sqrt(variance)}, unit)
    told = _conditional(found, "x", left[:, None, None], scale, layout)
    np.testing.assert_allclose(told.precision, precision)
    # The mean that they stand for at a usual scale, in SDs of the site there.
    off = (told.pull - pull) * scale**2 * left / (scale * np.sqrt(left))
    np.testing.assert_allclose(off, 0, atol=0.1)

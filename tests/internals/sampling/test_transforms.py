"""Changes of coordinates of single sites: there and back, and the volume of a unit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laddercast.sampling.chains import on_device
from laddercast.sampling.transforms import Conditional, Prior, Scaled

SHAPE = 3, 2
MANY = 40


@pytest.fixture(autouse=True)
def exact():
    with on_device(jax.devices("cpu")[0]):
        yield


def some_scale(rng, shape=SHAPE, decades=3.0):
    return jnp.asarray(10 ** rng.uniform(-decades, decades, shape))


def some_directions(rng):
    """Orthonormal columns (n, n, ...) of the first dimension."""
    n, *rest = SHAPE
    turns = np.linalg.qr(rng.normal(size=(*rest, n, n)))[0]
    return jnp.asarray(np.moveaxis(turns, (-2, -1), (0, 1)))


def scaled(rng):
    return Scaled(some_scale(rng))


def conditional(rng):
    # Of some elements data tell nothing.
    precision = some_scale(rng) * rng.integers(0, 2, SHAPE)
    return Conditional(precision, precision * rng.normal(size=SHAPE))


def turned(rng):
    return conditional(rng)._replace(directions=some_directions(rng))


def of_data_alone(rng):
    precision = some_scale(rng)
    return Conditional(precision, precision * rng.normal(size=SHAPE), prior=jnp.zeros(()))


def some_prior(rng, one_scale):
    """Along directions an own scale of each element would not stay the same."""
    shape = (1, *SHAPE[1:]) if one_scale else SHAPE
    scale = jnp.broadcast_to(some_scale(rng, shape, 2.0), SHAPE)
    return Prior(jnp.asarray(rng.normal(0, 3, SHAPE)), scale)


@pytest.mark.parametrize("make", [scaled, conditional, turned, of_data_alone])
def test_a_site_comes_back_and_its_volume_is_that_of_its_jacobian(make):
    rng = np.random.default_rng(0)

    @jax.jit
    def measured(transform, prior, x):
        value = transform.forward(x, prior)
        jacobian = jax.jacobian(lambda x: transform.forward(x, prior).ravel())(x)
        _, volume = jnp.linalg.slogdet(jacobian.reshape(x.size, x.size))
        return value, transform.inverse(value, prior), volume, transform.log_det(prior)

    for _ in range(MANY):
        transform, prior = make(rng), some_prior(rng, make is turned)
        x = jnp.asarray(rng.normal(size=SHAPE))
        value, back, volume, told = measured(transform, prior, x)
        # What is lost is the rounding of a value that is far larger than its scale.
        lost = 1e-15 * np.abs(value).max() / np.exp(float(volume) / x.size)
        assert value.shape == SHAPE
        np.testing.assert_allclose(back, x, rtol=1e-6, atol=1e-9 + 1e6 * lost)
        np.testing.assert_allclose(told, volume, rtol=1e-9, atol=1e-9)


def test_what_data_and_prior_tell_together_is_a_standard_normal():
    """With a normal likelihood of that precision, each coordinate's density is the standard one."""
    rng = np.random.default_rng(1)
    for _ in range(MANY):
        prior = Prior(rng.normal(size=SHAPE), some_scale(rng, SHAPE, 1.0))
        precision, mean = some_scale(rng, SHAPE, 1.0), rng.normal(size=SHAPE)
        transform = Conditional(precision, precision * mean)

        def potential(x, prior=prior, precision=precision, mean=mean, transform=transform):
            value = transform.forward(x, prior)
            of_prior = ((value - prior.loc) / prior.scale) ** 2
            return jnp.sum(of_prior + precision * (value - mean) ** 2) / 2

        x = jnp.asarray(rng.normal(size=SHAPE))
        np.testing.assert_allclose(jax.grad(potential)(x), x, rtol=1e-7, atol=1e-7)


def test_directions_of_which_data_tell_apart_are_independent():
    rng = np.random.default_rng(2)
    for _ in range(10):
        prior = some_prior(rng, True)
        directions, precision = some_directions(rng), some_scale(rng, SHAPE, 1.0)
        mean = rng.normal(size=SHAPE)
        told = jnp.einsum("ijk,ik->jk", directions, mean)
        transform = Conditional(precision, precision * told, directions)

        def potential(x, prior=prior, precision=precision, told=told, transform=transform):
            value = transform.forward(x, prior)
            along = jnp.einsum("ijk,ik->jk", transform.directions, value)
            of_prior = ((value - prior.loc) / prior.scale) ** 2
            return jnp.sum(of_prior + precision * (along - told) ** 2) / 2

        x = jnp.asarray(rng.normal(size=SHAPE))
        np.testing.assert_allclose(jax.grad(potential)(x), x, rtol=1e-6, atol=1e-6)


def test_with_little_told_a_coordinate_is_a_deviate_and_with_much_the_site():
    site, told = Prior(jnp.asarray(2.0), jnp.asarray(0.5)), jnp.asarray(1e8)
    other = Prior(jnp.asarray(-1.0), jnp.asarray(3.0))
    nothing = Conditional(jnp.zeros(()), jnp.zeros(()))
    much = Conditional(told, told * 0.7)
    x = jnp.linspace(-3.0, 3.0, 7)
    for prior in (site, other):
        np.testing.assert_allclose(nothing.forward(x, prior), prior.loc + prior.scale * x)
        np.testing.assert_allclose(much.forward(x, prior), 0.7 + 1e-4 * x, atol=1e-7)

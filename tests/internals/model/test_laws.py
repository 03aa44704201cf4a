import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laddercast.model import laws

A, B, E, ALPHA, BETA = 400.0, 410.0, 1.7, 0.34, 0.28
REFERENCE = 5e8, 3e10


def loss(params, tokens):
    n, d = np.log(np.asarray(params) / REFERENCE[0]), np.log(np.asarray(tokens) / REFERENCE[1])
    log_a = np.log(A) - ALPHA * np.log(REFERENCE[0])
    log_b = np.log(B) - BETA * np.log(REFERENCE[1])
    return np.exp(laws.log_loss(n, d, log_a, log_b, np.log(E), ALPHA, BETA))


def test_stage_1_is_the_published_law():
    params, tokens = np.array([2e8, 7e9]), np.array([4e9, 4e12])
    expected = A / params**ALPHA + B / tokens**BETA + E
    np.testing.assert_allclose(loss(params, tokens), expected, rtol=1e-4)


@pytest.mark.parametrize("at", [(1e8, 1e9), (1e9, 1e11), (1e11, 1e13)])
def test_more_parameters_and_tokens_lower_the_loss(at):
    params, tokens = at
    assert loss(2 * params, tokens) < loss(params, tokens)
    assert loss(params, 2 * tokens) < loss(params, tokens)
    assert loss(params, tokens) > E


def test_stage_2_is_the_published_law():
    a, b, k, L0 = -0.7, 0.98, 5.0, 0.9  # noqa: N806
    x = np.linspace(0.3, 2, 30)
    with jax.enable_x64(True):
        found = laws.accuracy(x, k, L0, a + b, b)
    np.testing.assert_allclose(found, b + a / (1 + np.exp(-k * (x - L0))), rtol=1e-12)


def test_stage_2_has_finite_gradients_far_out():
    gradient = jax.grad(lambda x: laws.accuracy(x, 50.0, 1.0, 0.25, 1.0))
    assert all(np.isfinite(gradient(x)) for x in (-100.0, 0.0, 1.0, 100.0))


TERMS = {"log_a": np.log(0.6), "log_b": np.log(0.4), "alpha": ALPHA, "beta": BETA}


@pytest.mark.parametrize("q", [0.5, 1.0, 1.5, 3.0, 40.0])
def test_the_reducible_law_with_q_is_a_norm_of_its_two_terms(q):
    n, d = np.log([0.5, 1.0, 20.0]), np.log([3.0, 1.0, 0.1])
    of_params, of_tokens = 0.6 * np.exp(-ALPHA * n), 0.4 * np.exp(-BETA * d)
    with jax.enable_x64(True):
        found = np.exp(laws.log_reducible(n, d, **TERMS, q=q))
    np.testing.assert_allclose(found, (of_params**q + of_tokens**q) ** (1 / q), rtol=1e-12)


def test_loss_with_q_of_1_is_the_additive_law():
    n, d = np.log([0.5, 1.0, 20.0]), np.log([3.0, 1.0, 0.1])
    found = np.exp(laws.log_loss(n, d, **TERMS, log_e=np.log(0.3), q=1.0))
    expected = 0.6 * np.exp(-ALPHA * n) + 0.4 * np.exp(-BETA * d) + 0.3
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(
        found, np.exp(laws.log_loss(n, d, **TERMS, log_e=np.log(0.3))), rtol=1e-6
    )


def test_the_larger_q_the_nearer_to_the_greater_term():
    n, d = np.log([0.5, 1.0, 20.0]), np.log([3.0, 1.0, 0.1])
    greater = np.maximum(TERMS["log_a"] - ALPHA * n, TERMS["log_b"] - BETA * d)
    with jax.enable_x64(True):
        found = np.array([laws.log_reducible(n, d, **TERMS, q=q) for q in (0.5, 1, 2, 8, 1000)])
    assert (np.diff(found, axis=0) < 0).all()
    assert (found >= greater - 1e-12).all()
    np.testing.assert_allclose(found[-1], greater, atol=1e-3)


@pytest.mark.parametrize("q", [0.5, 1.0, 3.0])
def test_more_parameters_and_tokens_lower_the_law_whatever_q(q):
    n, d = np.meshgrid(np.linspace(-3, 6, 20), np.linspace(-3, 6, 20), indexing="ij")
    with jax.enable_x64(True):
        found = np.asarray(laws.log_loss(n, d, **TERMS, log_e=np.log(0.3), q=q))
    assert (np.diff(found, axis=0) < 0).all()
    assert (np.diff(found, axis=1) < 0).all()
    assert (found > np.log(0.3)).all()


def test_the_law_with_a_large_q_has_finite_gradients_far_out():
    gradient = jax.grad(lambda n: laws.log_reducible(n, 0.0, **TERMS, q=20.0))
    assert all(np.isfinite(gradient(n)) for n in (-50.0, 0.0, 50.0))


def test_log_sum_and_its_slopes_are_those_of_a_sum():
    with jax.enable_x64(True):
        a = jnp.linspace(-40.0, 40.0, 17)
        for b in (-3.0, 0.0, 20.0):
            expected = np.logaddexp(np.asarray(a), b)
            np.testing.assert_allclose(laws.log_sum(a, b), expected, rtol=1e-15, atol=1e-15)
            slope = jax.vmap(jax.grad(laws.log_sum), in_axes=(0, None))(a, b)
            np.testing.assert_allclose(slope, np.exp(np.asarray(a) - expected), rtol=1e-12)

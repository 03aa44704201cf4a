import jax
import numpy as np
import pytest

from laddercast import laws

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

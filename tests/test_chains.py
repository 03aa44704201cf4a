"""Chains, and what is compiled for them beforehand."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from laddercast.sampling.chains import (
    FIRST_STEP,
    Settings,
    _kernel,
    compile_chains,
    on_device,
    run_chains,
)
from laddercast.sampling.preconditioner import Layout, plain_geometry

LAYOUT = Layout(
    np.arange(2), np.arange(2, 6).reshape(2, 2), np.array([6]), np.arange(7), {}, {}, {}
)
WARMUP = 70
SETTINGS = Settings(WARMUP, (5, 5))
CPU = jax.devices("cpu")[0]


def normal(position, data):
    return jnp.sum((position - data["mean"]) ** 2) / 2


def test_chains_take_what_was_compiled_before_them():
    with on_device(CPU):
        data = {"mean": jnp.arange(7.0)}
        plain = jax.tree.map(jnp.asarray, plain_geometry(LAYOUT))
        compile_chains(normal, SETTINGS, np.zeros(7), plain, data, CPU)
        programs = _kernel(normal, SETTINGS)[:2]
        before = [program._cache_size() for program in programs]
        bar = SimpleNamespace(update=lambda count: None)
        rest = np.ones((2, 7)), plain, data, jax.random.key(1), 400, bar, CPU
        found, _ = run_chains(normal, SETTINGS, 0.8, *rest)
        careful, _ = run_chains(normal, SETTINGS, 0.98, *rest)
        settled, going = run_chains(normal, SETTINGS, 0.98, *rest, whole=False)
        ends = [plain._replace(center=1.0).position(state.z) for state in going]
    assert before == [1, 1]
    assert [program._cache_size() for program in programs] == before
    accepted, more = (chains.accept_prob[:, WARMUP:].mean() for chains in (found, careful))
    assert accepted < 0.95 < more
    # The standard error of a mean of 860 draws is .035, if they are independent.
    draws = found.position[:, WARMUP:].reshape(-1, 7)
    np.testing.assert_allclose(draws.mean(axis=0), np.arange(7.0), atol=0.25)
    assert settled.accept_prob.mean() > 0.95
    # Chunks are not cut, so there are more draws; none is of the warm-up, and the last is the end.
    assert found.position.shape == (2, 500, 7)
    assert settled.position.shape == (2, 500 - WARMUP, 7)
    np.testing.assert_allclose(settled.position[:, -1], ends)
    # Of a warm-up that only settles, steps are what has changed.
    for state in going:
        np.testing.assert_array_equal(state.adapt_state.inverse_mass_matrix, 1.0)
        assert float(state.adapt_state.step_size) > 2 * FIRST_STEP

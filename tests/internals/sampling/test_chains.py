"""Chains: what is compiled for them, what their warm-ups find, and as one batch."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_preconditioner import identity

from laddercast.sampling import chains as module
from laddercast.sampling.chains import (
    FIRST_STEP,
    Settings,
    _kernel,
    in_threads,
    on_device,
    run_chains,
)
from laddercast.sampling.preconditioner import Layout
from laddercast.sampling.work import run

LAYOUT = Layout(
    np.arange(2), np.arange(2, 6).reshape(2, 2), np.array([6]), np.arange(7), {}, {}, {}
)
WARMUP = 70
SETTINGS = Settings(WARMUP, (5, 5))
CPU = jax.devices("cpu")[0]


def normal(position, data):
    return jnp.sum((position - data["mean"]) ** 2) / 2


@pytest.mark.slow
def test_every_run_of_chains_takes_the_same_two_programs():
    with on_device(CPU):
        data = {"mean": jnp.arange(7.0)}
        plain = jax.tree.map(jnp.asarray, identity(LAYOUT))
        bar = SimpleNamespace(update=lambda count: None)
        rest = np.ones((2, 7)), plain, data, jax.random.key(1), 400, bar, CPU
        found, _ = run(run_chains(normal, SETTINGS, 0.8, *rest))
        careful, _ = run(run_chains(normal, SETTINGS, 0.98, *rest))
        settled, going = run(run_chains(normal, SETTINGS, 0.98, *rest, whole=False))
        ends = [plain._replace(center=1.0).position(state.z) for state in going]
    assert [program._cache_size() for program in _kernel(normal, SETTINGS)[:2]] == [1, 1]
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


@pytest.mark.slow
def test_chains_as_one_batch_and_chains_that_go_on_are_those_in_threads(monkeypatch):
    bar = SimpleNamespace(update=lambda count: None)

    def draws(steps, going=None):
        given = np.ones((3, 7)), plain, data, jax.random.key(2), steps, bar, CPU
        return run(run_chains(normal, SETTINGS, 0.9, *given, going, whole=False))

    with on_device(CPU):
        assert in_threads(CPU)
        data = {"mean": jnp.arange(7.0)}
        plain = jax.tree.map(jnp.asarray, identity(LAYOUT))
        begun, going = draws(30)
        more, _ = draws(50, going)
        whole, _ = draws(80)
        monkeypatch.setattr(module, "in_threads", lambda device: False)
        batch, going = draws(30)
        longer, _ = draws(50, going)
    # Of chunks of 50, 30 and 70 of warm-up are two, and 80 and 70 are three.
    assert begun.position.shape == (3, 30, 7)
    for name, own in whole._asdict().items():
        in_turn = np.concatenate([getattr(begun, name), getattr(more, name)], axis=1)
        np.testing.assert_array_equal(in_turn, own, err_msg=name)
    # Sums in another order make chains drift apart with time.
    for first, other in ((batch, begun), (longer, more)):
        np.testing.assert_array_equal(first.num_steps, other.num_steps)
        np.testing.assert_allclose(first.position, other.position, rtol=1e-6, atol=1e-6)

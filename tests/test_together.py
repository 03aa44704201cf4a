"""Calls of several threads are answered as one, each with its own answer."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import jax.numpy as jnp
import numpy as np
import pytest

from laddercast.data.ladder import read_ladder
from laddercast.inference.fitting import fit
from laddercast.model.routes import direct
from laddercast.sampling import chains
from laddercast.sampling.together import Together, call

module = import_module("laddercast.sampling.together")


@pytest.fixture
def answered(monkeypatch):
    """How many calls each answer was for."""
    counts = []
    plain = module._all_of

    def counted(function, calls, most):
        counts.append(len(calls))
        return plain(function, calls, most)

    monkeypatch.setattr(module, "_all_of", counted)
    return counts


def larger(x, by):
    return {"sum": x + by["step"], "square": x**2}


def in_threads(together, work, count):
    """What `work` gives of each number, all threads having joined before any calls."""
    begin = threading.Barrier(count)

    def one(number):
        with together.joined():
            begin.wait()
            return work(number)

    with ThreadPoolExecutor(count) as threads:
        return [own.result() for own in [threads.submit(one, i) for i in range(count)]]


def test_calls_of_all_threads_are_answered_at_once_and_each_for_itself(answered):
    def work(number):
        x = jnp.full(3, float(number))
        for _ in range(number + 1):  # the first thread leaves first
            x = call(larger, x, {"step": jnp.asarray(10.0 * number)})["sum"]
        return np.asarray(x)

    found = in_threads(Together(4, 8), work, 3)
    for number, own in enumerate(found):
        np.testing.assert_array_equal(own, np.full(3, number + 10.0 * number * (number + 1)))
    assert answered == [3, 2, 1]


def test_other_functions_and_shapes_are_answered_apart(answered):
    def work(number):
        return np.asarray(call(jnp.sum if number == 2 else jnp.cumsum, jnp.ones(3 + number // 3)))

    found = in_threads(Together(4, 8), work, 4)
    for own, expected in zip(found, ([1, 2, 3], [1, 2, 3], 3, [1, 2, 3, 4]), strict=True):
        np.testing.assert_array_equal(own, expected)
    assert sorted(answered) == [1, 1, 2]


def test_what_a_call_raises_is_raised_in_each_thread():
    def fails(x):
        raise ArithmeticError("no such number")

    def work(number):
        with pytest.raises(ArithmeticError, match="no such number"):
            call(fails, jnp.ones(2))
        return float(call(jnp.sum, jnp.full(2, float(number))))

    assert in_threads(Together(2, 8), work, 2) == [0.0, 2.0]


def test_no_more_are_at_work_between_calls_than_may_be():
    at_work, most = [], []

    def work(together):
        with together.joined():
            for _ in range(3):
                at_work.append(1)
                most.append(len(at_work))
                time.sleep(0.01)
                at_work.pop()
                call(jnp.square, np.ones(2))

    for limit in (2, 6):
        together = Together(6, limit)
        most.clear()
        with ThreadPoolExecutor(6) as threads:
            for one in [threads.submit(work, together) for _ in range(6)]:
                one.result(timeout=30)
        assert max(most) == limit


def test_a_thread_that_has_not_joined_calls_by_itself(answered):
    np.testing.assert_array_equal(call(jnp.cumsum, jnp.ones(2)), [1, 2])
    assert not answered


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*has not converged")
def test_fits_whose_chains_are_one_batch_are_those_made_alone(small_table, monkeypatch, answered):
    # As on a GPU, where chains of one fit are a batch as well.
    monkeypatch.setattr(chains, "in_threads", lambda device: False)
    tables = small_table, small_table.assign(accuracy=small_table["accuracy"] * 0.9)
    ladders = [read_ladder(table) for table in tables]
    settings = {"route": direct, "chains": 2, "warmup": 50, "draws": 50, "progress": False}
    found = in_threads(Together(2, 8), lambda i: fit(ladders[i], seed=i, **settings), 2)
    assert answered.count(2) >= 2
    for number, (ladder, own) in enumerate(zip(ladders, found, strict=True)):
        alone = fit(ladder, seed=number, **settings)
        one, other = (tree["posterior"]["accuracy_level"].to_numpy() for tree in (own, alone))
        # Sums in another order make chains drift apart with time.
        np.testing.assert_allclose(one[:, 0], other[:, 0], rtol=1e-3)

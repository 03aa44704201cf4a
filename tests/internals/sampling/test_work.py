"""Fits that run side by side: in their order, each as if alone, answered together on a device."""

import threading
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from laddercast.sampling import work as module
from laddercast.sampling.work import Batched, Calls, run, run_all

CPU = jax.devices("cpu")[0]


@pytest.fixture
def answered(monkeypatch):
    """How many calls each answer was for."""
    counts, plain = [], module._answers

    def counted(asked, most):
        counts.append(len(asked))
        return plain(asked, most)

    monkeypatch.setattr(module, "_answers", counted)
    return counts


def slow_square(x, seconds=0.0):
    time.sleep(seconds)
    return x**2


def fit_of(number, log=None):
    """Sums of squares; the first takes longest."""
    total = 0
    for step in range(3):
        calls = [partial(slow_square, number + i, 0.01 * (3 - number % 3)) for i in range(step + 1)]
        total += sum((yield Calls(calls)))
        if log is not None:
            log.append(number)
    return number, total


@pytest.mark.parametrize("at_once", [1, 3, 9])
def test_results_come_in_order_and_are_the_same_however_many_are_under_way(at_once):
    expected = [(n, 3 * n**2 + 2 * (n + 1) ** 2 + (n + 2) ** 2) for n in range(6)]
    assert list(run_all((fit_of(n) for n in range(6)), at_once)) == expected
    assert run(fit_of(4)) == expected[4]


def test_at_most_so_many_are_under_way_and_others_begin_as_results_are_taken():
    begun = []

    def fits():
        for number in range(6):
            begun.append(number)
            yield fit_of(number)

    found = run_all(fits(), 3)
    assert begun == []
    assert next(found)[0] == 0
    # One more beside those under way: the first is done.
    assert begun == [0, 1, 2, 3]
    assert next(found)[0] == 1
    assert begun == [0, 1, 2, 3, 4]
    found.close()


def test_several_go_on_while_one_waits():
    log = []
    assert len(list(run_all((fit_of(n, log) for n in range(3)), 3))) == 3
    assert sorted(log) == 3 * [0] + 3 * [1] + 3 * [2]
    assert log != sorted(log)
    log.clear()
    list(run_all((fit_of(n, log) for n in range(3)), 1))
    assert log == sorted(log)


def test_all_of_a_fits_own_code_runs_in_the_callers_thread():
    seen = []

    def fit():
        seen.append(threading.current_thread())
        (other,) = yield Calls([threading.current_thread])
        seen.append(threading.current_thread())
        return other

    others = list(run_all((fit() for _ in range(4)), 2))
    assert set(seen) == {threading.current_thread()}
    assert threading.current_thread() not in others


def fails(number, where):
    yield Calls([partial(slow_square, 1.0)])
    if where == "fit":
        raise ArithmeticError(f"fit {number}")

    def call(*args):
        raise ArithmeticError(f"fit {number}")

    yield Calls([call]) if where == "call" else Batched(call, (np.ones(2),), CPU)


@pytest.mark.parametrize("where", ["fit", "call", "batched"])
@pytest.mark.parametrize("at_once", [1, 4])
def test_what_a_fit_raises_is_raised_when_its_turn_comes(where, at_once):
    fits = [fit_of(0), fit_of(1), fails(2, where), fit_of(3)]
    found = run_all(fits, at_once)
    assert next(found)[0] == 0
    assert next(found)[0] == 1
    with pytest.raises(ArithmeticError, match="fit 2"):
        next(found)
    assert list(found) == []


def test_closing_stops_all_that_are_under_way():
    ended, done = [], []

    def endless(number):
        try:
            while True:
                yield Calls([partial(time.sleep, 0.005)])
                done.append(number)
        finally:
            ended.append(number)

    found = run_all([fit_of(0), *(endless(n) for n in range(1, 4))], 3)
    assert next(found)[0] == 0
    found.close()
    assert sorted(ended) == [1, 2, 3]
    before = len(done)
    time.sleep(0.05)
    assert len(done) == before


def larger(x, by):
    return {"sum": x + by["step"], "square": jnp.sin(x) ** 2}


def batched(number, steps):
    x = np.full(3, float(number))
    total = np.zeros(3)
    for _ in range(steps):
        answer = yield Batched(larger, (x, {"step": np.asarray(10.0 * number)}), CPU)
        x, total = answer["sum"], total + answer["square"]
    return x, total


def test_one_answer_for_several_is_what_each_gets_alone(answered):
    with jax.enable_x64(True):
        alone = [run(batched(number, number + 1)) for number in range(4)]
        assert answered == [1] * (1 + 2 + 3 + 4)
        answered.clear()
        together = list(run_all((batched(number, number + 1) for number in range(4)), 4))
    # As fits end, fewer are left.
    assert answered == [4, 3, 2, 1]
    for own, other in zip(alone, together, strict=True):
        for one, same in zip(own, other, strict=True):
            assert isinstance(same, np.ndarray)
            np.testing.assert_allclose(one, same, rtol=1e-14)


def test_batches_are_filled_up_so_that_one_number_of_fits_is_compiled():
    traced = []

    def function(x):
        traced.append(x.shape)
        return 2 * x

    def fit(number):
        for _ in range(number + 1):
            answer = yield Batched(function, (np.full(2, float(number)),), CPU)
        return answer

    found = list(run_all((fit(number) for number in range(5)), 3))
    for number, own in enumerate(found):
        np.testing.assert_array_equal(own, 2.0 * number)
    assert traced == [(2,)]


def test_other_functions_and_shapes_are_answered_apart(answered):
    def fit(number):
        function = jnp.sum if number == 2 else jnp.cumsum
        return (yield Batched(function, (np.ones(3 + number // 3),), CPU))

    found = list(run_all((fit(number) for number in range(4)), 4))
    for own, expected in zip(found, ([1, 2, 3], [1, 2, 3], 3, [1, 2, 3, 4]), strict=True):
        np.testing.assert_array_equal(own, expected)
    assert sorted(answered) == [1, 1, 2]


def test_batched_calls_wait_for_fits_that_are_busy_with_threads(answered):
    def fit(number):
        yield Calls([partial(time.sleep, 0.02 * number)])
        return (yield Batched(jnp.cumsum, (np.full(2, float(number)),), CPU))

    found = list(run_all((fit(number) for number in range(3)), 3))
    for number, own in enumerate(found):
        np.testing.assert_array_equal(own, [number, 2 * number])
    assert answered == [3]

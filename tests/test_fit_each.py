"""Several fits at once give what each gives by itself, in their order."""

import os
import threading
import time
from importlib import import_module

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from threadpoolctl import threadpool_info, threadpool_limits

from laddercast.data.ladder import read_ladder
from laddercast.inference.fitting import fit
from laddercast.inference.many import fit_each
from laddercast.model.routes import direct
from laddercast.sampling.together import call

module = import_module("laddercast.inference.many")


@pytest.fixture
def begun(monkeypatch):
    """Ladders in the order in which a stand-in for `fit` was begun, with seed and thread."""
    seen = []

    def stand_in(ladder, **settings):
        seen.append((ladder, settings["seed"], threading.current_thread()))
        if ladder == "bad":
            raise ValueError("bad ladder")
        return f"fit of {ladder}"

    monkeypatch.setattr(module, "fit", stand_in)
    return seen


def test_fits_come_in_the_order_of_their_ladders(begun):
    found = list(fit_each("abcdef", seeds=range(6)))
    assert found == [f"fit of {name}" for name in "abcdef"]
    assert sorted((name, seed) for name, seed, _ in begun) == list(
        zip("abcdef", range(6), strict=True)
    )
    threads = [thread for *_, thread in begun]
    assert threads[0] is threading.main_thread()
    assert threading.main_thread() not in threads[1:]


def test_one_ladder_and_none(begun):
    assert list(fit_each([])) == []
    assert list(fit_each(["a"])) == ["fit of a"]
    assert len(begun) == 1


def test_on_another_device_fits_are_together_once_the_first_has_compiled(begun, monkeypatch):
    met, ready = threading.Barrier(3), []
    stand_in = module.fit

    def meets(ladder, **settings):
        if ladder == "a":
            time.sleep(0.1)  # others that were begun at once would come first
            ready.append(ladder)
            call(jnp.square, np.ones(2))
        assert ready
        met.wait(timeout=10)  # broken unless three are under way
        return stand_in(ladder, **settings)

    monkeypatch.setattr(module, "fit", meets)
    assert list(fit_each("abc", device="gpu")) == [f"fit of {name}" for name in "abc"]
    assert threading.main_thread() not in [thread for *_, thread in begun]


def test_on_another_device_others_go_on_where_the_first_fails_before_its_chains(begun):
    found = fit_each(["bad", "b"], device="gpu")
    with pytest.raises(ValueError, match="bad ladder"):
        next(found)


def test_what_a_fit_raises_is_raised_in_its_turn(begun):
    found = fit_each(["a", "bad", "c"])
    assert next(found) == "fit of a"
    with pytest.raises(ValueError, match="bad ladder"):
        next(found)


def test_ladders_not_begun_are_left_alone_when_the_iterator_is_closed(begun):
    found = fit_each("abcdefgh")
    assert next(found) == "fit of a"
    found.close()
    assert len(begun) <= 1 + max(module.LEAST, (os.cpu_count() or 1) // 4)


def test_threads_of_blas_are_as_before(begun):
    def threads():
        return [own["num_threads"] for own in threadpool_info() if own["user_api"] == "blas"]

    with threadpool_limits(2, user_api="blas"):
        before = threads()
        list(fit_each("abcd"))
        assert threads() == before


def test_seeds_must_be_as_many_as_ladders():
    with pytest.raises(ValueError, match="shorter"):
        next(fit_each("abc", seeds=[0, 1]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*has not converged")
def test_several_fits_at_once_are_those_made_alone(small_table):
    ladder = read_ladder(small_table)
    settings = {"route": direct, "chains": 2, "warmup": 50, "draws": 50, "progress": False}
    together = list(fit_each([ladder] * 3, seeds=[5, 6, 5], **settings))
    for found, seed in zip(together, (5, 6, 5), strict=True):
        alone = fit(ladder, seed=seed, **settings)
        xr.testing.assert_equal(found["posterior"].to_dataset(), alone["posterior"].to_dataset())

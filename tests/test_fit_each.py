"""Several fits at once give what each gives by itself, in their order."""

import os
import threading
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from threadpoolctl import threadpool_info, threadpool_limits

from laddercast.data.cautions import NotConvergedWarning
from laddercast.data.ladder import read_ladder
from laddercast.inference.fitting import fit
from laddercast.inference.many import fit_each
from laddercast.model.routes import direct
from laddercast.sampling.work import Batched, Calls

module = import_module("laddercast.inference.many")


@pytest.fixture
def begun(monkeypatch):
    """Ladders in the order in which stand-ins for their fits were begun, with seed and thread.

    Each calls something in a thread, and on another device a function that can be batched.
    """
    seen = []

    def stand_in(ladder, *, seed, device, **_):
        def work():
            seen.append((ladder, seed, threading.current_thread()))
            if ladder == "bad":
                raise ValueError("bad ladder")
            (name,) = yield Calls([lambda: f"fit of {ladder}"])
            if ladder == "stuck":
                yield Calls([lambda: 1 // 0])
            if device == "gpu":
                number = yield Batched(jnp.square, (np.float64(seed),), jax.devices("cpu")[0])
                assert number == seed**2
            return name

        return work()

    monkeypatch.setattr(module, "prepare", stand_in)
    return seen


def most() -> int:
    """How many fits are under way at once on this machine."""
    return max(module.LEAST, (os.cpu_count() or 1) // 4)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_fits_come_in_the_order_of_their_ladders_and_run_in_this_thread(begun, device):
    found = list(fit_each("abcdef", seeds=range(6), device=device))
    assert found == [f"fit of {name}" for name in "abcdef"]
    assert [(name, seed) for name, seed, _ in begun] == list(zip("abcdef", range(6), strict=True))
    # Of threads, JAX's tracing and warnings would not be safe in any other.
    assert {thread for *_, thread in begun} == {threading.main_thread()}


def test_one_ladder_and_none(begun):
    assert list(fit_each([])) == []
    assert list(fit_each(["a"])) == ["fit of a"]
    assert len(begun) == 1


def test_on_another_device_all_are_begun_before_the_first_goes_on(begun, monkeypatch):
    sizes = []

    def seen(asked: Sequence[Batched], most: int) -> list[Any]:
        sizes.append((len(begun), len(asked), most))
        return [one.function(*one.args) for one in asked]

    monkeypatch.setattr("laddercast.sampling.work._answers", seen)
    assert list(fit_each("abc", device="gpu")) == [f"fit of {name}" for name in "abc"]
    assert sizes == [(3, 3, 3)]


@pytest.mark.parametrize(
    ("wrong", "error"), [("bad", ValueError), ("stuck", ZeroDivisionError)], ids=["begun", "called"]
)
def test_what_a_fit_raises_is_raised_in_its_turn(begun, wrong, error):
    found = fit_each(["a", wrong, *"cdefghijklmnop"])
    assert next(found) == "fit of a"
    with pytest.raises(error):
        next(found)
    assert len(begun) <= 1 + most()
    assert next(found, None) is None


def test_ladders_not_begun_are_left_alone_when_the_iterator_is_closed(begun):
    found = fit_each("abcdefgh")
    assert next(found) == "fit of a"
    found.close()
    assert len(begun) <= 1 + most()


def test_threads_of_blas_are_as_before_also_while_a_result_is_read(begun):
    def threads():
        return [own["num_threads"] for own in threadpool_info() if own["user_api"] == "blas"]

    with threadpool_limits(2, user_api="blas"):
        before = threads()
        for _ in fit_each("abcd"):
            assert threads() == before
            assert not jax.config.jax_enable_x64
        assert threads() == before


def test_seeds_must_be_as_many_as_ladders(begun):
    with pytest.raises(ValueError, match="give one for each ladder, 3"):
        next(fit_each("abc", seeds=[0, 1]))
    assert not begun


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [({"draws": 0}, ValueError, "draws=0"), ({"route": "winding"}, ValueError, "no route")],
)
def test_wrong_settings_are_refused_before_a_fit(small_table, settings, error, message):
    with pytest.raises(error, match=message):
        next(fit_each([read_ladder(small_table)], **settings))


SHORT = {"route": direct, "chains": 2, "warmup": 50, "draws": 50, "progress": False}


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*has not converged")
def test_several_fits_at_once_are_those_made_alone(small_table):
    ladder = read_ladder(small_table)
    together = list(fit_each([ladder] * 3, seeds=[5, 6, 5], **SHORT))
    for found, seed in zip(together, (5, 6, 5), strict=True):
        alone = fit(ladder, seed=seed, **SHORT)
        xr.testing.assert_equal(
            found["direct"]["posterior"].to_dataset(), alone["direct"]["posterior"].to_dataset()
        )


@pytest.mark.long
def test_each_fit_that_has_not_converged_warns(small_table):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = list(fit_each([read_ladder(small_table)] * 2, **SHORT))
    assert [tree.attrs["converged"] for tree in found] == [0, 0]
    assert [one.category for one in caught] == [NotConvergedWarning] * 2
    # Of the line that asked for the fits, not of a generator inside the package.
    assert {one.filename for one in caught} == {__file__}

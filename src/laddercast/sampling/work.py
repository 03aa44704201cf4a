"""Fits that run side by side: each yields the work it waits for, one driver does that of all.

A fit is a generator. All of its Python, with whatever traces a model, runs in the caller's thread;
only compiled work is done in threads, or as one batch with that of other fits on a device.
"""

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np

from laddercast.sampling.interrupts import heard
from laddercast.sampling.threads import TRACING


class Calls(NamedTuple):
    """Calls to be made side by side in threads; the answer is the list of their results.

    `stop` asks calls under way to end early, as nobody waits for them any more.
    """

    calls: Sequence[Callable[[], Any]]
    stop: Callable[[], None] | None = None


class Batched(NamedTuple):
    """A call of a function of arrays, that one call can make for many fits by `jax.vmap`."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    device: Any

    @property
    def kind(self) -> tuple[Any, ...]:
        """Equal for calls that one call can answer."""
        leaves, form = jax.tree.flatten(self.args)
        return self.function, form, tuple((np.shape(x), np.result_type(x)) for x in leaves)


type Fit[T] = Generator[Calls | Batched, Any, T]


class _Running:
    """A fit under way: what it waits for, or its result, or what it raised."""

    def __init__(self, fit: Fit[Any]) -> None:
        self.fit = fit
        self.futures: list[Future[Any]] = []
        self.batched: Batched | None = None
        self.stop: Callable[[], None] | None = None
        self.done = False
        self.result: Any = None
        self.error: Exception | None = None

    def go_on(self, answer: Any, pool: ThreadPoolExecutor) -> None:
        """Run the fit to the next work that it waits for, or to its end."""
        self.futures, self.batched, self.stop = [], None, None
        try:
            with TRACING:
                asked = self.fit.send(answer)
        except StopIteration as end:
            self.done, self.result = True, end.value
            return
        except Exception as error:
            self.fail(error)
            return
        if isinstance(asked, Batched):
            self.batched = asked
        else:
            self.stop = asked.stop
            self.futures = [pool.submit(call) for call in asked.calls]

    def fail(self, error: Exception) -> None:
        """End the fit with what its work raised."""
        self.futures, self.batched = [], None
        self.done, self.error = True, error
        self.fit.close()


def run_all[T](fits: Iterable[Fit[T]], at_once: int = 1) -> Iterator[T]:
    """The result of each fit, in their order, with `at_once` of them under way.

    Results do not depend on how many are. What a fit raises is raised when its turn comes. When
    the iterator is closed, fits are left where they are.
    """
    waiting, running = iter(fits), list[_Running]()
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def begin() -> None:
            for fit in waiting:
                running.append(_Running(fit))
                running[-1].go_on(None, pool)
                return

        try:
            for _ in range(at_once):
                begin()
            while running:
                while not running[0].done:
                    _advance(running, pool, at_once)
                if (error := running[0].error) is not None:
                    raise error
                first = running.pop(0)
                begin()
                yield first.result
        except KeyboardInterrupt:
            heard()
            raise
        finally:
            for one in running:
                for future in one.futures:
                    future.cancel()
                if one.stop is not None:
                    one.stop()
                one.fit.close()


def run[T](fit: Fit[T]) -> T:
    """The result of one fit."""
    (result,) = run_all([fit])
    return result


def _advance(running: Sequence[_Running], pool: ThreadPoolExecutor, most: int) -> None:
    """Let go on whichever fits can; else wait, or answer batched calls once all wait for one."""
    going = [one for one in running if not one.done]
    ready = [one for one in going if one.futures and all(x.done() for x in one.futures)]
    if ready:
        for one in ready:
            error = next(filter(None, (x.exception() for x in one.futures)), None)
            if isinstance(error, Exception):
                one.fail(error)
            else:
                one.go_on([future.result() for future in one.futures], pool)
        return
    if futures := [future for one in going for future in one.futures]:
        wait([x for x in futures if not x.done()], return_when=FIRST_COMPLETED)
        return
    groups: dict[Any, list[_Running]] = {}
    for one in going:
        assert one.batched is not None
        groups.setdefault(one.batched.kind, []).append(one)
    for group in groups.values():
        asked = [one.batched for one in group if one.batched is not None]
        try:
            with TRACING:
                answers = _answers(asked, most)
        except Exception as error:
            for one in group:
                one.fail(error)
            continue
        for one, answer in zip(group, answers, strict=True):
            one.go_on(answer, pool)


def _answers(asked: Sequence[Batched], most: int) -> list[Any]:
    """Answers to calls of one kind, in NumPy; several are filled up to `most`, so that one number
    of them is compiled."""
    function, args, device = asked[0].function, [one.args for one in asked], asked[0].device
    if most == 1:
        with jax.default_device(device):
            return [jax.device_get(jax.jit(function)(*args[0]))]
    filled = args + args[:1] * (most - len(args))
    # Arrays are many and small: one by one, a device would take far longer to stack them.
    stacked = jax.tree.map(lambda *x: np.stack(x), *filled)
    with jax.default_device(device):
        found = jax.device_get(jax.jit(_mapped(function))(*stacked))
    return [jax.tree.map(lambda x, i=i: x[i], found) for i in range(len(args))]


@lru_cache(maxsize=8)
def _mapped(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.vmap(function)

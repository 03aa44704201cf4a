"""Calls of several threads answered as one: small work keeps no device busy but a CPU."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import jax
import numpy as np

_HERE = threading.local()


class _Asked:
    """A call that waits for its answer: a result, or what was raised."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.function, self.args = function, args
        self.result: Any = None
        self.error: Exception | None = None
        self.answered = False

    @property
    def kind(self) -> tuple[Any, ...]:
        """Equal for calls that one call can answer."""
        leaves, form = jax.tree.flatten(self.args)
        return self.function, form, tuple((x.shape, x.dtype) for x in leaves)


class Together:
    """Where threads meet: a call waits until all that have joined have one, then one answers all.

    Calls of one function with arguments of the same shapes are mapped over, by `jax.vmap`, and
    filled up to `most`, so that one number of them is compiled. Between calls no more than
    `at_work` threads are at work: hundreds would mostly wait for one another.
    """

    def __init__(self, most: int, at_work: int) -> None:
        self.most = most
        self.called = threading.Event()
        """Once there was a first call: what came before it is compiled."""
        self._at_work = threading.Semaphore(at_work)
        self._met = threading.Condition()
        self._joined = 0
        self._asked: list[_Asked] = []

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Within, this thread's calls by `call` are answered together with others'."""
        with self._met:
            self._joined += 1
        _HERE.together = self
        self._at_work.acquire()
        try:
            yield
        finally:
            self._at_work.release()
            _HERE.together = None
            with self._met:
                self._joined -= 1
                self._met.notify_all()

    def ask(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """The answer to a call, once all have one."""
        asked = _Asked(function, args)
        self.called.set()
        self._at_work.release()
        with self._met:
            self._asked.append(asked)
            # Answered by a thread that asked: JAX's settings are a thread's own.
            while not asked.answered:
                if len(self._asked) < self._joined:
                    self._met.wait()
                else:
                    self._answer()
        self._at_work.acquire()
        if asked.error:
            raise asked.error
        return asked.result

    def _answer(self) -> None:
        groups: dict[Any, list[_Asked]] = {}
        for asked in self._asked:
            groups.setdefault(asked.kind, []).append(asked)
        self._asked = []
        for group in groups.values():
            try:
                results = _all_of(group[0].function, [asked.args for asked in group], self.most)
                for asked, result in zip(group, results, strict=True):
                    asked.result = result
            except Exception as error:  # each thread raises it for itself
                for asked in group:
                    asked.error = error
            for asked in group:
                asked.answered = True
        self._met.notify_all()


def call(function: Callable[..., Any], *args: Any) -> Any:
    """What a function, compiled, makes of these arrays, in NumPy: with others' if this thread has
    joined."""
    together: Together | None = getattr(_HERE, "together", None)
    return together.ask(function, args) if together else _compiled(function, args)


def _all_of(function: Callable[..., Any], calls: list[tuple[Any, ...]], most: int) -> list[Any]:
    filled = calls + calls[:1] * (most - len(calls))
    # Arrays are many and small: one by one, a device would take far longer to stack them.
    found = _compiled(_mapped(function), jax.tree.map(lambda *x: np.stack(x), *filled))
    return [jax.tree.map(lambda x, i=i: x[i], found) for i in range(len(calls))]


def _compiled(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return jax.device_get(jax.jit(function)(*args))


@lru_cache(maxsize=8)
def _mapped(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.vmap(function)

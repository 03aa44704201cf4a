"""Fits of several ladders: the next are under way while one is read, here or on an executor."""

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import closing
from functools import partial
from typing import Any

import xarray as xr

from laddercast.data.ladder import Ladder
from laddercast.data.settings import as_list, check_whole
from laddercast.inference.executors import as_done
from laddercast.inference.fitting import prepare, settings_of_fits
from laddercast.sampling.progress import progress_bar
from laddercast.sampling.work import run, run_all

LEAST = 2
"""Fits at once on a CPU: chains have a core each, but not what comes before and after them."""

ON_DEVICE = 256
"""Fits at once on another device, where chains of all of them move as one batch: a step takes about
as long for all as for one."""


def fit_each(
    ladders: Sequence[Ladder] | Ladder,
    *,
    seeds: Sequence[int] | int | None = None,
    chains: int = 4,
    device: str = "cpu",
    executor: Executor | int | None = None,
    **settings: Any,
) -> Generator[xr.DataTree]:
    """The fit of each ladder, in their order; `settings` as `fit` takes them.

    `seeds` has one for each ladder, all 0 unless given. On a CPU chains of one fit run while others
    are prepared. On another device the chains of up to 256 fits move as one batch. Each is the same
    as `fit` gives. Warns and raises as `fit` does, but of suspicions tells only in the attribute.
    When the iterator is closed, ladders not yet begun are left alone.

    With an `executor`, fits are made there, one at a time in each of its processes, with the same
    draws on the same kind of processor. A number spawns as many processes on this machine, and
    replaces those that end early: RuntimeError where one fit has lost three. Any
    `concurrent.futures.Executor` will do whose processes are not forked, such as Dask's
    `Client(address).get_executor()`, which makes lost fits again by itself.

    >>> parts = [ladder.keep(ladder.models[:n]) for n in (8, 12)]
    >>> fits = list(lc.fit_each(parts, route="direct", within=ladder))
    """
    ladders = [ladders] if isinstance(ladders, Ladder) else list(ladders)
    numbers = [0] * len(ladders) if seeds is None else as_list(seeds)
    if len(numbers) != len(ladders):
        raise ValueError(f"seeds={seeds}: give one for each ladder, {len(ladders)}")
    settings |= {"chains": check_whole("chains", chains), "device": device}
    if executor is None:
        yield from _here(ladders, numbers, settings)
        return
    shown = settings.get("progress", True) and len(ladders) > 1
    done = each_result(
        ladders, [_itself] * len(ladders), seeds=numbers, executor=executor, **settings
    )
    early, turn = dict[int, xr.DataTree](), 0
    with closing(done), progress_bar(len(ladders), shown, "fits", "fit") as bar:
        for number, fitted in done:
            early[number] = fitted
            bar.update()
            while turn in early:
                yield early.pop(turn)
                turn += 1


def each_result[T](
    ladders: Sequence[Ladder],
    then: Sequence[Callable[[xr.DataTree], T]],
    *,
    seeds: Sequence[int],
    executor: Executor | int | None = None,
    **settings: Any,
) -> Generator[tuple[int, T]]:
    """What `then` makes of the fit of each ladder, with the ladder's number, as they are done.

    On an `executor` it is made there, where the fit is: it should be smaller. Settings as
    `fit_each` takes them; wrong ones are refused before the first fit.
    """
    if executor is None:
        with closing(fit_each(ladders, seeds=seeds, **settings)) as fits:
            for number, (of_fit, fitted) in enumerate(zip(then, fits, strict=True)):
                yield number, of_fit(fitted)
        return
    settings |= {"progress": False}
    for ladder, seed in zip(ladders, seeds, strict=True):
        # This machine may lack the device that workers have.
        prepare(ladder, seed=seed, **settings | {"device": "cpu"}).close()
    calls = [
        partial(_fit_then, ladder, of_fit, {"seed": seed} | settings)
        for ladder, of_fit, seed in zip(ladders, then, seeds, strict=True)
    ]
    with closing(as_done(calls, executor)) as done:
        yield from done


def _fit_then[T](ladder: Ladder, then: Callable[[xr.DataTree], T], settings: dict[str, Any]) -> T:
    # As in `fit`: priors have the precision that the caller's numbers have.
    work = prepare(ladder, **settings)
    with settings_of_fits():
        fitted = run(work)
    return then(fitted)


def _itself(fitted: xr.DataTree) -> xr.DataTree:
    return fitted


def _here(
    ladders: Sequence[Ladder], seeds: Sequence[int], settings: dict[str, Any]
) -> Iterator[xr.DataTree]:
    fits = [
        prepare(ladder, seed=seed, **settings) for ladder, seed in zip(ladders, seeds, strict=True)
    ]
    on_cores = max(LEAST, (os.cpu_count() or 1) // max(settings["chains"], 1))
    at_once = on_cores if settings["device"] == "cpu" else max(min(ON_DEVICE, len(fits)), 1)
    results = run_all(fits, at_once)
    # Settings hold while fits go on, not while a result is read.
    while True:
        with settings_of_fits():
            result = next(results, None)
        if result is None:
            return
        yield result

"""Fits of several ladders: the next are under way while one is read."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import xarray as xr
from threadpoolctl import threadpool_limits

from laddercast.data.ladder import Ladder
from laddercast.inference.fitting import fit
from laddercast.sampling.together import Together

LEAST = 2
"""Fits at once on a CPU: chains have a core each, but not what comes before and after them."""

ON_DEVICE = 256
"""Fits at once on another device, where chains of all of them move as one batch: a step takes about
as long for all as for one."""

AT_WORK = 4
"""Of these, as many at work between chains: that is mostly Python, in which threads wait for one
another, and more of them take longer for all."""


def fit_each(
    ladders: Sequence[Ladder],
    *,
    seeds: Sequence[int] | None = None,
    chains: int = 4,
    device: str = "cpu",
    **settings: Any,
) -> Iterator[xr.DataTree]:
    """The fit of each ladder, in their order; `settings` as `fit` takes them.

    `seeds` has one for each ladder, all 0 unless given. On a CPU the first is fitted alone, which
    compiles for all others of its shape, and of these several at once. On another device up to 256
    are, their chains as one batch. Warns and raises as `fit` does. When the iterator is closed,
    ladders not yet begun are left alone.
    """
    numbers = [0] * len(ladders) if seeds is None else list(seeds)
    settings = settings | {"chains": chains, "device": device}
    tasks = [
        (ladder, settings | {"seed": number})
        for ladder, number in zip(ladders, numbers, strict=True)
    ]
    on_cpu = device == "cpu"
    on_cores = max(LEAST, (os.cpu_count() or 1) // max(chains, 1))
    at_once = on_cores if on_cpu else max(min(ON_DEVICE, len(tasks)), 1)
    together = Together(at_once, AT_WORK)

    def one(ladder: Ladder, own: dict[str, Any]) -> xr.DataTree:
        with nullcontext() if on_cpu else together.joined():
            return fit(ladder, **own)

    alone = tasks[: int(on_cpu)]
    rest = tasks[len(alone) :]
    # As each fit has it: of limits that overlap, the last to end would leave another's behind.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(at_once) as threads:
        first = [one(*task) for task in alone]
        # No more than are under way: each fit takes memory until it is read.
        begun = deque[Future[xr.DataTree]]()
        for task in rest[:at_once]:
            begun.append(threads.submit(one, *task))
            if not on_cpu:
                # What comes before chains is compiled by the first, not by each thread.
                begun[0].add_done_callback(lambda _: together.called.set())
                together.called.wait()
        try:
            yield from first
            for task in rest[at_once:]:
                found = begun.popleft().result()
                begun.append(threads.submit(one, *task))
                yield found
            while begun:
                yield begun.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)

"""Fits of several ladders: the next are under way while one is read."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import xarray as xr
from threadpoolctl import threadpool_limits

from laddercast.inference import fit
from laddercast.ladder import Ladder

LEAST = 2
"""Fits at once on a CPU: chains have a core each, but not what comes before and after them."""


def fit_each(
    ladders: Sequence[Ladder],
    *,
    seeds: Sequence[int] | None = None,
    chains: int = 4,
    device: str = "cpu",
    **settings: Any,
) -> Iterator[xr.DataTree]:
    """The fit of each ladder, in their order; `settings` as `fit` takes them.

    `seeds` has one for each ladder, all 0 unless given. The first is fitted alone, which compiles
    for all others of its shape; of these, several are fitted at once on a CPU. Warns and raises as
    `fit` does. When the iterator is closed, ladders not yet begun are left alone.
    """
    numbers = [0] * len(ladders) if seeds is None else list(seeds)
    settings = settings | {"chains": chains, "device": device}
    tasks = [
        (ladder, settings | {"seed": number})
        for ladder, number in zip(ladders, numbers, strict=True)
    ]
    at_once = max(LEAST, (os.cpu_count() or 1) // max(chains, 1)) if device == "cpu" else 1
    # As each fit has it: of limits that overlap, the last to end would leave another's behind.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(at_once) as threads:
        first = [fit(ladder, **own) for ladder, own in tasks[:1]]
        # No more than are under way: each fit takes memory until it is read.
        begun = deque(threads.submit(fit, ladder, **own) for ladder, own in tasks[1 : 1 + at_once])
        try:
            yield from first
            for ladder, own in tasks[1 + at_once :]:
                found = begun.popleft().result()
                begun.append(threads.submit(fit, ladder, **own))
                yield found
            while begun:
                yield begun.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)

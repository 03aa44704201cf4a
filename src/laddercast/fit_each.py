"""Fits of several ladders: the next are under way while one is read."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import xarray as xr

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
    at_once = max(LEAST, (os.cpu_count() or 1) // chains) if device == "cpu" else 1
    threads = ThreadPoolExecutor(at_once)
    try:
        tasks = [
            (ladder, settings | {"seed": number})
            for ladder, number in zip(ladders, numbers, strict=True)
        ]
        first = [fit(ladder, **own) for ladder, own in tasks[:1]]
        rest = [threads.submit(fit, ladder, **own) for ladder, own in tasks[1:]]
        yield from first
        for future in rest:
            yield future.result()
    finally:
        threads.shutdown(cancel_futures=True)

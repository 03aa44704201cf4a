"""Fits of several ladders: the next are under way while one is read."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import xarray as xr

from laddercast.data.ladder import Ladder
from laddercast.data.settings import as_list, check_whole
from laddercast.inference.fitting import prepare, settings_of_fits
from laddercast.sampling.work import run_all

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
    **settings: Any,
) -> Iterator[xr.DataTree]:
    """The fit of each ladder, in their order; `settings` as `fit` takes them.

    `seeds` has one for each ladder, all 0 unless given. On a CPU chains of one fit run while others
    are prepared. On another device the chains of up to 256 fits move as one batch. Each is the same
    as `fit` gives. Warns and raises as `fit` does, but of suspicions tells only in the attribute.
    When the iterator is closed, ladders not yet begun are left alone.

    >>> parts = [ladder.keep(ladder.models[:n]) for n in (8, 12)]
    >>> fits = list(lc.fit_each(parts, route="direct", within=ladder))
    """
    ladders = [ladders] if isinstance(ladders, Ladder) else list(ladders)
    numbers = [0] * len(ladders) if seeds is None else as_list(seeds)
    if len(numbers) != len(ladders):
        raise ValueError(f"seeds={seeds}: give one for each ladder, {len(ladders)}")
    chains = check_whole("chains", chains)
    fits = [
        prepare(ladder, seed=number, chains=chains, device=device, **settings)
        for ladder, number in zip(ladders, numbers, strict=True)
    ]
    on_cores = max(LEAST, (os.cpu_count() or 1) // max(chains, 1))
    at_once = on_cores if device == "cpu" else max(min(ON_DEVICE, len(fits)), 1)
    results = run_all(fits, at_once)
    # Settings hold while fits go on, not while a result is read.
    while True:
        with settings_of_fits():
            result = next(results, None)
        if result is None:
            return
        yield result

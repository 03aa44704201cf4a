"""What a list of fits costs in this process and on workers, and what 1,000 would on 1, 2 and 100.

`python benchmarks/workers.py [--fits N] [--out FILE.csv]` fits N ladders (12) of 6 rungs and 2
tasks, `route="direct"`, 2 chains of 50 + 50 steps: in this process, on 1 and on 2 spawned ones
that compile all for themselves, and on 1 that finds all compiled. The model is fitted to the times
at which results come:

    seconds = start + fits / workers * each

`start` is what a worker does before its first fit: process, imports, compiling; it counts once, as
workers start side by side. `each` is of the fits after. Workers of one machine share its cores, and
`each` is measured for 1 and 2 of them; for 100 it is that of 1, which holds where each worker has
as many cores as this machine to itself. `processor` are seconds of processors, of all processes.
"""

import argparse
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from results import keep

import laddercast as lc
from laddercast.evaluation.simulation import demo_truth

MANY = 1000
QUICK: dict[str, Any] = {"route": "direct", "chains": 2, "warmup": 50, "draws": 50}
SIZES, TOKENS_PER_PARAM = (200e6, 400e6, 800e6), (20, 100)


def ladders(count: int) -> list[lc.Ladder]:
    """Ladders of one shape and one truth, with noise of their own."""
    truth = demo_truth().loc[["hellaswag", "piqa"]]
    given = {"sizes": SIZES, "tokens_per_param": TOKENS_PER_PARAM}
    return [lc.simulate(truth, seed=seed, **given)[0] for seed in range(count)]


def ends(parts: list[lc.Ladder], executor: int | None) -> Iterator[float]:
    """Seconds until each fit is there."""
    begin = time.perf_counter()
    for _ in lc.fit_each(parts, executor=executor, progress=False, **QUICK):
        yield time.perf_counter() - begin


def start_and_each(times: list[float], workers: int) -> tuple[float, float]:
    """The model's two numbers from when each result came: the first of each worker is its start."""
    after = np.array(times[workers - 1 :])
    slope = np.polyfit(np.arange(len(after)), after, 1)[0] if len(after) > 1 else np.nan
    return times[0] - slope * workers, slope * workers


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fits", type=int, default=12)
    parser.add_argument("--out", type=Path, help="a CSV file for the rows")
    given = parser.parse_args()
    warnings.simplefilter("ignore", lc.LaddercastWarning)
    parts, rows = ladders(given.fits), []
    with TemporaryDirectory() as folder:
        for where, executor, compiled in (
            ("this process", None, "off"),
            ("2 workers", 2, "off"),
            ("1 worker", 1, folder),
            ("1 worker, all compiled before", 1, folder),
        ):
            os.environ["LADDERCAST_COMPILED"] = compiled
            before = sum(os.times()[:4])
            times = list(ends(parts, executor))
            processor = sum(os.times()[:4]) - before
            start, each = start_and_each(times, executor or 1)
            rows.append((where, executor or 1, len(parts), times[-1], processor, start, each))
            print(f"{where}: {len(parts)} fits in {times[-1]:.1f} s", flush=True)
    words = ["where", "workers", "fits", "seconds", "processor", "start", "each"]
    table = pd.DataFrame(rows, columns=words)
    alone = table.iloc[2]
    far = {"where": "100 workers, each with cores of its own", "workers": 100}
    table.loc[len(table)] = far | {"start": alone["start"], "each": alone["each"]}
    table[f"of_{MANY}"] = table["start"] + MANY / table["workers"] * table["each"]
    table["cores"] = os.cpu_count()
    print(table.round(1).to_string(index=False))
    keep(table, given.out)


if __name__ == "__main__":
    main()

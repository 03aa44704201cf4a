"""Many fits as the package makes them (`fit_each`), against one after another (`fit`).

`python benchmarks/many.py [--short] [--device cpu|gpu] [--route NAME ...] [--out FILE.csv]` prints
seconds of both and their ratio, for 32 folds of the demo's ladder (each rung held out, then each
two that follow one another; arrays filled up to those of the whole ladder, as backtests do) and
for 64 simulated ladders of one shape. What is compiled is so before, by one fit of each; on a GPU
also by one batch. `--short`: 4 folds, 4 ladders, few draws.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from results import keep

import laddercast as lc

FOLDS, LADDERS, SHORT = 32, 64, 4
SIZES, TOKENS_PER_PARAM = (190e6, 370e6, 760e6, 1.28e9), (20, 40, 100, 200)


def folds(count: int) -> tuple[list[lc.Ladder], dict[str, Any]]:
    """What is left of the demo's ladder without a rung, or two; and settings of their fits."""
    whole, _, _ = lc.demo_ladder()
    names = whole.models
    held_out = [[name] for name in names] + [
        [name, names[(at + 1) % len(names)]] for at, name in enumerate(names)
    ]
    return [whole.split(hold_out=out)[0] for out in held_out[:count]], {"within": whole}


def ladders(count: int) -> tuple[list[lc.Ladder], dict[str, Any]]:
    """Ladders of one shape and one truth, with noise of their own."""
    _, _, truth = lc.demo_ladder()
    given = {"sizes": SIZES, "tokens_per_param": TOKENS_PER_PARAM}
    return [lc.simulate(truth, seed=seed, **given)[0] for seed in range(count)], {}


def seconds(fits: Callable[[], Iterable[Any]]) -> tuple[float, int]:
    """How long all take, and how many of them converged."""
    begin = time.perf_counter()
    converged = sum(fitted.attrs["converged"] for fitted in fits())
    return time.perf_counter() - begin, converged


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--route", nargs="+", default=["two_stage"])
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--out", type=Path, help="a CSV file for the rows")
    given = parser.parse_args()
    warnings.simplefilter("ignore", lc.NotConvergedWarning)
    settings = {"device": given.device, "route": given.route, "progress": False}
    settings |= {"warmup": 50, "draws": 50} if given.short else {"draws": given.draws}
    rows = []
    for what, made, count in (("folds", folds, FOLDS), ("ladders", ladders, LADDERS)):
        parts, more = made(SHORT if given.short else count)
        more |= settings
        lc.fit(parts[0], **more)
        if given.device == "gpu":
            list(lc.fit_each(parts, **more))
        alone, converged = seconds(lambda: (lc.fit(part, **more) for part in parts))  # noqa: B023
        together, _ = seconds(lambda: lc.fit_each(parts, **more))  # noqa: B023
        rows.append((what, given.device, len(parts), converged, alone, together, alone / together))
        words = ["what", "device", "fits", "converged", "alone_s", "together_s", "ratio"]
        print(pd.DataFrame(rows[-1:], columns=words).to_string(index=False), flush=True)
        keep(pd.DataFrame(rows, columns=words), given.out)


if __name__ == "__main__":
    main()

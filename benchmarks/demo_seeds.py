"""How often the demo's intervals hold, over many seeds.

`python benchmarks/demo_seeds.py --count N [--out FILE.csv]` fits the demo of seeds 0 to N - 1, as
`laddercast demo --seed` does. It prints of each seed how many of its 16 accuracies, as they would
be measured, lie inside the 50, 80 and 95 % intervals, then the shares over all seeds with their
standard errors. Cells of a seed err together, so standard errors are of the seeds' shares. Seeds
that FILE has already are not fitted again.
"""

import argparse
import sys
import warnings
from pathlib import Path

import pandas as pd
from results import keep

import laddercast as lc
from laddercast.evaluation.scores import score_cells

LEVELS = ("inside50", "inside80", "inside95")


def cells_of(seed: int) -> pd.DataFrame:
    """Every accuracy of one seed, whether its intervals hold it, and the truth, in points."""
    ladder, targets, _ = lc.demo_ladder(seed)
    fitted = lc.fit(ladder, seed=seed, progress=False)
    forecast = lc.forecast(fitted, targets, seed=seed)
    cells = score_cells(forecast)
    cells = cells[cells["quantity"] == "accuracy"]
    truth = targets.set_index(["model", "task"])["law_accuracy"]
    cells = cells.join(100 * truth.rename("truth"), on=["model", "task"])
    converged = int(forecast.attrs["converged"])
    return cells.assign(seed=seed, converged=converged)


def main() -> None:
    """Fit what is not known yet, then count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10, help="seeds, from 0 (default: 10)")
    parser.add_argument("--out", type=Path, help="a CSV file of the cells, to go on from")
    given = parser.parse_args()
    warnings.filterwarnings("ignore", category=lc.FarTargetWarning)
    warnings.filterwarnings("ignore", category=lc.NotConvergedWarning)
    known = given.out is not None and given.out.exists()
    parts = [pd.read_csv(given.out)] if known else []
    done = set(parts[0]["seed"]) if known else set()
    for seed in range(given.count):
        if seed in done:
            continue
        parts.append(cells_of(seed))
        keep(pd.concat(parts, ignore_index=True), given.out)
        print(f"seed {seed}", file=sys.stderr, flush=True)
    cells = pd.concat(parts, ignore_index=True)
    cells = cells[cells["seed"] < given.count]
    by_seed = cells.groupby("seed")
    shown = by_seed[[*LEVELS]].sum().astype(int)
    shown["cells"] = by_seed.size()
    shown["error"] = by_seed["error"].mean().round(2)
    shown["converged"] = by_seed["converged"].min()
    print("accuracies inside their intervals, by seed; error in points")
    print(shown.to_string())
    shares = by_seed[[*LEVELS]].mean()
    for level in LEVELS:
        share, error = shares[level].mean(), shares[level].sem()
        print(f"inside the {level[-2:]} % interval: {share:.0%} (standard error {error:.0%})")
    print(f"{len(cells)} accuracies of {len(shares)} seeds, of simulated ladders")


if __name__ == "__main__":
    main()

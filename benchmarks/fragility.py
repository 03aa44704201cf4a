"""What becomes of forecasts when one size or one rung of a ladder is dropped.

`python benchmarks/fragility.py [--out FILE.csv]`, on the paper's ladder in LADDERCAST_DATA and its
targets, of which no measurement is read: the share of cells in which the median without a size, or
without a rung, lies inside the 80 % interval of the whole ladder.
"""

import argparse
import os
import sys
import warnings
from pathlib import Path

import pandas as pd
from results import keep

import laddercast as lc

DATA = Path(__file__).parents[2] / "shared" / "data"


def main() -> None:
    """Fit the whole, and what is left without each part; print shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="a CSV file for the cells")
    given = parser.parse_args()
    warnings.filterwarnings("ignore", "target .* (lies|has) ")
    data = Path(os.environ.get("LADDERCAST_DATA", DATA))
    ladder = lc.read_ladder(data / "olmo_ladder.csv", data / "olmo_tasks.csv")
    goals = lc.read_targets(data / "olmo_targets.csv")
    goals = goals[["model", "params", "tokens", "checkpoints"]].drop_duplicates()
    sizes = {model.split("-")[0] for model in ladder.models}
    parts = [("size", s, [m for m in ladder.models if m.split("-")[0] == s]) for s in sorted(sizes)]
    parts += [("rung", model, [model]) for model in ladder.models]

    def forecast(rungs: lc.Ladder) -> tuple[pd.DataFrame, bool]:
        tree = lc.forecast(lc.fit(rungs, within=ladder, progress=False), goals)
        table = lc.forecast_table(tree)
        table = table[table["quantity"] == "accuracy"].set_index(["model", "task"])
        return table, bool(tree.attrs["converged"])

    whole, converged = forecast(ladder)
    rows = []
    for kind, name, models in parts:
        kept = [model for model in ladder.models if model not in models]
        table, also = forecast(ladder.keep(kept))
        inside = table["q50"].between(whole["q10"], whole["q90"])
        moved = 100 * (table["q50"] - whole["q50"])
        rows.append(
            pd.DataFrame({"moved": moved, "inside": inside})
            .reset_index()
            .assign(dropped=kind, name=name, converged=converged and also)
        )
        print(f"without {name}: {inside.mean():.2f} inside", file=sys.stderr, flush=True)
    cells = pd.concat(rows, ignore_index=True)
    keep(cells, given.out)
    cells["moved"] = cells["moved"].abs()
    print(
        cells.groupby("dropped")
        .agg(
            fits=("name", "nunique"),
            cells=("inside", "size"),
            inside=("inside", "mean"),
            moved=("moved", "mean"),
            most=("moved", "max"),
            converged=("converged", "mean"),
        )
        .round(3)
        .to_string()
    )


if __name__ == "__main__":
    main()

"""Many real ladders, with the package's defaults beside simple rivals.

`python benchmarks/zoo.py --out DIR [--targets] [--only NAME ...]`: the ladders in LADDERCAST_DATA
are the zoo's, gadre's corpora and the paper's. Of each, parts are held out by size and by length,
the rest is fitted and forecasts them. With `--targets` the whole ladder is fitted and its targets
are forecast, to be looked at once, when nothing is to be chosen any more. Rivals see the same
rungs: the published method and its bootstrap where there are losses, logistic curves in the log of
compute, the best rung. Cells go to DIR/cells.csv as they are found (what is there is not fitted
again), the table to docs/accuracy_zoo.md.
"""

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from results import keep

import laddercast as lc
from laddercast.data.temporary import write_whole
from laddercast.evaluation.scores import score_cells

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("LADDERCAST_DATA", ROOT.parent / "shared" / "data"))
SOLVED = 0.10
"""A task whose best small model lies above chance by this much is not too hard for the ladder."""

HARNESSES = ("opt", "llama", "starcoder")


class Source(NamedTuple):
    """A ladder and its targets, before either is read."""

    name: str
    table: pd.DataFrame
    tasks: Path | None
    rungs: str
    targets: pd.DataFrame


def wanted(only: Sequence[str] | None) -> Iterator[Source]:
    """All ladders, or those whose names begin with one of these."""
    for source in sources():
        if not only or source.name.startswith(tuple(only)):
            yield source


def sources() -> Iterator[Source]:
    """All ladders; rows of targets are never among a ladder's."""
    yield Source(
        "paper", pd.read_csv(DATA / "olmo_ladder.csv"), DATA / "olmo_tasks.csv", "last",
        pd.read_csv(DATA / "olmo_targets.csv"),
    )  # fmt: skip
    zoo = DATA / "zoo"
    for name in ("pythia", *HARNESSES):
        table, targets = (pd.read_csv(zoo / name / f"{x}.csv") for x in ("ladder", "targets"))
        rungs = "every" if name == "pythia" else "last"
        yield Source(name, table, zoo / name / "tasks.csv", rungs, targets)
    table, targets = (pd.read_csv(zoo / "dclm" / f"{x}.csv") for x in ("ladder", "targets"))
    for recipe, own in table.groupby("recipe"):
        here = targets[targets["recipe"] == recipe]
        yield Source(f"dclm {recipe}", own, zoo / "dclm" / "tasks.csv", "last", here)
    table = pd.read_csv(DATA / "gadre.csv")
    small = table[table["params"] < 1e9]
    above = (small["accuracy"] - small["chance"]).groupby([small["recipe"], small["task"]]).max()
    solved = above.groupby("task").min()
    easy = set(solved.index[solved > SOLVED])
    for recipe, own in table.groupby("recipe"):
        rungs, large = own[own["params"] < 1e9], own[own["params"] > 1e9]
        yield Source(
            f"gadre {recipe}", rungs[rungs["task"].isin(easy)], None, "last",
            large[large["task"].isin(easy)],
        )  # fmt: skip
    rungs, large = (x[x["recipe"] == "rpj"] for x in (small, table[table["params"] > 1e9]))
    yield Source("gadre rpj, all tasks", rungs, None, "last", large)
    table, targets = (pd.read_csv(zoo / "farseer" / f"{x}.csv") for x in ("ladder", "targets"))
    yield Source("farseer", table, None, "last", targets)


def ends_of(ladder: lc.Ladder) -> pd.DataFrame:
    """Params, and tokens at its end, of each run."""
    return ladder.table.groupby("model").agg(params=("params", "first"), tokens=("tokens", "max"))


def parts(
    source: Source, of_targets: bool
) -> Iterator[tuple[str, lc.Ladder, pd.DataFrame, lc.Ladder]]:
    """What is forecast: its name, the rungs to fit, held-out measurements, the whole ladder."""
    table = source.table.drop(columns="recipe", errors="ignore")
    ladder = lc.read_ladder(table, source.tasks, rungs=source.rungs)
    if of_targets:
        targets = source.targets.drop(columns="recipe", errors="ignore")
        known = targets["task"].isin(ladder.tasks.index)
        yield "targets", ladder, lc.read_targets(targets[known]), ladder
        return
    ends = ends_of(ladder)
    compute = ends["params"].astype(float) * ends["tokens"]
    sizes = np.sort(ends["params"].unique())
    out = {
        "largest": ends.index[ends["params"] >= sizes[-1]],
        "larger half": ends.index[ends["params"] >= sizes[len(sizes) // 2]],
    }
    if len(ends) - len(out["largest"]) < 2:
        out = {"largest": [compute.idxmax()]}
    ratio = ends["tokens"] / ends["params"]
    middle = np.sqrt(ratio.min() * ratio.max())
    if source.rungs == "last" and ratio.max() > 4 * ratio.min() and len(sizes) > 2:
        out["longer"] = ends.index[ratio > middle]
    seen = set()
    for name, models in out.items():
        if frozenset(models) in seen or len(ends) - len(models) < 2:
            continue
        seen.add(frozenset(models))
        yield name, *ladder.split(hold_out=list(models)), ladder


def scored(tree: xr.DataTree) -> pd.DataFrame:
    """Cells of a forecast, and of its mean over tasks."""
    cells = score_cells(tree)
    if "accuracy" in set(cells["quantity"]):
        means = score_cells(lc.mean_over_tasks(tree))
        cells = pd.concat([cells, means[means["quantity"] == "accuracy"]])
    return cells


def points(table: pd.DataFrame) -> pd.DataFrame:
    """Cells of a point forecast, in points."""
    known = table[(table["quantity"] == "accuracy") & table["measured"].notna()]
    error = 100 * (known["q50"] - known["measured"])
    return known[["model", "task", "quantity"]].assign(
        median=100 * known["q50"], measured=100 * known["measured"], error=error.abs(),
        crps=error.abs(),
    )  # fmt: skip


def rivals(rungs: lc.Ladder, held_out: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Cells of each rival that these rungs allow."""
    if "accuracy" not in rungs.table:
        return
    yield "best rung", points(lc.best_rung(rungs, held_out))
    yield "logistic", points(lc.logistic(rungs, held_out))
    yield "logistic, free end", points(lc.logistic(rungs, held_out, lower="free"))
    losses = {"loss": "two_step", "reference_loss": "two_step_c4_p0fix"}
    method = next((own for word, own in losses.items() if word in rungs.table), None)
    try:
        if method:
            yield "published", points(lc.baseline(rungs, held_out, [method]))
        if method == "two_step":
            yield "bootstrap", scored(lc.bootstrap(rungs, held_out))
    except ValueError as reason:
        print(f"  published: {reason}", file=sys.stderr)


def run(source: Source, of_targets: bool, done: set[tuple[str, str]]) -> Iterator[pd.DataFrame]:
    """Cells of each part of a ladder that is not done."""
    for name, rungs, held_out, whole in parts(source, of_targets):
        if (source.name, name) in done:
            continue
        begin = time.perf_counter()
        try:
            fitted = lc.fit(rungs, progress=False, within=whole)
            seconds, converged = time.perf_counter() - begin, fitted.attrs["converged"]
            own = scored(lc.forecast(fitted, held_out))
            outcome = "converged" if converged else fitted.attrs["complaints"]
            if left_out := json.loads(fitted.attrs["left_out"]):
                outcome += f" without {', '.join(left_out)}"
        except Exception as error:  # an outcome, to be told
            own, outcome = pd.DataFrame({"quantity": ["accuracy"]}), f"failed: {error}"
            seconds = time.perf_counter() - begin
        print(
            f"{source.name}, {name}: {seconds:.0f} s, {outcome[:150]}", file=sys.stderr, flush=True
        )
        found = [own.assign(method="laddercast", seconds=seconds, outcome=outcome[:300])]
        found += [table.assign(method=method) for method, table in rivals(rungs, held_out)]
        yield pd.concat(found).assign(ladder=source.name, part=name)


COLUMNS = (
    "ladder", "part", "method", "model", "task", "quantity", "median", "measured", "error", "crps",
    "pit", "inside50", "inside80", "inside95", "width80", "seconds", "outcome",
)  # fmt: skip
SIMPLE = ("best rung", "logistic", "logistic, free end")


HEAD = """# Many ladders

Made by `python benchmarks/zoo.py --out DIR`, then with `--targets`; what has no row was not run.
Accuracies are in points, losses in percent of what was measured, shares between 0 and 1. `seconds`
are those of the slowest fit of a ladder, compilation and whatever else the machine did included.

"""


def summary(cells: pd.DataFrame) -> pd.DataFrame:
    """A row a ladder, quantity and method: accuracies in points, losses in percent of them."""
    cells = cells.dropna(subset=["error"])
    # Columns that rivals lack are not of numbers where parts were put together.
    cells = cells.astype(dict.fromkeys(COLUMNS[6:16], float))
    cells = cells.assign(bias=cells["median"] - cells["measured"])
    errors = ["error", "bias", "crps", "width80"]
    unit = np.where(cells["quantity"] == "accuracy", 1.0, 100 / cells["measured"])
    cells[errors] = cells[errors].mul(unit, axis=0)
    single = cells[cells["task"] != "all"]
    by = ["ladder", "quantity", "method"]
    table = single.groupby(by, sort=False).agg(
        cells=("error", "size"), MAE=("error", "mean"), bias=("bias", "mean"),
        CRPS=("crps", "mean"), inside50=("inside50", "mean"), inside80=("inside80", "mean"),
        inside95=("inside95", "mean"), width80=("width80", "mean"), seconds=("seconds", "max"),
    )  # fmt: skip
    means = cells[cells["task"] == "all"].groupby(by, sort=False)["inside80"].mean()
    table["mean over tasks inside80"] = means
    return table.reset_index()


def pooled(table: pd.DataFrame) -> pd.DataFrame:
    """Ours over all ladders, each counting equally, and its error over the best simple rival's."""
    own = table[(table["method"] == "laddercast") & (table["quantity"] == "accuracy")]
    rows = own.set_index("ladder")
    # The large runs of dclm have another learning rate than its rungs, so that forecasts are high,
    # and "as good as the best rung" is right for a reason of its own.
    of_rung = (table["method"] == SIMPLE[0]) & table["ladder"].str.startswith("dclm")
    simple = table[table["method"].isin(SIMPLE) & ~of_rung].groupby("ladder")["MAE"].min()
    ratio = (rows["MAE"] / simple).dropna()
    numbers = rows[["inside50", "inside80", "inside95", "mean over tasks inside80"]].mean()
    numbers["MAE over best simple rival's (geometric mean)"] = np.exp(np.log(ratio).mean())
    numbers["the same, worst ladder"] = ratio.max()
    numbers["CRPS (geometric mean)"] = np.exp(np.log(rows["CRPS"]).mean())
    return numbers.rename("").to_frame()


def main() -> None:
    """Fit what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of cells.csv")
    parser.add_argument("--targets", action="store_true", help="forecast targets")
    parser.add_argument("--only", nargs="+", help="names of ladders, or how they begin")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "cells.csv"
    cells = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=list(COLUMNS))
    warnings.simplefilter("ignore")
    for source in wanted(given.only):
        done = set(zip(cells["ladder"], cells["part"], strict=True))
        for found in run(source, given.targets, done):
            cells = pd.concat([cells, found.reindex(columns=list(COLUMNS))], ignore_index=True)
            keep(cells, path)
    kinds = cells["part"] == "targets"
    text = ""
    for title, here in (("Inside ladders", cells[~kinds]), ("Targets", cells[kinds])):
        if here.empty:
            continue
        table = summary(here)
        text += (
            f"## {title}\n\n```\n{table.to_string(index=False, float_format='{:.2f}'.format)}\n\n"
        )
        text += f"{pooled(table).to_string(float_format='{:.2f}'.format, header=False)}\n```\n\n"
    print(text)
    write_whole(ROOT / "docs" / "accuracy_zoo.md", f"{HEAD}{text}".encode())


if __name__ == "__main__":
    main()

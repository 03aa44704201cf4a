"""Regenerate the tables of docs/accuracy.md from the measured ladders in LADDERCAST_DATA.

`python benchmarks/accuracy.py --out DIR`: every fit with the package's defaults, seed 0. Scores
of every cell go to DIR/cells.csv as they are found (a set that is there is not fitted again), then
the tables to docs/accuracy_tables.md and a figure to docs/accuracy.png. `--only SET ...` fits some.
"""

import argparse
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import xarray as xr
from results import keep

import laddercast as lc
from laddercast.data.temporary import write_whole
from laddercast.evaluation.scores import score_cells
from laddercast.forecasting.pools import pool
from laddercast.inference.results import routes_of
from laddercast.model.routes import POOLED_BY_DEFAULT, ROUTES

ROOT = Path(__file__).parents[1]
SIZES = ("190M", "370M", "760M", "1.3B")
NAMES = {"two_stage": "task loss", "by_reference": "reference loss"}
SOLVED = 0.10
"""Above chance by this much, a task of the second family is solved by a small model."""


class Cells(NamedTuple):
    """Rungs to fit and what they forecast; a larger ladder whose compiled code the fit shares."""

    name: str
    rungs: lc.Ladder
    targets: pd.DataFrame
    within: lc.Ladder


def olmo(data: Path) -> Iterator[Cells]:
    """Sets of the OLMo ladder, of which no target is in reach of a fit."""
    paper = pd.read_csv(data / "olmo_ladder.csv")
    extra = pd.read_csv(data / "olmo_extra_rungs.csv")
    large = extra[extra["model"].isin([f"3.2B-{n}xC" for n in (1, 2, 5, 10)])]
    tasks = data / "olmo_tasks.csv"
    ladder = lc.read_ladder(paper, tasks)
    whole = lc.read_ladder(pd.concat([paper, large]), tasks)
    goals = lc.read_targets(pd.read_csv(data / "olmo_targets.csv"))
    tasks_13 = pd.read_csv(data / "olmo_tasks_13.csv")["task"]
    goals_of = {
        number: goals[goals["task"].isin(set(names))]
        for number, names in ((8, ladder.tasks.index), (13, tasks_13))
    }

    def upto(count: int) -> tuple[lc.Ladder, pd.DataFrame]:
        """The smallest sizes of all five, and the larger of 1.3B and 3.2B as targets."""
        chosen = [m for m in whole.models if m.split("-")[0] in (*SIZES, "3.2B")[:count]]
        beyond = [m for m in whole.models if m.split("-")[0] in ("1.3B", "3.2B")]
        _, held_out = whole.split(hold_out=[m for m in beyond if m not in chosen])
        return whole.keep(chosen), held_out

    for name, count, sizes in (
        ("3.2B", 4, ("3.2B",)), ("1.3B", 3, ("1.3B",)), ("760M to 3.2B", 3, ("3.2B",)),
        ("370M to 1.3B, 3.2B", 2, ("1.3B", "3.2B")),
    ):  # fmt: skip
        rungs, held_out = upto(count)
        here = held_out["model"].str.split("-").str[0].isin(sizes)
        yield Cells(name, rungs, held_out[here], ladder)
    short, longer = ladder.split(max_tokens_per_param=45)
    yield Cells("long", short, longer, ladder)
    yield Cells("targets", ladder, goals_of[8], ladder)
    for size in SIZES:
        rest = [m for m in ladder.models if m.split("-")[0] != size]
        yield Cells(f"targets without {size}", ladder.keep(rest), goals_of[8], ladder)
    yield Cells("targets with 3.2B", whole, goals_of[8], whole)
    many = lc.read_ladder(paper, data / "olmo_tasks_13.csv")
    yield Cells("targets, 13 tasks", many, goals_of[13], many)


def gadre(data: Path) -> Iterator[Cells]:
    """Models under 1B to the larger, per corpus, on the tasks that a small one solves."""
    table = pd.read_csv(data / "gadre.csv")
    small = table[table["params"] < 1e9]
    above = (small["accuracy"] - small["chance"]).groupby(small["task"]).max()
    solved = table[table["task"].isin(above.index[above > SOLVED])]
    ladders = {name: lc.read_ladder(corpus) for name, corpus in solved.groupby("recipe")}
    largest = max(ladders.values(), key=lambda ladder: len(ladder.models))
    for name, ladder in ladders.items():
        rungs, held_out = ladder.split(max_params=1e9)
        yield Cells(f"gadre {name}", rungs, held_out, largest)


POOLED_NAMES = [route.name for route in POOLED_BY_DEFAULT]


def forecasts(cells: Cells, fitted: xr.DataTree) -> dict[str, pd.DataFrame]:
    """Scored cells of the default, of each route alone, of other pools, of rivals."""
    alone = {name: lc.forecast(tree, cells.targets) for name, tree in routes_of(fitted).items()}
    # As `lc.forecast` of a fit pools them by default.
    found = {"laddercast": pool([alone[name] for name in POOLED_NAMES if name in alone])} | alone
    if "chain" in alone:
        found["with the chain"] = pool(list(alone.values()))
        found["no reference loss"] = pool([alone["two_stage"], alone["direct"]])
    scored = {name: score_cells(tree) for name, tree in found.items()}
    for name, tree in found.items():
        scored[name]["converged"] = int(lc.diagnose(tree).empty)
    scored["bootstrap"] = score_cells(lc.bootstrap(cells.rungs, cells.targets))
    loss = "two_step" if "two_stage" in alone else "two_step_c4_p0fix"
    for name, table in (
        ("published", lc.baseline(cells.rungs, cells.targets, [loss])),
        ("best rung", lc.best_rung(cells.rungs, cells.targets)),
        ("lowest-loss rung", lc.lowest_loss_rung(cells.rungs, cells.targets)),
    ):
        points = table[(table["quantity"] == "accuracy") & table["measured"].notna()]
        error = 100 * (points["q50"] - points["measured"]).abs()
        scored[name] = points[["model", "task", "quantity"]].assign(
            error=error, crps=error, measured=100 * points["measured"], median=100 * points["q50"]
        )
    return scored


WORDS = (
    "set", "method", "model", "task", "median", "measured", "error", "crps", "pit", "inside50",
    "inside80", "inside95", "width80", "converged",
)  # fmt: skip

GROUPS = {
    "targets": ("targets",),
    "3.2B": ("3.2B",),
    "1.3B": ("1.3B",),
    "long": ("long",),
    "pooled": ("3.2B", "1.3B", "long"),
    "far": ("370M to 1.3B, 3.2B", "760M to 3.2B"),
    **{f"targets without {size}": (f"targets without {size}",) for size in SIZES},
    "targets with 3.2B": ("targets with 3.2B",),
    "targets, 13 tasks": ("targets, 13 tasks",),
    "gadre": ("gadre c4_original", "gadre rpj", "gadre rw_original"),
}
METHODS = (
    "laddercast", *ROUTES, "with the chain", "no reference loss", "bootstrap", "published",
    "best rung", "lowest-loss rung",
)  # fmt: skip


def tables(cells: pd.DataFrame) -> str:
    """Markdown: one table a set, a row per method."""
    parts = []
    for name, sets in GROUPS.items():
        here = cells[cells["set"].isin(sets)]
        if set(here["set"]) != set(sets) and not name.startswith("gadre"):
            continue
        if here.empty:
            continue
        rows = []
        for method in METHODS:
            own = here[here["method"] == method].dropna(subset=["error"])
            if own.empty:
                continue
            bias = (own["median"] - own["measured"]).mean()
            row = [NAMES.get(method, method), f"{len(own)}", f"{own['error'].mean():.2f}",
                   f"{bias:+.2f}", f"{own['crps'].mean():.2f}"]  # fmt: skip
            if own["inside80"].notna().all():
                inside = [
                    100 * own[f"inside{level}"].astype(float).mean() for level in (50, 80, 95)
                ]
                row += [
                    " / ".join(f"{share:.0f}" for share in inside),
                    f"{own['width80'].mean():.1f}",
                ]
            else:
                row += ["-", "-"]
            rows.append(row)
        head = ["method", "cells", "error", "bias", "CRPS", "inside 50 / 80 / 95 %", "80 % width"]
        lines = ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows)]
        parts.append("\n".join([f"### {name}", "", *lines]))
    return "\n\n".join(parts) + "\n"


def draw(cells: pd.DataFrame, path: Path) -> None:
    """Coverage and PIT of the default forecast, near (the set `pooled`) and far."""
    distance = dict.fromkeys(GROUPS["pooled"], "near") | dict.fromkeys(GROUPS["far"], "far")
    own = cells[(cells["method"] == "laddercast") & cells["set"].isin(set(distance))]
    if own.empty:
        return
    axes = lc.plot_calibration(own.assign(quantity="accuracy", distance=own["set"].map(distance)))
    axes[0].figure.savefig(path, dpi=150)


def main() -> None:
    """Fit what is missing, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of cells.csv")
    parser.add_argument("--only", nargs="+", help="names of sets to fit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tables", type=Path, default=ROOT / "docs" / "accuracy_tables.md")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "accuracy.png")
    given = parser.parse_args()
    data = Path(os.environ.get("LADDERCAST_DATA", ROOT.parent / "shared" / "data"))
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "cells.csv"
    fits: dict[str, xr.DataTree] = {}
    done = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=list(WORDS))
    warnings.simplefilter("ignore", lc.FarTargetWarning)
    warnings.filterwarnings("ignore", "the forecast has not converged")
    for cells in (*olmo(data), *gadre(data)):
        if cells.name in set(done["set"]) or (given.only and cells.name not in given.only):
            continue
        begin = time.perf_counter()
        key = cells.rungs.fingerprint
        if key not in fits:
            # Ladders with a task loss have a reference loss, too.
            route = list(ROUTES.values()) if "loss" in cells.rungs.table else None
            fits[key] = lc.fit(
                cells.rungs, route=route, seed=given.seed, within=cells.within, progress=False
            )
        for method, table in forecasts(cells, fits[key]).items():
            own = table[table["quantity"] == "accuracy"]
            done = pd.concat(
                [done, own.assign(set=cells.name, method=method).reindex(columns=list(WORDS))],
                ignore_index=True,
            )
        keep(done, path)
        print(f"{cells.name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
    text = tables(done)
    write_whole(given.tables, text.encode())
    draw(done, given.figure)
    print(text)


if __name__ == "__main__":
    main()

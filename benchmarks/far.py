"""How wide discrepancy beyond a ladder has to be, asked of rungs that lie far beyond others.

`python benchmarks/far.py --out DIR [--only NAME ...] [--route ROUTE ...]`: of each ladder in
LADDERCAST_DATA (the paper's with its 3.2B rungs) only the smallest sizes, or the cheapest runs, are
fitted, and all others are forecast: by the draws as they are, and by the same draws with other
scales of discrepancy, or another part of it common to tasks, which change nothing inside the rungs.
No target is read. Cells go to DIR as they are found (what is there is not fitted again). Printed
are the differences in log score (of a Student-t with 4 degrees of freedom and the median and 80 %
interval of the forecast), above zero where a variant is better, and shares inside intervals; each
family of ladders counts equally.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
import zoo
from results import keep
from scipy.stats import norm, t

import laddercast as lc

ROUTES = "direct", "by_reference", "two_stage"
SIZES_FROM = 2
"""So many of the smallest sizes are fitted, at least."""

CHEAPEST = 0.4, 0.6
"""Shares of runs that are fitted, where a ladder has `MANY` or more."""

MANY = 8

type Variant = tuple[float, float | None]

VARIANTS: dict[str, Variant] = {
    "as it is": (1.0, None),
    "scales x 0.7": (0.7, None),
    "scales x 1.4": (1.4, None),
    "scales x 2": (2.0, None),
    "scales x 2.8": (2.8, None),
    "0.4 in common": (1.0, 0.4),
    "0.7 in common": (1.0, 0.7),
}
"""By what the scales are multiplied, and the part of their square that tasks have in common."""


def folds(source: zoo.Source) -> Iterator[tuple[str, lc.Ladder, lc.Ladder, lc.Ladder]]:
    """What is fitted, what is forecast, and the whole ladder."""
    table = source.table.drop(columns="recipe", errors="ignore")
    if source.name == "paper":
        more = pd.read_csv(zoo.DATA / "olmo_extra_rungs.csv")
        more = more[more["params"] > table["params"].max()]
        table = pd.concat([table, more[table.columns.intersection(more.columns)]])
    ladder = lc.read_ladder(table, source.tasks, rungs=source.rungs)
    ends = zoo.ends_of(ladder)
    compute, sizes = ends["params"].astype(float) * ends["tokens"], np.sort(ends["params"].unique())
    out = {
        f"{count} sizes": ends.index[ends["params"] >= sizes[count]]
        for count in range(SIZES_FROM, len(sizes))
    }
    if len(ends) >= MANY:
        out |= {f"cheapest {x}": ends.index[compute > compute.quantile(x)] for x in CHEAPEST}
    if not out:
        out = {"cheapest": [compute.idxmax()]}
    for name, models in out.items():
        if len(ends) - len(models) > 1:
            yield name, *ladder.split(hold_out=list(models)), ladder


def altered(fitted: xr.DataTree, route: str, variant: Variant) -> xr.DataTree:
    """The same draws with other scales of discrepancy, which only its steps beyond follow."""
    times, common = variant
    posterior, new = fitted[route]["posterior"].to_dataset(), {}
    for name in map(str, posterior.data_vars):
        if name.startswith("log_walk_") and not name.endswith("_scale"):
            new[name] = posterior[name] + np.log(times)
        elif name == "walk_reference_scale":
            new[name] = posterior[name] * times
        elif common is not None and name.startswith("walk_") and name.endswith("_correlation"):
            new[name] = xr.full_like(posterior[name], common)
    tree = fitted.copy()
    tree[route]["posterior"] = xr.DataTree(posterior.assign(new))
    return tree


def cells_of(source: zoo.Source, routes: list[str], out: Path) -> Iterator[pd.DataFrame]:
    """Scored cells of each fold and route, kept in files."""
    for fold, rungs, held_out, whole in folds(source):
        for route in routes:
            if not set(lc.routes.as_route(route).reads) <= set(source.table):
                continue
            path = out / f"{source.name}.{fold}.{route}.csv".replace(" ", "_")
            if not path.exists():
                begin = time.perf_counter()
                fitted = lc.fit(rungs, route=route, draws=300, progress=False, within=whole)
                found = [
                    zoo.scored(lc.forecast(altered(fitted, route, variant), held_out)).assign(
                        variant=name
                    )
                    for name, variant in VARIANTS.items()
                ]
                about = {"ladder": source.name, "fold": fold, "route": route}
                keep(pd.concat(found).assign(**about, converged=fitted.attrs["converged"]), path)
                seconds = time.perf_counter() - begin
                print(f"{path.stem}: {seconds:.0f} s", file=sys.stderr, flush=True)
            yield pd.read_csv(path)


def table_of(cells: pd.DataFrame) -> pd.DataFrame:
    """A row a variant."""
    scale = cells["width80"] / (norm.ppf(0.9) - norm.ppf(0.1))
    score = t.logpdf(cells["measured"] - cells["median"], 4, scale=scale)
    cells = cells.assign(score=score, family=cells["ladder"].str.split().str[0])
    columns = ["score", "crps", "inside50", "inside80", "inside95", "width80"]
    by_fold = cells.groupby(["variant", "family", "ladder", "fold", "route"], sort=False)
    families = by_fold[columns].mean().groupby(["variant", "family"], sort=False).mean()
    table = families.groupby("variant", sort=False).mean()
    gained = families["score"] - families["score"].xs("as it is").reindex(
        families.index, level="family"
    )
    table["score"] = gained.groupby("variant", sort=False).mean()
    table["families gained"] = (gained > 0).groupby("variant", sort=False).sum()
    table["of"] = gained.groupby("variant", sort=False).size()
    return table


def main() -> None:
    """Fit what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of cells")
    parser.add_argument("--only", nargs="+", help="names of ladders, or how they begin")
    parser.add_argument("--route", nargs="+", default=list(ROUTES), choices=ROUTES)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    found: list[pd.DataFrame] = []
    for source in zoo.wanted(given.only):
        if len(source.table["task"].unique()) > 1 and "all tasks" not in source.name:
            found += cells_of(source, given.route, given.out)
    cells = pd.concat(found).dropna(subset=["error"])
    for title, some in (
        ("Accuracy", (cells["quantity"] == "accuracy") & (cells["task"] != "all")),
        ("Mean over tasks", (cells["quantity"] == "accuracy") & (cells["task"] == "all")),
        ("Loss", cells["quantity"] == "loss"),
    ):
        table = table_of(cells[some])
        print(f"{title}\n{table.to_string(float_format='{:.3f}'.format)}\n")


if __name__ == "__main__":
    main()

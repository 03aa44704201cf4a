"""Which recipe? Pairs of recipes compared on real and simulated ladders, beside simple rivals.

`python benchmarks/recipes.py --out DIR [--only NAME ...] [--targets] [--ladders N]`: ladders in
LADDERCAST_DATA are gadre (three corpora, models under 1B, the tasks that small models of each
solve) and dclm (six recipes of two or three rungs). Each is cut to its smaller rungs; recipes are
compared at the scale of the larger ones; with `--targets` the whole ladder is fitted, and its
targets are looked at, once nothing is to be chosen any more. `--ladders N` adds N simulated ladders
of ten recipes. Pairs go to DIR/pairs.csv, scores to DIR/scores.csv and what choosing costs to
DIR/losses.csv, as they are found (a part that is there is not fitted again); tables to the first
two sections of docs/decisions.md, of real and of simulated ladders. `--tables` fits nothing.
"""

import argparse
import os
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from results import add_page, keep, write_section

import laddercast as lc
from laddercast.data import words as c
from laddercast.evaluation.simulation import simulate_from_prior
from laddercast.sampling.programs import keep as keep_compiled

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("LADDERCAST_DATA", ROOT.parent / "shared" / "data"))
SOLVED = 0.10
"""A task is solved where a small model of each recipe lies above chance by this much."""

RECIPES = [f"r{number}" for number in range(10)]
SIMULATED = pd.DataFrame(
    {"model": ["large"], "params": [6_400_000_000], "tokens": [128_000_000_000]}
)


class Part(NamedTuple):
    """Rungs to fit, and measured targets of all recipes at one or more scales."""

    name: str
    ladder: lc.Ladder
    targets: pd.DataFrame


def gadre(of_targets: bool) -> Iterator[Part]:
    """Corpora of the second family: to 360M from 125M and less, or to the targets from all."""
    table = pd.read_csv(DATA / "gadre.csv")
    small, large = table[table["params"] < 1e9], table[table["params"] > 1e9]
    above = (small["accuracy"] - small["chance"]).groupby([small["recipe"], small["task"]]).max()
    least = above.groupby("task").min()
    easy = set(least.index[least > SOLVED])
    small, large = (x[x["task"].isin(easy)] for x in (small, large))
    if of_targets:
        one = (large["tokens"] / large["params"]).between(15, 25)
        yield Part("gadre, targets", lc.read_ladder(small), large[one])
        return
    size = small["params"].max()
    held_out = small[small["params"] == size]
    # One length near 20 tokens per parameter, one far beyond.
    ratio = held_out["tokens"] / held_out["params"]
    asked = held_out[ratio.between(15, 30) | ratio.between(300, 400)]
    yield Part("gadre, inside", lc.read_ladder(small[small["params"] < size]), asked)


def dclm(of_targets: bool) -> Iterator[Part]:
    """Recipes of two or three rungs: to the largest of each, or to the targets."""
    folder = DATA / "zoo" / "dclm"
    table = pd.read_csv(folder / "ladder.csv")
    if of_targets:
        targets = pd.read_csv(folder / "targets.csv")
        yield Part("dclm, targets", lc.read_ladder(table, folder / "tasks.csv"), targets)
        return
    compute = table["params"].astype(float) * table["tokens"]
    largest = compute == compute.groupby(table["recipe"]).transform("max")
    rungs = lc.read_ladder(table[~largest], folder / "tasks.csv")
    yield Part("dclm, inside", rungs, table[largest])


def simulated(count: int) -> Iterator[Part]:
    """Ladders of ten recipes drawn from the model of the route `direct`."""
    for seed in range(count):
        ladder, targets, _ = simulate_from_prior(
            seed, route="direct", recipes=RECIPES, sizes=(10**8, 2 * 10**8, 4 * 10**8),
            tokens_per_param=(20,), targets=SIMULATED,
        )  # fmt: skip
        ends = ladder.table[c.TOKENS] == ladder.table.groupby(c.MODEL)[c.TOKENS].transform("max")
        yield Part(f"simulated {seed}", lc.Ladder(ladder.table[ends], ladder.tasks), targets)


def parts_of(given: argparse.Namespace) -> Iterator[Part]:
    """What was asked for; data are read only where some of them are."""
    only = given.only or [""]

    def wanted(name: str) -> bool:
        return any(name.startswith(word) or word.startswith(name) for word in only)

    for name, make in (("dclm", dclm), ("gadre", gadre)):
        for of_targets in (False, True) if given.targets else (False,):
            if wanted(name):
                yield from (part for part in make(of_targets) if wanted(part.name))
    yield from (part for part in simulated(given.ladders) if wanted(part.name))


def losses(found: lc.RecipeComparison, part: Part) -> pd.DataFrame:
    """What was lost to the best measured recipe by choosing: least regret, or the best rung."""
    best = part.ladder.table.groupby([c.TASK, c.RECIPE])[c.ACCURACY].max()
    scale = part.targets.groupby([c.PARAMS, c.TOKENS])
    rows = []
    for (params, tokens), own in scale:
        measured = own.pivot_table(c.ACCURACY, c.TASK, c.RECIPE).dropna()
        here = found.ranking[
            (found.ranking[c.PARAMS] == params) & (found.ranking[c.TOKENS] == tokens)
        ]
        for task, truth in measured.iterrows():
            # At some scales only some recipes were measured.
            own = here[(here[c.TASK] == task) & here[c.RECIPE].isin(truth.index)]
            ours = own.sort_values("regret")[c.RECIPE].iloc[0]
            rival = best[task].loc[truth.index].idxmax()
            rows.append((task, truth.max() - truth[ours], truth.max() - truth[rival]))
    return pd.DataFrame(rows, columns=["task", "ours", "best_rung"])


def bins(pairs: pd.DataFrame) -> pd.DataFrame:
    """How often a was better, by the probability that was said, single tasks alone."""
    known = pairs[(pairs["task"] != c.ALL) & pairs["measured"].notna() & (pairs["measured"] != 0)]
    said = np.floor(np.minimum(known["probability"] * 10, 9.999)) / 10
    won = (known["measured"] > 0).groupby(said)
    table = pd.DataFrame({"pairs": won.size(), "won": won.mean()})
    table["said"] = known["probability"].groupby(said).mean()
    return table.rename_axis("from").reset_index()[["from", "pairs", "said", "won"]]


def markdown(pairs: pd.DataFrame, scores: pd.DataFrame, lost: pd.DataFrame) -> str:
    """Scores of each method, calibration over all parts, what choices cost."""

    def block(table: pd.DataFrame) -> str:
        return f"```\n{table.to_string(index=False, float_format='{:.3f}'.format)}\n```\n"

    of = lost["part"].str.partition(" ")[0].str.rstrip(",").rename("ladder")
    means = lost.groupby(of)[["ours", "best_rung"]]
    costs = (100 * means.mean()).assign(cells=means.size()).reset_index()
    count = scores["part"].nunique()
    told = f"{count} ladders, {scores.groupby('part')['converged'].first().sum():.0f} converged.\n"
    return (
        f"### Scores\n\n{block(scores) if not _simulated(scores).any() else told}\n"
        f"### How often a was better, by what was said\n\n{block(bins(pairs))}\n"
        f"### Points lost to the best recipe by choosing one\n\n{block(costs)}"
    )


def _simulated(table: pd.DataFrame) -> pd.Series:
    return table["part"].str.startswith("simulated")


def main() -> None:
    """Fit what is missing, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of what is found")
    parser.add_argument("--targets", action="store_true", help="also forecast targets")
    parser.add_argument("--ladders", type=int, default=0, help="simulated ladders")
    parser.add_argument("--only", nargs="+", help="how names of parts begin")
    parser.add_argument("--route", nargs="+", help="routes to fit (default: the package's)")
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--draws", type=int, default=1000)
    add_page(parser)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    keep_compiled()
    warnings.simplefilter("ignore")
    paths = [given.out / f"{name}.csv" for name in ("pairs", "scores", "losses")]
    tables = [pd.read_csv(path) if path.exists() else pd.DataFrame() for path in paths]
    for part in () if given.tables else parts_of(given):
        done = set(tables[1]["part"]) if len(tables[1]) else set()
        if part.name in done:
            continue
        begin = time.perf_counter()
        route = given.route or ("direct" if part.name.startswith("simulated") else None)
        fitted = lc.fit(
            part.ladder, route=route, chains=given.chains, draws=given.draws, progress=False
        )
        found = lc.compare_recipes(fitted, targets=part.targets)
        seconds = time.perf_counter() - begin
        about = {"part": part.name, "seconds": seconds, "converged": fitted.attrs["converged"]}
        more = [found.comparisons, lc.score_recipes(found, fitted), losses(found, part)]
        for number, (table, path) in enumerate(zip(more, paths, strict=True)):
            tables[number] = pd.concat([tables[number], table.assign(**about)], ignore_index=True)
            keep(tables[number], path)
        print(f"{part.name}: {seconds:.0f} s, {fitted.attrs['complaints'][:150] or 'converged'}",
              file=sys.stderr, flush=True)  # fmt: skip
    for section, made in (("recipes", False), ("recipes simulated", True)):
        some = [own[_simulated(own) == made] for own in tables if len(own)]
        if some and len(some[0]):
            text = markdown(*some)
            print(text)
            write_section(given.page, section, text, given.out)


if __name__ == "__main__":
    main()

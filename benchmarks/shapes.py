"""Whether intervals hold the truth, by the shape of the ladder: simulated, fitted and forecast.

`python benchmarks/shapes.py --out DIR [--count N] [--only NAME ...]`. Of most shapes, truths are
drawn from the priors of the route that is fitted (simulation-based calibration); of the others, in
which something is amiss that no prior knows of, from laws like those of the demo's tasks, which add
what params and tokens do. Each fit is kept in DIR/kept as it is done, and the same command goes on
from there. DIR/cells.csv has where each truth lies among its draws, DIR/ranks a file a shape for
`az.plot_ecdf_pit`; the table goes to docs/shapes.md.
"""

import argparse
import datetime
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from results import keep
from scipy.special import expit, logit

import laddercast as lc
from laddercast.data.temporary import write_whole
from laddercast.evaluation.calibration import as_ranks, recover, uniformity
from laddercast.evaluation.simulation import (
    DEMO_SIZES,
    DEMO_TARGETS,
    demo_truth,
    simulate,
    simulate_from_prior,
)
from laddercast.inference.executors import executor_for
from laddercast.inference.saving import save
from laddercast.sampling.programs import keep as keep_compiled

PAGE = Path(__file__).parents[1] / "docs" / "shapes.md"
LEVELS = (50, 80, 95)

type Drawn = tuple[lc.Ladder, pd.DataFrame, dict[str, float]]
type Change = Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]


def sizes(count: int, least: float = 1e8, most: float = 8e8) -> list[int]:
    """So many sizes, as far apart as can be."""
    return [round(size, -6) for size in np.geomspace(least, most, count).astype(int).tolist()]


def missing(seed: int) -> Drawn:
    """A third of all pairs of a model and a task were never measured."""
    ladder, targets, population = simulate_from_prior(seed)
    rng = np.random.default_rng(seed)
    pairs = ladder.table[["model", "task"]].drop_duplicates()
    kept = pairs[rng.uniform(size=len(pairs)) > 1 / 3]
    return lc.read_ladder(ladder.table.merge(kept), ladder.tasks), targets, population


def laws(seed: int) -> pd.DataFrame:
    """Parameters of eight tasks about those of the demo, for `simulate`."""
    rng, truth = np.random.default_rng(seed), demo_truth()
    for letter, exponent, middle in (("A", "alpha", 5e8), ("B", "beta", 3e10)):
        other = truth[exponent] * np.exp(rng.normal(0, 0.1, len(truth)))
        truth[letter] *= middle ** (other - truth[exponent])
        truth[exponent] = other
    for name in ("E", "L0"):
        truth[name] *= np.exp(rng.normal(0, 0.03, len(truth)))
    return truth


def from_laws(
    seed: int,
    truth: Callable[[pd.DataFrame], pd.DataFrame] = lambda truth: truth,
    rungs: Change | None = None,
    all_models: Change | None = None,
    every: bool = False,
    **settings: float,
) -> Drawn:
    """A ladder of these laws; changes of its rungs, or of them and the targets alike."""
    ladder, targets = simulate(
        truth(laws(seed)), sizes=DEMO_SIZES, tokens_per_param=(20, 40, 100, 200),
        targets=DEMO_TARGETS, seed=seed, **settings,
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    table = ladder.table
    if all_models is not None:
        both = all_models(pd.concat([table, targets], keys=["rungs", "targets"]), rng)
        table, targets = both.loc["rungs"][table.columns], both.loc["targets"]
    if rungs is not None:
        table = rungs(table, rng)
    ladder = lc.read_ladder(table, ladder.tasks, rungs="every" if every else "last")
    return ladder, targets, {}


def first_task(table: pd.DataFrame) -> pd.Series:
    """Rows of the first of all tasks."""
    return table["task"] == min(table["task"])


def with_first(**values: float) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """The truth with other values of its first task."""

    def change(truth: pd.DataFrame) -> pd.DataFrame:
        truth.loc[truth.index.min(), list(values)] = list(values.values())
        return truth

    return change


def turned(truth: pd.DataFrame) -> pd.DataFrame:
    """The first task's accuracy falls where its loss falls."""
    return with_first(k=-truth.loc[truth.index.min(), "k"])(truth)


def three_times(truth: pd.DataFrame) -> pd.DataFrame:
    """Runs differ three times as much."""
    return truth.assign(run_loss=3 * truth["run_loss"], run_accuracy=3 * truth["run_accuracy"])


def moved(table: pd.DataFrame, logits: np.ndarray | pd.Series) -> pd.Series:
    """Accuracies, so many logits higher."""
    return expit(logit(table["accuracy"].clip(1e-3, 1 - 1e-3)) + logits)


def outlying(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """One rung lies a logit below, and a twentieth of its loss above, where it should."""
    here = table["model"] == rng.choice(table["model"].unique())
    return table.assign(
        accuracy=moved(table, -1.0 * here), loss=table["loss"] * np.where(here, 1.05, 1.0)
    )


def constant(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The first task has one accuracy whatever the model."""
    return table.assign(accuracy=table["accuracy"].mask(first_task(table), 0.5))


def heavy(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Each model and task is off by more, with tails of a Student-t with 2 degrees of freedom."""
    models, tasks = (pd.factorize(table[word])[0] for word in ("model", "task"))
    off = rng.standard_t(2, size=(2, models.max() + 1, tasks.max() + 1))[:, models, tasks]
    return table.assign(
        accuracy=moved(table, 0.03 * off[0]), loss=table["loss"] * np.exp(0.003 * off[1])
    )


def late(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Three of the tasks rise faster, by half a logit a decade, above the ladder's middle."""
    compute = np.log10(table["params"].astype(float) * table["tokens"].astype(float))
    of_rungs = compute.groupby(table["model"]).max().loc[table.loc["rungs", "model"].unique()]
    here = table["task"].isin(rng.choice(table["task"].unique(), 3, replace=False))
    return table.assign(accuracy=moved(table, 0.5 * here * (compute - of_rungs.median()).clip(0)))


class Shape(NamedTuple):
    """A kind of ladder: how one is drawn from a seed, the route that is fitted, and how many."""

    draw: Callable[[int], Drawn]
    route: str = "two_stage"
    share: float = 1.0  # of the ladders asked for: large ones take long


def prior(route: str = "two_stage", share: float = 1.0, **given: object) -> Shape:
    """A shape drawn from the priors of its route."""
    return Shape(partial(simulate_from_prior, route=route, **given), route, share)


SHAPES = {
    "2 sizes x 3 lengths": prior(sizes=sizes(2)),
    "3 sizes x 3 lengths": prior(sizes=sizes(3)),
    "6 sizes x 3 lengths": prior(sizes=sizes(6)),
    "one line: 6 sizes, 20 tokens per parameter": prior(sizes=sizes(6), tokens_per_param=(20,)),
    "1 task": prior(tasks=1),
    "4 tasks": prior(),
    "20 tasks": prior(tasks=20, share=0.25),
    "50 tasks": prior("direct", tasks=50, share=0.1),
    "2 rungs": prior(sizes=sizes(2), tokens_per_param=(40,)),
    "16 rungs": prior(sizes=sizes(4), tokens_per_param=(20, 40, 100, 200)),
    "100 rungs": prior(
        "direct", sizes=sizes(10), tokens_per_param=np.geomspace(20, 400, 10).round(), share=0.25
    ),
    "accuracy alone": prior("direct"),
    "loss alone": prior("stage_1"),
    "3 recipes": prior(
        "direct", sizes=sizes(3), tokens_per_param=(20, 100), tasks=3, recipes=("a", "b", "c")
    ),
    "a third of the cells missing": Shape(missing),
    "20 checkpoints of each run": Shape(partial(from_laws, every=True)),
    "an outlying rung": Shape(partial(from_laws, rungs=outlying)),
    "a task at chance": Shape(partial(from_laws, truth=with_first(L0=-3.0))),
    "a saturated task": Shape(partial(from_laws, truth=with_first(L0=9.0))),
    "a constant task": Shape(partial(from_laws, all_models=constant)),
    "a falling task": Shape(partial(from_laws, truth=turned)),
    "heavy-tailed noise": Shape(partial(from_laws, all_models=heavy)),
    "additive truth": Shape(from_laws),
    "late emergence in 3 of 8 tasks": Shape(partial(from_laws, all_models=late)),
    "discrepancy shared by tasks": Shape(partial(from_laws, walk_correlation=1.0)),
    "three times the noise of runs": Shape(partial(from_laws, truth=three_times)),
}


def run(
    name: str,
    count: int,
    kept: Path | None = None,
    executor: Executor | int | None = None,
    **settings: int,
) -> pd.DataFrame:
    """Fit ladders of a shape: rows as `recover` gives them, with `shape` and `route`."""
    shape = SHAPES[name]
    seeds = range(max(round(shape.share * count), 1))
    found = recover(
        [shape.draw(seed) for seed in seeds], seeds, about=["shape", name], resume=kept,
        executor=executor, route=shape.route, **settings,
    )  # fmt: skip
    return found.assign(shape=name, route=shape.route)


def inside(pit: pd.Series, level: int) -> str:
    """Per cent of truths inside the interval of a level."""
    return f"{100 * ((pit - 0.5).abs() <= level / 200).mean():.0f}" if len(pit) else ""


def summary(cells: pd.DataFrame) -> pd.DataFrame:
    """A row a shape: per cent of truths inside intervals, and of ladders that converged."""
    rows = []
    for name, own in cells.groupby("shape", sort=False):
        of = {kind: own.loc[own["kind"] == kind, "pit"] for kind in
              ("accuracy", "loss", "mean accuracy")}  # fmt: skip
        tested = uniformity(own[own["kind"] == "parameter"])
        of_ladders = own.groupby("ladder")
        rows.append(
            {
                "shape": name,
                "route": own["route"].iloc[0],
                "ladders": own["ladder"].nunique(),
                "converged": f"{100 * of_ladders['converged'].first().mean():.0f}",
                "accuracies": len(of["accuracy"]),
                "accuracy in 50/80/95": "/".join(inside(of["accuracy"], x) for x in LEVELS),
                "loss in 50/80/95": "/".join(inside(of["loss"], x) for x in LEVELS),
                "mean in 80": inside(of["mean accuracy"], 80),
                "not uniform": f"{(tested['p_value'] < 0.05).sum()} of {len(tested)}",
                "seconds": f"{own['seconds'].iloc[0]:.0f}",
            }
        )
    return pd.DataFrame(rows).replace({"//": "", "0 of 0": ""})


def write_page(cells: pd.DataFrame, command: str) -> None:
    """The table as a page of the documentation, with the day and the versions it was made with."""
    names = ("laddercast", "jax", "numpyro", "arviz", "pandas", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    head = HEAD.format(command=command, date=datetime.date.today(), versions=versions)
    text = f"{head}```\n{summary(cells).to_string(index=False)}\n```\n"
    write_whole(PAGE, text.encode())


HEAD = """# Coverage by the shape of a ladder

Made by `{command}`, {date} ({versions}).

Per cent of what targets truly scored (with the noise of a run, as it would be measured) inside 50,
80 and 95 % intervals; `mean in 80`: of accuracies averaged over tasks, inside 80 %. Ladders that
did not converge count too. Down to `a third of the cells missing` truths are drawn from the priors
of the route (simulation-based calibration): there shares should be the nominal ones, to within what
so few ladders tell, of which all cells share a draw of the population; `not uniform` counts
population parameters whose ranks differ from uniform at 5 %, of which one in twenty may. Below it,
truths are laws like those of the demo's tasks, and the model is wrong in one way or another.
`seconds` are of one fit, forecast included, on two cores that had other work.

"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit what is missing; write cells, ranks and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of what was found")
    parser.add_argument("--count", type=int, default=20, help="ladders of a shape")
    parser.add_argument("--only", nargs="+", default=list(SHAPES), help="names of shapes")
    parser.add_argument("--workers", type=int, help="processes on this machine (default: none)")
    parser.add_argument("--scheduler", help="address of a Dask scheduler whose workers fit")
    given = parser.parse_args(arguments)
    if unknown := set(given.only) - set(SHAPES):
        parser.error(f"no shape {', '.join(unknown)}: there are {', '.join(SHAPES)}")
    keep_compiled()
    kept, ranks, path = (given.out / name for name in ("kept", "ranks", "cells.csv"))
    ranks.mkdir(parents=True, exist_ok=True)
    parts = dict[str, pd.DataFrame]()
    if path.exists():
        parts = {str(name): own for name, own in pd.read_csv(path).groupby("shape")}
    with executor_for(given.workers, given.scheduler) as executor:
        for name in given.only:
            print(name, file=sys.stderr)
            before, begin = len(list(kept.glob("*"))), time.perf_counter()
            found = run(name, given.count, kept, executor)
            made, seconds = len(list(kept.glob("*"))) - before, time.perf_counter() - begin
            earlier = parts[name]["seconds"].iloc[0] if name in parts else np.nan
            parts[name] = found.assign(seconds=seconds / made if made else earlier)
            cells = pd.concat([parts[own] for own in SHAPES if own in parts], ignore_index=True)
            keep(cells, path)
            save(as_ranks(found), ranks / f"{name.replace(' ', '-').replace(':', '')}.nc")
            write_page(cells, f"python benchmarks/shapes.py --out DIR --count {given.count}")
            print(summary(parts[name]).to_string(index=False), flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore", lc.LaddercastWarning)
    main()

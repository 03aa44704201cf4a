"""Whether measurements that lie are told: faults planted in simulated ladders, and sound ones.

`python benchmarks/planted_faults.py [--count N] [--sound N]` prints, for each kind of fault, of how
many ladders the doubts that `fit` warns of (before it samples) name the run or the task at fault,
and of how many they name anything; and the latter of sound ladders: the demo's of other seeds, and
such as are drawn from the priors.
"""

import argparse
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd

import laddercast as lc
from laddercast.evaluation.simulation import simulate_from_prior
from laddercast.inference.suspicions import of_data

type Plant = Callable[[pd.DataFrame, str, str, str], pd.DataFrame]


def accuracy_off(table: pd.DataFrame, model: str, other: str, task: str) -> pd.DataFrame:
    """A run 20 points off in all tasks, up or down where there is room."""
    down = table.groupby("model")["accuracy"].transform("mean") > 0.45
    moved = (table["accuracy"] + np.where(down, -0.2, 0.2)).clip(0.01, 0.99)
    return table.assign(accuracy=table["accuracy"].mask(table["model"] == model, moved))


def loss_off(table: pd.DataFrame, model: str, other: str, task: str) -> pd.DataFrame:
    """A run with a tenth more loss in all tasks."""
    return table.assign(loss=table["loss"] * np.where(table["model"] == model, 1.1, 1.0))


def same_scores(table: pd.DataFrame, model: str, other: str, task: str) -> pd.DataFrame:
    """One checkpoint scored as the last of two runs."""
    last = table[table["model"] == model].sort_values("tokens").groupby("task")["accuracy"].last()
    of_both = table["model"].isin([model, other])
    return table.assign(accuracy=table["accuracy"].mask(of_both, table["task"].map(last)))


def falling(table: pd.DataFrame, model: str, other: str, task: str) -> pd.DataFrame:
    """A task of which errors were taken for accuracies."""
    return table.assign(
        accuracy=table["accuracy"].mask(table["task"] == task, 1 - table["accuracy"])
    )


def half_the_tokens(table: pd.DataFrame, model: str, other: str, task: str) -> pd.DataFrame:
    """A run whose tokens were counted as half."""
    return table.assign(tokens=table["tokens"].mask(table["model"] == model, table["tokens"] // 2))


FAULTS: dict[str, Plant] = {
    "a run 20 points off": accuracy_off,
    "a run with a tenth more loss": loss_off,
    "the same scores under two runs": same_scores,
    "a task's errors as accuracies": falling,
    "a run with half its tokens": half_the_tokens,
}


def main() -> None:
    """Count, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50, help="ladders of each kind of fault")
    parser.add_argument("--sound", type=int, default=200, help="sound ladders")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    for name, plant in FAULTS.items():
        named = told = 0
        for seed in range(given.count):
            ladder, rng = lc.demo_ladder(seed)[0], np.random.default_rng(seed)
            model, other = map(str, rng.choice(ladder.models, 2, replace=False))
            task = str(rng.choice(ladder.tasks.index))
            doubts = of_data(lc.read_ladder(plant(ladder.table, model, other, task), ladder.tasks))
            told += bool(doubts)
            named += any(model in one["why"] or one["task"] == task for one in doubts)
        rows.append((name, given.count, named, told))
    sound = [lc.demo_ladder(1000 + seed)[0] for seed in range(given.sound // 2)]
    sound += [simulate_from_prior(seed, tasks=6)[0] for seed in range(given.sound - len(sound))]
    rows.append(("none", len(sound), 0, sum(bool(of_data(ladder)) for ladder in sound)))
    print(pd.DataFrame(rows, columns=["fault", "ladders", "named", "told"]).to_string(index=False))


if __name__ == "__main__":
    main()

"""Which recipe? Pairs of recipes compared at a target's scale, from joint draws of a forecast."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from laddercast.data import words as c
from laddercast.data.cautions import AtChanceWarning, warn
from laddercast.data.faults import stop_on
from laddercast.data.ladder import read_targets
from laddercast.data.sizes import flops
from laddercast.data.writing import listed, short_number
from laddercast.decisions.chance import tasks_at_chance
from laddercast.forecasting.forecasts import forecast, of_recipes
from laddercast.inference.results import recipes_of, runs_measured, tasks_of

QUANTILES = ("q025", "q10", "q50", "q90", "q975")
SETTING = [c.PARAMS, c.TOKENS]
COMPARISONS = (
    *SETTING, c.TASK, "a", "b", "probability", "mean", "sd", *QUANTILES, "regret_a", "regret_b",
    "measured",
)  # fmt: skip
RANKING = (*SETTING, c.TASK, c.RECIPE, "best", "regret", "rank")

SURE = 0.9
"""One recipe ranks before another that it beats with this probability; others are tied with it."""


class RecipeComparison(NamedTuple):
    """Recipes at each target's scale; frames with the columns of the command's files.

    `comparisons` has a row for each params x tokens x task x pair of recipes, `ranking` one for
    each recipe. Task `all` is the mean over tasks. `forecast` is that of each recipe.

    >>> found = lc.compare_recipes(fitted_recipes, params=7e9, tokens=140e9)
    >>> found.ranking.query("task == 'all'")
    """

    comparisons: pd.DataFrame
    ranking: pd.DataFrame
    forecast: xr.DataTree


def compare_recipes(
    fitted: xr.DataTree,
    params: float | Sequence[float] | None = None,
    tokens: float | Sequence[float] | None = None,
    *,
    targets: str | Path | pd.DataFrame | None = None,
    seed: int = 0,
) -> RecipeComparison:
    """For each pair of recipes and task, which is better at a target's scale, and by how much.

    `fitted` is of a ladder with several recipes. Scales are `params` and `tokens`, numbers or
    sequences of equal length, or those of `targets`, which with `recipe, task, accuracy` add what
    was `measured`. All recipes are forecast together: what they share cancels.

    Differences are of accuracies as one run of each recipe would be measured: `probability` that
    a's is higher than b's where they are not equal, mean, SD and quantiles of a's less b's;
    `regret_a` is what choosing a loses on average to the better of both. In the ranking, `best` is
    the probability that no recipe is better, `regret` the mean loss to the best, and `rank` one
    more than the number of recipes that are better with probability .9: others are tied.

    The answer holds for the hyperparameters of the rungs: with other learning rates small models
    can rank otherwise (arXiv 2512.24503). Raises ValueError for a fit of one recipe, a target's
    recipe that has no rung, a scale below the ladder, tasks that are all at chance, and fits
    without accuracy.

    >>> found = lc.compare_recipes(fitted_recipes, params=7e9, tokens=140e9)
    >>> found.comparisons.query("task == 'all'")[["a", "b", "probability", "mean"]]
    """
    given = _scales(params, tokens) if targets is None else read_targets(targets)
    asked, chance = question(runs_measured(fitted), tasks_of(fitted), given)
    recipes = recipes_of(fitted)
    predicted = forecast(fitted, asked, seed=seed)
    if chance:
        warn(
            f"every rung is at chance in {listed(chance, 10)}: of recipes there the ladder says "
            "nothing, and no number is given",
            AtChanceWarning,
        )
    comparisons, ranking = [], []
    for setting, draws, measured, tasks in _by_scale(predicted, recipes):
        silent = np.isin(tasks, chance)
        comparisons.append(_pairs(setting, draws, measured, tasks, recipes, silent))
        ranking.append(_ranking(setting, draws, tasks, recipes, silent))
    return RecipeComparison(
        pd.concat(comparisons, ignore_index=True)[list(COMPARISONS)],
        pd.concat(ranking, ignore_index=True)[list(RANKING)],
        predicted,
    )


def question(
    runs: pd.DataFrame, tasks: pd.DataFrame, targets: pd.DataFrame
) -> tuple[pd.DataFrame, list[str]]:
    """What to forecast, a target of each recipe at each scale, and tasks that are at chance.

    `runs` are accuracies at the ends of runs, `recipe, params, tokens, task, accuracy`; `tasks` has
    their `chance, items`. Raises ValueError for what cannot be answered, with every fault.
    """
    if runs.empty:
        raise ValueError("there are no accuracies, by which recipes are compared")
    recipes = sorted(runs[c.RECIPE].unique()) if c.RECIPE in runs else []
    if len(recipes) < 2:
        raise ValueError(
            "there is one recipe, and nothing to compare it with: give a ladder with several in "
            "its column `recipe`"
        )
    asked = _of_all(targets, recipes)
    faults: list[str] = []
    smallest, least = runs[c.PARAMS].min(), flops(runs[c.PARAMS], runs[c.TOKENS]).min()
    for row in asked[SETTING].drop_duplicates().itertuples():
        if row.params < smallest or flops(float(row.params), float(row.tokens)) < least:
            faults.append(
                f"{short_number(row.params)} parameters, {short_number(row.tokens)} tokens: below "
                f"the ladder, which begins at {short_number(smallest)} parameters and {least:.2g} "
                "FLOPs; give a larger scale"
            )
    chance = tasks_at_chance(runs, tasks)
    if len(chance) == runs[c.TASK].nunique():
        faults.append(
            f"every rung is at chance in {listed(chance, 10)}: the ladder cannot tell recipes "
            "apart; give larger rungs, or tasks that they solve"
        )
    stop_on(faults)
    return asked, chance


def _scales(
    params: float | Sequence[float] | None, tokens: float | Sequence[float] | None
) -> pd.DataFrame:
    if params is None or tokens is None:
        raise ValueError("give `params` and `tokens` of the scale to compare at, or `targets`")
    first, second = (np.atleast_1d(np.asarray(given, float)) for given in (params, tokens))
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(
            f"params and tokens are {first.size} and {second.size} numbers; give as many of each"
        )
    names = [
        f"{short_number(n, 2)}-{short_number(d, 2)}" for n, d in zip(first, second, strict=True)
    ]
    table = pd.DataFrame({c.MODEL: names, c.PARAMS: first, c.TOKENS: second})
    table = table.drop_duplicates(SETTING)
    again = table.groupby(c.MODEL).cumcount()
    table[c.MODEL] += again.map(lambda n: f" ({n + 1})" if n else "")
    return read_targets(table)


def _of_all(targets: pd.DataFrame, recipes: list[str]) -> pd.DataFrame:
    """The targets of each recipe, with those that are lacking at a scale that others have."""
    table = of_recipes(targets, recipes)
    known = table[[*SETTING, c.RECIPE]].drop_duplicates()
    whole = known[SETTING].drop_duplicates().merge(pd.DataFrame({c.RECIPE: recipes}), how="cross")
    both = whole.merge(known, how="left", indicator=True)
    added = both[both.pop("_merge") == "left_only"]
    if added.empty:
        return table
    taken = set(table[c.MODEL])
    names = [
        f"{short_number(row.params)}-{short_number(row.tokens)} {row.recipe}"
        for row in added.itertuples()
    ]
    names = [f"{name} (not measured)" if name in taken else name for name in names]
    added = added.assign(**{c.MODEL: names})
    if c.TASK in table:
        added = added.assign(**{c.TASK: table[c.TASK].iloc[0]})
    return pd.concat([table, added], ignore_index=True)


def _by_scale(
    predicted: xr.DataTree, recipes: list[str]
) -> Iterator[tuple[Any, np.ndarray, np.ndarray, np.ndarray]]:
    """Each scale with its draws (draws, recipes, tasks), what was measured, names of tasks.

    The last task is `all`.
    """
    data = predicted["predictions"].to_dataset()
    values = data[c.ACCURACY].transpose("chain", "draw", "row").to_numpy()
    values = values.reshape(-1, values.shape[-1])
    known = np.full(values.shape[1], np.nan)
    if "measured" in predicted.children and c.ACCURACY in predicted["measured"]:
        known = predicted["measured"][c.ACCURACY].to_numpy()
    rows = pd.DataFrame({word: data[word].to_numpy() for word in (*SETTING, c.RECIPE, c.TASK)})
    tasks = list(dict.fromkeys(rows[c.TASK].astype(str)))
    for setting, own in rows.groupby(SETTING, sort=False):
        # Of several targets of one recipe and scale, the first is compared.
        first = own.drop_duplicates([c.RECIPE, c.TASK])
        at = first.reset_index().pivot_table("index", c.RECIPE, c.TASK, "first")
        index = at.loc[recipes, tasks].to_numpy(int)
        draws, measured = values[:, index], known[index]
        yield (
            setting,
            np.concatenate([draws, draws.mean(axis=2, keepdims=True)], axis=2),
            np.concatenate([measured, measured.mean(axis=1, keepdims=True)], axis=1),
            np.array([*tasks, c.ALL]),
        )


def _pairs(
    setting: tuple[float, float], draws: np.ndarray, measured: np.ndarray, tasks: np.ndarray,
    recipes: list[str], silent: np.ndarray,
) -> pd.DataFrame:  # fmt: skip
    parts = []
    for a, b in combinations(range(len(recipes)), 2):
        off = draws[:, a] - draws[:, b]
        wins, losses = (off > 0).mean(axis=0), (off < 0).mean(axis=0)
        decided = np.where(wins + losses > 0, wins + losses, 1.0)
        part = pd.DataFrame(
            {
                "probability": np.where(wins + losses > 0, wins / decided, 0.5),
                "mean": off.mean(axis=0), "sd": off.std(axis=0),
                **{name: np.quantile(off, c.QUANTILES[name], axis=0) for name in QUANTILES},
                "regret_a": np.maximum(-off, 0).mean(axis=0),
                "regret_b": np.maximum(off, 0).mean(axis=0),
            }
        )  # fmt: skip
        part[silent] = np.nan
        about = dict(zip(SETTING, setting, strict=True)) | {"a": recipes[a], "b": recipes[b]}
        part = part.assign(**about, measured=measured[a] - measured[b])
        part[c.TASK] = tasks
        parts.append(part)
    # By task, its pairs together.
    found = pd.concat(parts)
    return found.sort_index(kind="stable")


def _ranking(
    setting: tuple[float, float], draws: np.ndarray, tasks: np.ndarray, recipes: list[str],
    silent: np.ndarray,
) -> pd.DataFrame:  # fmt: skip
    most = draws.max(axis=1, keepdims=True)
    highest = draws == most
    best = (highest / highest.sum(axis=1, keepdims=True)).mean(axis=0)
    regret = (most - draws).mean(axis=0)
    beaten = np.array([(draws > draws[:, [own]]).mean(axis=0) for own in range(len(recipes))])
    rank = 1 + (beaten >= SURE).sum(axis=1)
    parts = []
    for column, task in enumerate(tasks):
        part = pd.DataFrame(
            {
                c.RECIPE: recipes, "best": best[:, column], "regret": regret[:, column],
                "rank": rank[:, column].astype(float),
            }
        )  # fmt: skip
        if silent[column]:
            part[["best", "regret", "rank"]] = np.nan
        part = part.sort_values(["rank", "regret"], kind="stable")
        about = dict(zip(SETTING, setting, strict=True)) | {c.TASK: task}
        parts.append(part.assign(**about))
    return pd.concat(parts).astype({"rank": "Int64"})

"""How well recipes were compared, where they were measured, beside simple rivals."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import ndtr

from laddercast.data import words as c
from laddercast.data.sizes import flops, two_digits
from laddercast.decisions.recipes import RecipeComparison
from laddercast.inference.results import runs_measured, tasks_of
from laddercast.model.design import DEFAULT_ITEMS, binomial_variance

SCORES = ("method", c.TASK, "pairs", "brier", "right", "sure", "right_where_sure")
EACH = "each"
"""In the column `task`, pairs of all single tasks."""

SURE = 0.95
RIVALS = ("best_rung", "largest_common_rung", "softened_common_rung")


def score_recipes(found: RecipeComparison, fitted: xr.DataTree) -> pd.DataFrame:
    """Scores of each method over pairs that were measured and are not equal, a row a method.

    Task `each` has the pairs of single tasks, `all` those of the mean over tasks. `brier` is the
    mean squared error of the probability, `right` the share of pairs of which the likelier won (one
    half where neither was), `sure` the share with a probability beyond .95 or below .05 and
    `right_where_sure` that of right ones among these. Methods: ours; the recipe with the higher
    best rung; the one that is better at the largest scale at which both have rungs; that softened
    by the binomial noise of both accuracies. Empty where nothing was measured.

    >>> found = lc.compare_recipes(fitted_recipes, params=7e9, tokens=140e9)
    >>> lc.score_recipes(found, fitted_recipes)
    """
    known = found.comparisons.dropna(subset=["measured", "probability"])
    known = known[known["measured"] != 0]
    if known.empty:
        return pd.DataFrame(columns=list(SCORES))
    won = known["measured"] > 0
    said = {"laddercast": known["probability"]} | {
        rival: pd.Series(values, known.index)
        for rival, values in zip(RIVALS, np.transpose(list(_rivals(known, fitted))), strict=True)
    }
    rows = []
    for task, here in ((EACH, known[c.TASK] != c.ALL), (c.ALL, known[c.TASK] == c.ALL)):
        for method, probability in said.items() if here.any() else ():
            p, y = probability[here].to_numpy(float), won[here].to_numpy(float)
            right = np.where(p == 0.5, 0.5, (p > 0.5) == y)
            sure = np.maximum(p, 1 - p) > SURE
            rows.append(
                (method, task, len(p), ((p - y) ** 2).mean(), right.mean(), sure.mean(),
                 right[sure].mean() if sure.any() else np.nan)
            )  # fmt: skip
    return pd.DataFrame(rows, columns=list(SCORES))


def _rivals(pairs: pd.DataFrame, fitted: xr.DataTree) -> Iterator[tuple[float, float, float]]:
    """What each rival says of each pair: the probability that a is better."""
    tasks, runs = tasks_of(fitted), runs_measured(fitted)
    items = tasks[c.ITEMS].fillna(DEFAULT_ITEMS)
    runs["variance"] = binomial_variance(runs[c.ACCURACY], runs[c.TASK].map(items).astype(float))
    best = runs.pivot_table(index=c.RECIPE, columns=c.TASK, values=c.ACCURACY, aggfunc="max")
    best[c.ALL] = best.mean(axis=1)
    # Lengths that hardly differ count as one.
    runs = runs.assign(**{word: two_digits(runs[word]) for word in (c.PARAMS, c.TOKENS)})
    scale = [c.RECIPE, c.PARAMS, c.TOKENS]
    wide = runs.pivot_table(c.ACCURACY, scale, c.TASK)
    spread = runs.pivot_table("variance", scale, c.TASK, lambda x: x.mean() / len(x))
    wide[c.ALL] = wide.mean(axis=1, skipna=False)
    spread[c.ALL] = spread.sum(axis=1) / len(tasks) ** 2
    for row in pairs.itertuples():
        first, second = (wide.loc[recipe, row.task].dropna() for recipe in (row.a, row.b))
        common = first.index.intersection(second.index)
        hard = soft = 0.5
        if len(common):
            most = max(common, key=lambda scale: flops(*scale))
            off = first[most] - second[most]
            sd = np.sqrt(sum(spread.loc[(recipe, *most), row.task] for recipe in (row.a, row.b)))
            hard, soft = _said(off), float(ndtr(off / sd))
        yield _said(best.loc[row.a, row.task] - best.loc[row.b, row.task]), hard, soft


def _said(off: float) -> float:
    return 0.5 if off == 0 or off != off else float(off > 0)

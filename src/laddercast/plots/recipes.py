"""Recipes compared: how far each lies behind the best, and which is best in which task."""

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from laddercast.data import words as c
from laddercast.data.writing import short_number
from laddercast.inference.results import converged
from laddercast.plots.style import BLUE, NOT_CONVERGED, SMALL, WIDTH, Panels, panels_of

if TYPE_CHECKING:
    from laddercast.decisions.recipes import RecipeComparison


def plot_recipes(found: "RecipeComparison", ax: Any = None) -> Panels:
    """Two panels for each scale: recipes behind the first of the mean over tasks; P(best) by task.

    On the left are the mean, 80 and 95 % intervals of the difference to the recipe of the least
    regret, and diamonds where it was measured; before a name stands its rank, with = where others
    have the same. On the right, the probability in percent that no recipe is better in a task,
    empty where all rungs are at chance.

    >>> axes = lc.plot_recipes(lc.compare_recipes(fitted_recipes, params=7e9, tokens=140e9))
    """
    scales = found.ranking[[c.PARAMS, c.TOKENS]].drop_duplicates()
    tasks = found.ranking[c.TASK].nunique()
    if ax is None:
        recipes = found.ranking[c.RECIPE].nunique()
        height = 1.6 + max(0.17 * tasks, 0.3 * recipes)
        size = (WIDTH, height * len(scales))
        ax = plt.subplots(
            len(scales), 2, figsize=size, squeeze=False, layout="constrained",
            width_ratios=(1, 1.2),
        )[1]  # fmt: skip
    axes = panels_of(ax, 2 * len(scales))
    for number, (params, tokens) in enumerate(scales.itertuples(index=False)):
        here = [
            table[(table[c.PARAMS] == params) & (table[c.TOKENS] == tokens)]
            for table in (found.comparisons, found.ranking)
        ]
        left, right = axes[2 * number : 2 * number + 2]
        _draw_behind(left, *here)
        _draw_best(right, here[1])
        title = f"{short_number(params)} parameters, {short_number(tokens)} tokens"
        left.set_title(f"{title}:\nmean over tasks, less that of the first", fontsize=SMALL + 1)
        right.set_title("Probability of being the best (%)", fontsize=SMALL + 1)
    if not converged(found.forecast):
        axes[0].figure.suptitle(NOT_CONVERGED, fontsize=10)
    return axes


def _draw_behind(ax: Any, pairs: pd.DataFrame, ranking: pd.DataFrame) -> None:
    order = list(ranking.loc[ranking[c.TASK] == c.ALL, c.RECIPE])
    mean = pairs[pairs[c.TASK] == c.ALL]
    for y, recipe in enumerate(order[1:], 1):
        row = mean[(mean["a"] == recipe) & (mean["b"] == order[0])]
        sign = 100.0
        if row.empty:
            row, sign = mean[(mean["a"] == order[0]) & (mean["b"] == recipe)], -100.0
        values = row.iloc[0]
        for ends, width, alpha in ((("q025", "q975"), 2.5, 0.35), (("q10", "q90"), 6.0, 0.7)):
            ax.plot([sign * values[end] for end in ends], [y, y], lw=width, color=BLUE,
                    alpha=alpha, solid_capstyle="butt")  # fmt: skip
        ax.plot(sign * values["mean"], y, "|", ms=9, mew=1.5, color="white", zorder=4)
        ax.plot(sign * values["measured"], y, "D", ms=4.5, mec="black", mfc="white", zorder=5)
    ax.plot(0, 0, "|", ms=9, mew=2, color=BLUE)
    ax.axvline(0, color="0.6", lw=0.8, zorder=0)
    rank = ranking[ranking[c.TASK] == c.ALL].set_index(c.RECIPE)["rank"]
    tied = rank.duplicated(keep=False)
    names = [f"{rank[name]}{'=' if tied[name] else '.'} {name}" for name in order]
    ax.set_yticks(range(len(order)), names, fontsize=SMALL)
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.set_xlabel("points of accuracy: mean, 80 and 95 %; diamonds measured", fontsize=SMALL)
    ax.tick_params(axis="x", labelsize=SMALL)
    ax.grid(axis="x", color="0.92")


def _draw_best(ax: Any, ranking: pd.DataFrame) -> None:
    order = list(ranking.loc[ranking[c.TASK] == c.ALL, c.RECIPE])
    tasks = list(dict.fromkeys(ranking[c.TASK]))
    best = ranking.set_index([c.TASK, c.RECIPE])["best"]
    shares = 100 * np.array([[best[task, recipe] for recipe in order] for task in tasks])
    # Of paths, where an image would be loaded by a page that loads nothing.
    edges = [np.arange(count + 1) - 0.5 for count in (len(order), len(tasks))]
    ax.pcolormesh(*edges, shares, cmap="Blues", vmin=0, vmax=100)
    ax.set_ylim(len(tasks) - 0.5, -0.5)
    for y, x in np.argwhere(np.isfinite(shares)):
        colour = "white" if shares[y, x] > 60 else "black"
        ax.text(x, y, f"{shares[y, x]:.0f}", ha="center", va="center", fontsize=SMALL - 2,
                color=colour)  # fmt: skip
    turned = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    ax.set_xticks(range(len(order)), order, fontsize=SMALL - 1, **turned)
    ax.set_yticks(range(len(tasks)), tasks, fontsize=SMALL - 1)

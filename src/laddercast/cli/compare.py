"""The command `compare`: which recipe, at the scale of the targets."""

import argparse
from typing import TYPE_CHECKING

from laddercast.cli.printing import print_rows
from laddercast.cli.steps import (
    FITTED,
    figures,
    inputs,
    read,
    save_figure,
    settings,
    status_of,
)
from laddercast.data import words as c
from laddercast.data.writing import counted, listed_by, percent, short_number

if TYPE_CHECKING:
    from laddercast.data.ladder import Ladder
    from laddercast.decisions.recipes import RecipeComparison

TABLES = ("comparisons.csv", "ranking.csv", "forecast.csv", "scores.csv")
FIGURE = "compare.png"


def run(args: argparse.Namespace) -> int:
    """Fit the ladder of several recipes, compare them, write tables and a figure."""
    from laddercast.cli.folders import results_folder
    from laddercast.data.ladder import run_ends
    from laddercast.decisions.recipe_scores import score_recipes
    from laddercast.decisions.recipes import compare_recipes, question
    from laddercast.forecasting.forecasts import forecast_table
    from laddercast.inference.fitting import fit
    from laddercast.inference.results import diagnose
    from laddercast.inference.saving import save
    from laddercast.sampling.programs import keep as keep_compiled

    ladder, targets = read(args)
    if c.measured(ladder.table, c.ACCURACY):
        ends = run_ends(ladder.table).dropna(subset=[c.ACCURACY])
        question(ends, ladder.tasks, targets)  # before the fit, which takes long
    keep_compiled()
    names = *TABLES, *FITTED, FIGURE
    with results_folder(args.out, names, inputs(args)) as folder:
        fitted = fit(ladder, **settings(args))
        save(fitted, folder / "fit.nc")
        found = compare_recipes(fitted, targets=targets, seed=args.seed)
        save(found.forecast, folder / "predictions.nc")
        forecast_table(found.forecast).to_csv(folder / "forecast.csv", index=False)
        found.comparisons.to_csv(folder / "comparisons.csv", index=False)
        found.ranking.to_csv(folder / "ranking.csv", index=False)
        save_figure(lambda: figures().plot_recipes(found)[0], folder / FIGURE)
        _print(found, ladder)
        scores = score_recipes(found, fitted)
        if len(scores):
            scores.to_csv(folder / "scores.csv", index=False)
            rows = [
                [row.method, row.task, f"{row.pairs}", f"{row.brier:.3f}", percent(row.right)]
                for row in scores.itertuples()
            ]
            print()
            print_rows(["method", "task", "pairs", "Brier", "right (%)"], rows)
        return status_of(found.forecast.attrs["complaints"], folder, diagnose(found.forecast))


def _print(found: "RecipeComparison", ladder: "Ladder") -> None:
    from laddercast.data.sizes import whole_runs
    from laddercast.decisions.answers import CAUTION

    whole = found.ranking[found.ranking[c.TASK] == c.ALL]
    pairs = found.comparisons[found.comparisons[c.TASK] == c.ALL]
    for (params, tokens), own in whole.groupby([c.PARAMS, c.TOKENS], sort=False):
        print(f"{short_number(params)} parameters, {short_number(tokens)} tokens, mean over tasks:")
        here = pairs[(pairs[c.PARAMS] == params) & (pairs[c.TOKENS] == tokens)]
        leader = own[c.RECIPE].iloc[0]
        beats = {row.b: row.probability for row in here[here["a"] == leader].itertuples()}
        beats |= {row.a: 1 - row.probability for row in here[here["b"] == leader].itertuples()}
        rows = [
            [
                f"{row.rank}", row.recipe, percent(row.best), f"{100 * row.regret:.2f}",
                percent(beats.get(row.recipe, float("nan"))),
            ]
            for row in own.itertuples()
        ]  # fmt: skip
        head = ["rank", "recipe", "P(best) (%)", "regret (points)", "first is better (%)"]
        print_rows(head, rows)
        print()
    print("Recipes of one rank are tied: none is better with a probability of 90 %.")
    runs = whole_runs(ladder.table).join(ladder.table.groupby(c.MODEL)[c.RECIPE].first())
    count = runs.groupby(c.RECIPE).size()
    few = {
        counted(n, "rung"): list(count.index[count == n]) for n in sorted(count.unique()) if n < 4
    }
    if few:
        print(
            f"{listed_by(few)}. One rung tells a recipe's level, two a level and one slope, four "
            "two slopes; all else of a recipe is taken to be as in the others."
        )
    print(CAUTION)

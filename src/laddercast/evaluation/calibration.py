"""Whether intervals hold the truth: fits to ladders drawn from the prior. Run as a command."""

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binom

from laddercast.data import words as c
from laddercast.data.cautions import NotConvergedWarning
from laddercast.evaluation.simulation import simulate_from_prior
from laddercast.forecasting.forecasts import forecast
from laddercast.inference.many import fit_each
from laddercast.inference.results import diagnose, routes_of
from laddercast.model.priors import Priors
from laddercast.model.routes import ROUTES, Route, two_stage

LEVELS = (0.05, 0.95)
GRID = 50
SIMULATED = 2000
RANKED = 99
"""Draws among which a truth is ranked: thinned, so that they are less correlated."""


def recovery(
    ladders: int = 20,
    *,
    route: Route | str = two_stage,
    seed: int = 0,
    priors: Priors | None = None,
    tasks: int = 4,
    chains: int = 4,
    warmup: int = 300,
    draws: int = 1000,
) -> pd.DataFrame:
    """Simulate ladders from a route's prior, fit and forecast each, and see where the truth falls.

    One row per ladder x quantity: `ladder` (its seed), `kind` (`parameter`, of the population, or
    `accuracy`, of a target), `quantity`, `truth`, `q05`, `q95`, `inside`, `pit` (the truth's rank
    among 99 draws, as a share), `converged`. All ladders have one shape, so that a fit is compiled
    once. Progress goes to stderr.
    """
    rows = []
    begin = time.perf_counter()
    rng = np.random.default_rng(seed)
    numbers = range(seed, seed + ladders)
    drawn = [simulate_from_prior(n, priors, route=route, tasks=tasks) for n in numbers]
    fits = fit_each(
        [ladder for ladder, _, _ in drawn], seeds=numbers, priors=priors, route=route,
        chains=chains, warmup=warmup, draws=draws, progress=False,
    )  # fmt: skip
    with warnings.catch_warnings():
        # Doubts about a fit are kept in `converged`.
        warnings.simplefilter("ignore", NotConvergedWarning)
        for number, (_, targets, population), fitted in zip(numbers, drawn, fits, strict=True):
            predicted = forecast(fitted, targets, seed=number)
            (own,) = routes_of(fitted).values()
            posterior = own["posterior"]
            found = [
                ("parameter", name, truth, posterior[name].to_numpy().ravel())
                for name, truth in population.items()
            ]
            predictions = predicted["predictions"]
            accuracies = predictions[c.ACCURACY].to_numpy().reshape(-1, predictions.sizes["row"])
            cells = list(zip(*(predictions[x].to_numpy() for x in (c.MODEL, c.TASK)), strict=True))
            truths = targets.set_index([c.MODEL, c.TASK])[c.ACCURACY].loc[cells]
            found += [
                ("accuracy", " ".join(cell), truth, values)
                for cell, truth, values in zip(cells, truths, accuracies.T, strict=True)
            ]
            converged = bool(predicted.attrs["converged"])
            for kind, quantity, truth, values in found:
                low, high = np.quantile(values, LEVELS)
                inside = bool(low <= truth <= high)
                some = values[np.linspace(0, len(values) - 1, RANKED).round().astype(int)]
                pit = (np.sum(some < truth) + rng.uniform()) / (RANKED + 1)
                rows.append((number, kind, quantity, truth, low, high, inside, pit, converged))
            doubts = len(diagnose(predicted))
            done, seconds = number - seed + 1, time.perf_counter() - begin
            print(
                f"ladder {done} of {ladders}, {seconds:.0f} s, "
                f"about {seconds / done * (ladders - done):.0f} s left"
                + ("" if converged else f": not converged ({doubts} complaints)"),
                file=sys.stderr,
            )
    words = ["ladder", "kind", "quantity", "truth", "q05", "q95", "inside", "pit", "converged"]
    return pd.DataFrame(rows, columns=words)


def coverage(recovered: pd.DataFrame) -> pd.DataFrame:
    """Share of truths inside 90 % intervals by kind: `truths, inside, below, above, ladders,
    converged` (shares, but for the counts `truths` and `ladders`).
    """
    of_kind = recovered.assign(
        below=recovered["truth"] < recovered["q05"], above=recovered["truth"] > recovered["q95"]
    ).groupby("kind", sort=False)
    return pd.DataFrame(
        {
            "truths": of_kind.size(),
            "inside": of_kind["inside"].mean(),
            "below": of_kind["below"].mean(),
            "above": of_kind["above"].mean(),
            "ladders": of_kind["ladder"].nunique(),
            "converged": of_kind["converged"].mean(),
        }
    )


def uniformity(recovered: pd.DataFrame) -> pd.DataFrame:
    """Simulation-based calibration: are the ranks of each truth among its draws uniform?

    One row per `kind` and `quantity`: `ladders`, `mean` of `pit` (.5 if no bias), and the
    `p_value` of the largest excursion of its distribution function from the straight line, in
    pointwise probability, as simultaneous ECDF bands have it (arXiv 2103.10522).
    """
    null: dict[int, np.ndarray] = {}
    rng = np.random.default_rng(0)
    rows = []
    for (kind, quantity), group in recovered.groupby(["kind", "quantity"], sort=False):
        count = len(group)
        if count not in null:
            null[count] = np.array([_excursion(rng.uniform(size=count)) for _ in range(SIMULATED)])
        p_value = np.mean(null[count] <= _excursion(group["pit"].to_numpy()))
        rows.append((kind, quantity, count, group["pit"].mean(), p_value))
    return pd.DataFrame(rows, columns=["kind", "quantity", "ladders", "mean", "p_value"])


def _excursion(pit: np.ndarray) -> float:
    """Least binomial tail probability of the empirical distribution function, over a grid."""
    grid = np.arange(1, GRID) / GRID
    below = np.searchsorted(np.sort(pit), grid, side="right")
    tails = binom.cdf(below, len(pit), grid), binom.sf(below - 1, len(pit), grid)
    return float(np.min(tails))


def main(arguments: list[str] | None = None) -> None:
    """Print coverage and uniformity for population parameters and target accuracies."""
    parser = argparse.ArgumentParser(
        prog="python -m laddercast.evaluation.calibration",
        description="Where truths lie among the draws of fits to ladders drawn from the prior.",
    )
    parser.add_argument("--ladders", type=int, default=20, help="how many (default: 20)")
    parser.add_argument("--route", choices=ROUTES, default="two_stage", help="default: two_stage")
    parser.add_argument("--seed", type=int, default=0, help="of the first ladder (default: 0)")
    parser.add_argument("--tasks", type=int, default=4, help="tasks of a ladder (default: 4)")
    parser.add_argument("--draws", type=int, default=1000, help="per chain (default: 1000)")
    parser.add_argument("--out", type=Path, help="a CSV file for what each ladder gave")
    given = parser.parse_args(arguments)
    recovered = recovery(
        given.ladders,
        route=ROUTES[given.route],
        seed=given.seed,
        tasks=given.tasks,
        draws=given.draws,
    )
    if given.out:
        passing = given.out.with_suffix(".partial")
        recovered.to_csv(passing, index=False)
        passing.replace(given.out)
    shown: dict[str, Any] = {"float_format": "{:.3f}".format}
    print(coverage(recovered).to_string(**shown))
    tested = uniformity(recovered)
    print()
    print(tested.sort_values("p_value").to_string(index=False, **shown))
    print(
        f"\nnot uniform at 5 %: {(tested['p_value'] < 0.05).sum()} of {len(tested)}; "
        f"least p-value times their number: {tested['p_value'].min() * len(tested):.2f}"
    )


if __name__ == "__main__":
    main()

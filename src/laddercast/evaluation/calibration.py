"""Whether intervals hold the truth: fits to ladders drawn from the prior. Run as a command."""

import argparse
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import binom

from laddercast.data import words as c
from laddercast.data.cautions import NotConvergedWarning
from laddercast.data.ladder import Ladder
from laddercast.data.temporary import write_whole
from laddercast.evaluation.resume import clear_kept, table_of_each
from laddercast.evaluation.simulation import simulate_from_prior
from laddercast.forecasting.forecasts import forecast
from laddercast.inference.executors import executor_for
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
    executor: Executor | int | None = None,
    resume: str | Path | None = None,
) -> pd.DataFrame:
    """Simulate ladders from a route's prior, fit and forecast each, and see where the truth falls.

    One row per ladder x quantity: `ladder` (its seed), `kind` (`parameter`, of the population,
    `accuracy` and `loss` of a target, `mean accuracy` over its tasks), `quantity`, `truth`, `q05`,
    `q95`, `inside`, `pit` (the truth's rank among 99 draws, as a share), `converged`. All ladders
    have one shape, so that a fit is compiled once. `executor` and `resume` as `backtest` takes
    them. Progress goes to stderr.
    """
    numbers = range(seed, seed + ladders)
    drawn = [simulate_from_prior(n, priors, route=route, tasks=tasks) for n in numbers]
    return recover(
        drawn, numbers, about=["recovery", tasks], executor=executor, resume=resume, priors=priors,
        route=route, chains=chains, warmup=warmup, draws=draws,
    )  # fmt: skip


def recover(
    drawn: Sequence[tuple[Ladder, pd.DataFrame, Mapping[str, float]]],
    seeds: Sequence[int],
    *,
    about: Sequence[Any] = (),
    executor: Executor | int | None = None,
    resume: str | Path | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Fit and forecast ladders of known truth, as `recovery` does those that it draws.

    Of each: the ladder, its targets as they would be measured, and true population parameters, of
    which there may be none. `about` tells in values that JSON has how these were made. Settings as
    `fit_each` takes them, of one route.
    """
    begin, done = time.perf_counter(), 0
    then = [
        partial(_recovered, number, targets, population)
        for number, (_, targets, population) in zip(seeds, drawn, strict=True)
    ]

    def tell(_: int, table: pd.DataFrame) -> None:
        nonlocal done
        done += 1
        seconds = time.perf_counter() - begin
        print(
            f"ladder {done} of {len(drawn)}, {seconds:.0f} s, "
            f"about {seconds / done * (len(drawn) - done):.0f} s left"
            + (
                ""
                if table["converged"][0]
                else f": not converged ({table['doubts'][0]} complaints)"
            ),
            file=sys.stderr,
        )

    with warnings.catch_warnings():
        # Doubts about a fit are kept in `converged`.
        warnings.simplefilter("ignore", NotConvergedWarning)
        parts = table_of_each(
            [ladder for ladder, _, _ in drawn],
            then,
            seeds=seeds,
            resume=resume,
            about=[[*about, number] for number in seeds],
            done=tell,
            executor=executor,
            progress=False,
            **settings,
        )
    found = pd.concat(parts, ignore_index=True)
    # A rank's place among its neighbours, of all ladders in their order, wherever they were fitted.
    jitter = np.random.default_rng(seeds[0]).uniform(size=len(found))
    found["pit"] = (found["below"] + jitter) / (RANKED + 1)
    words = ["ladder", "kind", "quantity", "truth", "q05", "q95", "inside", "pit", "converged"]
    return found[words]


def _recovered(
    number: int, targets: pd.DataFrame, population: Mapping[str, float], fitted: xr.DataTree
) -> pd.DataFrame:
    """Where truths lie among the draws of a fit: how many of the ranked ones are `below`."""
    predicted = forecast(fitted, targets, seed=number)
    (own,) = routes_of(fitted).values()
    posterior = own["posterior"]
    found = [
        ("parameter", name, truth, posterior[name].to_numpy().ravel())
        for name, truth in population.items()
    ]
    predictions = predicted["predictions"]
    cells = predictions[c.MODEL].to_numpy().astype(str), predictions[c.TASK].to_numpy().astype(str)
    truths = targets.set_index([c.MODEL, c.TASK]).loc[list(zip(*cells, strict=True))]
    for quantity in (c.ACCURACY, c.LOSS):
        # A route through the reference loss forecasts that in place of the tasks'.
        if quantity not in predictions or (
            quantity == c.LOSS and predicted.attrs["loss"] != c.LOSS
        ):
            continue
        draws = predictions[quantity].to_numpy().reshape(-1, predictions.sizes["row"])
        measured = truths[quantity].to_numpy(float)
        found += [
            (quantity, " ".join(cell), truth, values)
            for cell, truth, values in zip(zip(*cells, strict=True), measured, draws.T, strict=True)
        ]
        if quantity == c.ACCURACY and len(set(cells[1])) > 1:
            of_model = [(name, cells[0] == name) for name in dict.fromkeys(cells[0])]
            found += [
                ("mean accuracy", name, measured[here].mean(), draws[:, here].mean(axis=1))
                for name, here in of_model
            ]
    converged = bool(predicted.attrs["converged"])
    rows, rng = [], np.random.default_rng(number)
    for kind, quantity, truth, values in found:
        low, high = np.quantile(values, LEVELS)
        inside = bool(low <= truth <= high)
        some = values[np.linspace(0, len(values) - 1, RANKED).round().astype(int)]
        # Among draws that equal it, as accuracies at a bound do, a truth may have any place.
        below = int(np.sum(some < truth)) + int(rng.integers(np.sum(some == truth) + 1))
        rows.append((number, kind, quantity, truth, low, high, inside, below, converged))
    words = ["ladder", "kind", "quantity", "truth", "q05", "q95", "inside", "below", "converged"]
    return pd.DataFrame(rows, columns=words).assign(doubts=len(diagnose(predicted)))


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


def as_ranks(recovered: pd.DataFrame) -> xr.DataTree:
    """The `pit` of each kind in the layout of simulation-based calibration in ArviZ.

    Group `prior_sbc`: a variable a kind, with one chain, a draw a ladder, and the quantities that
    all ladders have in a dimension of its own.

    >>> az.plot_ecdf_pit(as_ranks(recovered), var_names="mean_accuracy")
    """
    variables = {}
    for kind, own in recovered.groupby("kind", sort=False):
        name = str(kind).replace(" ", "_")
        wide = own.pivot_table("pit", "ladder", "quantity", sort=False).dropna(axis=1)
        variables[name] = xr.DataArray(
            wide.to_numpy()[None],
            dims=["chain", "draw", f"{name}_of"],
            coords={
                "chain": [0],
                "draw": wide.index.to_numpy(),
                f"{name}_of": wide.columns.to_numpy(str),
            },
        )
    return xr.DataTree.from_dict({"prior_sbc": xr.Dataset(variables)})


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
    parser.add_argument("--workers", type=int, help="processes on this machine (default: none)")
    parser.add_argument("--scheduler", help="address of a Dask scheduler whose workers fit")
    parser.add_argument("--out", type=Path, help="a CSV file for what each ladder gave; beside it, "
                        "a folder of its name and .unfinished, until all are done, from which the "
                        "same command goes on")  # fmt: skip
    given = parser.parse_args(arguments)
    unfinished = given.out and given.out.with_name(f"{given.out.name}.unfinished")
    with executor_for(given.workers, given.scheduler) as executor:
        recovered = recovery(
            given.ladders,
            route=ROUTES[given.route],
            seed=given.seed,
            tasks=given.tasks,
            draws=given.draws,
            executor=executor,
            resume=unfinished,
        )
    if given.out:
        write_whole(given.out, recovered.to_csv(index=False).encode())
        clear_kept(unfinished)
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

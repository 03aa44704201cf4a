"""How large, how long: is the best size inside its interval, and as good as is said?

`python benchmarks/allocation.py --out DIR [--ladders 30] [--demo 8] [--farseer FIT.nc]`: simulated
ladders of 16 rungs, three tasks each, fitted by `two_stage`; at a budget five times that of the
largest rung, the interval of the best size for the accuracy and for the loss of each task, and for
the mean accuracy, is held against the truth. Truths are drawn from what the priors hold likely, at
q = 1; and in `--demo` ladders they are tasks of the demo, as published fits have them. Then the
closed form of the law, and, where LADDERCAST_DATA has it, the ladder `farseer` (its fit is made, or
read from FIT.nc).
Cells go to DIR/cells.csv as they are found (what is there is not fitted again), tables to their
section of docs/decisions.md; `--tables` fits nothing.
"""

import argparse
import os
import sys
import time
import warnings
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import xarray as xr
from results import add_page, keep, write_section

import laddercast as lc
from laddercast.decisions.allocation import EPSILON, OPTIMUM, SURE, grid_at, reach_of, regrets
from laddercast.decisions.questions import draws_of
from laddercast.evaluation.simulation import DEMO_SIZES, DEMO_TOKENS_PER_PARAM, demo_truth
from laddercast.forecasting.forecasts import forecast_of_laws
from laddercast.forecasting.grids import thinned
from laddercast.inference.results import frame_of
from laddercast.model import stages

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("LADDERCAST_DATA", ROOT.parent / "shared" / "data"))
TASKS, SIZES = 3, 48
FINE = np.geomspace(1e6, 1e13, 20001)
"""Sizes among which the true optimum of a mean is looked for."""


TEXT = """### Simulated ladders

Is the true best size in its 50 and 90 % interval? Ladders are `lc.simulate`'s, of q = 1, where the
model has a prior on q about 1.5. Their discrepancy is a walk in compute, which is the same for all
sizes of a budget; the model allows for one in params and one in tokens, which is not. `drawn`: laws
of the tasks are drawn from what the priors hold likely. `demo`: they are tasks of the demo, point
fits as published, of which some have exponents (.79 of params, .20 of tokens) that the priors hold
next to impossible: intervals are not to be expected to hold there, and are shown for how they fail.

{coverage}
### The closed form

Losses alone (`stage_1`), q set to 1, draw by draw against the law's own optimum in the same draw,
N = (alpha A / (beta B))^(1 / (alpha + beta)) (C / 6)^(beta / (alpha + beta)).

{closed}
### farseer

404 measured rungs, losses alone. Published of the same measurements: about 20 tokens per parameter
at 1e20 to 1e21 FLOPs, and more the more compute there is (arXiv 2506.10972;
https://farseer-scaling-law.github.io, figure 1b).

{farseer}"""


def true_loss(truth: pd.DataFrame, params: np.ndarray, flops: float) -> np.ndarray:
    """Losses (sizes, tasks) along equal compute, by the laws."""
    t = {name: truth[name].to_numpy(float) for name in truth}
    n, d = params[:, None], flops / 6 / params[:, None]
    return np.asarray(t["E"] + t["A"] / n ** t["alpha"] + t["B"] / d ** t["beta"])


def true_accuracy(truth: pd.DataFrame, params: np.ndarray, flops: float) -> np.ndarray:
    """Accuracies (sizes, tasks) along equal compute, by the laws."""
    t = {name: truth[name].to_numpy(float) for name in truth}
    logit = t["k"] * (true_loss(truth, params, flops) - t["L0"])
    return np.asarray(t["b"] + t["a"] / (1 + np.exp(-logit)))


def closed_form(a: np.ndarray, alpha: np.ndarray, b: np.ndarray, beta: np.ndarray, flops: float):
    """The best size of A / N^alpha + B / D^beta + E at 6 N D = flops."""
    ratio = (alpha * a / (beta * b)) ** (1 / (alpha + beta))
    return ratio * (flops / 6) ** (beta / (alpha + beta))


def drawn_truth(seed: int) -> pd.DataFrame:
    """Laws of three tasks that the priors hold likely, with the noise of tasks of the demo."""
    rng = np.random.default_rng(1000 + seed)

    def pooled(center: float, sd: float, between: float) -> np.ndarray:
        return rng.normal(center, sd) + rng.normal(0, between, TASKS)

    truth = demo_truth().sample(TASKS, random_state=seed)
    n = np.exp(np.log(DEMO_SIZES).mean())
    d = n * np.exp(np.log(DEMO_TOKENS_PER_PARAM).mean())
    level = np.exp(rng.normal(0, 0.3, TASKS))
    share_e = 1 / (1 + np.exp(-pooled(-0.5, 0.5, 0.4)))
    share_a = 1 / (1 + np.exp(-pooled(0.4, 0.7, 0.4)))
    alpha, beta = (np.exp(pooled(np.log(0.27), 0.15, 0.2)) for _ in range(2))
    reducible = level * (1 - share_e)
    truth["alpha"], truth["beta"], truth["E"] = alpha, beta, level * share_e
    truth["A"] = reducible * share_a * n**alpha
    truth["B"] = reducible * (1 - share_a) * d**beta
    # Neither at chance nor at the top.
    truth["k"] = np.exp(pooled(np.log(7), 0.3, 0.3)) / level
    truth["L0"] = level + rng.normal(-1, 0.7, TASKS) / truth["k"].to_numpy()
    return truth


def cells_of(kind: str, seed: int, flops: float) -> pd.DataFrame:
    """A row for each of what is to be best on one ladder."""
    truth = drawn_truth(seed)
    if kind == "demo":
        names = np.random.default_rng(seed).choice(list(demo_truth().index), TASKS, replace=False)
        truth = demo_truth().loc[list(names)]
    names = list(truth.index)
    ladder, _ = lc.simulate(
        truth, sizes=DEMO_SIZES, tokens_per_param=DEMO_TOKENS_PER_PARAM, seed=seed
    )
    begin = time.perf_counter()
    fitted = lc.fit(ladder, route="two_stage", progress=False)
    grid = grid_at(reach_of(fitted), flops, 0.0, SIZES)
    targets = grid.assign(model=grid.index.astype(str))
    tree = forecast_of_laws(thinned(fitted, 2000), targets)
    sizes = grid["params"].to_numpy(float)
    half = (sizes[1] / sizes[0]) ** 0.5
    every = [("accuracy", name) for name in names] + [("loss", name) for name in names]
    rows = []
    for quantity, name in [*every, ("accuracy", "all")]:
        found = draws_of(tree, name, quantity=quantity)
        regret = regrets(found.draws, quantity)
        best = sizes[regret.argmin(axis=1)]
        ends = {q: np.quantile(best, level, method="nearest") for q, level in OPTIMUM.items()}
        of = true_accuracy if quantity == "accuracy" else true_loss
        fine, here = of(truth, FINE, flops), of(truth, sizes, flops)
        column = slice(None) if name == "all" else [names.index(name)]
        fine, here = fine[:, column].mean(axis=1), here[:, column].mean(axis=1)
        exact = FINE[fine.argmax() if quantity == "accuracy" else fine.argmin()]
        own = regrets(here[None], quantity)[0]
        chosen = regret.mean(axis=0).argmin()
        inside = (regret <= EPSILON).mean(axis=0) >= SURE
        rows.append(
            {
                "kind": kind, "seed": seed, "task": name, "quantity": quantity, "exact": exact,
                **ends,
                # A size of the grid stands for all that are nearest to it.
                "inside90": ends["q05"] / half <= exact <= ends["q95"] * half,
                "inside50": ends["q25"] / half <= exact <= ends["q75"] * half,
                "reachable": sizes[0] <= exact <= sizes[-1],
                "in_set": inside.sum(), "in_set_good": (own[inside] <= EPSILON).sum(),
                "regret_of_choice": own[chosen], "seconds": time.perf_counter() - begin,
                "converged": fitted.attrs["converged"],
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def against_closed_form(flops: float) -> str:
    """A fit of losses, walks taken out, q at 1, gamma at 0, against the law's own optimum."""
    truth = demo_truth().loc[["hellaswag", "piqa", "mmlu"]]
    ladder, _ = lc.simulate(truth, sizes=DEMO_SIZES, tokens_per_param=DEMO_TOKENS_PER_PARAM)
    fitted = lc.fit(ladder, route="stage_1", progress=False)
    posterior = fitted["stage_1"]["posterior"].to_dataset()
    frame, lines, floors = frame_of(fitted), [], stages.LEAST_BEYOND
    for word in ("with the walks", "without"):
        if word == "without":
            # What was traced before has the floor.
            stages.LEAST_BEYOND = {}
            jax.clear_caches()
            for name in map(str, posterior):
                if name.startswith("walk") and "interval" in posterior[name].dims:
                    posterior[name] = xr.zeros_like(posterior[name])
                if name.startswith("log_walk"):
                    posterior[name] = xr.full_like(posterior[name], -30.0)
        posterior["q"] = xr.ones_like(posterior["q"])
        posterior["gamma"] = xr.zeros_like(posterior["gamma"])
        fitted["stage_1"]["posterior"] = xr.DataTree(posterior)
        grid = grid_at(reach_of(fitted), flops, 0.0, SIZES)
        tree = forecast_of_laws(thinned(fitted, 1000), grid.assign(model=grid.index.astype(str)))
        used = thinned(fitted, 1000)["stage_1"]["posterior"].to_dataset()
        sizes = grid["params"].to_numpy(float)
        for task in truth.index:
            best = sizes[draws_of(tree, task, quantity="loss").draws.argmin(axis=1)]
            logit, alpha, beta = (
                used[x].sel(task=task).to_numpy().ravel()
                for x in ("logit_share_a", "alpha", "beta")
            )
            # The letter A is of the q that was fitted; its share at the reference sizes is not.
            a, b = np.exp(logit) * frame.params**alpha, frame.tokens**beta
            exact = np.clip(closed_form(a, alpha, b, beta, flops), sizes[0], sizes[-1])
            off = np.log10(best / exact)
            lines.append(
                {
                    "walks": word, "task": task, "median, closed form": np.median(exact),
                    "median": np.median(best), "largest difference, decades": np.abs(off).max(),
                    "RMS difference, decades": np.sqrt((off**2).mean()),
                    "step of the grid, decades": np.log10(sizes[1] / sizes[0]),
                }
            )  # fmt: skip
    stages.LEAST_BEYOND = floors
    jax.clear_caches()
    return _text(pd.DataFrame(lines))


def farseer(fit: Path | None, flops: float) -> str:
    """The best D/N of the measured ladder `farseer`, and the set."""
    if fit is not None and fit.exists():
        fitted = xr.open_datatree(fit, engine="h5netcdf").load()
    else:
        fitted = lc.fit(lc.read_ladder(DATA / "zoo" / "farseer" / "ladder.csv"), progress=False)
    table = lc.allocate(fitted, flops)
    attrs = table.attrs
    chosen = table[table["in_set"]]
    ratio = chosen["tokens"] / chosen["params"]
    best = pd.DataFrame(attrs["optimum"]).T
    return (
        f"At {flops:.3g} FLOPs the sizes within {100 * EPSILON:g} % of the best loss with "
        f"probability {SURE:g} are {chosen['params'].min():.3g} to {chosen['params'].max():.3g} "
        f"params, {ratio.max():.3g} to {ratio.min():.3g} tokens per parameter. The fit "
        f"{'converged' if attrs['converged'] else 'has NOT converged'}. The best size:\n\n"
        f"```\n{best.to_string(float_format='{:.3g}'.format)}\n```\n"
    )


def _text(table: pd.DataFrame) -> str:
    return f"```\n{table.to_string(index=False, float_format='{:.3g}'.format)}\n```\n"


def coverage(cells: pd.DataFrame) -> str:
    """Shares over ladders, by what is to be best."""
    known = cells[cells["reachable"].astype(bool) & (cells["converged"] == 1)]
    best_for = known["quantity"].where(known["task"] != "all", "mean accuracy of 3 tasks")
    known = known.assign(width=np.log10(known["q95"] / known["q05"]), best_for=best_for)
    groups = known.groupby(["kind", "best_for"], sort=False)
    table = groups.agg(
        ladders=("seed", "nunique"), cells=("seed", "size"), inside90=("inside90", "mean"),
        inside50=("inside50", "mean"), width90_decades=("width", "mean"),
        regret_of_choice=("regret_of_choice", "mean"), worst=("regret_of_choice", "max"),
        in_set=("in_set", "sum"), in_set_good=("in_set_good", "sum"),
    )  # fmt: skip
    table["in_set_good"] /= table["in_set"]
    left = len(cells) - len(known)
    return (
        f"{_text(table.reset_index())}\n{left} of {len(cells)} cells are "
        "left out, as the true best size lies beyond the sizes compared, or the fit has not "
        "converged. Cells of one ladder hang together. `in_set_good` is the share of the sizes in "
        f"sets that are truly within epsilon ({EPSILON:g}) of the best: at least {SURE:g} is "
        "claimed of each. Regrets of accuracy are fractions, of losses shares.\n"
    )


def main() -> None:
    """Fit what is missing, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of cells.csv")
    parser.add_argument("--ladders", type=int, default=30, help="with drawn truths")
    parser.add_argument("--demo", type=int, default=8, help="of the demo's tasks")
    parser.add_argument("--flops", type=float, default=1e22)
    parser.add_argument("--farseer", type=Path, metavar="FIT.nc", help="a fit that was kept")
    add_page(parser)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    parts = {}
    # Each part is kept, as it takes long.
    for name, make in (
        ("farseer", lambda: farseer(given.farseer, 1e21)),
        ("closed", lambda: against_closed_form(given.flops)),
    ):
        kept = given.out / f"{name}.md"
        if not (kept.exists() or given.tables) and (name != "farseer" or (DATA / "zoo").is_dir()):
            kept.write_text(make())
        parts[name] = kept.read_text() if kept.exists() else "Not measured yet.\n"
        print(parts[name], flush=True)
    path = given.out / "cells.csv"
    cells = pd.read_csv(path) if path.exists() else pd.DataFrame({"kind": [], "seed": []})
    write(parts, cells, given)
    done = set(zip(cells["kind"], cells["seed"], strict=True))
    wanted = [("drawn", x) for x in range(given.ladders)] + [("demo", x) for x in range(given.demo)]
    for kind, seed in () if given.tables else wanted:
        if (kind, seed) in done:
            continue
        found = cells_of(kind, seed, given.flops)
        cells = pd.concat([cells, found], ignore_index=True) if len(cells) else found
        keep(cells, path)
        write(parts, cells, given)
        print(f"{kind} {seed}: {found['seconds'].max():.0f} s", file=sys.stderr, flush=True)


def write(parts: dict[str, str], cells: pd.DataFrame, given: argparse.Namespace) -> None:
    """The section, with what is known so far."""
    found = coverage(cells) if len(cells) else "None yet.\n"
    write_section(given.page, "allocation", TEXT.format(coverage=found, **parts), given.out)


if __name__ == "__main__":
    main()

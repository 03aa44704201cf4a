"""Which rung next: what a plan promises, and what its rungs then do.

`python benchmarks/plan.py --out DIR {simulated,farseer,paper} [...]`, each resumable: what is in
DIR/plan_*.csv is not fitted again. All tables that are there go to their section of
docs/decisions.md; `--tables` fits nothing.

`simulated [--ladders N] [--candidates M]`: of N ladders drawn from the priors, each of M candidates
is truly added and the ladder fitted again. How far does the target's predictive variance fall by
the rung that the plan chose, as a share of the best candidate's, against one of equal cost, and
against what was predicted? `farseer [--shares 1 5 10]`: runs are taken from the zoo's pool of 404
until these per cents of its compute are spent, by plan, by chance, the cheapest first; R2 of the
losses of its targets. `paper [--steps 1 3 ...]`: six rungs of the paper's ladder, then others for
the compute that so many more take in order of size, by plan and in that order; CRPS on the 3.2B
rungs.
"""

import argparse
import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from results import add_page, keep, write_section

import laddercast as lc
from laddercast.data.ladder import as_targets
from laddercast.decisions.candidates import candidate_grid
from laddercast.evaluation.simulation import simulate_from_prior
from laddercast.sampling.programs import keep as keep_compiled

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("LADDERCAST_DATA", ROOT.parent / "shared" / "data"))

TARGET = pd.DataFrame({"model": ["target"], "params": [10**10], "tokens": [10**12]})
BUDGET_SHARE = 0.02
"""Of the simulated target's compute, what one more rung may take."""
EQUAL = 2.0
"""Candidates within this factor of the chosen one's compute are of equal cost."""
START = 12
"""Runs of the pool that are there from the start, the cheapest of 12 sizes."""
ROUNDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Per cents of the pool's compute at which the ladder is fitted again, and the plan made anew."""
AT_ONCE = 40
"""Runs of the pool that one round plans, at most."""


def variance_of(fitted: xr.DataTree, targets: pd.DataFrame) -> float:
    """Mean over tasks and targets, in points squared."""
    draws = lc.forecast(fitted, targets)["predictions"]["accuracy"]
    return float((100 * draws).var(("chain", "draw")).mean())


def runs_table(path: Path, columns: list[str]) -> pd.DataFrame:
    """What was found before."""
    return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=columns)


def simulated(out: Path, given: argparse.Namespace) -> None:
    """Cells of each ladder: a row a candidate."""
    path = out / "plan_simulated.csv"
    cells = runs_table(path, ["ladder"])
    settings = {"route": given.route, "chains": 4, "draws": 500, "progress": False}
    for seed in range(given.ladders):
        if seed in set(cells["ladder"]):
            continue
        begin = time.perf_counter()
        ladder, _, _ = simulate_from_prior(seed, targets=TARGET)
        rungs = ladder.table.groupby("model")[["params", "tokens"]].max()
        budget = (
            BUDGET_SHARE * 6.0 * float((TARGET["params"].astype(float) * TARGET["tokens"]).sum())
        )
        grid = candidate_grid(rungs, TARGET, budget)
        grid = grid[grid["flops"] <= budget]
        rng = np.random.default_rng(seed)
        grid = grid.iloc[np.sort(rng.permutation(len(grid))[: given.candidates])]
        grid = grid.assign(checkpoints=3).reset_index(drop=True)
        wanted = pd.concat([TARGET.assign(checkpoints=1), grid], ignore_index=True)
        # The same truth, of which candidates and target are measured together.
        ladder, measured, _ = simulate_from_prior(seed, targets=wanted)
        new = [measured[measured["model"] == name] for name in grid["model"]]
        ends = ["model", "params", "tokens", "task", "loss", "accuracy", "checkpoints"]
        more = [
            lc.Ladder(pd.concat([ladder.table, own[ends]]), ladder.tasks, name=f"{seed}")
            for own in new
        ]
        whole = lc.Ladder(pd.concat([ladder.table, *(x[ends] for x in (new[-1], new[0]))]),
                          ladder.tasks)  # fmt: skip
        fits = lc.fit_each([ladder, *more], within=whole, **settings)
        first = next(fits)
        now = variance_of(first, TARGET)
        began = time.perf_counter()
        plan = lc.plan_rungs(first, TARGET, budget=budget, candidates=grid, count=1, seed=1)
        seconds = time.perf_counter() - began
        then = [variance_of(own, TARGET) for own in fits]
        plan = plan.set_index(["params", "tokens"])
        rows = plan.loc[list(zip(grid["params"], grid["tokens"], strict=True))].reset_index()
        rows = rows.assign(ladder=seed, now=now, then=then, seconds=seconds,
                           chosen=rows["order"].notna().astype(int))  # fmt: skip
        cells = pd.concat([cells, rows], ignore_index=True)
        keep(cells, path)
        print(f"ladder {seed}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)


def told_of_simulated(cells: pd.DataFrame) -> str:
    """The table of the simulated ladders."""
    rows = []
    for _, own in cells.groupby("ladder"):
        gain = own["now"] - own["then"]
        chosen = own[own["chosen"] == 1]
        if chosen.empty:
            continue
        cost = float(chosen["flops"].iloc[0])
        mine = float(gain[own["chosen"] == 1].iloc[0])
        near = own["flops"].between(cost / EQUAL, cost * EQUAL) & (own["chosen"] == 0)
        rows.append(
            {
                "chosen": mine, "best": gain.max(), "equal cost": gain[near].mean(),
                "any": gain.mean(), "correlation": np.corrcoef(
                    own["variance_after"], own["then"])[0, 1],
            }
        )  # fmt: skip
    table = pd.DataFrame(rows)
    mean = table.mean()
    before, predicted, realised = cells[["now", "variance_after", "then"]].mean()
    known = table.dropna(subset=["equal cost"])
    return (
        f"{len(table)} ladders, {len(cells)} candidates fitted again. Mean fall of the target's "
        f"predictive variance, in points squared:\n\n"
        f"| chosen rung | best of candidates | random of equal cost | random |\n|---|---|---|---|\n"
        f"| {mean['chosen']:.2f} | {mean['best']:.2f} | {mean['equal cost']:.2f} | "
        f"{mean['any']:.2f} |\n\n"
        f"Share of the best: {mean['chosen'] / mean['best']:.0%} (bar 80 %); over a random rung of "
        f"equal cost, on the {len(known)} ladders that have one: "
        f"{known['chosen'].mean() / known['equal cost'].mean():.2f} times (bar 2).\n\n"
        f"Variance before {before:.2f}; with one candidate more, mean over all: predicted "
        f"{predicted:.2f}, realised {realised:.2f}; correlation over a ladder's candidates "
        f"{table['correlation'].mean():.2f}. Seconds of a plan: {cells['seconds'].median():.1f}.\n"
    )


def pool_of_farseer() -> tuple[pd.DataFrame, pd.DataFrame]:
    """The runs of the pool, and targets without their losses."""
    zoo = DATA / "zoo" / "farseer"
    pool = pd.read_csv(zoo / "ladder.csv")
    pool["flops"] = 6.0 * pool["params"] * pool["tokens"]
    return pool, pd.read_csv(zoo / "targets.csv", usecols=["model", "params", "tokens"])


def taken(
    way: str, fitted: xr.DataTree, pool: pd.DataFrame, have: list[str], budget: float,
    targets: pd.DataFrame, seed: int,
) -> list[str]:  # fmt: skip
    """Runs of the pool to add for this budget."""
    rest = pool[~pool["model"].isin(have)].sort_values("flops")
    rest = rest[rest["flops"] <= budget]
    if rest.empty:
        return []
    if way == "plan":
        # Of runs that were made twice, one.
        again = pd.concat([pool[pool["model"].isin(have)], rest]).duplicated(["params", "tokens"])
        rest = rest[~again.loc[rest.index]]
        plan = lc.plan_rungs(fitted, targets, budget=budget, count=AT_ONCE, seed=seed,
                             candidates=rest.drop(columns=["loss", "task"]))  # fmt: skip
        chosen = plan[plan["order"].notna()].merge(rest, on=["params", "tokens"])
        return list(chosen["model"])
    if way == "random":
        rest = rest.sample(frac=1.0, random_state=seed)
    names, spent = [], 0.0
    for row in rest.itertuples():
        if spent + row.flops <= budget:
            names.append(row.model)
            spent += row.flops
    return names


def farseer(out: Path, given: argparse.Namespace) -> None:
    """A row a way, share and target: the loss forecast."""
    path = out / "plan_farseer.csv"
    cells = runs_table(path, ["way", "share", "runs"])
    pool, targets = pool_of_farseer()
    total = pool["flops"].sum()
    sizes = pool.sort_values("flops").groupby("params").head(1)
    start = list(sizes.nsmallest(START, "flops")["model"])
    for way in given.ways:
        rounds = [share for share in ROUNDS if share <= max(given.shares)]
        have, fitted = list(start), None
        for share in rounds:
            done = cells[(cells["way"] == way) & (cells["share"] == share)]
            if len(done):
                have = str(done["runs"].iloc[0]).split()
                fitted = None
                continue
            if fitted is None and way == "plan":
                fitted = fit_of(pool, have)
            spent = pool.loc[pool["model"].isin(have), "flops"].sum()
            have = have + taken(way, fitted, pool, have, share / 100 * total - spent, targets, 0)
            # Rivals choose without a fit.
            if way != "plan" and share not in given.shares:
                continue
            fitted = fit_of(pool, have)
            table = lc.forecast_table(lc.forecast(fitted, targets))
            spent = pool.loc[pool["model"].isin(have), "flops"].sum()
            rows = table[["model", "mean", "sd", "q025", "q10", "q50", "q90", "q975"]].assign(
                way=way, share=share, spent=100 * spent / total, number=len(have),
                converged=fitted.attrs["converged"], runs=" ".join(have),
            )  # fmt: skip
            cells = pd.concat([cells, rows], ignore_index=True)
            keep(cells, path)
            print(f"{way}, {share:g} %: {len(have)} runs", file=sys.stderr, flush=True)


def fit_of(pool: pd.DataFrame, have: list[str]) -> xr.DataTree:
    """The fit of these runs."""
    return lc.fit(lc.Ladder(pool[pool["model"].isin(have)], pd.DataFrame()), progress=False)


def told_of_farseer(cells: pd.DataFrame) -> str:
    """R2 of each way and share; here alone the targets' losses are read."""
    measured = pd.read_csv(DATA / "zoo" / "farseer" / "targets.csv").set_index("model")["loss"]
    text = "| way | share % | spent % | runs | R2 | inside 80 / 95 % | converged |\n"
    text += "|---|---|---|---|---|---|---|\n"
    for (way, share), own in cells.groupby(["way", "share"], sort=False):
        y = measured.loc[own["model"]].to_numpy()
        r2 = 1 - ((y - own["q50"]) ** 2).sum() / ((y - y.mean()) ** 2).sum()
        inside = [((own[low] <= y) & (y <= own[high])).sum() for low, high in
                  (("q10", "q90"), ("q025", "q975"))]  # fmt: skip
        text += (
            f"| {way} | {share:g} | {own['spent'].iloc[0]:.2f} | {own['number'].iloc[0]:.0f} | "
            f"{r2:.2f} | {inside[0]} / {inside[1]} of {len(own)} | "
            f"{own['converged'].iloc[0]:.0f} |\n"
        )
    return text


def paper(out: Path, given: argparse.Namespace) -> None:
    """A row a way and step: the CRPS on the 3.2B rungs."""
    path = out / "plan_paper.csv"
    cells = runs_table(path, ["way", "step"])
    ladder = lc.read_ladder(DATA / "olmo_ladder.csv", DATA / "olmo_tasks.csv")
    extra = pd.read_csv(DATA / "olmo_extra_rungs.csv")
    large = extra[(extra["params"] > 3e9) & extra["task"].isin(ladder.tasks.index)]
    held_out = as_targets(large)
    ends = ladder.table.groupby("model")[["params", "tokens", "flops"]].max()
    order = list(ends.sort_values("flops").index)
    begin, rest = order[:6], ends.loc[order[6:]]
    # "By size": all of a size, then the next.
    rest = rest.sort_values(["params", "tokens"])
    targets = held_out[["model", "params", "tokens"]].drop_duplicates("model")
    first = None
    for step in given.steps:
        budget = rest["flops"].iloc[:step].sum()
        for way in ("plan", "by size"):
            if len(cells[(cells["way"] == way) & (cells["step"] == step)]):
                continue
            names = list(rest.index[:step])
            if way == "plan" and step:
                first = lc.fit(ladder.keep(begin), progress=False) if first is None else first
                plan = lc.plan_rungs(first, targets, budget=budget,
                                     candidates=rest.reset_index())  # fmt: skip
                chosen = plan[plan["order"].notna()]
                both = rest.reset_index().merge(chosen, on=["params", "tokens"])
                names = list(both["model"])
            fitted = lc.fit(ladder.keep([*begin, *names]), progress=False, within=ladder)
            scores = lc.score(lc.forecast(fitted, held_out))
            own = scores[(scores["quantity"] == "accuracy") & (scores["task"] == "all")]
            row = own[["error", "crps", "cover80"]].assign(
                way=way, step=step, flops=rest.loc[names, "flops"].sum(), budget=budget,
                added=" ".join(names),
            )  # fmt: skip
            cells = pd.concat([cells, row], ignore_index=True)
            keep(cells, path)
            print(f"{way}, {step}: {names}", file=sys.stderr, flush=True)


def told_of_paper(cells: pd.DataFrame) -> str:
    """The curve as a table."""
    text = "| rungs by size | budget, FLOPs | way | spent | error | CRPS | inside 80 % | added |\n"
    text += "|---|---|---|---|---|---|---|---|\n"
    for row in cells.sort_values(["step", "way"]).itertuples():
        text += (
            f"| {row.step} | {row.budget:.2e} | {row.way} | {row.flops:.2e} | {row.error:.2f} | "
            f"{row.crps:.2f} | {row.cover80:.0%} | {row.added} |\n"
        )
    return text


TOLD = {
    "simulated": ("Simulated ladders", told_of_simulated),
    "farseer": ("farseer: which runs of a pool", told_of_farseer),
    "paper": ("The paper's ladder from six rungs", told_of_paper),
}


def write(out: Path, page: Path) -> None:
    """The section, from all that was found."""
    parts = []
    for name, (title, told) in TOLD.items():
        path = out / f"plan_{name}.csv"
        if path.exists():
            parts.append(f"### {title}\n\n{told(pd.read_csv(path))}")
    text = "\n".join(parts) or "Nothing found yet.\n"
    print(text)
    write_section(page, "plan", text, out)


def main() -> None:
    """Fit what is missing, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", choices=[*TOLD, []], help="none: the section alone")
    parser.add_argument("--out", type=Path, required=True, help="folder of plan_*.csv")
    parser.add_argument("--ladders", type=int, default=50)
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--route", nargs="+", help="of simulated ladders (default: as usual)")
    parser.add_argument("--shares", type=float, nargs="+", default=[1.0, 5.0, 10.0])
    parser.add_argument("--ways", nargs="+", default=["plan", "random", "cheapest"])
    parser.add_argument("--steps", type=int, nargs="+", default=list(range(11)))
    add_page(parser)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    keep_compiled()
    for what in () if given.tables else given.what:
        {"simulated": simulated, "farseer": farseer, "paper": paper}[what](given.out, given)
        write(given.out, given.page)
    if given.tables or not given.what:
        write(given.out, given.page)


if __name__ == "__main__":
    main()

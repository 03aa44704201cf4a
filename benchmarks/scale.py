"""How seconds and memory of a fit grow with tasks, rungs and checkpoints.

`python benchmarks/scale.py --out FILE.csv [--growth tasks drawn ...] [--sizes 8 ...]` fits
simulated ladders, grown in one of these ways: tasks (of 16 rungs), copies of the demo's; tasks
drawn from the priors; rungs (of 8 tasks); checkpoints of each run (16 rungs, 8 tasks), of which the
fit reads means and spreads; the same with `rungs="every"`, which reads each. Each has a process of
its own, which fits twice, the second time with another seed and all compiled: seconds are of that
one. With `--once` it fits once, and seconds are of that.

Printed is the least bulk effective sample size of any site, and the cost: seconds per effective
draw and measurement, relative to the smallest size. It stays 1 where work grows as the data do.
Rows go to FILE.csv as they are found, and a size that is there is not fitted again.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from results import keep

ROOT = Path(__file__).parents[1]
SIZES = {
    "tasks": (8, 32, 128, 512),
    "drawn": (8, 32, 128, 512),
    "rungs": (16, 50, 100, 200, 400),
    "checkpoints": (1, 10, 50, 200),
    "every": (1, 10, 50, 200),
}
LABELS = {
    "tasks": "tasks like the demo's",
    "drawn": "tasks drawn from the priors",
    "checkpoints": "checkpoints per run",
    "every": "checkpoints per run, each read",
}
TASKS, RUNGS, CHECKPOINTS = 8, 16, 20
"""Where they do not grow."""

PARAMS, TOKENS_PER_PARAM = (190e6, 1.28e9), (20, 200)
JITTER = 0.1
"""By which tasks beyond the demo's differ from those, in logs."""


def ladder_of(growth: str, size: int) -> Any:
    """A simulated ladder of this size: but for its tasks, if they are drawn, like the demo's."""
    import laddercast as lc
    from laddercast.evaluation.simulation import demo_truth, simulate_from_prior

    given = {"tasks": TASKS, "rungs": RUNGS, "checkpoints": CHECKPOINTS} | {growth: size}
    given["checkpoints"] = given.get("every", given["checkpoints"])
    # As near to a square as it divides.
    few = max(n for n in range(1, int(given["rungs"] ** 0.5) + 1) if given["rungs"] % n == 0)
    sizes = np.geomspace(*PARAMS, few).astype(int)
    lengths = np.geomspace(*TOKENS_PER_PARAM, given["rungs"] // few)
    if growth == "drawn":
        return simulate_from_prior(tasks=size, sizes=sizes, tokens_per_param=lengths)[0]
    demo = demo_truth()
    which = np.arange(given["tasks"])
    truth = demo.iloc[which % len(demo)].copy()
    truth.index = pd.Index([f"{name}-{i}" for name, i in zip(truth.index, which, strict=True)])
    spread = np.random.default_rng(0).normal(scale=JITTER, size=(len(truth), 4))
    truth[["A", "B", "E", "k"]] *= np.exp(spread)
    ladder, _ = lc.simulate(
        truth, sizes=sizes, tokens_per_param=lengths, checkpoints=given["checkpoints"]
    )
    return lc.Ladder(ladder.table, ladder.tasks, "every") if growth == "every" else ladder


def worker(growth: str, size: int, warmup: int, draws: int, once: bool) -> dict[str, Any]:
    """What one process finds."""
    import laddercast as lc
    from laddercast.model.routes import two_stage
    from laddercast.sampling.diagnostics import quality

    warnings.simplefilter("ignore")
    ladder = ladder_of(growth, size)
    found: dict[str, Any] = {"growth": growth, "size": size, "warmup": warmup, "draws": draws}
    found["measurements"] = len(ladder.table)
    for seed, kind in enumerate(("s",) if once else ("first_s", "s")):
        fitted = None  # lest the first lie beside the second
        begin = time.perf_counter()
        fitted = lc.fit(
            ladder, route=two_stage, seed=seed, warmup=warmup, draws=draws, progress=False
        )
        found[kind] = time.perf_counter() - begin
    own = fitted["two_stage"]
    posterior = own["posterior"].to_dataset()
    of_all = quality(*(x.to_numpy() for x in posterior.values()))
    return found | {
        "kept": posterior.sizes["draw"],
        "steps": float(own["sample_stats"]["n_steps"].mean()),
        "ess": float(of_all.bulk.min()),
        "rhat": float(of_all.rhat.max()),
        "converged": fitted.attrs["converged"],
        "complaints": fitted.attrs["complaints"],
        # Linux has it in KiB.
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def with_cost(table: pd.DataFrame) -> pd.DataFrame:
    """The rows in order, with seconds per effective draw and row relative to the smallest size."""
    table = table.sort_values(["growth", "size"], ignore_index=True)
    each = table["s"] / table["ess"] / table["measurements"]
    table["cost"] = each / each.groupby(table["growth"]).transform("first")
    return table


def plot(table: pd.DataFrame, path: Path) -> None:
    """Seconds, cost and memory against size, a column per growth; hollow where not converged."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    shown = [name for name in SIZES if name in set(table["growth"])]
    words = {"s": "seconds", "cost": "relative cost per effective\ndraw and measurement",
             "peak_mib": "peak memory, MiB"}  # fmt: skip
    figure, axes = plt.subplots(
        len(words), len(shown), figsize=(3 * len(shown) + 1, 7), sharex="col", sharey="row",
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for column, growth in zip(axes.T, shown, strict=True):
        own = table[table["growth"] == growth]
        for axis, word in zip(column, words, strict=True):
            axis.plot(own["size"], own[word], color="C0")
            for converged, fill in ((1, "C0"), (0, "white")):
                part = own[own["converged"] == converged]
                axis.plot(part["size"], part[word], "o", color="C0", markerfacecolor=fill)
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_xticks(own["size"], [f"{size}" for size in own["size"]])
            axis.set_xticks([], minor=True)
        column[1].axhline(1, color="0.7", zorder=0)
        column[-1].set_xlabel(LABELS.get(growth, growth))
    for axis, label in zip(axes[:, 0], words.values(), strict=True):
        axis.set_ylabel(label)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Fit what is missing; print and plot all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="a CSV file for the rows", required=True)
    parser.add_argument("--growth", nargs="+", choices=tuple(SIZES), default=list(SIZES))
    parser.add_argument("--sizes", nargs="+", type=int, help="of each growth, if not all")
    parser.add_argument("--warmup", type=int, default=300)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--once", action="store_true", help="of seconds, some are of compiling")
    parser.add_argument("--plot", type=Path, default=ROOT / "docs" / "scale.png")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        found = worker(given.growth[0], given.sizes[0], given.warmup, given.draws, given.once)
        print(json.dumps(found))
        return
    rows = pd.read_csv(given.out).to_dict("records") if given.out.exists() else []
    steps, failed = {"warmup": given.warmup, "draws": given.draws}, []
    # Rows of other lengths may stand in the file, too.
    alike = [row for row in rows if steps.items() <= row.items()]
    done = {(row["growth"], row["size"]) for row in alike}
    for growth in given.growth:
        for size in given.sizes or SIZES[growth]:
            if (growth, size) in done:
                continue
            command = [sys.executable, __file__, "--worker", "--out", str(given.out)]
            command += ["--growth", growth, "--sizes", str(size)]
            command += ["--once"] * given.once
            command += [x for word, count in steps.items() for x in (f"--{word}", str(count))]
            ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if ended.returncode:
                failed.append(f"{growth} {size}: exit status {ended.returncode}")
                print(failed[-1], file=sys.stderr, flush=True)
                continue
            row = json.loads(ended.stdout.splitlines()[-1])
            print(row, file=sys.stderr, flush=True)
            rows.append(row)
            alike.append(row)
            keep(pd.DataFrame(rows), given.out)
    if alike:
        table = with_cost(pd.DataFrame(alike))
        print(table.drop(columns=["complaints", *steps]).round(3).to_string(index=False))
        plot(table, given.plot)
    if failed:
        sys.exit("; ".join(failed))


if __name__ == "__main__":
    main()

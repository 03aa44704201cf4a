"""Whether two commits have the same posterior, and which is faster, on the paper's ladder.

`python benchmarks/same_posterior.py --before COMMIT [--routes NAME ...] [--repeats 3]`: fits each
route with the package of that commit (checked out aside) and with this one, in turn, each in a
process of its own. Of every site, the letters, and the accuracies forecast for two targets (7B on
4T and 13B on 5T tokens), the quantiles 5, 25, 50, 75 and 95 % are compared in Monte-Carlo standard
errors: were the posteriors the same, 5 % would lie beyond 2. Then seconds of the first fit of a
process, and effective draws a second (the least over all sites) of the next.
"""

import argparse
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("LADDERCAST_DATA", ROOT.parent / "shared" / "data"))
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
RENAMED = {
    "loss_level": "log_loss_level", "accuracy_level": "logit_level",
    "reference_level": "log_reference_level", "reference_share_e": "logit_reference_share_e",
    "reference_share_a": "logit_reference_share_a", "share_e": "logit_share_e",
    "share_a": "logit_share_a", "share_rest": "logit_share_rest",
    "share_checkpoint_reference": "logit_share_checkpoint_reference",
    "share_checkpoint_loss": "logit_share_checkpoint_loss",
    "share_checkpoint_accuracy": "logit_share_checkpoint_accuracy",
}  # fmt: skip
"""Sites by what they were called before they said that they are logs or logits."""

PREFIXED = {
    "alpha", "beta", "slope", "rise", "power", "noise_loss", "noise_accuracy", "walk_loss",
    "walk_accuracy",
}  # fmt: skip
"""Pooled sites whose centers and scales were called without `log_`."""


def named(name: str) -> str:
    """What a site is called now."""
    for end in ("_center", "_scale"):
        stem = name.removesuffix(end)
        if stem != name:
            return RENAMED.get(stem, f"log_{stem}" if stem in PREFIXED else stem) + end
    return RENAMED.get(name, name)


def worker(route: str, seed: int, out: Path) -> None:
    """Fit a route twice in this process, with the package that it imports; keep the second."""
    import laddercast as lc

    warnings.simplefilter("ignore")
    ladder = lc.read_ladder(DATA / "olmo_ladder.csv", DATA / "olmo_tasks.csv")
    targets = pd.DataFrame(
        {"model": ["7B-4T", "13B-5T"], "params": [6887575552, 13202396160],
         "tokens": [3945065873408, 5000080130048], "checkpoints": [1, 5]}
    )  # fmt: skip
    seconds = []
    for number in (seed, seed + 100):
        begin = time.perf_counter()
        fitted = lc.fit(ladder, route=getattr(lc, route), seed=number, progress=False)
        seconds.append(time.perf_counter() - begin)
    predictions = lc.forecast(fitted, targets)["predictions"]
    posterior = fitted[f"{route}/posterior" if route in fitted.children else "posterior"]
    draws = {str(name): x.transpose("chain", "draw", ...) for name, x in posterior.items()}
    found = {named(name): x.to_numpy().reshape(*x.shape[:2], -1) for name, x in draws.items()}
    found["forecast"] = predictions["accuracy"].transpose("chain", "draw", "row").to_numpy()
    np.savez(out, seconds=seconds, **found)


def quantiles(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles (levels, columns) of draws (chains, draws, columns), and their standard errors."""
    import arviz as az

    data = xr.DataArray(draws, dims=["chain", "draw", "column"]).to_dataset(name="x")
    errors = [az.mcse(data, method="quantile", prob=level)["x"].to_numpy() for level in LEVELS]
    return np.quantile(draws, LEVELS, axis=(0, 1)), np.array(errors)


def least_ess(draws: dict[str, np.ndarray]) -> float:
    """The least bulk effective sample size over all columns."""
    import arviz as az

    of = {name: (["chain", "draw", f"{name}_column"], x) for name, x in draws.items()}
    found = az.ess(xr.Dataset(of), method="bulk")
    return float(min(found[name].min() for name in found))


def compare(before: dict[str, np.ndarray], now: dict[str, np.ndarray]) -> pd.DataFrame:
    """A row a site: differences of quantiles in standard errors."""
    rows = []
    for name in sorted(set(before) & set(now)):
        (one, its), (other, own) = quantiles(before[name]), quantiles(now[name])
        z = (other - one) / np.hypot(its, own)
        worst = float(z.flat[np.abs(z).argmax()])
        beyond, mean = float((np.abs(z) > 2).mean()), float(z.mean())
        rows.append(
            {"site": name, "columns": z.shape[1], "beyond 2": beyond, "mean": mean, "worst": worst}
        )
    return pd.DataFrame(rows)


def main() -> None:
    """Fit with both, in turn, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", required=True, metavar="COMMIT")
    parser.add_argument(
        "--routes", nargs="+", default=["two_stage", "by_reference", "direct", "chain"]
    )
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    if "--worker" in sys.argv:
        route, seed, out = sys.argv[sys.argv.index("--worker") + 1 :]
        return worker(route, int(seed), Path(out))
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        aside = Path(folder) / "before"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(aside), given.before], check=True)
        try:
            run(given, {"before": aside / "src", "now": ROOT / "src"}, Path(folder))
        finally:
            subprocess.run([*git, "remove", "--force", str(aside)], check=True)
    return None


def run(given: Any, sources: dict[str, Path], folder: Path) -> None:
    """Print what both gave, route by route."""
    for route in given.routes:
        draws: dict[str, dict[str, np.ndarray]] = {}
        rows = []
        for repeat in range(given.repeats):
            for which, source in sources.items():
                out = folder / f"{which}.npz"
                # Nothing that was compiled before: each first fit of a process compiles.
                environment = os.environ | {"PYTHONPATH": str(source), "LADDERCAST_COMPILED": "off"}
                command = [sys.executable, __file__, "--worker", route, str(repeat), str(out)]
                subprocess.run(command, check=True, env=environment)
                with np.load(out) as kept:
                    found = dict(kept)
                first, later = found.pop("seconds")
                draws.setdefault(which, found)
                sites = {name: x for name, x in found.items() if name != "forecast"}
                ess = least_ess(sites)
                rows.append({"route": route, "which": which, "first fit, s": first, "s": later,
                             "ess": ess, "ess/s": ess / later})  # fmt: skip
        print(f"\n{route}: quantiles now less those before, in standard errors")
        table = compare(draws["before"], draws["now"])
        print(table.to_string(index=False, float_format="{:.2f}".format))
        weight = table["columns"] / table["columns"].sum()
        print(f"all: beyond 2: {(table['beyond 2'] * weight).sum():.1%}, "
              f"worst {table['worst'].abs().max():.1f}")  # fmt: skip
        speed = pd.DataFrame(rows).groupby(["route", "which"]).median(numeric_only=True)
        print(speed.to_string(float_format="{:.1f}".format))


if __name__ == "__main__":
    main()

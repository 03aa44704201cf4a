"""Whether a bad fit is called one, and a sound one is not.

`python benchmarks/bad_fits.py [--seeds N] [--sound N] [--kept DIR]` prints, for each kind of bad
fit, of how many the verdict says so, and by what: `converged` and its complaints (exit status 3),
the suspicions that `fit` records and warns of, or exit status 4. Draws are spoilt in sound fits,
and judged again as `fit` judges them; bad settings, priors and ladders are fitted; failures inside
are raised where a route is sampled. Then, of sound ladders, half of them drawn from the priors, how
many are said not to have converged, and of how many anything is said. Of these each is kept in DIR
as it is done, and the same command goes on from there.
"""

import argparse
import contextlib
import io
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from unittest import mock

import numpy as np
import numpyro.distributions as dist
import pandas as pd
import xarray as xr
from planted_faults import accuracy_off

import laddercast as lc
from laddercast.cli.commands import main as command
from laddercast.evaluation.resume import table_of_each
from laddercast.evaluation.simulation import demo_truth, simulate, simulate_from_prior
from laddercast.inference.results import COMPLAINTS, mark, with_complaints
from laddercast.inference.suspicions import of_data, suspicions_of
from laddercast.sampling.diagnostics import complaints
from laddercast.sampling.nuts import MAX_TREE_DEPTH
from laddercast.sampling.programs import keep

type Draws = dict[str, np.ndarray]
type Spoil = Callable[[Draws, Draws, np.random.Generator], None]

SIZES, LENGTHS = (2e8, 4e8, 8e8), (20, 100)
QUICK = {"route": "direct", "progress": False}


def small(seed: int) -> lc.Ladder:
    """A sound ladder of 3 sizes x 2 lengths and 4 tasks."""
    truth = demo_truth().loc[["arc_easy", "hellaswag", "mmlu", "piqa"]]
    return simulate(truth, sizes=SIZES, tokens_per_param=LENGTHS, seed=seed)[0]


@cache
def sound_fit(seed: int) -> xr.DataTree:
    """The fit of one of these."""
    return lc.fit(small(seed), seed=seed, **QUICK)


# Draws that are spoilt: values by site (chains, draws, ...) and statistics, in place.


def one_site(values: Draws, rng: np.random.Generator) -> np.ndarray:
    """The draws (chains, draws) of one parameter."""
    site = values[str(rng.choice(sorted(values)))]
    columns = site.reshape(*site.shape[:2], -1)
    return columns[..., rng.integers(columns.shape[2])]


def stuck(values: Draws, stats: Draws, rng: np.random.Generator) -> None:
    """One chain stays where it began."""
    for x in values.values():
        x[0] = x[0, 0]


def stuck_in_part(values: Draws, stats: Draws, rng: np.random.Generator) -> None:
    """One chain does not move in one parameter."""
    x = one_site(values, rng)
    x[0] = x[0, 0]


def shifted(values: Draws, stats: Draws, rng: np.random.Generator) -> None:
    """One chain is off by 0.7 standard deviations in one parameter."""
    x = one_site(values, rng)
    x[1] += 0.7 * x.std()


def another_mode(values: Draws, stats: Draws, rng: np.random.Generator) -> None:
    """Two chains are far from the other two."""
    for x in values.values():
        x[2:] += 5 * x.std()


def wider(values: Draws, stats: Draws, rng: np.random.Generator) -> None:
    """One chain is twice as wide in one parameter."""
    x = one_site(values, rng)
    x[3] = x[3].mean() + 2 * (x[3] - x[3].mean())


def drifting(values: Draws, stats: Draws, rng: np.random.Generator) -> None:
    """All chains drift by a standard deviation, as before a warm-up has ended."""
    x = one_site(values, rng)
    x += np.linspace(0, x.std(), x.shape[1])


def clumped(values: Draws, stats: Draws, rng: np.random.Generator) -> None:
    """Chains move once in 50 draws."""
    for x in values.values():
        x[:] = x[:, np.arange(x.shape[1]) // 50 * 50]


def not_finite(values: Draws, stats: Draws, rng: np.random.Generator) -> None:
    """One draw of one parameter is no number."""
    one_site(values, rng)[rng.integers(4), rng.integers(500)] = rng.choice([np.nan, np.inf])


def diverging(values: Draws, stats: Draws, rng: np.random.Generator) -> None:
    """One trajectory in a hundred diverges."""
    stats["diverging"] |= rng.uniform(size=stats["diverging"].shape) < 0.01


def cut_short(values: Draws, stats: Draws, rng: np.random.Generator) -> None:
    """One trajectory in twenty ends at the greatest length."""
    longest = rng.uniform(size=stats["tree_depth"].shape) < 0.05
    stats["tree_depth"][longest] = MAX_TREE_DEPTH[1]


def little_energy(values: Draws, stats: Draws, rng: np.random.Generator) -> None:
    """Energy moves slowly, so that tails are not reached."""
    stats["energy"] = rng.normal(size=stats["energy"].shape).cumsum(axis=1)


def spoilt(spoil: Spoil, seed: int) -> tuple[str, ...]:
    """What is said of a sound fit of which draws are spoilt."""
    tree, rng = sound_fit(seed % 3).copy(deep=True), np.random.default_rng(seed)
    own = tree["direct"]
    data, stats = own["posterior"].to_dataset(), own["sample_stats"].to_dataset()
    # What has a prior is sampled, all else is made of it.
    values = {str(name): data[name].to_numpy().copy() for name in own["log_prior"].data_vars}
    of_draws = {str(name): x.to_numpy().copy() for name, x in stats.items()}
    spoil(values, of_draws, rng)
    own.children = {name: x for name, x in own.children.items() if name != COMPLAINTS}
    with_complaints(own, complaints(values, of_draws, MAX_TREE_DEPTH[1]))
    return said(mark(tree, "the fit"))


def said(fitted: xr.DataTree) -> tuple[str, ...]:
    """By what the verdict is a bad one, if it is."""
    found = [] if fitted.attrs["converged"] else ["not converged"]
    assert bool(found) == bool(len(lc.diagnose(fitted)))
    return (*found, *sorted({one["rule"] for one in suspicions_of(fitted.attrs)}))


# What is fitted


def few_draws(seed: int) -> tuple[str, ...]:
    """A warm-up of 5 steps, and 100 draws."""
    return said(lc.fit(small(seed), seed=seed, warmup=5, draws=100, **QUICK))


def one_chain(seed: int) -> tuple[str, ...]:
    """One chain, which cannot be compared."""
    return said(lc.fit(small(seed), seed=seed, chains=1, **QUICK))


def wrong_prior(seed: int) -> tuple[str, ...]:
    """A prior that data contradict: accuracy hardly rises with compute, or rises at once."""
    rise = np.random.default_rng(seed).choice([-2.0, 5.0])
    priors = lc.Priors(log_rise_center=dist.Normal(rise, 0.3))
    return said(lc.fit(small(seed), priors, seed=seed, **QUICK))


def rung_off(seed: int) -> tuple[str, ...]:
    """One of six rungs 20 points off in all tasks."""
    ladder, rng = small(seed), np.random.default_rng(seed)
    model = str(rng.choice(ladder.models))
    table = accuracy_off(ladder.table, model, "", "")
    fitted = lc.fit(lc.read_ladder(table, ladder.tasks), seed=seed, **QUICK)
    named = any(model in one["why"] for one in suspicions_of(fitted.attrs))
    return said(fitted) if named else ()


def rising_loss(seed: int) -> tuple[str, ...]:
    """A loss that rises with compute, which is told before the fit."""
    ladder = small(seed)
    table = ladder.table
    table["loss"] = table["loss"].max() + table["loss"].min() - table["loss"]
    return tuple({one["rule"] for one in of_data(lc.read_ladder(table, ladder.tasks))})


class XlaRuntimeError(RuntimeError):
    """Of the name that JAX gives what a compiled program raises."""


FAILURES = (
    np.linalg.LinAlgError("Matrix is not positive definite"),
    XlaRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 137438953472 bytes."),
    MemoryError("Unable to allocate 32.0 GiB"),
    FloatingPointError("invalid value encountered"),
    KeyError("log_rise"),
)


def failing(seed: int) -> tuple[str, ...]:
    """A failure inside, of LAPACK, of memory, of a number: exit status 4, and the route by name."""
    error = FAILURES[seed % len(FAILURES)]
    told = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(told):
        path = Path(folder) / "ladder.csv"
        small(0).table.to_csv(path, index=False)
        targets = pd.DataFrame({"model": ["3B"], "params": [3e9], "tokens": [6e10]})
        targets.to_csv(Path(folder) / "targets.csv", index=False)
        words = ["forecast", str(path), "--targets", str(Path(folder) / "targets.csv"),
                 "--tasks", "mmlu,piqa", "--route", "direct",
                 "--out", str(Path(folder) / "out")]  # fmt: skip
        with mock.patch("laddercast.inference.fitting.sample", side_effect=error):
            status = command(words)
        left = (Path(folder) / "out").exists()
    named = "in the route direct of ladder" in told.getvalue()
    return ("exit status 4",) if status == 4 and named and not left else ()


SPOILT: tuple[Spoil, ...] = (
    stuck, stuck_in_part, shifted, another_mode, wider, drifting, clumped, not_finite, diverging,
    cut_short, little_energy,
)  # fmt: skip
FITTED = (few_draws, one_chain, wrong_prior, rung_off, rising_loss, failing)


def bad(seeds: int) -> pd.DataFrame:
    """A row a kind: how many there were, how many were called bad, and by what."""
    kinds = [(spoil.__doc__, lambda seed, spoil=spoil: spoilt(spoil, seed)) for spoil in SPOILT]
    kinds += [(one.__doc__, one) for one in FITTED]
    rows = []
    for name, verdict in kinds:
        found = [verdict(seed) for seed in range(seeds)]
        by = sorted({word for own in found for word in own})
        rows.append((str(name).splitlines()[0], seeds, sum(map(bool, found)), ", ".join(by)))
        print(rows[-1], file=sys.stderr, flush=True)
    return pd.DataFrame(rows, columns=["kind", "fits", "caught", "by"])


def verdict_of(kind: str, seed: int, fitted: xr.DataTree) -> pd.DataFrame:
    """One row: whether a fit converged, and all that is said of it."""
    whys = [one["why"] for one in suspicions_of(fitted.attrs)]
    row = kind, seed, fitted.attrs["converged"], fitted.attrs["complaints"], "; ".join(whys)
    return pd.DataFrame([row], columns=["kind", "seed", "converged", "complaints", "suspicions"])


def sound(count: int, kept: Path | None) -> pd.DataFrame:
    """A row a sound ladder of 3 sizes x 2 lengths and 4 tasks."""
    seeds = [*range(count // 2)] * 2
    kinds = ["like the demo's"] * (count // 2) + ["drawn from the priors"] * (count // 2)
    ladders = [small(1000 + seed) for seed in seeds[: count // 2]] + [
        simulate_from_prior(seed, route="direct", sizes=SIZES, tokens_per_param=LENGTHS)[0]
        for seed in seeds[count // 2 :]
    ]

    def tell(number: int, table: pd.DataFrame) -> None:
        row = table.iloc[0]
        if row["suspicions"] or not row["converged"]:
            print(*row, file=sys.stderr, flush=True)

    tables = table_of_each(
        ladders,
        [partial(verdict_of, *of) for of in zip(kinds, seeds, strict=True)],
        seeds=seeds,
        resume=kept,
        about=[["sound", *of] for of in zip(kinds, seeds, strict=True)],
        done=tell,
        **QUICK,
    )
    return pd.concat(tables, ignore_index=True)


def main() -> None:
    """Count, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="bad fits of each kind")
    parser.add_argument("--sound", type=int, default=200, help="sound ladders")
    parser.add_argument("--kept", type=Path, help="folder of sound fits, to go on from")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    keep()
    if given.seeds:
        table = bad(given.seeds)
        print(table.to_string(index=False))
        print(f"\nbad fits caught: {table['caught'].sum()} of {table['fits'].sum()}")
    if given.sound:
        found = sound(given.sound, given.kept)
        refused, doubted = (found["converged"] == 0).sum(), (found["suspicions"] != "").sum()
        print(f"sound fits refused: {refused} of {len(found)}; of {doubted} something is said")


if __name__ == "__main__":
    main()

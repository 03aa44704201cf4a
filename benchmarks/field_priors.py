"""What many ladders together say of the priors of one route: empirical Bayes.

`python benchmarks/field_priors.py --out DIR [--only NAME ...] [--route ROUTE]` fits each ladder of
the zoo, of gadre and of the paper (rungs alone, never targets) under priors of twice the spread,
and keeps the draws in DIR. Of each symbol it then seeks the prior, of the shipped kind, under which
all ladders are most probable: the mean over a ladder's draws of the ratio of that prior to the one
that it was fitted with is, for one symbol at a time, the ratio of the ladder's evidences. Ladders
of one source count together as the root of their number. Half a ladder's weight pulls to what is
shipped. Each source is also left out in turn. A fit in which any symbol has an R-hat above 1.05
does not count. The table is printed, and kept in DIR.
"""

import argparse
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import fields
from io import BytesIO
from pathlib import Path

import arviz as az
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import zoo
from results import keep
from scipy.optimize import minimize

import laddercast as lc
from laddercast.data.temporary import write_whole

TIMES = 2.0
"""Spread of the priors of the fits, over that of the shipped ones."""

TASKS = 8
"""So many tasks of a ladder count in full where each has a draw of its own from the prior."""

CONVERGED = 1.05
"""R-hat that no symbol of a fit may exceed."""

type Draws = dict[str, np.ndarray]
type Pair = tuple[float, float]


def numbers(prior: dist.Distribution) -> Pair:
    """The two parameters of a prior that are fitted here, degrees of freedom left as they are."""
    first, second = (float(getattr(prior, name)) for name in list(prior.arg_constraints)[-2:])
    return first, second


def of_kind(prior: dist.Distribution, of: Pair) -> dist.Distribution:
    """A prior of the same kind with other numbers."""
    names = list(prior.arg_constraints)
    fixed = {name: getattr(prior, name) for name in names[:-2]}
    return type(prior)(**fixed, **dict(zip(names[-2:], of, strict=True)))


def wide() -> lc.Priors:
    """The shipped priors, with `TIMES` their spread; correlations are wide as they are."""
    shipped, found = lc.Priors(), {}
    for field in fields(shipped):
        prior = getattr(shipped, field.name)
        if isinstance(prior, dist.Beta) or "recipe" in field.name or field.name == "logit_level":
            continue
        loc, scale = numbers(prior)
        found[field.name] = of_kind(prior, (loc, TIMES * scale))
    return lc.Priors(**found)


def draws_of(source: zoo.Source, route: str, out: Path) -> Draws:
    """Draws (chains, draws, ...) of all symbols from one ladder's rungs, kept in a file.

    Beside each symbol, as `NAME under`, their log densities under the prior that was fitted with.
    """
    path = out / f"{source.name}.{route}.npz".replace(" ", "_")
    if not path.exists():
        _, ladder, _, _ = next(zoo.parts(source, of_targets=True))
        priors, begin = wide(), time.perf_counter()
        fitted = lc.fit(ladder, route=route, priors=priors, draws=500, progress=False)
        print(f"{source.name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
        posterior = fitted[route]["posterior"].to_dataset()
        names = [field.name for field in fields(lc.Priors) if field.name in posterior]
        found = {name: posterior[name].values for name in names}
        found |= {
            f"{name} under": np.asarray(getattr(priors, name).log_prob(found[name]))
            for name in names
        }
        file = BytesIO()
        np.savez(file, allow_pickle=False, **found)
        write_whole(path, file.getvalue())
    with np.load(path) as known:
        return dict(known)


def worst_r_hat(found: Draws) -> float:
    """Of all symbols."""
    return max(
        float(np.max(az.rhat(x))) for name, x in found.items() if not name.endswith(" under")
    )


def most_probable(name: str, ladders: Mapping[str, list[Draws]]) -> tuple[Pair, float] | None:
    """The prior of one symbol that all sources make most probable, and by how many nats."""
    shipped = getattr(lc.Priors(), name)
    given = numbers(shipped)
    by_source = {
        source: [(one[name], one[f"{name} under"]) for one in found if name in one]
        for source, found in ladders.items()
    }
    if not any(by_source.values()):
        return None
    positive = isinstance(shipped, dist.Beta)

    def pair(x: np.ndarray) -> Pair:
        return (np.exp(x[0]) if positive else x[0], np.exp(x[1]))

    def evidence(of: Pair) -> float:
        prior, total = of_kind(shipped, of), 0.0
        for found in by_source.values():
            for draws, under in found:
                ratio = np.asarray(prior.log_prob(draws)) - under
                ratio = ratio.reshape(-1, *ratio.shape[2:])
                gained = np.logaddexp.reduce(ratio) - np.log(len(ratio))
                total += np.sum(gained) * min(1, TASKS / np.size(gained)) / np.sqrt(len(found))
        return total

    def pull(of: Pair) -> float:
        if positive:
            return -np.sum((np.log(of) - np.log(given)) ** 2)
        return (
            -(((of[0] - given[0]) / (1.5 * given[1])) ** 2) / 2 - 2 * np.log(of[1] / given[1]) ** 2
        )

    start = np.array([np.log(given[0]) if positive else given[0], np.log(given[1])])
    found = minimize(lambda x: -evidence(pair(x)) - pull(pair(x)), start, method="Nelder-Mead")
    best = pair(found.x)
    return best, evidence(best) - evidence(given)


def main() -> None:
    """Fit what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of draws, and table.csv")
    parser.add_argument("--route", default="direct")
    parser.add_argument("--only", nargs="+", help="names of ladders, or how they begin")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    ladders: dict[str, list[Draws]] = {}
    for source in zoo.wanted(given.only):
        if set(lc.routes.as_route(given.route).reads) <= set(source.table):
            found = draws_of(source, given.route, given.out)
            if (worst := worst_r_hat(found)) > CONVERGED:
                print(f"{source.name} does not count: R-hat {worst:.2f}", file=sys.stderr)
                continue
            ladders.setdefault(source.name.split()[0], []).append(found)
    rows = []
    for name in (field.name for field in fields(lc.Priors)):
        best = most_probable(name, ladders)
        if best is None:
            continue
        others = [
            most_probable(name, {x: found for x, found in ladders.items() if x != left})
            for left in ladders
        ]
        firsts = [one[0][0] for one in others if one]
        loc, scale = numbers(getattr(lc.Priors(), name))
        rows.append(
            {
                "symbol": name, "shipped": loc, "its spread": scale, "of all": best[0][0],
                "spread": best[0][1], "nats": best[1], "least, one left out": min(firsts),
                "most": max(firsts),
            }
        )  # fmt: skip
    table = pd.DataFrame(rows)
    keep(table, given.out / "table.csv")
    print(f"{ {name: len(found) for name, found in ladders.items()} }")
    print(table.to_string(index=False, float_format="{:.2f}".format))


if __name__ == "__main__":
    main()

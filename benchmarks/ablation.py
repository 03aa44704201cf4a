"""What each idea of the sampler earns: effective draws with it and without it, on many ladders.

`python benchmarks/ablation.py --out FILE.csv [--without IDEA ...] [--ladders PATTERN] [--hard]`:
each idea is left out by itself, in a process of its own, and all ladders are fitted once by one
route, seed 0. A row that is in FILE is not fitted again. Printed is, per idea, the geometric mean
over ladders of effective draws a second without it over with it (so 0.5: it doubles them), and how
many fits have not converged. Effective draws are the least over all variables; their seconds are
those of gradients alone, as the machine's noise is not the sampler's: the number of gradients after
the warm-up times the least time that a gradient took. `--hard` adds the ladders that take minutes.
"""

import argparse
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from results import keep

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("LADDERCAST_DATA", ROOT.parent / "shared" / "data"))
NOTHING = "nothing"
ROWS = 1600
"""Gradients that are timed together."""

HARD = "rpj|32 tasks"
SOLVED = 0.10
"""Above chance by this much, a task of the second family is solved by a small model."""


def ladders() -> Iterator[tuple[str, Any, str]]:
    """Name, ladder and route: the paper's and parts of it, gadre, pythia, simulated ones."""
    import laddercast as lc
    from laddercast.evaluation.simulation import simulate_from_prior

    if (DATA / "olmo_ladder.csv").exists():
        paper = lc.read_ladder(DATA / "olmo_ladder.csv", DATA / "olmo_tasks.csv")
        small = paper.split(max_params=5e8)[0]
        yield "paper", paper, "two_stage"
        yield "paper, direct", paper, "direct"
        yield "paper to 760M", paper.split(max_params=1e9)[0], "by_reference"
        yield "paper to 370M", small, "two_stage"
        yield "paper to 370M, direct", small, "direct"
        yield "paper to 2xC", paper.split(max_tokens_per_param=45)[0], "two_stage"
        table = pd.read_csv(DATA / "gadre.csv")
        below = table[table["params"] < 1e9]
        above = (below["accuracy"] - below["chance"]).groupby(below["task"]).max()
        solved = table[table["task"].isin(above.index[above > SOLVED])]
        for recipe, route in (("c4_original", "by_reference"), ("rpj", "direct")):
            own = lc.read_ladder(solved[solved["recipe"] == recipe])
            yield f"gadre {recipe}", own.split(max_params=1e9)[0], route
        zoo = DATA / "zoo" / "pythia"
        every = lc.read_ladder(zoo / "ladder.csv", zoo / "tasks.csv", "every")
        yield "pythia, every", every, "by_reference"
    yield "drawn, 8 tasks", simulate_from_prior(1, tasks=8)[0], "two_stage"
    yield "drawn, 32 tasks", simulate_from_prior(2, tasks=32)[0], "two_stage"
    yield "demo", lc.demo_ladder(3)[0], "two_stage"
    few = {"tasks": 4, "sizes": (10**8, 2 * 10**8, 8 * 10**8), "tokens_per_param": (20, 100)}
    yield "drawn, 6 rungs", simulate_from_prior(3, **few)[0], "two_stage"
    yield "drawn, 6 rungs, direct", simulate_from_prior(3, **few)[0], "direct"


def without() -> dict[str, Callable[[], None]]:
    """How each idea is left out."""
    from laddercast.model import likelihood, stages
    from laddercast.sampling import adapt, curvature, density
    from laddercast.sampling.transforms import Conditional

    covariances, offset = adapt._covariances, density._offset

    def unconditional(found: Any, name: str, *_: Any) -> Conditional:
        nothing = np.zeros(found.less[name].shape[1:])
        return Conditional(nothing, nothing)

    def undirected(*given: Any) -> Any:
        return {name: x * np.eye(x.shape[-1]) for name, x in covariances(*given).items()}

    def followed_alone(site: Any, data: Any, values: Any) -> Any:
        own = site | {"infer": {k: x for k, x in site["infer"].items() if k != "offset"}}
        return offset(own, data, values)

    def as_measured(*_: Any) -> Any:
        return lambda position, leaves, sds: leaves

    def patch(*of: tuple[Any, str, Any]) -> Callable[[], None]:
        return lambda: [setattr(*each) for each in of] and None

    def same(x: Any) -> Any:
        return x

    return {
        NOTHING: lambda: None,
        "conditional scales": patch((adapt, "_conditional", unconditional)),
        "directions of walks": patch((adapt, "_covariances", undirected)),
        "sites that follow walks": patch((adapt, "_follows", lambda *_: {})),
        "declared offsets": patch((density, "_offset", followed_alone)),
        "curvature at expected data": patch((curvature, "_expected_data", as_measured)),
        "covariance of draws": patch((adapt, "refined", lambda found, _: found)),
        "barriers for the compiler": patch((likelihood, "once", same), (stages, "once", same)),
    }


def worker(idea: str, pattern: str, hard: bool, out: Path) -> None:
    """Fit all ladders without one idea."""
    import laddercast as lc
    from laddercast.inference.results import routes_of
    from laddercast.sampling.diagnostics import quality

    warnings.simplefilter("ignore")
    without()[idea]()
    done = pd.read_csv(out) if out.exists() else pd.DataFrame(columns=["without", "ladder"])
    for name, ladder, route in ladders():
        known = ((done["without"] == idea) & (done["ladder"] == name)).any()
        if known or not re.search(pattern, name) or (re.search(HARD, name) and not hard):
            continue
        begin = time.perf_counter()
        row: dict[str, Any] = {"without": idea, "ladder": name, "route": route}
        try:
            (own,) = routes_of(lc.fit(ladder, route=route, progress=False)).values()
        except Exception as error:
            row["error"] = repr(error)[:200]
        else:
            found = quality(*(x.to_numpy() for x in own["posterior"].to_dataset().values()))
            steps = own["sample_stats"]["n_steps"].to_numpy()
            row |= {
                "ess": float(np.nanmin(found.bulk)), "gradients": int(steps.sum()),
                "steps": float(steps.mean()), "converged": own.attrs["converged"],
                "us": gradient_us(ladder, route), "seconds": time.perf_counter() - begin,
            }  # fmt: skip
        done = pd.concat([done, pd.DataFrame([row])], ignore_index=True)
        keep(done, out)
        print(row, file=sys.stderr, flush=True)


def gradient_us(ladder: Any, route: str) -> float:
    """Microseconds of a gradient in the coordinates that the sampler ends in, at the least."""
    import jax

    import laddercast as lc
    from laddercast.inference.fitting import settings_of_fits
    from laddercast.model.start import start
    from laddercast.sampling.adapt import adapted, repositioned, scaled
    from laddercast.sampling.curvature import layout_of
    from laddercast.sampling.density import potential_of, structure
    from laddercast.sampling.mode import started
    from laddercast.sampling.programs import WELL

    model, (design, priors, observed) = lc.numpyro_model(ladder, route)
    with settings_of_fits():
        begun = start(design, priors, observed)
        data, scales = started(model, (design, priors, observed), begun)
        sites = structure(model, data)
        layout = layout_of(sites, data.like, "task")
        data = scaled(data, layout, sites, scales)
        like = jax.tree.map(lambda x: np.asarray(x)[None], data.like)
        ((place,),), data = adapted(
            model, data, layout, sites, repositioned(model, data, like)[None]
        )
        leaves, form = jax.tree.flatten(data)
        slope = jax.grad(potential_of(model, form))

        # As chains are compiled. Each position hangs on the gradient before, so that none is left
        # out.
        @partial(jax.jit, compiler_options=WELL)
        def many(place: Any, leaves: Any) -> Any:
            return jax.lax.fori_loop(0, ROWS, lambda _, x: x - 1e-12 * slope(x, leaves), place)

        times = []
        for _ in range(16):
            begin = time.perf_counter()
            many(place, leaves).block_until_ready()
            times.append(time.perf_counter() - begin)
    return 1e6 * min(times) / ROWS


def main() -> None:
    """Fit what is missing; print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--without", nargs="+", default=list(without()))
    parser.add_argument("--ladders", default="", metavar="PATTERN")
    parser.add_argument("--hard", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given.worker, given.ladders, given.hard, given.out)
        return
    hard = ["--hard"] if given.hard else []
    for idea in dict.fromkeys([NOTHING, *given.without]):
        again = ["--out", str(given.out), "--ladders", given.ladders, *hard, "--worker", idea]
        subprocess.run([sys.executable, __file__, *again], check=False)
    table = pd.read_csv(given.out)
    table["speed"] = table["ess"] / table["gradients"] / table["us"]
    wide = table.pivot_table(index="ladder", columns="without", values="speed", sort=False)
    ratio = wide.div(wide[NOTHING], axis=0)
    names = [name for name in without() if name in ratio]
    print(ratio[names].drop(columns=NOTHING).to_string(float_format="{:.2f}".format))
    found = pd.DataFrame({"speed": np.exp(np.log(ratio[names]).mean())})
    failed = table.assign(failed=table["converged"] != 1).groupby("without")["failed"].sum()
    print(found.join(failed).to_string(float_format="{:.2f}".format))


if __name__ == "__main__":
    main()

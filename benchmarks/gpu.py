"""What a GPU does beside CPU cores: with one ladder, many ladders, many tasks and chains.

`python benchmarks/gpu.py one|many|wide --device gpu|cpu [--out FILE.csv]`, once for each device;
`taskset -c 0,1` before it leaves a machine of more cores two. Each prints one row and adds it to
FILE.csv. Seconds include what is compiled, unless said otherwise.

`one`: the demo's ladder, fitted twice, the second time compiled. On a GPU, beside it the same fit
on a CPU: the largest difference of any site's means, in standard errors of both, and the extreme
ratios of standard deviations.

`many`: ladders simulated like the demo's, by `fit_each`, as a backtest or a calibration fits them.

`wide`: many tasks with many chains, for as many steps as `--warmup` and `--draws` say: too few to
converge, they show how long a step takes. `s_per_100` is what 100 further steps of all chains took.
"""

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from results import keep
from scale import PARAMS, TOKENS_PER_PARAM, ladder_of

FIT = {"many": (300, 500), "one": (300, 1000), "wide": (94, 6)}
"""Steps of warm-up and after it; with fewer draws than may converge, a fit ends with them."""


def one(device: str, warmup: int, draws: int) -> dict[str, Any]:
    """One small ladder: seconds, and whether both devices have the same posterior."""
    import arviz as az

    import laddercast as lc
    from laddercast.model.routes import two_stage

    ladder = lc.demo_ladder()[0]

    def fit(device: str, seed: int) -> Any:
        return lc.fit(
            ladder, route=two_stage, seed=seed, warmup=warmup, draws=draws, device=device,
            progress=False,
        )  # fmt: skip

    found = {}
    for seed, word in enumerate(("first_s", "s")):
        begin = time.perf_counter()
        fitted = fit(device, seed)
        found[word] = time.perf_counter() - begin
    own = fitted["two_stage"]["posterior"].to_dataset()
    found |= {"converged": fitted.attrs["converged"], "ess": _least(own)}
    if device != "cpu":
        fit("cpu", 0)
        begin = time.perf_counter()
        other = fit("cpu", 1)["two_stage"]["posterior"].to_dataset()
        found["cpu_s"] = time.perf_counter() - begin
        found["cpu_ess"] = _least(other)
        off, spread = [], []
        for name in own:
            means, sds = zip(*((x[name].mean(("chain", "draw")), x[name].std(("chain", "draw")))
                               for x in (own, other)), strict=True)  # fmt: skip
            error = np.hypot(az.mcse(own)[name], az.mcse(other)[name])
            off.append(float((np.abs(means[0] - means[1]) / error).max()))
            spread += [float((sds[0] / sds[1]).min()), float((sds[0] / sds[1]).max())]
        found |= {"off_mcse": max(off), "least_sd": min(spread), "most_sd": max(spread)}
    return found


def many(device: str, warmup: int, draws: int, ladders: int) -> dict[str, Any]:
    """Many small ladders."""
    import laddercast as lc
    from laddercast.evaluation.simulation import demo_truth
    from laddercast.inference.many import fit_each
    from laddercast.model.routes import two_stage

    sizes, lengths = np.geomspace(*PARAMS, 4).astype(int), np.geomspace(*TOKENS_PER_PARAM, 4)
    all_of = [
        lc.simulate(demo_truth(), sizes=sizes, tokens_per_param=lengths, seed=seed)[0]
        for seed in range(ladders)
    ]
    converged, least, begin = 0, [], time.perf_counter()
    found = fit_each(
        all_of, seeds=range(ladders), device=device, route=two_stage, warmup=warmup, draws=draws,
        progress=False,
    )  # fmt: skip
    for fitted in found:
        converged += fitted.attrs["converged"]
        least.append(_least(fitted["two_stage"]["posterior"].to_dataset()))
    seconds = time.perf_counter() - begin
    return {"ladders": ladders, "s": seconds, "s_each": seconds / ladders, "converged": converged,
            "ess": float(np.median(least))}  # fmt: skip


def wide(device: str, warmup: int, draws: int, tasks: int, chains: int) -> dict[str, Any]:
    """Many tasks, many chains."""
    import laddercast as lc
    from laddercast.model.routes import two_stage
    from laddercast.sampling import nuts

    ladder = ladder_of("tasks", tasks)
    runs: list[tuple[float, int]] = []
    plain = nuts.run_chains

    def timed(*given: Any, **more: Any) -> Any:
        begin = time.perf_counter()
        found = yield from plain(*given, **more)
        runs.append((time.perf_counter() - begin, found[0].num_steps.shape[1]))
        return found

    nuts.run_chains = timed
    begin = time.perf_counter()
    fitted = lc.fit(
        ladder, route=two_stage, chains=chains, warmup=warmup, draws=draws, device=device,
        progress=False,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    *_, (last, steps) = runs
    return {"tasks": tasks, "chains": chains, "s": seconds, "s_per_100": 100 * last / steps,
            "chains_s": sum(own for own, _ in runs),
            "steps": float(fitted["two_stage"]["sample_stats"]["n_steps"].mean())}  # fmt: skip


def _least(posterior: Any) -> float:
    from laddercast.sampling.diagnostics import quality

    return float(quality(*(x.to_numpy() for x in posterior.values())).bulk.min())


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=tuple(FIT))
    parser.add_argument("--device", choices=("cpu", "gpu"), required=True)
    parser.add_argument("--ladders", type=int, default=256)
    parser.add_argument("--tasks", type=int, default=512)
    parser.add_argument("--chains", type=int, default=64)
    parser.add_argument("--warmup", type=int)
    parser.add_argument("--draws", type=int)
    parser.add_argument("--out", type=Path, help="a CSV file for the rows")
    given = parser.parse_args()
    warmup, draws = FIT[given.what]
    warmup, draws = given.warmup or warmup, given.draws or draws
    warnings.simplefilter("ignore")
    found: dict[str, Any] = {"what": given.what, "device": given.device, "warmup": warmup,
                             "draws": draws}  # fmt: skip
    if given.what == "one":
        found |= one(given.device, warmup, draws)
    elif given.what == "many":
        found |= many(given.device, warmup, draws, given.ladders)
    else:
        found |= wide(given.device, warmup, draws, given.tasks, given.chains)
    print(json.dumps(found), flush=True)
    if given.out:
        rows = pd.read_csv(given.out).to_dict("records") if given.out.exists() else []
        keep(pd.DataFrame([*rows, found]), given.out)


if __name__ == "__main__":
    main()

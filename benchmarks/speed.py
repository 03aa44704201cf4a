"""Speed of this package beside NumPyro, BlackJAX and nutpie, and of whole processes.

`python benchmarks/speed.py [--fold | --process] [--repeats 5] [--out FILE.csv]`, on the paper's
ladder if it is in LADDERCAST_DATA, else on the demo's. All that is compared takes turns; medians of
the repeats, and of the ratios within each, are printed.

By itself: effective draws a second, on one model and one data set. Each run is a process of its
own: a first posterior compiles from nothing, a second with another seed is compiled. Times begin
when all is imported and the data are arrays, and end with the draws; ours includes starts, warm-ups
and checks of convergence. Ratios are of the smallest bulk effective sample size per second, over
every site of the model. Rivals have their defaults, but start at prior medians, which serves them;
nutpie samples the model as `pymc_model.py` has it in PyMC, as JAX would be called through Python.

`--fold`: a further fold of a backtest, in a process that has fitted one, beside NumPyro's
`MCMC.run` on the same rungs and of the same lengths, which compiles.

`--process`: `laddercast forecast` from the shell, with all compiled before and with nothing, beside
importing what it stands on.

`scale.py` is about growth. `--short` only shows that everything runs.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from results import keep

DATA = Path(__file__).parents[2] / "shared" / "data"
OURS = "laddercast"
METHODS = (
    OURS, "numpyro centred", "numpyro", "numpyro dense", "blackjax", "nutpie"
)  # fmt: skip
"""Of rivals, all but `numpyro centred` have sites whose scale is sampled as standard deviates."""

OF_FOLDS = (OURS, "numpyro centred", "numpyro")

CHAINS = 4
DEFAULTS = {OURS: (300, 1000)}
STEPS, OF_FOLD, FEW = (1000, 1000), (300, 500), (5, 5)
"""Of warm-up and after it: of rivals, in a fold, where only the run counts."""

IMPORTS = "import of its libraries"
FROM_NOTHING = 3
"""Forecasts from the shell with nothing compiled: each takes long, and they differ little."""

type Sites = dict[str, np.ndarray]
type Draw = Callable[[int], Sites]
"""From a seed to draws (chains, draws, ...) by site."""

type Way = tuple[Draw, Callable[[], Draw]]
"""How a method draws, and what prepares it for a second time."""


class Case(NamedTuple):
    """What a method fits: rungs, steps of warm-up and after it, a ladder that they are part of."""

    ladder: Any
    warmup: int
    draws: int
    within: Any = None


def paper(name: str) -> Path:
    """A file of the paper's ladder, which may not be there."""
    return Path(os.environ.get("LADDERCAST_DATA", DATA)) / name


def ladder_of(short: bool) -> Any:
    """The ladder that all methods fit."""
    import laddercast as lc

    if short or not paper("olmo_ladder.csv").exists():
        ladder = lc.demo_ladder()[0]
        if short:
            ladder = lc.Ladder(ladder.table, ladder.tasks.iloc[:2])
        return ladder
    return lc.read_ladder(paper("olmo_ladder.csv"), paper("olmo_tasks.csv"))


def latent(data: tuple[Any, ...]) -> list[str]:
    """Names of the model's own sites, those that all methods have."""
    import jax
    from numpyro import handlers

    from laddercast.model.routes import two_stage
    from laddercast.sampling.density import is_latent

    names: list[str] = []

    def look(*data: Any) -> None:
        trace = handlers.trace(handlers.seed(two_stage.model, jax.random.key(0))).get_trace(*data)
        names.extend(name for name, site in trace.items() if is_latent(site))

    jax.eval_shape(look, *data)
    return sorted(names)


def ours(case: Case) -> Way:
    """The package's own way."""
    import laddercast as lc
    from laddercast.model.routes import two_stage

    def draw(seed: int) -> Sites:
        fitted = lc.fit(
            case.ladder, route=two_stage, seed=seed, chains=CHAINS, warmup=case.warmup,
            draws=case.draws, progress=False, within=case.within,
        )  # fmt: skip
        posterior = fitted["two_stage"]["posterior"].to_dataset()
        return {str(name): posterior[name].to_numpy() for name in posterior.data_vars}

    return draw, lambda: draw


def rival(method: str, case: Case, data: tuple[Any, ...]) -> Way:
    """A rival's way, on the model as NumPyro has it."""
    import jax
    import jax.numpy as jnp
    from deviates import as_deviates
    from numpyro import infer

    from laddercast.model.routes import two_stage

    model = two_stage.model
    if method != "numpyro centred":
        model = as_deviates(model, data)

    if method.startswith("numpyro"):

        def sampler(chains: int) -> Any:
            kernel = infer.NUTS(
                model, dense_mass=method == "numpyro dense", init_strategy=infer.init_to_median
            )
            return infer.MCMC(
                kernel, num_warmup=case.warmup, num_samples=case.draws, num_chains=chains,
                progress_bar=False,
            )  # fmt: skip

        def by_numpyro(seed: int) -> Sites:
            found = sampler(CHAINS)
            found.run(jax.random.key(seed), *data)
            return jax.tree.map(np.asarray, found.get_samples(group_by_chain=True))

        def compiled_numpyro() -> Draw:
            # `MCMC.run` compiles anew each time; as its documentation has it, it can be mapped.
            def chain(key: jax.Array) -> Any:
                found = sampler(1)
                found.run(key, *data)
                return found.get_samples()

            def keys(seed: int) -> jax.Array:
                return jax.random.split(jax.random.key(seed), CHAINS)

            together = jax.pmap(chain).lower(keys(0)).compile()
            return lambda seed: jax.tree.map(np.asarray, together(keys(seed)))

        return by_numpyro, compiled_numpyro

    def initialised(key: jax.Array) -> Any:
        return infer.util.initialize_model(
            key, model, init_strategy=infer.init_to_median, model_args=data, validate_grad=False
        )

    begin = initialised(jax.random.key(0))
    density, sites = begin.potential_fn, begin.param_info.z
    flat, unflat = jax.flatten_util.ravel_pytree(sites)
    as_sites = jax.jit(lambda x: jax.lax.map(begin.postprocess_fn, jax.vmap(unflat)(x)))

    def start(key: jax.Array) -> jax.Array:
        # Not jitted: compiled as one, it takes longer than many of them.
        return jax.flatten_util.ravel_pytree(initialised(key).param_info.z)[0]

    def kept(positions: np.ndarray) -> Sites:
        found = as_sites(jnp.asarray(positions.reshape(-1, len(flat))))
        return {k: np.asarray(x).reshape(CHAINS, -1, *x.shape[1:]) for k, x in found.items()}

    if method == "blackjax":
        import blackjax

        def log_density(x: jax.Array) -> jax.Array:
            return -density(unflat(x))

        def chain(key: jax.Array, x: jax.Array) -> jax.Array:
            warm, walk = jax.random.split(key)
            adapted = blackjax.window_adaptation(blackjax.nuts, log_density)
            (state, settings), _ = adapted.run(warm, x, case.warmup)
            step = blackjax.nuts(log_density, **settings).step

            def one(state: Any, key: jax.Array) -> Any:
                state, _ = step(key, state)
                return state, state.position

            return jax.lax.scan(one, state, jax.random.split(walk, case.draws))[1]

        together = jax.pmap(chain)

        def by_blackjax(seed: int) -> Sites:
            keys = jax.random.split(jax.random.key(seed), 2 * CHAINS)
            starts = jnp.stack([start(key) for key in keys[CHAINS:]])
            return kept(np.asarray(together(keys[:CHAINS], starts)))

        return by_blackjax, lambda: by_blackjax

    import nutpie
    from pymc_model import two_stage as in_pymc

    # From prior medians, where prior gradients are zero, nutpie would not begin: as the others do,
    # it starts at medians of a few draws.
    begin_at = {name: np.asarray(x) for name, x in begin.postprocess_fn(sites).items()}
    written = in_pymc(*data)
    starts = {site.name: begin_at[site.name] for site in written.free_RVs}
    compiled = nutpie.compile_pymc_model(written, initial_points=starts, jitter_rvs=set())

    def by_nutpie(seed: int) -> Sites:
        found = nutpie.sample(
            compiled, draws=case.draws, tune=case.warmup, chains=CHAINS, cores=os.cpu_count(),
            seed=seed, save_warmup=False, progress_bar=False,
        )  # fmt: skip
        return {str(name): x.to_numpy() for name, x in found["posterior"].data_vars.items()}

    return by_nutpie, lambda: by_nutpie


def told(kind: str, begin: float, draws: Sites, names: list[str]) -> dict[str, Any]:
    """Seconds since then, and the quality of these sites."""
    from laddercast.sampling.diagnostics import quality

    seconds = time.perf_counter() - begin
    of_all = quality(*(draws[name] for name in names))
    # A column that is stuck has none, and makes both NaN.
    worst = {"s": seconds, "ess": float(of_all.bulk.min()), "rhat": float(of_all.rhat.max())}
    return {f"{kind}_{word}": value for word, value in worst.items()}


def worker(method: str, number: int, fold: bool, short: bool) -> dict[str, Any]:
    """What one process finds: of a first and a second run, or of one fold."""
    import jax
    import jax.numpy as jnp

    import laddercast as lc
    from laddercast.evaluation.folds import DEFAULT, cut_folds

    warnings.simplefilter("ignore")
    for name in ("laddercast.inference.fitting", *{"blackjax", "nutpie"} & {method}):
        import_module(name)
    if method != OURS:
        jax.config.update("jax_enable_x64", True)
    steps = FEW if short else OF_FOLD if fold else DEFAULTS.get(method, STEPS)
    case, found = Case(ladder_of(short), *steps), {"method": method}
    if fold:
        folds, _ = cut_folds(case.ladder, DEFAULT)
        before, further = (folds[(number + i) % len(folds)] for i in range(2))
        found["fold"] = f"{further.kind}: {further.name}"
        case = case._replace(ladder=further.rungs, within=case.ladder)
        if method == OURS:
            ours(case._replace(ladder=before.rungs))[0](number)
    _, args = lc.numpyro_model(case.ladder, "two_stage")
    data = jax.tree.map(jnp.asarray, args)
    names = latent(data)

    begin = time.perf_counter()
    draw, ready = ours(case) if method == OURS else rival(method, case, data)
    draws = draw(number)
    if fold:
        return found | told("fold", begin, draws, names)
    found |= told("cold", begin, draws, names)
    draw = ready()
    begin = time.perf_counter()
    return found | told("warm", begin, draw(number + 1000), names)


def bare() -> dict[str, str]:
    """The environment of a process that finds nothing compiled."""
    return {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}


def samplers(given: argparse.Namespace) -> pd.DataFrame:
    """All methods in turn; seconds, quality and ratios of ours over each."""
    kinds = ("fold",) if given.fold else ("cold", "warm")
    # Chains of NumPyro and BlackJAX have a device each.
    flags = [f"--xla_force_host_platform_device_count={CHAINS}"]
    # What runs so briefly need not be compiled well.
    flags += ["--xla_backend_optimization_level=0"] * given.short
    alone = bare() | {"XLA_FLAGS": " ".join(flags)}
    rows = []
    for number in range(given.repeats):
        for method in given.only:
            command = [sys.executable, __file__, "--worker", method, "--seed", str(number)]
            command += ["--short"] * given.short + ["--fold"] * given.fold
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=alone)
            rows.append({"repeat": number} | json.loads(done.stdout.splitlines()[-1]))
            print(rows[-1], file=sys.stderr, flush=True)
            keep(pd.DataFrame(rows), given.out)
    table = pd.DataFrame(rows)

    def own(column: str) -> pd.Series:
        return table["repeat"].map(table[table["method"] == OURS].set_index("repeat")[column])

    for kind in kinds:
        table[f"{kind}_rate"] = table[f"{kind}_ess"] / table[f"{kind}_s"]
        if OURS in given.only:
            table[f"{kind}_ours_over"] = own(f"{kind}_rate") / table[f"{kind}_rate"]
    if given.fold and OURS in given.only:
        table["times_ours"] = table["fold_s"] / own("fold_s")
    return table.groupby("method", sort=False).median(numeric_only=True).drop(columns="repeat")


def processes(given: argparse.Namespace) -> pd.DataFrame:
    """Commands in turn; seconds of each, and how many times as long as importing libraries."""
    from laddercast.cli.steps import NOT_CONVERGED

    rows = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        tables = tables_in(folder, given.short)
        script = str(Path(sys.executable).with_name("laddercast"))
        steps = ["--warmup", "20", "--draws", "20", "--route", "two_stage"] if given.short else []
        forecast = [script, "forecast", *tables, "--out", str(folder / "out"), *steps]
        commands = {
            IMPORTS: python("import jax, numpyro, arviz, pandas, matplotlib.pyplot"),
            "forecast, compiled": forecast,
            "forecast, from nothing": forecast,
            "import jax, numpyro, pandas": python("import jax, numpyro, pandas"),
            "import laddercast": python("import laddercast"),
            "laddercast --help": [script, "--help"],
        }

        def seconds(command: list[str], compiled: str) -> float:
            env = bare() | {"LADDERCAST_COMPILED": str(folder / compiled)}
            begin = time.perf_counter()
            done = subprocess.run(command, env=env, capture_output=True, text=True)
            took = time.perf_counter() - begin
            # Few steps do not converge.
            if done.returncode and not (given.short and done.returncode == NOT_CONVERGED):
                raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
            return took

        seconds(forecast, "kept")
        for number in range(given.repeats):
            for what, command in commands.items():
                cold = what.endswith("nothing")
                if cold and number >= FROM_NOTHING:
                    continue
                took = seconds(command, f"empty{number}" if cold else "kept")
                rows.append({"repeat": number, "process": what, "s": took})
                print(rows[-1], file=sys.stderr, flush=True)
                keep(pd.DataFrame(rows), given.out)
    table = pd.DataFrame(rows)
    each = table.pivot_table(index="repeat", columns="process", values="s", sort=False)
    each["laddercast over what it imports"] = (
        each["import laddercast"] - each["import jax, numpyro, pandas"]
    )
    times = each.div(each[IMPORTS], axis=0)
    return pd.DataFrame({"s": each.median(), "times_imports": times.median()})


def python(text: str) -> list[str]:
    """A process that runs this."""
    return [sys.executable, "-c", text]


def tables_in(folder: Path, short: bool) -> list[str]:
    """Arguments of `forecast`: the paper's files, or those of a simulated ladder, written here."""
    names = ("olmo_ladder.csv", "olmo_targets.csv", "olmo_tasks.csv")
    if short or not paper(names[0]).exists():
        from laddercast.evaluation.simulation import DEMO_TARGETS

        ladder = ladder_of(short)
        ladder.table.to_csv(folder / names[0], index=False)
        DEMO_TARGETS.to_csv(folder / names[1], index=False)
        ladder.tasks.to_csv(folder / names[2])
        ladder_path, targets, tasks = (str(folder / name) for name in names)
    else:
        ladder_path, targets, tasks = (str(paper(name)) for name in names)
    return [ladder_path, "--targets", targets, "--tasks", tasks]


def main() -> None:
    """Run all in turn, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--fold", action="store_true", help="a further fold of a backtest")
    what.add_argument("--process", action="store_true", help="whole processes")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=METHODS, help="not of --process")
    parser.add_argument("--short", action="store_true", help="one repeat of few steps")
    parser.add_argument("--out", type=Path, help="a CSV file for the single runs")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(worker(given.worker, given.seed, given.fold, given.short)))
        return
    given.only = given.only or (OF_FOLDS if given.fold else METHODS)
    given.repeats = 1 if given.short else given.repeats
    table = processes(given) if given.process else samplers(given)
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()

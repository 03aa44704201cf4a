"""Effective draws a second: this package beside NumPyro, BlackJAX and nutpie, on one model.

`python benchmarks/speed.py [--repeats 5] [--out FILE.csv]`, on the paper's ladder if it is in
LADDERCAST_DATA, else on the demo's. Each run is a process of its own, all methods in turn: a first
posterior compiles from nothing, a second with another seed is compiled (NumPyro's `MCMC` compiles
that anew: its second time is no compiled one). Times begin when the data
are arrays and end with the draws; ours includes starts, warm-ups and checks of convergence. Ratios
are of the smallest bulk effective sample size per second, over every site of the model. `--short`
only shows that everything runs.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

DATA = Path(__file__).parents[2] / "shared" / "data"
OURS = "laddercast"
METHODS = (
    OURS, "numpyro centred", "numpyro", "numpyro dense", "blackjax", "nutpie"
)  # fmt: skip
"""All but `numpyro centred` have pooled sites as standard deviates, which serves them better."""

CHAINS = 4
STEPS = 1000
"""Of warm-up and after it, of the rivals."""


def ladder_of(short: bool) -> Any:
    """The ladder that all methods fit."""
    import laddercast as lc

    data = Path(os.environ.get("LADDERCAST_DATA", DATA))
    if short or not (data / "olmo_ladder.csv").exists():
        ladder = lc.demo_ladder()[0]
        return ladder.keep(ladder.models[:6]) if short else ladder
    return lc.read_ladder(data / "olmo_ladder.csv", data / "olmo_tasks.csv")


def ours(ladder: Any, short: bool) -> Callable[[int], dict[str, np.ndarray]]:
    """A function that gives draws (chains, draws, ...) by site."""
    import laddercast as lc

    steps = {"warmup": 50, "draws": 50} if short else {}

    def draw(seed: int) -> dict[str, np.ndarray]:
        from laddercast.model import two_stage

        fitted = lc.fit(ladder, route=two_stage, seed=seed, progress=False, **steps)
        posterior = fitted["posterior"].to_dataset()
        return {str(name): posterior[name].to_numpy() for name in posterior.data_vars}

    return draw


def rival(method: str, ladder: Any, short: bool) -> Callable[[int], dict[str, np.ndarray]]:
    """The same of a rival, on the model as NumPyro has it."""
    import jax
    import jax.numpy as jnp
    from numpyro import handlers, infer
    from numpyro.infer.reparam import LocScaleReparam

    from laddercast.design import ladder_design
    from laddercast.model import two_stage
    from laddercast.priors import Priors
    from laddercast.start import PARTLY_CENTRED

    jax.config.update("jax_enable_x64", True)
    steps = 20 if short else STEPS
    design, observed, _, _ = ladder_design(ladder)
    data = jax.tree.map(jnp.asarray, (design, Priors(), observed))
    pooled = [*PARTLY_CENTRED, "log_slope", "log_run_loss", "log_run_accuracy"]
    free = {} if method == "numpyro centred" else {name: LocScaleReparam(0) for name in pooled}
    model = handlers.reparam(two_stage, config=free)

    if method.startswith("numpyro"):
        kernel = infer.NUTS(
            model, dense_mass=method == "numpyro dense", init_strategy=infer.init_to_median
        )
        sampler = infer.MCMC(
            kernel, num_warmup=steps, num_samples=steps, num_chains=CHAINS, progress_bar=False,
        )  # fmt: skip

        def by_numpyro(seed: int) -> dict[str, np.ndarray]:
            sampler.run(jax.random.key(seed), *data)
            return jax.tree.map(np.asarray, sampler.get_samples(group_by_chain=True))

        return by_numpyro

    def initialised(key: jax.Array) -> Any:
        return infer.util.initialize_model(
            key, model, init_strategy=infer.init_to_median, model_args=data, validate_grad=False
        )

    begin = initialised(jax.random.key(0))
    density, sites = begin.potential_fn, begin.param_info.z
    flat, unflat = jax.flatten_util.ravel_pytree(sites)
    as_sites = jax.jit(lambda x: jax.lax.map(begin.postprocess_fn, jax.vmap(unflat)(x)))

    def kept(positions: np.ndarray) -> dict[str, np.ndarray]:
        found = as_sites(jnp.asarray(positions.reshape(-1, len(flat))))
        return {k: np.asarray(x).reshape(CHAINS, -1, *x.shape[1:]) for k, x in found.items()}

    if method == "blackjax":
        import blackjax

        def log_density(x: jax.Array) -> jax.Array:
            return -density(unflat(x))

        def chain(key: jax.Array, x: jax.Array) -> jax.Array:
            warm, walk = jax.random.split(key)
            adapted = blackjax.window_adaptation(blackjax.nuts, log_density)
            (state, settings), _ = adapted.run(warm, x, steps)
            step = blackjax.nuts(log_density, **settings).step

            def one(state: Any, key: jax.Array) -> Any:
                state, _ = step(key, state)
                return state, state.position

            return jax.lax.scan(one, state, jax.random.split(walk, steps))[1]

        together = jax.pmap(chain)

        def by_blackjax(seed: int) -> dict[str, np.ndarray]:
            keys = jax.random.split(jax.random.key(seed), 2 * CHAINS)
            starts = [jax.flatten_util.ravel_pytree(initialised(k).param_info.z)[0]
                      for k in keys[CHAINS:]]  # fmt: skip
            return kept(np.asarray(together(keys[:CHAINS], jnp.stack(starts))))

        return by_blackjax

    import nutpie
    from nutpie.compiled_pyfunc import from_pyfunc

    both = jax.jit(jax.value_and_grad(lambda x: -density(unflat(x))))

    def logp() -> Callable:
        def of(x: np.ndarray) -> tuple[float, np.ndarray]:
            value, slope = both(x)
            return float(value), np.asarray(slope)

        return of

    # Found beforehand: nutpie asks in a thread of its own, where JAX's settings are not these.
    starts = iter(
        [
            np.asarray(jax.flatten_util.ravel_pytree(initialised(key).param_info.z)[0])
            for key in jax.random.split(jax.random.key(0), 4 * CHAINS)
        ]
    )

    compiled = from_pyfunc(
        len(flat), logp, lambda *_: lambda x: {"x": x}, [np.dtype(float)], [(len(flat),)], ["x"],
        make_initial_point_fn=lambda _: next(starts),
    )  # fmt: skip

    def by_nutpie(seed: int) -> dict[str, np.ndarray]:
        found = nutpie.sample(
            compiled, draws=steps, tune=steps, chains=CHAINS, cores=os.cpu_count(), seed=seed,
            save_warmup=False, progress_bar=False,
        )  # fmt: skip
        return kept(found["posterior"]["x"].to_numpy())

    return by_nutpie


def worker(method: str, seed: int, short: bool) -> None:
    """Print seconds and the smallest bulk effective sample size of a first and a second run."""
    from laddercast.convergence import quality

    warnings.simplefilter("ignore")
    ladder = ladder_of(short)
    make = ours if method == OURS else (lambda *given: rival(method, *given))
    found: dict[str, Any] = {"method": method}
    begin = time.perf_counter()
    draw = make(ladder, short)
    for kind in ("cold", "warm"):
        draws = draw(seed)
        found[f"{kind}_s"] = time.perf_counter() - begin
        # Sites of the model's own: those that all methods have.
        names = sorted(name for name in draws if not name.endswith(("_base", "_decentered"))
                       and name not in ("law", "discrepancy", "run"))  # fmt: skip
        flat = [draws[name].reshape(*draws[name].shape[:2], -1) for name in names]
        of_all = quality(np.concatenate(flat, axis=-1))
        # A column that is stuck has none, and makes both NaN.
        found[f"{kind}_ess"] = float(of_all.bulk.min())
        found[f"{kind}_rhat"] = float(of_all.rhat.max())
        seed, begin = seed + 1000, time.perf_counter()
    print(json.dumps(found))


def main() -> None:
    """Run all methods in turn, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--out", type=Path, help="a CSV file for the single runs")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.worker:
        worker(given.worker, given.seed, given.short)
        return
    # Nothing is found compiled, and chains of NumPyro and BlackJAX have a device each.
    alone = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={CHAINS}"}
    rows = []
    for number in range(1 if given.short else given.repeats):
        for method in given.only:
            command = [sys.executable, __file__, "--worker", method, "--seed", str(number)]
            done = subprocess.run(
                command + ["--short"] * given.short, stdout=subprocess.PIPE, text=True, check=True,
                env={k: v for k, v in alone.items() if k != "JAX_COMPILATION_CACHE_DIR"},
            )  # fmt: skip
            rows.append({"repeat": number} | json.loads(done.stdout.splitlines()[-1]))
            print(rows[-1], file=sys.stderr, flush=True)
    table = pd.DataFrame(rows)
    if given.out:
        passing = given.out.with_suffix(".partial")
        table.to_csv(passing, index=False)
        passing.replace(given.out)
    for kind in ("cold", "warm"):
        table[f"{kind}_rate"] = table[f"{kind}_ess"] / table[f"{kind}_s"]
        if OURS in given.only:
            own = table[table["method"] == OURS].set_index("repeat")[f"{kind}_rate"]
            table[f"{kind}_ours_over"] = table["repeat"].map(own) / table[f"{kind}_rate"]
    medians = table.drop(columns="repeat").groupby("method", sort=False).median()
    print(medians.round(3).to_string())


if __name__ == "__main__":
    main()

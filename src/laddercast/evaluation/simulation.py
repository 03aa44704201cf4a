"""Ladders whose truth is known: from given parameters, or drawn from the joint model itself."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from numpyro import handlers

from laddercast.data import words as c
from laddercast.data.ladder import END_CHECKPOINTS, Ladder
from laddercast.data.settings import as_list, check_whole
from laddercast.data.writing import short_number
from laddercast.model import laws
from laddercast.model.design import (
    SITES,
    Design,
    Observed,
    ladder_design,
    target_design,
)
from laddercast.model.likelihood import RUN_DOF
from laddercast.model.priors import Priors
from laddercast.model.routes import Route, as_route, two_stage
from laddercast.sampling.chains import on_device
from laddercast.sampling.threads import TRACING

TRUTH = (
    "A", "alpha", "B", "beta", "E", "a", "k", "L0", "b", c.CHANCE, c.ITEMS,
    "run_loss", "run_accuracy", "checkpoint_loss", "checkpoint_accuracy",
)  # fmt: skip
"""Columns of a table of true parameters, one row per task (its index)."""

# Rounded from the published method's point fits to the OLMo ladder (arXiv 2412.04403; E >= .1 and
# b <= .99, away from their bounds), and from the noise measured on that ladder. Models have names
# that no real one has: what is drawn from these laws was never measured.
DEMO = {
    "mmlu": (
        38.1, 0.226, 100, 0.236, 0.454, -0.742, 4.83, 0.616, 0.99, 0.25, 14042,
        0.0038, 0.29, 0.0029, 0.35,
    ),
    "hellaswag": (
        11.2, 0.196, 60.4, 0.256, 0.502, -0.73, 12.7, 0.767, 0.99, 0.25, 10042,
        0.0018, 0.42, 0.0013, 0.33,
    ),
    "arc_challenge": (
        703000, 0.788, 38.4, 0.197, 0.655, -0.778, 5.91, 0.709, 0.99, 0.25, 1172,
        0.006, 0.36, 0.0045, 0.34,
    ),
    "arc_easy": (
        79400, 0.661, 3960, 0.419, 0.558, -0.646, 4.13, 0.741, 0.99, 0.25, 2376,
        0.0088, 0.35, 0.0076, 0.43,
    ),
    "piqa": (
        406, 0.398, 10.2, 0.153, 0.722, -0.459, 5.03, 0.963, 0.99, 0.5, 1838,
        0.0027, 0.47, 0.0024, 0.28,
    ),
    "csqa": (
        56.9, 0.235, 10.9, 0.111, 0.1, -0.856, 2.21, 1.13, 0.99, 0.2, 1221,
        0.018, 0.45, 0.0061, 0.31,
    ),
    "socialiqa": (
        1200, 0.447, 7900, 0.477, 0.949, -0.599, 7.16, 0.894, 0.99, 0.333333, 1954,
        0.0091, 0.43, 0.0034, 0.32,
    ),
    "openbookqa": (
        86300, 0.687, 137, 0.261, 1.2, -0.791, 4.31, 1.08, 0.99, 0.25, 500,
        0.0074, 0.29, 0.0045, 0.33,
    ),
}  # fmt: skip
DEMO_SIZES = (190354176, 371262464, 758220288, 1279395840)
DEMO_TOKENS_PER_PARAM = (20, 40, 100, 200)
DEMO_TARGETS = pd.DataFrame(
    {
        c.MODEL: ["made-up-7B", "made-up-13B"],
        c.PARAMS: [6887575552, 13202396160],
        c.TOKENS: [3945065873408, 5000080130048],
        c.CHECKPOINTS: [1, 5],
    }
)

PRIOR_SIZES = (100_000_000, 200_000_000, 400_000_000, 800_000_000)
PRIOR_TOKENS_PER_PARAM = (20, 60, 200)
PRIOR_TARGETS = pd.DataFrame(
    {
        c.MODEL: ["3.2B", "10B"],
        c.PARAMS: [3_200_000_000, 10_000_000_000],
        c.TOKENS: [320_000_000_000, 1_000_000_000_000],
        c.CHECKPOINTS: [1, 1],
    }
)
PRIOR_CHANCE = (0.25, 0.5, 0.2, 1 / 3)
PRIOR_ITEMS = (2000, 1000, 10000, 500)
PRIOR_CHECKPOINTS = 10
"""All within a run's last tenth, so that a run has one latent loss and one latent accuracy."""


def demo_truth() -> pd.DataFrame:
    """True parameters of the demo, like those of the OLMo ladder's 8 tasks; columns `TRUTH`."""
    truth = pd.DataFrame.from_dict(DEMO, orient="index", columns=list(TRUTH))
    return truth.rename_axis(c.TASK)


def demo_ladder(seed: int = 0) -> tuple[Ladder, pd.DataFrame, pd.DataFrame]:
    """A made-up ladder of 4 sizes x 4 lengths, targets of 7B on 4T and 13B on 5T tokens, the truth.

    The first two as `simulate` gives them, the last is `demo_truth()`. Tasks are called after the
    benchmarks whose published laws theirs are rounded from; no real model was measured. Seed 0 was
    not chosen: `python benchmarks/demo_seeds.py` tells how often an interval holds over many.

    >>> ladder, targets, truth = lc.demo_ladder()
    """
    truth = demo_truth()
    ladder, targets = simulate(
        truth,
        sizes=DEMO_SIZES,
        tokens_per_param=DEMO_TOKENS_PER_PARAM,
        targets=DEMO_TARGETS,
        seed=seed,
    )
    return ladder, targets, truth


def simulate(
    truth: pd.DataFrame,
    *,
    sizes: Sequence[float] | float,
    tokens_per_param: Sequence[float] | float,
    targets: pd.DataFrame | None = None,
    checkpoints: int = 20,
    seed: int = 0,
    run_correlation: float = 0.4,
    walk_loss_scale: float = 0.004,
    walk_accuracy_scale: float = 0.1,
    walk_correlation: float = 0.0,
    decay: float = 0.03,
) -> tuple[Ladder, pd.DataFrame]:
    """A ladder of `sizes` x `tokens_per_param`, and measurements of `targets` under the same truth.

    `truth` has one row per task (its index) with the columns `TRUTH`: the laws in natural units,
    SDs of log loss, SDs of accuracy as factors of sqrt(p (1 - p) / items). Run effects (a share
    `run_correlation` of their variance common to all tasks), checkpoint noise and discrepancy
    (random walks in log10 compute, SD per root decade on log loss and on the logit, a share
    `walk_correlation` of their variance common to all tasks) are those of the model. Log loss is up
    to `decay` higher before the end of a run, as under a decaying learning rate. `targets` has
    `model, params, tokens` and may have `checkpoints`; they come back as one row per model x task:
    `model, params, tokens, task, loss, accuracy, checkpoints`, with what the laws alone give in
    `law_loss` and `law_accuracy`. Raises ValueError for missing columns.

    >>> ladder, _ = lc.simulate(truth, sizes=(2e8, 4e8, 8e8), tokens_per_param=(20, 100))
    """
    missing = [name for name in TRUTH if name not in truth]
    if missing:
        raise ValueError(f"truth lacks {', '.join(missing)}; its columns are {', '.join(TRUTH)}")
    rungs = _rungs(as_list(sizes), as_list(tokens_per_param))
    checkpoints = check_whole("checkpoints", checkpoints)
    if targets is None:
        targets = pd.DataFrame(columns=[c.MODEL, c.PARAMS, c.TOKENS, c.CHECKPOINTS])
    if c.CHECKPOINTS not in targets:
        targets = targets.assign(**{c.CHECKPOINTS: 1})
    progress = np.arange(1, checkpoints + 1) / checkpoints
    points = pd.concat(
        [
            rungs.loc[rungs.index.repeat(checkpoints)].assign(
                progress=np.tile(progress, len(rungs)), **{c.CHECKPOINTS: 1}
            ),
            targets[[c.MODEL, c.PARAMS, c.TOKENS, c.CHECKPOINTS]].assign(progress=1.0),
        ],
        ignore_index=True,
    )
    points[c.TOKENS] = np.round(points[c.TOKENS].astype(float) * points["progress"]).astype(int)
    points[c.PARAMS] = points[c.PARAMS].astype(int)
    p = {name: truth[name].to_numpy(float) for name in TRUTH}
    n, tasks = len(points), len(truth)
    rng = np.random.default_rng(check_whole("seed", seed, 0))
    run, models = pd.factorize(points[c.MODEL])
    end = np.flatnonzero(points["progress"] == 1.0)  # (runs,), in the order of `models`

    log_params = np.log(points[c.PARAMS].to_numpy(float))[:, None]
    log_tokens = np.log(points[c.TOKENS].to_numpy(float))[:, None]
    compute = ((log_params + log_tokens) / np.log(10))[:, 0]
    origin = float(compute[end[: len(rungs)]].mean())

    def walk() -> np.ndarray:
        own = _walk(rng, compute, origin, tasks)
        if not walk_correlation:
            return own
        shared = _walk(rng, compute, origin, 1)
        return np.sqrt(walk_correlation) * shared + np.sqrt(1 - walk_correlation) * own

    walk_loss, walk_accuracy = walk_loss_scale * walk(), walk_accuracy_scale * walk()

    def effects() -> np.ndarray:
        shared = rng.normal(size=(len(models), 1))
        own = rng.standard_t(RUN_DOF, size=(len(models), tasks))
        return np.sqrt(run_correlation) * shared + np.sqrt(1 - run_correlation) * own

    with on_device(jax.devices("cpu")[0]):
        log_law = np.asarray(
            laws.log_loss(
                log_params, log_tokens, np.log(p["A"]), np.log(p["B"]), np.log(p["E"]),
                p["alpha"], p["beta"],
            )
        )  # fmt: skip
        lower = p["a"] + p["b"]
        law_accuracy = laws.accuracy(np.exp(log_law), p["k"], p["L0"], lower, p["b"])
        excess = decay * (1 - points["progress"].to_numpy()[:, None]) ** 2
        log_latent = log_law + walk_loss + excess + p["run_loss"] * effects()[run]
        logit = p["k"] * (p["L0"] - np.exp(log_latent)) + walk_accuracy
        latent = laws.between(logit, lower, p["b"])
        mean = np.asarray(latent)
    sd = np.sqrt((mean * (1 - mean) + 1 / p[c.ITEMS]) / p[c.ITEMS])
    mean = mean + (p["run_accuracy"] * effects() * sd[end])[run]
    root = np.sqrt(points[c.CHECKPOINTS].to_numpy(float))[:, None]
    loss = np.exp(log_latent + p["checkpoint_loss"] * rng.normal(size=(n, tasks)) / root)
    accuracy = mean + p["checkpoint_accuracy"] * sd * rng.normal(size=(n, tasks)) / root

    table = points.loc[points.index.repeat(tasks)].reset_index(drop=True)
    table[c.TASK] = np.tile(truth.index.to_numpy(), n)
    table[c.LOSS] = loss.ravel()
    table[c.ACCURACY] = np.clip(accuracy, 0.0, 1.0).ravel()
    table["law_loss"], table["law_accuracy"] = np.exp(log_law).ravel(), np.ravel(law_accuracy)
    words = [c.MODEL, c.PARAMS, c.TOKENS, c.TASK, c.LOSS, c.ACCURACY]
    of_ladder = table.index < len(rungs) * checkpoints * tasks
    known = truth[[c.CHANCE, c.ITEMS]].rename_axis(c.TASK).reset_index()
    ladder = Ladder(table.loc[of_ladder, words], known, name="simulated ladder")
    measured = table.loc[~of_ladder, [*words, c.CHECKPOINTS, "law_loss", "law_accuracy"]]
    return ladder, measured.reset_index(drop=True)


def _rungs(sizes: Sequence[float], tokens_per_param: Sequence[float]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            (f"{short_number(size, 2)}-{ratio:g}", round(size), round(size * ratio))
            for size in sizes
            for ratio in tokens_per_param
        ],
        columns=[c.MODEL, c.PARAMS, c.TOKENS],
    )


def _walk(rng: np.random.Generator, at: np.ndarray, origin: float, tasks: int) -> np.ndarray:
    """Standard random walks, (points, tasks): zero at `origin`, variance 1 per unit of `at`."""
    grid = np.unique(np.append(at, origin))
    steps = rng.normal(size=(len(grid) - 1, tasks)) * np.sqrt(np.diff(grid))[:, None]
    path = np.concatenate([np.zeros((1, tasks)), np.cumsum(steps, axis=0)])
    path = path - path[np.searchsorted(grid, origin)]
    return np.asarray(path[np.searchsorted(grid, at)])


def simulate_from_prior(
    seed: int = 0,
    priors: Priors | None = None,
    *,
    route: Route | str = two_stage,
    sizes: Sequence[int] = PRIOR_SIZES,
    tokens_per_param: Sequence[float] = PRIOR_TOKENS_PER_PARAM,
    tasks: int = 4,
    targets: pd.DataFrame | None = None,
    recipes: Sequence[str] = (),
) -> tuple[Ladder, pd.DataFrame, dict[str, float]]:
    """One draw from a route of a ladder, its targets and its population parameters.

    Tasks take chance and items in turn from `PRIOR_CHANCE` and `PRIOR_ITEMS`. Each run has 10
    checkpoints: white noise about the end that the route draws. Targets (`model, params, tokens`,
    maybe `checkpoints`) come back as one row per model x task with the `loss` and `accuracy` that
    would be measured, from the same laws, noise scales and walks. With `recipes`, there are all
    rungs and all targets of each, in a column `recipe`. The dict has every scalar site.
    """
    priors = Priors() if priors is None else priors
    targets = PRIOR_TARGETS if targets is None else targets
    if c.CHECKPOINTS not in targets:
        targets = targets.assign(**{c.CHECKPOINTS: 1})
    known = pd.DataFrame(
        {
            c.TASK: [f"task{i + 1}" for i in range(tasks)],
            c.CHANCE: np.resize(PRIOR_CHANCE, tasks),
            c.ITEMS: np.resize(PRIOR_ITEMS, tasks),
        }
    )
    rungs, targets = (_each(x, recipes) for x in (_rungs(sizes, tokens_per_param), targets))
    rungs = rungs.merge(known[[c.TASK]], how="cross")
    # The model needs a design before there are measurements: these are never read.
    blank = rungs.assign(**{c.LOSS: 1.0, c.REFERENCE_LOSS: 1.0, c.ACCURACY: 0.5})
    blank[c.CHECKPOINTS] = END_CHECKPOINTS
    empty = Ladder(blank, known, name="simulated ladder")
    design, _, labels, frame = ladder_design(empty)
    ahead, rows = target_design(targets, empty.tasks, frame)
    with on_device(jax.devices("cpu")[0]):
        near = jax.tree.map(jnp.asarray, design)
        far = jax.tree.map(jnp.asarray, ahead)
        with TRACING:
            found = _draw(as_route(route), jax.random.key(seed), near, far, priors)
        drawn = jax.tree.map(np.asarray, found)
    common, here, there = drawn
    rng = np.random.default_rng(seed)
    shape = len(labels.model), tasks, PRIOR_CHECKPOINTS
    run, task, number = (index.ravel() for index in np.indices(shape))
    progress = np.linspace(0.91, 1.0, PRIOR_CHECKPOINTS)
    table = pd.DataFrame(
        {c.MODEL: np.array(labels.model)[run], c.TASK: np.array(labels.task)[task]}
    ).merge(rungs, on=[c.MODEL, c.TASK], how="left")
    table[c.TOKENS] = np.round(table[c.TOKENS] * progress[number]).astype(int)
    for quantity, (end, noise) in here.items():
        scatter = rng.normal(size=(*end.shape, PRIOR_CHECKPOINTS))
        # Drawn given that the mean of the last ones is the run's end.
        scatter -= scatter[..., -END_CHECKPOINTS:].mean(axis=-1, keepdims=True)
        value = end[..., None] + noise[..., None] * scatter
        value = np.clip(value, 0.0, 1.0) if quantity == c.ACCURACY else np.exp(value)
        table[quantity] = np.broadcast_to(value, shape).ravel()
    words = [c.MODEL, c.PARAMS, c.TOKENS, c.TASK, *([c.RECIPE] if recipes else [])]
    measured = rows[words].assign(
        **{
            quantity: np.broadcast_to(value, (len(targets), tasks)).ravel()
            for quantity, value in there.items()
        },
        **{c.CHECKPOINTS: rows[c.CHECKPOINTS]},
    )
    if c.ACCURACY in measured:
        measured[c.ACCURACY] = measured[c.ACCURACY].clip(0.0, 1.0)
    ladder = Ladder(table, known, name="simulated ladder")
    population = {name: float(value) for name, value in common.items() if np.ndim(value) == 0}
    return ladder, measured, population


def _each(models: pd.DataFrame, recipes: Sequence[str]) -> pd.DataFrame:
    """The models of each recipe, if there are any."""
    if not recipes:
        return models
    table = models.merge(pd.DataFrame({c.RECIPE: list(recipes)}), how="cross")
    return table.assign(**{c.MODEL: table[c.MODEL] + " " + table[c.RECIPE]})


# Not jitted: compiled as one, it takes longer than the draws of many ladders.
def _draw(
    route: Route, key: jax.Array, design: Design, ahead: Design, priors: Priors
) -> tuple[dict, dict, dict]:
    """Sites common to the ladder and its targets; ends of runs as measured; targets as measured.

    Ends are per quantity (losses in logs), beside the SD of a checkpoint.
    """
    first, second = jax.random.split(key)
    drawn = handlers.trace(handlers.seed(route.model, first)).get_trace(design, priors, Observed())
    measured = {quantity: site for quantity, site in SITES.items() if site in drawn}
    common = {
        name: site["value"]
        for name, site in drawn.items()
        if site["type"] == "sample"
        and name not in measured.values()
        and c.MODEL not in {frame.name for frame in site["cond_indep_stack"]}
    }
    model = handlers.substitute(handlers.seed(route.model, second), data=common)
    future = handlers.trace(model).get_trace(ahead, priors, Observed())
    here, there = {}, {}
    for quantity, name in measured.items():
        site, seen = drawn[name], getattr(design, quantity)
        noise = jnp.sqrt(site["fn"].noise_variance * seen.checkpoints)
        here[quantity] = site["value"], jnp.broadcast_to(noise, site["value"].shape)
        value = future[name]["value"]
        there[quantity] = value if name == quantity else jnp.exp(value)
    return common, here, there

"""A bootstrap of the published method: no posterior is sampled, refits scatter.

Models are resampled within size, so that every resample spans the ladder's sizes, as one that lost
its largest or smallest would say little of the targets.
"""

from collections.abc import Callable
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr

from laddercast.baselines.published import (
    HUBER_DELTA,
    Law,
    Step,
    by_task,
    fit_step,
    step_1,
    step_2,
    target_rows,
)
from laddercast.data import words as c
from laddercast.data.cautions import SkippedWarning, warn
from laddercast.data.ladder import Ladder
from laddercast.data.settings import check_whole
from laddercast.data.sources import Table
from laddercast.model.design import loss_column
from laddercast.sampling.chains import on_device
from laddercast.sampling.programs import few_sizes

TRIES = 100
"""Resamples drawn for a replicate of a task, at most, until one can be fitted."""
BATCH = 4
"""Replicates fitted side by side: each batch takes as many steps as the slowest of it."""
STEPS = 400
DAMPED, UNDAMPED = 1e12, 1e-12
"""Damping relative to the curvature: where steps are lost in rounding, and where it is no more."""
AT_REST = 1e-10
"""The share by which a step must lower the objective to count as progress."""
IDLE = 3
"""Steps without progress that end a fit."""
MEASURED = (c.LOSS, c.ACCURACY)
type Resampler = Callable[[int], pd.DataFrame]
"""Maps the attempt's number to how often each replicate draws each model."""


def bootstrap(
    ladder: Ladder,
    targets: Table,
    *,
    replicates: int = 200,
    residuals: bool = True,
    seed: int = 0,
) -> xr.DataTree:
    """The published two steps refitted to resampled models: what their scatter says of targets.

    On `loss`, or on `reference_loss` where the ladder has no other. Models are drawn with
    replacement within size, the same for all tasks. With `residuals`, normal noise is added to
    each log loss and then to each accuracy, with the SD of the full fit's residuals at the ends of
    runs (less the degrees of freedom of its coefficients), independent over tasks and targets.

    Group `predictions`: `loss`, `accuracy` (chain = 1, draw = `replicates`, row), for the rows and
    the tasks that `baseline` forecasts, with coordinates `model, task, params, tokens,
    checkpoints`; group `measured` where targets were. Accuracies lie in [0, 1].

    A resample that leaves a task fewer distinct points than coefficients, or a single size or
    length, is drawn again for that task. Sizes of one model each are never resampled: with none
    else, only the residuals spread the draws. A task that cannot be fitted, in full or in 100
    resamples of one replicate, is warned of and NaN. Raises ValueError if `replicates` is below 1,
    and for a ladder without losses or without accuracies.

    >>> replicates = lc.bootstrap(ladder, targets, replicates=20)
    """
    replicates = check_whole("replicates", replicates)
    column = loss_column(ladder.table)
    if not c.measured(ladder.table, column) or not c.measured(ladder.table, c.ACCURACY):
        raise ValueError(
            f"{ladder.name}: the bootstrap refits both published steps, which need losses and "
            "accuracies; add them"
        )
    rows = target_rows(ladder, targets)
    resampling, noise = np.random.default_rng(seed).spawn(2)
    resample = _resampler(ladder, replicates, resampling)
    draws = {quantity: np.full((replicates, len(rows)), np.nan) for quantity in MEASURED}
    for task, runs, chance in by_task(ladder.table, ladder):
        here = (rows[c.TASK] == task).to_numpy()
        if not here.any():
            continue
        sizes = np.log(rows.loc[here, [c.PARAMS, c.TOKENS]].to_numpy(float)).T
        normals = residuals * noise.normal(size=(2, replicates, here.sum()))
        try:
            steps = step_1(runs, column, ladder.rungs), step_2(runs, column, chance)
            log_loss, accuracy = _replicates(steps, resample, sizes, normals)
        except ValueError as reason:
            warn(f"{task}: bootstrap gives NaN, as {reason}", SkippedWarning)
            continue
        draws[c.LOSS][:, here] = np.exp(log_loss)
        draws[c.ACCURACY][:, here] = np.clip(accuracy, 0.0, 1.0)
    tree = _tree(rows, draws, column)
    tree.attrs.update(method="bootstrap", loss=column, forecast_seed=seed)
    return tree


def _tree(rows: pd.DataFrame, draws: dict[str, np.ndarray], column: str) -> xr.DataTree:
    checkpoints = rows.get(c.CHECKPOINTS, pd.Series(1.0, rows.index))
    coords = {word: ("row", rows[word].to_numpy()) for word in (c.MODEL, c.TASK)}
    coords |= {word: ("row", rows[word].to_numpy()) for word in (c.PARAMS, c.TOKENS)}
    coords[c.CHECKPOINTS] = ("row", checkpoints.to_numpy(float))
    dims = ("chain", "draw", "row")
    predictions = xr.Dataset({name: (dims, value[None]) for name, value in draws.items()})
    length = len(draws[c.ACCURACY])
    groups = {"predictions": predictions.assign_coords(chain=[0], draw=np.arange(length))}
    known = {c.LOSS: column, c.ACCURACY: c.ACCURACY}
    measured = {q: ("row", rows[word].to_numpy(float)) for q, word in known.items() if word in rows}
    if measured:
        groups["measured"] = xr.Dataset(measured)
    return xr.DataTree.from_dict({name: g.assign_coords(coords) for name, g in groups.items()})


def _resampler(ladder: Ladder, replicates: int, rng: np.random.Generator) -> Resampler:
    sizes = ladder.table.groupby(c.MODEL)[c.PARAMS].first()
    streams = rng.spawn(TRIES)

    @cache
    def resample(attempt: int) -> pd.DataFrame:
        counts = pd.DataFrame(0, range(replicates), sizes.index)
        for _, models in sizes.groupby(sizes):
            equal = np.full(len(models), 1 / len(models))
            counts[models.index] = streams[attempt].multinomial(len(models), equal, replicates)
        return counts

    return resample


def _replicates(
    steps: tuple[Step, Step], resample: Resampler, sizes: np.ndarray, normals: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Log loss and accuracy of one task's targets, each (replicates, targets).

    `sizes` (2, targets) are logs, `normals` (2, replicates, targets) units of residual noise.
    Raises ValueError if the full fit or a replicate fails.
    """
    first, second = steps
    fits = [fit_step(step) for step in steps]
    counts = _sound_counts(steps, resample)
    noise = [
        unit * _residual_sd(step, fit) for unit, step, fit in zip(normals, steps, fits, strict=True)
    ]
    x = np.broadcast_to(sizes, (len(counts), *sizes.shape))
    log_loss = _curves(first.law, _refits(first, fits[0], counts), x) + noise[0]
    x = np.exp(log_loss)[:, None]
    return log_loss, _curves(second.law, _refits(second, fits[1], counts), x) + noise[1]


def _sound_counts(steps: tuple[Step, Step], resample: Resampler) -> pd.DataFrame:
    """How often each replicate (a row) draws each model: its first resample that can be fitted."""
    counts = resample(0)
    for attempt in range(1, TRIES):
        poor = ~np.logical_and(*(_is_sound(step, _weights(step, counts)) for step in steps))
        if not poor.any():
            return counts
        counts = counts.mask(pd.Series(poor), resample(attempt))
    raise ValueError(f"{TRIES} resamples in a row leave too few distinct points to fit")


def _is_sound(step: Step, weights: np.ndarray) -> np.ndarray:
    """Whether the points are as many and as varied as `fit_step` asks of them, (replicates,)."""
    sound = _distinct(step.x, weights) >= len(step.law.scale)
    for variable in step.x:
        sound &= _distinct(variable[None], weights) >= 2
    return sound


def _distinct(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """How many distinct columns of `x` have weight, (replicates,)."""
    label = np.unique(x, axis=1, return_inverse=True)[1].ravel()
    order = np.argsort(label, kind="stable")
    begins = np.flatnonzero(np.diff(label[order], prepend=-1))
    return (np.add.reduceat(weights[:, order], begins, axis=1) > 0).sum(axis=1)


def _weights(step: Step, counts: pd.DataFrame) -> np.ndarray:
    """How often each replicate counts each point, (replicates, points); the ideal point once."""
    once = counts.assign(**{"": 1})
    weights: np.ndarray = once[step.models].to_numpy(float)
    return weights


def _residual_sd(step: Step, theta: np.ndarray) -> float:
    """SD of the residuals at the ends of runs: targets are ends of runs, too."""
    off = step.y - _curves(step.law, theta[None], step.x[None])[0]
    ends = np.append(step.models[1:] != step.models[:-1], True) & (step.models != "")
    freedom = max(int(ends.sum()) - len(theta), 1)
    return float(np.sqrt((off[ends] ** 2).sum() / freedom))


def _refits(step: Step, theta: np.ndarray, counts: pd.DataFrame) -> np.ndarray:
    """Coefficients (replicates, coefficients): the better of two starts, `theta` and the last."""
    weights = _weights(step, counts)
    more = few_sizes(len(step.y), 16) - len(step.y)
    x, y = np.pad(step.x, ((0, 0), (0, more)), "edge"), np.pad(step.y, (0, more))
    weights = np.pad(weights, ((0, 0), (0, more)))
    delta = HUBER_DELTA if step.law.huber else float("inf")
    with on_device(jax.devices("cpu")[0]):
        solve = partial(refit, step.law, x, y, weights)
        warm, fresh = (np.tile(start, (len(weights), 1)) for start in (theta, step.starts[-1]))
        if step.law.huber:
            # As in the full fit: from afar, the Huber loss leads to far worse optima.
            fresh, _ = solve(fresh, float("inf"))
        (warm, warm_loss), (fresh, fresh_loss) = solve(warm, delta), solve(fresh, delta)
        # A loss that is not finite never wins, unless both are.
        better = ~(np.asarray(warm_loss) <= np.asarray(fresh_loss))
    return np.where(better[:, None], fresh, warm)


def _curves(law: Law, thetas: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The law of each `thetas` (fits, coefficients) at its own `x` (fits, variables, points)."""
    with on_device(jax.devices("cpu")[0]):
        return np.asarray(_vmapped(law, thetas, x))


@partial(jax.jit, static_argnums=0)
def _vmapped(law: Law, thetas: jax.Array, x: jax.Array) -> jax.Array:
    return jax.vmap(law.predict)(thetas, x)


@partial(jax.jit, static_argnames=("law", "delta"))
def refit(
    law: Law, x: jax.Array, y: jax.Array, weights: jax.Array, starts: jax.Array, delta: float
) -> tuple[jax.Array, jax.Array]:
    """Coefficients (fits, coefficients) of the least weighted Huber loss, and that loss (fits,).

    x (variables, points), y (points,), weights (fits, points), starts (fits, coefficients);
    `delta` infinite gives least squares. Levenberg's and Marquardt's steps, with the Huber loss
    as reweighted squares; coefficients held at a bound that they press on.
    """
    lower, upper, scale = (jnp.asarray(v) for v in (law.lower, law.upper, law.scale))

    def residuals(theta: jax.Array) -> jax.Array:
        return law.predict(theta, x) - y

    def loss(theta: jax.Array, w: jax.Array) -> jax.Array:
        off = jnp.abs(residuals(theta))
        near = jnp.minimum(off, delta)
        return w @ (near * (off - near / 2))

    def one(pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        w, start = pair

        def step(state: tuple) -> tuple:
            theta, value, damping, idle, count = state
            off, slopes = residuals(theta), jax.jacfwd(residuals)(theta) * scale
            pull = w * jnp.minimum(1.0, delta / jnp.maximum(jnp.abs(off), 1e-300))
            gradient, curvature = (pull * off) @ slopes, (slopes.T * pull) @ slopes
            held = ((theta <= lower) & (gradient > 0)) | ((theta >= upper) & (gradient < 0))
            free = ~held
            curvature = jnp.where(free[:, None] & free, curvature, 0.0)
            diagonal = jnp.diag(curvature)
            ridge = damping * diagonal + UNDAMPED * diagonal.max() + held
            move = jnp.linalg.solve(curvature + jnp.diag(ridge), jnp.where(free, -gradient, 0.0))
            new = jnp.clip(theta + scale * move, lower, upper)
            new_value = loss(new, w)
            better = new_value < value
            progress = better & (new_value < (1 - AT_REST) * value)
            damping = jnp.where(better, jnp.maximum(damping / 5, UNDAMPED), damping * 4)
            idle = jnp.where(progress, 0, idle + better)
            theta, value = (jnp.where(better, a, b) for a, b in ((new, theta), (new_value, value)))
            return theta, value, damping, idle, count + 1

        def going(state: tuple) -> jax.Array:
            _, _, damping, idle, count = state
            return (damping < DAMPED) & (idle < IDLE) & (count < STEPS)

        begin = (start, loss(start, w), jnp.asarray(1e-3), jnp.asarray(0), jnp.asarray(0))
        theta, value, *_ = jax.lax.while_loop(going, step, begin)
        return theta, value

    return jax.lax.map(one, (weights, starts), batch_size=BATCH)

"""The published two-step point fit and its variants (arXiv 2412.04403), refitted on our laws.

Step 1 fits a law of params and tokens (or of flops) to the ends of runs, with a Huber loss on
logs; step 2 fits accuracy from loss to all checkpoints, by least squares; a target goes through
both. Several starts seek the least objective, which the published fit of a variant may miss.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import islice
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from laddercast.data import words as c
from laddercast.data.cautions import SkippedWarning, warn
from laddercast.data.checks import check_one_recipe
from laddercast.data.ladder import WARMUP_SHARE, Ladder, read_targets, run_ends
from laddercast.data.sizes import whole_runs, with_flops
from laddercast.data.sources import Table
from laddercast.data.targets import check_targets
from laddercast.data.writing import listed, no_such
from laddercast.model import laws

FROM = {
    "two_step": c.LOSS,
    "two_step_flops": c.LOSS,
    "single_step": c.ACCURACY,
    "two_step_c4_p0fix": c.REFERENCE_LOSS,
    "two_step_taskce_p0fix": c.TASK_CE,
}
"""Each method and the column that it fits to params and tokens (or flops)."""

METHODS = tuple(FROM)

HUBER_DELTA = 1e-3
SMOOTHED = 5
"""Step 2 smooths checkpoints by a trailing mean of up to so many."""
SKIPPED, SKIPPED_OF_TASK_CE = 0.1, 0.5
"""The share of each run's checkpoints, from its first, that step 2 leaves out."""
SPREADS = (1.0, 2.0, 4.0)
"""SDs of the random starts about the given one, in units of a law's `scale`."""
CLEARLY_BETTER = 1e-6
"""The share by which a later start must be better to win: ties go to the published one."""
TINY = 1e-9
"""Stands for a bound of 0, where a log has no gradient."""
SMALLEST_EXPONENT = 0.02
"""Least exponent of the single step: the fit to a logarithm has exponent 0 and infinite E."""


class Law(NamedTuple):
    """A curve of fixed shape: its coefficients' bounds and scales, and how it is fitted."""

    predict: Callable[[jax.Array, jax.Array], jax.Array]
    """From coefficients and x, of shape (variables, rows), to y, of shape (rows,)."""
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    scale: tuple[float, ...]
    """By how much each coefficient may move at once."""
    huber: bool


class Step(NamedTuple):
    """One step of the published method for one task: a law, and the points that it is fitted to."""

    law: Law
    x: np.ndarray  # (variables, points)
    y: np.ndarray  # (points,)
    models: np.ndarray  # (points,) whose; the ideal point is nobody's, ""
    starts: tuple[tuple[float, ...], ...]


def _log_loss(theta: jax.Array, x: jax.Array) -> jax.Array:
    log_a, log_b, alpha, beta, e = theta
    return laws.log_loss(x[0], x[1], log_a, log_b, jnp.log(e), alpha, beta)


def _log_loss_of_flops(theta: jax.Array, x: jax.Array) -> jax.Array:
    log_a, alpha, e = theta
    return laws.log_loss_of_flops(x[0], log_a, jnp.log(e), alpha)


def _log_accuracy(theta: jax.Array, x: jax.Array) -> jax.Array:
    # A, B and E are nearly collinear: fit two terms' slopes at x = 0 and the sum of all terms.
    slope_a, slope_b, alpha, beta, total, p, q = theta
    a, b = slope_a / alpha, slope_b / beta
    terms = jnp.exp(laws.log_loss(x[0], x[1], jnp.log(a), jnp.log(b), -jnp.inf, alpha, beta))
    return jnp.log(laws.accuracy(terms, 1.0, a + b - total, p + q, q))


def _accuracy(theta: jax.Array, x: jax.Array) -> jax.Array:
    a, L0, k, b = theta  # noqa: N806 - the paper's letter
    return laws.accuracy(x[0], k, L0, a + b, b)


def _accuracy_of_task_ce(theta: jax.Array, x: jax.Array) -> jax.Array:
    # a, k and L0 are not identified where the curve is nearly straight or exponential: fit its
    # distance from 1 at x = 0, the relative slope of that, and its curvature.
    distance, slope, bend = theta
    k = slope * jax.nn.softplus(bend) / jax.nn.sigmoid(bend)
    a = -distance / jax.nn.softplus(bend)
    return laws.accuracy_of_task_ce(x[0], a, k, -bend / k)


INF = float("inf")
STEP_1 = Law(_log_loss, (0, 0, 0, 0, TINY), (INF,) * 5, (1, 1, 0.05, 0.05, 0.3), huber=True)
STEP_1_FLOPS = Law(_log_loss_of_flops, (0, 0, TINY), (INF, 1, INF), (1, 0.05, 0.3), huber=True)
SINGLE_STEP = Law(
    _log_accuracy,
    lower=(TINY, TINY, SMALLEST_EXPONENT, SMALLEST_EXPONENT, -INF, -1, 0),
    upper=(INF, INF, INF, INF, INF, 0, 1),
    scale=(0.1, 0.1, 0.1, 0.1, 0.5, 0.2, 0.2),
    huber=True,
)
STEP_2 = Law(_accuracy, (-1, 0, 0, 0), (0, INF, INF, 1), (0.2, 0.3, 3, 0.2), huber=False)
STEP_2_TASK_CE = Law(_accuracy_of_task_ce, (0, TINY, -30), (INF, INF, 30), (0.1, 1, 1), huber=False)


def baseline(
    ladder: Ladder, targets: Table, methods: Sequence[str] | str = METHODS
) -> pd.DataFrame:
    """Point forecasts of `targets`, as `read_targets` takes them, for the ladder's tasks.

    Returns `FORECAST_COLUMNS`, of which only `q50` is filled, and `method`: one row per method x
    quantity x model x task. The methods that pass through the task loss forecast `loss` too. By
    default these are the methods that the ladder's columns allow; one that is named without its
    column raises ValueError, as does a ladder without losses where none is named. Of losses without
    accuracies, these alone are forecast. A task that cannot be fitted is warned of and NaN. Where
    `ladder.rungs` is "every", each checkpoint counts as the end of a run. `flops` count where every
    row of both tables has them, else 6ND in their place.

    >>> points = lc.baseline(ladder, targets, ["two_step"])
    """
    methods = [methods] if isinstance(methods, str) else methods
    _check_methods(methods, ladder)
    table, rows = with_flops(ladder.table, target_rows(ladder, targets))
    parts = []
    failed: dict[tuple[str, str], list[str]] = {}
    for method in methods:
        if not c.measured(table, FROM[method]):
            continue
        quantities: tuple[str, ...] = (c.LOSS,) if FROM[method] == c.LOSS else ()
        quantities += (c.ACCURACY,) if c.measured(table, c.ACCURACY) else ()
        if not quantities:
            continue
        values = {quantity: np.full(len(rows), np.nan) for quantity in quantities}
        for task, runs, chance in by_task(table, ladder):
            here = (rows[c.TASK] == task).to_numpy()
            if not here.any():
                continue
            try:
                found = _forecasts(method, runs, chance, ladder.rungs, rows[here])
                # Without accuracies, step 2 is not reached.
                for quantity, q50 in islice(found, len(quantities)):
                    values[quantity][here] = q50
            except ValueError as reason:
                failed.setdefault((method, str(reason)), []).append(task)
        for quantity, q50 in values.items():
            measured = rows.get(quantity, np.nan)
            parts.append(rows.assign(quantity=quantity, q50=q50, measured=measured, method=method))
    _warn(failed)
    return pd.concat(parts, ignore_index=True).reindex(columns=[*c.FORECAST_COLUMNS, "method"])


def fit_two_step(ladder: Ladder) -> pd.DataFrame:
    """Coefficients of `two_step`: one row per task, columns `A alpha B beta E a L0 k b`.

    They take params, tokens and loss in the ladder's units. Raises ValueError without a column
    `loss`; a task that cannot be fitted is warned of and NaN.
    """
    _check_methods(["two_step"], ladder)
    if not c.measured(ladder.table, c.ACCURACY):
        raise ValueError(f"{ladder.name}: no accuracies were measured, which step 2 is fitted to")
    names = ["A", "alpha", "B", "beta", "E", "a", "L0", "k", "b"]
    fits = pd.DataFrame(np.nan, ladder.tasks.index, names)
    failed: dict[tuple[str, str], list[str]] = {}
    for task, runs, chance in by_task(ladder.table, ladder):
        try:
            log_a, log_b, alpha, beta, e = fit_step(step_1(runs, c.LOSS, ladder.rungs))
            first = (np.exp(log_a), alpha, np.exp(log_b), beta, e)
            fits.loc[task] = [*first, *fit_step(step_2(runs, c.LOSS, chance))]
        except ValueError as reason:
            failed.setdefault(("two_step", str(reason)), []).append(task)
    _warn(failed)
    return fits


def by_task(table: pd.DataFrame, ladder: Ladder) -> Iterator[tuple[str, pd.DataFrame, float]]:
    """Each task of `ladder` with its rows of `table` and its chance."""
    for task, chance in ladder.tasks[c.CHANCE].items():
        yield str(task), table[table[c.TASK] == task], float(chance)


def _warn(failed: Mapping[tuple[str, str], Sequence[str]]) -> None:
    """One warning for all tasks that a method cannot fit for one reason."""
    for (method, reason), tasks in failed.items():
        warn(f"{listed(tasks, 10)}: {method} gives NaN, as {reason}", SkippedWarning)


def has_losses(ladder: Ladder) -> bool:
    """Whether any loss was measured that a published method goes through."""
    return any(c.measured(ladder.table, word) for word in (c.LOSS, c.REFERENCE_LOSS, c.TASK_CE))


def _check_methods(methods: Sequence[str], ladder: Ladder) -> None:
    check_one_recipe(ladder.recipes, "the published method")
    for method in methods:
        if method not in METHODS:
            raise ValueError(no_such("method", [method], METHODS))
        if not c.measured(ladder.table, FROM[method]) and tuple(methods) != METHODS:
            raise ValueError(
                f"{ladder.name}: column `{FROM[method]}` is missing; add it, or leave out {method}"
            )
    if tuple(methods) == METHODS and not has_losses(ladder):
        raise ValueError(
            f"{ladder.name}: the published method goes through losses, and none were measured; "
            f'add `{c.LOSS}` or `{c.REFERENCE_LOSS}` (methods=["single_step"] reads accuracies '
            "alone)"
        )


def target_rows(ladder: Ladder, targets: Table) -> pd.DataFrame:
    """One row per target x task of the ladder. Raises ValueError as `forecast` does."""
    check_one_recipe(ladder.recipes, "a baseline")
    table, tasks = read_targets(targets), ladder.tasks.index
    check_targets(table, whole_runs(ladder.table), tasks)
    if c.TASK not in table:
        return table.merge(tasks.to_frame(index=False), how="cross")
    return table.reset_index(drop=True)


def _forecasts(
    method: str, runs: pd.DataFrame, chance: float, used: str, targets: pd.DataFrame
) -> Iterator[tuple[str, np.ndarray]]:
    """Quantities of one task with their forecasts; raises ValueError where a fit fails."""
    column = FROM[method]
    if method == "single_step":
        sizes = _logs(targets, c.PARAMS, c.TOKENS)
        yield c.ACCURACY, _single_step(_ends(runs, column, used), chance, sizes)
        return
    variables = (c.FLOPS,) if method == "two_step_flops" else (c.PARAMS, c.TOKENS)
    step = step_1(runs, column, used, variables)
    loss = np.exp(_predict(step.law, fit_step(step), _logs(targets, *variables)))
    if column == c.LOSS:
        yield c.LOSS, loss
    if column == c.TASK_CE:
        yield c.ACCURACY, _step_2_of_task_ce(runs, loss)
    else:
        yield c.ACCURACY, _predict(STEP_2, fit_step(step_2(runs, column, chance)), loss[None])


def _ends(runs: pd.DataFrame, column: str, used: str) -> pd.DataFrame:
    """The rows that `column` is fitted to in one task: ends of runs, or each checkpoint."""
    by_model = runs.groupby(c.MODEL)
    if used == "every":
        ends = runs[runs[c.TOKENS] > WARMUP_SHARE * by_model[c.TOKENS].transform("max")]
    elif column == c.TASK_CE:
        ends = by_model.tail(1)
    else:
        ends = run_ends(runs)
    return ends.dropna(subset=[column])


def step_1(
    runs: pd.DataFrame, column: str, used: str, variables: Sequence[str] = (c.PARAMS, c.TOKENS)
) -> Step:
    """Log of `column` from logs of params and tokens (or of flops) in the `runs` of one task."""
    ends = _ends(runs, column, used)
    x, (y,) = _logs(ends, *variables), _logs(ends, column)
    law = STEP_1_FLOPS if len(x) == 1 else STEP_1
    published = (3.0, 0.1, 1.0) if len(x) == 1 else (3.0, 6.0, 0.1, 0.2, 1.0)
    # The published start may lead to where a term has died out: also start with equal terms.
    exponents, equal = np.full(len(x), 0.2), y.mean() - np.log(len(x) + 1)
    near = (*(equal + exponents * x.mean(axis=1)), *exponents, np.exp(equal))
    return Step(law, x, y, ends[c.MODEL].to_numpy(), (published, near))


def step_2(runs: pd.DataFrame, column: str, chance: float) -> Step:
    """Accuracy from `column` at the checkpoints of `runs` of one task, and at the ideal point."""
    rows = _without_first(SKIPPED, runs.dropna(subset=[column, c.ACCURACY]))
    smooth = rows.groupby(c.MODEL)[[column, c.ACCURACY]].rolling(SMOOTHED, min_periods=1).mean()
    ideal_point = [[0.0], [1.0]]
    x, y = np.hstack([smooth.to_numpy().T, ideal_point])
    models = np.append(smooth.index.get_level_values(c.MODEL).to_numpy(object), "")
    starts = tuple((chance - 1, middle, 3, 1) for middle in (0.9, float(np.median(x))))
    return Step(STEP_2, x[None], y, models, starts)


def fit_step(step: Step) -> np.ndarray:
    """Coefficients of the step's law; raises ValueError if they cannot be found."""
    return _fit(step.law, step.x, step.y, *step.starts)


def _step_2_of_task_ce(runs: pd.DataFrame, task_ce: np.ndarray) -> np.ndarray:
    rows = _without_first(SKIPPED_OF_TASK_CE, runs.dropna(subset=[c.TASK_CE, c.ACCURACY]))
    x, y = rows[[c.TASK_CE, c.ACCURACY]].to_numpy(float).T
    centre, a, L0, k = x.mean(), -0.1, 0.9, 3  # noqa: N806 - the published start
    softplus = np.logaddexp(0, k * (centre - L0))
    start = (-a * softplus, k * -np.expm1(-softplus) / softplus, k * (centre - L0))
    theta = _fit(STEP_2_TASK_CE, (x - centre)[None], y, start)
    return _predict(STEP_2_TASK_CE, theta, (task_ce - centre)[None])


def _without_first(share: float, rows: pd.DataFrame) -> pd.DataFrame:
    """All but the first checkpoints of each run, which keeps at least its last."""
    by_model = rows.groupby(c.MODEL)
    count = by_model[c.ACCURACY].transform("size")
    first = np.minimum(np.ceil(share * count - TINY), count - 1)
    kept: pd.DataFrame = rows[by_model.cumcount() >= first]
    return kept


def _single_step(ends: pd.DataFrame, chance: float, sizes: np.ndarray) -> np.ndarray:
    if (ends[c.ACCURACY] == 0).any():
        raise ValueError("an accuracy of 0 has no log")
    x = _logs(ends, c.PARAMS, c.TOKENS)
    centre = x.mean(axis=1, keepdims=True)
    alpha, beta = 0.2, 0.3
    a, b = np.exp([3, 5] - np.array([alpha, beta]) * centre[:, 0])  # the published start, E = 0
    start = (alpha * a, beta * b, alpha, beta, a + b, chance - 1, 1)
    theta = _fit(SINGLE_STEP, x - centre, *_logs(ends, c.ACCURACY), start)
    return np.exp(_predict(SINGLE_STEP, theta, sizes - centre))


def _logs(table: pd.DataFrame, *columns: str) -> np.ndarray:
    logs: np.ndarray = np.log(table[list(columns)].to_numpy(float)).T
    return logs


@partial(jax.jit, static_argnums=0)
def _linearised(
    predict: Callable[..., jax.Array], theta: jax.Array, x: jax.Array, y: jax.Array, w: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Residuals of weight `w`, of shape (rows,), and their derivatives (rows, coefficients)."""

    def residuals(theta: jax.Array) -> jax.Array:
        return w * (predict(theta, x) - y)

    return residuals(theta), jax.jacfwd(residuals)(theta)


def _predict(law: Law, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    with jax.enable_x64(True):
        return np.asarray(jax.jit(law.predict)(theta, x))


def _fit(law: Law, x: np.ndarray, y: np.ndarray, *starts: tuple[float, ...]) -> np.ndarray:
    """Coefficients with the least Huber loss or sum of squares from `starts` and random ones.

    `x` has shape (variables, rows), `y` (rows,). Raises ValueError if they cannot be found.
    """
    needed, found = len(law.scale), np.unique(x, axis=1).shape[1]
    if found < needed:
        raise ValueError(f"{needed} coefficients cannot be fitted to {found} distinct points")
    if any(len(np.unique(variable)) < 2 for variable in x):
        raise ValueError("a law cannot be fitted to models of one size or one length")
    return np.array(_solve(law, x.tobytes(), y.tobytes(), starts))


@lru_cache(maxsize=256)
def _solve(
    law: Law, x_bytes: bytes, y_bytes: bytes, starts: tuple[tuple[float, ...], ...]
) -> tuple[float, ...]:
    # Cached, as methods and tasks share fits: step 1 of C4 is the same for all tasks.
    y = np.frombuffer(y_bytes)
    x = np.frombuffer(x_bytes).reshape(-1, len(y))
    more = 2 ** int(np.ceil(np.log2(max(len(y), 16)))) - len(y)  # so that few shapes compile
    scale = np.array(law.scale)
    normals = np.random.default_rng(0).normal(size=(len(SPREADS), len(scale)))
    drawn = [starts[-1] + s * scale * z for s, z in zip(SPREADS, normals, strict=True)]
    best = None
    with jax.enable_x64(True):
        padded = (np.pad(x, ((0, 0), (0, more)), "edge"), np.pad(y, (0, more)))
        data = [jnp.asarray(v) for v in (*padded, np.arange(len(y) + more) < len(y))]

        @lru_cache(maxsize=1)
        def at(theta: bytes) -> list[np.ndarray]:
            return [np.asarray(v) for v in _linearised(law.predict, np.frombuffer(theta), *data)]

        solve = partial(
            least_squares,
            lambda theta: at(theta.tobytes())[0],
            jac=lambda theta: at(theta.tobytes())[1],
            bounds=(law.lower, law.upper),
            x_scale=scale,
            gtol=1e-15,
            max_nfev=500,
        )
        for start in [*starts, *drawn]:
            theta = np.clip(start, law.lower, law.upper)
            try:
                if law.huber:
                    # Least squares first: from afar, the Huber loss leads to far worse optima.
                    theta = solve(theta, ftol=1e-4, xtol=1e-4, max_nfev=100).x
                    fit = solve(theta, loss="huber", f_scale=HUBER_DELTA)
                else:
                    fit = solve(theta)
            except ValueError:  # of a start where the law or a derivative is not finite
                continue
            if best is None or fit.cost < (1 - CLEARLY_BETTER) * best.cost:
                best = fit
    if best is None or best.status <= 0:
        raise ValueError("its fit does not converge")
    return tuple(best.x)

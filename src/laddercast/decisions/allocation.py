"""How large a model and how long a run are best at one budget, and what compute a goal takes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from laddercast.data import sizes
from laddercast.data import words as c
from laddercast.data.cautions import FarTargetWarning, LaddercastWarning, NotConvergedWarning, warn
from laddercast.data.checks import check_one_recipe
from laddercast.data.ladder import Ladder, run_ends
from laddercast.data.lines import Line, line_through
from laddercast.data.settings import as_number
from laddercast.data.sizes import whole_runs
from laddercast.data.writing import STYLES, listed, short_number
from laddercast.decisions.chance import tasks_at_chance
from laddercast.decisions.questions import draws_of
from laddercast.forecasting.averages import shares
from laddercast.forecasting.forecasts import (
    FAR_DECADES,
    FAR_TOKENS_PER_PARAM,
    forecast_of_laws,
)
from laddercast.forecasting.grids import forecast_of_runs, thinned
from laddercast.inference.results import (
    converged,
    points_of,
    recipes_of,
    rungs_of,
    runs_measured,
    tasks_of,
)
from laddercast.model.routes import Route

EPSILON = 0.005
"""Half a point of accuracy, or half a per cent of a loss, as a difference that does not matter.

Half a point is the standard error of a benchmark of 10,000 questions; a rerun differs by as much.
"""

SURE = 0.9

SIZES = 48
"""Sizes at one budget, evenly in logs."""

FEWER_SIZES = 16
"""At each budget that is tried for a goal."""

EDGE = 0.1
"""Probability of an optimum at an end of the grid, above which the ladder is said not to reach."""

BISECTIONS = 8
"""Each halves the range of compute in logs: of 6 decades, 2 hundredths are left."""

OPTIMUM = {"q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95}


class Reach(NamedTuple):
    """What bounds the sizes to compare: `params, tokens` of rungs, and a line that they are on."""

    rungs: pd.DataFrame
    line: Line | None


class _Asked(NamedTuple):
    """What is to be best: the share of each task in it, and the quantity."""

    task: str
    weights: Mapping[str, float] | None
    quantity: str
    share: dict[str, float]


def allocate(
    fitted: xr.DataTree,
    flops: float,
    *,
    task: str = c.ALL,
    weights: Mapping[str, float] | None = None,
    tokens_served: float = 0.0,
    epsilon: float = EPSILON,
    probability: float = SURE,
    route: Route | Sequence[Route] = (),
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """How large a model, how long a run: the regret of each size at one budget of compute.

    The budget pays for training and for serving: 6 N D + 2 N `tokens_served` FLOPs. Best is the
    highest accuracy of a `task`, or of the mean over all, with `weights` by task as
    `mean_over_tasks` takes them; or the lowest mean loss (`task="loss"`, and of a fit of losses).
    Sizes are compared by their expected values in joint draws, with the discrepancy's walks in
    params and tokens, and without what is of one size or run: nobody can choose that.

    A row per size: `flops` (of training, 6 N D), `params, tokens`, quantiles `accuracy_q10,
    accuracy_q50, accuracy_q90` (of losses: `loss_...`) of what one run would get, `regret_q50,
    regret_q90` (how much the best size is better; of a loss, as a share of it), and `in_set`:
    within `epsilon` of the best with this `probability`. In `attrs`: `best` (`params, tokens` of
    the least mean regret), `optimum` (quantiles of the best size's `params, tokens,
    tokens_per_param`), `edge` (probability that the best lies at an end of the sizes), `at_chance`
    (tasks that no rung solves) and the settings. `route` as `forecast` takes it, `draws` of each.

    Warns where the best may lie beyond the sizes, and where none is in the set. Raises ValueError
    where the ladder cannot answer: rungs on one line, a budget below the ladder or more than 3
    decades beyond, tasks at chance in all rungs.

    >>> table = lc.allocate(fitted, flops=1e21)
    >>> table[table["in_set"]], table.attrs["optimum"]
    """
    flops = as_number("flops", flops)
    tokens_served = as_number("tokens_served", tokens_served)
    asked = _asked_of(fitted, task, weights)
    reach = reach_of(fitted)
    faults = _budget_faults(reach, flops, tokens_served)
    if not (epsilon > 0 and 0 < probability < 1 and draws >= 1):
        faults.append(
            f"epsilon {epsilon}, probability {probability}, draws {draws}: give an epsilon above "
            "0, a probability between 0 and 1, at least 1 draw"
        )
    if faults:
        raise ValueError("\n".join(faults))
    grid = grid_at(reach, flops, tokens_served, SIZES)
    at_chance = _at_chance(runs_measured(fitted), tasks_of(fitted), asked)
    regret = regrets(_laws(fitted, grid, asked, route, draws, seed), asked.quantity)
    best = regret.argmin(axis=1)
    runs = forecast_of_runs(fitted, grid, route=route, draws=draws, seed=seed)
    of_runs = draws_of(runs, _of_means(asked), asked.weights, asked.quantity).draws
    table = grid.assign(**{c.FLOPS: sizes.flops(grid[c.PARAMS], grid[c.TOKENS].astype(float))})
    table = table[[c.FLOPS, c.PARAMS, c.TOKENS]]
    for name in ("q10", "q50", "q90"):
        table[f"{asked.quantity}_{name}"] = np.quantile(of_runs, c.QUANTILES[name], axis=0)
    for name in ("q50", "q90"):
        table[f"regret_{name}"] = np.quantile(regret, c.QUANTILES[name], axis=0)
    table["in_set"] = (regret <= epsilon).mean(axis=0) >= probability
    chosen = int(regret.mean(axis=0).argmin())
    at_best = grid.iloc[best].reset_index(drop=True)
    at_best["tokens_per_param"] = at_best[c.TOKENS] / at_best[c.PARAMS]
    table.attrs = {
        "task": asked.task, "quantity": asked.quantity, "budget": float(flops),
        "tokens_served": float(tokens_served), "epsilon": epsilon, "probability": probability,
        "best": {word: int(grid[word].iloc[chosen]) for word in (c.PARAMS, c.TOKENS)},
        "optimum": {
            str(word): {
                # A size of the grid, not a mean of two.
                name: float(np.quantile(value, level, method="nearest"))
                for name, level in OPTIMUM.items()
            }
            for word, value in at_best.items()
        },
        "edge": float(((best == 0) | (best == len(grid) - 1)).mean()),
        "at_chance": at_chance, "converged": int(bool(converged(fitted))),
    }  # fmt: skip
    _warn(table)
    return table


def flops_for(
    fitted: xr.DataTree,
    *,
    accuracy: float | None = None,
    loss: float | None = None,
    task: str = c.ALL,
    weights: Mapping[str, float] | None = None,
    probability: float = SURE,
    route: Route | Sequence[Route] = (),
    draws: int = 1000,
    seed: int = 0,
) -> pd.Series:
    """The least training compute at which one run reaches a goal with this probability.

    The goal is an `accuracy` or a `loss`, of one `task` or of the mean over all, with `weights` as
    `mean_over_tasks` takes them. At each compute the size is that of the highest probability (on
    the line of the rungs, if all lie on one). Noise between checkpoints is averaged away. Gives
    `flops` (6 N D, to about 5 %), `params, tokens, probability`; in `attrs` what was asked: `task,
    quantity, goal, probability`, and `converged`. Raises ValueError where the goal is not reached
    within 3 decades beyond the largest rung, or already at the smallest, and for tasks at chance.

    >>> lc.flops_for(fitted, accuracy=0.7, task="piqa")
    """
    if (accuracy is None) == (loss is None):
        raise ValueError("give one of accuracy= and loss=")
    quantity = c.LOSS if accuracy is None else c.ACCURACY
    goal = float(loss if accuracy is None else accuracy)  # type: ignore[arg-type]
    asked = _asked_of(fitted, task, weights, quantity)
    if faults := _goal_faults(quantity, goal, probability):
        raise ValueError("\n".join(faults))
    _at_chance(runs_measured(fitted), tasks_of(fitted), asked)
    style = STYLES[quantity]
    what = f"{quantity} {style.value(goal)}{style.unit} of {_name(asked)}"
    reach = reach_of(fitted)
    spent = sizes.log10_flops(reach.rungs)
    low, high = float(spent.min()), float(spent.max()) + FAR_DECADES

    def reached(log10_flops: float) -> pd.Series:
        """The size of the highest probability at this compute."""
        grid = grid_at(reach, 10**log10_flops, 0.0, FEWER_SIZES)
        runs = forecast_of_runs(fitted, grid, route=route, draws=draws, seed=seed)
        values = draws_of(runs, _of_means(asked), asked.weights, quantity).draws
        good = values <= goal if quantity == c.LOSS else values >= goal
        grid["probability"] = good.mean(axis=0)
        found = grid.loc[grid["probability"].idxmax()]
        return pd.Series({c.FLOPS: 10**log10_flops} | found.to_dict())

    best = reached(high)
    if best["probability"] < probability:
        raise ValueError(
            f"{what} is not reached with a probability of {probability:g} within {FAR_DECADES:g} "
            f"decades of compute beyond the largest rung: at {10**high:.2g} FLOPs the probability "
            f"is {best['probability']:.2f}, and further out the ladder says little"
        )
    least = reached(low)
    if least["probability"] >= probability:
        raise ValueError(
            f"{what} is reached at the compute of the smallest rung, {10**low:.2g} FLOPs; what "
            "less would do lies below the ladder"
        )
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        found = reached(middle)
        if found["probability"] >= probability:
            high, best = middle, found
        else:
            low = middle
    best.attrs = {
        "task": asked.task, "quantity": quantity, "goal": goal, "probability": probability,
        "converged": int(bool(converged(fitted))),
    }  # fmt: skip
    if not best.attrs["converged"]:
        warn("the fit has not converged: do not rely on this compute", NotConvergedWarning)
    return best


def regrets(draws: np.ndarray, quantity: str) -> np.ndarray:
    """How much the best size of each draw (all, sizes) is better; of a loss, as a share of it."""
    if quantity == c.LOSS:
        return np.asarray(draws / draws.min(axis=1, keepdims=True) - 1)
    return np.asarray(draws.max(axis=1, keepdims=True) - draws)


def check_allocation(
    ladder: Ladder,
    task: str = c.ALL,
    *,
    flops: float | None = None,
    accuracy: float | None = None,
    tokens_served: float = 0.0,
) -> None:
    """Raise what `allocate` of `flops` and `flops_for` an `accuracy` would, before a fit.

    As far as it shows in the ladder, with every fault.
    """
    check_one_recipe(ladder.several_recipes, "an allocation")
    names, faults = [str(name) for name in ladder.tasks.index], []
    measured = c.measured(ladder.table, c.ACCURACY)
    if flops is None and accuracy is None:
        faults.append("give a budget (--flops), a goal (--accuracy), or both")
    if flops is not None:
        reach = Reach(whole_runs(ladder.table).astype(float), ladder.line)
        faults += _budget_faults(reach, flops, tokens_served)
    elif tokens_served:
        faults.append("tokens_served are of a budget: give --flops too")
    if accuracy is not None:
        faults += _goal_faults(c.ACCURACY, accuracy, SURE)
        if task == c.LOSS and c.LOSS not in names:
            faults.append(f"task {c.LOSS!r} has no accuracy: give another task, or no --accuracy")
        if not measured:
            faults.append("the ladder has no accuracies: leave out --accuracy")
    if task not in (c.ALL, c.LOSS, *names):
        faults.append(_no_task(task, names))
    if not faults and measured:
        try:
            _at_chance(run_ends(ladder.table), ladder.tasks, _asked(names, measured, task, None))
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise ValueError("\n".join(faults))


def reach_of(fitted: xr.DataTree) -> Reach:
    """What a fit's rungs bound."""
    check_one_recipe(recipes_of(fitted), "an allocation")
    return Reach(rungs_of(fitted), line_through(points_of(fitted)))


def _no_task(task: str, names: Iterable[str]) -> str:
    return f"task {task!r}: give one of {listed(names, 20)}, or {c.ALL}, or {c.LOSS}"


def _asked_of(
    fitted: xr.DataTree,
    task: str,
    weights: Mapping[str, float] | None,
    quantity: str | None = None,
) -> _Asked:
    """What is to be best of a fit, checked."""
    names = [str(name) for name in tasks_of(fitted).index]
    return _asked(names, _has_accuracy(fitted), task, weights, quantity)


def _asked(
    names: list[str],
    has_accuracy: bool,
    task: str,
    weights: Mapping[str, float] | None,
    quantity: str | None = None,
) -> _Asked:
    """What is to be best of tasks with these names, checked."""
    if task not in (c.ALL, c.LOSS, *names):
        raise ValueError(_no_task(task, names))
    of_means = task in (c.ALL, c.LOSS) and task not in names
    if weights is not None and not of_means:
        raise ValueError(f"weights are of a mean over tasks: leave out task={task!r}, or them")
    if quantity is None:
        losses = (of_means and task == c.LOSS) or not has_accuracy
        quantity = c.LOSS if losses else c.ACCURACY
    return _Asked(task, weights, quantity, shares(names, weights) if of_means else {task: 1.0})


def _has_accuracy(fitted: xr.DataTree) -> bool:
    return any(node.name == "log_likelihood" and c.ACCURACY in node for node in fitted.subtree)


def _of_means(asked: _Asked) -> str:
    """The task as a forecast has it."""
    return c.ALL if asked.task not in asked.share else asked.task


def _name(asked: _Asked) -> str:
    return asked.task if asked.task in asked.share else "the mean over tasks"


def _goal_faults(quantity: str, goal: float, probability: float) -> list[str]:
    """Why a goal cannot be asked for."""
    most = 1.0 if quantity == c.ACCURACY else np.inf
    if 0 < goal < most and np.isfinite(goal) and 0 < probability < 1:
        return []
    kind = "a fraction between 0 and 1" if quantity == c.ACCURACY else f"a finite {c.LOSS} above 0"
    return [
        f"{quantity} {goal:g}, probability {probability:g}: give {kind}, and a probability between "
        "0 and 1"
    ]


def _budget_faults(reach: Reach, flops: float, tokens_served: float) -> list[str]:
    """Why these rungs cannot tell how a budget is split best."""
    if not (np.isfinite(flops) and flops > 0 and np.isfinite(tokens_served) and tokens_served >= 0):
        return [
            f"flops {flops}, tokens_served {tokens_served}: give a finite budget above 0, and "
            "tokens of at least 0"
        ]
    if reach.line is not None:
        return [
            f"{reach.line}: such a ladder cannot tell params from tokens, so any split of compute "
            "would rest on the priors; add rungs off that line, of one size with other lengths"
        ]
    spent = 10 ** sizes.log10_flops(reach.rungs)
    grid = grid_at(reach, flops, tokens_served, 2)
    training = sizes.flops(grid[c.PARAMS], grid[c.TOKENS].astype(float)).max()
    if training < spent.min():
        left = f", of which at most {training:.2g} are for training," if tokens_served else ""
        return [
            f"a budget of {flops:.2g} FLOPs{left} lies below the ladder, whose smallest rung took "
            f"{spent.min():.2g}: give more"
        ]
    decades = float(np.log10(training / spent.max()))
    if decades > FAR_DECADES:
        return [
            f"a budget of {flops:.2g} FLOPs lies {decades:.1f} decades beyond the largest rung; "
            f"beyond {FAR_DECADES:g} a ladder says little: give at most "
            f"{spent.max() * 10**FAR_DECADES:.2g}, or add larger rungs"
        ]
    return []


def grid_at(reach: Reach, flops: float, tokens_served: float, count: int) -> pd.DataFrame:
    """`params, tokens` at a budget for training and serving, in all lengths that have support.

    Of rungs on one line, the one pair on it.
    """
    if reach.line is not None:
        return _on_line(reach.line, flops)
    ratio = reach.rungs[c.TOKENS] / reach.rungs[c.PARAMS]
    ends = ratio.max() * FAR_TOKENS_PER_PARAM, ratio.min() / FAR_TOKENS_PER_PARAM
    # The roots of 6 r N^2 + 2 served N = flops.
    least, most = (
        flops / (tokens_served + np.sqrt(tokens_served**2 + 6 * r * flops)) for r in ends
    )
    params = np.geomspace(least, most, count)
    tokens = (flops / params - 2 * tokens_served) / 6
    return pd.DataFrame({c.PARAMS: params, c.TOKENS: tokens}).round().astype("int64")


def _on_line(line: Line, flops: float) -> pd.DataFrame:
    """The pair of this compute on the line of the rungs."""
    of_params, of_tokens = line.direction
    if of_params + of_tokens < 1e-6:
        raise ValueError(f"{line}: compute does not change along it; add rungs of other compute")
    far = (np.log(flops / 6) - line.params - line.tokens) / (of_params + of_tokens)
    pair = {
        c.PARAMS: [np.round(np.exp(line.params + far * of_params))],
        c.TOKENS: [np.round(np.exp(line.tokens + far * of_tokens))],
    }
    return pd.DataFrame(pair).astype("int64")


def _laws(
    fitted: xr.DataTree,
    grid: pd.DataFrame,
    asked: _Asked,
    route: Route | Sequence[Route],
    draws: int,
    seed: int,
) -> np.ndarray:
    """Joint draws (all, sizes) of what is to be best."""
    targets = grid.assign(**{c.MODEL: grid.index.astype(str)})
    tree = forecast_of_laws(thinned(fitted, draws), targets, route=route, seed=seed)
    found = draws_of(tree, _of_means(asked), asked.weights, asked.quantity)
    # A forecast has its targets by size.
    order = [found.models.index(str(i)) for i in range(len(grid))]
    return found.draws[:, order]


def _at_chance(runs: pd.DataFrame, tasks: pd.DataFrame, asked: _Asked) -> list[str]:
    """Of the tasks asked for, those that no rung solves. Raises ValueError where that is all."""
    if asked.quantity != c.ACCURACY or runs.empty:
        return []
    found = sorted(set(tasks_at_chance(runs, tasks)) & set(asked.share))
    if found == sorted(asked.share):
        raise ValueError(
            f"{listed(found, 10)}: no rung is above chance by more than luck explains, so the "
            'ladder does not tell what helps; choose other tasks, or task="loss"'
        )
    return found


def _warn(table: pd.DataFrame) -> None:
    """Say where the answer is not what it seems."""
    attrs = table.attrs
    if not attrs["converged"]:
        warn("the fit has not converged: do not rely on this allocation", NotConvergedWarning)
    if attrs["edge"] > EDGE:
        ratio = table[c.TOKENS] / table[c.PARAMS]
        warn(
            f"with a probability of {attrs['edge']:.2f} the best size lies beyond those compared, "
            f"of {short_number(table[c.PARAMS].min())} to {short_number(table[c.PARAMS].max())} "
            f"params ({ratio.max():.3g} to {ratio.min():.3g} tokens per parameter); further out "
            "the ladder says little",
            FarTargetWarning,
        )
    if not table["in_set"].any():
        least = table["regret_q90"].min()
        warn(
            f"no size is within epsilon {attrs['epsilon']:g} of the best with a probability of "
            f"{attrs['probability']:g}: the ladder cannot tell the best size so well; the least "
            f"regret that any keeps with a probability of 0.9 is {least:.2g}",
            LaddercastWarning,
        )

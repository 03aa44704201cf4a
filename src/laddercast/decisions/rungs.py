"""Which rungs next: what more small models would tell of a target, for their compute."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from laddercast.data import words as c
from laddercast.data.checks import check_one_recipe
from laddercast.data.ladder import read_targets
from laddercast.data.settings import as_number
from laddercast.data.sizes import flops
from laddercast.decisions.candidates import (
    affordable,
    candidates_for,
    check_plan,
    design_grid,
    read_candidates,
)
from laddercast.decisions.measurements import Drawn, drawn_from_fit, drawn_from_priors, told_of
from laddercast.decisions.regression import Halves, best_plan, halves_of
from laddercast.inference.results import recipes_of, rungs_of, tasks_of
from laddercast.model.priors import Priors
from laddercast.model.routes import Route, as_route, stage_1, two_stage

PLAN_COLUMNS = (
    "order", c.PARAMS, c.TOKENS, c.FLOPS, "variance_before", "variance_after", "gain_per_flop",
)  # fmt: skip

MOST_RUNGS = 10
"""Rungs of a plan unless told otherwise: later ones gain little, and each takes a while to find."""

DESIGN_TASKS = pd.DataFrame(
    {c.TASK: [f"task{i + 1}" for i in range(4)], c.CHANCE: 0.25, c.ITEMS: 1000.0}
)
"""What a ladder is designed for where no tasks are given: several of a usual kind."""


def plan_rungs(
    fitted: xr.DataTree,
    targets: str | Path | pd.DataFrame,
    *,
    budget: float,
    candidates: str | Path | pd.DataFrame | None = None,
    task: str | None = None,
    count: int = MOST_RUNGS,
    route: Route | Sequence[Route] = (),
    draws: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Which small models to train next, to know the targets better: at most `count`, in order.

    `targets` as `read_targets` takes them, `budget` in FLOPs for all that is chosen. `candidates`
    are a table of `params, tokens`, maybe `flops` (6ND unless given) and `checkpoints` (that a
    measurement is the mean of; 1 unless given); by default sizes and lengths up to the targets'.
    What is to be reduced is the variance of the targets' accuracies, averaged over tasks and
    targets; with `task`, that of one task or, `"all"`, of the mean over tasks. Of losses alone, it
    is the variance of loss. `draws` of the posterior of each route, `route` as `forecast` takes it.

    One row a candidate, those chosen first: `order` (1, 2, ...; missing where not chosen), `params,
    tokens, flops, variance_before, variance_after` (points squared of accuracy, squares of a per
    cent of loss) and `gain_per_flop`. Of those chosen, variances are before and after each in its
    turn; of others, as if it alone were trained. Routes are averaged; what they differ by stays.
    Attributes: `quantity`, `task`, `budget`. Raises ValueError for a budget that buys no candidate,
    for candidates that the ladder has, and for targets that it has reached.

    >>> plan = lc.plan_rungs(fitted, targets, budget=1e21)
    >>> plan[plan["order"].notna()]
    """
    wanted, budget = read_targets(targets), as_number("budget", budget)
    check_one_recipe(recipes_of(fitted), "a plan of rungs")
    names = list(tasks_of(fitted).index)
    check_plan(budget, count, task, names)
    table = candidates_for(rungs_of(fitted), wanted, budget, candidates)
    drawn = drawn_from_fit(fitted, table, wanted, route=route, draws=draws, seed=seed)
    return _planned(drawn, table, budget, names, task, count)


def design_ladder(
    targets: str | Path | pd.DataFrame,
    *,
    budget: float = 0.01,
    tasks: pd.DataFrame | None = None,
    route: Route | str | None = None,
    priors: Priors | None = None,
    candidates: str | Path | pd.DataFrame | None = None,
    task: str | None = None,
    count: int = MOST_RUNGS,
    draws: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """A ladder to begin with, before any model is trained: sizes and lengths, under the priors.

    `budget` is a share of the compute of the largest target. `tasks` (`task, chance, items`) are
    four of a usual kind unless given; by default through each task's loss, and with
    `route="stage_1"` for a loss alone. Other arguments, what is returned and raised as for
    `plan_rungs`. Priors are wide, so that the variances are: what one rung tells more than another
    is what to read.

    >>> plan = lc.design_ladder(targets, budget=0.01)
    >>> plan[plan["order"].notna()]
    """
    wanted, budget = read_targets(targets), as_number("budget", budget)
    through = as_route(two_stage if route is None else route)
    known = DESIGN_TASKS if tasks is None else _named(tasks)
    if tasks is None and through == stage_1:
        known = DESIGN_TASKS[:1]
    check_plan(budget, count, task, list(known[c.TASK]), most=1.0)
    total = budget * float(flops(wanted[c.PARAMS], wanted[c.TOKENS]).max())
    table = design_grid(wanted, total) if candidates is None else read_candidates(candidates)
    table = affordable(table, total)
    drawn = drawn_from_priors(through, known, table, wanted, priors=priors, draws=draws, seed=seed)
    return _planned({through.name: drawn}, table, total, list(known[c.TASK]), task, count)


def _named(tasks: pd.DataFrame) -> pd.DataFrame:
    return tasks if c.TASK in tasks else tasks.rename_axis(c.TASK).reset_index()


def _planned(
    drawn: Mapping[str, Drawn], candidates: pd.DataFrame, budget: float, names: list[str],
    task: str | None, count: int,
) -> pd.DataFrame:  # fmt: skip
    groups = [halves for own in drawn.values() for halves in groups_of(own, names, task)]
    rest = unreachable(drawn, names, task)
    costs = candidates[c.FLOPS].to_numpy(float)
    order, after, alone = best_plan(groups, costs, budget, count)
    whole = float(np.mean([variance_of(own, names, task) for own in drawn.values()]))
    before = np.full(len(candidates), whole)
    then = np.minimum(alone, whole)
    place = np.full(len(candidates), np.nan)
    place[order] = np.arange(1, len(order) + 1)
    then[order] = after
    before[order] = [whole, *after][: len(order)]
    table = pd.DataFrame(
        {
            "order": pd.array(place, dtype="Int64"),
            **{word: candidates[word].to_numpy() for word in (c.PARAMS, c.TOKENS, c.FLOPS)},
            "variance_before": before + rest,
            "variance_after": then + rest,
            "gain_per_flop": (before - then) / costs,
        }
    )
    table = table.sort_values(["order", "gain_per_flop"], ascending=[True, False])
    table = table[list(PLAN_COLUMNS)].reset_index(drop=True)
    quantity = next(iter(drawn.values())).quantity
    table.attrs |= {"quantity": quantity, "task": task or "", "budget": float(budget)}
    return table


def groups_of(drawn: Drawn, names: list[str], task: str | None) -> list[Halves]:
    """The regressions of one route, one for each task that counts."""
    return [halves_of(_told(drawn, i), _target(drawn, i)) for i in _which(names, task)]


def variance_of(drawn: Drawn, names: list[str], task: str | None) -> float:
    """Variance of what the regressions of one route are of, averaged."""
    return float(np.mean([_target(drawn, i).var(axis=0) for i in _which(names, task)]))


def unreachable(drawn: Mapping[str, Drawn], names: list[str], task: str | None) -> float:
    """Variance that no candidate reduces: the targets' own noise, and between the routes' means."""
    noise = [
        np.mean(own.noise) / own.noise.shape[1] if i is None else own.noise[:, i].mean()
        for own in drawn.values()
        for i in _which(names, task)
    ]
    means = [[_target(own, i).mean(axis=0) for own in drawn.values()] for i in _which(names, task)]
    return float(np.mean(noise) + np.var(means, axis=1).mean())


def _which(names: list[str], task: str | None) -> list[int | None]:
    """Numbers of the tasks that count; None is the mean over all."""
    if task is None:
        return list(range(len(names)))
    return [None] if task == c.ALL else [names.index(task)]


def _target(drawn: Drawn, i: int | None) -> np.ndarray:
    """(draws, targets)"""
    return np.asarray(drawn.target.mean(axis=-1) if i is None else drawn.target[..., i])


def _told(drawn: Drawn, i: int | None) -> np.ndarray:
    """What candidates measure that tells of a task (draws, candidates, measurements)."""
    return np.concatenate([told_of(values, i) for values in (drawn.loss, drawn.accuracy)], axis=-1)

"""From a validated table to the arrays that the model reads: where measured, how far out."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from laddercast import columns as c
from laddercast.ladder import WARMUP_SHARE, Ladder, checkpoint_spread, run_ends

KNOT_DECADES = 0.5
"""Widest interval, in decades of compute, over which discrepancy is a straight line."""

DEFAULT_ITEMS = 1000.0
"""Questions assumed where `items` is not given: noise factors are relative to it."""


class Frame(NamedTuple):
    """What a ladder fixes for its forecasts: reference sizes, and the knots of discrepancy.

    `params`, `tokens`: geometric means over the ends of runs. `knots` (K + 1,): log10 of
    params x tokens; discrepancy is zero at `knots[origin]` and random-walks away from it.
    """

    params: float
    tokens: float
    knots: np.ndarray
    origin: int


class Design(NamedTuple):
    """Indices and known numbers of one data set; every field is an array, so it can be traced.

    Points are pairs of a run and a number of tokens; cells are run x curve (of loss) or run x task
    (of accuracy); rows are measurements, of one cell at one point.
    """

    log_params: np.ndarray  # (points,) natural log over the reference params
    log_tokens: np.ndarray  # (points,)
    walk: np.ndarray  # (points, intervals) weights of the discrepancy's steps inside the ladder
    beyond: np.ndarray  # (points, steps) weights of its steps beyond the ladder
    end: np.ndarray  # (runs,) the point at which each run ends
    loss_cell_run: np.ndarray  # (loss cells,)
    loss_cell_curve: np.ndarray
    accuracy_cell_run: np.ndarray  # (accuracy cells,)
    accuracy_cell_task: np.ndarray
    accuracy_cell_loss: np.ndarray  # the loss cell that each accuracy cell reads
    loss_point: np.ndarray  # (loss rows,)
    loss_cell: np.ndarray
    loss_checkpoints: np.ndarray  # how many checkpoints each row is the mean of
    accuracy_point: np.ndarray  # (accuracy rows,)
    accuracy_cell: np.ndarray
    accuracy_checkpoints: np.ndarray
    loss_spread_cell: np.ndarray  # (loss spreads,)
    loss_spread_dof: np.ndarray
    accuracy_spread_cell: np.ndarray
    accuracy_spread_dof: np.ndarray
    chance: np.ndarray  # (tasks,)
    items: np.ndarray
    task_curve: np.ndarray  # (tasks,) the curve of loss that stage 2 of each task reads
    curve: np.ndarray  # (curves,) its number


class Observed(NamedTuple):
    """Measurements in the order of a design's rows."""

    loss: np.ndarray
    accuracy: np.ndarray
    loss_spread: np.ndarray  # variance of log loss between last checkpoints
    accuracy_spread: np.ndarray


class Labels(NamedTuple):
    """Names in the order of a design's indices."""

    model: list[str]
    curve: list[str]
    task: list[str]


def loss_column(table: pd.DataFrame) -> str:
    """`loss` where the table has one, else `reference_loss`."""
    return c.LOSS if c.LOSS in table and table[c.LOSS].notna().any() else c.REFERENCE_LOSS


def ladder_design(ladder: Ladder) -> tuple[Design, Observed, Labels, Frame]:
    """The design of a ladder's own rungs, with what was measured on them."""
    table = ladder.table
    loss = loss_column(table)
    rows = run_ends(table)
    spreads = {
        quantity: checkpoint_spread(table, quantity, log=quantity == loss)
        for quantity in (loss, c.ACCURACY)
    }
    if ladder.rungs == "every":
        end = table.groupby(c.MODEL)[c.TOKENS].transform("max")
        rows = table[table[c.TOKENS] > WARMUP_SHARE * end]
        if c.CHECKPOINTS not in rows:
            rows = rows.assign(**{c.CHECKPOINTS: 1.0})
        # Every checkpoint is a row of the likelihood, which already tells their noise.
        spreads = {quantity: spread.iloc[:0] for quantity, spread in spreads.items()}
    rows = rows[rows[loss].notna() | rows[c.ACCURACY].notna()]

    curves = list(ladder.tasks.index) if loss == c.LOSS else [c.REFERENCE_LOSS]
    models = [model for model in ladder.models if model in set(rows[c.MODEL])]
    labels = Labels(models, curves, list(ladder.tasks.index))
    points = rows[[c.MODEL, c.PARAMS, c.TOKENS]].drop_duplicates().reset_index(drop=True)
    ends = points.sort_values(c.TOKENS).groupby(c.MODEL).tail(1)
    frame = _frame(ends, points)

    loss_rows = rows.dropna(subset=[loss])
    if loss == c.REFERENCE_LOSS:
        loss_rows = loss_rows.drop_duplicates([c.MODEL, c.TOKENS]).assign(
            **{c.TASK: c.REFERENCE_LOSS}
        )
        spread = spreads[loss].drop_duplicates(c.MODEL)
        spreads[loss] = spread.assign(**{c.TASK: c.REFERENCE_LOSS})
    accuracy_rows = rows.dropna(subset=[c.ACCURACY])
    design = _design(points, loss_rows, accuracy_rows, ladder.tasks, labels, frame)
    design, kept = _with_spreads(design, spreads[loss], spreads[c.ACCURACY], labels)
    observed = Observed(
        loss_rows[loss].to_numpy(float),
        accuracy_rows[c.ACCURACY].to_numpy(float),
        kept[0],
        kept[1],
    )
    return design, observed, labels, frame


def target_design(
    targets: pd.DataFrame, tasks: pd.DataFrame, curves: list[str], frame: Frame
) -> tuple[Design, pd.DataFrame]:
    """The design of targets, all tasks of each jointly; and its rows (`model ... task`).

    `targets` has one row per model with `params, tokens, checkpoints`, uniquely named.
    """
    rows = targets.merge(pd.DataFrame({c.TASK: list(tasks.index)}), how="cross")
    labels = Labels(list(targets[c.MODEL]), curves, list(tasks.index))
    points = targets[[c.MODEL, c.PARAMS, c.TOKENS]].reset_index(drop=True)
    loss_rows = rows
    if curves == [c.REFERENCE_LOSS]:
        loss_rows = targets.assign(**{c.TASK: c.REFERENCE_LOSS})
    return _design(points, loss_rows, rows, tasks, labels, frame), rows


def _frame(ends: pd.DataFrame, points: pd.DataFrame) -> Frame:
    log_params = np.log(ends[c.PARAMS].to_numpy(float))
    log_tokens = np.log(ends[c.TOKENS].to_numpy(float))
    compute = np.log10(points[c.PARAMS].to_numpy(float)) + np.log10(
        points[c.TOKENS].to_numpy(float)
    )
    low, high = compute.min(), compute.max()
    origin = (log_params + log_tokens).mean() / np.log(10)
    below = max(1, int(np.ceil((origin - low) / KNOT_DECADES)))
    above = max(1, int(np.ceil((high - origin) / KNOT_DECADES)))
    knots = np.concatenate(
        [np.linspace(low, origin, below + 1), np.linspace(origin, high, above + 1)[1:]]
    )
    return Frame(float(np.exp(log_params.mean())), float(np.exp(log_tokens.mean())), knots, below)


def _steps(compute: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Weights (points, intervals) of unit normal steps of a random walk from edges[0] to edges[-1].

    Straight inside an interval; `edges` may run upwards or downwards.
    """
    start, stop = edges[:-1], edges[1:]
    share = np.clip((compute[:, None] - start) / (stop - start), 0.0, 1.0)
    return np.sqrt(np.abs(stop - start)) * share


def _design(
    points: pd.DataFrame,
    loss_rows: pd.DataFrame,
    accuracy_rows: pd.DataFrame,
    tasks: pd.DataFrame,
    labels: Labels,
    frame: Frame,
) -> Design:
    log_params = np.log(points[c.PARAMS].to_numpy(float))
    log_tokens = np.log(points[c.TOKENS].to_numpy(float))
    compute = (log_params + log_tokens) / np.log(10)
    up, down = frame.knots[frame.origin :], frame.knots[: frame.origin + 1][::-1]
    walk = np.concatenate([_steps(compute, up), _steps(compute, down)], axis=1)
    # Beyond the ladder the walk is exact: one step to each further target.
    slack = 1e-9
    higher = np.unique(np.append(compute[compute > up[-1] + slack], up[-1]))
    lower = np.unique(np.append(compute[compute < down[-1] - slack], down[-1]))[::-1]
    beyond = np.concatenate([_steps(compute, higher), _steps(compute, lower)], axis=1)

    run_of = {model: i for i, model in enumerate(labels.model)}
    point_run = points[c.MODEL].map(run_of).to_numpy(int)
    end = np.array(
        [
            max(np.flatnonzero(point_run == run), key=lambda point: log_tokens[point])
            for run in range(len(labels.model))
        ],
        dtype=int,
    )
    at = pd.Series(
        np.arange(len(points)), index=pd.MultiIndex.from_frame(points[[c.MODEL, c.TOKENS]])
    )
    task_curve = np.array(
        [labels.curve.index(task) if task in labels.curve else 0 for task in labels.task], dtype=int
    )

    def indices(rows: pd.DataFrame, names: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        run = rows[c.MODEL].map(run_of).to_numpy(int)
        which = rows[c.TASK].map({name: i for i, name in enumerate(names)}).to_numpy(int)
        point = at.loc[pd.MultiIndex.from_frame(rows[[c.MODEL, c.TOKENS]])].to_numpy(int)
        return run, which, point

    loss_run, loss_curve, loss_point = indices(loss_rows, labels.curve)
    accuracy_run, accuracy_task, accuracy_point = indices(accuracy_rows, labels.task)
    # A cell of loss exists where loss was measured or where a measured accuracy must read it.
    n_curves, n_tasks = len(labels.curve), len(labels.task)
    loss_key = loss_run * n_curves + loss_curve
    needed_key = accuracy_run * n_curves + task_curve[accuracy_task]
    loss_cells = np.unique(np.concatenate([loss_key, needed_key]))
    accuracy_key = accuracy_run * n_tasks + accuracy_task
    accuracy_cells = np.unique(accuracy_key)
    cell_run, cell_task = accuracy_cells // n_tasks, accuracy_cells % n_tasks
    items = tasks[c.ITEMS].to_numpy(float)
    return Design(
        log_params=log_params - np.log(frame.params),
        log_tokens=log_tokens - np.log(frame.tokens),
        walk=walk,
        beyond=beyond,
        end=end,
        loss_cell_run=loss_cells // n_curves,
        loss_cell_curve=loss_cells % n_curves,
        accuracy_cell_run=cell_run,
        accuracy_cell_task=cell_task,
        accuracy_cell_loss=np.searchsorted(loss_cells, cell_run * n_curves + task_curve[cell_task]),
        loss_point=loss_point,
        loss_cell=np.searchsorted(loss_cells, loss_key),
        loss_checkpoints=loss_rows[c.CHECKPOINTS].to_numpy(float),
        accuracy_point=accuracy_point,
        accuracy_cell=np.searchsorted(accuracy_cells, accuracy_key),
        accuracy_checkpoints=accuracy_rows[c.CHECKPOINTS].to_numpy(float),
        loss_spread_cell=np.zeros(0, int),
        loss_spread_dof=np.zeros(0),
        accuracy_spread_cell=np.zeros(0, int),
        accuracy_spread_dof=np.zeros(0),
        chance=tasks[c.CHANCE].to_numpy(float),
        items=np.where(np.isfinite(items), items, DEFAULT_ITEMS),
        task_curve=task_curve,
        curve=np.arange(n_curves),
    )


def _with_spreads(
    design: Design, loss: pd.DataFrame, accuracy: pd.DataFrame, labels: Labels
) -> tuple[Design, tuple[np.ndarray, np.ndarray]]:
    run_of = {model: i for i, model in enumerate(labels.model)}

    def cells(
        spread: pd.DataFrame, names: list[str], cell_run: np.ndarray, cell_of: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        keys = cell_run * len(names) + cell_of
        run = spread[c.MODEL].map(run_of)
        which = spread[c.TASK].map({name: i for i, name in enumerate(names)})
        key = (run * len(names) + which).to_numpy(float)
        # A spread of zero says that the values were rounded or repeated, not that noise is absent.
        known = np.isin(key, keys) & (spread["variance"].to_numpy(float) > 0)
        cell = np.searchsorted(keys, key[known].astype(int))
        return cell, spread["dof"].to_numpy(float)[known], spread["variance"].to_numpy(float)[known]

    loss_cell, loss_dof, loss_variance = cells(
        loss, labels.curve, design.loss_cell_run, design.loss_cell_curve
    )
    accuracy_cell, accuracy_dof, accuracy_variance = cells(
        accuracy, labels.task, design.accuracy_cell_run, design.accuracy_cell_task
    )
    design = design._replace(
        loss_spread_cell=loss_cell,
        loss_spread_dof=loss_dof,
        accuracy_spread_cell=accuracy_cell,
        accuracy_spread_dof=accuracy_dof,
    )
    return design, (loss_variance, accuracy_variance)

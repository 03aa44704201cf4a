"""Backtests: fit some rungs, forecast the others; and how much ladder is enough."""

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from laddercast import columns as c
from laddercast.baseline import baseline
from laddercast.design import loss_column
from laddercast.forecast import forecast
from laddercast.inference import fit
from laddercast.ladder import Ladder, read_targets
from laddercast.progress import with_progress
from laddercast.score import UNITS, score_cells, summarise

PUBLISHED = {c.LOSS: "two_step", c.REFERENCE_LOSS: "two_step_c4_p0fix"}
"""The published method for the loss that the fit is on."""

SIZE, LENGTH = c.PARAMS, "tokens per parameter"
"""What a ladder is cut by."""


def backtest(
    ladder: Ladder, *, hold_out: Iterable[str] | None = None, seed: int = 0, **settings: Any
) -> pd.DataFrame:
    """Hold out some rungs, fit the rest, forecast those held out; `settings` as `fit` takes them.

    Splits: `largest size` (every model of the largest params), `longest runs` (every model among
    the longer half of the lengths, in tokens per parameter at the run's end to two digits; of an
    odd number the middle one is fitted); or `named rungs` alone, those in `hold_out`. A split whose
    rest cannot be fitted is warned of and left out; ValueError if none is left or the named one
    cannot be.

    One row per split x quantity x model x task: `split`, the columns of `score_cells`, `baseline`
    (the published method's point forecast from the same rungs) and `baseline_error` (absolute),
    both in points for accuracy and NaN where it gives none; `ladder_flops` of the rungs fitted,
    `target_flops` of the model held out (6ND unless every row has `flops`), `converged` (1 or 0).
    """
    parts = []
    flops = _flops(ladder.table, _all_have_flops(ladder.table))
    shown = settings.get("progress", True)
    splits = _splits(ladder, hold_out)
    for split, rungs, held_out in with_progress(splits, shown, "backtest", "fit"):
        forecasted = forecast(fit(rungs, seed=seed, **settings), held_out, seed=seed)
        cells = _with_baseline(score_cells(forecasted), rungs, held_out)
        cells.insert(0, "split", split)
        cells["ladder_flops"] = flops[rungs.models].sum()
        cells["target_flops"] = cells[c.MODEL].map(flops)
        cells["converged"] = int(forecasted.attrs["converged"])
        parts.append(cells)
    return pd.concat(parts, ignore_index=True)


def score_backtest(table: pd.DataFrame) -> pd.DataFrame:
    """Summarise a backtest: `split`, the columns of `score`, `baseline_error`, `converged`.

    `baseline_error` is a mean over the same cells as `error`, so NaN where one of them has none.
    """
    scores = summarise(table, by=("split",), also=("baseline_error", "converged"))
    return scores.astype({"converged": int})


def how_much_ladder(
    ladder: Ladder, targets: str | Path | pd.DataFrame, *, seed: int = 0, **settings: Any
) -> pd.DataFrame:
    """Error and width of accuracy forecasts against the compute of the ladder.

    Fits the ladder, then without its largest size, its two largest, ..., then without its longest
    runs, its two longest lengths, ... (in tokens per parameter to two digits), as far as what is
    left can be fitted; `settings` as `fit` takes them. `targets` as `read_targets` takes them,
    with measured accuracies, and none of them a rung (ValueError otherwise).

    One row per sub-ladder x task and one of task `all`: `ladder` (what it was cut to), `models`
    (names, comma-separated), `rungs` (how many), `ladder_flops`, `share` (of the compute of all
    targets) and `share_of_largest` (of the largest target's), then the columns of `score`, in
    points, and `converged` (1 or 0). Compute is 6ND unless every row of both tables has `flops`.
    """
    table = read_targets(targets)
    measured = {c.TASK, c.ACCURACY} <= set(table)
    known = table[table[c.TASK].isin(ladder.tasks.index)] if measured else table.iloc[:0]
    if not measured or known[c.ACCURACY].isna().all():
        raise ValueError(
            "the targets have no measured accuracy of the ladder's tasks; give `task` "
            "and `accuracy` with them"
        )
    own = sorted(set(table[c.MODEL]) & set(ladder.models))
    if own:
        raise ValueError(
            f"targets that the fit would read: {', '.join(own)}; leave them out of the ladder, "
            "as `Ladder.split` does"
        )
    counted = _all_have_flops(ladder.table) and _all_have_flops(table)
    flops, target_flops = _flops(ladder.table, counted), _flops(table, counted)
    parts = []
    shown = settings.get("progress", True)
    cuts = list(_sub_ladders(ladder))
    for name, rungs in with_progress(cuts, shown, "how much ladder", "fit"):
        forecasted = forecast(fit(rungs, seed=seed, **settings), table, seed=seed)
        cells = score_cells(forecasted)
        scores = summarise(cells[cells["quantity"] == c.ACCURACY]).drop(columns="quantity")
        spent = flops[rungs.models].sum()
        about = {
            "ladder": name,
            "models": ", ".join(rungs.models),
            "rungs": len(rungs.models),
            "ladder_flops": spent,
            "share": spent / target_flops.sum(),
            "share_of_largest": spent / target_flops.max(),
        }
        scores = pd.DataFrame(about, index=scores.index).join(scores)
        parts.append(scores.assign(converged=int(forecasted.attrs["converged"])))
    return pd.concat(parts, ignore_index=True)


def _splits(
    ladder: Ladder, hold_out: Iterable[str] | None
) -> list[tuple[str, Ladder, pd.DataFrame]]:
    """Name, rungs to fit and held-out targets of each split that leaves a ladder to be fitted."""
    if hold_out is not None:
        return [("named rungs", *ladder.split(hold_out=hold_out))]
    sizes, lengths = _levels(ladder)
    splits, faults = [], []
    for name, word, levels, dropped in (
        ("largest size", SIZE, sizes, 1),
        ("longest runs", LENGTH, lengths, len(lengths) // 2),
    ):
        if len(levels) < 2:
            faults.append(f"no split `{name}`: all models are of one")
            continue
        try:
            splits.append((name, *_cut(ladder, word, levels[-1 - dropped])))
        except ValueError as reason:
            faults.append(f"no split `{name}`: what it leaves cannot be fitted ({reason})")
    if not splits:
        raise ValueError("\n".join([*faults, "name rungs to hold out with `hold_out`"]))
    for fault in faults:
        warnings.warn(fault, stacklevel=3)
    return splits


def _sub_ladders(ladder: Ladder) -> Iterator[tuple[str, Ladder]]:
    """The ladder, and what is left of it without its largest sizes or its longest lengths."""
    yield "all", ladder
    for word, levels in zip((SIZE, LENGTH), _levels(ladder), strict=True):
        for level in levels[-2::-1]:
            try:
                rungs, _ = _cut(ladder, word, level)
            except ValueError:
                continue
            yield f"{word} <= {level:.3g}", rungs


def _cut(ladder: Ladder, word: str, level: float) -> tuple[Ladder, pd.DataFrame]:
    if word == SIZE:
        return ladder.split(max_params=level)
    return ladder.split(max_tokens_per_param=level)


def _levels(ladder: Ladder) -> tuple[list[float], list[float]]:
    """The distinct sizes, and the greatest of each length (tokens per parameter), ascending."""
    ends = ladder.table.groupby(c.MODEL)[[c.PARAMS, c.TOKENS]].max()
    ratio = ends[c.TOKENS] / ends[c.PARAMS]
    length = ratio.map(lambda value: float(f"{value:.1e}"))
    return sorted(ends[c.PARAMS].unique()), list(ratio.groupby(length).max())


def _with_baseline(cells: pd.DataFrame, rungs: Ladder, held_out: pd.DataFrame) -> pd.DataFrame:
    method = PUBLISHED[loss_column(rungs.table)]
    points = baseline(rungs, held_out, [method]).rename(columns={"q50": "baseline"})
    keys = [c.MODEL, c.TASK, "quantity"]
    joined = cells.merge(points[[*keys, "baseline"]], on=keys, how="left")
    joined["baseline"] *= joined["quantity"].map(UNITS)
    joined["baseline_error"] = (joined["baseline"] - joined["measured"]).abs()
    return joined


def _all_have_flops(table: pd.DataFrame) -> bool:
    return c.FLOPS in table and bool(table[c.FLOPS].notna().all())


def _flops(table: pd.DataFrame, counted: bool) -> pd.Series:
    """Compute of each model's whole run: its `flops` if they are `counted`, else 6ND."""
    if counted:
        return table.groupby(c.MODEL)[c.FLOPS].max()
    ends = table.groupby(c.MODEL)[[c.PARAMS, c.TOKENS]].max().astype(float)
    return 6 * ends[c.PARAMS] * ends[c.TOKENS]

"""Backtests: fit some rungs, forecast the others; and how much ladder is enough."""

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from laddercast.baselines.published import baseline
from laddercast.baselines.resampling import bootstrap
from laddercast.baselines.rungs import best_rung, lowest_loss_rung
from laddercast.data import words as c
from laddercast.data.cautions import SkippedWarning, warn
from laddercast.data.checks import check_one_recipe
from laddercast.data.ladder import Ladder, read_targets
from laddercast.data.sizes import flops, with_flops
from laddercast.data.sources import Table
from laddercast.evaluation.folds import (
    DEFAULT,
    LENGTH,
    NAMED,
    SIZE,
    Fold,
    check_of,
    cut,
    cut_folds,
    levels,
)
from laddercast.evaluation.noise import SAME_LENGTH
from laddercast.evaluation.resume import table_of_each
from laddercast.evaluation.scores import UNITS, score_cells, summarise
from laddercast.forecasting.forecasts import forecast
from laddercast.model.design import loss_column
from laddercast.model.routes import ROUTES, Route
from laddercast.sampling.progress import progress_bar
from laddercast.sampling.threads import one_blas_thread

PUBLISHED = {c.LOSS: "two_step", c.REFERENCE_LOSS: "two_step_c4_p0fix"}
"""The published method for the loss that the fit is on."""

OURS, BASELINE, BOOTSTRAP = "laddercast", "baseline", "bootstrap"
RIVALS = (BASELINE, BOOTSTRAP, "best_rung", "lowest_loss_rung")
"""The published method's point forecast, its bootstrap, and "as good as a rung"."""
NEED_LOSSES = (BASELINE, BOOTSTRAP, "lowest_loss_rung")
NEED_ACCURACIES = (BOOTSTRAP, "best_rung", "lowest_loss_rung")

DISTANCES = ("inside", "near", "far")
FAR = 1.0
"""Decades of compute beyond what was fitted from which a cell is `far`.

What ladders are for lies two to three decades out. Up to the next size or twice to five times the
length (0.4 to 0.8 decades on the published ladder) variants of the model give similar forecasts;
two sizes up (1.1 and more) they differ.
"""

ALL_FOLDS = "pooled"
"""In the column `kind`, the mean over the cells of all folds."""

KEYS = [c.MODEL, c.TASK, "quantity"]
SCORED = (
    "error",
    "crps",
    *(f"{word}{level}" for word in ("inside", "width") for level in c.INTERVALS),
)


FOLD_DRAWS = 500
"""Draws per chain and route of a fold by default; a fit that has not converged adds as many."""


def backtest(
    ladder: Ladder,
    *,
    folds: Iterable[str] | None = None,
    hold_out: Iterable[str] | None = None,
    seed: int = 0,
    executor: Executor | int | None = None,
    resume: str | Path | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Hold out some rungs, fit the rest, forecast those held out.

    `settings` as `fit` takes them, but for 500 `draws` by default, `executor` as `fit_each` does:
    each fold is fitted, forecast and scored there. In the folder `resume` the table of each fold is
    kept as it is done, where an equal run finds it; one of another ladder, other settings or
    versions does not. `folds` are kinds as `cut_folds`
    knows them: `sizes` and `lengths` by default, and none if `hold_out` names rungs, which are a
    fold of kind `named`. A fold whose rest cannot be fitted is warned of and left out; ValueError
    if none is left or the named one cannot be.

    One row per fold x quantity x model x task: `kind`, `fold`, the columns of `score_cells`;
    `decades` (log10 of params x tokens over the largest that was fitted of this task) and
    `distance` (`far` from 1 decade; `inside` if it has no more params, tokens per parameter or
    compute than were fitted, within 1 %; else `near`); `ladder_flops` of the rungs fitted,
    `target_flops` of the model held out (6ND unless every row has `flops`), `converged` (1 or 0);
    point forecasts `baseline` (the published method's), `best_rung` and `lowest_loss_rung` from the
    same rungs, each with its absolute `_error`; `bootstrap`, the median of the published method's,
    with `_error, _crps` and `_inside.., _width..`; all in points for accuracy and NaN where a
    method gives none.

    >>> table = lc.backtest(ladder, folds=["largest-size"], route="direct")
    """
    cuts = _folds(ladder, folds, hold_out)
    (of_models,) = _flops(ladder.table)
    rivals = _rivals(ladder)
    then = [partial(_scored, fold, of_models, rivals, seed, _own_routes(settings)) for fold in cuts]
    about = [
        ["backtest", fold.kind, fold.name, _sum(fold.held_out), _sum(of_models), rivals]
        for fold in cuts
    ]
    parts = _tables(
        [fold.rungs for fold in cuts], then, about, ladder, "backtest", seed, executor, resume,
        settings,
    )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _scored(
    fold: Fold,
    of_models: pd.Series,
    rivals: Sequence[str],
    seed: int,
    own: Mapping[str, Any],
    fitted: xr.DataTree,
) -> pd.DataFrame:
    """The cells of a fold from the fit of its rungs; `of_models` is the compute of each model."""
    forecasted = forecast(fitted, fold.held_out, seed=seed, **own)
    cells = score_cells(forecasted)
    cells.insert(0, "kind", fold.kind)
    cells.insert(1, "fold", fold.name)
    cells["decades"], cells["distance"] = _distances(cells, fold.rungs)
    cells["ladder_flops"] = of_models[fold.rungs.models].sum()
    cells["target_flops"] = cells[c.MODEL].map(of_models)
    cells["converged"] = int(forecasted.attrs["converged"])
    # Here, chains of the folds to come run meanwhile.
    return _with_rivals(cells, fold, rivals, seed)


def score_backtest(table: pd.DataFrame) -> pd.DataFrame:
    """Summarise a backtest by kind, and `pooled` over all folds; near and far are kept apart.

    One row per kind x distance x method x quantity x task, and one of task `all`: `kind, distance,
    method` (`laddercast` first), the columns of `score`, `laddercast_error` and `laddercast_crps`,
    `converged` (1 if all fits have). Each method is scored on the cells that it can forecast, and
    the `laddercast_` columns are ours on the same cells; a method without any has no row. The CRPS
    of a point is its absolute error; points have no coverage or width (NaN).

    >>> scores = lc.score_backtest(table)
    """
    check_backtest(table)
    cells = pd.concat([_cells_of(table, method) for method in (OURS, *RIVALS)])
    cells = pd.concat([cells, cells.assign(kind=ALL_FOLDS)], ignore_index=True)
    # Scores come in the order of the cells.
    rank = {name: i for i, name in enumerate((*table["kind"].unique(), ALL_FOLDS, *DISTANCES))}
    cells = cells.sort_values(["kind", "distance"], key=lambda x: x.map(rank), kind="stable")
    ours = (f"{OURS}_error", f"{OURS}_crps")
    scores = summarise(cells, by=("kind", "distance", "method"), also=(*ours, "converged"))
    return scores.astype({"converged": int})


def without_lone_pool(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores to show: of one kind of folds alone, its pool would say the same again."""
    several = len(set(scores["kind"]) - {ALL_FOLDS}) > 1
    return scores if several else scores[scores["kind"] != ALL_FOLDS]


def check_backtest(table: pd.DataFrame) -> None:
    """Raise ValueError for what is no table of cells, as the file that a command wrote."""
    if not {"median", "measured", "error"} <= set(table):
        raise ValueError(
            "this is no table as `backtest` gives it: read what `laddercast backtest --out DIR` "
            "wrote by read_backtest(DIR)"
        )


def how_much_ladder(
    ladder: Ladder,
    targets: Table,
    *,
    seed: int = 0,
    executor: Executor | int | None = None,
    resume: str | Path | None = None,
    **settings: Any,
) -> pd.DataFrame:
    """Error and width of accuracy forecasts against the compute of the ladder.

    Fits the ladder, then without its largest size, its two largest, ..., then without its longest
    runs, its two longest lengths, ... (in tokens per parameter to two digits), as far as what is
    left is as `cut_folds` has it; `executor`, `resume` and `settings` as `backtest` takes them.
    `targets` as `read_targets`
    takes them, with measured accuracies (of a ladder of losses alone: losses), and none of them a
    rung (ValueError otherwise).

    One row per sub-ladder x task and one of task `all`: `ladder` (what it was cut to), `models`
    (names, comma-separated), `rungs` (how many), `ladder_flops`, `share` (of the compute of all
    targets) and `share_of_largest` (of the largest target's), then the columns of `score`, in
    points, and `converged` (1 or 0). Compute is 6ND unless every row of both tables has `flops`.

    >>> table = lc.how_much_ladder(ladder, targets, route="direct")
    """
    table = read_targets(targets)
    quantity = c.ACCURACY if c.measured(ladder.table, c.ACCURACY) else c.LOSS
    measured = {c.TASK, quantity} <= set(table)
    known = table[table[c.TASK].isin(ladder.tasks.index)] if measured else table.iloc[:0]
    if not measured or known[quantity].isna().all():
        raise ValueError(
            f"the targets have no measured {quantity} of the ladder's tasks; give `task` "
            f"and `{quantity}` with them"
        )
    own = sorted(set(table[c.MODEL].unique()) & set(ladder.models))
    if own:
        raise ValueError(
            f"targets that the fit would read: {', '.join(own)}; leave them out of the ladder, "
            "as `Ladder.split` does"
        )
    of_models, of_targets = _flops(ladder.table, table)
    cuts = list(_sub_ladders(ladder))
    of_all = {"share": of_targets.sum(), "share_of_largest": of_targets.max()}
    then, about = [], []
    for name, rungs in cuts:
        spent = of_models[rungs.models].sum()
        row = {
            "ladder": name,
            "models": ", ".join(rungs.models),
            "rungs": len(rungs.models),
            "ladder_flops": spent,
        } | {word: spent / compute for word, compute in of_all.items()}
        then.append(partial(_enough, row, table, quantity, seed, _own_routes(settings)))
        about.append(["how much", _sum(pd.Series(row)), _sum(table)])
    parts = _tables(
        [rungs for _, rungs in cuts], then, about, ladder, "how much ladder", seed, executor,
        resume, settings,
    )  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _enough(
    row: Mapping[str, Any],
    targets: pd.DataFrame,
    quantity: str,
    seed: int,
    own: Mapping[str, Any],
    fitted: xr.DataTree,
) -> pd.DataFrame:
    """Scores of forecasts from the fit of a sub-ladder, which `row` tells of."""
    forecasted = forecast(fitted, targets, seed=seed, **own)
    cells = score_cells(forecasted)
    scores = summarise(cells[cells["quantity"] == quantity]).drop(columns="quantity")
    scores = pd.DataFrame(dict(row), index=scores.index).join(scores)
    return scores.assign(converged=int(forecasted.attrs["converged"]))


def _tables(
    ladders: Sequence[Ladder],
    then: Sequence[Callable[[xr.DataTree], pd.DataFrame]],
    about: Sequence[Any],
    whole: Ladder,
    what: str,
    seed: int,
    executor: Executor | int | None,
    resume: str | Path | None,
    settings: dict[str, Any],
) -> list[pd.DataFrame]:
    """What becomes of a fit of each ladder, all of them parts of a whole."""
    settings = {"draws": FOLD_DRAWS} | settings
    shown = settings.get("progress", True) and len(ladders) > 1
    with progress_bar(len(ladders), shown, what, "fit") as bar:
        return table_of_each(
            ladders,
            then,
            seeds=[seed] * len(ladders),
            about=about,
            resume=resume,
            executor=executor,
            done=lambda *_: bar.update(),
            within=whole,
            **settings,
        )


def _sum(table: pd.DataFrame | pd.Series) -> str:
    """SHA-256 of a table's values."""
    return hashlib.sha256(table.to_csv().encode()).hexdigest()


def _own_routes(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a forecast must be given to know routes that are not this package's."""
    route = settings.get("route") or ()
    given = [route] if isinstance(route, Route | str) else route
    own = [one for one in given if isinstance(one, Route) and one.name not in ROUTES]
    return {"route": own} if own else {}


def _folds(
    ladder: Ladder, kinds: Iterable[str] | None, hold_out: Iterable[str] | None
) -> list[Fold]:
    check_one_recipe(ladder.recipes, "a backtest")
    named = []
    if hold_out is not None:
        rungs, held_out = ladder.split(hold_out=hold_out)
        names = dict.fromkeys(held_out[c.MODEL])
        named = [Fold(NAMED, ", ".join(names), rungs, held_out)]
    if kinds is None:
        kinds = () if named else DEFAULT
    folds, faults = cut_folds(ladder, kinds)
    if not named and not folds:
        raise ValueError("\n".join([*faults, "name rungs to hold out with `hold_out`"]))
    for fault in faults:
        warn(fault, SkippedWarning)
    return named + folds


def _sub_ladders(ladder: Ladder) -> Iterator[tuple[str, Ladder]]:
    """The ladder, and what is left of it without its largest sizes or its longest lengths."""
    yield "all", ladder
    check = check_of(ladder)
    for word, found in levels(ladder).items():
        for level in found[-2::-1]:
            try:
                rungs, _ = cut(ladder, word, level)
                check(rungs)
            except ValueError:
                continue
            yield f"{word} <= {level:.3g}", rungs


def _distances(cells: pd.DataFrame, rungs: Ladder) -> tuple[pd.Series, np.ndarray]:
    """Decades of compute of each cell beyond the rungs of its task, and its `distance`."""
    fitted, asked = _extents(rungs.table), _extents(cells)
    largest = fitted.groupby(rungs.table[c.TASK]).max().loc[cells[c.TASK]]
    beyond = asked / largest.set_axis(cells.index)
    # A small model trained for longer than any rung is an extrapolation, however cheap it was.
    inside = (beyond < 1 + SAME_LENGTH).all(axis=1)
    decades = np.log10(beyond[c.FLOPS])
    return decades, np.select([inside, decades < FAR], DISTANCES[:2], DISTANCES[2])


def _extents(table: pd.DataFrame) -> pd.DataFrame:
    params, tokens = table[c.PARAMS].astype(float), table[c.TOKENS].astype(float)
    return pd.DataFrame({SIZE: params, LENGTH: tokens / params, c.FLOPS: flops(params, tokens)})


def published(ladder: Ladder, targets: pd.DataFrame) -> pd.DataFrame:
    """The published method's forecasts, through the loss that a fit is on; raises as `baseline`."""
    return baseline(ladder, targets, [PUBLISHED[loss_column(ladder.table)]])


def _rivals(ladder: Ladder) -> list[str]:
    """The rivals that the ladder has the measurements for; a warning tells of others."""
    found = list(RIVALS)
    for word, needing in (("losses", NEED_LOSSES), ("accuracies", NEED_ACCURACIES)):
        columns = (c.ACCURACY,) if word == "accuracies" else (c.LOSS, c.REFERENCE_LOSS)
        if not any(c.measured(ladder.table, column) for column in columns):
            without = [name for name in found if name in needing]
            text = f"{', '.join(without)} left out, as {ladder.name} has no {word}"
            warn(text, SkippedWarning)
            found = [name for name in found if name not in needing]
    return found


def _with_rivals(cells: pd.DataFrame, fold: Fold, rivals: Sequence[str], seed: int) -> pd.DataFrame:
    """The cells with what others forecast of them from the same rungs."""
    rungs, held_out = fold.rungs, fold.held_out
    forecasts: dict[str, Callable[[], Any]] = {
        BASELINE: lambda: published(rungs, held_out),
        BOOTSTRAP: lambda: bootstrap(rungs, held_out, seed=seed),
        "best_rung": lambda: best_rung(rungs, held_out),
        "lowest_loss_rung": lambda: lowest_loss_rung(rungs, held_out),
    }
    found: dict[str, Any] = {}
    # Matrices are so small that several threads would hinder one another.
    with (
        one_blas_thread(),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        for name in rivals:
            try:
                found[name] = forecasts[name]()
            except ValueError as reason:
                warn(f"{name} gives NaN, as {reason}", SkippedWarning)
    _warn_once(fold, [own.message for own in caught])
    unit = cells["quantity"].map(UNITS)
    for name in RIVALS:
        if name not in found:
            scored_as = SCORED if name == BOOTSTRAP else ("error",)
            cells = cells.assign(
                **dict.fromkeys((name, *(f"{name}_{w}" for w in scored_as)), np.nan)
            )
        elif name != BOOTSTRAP:
            q50 = found[name][[*KEYS, "q50"]].rename(columns={"q50": name})
            cells = cells.merge(q50, on=KEYS, how="left")
            cells[name] *= unit
            cells[f"{name}_error"] = (cells[name] - cells["measured"]).abs()
        else:
            scored = score_cells(found[name])[[*KEYS, "median", *SCORED]].dropna(subset="median")
            names = {word: f"{name}_{word}" for word in SCORED} | {"median": name}
            cells = cells.merge(scored.rename(columns=names), on=KEYS, how="left")
    return cells


def _warn_once(fold: Fold, messages: Sequence[Warning | str]) -> None:
    """One warning of all that rivals skipped, by task and method; others as they are."""
    skipped = [own for own in messages if isinstance(own, SkippedWarning)]
    if skipped:
        more = f" (and {len(skipped) - 1} more)" if len(skipped) > 1 else ""
        warn(f"fold {fold.kind}, {fold.name}: {skipped[0]}{more}", SkippedWarning)
    for own in messages:
        if own not in skipped:
            warn(own)


def _cells_of(table: pd.DataFrame, method: str) -> pd.DataFrame:
    """The cells that this method forecasts, with its scores under the names of `score_cells`."""
    prefix = "" if method == OURS else f"{method}_"
    cells = table[["kind", "distance", "quantity", c.TASK, "converged"]].assign(method=method)
    for name in SCORED:
        cells[name] = (
            table[f"{prefix}{name}"].astype(float) if f"{prefix}{name}" in table else np.nan
        )
    cells["crps"] = cells["crps"].fillna(cells["error"])
    for name in ("error", "crps"):
        cells[f"{OURS}_{name}"] = table[name]
    return cells.dropna(subset="error")


def _flops(*tables: pd.DataFrame) -> list[pd.Series]:
    """Compute of each model's whole run: its `flops` if every row of all tables has them."""
    return [table.groupby(c.MODEL)[c.FLOPS].max() for table in with_flops(*tables)]

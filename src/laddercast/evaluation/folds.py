"""How a ladder is cut into rungs to fit and rungs to forecast."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from laddercast.data import words as c
from laddercast.data.ladder import Ladder, as_targets
from laddercast.data.sizes import two_digits, whole_runs
from laddercast.data.targets import check_targets
from laddercast.data.writing import no_such
from laddercast.evaluation.noise import rerun_noise

SIZE, LENGTH = c.PARAMS, "tokens per parameter"
"""What a ladder is cut by."""

CUTS = 4
"""At most so many cuts by size, and as many by length, evenly chosen: each costs a fit."""

ENOUGH = 3
"""Models of a task that a fold keeps, where it can."""

DEFAULT = ("sizes", "lengths")
NAMED = "named"


class Fold(NamedTuple):
    """Rungs to fit, and what is held out of them: targets with their measurements."""

    kind: str
    name: str
    rungs: Ladder
    held_out: pd.DataFrame


type Cut = tuple[str, Ladder, pd.DataFrame]
"""A fold's name, rungs and held-out targets."""

type Check = Callable[[Ladder], None]
"""Raises ValueError for rungs that are not to be fitted."""

type Cutter = Callable[[Ladder, list[str], Check], Iterator[Cut]]
"""Yields the cuts of one kind that pass, and appends to the list why there are no others."""


def cut_folds(ladder: Ladder, kinds: Iterable[str]) -> tuple[list[Fold], list[str]]:
    """The folds of each kind, and why others are left out; a fold comes once, under its first kind.

    Kinds: `sizes` (for each size, fit up to it, forecast what is larger), `lengths` (the same for
    tokens per parameter at the run's end, to two digits), of each at most 4 cuts; `one-size`
    (forecast one size from the others); `one-task` (of one task, fit only the smallest sizes that
    can be fitted, and forecast the others; the other tasks are fitted whole); `reruns` (of models
    of one size and length, within 1 %, forecast all but the first by name); `largest-size` (the
    last cut of `sizes`) and `longest-runs` (the longer half of the lengths; of an odd number the
    middle one is fitted). Rungs that are left have two sizes, 3 models of each task, and do not
    lie on one line, where the whole ladder is so; if that leaves no fold of any kind, all that can
    be fitted are taken. Raises ValueError for other kinds.
    """
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ValueError(no_such("fold", unknown, KINDS))
    folds, faults = _folds_of(kinds, ladder, check_of(ladder))
    return (folds, faults) if folds else _folds_of(kinds, ladder, check_of(ladder, thin=True))


def _folds_of(kinds: Sequence[str], ladder: Ladder, check: Check) -> tuple[list[Fold], list[str]]:
    folds: dict[frozenset[tuple[str, str]], Fold] = {}
    faults: list[str] = []
    for kind in kinds:
        reasons: list[str] = []
        for name, rungs, held_out in KINDS[kind](ladder, reasons, check):
            # What is held out identifies a fold, as all else is fitted.
            cells = frozenset(zip(held_out[c.MODEL], held_out[c.TASK], strict=True))
            folds.setdefault(cells, Fold(kind, name, rungs, held_out))
        faults += [f"no fold `{kind}`: {reason}" for reason in reasons]
    return list(folds.values()), faults


def cut(ladder: Ladder, word: str, level: float) -> tuple[Ladder, pd.DataFrame]:
    """The ladder up to a size or a length, and the rest as targets; ValueError as `split`."""
    if word == SIZE:
        return ladder.split(max_params=level)
    return ladder.split(max_tokens_per_param=level)


def levels(ladder: Ladder) -> dict[str, list[float]]:
    """The distinct sizes, and the greatest of each length (tokens per parameter), ascending."""
    ends = whole_runs(ladder.table)
    ratio = ends[c.TOKENS] / ends[c.PARAMS]
    lengths = ratio.groupby(two_digits(ratio)).max()
    return {SIZE: sorted(ends[c.PARAMS].unique()), LENGTH: list(lengths)}


def _rolling(word: str) -> Cutter:
    def cuts(ladder: Ladder, reasons: list[str], check: Check) -> Iterator[Cut]:
        found, reason = [], "all models are of one"
        for level in levels(ladder)[word][:-1]:
            try:
                rungs, held_out = cut(ladder, word, level)
                check(rungs)
            except ValueError as error:
                reason = _unfit(error)
            else:
                found.append((f"{word} <= {level:.3g}", rungs, held_out))
        if not found:
            reasons.append(reason)
        chosen = np.linspace(0, len(found) - 1, min(CUTS, len(found))).round().astype(int)
        yield from (found[i] for i in chosen)

    return cuts


def _single(word: str, dropped: Callable[[int], int]) -> Cutter:
    """One cut; `dropped` gives how many of so many levels it leaves out."""

    def cuts(ladder: Ladder, reasons: list[str], check: Check) -> Iterator[Cut]:
        found = levels(ladder)[word]
        if len(found) < 2:
            reasons.append("all models are of one")
            return
        level = found[-1 - dropped(len(found))]
        try:
            rungs, held_out = cut(ladder, word, level)
            check(rungs)
        except ValueError as error:
            reasons.append(_unfit(error))
        else:
            yield f"{word} <= {level:.3g}", rungs, held_out

    return cuts


def _one_size(ladder: Ladder, reasons: list[str], check: Check) -> Iterator[Cut]:
    params = ladder.table.groupby(c.MODEL)[c.PARAMS].first()
    for size, models in params.groupby(params):
        name = f"{SIZE} = {size:.3g}"
        try:
            rungs, held_out = ladder.split(hold_out=models.index)
            check(rungs)
            # Without its smallest size a ladder may be far above it.
            check_targets(held_out, whole_runs(rungs.table), rungs.tasks.index)
        except ValueError as error:
            reasons.append(f"without {name} {_unfit(error)}")
        else:
            yield name, rungs, held_out


def _one_task(ladder: Ladder, reasons: list[str], check: Check) -> Iterator[Cut]:
    if len(ladder.tasks) < 2:
        reasons.append("there is one task, and none to borrow from")
        return
    table = ladder.table
    read = c.ACCURACY if c.measured(table, c.ACCURACY) else c.LOSS
    for task in ladder.tasks.index:
        reason = "all models are of one size"
        for level in levels(ladder)[SIZE][:-1]:
            out = (table[c.TASK] == task) & (table[c.PARAMS] > level)
            try:
                rungs = Ladder(table[~out], ladder.tasks, ladder.rungs, ladder.name)
                check(rungs)
            except ValueError as error:
                reason = _unfit(error)
                continue
            if table.loc[out, read].notna().any():
                yield str(task), rungs, as_targets(table[out])
            else:
                reasons.append(f"{task}: no larger model has measured it")
            break
        else:
            reasons.append(f"{task}: {reason}")


def _reruns(ladder: Ladder, reasons: list[str], check: Check) -> Iterator[Cut]:
    pairs = rerun_noise(ladder)[[c.MODEL, "rerun"]].drop_duplicates()
    later = sorted({max(pair) for pair in pairs.itertuples(index=False, name=None)})
    if not later:
        reasons.append("no two models are of one size and length")
        return
    try:
        rungs, held_out = ladder.split(hold_out=later)
        check(rungs)
    except ValueError as error:
        reasons.append(_unfit(error))
    else:
        yield ", ".join(later), rungs, held_out


def _unfit(error: ValueError) -> str:
    return f"what is left is not fitted ({error})"


def _unmeasured(ladder: Ladder) -> set[str]:
    return {f"any {word}" for word in c.MEASURED if not c.measured(ladder.table, word)}


def _shortfalls(ladder: Ladder) -> set[str]:
    """What the rungs lack to tell a law well by themselves."""
    table = ladder.table
    measured = [word for word in (c.LOSS, c.REFERENCE_LOSS, c.ACCURACY) if c.measured(table, word)]
    found = _unmeasured(ladder)
    for quantity in (measured[0], measured[-1]):
        models = table.dropna(subset=[quantity]).groupby(c.TASK)[c.MODEL].nunique()
        if models.reindex(ladder.tasks.index, fill_value=0).min() < ENOUGH:
            found.add(f"{ENOUGH} models of each task")
    if table.dropna(subset=[measured[0]])[c.PARAMS].nunique() < 2:
        found.add("two sizes")
    if ladder.line is not None:
        found.add("rungs off one line in log params and log tokens")
    return found


def check_of(whole: Ladder, *, thin: bool = False) -> Check:
    """A check that raises ValueError where rungs lack more than the whole ladder does.

    If they may be `thin`, they must only have what was measured.
    """
    find = _unmeasured if thin else _shortfalls
    lacks = find(whole)

    def check(rungs: Ladder) -> None:
        more = sorted(find(rungs) - lacks)
        if more:
            raise ValueError(f"it lacks {', '.join(more)}")

    return check


KINDS: dict[str, Cutter] = {
    "sizes": _rolling(SIZE),
    "lengths": _rolling(LENGTH),
    "one-size": _one_size,
    "one-task": _one_task,
    "reruns": _reruns,
    "largest-size": _single(SIZE, lambda _: 1),
    "longest-runs": _single(LENGTH, lambda count: count // 2),
}
"""The kinds of folds, and what cuts a ladder so."""

"""From the rows of a loader to a `Ladder` of chosen tasks, with every fault in one error."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from laddercast.data import words as c
from laddercast.data.cautions import AssumedWarning, warn
from laddercast.data.checks import check_ladder_rows
from laddercast.data.faults import stop_on
from laddercast.data.known_tasks import chance_of, items_of
from laddercast.data.ladder import Ladder, Rungs
from laddercast.data.loaders.manifest import RUN
from laddercast.data.writing import listed, listed_by, nearest


def check_named(
    named: Sequence[str] | None, found: Sequence[str], name: str, faults: list[str]
) -> list[str]:
    """The tasks to read: those named, or all. Faults are names that the logs do not have."""
    if named is None:
        return list(found)
    absent = [task for task in named if task not in found]
    if absent:
        near = dict.fromkeys(filter(None, (nearest(task, found) for task in absent)))
        meant = f" did you mean {listed(near)}?" if near else ""
        faults.append(
            f"{name}: no measurements of {listed(absent)};{meant} its tasks are "
            f"{listed(sorted(found))}"
        )
    return [task for task in named if task in found]


def build_ladder(
    rows: Sequence[Mapping[str, Any]] | pd.DataFrame,
    tasks: pd.DataFrame,
    known: Mapping[str, tuple[float, float]],
    used: Rungs,
    name: str,
    faults: list[str],
) -> Ladder:
    """The ladder of `rows`, in which `run` says where a row comes from.

    Chance and items come from `tasks`, else `known`, else the rows, else the list of well-known
    tasks. Rows before training (tokens of 0) are left out.
    """
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    if RUN in table:
        table.index = pd.Index(table[RUN] + " " + table[c.TASK])
    if c.TOKENS in table:
        table = table[pd.to_numeric(table[c.TOKENS], errors="coerce") != 0]
    first = [word for word in c.KNOWN if word in table]
    table = table[[*first, *table.columns.difference(first, sort=False)]]
    if not len(tasks.columns) and c.TASK in table:
        guessing = pd.Series({task: _chance(table, task, known) for task in table[c.TASK].unique()})
        unknown = sorted(guessing.index[guessing.isna()])
        # Losses alone need none.
        scored = set(table[c.TASK][table[c.ACCURACY].notna()]) if c.ACCURACY in table else set()
        losses = [task for task in unknown if task not in scored] if scored else []
        if losses:
            faults.append(
                f"{name}: {listed(losses)}: losses alone, beside tasks with accuracies; read them "
                f"apart, by tasks= (--tasks), or as `{c.REFERENCE_LOSS}`"
            )
        if unknown := [task for task in unknown if task in scored]:
            faults.append(
                f"{name}: the accuracy of guessing is not known of {listed(unknown)}; "
                "give tasks= (--tasks) a table with task, chance, items"
            )
        items = pd.Series({task: _items(table, task, known) for task in guessing.index})
        _tell_known(table, {c.CHANCE: guessing, c.ITEMS: items}, known)
        tasks = pd.DataFrame(
            {c.TASK: guessing.index, c.CHANCE: guessing.values, c.ITEMS: items.values}
        )
    if faults:
        # Values that were read may have faults too: they belong in the same error.
        check_ladder_rows(table.drop(columns=c.LOSS_KIND, errors="ignore"), name, faults)
        stop_on(faults)
    return Ladder(table, tasks, used, name)


def _tell_known(
    table: pd.DataFrame,
    found: Mapping[str, pd.Series],
    known: Mapping[str, tuple[float, float]],
) -> None:
    """Warn of tasks whose chance or items are not the logs' own, where they are used."""
    by_tasks: dict[str, list[str]] = {}
    for word, what in (
        (c.CHANCE, "the accuracy of guessing"),
        (c.ITEMS, "the number of questions"),
    ):
        taken = sorted(
            str(task)
            for task, value in found[word].items()
            if task not in known and _first(table, str(task), word) is None and value == value
        )
        if taken:
            by_tasks.setdefault(listed(taken, 10), []).append(what)
    if by_tasks and c.measured(table, c.ACCURACY):
        said = "; ".join(f"{' and '.join(what)} of {tasks}" for tasks, what in by_tasks.items())
        cure = "tasks= (--tasks) gives others"
        warn(f"{said}: from lc.known_tasks(); {cure}", AssumedWarning)


def check_same_items(rows: Sequence[Mapping[str, Any]], faults: list[str]) -> None:
    """Faults are tasks whose number of questions differs between runs."""
    counts: dict[str, dict[int, list[str]]] = {}
    for row in rows:
        if row.get(c.ITEMS):
            counts.setdefault(row[c.TASK], {}).setdefault(row[c.ITEMS], []).append(row[RUN])
    for task, by_count in counts.items():
        if len(by_count) > 1:
            faults.append(
                f"{task}: runs answered different numbers of questions ({listed_by(by_count, 5)}); "
                "evaluate all alike"
            )


def _chance(table: pd.DataFrame, task: str, known: Mapping[str, tuple[float, float]]) -> float:
    measured = known[task][0] if task in known else _first(table, task, c.CHANCE)
    return chance_of(task) if measured is None else measured


def _items(table: pd.DataFrame, task: str, known: Mapping[str, tuple[float, float]]) -> float:
    measured = known[task][1] if task in known else _first(table, task, c.ITEMS)
    return items_of(task) if measured is None else measured


def _first(table: pd.DataFrame, task: str, word: str) -> float | None:
    values = table.loc[table[c.TASK] == task, word].dropna() if word in table else pd.Series()
    return float(values.iloc[0]) if len(values) else None


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean of a value per question, and its standard error (NaN of one question).

    What is too large for a sum is infinite.
    """
    n = len(values)
    try:
        mean = math.fsum(values) / n
        squares = math.fsum((value - mean) ** 2 for value in values)
    except OverflowError:
        return math.inf, math.inf
    return mean, math.sqrt(squares / (n - 1) / n) if n > 1 else math.nan

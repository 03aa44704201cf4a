"""From rows that a loader has read to a `Ladder`: its tasks chosen, every fault in one error."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from laddercast import columns as c
from laddercast.checks import check_ladder_rows, read_table, stop_on
from laddercast.ladder import Ladder, Rungs
from laddercast.loaders.files import listed
from laddercast.loaders.presets import CHANCE

Tasks = str | Path | pd.DataFrame | Sequence[str]


def read_tasks(tasks: Tasks | None, faults: list[str]) -> tuple[list[str] | None, pd.DataFrame]:
    """Names of the tasks asked for (None: all), and their table if that was given."""
    if tasks is None:
        return None, pd.DataFrame()
    if not isinstance(tasks, str | Path | pd.DataFrame):
        return [str(name) for name in tasks], pd.DataFrame()
    table, name = read_table(tasks, "tasks", faults)
    table.attrs["name"] = name
    if table.index.name == c.TASK and c.TASK not in table:
        table = table.reset_index()
    names = table[c.TASK].dropna().astype(str).str.strip().tolist() if c.TASK in table else None
    return names, table


def check_named(
    named: Sequence[str] | None, found: Sequence[str], name: str, faults: list[str]
) -> list[str]:
    """The tasks to read: those named, or all. Faults are names that the logs do not have."""
    if named is None:
        return list(found)
    absent = [task for task in named if task not in found]
    if absent:
        faults.append(
            f"{name}: no measurements of {listed(absent)}; its tasks are {listed(sorted(found))}"
        )
    return [task for task in named if task in found]


def build_ladder(
    rows: Sequence[Mapping[str, Any]] | pd.DataFrame,
    tasks: pd.DataFrame,
    known: Mapping[str, tuple[float, float]],
    rungs: Rungs,
    name: str,
    faults: list[str],
) -> Ladder:
    """The ladder of `rows`; `known` has chance and items of tasks where there is no table of them.

    Before training (tokens of 0) a model is no rung: such rows are left out.
    """
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    if c.TOKENS in table:
        table = table[table[c.TOKENS] != 0]
    first = [word for word in c.KNOWN if word in table]
    table = table[[*first, *table.columns.difference(first, sort=False)]]
    if not len(tasks.columns) and c.TASK in table:
        names = list(dict.fromkeys(table[c.TASK]))
        guessing = {task: known.get(task, (chance_of(task), None)) for task in names}
        unknown = sorted(task for task, (chance, _) in guessing.items() if chance is None)
        if unknown:
            faults.append(
                f"{name}: the accuracy of guessing is not known of {listed(unknown)}; "
                "give tasks= (--tasks) a table with task, chance, items"
            )
        tasks = pd.DataFrame(
            [(task, *values) for task, values in guessing.items()],
            columns=[c.TASK, c.CHANCE, c.ITEMS],
        ).astype({c.CHANCE: float, c.ITEMS: float})
    if faults:
        # Values that were read may have faults too: they belong in the same error.
        check_ladder_rows(table.drop(columns=c.LOSS_KIND, errors="ignore"), name, faults)
        stop_on(faults)
    return Ladder(table, tasks, rungs, name)


def chance_of(task: str) -> float | None:
    """Accuracy of guessing of a well-known task, also under a longer name such as `csqa_val`."""
    for known, chance in CHANCE.items():
        if task == known or task.startswith((f"{known}_", f"{known}:")):
            return chance
    return None

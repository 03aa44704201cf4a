"""The tasks of a ladder: which, their accuracy of guessing and their number of questions."""

import numpy as np
import pandas as pd

from laddercast.data import words as c
from laddercast.data.checks import check_columns, check_spelling, has_values, misspelt
from laddercast.data.faults import listed_short, report_values
from laddercast.data.known_tasks import chance_of, items_of
from laddercast.data.values import (
    as_numbers,
    as_text,
    given_values,
    numeric_column,
    text_columns,
)
from laddercast.data.writing import listed, nearest, no_such

ABOUT = (c.CHANCE, c.ITEMS)

FROM_KNOWN = "from_known"
"""In `attrs` of a ladder's tasks: by word, the tasks of which the known tasks gave it."""

BY_NAME = "by_name"
"""In `attrs` of tasks that were chosen by name, and have no rows that an error could name."""


def named_tasks(names: list[str]) -> pd.DataFrame:
    """A table of tasks of which only the names were given."""
    table = pd.DataFrame({c.TASK: names})
    table.attrs[BY_NAME] = True
    return table


def check_tasks(
    table: pd.DataFrame, tasks: pd.DataFrame, name: str, faults: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the tasks (index: `task`) and the ladder's rows of these tasks or of no task.

    Without a table of tasks all that the ladder has are used. What a table lacks of `chance` and
    `items` comes from the ladder's own columns, then from the known tasks; NaN if it is in none of
    these. Faults are a chance that is needed, as accuracies were measured, and not known or outside
    [0, 1), items below 1, and a task that the ladder lacks. Rows of other tasks leave the ladder
    before their values are checked: they are not used.
    """
    own = not len(tasks.columns)
    source = name if own else str(tasks.attrs.get("name", "tasks"))
    before = tasks.attrs.get(FROM_KNOWN, {})
    if not own:
        tasks, table = _chosen(table, tasks, source, name, faults)
    needed = _needs_chance(table)
    tasks = _of_ladder(table) if own else tasks
    check_spelling(tasks, [c.ITEMS], source, faults)
    if c.TASK not in tasks:
        return tasks, table
    _check_once(tasks, own, source, faults)
    near = None if c.CHANCE in tasks or not needed else misspelt(c.CHANCE, tasks, 0.6)
    if near:
        faults.append(f"{source}: column `{c.CHANCE}` is missing; rename `{near}`")
    found = _values(tasks, source, faults)
    if not own and found.isna().any(axis=None) and c.TASK in table:
        lacking = found.index[found.isna().any(axis=1)]
        of_ladder = _of_ladder(table[as_text(table[c.TASK]).isin(lacking)])
        given = [word for word in ABOUT if word in found and not found[word].isna().any()]
        of_ladder = of_ladder.drop(columns=given, errors="ignore")
        _check_once(of_ladder, True, name, faults)
        found = found.fillna(_values(of_ladder, name, faults))
    from_known = {
        word: [task for task in before.get(word, ()) if task in found.index] for word in ABOUT
    }
    for word, of in ((c.CHANCE, chance_of), (c.ITEMS, items_of)) if needed and not near else ():
        known = pd.Series(
            {task: of(str(task)) for task in found.index[found[word].isna()]}, dtype=float
        )
        found[word] = found[word].fillna(known)
        from_known[word] += list(known.dropna().index)
    if needed and not near:
        _check_chance(tasks, found[c.CHANCE], own, source, faults)
    found.attrs[FROM_KNOWN] = from_known
    return found, table


def known_sentence(tasks: pd.DataFrame) -> str:
    """What the known tasks gave of a ladder's tasks, nothing if that is nothing."""
    given = tasks.attrs.get(FROM_KNOWN, {})
    chance, items = (list(given.get(word, ())) for word in ABOUT)
    parts = {c.CHANCE: chance, c.ITEMS: items}
    if chance == items:
        parts = {f"{c.CHANCE} and {c.ITEMS}": chance}
    said = [f"{what} of {listed(tasks, 10)}" for what, tasks in parts.items() if tasks]
    return f"from the table of known tasks: {'; '.join(said)}" if said else ""


def _chosen(
    table: pd.DataFrame, tasks: pd.DataFrame, source: str, name: str, faults: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table of tasks with plain names, and the ladder's rows of these. Faults are others."""
    by_name = tasks.attrs.get(BY_NAME, False)
    if tasks.index.name == c.TASK and c.TASK not in tasks:
        tasks = tasks.reset_index()
    tasks = check_columns(tasks, (c.TASK,), source, faults)
    if c.TASK not in tasks:
        return tasks, table
    tasks = text_columns(tasks, (c.TASK,), source, faults)
    if c.TASK not in table:
        return tasks, table
    names = as_text(table[c.TASK])
    known = sorted(names.dropna().unique())
    absent = tasks[c.TASK].notna() & ~tasks[c.TASK].isin(names) & bool(len(table))
    if by_name and absent.any():
        faults.append(f"{name}: {no_such('task', tasks[c.TASK][absent], known)}")
        tasks = tasks[~absent]
    elif absent.any():
        near = nearest(tasks[c.TASK][absent].iloc[0], known)
        cure = (f"did you mean {near}? " if near else "") + f"its tasks are {listed_short(known)}"
        report_values(tasks[c.TASK], absent, f"is in no row of {name}", cure, source, faults)
    return tasks, table[names.isin(tasks[c.TASK]) | names.isna()]


def _of_ladder(table: pd.DataFrame) -> pd.DataFrame:
    """What the ladder's own columns say of its tasks: the first row of each that is different."""
    if c.TASK not in table:
        return table
    tasks = table.assign(**{c.TASK: as_text(table[c.TASK])}).dropna(subset=[c.TASK])
    values = {word: as_numbers(given_values(tasks[word])) for word in ABOUT if word in tasks}
    tasks = tasks[~pd.DataFrame({c.TASK: tasks[c.TASK], **values}).duplicated()]
    return tasks.sort_values(c.TASK, kind="stable")


def _check_once(tasks: pd.DataFrame, own: bool, source: str, faults: list[str]) -> None:
    what = "has more than one chance or number of items" if own else "is given twice"
    again = tasks[c.TASK].duplicated() & tasks[c.TASK].notna()
    report_values(tasks[c.TASK], again, what, "keep one of each", source, faults)


def _values(tasks: pd.DataFrame, source: str, faults: list[str]) -> pd.DataFrame:
    """`chance, items` by task, NaN where they are not given."""
    if c.CHANCE in tasks:
        tasks = numeric_column(tasks, c.CHANCE, source, faults)
        chance = tasks[c.CHANCE]
        cure = "give the accuracy of guessing as a fraction"
        outside = (chance < 0) | (chance >= 1)
        report_values(chance, outside, "is outside [0, 1)", cure, source, faults)
    if c.ITEMS in tasks:
        tasks = numeric_column(tasks, c.ITEMS, source, faults)
        items, cure = tasks[c.ITEMS], "give the number of questions"
        report_values(items, items < 1, "is below 1", cure, source, faults)
    empty = {word: np.nan for word in ABOUT if word not in tasks}
    tasks = tasks.assign(**empty).dropna(subset=[c.TASK]).drop_duplicates(c.TASK)
    return tasks.set_index(c.TASK)[list(ABOUT)]


def _check_chance(
    tasks: pd.DataFrame, chance: pd.Series, own: bool, source: str, faults: list[str]
) -> None:
    """Fault is a chance that nobody knows; what was given and is no number is told elsewhere."""
    lacking = tasks[c.TASK].isin(chance.index[chance.isna()])
    if c.CHANCE in tasks:
        cure = "give the accuracy of guessing, 0 if there is none"
        lacking &= given_values(tasks[c.CHANCE]).isna()
        report_values(tasks[c.TASK], lacking, "has no chance", cure, source, faults)
    elif lacking.any():
        unknown = listed_short(list(tasks[c.TASK][lacking].unique()))
        where = "add it" if own else f"add it to {listed_short(list(tasks))}"
        faults.append(
            f"{source}: column `{c.CHANCE}` is missing; {where}, or give a table of tasks with it: "
            f"{unknown} {'is' if lacking.sum() == 1 else 'are'} not among the known tasks"
        )


def _needs_chance(table: pd.DataFrame) -> bool:
    """Whether anything but losses was measured, or nothing at all."""
    losses = any(word in table and has_values(table, word) for word in (c.LOSS, c.REFERENCE_LOSS))
    return not losses or (c.ACCURACY in table and has_values(table, c.ACCURACY))

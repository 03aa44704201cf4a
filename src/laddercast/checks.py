"""Checks of users' tables. Each appends its faults to a list; `stop_on` raises them together."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pandas as pd

from laddercast import columns as c

SHOWN = 5
"""Rows shown of one kind of fault; the others are counted."""

MIN_MODELS = 3
MIN_SIZES = 2


def stop_on(faults: Sequence[str]) -> None:
    """Raise one ValueError that lists `faults`, if there are any."""
    if len(faults) == 1:
        raise ValueError(faults[0])
    if faults:
        raise ValueError(f"{len(faults)} faults:\n" + "\n".join(f"- {fault}" for fault in faults))


def read_table(
    source: str | Path | pd.DataFrame, what: str, faults: list[str]
) -> tuple[pd.DataFrame, str]:
    """The table as read, indexed by the row numbers that errors name, and its name in errors.

    Row numbers are those a spreadsheet shows (the header is row 1); a DataFrame keeps its index.
    """
    if isinstance(source, pd.DataFrame):
        return source.copy(deep=False), what
    path = Path(source)
    name = path.name
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            table = pd.read_parquet(path)
        else:
            table = pd.read_csv(path, dtype={word: "str" for word in c.TEXT})
    except FileNotFoundError:
        faults.append(f"{path}: no such file; check the path")
        return pd.DataFrame(), name
    except pd.errors.EmptyDataError:
        faults.append(f"{name}: the file is empty; give a table with a header and rows")
        return pd.DataFrame(), name
    except (OSError, UnicodeDecodeError, ValueError, pd.errors.ParserError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        faults.append(f"{name}: cannot be read ({reason}); give CSV in UTF-8, or Parquet")
        return pd.DataFrame(), name
    table.index = pd.RangeIndex(2, len(table) + 2)
    return table, name


def check_columns(
    table: pd.DataFrame, required: Sequence[str], name: str, faults: list[str]
) -> pd.DataFrame:
    """The table with its columns named as required; faults are missing and misspelt columns."""
    table = table.rename(columns=lambda column: str(column).strip())
    repeated = table.columns[table.columns.duplicated()].unique()
    if len(repeated):
        faults.append(f"{name}: columns given twice: {', '.join(repeated)}; keep one of each")
        table = table.loc[:, ~table.columns.duplicated()]
    missing = [word for word in required if word not in table]
    if c.ACCURACY in required and c.LOSS not in table and c.REFERENCE_LOSS not in table:
        missing.append(c.LOSS)
    others = [column for column in table if column not in c.KNOWN]
    for word in missing:
        by_case = [column for column in others if str(column).lower() == word]
        close = by_case or get_close_matches(word, [str(column) for column in others], n=1)
        also = " (or `reference_loss`)" if word == c.LOSS else ""
        cure = f"rename `{close[0]}`" if close else f"columns are {', '.join(map(str, table)) or 'none'}"
        faults.append(f"{name}: column `{word}`{also} is missing; {cure}")
    if len(table.columns) and table.empty:
        faults.append(f"{name}: the table is empty; give one row per model x task x checkpoint")
    return table


def check_ladder_rows(table: pd.DataFrame, name: str, faults: list[str]) -> pd.DataFrame:
    """The ladder's values with their types; faults are values no measurement can have."""
    table = _text(table, (c.MODEL, c.TASK), name, faults)
    table = _counts(table, (c.PARAMS, c.TOKENS), name, faults)
    table = _measurements(table, name, faults)
    table = _count_of_checkpoints(table, name, faults)
    _one_params_per_model(table, name, faults)
    keys = [c.MODEL, c.TASK, c.TOKENS]
    if set(keys) <= set(table):
        twice = table[table.duplicated(keys, keep=False)]
        shown = [f"{row.model} x {row.task} x {row.tokens}" for row in twice.itertuples()]
        _report(twice.index, shown, "is given twice", "keep one row for each", name, faults)
    _one_of_each(table, name, faults)
    if c.ACCURACY in table and len(table) and not table[c.ACCURACY].notna().any():
        faults.append(f"{name}: no row has an accuracy; give fractions in [0, 1]")
    return table


def check_target_rows(table: pd.DataFrame, name: str, faults: list[str]) -> pd.DataFrame:
    """The targets' values with their types; faults as for a ladder."""
    words = (c.MODEL, c.TASK) if c.TASK in table else (c.MODEL,)
    table = _text(table, words, name, faults)
    table = _counts(table, (c.PARAMS, c.TOKENS), name, faults)
    table = _measurements(table, name, faults)
    table = _count_of_checkpoints(table, name, faults)
    _one_params_per_model(table, name, faults)
    keys = [word for word in (c.MODEL, c.TASK, c.TOKENS) if word in table]
    if c.TASK not in table:
        keys = [c.MODEL]
    if set(keys) <= set(table):
        twice = table[table.duplicated(keys, keep=False)]
        shown = [" x ".join(str(value) for value in row) for row in twice[keys].itertuples(index=False)]
        _report(twice.index, shown, "is given twice", "keep one row for each", name, faults)
    return table


def check_tasks(
    table: pd.DataFrame, tasks: pd.DataFrame, name: str, faults: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`(tasks indexed by task, the ladder's rows of these tasks)`.

    Without a table of tasks the ladder's own `chance` and `items` serve. Faults are a chance that
    is missing or outside [0, 1), items below 1, and a task that the ladder lacks.
    """
    if c.TASK not in table:
        return tasks, table
    if not len(tasks.columns):
        own = [word for word in (c.TASK, c.CHANCE, c.ITEMS) if word in table]
        tasks, source = table[own].drop_duplicates(), name
        if c.CHANCE not in tasks:
            faults.append(
                f"{name}: column `chance` is missing; "
                "add it, or give a table of tasks with `task, chance, items`"
            )
            return tasks, table
    else:
        source = str(tasks.attrs.get("name", "tasks"))
        if tasks.index.name == c.TASK:
            tasks = tasks.reset_index()
        before = len(faults)
        tasks = check_columns(tasks, (c.TASK, c.CHANCE), source, faults)
        if len(faults) > before:
            return tasks, table
        tasks = _text(tasks, (c.TASK,), source, faults)
    tasks = tasks[[word for word in (c.TASK, c.CHANCE, c.ITEMS) if word in tasks]]
    tasks = _numeric(tasks, c.CHANCE, source, faults)
    chance = tasks[c.CHANCE]
    _report(tasks.index[chance.isna()], tasks[c.TASK][chance.isna()], "has no chance",
            "give the accuracy of guessing, 0 if there is none", source, faults)  # fmt: skip
    wrong = chance.notna() & ~((chance >= 0) & (chance < 1))
    _report_values(tasks, wrong, c.CHANCE, "is outside [0, 1)",
                   "give the accuracy of guessing as a fraction", source, faults)  # fmt: skip
    if c.ITEMS in tasks:
        tasks = _numeric(tasks, c.ITEMS, source, faults)
        wrong = tasks[c.ITEMS].notna() & ~(tasks[c.ITEMS] >= 1)
        _report_values(tasks, wrong, c.ITEMS, "is below 1",
                       "give the number of questions", source, faults)  # fmt: skip
    else:
        tasks = tasks.assign(**{c.ITEMS: np.nan})
    twice = tasks[c.TASK][tasks.duplicated(c.TASK, keep="first")].unique()
    if len(twice):
        faults.append(
            f"{source}: more than one chance or items for {', '.join(twice)}; keep one of each"
        )
    absent = sorted(set(tasks[c.TASK]) - set(table[c.TASK]))
    if absent:
        faults.append(
            f"{source}: no row of {name} has task {', '.join(absent)}; "
            f"tasks are {', '.join(sorted(table[c.TASK].dropna().unique()))}"
        )
    kept = table[table[c.TASK].isin(tasks[c.TASK])]
    return tasks.drop_duplicates(c.TASK).set_index(c.TASK), kept


def check_fittable(table: pd.DataFrame, name: str, rungs: str, faults: list[str]) -> None:
    """Faults that leave the laws without an answer: too few models or sizes, N bound to D."""
    needed = {c.MODEL, c.PARAMS, c.TOKENS, c.TASK, c.ACCURACY}
    numbers = [word for word in (c.PARAMS, c.TOKENS) if word in table]
    if not needed <= set(table) or table.empty or any(
        not pd.api.types.is_numeric_dtype(table[word]) for word in numbers
    ):  # fmt: skip
        return
    loss = c.LOSS if c.LOSS in table else c.REFERENCE_LOSS
    if loss not in table:
        return
    for quantity in (loss, c.ACCURACY):
        counts = table.dropna(subset=[quantity]).groupby(c.TASK)[c.MODEL].nunique()
        counts = counts.reindex(sorted(table[c.TASK].dropna().unique()), fill_value=0)
        few = counts[counts < MIN_MODELS]
        if len(few):
            listed = ", ".join(f"{task} ({count})" for task, count in few.items())
            faults.append(
                f"{name}: fewer than {MIN_MODELS} models have a {quantity} for {listed}; "
                "add models, or leave the task out"
            )
    sizes = table[c.PARAMS].dropna().unique()
    if len(sizes) < MIN_SIZES:
        faults.append(
            f"{name}: fewer than {MIN_SIZES} sizes (params {', '.join(map(str, sizes))}); "
            "a law in params needs models of at least two"
        )
        return
    points = table.drop_duplicates([c.MODEL, c.TOKENS])
    if rungs == "last":
        points = points.sort_values(c.TOKENS).groupby(c.MODEL).tail(1)
    logs = np.log(points[[c.PARAMS, c.TOKENS]].dropna().to_numpy(float))
    spread = np.linalg.svd(logs - logs.mean(axis=0), compute_uv=False)
    if len(logs) < MIN_MODELS or spread[-1] < 1e-2 * spread[0]:
        cure = (
            'take each checkpoint with rungs="every" (--rungs every), or add runs of other lengths'
            if rungs == "last"
            else "add runs of other lengths"
        )
        faults.append(
            f"{name}: the {'ends of runs' if rungs == 'last' else 'checkpoints'} cannot tell "
            f"params from tokens (one is a power of the other); {cure}"
        )


def _text(
    table: pd.DataFrame, words: Sequence[str], name: str, faults: list[str]
) -> pd.DataFrame:
    for word in words:
        if word not in table:
            continue
        values = table[word]
        empty = values.isna() | (values.astype("str").str.strip() == "")
        _report(table.index[empty], None, f"has no {word}", "name it", name, faults)
        table = table.assign(**{word: values.astype("str")})
    return table


def _numeric(table: pd.DataFrame, word: str, name: str, faults: list[str]) -> pd.DataFrame:
    numbers = pd.to_numeric(table[word], errors="coerce").astype(float)
    text = numbers.isna() & table[word].notna()
    _report_values(table, text, word, "is not a number", "give a number", name, faults)
    infinite = np.isinf(numbers)
    _report_values(table, infinite, word, "is infinite", "give a finite number", name, faults)
    return table.assign(**{word: numbers.where(~infinite)})


def _counts(
    table: pd.DataFrame, words: Sequence[str], name: str, faults: list[str]
) -> pd.DataFrame:
    for word in words:
        if word not in table:
            continue
        given = table[word]
        table = _numeric(table, word, name, faults)
        numbers = table[word]
        _report(table.index[given.isna()], None, f"has no {word}", "give a whole number", name, faults)
        wrong = numbers.notna() & (numbers <= 0)
        _report_values(table, wrong, word, "is not above 0", "give a whole number", name, faults)
        fractional = numbers.notna() & (numbers > 0) & (numbers != np.floor(numbers))
        _report_values(table, fractional, word, "is fractional",
                       "give a whole number, not thousands or billions", name, faults)  # fmt: skip
        sound = numbers.notna() & ~wrong & ~fractional & (numbers < 2**63)
        if sound.all():
            # Tokens above 2**53 do not survive float64: keep integers where they came as such.
            whole = given if pd.api.types.is_integer_dtype(given) else numbers
            table = table.assign(**{word: whole.astype("int64")})
    return table


def _measurements(table: pd.DataFrame, name: str, faults: list[str]) -> pd.DataFrame:
    for word in (c.LOSS, c.REFERENCE_LOSS, c.ACCURACY, c.TASK_CE, c.FLOPS):
        if word in table:
            table = _numeric(table, word, name, faults)
    for word in (c.LOSS, c.REFERENCE_LOSS, c.FLOPS):
        if word in table:
            _report_values(table, table[word] <= 0, word, "is not above 0",
                           "leave it empty if it was not measured", name, faults)  # fmt: skip
    if c.ACCURACY in table:
        accuracy = table[c.ACCURACY]
        _report_values(table, accuracy > 1, c.ACCURACY, "is above 1",
                       "give fractions, not percent", name, faults)  # fmt: skip
        _report_values(table, accuracy < 0, c.ACCURACY, "is below 0",
                       "give fractions in [0, 1]", name, faults)  # fmt: skip
    return table


def _count_of_checkpoints(table: pd.DataFrame, name: str, faults: list[str]) -> pd.DataFrame:
    if c.CHECKPOINTS in table:
        table = _numeric(table, c.CHECKPOINTS, name, faults).fillna({c.CHECKPOINTS: 1.0})
        _report_values(table, table[c.CHECKPOINTS] < 1, c.CHECKPOINTS, "is below 1",
                       "give how many checkpoints the row is the mean of", name, faults)  # fmt: skip
    return table


def _one_params_per_model(table: pd.DataFrame, name: str, faults: list[str]) -> None:
    if not {c.MODEL, c.PARAMS} <= set(table):
        return
    values = table.groupby(c.MODEL)[c.PARAMS].unique()
    for model, params in values[values.map(len) > 1].items():
        rows = table.index[(table[c.MODEL] == model) & (table[c.PARAMS] != params[0])]
        faults.append(
            f"{name} row {rows[0]}: model {model} has params {' and '.join(map(str, params))}; "
            "give each model one size, or models of two sizes two names"
        )


def _one_of_each(table: pd.DataFrame, name: str, faults: list[str]) -> None:
    cures = {
        c.LOSS_KIND: "bits per byte are defined in several ways that cannot be mixed; keep one",
        c.RECIPE: "one law cannot hold for several recipes; keep the rows of one",
    }
    for word, cure in cures.items():
        kinds = sorted(table[word].dropna().astype("str").unique()) if word in table else []
        if len(kinds) > 1:
            first = table.index[table[word].astype("str") == kinds[1]][0]
            faults.append(f"{name} row {first}: more than one {word} ({', '.join(kinds)}); {cure}")


def _report_values(
    table: pd.DataFrame, wrong: pd.Series, word: str, what: str, cure: str, name: str,
    faults: list[str],
) -> None:  # fmt: skip
    wrong = wrong.fillna(False).astype(bool)
    shown = [f"{word} {value}" for value in table[word][wrong]]
    _report(table.index[wrong], shown, what, cure, name, faults)


def _report(
    rows: pd.Index, shown: Sequence[str] | pd.Series | None, what: str, cure: str, name: str,
    faults: list[str],
) -> None:  # fmt: skip
    if not len(rows):
        return
    values = [""] * len(rows) if shown is None else [f"{value} " for value in shown]
    first, more = rows[:SHOWN], len(rows) - SHOWN
    if len(set(values[:SHOWN])) == 1 and len(rows) > 1:
        listed = f"rows {', '.join(map(str, first))}"
        value = values[0]
    elif len(rows) > 1:
        pairs = ", ".join(f"{row} ({values[i].strip()})" for i, row in enumerate(first))
        listed, value = f"rows {pairs}", ""
    else:
        listed, value = f"row {first[0]}", values[0]
    also = f" and {more} more" if more > 0 else ""
    faults.append(f"{name} {listed}{also}: {value}{what}; {cure}")

"""Checks of users' tables. Each appends its faults to a list; `stop_on` raises them together."""

import os
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from textwrap import shorten

import numpy as np
import pandas as pd

from laddercast.data import words as c

SHOWN = 5
"""Rows shown of one kind of fault; the others are counted."""

EXACT, SHORTEST = 0.7, 3
"""Short forms (`acc`) of so many letters count, too, where the cutoff is below the first."""

MIN_MODELS = 2


def stop_on(faults: Sequence[str]) -> None:
    """Raise one ValueError that lists `faults`, one a line, if there are any."""
    lines = [" ".join(fault.split()) for fault in faults]  # values may hold line breaks
    if len(lines) == 1:
        raise ValueError(lines[0])
    if lines:
        raise ValueError(f"{len(lines)} faults:\n" + "\n".join(f"- {line}" for line in lines))


def check_one_recipe(recipes: Sequence[str], what: str) -> None:
    """Raise ValueError where `what` is for one recipe, and there are several."""
    if len(recipes) > 1:
        raise ValueError(
            f"{what} is for one recipe, and there are several ({_listed(recipes)}): keep one by "
            "recipe= (--recipe), or compare them by lc.compare_recipes (laddercast compare)"
        )


def read_table(
    source: str | Path | pd.DataFrame, what: str, faults: list[str]
) -> tuple[pd.DataFrame, str]:
    """The table as read, indexed by the row numbers that errors name, and its name in errors.

    Row numbers are those a spreadsheet shows (the header is row 1); a DataFrame keeps its index.
    After a fault the table has no columns.
    """
    if isinstance(source, pd.DataFrame):
        if not len(source.columns):
            faults.append(f"{what}: the table is empty; give a table with columns and rows")
        return source.copy(deep=False), what
    if not isinstance(source, str | os.PathLike):
        faults.append(f"{what}: {type(source).__name__} is no table; give a path or a DataFrame")
        return pd.DataFrame(), what
    path = Path(source)
    name = path.name
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            table = pd.read_parquet(path)
            # Text that is no UTF-8 fails only when it is used.
            table.select_dtypes("str").apply(lambda text: text.str.strip())
        else:
            table = _read_csv(path)
    except FileNotFoundError:
        faults.append(f"{path}: no such file; check the path")
        return pd.DataFrame(), name
    except pd.errors.EmptyDataError:
        faults.append(f"{name}: the file is empty; give a table with a header and rows")
        return pd.DataFrame(), name
    except IsADirectoryError:
        cure = "give a CSV or Parquet file, or read logs with a loader (--from)"
        faults.append(f"{path}: is a folder, which cannot be read as a table; {cure}")
        return pd.DataFrame(), name
    except Exception as error:
        # pandas, pyarrow and the decompressors raise nearly anything when bytes are corrupt.
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        faults.append(f"{name}: cannot be read ({reason}); give CSV in UTF-8, or Parquet")
        return pd.DataFrame(), name
    if table.index.names == [None]:
        table.index = pd.RangeIndex(2, len(table) + 2)
    return table.dropna(how="all"), name


def _read_csv(path: Path) -> pd.DataFrame:
    # Counts are read as text, for float64 cannot hold integers above 2**53.
    as_text = dict.fromkeys((*c.TEXT, c.PARAMS, c.TOKENS), "str")
    with warnings.catch_warnings():
        # Surplus values of a row are dropped with only a warning.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        table = pd.read_csv(
            path,
            dtype=as_text,
            index_col=False,
            skipinitialspace=True,
            skip_blank_lines=False,  # they count as rows
            low_memory=False,  # else a long column of mixed types warns
        )
    header = [str(column) for column in table.columns]
    if not header:
        raise ValueError("the first line is blank")
    if any("\0" in column for column in header):
        raise ValueError("NUL bytes, as in UTF-16 or a binary file")
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise ValueError("columns are not separated by commas")
    return table


def check_columns(
    table: pd.DataFrame, required: Sequence[str], name: str, faults: list[str]
) -> pd.DataFrame:
    """The table with plain names of columns and rows; faults are missing and misspelt columns."""
    levels = [str(level) for level in table.index.names]
    table = table.copy(deep=False)
    table.index = table.index.to_flat_index().rename(None)
    given = [str(column).strip() for column in table.columns]
    table.columns = pd.Index(given)
    # pandas renames the second `loss` of a CSV to `loss.1`.
    twice = {column for column in given if given.count(column) > 1}
    twice |= {word for word in c.KNOWN if f"{word}.1" in given}
    if twice:
        listed = ", ".join(sorted(twice))
        faults.append(f"{name}: columns given twice: {listed}; keep one of each")
        table = table.loc[:, ~table.columns.duplicated()]
    missing = [word for word in required if word not in given]
    unlike = []
    of_ladder = tuple(required) == c.LADDER_REQUIRED
    measured = set(c.MEASURED) & set(given)
    if of_ladder and c.ACCURACY not in measured and _misspelt(c.ACCURACY, table, 0.6):
        missing.append(c.ACCURACY)  # else the ladder would be taken for one of losses
    if of_ladder and not measured:
        # A name that is near to both losses is meant for the longer.
        if _misspelt(c.REFERENCE_LOSS, table, 0.7):
            missing.append(c.REFERENCE_LOSS)
        elif _misspelt(c.LOSS, table, 0.6):
            missing.append(c.LOSS)
        elif c.ACCURACY not in missing:
            unlike.append("`accuracy`, `loss` or `reference_loss`")
    for word in missing:
        near = _misspelt(word, table, 0.7 if word == c.REFERENCE_LOSS else 0.6)
        if word in levels:
            cure = "it is in the index: give `table.reset_index()`"
            faults.append(f"{name}: column `{word}` is missing; {cure}")
        elif near:
            cure = f"rename `{near}`" + (", or leave it out" if word in c.MEASURED else "")
            faults.append(f"{name}: column `{word}` is missing; {cure}")
        else:
            unlike.append(f"`{word}`")
    if unlike:
        what = "columns {} are missing; add them"
        if len(unlike) == 1:
            what = "column {} is missing; add it"
        faults.append(f"{name}: {what.format(', '.join(unlike))} to {_listed(given)}")
    if c.MODEL in required:
        others = (c.TASK, c.LOSS, c.ACCURACY, c.RECIPE, c.LOSS_KIND)
        _check_spelling(table, [word for word in others if word not in missing], name, faults)
    if given and table.empty:
        faults.append(f"{name}: the table is empty; give rows below its columns")
    return table


def keep_recipe(
    table: pd.DataFrame, recipe: str | None, name: str, faults: list[str]
) -> pd.DataFrame:
    """The rows of one recipe, all if it is None. Faults are a recipe or a column that is not there.

    Before other checks: what is not used may have faults.
    """
    columns = [column for column in table.columns if str(column).strip() == c.RECIPE]
    if recipe is None or not len(table.columns):
        return table
    if len(columns) != 1:
        cure = "add it, or leave recipe= (--recipe) out"
        faults.append(f"{name}: column `{c.RECIPE}` is missing; {cure}")
        return table
    recipes = _as_text(table[columns[0]])
    kept = table[recipes == str(recipe)]
    if not len(kept):
        known = _listed(sorted(recipes.dropna().unique()))
        faults.append(f"{name}: no row is of recipe {recipe}; its recipes are {known}")
        return table
    return kept


def check_ladder_rows(table: pd.DataFrame, name: str, faults: list[str]) -> pd.DataFrame:
    """The ladder's values with their types; faults are values no measurement can have."""
    present = [word for word in c.MEASURED if word in table]
    has = [word for word in present if _has_values(table, word)]
    if c.TASK in table and len(table) and present and not has:
        cure = "give what was measured"
        faults.append(f"{name}: no row has a value of {' or '.join(present)}; {cure}")
    elif c.TASK in table and has == [c.REFERENCE_LOSS]:
        faults.append(
            f"{name}: only `{c.REFERENCE_LOSS}` is given, which is read beside `{c.ACCURACY}` or "
            f"`{c.LOSS}`; call it `{c.LOSS}` to forecast it"
        )
    return _check_rows(table, (c.MODEL, c.TASK, c.TOKENS), name, faults)


def check_target_rows(table: pd.DataFrame, name: str, faults: list[str]) -> pd.DataFrame:
    """The targets' values with their types; faults as for a ladder."""
    keys = (c.MODEL, c.TASK, c.TOKENS) if c.TASK in table else (c.MODEL,)
    return _check_rows(table, keys, name, faults)


def check_tasks(
    table: pd.DataFrame, tasks: pd.DataFrame, name: str, faults: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the tasks (index: `task`) and the ladder's rows of these tasks or of no task.

    Without a table of tasks the ladder's own `chance` and `items` serve. Faults are a chance that
    is missing or outside [0, 1), items below 1, and a task that the ladder lacks. Rows of other
    tasks leave the ladder before their values are checked: they are not used. Where no accuracy was
    measured, none of both is needed, and what is not given is NaN.
    """
    own = not len(tasks.columns)
    needed = _needs_chance(table if own else _rows_of(table, tasks))
    if own:
        tasks, source = table, name
        if needed and c.TASK in table and c.CHANCE not in table:
            near = _misspelt(c.CHANCE, table, 0.6)
            cure = f"rename `{near}`" if near else "add it, or give a table of tasks with it"
            faults.append(f"{name}: column `{c.CHANCE}` is missing; {cure}")
    else:
        source = str(tasks.attrs.get("name", "tasks"))
        if tasks.index.name == c.TASK and c.TASK not in tasks:
            tasks = tasks.reset_index()
        required = (c.TASK, c.CHANCE) if needed else (c.TASK,)
        tasks = check_columns(tasks, required, source, faults)
    _check_spelling(tasks, [c.ITEMS], source, faults)
    if c.TASK not in tasks:
        return tasks, table
    if own:
        tasks = tasks.assign(**{c.TASK: _as_text(tasks[c.TASK])}).dropna(subset=[c.TASK])
    else:
        tasks = _text(tasks, (c.TASK,), source, faults)
        if c.TASK in table:
            names = _as_text(table[c.TASK])
            absent = tasks[c.TASK].notna() & ~tasks[c.TASK].isin(names) & bool(len(table))
            cure = f"its tasks are {_listed(sorted(names.dropna().unique()))}"
            _report(tasks[c.TASK], absent, f"is in no row of {name}", cure, source, faults)
            table = table[names.isin(tasks[c.TASK]) | names.isna()]
    if c.CHANCE not in tasks:
        if needed:
            return tasks, table
        tasks = tasks.assign(**{c.CHANCE: np.nan})
    if own:
        values = {
            word: _numbers(_given(tasks[word])) for word in (c.CHANCE, c.ITEMS) if word in tasks
        }
        tasks = tasks[~pd.DataFrame({c.TASK: tasks[c.TASK], **values}).duplicated()]
        tasks = tasks.sort_values(c.TASK, kind="stable")
    task = tasks[c.TASK]
    what = "has more than one chance or number of items" if own else "is given twice"
    again = task.duplicated() & task.notna()
    _report(task, again, what, "keep one of each", source, faults)
    cure = "give the accuracy of guessing, 0 if there is none"
    _report(task, _given(tasks[c.CHANCE]).isna() & needed, "has no chance", cure, source, faults)
    tasks = _numeric(tasks, c.CHANCE, source, faults)
    chance = tasks[c.CHANCE]
    cure = "give the accuracy of guessing as a fraction"
    outside = (chance < 0) | (chance >= 1)
    _report(chance, outside, "is outside [0, 1)", cure, source, faults)
    if c.ITEMS in tasks:
        tasks = _numeric(tasks, c.ITEMS, source, faults)
        items = tasks[c.ITEMS]
        _report(items, items < 1, "is below 1", "give the number of questions", source, faults)
    else:
        tasks = tasks.assign(**{c.ITEMS: np.nan})
    return tasks.drop_duplicates(c.TASK).set_index(c.TASK)[[c.CHANCE, c.ITEMS]], table


def _needs_chance(table: pd.DataFrame) -> bool:
    """Whether anything but losses was measured, or nothing at all."""
    losses = any(word in table and _has_values(table, word) for word in (c.LOSS, c.REFERENCE_LOSS))
    return not losses or (c.ACCURACY in table and _has_values(table, c.ACCURACY))


def _rows_of(table: pd.DataFrame, tasks: pd.DataFrame) -> pd.DataFrame:
    """Rows of the tasks that a table of tasks names, all where either has no such column."""
    if list(tasks.columns).count(c.TASK) != 1 or c.TASK not in table:
        return table
    return table[_as_text(table[c.TASK]).isin(_as_text(tasks[c.TASK]))]


def check_fittable(table: pd.DataFrame, name: str, faults: list[str]) -> None:
    """Faults that no law can be fitted with: fewer than two models, a task without measurements."""
    if table.empty or not set(c.LADDER_REQUIRED) <= set(table):
        return
    present = [word for word in c.MEASURED if word in table]
    known = table[table[present].notna().any(axis=1)]
    if not len(known):
        return  # reported with the values
    models = known[c.MODEL].dropna().unique()
    if len(models) < MIN_MODELS:
        faults.append(
            f"{name}: fewer than {MIN_MODELS} models have measurements ({_listed(models)}); "
            "add models"
        )
    if c.RECIPE in table:
        bare = sorted(set(table[c.RECIPE].dropna()) - set(known[c.RECIPE]))
        if bare and len(models):
            faults.append(
                f"{name}: no row of recipe {_listed(bare)} has a measurement; add some, or leave "
                f"the recipe{'s' * (len(bare) > 1)} out"
            )
    without = sorted(set(table[c.TASK].dropna()) - set(known[c.TASK]))
    if without:
        faults.append(
            f"{name}: no row has a measurement of {_listed(without)}; add some, or leave the "
            f"task{'s' * (len(without) > 1)} out"
        )


def _misspelt(word: str, table: pd.DataFrame, cutoff: float) -> str | None:
    others = {str(column).lower(): str(column) for column in table if column not in c.KNOWN}
    close = get_close_matches(word, others, n=1, cutoff=cutoff)
    if not close and cutoff < EXACT:
        # A short form such as `acc` is too short to be similar.
        close = [short for short in others if len(short) >= SHORTEST and word.startswith(short)]
    return others[close[0]] if close else None


def _check_spelling(
    table: pd.DataFrame, words: Sequence[str], name: str, faults: list[str]
) -> None:
    """Optional columns: a misspelt one would be ignored without a word."""
    for word in words:
        near = _misspelt(word, table, 0.8) if word not in table else None
        # `recipe_id` and the like are the user's own.
        if near and not near.lower().startswith(f"{word}_"):
            cure = f"rename it to `{word}`, or leave it out"
            faults.append(f"{name}: column `{near}` looks like a misspelt `{word}`; {cure}")


def _check_rows(
    table: pd.DataFrame, keys: Sequence[str], name: str, faults: list[str]
) -> pd.DataFrame:
    table = _text(table, [word for word in (c.MODEL, c.TASK) if word in table], name, faults)
    table = _models_of_recipes(table, name, faults)
    table = _counts(table, name, faults)
    table = _measurements(table, name, faults)
    _one_params_per_model(table, name, faults)
    if set(keys) <= set(table):
        known = table.dropna(subset=list(keys))
        twice = known[known.duplicated(list(keys), keep=False)]
        shown = [" x ".join(map(_figure, key)) for key in twice[list(keys)].itertuples(index=False)]
        _list(twice.index, shown, "is given twice", "keep one row for each", name, faults)
    _one_loss_kind(table, name, faults)
    return table


def _models_of_recipes(table: pd.DataFrame, name: str, faults: list[str]) -> pd.DataFrame:
    """With the recipe in the name of a model that several recipes have. Fault is a row of none."""
    if not {c.MODEL, c.RECIPE} <= set(table):
        return table
    recipe = _as_text(table[c.RECIPE])
    if recipe.nunique() < 2:
        return table
    cure = "name it, as other rows do"
    _list(table.index[recipe.isna()], [c.RECIPE], "is missing", cure, name, faults)
    shared = recipe.groupby(table[c.MODEL]).transform("nunique") > 1
    named = table[c.MODEL].where(~shared, table[c.MODEL] + " " + recipe)
    return table.assign(**{c.MODEL: named, c.RECIPE: recipe})


def _has_values(table: pd.DataFrame, word: str) -> bool:
    return bool(_given(table[word]).notna().any())


def _given(values: pd.Series) -> pd.Series:
    """Numbers as they are, all else as text: dates and booleans are no numbers."""
    return values if values.dtype.kind in "iuf" else _as_text(values)


def _as_text(values: pd.Series) -> pd.Series:
    """As text without spaces around it, missing where nothing is left."""
    text = values.astype("str").str.strip()
    return text.mask(text == "")


def _numbers(given: pd.Series) -> pd.Series:
    """As float64, NaN where they are not numbers."""
    numeric = given.dtype.kind in "iuf"
    values = given.to_numpy(float, na_value=np.nan) if numeric else [_float(text) for text in given]
    return pd.Series(values, index=given.index, name=given.name, dtype=float)


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return int(float(text))


def _text(table: pd.DataFrame, words: Sequence[str], name: str, faults: list[str]) -> pd.DataFrame:
    for word in words:
        table = table.assign(**{word: _as_text(table[word])})
        _list(table.index[table[word].isna()], [word], "is missing", "name it", name, faults)
    return table


def _numeric(table: pd.DataFrame, word: str, name: str, faults: list[str]) -> pd.DataFrame:
    given = _given(table[word])
    numbers = _numbers(given)
    text = numbers.isna() & given.notna()
    _report(given, text, "is not a number", "give a number", name, faults)
    infinite = numbers.abs() == np.inf
    _report(numbers, infinite, "is infinite", "give a finite number", name, faults)
    return table.assign(**{word: numbers.mask(infinite)})


def _counts(table: pd.DataFrame, name: str, faults: list[str]) -> pd.DataFrame:
    cure = "give a whole number, not thousands or billions"
    for word in (c.PARAMS, c.TOKENS):
        if word not in table:
            continue
        given = _given(table[word])
        _list(table.index[given.isna()], [word], "is missing", cure, name, faults)
        before = len(faults)
        table = _numeric(table, word, name, faults)
        numbers = table[word]
        fractional = (numbers > 0) & (numbers != np.floor(numbers))
        _report(numbers, numbers <= 0, "is not above 0", cure, name, faults)
        _report(numbers, fractional, "is fractional", cure, name, faults)
        _report(numbers, numbers >= 2**63, "is too large", cure, name, faults)
        if len(faults) > before or given.isna().any():
            continue
        # Not by way of float64, which cannot hold integers above 2**53.
        numeric = given.dtype.kind in "iuf"
        whole = given.to_numpy("int64") if numeric else [_int(text) for text in given]
        table = table.assign(**{word: pd.Series(whole, index=table.index, dtype="int64")})
    return table


def _measurements(table: pd.DataFrame, name: str, faults: list[str]) -> pd.DataFrame:
    for word in (c.LOSS, c.REFERENCE_LOSS, c.ACCURACY, c.TASK_CE, c.FLOPS, c.CHECKPOINTS):
        if word not in table:
            continue
        table = _numeric(table, word, name, faults)
        values = table[word]
        if word in (c.LOSS, c.REFERENCE_LOSS, c.FLOPS):
            cure = "leave it empty if it was not measured"
            _report(values, values <= 0, "is not above 0", cure, name, faults)
        elif word == c.ACCURACY:
            cure = "give fractions, not percent"
            _report(values, values > 1, "is above 1", cure, name, faults)
            _report(values, values < 0, "is below 0", "give fractions in [0, 1]", name, faults)
        elif word == c.CHECKPOINTS:
            table = table.fillna({word: 1.0})
            cure = "give how many checkpoints the row is the mean of"
            no_count = (values < 1) | (values % 1 > 0)
            _report(values, no_count, "is not a count", cure, name, faults)
    return table


def _one_params_per_model(table: pd.DataFrame, name: str, faults: list[str]) -> None:
    if not {c.MODEL, c.PARAMS} <= set(table):
        return
    sizes = table.dropna(subset=[c.MODEL, c.PARAMS]).drop_duplicates([c.MODEL, c.PARAMS])
    again = sizes[sizes.duplicated(c.MODEL)].drop_duplicates(c.MODEL)
    values = sizes.groupby(c.MODEL)[c.PARAMS].agg(_some)
    shown = [f"model {model} has params {values[model]}" for model in again[c.MODEL]]
    cure = "give each model one size, or models of two sizes two names"
    _list(again.index, shown, "", cure, name, faults)


def _some(values: pd.Series) -> str:
    few, more = values.iloc[:SHOWN], len(values) - SHOWN
    return " and ".join([*map(_figure, few), *([f"{more} more"] if more > 0 else [])])


def _one_loss_kind(table: pd.DataFrame, name: str, faults: list[str]) -> None:
    if c.LOSS_KIND not in table:
        return
    kinds = _as_text(table[c.LOSS_KIND]).dropna()
    found = sorted(kinds.unique())
    if len(found) > 1:
        first = kinds.index[kinds != kinds.iloc[0]][0]
        faults.append(
            f"{name} row {first}: more than one {c.LOSS_KIND} ({', '.join(found)}); "
            "losses of several definitions cannot be mixed; keep the rows of one"
        )


def _report(
    column: pd.Series, wrong: pd.Series, what: str, cure: str, name: str, faults: list[str]
) -> None:
    if wrong.any():
        values = column[wrong]
        shown = [f"{column.name} {_figure(value)}" for value in values]
        _list(values.index, shown, what, cure, name, faults)


def _list(
    rows: pd.Index, shown: Sequence[str], what: str, cure: str, name: str, faults: list[str]
) -> None:
    """One fault for all `rows`: the first in full, then the numbers of others."""
    if not len(rows):
        return
    also = ""
    if len(rows) > 1:
        others = [str(row) for row in rows[1:SHOWN]]
        if len(set(shown)) == 1:
            also = f"row{'s' * (len(others) > 1)} {', '.join(others)}"
        else:
            also = ", ".join(f"row {row}: {shown[i]}" for i, row in enumerate(others, 1))
        more = len(rows) - SHOWN
        also = f" (also {also}{f' and {more} more' if more > 0 else ''})"
    faults.append(f"{name} row {rows[0]}: {f'{shown[0]} {what}'.strip()}{also}; {cure}")


def _listed(words: Sequence[str]) -> str:
    return shorten(", ".join(words) or "none", 300, placeholder=" ...")


def _figure(value: object) -> str:
    """Whole floats without a point, as they were given; text cut to a legible length."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)[:60]

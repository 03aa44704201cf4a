"""Checks of users' tables. Each appends its faults to a list; `stop_on` raises them together."""

from collections.abc import Sequence

import pandas as pd

from laddercast.data import words as c
from laddercast.data.faults import figure, list_rows, listed_short, some
from laddercast.data.values import (
    as_text,
    count_columns,
    given_values,
    measurement_columns,
    text_columns,
)
from laddercast.data.writing import nearest, no_such

EXACT, SHORTEST = 0.7, 3
"""Short forms (`acc`) of so many letters count, too, where the cutoff is below the first."""

MIN_MODELS = 2


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
    if of_ladder and c.ACCURACY not in measured and misspelt(c.ACCURACY, table, 0.6):
        missing.append(c.ACCURACY)  # else the ladder would be taken for one of losses
    if of_ladder and not measured:
        # A name that is near to both losses is meant for the longer.
        if misspelt(c.REFERENCE_LOSS, table, 0.7):
            missing.append(c.REFERENCE_LOSS)
        elif misspelt(c.LOSS, table, 0.6):
            missing.append(c.LOSS)
        elif c.ACCURACY not in missing:
            unlike.append("`accuracy`, `loss` or `reference_loss`")
    for word in missing:
        near = misspelt(word, table, 0.7 if word == c.REFERENCE_LOSS else 0.6)
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
        faults.append(f"{name}: {what.format(', '.join(unlike))} to {listed_short(given)}")
    if c.MODEL in required:
        others = (c.TASK, c.LOSS, c.ACCURACY, c.RECIPE, c.LOSS_KIND)
        check_spelling(table, [word for word in others if word not in missing], name, faults)
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
    recipes = as_text(table[columns[0]])
    kept = table[recipes == str(recipe)]
    if not len(kept):
        known = sorted(recipes.dropna().unique())
        faults.append(f"{name}: {no_such('recipe', [recipe], known)}")
        return table
    return kept


def check_ladder_rows(table: pd.DataFrame, name: str, faults: list[str]) -> pd.DataFrame:
    """The ladder's values with their types; faults are values no measurement can have."""
    present = [word for word in c.MEASURED if word in table]
    has = [word for word in present if has_values(table, word)]
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
            f"{name}: fewer than {MIN_MODELS} models have measurements ({listed_short(models)}); "
            "add models"
        )
    if c.RECIPE in table:
        bare = sorted(set(table[c.RECIPE].dropna()) - set(known[c.RECIPE]))
        if bare and len(models):
            faults.append(
                f"{name}: no row of recipe {listed_short(bare)} has a measurement; add some, or "
                f"leave the recipe{'s' * (len(bare) > 1)} out"
            )
    without = sorted(set(table[c.TASK].dropna().unique()) - set(known[c.TASK].unique()))
    if without:
        faults.append(
            f"{name}: no row has a measurement of {listed_short(without)}; add some, or leave the "
            f"task{'s' * (len(without) > 1)} out"
        )


def misspelt(word: str, table: pd.DataFrame, cutoff: float) -> str | None:
    """The column that is meant for `word`, if one is like it."""
    others = [str(column) for column in table if column not in c.KNOWN]
    close = nearest(word, others, cutoff)
    if not close and cutoff < EXACT:
        # A short form such as `acc` is too short to be similar.
        short = [own for own in others if len(own) >= SHORTEST and word.startswith(own.lower())]
        return short[0] if short else None
    return close


def check_spelling(table: pd.DataFrame, words: Sequence[str], name: str, faults: list[str]) -> None:
    """Optional columns: a misspelt one would be ignored without a word."""
    for word in words:
        near = misspelt(word, table, 0.8) if word not in table else None
        # `recipe_id` and the like are the user's own.
        if near and not near.lower().startswith(f"{word}_"):
            cure = f"rename it to `{word}`, or leave it out"
            faults.append(f"{name}: column `{near}` looks like a misspelt `{word}`; {cure}")


def _check_rows(
    table: pd.DataFrame, keys: Sequence[str], name: str, faults: list[str]
) -> pd.DataFrame:
    table = text_columns(table, [word for word in (c.MODEL, c.TASK) if word in table], name, faults)
    table = _models_of_recipes(table, name, faults)
    table = count_columns(table, name, faults)
    table = measurement_columns(table, name, faults)
    _one_params_per_model(table, name, faults)
    if set(keys) <= set(table):
        known = table.dropna(subset=list(keys))
        twice = known[known.duplicated(list(keys), keep=False)]
        shown = [" x ".join(map(figure, key)) for key in twice[list(keys)].itertuples(index=False)]
        list_rows(twice.index, shown, "is given twice", "keep one row for each", name, faults)
    _one_loss_kind(table, name, faults)
    return table


def check_one_recipe(recipes: Sequence[str], what: str) -> None:
    """Raise ValueError where `what` is for one recipe, and there are several."""
    if len(recipes) > 1:
        raise ValueError(
            f"{what} is for one recipe, and there are several ({listed_short(recipes)}): keep one "
            "by recipe= (--recipe), or compare them by lc.compare_recipes (laddercast compare)"
        )


def _models_of_recipes(table: pd.DataFrame, name: str, faults: list[str]) -> pd.DataFrame:
    """Recipes as text, in the name of a model that several have. Fault is a row of none."""
    if not {c.MODEL, c.RECIPE} <= set(table):
        return table
    recipe = as_text(table[c.RECIPE])
    table = table.assign(**{c.RECIPE: recipe})
    if recipe.nunique() < 2:
        return table
    cure = "name it, as other rows do"
    list_rows(table.index[recipe.isna()], [c.RECIPE], "is missing", cure, name, faults)
    shared = recipe.groupby(table[c.MODEL]).transform("nunique") > 1
    named = table[c.MODEL].where(~shared, table[c.MODEL] + " " + recipe)
    return table.assign(**{c.MODEL: named})


def has_values(table: pd.DataFrame, word: str) -> bool:
    """Whether a column has anything in it."""
    return bool(given_values(table[word]).notna().any())


def _one_params_per_model(table: pd.DataFrame, name: str, faults: list[str]) -> None:
    if not {c.MODEL, c.PARAMS} <= set(table):
        return
    sizes = table.dropna(subset=[c.MODEL, c.PARAMS]).drop_duplicates([c.MODEL, c.PARAMS])
    again = sizes[sizes.duplicated(c.MODEL)].drop_duplicates(c.MODEL)
    values = sizes.groupby(c.MODEL)[c.PARAMS].agg(some)
    shown = [f"model {model} has params {values[model]}" for model in again[c.MODEL]]
    cure = "give each model one size, or models of two sizes two names"
    list_rows(again.index, shown, "", cure, name, faults)


def _one_loss_kind(table: pd.DataFrame, name: str, faults: list[str]) -> None:
    if c.LOSS_KIND not in table:
        return
    kinds = as_text(table[c.LOSS_KIND]).dropna()
    found = sorted(kinds.unique())
    if len(found) > 1:
        first = kinds.index[kinds != kinds.iloc[0]][0]
        faults.append(
            f"{name} row {first}: more than one {c.LOSS_KIND} ({', '.join(found)}); "
            "losses of several definitions cannot be mixed; keep the rows of one"
        )

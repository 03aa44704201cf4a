"""Values of users' tables with their types: text, numbers, counts, measurements."""

import re
from collections.abc import Sequence
from decimal import Decimal

import numpy as np
import pandas as pd

from laddercast.data import words as c
from laddercast.data.faults import list_rows, report_values

MOST_LOSS = 1_000_000_000
"""Not even a perplexity of random weights is as large; means of what is near the largest number are
infinite."""

LEAST = {c.PARAMS: 100_000, c.TOKENS: 1_000_000}
MOST = {c.PARAMS: 10**15, c.TOKENS: 10**18}
"""Sizes, and lengths of whole runs, beyond which no language model is: they are in other units."""

UNITS = {"": 0, "k": 3, "m": 6, "b": 9, "g": 9, "t": 12}
WITH_UNIT = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([kmbgt])", re.IGNORECASE)
WITH_COMMAS = re.compile(r"\d{1,3}(?:,\d{3}){2,}")
"""Counts as people write them: 190M, 1.5T; 1,300,000. A single comma could be a decimal one."""


def given_values(values: pd.Series) -> pd.Series:
    """Numbers as they are, all else as text: dates and booleans are no numbers."""
    return values if values.dtype.kind in "iuf" else as_text(values)


def as_text(values: pd.Series) -> pd.Series:
    """As text without spaces around it, missing where nothing is left."""
    text = values.astype("str").str.strip()
    return text.mask(text == "")


def as_numbers(given: pd.Series) -> pd.Series:
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


def in_full(text: str) -> str:
    """A count that was written with a unit or commas in digits alone; other text as it is."""
    if WITH_COMMAS.fullmatch(text):
        return text.replace(",", "")
    found = WITH_UNIT.fullmatch(text)
    if not found:
        return text
    number = Decimal(found[1]).scaleb(UNITS[found[2].lower()])
    return str(int(number)) if number == int(number) else str(number)


def text_columns(
    table: pd.DataFrame, words: Sequence[str], name: str, faults: list[str]
) -> pd.DataFrame:
    """The table with these columns as text; faults are values that are missing."""
    for word in words:
        table = table.assign(**{word: as_text(table[word])})
        list_rows(table.index[table[word].isna()], [word], "is missing", "name it", name, faults)
    return table


def numeric_column(table: pd.DataFrame, word: str, name: str, faults: list[str]) -> pd.DataFrame:
    """The table with this column as finite numbers, NaN where there are none."""
    given = given_values(table[word])
    numbers = as_numbers(given)
    text = numbers.isna() & given.notna()
    report_values(given, text, "is not a number", "give a number", name, faults)
    infinite = numbers.abs() == np.inf
    report_values(numbers, infinite, "is infinite", "give a finite number", name, faults)
    return table.assign(**{word: numbers.mask(infinite)})


def count_columns(table: pd.DataFrame, name: str, faults: list[str]) -> pd.DataFrame:
    """The table with `params, tokens` as whole numbers; faults are others, and other units."""
    cure = "give a whole number, not thousands or billions"
    for word in (c.PARAMS, c.TOKENS):
        if word not in table:
            continue
        given = given_values(table[word])
        if given.dtype.kind not in "iuf":
            given = given.map(in_full, na_action="ignore")
        list_rows(table.index[given.isna()], [word], "is missing", cure, name, faults)
        before = len(faults)
        table = numeric_column(table.assign(**{word: given}), word, name, faults)
        numbers = table[word]
        fractional = (numbers > 0) & (numbers != np.floor(numbers))
        report_values(numbers, numbers <= 0, "is not above 0", cure, name, faults)
        report_values(numbers, fractional, "is fractional", cure, name, faults)
        report_values(numbers, numbers >= 2**63, "is too large", cure, name, faults)
        _check_units(table, word, name, faults)
        if len(faults) > before or given.isna().any():
            continue
        # Not by way of float64, which cannot hold integers above 2**53.
        numeric = given.dtype.kind in "iuf"
        whole = given.to_numpy("int64") if numeric else [_int(text) for text in given]
        table = table.assign(**{word: pd.Series(whole, index=table.index, dtype="int64")})
    return table


def _check_units(table: pd.DataFrame, word: str, name: str, faults: list[str]) -> None:
    """Faults are sizes, and lengths of runs, that no language model has: one row for each model."""
    numbers, first = table[word], pd.Series(True, index=table.index)
    if c.MODEL in table:
        # Early checkpoints have few tokens.
        known = table[c.MODEL].notna()
        numbers = numbers.mask(known, numbers.groupby(table[c.MODEL]).transform("max"))
        first = ~(known & table[c.MODEL].duplicated())
    unit = "190M or 7B" if word == c.PARAMS else "4B or 2T"
    cure = f"no language model has so {{}}: give the whole number, or its unit, as in {unit}"
    low, high = (numbers > 0) & (numbers < LEAST[word]), (numbers > MOST[word]) & (numbers < 2**63)
    what, few, many = f"is below {LEAST[word]:,}", cure.format("few"), cure.format("many")
    report_values(numbers, low & first, what, few, name, faults)
    report_values(numbers, high & first, f"is above {MOST[word]:,}", many, name, faults)


def measurement_columns(table: pd.DataFrame, name: str, faults: list[str]) -> pd.DataFrame:
    """The table with its measurements as numbers; faults are values that none can have."""
    for word in (c.LOSS, c.REFERENCE_LOSS, c.ACCURACY, c.TASK_CE, c.FLOPS, c.CHECKPOINTS):
        if word not in table:
            continue
        table = numeric_column(table, word, name, faults)
        values = table[word]
        if word in (c.LOSS, c.REFERENCE_LOSS, c.FLOPS):
            cure = "leave it empty if it was not measured"
            report_values(values, values <= 0, "is not above 0", cure, name, faults)
            if word != c.FLOPS:
                cure = "no language model has as much: give it per token or byte"
                many = f"is above {MOST_LOSS:,}"
                report_values(values, values > MOST_LOSS, many, cure, name, faults)
        elif word == c.ACCURACY:
            cure = "give fractions, not percent"
            report_values(values, values > 1, "is above 1", cure, name, faults)
            report_values(
                values, values < 0, "is below 0", "give fractions in [0, 1]", name, faults
            )
        elif word == c.CHECKPOINTS:
            table = table.fillna({word: 1.0})
            cure = "give how many checkpoints the row is the mean of"
            no_count = (values < 1) | (values % 1 > 0)
            report_values(values, no_count, "is not a count", cure, name, faults)
    return table

"""Faults of users' tables: how they are worded, listed and raised together."""

from collections.abc import Sequence
from textwrap import shorten

import pandas as pd

SHOWN = 5
"""Rows shown of one kind of fault; the others are counted."""


def stop_on(faults: Sequence[str]) -> None:
    """Raise one ValueError that lists `faults`, one a line, if there are any."""
    lines = [" ".join(fault.split()) for fault in faults]  # values may hold line breaks
    if len(lines) == 1:
        raise ValueError(lines[0])
    if lines:
        raise ValueError(f"{len(lines)} faults:\n" + "\n".join(f"- {line}" for line in lines))


def report_values(
    column: pd.Series, wrong: pd.Series, what: str, cure: str, name: str, faults: list[str]
) -> None:
    """One fault for all values that are `wrong`."""
    if wrong.any():
        values = column[wrong]
        shown = [f"{column.name} {figure(value)}" for value in values]
        list_rows(values.index, shown, what, cure, name, faults)


def list_rows(
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


def some(values: pd.Series) -> str:
    """The first values, and how many more there are."""
    few, more = values.iloc[:SHOWN], len(values) - SHOWN
    return " and ".join([*map(figure, few), *([f"{more} more"] if more > 0 else [])])


def listed_short(words: Sequence[str]) -> str:
    """Words with commas between, cut to a legible length."""
    return shorten(", ".join(words) or "none", 300, placeholder=" ...")


def figure(value: object) -> str:
    """Whole floats without a point, as they were given; text cut to a legible length."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)[:60]

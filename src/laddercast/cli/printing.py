"""The tables that commands print."""

from collections.abc import Sequence
from itertools import groupby, islice
from shutil import get_terminal_size
from textwrap import wrap
from typing import TYPE_CHECKING

from laddercast.data import words as c
from laddercast.data.writing import STYLES

if TYPE_CHECKING:
    import pandas as pd

    from laddercast.reporting.tables import Table

GAP, LEAST_WIDTH = 2, 40

UNBROKEN = "\u00a0"
"""A space at which no line ends."""


def print_forecast(table: "pd.DataFrame", truth: "pd.DataFrame | None") -> None:
    """Accuracies of a forecast table in %, beside what was measured and, if known, the truth.

    Of a forecast of losses alone, these.
    """
    quantity = c.main_quantity(table)
    style = STYLES[quantity]
    head = ["target", "task", "median", "80 % interval", "95 % interval"]
    rows = []
    shown = table[table["quantity"] == quantity].reset_index(drop=True)
    for row in shown.to_dict("records"):
        pairs = (c.INTERVALS[level] for level in (80, 95))
        ends = [f"{style.value(row[low])} to {style.value(row[high])}" for low, high in pairs]
        rows.append([row[c.MODEL], row[c.TASK], style.value(row["q50"]), *ends])
    columns = {}
    if shown["measured"].notna().any():
        columns["measured"] = shown["measured"]
    if truth is not None:
        keys = [c.MODEL, c.TASK]
        joined = shown[keys].merge(truth[[*keys, "truth"]], on=keys, how="left")
        columns["truth"] = joined["truth"]
    for name, values in columns.items():
        head.append(name)
        for cells, value in zip(rows, values, strict=True):
            cells.append(style.value(value))
    print(f"{quantity} in %" if style.unit else quantity)
    print_rows(head, rows)


def print_beside(scores: "pd.DataFrame") -> None:
    """Our scores of a backtest, a row for each kind and distance, and the CRPS of its rivals."""
    from laddercast.evaluation.backtests import OURS, RIVALS, without_lone_pool
    from laddercast.reporting.words import DISTANCE_WORDS

    scores = without_lone_pool(scores)
    scores = scores.assign(held_out=scores["kind"] + ", " + scores["distance"])
    ours = scores[scores["method"] == OURS].reset_index(drop=True)
    style = STYLES[c.main_quantity(scores)]
    fewer = False
    for name in RIVALS:
        rival = scores[scores["method"] == name].set_index("held_out").reindex(ours["held_out"])
        part = rival["cells"].to_numpy() < ours["cells"].to_numpy()
        fewer |= part.any()
        ours[name] = [
            style.error(crps) + "*" * int(some and crps == crps)
            for crps, some in zip(rival["crps"], part, strict=True)
        ]
    heads = {"baseline": "published", "bootstrap": "its bootstrap"}
    more = {heads.get(name, name.replace("_", " ")): (name, "") for name in RIVALS}
    print_scores(ours, "held_out", more, c.main_quantity(scores))
    print("published to lowest loss rung: their CRPS; that of a point is its error")
    if fewer:
        print("* of the cells it can forecast; ours on the same cells: scores.csv, laddercast_crps")
    for distance in ours["distance"].unique():
        print("\n".join(wrap(f"{distance}: {DISTANCE_WORDS[distance]}", 80)))


def print_scores(
    scores: "pd.DataFrame", first: str, more: dict[str, tuple[str, str]], quantity: str
) -> None:
    """Scores of a quantity (accuracy in points) and % of cells; `more` are columns by heading."""
    style = STYLES[quantity]
    form = f".{style.error_digits}f"
    columns = {"error": ("error", form), "CRPS": ("crps", form)}
    columns |= {f"in {level}{UNBROKEN}%": (f"cover{level}", ".0%") for level in c.INTERVALS} | more
    rows = [
        [row[first], str(row["cells"]), *(f"{row[name]:{form}}" for name, form in columns.values())]
        for row in scores.to_dict("records")
    ]
    unit = f" in{style.of_errors}" if style.of_errors else ""
    print(f"{quantity}: error, CRPS{unit}, measurements inside intervals in %")
    print_rows([first.replace("_", " "), "cells", *columns], rows, left=1)


def print_rows(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 2) -> None:
    """A table with the first columns to the left, the others to the right, as wide as a terminal.

    Where it would be wider, headings break, then the first column is a line above its rows, then
    columns that do not fit come below the others.
    """
    width = max(get_terminal_size().columns, LEAST_WIDTH)
    for line in table_lines(head, rows, left, width):
        print(line.replace(UNBROKEN, " "))


def print_table(table: "Table") -> None:
    """A table of the report, as `print_rows` prints it."""
    left = [head.number for head in table.head].index(True)
    rows = [[cell.text for cell in row] for row in table.rows]
    print_rows([head.text for head in table.head], rows, max(left, 1))


def table_lines(
    head: Sequence[str], rows: Sequence[Sequence[str]], left: int, width: int
) -> list[str]:
    """The lines of a table, none of them wider than `width`."""
    rows = [[*(_cut(cell, width // 2 - GAP) for cell in row[:left]), *row[left:]] for row in rows]
    lines = _aligned([head], rows, left)
    if _widest(lines) <= width:
        return lines
    lines = _aligned(_broken(head, rows), rows, left)
    if _widest(lines) <= width:
        return lines
    if left > 1:
        inner, bare = ["  " + head[1], *head[2:]], [["  " + row[1], *row[2:]] for row in rows]
        heads = _broken(inner, bare)
        lines = _aligned(heads, bare, left - 1)
        whole = _widest(lines) <= width
        lines, below = (lines[: len(heads)], iter(lines[len(heads) :])) if whole else ([], iter(()))
        for name, own in groupby(zip(rows, bare, strict=True), key=lambda pair: pair[0][0]):
            of_name = [row for _, row in own]
            # Columns that come below others have their headings with each name.
            under = islice(below, len(of_name)) if whole else table_lines(inner, of_name, 1, width)
            lines += [name, *under]
        return lines
    blocks, first = [], left
    while first < len(head):
        last = first + 1
        while last < len(head) and _fits(head, rows, left, first, last + 1, width):
            last += 1
        blocks += _block(head, rows, left, first, last)
        first = last
    return blocks


def _block(
    head: Sequence[str], rows: Sequence[Sequence[str]], left: int, first: int, last: int
) -> list[str]:
    """The lines of some columns, beside those on the left."""
    some = [[*row[:left], *row[first:last]] for row in rows]
    return _aligned(_broken([*head[:left], *head[first:last]], some), some, left)


def _fits(
    head: Sequence[str], rows: Sequence[Sequence[str]], left: int, first: int, last: int, width: int
) -> bool:
    return _widest(_block(head, rows, left, first, last)) <= width


def _widest(lines: Sequence[str]) -> int:
    return max(map(len, lines))


def _cut(name: str, width: int) -> str:
    """A name of at most this width, without its middle if it is longer."""
    half = (width - 3) // 2
    return name if len(name) <= width else f"{name[:half]}...{name[-half:]}"


def _broken(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Headings on several lines, no wider than their columns where they have spaces."""
    columns = []
    for name, cells in zip(head, zip(*rows, strict=True), strict=True):
        own = max(map(len, [*cells, *name.split(" ")]))
        indent = name[: len(name) - len(name.lstrip())]
        columns.append([indent + line for line in wrap(name.strip(), own)])
    most = max(map(len, columns))
    return [list(line) for line in zip(*([""] * (most - len(x)) + x for x in columns), strict=True)]


def _aligned(heads: Sequence[Sequence[str]], rows: Sequence[Sequence[str]], left: int) -> list[str]:
    every = [*heads, *rows]
    widths = [max(map(len, column)) for column in zip(*every, strict=True)]
    return [
        (" " * GAP)
        .join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        .rstrip()
        for cells in every
    ]

"""A ladder at a glance, as text and as HTML: what was read, and what is missing of it."""

from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
import pandas as pd

from laddercast.data import words as c
from laddercast.data.lines import line_through, rung_points
from laddercast.data.sizes import two_digits, whole_runs
from laddercast.data.tasks import known_sentence
from laddercast.data.writing import counted, listed, short_number

MOST_SIZES, MOST_LENGTHS, MOST_NAMES = 24, 12, 3

STYLE = "text-align:right;padding:0.1em 0.7em"


class Overview(NamedTuple):
    """What is shown; the first row of each table is its header."""

    title: str
    facts: list[str]
    grid: list[list[str]]
    tasks: list[list[str]]


GRID = "models (checkpoints), by params and tokens per parameter at the end of the run"


def as_text(table: pd.DataFrame, tasks: pd.DataFrame, used: str, name: str) -> str:
    """Several lines for a terminal."""
    seen = overview(table, tasks, used, name)
    return "\n".join(
        [seen.title, *seen.facts, GRID, *_lines(seen.grid), "tasks", *_lines(seen.tasks)]
    )


def as_html(table: pd.DataFrame, tasks: pd.DataFrame, used: str, name: str) -> str:
    """One `div` for a notebook; all text of the user's is escaped."""
    seen = overview(table, tasks, used, name)
    facts = "<br>".join(map(escape, seen.facts))
    return (
        f"<div><p><b>{escape(seen.title)}</b><br>{facts}</p>"
        f"{_html_table(seen.grid, GRID)}{_html_table(seen.tasks, 'tasks')}</div>"
    )


def overview(table: pd.DataFrame, tasks: pd.DataFrame, used: str, name: str) -> Overview:
    """The content of both displays."""
    checkpoints = table.drop_duplicates([c.MODEL, c.TOKENS])
    title = (
        f"{_plain(name)}: {counted(table[c.MODEL].nunique(), 'model')}, "
        f"{counted(len(checkpoints), 'checkpoint')}, {counted(len(tasks), 'task')}, "
        f'{counted(len(table), "row")}, rungs="{used}"'
    )
    losses = [word for word in (c.LOSS, c.REFERENCE_LOSS) if c.measured(table, word)]
    facts = ["losses: " + (", ".join(_share(table, word) for word in losses) or "none")]
    facts += [] if c.measured(table, c.ACCURACY) else ["accuracies: none"]
    for word, plural in ((c.LOSS_KIND, "kind of loss"), (c.RECIPE, "recipe"), (c.SEED, "seeds")):
        if c.measured(table, word):
            facts.append(f"{plural}: {_some(table[word].dropna().astype(str).unique())}")
    if said := known_sentence(tasks):
        facts.append(said)
    line = line_through(rung_points(table, used))
    if line is not None:
        facts.append(f"{line}: forecasts along that line rest on data, off it on the priors")
    return Overview(title, facts, _grid(table, checkpoints), _task_rows(table, tasks, losses))


def _grid(table: pd.DataFrame, checkpoints: pd.DataFrame) -> list[list[str]]:
    """Rows are sizes, columns are lengths to two digits or, if there are many, by powers of 2."""
    ends = whole_runs(table)
    ratio = ends[c.TOKENS] / ends[c.PARAMS]
    length = two_digits(ratio)
    if length.nunique() > MOST_LENGTHS:
        length, lengths = _labels(2.0 ** np.floor(np.log2(ratio)), MOST_LENGTHS, _doubling)
    else:
        length, lengths = _labels(length, MOST_LENGTHS, short_number)
    size, sizes = _labels(ends[c.PARAMS], MOST_SIZES, short_number)
    models = pd.crosstab(size, length)
    read = checkpoints.groupby(c.MODEL).size()
    counts = pd.crosstab(size, length, values=read, aggfunc="sum")
    rows = [["params", *lengths]]
    for one in sizes:
        cells = [(models.loc[one, other], counts.loc[one, other]) for other in lengths]
        rows.append([one, *(f"{n} ({int(read)})" if n else "-" for n, read in cells)])
    return rows


def _labels(
    values: pd.Series, most: int, figure: Callable[[float], str]
) -> tuple[pd.Series, list[str]]:
    """The label of each value, and all labels in order; values beyond `most` share one."""
    levels = sorted(values.unique())
    names = {level: figure(level) for level in levels}
    for level in levels[most:]:
        names[level] = f"{len(levels) - most} larger"
    return values.map(names), list(dict.fromkeys(names.values()))


def _task_rows(table: pd.DataFrame, tasks: pd.DataFrame, losses: Sequence[str]) -> list[list[str]]:
    """Per task: `chance, items`, how many models have it, and which of them lack what."""
    models = set(table[c.MODEL].unique())
    # A fit reads `loss` where there is one.
    needed = dict.fromkeys(losses[:1], "loss")
    needed |= {c.ACCURACY: "accuracy"} if c.measured(table, c.ACCURACY) else {}
    having = {
        word: table.dropna(subset=[word]).groupby(c.TASK)[c.MODEL].agg(set).to_dict()
        for word in needed
    }
    present = table.groupby(c.TASK)[c.MODEL].agg(set).to_dict()
    rows = [["task", c.CHANCE, c.ITEMS, "rungs", "gaps"]]
    for task, known in tasks.iterrows():
        own = present.get(task, set())
        gaps = [f"not in {_some(sorted(models - own))}"] if models - own else []
        for word, said in needed.items():
            lacking = own - having.get(word, {}).get(task, set())
            gaps += [f"no {said} in {_some(sorted(lacking))}"] if lacking else []
        chance = "-" if pd.isna(known[c.CHANCE]) else f"{known[c.CHANCE]:.3g}"
        items = "-" if pd.isna(known[c.ITEMS]) else f"{known[c.ITEMS]:,.0f}"
        rows.append([_plain(task), chance, items, str(len(own)), "; ".join(gaps) or "-"])
    return rows


def _share(table: pd.DataFrame, word: str) -> str:
    share = table[word].notna().mean()
    return word if share == 1 else f"{word} (in {share:.0%} of rows)"


def _some(names: Iterable[str]) -> str:
    return listed(map(_plain, names), MOST_NAMES)


def _plain(text: object) -> str:
    """On one line, cut to a legible length."""
    line = " ".join(str(text).split())
    return line if len(line) <= 60 else line[:57] + "..."


def _doubling(low: float) -> str:
    return f"{short_number(low)}-{short_number(2 * low)}"


def _lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns: the first and the gaps to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths) - 1 if rows[0][-1] == "gaps" else 0
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if i in (0, last) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _html_table(rows: Sequence[Sequence[str]], caption: str) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "".join(f'<{tag} style="{STYLE}">{escape(cell)}</{tag}>' for cell in cells)

    body = "".join(f"<tr>{row(cells[:1], 'th')}{row(cells[1:], 'td')}</tr>" for cells in rows[1:])
    return (
        f'<table><caption style="text-align:left">{escape(caption)}</caption>'
        f"<thead><tr>{row(rows[0], 'th')}</tr></thead><tbody>{body}</tbody></table>"
    )

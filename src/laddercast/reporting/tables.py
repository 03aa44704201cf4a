"""The tables of a report: texts to read, with the numbers that they sort by."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from laddercast.data import words as c
from laddercast.data.sizes import flops
from laddercast.data.writing import STYLES, Style, short_number
from laddercast.evaluation.backtests import (
    ALL_FOLDS,
    OURS,
    RIVALS,
    score_backtest,
    without_lone_pool,
)
from laddercast.inference.results import routes_of
from laddercast.reporting.words import (
    RIVAL_NAMES,
    backtest_legend,
    backtest_sentences,
    parsed,
)

SHOWN_LEVELS = (80, 50, 95)
"""The interval that decides comes first: a phone shows no more of them at once."""

DASH, DAGGER = "-", "\N{DAGGER}"
"""What is not known; a fit that did not converge."""


class Head(NamedTuple):
    """A column's heading; numbers stand to the right."""

    text: str
    number: bool


class Cell(NamedTuple):
    """What is shown, and the number to sort by (None: the text)."""

    text: str
    value: float | None = None


class Table(NamedTuple):
    """A table of the page."""

    caption: str
    head: list[Head]
    rows: list[list[Cell]]


def intervals(caption: str, table: pd.DataFrame, style: Style, notes: Sequence[str] = ()) -> Table:
    """Median and intervals of a quantity, what was measured where any was, and a note a row."""
    several = (table[c.TASK] != c.ALL).any()
    measured = table["measured"].notna().any()
    head = [Head("target", False), *([Head("task", False)] if several else [])]
    head += [Head("median", True), *(Head(f"{level} % interval", True) for level in SHOWN_LEVELS)]
    head += [Head("measured", True)] if measured else []
    head += [Head("note", False)] if any(notes) else []
    rows = []
    for number, row in enumerate(table.to_dict("records")):
        cells = [Cell(str(row[c.MODEL])), *([Cell(str(row[c.TASK]))] if several else [])]
        cells.append(_value_of(row["q50"], style))
        for low, high in (c.INTERVALS[level] for level in SHOWN_LEVELS):
            text = f"{style.value(row[low])} to {style.value(row[high])}"
            # Sorted by width: the lower ends would sort much as the medians do.
            cells.append(Cell(text, _value(row[high] - row[low])))
        cells += [_value_of(row["measured"], style)] if measured else []
        cells += [Cell(notes[number])] if any(notes) else []
        rows.append(cells)
    return Table(f"{caption} (intervals sort by width)", head, rows)


def scores(caption: str, table: pd.DataFrame, first: Sequence[str]) -> Table:
    """Scores as `score` gives them, of accuracy where there are any, after the columns `first`."""
    quantity = c.main_quantity(table)
    style = STYLES[quantity]
    unit = f",{style.of_errors}" if style.of_errors else ""
    form = f".{style.error_digits}f"
    names = {
        "cells": ("cells", ".0f", 1), "error": (f"mean error{unit}", form, 1),
        "crps": (f"CRPS{unit}", form, 1), "cover50": ("in 50 %, %", ".0f", 100),
        "cover80": ("in 80 %, %", ".0f", 100), "cover95": ("in 95 %, %", ".0f", 100),
        "width80": (f"80 % width{unit}", f".{style.digits}f", 1),
        "laddercast_error": ("our error there", form, 1),
    }  # fmt: skip
    names = {name: how for name, how in names.items() if name in table}
    head = [Head(word, False) for word in first]
    head += [Head(text, True) for text, _, _ in names.values()]
    shown = table[table["quantity"] == quantity]
    rows = [
        [
            *(Cell(str(row[word])) for word in first),
            *(_number(factor * row[name], form) for name, (_, form, factor) in names.items()),
        ]
        for row in shown.to_dict("records")
    ]
    return Table(caption, head, rows)


def doubts(table: pd.DataFrame, found: pd.DataFrame, style: Style) -> Table:
    """Forecasts with doubts, those with the most first, then the widest."""
    rows = []
    for row in table.to_dict("records"):
        own = _own(found, row)
        if own:
            width = row["q90"] - row["q10"]
            names = [str(row[c.MODEL]), str(row[c.TASK])]
            rows.append((len(own), width, [Cell(name) for name in names], ", ".join(own)))
    rows.sort(key=lambda row: (-row[0], -row[1]))
    unit = f",{style.of_errors}" if style.of_errors else ""
    head = [Head("target", False), Head("task", False), Head("doubts of its own", False)]
    head += [Head(f"80 % width{unit}", True)]
    return Table(
        "Forecasts with doubts of their own, the most doubtful first",
        head,
        [[*names, Cell(which), _value_of(width, style)] for _, width, names, which in rows],
    )


def variance(forecast: xr.DataTree, shares: pd.DataFrame) -> Table:
    """Shares of the sources of each row's variance, and its SD."""
    coords = forecast["predictions"]
    total = forecast["variance"]["total"].to_numpy()
    head = [Head("target", False), Head("task", False), Head("SD, points", True)]
    head += [Head(f"{source}, %", True) for source in shares]
    rows = [
        [
            Cell(str(model)), Cell(str(task)), _number(np.sqrt(value), ".1f"),
            *(_number(100 * share, ".0f") for share in row),
        ]
        for model, task, value, row in zip(
            coords[c.MODEL].to_numpy(), coords[c.TASK].to_numpy(), total, shares.to_numpy(),
            strict=True,
        )
    ]  # fmt: skip
    return Table("Sources of the variance of each accuracy forecast", head, rows)


def convergence(table: pd.DataFrame, quality: pd.DataFrame) -> Table:
    """R-hat and effective sample sizes of each forecast."""
    head = [Head("target", False), Head("task", False), Head("R-hat", True)]
    head += [Head("bulk ESS", True), Head("tail ESS", True)]
    rows = [
        [
            Cell(str(row[c.MODEL])), Cell(str(row[c.TASK])), _number(own["rhat"], ".3f"),
            _number(own["bulk"], ",.0f"), _number(own["tail"], ",.0f"),
        ]
        for row, own in zip(table.to_dict("records"), quality.to_dict("records"), strict=True)
    ]  # fmt: skip
    return Table("Convergence of each forecast", head, rows)


def rungs(table: pd.DataFrame, targets: pd.DataFrame) -> Table:
    """Sizes of the rungs, then of the targets."""
    head = [Head("model", False), Head("is a", False), Head("params", True), Head("tokens", True)]
    head += [Head("tokens per parameter", True), Head("FLOPs", True)]
    rows = []
    for what, part in (("rung", table), ("target", targets)):
        for name, row in part.sort_values([c.PARAMS, c.TOKENS]).iterrows():
            params, tokens = row[c.PARAMS], row[c.TOKENS]
            rows.append(
                [
                    Cell(str(name)), Cell(what), Cell(short_number(params), _value(params)),
                    Cell(short_number(tokens), _value(tokens)), _number(tokens / params, ",.0f"),
                    _number(flops(params, tokens), ".2g"),
                ]
            )  # fmt: skip
    return Table("Models: what was fitted, and what is forecast", head, rows)


def known(tasks: pd.DataFrame, expected: pd.DataFrame, style: Style) -> Table:
    """What is known of each task, and the range of the rungs."""
    head = [Head("task", False), Head("chance, %", True), Head("items", True)]
    unit = f",{style.unit}" if style.unit else ""
    head += [Head(f"lowest rung{unit}", True), Head(f"highest rung{unit}", True)]
    rows = []
    for task, row in tasks.iterrows():
        own = expected.loc[expected[c.TASK] == task, "q50"]
        rows.append(
            [
                Cell(str(task)), _number(100 * row[c.CHANCE], ".1f"),
                _number(row[c.ITEMS], ",.0f"), _value_of(own.min(), style),
                _value_of(own.max(), style),
            ]
        )  # fmt: skip
    return Table(f"Tasks, with the rungs' expected {style.plural} by this fit", head, rows)


ELSEWHERE = ("priors", "versions", "complaints", "converged", "suspicions")
EMPTY = ("", "{}", "[]", "null")


def settings(forecast: xr.DataTree) -> Table:
    """Seeds, fingerprint and the settings of the sampler, by route where these differ."""
    found = {str(name): value for name, value in forecast.attrs.items() if name not in ELSEWHERE}
    if found.get("route") == found.get("routes"):
        found.pop("route", None)
    each = {name: parsed(own.attrs, "settings") for name, own in routes_of(forecast).items()}
    for word in dict.fromkeys(word for own in each.values() for word in own):
        values = {f"{word}, {name}": own[word] for name, own in each.items() if word in own}
        first, *others = values.values()
        found |= values if any(other != first for other in others) else {word: first}
    texts = {name: _text(value) for name, value in found.items()}
    rows = [[Cell(name), Cell(text)] for name, text in texts.items() if text not in EMPTY]
    return Table("Settings", [Head("setting", False), Head("value", False)], rows)


def listed(caption: str, first: str, attrs: Mapping[Any, Any], word: str) -> Table:
    """The names and values of an attribute written as JSON."""
    rows = [[Cell(name), Cell(_text(value))] for name, value in parsed(attrs, word).items()]
    return Table(caption, [Head(first, False), Head("value", False)], rows)


def of_backtest(cells: pd.DataFrame, rungs: Sequence[str], decades: np.ndarray) -> dict[str, Any]:
    """Sentences and tables of a backtest: ours beside rivals, all scores of each, ours per task."""
    table = without_lone_pool(score_backtest(cells))
    table = table.assign(**{"held out": table["kind"] + ", " + table["distance"]})
    quantity = c.main_quantity(table)
    shown = table.replace({"method": RIVAL_NAMES})
    overall = shown[table[c.TASK] == c.ALL]
    by_task = shown[(table[c.TASK] != c.ALL) & (table["method"] == OURS)]
    return {
        "backtest": beside(cells[cells["quantity"] == quantity], table, quantity),
        "backtest_methods": scores(
            f"All scores of each method, {quantity}, all tasks", overall, ["held out", "method"]
        ),
        "backtest_tasks": scores(
            f"Scores of laddercast, {quantity}, per task",
            by_task.drop(columns="laddercast_error"),
            ["held out", c.TASK],
        ),
        "legend": backtest_legend(cells),
        "backtest_sentences": backtest_sentences(cells, rungs, decades),
    }


def beside(cells: pd.DataFrame, table: pd.DataFrame, quantity: str) -> Table:
    """A row for each kind and distance: what was held out, errors of all methods, our coverage.

    Of the interval that decides alone, so that it fits: the figure and all scores have the others.
    """
    style = STYLES[quantity]
    own = table[(table[c.TASK] == c.ALL) & (table["quantity"] == quantity)]
    rivals = [name for name in RIVALS if (own["method"] == name).any()]
    unit = f",{style.of_errors}" if style.of_errors else ""
    head = [Head("held out", False), Head(OURS, True)]
    head += [Head(RIVAL_NAMES.get(name, name), True) for name in rivals]
    head += [Head("in 80 %", True), Head(f"80 % width{unit}", True)]
    head += [Head("models", True), Head("decades beyond", True)]
    rows = []
    for row in own[own["method"] == OURS].to_dict("records"):
        kind, distance = row["kind"], row["distance"]
        here = cells[cells["distance"] == distance]
        here = here if kind == ALL_FOLDS else here[here["kind"] == kind]
        line = [Cell(row["held out"] + ("" if row["converged"] else f" {DAGGER}"))]
        line += [_number(row["error"], f".{style.error_digits}f")]
        of = own[(own["kind"] == kind) & (own["distance"] == distance)].set_index("method")
        for rival in rivals:
            known = rival in of.index
            error = of.loc[rival, "error"] if known else np.nan
            cell = _number(error, f".{style.error_digits}f")
            fewer = known and of.loc[rival, "cells"] < row["cells"]
            line.append(Cell(cell.text + "*" * int(fewer), cell.value))
        share = row["cover80"]
        inside = round(share * row["cells"])
        line.append(Cell(f"{inside} of {row['cells']:.0f}", _value(share)))
        line.append(_number(row["width80"], f".{style.digits}f"))
        # Inside the ladder is beyond it by nothing.
        line.append(_number(here[c.MODEL].nunique(), ".0f"))
        line.append(_number(max(here["decades"].max(), 0.0), ".1f"))
        rows.append(line)
    caption = (
        f"Backtest, {quantity}, all tasks: mean errors{unit and f' in{style.of_errors}'}, ours "
    )
    caption += "and of others; measurements inside our 80 % intervals"
    return Table(caption, head, rows)


def _own(found: pd.DataFrame, row: Mapping[Any, Any]) -> list[str]:
    here = (found[c.MODEL] == str(row[c.MODEL])) & (found[c.TASK] == str(row[c.TASK]))
    return list(found.loc[here, "rule"])


def _text(value: Any) -> str:
    plain = value.item() if isinstance(value, np.generic) else value
    return plain if isinstance(plain, str) else json.dumps(plain, default=str)


def _number(value: float, form: str) -> Cell:
    return Cell(DASH) if not np.isfinite(value) else Cell(f"{value:{form}}", _value(value))


def _value_of(value: float, style: Style) -> Cell:
    return _number(style.factor * value, f".{style.digits}f")


def _value(value: float) -> float:
    return float(f"{value:.9g}")

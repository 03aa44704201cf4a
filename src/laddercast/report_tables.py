"""The tables and sentences of a report: texts to read, with the numbers that they sort by."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from laddercast import columns as c
from laddercast.backtest import score_backtest
from laddercast.doubts import CURES, RULES, SOURCES
from laddercast.score import ALL

INTERVALS = (("80 %", "q10", "q90"), ("50 %", "q25", "q75"), ("95 %", "q025", "q975"))
"""The one that decides first: a phone shows no more of them at once."""

DASH = "-"


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


def title(targets: Sequence[str]) -> str:
    """What the page is of."""
    shown = list(targets[:3])
    if len(targets) > 3:
        shown.append(f"{len(targets) - 3} more")
    named = " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]
    return f"What will {named} score?"


def subtitle(rungs: pd.DataFrame, tasks: pd.DataFrame, attrs: Mapping[Any, Any]) -> str:
    """From what, by what."""
    version = _parsed(attrs, "versions").get("laddercast")
    by = f"laddercast {version}" if version else "laddercast"
    return (
        f"A forecast of {_count(len(tasks), 'task')} from {_count(len(rungs), 'rung')} of up to "
        f"{_figure(rungs[c.PARAMS].max())} parameters, by {by}."
    )


def headlines(average: pd.DataFrame, tasks: int, decades: np.ndarray) -> list[str]:
    """One sentence per target."""
    found = []
    for row, far in zip(average.to_dict("records"), decades, strict=True):
        where = (
            f"{far:.1f} decades of compute beyond the largest rung" if far > 0
            else "within the compute of the ladder"
        )  # fmt: skip
        found.append(
            f"{row[c.MODEL]} ({_figure(row[c.PARAMS])} parameters, {_figure(row[c.TOKENS])} "
            f"tokens, {where}): {_percent(row['q50'])} % on average over {_count(tasks, 'task')}; "
            f"with a probability of 80 % between {_percent(row['q10'])} and "
            f"{_percent(row['q90'])} %."
        )
    return found


def intervals(caption: str, table: pd.DataFrame) -> Table:
    """Median and intervals of accuracies, and what was measured where any was."""
    several = (table[c.TASK] != ALL).any()
    measured = table["measured"].notna().any()
    head = [Head("target", False), *([Head("task", False)] if several else [])]
    head += [Head("median", True), *(Head(f"{level} interval", True) for level, _, _ in INTERVALS)]
    head += [Head("measured", True)] if measured else []
    rows = []
    for row in table.to_dict("records"):
        cells = [Cell(str(row[c.MODEL])), *([Cell(str(row[c.TASK]))] if several else [])]
        cells.append(_number(100 * row["q50"], ".1f"))
        for _, low, high in INTERVALS:
            text = f"{_percent(row[low])} to {_percent(row[high])}"
            # By width: the lower end sorts much as the median does.
            cells.append(Cell(text, _value(row[high] - row[low])))
        cells += [_number(100 * row["measured"], ".1f")] if measured else []
        rows.append(cells)
    return Table(f"{caption} (intervals sort by width)", head, rows)


def scores(caption: str, table: pd.DataFrame, first: Sequence[str]) -> Table:
    """Scores of accuracy as `score` gives them, after the columns `first`."""
    names = {
        "cells": ("cells", ".0f", 1), "error": ("mean error, points", ".2f", 1),
        "crps": ("CRPS, points", ".2f", 1), "cover50": ("in 50 %, %", ".0f", 100),
        "cover80": ("in 80 %, %", ".0f", 100), "cover95": ("in 95 %, %", ".0f", 100),
        "width80": ("80 % width, points", ".1f", 1),
        "baseline_error": ("published method's error", ".2f", 1),
    }  # fmt: skip
    names = {name: how for name, how in names.items() if name in table}
    words = [*first, c.TASK]
    head = [Head(word, False) for word in words]
    head += [Head(text, True) for text, _, _ in names.values()]
    of_accuracy = table[table["quantity"] == c.ACCURACY]
    rows = [
        [
            *(Cell(str(row[word])) for word in words),
            *(_number(unit * row[name], form) for name, (_, form, unit) in names.items()),
        ]
        for row in of_accuracy.to_dict("records")
    ]
    return Table(caption, head, rows)


def score_sentence(table: pd.DataFrame) -> str:
    """The scores over all tasks in words."""
    row = table[(table["quantity"] == c.ACCURACY) & (table[c.TASK] == ALL)].iloc[0]
    return (
        f"{_count(int(row['cells']), 'accuracy', 'accuracies')} of these targets "
        f"{'was' if row['cells'] == 1 else 'were'} measured. The medians miss by "
        f"{row['error']:.2f} points on average; {_inside(row)}."
    )


def doubts(table: pd.DataFrame, found: pd.DataFrame) -> Table:
    """Forecasts with doubts, those with the most first, then the widest."""
    rows = []
    for row in table.to_dict("records"):
        own = _own(found, row)
        if own:
            width = 100 * (row["q90"] - row["q10"])
            names = [str(row[c.MODEL]), str(row[c.TASK])]
            rows.append((len(own), width, [Cell(name) for name in names], ", ".join(own)))
    rows.sort(key=lambda row: (-row[0], -row[1]))
    head = [Head("target", False), Head("task", False), Head("doubts", True)]
    head += [Head("80 % width, points", True), Head("which", False)]
    return Table(
        "Forecasts to doubt, the most doubtful first",
        head,
        [
            [*names, _number(count, ".0f"), _number(width, ".1f"), Cell(which)]
            for count, width, names, which in rows
        ],
    )


def doubt_sentence(table: pd.DataFrame, found: pd.DataFrame) -> str:
    """How many there are."""
    count = len(found[[c.MODEL, c.TASK]].drop_duplicates())
    return (
        f"At least one of the rules below speaks against {count} of {len(table)} forecasts. They "
        "are read from the draws and the ladder; their limits are reasons, not tuned numbers, and "
        "are given below."
    )


def reasons(table: pd.DataFrame, found: pd.DataFrame) -> list[dict[str, Any]]:
    """By rule, of whom it is said and why; what is said of all tasks of a target alike, once."""
    tasks = table.groupby(c.MODEL)[c.TASK].nunique()
    groups = []
    for rule in RULES:
        own = found[found["rule"] == rule]
        rows = []
        for (model, why), cells in own.groupby([c.MODEL, "why"], sort=False):
            every = len(cells) == tasks[model] > 1
            who = "all tasks" if every else ", ".join(cells[c.TASK])
            rows.append({"who": f"{model}, {who}", "why": why})
        if rows:
            groups.append({"rule": rule, "rows": rows, "count": len(own)})
    return groups


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


def variance_sentence(forecast: xr.DataTree, shares: pd.DataFrame) -> str:
    """Per target the source with the largest share on average, and what would narrow it."""
    if not len(shares):
        return ""
    models = forecast["predictions"][c.MODEL].to_numpy().astype(str)
    found = []
    for model, row in shares.groupby(models, sort=False).mean().iterrows():
        source = str(row.idxmax())
        cure = CURES.get(source)
        found.append(
            f"{model}: most ({row.max():.0%} on average over tasks) comes from "
            f"{SOURCES.get(source, source)}" + (f"; what would narrow it: {cure}." if cure else ".")
        )
    return " ".join(found)


def convergence(table: pd.DataFrame, quality: pd.DataFrame) -> Table:
    """R-hat and effective sample sizes of each accuracy forecast."""
    head = [Head("target", False), Head("task", False), Head("R-hat", True)]
    head += [Head("bulk ESS", True), Head("tail ESS", True)]
    rows = [
        [
            Cell(str(row[c.MODEL])), Cell(str(row[c.TASK])), _number(own["rhat"], ".3f"),
            _number(own["bulk"], ",.0f"), _number(own["tail"], ",.0f"),
        ]
        for row, own in zip(table.to_dict("records"), quality.to_dict("records"), strict=True)
    ]  # fmt: skip
    return Table("Convergence of each accuracy forecast", head, rows)


def convergence_sentence(fitted: xr.DataTree, forecast: xr.DataTree) -> str:
    """The verdicts of the fit and of the forecast, and the divergences."""
    found = []
    for what, tree in (("fit", fitted), ("forecast", forecast)):
        if tree.attrs.get("converged", 1):
            found.append(f"The {what} converged.")
        else:
            found.append(f"The {what} did not converge: {tree.attrs.get('complaints', '')}.")
    stats = [
        node["diverging"]
        for node in fitted.subtree
        if node.name == "sample_stats" and "diverging" in node
    ]
    if stats:
        count, draws = sum(int(part.sum()) for part in stats), sum(part.size for part in stats)
        found.append(f"{count} of {draws:,} transitions diverged.")
    return " ".join(found)


def data_sentence(rungs: pd.DataFrame, tasks: pd.DataFrame) -> str:
    """What the fit saw."""
    spent = (6 * rungs[c.PARAMS] * rungs[c.TOKENS]).sum()
    compute = np.log10(rungs[c.PARAMS] * rungs[c.TOKENS])
    return (
        f"The fit saw {_count(len(rungs), 'model')} on {_count(len(tasks), 'task')}: "
        f"{_figure(rungs[c.PARAMS].min())} to {_figure(rungs[c.PARAMS].max())} parameters, "
        f"{_figure(rungs[c.TOKENS].min())} to {_figure(rungs[c.TOKENS].max())} tokens, "
        f"{compute.max() - compute.min():.1f} decades of compute, {spent:.2g} FLOPs in all "
        "(6 x params x tokens)."
    )


def rungs(table: pd.DataFrame, targets: pd.DataFrame) -> Table:
    """Sizes of the rungs, then of the targets."""
    head = [Head("model", False), Head("", False), Head("params", True), Head("tokens", True)]
    head += [Head("tokens per parameter", True), Head("FLOPs", True)]
    rows = []
    for what, part in (("rung", table), ("target", targets)):
        for name, row in part.sort_values([c.PARAMS, c.TOKENS]).iterrows():
            params, tokens = row[c.PARAMS], row[c.TOKENS]
            rows.append(
                [
                    Cell(str(name)), Cell(what), Cell(_figure(params), _value(params)),
                    Cell(_figure(tokens), _value(tokens)), _number(tokens / params, ",.0f"),
                    _number(6 * params * tokens, ".2g"),
                ]
            )  # fmt: skip
    return Table("Models: what was fitted, and what is forecast", head, rows)


def known(tasks: pd.DataFrame, expected: pd.DataFrame) -> Table:
    """What is known of each task, and the range of the rungs."""
    head = [Head("task", False), Head("chance, %", True), Head("items", True)]
    head += [Head("lowest rung, %", True), Head("highest rung, %", True)]
    rows = []
    for task, row in tasks.iterrows():
        own = 100 * expected.loc[expected[c.TASK] == task, "q50"]
        rows.append(
            [
                Cell(str(task)), _number(100 * row[c.CHANCE], ".1f"),
                _number(row[c.ITEMS], ",.0f"), _number(own.min(), ".1f"),
                _number(own.max(), ".1f"),
            ]
        )  # fmt: skip
    return Table("Tasks, with the rungs' expected accuracies by this fit", head, rows)


ELSEWHERE = ("settings", "priors", "versions", "frame", "complaints", "converged")


def settings(attrs: Mapping[Any, Any]) -> Table:
    """Seeds, fingerprint and the settings of the sampler."""
    found = {str(name): value for name, value in attrs.items() if name not in ELSEWHERE}
    found |= _parsed(attrs, "settings")
    rows = [[Cell(name), Cell(_text(value))] for name, value in found.items()]
    return Table("Settings", [Head("setting", False), Head("value", False)], rows)


def listed(caption: str, first: str, attrs: Mapping[Any, Any], word: str) -> Table:
    """What an attribute, written as JSON, lists by name."""
    rows = [[Cell(name), Cell(_text(value))] for name, value in _parsed(attrs, word).items()]
    return Table(caption, [Head(first, False), Head("value", False)], rows)


def of_backtest(
    cells: pd.DataFrame, fitted_rungs: pd.DataFrame, decades: np.ndarray
) -> dict[str, Any]:
    """Sentences and tables of a backtest's scores."""
    table = score_backtest(cells)
    of_accuracy = table[table["quantity"] == c.ACCURACY]
    overall = of_accuracy[of_accuracy[c.TASK] == ALL]
    sentences = []
    for row in overall.to_dict("records"):
        held = set(cells.loc[cells["split"] == row["split"], c.MODEL].astype(str))
        text = (
            f"Held out: {row['split']} ({_count(len(held), 'model')}). The medians of "
            f"{_count(row['cells'], 'forecast')} missed by {row['error']:.2f} points on average"
        )
        if pd.notna(row["baseline_error"]):
            text += f" (published method: {row['baseline_error']:.2f})"
        text += f"; {_inside(row)}."
        far = _reach(held, fitted_rungs)
        if far is not None:
            text += f" It reached {far:.1f} decades of compute beyond the rungs that it kept."
        if not row["converged"]:
            text += " Its fit did not converge: do not rely on it."
        sentences.append(text)
    sentences.append(
        f"The targets of this report lie up to {max(decades.max(), 0):.1f} decades beyond the "
        "ladder: what held nearer by may not hold there. Forecasts of one model err together, so "
        "these shares are of fewer independent cells than their number says."
    )
    foreign = sorted(set(cells[c.MODEL].astype(str)) - set(fitted_rungs.index))
    if foreign:
        sentences.append(
            f"Another ladder: {', '.join(foreign[:3])}{' and more' if len(foreign) > 3 else ''} "
            f"{'is' if len(foreign) == 1 else 'are'} not among the rungs of this fit."
        )
    by_task = of_accuracy[of_accuracy[c.TASK] != ALL]
    return {
        "backtest": scores("Backtest, accuracy, all tasks", overall, ["split"]),
        "backtest_tasks": scores("Backtest, accuracy, per task", by_task, ["split"]),
        "backtest_sentences": sentences,
    }


def _reach(held: set[str], table: pd.DataFrame) -> float | None:
    """Decades of compute from the largest rung kept to the largest held out, if they are known."""
    compute = np.log10(table[c.PARAMS] * table[c.TOKENS])
    out = table.index.isin(held)
    if out.sum() < len(held) or out.all():
        return None
    return float(compute[out].max() - compute[~out].max())


def _inside(row: Mapping[Any, Any] | pd.Series) -> str:
    counts = [round(row[f"cover{level}"] * row["cells"]) for level in (50, 80, 95)]
    return (
        f"of {row['cells']} measurements {counts[0]}, {counts[1]} and {counts[2]} lay in the 50, "
        "80 and 95 % interval"
    )


def _own(found: pd.DataFrame, row: Mapping[Any, Any]) -> list[str]:
    here = (found[c.MODEL] == str(row[c.MODEL])) & (found[c.TASK] == str(row[c.TASK]))
    return list(found.loc[here, "rule"])


def _parsed(attrs: Mapping[Any, Any], word: str) -> dict[str, Any]:
    found = json.loads(attrs.get(word, "{}"))
    return found if isinstance(found, dict) else {word: found}


def _text(value: Any) -> str:
    plain = value.item() if isinstance(value, np.generic) else value
    return plain if isinstance(plain, str) else json.dumps(plain, default=str)


def _number(value: float, form: str) -> Cell:
    return Cell(DASH) if not np.isfinite(value) else Cell(f"{value:{form}}", _value(value))


def _value(value: float) -> float:
    return float(f"{value:.9g}")


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _figure(number: float) -> str:
    """Three digits and a letter: 1.28B."""
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * unit:
            return f"{number / unit:.3g}{letter}"
    return f"{number:.3g}"

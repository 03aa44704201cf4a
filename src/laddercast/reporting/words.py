"""The sentences of a report."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from laddercast.data import words as c
from laddercast.data.sizes import flops, log10_flops
from laddercast.data.writing import STYLES, Style, counted, short_number
from laddercast.evaluation.backtests import ALL_FOLDS, BASELINE, OURS
from laddercast.inference.results import converged
from laddercast.reporting.doubts import CURES, RULES, SOURCES

RIVAL_NAMES = {
    "baseline": "published",
    "bootstrap": "published, bootstrap",
    "best_rung": "same as best rung",
    "lowest_loss_rung": "same as lowest-loss rung",
}
"""What rivals are called; others by their name."""


def title(targets: Sequence[str]) -> str:
    """The page's title."""
    shown = list(targets[:3])
    if len(targets) > 3:
        shown.append(f"{len(targets) - 3} more")
    named = " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]
    return f"What will {named} score?"


def subtitle(rungs: pd.DataFrame, tasks: pd.DataFrame, attrs: Mapping[Any, Any]) -> str:
    """The extent of the ladder, and the version that made the forecast."""
    version = parsed(attrs, "versions").get("laddercast")
    by = f"laddercast {version}" if version else "laddercast"
    return (
        f"A forecast of {counted(len(tasks), 'task')} from {counted(len(rungs), 'rung')} of up to "
        f"{short_number(rungs[c.PARAMS].max())} parameters, by {by}."
    )


def headlines(
    table: pd.DataFrame, targets: pd.DataFrame, tasks: int, decades: np.ndarray, style: Style
) -> list[str]:
    """One sentence per target, whose only task or mean over tasks has a row of the table."""
    found = []
    rows = table.set_index(c.MODEL)
    for (name, size), far in zip(targets.iterrows(), decades, strict=True):
        where = (
            f"{far:.1f} decades of compute beyond the largest rung" if far > 0
            else "within the compute of the ladder"
        )  # fmt: skip
        text = (
            f"{name} ({short_number(size[c.PARAMS])} parameters, "
            f"{short_number(size[c.TOKENS])} tokens, {where})"
        )
        if name in rows.index:
            row = rows.loc[name]
            mean = row[c.TASK] == c.ALL
            of = f"on average over {counted(tasks, 'task')}" if mean else f"of {row[c.TASK]}"
            text += (
                f": {style.value(row['q50'])}{style.unit} {of}; "
                f"with a probability of 80 % between {style.value(row['q10'])} and "
                f"{style.value(row['q90'])}{style.unit}"
            )
        found.append(f"{text}.")
    return found


def score_sentence(table: pd.DataFrame) -> str:
    """The scores over all tasks in words."""
    row, quantity = c.overall(table).iloc[0], c.main_quantity(table)
    style = STYLES[quantity]
    return (
        f"{counted(int(row['cells']), quantity, style.plural)} of these targets "
        f"{'was' if row['cells'] == 1 else 'were'} measured. The medians miss by "
        f"{style.error(row['error'])}{style.of_errors} on average; {_inside(row)}."
    )


def doubt_sentence(table: pd.DataFrame, found: pd.DataFrame) -> str:
    """How many forecasts are doubted."""
    count = len(found[[c.MODEL, c.TASK]].drop_duplicates())
    return (
        f"At least one of the rules below speaks against {count} of {len(table)} forecasts. They "
        "are read from the draws and the ladder; their limits are reasons, not tuned numbers, and "
        "are given below."
    )


def reasons(table: pd.DataFrame, found: pd.DataFrame) -> list[dict[str, Any]]:
    """Per rule, the forecasts that it speaks against and why; all tasks of a target in one row."""
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


def convergence_sentence(fitted: xr.DataTree, forecast: xr.DataTree) -> str:
    """The verdicts of the fit and of the forecast, and the divergences."""
    found = []
    for what, tree in (("fit", fitted), ("forecast", forecast)):
        if (known := converged(tree)) is None:
            found.append(f"Whether the {what} converged, its file does not say.")
        elif known:
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
    spent = flops(rungs[c.PARAMS], rungs[c.TOKENS]).sum()
    decades = np.ptp(log10_flops(rungs))
    sizes = {
        word: f"{short_number(rungs[word].min())} to {short_number(rungs[word].max())}"
        for word in (c.PARAMS, c.TOKENS)
    }
    return (
        f"The fit saw {counted(len(rungs), 'model')} on {counted(len(tasks), 'task')}: "
        f"{sizes[c.PARAMS]} parameters, {sizes[c.TOKENS]} tokens, "
        f"{decades:.1f} decades of compute, {spent:.2g} FLOPs in all "
        "(6 x params x tokens)."
    )


def backtest_sentences(
    cells: pd.DataFrame, scores: pd.DataFrame, rungs: Sequence[str], decades: np.ndarray
) -> list[str]:
    """The scores by kind and distance, and how far the targets lie beyond, at `decades`."""
    overall, quantity = c.overall(scores), c.main_quantity(scores)
    style = STYLES[quantity]
    points = overall[overall["method"] == BASELINE].set_index(["kind", "distance"])
    sentences = []
    for row in overall[overall["method"] == OURS].to_dict("records"):
        key = (row["kind"], row["distance"])
        here = (cells["distance"] == key[1]) & (cells["quantity"] == quantity)
        here &= (cells["kind"] == key[0]) | (key[0] == ALL_FOLDS)
        text = (
            f"Held out: {key[0]}, {key[1]} ({counted(cells.loc[here, c.MODEL].nunique(), 'model')} "
            f"in {counted(len(cells.loc[here, ['kind', 'fold']].drop_duplicates()), 'fold')}). "
            f"The medians of {counted(row['cells'], 'forecast')} missed by "
            f"{style.error(row['error'])}{style.of_errors} on average"
        )
        if key in points.index:
            text += f" ({_published(points.loc[key], row['cells'], style)})"
        text += f"; {_inside(row)}. {_reach(cells.loc[here, 'decades'])}"
        if not row["converged"]:
            text += " A fit did not converge: do not rely on it."
        sentences.append(text)
    sentences.append(
        f"The targets of this report lie up to {max(decades.max(), 0):.1f} decades beyond the "
        "ladder: what held nearer by may not hold there. Forecasts of one model err together, and "
        "a model may be held out of several folds, so these shares are of fewer independent cells "
        "than their number says."
    )
    foreign = sorted(set(cells[c.MODEL].astype(str)) - set(rungs))
    if foreign:
        sentences.append(
            f"Another ladder: {', '.join(foreign[:3])}{' and more' if len(foreign) > 3 else ''} "
            f"{'is' if len(foreign) == 1 else 'are'} not among the rungs of this fit."
        )
    return sentences


def _published(row: pd.Series, cells: int, style: Style) -> str:
    """The published method's error, and ours on the same cells where it lacks some."""
    if row["cells"] == cells:
        return f"published method: {style.error(row['error'])}"
    return (
        f"published method, which gives {row['cells']} of them: {style.error(row['error'])}, "
        f"laddercast there: {style.error(row['laddercast_error'])}"
    )


def _reach(decades: pd.Series) -> str:
    if decades.max() <= 0:
        return "They lie within the compute of the rungs that were kept."
    return f"They reach {decades.max():.1f} decades of compute beyond the rungs that were kept."


def _inside(row: Mapping[Any, Any] | pd.Series) -> str:
    counts = [round(row[f"cover{level}"] * row["cells"]) for level in c.INTERVALS]
    return (
        f"of {row['cells']} measurements {counts[0]}, {counts[1]} and {counts[2]} lay in the 50, "
        "80 and 95 % interval"
    )


def parsed(attrs: Mapping[Any, Any], word: str) -> dict[str, Any]:
    """An attribute written as JSON, by name."""
    found = json.loads(attrs.get(word, "{}"))
    return found if isinstance(found, dict) else {word: found}

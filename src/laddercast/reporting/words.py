"""The sentences of a report."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from laddercast.data import words as c
from laddercast.data.sizes import flops, log10_flops
from laddercast.data.writing import STYLES, counted, listed, short_number
from laddercast.decisions.questions import Headline, gain
from laddercast.evaluation.backtests import ALL_FOLDS, FAR
from laddercast.inference.results import converged
from laddercast.reporting.doubts import CURES, RULES, SOURCES, likely

RIVAL_NAMES = {
    "baseline": "published",
    "bootstrap": "published, bootstrap",
    "best_rung": "same as best rung",
    "lowest_loss_rung": "same as lowest-loss rung",
}
"""What rivals are called; others by their name."""

KIND_WORDS = {
    "sizes": "all rungs above a size, from those up to it",
    "lengths": "all rungs with more tokens per parameter than some, from the others",
    "one-size": "all rungs of one size, from the others",
    "one-task": "one task of the larger rungs, from its smaller ones and the other tasks",
    "reruns": "second runs of a rung, from the others",
    "largest-size": "the rungs of the largest size, from the others",
    "longest-runs": "the rungs of the longer lengths, from the others",
    "named": "the rungs that were named, from the others",
    ALL_FOLDS: "all folds together",
}
"""What each kind of folds holds out."""

DISTANCE_WORDS = {
    "inside": "no more parameters, tokens per parameter or compute than the rungs that were kept",
    "near": f"beyond them in one of these, and by less than {FAR:g} decade of compute",
    "far": f"beyond them, by {FAR:g} decade of compute or more",
}
"""What a backtest calls the distance of a forecast."""

LEADING = 3
"""Of more targets than this, no more are compared with each other."""


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


def answers(found: Sequence[Headline], targets: pd.DataFrame) -> list[dict[str, str]]:
    """Of each target: `name`, `size`, `value`, what that is of, its `interval` and its `gain`.

    Without headlines, as of losses of several tasks, names and sizes alone.
    """
    by_name = {own.model: own for own in found}
    shown = []
    for name, size in targets.iterrows():
        sizes = f"{short_number(size[c.PARAMS])} parameters, {short_number(size[c.TOKENS])} tokens"
        answer = {"name": str(name), "size": sizes, "value": ""}
        if str(name) in by_name:
            answer |= _answer(by_name[str(name)])
        shown.append(answer)
    return shown


def _answer(own: Headline) -> dict[str, str]:
    style = STYLES[own.quantity]
    what = f"{own.quantity} of {own.task}"
    if own.task == c.ALL:
        what = f"mean {own.quantity} over {counted(own.tasks, 'task')}"
    told = {
        "value": f"{style.value(own.q50)}{style.unit}",
        "what": what,
        "interval": f"{style.value(own.q10)} to {style.value(own.q90)}{style.unit}",
        "gain": "",
        "over": "No rung has all tasks, so that none is the best.",
    }
    if own.rung:
        low, middle, high = (
            _signed(x, own.quantity) for x in (own.gain_q10, own.gain_q50, own.gain_q90)
        )
        told["gain"] = f"{middle}{style.of_errors}"
        told["over"] = (
            f"({low} to {high}) over today's best rung, {own.rung} "
            f"({style.value(own.rung_value)}{style.unit}); better with a probability of "
            f"{likely(own.probability)}"
        )
    return told


def _signed(value: float, quantity: str) -> str:
    """A gain: above 0 where the target is better."""
    style = STYLES[quantity]
    return f"{style.factor * value:+.{style.digits}f}".replace("-", "\N{MINUS SIGN}")


def comparisons(forecast: xr.DataTree, found: Sequence[Headline]) -> list[str]:
    """How much better each of the leading targets is than the next one."""
    if len(found) < 2:
        return []
    lower = found[0].quantity == c.LOSS
    ranked = sorted(found, key=lambda own: own.q50 if lower else -own.q50)
    task, style, sentences = found[0].task, STYLES[found[0].quantity], []
    for first, second in pairwise(ranked[:LEADING]):
        table = gain(forecast, second.model, task=task).set_index(c.MODEL)
        row = table.loc[first.model]
        middle, low, high = (_signed(row[word], first.quantity) for word in ("q50", "q10", "q90"))
        sentences.append(
            f"{first.model} against {second.model}: {middle}{style.of_errors} ({low} to {high}); "
            f"better with a probability of {likely(row['probability'])}."
        )
    return sentences


def trust(found: Sequence[Headline], decades: np.ndarray, span: float, converged: bool) -> str:
    """One line on how far to believe it."""
    parts = ["the draws converged" if converged else "THE DRAWS DID NOT CONVERGE"]
    own = found[0] if found else None
    if own is not None and own.cells:
        style = STYLES[own.quantity]
        parts.append(
            f"held out of your own rungs, {round(own.inside80 * own.cells)} of "
            f"{counted(own.cells, 'measurement')} lay in their 80 % intervals, "
            f"{style.error(own.error)}{style.of_errors} off the median on average"
        )
    else:
        parts.append("not tested on your own rungs (no backtest)")
    far = float(decades.max())
    parts.append(
        f"the targets lie up to {far:.1f} decades of compute beyond the ladder, which spans "
        f"{span:.1f}"
        if far > 0
        else "the targets lie within the compute of the ladder"
    )
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def chance_sentence(rows: pd.DataFrame, leaving: pd.Series) -> str:
    """Of tasks of which the rungs tell nothing, how likely each target leaves chance."""
    found = []
    for task in dict.fromkeys(rows.loc[leaving.notna(), c.TASK]):
        here = rows[c.TASK] == task
        each = [
            f"{model} {likely(share)}"
            for model, share in zip(rows.loc[here, c.MODEL], leaving[here], strict=True)
        ]
        found.append(f"{task} ({listed(each, 4)})")
    if not found:
        return ""
    return (
        f"Near chance on all rungs, so that they tell nearly nothing of it: {listed(found, 6)}; in "
        "brackets the probability that the target leaves chance."
    )


def chance_notes(leaving: pd.Series) -> list[str]:
    """A note on each forecast of a task of which the rungs tell nothing; else none."""
    return [
        "" if np.isnan(share) else f"near chance; leaves it with a probability of {likely(share)}"
        for share in leaving
    ]


def score_sentence(table: pd.DataFrame) -> str:
    """The scores over all tasks in words."""
    row, quantity = c.overall(table).iloc[0], c.main_quantity(table)
    style = STYLES[quantity]
    return (
        f"{counted(int(row['cells']), quantity, style.plural)} of these targets "
        f"{'was' if row['cells'] == 1 else 'were'} measured. The medians miss by "
        f"{style.error(row['error'])}{style.of_errors} on average; {_inside(row)}."
    )


def common_doubts(common: pd.DataFrame) -> list[str]:
    """What is true of every forecast, or of all those of a target, as `split_doubts` finds it."""
    sentences = []
    for row in common.to_dict("records"):
        who = f"All forecasts of {row[c.MODEL]} have" if row[c.MODEL] else "Every forecast has"
        meant = RULES[row["rule"]].split(". ")[0].removesuffix(".")
        sentences.append(f'{who} the doubt "{row["rule"]}": {meant[0].lower()}{meant[1:]}.')
    return sentences


def doubt_sentence(table: pd.DataFrame, apart: pd.DataFrame) -> str:
    """How many forecasts have doubts of their own."""
    count = len(apart[[c.MODEL, c.TASK]].drop_duplicates())
    if not count:
        return "No other rule tells one forecast from another."
    return f"{count} of {len(table)} forecasts have doubts of their own:"


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
            groups.append({"rule": rule, "text": RULES[rule], "rows": rows, "count": len(own)})
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
        part = "most" if row.max() > 0.5 else "the largest part"
        found.append(
            f"{model}: {part} ({100 * row.max():.0f} % on average over tasks) comes from "
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


def backtest_legend(cells: pd.DataFrame) -> dict[str, str]:
    """What the kinds of folds and the distances of a backtest's table mean."""
    known = KIND_WORDS | DISTANCE_WORDS
    used = [*dict.fromkeys(cells["kind"]), *dict.fromkeys(cells["distance"])]
    found = {word: known[word] for word in used if word in known}
    return found | ({ALL_FOLDS: KIND_WORDS[ALL_FOLDS]} if len(set(cells["kind"])) > 1 else {})


def backtest_sentences(cells: pd.DataFrame, rungs: Sequence[str], decades: np.ndarray) -> list[str]:
    """How far the targets lie beyond, at `decades`, and whose rungs the backtest is of."""
    sentences = []
    sentences.append(
        f"The targets of this report lie up to {max(decades.max(), 0):.1f} decades beyond the "
        "ladder: what held nearer by may not hold there. Forecasts of one model err together, and "
        "a model may be held out of several folds, so these shares are of fewer independent cells "
        "than their number says."
    )
    foreign = sorted(set(cells[c.MODEL].astype(str)) - set(rungs))
    if foreign:
        sentences.append(
            f"Another ladder: {listed(foreign, 3)} {'is' if len(foreign) == 1 else 'are'} not "
            "among the rungs of this fit."
        )
    return sentences


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

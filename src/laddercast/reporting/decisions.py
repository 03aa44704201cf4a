"""The report's section of decisions: which recipe, which rung next, how large and how long."""

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import xarray as xr

from laddercast.data import words as c
from laddercast.data.writing import STYLES, percent, short_number
from laddercast.decisions.answers import (
    CAUTION,
    allocation_sentences,
    chosen_rungs,
    goal_sentence,
    plan_sentence,
    prices,
    unit_of,
)
from laddercast.decisions.files import FINGERPRINT, read_comparison, read_decision, read_goal
from laddercast.decisions.recipes import RecipeComparison
from laddercast.reporting import figures
from laddercast.reporting.tables import Cell, Head, Table


class Decisions(NamedTuple):
    """What was decided from the ladder of a forecast, as far as it was.

    `plan` as `plan_rungs` gives it, `allocation` as `allocate`, `goal` as `flops_for`.
    """

    comparison: RecipeComparison | None = None
    plan: pd.DataFrame | None = None
    allocation: pd.DataFrame | None = None
    goal: pd.Series | None = None


class Decision(NamedTuple):
    """One of them on the page; `figure` is SVG, and empty where there is none."""

    title: str
    sentences: list[str]
    figure: str
    caption: str
    tables: list[Table]


def read_decisions(folder: str | Path, forecast: xr.DataTree) -> Decisions:
    """What `compare`, `plan` and `allocate` wrote into the folder of a forecast."""
    return Decisions(
        read_comparison(folder, forecast),
        read_decision(folder, "plan"),
        read_decision(folder, "allocation"),
        read_goal(folder),
    )


def decisions_of(
    found: Decisions, rungs: pd.DataFrame, targets: pd.DataFrame, fingerprint: str
) -> list[Decision]:
    """Those that there are, in the order in which they are asked."""
    parts: list[tuple[Any, Decision]] = []
    if found.comparison is not None:
        parts.append((found.comparison, _of_recipes(found.comparison)))
    if found.plan is not None:
        parts.append((found.plan, _of_plan(found.plan, rungs, targets)))
    if found.allocation is not None or found.goal is not None:
        given = found.goal if found.allocation is None else found.allocation
        parts.append((given, _of_allocation(found.allocation, found.goal)))
    for given, part in parts:
        attrs = getattr(given, "attrs", {})
        if attrs.get(FINGERPRINT, fingerprint) != fingerprint:
            part.sentences.append(
                "Made from another ladder than this forecast, as where its largest rungs were held "
                "out: their fingerprints differ."
            )
        if not attrs.get("converged", 1):
            part.sentences.append("ITS FIT DID NOT CONVERGE: do not rely on it.")
    return [part for _, part in parts]


def _of_recipes(found: RecipeComparison) -> Decision:
    whole = found.ranking[found.ranking[c.TASK] == c.ALL]
    several = len(whole[[c.PARAMS, c.TOKENS]].drop_duplicates()) > 1
    head = [Head(word, True) for word in (c.PARAMS, c.TOKENS)] if several else []
    head += [Head("rank", True), Head("recipe", False), Head("P(best), %", True)]
    head += [Head("regret, points", True)]
    rows = []
    for row in whole.to_dict("records"):
        scale = [Cell(short_number(row[word]), float(row[word])) for word in (c.PARAMS, c.TOKENS)]
        rows.append(
            [
                *(scale if several else []), _cell(row["rank"], "{:.0f}"),
                Cell(str(row[c.RECIPE])), Cell(percent(row["best"]), float(row["best"])),
                _cell(100 * row["regret"], "{:.2f}"),
            ]
        )  # fmt: skip
    sentences = [
        "On the mean over tasks. Recipes of one rank are tied: none is better with a probability "
        "of 90 %. Regret is what choosing a recipe loses on average to the best.",
        CAUTION,
    ]
    return Decision(
        "Which recipe?",
        sentences,
        figures.recipes_svg(found),
        "Above: how far each recipe lies behind the first on the mean over tasks. Below: the "
        "probability that no recipe is better, by task.",
        [Table("Recipes by rank, mean over tasks", head, rows)],
    )


def plan_table(plan: pd.DataFrame) -> Table:
    """The rungs chosen, in order, and the SD of the targets' forecast after each."""
    head = [Head("order", True), Head("params", True), Head("tokens", True)]
    head += [Head(f"SD then, {unit_of(plan.attrs['quantity'])}", True)]
    head += [Head("FLOPs", True), Head("spent", True)]
    rows = [
        [
            _cell(row["order"], "{:.0f}"),
            *(Cell(short_number(row[word]), float(row[word])) for word in (c.PARAMS, c.TOKENS)),
            # First what decides: a phone shows no more at once.
            _cell(row["sd"], "{:.2f}"),
            *(_cell(row[word], "{:.2e}") for word in (c.FLOPS, "spent")),
        ]
        for row in chosen_rungs(plan).to_dict("records")
    ]
    return Table("Models to train next", head, rows)


def allocation_table(table: pd.DataFrame) -> Table:
    """What the best size gets at the budget, and what sizes below and above it cost."""
    quantity = table.attrs["quantity"]
    style, unit = STYLES[quantity], unit_of(quantity)
    head = [Head("size", False), Head("params", True), Head("tokens", True)]
    head += [Head(f"{quantity}{style.unit and f', {style.unit.strip()}'}", True)]
    head += [Head("80 % of runs", True), Head(f"regret, {unit}", True), Head("90 % below", True)]
    rows = []
    for row in prices(table).to_dict("records"):
        low, middle, high = (row[f"{quantity}_{name}"] for name in ("q10", "q50", "q90"))
        rows.append(
            [
                Cell(f"{row['factor']:g} x best", row["factor"]),
                *(Cell(short_number(row[word]), float(row[word])) for word in (c.PARAMS, c.TOKENS)),
                Cell(style.value(middle), float(middle)),
                Cell(f"{style.value(low)} to {style.value(high)}", float(high - low)),
                *(_cell(100 * row[f"regret_{name}"], "{:.2f}") for name in ("q50", "q90")),
            ]
        )
    return Table("What other sizes cost", head, rows)


def _of_plan(plan: pd.DataFrame, rungs: pd.DataFrame, targets: pd.DataFrame) -> Decision:
    table = plan_table(plan)
    sentences = [
        f"{_upper(plan_sentence(plan))}. A budget of {plan.attrs['budget']:.2g} FLOPs buys the "
        "models below, in this order."
    ]
    return Decision(
        "Which rung next?",
        sentences if table.rows else [f"{_upper(plan_sentence(plan))}."],
        figures.plan_svg(plan, rungs, targets),
        "Above: candidates, and by number those to train. Below: what they leave of the "
        "uncertainty of the targets' forecast.",
        [table] if table.rows else [],
    )


def _of_allocation(table: pd.DataFrame | None, goal: pd.Series | None) -> Decision:
    sentences = [f"{_upper(goal_sentence(goal))}."] if goal is not None else []
    if table is None:
        return Decision("How large, how long?", sentences, "", "", [])
    served = table.attrs["tokens_served"]
    more = f", with {short_number(served)} tokens served" if served else ""
    first, *others = allocation_sentences(table)
    sentences.append(f"At {table.attrs['budget']:.3g} FLOPs{more}: {first}.")
    sentences[-1] += "".join(f" {_upper(text)}." for text in others)
    shaded = "; shaded are sizes as good as the best" if table["in_set"].any() else ""
    return Decision(
        "How large, how long?",
        sentences,
        figures.allocation_svg(table),
        f"Above: how much worse each size is than the best, at one budget{shaded}. Below: what one "
        "run of each would get.",
        [allocation_table(table)],
    )


def _upper(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"


def _cell(value: float, form: str) -> Cell:
    return Cell("-") if pd.isna(value) else Cell(form.format(value), float(f"{value:.9g}"))

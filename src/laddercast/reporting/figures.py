"""The figures of a report, as SVG text to stand inside a page; narrow, for phones."""

import re
from collections.abc import Callable
from io import StringIO
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from laddercast.data import words as c
from laddercast.data.sizes import flops
from laddercast.data.writing import short_number
from laddercast.decisions.recipes import RecipeComparison
from laddercast.plots.allocation import plot_allocation
from laddercast.plots.calibration import plot_calibration
from laddercast.plots.intervals import plot_forecast
from laddercast.plots.recipes import plot_recipes
from laddercast.plots.rungs import plot_plan
from laddercast.plots.style import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    SMALL,
    VERMILION,
    draw_equal_compute,
    literal,
)
from laddercast.reporting.doubts import SOURCES, variance_shares

NARROW = 4.8
"""Inches: at the width of a phone, letters of 8 points stay legible."""

COLOURS = {"law": BLUE, "discrepancy": VERMILION, "run": ORANGE, "checkpoint": SKY, "route": GREEN}

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "laddercast",
    "svg.fonttype": "path",  # the same on every machine
    "text.parse_math": False,  # a name with two dollar signs is a name
    "font.size": 9,
}


def forecast_svg(forecast: xr.DataTree, baseline: pd.DataFrame | None) -> str:
    """`plot_forecast` with its legend below."""
    predictions = forecast["predictions"]
    targets, tasks = (len(set(predictions[w].to_numpy().astype(str))) for w in (c.MODEL, c.TASK))

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        plot_forecast(forecast, baseline, ax=ax)
        _move_legend(figure, ax)

    return _svg("forecast", 1.2 + tasks * (0.16 + 0.2 * targets) + 0.2 * targets, draw)


def variance_svg(forecast: xr.DataTree) -> str:
    """Share of each source in the variance of each accuracy forecast, as stacked bars."""
    shares = variance_shares(forecast)
    predictions = forecast["predictions"]
    models, tasks = (predictions[word].to_numpy().astype(str) for word in (c.MODEL, c.TASK))

    def draw(figure: Figure) -> None:
        names = list(dict.fromkeys(models))
        axes = figure.subplots(len(names), sharex=True, squeeze=False)[:, 0]
        rest = iter([PURPLE, "0.5", "0.3", "0.7"])
        colours = {name: COLOURS.get(name) or next(rest, "0.8") for name in shares}
        for ax, name in zip(axes, names, strict=True):
            here = models == name
            left = np.zeros(here.sum())
            for source, colour in colours.items():
                values = 100 * shares.loc[here, source].to_numpy()
                ax.barh(range(len(values)), values, left=left, color=colour, height=0.75)
                left += values
            ax.set_yticks(range(len(left)), list(map(literal, tasks[here])), fontsize=SMALL)
            ax.set_ylim(len(left) - 0.5, -0.5)
            ax.set_xlim(0, 100)
            ax.set_title(literal(name), fontsize=SMALL + 1, loc="left")
        axes[-1].set_xlabel("share of the forecast's variance (%)")
        handles = [
            mpl.patches.Patch(color=colour, label=SOURCES.get(source, source))
            for source, colour in colours.items()
        ]
        figure.legend(
            handles=handles, loc="outside lower left", fontsize=SMALL, frameon=False, ncols=1
        )

    count = len(set(models))
    height = 0.5 + 0.2 * len(shares.columns) + 0.4 * count + 0.19 * len(models)
    return _svg("variance", height, draw)


def ladder_svg(rungs: pd.DataFrame, targets: pd.DataFrame) -> str:
    """Where rungs and targets lie: params against tokens, with lines of equal compute."""

    def draw(figure: Figure) -> None:
        ax = figure.subplots()
        every = pd.concat([rungs, targets])
        x, y = (every[word].to_numpy(float) for word in (c.PARAMS, c.TOKENS))
        compute = flops(x, y)
        wide = [x.min() / 4, x.max() * 3]  # compute is written on the left
        for power in draw_equal_compute(ax, np.array(wide), compute.min(), compute.max()):
            at = 10.0**power / flops(wide[0], 1)
            if y.min() / 2 < at < y.max() * 2:
                ax.text(
                    wide[0] * 1.05, at, f"1e{power} FLOPs", fontsize=7, color="0.5", va="bottom"
                )
        ax.plot(rungs[c.PARAMS], rungs[c.TOKENS], "o", ms=5, color=BLUE, label="rungs")
        ax.plot(targets[c.PARAMS], targets[c.TOKENS], "*", ms=11, color=VERMILION, label="targets")
        for number, (name, row) in enumerate(targets.iterrows()):
            # Above and below in turn: targets lie close together.
            ax.annotate(
                literal(name, 24), (row[c.PARAMS], row[c.TOKENS]),
                xytext=(-7, -11 if number % 2 == 0 else 4),
                textcoords="offset points", fontsize=SMALL, ha="right",
            )  # fmt: skip
        ax.set(xscale="log", yscale="log", xlim=wide, ylim=(y.min() / 2, y.max() * 2.5))
        for axis, word in ((ax.xaxis, "params (non-embedding)"), (ax.yaxis, c.TOKENS)):
            axis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
            axis.set_minor_formatter(NullFormatter())
            axis.set_label_text(word)
        ax.legend(loc="lower right", fontsize=SMALL)

    return _svg("ladder", 3.4, draw)


def recipes_svg(found: RecipeComparison) -> str:
    """`plot_recipes`, one panel above the other."""
    whole = found.ranking
    scales = len(whole[[c.PARAMS, c.TOKENS]].drop_duplicates())
    heights = (0.9 + 0.28 * whole[c.RECIPE].nunique(), 1.1 + 0.2 * whole[c.TASK].nunique())

    def draw(figure: Figure) -> None:
        ratios = list(heights) * scales
        plot_recipes(found, ax=figure.subplots(2 * scales, height_ratios=ratios, squeeze=False))

    return _svg("recipes", scales * sum(heights), draw)


def plan_svg(plan: pd.DataFrame, rungs: pd.DataFrame, targets: pd.DataFrame) -> str:
    """`plot_plan`, one panel above the other."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots(2, height_ratios=(1.4, 1))
        plot_plan(plan, rungs, targets, ax=axes)
        _move_legend(figure, axes[-1])

    return _svg("plan", 6.6, draw)


def allocation_svg(table: pd.DataFrame) -> str:
    """`plot_allocation`, one panel above the other."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots(2)
        plot_allocation(table, ax=axes)
        _move_legend(figure, axes[-1])

    return _svg("allocation", 6.8, draw)


def calibration_svg(cells: pd.DataFrame) -> str:
    """`plot_calibration` of the accuracies, else losses, one panel above the other."""
    cells = cells[cells["quantity"] == c.main_quantity(cells)]

    def draw(figure: Figure) -> None:
        axes = figure.subplots(3)
        plot_calibration(cells, ax=axes)
        _move_legend(figure, axes[-1])

    return _svg("calibration", 8.4, draw)


def _move_legend(figure: Figure, ax: Axes) -> None:
    legend = ax.get_legend()
    if legend is None:
        return
    handles = legend.legend_handles
    legend.remove()
    figure.legend(
        handles=[handle for handle in handles if handle is not None],
        loc="outside lower center", fontsize=SMALL, frameon=False, ncols=2,
    )  # fmt: skip


def _svg(name: str, height: float, draw: Callable[[Figure], Any]) -> str:
    """An `svg` element alone, the same for the same figure; ids begin with `name`."""
    with mpl.rc_context(STYLE):
        # Not from pyplot: nothing to close, and no window.
        figure = Figure(figsize=(NARROW, height), layout="constrained")
        draw(figure)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    found = text.getvalue()
    found = found[found.index("<svg") :]
    found = re.sub(r"<metadata>.*?</metadata>\s*", "", found, flags=re.DOTALL)
    found = re.sub(r"<!--.*?-->\s*", "", found, flags=re.DOTALL)
    for before in ('id="', 'href="#', "url(#"):
        found = found.replace(before, f"{before}{name}-")
    # The page sets the size; the view box keeps the proportions.
    return re.sub(r'<svg ([^>]*?)height="[^"]*"([^>]*?)width="[^"]*"', r"<svg \1\2", found, count=1)

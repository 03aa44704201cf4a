"""Whether a backtest's intervals mean what they say."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from laddercast.data import words as c
from laddercast.evaluation.backtests import check_backtest
from laddercast.plots.style import (
    BLUE,
    GREEN,
    SMALL,
    VERMILION,
    Panels,
    add_legend,
    line_handle,
    panels_of,
)

DISTANCE_COLOURS = {"inside": GREEN, "near": BLUE, "far": VERMILION, "all": BLUE}
ERROR_LINES = {"error": ("our mean", "-"), "baseline_error": ("published", "--"),
          "best_rung_error": ("same as the best rung", ":")}  # fmt: skip


def plot_calibration(table: pd.DataFrame, ax: Any = None) -> Panels:
    """Whether a backtest's intervals mean what they say, cells near the ladder and far apart.

    `table` as `backtest` gives it; one row of panels per quantity. Coverage by level: calibrated
    forecasts follow the diagonal. Histogram of PIT: it is flat then. Absolute error by the distance
    extrapolated, where the table has `decades`: cells, and means over half decades, also of what
    else was forecast. Errors of one model's cells are correlated, so departures say less than the
    number of cells suggests.

    >>> axes = lc.plot_calibration(table)
    """
    check_backtest(table)
    if "distance" not in table:
        table = table.assign(distance="all")
    quantities = [q for q in (c.ACCURACY, c.LOSS) if table.loc[table["quantity"] == q, "pit"].any()]
    columns = 3 if "decades" in table else 2
    axes = panels_of(ax, columns * len(quantities), columns, height=2.5)
    lines: dict[str, Line2D] = {}
    for i, quantity in enumerate(quantities):
        cells = table[table["quantity"] == quantity]
        row = axes[columns * i : columns * (i + 1)]
        _coverage(row[0], cells)
        _pit_histogram(row[1], cells)
        row[0].set_title(f"{quantity}: coverage", fontsize=SMALL + 1)
        row[1].set_title(f"{quantity}: PIT histogram", fontsize=SMALL + 1)
        if columns == 3:
            lines |= _error_by_distance(row[2], cells)
            unit = " (points)" if quantity == c.ACCURACY else ""
            row[2].set_title(f"{quantity}: |error|{unit}", fontsize=SMALL + 1)
        for panel in row:
            panel.tick_params(labelsize=SMALL - 1)
            panel.xaxis.label.set_size(SMALL)
            panel.yaxis.label.set_size(SMALL)
    handles = [
        line_handle(
            DISTANCE_COLOURS[name], "-", f"{name} ({len(cells) // len(quantities)} cells)", lw=2
        )
        for name, cells in _by_distance(table)
    ]
    add_legend(axes, [*handles, *lines.values(), line_handle("0.6", ":", "ideal")], ax is None)
    return axes


def _by_distance(cells: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    groups = ((name, cells[cells["distance"] == name]) for name in DISTANCE_COLOURS)
    return [(name, of) for name, of in groups if len(of)]


def _coverage(ax: Axes, cells: pd.DataFrame) -> None:
    levels = np.linspace(0, 1, 1001)
    ax.plot([0, 100], [0, 100], color="0.6", lw=1, ls=":")
    for name, of in _by_distance(cells):
        # A measurement lies inside the central interval that just reaches it, and wider ones.
        inside = (2 * np.abs(of["pit"].to_numpy() - 0.5))[:, None] <= levels + 1e-12
        ax.plot(100 * levels, 100 * inside.mean(axis=0), color=DISTANCE_COLOURS[name], lw=1.8)
    ax.set(xlabel="nominal level of the interval (%)", ylabel="measurements inside (%)",
           xlim=(0, 100), ylim=(0, 101))  # fmt: skip


def _pit_histogram(ax: Axes, cells: pd.DataFrame) -> None:
    bins = np.linspace(0, 1, 11)
    for name, of in _by_distance(cells):
        share = 100 * np.histogram(of["pit"], bins)[0] / len(of)
        ax.stairs(share, bins, color=DISTANCE_COLOURS[name], lw=1.8)
        ax.stairs(share, bins, color=DISTANCE_COLOURS[name], fill=True, alpha=0.1)
    ax.axhline(10, color="0.6", lw=1, ls=":")
    ax.set(xlabel="PIT (share of draws below)", ylabel="cells (%)", xlim=(0, 1))


def _error_by_distance(ax: Axes, cells: pd.DataFrame) -> dict[str, Line2D]:
    for name, of in _by_distance(cells):
        ax.plot(of["decades"], of["error"], ".", ms=3, alpha=0.35, color=DISTANCE_COLOURS[name])
    half_decades = (2 * cells["decades"]).round() / 2
    handles = {}
    for column, (label, style) in ERROR_LINES.items():
        if column in cells and cells[column].notna().any():
            # A method's mean is over the cells that it can forecast.
            means = cells.groupby(half_decades)[column].mean().dropna()
            ax.plot(means.index, means, color="black", ls=style, marker="o", ms=2.5, lw=1.3)
            handles[label] = line_handle("black", style, label)
    ax.set(xlabel="decades of compute beyond the rungs", ylim=(0, None))
    return handles

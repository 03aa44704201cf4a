"""Forecasts as intervals, beside what was measured."""

import matplotlib.pyplot as plt
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from laddercast.data import words as c
from laddercast.data.writing import STYLES
from laddercast.inference.results import converged
from laddercast.plots.style import (
    LINE_WIDTHS,
    NOT_CONVERGED,
    SIMULATED,
    WIDTH,
    add_legend,
    line_handle,
    literal,
    marker_handle,
    target_colours,
    target_table,
)


def plot_forecast(
    forecast: xr.DataTree, baseline: pd.DataFrame | None = None, ax: Axes | None = None
) -> Axes:
    """Accuracy forecasts: 50, 80 and 95 % intervals per task and target, median and measurement.

    Of a forecast of losses alone, these. Of simulated targets the truth is drawn too, and the title
    says that they are simulated: it is what their laws alone give, from which a measurement is off
    by the noise of its run and questions, and by how the laws bend. `baseline` adds point
    forecasts, from a table as `baseline` gives it (its first method).

    >>> ax = lc.plot_forecast(forecast)
    """
    targets = target_table(forecast)
    quantity = c.ACCURACY if targets["accuracy_q50"].notna().any() else c.LOSS
    factor = STYLES[quantity].factor
    tasks = list(dict.fromkeys(targets[c.TASK]))
    colours = target_colours(targets)
    own = ax is None
    if ax is None:
        size = (WIDTH, 1.0 + len(tasks) * (0.14 + 0.17 * len(colours)))
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    step = 0.72 / len(colours)
    points = _points(baseline, quantity)
    truth = _truth(forecast, quantity)
    for number, (name, colour) in enumerate(colours.items()):
        for row in targets[targets[c.MODEL] == name].to_dict("records"):
            y = tasks.index(row[c.TASK]) + (number - (len(colours) - 1) / 2) * step
            for level, width in LINE_WIDTHS.items():
                ends = [factor * row[f"{quantity}_{end}"] for end in c.INTERVALS[level]]
                alpha = {95: 0.35, 80: 0.65, 50: 1.0}[level]
                ax.plot(ends, [y, y], lw=width, color=colour, alpha=alpha, solid_capstyle="butt")
            ax.plot(factor * row[f"{quantity}_q50"], y, "|", ms=8, mew=1.5, color="white", zorder=4)
            known = factor * row[f"{quantity}_measured"]
            ax.plot(known, y, "D", ms=4.5, mec="black", mfc="white", zorder=6)
            if truth:
                true = factor * truth[name, row[c.TASK]]
                ax.plot(true, y, "*", ms=9, mew=0.6, mec="black", mfc="gold", zorder=5.5)
            point = points.get((name, row[c.TASK]))
            if point is not None:
                ax.plot(factor * point, y, "x", ms=5, mew=1.4, color="black", zorder=5)
    for edge in range(1, len(tasks)):
        ax.axhline(edge - 0.5, color="0.9", lw=0.8, zorder=0)
    ax.set_yticks(range(len(tasks)), list(map(literal, tasks)))
    ax.set_ylim(len(tasks) - 0.5, -0.5)
    ax.set_xlabel("accuracy (%)" if quantity == c.ACCURACY else quantity)
    ax.grid(axis="x", color="0.92")
    ax.set_axisbelow(True)
    title = _mark(forecast) or "median, 50, 80 and 95 % intervals"
    if truth or not _mark(forecast):
        title = f"{SIMULATED if truth else 'Forecast'}: {title}"
    ax.set_title(title, fontsize=10)
    handles = [line_handle(colour, "-", name, lw=4) for name, colour in colours.items()]
    if targets[f"{quantity}_measured"].notna().any():
        handles.append(marker_handle("D", "measured", mec="black", mfc="white"))
    if truth:
        handles.append(marker_handle("*", "truth", mec="black", mew=0.6, mfc="gold"))
    if points:
        handles.append(marker_handle("x", "published method", color="black", mew=1.4))
    add_legend([ax], handles, own)
    return ax


def _points(baseline: pd.DataFrame | None, quantity: str) -> dict[tuple[str, str], float]:
    if baseline is None:
        return {}
    rows = baseline[baseline["quantity"] == quantity].dropna(subset=["q50"])
    rows = rows.drop_duplicates([c.MODEL, c.TASK])
    return dict(zip(zip(rows[c.MODEL], rows[c.TASK], strict=True), rows["q50"], strict=True))


def _truth(forecast: xr.DataTree, quantity: str) -> dict[tuple[str, str], float]:
    if "truth" not in forecast.children or quantity not in forecast["truth"]:
        return {}
    words = (forecast["predictions"][word].to_numpy().astype(str) for word in (c.MODEL, c.TASK))
    values = forecast["truth"][quantity].to_numpy()
    return dict(zip(zip(*words, strict=True), values, strict=True))


def _mark(tree: xr.DataTree) -> str:
    return "" if converged(tree) else NOT_CONVERGED

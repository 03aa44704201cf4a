"""Accuracy over grids of params and tokens."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from laddercast.data import words as c
from laddercast.data.sizes import flops
from laddercast.data.sources import names_of
from laddercast.data.writing import STYLES, no_such, short_number
from laddercast.plots.style import (
    BLUE,
    NOT_CONVERGED,
    SMALL,
    VERMILION,
    Panels,
    add_legend,
    draw_equal_compute,
    label_edges,
    line_handle,
    mark_powers,
    marker_handle,
    panels_of,
    set_title,
    size_colours,
)


def plot_what_if(
    table: pd.DataFrame, tasks: Sequence[str] | str | None = None, x: str = c.TOKENS, ax: Any = None
) -> Panels:
    """Accuracy against `tokens` (or `x="flops"`) for each size: medians, 50 and 80 % bands.

    `table` as `what_if` gives it (of losses alone: losses); a panel per task, `tasks` if given
    (one or several; `all` is their mean). Lines are whole up to the compute of the largest rung and
    dashed beyond; where the ladder says little, so that `forecast` would warn, there is no band and
    the median is dotted.

    >>> axes = lc.plot_what_if(lc.what_if(fitted, params=[1e9, 7e9]))
    """
    chosen = _chosen(table, tasks)
    quantity = c.main_quantity(chosen)
    factor = STYLES[quantity].factor
    names = list(dict.fromkeys(chosen[c.TASK]))
    axes = panels_of(ax, len(names), height=1.9)
    sizes = size_colours(chosen[c.PARAMS].to_numpy(float))
    for panel, name in zip(axes, names, strict=True):
        for size, colour in sizes.items():
            here = (chosen[c.TASK] == name) & (chosen[c.PARAMS] == size)
            rows = chosen[here].sort_values(x)
            inside = rows[rows["supported"]]
            for low, high, alpha in (("q10", "q90", 0.2), ("q25", "q75", 0.3)):
                panel.fill_between(
                    inside[x], factor * inside[low], factor * inside[high], color=colour,
                    alpha=alpha, lw=0,
                )  # fmt: skip
            panel.plot(rows[x], factor * rows["q50"], color=colour, lw=1, ls=":")
            near = inside[inside["decades"] <= 0]
            # Dashes begin where the whole line ends.
            far = inside[inside[x] >= (near[x].max() if len(near) else 0)]
            panel.plot(far[x], factor * far["q50"], color=colour, lw=1.4, ls="--")
            panel.plot(near[x], factor * near["q50"], color=colour, lw=1.6)
        panel.set_xscale("log")
        if x == c.TOKENS:
            mark_powers(panel)
        set_title(panel, name if name != c.ALL else "mean over tasks")
    label_edges(axes, x if x == c.TOKENS else "FLOPs (6ND)", _label(quantity))
    handles = [line_handle(colour, "-", short_number(size, 2)) for size, colour in sizes.items()]
    kinds = [("-", "within the ladder's compute"), ("--", "beyond it")]
    kinds += [] if chosen["supported"].all() else [(":", "the ladder says little")]
    handles += [line_handle("0.3", style, label) for style, label in kinds]
    add_legend(axes, handles, ax is None)
    _say_unconverged(axes, chosen)
    return axes


def plot_iso_accuracy(
    table: pd.DataFrame,
    tasks: Sequence[str] | str | None = None,
    rungs: pd.DataFrame | None = None,
    ax: Any = None,
) -> Panels:
    """Lines of equal accuracy (%) over params and tokens; a panel per task, as `plot_what_if`.

    Of a table of losses alone, lines of equal loss.
    `table` as `what_if` gives it, of at least 2 params x 2 tokens (ValueError otherwise). Whole
    lines: the median; dashed: reached with a probability of 90 %. Grey lines are of equal compute,
    shaded is where the ladder says little; `rungs` (`params, tokens`) are drawn as dots.

    >>> axes = lc.plot_iso_accuracy(lc.what_if(fitted, params=[1e9, 7e9]))
    """
    chosen = _chosen(table, tasks)
    quantity = c.main_quantity(chosen)
    factor = STYLES[quantity].factor
    sure_end = "q10" if quantity == c.ACCURACY else "q90"
    names = list(dict.fromkeys(chosen[c.TASK]))
    grids = {name: _grid(chosen[chosen[c.TASK] == name], name) for name in names}
    axes = panels_of(ax, len(names), columns=3, height=2.4)
    for panel, (name, grid) in zip(axes, grids.items(), strict=True):
        params, tokens = grid["q50"].columns.to_numpy(float), grid["q50"].index.to_numpy(float)
        # First, as labels of contours are placed by the limits.
        panel.set(
            xscale="log", yscale="log", xlim=(params[0], params[-1]), ylim=(tokens[0], tokens[-1])
        )
        low, high = flops(params[0], tokens[0]), flops(params[-1], tokens[-1])
        draw_equal_compute(panel, params, low, high)
        little = np.where(grid["supported"].to_numpy(bool), np.nan, 1.0)
        panel.pcolormesh(params, tokens, little, cmap="Greys", vmin=0, vmax=4, shading="nearest")
        median, sure = (factor * grid[word].to_numpy(float) for word in ("q50", sure_end))
        levels = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(median.min(), median.max())
        lines = panel.contour(params, tokens, median, levels, colors=BLUE, linewidths=1.4)
        surely = panel.contour(
            params, tokens, sure, levels, colors=VERMILION, linewidths=1.0, linestyles="--"
        )
        for drawn in (lines, surely):
            panel.clabel(drawn, fmt="%g", fontsize=SMALL - 1)
        if rungs is not None:
            panel.plot(
                rungs[c.PARAMS], rungs[c.TOKENS], "o", ms=3, color="0.3", mec="white", mew=0.3
            )
        mark_powers(panel)
        mark_powers(panel, panel.yaxis)
        set_title(panel, name if name != c.ALL else "mean over tasks")
    label_edges(axes, "params", "tokens")
    handles = [
        line_handle(BLUE, "-", f"median {_label(quantity)}"),
        line_handle(VERMILION, "--", "reached with 90 % probability"),
    ]
    handles += [line_handle("0.85", "-", "equal compute")]
    handles += [] if rungs is None else [marker_handle("o", "rungs", color="0.3")]
    if not chosen["supported"].all():
        handles.append(line_handle("0.75", "-", "the ladder says little", lw=6))
    add_legend(axes, handles, ax is None)
    _say_unconverged(axes, chosen)
    return axes


def _label(quantity: str) -> str:
    return "accuracy (%)" if quantity == c.ACCURACY else quantity


def _chosen(table: pd.DataFrame, tasks: Sequence[str] | str | None) -> pd.DataFrame:
    """Rows of accuracy, in the order of `tasks`; by default without the mean of a single task.

    Of a table of losses alone, these.
    """
    quantity = c.main_quantity(table)
    rows = table[table["quantity"] == quantity]
    known = list(dict.fromkeys(rows[c.TASK]))
    if tasks is None:
        tasks = known if len(known) > 2 else [name for name in known if name != c.ALL]
    # A task's name may have a comma in it.
    names = [str(tasks)] if tasks in known else names_of(tasks) or []
    missing = [name for name in names if name not in known]
    if missing or not names:
        raise ValueError(f"{quantity}: {no_such('task', missing or ['none'], known)}")
    return pd.concat([rows[rows[c.TASK] == name] for name in names])


def _grid(rows: pd.DataFrame, name: str) -> dict[str, pd.DataFrame]:
    """Tokens down, params across."""
    words = ("q10", "q50", "q90", "supported")
    grid = {
        word: rows.pivot_table(word, index=c.TOKENS, columns=c.PARAMS, aggfunc="first")
        for word in words
    }
    if min(grid["q50"].shape) < 2 or grid["q50"].isna().any(axis=None):
        raise ValueError(
            f"{name}: lines of equal {rows['quantity'].iloc[0]} need a full grid of at least "
            "2 params x 2 tokens; give `what_if` both"
        )
    return grid


def _say_unconverged(axes: Panels, table: pd.DataFrame) -> None:
    if not table["converged"].all():
        axes[0].figure.suptitle(NOT_CONVERGED, fontsize=SMALL + 1)

"""Tasks ranked by how noisy their metric is."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from laddercast.data import words as c
from laddercast.plots.style import (
    SMALL,
    Panels,
    add_legend,
    line_handle,
    literal,
    marker_handle,
    panels_of,
)


def plot_noise(noise: pd.DataFrame, error: pd.DataFrame | None = None, ax: Any = None) -> Panels:
    """Tasks ranked by the noise of their metric, and by the error of their accuracy forecasts.

    `noise` as `noise_by_task` gives it, `error` as `score` does. Panels: SD of loss and of
    accuracy between checkpoints (dots: measured; bars: the posterior's 90 % intervals), and the
    mean absolute error, each ranked by itself.

    >>> axes = lc.plot_noise(lc.noise_by_task(ladder, fitted), lc.score(forecast))
    """
    tables = [
        (title, noise[(noise["noise"] == kind) & (noise["unit"] == unit)])
        for kind, unit, title in (
            ("loss_checkpoint", "%", "loss between\ncheckpoints (SD, %)"),
            ("accuracy_checkpoint", "points", "accuracy between\ncheckpoints (SD, points)"),
        )
    ]
    if error is not None:
        of_accuracy = error[(error["quantity"] == c.ACCURACY) & (error[c.TASK] != c.ALL)]
        title = "accuracy forecast\n(mean |error|, points)"
        tables.append((title, of_accuracy.rename(columns={"error": "measured"})))
    tasks = list(dict.fromkeys(noise[c.TASK]))
    colours = dict(
        zip(tasks, mpl.colormaps["viridis"](np.linspace(0, 0.9, len(tasks))), strict=True)
    )
    # A task has one colour in all panels, by its rank in the noise of accuracy.
    for task, colour in zip(
        tables[1][1].sort_values("measured")[c.TASK], list(colours.values()), strict=False
    ):
        colours[task] = colour
    axes = panels_of(ax, len(tables), columns=3, height=0.9 + 0.25 * len(tasks))
    for panel, (title, table) in zip(axes, tables, strict=False):
        known = "q50" in table and table["q50"].notna().any()
        ranked = table.sort_values("q50" if known else "measured", na_position="first")
        for y, row in enumerate(ranked.to_dict("records")):
            colour = colours.get(row[c.TASK], "0.5")
            if known:
                panel.plot([row["q05"], row["q95"]], [y, y], color=colour, lw=4, alpha=0.5)
                panel.plot(row["q50"], y, "|", ms=9, mew=2, color=colour)
            panel.plot(row["measured"], y, "o", ms=5, color=colour, mec="black", mew=0.6, zorder=4)
        panel.set_yticks(range(len(ranked)), list(map(literal, ranked[c.TASK])), fontsize=SMALL)
        panel.set_ylim(-0.6, len(ranked) - 0.4)
        # The margin on the right is a share of what is shown, not of the points' own range.
        panel.set_xlim(0, 1.04 * panel.get_xlim()[1])
        panel.set_title(title, fontsize=SMALL + 1)
        panel.tick_params(axis="x", labelsize=SMALL)
        panel.grid(axis="x", color="0.92")
        panel.set_axisbelow(True)
    handles = [marker_handle("o", "measured", mfc="0.6", mec="black", mew=0.6)]
    if "q50" in noise:
        handles.append(line_handle("0.6", "-", "posterior, median and 90 % interval", lw=4))
    add_legend(axes, handles, ax is None)
    return axes

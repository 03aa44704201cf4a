"""How large a model and how long a run are best at one budget."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from laddercast.data import words as c
from laddercast.data.writing import STYLES, short_number
from laddercast.plots.style import (
    BLUE,
    GREEN,
    NOT_CONVERGED,
    SMALL,
    VERMILION,
    Panels,
    add_legend,
    line_handle,
    marker_handle,
    panels_of,
    set_title,
)

TICKS = 6


def plot_allocation(table: pd.DataFrame, ax: Any = None) -> Panels:
    """Regret of each size at one budget, and what one run of each would get; two panels.

    `table` as `allocate` gives it. Left: median of the regret, and what it stays below with a
    probability of 90 %; shaded are sizes within epsilon of the best with the probability asked for.
    The bar at the foot has the best size's median, 50 and 90 % intervals. Right: median and 80 %
    interval of one run. Above each panel, tokens per parameter.

    >>> axes = lc.plot_allocation(lc.allocate(fitted, flops=1e21))
    """
    attrs = table.attrs
    style = STYLES[attrs["quantity"]]
    loss = attrs["quantity"] == c.LOSS
    axes = panels_of(ax, 2, columns=2, height=2.9)
    params = table[c.PARAMS].to_numpy(float)
    regret, values = axes
    _shade(axes, table)
    unit = "%" if loss else "points"
    regret.fill_between(params, 0, 100 * table["regret_q90"], color=BLUE, alpha=0.15, lw=0)
    regret.plot(params, 100 * table["regret_q90"], color=BLUE, lw=1, ls="--")
    regret.plot(params, 100 * table["regret_q50"], color=BLUE, lw=1.6)
    regret.axhline(100 * attrs["epsilon"], color="0.5", lw=0.8, ls=":")
    # What is far worse than the best would flatten all that is of interest.
    top = min(100 * table["regret_q90"].max(), max(2000 * attrs["epsilon"], 5.0))
    foot = -0.08 * top
    regret.set_ylim(1.8 * foot, 1.05 * top)
    best = attrs["optimum"][c.PARAMS]
    for low, high, width in (("q05", "q95", 2.5), ("q25", "q75", 6.0)):
        regret.plot([best[low], best[high]], [foot, foot], color=VERMILION, lw=width,
                    solid_capstyle="butt")  # fmt: skip
    regret.plot([best["q50"]], [foot], "o", color="white", mec=VERMILION, ms=5)
    low, middle, high = (
        style.factor * table[f"{attrs['quantity']}_{name}"] for name in ("q10", "q50", "q90")
    )
    values.fill_between(params, low, high, color=GREEN, alpha=0.2, lw=0)
    values.plot(params, middle, color=GREEN, lw=1.6)
    task = {c.ALL: "mean over tasks", c.LOSS: "loss"}.get(attrs["task"], attrs["task"])
    budget = f"{attrs['budget']:.3g} FLOPs"
    if attrs["tokens_served"]:
        budget += f", with {short_number(attrs['tokens_served'])} tokens served"
    set_title(regret, f"regret ({unit}), {task}")
    set_title(values, f"one run ({attrs['quantity']}{style.unit}), {task}")
    for panel in axes:
        panel.set_xscale("log")
        panel.set_xlim(params.min(), params.max())
        _mark_sizes(panel, table)
    handles = [
        line_handle(BLUE, "-", "regret: median"),
        line_handle(BLUE, "--", "90 % below"),
        line_handle("0.5", ":", f"epsilon, {100 * attrs['epsilon']:g} {unit}"),
        line_handle("0.85", "-", f"within it with probability {attrs['probability']:g}", lw=6),
        marker_handle("o", "best size, 50 and 90 % intervals", color=VERMILION),
        line_handle(GREEN, "-", "one run: median, 80 % interval"),
    ]
    add_legend(axes, handles, ax is None)
    if ax is None:
        unsure = "" if attrs["converged"] else f"\n{NOT_CONVERGED}"
        regret.figure.suptitle(f"{budget}{unsure}", fontsize=SMALL + 1)
    return axes


def _shade(axes: Panels, table: pd.DataFrame) -> None:
    """Sizes of the set, each as wide as half the way to its neighbours."""
    log = np.log(table[c.PARAMS].to_numpy(float))
    ends = np.exp(np.concatenate([log[:1], (log[1:] + log[:-1]) / 2, log[-1:]]))
    for i in np.flatnonzero(table["in_set"]):
        for panel in axes:
            panel.axvspan(ends[i], ends[i + 1], color="0.9", lw=0, zorder=0)


def _mark_sizes(panel: Axes, table: pd.DataFrame) -> None:
    """Ticks at a few sizes of the table: params below, tokens per parameter above."""
    rows = table.iloc[np.linspace(0, len(table) - 1, TICKS).round().astype(int)]
    places = rows[c.PARAMS].to_numpy(float)
    panel.set_xticks(places, [short_number(n, 2) for n in places])
    panel.set_xticks([], minor=True)
    panel.set_xlabel("params", fontsize=SMALL)
    above = panel.secondary_xaxis("top")
    ratio = rows[c.TOKENS] / rows[c.PARAMS]
    above.set_xticks(places, [short_number(float(f"{r:.2g}"), 2) for r in ratio])
    above.set_xticks([], minor=True)
    above.tick_params(labelsize=SMALL - 1)
    above.set_xlabel("tokens per parameter", fontsize=SMALL - 1)

"""Which rungs next: candidates over params and tokens, and what is left as they are trained."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from laddercast.data import words as c
from laddercast.data.sizes import flops
from laddercast.plots.style import (
    BLUE,
    GREEN,
    SMALL,
    VERMILION,
    Panels,
    add_legend,
    draw_equal_compute,
    line_handle,
    mark_powers,
    marker_handle,
    panels_of,
    set_title,
)


def plot_plan(
    plan: pd.DataFrame,
    rungs: pd.DataFrame | None = None,
    targets: pd.DataFrame | None = None,
    ax: Any = None,
) -> Panels:
    """A plan of rungs in two panels: where they lie, and what they leave.

    `plan` as `plan_rungs` or `design_ladder` gives it. Left: candidates over params and tokens, the
    darker the more variance each takes away alone, those chosen with their number; `rungs` and
    `targets` (`params, tokens`) as they are given. Right: the SD of the targets' forecast against
    the compute spent, in order.

    >>> axes = lc.plot_plan(lc.plan_rungs(fitted, targets, budget=1e21), targets=targets)
    """
    axes = panels_of(ax, 2, columns=2, height=3.0)
    chosen = plan[plan["order"].notna()].sort_values("order")
    _draw_candidates(axes[0], plan, chosen, rungs, targets)
    _draw_left(axes[1], plan, chosen)
    handles = [
        marker_handle("o", "candidate (darker: tells more)", color="0.55"),
        marker_handle("o", "chosen, by number", color="none", mec=VERMILION, mew=1.2),
    ]
    handles += [] if rungs is None else [marker_handle("x", "rung", color=GREEN)]
    handles += [] if targets is None else [marker_handle("*", "target", color=BLUE)]
    handles += [line_handle("0.85", "-", "equal compute")]
    add_legend(axes, handles, ax is None)
    return axes


def _draw_candidates(
    ax: Axes,
    plan: pd.DataFrame,
    chosen: pd.DataFrame,
    rungs: pd.DataFrame | None,
    targets: pd.DataFrame | None,
) -> None:
    shown = [own[[c.PARAMS, c.TOKENS]] for own in (plan, rungs, targets) if own is not None]
    every = pd.concat(shown).astype(float)
    low, high = every.min() / 1.6, every.max() * 1.6
    ax.set(xscale="log", yscale="log")
    ax.set_xlim(low[c.PARAMS], high[c.PARAMS])
    ax.set_ylim(low[c.TOKENS], high[c.TOKENS])
    ends = (flops(own[c.PARAMS], own[c.TOKENS]) for own in (low, high))
    draw_equal_compute(ax, np.array([low[c.PARAMS], high[c.PARAMS]]), *ends)
    others = plan[plan["order"].isna()]
    gain = others["gain_per_flop"] * others[c.FLOPS]
    # Of those chosen, gains are in their turn, and so not of one scale with the others.
    ax.scatter(others[c.PARAMS], others[c.TOKENS], c=gain, cmap="Greys", s=14, vmin=-gain.max() / 3,
               zorder=2)  # fmt: skip
    if rungs is not None:
        ax.plot(rungs[c.PARAMS], rungs[c.TOKENS], "x", ms=4, mew=1, color=GREEN, zorder=3)
    if targets is not None:
        ax.plot(targets[c.PARAMS], targets[c.TOKENS], "*", ms=9, color=BLUE, zorder=4)
    for row in chosen.itertuples():
        at = float(row.params), float(row.tokens)
        ax.plot(*at, "o", ms=11, mfc="white", mec=VERMILION, mew=1.2, zorder=5)
        ax.text(*at, str(row.order), ha="center", va="center", fontsize=SMALL - 1, zorder=6)
    mark_powers(ax)
    mark_powers(ax, ax.yaxis)
    ax.set_xlabel("params", fontsize=SMALL)
    ax.set_ylabel("tokens", fontsize=SMALL)
    set_title(ax, "which to train next")


def _draw_left(ax: Axes, plan: pd.DataFrame, chosen: pd.DataFrame) -> None:
    loss = plan.attrs.get("quantity") == c.LOSS
    before = float(plan["variance_before"].max())
    sd = np.sqrt(np.append(before, chosen["variance_after"].to_numpy(float)))
    spent = np.append(0.0, chosen[c.FLOPS].cumsum().to_numpy(float))
    ax.plot(spent, sd, "-o", color=VERMILION, ms=4, lw=1.4)
    last = -np.inf
    for i, order in enumerate(chosen["order"], 1):
        # What hardly costs anything would be numbered on top of another.
        if spent[i] - last < spent[-1] / 25:
            continue
        last = spent[i]
        ax.annotate(str(order), (spent[i], sd[i]), xytext=(0, 5), textcoords="offset points",
                    ha="center", fontsize=SMALL - 1)  # fmt: skip
    ax.set_ylim(0, sd[0] * 1.14)  # room for a number above the first points
    ax.set_xlabel("FLOPs spent", fontsize=SMALL)
    ax.set_ylabel(f"SD of {'loss (%)' if loss else 'accuracy (points)'}", fontsize=SMALL)
    ax.xaxis.get_offset_text().set_fontsize(SMALL - 1)
    set_title(ax, "what it leaves of the targets' forecast")

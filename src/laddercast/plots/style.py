"""What the figures share: colours, panels, ticks, legends, and the table of targets they draw."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from laddercast.data import words as c
from laddercast.data.sizes import flops
from laddercast.data.writing import short_number
from laddercast.forecasting.forecasts import forecast_table

WIDTH = 8.0
"""Inches: the width of a notebook's column."""
COLUMNS = 4
SMALL = 8
"""Font size in points."""
ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
"""Okabe and Ito's palette, safe for the colour-blind."""
TARGETS = (VERMILION, BLUE, GREEN, PURPLE, ORANGE, SKY)
LINE_WIDTHS = {95: 2.5, 80: 5.0, 50: 7.0}
"""Of intervals in percent, the widest first."""
SIMULATED = "SIMULATED"
NOT_CONVERGED = "NOT CONVERGED: do not rely on these intervals"
LONGEST = 60
"""Characters of a name that a figure shows."""
Panels = np.ndarray[Any, np.dtype[np.object_]]


def target_table(forecast: xr.DataTree | None) -> pd.DataFrame:
    """One row per target x task: `loss_q50`, `accuracy_measured` and so on, quantiles of both.

    NaN are those of a quantity that was not forecast.
    """
    quantities = (c.LOSS, c.ACCURACY)
    words = [c.MODEL, c.PARAMS, c.TOKENS, c.TASK]
    values = [
        f"{quantity}_{name}" for quantity in quantities for name in (*c.QUANTILES, "measured")
    ]
    if forecast is None:
        return pd.DataFrame(columns=[*words, *values])
    whole = forecast_table(forecast)
    tables = dict(iter(whole.groupby("quantity")))
    table = (
        tables[c.main_quantity(whole)][words]
        .astype({c.MODEL: str, c.TASK: str})
        .reset_index(drop=True)
    )
    for quantity in quantities:
        for name in (*c.QUANTILES, "measured"):
            known = tables[quantity][name].to_numpy() if quantity in tables else np.nan
            table[f"{quantity}_{name}"] = known
    return table


def target_colours(targets: pd.DataFrame) -> dict[str, str]:
    """A colour for each target, by name."""
    names = dict.fromkeys(targets[c.MODEL])
    return {str(name): TARGETS[i % len(TARGETS)] for i, name in enumerate(names)}


def size_colours(params: np.ndarray) -> dict[float, Any]:
    """A colour for each size, the darkest for the smallest."""
    sizes = np.unique(params)
    colours = mpl.colormaps["viridis"](np.linspace(0.05, 0.85, len(sizes)))
    return dict(zip(sizes.tolist(), colours, strict=True))


def panels_of(ax: Any, count: int, columns: int = COLUMNS, height: float = 1.75) -> Panels:
    """`count` panels: of the user's axes `ax`, or of a new figure."""
    if ax is not None:
        axes = np.asarray(ax, dtype=object).ravel()
        if len(axes) < count:
            raise ValueError(f"{len(axes)} axes for {count} panels; give one for each")
        return axes[:count]
    columns = min(columns, count)
    rows = -(-count // columns)
    width = WIDTH if columns > 1 else WIDTH / 2
    fig, grid = plt.subplots(
        rows, columns, figsize=(width, height * rows + 0.6), squeeze=False, layout="constrained"
    )
    axes = grid.ravel()
    for empty in axes[count:]:
        fig.delaxes(empty)
    return axes[:count]


def literal(name: Any, longest: int = LONGEST) -> str:
    """A name as it is drawn: no formula, nothing hidden from legends, not wider than the figure."""
    text = " ".join(str(name).split())
    text = text if len(text) <= longest else f"{text[: longest - 1]}…"
    # A legend leaves out what begins with an underscore.
    text = f"\u200a{text}" if text.startswith("_") else text
    return text.replace("$", r"\$") if mpl.rcParams["text.parse_math"] else text


def set_title(ax: Axes, title: str) -> None:
    """A panel's title, and its ticks to match."""
    ax.set_title(literal(title), fontsize=SMALL + 1, pad=3)
    ax.tick_params(labelsize=SMALL - 1)


def label_edges(axes: Panels, x: str, y: str) -> None:
    """Axis labels at the figure's edges only: on the left, and where no panel lies below."""
    for ax in axes:
        spec = ax.get_subplotspec()
        if spec is None or spec.is_first_col():
            ax.set_ylabel(y, fontsize=SMALL)
        ax.set_xlabel(x, fontsize=SMALL)
        below = spec is not None and spec.rowspan.stop * spec.get_gridspec().ncols
        if below and spec.colspan.start + below < len(axes):
            ax.set_xlabel("")


def mark_powers(ax: Axes, axis: Axis | None = None) -> None:
    """Ticks of tokens (or of another `axis`) at powers of 10, as 1B, 10B, 1T."""
    axis = ax.xaxis if axis is None else axis
    low, high = np.log10(axis.get_view_interval())
    decades = np.arange(np.ceil(low), np.floor(high) + 1)
    # Narrow panels: no more than four labels.
    step = max(1, -(-len(decades) // 4))
    axis.set_major_locator(FixedLocator((10.0 ** decades[::step]).tolist()))
    axis.set_major_formatter(FuncFormatter(lambda x, _: short_number(x, 2)))
    axis.set_minor_formatter(NullFormatter())


def draw_equal_compute(ax: Axes, params: np.ndarray, low: float, high: float) -> range:
    """Grey lines of equal compute at powers of 10 from `low` to `high` FLOPs, and these powers."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for power in powers:
        ax.plot(params, 10.0**power / flops(params, 1), color="0.85", lw=0.7, zorder=0)
    return powers


def line_handle(colour: Any, linestyle: str, label: str, lw: float = 1.5) -> Line2D:
    """A line for a legend."""
    return Line2D([], [], color=colour, ls=linestyle, lw=lw, label=literal(label))


def marker_handle(marker: str, label: str, **style: Any) -> Line2D:
    """A marker for a legend."""
    return Line2D([], [], ls="", marker=marker, ms=5, label=literal(label), **style)


def add_legend(axes: Sequence[Axes] | Panels, handles: Sequence[Line2D], own: bool) -> None:
    """Add a legend below our `own` figure, or inside the last of the user's axes."""
    style: dict[str, Any] = {"handles": list(handles), "fontsize": SMALL, "handletextpad": 0.5}
    if not own:
        axes[-1].legend(**style)
        return
    longest = max(len(str(handle.get_label())) for handle in handles)
    figure = axes[0].get_figure(root=True)
    assert figure is not None
    columns = max(1, min(len(handles), int(figure.get_figwidth() * 14 / (longest + 6))))
    # Room for all rows of the legend but the first: it is not taken from the panels.
    more = -(-len(handles) // columns) - 1
    figure.set_figheight(figure.get_figheight() + 0.17 * more)
    figure.legend(loc="outside lower center", ncols=columns, frameon=False, **style)

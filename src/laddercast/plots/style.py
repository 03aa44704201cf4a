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
INTERVALS = ((95, "q025", "q975", 2.5), (80, "q10", "q90", 5.0), (50, "q25", "q75", 7.0))
NOT_CONVERGED = "NOT CONVERGED: do not rely on these intervals"
Panels = np.ndarray[Any, np.dtype[np.object_]]


def target_table(forecast: xr.DataTree | None) -> pd.DataFrame:
    """One row per target x task: `loss_q50`, `accuracy_measured` and so on, quantiles of both."""
    quantities = (c.LOSS, c.ACCURACY)
    words = [c.MODEL, c.PARAMS, c.TOKENS, c.TASK]
    values = [
        f"{quantity}_{name}" for quantity in quantities for name in (*c.QUANTILES, "measured")
    ]
    if forecast is None:
        return pd.DataFrame(columns=[*words, *values])
    predictions = forecast["predictions"].to_dataset()
    table = pd.DataFrame({word: predictions[word].to_numpy() for word in words})
    table[[c.MODEL, c.TASK]] = table[[c.MODEL, c.TASK]].astype(str)
    for quantity in quantities:
        if quantity not in predictions:
            table[[f"{quantity}_{name}" for name in (*c.QUANTILES, "measured")]] = np.nan
            continue
        draws = predictions[quantity].to_numpy().reshape(-1, len(table))
        levels = np.quantile(draws, list(c.QUANTILES.values()), axis=0)
        for name, value in zip(c.QUANTILES, levels, strict=True):
            table[f"{quantity}_{name}"] = value
        known = "measured" in forecast.children and quantity in forecast["measured"]
        table[f"{quantity}_measured"] = (
            forecast["measured"][quantity].to_numpy() if known else np.nan
        )
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


def set_title(ax: Axes, title: str) -> None:
    """A panel's title, and its ticks to match."""
    ax.set_title(title, fontsize=SMALL + 1, pad=3)
    ax.tick_params(labelsize=SMALL - 1)


def label_edges(axes: Panels, x: str, y: str) -> None:
    """Axis labels at the figure's edges only: on the left, and where no panel lies below."""
    for ax in axes:
        place = ax.get_subplotspec()
        if place is None or place.is_first_col():
            ax.set_ylabel(y, fontsize=SMALL)
        ax.set_xlabel(x, fontsize=SMALL)
        below = place is not None and place.rowspan.stop * place.get_gridspec().ncols
        if below and place.colspan.start + below < len(axes):
            ax.set_xlabel("")


def mark_powers(ax: Axes, axis: Axis | None = None) -> None:
    """Ticks of tokens (or of another `axis`) at powers of 10, as 1B, 10B, 1T."""
    axis = ax.xaxis if axis is None else axis
    low, high = np.log10(axis.get_view_interval())
    decades = np.arange(np.ceil(low), np.floor(high) + 1)
    # Narrow panels: no more than four labels.
    step = max(1, -(-len(decades) // 4))
    axis.set_major_locator(FixedLocator((10.0 ** decades[::step]).tolist()))
    axis.set_major_formatter(FuncFormatter(lambda x, _: short(x)))
    axis.set_minor_formatter(NullFormatter())


def short(number: float) -> str:
    """1.28e9 as 1.3B."""
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * unit:
            scaled = number / unit
            return f"{scaled:.0f}{letter}" if scaled >= 10 else f"{scaled:.2g}{letter}"
    return f"{number:.3g}"


def line_handle(colour: Any, linestyle: str, label: str, lw: float = 1.5) -> Line2D:
    """A line for a legend."""
    return Line2D([], [], color=colour, ls=linestyle, lw=lw, label=label)


def marker_handle(marker: str, label: str, **style: Any) -> Line2D:
    """A marker for a legend."""
    return Line2D([], [], ls="", marker=marker, ms=5, label=label, **style)


def add_legend(axes: Sequence[Axes] | Panels, handles: Sequence[Line2D], own: bool) -> None:
    """Below our own figure, in as many rows as it takes; inside the last of the user's axes."""
    style: dict[str, Any] = {"handles": list(handles), "fontsize": SMALL, "handletextpad": 0.5}
    if not own:
        axes[-1].legend(**style)
        return
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), int(WIDTH * 14 / (longest + 6))))
    axes[0].figure.legend(loc="outside lower center", ncols=columns, frameon=False, **style)

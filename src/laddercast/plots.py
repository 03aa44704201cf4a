"""The figures. Each takes `ax` (an array of them where it has several panels) and returns it."""

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
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

from laddercast import columns as c
from laddercast.fitted import tasks_of
from laddercast.ladder import Ladder, run_ends
from laddercast.score import ALL

WIDTH = 8.0
"""Inches: the width of a notebook's column."""
COLUMNS = 4
SMALL = 8
"""Font size in points."""
DRAWS = 200
"""Draws, of the posterior's, from which curves are computed."""
GRID = 80
"""Points along each curve."""

ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
"""Okabe and Ito's palette, safe for the colour-blind."""
TARGETS = (VERMILION, BLUE, GREEN, PURPLE, ORANGE, SKY)

BANDS = ((95, 0.15), (80, 0.3))
"""Central intervals in percent, and the opacity of each band."""

NOT_CONVERGED = "NOT CONVERGED: do not rely on these intervals"

Panels = np.ndarray[Any, np.dtype[np.object_]]


def plot_stage1(
    fitted: xr.DataTree,
    forecast: xr.DataTree | None = None,
    ladder: Ladder | None = None,
    ax: Any = None,
) -> Panels:
    """Loss against tokens: law and bands (80, 95 %) per size, rungs, targets; a panel per task.

    Targets are drawn from a `forecast`: the law at their size, the interval of the loss forecast,
    and what was measured. Rungs are the ends of runs, of `ladder` if given, else of the fit, which
    knows them if it was fitted with `rungs="last"`.
    """
    loss = _loss_of(fitted)
    posterior = _thinned(fitted)
    common = loss == c.REFERENCE_LOSS
    names = [loss] if common else list(tasks_of(fitted).index)
    axes = _panels(ax, len(names))
    rungs = _rungs(fitted, ladder)
    constant = fitted["constant_data"]
    params, tokens = (constant[word].to_numpy().astype(float) for word in (c.PARAMS, c.TOKENS))
    sizes = _sizes(params)
    targets = _targets(forecast)
    longest = max([tokens.max(), *targets[c.TOKENS]])
    grid = np.geomspace(tokens.min(), longest, GRID)
    for panel, task in zip(axes, names, strict=False):
        of_task = posterior if common else posterior.sel(task=task)
        letters = {name: of_task[name].to_numpy()[:, None] for name in STAGE_1}
        for size, colour in sizes.items():
            x = grid[grid <= tokens.max()]
            _band(panel, x, _loss(letters, size, x), colour)
            here = rungs[(rungs[c.PARAMS] == size) & (common | (rungs[c.TASK] == task))]
            panel.plot(
                here[c.TOKENS], here[c.LOSS], "o", ms=3.5, color=colour, mec="white", mew=0.3
            )
        for (name, colour), rows in _by_target(targets, None if common else task):
            row = rows.iloc[0]
            x = grid[grid <= 1.01 * row[c.TOKENS]]
            _band(panel, x, _loss(letters, row[c.PARAMS], x), colour, linestyle="--", bands=())
            _interval(panel, row[c.TOKENS], row, c.LOSS, colour, name)
        panel.set_xscale("log")
        _tokens(panel)
        _titled(panel, task)
    _labelled(axes, "tokens", "loss")
    _legend(axes, _rung_handles(sizes, targets), ax is None)
    return axes


def plot_stage2(
    fitted: xr.DataTree,
    forecast: xr.DataTree | None = None,
    ladder: Ladder | None = None,
    ax: Any = None,
) -> Panels:
    """Accuracy against loss: the law with 80 and 95 % bands, rungs, targets; a panel per task.

    Arguments and rungs as in `plot_stage1`; a target's bars are its 80 and 95 % intervals.
    """
    _loss_of(fitted)
    posterior = _thinned(fitted)
    tasks = tasks_of(fitted)
    axes = _panels(ax, len(tasks))
    rungs = _rungs(fitted, ladder)
    sizes = _sizes(fitted["constant_data"][c.PARAMS].to_numpy().astype(float))
    targets = _targets(forecast)
    for panel, (task, chance) in zip(axes, tasks[c.CHANCE].items(), strict=False):
        here = rungs[rungs[c.TASK] == task]
        rows = targets[targets[c.TASK] == task]
        reached = np.array([*here[c.LOSS].dropna(), *rows["loss_q025"], *rows["loss_q975"]])
        if not len(reached):  # not even a target: about the middle of the curve
            middle = float(posterior["L0"].sel(task=task).median())
            reached = np.array([0.6, 1.4]) * middle
        margin = 0.05 * np.ptp(reached)
        x = np.linspace(max(reached.min() - margin, 0), reached.max() + margin, GRID)
        letters = {name: posterior[name].sel(task=task).to_numpy()[:, None] for name in STAGE_2}
        _band(panel, x, 100 * _accuracy(letters, x), "0.35")
        panel.axhline(100 * float(chance), color="0.5", lw=1, ls=":", zorder=0)
        for size, colour in sizes.items():
            of_size = here[here[c.PARAMS] == size]
            panel.plot(
                of_size[c.LOSS], 100 * of_size[c.ACCURACY], "o", ms=3.5,
                color=colour, mec="white", mew=0.3,
            )  # fmt: skip
        for (name, colour), chosen in _by_target(targets, str(task)):
            row = chosen.iloc[0]
            _interval(panel, row["loss_q50"], row, c.ACCURACY, colour, name)
            _interval(panel, 100 * row["accuracy_q50"], row, c.LOSS, colour, name, sideways=True)
            panel.plot(
                row["loss_measured"], 100 * row["accuracy_measured"], "D", ms=4, mfc=colour,
                mec="black", mew=0.8, zorder=5,
            )  # fmt: skip
        panel.locator_params(axis="x", nbins=4)
        _titled(panel, str(task))
    _labelled(axes, "loss", "accuracy (%)")
    handles = [*_rung_handles(sizes, targets), _line("0.6", ":", "guessing")]
    _legend(axes, handles, ax is None)
    return axes


def plot_forecast(
    forecast: xr.DataTree, baseline: pd.DataFrame | None = None, ax: Axes | None = None
) -> Axes:
    """Accuracy forecasts: 50, 80 and 95 % intervals per task and target, median and measurement.

    `baseline` adds point forecasts, from a table as `baseline` gives it (its first method).
    """
    targets = _targets(forecast)
    tasks = list(dict.fromkeys(targets[c.TASK]))
    colours = _colours(targets)
    own = ax is None
    if ax is None:
        size = (WIDTH, 1.0 + len(tasks) * (0.14 + 0.17 * len(colours)))
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    step = 0.72 / len(colours)
    points = _points(baseline)
    for number, (name, colour) in enumerate(colours.items()):
        for row in targets[targets[c.MODEL] == name].to_dict("records"):
            y = tasks.index(row[c.TASK]) + (number - (len(colours) - 1) / 2) * step
            for level, low, high, width in INTERVALS:
                ends = [100 * row[f"accuracy_{end}"] for end in (low, high)]
                alpha = {95: 0.35, 80: 0.65, 50: 1.0}[level]
                ax.plot(ends, [y, y], lw=width, color=colour, alpha=alpha, solid_capstyle="butt")
            ax.plot(100 * row["accuracy_q50"], y, "|", ms=8, mew=1.5, color="white", zorder=4)
            ax.plot(
                100 * row["accuracy_measured"], y, "D", ms=4.5, mec="black", mfc="white", zorder=6
            )
            point = points.get((name, row[c.TASK]))
            if point is not None:
                ax.plot(100 * point, y, "x", ms=5, mew=1.4, color="black", zorder=5)
    for edge in range(1, len(tasks)):
        ax.axhline(edge - 0.5, color="0.9", lw=0.8, zorder=0)
    ax.set_yticks(range(len(tasks)), tasks)
    ax.set_ylim(len(tasks) - 0.5, -0.5)
    ax.set_xlabel("accuracy (%)")
    ax.grid(axis="x", color="0.92")
    ax.set_axisbelow(True)
    ax.set_title(_mark(forecast) or "Forecast: median, 50, 80 and 95 % intervals", fontsize=10)
    handles = [_line(colour, "-", name, lw=4) for name, colour in colours.items()]
    if targets["accuracy_measured"].notna().any():
        handles.append(_marker("D", "measured", mec="black", mfc="white"))
    if points:
        handles.append(_marker("x", "published method", color="black", mew=1.4))
    _legend([ax], handles, own)
    return ax


def plot_noise(noise: pd.DataFrame, error: pd.DataFrame | None = None, ax: Any = None) -> Panels:
    """Tasks ranked by the noise of their metric, and by the error of their accuracy forecasts.

    `noise` as `noise_by_task` gives it, `error` as `score` does. Panels: SD of loss and of
    accuracy between checkpoints (dots: measured; bars: the posterior's 90 % intervals), and the
    mean absolute error, each ranked by itself.
    """
    tables = [
        (title, noise[(noise["noise"] == kind) & (noise["unit"] == unit)])
        for kind, unit, title in (
            ("loss_checkpoint", "%", "loss between\ncheckpoints (SD, %)"),
            ("accuracy_checkpoint", "points", "accuracy between\ncheckpoints (SD, points)"),
        )
    ]
    if error is not None:
        of_accuracy = error[(error["quantity"] == c.ACCURACY) & (error[c.TASK] != ALL)]
        title = "accuracy forecast\n(mean |error|, points)"
        tables.append((title, of_accuracy.rename(columns={"error": "measured"})))
    tasks = list(dict.fromkeys(noise[c.TASK]))
    colours = dict(
        zip(tasks, mpl.colormaps["viridis"](np.linspace(0, 0.9, len(tasks))), strict=True)
    )
    # Each task keeps its colour, by its rank in the noise of accuracy, so that it can be followed.
    for task, colour in zip(
        tables[1][1].sort_values("measured")[c.TASK], list(colours.values()), strict=False
    ):
        colours[task] = colour
    axes = _panels(ax, len(tables), columns=3, height=0.9 + 0.25 * len(tasks))
    for panel, (title, table) in zip(axes, tables, strict=False):
        known = "q50" in table and table["q50"].notna().any()
        ranked = table.sort_values("q50" if known else "measured", na_position="first")
        for y, row in enumerate(ranked.to_dict("records")):
            colour = colours.get(row[c.TASK], "0.5")
            if known:
                panel.plot([row["q05"], row["q95"]], [y, y], color=colour, lw=4, alpha=0.5)
                panel.plot(row["q50"], y, "|", ms=9, mew=2, color=colour)
            panel.plot(row["measured"], y, "o", ms=5, color=colour, mec="black", mew=0.6, zorder=4)
        panel.set_yticks(range(len(ranked)), ranked[c.TASK], fontsize=SMALL)
        panel.set_ylim(-0.6, len(ranked) - 0.4)
        panel.set_xlim(left=0)
        panel.set_title(title, fontsize=SMALL + 1)
        panel.tick_params(axis="x", labelsize=SMALL)
        panel.grid(axis="x", color="0.92")
        panel.set_axisbelow(True)
    handles = [_marker("o", "measured", mfc="0.6", mec="black", mew=0.6)]
    if "q50" in noise:
        handles.append(_line("0.6", "-", "posterior, median and 90 % interval", lw=4))
    _legend(axes, handles, ax is None)
    return axes


def plot_calibration(table: pd.DataFrame, ax: Any = None) -> Panels:
    """Whether a backtest's intervals mean what they say, cells near the ladder and far apart.

    `table` as `backtest` gives it; one row of panels per quantity. Coverage by level: a forecast
    that is right on average follows the diagonal. Histogram of PIT: it is flat then. Absolute
    error by the distance extrapolated, where the table has `decades`: cells, and means over half
    decades, also of what else was forecast. Cells of one model go up and down together, so
    departures are less telling than their number suggests.
    """
    if "distance" not in table:
        table = table.assign(distance="all")
    quantities = [q for q in (c.ACCURACY, c.LOSS) if table.loc[table["quantity"] == q, "pit"].any()]
    columns = 3 if "decades" in table else 2
    axes = _panels(ax, columns * len(quantities), columns, height=2.5)
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
        _line(DISTANCES[name], "-", f"{name} ({len(cells) // len(quantities)} cells)", lw=2)
        for name, cells in _by_distance(table)
    ]
    _legend(axes, [*handles, *lines.values(), _line("0.6", ":", "ideal")], ax is None)
    return axes


DISTANCES = {"inside": GREEN, "near": BLUE, "far": VERMILION, "all": BLUE}
RIVALS = {"error": ("our mean", "-"), "baseline_error": ("published", "--"),
          "best_rung_error": ("same as the best rung", ":")}  # fmt: skip


def _by_distance(cells: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    groups = ((name, cells[cells["distance"] == name]) for name in DISTANCES)
    return [(name, of) for name, of in groups if len(of)]


def _coverage(ax: Axes, cells: pd.DataFrame) -> None:
    levels = np.linspace(0, 1, 1001)
    ax.plot([0, 100], [0, 100], color="0.6", lw=1, ls=":")
    for name, of in _by_distance(cells):
        # A measurement lies inside the central interval that just reaches it, and wider ones.
        inside = (2 * np.abs(of["pit"].to_numpy() - 0.5))[:, None] <= levels + 1e-12
        ax.plot(100 * levels, 100 * inside.mean(axis=0), color=DISTANCES[name], lw=1.8)
    ax.set(xlabel="nominal level of the interval (%)", ylabel="measurements inside (%)",
           xlim=(0, 100), ylim=(0, 101))  # fmt: skip


def _pit_histogram(ax: Axes, cells: pd.DataFrame) -> None:
    bins = np.linspace(0, 1, 11)
    for name, of in _by_distance(cells):
        share = 100 * np.histogram(of["pit"], bins)[0] / len(of)
        ax.stairs(share, bins, color=DISTANCES[name], lw=1.8)
        ax.stairs(share, bins, color=DISTANCES[name], fill=True, alpha=0.1)
    ax.axhline(10, color="0.6", lw=1, ls=":")
    ax.set(xlabel="PIT (share of draws below)", ylabel="cells (%)", xlim=(0, 1))


def _error_by_distance(ax: Axes, cells: pd.DataFrame) -> dict[str, Line2D]:
    for name, of in _by_distance(cells):
        ax.plot(of["decades"], of["error"], ".", ms=3, alpha=0.35, color=DISTANCES[name])
    places = (2 * cells["decades"]).round() / 2
    handles = {}
    for column, (label, style) in RIVALS.items():
        if column in cells and cells[column].notna().any():
            # Of a half decade with a cell that a method cannot forecast, its mean is of others.
            means = cells.groupby(places)[column].mean().dropna()
            ax.plot(means.index, means, color="black", ls=style, marker="o", ms=2.5, lw=1.3)
            handles[label] = _line("black", style, label)
    ax.set(xlabel="decades of compute beyond the rungs", ylim=(0, None))
    return handles


STAGE_1 = ("A", "alpha", "B", "beta", "E", "q")


def plot_what_if(
    table: pd.DataFrame, tasks: Sequence[str] | None = None, x: str = c.TOKENS, ax: Any = None
) -> Panels:
    """Accuracy against `tokens` (or `x="flops"`) for each size: medians, 50 and 80 % bands.

    `table` as `what_if` gives it; a panel per task, `tasks` if given (`all` is their mean). Lines
    are whole up to the compute of the largest rung and dashed beyond; where the ladder says little,
    so that `forecast` would warn, there is no band and the median is dotted.
    """
    chosen = _chosen(table, tasks)
    names = list(dict.fromkeys(chosen[c.TASK]))
    axes = _panels(ax, len(names), height=1.9)
    sizes = _sizes(chosen[c.PARAMS].to_numpy(float))
    for panel, name in zip(axes, names, strict=True):
        for size, colour in sizes.items():
            here = (chosen[c.TASK] == name) & (chosen[c.PARAMS] == size)
            rows = chosen[here].sort_values(x)
            inside = rows[rows["supported"]]
            for low, high, alpha in (("q10", "q90", 0.2), ("q25", "q75", 0.3)):
                panel.fill_between(
                    inside[x], 100 * inside[low], 100 * inside[high], color=colour, alpha=alpha,
                    lw=0,
                )  # fmt: skip
            panel.plot(rows[x], 100 * rows["q50"], color=colour, lw=1, ls=":")
            near = inside[inside["decades"] <= 0]
            # Dashes begin where the whole line ends.
            far = inside[inside[x] >= (near[x].max() if len(near) else 0)]
            panel.plot(far[x], 100 * far["q50"], color=colour, lw=1.4, ls="--")
            panel.plot(near[x], 100 * near["q50"], color=colour, lw=1.6)
        panel.set_xscale("log")
        if x == c.TOKENS:
            _tokens(panel)
        _titled(panel, name if name != ALL else "mean over tasks")
    _labelled(axes, x if x == c.TOKENS else "FLOPs (6ND)", "accuracy (%)")
    handles = [_line(colour, "-", _short(size)) for size, colour in sizes.items()]
    kinds = [("-", "within the ladder's compute"), ("--", "beyond it")]
    kinds += [] if chosen["supported"].all() else [(":", "the ladder says little")]
    handles += [_line("0.3", style, label) for style, label in kinds]
    _legend(axes, handles, ax is None)
    _say_unconverged(axes, chosen)
    return axes


def plot_iso_accuracy(
    table: pd.DataFrame,
    tasks: Sequence[str] | None = None,
    rungs: pd.DataFrame | None = None,
    ax: Any = None,
) -> Panels:
    """Lines of equal accuracy (%) over params and tokens; a panel per task, as `plot_what_if`.

    `table` as `what_if` gives it, of at least 2 params x 2 tokens (ValueError otherwise). Whole
    lines: the median; dashed: reached with a probability of 90 %. Grey lines are of equal compute,
    shaded is where the ladder says little; `rungs` (`params, tokens`) are drawn as dots.
    """
    chosen = _chosen(table, tasks)
    names = list(dict.fromkeys(chosen[c.TASK]))
    grids = {name: _grid(chosen[chosen[c.TASK] == name], name) for name in names}
    axes = _panels(ax, len(names), columns=3, height=2.4)
    for panel, (name, grid) in zip(axes, grids.items(), strict=True):
        params, tokens = grid["q50"].columns.to_numpy(float), grid["q50"].index.to_numpy(float)
        # First of all: labels of contours find their places in it.
        panel.set(
            xscale="log", yscale="log", xlim=(params[0], params[-1]), ylim=(tokens[0], tokens[-1])
        )
        for decade in range(int(np.log10(6 * params[0] * tokens[0])), 40):
            panel.plot(params, 10.0**decade / (6 * params), color="0.85", lw=0.7, zorder=0)
        little = np.where(grid["supported"].to_numpy(bool), np.nan, 1.0)
        panel.pcolormesh(params, tokens, little, cmap="Greys", vmin=0, vmax=4, shading="nearest")
        median, sure = 100 * grid["q50"].to_numpy(float), 100 * grid["q10"].to_numpy(float)
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
        _tokens(panel)
        _tokens(panel, panel.yaxis)
        _titled(panel, name if name != ALL else "mean over tasks")
    _labelled(axes, "params", "tokens")
    handles = [
        _line(BLUE, "-", "median accuracy, %"),
        _line(VERMILION, "--", "reached with 90 % probability"),
    ]
    handles += [_line("0.85", "-", "equal compute")]
    handles += [] if rungs is None else [_marker("o", "rungs", color="0.3")]
    if not chosen["supported"].all():
        handles.append(_line("0.75", "-", "the ladder says little", lw=6))
    _legend(axes, handles, ax is None)
    _say_unconverged(axes, chosen)
    return axes


STAGE_2 = ("a", "k", "L0", "b")
INTERVALS = ((95, "q025", "q975", 2.5), (80, "q10", "q90", 5.0), (50, "q25", "q75", 7.0))


def _loss(letters: dict[str, np.ndarray], params: float, tokens: np.ndarray) -> Any:
    q = letters["q"]
    of_params = letters["A"] * float(params) ** -letters["alpha"]
    of_tokens = letters["B"] * tokens ** -letters["beta"]
    return (of_params**q + of_tokens**q) ** (1 / q) + letters["E"]


def _loss_of(fitted: xr.DataTree) -> str:
    """The loss that the fit's own route goes through."""
    for quantity in (c.LOSS, c.REFERENCE_LOSS):
        if quantity in fitted["observed_data"]:
            return quantity
    route = fitted.attrs.get("route", "this one")
    raise ValueError(f"the route {route} goes through no loss; plot a fit of another route")


def _accuracy(letters: dict[str, np.ndarray], loss: np.ndarray) -> Any:
    # a / (1 + exp(-k (loss - L0))) + b, by tanh as exp overflows.
    return letters["b"] + letters["a"] * (
        0.5 + 0.5 * np.tanh(letters["k"] * (loss - letters["L0"]) / 2)
    )


def _thinned(fitted: xr.DataTree) -> xr.Dataset:
    posterior = fitted["posterior"].to_dataset()[[*STAGE_1, *STAGE_2]]
    flat = posterior.stack(sample=("chain", "draw"))
    kept = np.linspace(0, flat.sizes["sample"] - 1, min(DRAWS, flat.sizes["sample"])).astype(int)
    return flat.isel(sample=kept).transpose("sample", ...)


def _rungs(fitted: xr.DataTree, ladder: Ladder | None) -> pd.DataFrame:
    """Ends of runs: `model, params, tokens, task, loss, accuracy`."""
    loss = _loss_of(fitted)
    if ladder is not None:
        ends = run_ends(ladder.table)
        return ends.assign(**{c.LOSS: ends[loss]})
    observed = fitted["observed_data"].to_dataset()
    words = [f"point_{c.MODEL}", f"point_{c.TOKENS}"]
    table = observed[[loss, c.ACCURACY, *words]].to_dataframe().reset_index()
    table = table.rename(columns={loss: c.LOSS, words[0]: c.MODEL, words[1]: c.TOKENS})
    if table.duplicated([c.MODEL, c.TASK]).any():
        table = table.iloc[:0]  # checkpoints, of which the ends are not known to be measured
    runs = fitted["constant_data"].to_dataset()[[c.PARAMS]].to_dataframe()
    runs.index = runs.index.astype(str)
    return table.astype({c.MODEL: str, c.TASK: str}).join(runs[c.PARAMS], on=c.MODEL)


def _targets(forecast: xr.DataTree | None) -> pd.DataFrame:
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


def _points(baseline: pd.DataFrame | None) -> dict[tuple[str, str], float]:
    if baseline is None:
        return {}
    rows = baseline[baseline["quantity"] == c.ACCURACY].dropna(subset=["q50"])
    rows = rows.drop_duplicates([c.MODEL, c.TASK])
    return dict(zip(zip(rows[c.MODEL], rows[c.TASK], strict=True), rows["q50"], strict=True))


def _colours(targets: pd.DataFrame) -> dict[str, str]:
    names = dict.fromkeys(targets[c.MODEL])
    return {str(name): TARGETS[i % len(TARGETS)] for i, name in enumerate(names)}


def _by_target(
    targets: pd.DataFrame, task: str | None
) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    chosen = targets if task is None else targets[targets[c.TASK] == task]
    pairs = [(pair, chosen[chosen[c.MODEL] == pair[0]]) for pair in _colours(targets).items()]
    return [(pair, rows) for pair, rows in pairs if len(rows)]


def _chosen(table: pd.DataFrame, tasks: Sequence[str] | None) -> pd.DataFrame:
    """Rows of accuracy, in the order of `tasks`; of a lone task its mean would say the same."""
    rows = table[table["quantity"] == c.ACCURACY]
    known = list(dict.fromkeys(rows[c.TASK]))
    if tasks is None:
        tasks = known if len(known) > 2 else [name for name in known if name != ALL]
    missing = [name for name in tasks if name not in known]
    if missing or not len(tasks):
        raise ValueError(
            f"no accuracy of {', '.join(missing) or 'no task'}; there are {', '.join(known)}"
        )
    return pd.concat([rows[rows[c.TASK] == name] for name in tasks])


def _grid(rows: pd.DataFrame, name: str) -> dict[str, pd.DataFrame]:
    """Tokens down, params across."""
    words = ("q10", "q50", "supported")
    grid = {
        word: rows.pivot_table(word, index=c.TOKENS, columns=c.PARAMS, aggfunc="first")
        for word in words
    }
    if min(grid["q50"].shape) < 2 or grid["q50"].isna().any(axis=None):
        raise ValueError(
            f"{name}: lines of equal accuracy need a full grid of at least 2 params x 2 tokens; "
            "give `what_if` both"
        )
    return grid


def _say_unconverged(axes: Panels, table: pd.DataFrame) -> None:
    if not table["converged"].all():
        axes[0].figure.suptitle(NOT_CONVERGED, fontsize=SMALL + 1)


def _sizes(params: np.ndarray) -> dict[float, Any]:
    sizes = np.unique(params)
    colours = mpl.colormaps["viridis"](np.linspace(0.05, 0.85, len(sizes)))
    return dict(zip(sizes.tolist(), colours, strict=True))


def _band(
    ax: Axes,
    x: np.ndarray,
    draws: np.ndarray,
    colour: Any,
    linestyle: str = "-",
    bands: Sequence[tuple[int, float]] = BANDS,
) -> None:
    for level, alpha in bands:
        ends = np.quantile(draws, [0.5 - level / 200, 0.5 + level / 200], axis=0)
        ax.fill_between(x, *ends, color=colour, alpha=alpha, lw=0)
    ax.plot(x, np.median(draws, axis=0), color=colour, lw=1.2, ls=linestyle)


def _interval(
    ax: Axes,
    at: float,
    row: Any,
    quantity: str,
    colour: str,
    name: str,
    sideways: bool = False,
) -> None:
    """A target's 95 and 80 % intervals as bars; its measurement as a diamond, unless sideways."""
    unit = 100 if quantity == c.ACCURACY else 1
    for _, low, high, width in INTERVALS[:2]:
        ends = [unit * row[f"{quantity}_{end}"] for end in (low, high)]
        pair = (ends, [at, at]) if sideways else ([at, at], ends)
        ax.plot(*pair, color=colour, lw=width / 2, alpha=0.8, solid_capstyle="butt", zorder=4)
    if not sideways and quantity == c.LOSS:
        ax.plot(at, row["loss_measured"], "D", ms=4, mfc=colour, mec="black", mew=0.8, zorder=5)


def _panels(ax: Any, count: int, columns: int = COLUMNS, height: float = 1.75) -> Panels:
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


def _titled(ax: Axes, title: str) -> None:
    ax.set_title(title, fontsize=SMALL + 1, pad=3)
    ax.tick_params(labelsize=SMALL - 1)


def _labelled(axes: Panels, x: str, y: str) -> None:
    """Axis labels at the figure's edges only: on the left, and where no panel lies below."""
    for ax in axes:
        place = ax.get_subplotspec()
        if place is None or place.is_first_col():
            ax.set_ylabel(y, fontsize=SMALL)
        ax.set_xlabel(x, fontsize=SMALL)
        below = place is not None and place.rowspan.stop * place.get_gridspec().ncols
        if below and place.colspan.start + below < len(axes):
            ax.set_xlabel("")


def _tokens(ax: Axes, axis: Axis | None = None) -> None:
    """Ticks of tokens (or of another `axis`) at powers of 10, as 1B, 10B, 1T."""
    axis = ax.xaxis if axis is None else axis
    low, high = np.log10(axis.get_view_interval())
    decades = np.arange(np.ceil(low), np.floor(high) + 1)
    # Narrow panels: no more than four labels.
    step = max(1, -(-len(decades) // 4))
    axis.set_major_locator(FixedLocator((10.0 ** decades[::step]).tolist()))
    axis.set_major_formatter(FuncFormatter(lambda x, _: _short(x)))
    axis.set_minor_formatter(NullFormatter())


def _short(number: float) -> str:
    """1.28e9 as 1.3B."""
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * unit:
            scaled = number / unit
            return f"{scaled:.0f}{letter}" if scaled >= 10 else f"{scaled:.2g}{letter}"
    return f"{number:.3g}"


def _line(colour: Any, linestyle: str, label: str, lw: float = 1.5) -> Line2D:
    return Line2D([], [], color=colour, ls=linestyle, lw=lw, label=label)


def _marker(marker: str, label: str, **style: Any) -> Line2D:
    return Line2D([], [], ls="", marker=marker, ms=5, label=label, **style)


def _rung_handles(sizes: dict[float, Any], targets: pd.DataFrame) -> list[Line2D]:
    chosen = _few(list(sizes.items()), 6)
    handles = [_marker("o", _short(size), color=colour) for size, colour in chosen]
    for name, colour in _colours(targets).items():
        handles.append(_line(colour, "-", f"{name}, 80 and 95 %", lw=2.5))
    if targets[["loss_measured", "accuracy_measured"]].notna().any(axis=None):
        handles.append(_marker("D", "measured", mfc="white", mec="black"))
    return handles


def _few(items: list[Any], count: int) -> list[Any]:
    """At most `count` of them, evenly, with both ends."""
    if len(items) <= count:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def _legend(axes: Sequence[Axes] | Panels, handles: Sequence[Line2D], own: bool) -> None:
    """Below our own figure, in as many rows as it takes; inside the last of the user's axes."""
    style: dict[str, Any] = {"handles": list(handles), "fontsize": SMALL, "handletextpad": 0.5}
    if not own:
        axes[-1].legend(**style)
        return
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), int(WIDTH * 14 / (longest + 6))))
    axes[0].figure.legend(loc="outside lower center", ncols=columns, frameon=False, **style)


def _mark(tree: xr.DataTree) -> str:
    return "" if tree.attrs.get("converged", 1) else NOT_CONVERGED

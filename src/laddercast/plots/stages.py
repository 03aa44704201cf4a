"""The laws of loss and of accuracy as fitted: curves with bands, rungs and targets."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from laddercast.data import words as c
from laddercast.data.checks import check_one_recipe
from laddercast.data.ladder import Ladder, run_ends
from laddercast.data.writing import short_number
from laddercast.forecasting.grids import thinned
from laddercast.inference.results import frame_of, recipes_of, routes_of, tasks_of
from laddercast.model import laws
from laddercast.model.design import Frame
from laddercast.plots.style import (
    LINE_WIDTHS,
    Panels,
    add_legend,
    label_edges,
    line_handle,
    mark_powers,
    marker_handle,
    panels_of,
    set_title,
    size_colours,
    target_colours,
    target_table,
)
from laddercast.sampling.chains import on_device

CURVES = 200
"""Draws of the posterior for each of which a curve is computed."""
GRID = 80
"""Points along each curve."""
BANDS = ((95, 0.15), (80, 0.3))
"""Central intervals in percent, and the opacity of each band."""
STAGE_1 = ("A", "alpha", "B", "beta", "E", "q", "gamma")
STAGE_2 = ("a", "k", "L0", "b")


def plot_stage1(
    fitted: xr.DataTree,
    forecast: xr.DataTree | None = None,
    ladder: Ladder | None = None,
    ax: Any = None,
) -> Panels:
    """Loss against tokens: law and bands (80, 95 %) per size, rungs, targets; a panel per task.

    The law is that of the fit's first route that goes through a loss. Targets are drawn from a
    `forecast`: the law at their size, the interval of the loss forecast, and what was measured.
    Rungs are the ends of runs, of `ladder` if given, else of the fit, which
    knows them if it was fitted with `rungs="last"`.

    >>> axes = lc.plot_stage1(fitted)
    """
    fitted, loss = _through_loss(fitted, STAGE_1)
    posterior, frame = _thinned(fitted, STAGE_1), frame_of(fitted)
    common = loss == c.REFERENCE_LOSS
    names = [loss] if common else list(tasks_of(fitted).index)
    axes = panels_of(ax, len(names))
    rungs = _rungs(fitted, loss, ladder)
    constant = fitted["constant_data"]
    params, tokens = (constant[word].to_numpy().astype(float) for word in (c.PARAMS, c.TOKENS))
    sizes = size_colours(params)
    targets = target_table(forecast)
    longest = max([tokens.max(), *targets[c.TOKENS]])
    grid = np.geomspace(tokens.min(), longest, GRID)
    for panel, task in zip(axes, names, strict=False):
        of_task = posterior if common else posterior.sel(task=task)
        letters = {name: of_task[name].to_numpy()[:, None] for name in STAGE_1}
        for size, colour in sizes.items():
            x = grid[grid <= tokens.max()]
            _band(panel, x, _loss(letters, frame, size, x), colour)
            here = rungs[(rungs[c.PARAMS] == size) & (common | (rungs[c.TASK] == task))]
            panel.plot(
                here[c.TOKENS], here[c.LOSS], "o", ms=3.5, color=colour, mec="white", mew=0.3
            )
        for (name, colour), rows in _by_target(targets, None if common else task):
            row = rows.iloc[0]
            x = grid[grid <= 1.01 * row[c.TOKENS]]
            curve = _loss(letters, frame, row[c.PARAMS], x)
            _band(panel, x, curve, colour, linestyle="--", bands=())
            _interval(panel, row[c.TOKENS], row, c.LOSS, colour, name)
        panel.set_xscale("log")
        mark_powers(panel)
        set_title(panel, task)
    label_edges(axes, "tokens", "loss")
    add_legend(axes, _rung_handles(sizes, targets), ax is None)
    return axes


def plot_stage2(
    fitted: xr.DataTree,
    forecast: xr.DataTree | None = None,
    ladder: Ladder | None = None,
    ax: Any = None,
) -> Panels:
    """Accuracy against loss: the law with 80 and 95 % bands, rungs, targets; a panel per task.

    Arguments and rungs as in `plot_stage1`; a target's bars are its 80 and 95 % intervals.

    >>> axes = lc.plot_stage2(fitted)
    """
    fitted, loss = _through_loss(fitted, (*STAGE_1, *STAGE_2))
    posterior = _thinned(fitted, (*STAGE_1, *STAGE_2))
    tasks = tasks_of(fitted)
    axes = panels_of(ax, len(tasks))
    rungs = _rungs(fitted, loss, ladder)
    sizes = size_colours(fitted["constant_data"][c.PARAMS].to_numpy().astype(float))
    targets = target_table(forecast)
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
        set_title(panel, str(task))
    label_edges(axes, "loss", "accuracy (%)")
    handles = [*_rung_handles(sizes, targets), line_handle("0.6", ":", "guessing")]
    add_legend(axes, handles, ax is None)
    return axes


def _loss(letters: dict[str, np.ndarray], frame: Frame, params: float, tokens: np.ndarray) -> Any:
    log_a, log_b, log_e = (np.log(letters[name]) for name in "ABE")
    # All sizes have the term of D in common at the reference tokens.
    beta = letters["beta"] * (params / frame.params) ** letters["gamma"]
    log_b = log_b + (beta - letters["beta"]) * np.log(frame.tokens)
    exponents = letters["alpha"], beta, letters["q"]
    with on_device(jax.devices("cpu")[0]):
        log_loss = laws.log_loss(np.log(params), np.log(tokens), log_a, log_b, log_e, *exponents)
        return np.exp(np.asarray(log_loss))


def _through_loss(fitted: xr.DataTree, letters: Sequence[str]) -> tuple[xr.DataTree, str]:
    """The first route of a fit that goes through a loss and has these letters, and that loss."""
    check_one_recipe(recipes_of(fitted), "a figure of the laws")
    routes = routes_of(fitted)
    for own in routes.values():
        for quantity in (c.LOSS, c.REFERENCE_LOSS):
            if quantity in own["observed_data"] and set(letters) <= set(own["posterior"]):
                return own, quantity
    further = " to accuracy" if set(STAGE_2) & set(letters) else ""
    raise ValueError(
        f"the route {', '.join(routes)} goes through no loss{further}; plot a fit of another"
    )


def _accuracy(letters: dict[str, np.ndarray], loss: np.ndarray) -> Any:
    upper, lower = letters["b"], letters["a"] + letters["b"]
    with on_device(jax.devices("cpu")[0]):
        return np.asarray(laws.accuracy(loss, letters["k"], letters["L0"], lower, upper))


def _thinned(fitted: xr.DataTree, letters: Sequence[str]) -> xr.Dataset:
    posterior = thinned(fitted, CURVES)["posterior"].to_dataset()[list(letters)]
    return posterior.stack(sample=("chain", "draw")).transpose("sample", ...)


def _rungs(fitted: xr.DataTree, loss: str, ladder: Ladder | None) -> pd.DataFrame:
    """Ends of runs: `model, params, tokens, task, loss`, and `accuracy` if measured."""
    if ladder is not None:
        ends = run_ends(ladder.table)
        return ends.assign(**{c.LOSS: ends[loss]})
    observed = fitted["observed_data"].to_dataset()
    words = [f"point_{c.MODEL}", f"point_{c.TOKENS}"]
    quantities = [loss, *([c.ACCURACY] if c.ACCURACY in observed else [])]
    table = observed[[*quantities, *words]].to_dataframe().reset_index()
    table = table.rename(columns={loss: c.LOSS, words[0]: c.MODEL, words[1]: c.TOKENS})
    if table.duplicated([c.MODEL, c.TASK]).any():
        table = table.iloc[:0]  # checkpoints, of which the ends are not known to be measured
    runs = fitted["constant_data"].to_dataset()[[c.PARAMS]].to_dataframe()
    runs.index = runs.index.astype(str)
    return table.astype({c.MODEL: str, c.TASK: str}).join(runs[c.PARAMS], on=c.MODEL)


def _by_target(
    targets: pd.DataFrame, task: str | None
) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    chosen = targets if task is None else targets[targets[c.TASK] == task]
    pairs = [(pair, chosen[chosen[c.MODEL] == pair[0]]) for pair in target_colours(targets).items()]
    return [(pair, rows) for pair, rows in pairs if len(rows)]


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
    for level in (95, 80):
        ends = [unit * row[f"{quantity}_{end}"] for end in c.INTERVALS[level]]
        pair = (ends, [at, at]) if sideways else ([at, at], ends)
        width = LINE_WIDTHS[level] / 2
        ax.plot(*pair, color=colour, lw=width, alpha=0.8, solid_capstyle="butt", zorder=4)
    if not sideways and quantity == c.LOSS:
        ax.plot(at, row["loss_measured"], "D", ms=4, mfc=colour, mec="black", mew=0.8, zorder=5)


def _rung_handles(sizes: dict[float, Any], targets: pd.DataFrame) -> list[Line2D]:
    chosen = _few(list(sizes.items()), 6)
    handles = [marker_handle("o", short_number(size, 2), color=colour) for size, colour in chosen]
    for name, colour in target_colours(targets).items():
        handles.append(line_handle(colour, "-", f"{name}, 80 and 95 %", lw=2.5))
    if targets[["loss_measured", "accuracy_measured"]].notna().any(axis=None):
        handles.append(marker_handle("D", "measured", mfc="white", mec="black"))
    return handles


def _few(items: list[Any], count: int) -> list[Any]:
    """At most `count` of them, evenly, with both ends."""
    if len(items) <= count:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]

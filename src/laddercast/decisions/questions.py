"""Questions of one forecast: how probable, how much better, and how far to trust it.

All are answered from joint draws: of one draw, the values of all targets and tasks belong together.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from laddercast.data import words as c
from laddercast.data.ladder import Ladder, run_ends
from laddercast.data.sizes import whole_runs
from laddercast.data.writing import STYLES, counted, listed, no_such
from laddercast.forecasting.averages import mean_over_tasks, shares
from laddercast.forecasting.forecasts import decades_beyond
from laddercast.inference.results import converged, rungs_of, runs_measured

type Rungs = Ladder | xr.DataTree
"""The rungs of a forecast: their ladder, or the fit of it."""

GAIN_COLUMNS = (c.MODEL, c.TASK, "quantity", "over", "mean", "sd", *c.QUANTILES, "probability")


class Draws(NamedTuple):
    """What a forecast says of one task, or a mean: its targets, draws (all, targets), quantity."""

    models: list[str]
    draws: np.ndarray
    quantity: str
    share: dict[str, float]

    @property
    def better(self) -> float:
        """1 where more is better, -1 for losses."""
        return -1.0 if self.quantity == c.LOSS else 1.0


def probability(
    forecast: xr.DataTree,
    model: str | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
    beats: str | Rungs | None = None,
    task: str = c.ALL,
    weights: Mapping[str, float] | None = None,
) -> float | pd.Series:
    """The probability that a target lies above or below a value, or that it beats another.

    Of its accuracy or, where the forecast has none, its loss: of one `task`, or of the mean over
    all, with `weights` by task as `mean_over_tasks` takes them. `beats` is another target, or the
    ladder or the fit, for its best rung as `gain` has it; less is better of a loss. Give one of the
    three. A number if `model` names the target or there is but one, else a Series by target (with
    `beats`, of all but that). Raises ValueError for names that the forecast does not have.

    >>> lc.probability(forecast, "made-up-7B", above=0.6, task="piqa")
    >>> lc.probability(forecast, "made-up-13B", beats="made-up-7B")
    """
    if sum(x is not None for x in (above, below, beats)) != 1:
        raise ValueError("give one of above=, below= and beats=")
    found = draws_of(forecast, task, weights)
    value = above if above is not None else below
    if found.quantity == c.ACCURACY and value is not None and not 0 <= value <= 1:
        raise ValueError(f"accuracy {value:g}: give a fraction, not percent")
    if beats is not None:
        own = _gains(found, beats)[0] > 0
    elif above is not None:
        own = found.draws > above
    else:
        own = found.draws < below
    of = pd.Series(own.mean(axis=0), index=pd.Index(found.models, name=c.MODEL))
    if model is not None:
        return float(of.loc[_known(model, found.models)])
    if isinstance(beats, str):
        of = of.drop(beats)
    return float(of.iloc[0]) if len(of) == 1 else of.rename("probability")


def gain(
    forecast: xr.DataTree,
    over: str | Rungs,
    *,
    task: str = c.ALL,
    weights: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """By how much each target is better than another, or than the best rung.

    `over` is another target of the forecast, or the ladder or the fit: then it is the rung that
    measured best at the end of its run, on the same task or mean (of rungs that have all of its
    tasks), with the number that was measured. `task` and `weights` as `probability` has them. A row
    per target: `model, task, quantity, over`, then `mean, sd` and quantiles of the difference draw
    by draw, above 0 where the target is better (of a loss: lower), and the `probability` of that.
    Raises ValueError for names that the forecast does not have, and where nothing was measured.

    >>> lc.gain(forecast, ladder)
    >>> lc.gain(forecast, "made-up-7B", weights={"piqa": 1, "hellaswag": 2})
    """
    found = draws_of(forecast, task, weights)
    better, name = _gains(found, over)
    table = pd.DataFrame({c.MODEL: found.models})
    table[c.TASK], table["quantity"], table["over"] = task, found.quantity, name
    table["mean"], table["sd"] = better.mean(axis=0), better.std(axis=0)
    for word, level in c.QUANTILES.items():
        table[word] = np.quantile(better, level, axis=0)
    table["probability"] = (better > 0).mean(axis=0)
    return table.loc[table[c.MODEL] != name, list(GAIN_COLUMNS)].reset_index(drop=True)


class Headline(NamedTuple):
    """What to read first of a target, of the mean over tasks (or of its only task).

    Quantiles and `rung_value` in units of the quantity, gains above 0 where the target is better.
    `rung` is empty, and its numbers NaN, where no rung has all tasks. `decades` are of compute
    beyond the largest rung. Of a backtest of the same ladder: `cells` (0 without one), the mean
    error of medians, the share of measurements inside 80 % intervals.
    """

    model: str
    params: float
    tokens: float
    task: str
    tasks: int
    quantity: str
    q10: float
    q50: float
    q90: float
    rung: str
    rung_value: float
    gain_q10: float
    gain_q50: float
    gain_q90: float
    probability: float
    converged: bool
    decades: float
    cells: int
    error: float
    inside80: float

    @property
    def answer(self) -> str:
        """The mean, the gain over the best rung, and its probability, in words."""
        style = STYLES[self.quantity]
        what = f"mean {self.quantity} over {counted(self.tasks, 'task')}"
        if self.task != c.ALL:
            what = f"{self.quantity} of {self.task}"
        text = (
            f"{self.model}: {what} {style.value(self.q50)}{style.unit} (80 %: "
            f"{style.value(self.q10)} to {style.value(self.q90)})"
        )
        if not self.rung:
            return f"{text}; no rung has all tasks to compare with."
        return (
            f"{text}; better than the best rung, {self.rung}, by {style.value(self.gain_q50)}"
            f"{style.of_errors} ({style.value(self.gain_q10)} to {style.value(self.gain_q90)}), "
            f"with a probability of {_percent(self.probability)}."
        )

    @property
    def trust(self) -> str:
        """One line: convergence, how the method did on this ladder, how far beyond it this lies."""
        style = STYLES[self.quantity]
        parts = ["Converged" if self.converged else "NOT CONVERGED: do not rely on it"]
        parts.append(
            f"of {counted(self.cells, 'measurement')} held out of the ladder "
            f"{100 * self.inside80:.0f} % lay in their 80 % intervals, with an error of "
            f"{style.error(self.error)}{style.of_errors} on average"
            if self.cells
            else "no backtest of this ladder at hand"
        )
        parts.append(
            f"{self.decades:.1f} decades of compute beyond the largest rung"
            if self.decades > 0
            else "within the compute of the ladder"
        )
        return "; ".join(parts) + "."


def headline(
    forecast: xr.DataTree,
    rungs: Rungs,
    backtest: pd.DataFrame | None = None,
    weights: Mapping[str, float] | None = None,
) -> list[Headline]:
    """What to read first of each target; `backtest` as `backtest` or `read_backtest` gives it."""
    names = list(dict.fromkeys(forecast["predictions"][c.TASK].to_numpy().astype(str)))
    task = names[0] if len(names) == 1 and weights is None else c.ALL
    found = draws_of(forecast, task, weights)
    rung, value = _best_rung(rungs, found)
    better = found.better * (found.draws - value)
    quantiles, gains = (np.quantile(x, (0.1, 0.5, 0.9), axis=0).T for x in (found.draws, better))
    data = forecast["predictions"].to_dataset()
    sizes = pd.DataFrame({word: data[word].to_numpy() for word in (c.MODEL, c.PARAMS, c.TOKENS)})
    sizes = sizes.drop_duplicates(c.MODEL)
    ends = whole_runs(rungs.table) if isinstance(rungs, Ladder) else rungs_of(rungs)
    # Products of whole numbers can be too large for them.
    ends = ends[[c.PARAMS, c.TOKENS]].astype(float)
    decades = decades_beyond(ends, sizes)
    cells = pd.DataFrame()
    if backtest is not None:
        cells = backtest[backtest["quantity"] == found.quantity].dropna(subset=["measured"])
    told = (
        (len(cells), float(cells["error"].mean()), float(cells["inside80"].mean()))
        if len(cells)
        else (0, np.nan, np.nan)
    )
    found_of = []
    for i, (name, n, d) in enumerate(sizes.itertuples(index=False)):
        low, middle, high = quantiles[i].tolist()
        least, half, most = gains[i].tolist()
        p = float((better[:, i] > 0).mean()) if rung else np.nan
        found_of.append(
            Headline(
                str(name), float(n), float(d), task, len(found.share), found.quantity, low, middle,
                high, rung, value, least, half, most, p, bool(converged(forecast)),
                float(decades[i]), *told,
            )
        )  # fmt: skip
    return found_of


def draws_of(
    forecast: xr.DataTree,
    task: str = c.ALL,
    weights: Mapping[str, float] | None = None,
    quantity: str | None = None,
) -> Draws:
    """Draws of one task, or of a mean over tasks, of this quantity or what is mainly forecast."""
    data = forecast["predictions"].to_dataset()
    tasks = list(dict.fromkeys(data[c.TASK].to_numpy().astype(str)))
    if task != c.ALL and weights is not None:
        raise ValueError(f"weights are of a mean over tasks: leave out task={task!r}, or them")
    if task == c.ALL and c.ALL not in tasks:
        share = shares(tasks, weights)
        data = mean_over_tasks(forecast, weights)["predictions"].to_dataset()
    else:
        share = {_known(task, tasks, "task"): 1.0}
        data = data.isel(row=data[c.TASK].to_numpy().astype(str) == task)
    quantity = quantity or (c.ACCURACY if c.ACCURACY in data else c.LOSS)
    if quantity not in data:
        raise ValueError(f"no {quantity} is forecast by this fit's routes")
    draws = data[quantity].transpose("chain", "draw", "row").to_numpy()
    models = data[c.MODEL].to_numpy().astype(str).tolist()
    return Draws(models, draws.reshape(-1, len(models)), quantity, share)


def _gains(found: Draws, over: str | Rungs) -> tuple[np.ndarray, str]:
    """By how much each draw of each target is better, and the name of what it is better than."""
    if isinstance(over, str):
        other = found.draws[:, [found.models.index(_known(over, found.models))]]
        return found.better * (found.draws - other), over
    rung, value = _best_rung(over, found)
    if not rung:
        raise ValueError(
            f"no rung has a measured {found.quantity} of {listed(found.share, 10)}"
            f"{' together' if len(found.share) > 1 else ''}: leave tasks out by weights="
        )
    return found.better * (found.draws - value), rung


def _best_rung(rungs: Rungs, found: Draws) -> tuple[str, float]:
    """The rung that measured best, and what it measured; no name and NaN if none has all tasks."""
    table = _measured(rungs, found.quantity).reindex(columns=list(found.share))
    # A forecast of means has lost its tasks.
    means = (table * pd.Series(found.share)).sum(axis=1, skipna=False).dropna()
    if means.empty:
        return "", np.nan
    best = (found.better * means).idxmax()
    return str(best), float(means[best])


def _measured(rungs: Rungs, quantity: str) -> pd.DataFrame:
    """What was measured at the ends of runs, models x tasks; empty where nothing was."""
    ends = run_ends(rungs.table) if isinstance(rungs, Ladder) else runs_measured(rungs, quantity)
    if quantity not in ends or ends.empty:
        return pd.DataFrame()
    return ends.pivot_table(quantity, index=c.MODEL, columns=c.TASK)


def _known(name: str, names: list[str], what: str = "target") -> str:
    if name not in names:
        raise ValueError(no_such(f"{what} in this forecast", [name], names, f"{what}s"))
    return name


def _percent(share: float) -> str:
    """In whole percent, and never the 0 or 100 that finitely many draws cannot tell."""
    if 0.01 <= share <= 0.99:
        return f"{100 * share:.0f} %"
    return "over 99 %" if share > 0.5 else "under 1 %"

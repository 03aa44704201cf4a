"""How noisy each task's metric is: between checkpoints, between runs, and as the fit sees it."""

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from laddercast.data import words as c
from laddercast.data.ladder import (
    END_CHECKPOINTS,
    SPREAD_CHECKPOINTS,
    SPREAD_SHARE,
    Ladder,
    checkpoint_spread,
    run_ends,
)
from laddercast.inference.results import routes_of, tasks_of
from laddercast.model.design import binomial_variance, loss_column

SAME_LENGTH = 0.01
"""Two runs of one size are reruns if the tokens at their ends differ by less than this share."""


def metric_noise(ladder: Ladder) -> pd.DataFrame:
    """SD of each metric over a run's last checkpoints, as in the noise table of arXiv 2412.04403.

    At most the last 10 checkpoints, of the run's last quarter; runs with fewer than 2 are left out.
    One row per model x task x quantity (`loss` or `reference_loss`, `accuracy`): `model, params,
    tokens, task, quantity, checkpoints, mean, sd, relative_sd, trend_free_sd`, in the quantity's
    own unit (accuracy as a fraction). `sd` divides by the number of checkpoints, as published;
    `relative_sd` is `sd / mean`; `trend_free_sd` is taken about a straight line in tokens, with two
    degrees of freedom fewer (NaN below 4 checkpoints).

    >>> lc.metric_noise(ladder).groupby("task")["relative_sd"].mean()
    """
    table = ladder.table
    end = table.groupby(c.MODEL)[c.TOKENS].transform("max")
    late = table[table[c.TOKENS] >= SPREAD_SHARE * end].sort_values(c.TOKENS, kind="stable")
    parts = []
    for quantity in _quantities(table):
        last = late.dropna(subset=[quantity]).groupby([c.MODEL, c.TASK]).tail(SPREAD_CHECKPOINTS)
        runs = last.groupby([c.MODEL, c.TASK])
        part = pd.DataFrame(
            {
                c.PARAMS: runs[c.PARAMS].first(),
                c.TOKENS: runs[c.TOKENS].max(),
                "quantity": quantity,
                c.CHECKPOINTS: runs.size(),
                "mean": runs[quantity].mean(),
                "sd": runs[quantity].std(ddof=0),
            }
        ).reset_index()
        spread = checkpoint_spread(table, quantity, log=False)
        spread["trend_free_sd"] = np.sqrt(spread["variance"])
        keys = [c.MODEL, c.TASK]
        parts.append(part.merge(spread[[*keys, "trend_free_sd"]], on=keys, how="left"))
    noise = pd.concat(parts, ignore_index=True)
    noise = noise[noise[c.CHECKPOINTS] > 1]
    noise["relative_sd"] = noise["sd"] / noise["mean"]
    noise = noise.sort_values([c.TASK, c.PARAMS, c.TOKENS, "quantity"], kind="stable")
    words = [c.MODEL, c.PARAMS, c.TOKENS, c.TASK, "quantity", c.CHECKPOINTS]
    return noise[[*words, "mean", "sd", "relative_sd", "trend_free_sd"]].reset_index(drop=True)


def _quantities(table: pd.DataFrame) -> list[str]:
    """The loss that a fit is on and accuracy, as far as they were measured."""
    return [word for word in (loss_column(table), c.ACCURACY) if c.measured(table, word)]


def _with_both(table: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """The loss that a fit is on, and the table with it and accuracy, NaN if not measured."""
    loss = loss_column(table)
    return loss, table.assign(**{w: np.nan for w in (loss, c.ACCURACY) if w not in table})


def rerun_noise(ladder: Ladder) -> pd.DataFrame:
    """Differences between reruns: pairs of models of one size, equally long within 1 %.

    Compares the means of the last 5 checkpoints at equal tokens, or the ends of the runs where no
    tokens are equal. One row per pair x task: `model, rerun, params, tokens, task`, then `loss`
    (percent of the first model's) and `accuracy` (points): the rerun's difference divided by the
    root of 2, so that its root mean square estimates the SD of one run. NaN is what was not
    measured. Empty without reruns.

    >>> differences = lc.rerun_noise(ladder)
    """
    loss, table = _with_both(ladder.table)
    ends = run_ends(table).set_index(c.MODEL)
    by_model = dict(iter(table.groupby(c.MODEL)))
    parts = []
    for model, rerun in combinations(ladder.models, 2):
        one, other = by_model[model], by_model[rerun]
        if not _same_training(one, other):
            continue
        measured = [c.TASK, loss, c.ACCURACY]
        both = one.merge(other, on=[c.TASK, c.TOKENS], suffixes=("_one", "_other"))
        both = both.sort_values(c.TOKENS).groupby(c.TASK).tail(END_CHECKPOINTS)
        if both.empty:
            both = ends.loc[[model], measured].merge(
                ends.loc[[rerun], measured], on=c.TASK, suffixes=("_one", "_other")
            )
        columns = [f"{name}_{which}" for name in measured[1:] for which in ("one", "other")]
        mean = both.groupby(c.TASK)[columns].mean()
        relative = mean[f"{loss}_other"] / mean[f"{loss}_one"] - 1
        part = pd.DataFrame(
            {
                c.LOSS: 100 * relative / np.sqrt(2),
                c.ACCURACY: 100 * (mean["accuracy_other"] - mean["accuracy_one"]) / np.sqrt(2),
            }
        ).reset_index()
        size, length = one[c.PARAMS].iloc[0], one[c.TOKENS].max()
        named = {c.MODEL: model, "rerun": rerun, c.PARAMS: size, c.TOKENS: length}
        parts.append(part.assign(**named))
    words = [c.MODEL, "rerun", c.PARAMS, c.TOKENS, c.TASK, c.LOSS, c.ACCURACY]
    return pd.concat(parts, ignore_index=True)[words] if parts else pd.DataFrame(columns=words)


def _same_training(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    lengths = sorted(float(run[c.TOKENS].max()) for run in (one, other))
    same_size = one[c.PARAMS].iloc[0] == other[c.PARAMS].iloc[0]
    return bool(same_size and lengths[1] - lengths[0] < SAME_LENGTH * lengths[1])


def noise_by_task(ladder: Ladder, fitted: xr.DataTree | None = None) -> pd.DataFrame:
    """Each task's noise as measured and, with `fitted`, as the posterior has it.

    One row per task x noise: `task, noise, unit, measured`, with `fitted` also `q05, q50, q95`.
    All are SDs: `loss_checkpoint` (in the unit of loss, and in percent) and `accuracy_checkpoint`
    (points), root mean squares over models of the trend-free SDs; `loss_run` (percent) and
    `accuracy_run` (points), root mean squares over reruns; `loss_discrepancy` (percent) and
    `accuracy_discrepancy` (logits), per root decade of compute and never measured. Relative SDs of
    the posterior are converted at the mean loss and accuracy of the ends of runs. Raises ValueError
    where a task of the ladder is not in the fit.

    >>> table = lc.noise_by_task(ladder, fitted)
    """
    loss, table = _with_both(ladder.table)
    spreads = {
        "loss_checkpoint": ("loss", 1.0, checkpoint_spread(table, loss, log=False)),
        "loss_checkpoint_relative": ("%", 100.0, checkpoint_spread(table, loss, log=True)),
        "accuracy_checkpoint": ("points", 100.0, checkpoint_spread(table, c.ACCURACY, log=False)),
    }
    reruns = rerun_noise(ladder)
    measured: dict[str, tuple[str, pd.Series]] = {
        noise: (unit, scale * np.sqrt(spread.groupby(c.TASK)["variance"].mean()))
        for noise, (unit, scale, spread) in spreads.items()
    }
    for noise, word, unit in (("loss_run", c.LOSS, "%"), ("accuracy_run", c.ACCURACY, "points")):
        squares = reruns[word].astype(float) ** 2
        measured[noise] = unit, np.sqrt(squares.groupby(reruns[c.TASK]).mean())
    measured["loss_discrepancy"] = "%", pd.Series(dtype=float)
    measured["accuracy_discrepancy"] = "logits", pd.Series(dtype=float)
    rows = [
        (task, noise, unit, float(values.get(task, np.nan)))
        for noise, (unit, values) in measured.items()
        for task in ladder.tasks.index
    ]
    summary = pd.DataFrame(rows, columns=[c.TASK, "noise", "unit", "measured"])
    if fitted is not None:
        draws = _posterior_noise(ladder, fitted)
        for name, level in (("q05", 0.05), ("q50", 0.5), ("q95", 0.95)):
            summary[name] = [
                float(np.quantile(draws[noise][task], level)) if noise in draws else np.nan
                for task, noise in zip(summary[c.TASK], summary["noise"], strict=True)
            ]
    summary["noise"] = summary["noise"].str.removesuffix("_relative")
    return summary


def _posterior_noise(ladder: Ladder, fitted: xr.DataTree) -> dict[str, dict[str, np.ndarray]]:
    """Draws of each noise per task, in the units of `noise_by_task`."""
    tasks = tasks_of(fitted)
    missing = sorted(set(ladder.tasks.index) - set(tasks.index))
    if missing:
        raise ValueError(
            f"not in the fit: {', '.join(missing)}; its tasks are {', '.join(tasks.index)}"
        )
    posteriors = [own["posterior"].to_dataset() for own in routes_of(fitted).values()]
    loss, table = _with_both(ladder.table)
    # The first route that has them tells the noise of losses, and of accuracies.
    of_loss = next((p for p in posteriors if f"run_{loss}" in p), None)
    of_accuracy = next((p for p in posteriors if "run_accuracy" in p), None)
    ends = run_ends(table).groupby(c.TASK)[[loss, c.ACCURACY]].mean()
    draws: dict[str, dict[str, np.ndarray]] = {}
    for task in ladder.tasks.index:
        mean, accuracy = ends.loc[task]
        found: dict[str, Any] = {}
        if of_accuracy is not None:
            binomial = 100 * np.sqrt(binomial_variance(accuracy, tasks.loc[task, c.ITEMS]))
            p = of_accuracy.sel(task=task)
            found |= {
                "accuracy_checkpoint": binomial * p["checkpoint_accuracy"],
                "accuracy_run": binomial * p["run_accuracy"],
                "accuracy_discrepancy": p["discrepancy_accuracy"],
            }
        if of_loss is not None:
            p = of_loss.sel(task=task)
            found |= {
                "loss_discrepancy": 100 * p[f"discrepancy_{loss}"],
                "loss_checkpoint": mean * p[f"checkpoint_{loss}"],
                "loss_checkpoint_relative": 100 * p[f"checkpoint_{loss}"],
                "loss_run": 100 * p[f"run_{loss}"],
            }
        for noise, value in found.items():
            draws.setdefault(noise, {})[task] = value.to_numpy()
    return draws

"""Which forecasts to doubt, and why: plain rules, each with the reason for its limit."""

from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import binom

from laddercast.data import words as c
from laddercast.data.lines import NEAR, Line, factor_off
from laddercast.data.sizes import log10_flops
from laddercast.data.writing import STYLES, Style
from laddercast.decisions.chance import ERRORS, beside_guessing
from laddercast.forecasting.forecasts import FAR_DECADES, decades_beyond
from laddercast.inference.results import converged, routes_of
from laddercast.inference.suspicions import (
    AT_EDGE,
    EDGE,
    FAR_RUN,
    OFF,
    ORDER,
    OUTLIER,
    SAME,
    suspicions_of,
)
from laddercast.sampling.diagnostics import (
    ESS_FORECASTS,
    RHAT_POPULATION,
    Quality,
    pooled_quality,
    trusted,
)

RULES = {
    "not converged": "The draws have not converged by the limits that fit and forecast set "
    f"themselves (of a forecast: R-hat below {RHAT_POPULATION}, effective sample sizes above "
    f"{ESS_FORECASTS}). Another seed may then give other intervals.",
    ORDER: "In the runs' ends losses rise with compute, or accuracies fall with it or rise with "
    "losses (rank correlation; p below 0.05, one-sided). Every law here says the contrary, so that "
    "either the measurements are mixed up or this task follows no such law.",
    OUTLIER: "A run's measurements lie far off a plane in log params and log tokens through those "
    "of the other runs, in most tasks. The noise of runs has heavy tails, so that it bends laws "
    "little; but look at how it was trained and measured.",
    SAME: "Two runs have the same measurements in all tasks, as where one checkpoint was scored "
    "under two names.",
    AT_EDGE: f"A parameter's median lies more than {EDGE:g} standard deviates from its prior's. "
    "Either prior or law is wrong for these data, or the sampler has found the wrong mode.",
    FAR_RUN: f"In all its tasks a run lies off the law by more than {OFF:g} standard deviates of "
    "what runs are taken to differ by, before the data. The noise of runs has heavy tails, so that "
    "it bends laws little, but it makes all noise wider; look at how it was trained and measured.",
    "far in compute": "The target lies further beyond the largest rung, in decades of compute "
    "(params x tokens), than the ladder itself spans, or further than "
    f"{FAR_DECADES:g} decades, beyond which a forecast warns. A law is then extended over more "
    "than it was seen to hold over.",
    "another length": "The target's tokens per parameter lie outside those of the rungs. It is "
    "then extrapolated in a second direction, in which the ladder's parameters and tokens were not "
    "seen to trade off.",
    "off the line of the rungs": "All rungs lie on one line in log params and log tokens, as where "
    "each has 20 tokens per parameter, and the target lies off it. Rungs on one line cannot tell "
    "what parameters do from what tokens do: the difference to the line rests on the priors.",
    "rests on the discrepancy": "More than half of the variance (so more than from all else) comes "
    "from the discrepancy beyond the ladder: how far the law is allowed to bend there, which the "
    "ladder can hardly tell.",
    "routes disagree": "The median of one route lies outside the 80 % interval of another that the "
    "fit pools, or more than half of the variance comes from the difference between them: accounts "
    "of the same rungs that contradict each other further out.",
    "mostly noise": "More than half of the variance comes from noise between runs and between "
    "checkpoints. No better ladder narrows this interval; more checkpoints, or another "
    "benchmark, might.",
    "wider than the ladder": "The 80 % interval is wider than the range of all rungs (their "
    "expected accuracies, or losses, by this fit). It says less than the ladder did before a law.",
    "may be no gain": "The 80 % interval reaches the best rung's expected accuracy, or loss: there "
    "is at least one chance in ten that the target is no better than a model that you have.",
    "near chance": "The best rung's measured accuracy is not above guessing by two standard "
    "errors, sqrt(chance (1 - chance) / items), or by as many more as luck gives the best of so "
    "many rungs (of 16, three); 1,000 questions are taken where their number is not known. It "
    "cannot be told from guessing, so the curve's rise was not seen, and the rungs tell nearly "
    "nothing of this task. Where and whether it rises rests on the priors and on the other tasks. "
    "The target is said to leave chance where it is above it by 2 points, or by two standard "
    "errors where these are more.",
    "missed in the backtest": "In the backtest, more measurements of this task lay outside their "
    "95 % intervals than honest intervals would let happen one time in twenty (binomial). Cells "
    "of one model err together, and folds forecast the same cell again, so this is a hint, not a "
    "test.",
}
"""Each rule by name, in plain words."""

SOURCES = {
    "law": "the law, as the ladder leaves it uncertain",
    "discrepancy": "discrepancy: how the law may bend beyond the ladder",
    "run": "noise between runs of the same model",
    "checkpoint": "noise between checkpoints of a run",
    "route": "disagreement between the routes that are pooled",
}
"""What the sources of the group `variance` mean; others are called by their name."""

CURES = {
    "law": "more rungs, or larger and longer ones",
    "discrepancy": "rungs nearer to the target",
    "run": "nothing in the ladder; a second run of a rung tells how much it is",
    "checkpoint": "scoring the mean of several checkpoints, or a benchmark with more questions",
    "route": "rungs nearer to the target, where the routes part",
}
"""What would narrow an interval that comes from each source."""

CLEAR_OF_CHANCE = 0.02
"""The accuracy above chance that counts as having left it, or two standard errors if more."""


class Evidence(NamedTuple):
    """What the rules read beside the forecast.

    `rungs`: `params, tokens` by model; `tasks`: `chance, items` by task; `expected`: the rungs'
    expected accuracies (of a forecast of losses: losses), with `model, task, q50`; `cells` of all
    folds of a backtest: `task, quantity, pit`; `line` on which all rungs lie, if they do;
    `measured`: accuracies at the rungs' ends, `task, accuracy`.
    """

    rungs: pd.DataFrame
    tasks: pd.DataFrame
    expected: pd.DataFrame
    cells: pd.DataFrame | None = None
    line: Line | None = None
    measured: pd.DataFrame | None = None


def find_doubts(forecast: xr.DataTree, table: pd.DataFrame, evidence: Evidence) -> pd.DataFrame:
    """What speaks against each forecast: `model, task, rule, why`, in words.

    `table` as `forecast_table` gives it, of the same forecast. Judged are accuracies or, where
    there are none, losses.
    """
    quantity = c.main_quantity(table)
    rows = table[table["quantity"] == quantity].reset_index(drop=True)
    shares = variance_shares(forecast)
    quality = convergence(forecast)
    suspicions = suspicions_of(forecast.attrs)
    leaving = leaves_chance(forecast, evidence)
    by_route = _route_quantiles(forecast, quantity)
    found: list[tuple[str, str, str, str]] = []
    for number, row in enumerate(rows.to_dict("records")):
        whys = {
            **_of_draws(forecast, quality.iloc[number]),
            **_of_suspicions(suspicions, row[c.TASK]),
            **_of_distance(row, evidence),
            **_of_variance(shares.iloc[number] if len(shares) else pd.Series(dtype=float)),
            **_of_routes(by_route, number, STYLES[quantity]),
            **_of_level(row, evidence, quantity),
            **_of_chance(leaving.iloc[number]),
            **_of_backtest(row[c.TASK], evidence.cells, quantity),
        }
        found += [(str(row[c.MODEL]), str(row[c.TASK]), rule, why) for rule, why in whys.items()]
    return pd.DataFrame(found, columns=[c.MODEL, c.TASK, "rule", "why"])


def variance_shares(forecast: xr.DataTree) -> pd.DataFrame:
    """Share of each source in the variance of each row's accuracy; no rows without that group."""
    if "variance" not in forecast.children:
        return pd.DataFrame()
    parts = forecast["variance"].to_dataset()
    table = pd.DataFrame(
        {str(name): parts[name].to_numpy() for name in parts.data_vars if name != "total"}
    )
    return table.div(table.sum(axis=1), axis=0)


def convergence(forecast: xr.DataTree) -> pd.DataFrame:
    """R-hat and effective sample sizes of each row, `rhat, bulk, tail`, by its route.

    Of its accuracy, or of its loss where it has no other.
    """
    data = forecast["predictions"].to_dataset()
    draws = (
        data[c.ACCURACY if c.ACCURACY in data else c.LOSS]
        .transpose("chain", "draw", "row")
        .to_numpy()
    )
    parts, shares = [draws], [1.0]
    if "route" in data.coords:
        routes = data["route"].to_numpy().astype(str)
        parts = [draws[:, routes == name] for name in np.unique(routes)]
        shares = [part.shape[1] / draws.shape[1] for part in parts]
    return pd.DataFrame(pooled_quality(parts, shares)._asdict())


def _of_draws(forecast: xr.DataTree, found: pd.Series) -> dict[str, str]:
    if not trusted(Quality(*(found[word] for word in Quality._fields))):
        least = found[["bulk", "tail"]].min()
        return {
            "not converged": f"R-hat is {found['rhat']:.3f}, the least effective sample size "
            f"{least:.0f}."
        }
    if (known := converged(forecast)) is None:
        return {"not converged": "The file does not say whether the fit has converged."}
    if not known:
        return {"not converged": "The fit, or another row of the forecast, has not converged."}
    return {}


def _of_suspicions(found: list[dict[str, str]], task: str) -> dict[str, str]:
    whys: dict[str, list[str]] = {}
    for one in found:
        if one[c.TASK] in ("", task):
            whys.setdefault(one["rule"], []).append(one["why"])
    return {rule: f"{'; '.join(own)}." for rule, own in whys.items()}


def _of_distance(row: dict[Any, Any], evidence: Evidence) -> dict[str, str]:
    found, rungs = {}, evidence.rungs
    (factor,) = factor_off(evidence.line, pd.DataFrame([row]))
    if factor > NEAR:
        found["off the line of the rungs"] = (
            f"In params or tokens it is off by a factor of {factor:.2g}; {evidence.line}."
        )
    span = np.ptp(log10_flops(rungs))
    (decades,) = decades_beyond(rungs, pd.DataFrame([row]))
    if decades > min(span, FAR_DECADES):
        found["far in compute"] = (
            f"It lies {decades:.1f} decades of compute beyond the largest rung; the ladder spans "
            f"{span:.1f}."
        )
    ratio = rungs[c.TOKENS] / rungs[c.PARAMS]
    own = row[c.TOKENS] / row[c.PARAMS]
    slack = 1.005  # as written: three digits
    if own > slack * ratio.max() or own * slack < ratio.min():
        ends = list(dict.fromkeys(f"{end:,.0f}" for end in (ratio.min(), ratio.max())))
        found["another length"] = (
            f"It has {own:,.0f} tokens per parameter, the rungs {' to '.join(ends)}."
        )
    return found


def _of_variance(shares: pd.Series) -> dict[str, str]:
    found = {}
    for rule, sources in (
        ("rests on the discrepancy", ["discrepancy"]),
        ("routes disagree", ["route"]),
        ("mostly noise", ["run", "checkpoint"]),
    ):
        share = shares.reindex(sources).sum()
        if share > 0.5:
            found[rule] = f"{100 * share:.0f} % of the variance of this forecast."
    return found


def _route_quantiles(forecast: xr.DataTree, quantity: str) -> dict[str, np.ndarray]:
    """Of each route that is pooled, 10, 50 and 90 % quantiles of each row: (3, rows)."""
    routes = {
        name: own["predictions"]
        for name, own in routes_of(forecast).items()
        if "predictions" in own.children and quantity in own["predictions"]
    }
    if len(routes) < 2:
        return {}
    return {
        name: own[quantity].quantile([0.1, 0.5, 0.9], ("chain", "draw")).to_numpy()
        for name, own in routes.items()
    }


def _of_routes(quantiles: dict[str, np.ndarray], row: int, style: Style) -> dict[str, str]:
    """The pair of routes of which one's median lies furthest outside the other's interval."""
    found = []
    for (one, x), (other, y) in permutations(quantiles.items(), 2):
        (low, _, high), middle = y[:, row], x[1, row]
        outside = max(low - middle, middle - high)
        if outside > 0:
            said = (
                f"The median of {one} is {style.value(middle)}{style.unit}, outside the 80 % "
                f"interval of {other}, {style.value(low)} to {style.value(high)}{style.unit}."
            )
            found.append((outside, said))
    return {"routes disagree": max(found)[1]} if found else {}


def _of_level(row: dict[Any, Any], evidence: Evidence, quantity: str) -> dict[str, str]:
    found, style = {}, STYLES[quantity]
    lower_is_better = quantity == c.LOSS
    expected = evidence.expected.loc[evidence.expected[c.TASK] == row[c.TASK], "q50"]
    best = expected.min() if lower_is_better else expected.max()
    span = expected.max() - expected.min()
    width = row["q90"] - row["q10"]
    if width > span:
        found["wider than the ladder"] = (
            f"The 80 % interval is {style.value(width)}{style.of_errors} wide; the rungs span "
            f"{style.value(span)}."
        )
    end, word = (row["q90"], "ends") if lower_is_better else (row["q10"], "begins")
    if (end >= best) if lower_is_better else (end <= best):
        found["may be no gain"] = (
            f"The 80 % interval {word} at {style.value(end)}{style.unit}, the best rung is "
            f"expected at {style.value(best)}{style.unit}."
        )
    return found


def leaves_chance(forecast: xr.DataTree, evidence: Evidence) -> pd.DataFrame:
    """What the rungs tell of each row's task beside guessing: columns of `beside_guessing`, `by`.

    `by` is how far above chance counts as having left it. `probability` that the target does; NaN
    where a rung has left chance, and where no accuracy is forecast or was measured.
    """
    predictions = forecast["predictions"].to_dataset()
    names = predictions[c.TASK].to_numpy().astype(str)
    runs = evidence.measured
    runs = pd.DataFrame(columns=[c.TASK, c.ACCURACY], dtype=float) if runs is None else runs
    table = beside_guessing(runs, evidence.tasks).reindex(names).reset_index(drop=True)
    table["by"] = np.maximum(ERRORS * table["error"], CLEAR_OF_CHANCE)
    table["probability"] = np.nan
    if c.ACCURACY in predictions:
        limit = (table[c.CHANCE] + table["by"]).to_numpy()
        above = predictions[c.ACCURACY].transpose(..., "row").to_numpy() > limit
        share = pd.Series(above.reshape(-1, len(names)).mean(axis=0))
        table["probability"] = share.where(table["at_chance"] == True)  # noqa: E712 - may be NaN
    return table


def _of_chance(row: pd.Series) -> dict[str, str]:
    if np.isnan(row["probability"]):
        return {}
    about = (
        f" with a standard error of {100 * row['error']:.1f} points over {row['items']:,.0f} "
        "questions"
        if np.isfinite(row["items"])
        else ""
    )
    return {
        "near chance": f"The best rung measured {100 * row['best']:.1f} %, guessing gives "
        f"{100 * row['chance']:.1f} %{about}. The target leaves chance, by more than "
        f"{100 * row['by']:.1f} points, with a probability of {likely(row['probability'])}."
    }


def likely(share: float) -> str:
    """A probability in percent, never 0 or 100 %, which draws cannot tell."""
    if share > 0.995:
        return "over 99 %"
    return "under 1 %" if share < 0.005 else f"{100 * share:.0f} %"


def split_doubts(table: pd.DataFrame, found: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What is true of all, or of all tasks of a target, and what tells forecasts apart.

    `table` has a row per forecast. The first is `model, rule`, a row each, with no model where the
    rule speaks against every forecast; the second the rows of `found` that it does not cover.
    """
    models = table[c.MODEL].astype(str)
    tasks = models.value_counts()
    common: list[tuple[str, str]] = []
    apart = np.ones(len(found), dtype=bool)
    for rule in dict.fromkeys(found["rule"]):
        here = (found["rule"] == rule).to_numpy()
        count = found.loc[here, c.MODEL].value_counts()
        whole = [m for m in dict.fromkeys(models) if tasks[m] > 1 and count.get(m, 0) == tasks[m]]
        if len(table) > 1 and here.sum() == len(table):
            common.append(("", rule))
            apart &= ~here
            continue
        common += [(model, rule) for model in whole]
        apart &= ~(here & found[c.MODEL].isin(whole).to_numpy())
    return pd.DataFrame(common, columns=[c.MODEL, "rule"]), found[apart]


def _of_backtest(task: str, cells: pd.DataFrame | None, quantity: str) -> dict[str, str]:
    if cells is None:
        return {}
    pit = cells.loc[(cells["quantity"] == quantity) & (cells[c.TASK] == task), "pit"].dropna()
    outside = int(((pit < 0.025) | (pit > 0.975)).sum())
    # The chance of so many or more, were the intervals honest and the cells independent.
    if outside and binom.sf(outside - 1, len(pit), 0.05) < 0.05:
        return {
            "missed in the backtest": f"{outside} of {len(pit)} measurements lay outside their "
            "95 % intervals."
        }
    return {}

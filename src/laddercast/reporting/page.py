"""The report: one HTML file of a forecast, with what to doubt in it, and what it was made from."""

import base64
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jinja2 import Environment, PackageLoader, StrictUndefined

from laddercast.data import words as c
from laddercast.data.lines import line_through
from laddercast.data.sizes import log10_flops
from laddercast.data.temporary import passing_folder
from laddercast.data.writing import STYLES
from laddercast.decisions.questions import headline
from laddercast.decisions.recipes import RecipeComparison
from laddercast.evaluation.backtests import check_backtest
from laddercast.evaluation.scores import score
from laddercast.forecasting.averages import mean_over_tasks
from laddercast.forecasting.forecasts import forecast_table
from laddercast.forecasting.grids import distance, expected_table
from laddercast.inference.results import (
    converged,
    points_of,
    routes_of,
    rungs_of,
    runs_measured,
    tasks_of,
)
from laddercast.model.routes import Route
from laddercast.reporting import figures, tables, words
from laddercast.reporting.decisions import Decisions, decisions_of
from laddercast.reporting.directions import isolated
from laddercast.reporting.doubts import (
    RULES,
    Evidence,
    convergence,
    find_doubts,
    leaves_chance,
    split_doubts,
    variance_shares,
)

MEDIAN_DRAWS = 1000
"""Draws of the posterior for the medians of the rungs' expected accuracies."""

NAME = "report.html"

NO_DECISIONS = Decisions()

GENERATOR = b'<meta name="generator" content="laddercast">'
"""In the first lines of the template."""

CONTENTS = {"predictions.nc": ("predictions",), "fit.nc": ("constant_data",)}
"""Groups without which a file is damaged."""

SHARED = ("fingerprint", "draws", "routes", "seed")
"""Attributes that a forecast has from its fit."""


def report(
    forecast: xr.DataTree,
    fitted: xr.DataTree,
    out: str | Path = NAME,
    *,
    backtest: pd.DataFrame | None = None,
    baseline: pd.DataFrame | None = None,
    comparison: RecipeComparison | None = None,
    plan: pd.DataFrame | None = None,
    allocation: pd.DataFrame | None = None,
    goal: pd.Series | None = None,
    route: Route | Sequence[Route] = (),
) -> Path:
    """Write one HTML file that stands by itself, and return its path.

    What the targets will score, how much better that is than the best rung and than another target,
    and how far to trust it; each task; which forecasts to doubt and why; how the method did in a
    `backtest` of the same ladder, a table as `backtest` gives it; what was decided: a `comparison`
    of recipes, a `plan` of rungs, an `allocation`, the compute for a `goal`, as `compare_recipes`,
    `plan_rungs`, `allocate` and `flops_for` give them; convergence; the data; how to reproduce it.
    `forecast` is of `fitted`; `baseline`, as `baseline` gives it, adds the published method to the
    figure; `route` as `lc.forecast` takes it. Of a forecast of losses alone, all this
    is of losses, without a mean over tasks. A file of that name is replaced once the new one is
    whole. Raises OSError where it cannot be written.

    >>> path = lc.report(forecast, fitted, "report.html")
    """
    decisions = Decisions(comparison, plan, allocation, goal)
    page = render(forecast, fitted, backtest, baseline, route, decisions)
    out = Path(out).expanduser()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with passing_folder(out.parent) as folder:
            passing = folder / NAME
            passing.write_text(page, encoding="utf-8")
            os.replace(passing, out)
    except OSError as error:
        raise OSError(
            f"the report {out}: {error.strerror}; give a file in a folder that can be written"
        ) from None
    return out


def render(
    forecast: xr.DataTree,
    fitted: xr.DataTree,
    backtest: pd.DataFrame | None = None,
    baseline: pd.DataFrame | None = None,
    route: Route | Sequence[Route] = (),
    decisions: Decisions = NO_DECISIONS,
) -> str:
    """The page of `report` as text."""
    if backtest is not None:
        check_backtest(backtest)
    # Text may have another type after it was saved and read.
    table = forecast_table(forecast).astype({c.MODEL: str, c.TASK: str})
    quantity = c.main_quantity(table)
    style = STYLES[quantity]
    of_tasks = table[table["quantity"] == quantity].reset_index(drop=True)
    of_average = None
    if quantity == c.ACCURACY:
        average = forecast_table(mean_over_tasks(forecast)).astype({c.MODEL: str})
        of_average = average[average["quantity"] == quantity]
    rungs, tasks = rungs_of(fitted), tasks_of(fitted)
    targets = of_tasks.drop_duplicates(c.MODEL).set_index(c.MODEL)
    targets = targets[[c.PARAMS, c.TOKENS]].astype(float)
    # Losses of several tasks have no mean.
    headed = of_average is not None or len(set(of_tasks[c.TASK])) == 1
    headlines = headline(forecast, fitted, backtest) if headed else []
    decades, _ = distance(rungs, targets)
    expected = expected_table(fitted, rungs, route=route, draws=MEDIAN_DRAWS)
    expected = expected[expected["quantity"] == quantity].astype({c.TASK: str})
    line = line_through(points_of(fitted))
    evidence = Evidence(rungs, tasks, expected, backtest, line, runs_measured(fitted))
    doubts = find_doubts(forecast, table, evidence)
    common, apart = split_doubts(of_tasks, doubts)
    leaving = leaves_chance(forecast, evidence)["probability"]
    shares, quality = variance_shares(forecast), convergence(forecast)
    measured = bool(of_tasks["measured"].notna().any())
    scores = score(forecast) if measured else None
    script = _source("sort.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    context: dict[str, Any] = {
        "script": script,
        "script_hash": f"sha256-{digest}",
        "title": words.title(list(targets.index)),
        "subtitle": words.subtitle(rungs, tasks, forecast.attrs),
        "alarm": "" if converged(forecast) else _complaints(forecast),
        "alarm_word": "Not converged" if converged(forecast) is not None
        else "Not known to have converged",
        "simulated": "truth" in forecast.children,
        "parts": [
            ("answer", "In short"), ("tasks", "Task by task"), ("doubts", "Doubts"),
            ("backtest", "On your rungs"), ("decisions", "Decisions"),
            ("convergence", "Convergence"), ("data", "Data"), ("settings", "To reproduce"),
        ],
        "quantity": quantity,
        "answers": words.answers(headlines, targets),
        "comparisons": words.comparisons(forecast, headlines),
        "trust": words.trust(
            headlines, decades, np.ptp(log10_flops(rungs)), bool(converged(forecast))
        ),
        "chance": words.chance_sentence(of_tasks, leaving),
        "averages": None if of_average is None
        else tables.intervals("Mean accuracy over tasks, %", of_average, style),
        "tasks": tables.intervals(
            "Accuracy per task, %" if quantity == c.ACCURACY else "Loss per task",
            of_tasks,
            style,
            words.chance_notes(leaving),
        ),
        "measured": measured,
        "scores": None if scores is None
        else tables.scores(f"Scores of {quantity}", scores, [c.TASK]),
        "score_sentence": "" if scores is None else words.score_sentence(scores),
        "cells": len(of_tasks),
        "doubts": tables.doubts(of_tasks, apart, style) if len(apart) else None,
        "common_doubts": words.common_doubts(common),
        "doubt_sentence": words.doubt_sentence(of_tasks, apart),
        "reasons": words.reasons(of_tasks, doubts),
        "quiet": {rule: text for rule, text in RULES.items() if rule not in set(doubts["rule"])},
        "variance": tables.variance(forecast, shares) if len(shares) else None,
        "variance_sentence": words.variance_sentence(forecast, shares),
        "convergence": tables.convergence(of_tasks, quality),
        "convergence_sentence": words.convergence_sentence(fitted, forecast),
        "data_sentence": words.data_sentence(rungs, tasks),
        "rungs": tables.rungs(rungs, targets),
        "known": tables.known(tasks, expected, style),
        "settings": tables.settings(forecast),
        "priors": tables.listed("Priors", "prior", forecast.attrs, "priors"),
        "versions": tables.listed("Versions", "package", forecast.attrs, "versions"),
        "backtest": None,
        "decisions": decisions_of(
            decisions, rungs, targets, str(forecast.attrs.get("fingerprint", ""))
        ),
        "published": baseline is not None,
        "figures": {
            "forecast": figures.forecast_svg(forecast, baseline),
            "variance": figures.variance_svg(forecast) if len(shares) else "",
            "ladder": figures.ladder_svg(rungs, targets),
        },
    }  # fmt: skip
    if backtest is not None:
        context |= tables.of_backtest(backtest, list(rungs.index), decades)
        context["figures"]["calibration"] = figures.calibration_svg(backtest)
    return _environment().get_template("report.html").render(context)


def is_report(path: Path) -> bool:
    """Whether a file is a report, by its first lines."""
    with path.open("rb") as file:
        return GENERATOR in file.read(2000)


def read_results(folder: str | Path) -> tuple[xr.DataTree, xr.DataTree]:
    """The forecast and the fit that `laddercast forecast --out folder` wrote.

    Raises ValueError, naming every file that is missing or cannot be read.
    """
    trees, faults = [], []
    for name, needed in CONTENTS.items():
        path = Path(folder) / name
        try:
            with xr.open_datatree(path, engine="h5netcdf") as tree:
                trees.append(tree.load())
        except FileNotFoundError:
            faults.append(f"{path} is missing")
        except Exception as error:
            # Of damaged files, readers raise nearly anything.
            why = " ".join(str(error).split())[:200]
            faults.append(f"{path} cannot be read ({why or type(error).__name__})")
        else:
            lacking = [group for group in needed if not _has(trees[-1], group)]
            if lacking:
                faults.append(f"{path} is damaged: it lacks {', '.join(lacking)}")
    if faults:
        cure = "`laddercast forecast ... --out DIR` writes both"
        raise ValueError("; ".join(faults) + f": {cure}")
    forecast, fitted = trees
    apart = [word for word in SHARED if forecast.attrs.get(word) != fitted.attrs.get(word)]
    if apart:
        raise ValueError(
            f"{folder}: predictions.nc is not of the fit in fit.nc ({', '.join(apart)} differ); "
            "run `laddercast forecast` again, or put back the file that belongs to the other"
        )
    return forecast, fitted


def _has(tree: xr.DataTree, group: str) -> bool:
    """Whether a tree, or each of its routes, has a group and something in it."""
    places = [tree] if group in tree.children else list(routes_of(tree).values())
    return bool(places) and all(
        group in own.children and len(own[group].data_vars) > 0 for own in places
    )


def read_published(folder: str | Path) -> pd.DataFrame | None:
    """The published method's forecasts that `laddercast forecast --out folder` wrote, if it did."""
    path = Path(folder) / "published.csv"
    if not path.exists():
        return None
    names = dict.fromkeys((c.MODEL, c.TASK), str)
    return pd.read_csv(path, dtype=names, keep_default_na=False, na_values=[""])


def _complaints(forecast: xr.DataTree) -> str:
    if converged(forecast) is None:
        return "The file does not say whether the sampler has converged"
    return str(forecast.attrs.get("complaints") or "The sampler's draws cannot be trusted")


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("laddercast.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=isolated,
    )


def _source(name: str) -> str:
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]

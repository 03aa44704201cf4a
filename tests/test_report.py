import html
import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from laddercast.cli.commands import main
from laddercast.decisions.files import write_decision
from laddercast.decisions.recipes import RecipeComparison
from laddercast.evaluation.backtest_files import holds_backtest, read_backtest, write_backtest
from laddercast.evaluation.backtests import score_backtest
from laddercast.evaluation.scores import UNITS
from laddercast.plots import plot_calibration
from laddercast.plots.intervals import plot_forecast
from laddercast.reporting.decisions import Decisions
from laddercast.reporting.doubts import RULES
from laddercast.reporting.page import NO_DECISIONS, read_results, render, report
from laddercast.reporting.words import variance_sentence

NASTY = "<script>alert(1)</script>"
DOLLARS = "$\\frac a$ & \"b\" 'c'"
TASKS = ["easy", DOLLARS]
MODELS = [NASTY, "13B"]
RIVALS = ["baseline", "bootstrap", "best_rung"]
DRAWS = {"two_stage": 500, "direct": 1000}
"""Of each route."""
RUNGS = [f"{n}M" for n in (100, 200, 400, 800)]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def forecast_of(converged: int = 1, measured: bool = True, simulated: bool = False) -> xr.DataTree:
    rng = np.random.default_rng(0)
    coords = {
        "model": ("row", np.repeat(MODELS, 2)),
        "task": ("row", TASKS * 2),
        "params": ("row", [7e9, 7e9, 13e9, 13e9]),
        "tokens": ("row", [4e12, 4e12, 5e12, 5e12]),
    }
    shared = rng.normal(0, 0.02, (4, 500, 1))
    accuracy = np.array([0.9, 0.7, 0.92, 0.71]) + shared + rng.normal(0, 0.01, (4, 500, 4))
    dims = ("chain", "draw", "row")
    sources = {"law": 3.0, "discrepancy": 1.0, "run": 0.5, "checkpoint": 0.5, "total": 5.0}
    groups = {
        "predictions": xr.Dataset(
            {"accuracy": (dims, accuracy), "loss": (dims, 1 - accuracy)}, coords
        ),
        "variance": xr.Dataset({name: ("row", [v] * 4) for name, v in sources.items()}),
    }
    if measured:
        groups["measured"] = xr.Dataset({"accuracy": ("row", [0.9, 0.72, np.nan, 0.7])}, coords)
    if simulated:
        groups["truth"] = xr.Dataset({"accuracy": ("row", [0.9, 0.7, 0.9, 0.7])}, coords)
    for name in DRAWS:
        groups |= {f"{name}/predictions": groups["predictions"]}
    tree = xr.DataTree.from_dict(groups)
    for name, draws in DRAWS.items():
        settings = json.dumps({"chains": 4, "draws": draws})
        tree[name].attrs = {"route": name, "settings": settings}
    tree.attrs = {
        "converged": converged,
        "complaints": "" if converged else "7 divergences",
        "seed": np.int64(3),
        "priors": '{"logit_gap": "Normal(-4.3, 0.4)"}',
        "versions": '{"laddercast": "9.9"}',
        "fingerprint": "abc",
    }
    return tree


def fitted_of(forecast: xr.DataTree) -> xr.DataTree:
    params = np.array([1e8, 2e8, 4e8, 8e8])
    constant = xr.Dataset(
        {
            "params": ("model", params),
            "tokens": ("model", 20 * params),
            "chance": ("task", [0.25, 0.5]),
            "items": ("task", [1000.0, np.nan]),
        },
        coords={"model": RUNGS, "task": TASKS},
    )
    measured = xr.Dataset(
        {"accuracy": (("point", "task"), [[0.4, 0.5], [0.5, 0.55], [0.7, 0.6], [0.65, 0.64]])},
        coords={
            "task": TASKS,
            "point_model": ("point", RUNGS),
            "point_tokens": ("point", 20 * params),
        },
    )
    groups = {}
    for name, draws in DRAWS.items():
        diverging = np.eye(4, draws, dtype=bool) & (name == "two_stage")
        stats = xr.Dataset({"diverging": (("chain", "draw"), diverging)})
        groups |= {f"{name}/constant_data": constant, f"{name}/sample_stats": stats}
        groups |= {f"{name}/observed_data": measured}
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = dict(forecast.attrs)
    for name in DRAWS:
        tree[name].attrs = {"route": name}
    return tree


def backtest_of() -> pd.DataFrame:
    """A table as `backtest` gives it, of two rungs held out."""
    rng = np.random.default_rng(1)
    rows = []
    for model in RUNGS[2:]:
        for task in TASKS:
            for quantity, unit in UNITS.items():
                low, middle, high = unit * 0.4, unit * 0.5, unit * 0.6
                rows.append(
                    {
                        "kind": "sizes", "fold": "params <= 2e+08", "model": model,
                        "params": 4e8, "tokens": 8e9, "task": task,
                        "quantity": quantity, "median": middle, "mean": middle,
                        "sd": 0.05 * unit, "q025": low - 0.1 * unit, "q10": low, "q25": low,
                        "q50": middle, "q75": high, "q90": high, "q975": high + 0.1 * unit,
                        "measured": 0.51 * unit, "error": 0.01 * unit, "crps": 0.02 * unit,
                        "pit": rng.uniform(), "baseline": 0.55 * unit,
                        "baseline_error": 0.04 * unit, "bootstrap": 0.54 * unit,
                        "bootstrap_error": 0.03 * unit, "bootstrap_crps": 0.025 * unit,
                        "best_rung": 0.44 * unit, "best_rung_error": 0.07 * unit,
                        "decades": 1.2 if model == RUNGS[3] else 0.6,
                        "distance": "far" if model == RUNGS[3] else "near", "converged": 1,
                    }
                    | {f"bootstrap_inside{level}": False for level in (50, 80, 95)}
                    | {f"bootstrap_width{level}": 0.1 * unit for level in (50, 80, 95)}
                    | {f"inside{level}": True for level in (50, 80, 95)}
                    | {f"width{level}": w * unit for level, w in ((50, 0.2), (80, 0.2), (95, 0.4))}
                )  # fmt: skip
    return pd.DataFrame(rows)


def decided_of(quantity: str = "accuracy") -> Decisions:
    """A comparison of two recipes, a plan, an allocation and a goal, as functions give them."""
    scale = {"params": 7e9, "tokens": 1.4e11}
    each = {"probability": 0.8, "mean": 0.01, "sd": 0.012, "q025": -0.013, "q10": -0.005}
    each |= {"q50": 0.01, "q90": 0.025, "q975": 0.033, "regret_a": 0.001, "regret_b": 0.011}
    pairs = [scale | {"task": x, "a": "books", "b": NASTY} | each for x in ("easy", "all")]
    ranks = [
        scale | {"task": task, "recipe": recipe, "best": best, "regret": regret, "rank": 1}
        for task in ("easy", "all")
        for recipe, best, regret in (("books", 0.8, 0.001), (NASTY, 0.2, 0.011))
    ]
    comparison = RecipeComparison(
        pd.DataFrame(pairs).assign(measured=np.nan), pd.DataFrame(ranks), forecast_of()
    )
    plan = pd.DataFrame(
        {
            "order": pd.array([1, 2, None], dtype="Int64"), "params": [4e8, 8e8, 1.6e9],
            "tokens": [1e10, 2e10, 2e10], "flops": [2.4e19, 9.6e19, 1.9e20],
            "variance_before": [16.0, 9.0, 16.0], "variance_after": [9.0, 4.0, 8.0],
            "gain_per_flop": [3e-19, 5e-20, 4e-20],
        }
    )  # fmt: skip
    plan.attrs = {"quantity": quantity, "task": "", "budget": 2e20}
    params = np.geomspace(1e9, 3.2e10, 6)
    spread = {
        f"{quantity}_{q}": np.full(6, x) for q, x in (("q10", 0.6), ("q50", 0.7), ("q90", 0.8))
    }
    allocation = pd.DataFrame(
        {
            "flops": 1e22, "params": params, "tokens": 1e22 / 6 / params, **spread,
            "regret_q50": [0.05, 0.01, 0.0, 0.0, 0.01, 0.05],
            "regret_q90": [0.07, 0.02, 0.004, 0.004, 0.02, 0.07],
            "in_set": [False, False, True, True, False, False],
        }
    )  # fmt: skip
    ends = {"q05": 2e9, "q25": 3e9, "q50": 4e9, "q75": 6e9, "q95": 9e9}
    allocation.attrs = {
        "task": "all", "quantity": quantity, "budget": 1e22, "tokens_served": 0.0,
        "epsilon": 0.005, "probability": 0.9, "best": {"params": 4e9, "tokens": 4.2e11},
        "optimum": dict.fromkeys(("params", "tokens", "tokens_per_param"), ends),
        "edge": 0.0, "at_chance": [], "converged": 1,
    }  # fmt: skip
    goal = pd.Series({"flops": 3e21, "params": 3e9, "tokens": 1.7e11, "probability": 0.91})
    goal.attrs = {"task": "all", "quantity": quantity, "goal": 0.7, "probability": 0.9}
    return Decisions(comparison, plan, allocation, goal)


@pytest.fixture(autouse=True)
def expected(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the rungs are expected at; a fit would tell it."""
    table = pd.DataFrame(
        {
            "model": RUNGS * 2,
            "task": [task for task in TASKS for _ in RUNGS],
            "quantity": "accuracy",
            "q50": [0.4, 0.5, 0.6, 0.7, 0.52, 0.55, 0.6, 0.65],
        }
    )
    monkeypatch.setattr(
        sys.modules["laddercast.reporting.page"], "expected_table", lambda *_, **__: table.copy()
    )


def page_of(
    backtest: pd.DataFrame | None = None,
    baseline: pd.DataFrame | None = None,
    decisions: Decisions = NO_DECISIONS,
    **words: Any,
) -> str:
    forecast = forecast_of(**words)
    return render(forecast, fitted_of(forecast), backtest, baseline, decisions=decisions)


def in_short(page: str) -> str:
    """The text of the first section."""
    return section_of(page, "answer")


def section_of(page: str, name: str) -> str:
    """The text of a section."""
    section = page.split(f'<section id="{name}"')[1].split("</section>")[0]
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", section)))


@pytest.mark.slow
def test_users_words_are_escaped_and_nothing_is_loaded():
    page = page_of(backtest_of().replace({RUNGS[3]: NASTY}), decisions=decided_of())
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 5
    assert DOLLARS not in page
    assert page.count("<script") == page.count("</script") == 1
    assert not re.findall(r"""(?:src|href|action)\s*=\s*["'](?!#)""", page)
    assert "@import" not in page
    assert not re.findall(r"url\((?!#)", page)
    assert "default-src 'none'" in page


def test_ids_are_unique_and_links_lead_somewhere():
    page = page_of(backtest_of(), decisions=decided_of())
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)


@pytest.mark.slow
def test_the_same_results_make_the_same_page():
    one, other = (page_of(backtest_of(), decisions=decided_of()) for _ in range(2))
    assert one == other


def test_the_average_over_tasks_is_joint():
    page = page_of()
    forecast = forecast_of()
    draws = forecast["predictions"]["accuracy"].to_numpy()[..., 2:].mean(axis=-1)
    low, middle, high = 100 * np.quantile(draws, [0.1, 0.5, 0.9])
    assert f"{middle:.1f} % mean accuracy over 2 tasks, 80 %: {low:.1f} to {high:.1f} %" in (
        in_short(page)
    )


@pytest.mark.slow
def test_the_first_section_says_how_much_better_than_the_best_rung_and_the_other_target():
    forecast = forecast_of()
    draws = forecast["predictions"]["accuracy"].to_numpy().reshape(-1, 4)
    means = draws[:, :2].mean(axis=1), draws[:, 2:].mean(axis=1)
    best = 0.65  # of 400M, and more than the last rung's, whose tasks are 0.65 and 0.64
    low, middle, high = (f"{x:+.1f}" for x in 100 * np.quantile(means[1] - best, [0.1, 0.5, 0.9]))
    said = in_short(page_of())
    assert f"{middle} points ({low} to {high}) over today's best rung, 400M (65.0 %)" in said
    assert said.count("better with a probability of over 99 %") == 2
    gap = means[1] - means[0]
    low, middle, high = (f"{x:+.1f}" for x in 100 * np.quantile(gap, [0.1, 0.5, 0.9]))
    share = f"{100 * (gap > 0).mean():.0f} %"
    low = low.replace("-", "\N{MINUS SIGN}")
    assert f"13B against {NASTY}: {middle} points ({low} to {high}); better with a " in said
    assert f"better with a probability of {share}." in said
    assert "How far to trust it. The draws converged; not tested on your own rungs" in said
    said = in_short(page_of(backtest_of()))
    assert "held out of your own rungs, 4 of 4 measurements lay in their 80 % intervals" in said
    assert "THE DRAWS DID NOT CONVERGE" in in_short(page_of(converged=0))


@pytest.mark.slow
def test_simulated_targets_are_marked_and_drawn_with_their_truth():
    assert "SIMULATED" not in page_of()
    page = page_of(simulated=True)
    assert page.index("SIMULATED: no real model") < page.index('id="answer"')
    assert "the truth of the simulation (star)" in page
    assert plot_forecast(forecast_of()).get_title().startswith("Forecast: ")
    ax = plot_forecast(forecast_of(simulated=True))
    assert ax.get_title().startswith("SIMULATED: ")
    assert "truth" in [text.get_text() for text in ax.figure.legends[0].texts]
    drawn = {line.get_xdata()[0] for line in ax.lines if line.get_marker() == "*"}
    assert drawn == {90.0, 70.0}
    plt.close("all")


@pytest.mark.slow
def test_the_published_method_is_in_the_figure():
    assert "the published method (cross)" not in page_of()
    points = pd.DataFrame(
        {"model": MODELS, "task": TASKS, "quantity": "accuracy", "q50": [0.8, 0.75]}
    )
    page = page_of(baseline=points)
    assert "the published method (cross)" in page
    assert page.count("<use") > page_of().count("<use")


@pytest.mark.slow
def test_what_is_true_of_all_is_said_once_and_rules_that_are_silent_are_folded():
    page = page_of()
    assert "No other rule tells one forecast from another." in page
    missed = backtest_of()
    missed.loc[missed["task"] == "easy", "pit"] = 0.999
    page = page_of(missed)
    # Rungs all have 20 tokens per parameter, targets more, and lie further out than they span.
    told = [text.split('": ') for text in section_of(page, "doubts").split("Every forecast has ")]
    assert [rule for rule, *_ in told[1:]] == [
        'the doubt "off the line of the rungs', 'the doubt "far in compute',
        'the doubt "another length',
    ]  # fmt: skip
    assert told[-1][1].startswith(
        "the target's tokens per parameter lie outside those of the rungs."
    )
    rows = rows_of(page, "Forecasts with doubts of their own")
    assert [row[1:3] for row in rows] == [["easy", "missed in the backtest"]] * 2
    folded = page.split('<details id="quiet">')[1].split("</details>")[0]
    assert "<dt>mostly noise</dt>" in folded
    assert "<dt>another length</dt>" not in folded
    assert set(re.findall(r"<dt>(.*?)</dt>", folded)) < set(RULES)


def test_the_largest_part_is_called_most_only_if_it_is_more_than_half():
    forecast = forecast_of()
    shares = pd.DataFrame({"law": [0.45] * 4, "run": [0.3] * 4, "route": [0.25] * 4})
    assert "the largest part (45 % on average" in variance_sentence(forecast, shares)
    assert "most (51 % on average" in variance_sentence(forecast, shares.assign(law=0.51, run=0.24))


@pytest.mark.slow
def test_what_is_missing_is_said():
    page = page_of(measured=False)
    assert "How this forecast did" not in page
    assert "laddercast report DIR --backtest DIR2" in page
    assert 'id="alarm"' not in page
    page = page_of(converged=0)
    assert "Not converged: do not rely on these numbers.</strong> 7 divergences" in page
    assert "4 of 6,000 transitions diverged" in page


@pytest.mark.slow
def test_settings_are_those_of_the_routes():
    rows = dict(rows_of(page_of(), "Settings"))
    assert rows["seed"] == "3"
    assert rows["chains"] == "4"
    assert [rows[f"draws, {name}"] for name in DRAWS] == ["500", "1000"]


@pytest.mark.slow
@pytest.mark.parametrize(("route", "shown"), [("direct", set()), ("two_stage", {"route"})])
def test_settings_leave_out_what_is_empty_or_said_twice(route, shown):
    forecast = forecast_of()
    forecast.attrs |= {"routes": "direct", "route": route, "left_out": "{}"}
    rows = dict(rows_of(render(forecast, fitted_of(forecast)), "Settings"))
    assert rows["routes"] == "direct"
    assert {"route", "left_out"} & set(rows) == shown


@pytest.mark.slow
def test_a_backtest_fills_its_section():
    page = page_of(backtest_of())
    assert "laddercast report DIR --backtest" not in page
    rows = rows_of(page, "Backtest, accuracy, all tasks")
    errors = ["1.00", "4.00", "3.00", "7.00"]
    assert rows == [
        ["sizes, near", *errors, "2 of 2", "20.0", "1", "0.6"],
        ["sizes, far", *errors, "2 of 2", "20.0", "1", "1.2"],
    ]
    for told in (
        "sizes</strong>: all rungs above a size, from those up to it",
        "near</strong>: beyond them in one of these, and by less than 1 decade",
        "far</strong>: beyond them, by 1 decade of compute or more",
    ):
        assert told in page
    assert "inside</strong>: no more" not in page
    assert "not among the rungs" not in page
    assert "not among the rungs" in page_of(backtest_of().replace({RUNGS[3]: "stranger"}))


def two_kinds() -> pd.DataFrame:
    """With a second kind of folds, of which the published method forecasts one task alone."""
    table = backtest_of()
    lengths = table.assign(kind="lengths", fold="tokens per parameter <= 20", converged=0)
    lengths.loc[lengths["task"] == DOLLARS, ["baseline", "baseline_error"]] = np.nan
    lengths.loc[lengths["task"] == DOLLARS, "error"] *= 3
    return pd.concat([table, lengths], ignore_index=True)


def rows_of(page: str, caption: str) -> list[list[str]]:
    """The texts of a table's body."""
    (table,) = page.split(f'<table aria-label="{caption}')[1:]
    body = table.split("<tbody>")[1].split("</tbody>")[0]
    cells = (re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL) for row in body.split("<tr"))
    return [[text.strip() for text in row] for row in cells if row]


@pytest.mark.slow
def test_kinds_stand_beside_their_pool_and_methods_beside_ours():
    page = page_of(two_kinds())
    rows = rows_of(page, "Backtest, accuracy, all tasks")
    assert [row[0] for row in rows] == [
        "sizes, near", "sizes, far", "lengths, near †", "lengths, far †", "pooled, near †",
        "pooled, far †",
    ]  # fmt: skip
    assert [row[1:3] for row in rows[1:4:2]] == [["1.00", "4.00"], ["2.00", "4.00*"]]
    assert rows[-1][5] == "4 of 4"
    rows = rows_of(page, "All scores of each method, accuracy")
    kinds = [f"{kind}, {far}" for kind in ("sizes", "lengths", "pooled") for far in ("near", "far")]
    methods = ["laddercast", "published", "published, bootstrap", "same as best rung"]
    assert [row[:2] for row in rows] == [[kind, name] for kind in kinds for name in methods]
    of_lengths = {row[1]: row[2:5] for row in rows if row[0] == "lengths, far"}
    assert of_lengths["laddercast"] == ["2", "2.00", "2.00"]
    assert of_lengths["published"] == ["1", "4.00", "4.00"]
    assert of_lengths["published, bootstrap"] == ["2", "3.00", "2.50"]
    by_task = rows_of(page, "Scores of laddercast, accuracy, per task")
    assert len(by_task) == len(kinds) * len(TASKS)
    # One kind alone is its own pool.
    assert "pooled" not in page_of(backtest_of())


@pytest.mark.slow
def test_decisions_are_shown_where_there_are_any():
    page = page_of()
    assert "Not in this report: <code>laddercast plan</code>" in page
    page = page_of(decisions=decided_of())
    assert "laddercast plan" not in page
    said = section_of(page, "decisions")
    order = ["Which recipe?", "Which rung next?", "How large, how long?"]
    assert sorted(order, key=said.index) == order
    assert "arXiv 2512.24503" in said
    assert [row[:3] for row in rows_of(page, "Recipes by rank")] == [
        ["1", "books", "80.0"], ["1", html.escape(NASTY), "20.0"],
    ]  # fmt: skip
    assert [row[:4] for row in rows_of(page, "Models to train next")] == [
        ["1", "400M", "10B", "3.00"], ["2", "800M", "20B", "2.00"],
    ]  # fmt: skip
    assert "SD of the targets' forecast now: 4.00 points." in said
    assert "At 1e+22 FLOPs: mean accuracy over tasks: within 0.5 points of the best" in said
    assert "of at least 70.0 % with probability 0.9: 3e+21 FLOPs, 3B params" in said
    assert len(rows_of(page, "What other sizes cost")) == 5
    assert page.count("<svg") == page_of().count("<svg") + 3


@pytest.mark.slow
def test_a_goal_alone_and_what_is_of_another_ladder_or_fit_are_told():
    found = decided_of()
    said = section_of(page_of(decisions=Decisions(goal=found.goal)), "decisions")
    assert "3e+21 FLOPs" in said
    assert "another ladder" not in said
    found.plan.attrs |= {"fingerprint": "other", "converged": 0}
    said = section_of(page_of(decisions=Decisions(plan=found.plan)), "decisions")
    assert "Made from another ladder than this forecast" in said
    assert "ITS FIT DID NOT CONVERGE" in said
    of_losses = decided_of("loss")
    page = page_of(decisions=Decisions(None, of_losses.plan, of_losses.allocation, of_losses.goal))
    said = section_of(page, "decisions")
    assert "SD of the targets' forecast now: 4.00 %." in said
    assert "mean loss over tasks of at most 0.7" in said.lower()


@pytest.mark.slow
def test_decisions_are_read_as_commands_write_them(tmp_path, capsys):
    written(tmp_path)
    found, fitted = decided_of(), fitted_of(forecast_of())
    for name in ("plan", "allocation"):
        write_decision(getattr(found, name), tmp_path, name, fitted)
    goal = found.goal.to_frame().T
    goal.attrs = found.goal.attrs
    write_decision(goal, tmp_path, "goal", fitted)
    found.comparison.comparisons.to_csv(tmp_path / "comparisons.csv", index=False)
    found.comparison.ranking.to_csv(tmp_path / "ranking.csv", index=False)
    assert main(["report", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert section_of(page, "decisions") == section_of(page_of(decisions=found), "decisions")
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "plan.csv")]) == 2
    capsys.readouterr()
    (tmp_path / "plan.json").unlink()
    assert main(["report", str(tmp_path)]) == 2
    assert "`laddercast plan ... --out DIR` writes both" in capsys.readouterr().err


def test_forecasts_inside_the_ladder_reach_nowhere():
    page = page_of(backtest_of().assign(decades=-0.3, distance="inside"))
    ((name, *_, decades),) = rows_of(page, "Backtest, accuracy, all tasks")
    assert (name, decades) == ("sizes, inside", "0.0")
    assert "inside</strong>: no more parameters, tokens per parameter or compute" in page
    assert "far</strong>: beyond" not in page


def written(folder: Path, **words: Any) -> None:
    forecast = forecast_of(**words)
    forecast.to_netcdf(folder / "predictions.nc", engine="h5netcdf")
    fitted_of(forecast).to_netcdf(folder / "fit.nc", engine="h5netcdf")


def backtest_written(folder: Path) -> pd.DataFrame:
    """As the command line writes it."""
    write_backtest(backtest_of(), folder)
    return backtest_of()


def test_a_written_backtest_reads_as_it_was(tmp_path):
    assert not holds_backtest(tmp_path)
    with pytest.raises(ValueError, match=r"forecast.csv: no such file; .*laddercast backtest"):
        read_backtest(tmp_path)
    known = backtest_written(tmp_path)
    assert holds_backtest(tmp_path)
    found = read_backtest(tmp_path)
    pd.testing.assert_frame_equal(found[known.columns], known, check_dtype=False)
    found.drop(columns="kind").to_csv(tmp_path / "forecast.csv", index=False)
    assert not holds_backtest(tmp_path)
    with pytest.raises(ValueError, match=r"forecast.csv is not of a backtest; .*laddercast"):
        read_backtest(tmp_path)


def test_the_file_of_a_backtest_is_not_taken_for_its_table(tmp_path):
    """Its forecasts are fractions: three functions raised KeyError, and now would mix units."""
    backtest_written(tmp_path)
    raw = pd.read_csv(tmp_path / "forecast.csv")
    for use in (score_backtest, plot_calibration, page_of):
        with pytest.raises(ValueError, match=r"read what .* wrote by read_backtest\(DIR\)"):
            use(raw)


@pytest.mark.slow
def test_what_the_backtest_command_writes_scores_as_its_table(fits, wide_table, tmp_path):
    wide_table.to_csv(tmp_path / "ladder.csv", index=False)
    out = tmp_path / "out"
    main(["backtest", str(tmp_path / "ladder.csv"), "--out", str(out), "--folds", "sizes,one-size"])
    found = read_backtest(out)
    known = pd.read_csv(out / "scores.csv")
    assert {"inside", "near"} <= set(known["distance"])
    pd.testing.assert_frame_equal(score_backtest(found), known, check_dtype=False)
    rows = rows_of(page_of(found), "All scores of each method, accuracy")
    overall = known[(known["quantity"] == "accuracy") & (known["task"] == "all")]
    assert [row[2] for row in rows] == [str(cells) for cells in overall["cells"]]


@pytest.mark.slow
def test_the_command_writes_beside_the_results(tmp_path, capsys):
    written(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    backtest_written(other)
    assert main(["report", str(tmp_path), "--backtest", str(other)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "sizes, far" in page
    assert "the published method (cross)" not in page
    forecast, fitted = read_results(tmp_path)
    assert page == render(forecast, fitted, read_backtest(other))
    points = pd.DataFrame({"model": ["13B"], "task": TASKS[:1], "quantity": "accuracy", "q50": 0.8})
    points.to_csv(tmp_path / "published.csv", index=False)
    assert main(["report", str(tmp_path), "--backtest", str(other)]) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "the published method (cross)" in page
    capsys.readouterr()
    assert {path.name for path in tmp_path.iterdir()} == {
        "fit.nc", "other", "predictions.nc", "published.csv", "report.html",
    }  # fmt: skip
    written(tmp_path, converged=0)
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "new" / "it.html")]) == 3
    assert "7 divergences" in capsys.readouterr().err
    assert "Not converged" in (tmp_path / "new" / "it.html").read_text(encoding="utf-8")


def test_faults_are_named_with_their_cure(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "predictions.nc is missing" in said
    assert "fit.nc is missing" in said
    assert "laddercast forecast" in said
    written(tmp_path)
    assert main(["report", str(tmp_path), "--backtest", str(tmp_path)]) == 2
    assert "laddercast backtest" in capsys.readouterr().err
    (tmp_path / "fit.nc").write_text("not a fit")
    assert main(["report", str(tmp_path)]) == 2
    assert "fit.nc cannot be read" in capsys.readouterr().err


def test_a_forecast_of_another_fit_is_refused(tmp_path, capsys):
    written(tmp_path)
    forecast = forecast_of()
    fitted = fitted_of(forecast)
    fitted.attrs["fingerprint"] = "another"
    fitted.to_netcdf(tmp_path / "fit.nc", engine="h5netcdf")
    assert main(["report", str(tmp_path)]) == 2
    assert "predictions.nc is not of the fit in fit.nc (fingerprint" in capsys.readouterr().err


@pytest.mark.slow
def test_what_does_not_say_that_it_converged_has_not(tmp_path, capsys):
    forecast = forecast_of()
    fitted = fitted_of(forecast)
    for tree, name in ((forecast, "predictions.nc"), (fitted, "fit.nc")):
        del tree.attrs["converged"]
        tree.to_netcdf(tmp_path / name, engine="h5netcdf")
    assert main(["report", str(tmp_path)]) == 3
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Not known to have converged: do not rely on these numbers" in page
    assert "The fit converged." not in page
    assert "does not say" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_damaged_files_are_one_line(tmp_path, capsys, seed):
    rng = np.random.default_rng(seed)
    written(tmp_path)
    path = tmp_path / ("fit.nc", "predictions.nc")[seed % 2]
    content = bytearray(path.read_bytes())
    if seed % 3:
        begin = int(rng.integers(len(content)))
        content[begin : begin + 400] = rng.bytes(400)
    else:
        del content[int(rng.integers(len(content))) :]
    path.write_bytes(content)
    assert main(["report", str(tmp_path)]) in (0, 2, 3, 4)
    said = [x for x in capsys.readouterr().err.splitlines() if not x.startswith("warning: ")]
    assert len(said) <= 1


@pytest.mark.slow
def test_a_report_replaces_a_report_but_nothing_else(tmp_path, capsys):
    written(tmp_path)
    for _ in range(2):
        assert main(["report", str(tmp_path)]) == 0
    before = (tmp_path / "fit.nc").read_bytes()
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "fit.nc")]) == 2
    assert (tmp_path / "fit.nc").read_bytes() == before
    (tmp_path / "mine.html").write_text("<html>mine")
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "mine.html")]) == 2
    assert (tmp_path / "mine.html").read_text() == "<html>mine"
    assert "read for this" in capsys.readouterr().err


def test_names_from_right_to_left_do_not_reorder_what_stands_around_them():
    hebrew = "\u05d3\u05d2\u05dd"
    forecast = forecast_of()
    names = np.where(forecast["predictions"]["model"] == "13B", f"{hebrew}\u202e-13B", NASTY)
    nodes = [forecast, *(forecast[name] for name in DRAWS)]
    for node in nodes:
        data = node["predictions"].to_dataset().assign_coords(model=("row", names))
        node["predictions"] = xr.DataTree(data)
    measured = forecast["measured"].to_dataset().assign_coords(model=("row", names))
    forecast["measured"] = xr.DataTree(measured)
    page = render(forecast, fitted_of(forecast))
    assert f"\u2068{hebrew}\u2069-13B" in page
    assert "\u202e" not in re.sub("<svg.*?</svg>", "", page, flags=re.DOTALL)


def test_a_failed_write_leaves_what_was_there(tmp_path):
    taken = tmp_path / "folder"
    taken.mkdir()
    (taken / "kept").touch()
    forecast = forecast_of()
    with pytest.raises(OSError, match="give a file in a folder that can be written"):
        report(forecast, fitted_of(forecast), taken)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert [path.name for path in taken.iterdir()] == ["kept"]


@contextmanager
def browser(**words: Any) -> Iterator[tuple[Any, list[str]]]:
    """A page of headless Chromium, and what it logs and asks for beside the file itself."""
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install -y chromium")
    playwright = import_module("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            page = running.new_context(**words).new_page()
            said: list[str] = []
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("dialog", lambda dialog: (said.append("dialog"), dialog.dismiss()))
            page.on("request", lambda request: said.append(request.url))
            yield page, said
        finally:
            running.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    forecast = forecast_of()
    decided = decided_of()._asdict()
    out = tmp_path / "it.html"
    return report(forecast, fitted_of(forecast), out, backtest=backtest_of(), **decided)


def test_the_browsers_log_would_tell(tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text("<script>console.error('heard'); nothing()</script><img src='no.png'>")
    with browser() as (page, said):
        page.goto(bad.as_uri())
    assert "heard" in said
    assert any("no.png" in text for text in said)
    assert any("nothing is not defined" in text for text in said)


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it_without_a_word(file, width, scheme):
    size = {"width": width, "height": 844}
    with browser(viewport=size, color_scheme=scheme) as (page, said):
        page.goto(file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == width
        drawn = page.evaluate(
            "[...document.querySelectorAll('figure svg')].map(svg => "
            "[svg.getBoundingClientRect().width, svg.getBoundingClientRect().height])"
        )
        assert len(drawn) == 7
        assert all(100 < across <= width and down > 100 for across, down in drawn)
        assert page.inner_text("h1") == f"What will {NASTY} and 13B score?"
        picture = page.screenshot(full_page=True)
    assert picture.startswith(b"\x89PNG")
    assert said == [file.as_uri()]


@pytest.mark.slow
def test_on_a_phone_tables_scroll_and_the_first_screen_answers(file):
    with browser(viewport={"width": 390, "height": 844}) as (page, _):
        page.goto(file.as_uri())
        wide = page.evaluate(
            "[...document.querySelectorAll('.wide')].filter(box => box.scrollWidth > "
            "box.clientWidth).map(box => { box.scrollLeft = 20; return box.scrollLeft; })"
        )
        assert wide
        assert set(wide) == {20}
        assert page.locator(".trust").bounding_box()["y"] < 844


@pytest.mark.slow
def test_tables_of_a_backtest_fit_a_desktop_and_captions_stand_apart(tmp_path):
    names = {"kind": "largest-size", "lowest_loss_rung": 0.4, "lowest_loss_rung_error": 0.1}
    backtest = backtest_of().assign(**names, distance="inside", converged=0)
    forecast = forecast_of()
    path = report(forecast, fitted_of(forecast), tmp_path / "wide.html", backtest=backtest)
    with browser(viewport={"width": 1200, "height": 844}) as (page, _):
        page.goto(path.as_uri())
        page.evaluate("document.querySelector('#backtest details').open = true")
        boxes = page.evaluate(
            "[...document.querySelectorAll('#backtest .wide')].map(x => "
            "[x.scrollWidth, x.clientWidth])"
        )
        assert len(boxes) == 3
        assert [scrolled for scrolled, _ in boxes] == [shown for _, shown in boxes]
        gaps = page.evaluate(
            "[...document.querySelectorAll('figcaption')].map(x => x.getBoundingClientRect().top "
            "- x.previousElementSibling.getBoundingClientRect().bottom)"
        )
        assert min(gaps) > 5


@pytest.mark.slow
def test_tables_sort_by_number_and_with_gaps_last(file):
    with browser() as (page, said):
        page.goto(file.as_uri())
        table = page.locator("#tasks table").first
        column = [head.strip() for head in table.locator("th").all_inner_texts()].index("measured")

        def shown() -> list[str]:
            cells = table.locator(f"tbody tr td:nth-child({column + 1})")
            return [text.strip() for text in cells.all_inner_texts()]

        assert shown() == ["90.0", "72.0", "-", "70.0"]
        head = table.locator("th").nth(column)
        head.locator("button").click()
        assert shown() == ["70.0", "72.0", "90.0", "-"]
        assert head.get_attribute("aria-sort") == "ascending"
        head.locator("button").click()
        assert shown() == ["90.0", "72.0", "70.0", "-"]
    assert said == [file.as_uri()]


@pytest.mark.slow
def test_it_reads_without_a_script_and_prints(file):
    with browser(java_script_enabled=False) as (page, said):
        page.goto(file.as_uri())
        assert page.locator("button").count() == 0
        assert page.locator("#tasks table").first.is_visible()
        page.set_viewport_size({"width": 718, "height": 1000})  # of A4, less its margins
        page.emulate_media(media="print")
        assert page.evaluate("document.documentElement.scrollWidth") == 718
        assert not page.locator("nav").is_visible()
        # The figure does not fit on the first page; what fills that comes before it.
        heights = [
            page.locator(f"#tasks {part}").first.bounding_box()["y"]
            for part in ("h2", ".caption", "table", "figure", "h3")
        ]
        assert heights == sorted(heights)
        assert page.pdf(format="A4").startswith(b"%PDF")
    assert said == [file.as_uri()]


@pytest.mark.slow
def test_printed_tables_keep_their_heads_and_numbers_on_a_line(file):
    with browser(viewport={"width": 718, "height": 1000}) as (page, _):
        page.goto(file.as_uri())
        page.emulate_media(media="print")
        # Chromium leaves any other button out of a head that it repeats.
        shown = "[...document.querySelectorAll('th button')].map(x => getComputedStyle(x).display)"
        assert set(page.evaluate(shown)) == {"contents"}
        wrapped = "[...document.querySelectorAll('td.n')].filter(x => x.clientHeight > 25)"
        assert page.evaluate(f"{wrapped}.length") == 0
        assert page.evaluate("document.documentElement.scrollWidth") == 718

import warnings
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import laddercast as lc
from laddercast.cli.commands import main

pytestmark = pytest.mark.slow

TARGETS = pd.DataFrame({"model": ["big"], "params": [6_000_000_000], "tokens": [600_000_000_000]})
BUDGET = 2e20
COLUMNS = [
    "order", "params", "tokens", "flops", "variance_before", "variance_after", "gain_per_flop",
]  # fmt: skip
BRIEF = {"chains": 2, "warmup": 60, "draws": 400, "progress": False}


@pytest.fixture(scope="module")
def ladder(six_runs: lc.Ladder) -> lc.Ladder:
    return six_runs


@pytest.fixture(scope="module")
def fitted(ladder: lc.Ladder) -> xr.DataTree:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lc.NotConvergedWarning)
        return lc.fit(ladder, route=["two_stage", "direct"], **BRIEF)


@pytest.fixture(scope="module")
def of_losses(ladder: lc.Ladder) -> xr.DataTree:
    table = ladder.table[ladder.table["task"] == "piqa"].drop(columns="accuracy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lc.NotConvergedWarning)
        return lc.fit(lc.Ladder(table, pd.DataFrame()), **BRIEF)


@pytest.fixture(scope="module")
def plan(fitted: xr.DataTree) -> pd.DataFrame:
    return lc.plan_rungs(fitted, TARGETS, budget=BUDGET)


def assert_sound(plan: pd.DataFrame, budget: float) -> None:
    assert list(plan) == COLUMNS
    chosen = plan[plan["order"].notna()]
    assert list(chosen["order"]) == list(range(1, len(chosen) + 1))
    assert len(chosen)
    assert chosen["flops"].sum() <= budget * (1 + 1e-9)
    assert (plan["flops"] == 6.0 * plan["params"] * plan["tokens"]).all()
    assert (plan["variance_after"] <= plan["variance_before"]).all()
    # Each begins where the one before it ends; others all from the start.
    np.testing.assert_allclose(
        chosen["variance_before"], [plan["variance_before"].max(), *chosen["variance_after"][:-1]]
    )
    gain = plan["variance_before"] - plan["variance_after"]
    np.testing.assert_allclose(plan["gain_per_flop"], gain / plan["flops"], rtol=1e-6, atol=1e-30)
    assert not plan.duplicated(["params", "tokens"]).any()


def test_a_plan_is_a_row_a_candidate_within_budget_and_targets(plan, ladder):
    assert_sound(plan, BUDGET)
    ends = ladder.table.groupby("model")[["params", "tokens"]].max()
    assert plan.merge(ends, on=["params", "tokens"]).empty
    assert (plan["params"] <= TARGETS["params"].max()).all()
    assert (plan["tokens"] <= TARGETS["tokens"].max()).all()
    assert plan.attrs["quantity"] == "accuracy"


@pytest.mark.filterwarnings("ignore::laddercast.LaddercastWarning")
def test_variance_before_is_that_of_the_forecast(plan, fitted):
    total = float(lc.forecast(fitted, TARGETS)["variance"]["total"].mean())
    # 800 draws of each of two routes, two tasks: about 4 SDs of a variance.
    assert plan["variance_before"].max() == pytest.approx(total, rel=0.25)


def test_the_same_seed_plans_the_same(plan, fitted):
    again = lc.plan_rungs(fitted, TARGETS, budget=BUDGET)
    pd.testing.assert_frame_equal(plan, again)


def test_rows_of_candidates_can_be_permuted_and_their_flops_given(fitted):
    grid = pd.DataFrame(
        {"params": [3e9, 4e8, 8e8, 1.6e9], "tokens": [1e10, 2e10, 4e10, 2e10]}
    ).astype(int)
    grid["flops"] = [3e19, 1e19, 2e19, 4e19]
    one, other = (
        lc.plan_rungs(fitted, TARGETS, budget=1e20, candidates=own, count=1)
        for own in (grid, grid[::-1])
    )
    assert set(one["flops"]) == set(grid["flops"])
    assert one["order"].notna().sum() == 1
    both = one.merge(other, on=["params", "tokens"])
    # Draws are of another order then: only to their error, of the variance that all share.
    np.testing.assert_allclose(both["variance_after_x"], both["variance_after_y"], rtol=0.15)


def test_a_run_next_to_the_target_tells_most_and_almost_all(of_losses):
    near = {"params": 5_900_000_000, "tokens": 590_000_000_000}
    small = {"params": 250_000_000, "tokens": 9_000_000_000}
    plan = lc.plan_rungs(
        of_losses, TARGETS, budget=1e23, candidates=pd.DataFrame([small, near]), count=1
    )
    assert plan["params"][0] == near["params"]
    assert plan["variance_after"][0] < 0.5 * plan["variance_before"][0]
    assert plan.attrs["quantity"] == "loss"
    assert plan["variance_after"][1] > 2 * plan["variance_after"][0]


def test_ladders_of_losses_alone_are_planned(of_losses):
    plan = lc.plan_rungs(of_losses, TARGETS, budget=BUDGET, count=3)
    assert_sound(plan, BUDGET)
    with pytest.raises(ValueError, match="no accuracies"):
        lc.more_items(of_losses, TARGETS)


def test_the_mean_over_tasks_varies_less_than_the_tasks_do(plan, fitted):
    of_mean = lc.plan_rungs(fitted, TARGETS, budget=BUDGET, task="all", count=1)
    assert of_mean["variance_before"].max() < plan["variance_before"].max()
    with pytest.raises(ValueError, match="hellaswag, piqa, or all"):
        lc.plan_rungs(fitted, TARGETS, budget=BUDGET, task="pica")


@pytest.mark.parametrize("budget", [0, -1.0, float("nan"), float("inf")])
def test_no_budget_is_refused(fitted, budget):
    with pytest.raises(ValueError, match="give a number above 0"):
        lc.plan_rungs(fitted, TARGETS, budget=budget)


def test_numbers_may_be_text_with_a_unit_and_one_where_several_are_meant(fitted, plan):
    as_text = lc.plan_rungs(fitted, TARGETS, budget=f"{BUDGET:.17g}")
    pd.testing.assert_frame_equal(as_text, plan)
    with pytest.raises(ValueError, match="budget='much': give a number"):
        lc.plan_rungs(fitted, TARGETS, budget="much")
    assert set(lc.more_items(fitted, TARGETS, times=4)["times"]) == {4}


def test_a_budget_that_buys_nothing_is_told_with_the_cheapest(fitted):
    with pytest.raises(ValueError, match=r"buys none of .* the cheapest, .* takes "):
        lc.plan_rungs(fitted, TARGETS, budget=1e15)


def test_targets_and_candidates_that_the_ladder_has_are_refused(fitted):
    reached = TARGETS.assign(params=300_000_000, tokens=8_000_000_000)
    with pytest.raises(ValueError, match=r"target big .* as large and trained for as long"):
        lc.plan_rungs(fitted, reached, budget=BUDGET)
    known = pd.DataFrame({"params": [400_000_000, 10**9], "tokens": [8_000_000_000, 10**10]})
    with pytest.raises(ValueError, match=r"candidate 1 \(400M-8B\): the ladder has"):
        lc.plan_rungs(fitted, TARGETS, budget=BUDGET, candidates=known)
    with pytest.raises(ValueError, match="tokens"):
        lc.plan_rungs(fitted, TARGETS, budget=BUDGET, candidates=known[["params"]])


@pytest.mark.parametrize("route", [None, "stage_1"])
def test_a_ladder_is_designed_within_its_share_of_the_compute(route):
    plan = lc.design_ladder(TARGETS, budget=0.01, route=route, count=5, draws=500)
    assert_sound(plan, 0.01 * 6 * 6e9 * 6e11)
    chosen = plan[plan["order"].notna()]
    # Before anything is known, a few small runs tell most.
    assert chosen["variance_after"].iloc[-1] < 0.5 * plan["variance_before"].max()
    assert len(set(chosen["params"])) > 1


def test_a_design_of_more_than_the_target_takes_is_refused():
    with pytest.raises(ValueError, match="share of the target's compute"):
        lc.design_ladder(TARGETS, budget=2)


def test_more_questions_narrow_a_forecast_and_no_more_than_noise_allows(fitted):
    table = lc.more_items(fitted, TARGETS, times=[2, 1000])
    assert list(table["task"]) == ["hellaswag", "hellaswag", "piqa", "piqa"]
    assert (table["width80"] <= table["width80_target"]).all()
    assert (table["width80_target"] <= table["width80_now"]).all()
    few, many = (table[table["times"] == k].set_index("task") for k in (2, 1000))
    assert (many["width80_target"] < few["width80_target"]).all()
    # All noise of the target gone, what is not known of the laws is left.
    assert (many["width80"] > 0.1 * many["width80_now"]).all()
    # p (1 - p) / variance, by hand.
    sd = table["width80_now"] / 2 / 1.2816 / 100
    assert (table["equivalent_items"] <= 0.25 / sd**2 * 1.001).all()
    with pytest.raises(ValueError, match="above 1"):
        lc.more_items(fitted, TARGETS, times=[1])


def test_the_figure_numbers_what_is_chosen_and_draws_on_given_axes(plan):
    _, ax = plt.subplots(1, 2)
    drawn = lc.plot_plan(plan, targets=TARGETS, ax=ax)
    assert list(drawn) == list(ax)
    chosen = plan["order"].notna().sum()
    assert [text.get_text() for text in ax[0].texts] == [str(i + 1) for i in range(chosen)]
    (line,) = ax[1].lines
    np.testing.assert_allclose(line.get_ydata()[-1] ** 2, plan["variance_after"][chosen - 1])
    assert lc.plot_plan(plan)[0].get_xscale() == "log"
    # A first rung that costs and tells nearly nothing has its number inside the frame.
    cheap = plan["order"] == 1
    first = {"flops": plan["flops"].where(~cheap, 1e10)}
    first["variance_after"] = plan["variance_after"].where(~cheap, plan["variance_before"].max())
    right = lc.plot_plan(plan.assign(**first))[1]
    right.figure.draw_without_rendering()
    frame, text = right.get_window_extent(), right.texts[0].get_window_extent()
    assert frame.x0 < text.x0
    assert text.y1 < frame.y1
    plt.close("all")


def test_the_command_refuses_bad_questions_before_a_fit(ladder, tmp_path: Path, capsys):
    ladder.table.to_csv(tmp_path / "ladder.csv", index=False)
    ladder.tasks.to_csv(tmp_path / "tasks.csv")
    TARGETS.to_csv(tmp_path / "targets.csv", index=False)
    files = {name: str(tmp_path / f"{name}.csv") for name in ("ladder", "tasks", "targets")}
    command = ["plan", files["ladder"], "--tasks", files["tasks"], "--targets", files["targets"]]
    command += ["--out", str(tmp_path / "out")]
    own = tmp_path / "own.csv"
    pd.DataFrame({"params": [400_000_000], "tokens": [8_000_000_000]}).to_csv(own, index=False)
    for more, told in {
        ("--budget", "0"): "budget=0",
        ("--budget", "1e10"): "buys none",
        ("--budget", "1e20", "--task", "pica"): "hellaswag, piqa, or all",
        ("--budget", "1e20", "--count", "0"): "count=0",
        ("--budget", "1e20", "--candidates", str(own)): "own.csv: candidate 1 (400M-8B)",
    }.items():
        assert main([*command, *more]) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::laddercast.LaddercastWarning")
def test_the_command_writes_the_plan_and_its_figure(ladder, tmp_path: Path, capsys):
    ladder.table.to_csv(tmp_path / "ladder.csv", index=False)
    ladder.tasks.to_csv(tmp_path / "tasks.csv")
    TARGETS.to_csv(tmp_path / "targets.csv", index=False)
    out = tmp_path / "out"
    status = main(
        ["plan", str(tmp_path / "ladder.csv"), "--tasks", str(tmp_path / "tasks.csv"), "--targets",
         str(tmp_path / "targets.csv"), "--budget", "2e20", "--out", str(out), "--route", "direct",
         "--chains", "2", "--warmup", "60", "--draws", "300"]
    )  # fmt: skip
    assert status in (0, 3)
    written = {path.name for path in out.iterdir()} - {"NOT_CONVERGED.txt"}
    assert written == {".laddercast.json", "plan.csv", "plan.json", "plan.png"}
    table = pd.read_csv(out / "plan.csv")
    assert list(table) == COLUMNS
    chosen = table[table["order"].notna()]
    printed = capsys.readouterr().out
    assert f"{chosen['flops'].iloc[0]:.2e}" in printed
    assert "as uncertain as" in printed

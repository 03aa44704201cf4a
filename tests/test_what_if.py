import warnings
from collections.abc import Iterator

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from laddercast.evaluation.simulation import demo_truth, simulate
from laddercast.forecasting.forecasts import forecast, forecast_table
from laddercast.forecasting.grids import (
    MANY_CHECKPOINTS,
    distance,
    expected_table,
    rungs_of,
    thinned,
    what_if,
)
from laddercast.inference.fitting import fit
from laddercast.plots import plot_iso_accuracy, plot_what_if

PARAMS = [200e6, 3e9]
TOKENS = [4e9, 20e9, 6e11]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def fitted() -> xr.DataTree:
    """A short fit of 3 sizes x 2 lengths, 2 tasks."""
    truth = demo_truth().loc[["hellaswag", "piqa"]]
    ladder, _ = simulate(truth, sizes=(200e6, 400e6, 800e6), tokens_per_param=(20, 100))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the fit has not converged")
        return fit(ladder, route="two_stage", chains=2, warmup=60, draws=60, progress=False)


@pytest.fixture(scope="module")
def table(fitted: xr.DataTree) -> pd.DataFrame:
    return what_if(fitted, PARAMS, TOKENS)


def made_up(params: list[float], tokens: list[float]) -> pd.DataFrame:
    """A table as `what_if` gives it, of two tasks and their mean."""
    rows = []
    for n in params:
        for d in tokens:
            for task, ease in (("easy", 1.0), ("hard", 0.5), ("all", 0.75)):
                middle = ease * (0.3 + 0.05 * np.log10(n * d / 1e18))
                around = {"q10": -0.02, "q25": -0.01, "q50": 0.0, "q75": 0.01, "q90": 0.02}
                rows.append(
                    {
                        "params": n, "tokens": d, "flops": 6 * n * d, "task": task,
                        "quantity": "accuracy", "decades": np.log10(n * d / 1e19),
                        "supported": d < 1e12, "converged": 1,
                    }
                    | {name: middle + off for name, off in around.items()}
                )  # fmt: skip
    return pd.DataFrame(rows)


def test_distance_is_from_the_largest_rung_and_its_limits_those_of_the_warnings():
    rungs = pd.DataFrame({"params": [1e8, 1e9], "tokens": [2e9, 2e11]})
    targets = pd.DataFrame(
        {
            # The largest rung; 3.1 decades beyond; 10.5 times as long; 10.5 times as short.
            "params": [1e9, 1e9 * 10**1.55, 1e8, 1e10],
            "tokens": [2e11, 2e11 * 10**1.55, 2.1e11, 2e11 / 10.5],
        }
    )
    decades, supported = distance(rungs, targets)
    np.testing.assert_allclose(decades[:2], [0, 3.1], atol=1e-9)
    assert list(supported) == [True, False, False, False]


@pytest.mark.slow
def test_scalars_and_units_are_lists_of_one(fitted, table):
    one = what_if(fitted, params=3e9, tokens="6e11", draws=50.0)
    pd.testing.assert_frame_equal(one, what_if(fitted, [3e9], [6e11], draws=50))
    pd.testing.assert_frame_equal(one, what_if(fitted, "3B", np.float64(6e11), draws=50))
    pd.testing.assert_frame_equal(one, what_if(fitted, np.array(3e9), pd.Series([6e11]), draws=50))
    (panel,) = plot_what_if(table, tasks="all")
    assert panel.get_title() == "mean over tasks"
    assert len(plot_what_if(table, tasks="hellaswag,piqa")) == 2
    assert len(plot_iso_accuracy(table, tasks="piqa")) == 1
    with pytest.raises(ValueError, match="no such task: piqua; did you mean piqa"):
        plot_what_if(table, tasks="piqua")


WRONG_TARGETS = [
    ({"params": 13, "tokens": 5}, "params 13 is below 100,000"),
    ({"params": 1_300_000}, "below every rung by more than 100 times"),
    ({"task": "piqua", "accuracy": 0.7}, "no such task: piqua; did you mean piqa"),
    ({"model": "200M-20"}, "200M-20 has 3,000,000,000 params, the rung of this name 200,000,000"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("change", "part"), WRONG_TARGETS)
def test_targets_that_cannot_be_meant_are_refused(change, part, fitted):
    target = {"model": "big", "params": 3 * 10**9, "tokens": 6 * 10**10} | change
    with pytest.raises(ValueError, match=part):
        forecast(fitted, target)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the forecast has not converged")
def test_one_target_may_be_a_dict(fitted):
    target = {"model": "big", "params": "3B", "tokens": "60B"}
    whole = pd.DataFrame([{"model": "big", "params": 3 * 10**9, "tokens": 6 * 10**10}])
    tree = forecast(fitted, target)
    xr.testing.assert_equal(
        tree["predictions"].to_dataset(), forecast(fitted, whole)["predictions"].to_dataset()
    )


def test_thinning_keeps_every_node_and_both_ends():
    def node(draws: int) -> xr.Dataset:
        return xr.Dataset({"x": (("chain", "draw"), np.tile(np.arange(draws), (2, 1)))})

    tree = xr.DataTree.from_dict(
        {"posterior": node(100), "other/posterior": node(200), "constant_data": xr.Dataset()}
    )
    tree.attrs["seed"] = 4
    found = thinned(tree, 20)
    assert list(found["posterior"]["x"][0, [0, -1]].to_numpy()) == [0, 99]
    assert found["posterior"].sizes["draw"] == found["other/posterior"].sizes["draw"] == 10
    assert list(found["other/posterior"]["x"][0, [0, -1]].to_numpy()) == [0, 199]
    assert found.attrs == {"seed": 4}
    assert thinned(tree, 10**6)["posterior"].sizes["draw"] == 100


@pytest.mark.parametrize(
    ("params", "tokens", "draws", "named"),
    [
        ([], [1e9], 10, "params"),
        ([1e9, np.nan], [1e9], 10, "params"),
        ([1e9], [0.0], 10, "tokens"),
        ([1e9], [np.inf], 10, "tokens"),
        ([1e9], [1e9], 0, "draws"),
        ([1e9], [1e9], 2.5, "draws"),
        ("big", [1e9], 10, "params"),
        (None, [1e9], 10, "params"),
    ],
)
def test_sizes_and_lengths_must_be_positive(params, tokens, draws, named):
    with pytest.raises(ValueError, match=f"{named}.*at least 1"):
        what_if(xr.DataTree(), params, tokens, draws=draws)


@pytest.mark.long
def test_there_is_a_row_for_each_pair_task_and_quantity(fitted, table):
    keys = ["params", "tokens", "task", "quantity"]
    assert not table.duplicated(keys).any()
    # Two tasks of two quantities, and the mean of accuracy.
    assert len(table) == 6 * (2 * 2 + 1)
    np.testing.assert_allclose(table["flops"], 6.0 * table["params"] * table["tokens"])
    again = what_if(fitted, PARAMS * 2, TOKENS + TOKENS)
    pd.testing.assert_frame_equal(again, table)
    levels = ["q025", "q10", "q25", "q50", "q75", "q90", "q975"]
    assert (np.diff(table[levels], axis=1) >= 0).all()


@pytest.mark.long
def test_the_mean_over_tasks_is_the_mean_of_the_means(table):
    of_accuracy = table[table["quantity"] == "accuracy"]
    means = of_accuracy.pivot_table("mean", index=["params", "tokens"], columns="task")
    np.testing.assert_allclose(means["all"], means[["hellaswag", "piqa"]].mean(axis=1))


@pytest.mark.long
def test_supported_is_where_a_forecast_does_not_warn(fitted, table):
    targets = table.drop_duplicates(["params", "tokens"]).reset_index(drop=True)
    targets["model"] = [f"target{number}" for number in targets.index]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        forecast(thinned(fitted, 4), targets[["model", "params", "tokens"]])
    texts = [str(warning.message) for warning in said]
    warned = [any(f"{name} " in text and "says little" in text for text in texts)
              for name in targets["model"]]  # fmt: skip
    assert [not one for one in warned] == list(targets["supported"])
    assert set(warned) == {True, False}


@pytest.mark.long
def test_checkpoint_noise_is_gone_and_the_runs_own_is_not(fitted):
    runs = pd.DataFrame({"params": [800e6], "tokens": [16e9]}, index=["x"])
    targets = runs.rename_axis("model").reset_index().assign(checkpoints=MANY_CHECKPOINTS)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the forecast has not converged")
        found = forecast(thinned(fitted, 40), targets, seed=5)
    variance = found["variance"]
    assert (variance["checkpoint"].to_numpy() < 1e-4 * variance["run"].to_numpy()).all()
    table = forecast_table(found).drop(columns="measured")
    expected = expected_table(fitted, runs, draws=40, seed=5)
    pd.testing.assert_frame_equal(expected[expected["task"] != "all"], table)


@pytest.mark.long
def test_lengths_left_out_span_the_ladder_and_the_largest_size(fitted):
    table = what_if(fitted, [3e9], draws=20)
    rungs = rungs_of(fitted)
    assert table["tokens"].min() == rungs["tokens"].min()
    assert table["tokens"].max() == pytest.approx(3e11, rel=0.01)
    assert table["tokens"].nunique() == 25
    axes = plot_what_if(table)
    assert [ax.get_title() for ax in axes] == ["hellaswag", "piqa", "mean over tasks"]
    axes[0].figure.draw_without_rendering()


def test_curves_are_whole_inside_the_ladder_dashed_beyond_and_bare_where_it_says_little():
    table = made_up([1e8, 1e9], [1e9, 1e10, 1e11, 1e12])
    axes = plot_what_if(table, ["hard"])
    (panel,) = axes
    by_style = {}
    for line in panel.lines:
        by_style.setdefault(line.get_linestyle(), []).append(list(line.get_xdata()))
    assert by_style[":"] == [[1e9, 1e10, 1e11, 1e12]] * 2
    # 1e19 of params x tokens is the largest rung.
    assert by_style["-"] == [[1e9, 1e10, 1e11], [1e9, 1e10]]
    assert by_style["--"] == [[1e11], [1e10, 1e11]]
    band = panel.collections[0].get_paths()[0].vertices
    assert band[:, 0].max() == 1e11
    middle = panel.lines[0].get_ydata()[0]
    assert middle == pytest.approx(100 * 0.5 * (0.3 + 0.05 * -1))
    assert [text.get_text() for text in axes[0].figure.legends[0].get_texts()] == [
        "100M", "1B", "within the ladder's compute", "beyond it", "the ladder says little"
    ]  # fmt: skip


def test_against_compute_and_in_given_axes():
    table = made_up([1e8, 1e9], [1e9, 1e10])
    figure, ax = plt.subplots(1, 2)
    axes = plot_what_if(table, ["easy", "all"], x="flops", ax=ax)
    assert list(axes) == list(ax)
    assert list(ax[0].lines[0].get_xdata()) == [6e17, 6e18]
    assert [panel.get_title() for panel in ax] == ["easy", "mean over tasks"]
    figure.draw_without_rendering()


def test_lines_of_equal_accuracy_are_of_equal_compute_where_the_truth_is():
    params, tokens = np.geomspace(1e8, 1e10, 9), np.geomspace(1e9, 1e11, 9)
    table = made_up(list(params), list(tokens))
    rungs = pd.DataFrame({"params": [2e8], "tokens": [4e9]})
    axes = plot_iso_accuracy(table, ["easy", "hard"], rungs)
    median = axes[0].collections[1]
    found = [path.vertices for path in median.get_paths() if len(path.vertices)]
    assert len(found) >= 2
    for line in found:
        compute = np.log10(line).sum(axis=1)
        # Contours are straight between points of the grid, in natural units.
        np.testing.assert_allclose(compute, compute.mean(), atol=0.05)
    axes[0].figure.draw_without_rendering()


@pytest.mark.parametrize("plot", [plot_what_if, plot_iso_accuracy])
def test_plots_say_what_they_lack(plot):
    table = made_up([1e8, 1e9], [1e9, 1e10])
    with pytest.raises(ValueError, match="no such task: moon; tasks are easy, hard, all"):
        plot(table, ["moon"])
    axes = plot(table.assign(converged=0))
    assert "NOT CONVERGED" in axes[0].figure.get_suptitle()


def test_one_size_has_no_lines_of_equal_accuracy():
    with pytest.raises(ValueError, match="at least 2 params x 2 tokens"):
        plot_iso_accuracy(made_up([1e8], [1e9, 1e10]))
    gap = made_up([1e8, 1e9], [1e9, 1e10]).query("params != 1e9 or tokens != 1e10")
    with pytest.raises(ValueError, match="full grid"):
        plot_iso_accuracy(gap)

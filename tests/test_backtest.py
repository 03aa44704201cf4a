import warnings
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from laddercast.baselines.published import baseline
from laddercast.baselines.resampling import bootstrap
from laddercast.baselines.rungs import best_rung, lowest_loss_rung
from laddercast.data.cautions import NotConvergedWarning, SkippedWarning
from laddercast.data.ladder import read_ladder
from laddercast.evaluation.backtests import backtest, how_much_ladder, score_backtest
from laddercast.evaluation.scores import score_cells
from laddercast.model.routes import two_stage

# The package's attribute of this name is the function.
module = import_module("laddercast.evaluation.backtests")

ALL_KINDS = ("sizes", "lengths", "one-size", "one-task", "reruns")
SHORT = {"route": two_stage, "chains": 2, "warmup": 50, "draws": 50, "progress": False}


def changed(table, models):
    """With other numbers measured on these models."""
    here = table["model"].isin(models)
    return table.assign(
        loss=table["loss"].where(~here, 1.3 * table["loss"]),
        accuracy=table["accuracy"].where(~here, 0.5 * table["accuracy"]),
    )


def run_flops(table, models):
    ends = table[table["model"].isin(models)].groupby("model")[["params", "tokens"]].max()
    return 6.0 * (ends["params"].astype(float) * ends["tokens"]).sum()


def cells_of(table):
    return set(table[["model", "task"]].itertuples(index=False, name=None))


@pytest.mark.slow
@pytest.mark.usefixtures("fits")
def test_default_folds_roll_over_sizes_and_lengths(wide_table):
    table = backtest(read_ladder(wide_table))
    held_out = table.groupby(["kind", "fold"])["model"].unique().map(set).to_dict()
    assert held_out == {
        ("sizes", "params <= 4e+08"): {"800M-20", "800M-100", "800M-200"},
        ("lengths", "tokens per parameter <= 100"): {"200M-200", "400M-200", "800M-200"},
    }
    assert (table.groupby(["fold", "model", "task", "quantity"]).size() == 1).all()
    assert len(table) == 2 * 3 * 2 * 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:fold one-task.* two_step gives NaN")
def test_no_held_out_cell_reaches_a_fit(rerun_table, fits):
    table = backtest(read_ladder(rerun_table), folds=ALL_KINDS)
    by_fold = list(table.groupby(["kind", "fold"], sort=False))
    assert {kind for (kind, _), _ in by_fold} == set(ALL_KINDS)
    assert len(fits) == len(by_fold)
    for ladder, (_, cells) in zip(fits, by_fold, strict=True):
        assert not cells_of(cells) & cells_of(ladder.table)
        assert cells_of(cells) | cells_of(ladder.table) == cells_of(rerun_table)


@pytest.mark.slow
@pytest.mark.usefixtures("fits")
def test_named_rungs_are_the_only_fold_unless_kinds_are_given(wide_table):
    ladder = read_ladder(wide_table)
    names = ["800M-200"]
    table = backtest(ladder, hold_out=names)
    assert set(table["kind"]) == {"named"}
    assert set(table["model"]) == set(names)
    table = backtest(ladder, hold_out=names, folds=["largest-size"])
    assert list(table["kind"].unique()) == ["named", "largest-size"]
    with pytest.raises(ValueError, match="no such model: 7B"):
        backtest(ladder, hold_out=["7B"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:fold one-task.* two_step gives NaN")
@pytest.mark.usefixtures("fits")
def test_distance_is_beyond_the_rungs_of_the_task(rerun_table):
    table = backtest(read_ladder(rerun_table), folds=ALL_KINDS)
    cells = table.drop_duplicates(["kind", "model"]).set_index(["kind", "model"])
    expected = {
        ("sizes", "800M-200"): (4, "near"),  # times the compute of 400M-200
        ("sizes", "800M-20"): (4 / 10, "near"),  # cheaper than that, but larger
        ("lengths", "800M-200"): (2, "near"),
        ("lengths", "200M-200"): (1 / 8, "near"),  # cheaper than 800M-100, but longer
        ("one-size", "400M-200"): (1 / 4, "inside"),
        ("one-size", "200M-200"): (1 / 16, "inside"),
        ("one-task", "800M-200"): (16, "far"),  # this task was fitted up to 200M-200
        ("one-task", "400M-200"): (4, "near"),
        ("reruns", "800M-100-rerun"): (0.995 / 2, "inside"),
    }
    for cell, (times, distance) in expected.items():
        assert cells.loc[cell, "decades"] == pytest.approx(np.log10(times), abs=1e-6)
        assert cells.loc[cell, "distance"] == distance


@pytest.mark.slow
@pytest.mark.usefixtures("fits")
def test_rivals_are_those_of_the_rungs_fitted(small_table, monkeypatch):
    monkeypatch.setattr(module, "bootstrap", bootstrap)
    ladder = read_ladder(small_table)
    rungs, held_out = ladder.split(hold_out=["800M-100"])
    resampled = score_cells(bootstrap(rungs, held_out, seed=3)).set_index(["task", "quantity"])
    table = backtest(ladder, hold_out=["800M-100"], seed=3).set_index(["task", "quantity"])
    points = {
        "baseline": baseline(rungs, held_out, ["two_step"]),
        "best_rung": best_rung(rungs, held_out),
        "lowest_loss_rung": lowest_loss_rung(rungs, held_out),
    }
    for name, point in points.items():
        for cell, q50 in point.set_index(["task", "quantity"])["q50"].items():
            unit = 100 if cell[1] == "accuracy" else 1
            assert table.loc[cell, name] == pytest.approx(unit * q50)
            off = unit * abs(q50 - held_out.set_index("task").loc[cell[0], cell[1]])
            assert table.loc[cell, f"{name}_error"] == pytest.approx(off)
    assert table.xs("loss", level="quantity")["best_rung"].isna().all()
    for name in ("error", "crps", "inside80", "width80"):
        np.testing.assert_allclose(
            table[f"bootstrap_{name}"].astype(float), resampled[name].loc[table.index].astype(float)
        )


@pytest.mark.slow
@pytest.mark.usefixtures("fits")
def test_warnings_come_with_their_fold_and_name_the_caller_s_line(wide_table, monkeypatch):
    own, stand_in = module.bootstrap, module.forecast

    def of_rivals(rungs, held_out, *, seed):
        for task in ("easy", "hard"):
            warnings.warn(f"{task}: no {min(held_out['model'])}", SkippedWarning, stacklevel=2)
        warnings.warn("something else", RuntimeWarning, stacklevel=2)
        return own(rungs, held_out, seed=seed)

    def of_fits(ladder, targets, *, seed):
        warnings.warn(f"fitted {len(ladder.table)}", NotConvergedWarning, stacklevel=2)
        return stand_in(ladder, targets, seed=seed)

    monkeypatch.setattr(module, "bootstrap", of_rivals)
    monkeypatch.setattr(module, "forecast", of_fits)
    with pytest.warns() as caught:
        table = backtest(read_ladder(wide_table))
    left = table.groupby(["kind", "fold"], sort=False)["model"].unique()
    expected = []
    for (kind, fold), models in left.items():
        rows = (~wide_table["model"].isin(models)).sum()
        expected += [
            (NotConvergedWarning, f"fitted {rows}"),
            # One of all that were skipped.
            (SkippedWarning, f"fold {kind}, {fold}: easy: no {min(models)} (and 1 more)"),
            (RuntimeWarning, "something else"),
        ]
    assert [(one.category, str(one.message)) for one in caught] == expected
    assert {one.filename for one in caught if one.category is not NotConvergedWarning} == {__file__}


@pytest.mark.usefixtures("fits")
def test_what_was_warned_of_before_an_error_is_told(wide_table, monkeypatch):
    def broken(*_, **__):
        warnings.warn("of a fit", stacklevel=2)
        raise KeyError("broken")

    monkeypatch.setattr(module, "forecast", broken)
    with pytest.warns(match="of a fit"), pytest.raises(KeyError, match="broken"):
        backtest(read_ladder(wide_table))


@pytest.mark.usefixtures("fits")
def test_a_rival_that_cannot_forecast_is_nan_and_has_no_score(small_table, monkeypatch):
    monkeypatch.setattr(module, "bootstrap", bootstrap)
    ladder = read_ladder(small_table)
    with (
        pytest.warns(UserWarning, match="no fold `lengths`: what is left is not fitted"),
        pytest.warns(UserWarning, match="params <= 4e.08: easy, hard: two_step gives NaN"),
    ):
        table = backtest(ladder)
    assert set(table["kind"]) == {"sizes"}
    nowhere = [name for name in table if name.startswith(("baseline", "bootstrap"))]
    assert len(nowhere) == 2 + 9
    assert table[nowhere].isna().all(axis=None)
    scores = score_backtest(table)
    assert set(scores["method"]) == {"laddercast", "best_rung", "lowest_loss_rung"}
    assert scores["error"].notna().all()


@pytest.mark.usefixtures("fits")
def test_a_ladder_without_folds_says_why(small_table, fits):
    few = small_table[small_table["model"].isin(["200M-20", "400M-100"])]
    with pytest.raises(ValueError, match="no fold `sizes`") as error:
        backtest(read_ladder(few))
    assert "no fold `lengths`" in str(error.value)
    assert "hold_out" in str(error.value)
    message = r"no such fold: tasks; did you mean one-task\? folds are sizes, lengths"
    with pytest.raises(ValueError, match=message):
        backtest(read_ladder(few), folds=["sizes", "tasks"])
    assert not fits


@pytest.mark.slow
@pytest.mark.usefixtures("fits")
def test_compute_is_of_whole_runs(small_table):
    names = ["800M-20", "800M-100"]
    rest = set(small_table["model"]) - set(names)
    with_flops = small_table.assign(flops=7.0 * small_table["params"] * small_table["tokens"])
    gap = with_flops.assign(flops=with_flops["flops"].where(with_flops.index > 0))
    for table, factor in ((small_table, 1), (with_flops, 7 / 6), (gap, 1)):
        with pytest.warns(UserWarning, match="two_step gives NaN"):
            found = backtest(read_ladder(table), hold_out=names)
        np.testing.assert_allclose(found["ladder_flops"], factor * run_flops(table, rest))
        for name in names:
            target = found.loc[found["model"] == name, "target_flops"]
            np.testing.assert_allclose(target, factor * run_flops(table, [name]))


def scored_cells():
    """Cells of two kinds at three distances; the published method lacks the task `hard` far out."""
    rng = np.random.default_rng(0)
    rows = [
        {"kind": kind, "distance": distance, "quantity": quantity, "task": task}
        for kind in ("lengths", "sizes")
        for distance in ("far", "near", "inside")
        for quantity in ("loss", "accuracy")
        for task in ("easy", "hard")
        for _ in range(3)
    ]
    table = pd.DataFrame(rows).assign(converged=1)
    for method in ("", "bootstrap_"):
        for name in ("error", "crps", "width50", "width80", "width95"):
            table[method + name] = rng.uniform(1, 2, len(table))
        for level in (50, 80, 95):
            table[f"{method}inside{level}"] = rng.uniform(size=len(table)) < 0.5
    table["baseline_error"] = rng.uniform(1, 2, len(table))
    table = table.assign(measured=50.0, median=50.0 + table["error"])
    lacking = (table["task"] == "hard") & (table["distance"] == "far")
    table.loc[lacking, "baseline_error"] = np.nan
    return table


def test_scores_are_means_over_the_cells_of_kind_and_distance():
    table = scored_cells()
    keys = ["kind", "distance", "method", "quantity", "task"]
    scores = score_backtest(table).set_index(keys)
    assert scores.index.is_unique
    for kind, distance in (("sizes", "near"), ("lengths", "far"), ("pooled", "inside")):
        here = (table["distance"] == distance) & table["kind"].isin(
            ["sizes", "lengths"] if kind == "pooled" else [kind]
        )
        cells = table[here & (table["quantity"] == "accuracy")]
        ours = scores.loc[(kind, distance, "laddercast", "accuracy", "all")]
        assert ours["cells"] == len(cells)
        assert ours["error"] == pytest.approx(cells["error"].mean())
        assert ours["cover80"] == pytest.approx(cells["inside80"].mean())
        resampled = scores.loc[(kind, distance, "bootstrap", "accuracy", "all")]
        assert resampled["crps"] == pytest.approx(cells["bootstrap_crps"].mean())
        assert resampled["cover80"] == pytest.approx(cells["bootstrap_inside80"].mean())
        easy = scores.loc[(kind, distance, "laddercast", "accuracy", "easy")]
        assert easy["crps"] == pytest.approx(cells.loc[cells["task"] == "easy", "crps"].mean())


def test_a_rival_is_scored_beside_us_on_the_cells_that_it_has():
    table = scored_cells()
    scores = score_backtest(table).set_index(["kind", "distance", "method", "quantity", "task"])
    point = scores.loc[("pooled", "far", "baseline", "accuracy", "all")]
    cells = table[(table["distance"] == "far") & (table["quantity"] == "accuracy")]
    cells = cells[cells["task"] == "easy"]
    assert point["cells"] == len(cells) == 6
    assert point["error"] == point["crps"] == pytest.approx(cells["baseline_error"].mean())
    assert point["laddercast_error"] == pytest.approx(cells["error"].mean())
    assert point["laddercast_crps"] == pytest.approx(cells["crps"].mean())
    assert np.isnan(point[["cover80", "width80"]].astype(float)).all()


def test_scores_come_by_kind_from_inside_to_far_with_ours_first():
    scores = score_backtest(scored_cells())
    groups = scores[["kind", "distance"]].drop_duplicates()
    distances = ["inside", "near", "far"]
    assert list(groups["kind"]) == ["lengths"] * 3 + ["sizes"] * 3 + ["pooled"] * 3
    assert list(groups["distance"]) == distances * 3
    first = scores.groupby(["kind", "distance"], sort=False)["method"].first()
    assert set(first) == {"laddercast"}
    of_ours = scores[scores["method"] == "laddercast"]
    assert list(of_ours["task"]) == ["easy", "hard", "all"] * 2 * 9


def test_scores_mark_what_has_not_converged():
    table = scored_cells()
    table.loc[table.index[table["kind"] == "sizes"][0], "converged"] = 0  # one is enough
    scores = score_backtest(table)
    loss = scores[(scores["quantity"] == "loss") & (scores["distance"] == "far")]
    of_ours = loss[(loss["method"] == "laddercast") & (loss["task"] == "all")]
    assert of_ours.set_index("kind")["converged"].to_dict() == {
        "lengths": 1, "sizes": 0, "pooled": 0
    }  # fmt: skip


@pytest.mark.slow
def test_how_much_ladder_drops_sizes_then_lengths(wide_table, fits):
    rungs, held_out = read_ladder(wide_table).split(hold_out=["800M-200"])
    table = how_much_ladder(rungs, held_out)
    about = table.drop_duplicates("ladder").set_index("ladder")
    assert about["rungs"].to_dict() == {
        "all": 8,
        "params <= 4e+08": 6,
        "tokens per parameter <= 100": 6,
    }
    assert [", ".join(ladder.models) for ladder in fits] == list(about["models"])
    for ladder, row in zip(fits, about.itertuples(), strict=True):
        spent = run_flops(wide_table, ladder.models)
        assert row.ladder_flops == pytest.approx(spent)
        assert row.share == pytest.approx(spent / run_flops(wide_table, ["800M-200"]))
    assert list(table["task"]) == ["easy", "hard", "all"] * 3
    assert {"error", "crps", "width80", "cells"} <= set(table)


def test_shares_are_of_all_targets_and_of_the_largest(small_table, fits):
    names = ["400M-100", "800M-100"]
    table = how_much_ladder(*read_ladder(small_table).split(hold_out=names))
    assert [len(ladder.models) for ladder in fits] == [4, 3]  # no fewer can be fitted
    assert list(table["rungs"]) == [4] * 3 + [3] * 3
    assert list(table["converged"]) == [0] * 6
    targets, largest = (run_flops(small_table, models) for models in (names, ["800M-100"]))
    spent = np.repeat([run_flops(small_table, ladder.models) for ladder in fits], 3)
    np.testing.assert_allclose(table["share"], spent / targets)
    np.testing.assert_allclose(table["share_of_largest"], spent / largest)


@pytest.mark.parametrize("columns", [["model", "params", "tokens"], ["accuracy"]])
def test_unmeasured_targets_are_refused_before_a_fit(small_table, fits, columns):
    rungs, held_out = read_ladder(small_table).split(hold_out=["800M-100"])
    targets = held_out.assign(accuracy=np.nan)[[*held_out.columns.difference(columns), *columns]]
    if "model" in columns:
        targets = targets[columns].drop_duplicates()
    with pytest.raises(ValueError, match="no measured accuracy"):
        how_much_ladder(rungs, targets)
    assert not fits


def test_targets_among_the_rungs_are_refused(small_table, fits):
    ladder = read_ladder(small_table)
    _, held_out = ladder.split(hold_out=["800M-100"])
    with pytest.raises(ValueError, match="the fit would read: 800M-100"):
        how_much_ladder(ladder, held_out)
    assert not fits


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*has not converged")
def test_held_out_numbers_change_nothing_but_the_score(small_table, monkeypatch):
    posteriors, predictions, tables = [], [], []
    forecast = module.forecast

    def recorded(fitted, *args, **settings):
        posteriors.append(fitted["two_stage"])
        predictions.append(forecast(fitted, *args, **settings))
        return predictions[-1]

    monkeypatch.setattr(module, "forecast", recorded)
    names = ["800M-100"]
    for table in (small_table, changed(small_table, names)):
        tables.append(backtest(read_ladder(table), hold_out=names, **SHORT))
    for group, (one, other) in (("posterior", posteriors), ("predictions", predictions)):
        xr.testing.assert_equal(one[group].to_dataset(), other[group].to_dataset())
    one, other = tables
    told = ["median", "width50", "width80", "width95", "baseline", "converged"]
    pd.testing.assert_frame_equal(one[told], other[told])
    assert (one["measured"] != other["measured"]).all()
    assert (one["converged"] == 0).all()  # a fit this short


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*has not converged")
def test_how_much_ladder_takes_the_settings_of_a_fit(small_table):
    names = ["400M-100", "800M-20", "800M-100"]
    table = how_much_ladder(*read_ladder(small_table).split(hold_out=names), **SHORT)
    assert list(table["task"]) == ["easy", "hard", "all"]  # of the three rungs none can be dropped
    assert list(table["cells"]) == [3, 3, 6]
    assert list(table["converged"]) == [0, 0, 0]  # a fit this short
    assert np.isfinite(table[["error", "crps"]]).all(axis=None)
    assert table["width80"].between(0.1, 60).all()

from importlib import import_module

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from laddercast.backtest import backtest, how_much_ladder, score_backtest
from laddercast.baseline import baseline
from laddercast.ladder import Ladder, read_ladder, read_targets

# The package's attribute of this name is the function.
module = import_module("laddercast.backtest")

SHORT = {"chains": 2, "warmup": 100, "draws": 100, "progress": False}


@pytest.fixture
def fits(monkeypatch) -> list[Ladder]:
    """Ladders given to `fit`, with a quick stand-in for it: forecasts about what it was shown.

    Of a ladder of 4 rungs or fewer the stand-in says that it has not converged.
    """
    given = []

    def fit(ladder, **settings):
        given.append(ladder)
        return ladder

    def forecast(ladder, targets, *, seed):
        table = read_targets(targets)
        table = table[table["task"].isin(ladder.tasks.index)]
        rng = np.random.default_rng(seed)
        centers = ladder.table.groupby("task")[["loss", "accuracy"]].mean().loc[table["task"]]
        coords = {
            word: ("row", table[word].to_numpy()) for word in ("model", "task", "params", "tokens")
        }
        dims = ("chain", "draw", "row")
        names = ("loss", "accuracy")
        draws = {q: centers[q].to_numpy() + rng.normal(0, 0.01, (2, 50, len(table))) for q in names}
        groups = {
            "predictions": xr.Dataset({q: (dims, draws[q]) for q in names}, coords=coords),
            "measured": xr.Dataset({q: ("row", table[q].to_numpy(float)) for q in names}),
        }
        tree = xr.DataTree.from_dict(groups)
        tree.attrs["converged"] = int(len(ladder.models) > 4)
        return tree

    monkeypatch.setattr(module, "fit", fit)
    monkeypatch.setattr(module, "forecast", forecast)
    return given


@pytest.fixture
def wide_table(small_table):
    """With three lengths, of which the two shorter make a ladder; sizes of 200M to 800M."""
    longer = small_table[small_table["model"].str.endswith("-100")].copy()
    longer["model"] = longer["model"].str.replace("-100", "-200")
    longer["tokens"] *= 2
    return pd.concat([small_table, longer], ignore_index=True)


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


@pytest.mark.usefixtures("fits")
def test_splits_hold_out_the_largest_size_and_the_longest_runs(wide_table):
    table = backtest(read_ladder(wide_table))
    held_out = table.groupby("split")["model"].unique().map(set).to_dict()
    assert held_out == {
        "largest size": {"800M-20", "800M-100", "800M-200"},
        "longest runs": {"200M-200", "400M-200", "800M-200"},
    }
    assert (table.groupby(["split", "model", "task", "quantity"]).size() == 1).all()
    assert len(table) == 2 * 3 * 2 * 2


def test_no_held_out_rung_reaches_the_fit(wide_table, fits):
    table = backtest(read_ladder(wide_table))
    assert len(fits) == 2
    for ladder, split in zip(fits, ("largest size", "longest runs"), strict=True):
        out = set(table.loc[table["split"] == split, "model"])
        assert out | set(ladder.models) == set(wide_table["model"])
        assert not out & set(ladder.table["model"])


@pytest.mark.usefixtures("fits")
def test_named_rungs_are_the_only_split(small_table):
    ladder = read_ladder(small_table)
    names = ["800M-100"]
    table = backtest(ladder, hold_out=names)
    assert set(table["split"]) == {"named rungs"}
    assert set(table["model"]) == set(names)
    with pytest.raises(ValueError, match="no such model: 7B"):
        backtest(ladder, hold_out=["7B"])


@pytest.mark.usefixtures("fits")
def test_baseline_is_that_of_the_rungs_fitted(small_table):
    ladder = read_ladder(small_table)
    rungs, held_out = ladder.split(hold_out=["800M-100"])
    published = baseline(rungs, held_out, ["two_step"]).set_index(["task", "quantity"])["q50"]
    table = backtest(ladder, hold_out=["800M-100"]).set_index(["task", "quantity"])
    assert published.notna().all()
    for cell, q50 in published.items():
        unit = 100 if cell[1] == "accuracy" else 1
        assert table.loc[cell, "baseline"] == pytest.approx(unit * q50)
        off = unit * abs(q50 - held_out.set_index("task").loc[cell[0], cell[1]])
        assert table.loc[cell, "baseline_error"] == pytest.approx(off)


@pytest.mark.usefixtures("fits")
def test_a_baseline_that_cannot_be_computed_is_nan(small_table):
    ladder = read_ladder(small_table)
    with (
        pytest.warns(UserWarning, match="no split `longest runs`: what it leaves cannot be fitted"),
        pytest.warns(UserWarning, match="two_step gives NaN"),
    ):
        table = backtest(ladder)
    assert set(table["split"]) == {"largest size"}
    assert table["baseline"].isna().all()
    assert score_backtest(table)["baseline_error"].isna().all()
    assert score_backtest(table)["error"].notna().all()


@pytest.mark.usefixtures("fits")
def test_a_ladder_without_splits_says_why(small_table):
    few = small_table[~small_table["model"].isin(["800M-20", "800M-100"])]
    with pytest.raises(ValueError, match="no split `largest size`") as error:
        backtest(read_ladder(few))
    assert "no split `longest runs`" in str(error.value)
    assert "hold_out" in str(error.value)


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


@pytest.mark.usefixtures("fits")
def test_summary_by_split_marks_what_has_not_converged(wide_table):
    found = backtest(read_ladder(wide_table))
    found.loc[found["split"] == "longest runs", "converged"] = 0
    scores = score_backtest(found)
    assert list(scores["task"]) == ["easy", "hard", "all"] * 4
    assert list(scores["split"]) == ["largest size"] * 6 + ["longest runs"] * 6
    assert list(scores["converged"]) == [1] * 6 + [0] * 6
    cells = found[(found["split"] == "largest size") & (found["quantity"] == "accuracy")]
    overall = scores[(scores["split"] == "largest size") & (scores["quantity"] == "accuracy")]
    assert overall["error"].iloc[-1] == pytest.approx(cells["error"].mean())
    assert overall["baseline_error"].iloc[-1] == pytest.approx(cells["baseline_error"].mean())
    assert overall["cover80"].iloc[-1] == pytest.approx(cells["inside80"].mean())


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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*has not converged")
def test_held_out_numbers_change_nothing_but_the_score(small_table, monkeypatch):
    posteriors, predictions, tables = [], [], []
    fit, forecast = module.fit, module.forecast

    def recorded_fit(*args, **settings):
        posteriors.append(fit(*args, **settings))
        return posteriors[-1]

    def recorded_forecast(*args, **settings):
        predictions.append(forecast(*args, **settings))
        return predictions[-1]

    monkeypatch.setattr(module, "fit", recorded_fit)
    monkeypatch.setattr(module, "forecast", recorded_forecast)
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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*has not converged")
def test_how_much_ladder_takes_the_settings_of_a_fit(small_table):
    names = ["400M-100", "800M-20", "800M-100"]
    table = how_much_ladder(*read_ladder(small_table).split(hold_out=names), **SHORT)
    assert list(table["task"]) == ["easy", "hard", "all"]  # of the three rungs none can be dropped
    assert list(table["cells"]) == [3, 3, 6]
    assert list(table["converged"]) == [0, 0, 0]  # a fit this short
    assert np.isfinite(table[["error", "crps"]]).all(axis=None)
    assert table["width80"].between(0.1, 60).all()

"""A list of fits that was cut short goes on from where it was, and mixes nothing."""

from importlib import import_module
from pathlib import Path

import numpyro.distributions as dist
import pandas as pd
import pytest

import laddercast as lc
from laddercast.cli.commands import main
from laddercast.data.ladder import read_ladder
from laddercast.evaluation.backtests import backtest, how_much_ladder
from laddercast.evaluation.calibration import main as calibrate
from laddercast.evaluation.resume import clear_kept

pytestmark = pytest.mark.slow

module = import_module("laddercast.evaluation.resume")

FOLDS = ("sizes", "lengths", "one-size")


@pytest.fixture
def stopped(monkeypatch):
    """Have a run be interrupted once it has kept two tables, until called."""
    keep, kept = module._keep, []

    def stop(table: pd.DataFrame, path: Path) -> None:
        if len(kept) == 2:
            raise KeyboardInterrupt
        kept.append(path)
        keep(table, path)

    monkeypatch.setattr(module, "_keep", stop)
    return lambda: monkeypatch.setattr(module, "_keep", keep)


def test_a_backtest_goes_on_from_where_it_was(wide_table, fits, stopped, tmp_path, capsys):
    ladder = read_ladder(wide_table)
    whole = backtest(ladder, folds=FOLDS)
    count = len(fits)
    assert count > 3
    with pytest.raises(KeyboardInterrupt):
        backtest(ladder, folds=FOLDS, resume=tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 2
    stopped()
    fits.clear()
    pd.testing.assert_frame_equal(backtest(ladder, folds=FOLDS, resume=tmp_path / "kept"), whole)
    assert len(fits) == count - 2
    assert f"2 of {count} fits kept by an earlier run" in capsys.readouterr().err
    fits.clear()
    pd.testing.assert_frame_equal(backtest(ladder, folds=FOLDS, resume=tmp_path / "kept"), whole)
    assert not fits


def test_another_order_of_rows_is_the_same_ladder(wide_table, fits, tmp_path):
    backtest(read_ladder(wide_table), resume=tmp_path)
    fits.clear()
    backtest(read_ladder(wide_table.sample(frac=1, random_state=0)), resume=tmp_path)
    assert not fits


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 2**60 + 1},
        {"draws": 400},
        {"route": "direct"},
        {"priors": lc.Priors(q=dist.LogNormal(0.0, 0.1000001))},
        {"device": "gpu"},
        {},
    ],
    ids=["seed", "draws", "route", "priors", "device", "ladder"],
)
def test_other_settings_and_ladders_are_not_mixed(wide_table, fits, tmp_path, other, monkeypatch):
    backtests = import_module("laddercast.evaluation.backtests")
    monkeypatch.setattr(backtests, "_with_rivals", lambda cells, *_: cells)
    given = {"seed": 2**60, "priors": lc.Priors(q=dist.LogNormal(0.0, 0.1))}
    backtest(read_ladder(wide_table), resume=tmp_path, **given)
    count = len(fits)
    if not other:
        wide_table.loc[3, "accuracy"] += 1e-9
    backtest(read_ladder(wide_table), resume=tmp_path, **given | other)
    assert len(fits) == 2 * count
    monkeypatch.setattr(module, "version", lambda name: "0.0")
    backtest(read_ladder(wide_table), resume=tmp_path, **given | other)
    assert len(fits) == 3 * count


def test_what_is_damaged_is_made_again(wide_table, fits, tmp_path):
    ladder = read_ladder(wide_table)
    whole = backtest(ladder, resume=tmp_path)
    path = next(iter(tmp_path.iterdir()))
    path.write_bytes(path.read_bytes()[:-100])
    fits.clear()
    pd.testing.assert_frame_equal(backtest(ladder, resume=tmp_path), whole)
    assert len(fits) == 1


def test_how_much_ladder_goes_on_too(wide_table, fits, tmp_path):
    rungs, held_out = read_ladder(wide_table).split(hold_out=["800M-200"])
    whole = how_much_ladder(rungs, held_out, resume=tmp_path)
    fits.clear()
    again = how_much_ladder(rungs, held_out, resume=tmp_path)
    pd.testing.assert_frame_equal(again, whole)
    assert not fits
    how_much_ladder(rungs, held_out.assign(accuracy=held_out["accuracy"] / 2), resume=tmp_path)
    assert fits


def test_own_routes_are_refused(wide_table, tmp_path):
    mine = lc.Route("mine", lc.direct.model, reads=("accuracy",), through="mine")
    for route in (mine, ["two_stage", mine]):
        with pytest.raises(ValueError, match="whether mine has changed"):
            backtest(read_ladder(wide_table), route=route, resume=tmp_path)


def test_only_what_was_kept_is_cleared(tmp_path):
    ours = ["a" * 64 + ".parquet", "." + "b" * 64 + ".parquet.123.part"]
    for name in (*ours, "mine.parquet"):
        (tmp_path / name).touch()
    clear_kept(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.parquet"]
    (tmp_path / "mine.parquet").unlink()
    clear_kept(tmp_path)
    assert not tmp_path.exists()
    clear_kept(tmp_path)


@pytest.mark.filterwarnings("ignore::laddercast.SkippedWarning")
def test_the_command_goes_on_and_clears_what_it_kept(wide_table, fits, stopped, tmp_path, capsys):
    wide_table.to_csv(tmp_path / "ladder.csv", index=False)
    words = ["backtest", str(tmp_path / "ladder.csv"), "--folds", ",".join(FOLDS), "--out"]
    assert main([*words, str(tmp_path / "out")]) == 130
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["unfinished"]
    stopped()
    fits.clear()
    status = main([*words, str(tmp_path / "out")])
    assert "2 of 4 fits kept" in capsys.readouterr().err
    assert len(fits) == 2
    assert main([*words, str(tmp_path / "whole")]) == status
    for name in ("forecast.csv", "scores.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "out" / "unfinished").exists()


@pytest.mark.long
def test_calibration_goes_on_from_where_it_was(stopped, tmp_path, capsys):
    words = ["--ladders", "3", "--route", "direct", "--tasks", "2", "--draws", "50", "--out"]
    with pytest.raises(KeyboardInterrupt):
        calibrate([*words, str(tmp_path / "part.csv")])
    assert len(list((tmp_path / "part.csv.unfinished").iterdir())) == 2
    stopped()
    calibrate([*words, str(tmp_path / "part.csv")])
    assert "2 of 3 fits kept" in capsys.readouterr().err
    calibrate([*words, str(tmp_path / "whole.csv"), "--workers", "1"])
    assert (tmp_path / "part.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part.csv", "whole.csv"]

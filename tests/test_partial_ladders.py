"""Ladders of accuracies alone, of losses alone, of two rungs, and on one line, from end to end."""

import warnings
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpyro import handlers

import laddercast as lc
from laddercast.cli.commands import main
from laddercast.model.design import Observed, ladder_design

pytestmark = pytest.mark.slow

SHORT = {"chains": 2, "warmup": 50, "draws": 50, "progress": False}
SAMPLER = ["--chains", "2", "--warmup", "30", "--draws", "30"]


def table_of(sizes: tuple[float, ...], lengths: tuple[float, ...], tasks: int) -> pd.DataFrame:
    """Measurements at the ends of runs, without noise but for rounding."""
    rows = []
    for params in sizes:
        for length in lengths:
            for task in range(tasks):
                loss = (0.5 + 30 / params**0.25 + 60 / (params * length) ** 0.25) * (1 + 0.1 * task)
                rows.append({
                    "model": f"{params / 1e6:.0f}M-{length:g}", "params": int(params),
                    "tokens": int(params * length), "task": f"task{task}", "loss": round(loss, 3),
                    "accuracy": round(0.25 + 0.7 / (1 + np.exp(5 * (loss - 1.1))), 3),
                    "chance": 0.25, "items": 1000,
                })  # fmt: skip
    return pd.DataFrame(rows)


LOSSES = table_of((2e8, 4e8, 8e8), (20, 100), 2).drop(columns=["accuracy", "chance", "items"])
TWO_RUNGS = table_of((2e8, 8e8), (20,), 1).drop(columns="loss")
TARGETS = table_of((3.2e9,), (20, 100), 2)


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def short_fit(ladder: lc.Ladder) -> xr.DataTree:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lc.NotConvergedWarning)
        return lc.fit(ladder, **SHORT)


@pytest.fixture(scope="module")
def losses() -> xr.DataTree:
    return short_fit(lc.read_ladder(LOSSES))


@pytest.fixture(scope="module")
def two_rungs() -> xr.DataTree:
    return short_fit(lc.read_ladder(TWO_RUNGS))


def test_stage_1_has_the_sites_of_two_stage_that_losses_need():
    full = table_of((2e8, 4e8, 8e8), (20, 100), 2)
    design, _, _, _ = ladder_design(lc.read_ladder(full))
    sites = {
        route.name: set(
            handlers.trace(handlers.seed(route.model, 0)).get_trace(design, lc.Priors(), Observed())
        )
        for route in (lc.stage_1, lc.two_stage)
    }
    assert sites["stage_1"] < sites["two_stage"]
    assert "log_loss" in sites["stage_1"]
    assert not any("accuracy" in name for name in sites["stage_1"])


@pytest.mark.filterwarnings("ignore::laddercast.NotConvergedWarning")
def test_losses_alone_are_forecast(losses: xr.DataTree, tmp_path: Path):
    assert list(losses.children) == ["stage_1"]
    assert {"A", "B", "E", "alpha", "beta"} <= set(losses["stage_1"]["posterior"])
    assert not {"a", "b", "k", "L0"} & set(losses["stage_1"]["posterior"])
    found = lc.forecast(losses, TARGETS)
    assert set(found["predictions"].data_vars) == {"loss"}
    assert "variance" not in found.children
    table = lc.forecast_table(found)
    assert set(table["quantity"]) == {"loss"}
    assert np.abs(table["q50"] / table["measured"] - 1).max() < 0.1
    scores = lc.score(found)
    assert list(scores["task"]) == ["task0", "task1", "all"]
    what_if = lc.what_if(losses, [2e8, 3e9], [4e9, 4e10])
    assert set(what_if["task"]) == {"task0", "task1"}
    lc.plot_forecast(found, lc.baseline(lc.read_ladder(LOSSES), lc.read_targets(TARGETS)))
    for plot in (lc.plot_what_if, lc.plot_iso_accuracy):
        assert len(plot(what_if)) == 2
    lc.plot_stage1(losses, found)
    with pytest.raises(ValueError, match="goes through no loss to accuracy"):
        lc.plot_stage2(losses)
    page = lc.report(found, losses, tmp_path / "report.html").read_text()
    assert "Loss per task" in page
    assert "Mean accuracy over tasks" not in page


@pytest.mark.filterwarnings("ignore::laddercast.NotConvergedWarning")
def test_cells_of_a_forecast_are_selected_by_model_and_task(losses: xr.DataTree, tmp_path: Path):
    found = lc.forecast(losses, TARGETS)
    found.to_netcdf(tmp_path / "predictions.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "predictions.nc", engine="h5netcdf") as tree:
        for forecast in (found, tree.load()):
            data = lc.predictions(forecast)
            one = data.sel(model="3200M-100", task="task1")["loss"]
            at = [
                i
                for i, row in enumerate(data["row"].to_numpy())
                if tuple(row) == ("3200M-100", "task1")
            ]
            np.testing.assert_array_equal(one, found["predictions"]["loss"][..., at[0]])
            assert data.sel(model="3200M-20").sizes["task"] == 2


@pytest.mark.filterwarnings("ignore::laddercast.NotConvergedWarning")
def test_off_the_line_of_the_rungs_is_told_by_target(two_rungs: xr.DataTree, tmp_path: Path):
    assert list(two_rungs.children) == ["direct"]
    targets = TARGETS[TARGETS["task"] == "task0"].drop(columns="loss")
    with pytest.warns(lc.OffLineWarning, match="target 3200M-100 lies off the line") as caught:
        found = lc.forecast(two_rungs, targets)
    assert sum(own.category is lc.OffLineWarning for own in caught) == 1
    assert {own.filename for own in caught} == {__file__}
    table = lc.forecast_table(found)
    assert np.isfinite(table["sd"]).all()
    page = lc.report(found, two_rungs, tmp_path / "report.html").read_text()
    assert "off the line of the rungs</strong>: 1 of 2 forecasts" in page
    supported = lc.what_if(two_rungs, [4e8], [8e9, 8e10]).groupby("tokens")["supported"].all()
    assert supported.tolist() == [True, False]


def test_commands_without_losses(tmp_path: Path, capsys):
    ladder, targets = str(tmp_path / "ladder.csv"), str(tmp_path / "targets.csv")
    table = table_of((2e8, 4e8, 8e8), (20,), 1).drop(columns="loss").assign(recipe="web")
    pd.concat([table, table.assign(recipe="books", accuracy=0.25)]).to_csv(ladder, index=False)
    TARGETS[TARGETS["task"] == "task0"].drop(columns="loss").to_csv(targets, index=False)
    given, out = [ladder, "--targets", targets, "--recipe", "web"], str(tmp_path / "out")
    assert main(["baseline", *given, "--out", out]) == 2
    assert not Path(out).exists()
    told = capsys.readouterr().err
    assert "no published method can be fitted to any task" in told
    assert "no losses were measured" in told
    assert "task0: single_step gives NaN, as 7 coefficients cannot be fitted" in told
    more = str(tmp_path / "more.csv")
    TARGETS.drop(columns="loss").to_csv(more, index=False)
    assert main(["baseline", ladder, "--targets", more, "--recipe", "web", "--out", out]) == 2
    told = capsys.readouterr().err
    assert "no such task: task1; did you mean task0? the tasks of the ladder are task0" in told
    assert main(["forecast", *given, "--out", out, *SAMPLER]) in (0, 3)
    told = capsys.readouterr().err
    assert "published method left out, as ladder.csv has no losses" in told
    assert "target 3200M-100 lies off the line of the ladder" in told
    assert main(["report", out]) in (0, 3)


@pytest.mark.long
@pytest.mark.parametrize("measured", ["accuracy", "loss"])
@pytest.mark.filterwarnings("ignore::laddercast.NotConvergedWarning")
def test_backtests_of_what_was_measured(measured: str, tmp_path: Path, capsys):
    table = table_of((2e8, 4e8, 8e8), (20, 100), 2)
    table = table[["model", "params", "tokens", "task", "chance", "items", measured]]
    if measured == "loss":
        table = table.drop(columns=["chance", "items"])
    table.to_csv(tmp_path / "ladder.csv", index=False)
    ladder, out = str(tmp_path / "ladder.csv"), str(tmp_path / "out")
    command = ["backtest", ladder, "--folds", "largest-size", "--out", out, *SAMPLER]
    assert main(command) in (0, 3)
    assert (
        f"left out, as ladder.csv has no {'losses' if measured == 'accuracy' else 'accuracies'}"
        in (capsys.readouterr().err)
    )
    scores = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert set(scores["quantity"]) == {measured}
    assert set(scores["method"]) <= {"laddercast", "best_rung", "baseline"}

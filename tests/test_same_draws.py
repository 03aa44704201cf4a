"""The same seed gives the same draws: in threads, in files."""

import sys
import threading
from pathlib import Path

import pytest

import laddercast as lc
from laddercast.cli.commands import main

QUICK = {"route": "direct", "chains": 2, "warmup": 50, "draws": 50, "progress": False}
COMMAND = ["--chains", "2", "--warmup", "50", "--draws", "50", "--route", "direct"]


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    assert main(["demo", "--out", str(out), *COMMAND]) in (0, 3)
    return out


@pytest.mark.slow
def test_files_of_equal_runs_are_equal(done, tmp_path):
    assert main(["demo", "--out", str(tmp_path), *COMMAND]) in (0, 3)
    for name in ("fit.nc", "predictions.nc", "forecast.csv"):
        assert (tmp_path / name).read_bytes() == (done / name).read_bytes(), name


@pytest.mark.slow
def test_a_figure_that_fails_discards_nothing(tmp_path, monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr("laddercast.plots.plot_forecast", fail)
    assert main(["demo", "--out", str(tmp_path), *COMMAND]) in (0, 3)
    assert "forecast.png was left out: RuntimeError: no ink" in capsys.readouterr().err
    names = {path.name for path in tmp_path.iterdir()}
    assert {"fit.nc", "predictions.nc", "forecast.csv"} <= names
    assert "forecast.png" not in names


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*has not converged")
def test_fits_that_overlap_in_threads_are_those_made_alone(small_table):
    ladder = lc.read_ladder(small_table)
    routes = ("direct", "two_stage", "direct")
    found: dict[int, object] = {}

    def one(number: int) -> None:
        found[number] = lc.fit(ladder, **QUICK | {"route": routes[number], "seed": number})

    threads = [threading.Thread(target=one, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, route in enumerate(routes):
        alone = lc.fit(ladder, **QUICK | {"route": route, "seed": number})
        assert found[number].attrs["draws"] == alone.attrs["draws"]


@pytest.mark.slow
def test_kills_leave_nothing_half_written(capsys):
    sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
    from kills import kill_many

    assert kill_many(3, seed=1) == []

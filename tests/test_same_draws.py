"""The same seed gives the same draws: whatever else is asked for, in threads, in files."""

import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import laddercast as lc
from laddercast.cli.commands import main
from laddercast.model.beyond import weights_beyond

QUICK = {"route": "direct", "chains": 2, "warmup": 50, "draws": 50, "progress": False}
COMMAND = ["--chains", "2", "--warmup", "50", "--draws", "50", "--route", "direct"]
ENDS = {"params": (8.0, 9.0), "tokens": (9.0, 10.0)}


def weights(decades: np.ndarray) -> pd.DataFrame:
    """Weights of steps at points so many decades beyond the ladder's params, by step."""
    points = pd.DataFrame({"params": 10 ** (9 + decades), "tokens": 10.0**9.5})
    none = np.zeros(0, int)
    found, names = weights_beyond(points, ENDS, none, np.zeros(len(points), int), 1.0)
    return pd.DataFrame(found, columns=names)


def test_steps_beyond_the_ladder_have_the_covariance_of_a_random_walk():
    decades = np.array([0.03, 0.25, 0.4, 0.9, 1.0, 1.3, 2.7])
    found = weights(decades).to_numpy()
    covariance = found @ found.T
    expected = np.minimum(decades[:, None], decades)
    np.testing.assert_allclose(np.diag(covariance), decades, rtol=1e-9)
    # No two of these lie within the same sixteenth of a decade.
    np.testing.assert_allclose(covariance, expected, atol=1e-9)


def test_steps_of_a_target_do_not_depend_on_the_others():
    alone, among = weights(np.array([1.3])), weights(np.array([0.4, 1.3, 1.31, 2.0]))
    own = among.loc[1]
    pd.testing.assert_series_equal(
        own[own != 0].sort_index(), alone.loc[0].sort_index(), check_names=False
    )


def test_within_the_ladder_there_are_no_steps():
    assert weights(np.array([-0.5, 0.0])).shape == (2, 0)


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    assert main(["demo", "--out", str(out), *COMMAND]) in (0, 3)
    return out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::laddercast.LaddercastWarning")
def test_a_target_has_the_same_draws_whichever_others_are_forecast(done):
    import xarray as xr

    fitted = xr.open_datatree(done / "fit.nc", engine="h5netcdf").load()
    one = pd.DataFrame({"model": ["b"], "params": [7 * 10**9], "tokens": [4 * 10**12]})
    others = pd.DataFrame(
        {"model": ["a", "c"], "params": [2 * 10**9, 13 * 10**9], "tokens": [10**12, 10**13]}
    )
    alone = lc.predictions(lc.forecast(fitted, one)).sel(model="b")
    for table in (pd.concat([one, others]), pd.concat([others, one])):
        among = lc.predictions(lc.forecast(fitted, table))
        own = among.sel(model="b")
        np.testing.assert_allclose(own["accuracy"], alone["accuracy"], atol=1e-12)
        # They still err together, as the law beyond the ladder is one.
        draws = [among.sel(model=name)["accuracy"].to_numpy()[..., 0].ravel() for name in "bc"]
        assert np.corrcoef(draws)[0, 1] > 0.3


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

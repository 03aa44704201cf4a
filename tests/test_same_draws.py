"""The same seed gives the same draws: in threads, in files."""

import json
import sys
import threading
from pathlib import Path

import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr

import laddercast as lc
from laddercast.cli.commands import main
from laddercast.inference.saving import save

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
def test_fits_in_several_threads_are_those_made_alone(small_table):
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
@pytest.mark.filterwarnings("ignore:.*has not converged")
def test_attributes_of_a_fit_are_enough_to_make_it_again(small_table, tmp_path):
    """So many draws that it goes on where it has not converged, and keeps others than asked for."""
    ladder = lc.read_ladder(small_table, rungs="every")
    settings = QUICK | {"route": ["direct"], "draws": 250, "seed": 3}
    fit = lc.fit(ladder, lc.Priors(q=dist.LogNormal(0.5, 0.25)), **settings)
    save(fit, tmp_path / "fit.nc")
    with xr.open_datatree(tmp_path / "fit.nc", engine="h5netcdf") as tree:
        attrs, routes = tree.attrs, tree.attrs["routes"].split(", ")
        used = json.loads(tree[routes[0]].attrs["settings"])
    again = lc.read_ladder(small_table, rungs=used["rungs"])
    assert again.fingerprint == attrs["fingerprint"]
    priors = {
        name: eval(text, {}, vars(dist))
        for name, text in json.loads(attrs["priors"]).items()
        if name == "q"
    }
    redone = lc.fit(
        again, lc.Priors(**priors), route=routes, seed=int(attrs["seed"]), chains=used["chains"],
        warmup=used["warmup"], draws=used["draws_asked"], device=used["device"], progress=False,
    )  # fmt: skip
    assert redone.attrs["draws"] == attrs["draws"]
    assert used["draws"] > used["draws_asked"] or attrs["converged"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*has not converged")
def test_a_fit_that_lacks_what_the_model_has_is_refused_and_told_by_whom_it_was_made(done):
    with xr.open_datatree(done / "fit.nc", engine="h5netcdf") as tree:
        older = tree.load()
    targets = pd.DataFrame({"model": ["9B"], "params": [9e9], "tokens": [9e11]})
    lc.forecast(older, targets)
    posterior = older["direct"]["posterior"].to_dataset()
    older["direct"]["posterior"] = xr.DataTree(posterior.drop_vars(["gamma", "q"]))
    older.attrs["versions"] = json.dumps({"laddercast": "0.0.7"})
    with pytest.raises(ValueError, match=r"direct lacks q, gamma: it was made by release 0\.0\.7"):
        lc.forecast(older, targets)


@pytest.mark.slow
def test_kills_leave_nothing_half_written(capsys):
    sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
    from kills import kill_many

    assert kill_many(3, seed=1) == []

import dataclasses
import warnings

import arviz as az
import jax
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr
from numpyro.infer import Predictive

from laddercast.design import Design, ladder_design, target_design
from laddercast.fitted import complaints, frame_of
from laddercast.forecast import forecast, forecast_table
from laddercast.inference import fit
from laddercast.ladder import read_ladder, read_targets
from laddercast.model import two_stage
from laddercast.priors import Priors
from laddercast.sampler import on_device

SHORT = {"chains": 2, "warmup": 200, "draws": 190, "progress": False}
TARGETS = pd.DataFrame(
    {"model": ["big", "bigger"], "params": [3_000_000_000, 7_000_000_000], "tokens": 2 * [10**11]}
)


def fit_quietly(*args, **settings) -> xr.DataTree:
    with warnings.catch_warnings():
        # Short fits serve tests of form; that they say so is tested on its own.
        warnings.filterwarnings("ignore", "the (fit|forecast) has not converged")
        return fit(*args, **{**SHORT, **settings})


def forecast_quietly(*args, **settings) -> xr.DataTree:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the (fit|forecast) has not converged")
        return forecast(*args, **settings)


@pytest.fixture(scope="module")
def ladder():
    from laddercast.simulate import demo_ladder

    return demo_ladder(seed=3)[0]


@pytest.fixture(scope="module")
def fitted(ladder) -> xr.DataTree:
    return fit_quietly(ladder)


def draw_from_prior(design: Design, draws: int) -> dict[str, np.ndarray]:
    with on_device(jax.devices("cpu")[0]):
        sites = Predictive(two_stage, num_samples=draws)(jax.random.key(0), design, Priors())
        return {name: np.asarray(value) for name, value in sites.items()}


def test_prior_predictive_is_what_real_models_could_have(small_table):
    design = ladder_design(read_ladder(small_table))[0]
    sites = draw_from_prior(design, 500)
    # Bits per byte of right answers and nats per token lie between .05 and 30.
    assert np.mean((sites["loss"] > 0.05) & (sites["loss"] < 30)) > 0.99
    law = sites["law"]
    assert law.min() >= 0
    assert law.max() <= 1
    outside = (sites["accuracy"] < 0) | (sites["accuracy"] > 1)
    assert outside.mean() < 0.02
    # Before the first rung, chance and 90 % must both be possible.
    assert np.quantile(law, 0.1) < 0.4
    assert np.quantile(law, 0.95) > 0.6


def test_walk_grows_with_distance_and_is_exact_beyond(small_table):
    ladder = read_ladder(small_table)
    _, _, labels, frame = ladder_design(ladder)
    models = read_targets(TARGETS).assign(checkpoints=1.0)
    design, _ = target_design(models, ladder.tasks, labels.curve, frame)
    compute = np.log10(TARGETS["params"].astype(float) * TARGETS["tokens"])
    distance = compute - frame.knots[frame.origin]
    variance = (design.walk**2).sum(axis=1) + (design.beyond**2).sum(axis=1)
    np.testing.assert_allclose(variance, distance, rtol=1e-9)


def test_priors_are_replaced_one_by_one():
    changed = dataclasses.replace(Priors(), gap=dist.Beta(1.0, 50.0))
    assert changed.gap.concentration0 == 50
    with pytest.raises(TypeError, match="gap is a float; give NumPyro distributions"):
        dataclasses.replace(Priors(), gap=0.1)


@pytest.mark.parametrize("name", ["chains", "warmup", "draws"])
def test_settings_below_one_are_refused(small_table, name):
    with pytest.raises(ValueError, match=f"{name}=0"):
        fit(read_ladder(small_table), **{**SHORT, name: 0})


def test_absent_device_is_an_error(small_table):
    if any(device.platform == "gpu" for device in jax.devices()):
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match="no such device here"):
        fit(read_ladder(small_table), device="gpu")


@pytest.mark.slow
def test_fit_holds_all_groups_and_names(fitted, ladder):
    groups = "posterior sample_stats log_likelihood log_prior observed_data constant_data"
    assert set(fitted.children) == set(groups.split())
    cells = len(ladder.models) * len(ladder.tasks)
    for site in ("loss", "accuracy"):
        assert fitted["log_likelihood"][site].shape == (2, 190, cells)
        assert np.isfinite(fitted["log_likelihood"][site]).all()
    posterior = fitted["posterior"].to_dataset()
    assert {"A", "B", "E", "alpha", "beta", "a", "b", "k", "L0"} <= set(posterior)
    assert set(fitted["log_prior"].to_dataset()) >= {"alpha_center", "walk_accuracy_scale"}
    assert fitted.attrs["fingerprint"] == ladder.fingerprint
    assert fitted.attrs["seed"] == 0


@pytest.mark.slow
def test_letters_give_the_measured_losses(fitted, ladder):
    from laddercast.ladder import run_ends

    p = fitted["posterior"].to_dataset().median(("chain", "draw"))
    ends = run_ends(ladder.table)
    own = {name: p[name].sel(curve=ends["task"].to_list()).to_numpy() for name in "ABE"}
    alpha = p["alpha"].sel(curve=ends["task"].to_list()).to_numpy()
    beta = p["beta"].sel(curve=ends["task"].to_list()).to_numpy()
    law = own["A"] / ends["params"] ** alpha + own["B"] / ends["tokens"] ** beta + own["E"]
    error = np.abs(np.log(law / ends["loss"]))
    assert error.median() < 0.02
    assert frame_of(fitted).params > 1e8


@pytest.mark.slow
def test_leave_one_out_reads_the_fit(fitted):
    for site in ("loss", "accuracy"):
        with warnings.catch_warnings():
            # 400 draws of 16 runs leave some weights uncertain.
            warnings.filterwarnings("ignore", "Estimated shape parameter of Pareto")
            assert np.isfinite(az.loo(fitted, var_name=site).elpd)


@pytest.mark.slow
def test_forecast_from_the_saved_fit_is_the_same(fitted, tmp_path):
    fitted.to_netcdf(tmp_path / "fit.nc", engine="h5netcdf")
    loaded = xr.open_datatree(tmp_path / "fit.nc", engine="h5netcdf")
    one, other = forecast_quietly(fitted, TARGETS), forecast_quietly(loaded, TARGETS)
    xr.testing.assert_equal(one["predictions"].to_dataset(), other["predictions"].to_dataset())


@pytest.mark.slow
def test_forecast_is_sound(fitted):
    found = forecast_quietly(fitted, TARGETS)
    predictions = found["predictions"].to_dataset()
    assert predictions["accuracy"].min() >= 0
    assert predictions["accuracy"].max() <= 1
    assert predictions.sizes["row"] == 2 * 8
    variance = found["variance"].to_dataset()
    parts = sum(variance[name] for name in ("law", "discrepancy", "run", "checkpoint"))
    # Sources are nearly independent, so their variances add up but for the curve's bends.
    ratio = (parts / variance["total"]).to_numpy()
    assert (ratio > 0.6).all()
    assert (ratio < 1.8).all()
    table = forecast_table(found)
    quantiles = table[["q025", "q10", "q25", "q50", "q75", "q90", "q975"]].to_numpy()
    assert (np.diff(quantiles, axis=1) >= 0).all()
    assert table["measured"].isna().all()


@pytest.mark.slow
def test_more_checkpoints_leave_less_noise(fitted):
    one = forecast_quietly(fitted, TARGETS.assign(checkpoints=1))
    many = forecast_quietly(fitted, TARGETS.assign(checkpoints=100))
    ratio = (many["variance"]["checkpoint"] / one["variance"]["checkpoint"]).to_numpy()
    assert (ratio < 0.02).all()


@pytest.mark.slow
def test_far_targets_are_warned_of(fitted):
    far = TARGETS.assign(tokens=10**16)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        forecast(fitted, far)
    texts = [str(warning.message) for warning in caught]
    assert any("decades of compute beyond the largest rung" in text for text in texts)
    assert any("tokens per parameter" in text for text in texts)


@pytest.mark.slow
def test_chains_in_one_batch_are_those_in_threads(small_table, monkeypatch):
    # A GPU runs all chains as one batch; the same code on a CPU must walk the same way.
    ladder = read_ladder(small_table)
    short = {"warmup": 50, "draws": 50}
    one = fit_quietly(ladder, **short)
    monkeypatch.setattr("laddercast.sampler.in_threads", lambda device: False)
    other = fit_quietly(ladder, **short)
    for name in ("alpha_center", "walk_accuracy_scale", "E"):
        first, second = (tree["posterior"][name].to_numpy() for tree in (one, other))
        assert first.shape == second.shape
        # Rounding differs between the two programs, and chaos makes that a different draw in time.
        spread = np.maximum(first.std(), 1e-12)
        assert np.abs(first.mean() - second.mean()) < 1.5 * spread


@pytest.mark.slow
def test_unconverged_fit_says_so(ladder):
    with pytest.warns(UserWarning, match="the fit has not converged"):
        found = fit(ladder, chains=2, warmup=200, draws=50, progress=False)
    assert found.attrs["converged"] == 0
    assert "ESS" in found.attrs["complaints"]
    assert complaints(found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["reference loss", "every", "ragged"])
def test_other_kinds_of_ladder_are_fitted(small_table, kind):
    rungs = "last"
    if kind == "reference loss":
        small_table = small_table.drop(columns="loss")
    elif kind == "every":
        rungs = "every"
    else:
        hard = small_table["task"] == "hard"
        small_table = small_table[~(hard & (small_table["model"] == "200M-20"))]
        small_table.loc[small_table["model"] == "400M-20", "loss"] = np.nan
        small_table.loc[small_table["model"] == "400M-100", "accuracy"] = np.nan
    found = fit_quietly(read_ladder(small_table, rungs=rungs))
    ahead = forecast_quietly(found, TARGETS)["predictions"].to_dataset()
    assert np.isfinite(ahead["accuracy"]).all()
    assert np.isfinite(ahead["loss"]).all()
    assert ahead.sizes["row"] == 2 * 2

import dataclasses
import json
import warnings

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr
from numpyro import handlers
from scipy import stats

from laddercast.data.cautions import FarTargetWarning, NotConvergedWarning
from laddercast.data.ladder import Ladder, read_ladder, run_ends
from laddercast.forecasting.forecasts import _predict, forecast, forecast_table
from laddercast.inference.fitting import fit
from laddercast.inference.results import diagnose, frame_of, routes_of
from laddercast.model.design import SITES, Design, Seen, ladder_design
from laddercast.model.likelihood import FLOOR, Runs
from laddercast.model.priors import Priors
from laddercast.model.routes import (
    POOLED_BY_DEFAULT,
    ROUTES,
    Route,
    by_reference,
    chain,
    direct,
    two_stage,
)
from laddercast.sampling.chains import on_device
from laddercast.sampling.density import is_latent
from laddercast.sampling.programs import _of_rows, in_batches

SHORT = {"chains": 2, "warmup": 100, "draws": 190, "progress": False}
TARGETS = pd.DataFrame(
    {"model": ["big", "bigger"], "params": [3_000_000_000, 7_000_000_000], "tokens": 2 * [10**11]}
)
GROUPS = "posterior sample_stats log_likelihood log_prior observed_data constant_data"
POOLED = [route.name for route in POOLED_BY_DEFAULT]
STEPS = ("law", "discrepancy", "run", "checkpoint")
# Short fits serve tests of form; that they say so is tested on its own.
DOUBTS = "the (fit|forecast) has not converged"


def fit_quietly(*args, **settings) -> xr.DataTree:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", DOUBTS)
        return fit(*args, **{**SHORT, **settings})


def forecast_quietly(*args, **settings) -> xr.DataTree:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", DOUBTS)
        return forecast(*args, **settings)


@pytest.fixture(scope="module")
def ladder() -> Ladder:
    """The demo's ladder with three of its tasks and a reference loss beside theirs."""
    from laddercast.evaluation.simulation import demo_ladder

    whole = demo_ladder(seed=3)[0]
    n, d = whole.table["params"].astype(float), whole.table["tokens"].astype(float)
    reference_loss = 1.8 + (n / 1e8) ** -0.3 + (d / 1e9) ** -0.3
    tasks = whole.tasks.loc[["hellaswag", "arc_easy", "piqa"]]
    return Ladder(whole.table.assign(reference_loss=reference_loss), tasks.reset_index())


@pytest.fixture(scope="module")
def fitted(ladder) -> xr.DataTree:
    return fit_quietly(ladder, route=two_stage)


@pytest.fixture(scope="module")
def pooled(ladder) -> xr.DataTree:
    """All routes, as by default."""
    return fit_quietly(ladder, draws=60)


def draw_from_prior(route: Route, design: Design, draws: int) -> dict[str, np.ndarray]:
    def one(key: jax.Array, design: Design, priors: Priors) -> dict[str, jax.Array]:
        trace = handlers.trace(handlers.seed(route.model, key)).get_trace(design, priors)
        return {name: x["value"] for name, x in trace.items() if x["type"] != "plate"}

    with on_device(jax.devices("cpu")[0]):
        # NumPyro's own `Predictive` takes far longer to compile than these draws take.
        return in_batches(one, jax.random.split(jax.random.key(0), draws), design, Priors())


@pytest.mark.slow
@pytest.mark.parametrize("name", ROUTES)
def test_prior_predictive_is_what_real_models_could_have(small_table, name):
    design = ladder_design(read_ladder(small_table))[0]
    sites = draw_from_prior(ROUTES[name], design, 500)
    # Bits per byte of right answers and nats per token lie between .05 and 30.
    for quantity in {"log_loss", "log_reference_loss"} & set(sites):
        loss = np.exp(sites[quantity])
        assert np.mean((loss > 0.05) & (loss < 30)) > 0.99
    assert {quantity for quantity, site in SITES.items() if site in sites} == set(
        ROUTES[name].reads
    )
    if "accuracy" not in ROUTES[name].reads:
        return
    law = sites["law"]
    assert law.min() >= 0
    assert law.max() <= 1
    outside = (sites["accuracy"] < 0) | (sites["accuracy"] > 1)
    assert outside.mean() < 0.02
    # Before the first rung, chance and 90 % must both be possible.
    assert np.quantile(law, 0.1) < 0.4
    assert np.quantile(law, 0.95) > 0.6


RUN_VARIANCE, NOISE = 0.7, np.array([0.2, 0.5, 1.1])


def of_one_task(run: np.ndarray, at: np.ndarray) -> Runs:
    """Measurements of one task about zero at these points of runs."""
    end = np.array([np.flatnonzero(run == number)[-1] for number in range(run.max() + 1)])
    nothing = Seen(at[:, None], np.ones((len(run), 1)), np.zeros((len(end), 1)))
    points = np.zeros(len(run))
    design = Design(
        points, points, *[np.zeros((len(run), 0))] * 2, *[np.zeros(0)] * 2,
        np.zeros((len(run), 0)), run, np.zeros_like(run), end,
        np.arange(len(end)), nothing, nothing, nothing, np.zeros(1), np.ones(1), None,
    )  # fmt: skip
    noise = np.resize(NOISE, len(run))[:, None]
    return Runs(jnp.zeros((len(run), 1)), jnp.full((len(end), 1), RUN_VARIANCE), noise, design,
                nothing)  # fmt: skip


@pytest.mark.slow
def test_runs_of_one_point_are_drawn_from_a_student_t_with_4_degrees():
    with on_device(jax.devices("cpu")[0]):
        runs = of_one_task(np.arange(3), np.ones(3, bool))
        draws = np.asarray(runs.sample(jax.random.key(0), (20_000,)))[..., 0]
        density = np.asarray(jax.vmap(runs.by_run)(draws[:50, :, None]))[..., 0]
    for column, noise in enumerate(NOISE):
        of_t = stats.t(4, 0, np.sqrt(RUN_VARIANCE + noise))
        assert stats.kstest(draws[:, column], of_t.cdf).pvalue > 0.001
        np.testing.assert_allclose(density[:, column], of_t.logpdf(draws[:50, column]), rtol=1e-6)
        # The tails, which a test of the whole distribution hardly sees.
        far = np.abs(draws[:, column]) / of_t.std() > stats.t(4).ppf(0.999) / np.sqrt(2)
        assert far.sum() == pytest.approx(40, abs=4 * np.sqrt(40))
    assert abs(stats.spearmanr(draws[:, 0], draws[:, 1]).statistic) < 4 / np.sqrt(20_000)


@pytest.mark.slow
def test_measurements_of_one_run_hang_together_as_they_are_drawn():
    # Run 0 has three points, run 1 two of which one was measured, run 2 none.
    run = np.array([0, 0, 0, 1, 1, 2])
    at = np.array([True, True, True, False, True, False])
    with on_device(jax.devices("cpu")[0]):
        runs = of_one_task(run, at)
        draws = np.asarray(runs.sample(jax.random.key(0), (50_000,)))[..., 0]
        density = np.asarray(jax.vmap(runs.by_run)(draws[:50, :, None]))[..., 0]
        mean, left = (np.asarray(x)[..., 0] for x in jax.vmap(runs.effect)(draws[:50, :, None]))
    known = draws[:, :3]
    precision = 1 / NOISE
    middle, own = known @ precision / precision.sum(), 1 / precision.sum()
    of_t = stats.t(4, 0, np.sqrt(RUN_VARIANCE + own))
    assert stats.kstest(middle, of_t.cdf).pvalue > 0.001
    # About their weighted mean, points are normal with their own noise, one dimension less.
    off = known - middle[:, None]
    squares = (off**2 * precision).sum(axis=1)
    assert stats.kstest(squares, stats.chi2(2).cdf).pvalue > 0.001
    # Density: of three normals that share a mean, with the t in the place of that mean's normal.
    of_normals = stats.multivariate_normal(np.zeros(3), np.diag(NOISE)).logpdf(known[:50])
    expected = of_normals - stats.norm(0, np.sqrt(own)).logpdf(middle[:50])
    expected += of_t.logpdf(middle[:50])
    np.testing.assert_allclose(density[:, 0], expected, rtol=1e-6)
    alone = stats.t(4, 0, np.sqrt(RUN_VARIANCE + NOISE[1]))
    np.testing.assert_allclose(density[:, 1], alone.logpdf(draws[:50, 4]), rtol=1e-6)
    assert not density[:, 2].any()
    share = RUN_VARIANCE / (RUN_VARIANCE + own)
    np.testing.assert_allclose(mean[:, 0], share * middle[:50], rtol=1e-6)
    # A Student-t, given a draw of it: the scale that is left is as that of its mixture.
    wider = (4 + middle[:50] ** 2 / (RUN_VARIANCE + own)) / 5
    np.testing.assert_allclose(left[:, 0], RUN_VARIANCE * (1 - share) * wider, rtol=1e-6)
    np.testing.assert_allclose(mean[:, 2], 0)
    np.testing.assert_allclose(left[:, 2], RUN_VARIANCE)


@pytest.mark.parametrize("tasks", [1, 2])
@pytest.mark.parametrize("name", ROUTES)
def test_sites_have_the_dimensions_of_their_plates(small_table, name, tasks):
    table = small_table if tasks == 2 else small_table[small_table["task"] == "hard"]
    design, _, labels, _ = ladder_design(read_ladder(table))
    length = {"model": len(labels.model), "task": tasks, "interval": design.walk.shape[1]}
    shapes, dims = {}, {}

    def look() -> None:
        trace = handlers.trace(handlers.seed(ROUTES[name].model, jax.random.key(0)))
        for site, found in trace.get_trace(design, Priors()).items():
            if is_latent(found) and site not in SITES.values():
                shapes[site] = np.shape(found["value"])
                plates = sorted(found["cond_indep_stack"], key=lambda frame: frame.dim)
                dims[site] = tuple(frame.name for frame in plates)

    jax.eval_shape(look)
    own = "accuracy" if "accuracy" in ROUTES[name].reads else "loss"
    expected = {f"walk_{own}": ("interval", "task"), "q": ()}
    if own == "accuracy":
        expected["logit_gap"] = ("task",)
    # What tasks have in common takes two.
    shared = {f"run_{own}_shared": ("model",), f"walk_{own}_common": ("interval",)}
    assert (shared.items() <= dims.items()) == (tasks > 1)
    if name == "by_reference":
        expected["walk_reference"] = ("interval",)
    assert expected.items() <= dims.items()
    assert shapes == {site: tuple(length[dim] for dim in own) for site, own in dims.items()}


def test_priors_are_replaced_one_by_one():
    changed = dataclasses.replace(Priors(), q=dist.Gamma(4.0, 2.0))
    assert changed.q.rate == 2
    with pytest.raises(TypeError, match="q is a float; give NumPyro distributions"):
        dataclasses.replace(Priors(), q=1.5)


@pytest.mark.parametrize("name", ["chains", "warmup", "draws"])
def test_settings_below_one_are_refused(small_table, name):
    with pytest.raises(ValueError, match=f"{name}=0"):
        fit(read_ladder(small_table), **{**SHORT, name: 0})


def test_a_path_is_no_ladder():
    with pytest.raises(TypeError, match="a str is no ladder: read it with `read_ladder` first"):
        fit("ladder.csv")


def test_absent_device_is_an_error(small_table):
    if any(device.platform == "gpu" for device in jax.devices()):
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match="no such device here"):
        fit(read_ladder(small_table), device="gpu")


@pytest.mark.parametrize(
    ("route", "message"),
    [
        (
            [two_stage, "two_stage"],
            "one or several of two_stage, by_reference, direct, chain, stage_1, or",
        ),
        ([], "each once"),
        (lambda *_: None, "no route <function .* give one of two_stage, .*, or a `Route`"),
        (["direct", draw_from_prior], "no route <function .* give one of two_stage"),
        (
            "winding",
            "no route 'winding': give one of two_stage, by_reference, direct, chain, stage_1, or",
        ),
        (["direct", "winding"], "no route 'winding': give one of two_stage"),
    ],
)
def test_routes_that_are_none_or_twice_are_refused(small_table, route, message):
    with pytest.raises(ValueError, match=message):
        fit(read_ladder(small_table), route=route, **SHORT)


def test_every_route_whose_measurements_are_lacking_is_named(small_table):
    only_tasks = read_ladder(small_table.drop(columns="reference_loss"))
    with pytest.raises(
        ValueError, match=r"^by_reference needs reference_loss: the ladder has none"
    ):
        fit(only_tasks, route=[two_stage, by_reference], **SHORT)
    only_reference = read_ladder(small_table.drop(columns="loss"))
    with pytest.raises(ValueError, match=r"^two_stage needs loss: .* leave the route out"):
        fit(only_reference, route=two_stage, **SHORT)


@pytest.mark.slow
def test_fit_holds_all_groups_and_names(fitted, ladder):
    assert set(fitted.children) == {"two_stage"}
    own = fitted["two_stage"]
    # So short a fit has complaints.
    assert set(own.children) == {*GROUPS.split(), "complaints"}
    runs, tasks = len(ladder.models), len(ladder.tasks)
    for site in ("loss", "accuracy"):
        likelihood = own["log_likelihood"][site]
        assert likelihood.dims == ("chain", "draw", f"{site}_cell")
        assert likelihood.shape == (2, 190, runs * tasks)
        assert np.isfinite(likelihood).all()
        cells = list(likelihood[f"{site}_cell"].values)
        assert cells == [f"{m}, {t}" for m in ladder.models for t in ladder.tasks.index]
    sensitivity = az.psense_summary(own, var_names=["alpha"], prior_var_names=["log_alpha_center"])
    assert list(sensitivity.index) == [f"alpha[{task}]" for task in ladder.tasks.index]
    assert np.isfinite(sensitivity[["prior", "likelihood"]]).all(axis=None)
    posterior = own["posterior"].to_dataset()
    for letter in ("A", "B", "E", "alpha", "beta", "a", "b", "k", "L0"):
        assert posterior[letter].dims == ("chain", "draw", "task")
    for source in ("run", "checkpoint", "discrepancy"):
        for quantity in ("loss", "accuracy"):
            scale = posterior[f"{source}_{quantity}"]
            assert scale.dims == ("chain", "draw", "task")
            assert (scale > 0).all()
    both = posterior["run_loss"] ** 2 + posterior["checkpoint_loss"] ** 2
    floor = 2 * FLOOR["loss"] ** 2
    np.testing.assert_allclose(both, np.exp(2 * posterior["log_noise_loss"]) + floor)
    for site in ("run_loss_shared", "run_accuracy_shared"):
        assert posterior[site].dims == ("chain", "draw", "model")
        assert list(posterior["model"].values) == ladder.models
    assert posterior["q"].dims == ("chain", "draw")
    assert set(own["log_prior"].to_dataset()) >= {
        "log_alpha_center", "log_walk_accuracy_scale", "q"
    }  # fmt: skip
    stats = own["sample_stats"].to_dataset()
    assert set(stats) == {
        "diverging", "n_steps", "tree_depth", "acceptance_rate", "energy", "lp", "step_size"
    }  # fmt: skip
    assert (2 ** stats["tree_depth"] > stats["n_steps"]).all()
    assert (2 ** (stats["tree_depth"] - 1) <= stats["n_steps"]).all()
    assert fitted.attrs["fingerprint"] == ladder.fingerprint
    assert fitted.attrs["seed"] == 0
    assert fitted.attrs["routes"] == own.attrs["route"] == "two_stage"
    settings = json.loads(own.attrs["settings"])
    assert (settings["chains"], settings["warmup"], settings["rungs"]) == (2, 100, "last")
    assert settings["draws"] == posterior.sizes["draw"]
    assert json.loads(fitted.attrs["priors"])["logit_gap"] == "Normal(-4, 0.6)"


@pytest.mark.slow
def test_observed_data_are_the_ends_of_runs(fitted, ladder):
    ends = run_ends(ladder.table).set_index(["model", "task"])
    observed = fitted["two_stage"]["observed_data"].to_dataset()
    for quantity in ("loss", "accuracy"):
        assert observed[quantity].dims == ("point", "task")
        for (model, task), expected in ends[quantity].items():
            (found,) = observed[quantity].sel(task=task)[observed["point_model"] == model].values
            assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.slow
def test_letters_give_the_measured_losses_and_accuracies(fitted, ladder):
    p = fitted["two_stage"]["posterior"].to_dataset()
    ends = run_ends(ladder.table)
    # Draw by draw: the letters of a law with an exponent q go together.
    own = {
        name: p[name].sel(task=ends["task"].to_list()).to_numpy()
        for name in ("A", "B", "E", "alpha", "beta", "a", "b", "k", "L0")
    }
    q = p["q"].to_numpy()[..., None]
    n, d = (ends[word].to_numpy(float) for word in ("params", "tokens"))
    frame = frame_of(fitted)
    beta = own["beta"] * (n / frame.params) ** p["gamma"].to_numpy()[..., None]
    of_tokens = own["B"] / frame.tokens ** own["beta"] * (frame.tokens / d) ** beta
    terms = (own["A"] / n ** own["alpha"]) ** q + of_tokens**q
    loss = terms ** (1 / q) + own["E"]
    error = np.abs(np.log(np.median(loss, axis=(0, 1)) / ends["loss"]))
    assert error.median() < 0.02
    accuracy = own["b"] + own["a"] / (1 + np.exp(-own["k"] * (loss - own["L0"])))
    assert np.abs(np.median(accuracy, axis=(0, 1)) - ends["accuracy"]).median() < 0.02
    assert frame.params > 1e8


@pytest.mark.slow
def test_leave_one_out_reads_the_fit(fitted):
    for site in ("loss", "accuracy"):
        with warnings.catch_warnings():
            # 400 draws of 16 runs leave some weights uncertain.
            warnings.filterwarnings("ignore", "Estimated shape parameter of Pareto")
            assert np.isfinite(az.loo(fitted["two_stage"], var_name=site).elpd)


@pytest.mark.slow
def test_default_fit_pools_all_routes(pooled, ladder):
    assert list(pooled.children) == list(routes_of(pooled)) == POOLED
    assert pooled.attrs["routes"] == "two_stage, by_reference, direct"
    for name, tree in routes_of(pooled).items():
        assert set(GROUPS.split()) <= set(tree.children)
        assert tree.attrs["route"] == name
        assert tree["posterior"].sizes["draw"] == 60
    by_reference = pooled["by_reference"]
    likelihood = by_reference["log_likelihood"]["reference_loss"]
    assert likelihood.dims == ("chain", "draw", "reference_loss_cell")
    assert list(likelihood["reference_loss_cell"].values) == ladder.models
    for letter in ("A", "B", "E", "alpha", "beta"):
        assert by_reference["posterior"][letter].dims == ("chain", "draw")
    assert by_reference["posterior"]["walk_reference"].dims[2:] == ("interval",)
    assert "loss" not in pooled["direct"]["observed_data"]
    assert "by_reference: " in pooled.attrs["complaints"]
    assert set(diagnose(pooled)["route"]) == set(POOLED)


@pytest.mark.slow
def test_forecast_of_several_routes_is_their_pool(pooled, tmp_path):
    found = forecast_quietly(pooled, TARGETS)
    predictions = found["predictions"].to_dataset()
    route = predictions["route"].to_numpy()
    assert [(route == name).sum() for name in POOLED] == [60, 60, 60]
    assert list(routes_of(found)) == POOLED
    assert predictions["accuracy"].min() >= 0
    assert predictions["accuracy"].max() <= 1
    assert set(found["variance"].to_dataset()) == {*STEPS, "route", "total"}
    assert found.attrs["loss"] == "loss"
    alone = forecast_quietly(
        pooled, TARGETS, weights={"two_stage": 0, "by_reference": 0, "direct": 1}
    )
    assert set(alone["predictions"]["route"].to_numpy()) == {"direct"}
    np.testing.assert_allclose(alone["variance"]["route"], 0, atol=1e-9)
    with pytest.raises(ValueError, match="weights name direct; the routes are two_stage"):
        forecast_quietly(pooled, TARGETS, weights={"direct": 1})
    pooled.to_netcdf(tmp_path / "fit.nc", engine="h5netcdf")
    loaded = xr.open_datatree(tmp_path / "fit.nc", engine="h5netcdf")
    again = forecast_quietly(loaded, TARGETS)
    xr.testing.assert_equal(predictions, again["predictions"].to_dataset())
    for name in POOLED:
        of_route = forecast_quietly(pooled[name], TARGETS)["predictions"].to_dataset()
        xr.testing.assert_equal(of_route, found[name]["predictions"].to_dataset())


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
    assert predictions.sizes["row"] == 2 * 3
    assert set(predictions["route"].to_numpy()) == {"two_stage"}
    variance = found["variance"].to_dataset()
    parts = sum(variance[name] for name in STEPS)
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
def test_a_forecast_of_other_targets_compiles_nothing(fitted):
    far = [10**13, 10**14, 10**14]
    names = ["one", "two", "three"]
    some = pd.DataFrame({"model": names, "params": 10**9, "tokens": far})
    more = pd.DataFrame({"model": [*names, "four"], "params": 10**9, "tokens": [10**9, *far]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FarTargetWarning)
        of_some = forecast_quietly(fitted, some)
        program = _of_rows(_predict(two_stage.model, True))
        compiled = program._cache_size()
        of_more = forecast_quietly(fitted, more)
    assert program._cache_size() == compiled > 0
    # The laws are those of the targets, whatever stands beside them.
    law = of_more["variance"]["law"].to_numpy()[len(of_more["variance"]["law"]) // 4 :]
    np.testing.assert_allclose(of_some["variance"]["law"], law, rtol=1e-5)


@pytest.mark.slow
def test_far_targets_are_warned_of(fitted):
    far = TARGETS.assign(tokens=10**16)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        forecast(fitted, far)
    of_targets = [own for own in caught if own.category is FarTargetWarning]
    assert {own.filename for own in of_targets} == {__file__}
    texts = [str(own.message) for own in of_targets]
    assert any("decades of compute beyond the largest rung" in text for text in texts)
    assert any("tokens per parameter" in text for text in texts)


@pytest.mark.slow
def test_chains_in_one_batch_are_those_in_threads(small_table, monkeypatch):
    # A GPU runs all chains as one batch; the same code on a CPU must walk the same way.
    ladder = read_ladder(small_table)
    short = {"route": two_stage, "warmup": 50, "draws": 50}
    one = fit_quietly(ladder, **short)
    monkeypatch.setattr("laddercast.sampling.chains.in_threads", lambda device: False)
    other = fit_quietly(ladder, **short)
    for name in ("log_alpha_center", "log_walk_accuracy_scale", "E"):
        first, second = (tree["two_stage/posterior"][name].to_numpy() for tree in (one, other))
        assert first.shape == second.shape
        # Rounding differs between the two programs, and chaos makes that a different draw in time.
        spread = np.maximum(first.std(), 1e-12)
        assert np.abs(first.mean() - second.mean()) < 1.5 * spread


@pytest.mark.slow
def test_a_part_fitted_within_the_whole_has_its_own_posterior(small_table):
    whole = read_ladder(small_table)
    part = whole.keep([model for model in whole.models if not model.startswith("800M")])
    settings = {"route": direct, "warmup": 200, "draws": 600}
    one, other = (fit_quietly(part, within=within, **settings) for within in (None, whole))
    posteriors = [tree["direct/posterior"].to_dataset() for tree in (one, other)]
    means = [posterior.mean(("chain", "draw")) for posterior in posteriors]
    errors = [az.mcse(posterior) for posterior in posteriors]
    # Where draws are too few, as many are added, up to three times.
    assert {posterior.sizes["draw"] for posterior in posteriors} <= {600, 1200, 1800, 2400}
    assert {**posteriors[0].sizes, "draw": 0} == {**posteriors[1].sizes, "draw": 0}
    assert set(posteriors[0]) == set(posteriors[1])
    for name in posteriors[0]:
        off = np.abs(means[0][name] - means[1][name])
        error = np.hypot(errors[0][name], errors[1][name])
        assert (off < 5 * error).all(), name


@pytest.mark.slow
def test_unconverged_fit_says_so(ladder):
    with pytest.warns(NotConvergedWarning, match="the fit has not converged .*`lc.diagnose`"):
        found = fit(ladder, route=two_stage, **SHORT | {"draws": 50})
    assert found.attrs["converged"] == 0
    assert "two_stage: " in found.attrs["complaints"]
    assert len(found.attrs["complaints"]) < 300
    reasons = diagnose(found)
    assert set(reasons["route"]) == {"two_stage"}
    assert {"bulk ESS", "tail ESS"} <= set(reasons["measure"])
    few = reasons[reasons["measure"].isin(["bulk ESS", "tail ESS"])]
    assert (few["value"] < few["limit"]).all()
    assert (few["limit"] == 400).all()
    assert set(reasons["site"]) - {""} <= set(found["two_stage"]["posterior"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["reference loss", "every", "ragged", "one task", "accuracy alone", "a chain"]
)
def test_other_kinds_of_ladder_are_fitted(small_table, kind):
    rungs, route, tasks = "last", two_stage, 2
    if kind == "reference loss":
        small_table = small_table.drop(columns="loss")
        route = by_reference
    elif kind == "every":
        rungs = "every"
    elif kind == "one task":
        small_table, route, tasks = small_table[small_table["task"] == "hard"], by_reference, 1
    elif kind == "accuracy alone":
        route = direct
    elif kind == "a chain":
        route = chain
    else:
        hard = small_table["task"] == "hard"
        small_table = small_table[~(hard & (small_table["model"] == "200M-20"))]
        small_table.loc[small_table["model"] == "400M-20", "loss"] = np.nan
        small_table.loc[small_table["model"] == "400M-100", "accuracy"] = np.nan
    short = {"warmup": 50, "draws": 50}
    found = fit_quietly(read_ladder(small_table, rungs=rungs), route=route, **short)
    ahead = forecast_quietly(found, TARGETS)["predictions"].to_dataset()
    assert np.isfinite(ahead["accuracy"]).all()
    assert ("loss" in ahead) == (route is not direct)
    if "loss" in ahead:
        assert np.isfinite(ahead["loss"]).all()
    assert ahead.sizes["row"] == 2 * tasks

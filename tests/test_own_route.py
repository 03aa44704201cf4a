"""A user's own route, and routes by name."""

import warnings

import arviz as az
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import laddercast as lc
from laddercast.model import stages

pytestmark = pytest.mark.slow

SHORT = {"chains": 2, "warmup": 50, "draws": 50, "progress": False}
TARGETS = pd.DataFrame({"model": ["big"], "params": [3 * 10**9], "tokens": [10**11]})


def compute_alone(design, priors, observed):
    """Accuracy from a law in compute alone, the product of params and tokens."""
    off = stages.off_law(design, priors, "accuracy")
    exponent = jnp.exp(stages.pooled(design, priors, "log_rise_alpha"))
    law = -exponent * (design.log_params + design.log_tokens)[:, None]
    stages.accuracy(design, priors, observed, stages.Path(law, law, law), off, "log_rise")


mine = lc.Route("compute", compute_alone, reads=("accuracy",), through="a law in compute alone")


@pytest.fixture(scope="module")
def ladder_and_targets() -> tuple[lc.Ladder, pd.DataFrame]:
    """Two tasks of the demo's, whose accuracies follow their losses."""
    ladder, targets, _ = lc.demo_ladder(seed=3)
    tasks = ["hellaswag", "piqa"]
    small = lc.Ladder(ladder.table, ladder.tasks.loc[tasks].reset_index())
    return small, targets[targets["task"].isin(tasks)]


@pytest.fixture(scope="module")
def fitted(ladder_and_targets) -> xr.DataTree:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lc.NotConvergedWarning)
        return lc.fit(ladder_and_targets[0], route=[mine, "direct"], **SHORT)


@pytest.mark.filterwarnings("ignore::laddercast.NotConvergedWarning")
def test_a_route_of_one_s_own_is_fitted_pooled_and_scored(ladder_and_targets, fitted, tmp_path):
    ladder, targets = ladder_and_targets
    assert list(fitted.children) == ["compute", "direct"]
    posterior = fitted["compute"]["posterior"]
    assert posterior["log_rise_alpha"].dims == ("chain", "draw", "task")
    assert set(fitted["compute"]["log_likelihood"].data_vars) == {"accuracy"}
    # Named in the fit alone, a model is not known.
    with pytest.raises(ValueError, match="give the routes compute as `route`"):
        lc.forecast(fitted, targets)
    found = lc.forecast(fitted, targets, route=mine)
    assert {"compute", "direct"} <= set(found.children)
    assert set(found["predictions"]["route"].to_numpy()) == {"compute", "direct"}
    assert list(found["compute"]["predictions"]["task"].to_numpy()) == list(ladder.tasks.index) * 2
    assert (found["variance"]["total"] > 0).all()
    table = lc.what_if(fitted, [2e9], [1e10, 1e11], route=mine)
    assert len(lc.plot_what_if(table)) == 3
    page = lc.report(found, fitted, tmp_path / "report.html", route=mine)
    assert "compute" in page.read_text()
    scores = lc.score(found).set_index(["quantity", "task"])
    assert set(scores.index.get_level_values("quantity")) == {"accuracy"}
    # Three to four decades of compute beyond the ladder it is less than ten points off.
    assert scores.loc[("accuracy", "all"), "error"] < 10
    alone = lc.score(found["compute"]).set_index(["quantity", "task"])
    assert alone.loc[("accuracy", "all"), "cells"] == 4


@pytest.mark.filterwarnings("ignore::laddercast.NotConvergedWarning")
@pytest.mark.long
def test_a_route_of_one_s_own_is_backtested(ladder_and_targets):
    ladder, _ = ladder_and_targets
    largest = [name for name in ladder.models if name.startswith("1.3B")]
    table = lc.backtest(ladder, hold_out=largest, route=mine, **SHORT)
    assert set(table["model"]) == set(largest)
    assert table.loc[table["quantity"] == "accuracy", "error"].notna().all()


@pytest.mark.filterwarnings("ignore::laddercast.NotConvergedWarning")
def test_a_name_gives_the_draws_of_its_route(ladder_and_targets):
    ladder, _ = ladder_and_targets
    settings = {**SHORT, "draws": 20}
    named, given = (lc.fit(ladder, route=route, **settings) for route in ("direct", lc.direct))
    xr.testing.assert_equal(
        named["direct"]["posterior"].to_dataset(), given["direct"]["posterior"].to_dataset()
    )


@pytest.mark.parametrize("function", [lc.fit, lc.numpyro_model], ids=["fit", "numpyro_model"])
def test_a_wrong_name_is_told_with_those_there_are(ladder_and_targets, function):
    with pytest.raises(
        ValueError,
        match="'winding': give one of two_stage, by_reference, direct, chain, stage_1, or a `R",
    ):
        function(ladder_and_targets[0], route="winding")


def test_arviz_summarises_the_fit_of_a_route(ladder_and_targets, fitted):
    table = az.summary(fitted["direct"], var_names=["alpha", "q"])
    tasks = ladder_and_targets[0].tasks.index
    assert list(table.index) == [*(f"alpha[{task}]" for task in tasks), "q"]
    assert np.isfinite(table.iloc[:, 0].astype(float)).all()
    assert len(az.summary(fitted["direct"])) > 20


def test_any_sampler_can_have_the_model(ladder_and_targets):
    import jax
    from numpyro.infer import MCMC, NUTS

    model, args = lc.numpyro_model(ladder_and_targets[0], mine)
    chain = MCMC(NUTS(model), num_warmup=2, num_samples=2, progress_bar=False)
    chain.run(jax.random.key(0), *args)
    assert chain.get_samples()["log_rise_alpha"].shape == (2, 2)

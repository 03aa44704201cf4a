"""Levels above tasks, in a route of a user's own: groups of tasks, of runs, and of groups."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr

import laddercast as lc
from laddercast.model import stages

FAMILIES = {"knowledge": 0, "sense": 1}
OF_TASK = {
    "mmlu": "knowledge", "arc_challenge": "knowledge", "arc_easy": "knowledge",
    "openbookqa": "knowledge", "hellaswag": "sense", "piqa": "sense", "csqa": "sense",
    "socialiqa": "sense",
}  # fmt: skip
EDGES = jnp.log(jnp.array([30.0, 140.0]) / 70)
"""Between short, middling and long runs, in tokens per parameter over the ladder's mean."""


def grouped(tasks):
    """A route whose laws are pooled in families of tasks, and shifted in groups of runs.

    The exponent of a task is about that of its family, families' about that of all. As recipes
    would, groups of runs shift the law: of all tasks, of a family's about that, of each about that.
    """
    family = np.array([FAMILIES[OF_TASK[task]] for task in tasks])

    def spread(name, median):
        prior = dist.LogNormal(jnp.log(median), 0.3)
        return numpyro.sample(name, prior, infer={"held": True})

    def model(design, priors, observed):
        off = stages.off_law(design, priors, "accuracy")
        families = numpyro.plate("family", len(FAMILIES), dim=-1)
        groups = numpyro.plate("group", len(EDGES) + 1, dim=-2)

        center = numpyro.sample("log_alpha_center", dist.Normal(jnp.log(0.15), 0.3))
        between, within = spread("log_alpha_between", 0.2), spread("log_alpha_within", 0.2)
        with families:
            of_family = numpyro.sample("log_alpha_family", dist.Normal(center, between))
        with stages.tasks_plate(design):
            log_alpha = numpyro.sample("log_alpha", dist.Normal(of_family[family], within))

        scales = [spread(f"shift_scale_{of}", 0.01) for of in ("group", "family", "task")]
        with groups:
            shift = numpyro.sample("shift_group", dist.Normal(0.0, scales[0]))
        with groups, families:
            shift = numpyro.sample("shift_family", dist.Normal(shift, scales[1]))
        with groups, stages.tasks_plate(design):
            shift = numpyro.sample("shift", dist.Normal(shift[:, family], scales[2]))

        group = jnp.digitize(design.log_tokens - design.log_params, EDGES)
        compute = (design.log_params + design.log_tokens)[:, None]
        law = shift[group] - jnp.exp(log_alpha) * compute
        stages.accuracy(design, priors, observed, stages.Path(law, law, law), off, "log_rise")

    return lc.Route("grouped", model, reads=("accuracy",), through="groups of tasks and runs")


@pytest.fixture(scope="module")
def ladder_targets_fit():
    ladder, targets, _ = lc.demo_ladder()
    fitted = lc.fit(ladder, route=grouped(ladder.tasks.index), progress=False)
    return ladder, targets, fitted


@pytest.mark.long
def test_levels_above_tasks_are_fitted_and_have_their_dimensions(ladder_targets_fit):
    ladder, _, fitted = ladder_targets_fit
    assert fitted.attrs["converged"] == 1
    posterior = fitted["grouped"]["posterior"]
    of = {str(name): x.dims[2:] for name, x in posterior.items()}
    assert of["log_alpha_center"] == of["shift_scale_group"] == ()
    assert of["log_alpha_family"] == ("family",)
    assert of["log_alpha"] == ("task",)
    # The plate of groups lies second from the last: what has it alone has a dimension of one more.
    assert of["shift_group"] == ("group", "shift_group_dim_0")
    assert of["shift_family"] == ("group", "family")
    assert of["shift"] == ("group", "task")
    assert dict(posterior.sizes) | {"group": 3, "family": 2, "task": 8} == dict(posterior.sizes)
    assert list(posterior["task"].to_numpy()) == list(ladder.tasks.index)
    # Shrunk towards its family: a task differs less from it than from the other, by its scale.
    scale = float(posterior["log_alpha_within"].mean())
    off = posterior["log_alpha"].mean(("chain", "draw")) - posterior["log_alpha_center"].mean()
    assert float(np.abs(off).max()) < 5 * scale


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::laddercast.FarTargetWarning")
def test_levels_above_tasks_are_forecast_and_checked(ladder_targets_fit, tmp_path):
    ladder, targets, fitted = ladder_targets_fit
    route = grouped(ladder.tasks.index)
    fitted.to_netcdf(tmp_path / "fit.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "fit.nc", engine="h5netcdf") as saved:
        found = lc.forecast(saved.load(), targets, route=route)
    assert found.attrs["converged"] == 1
    scores = lc.score(found).set_index("task")
    # Targets lie 2.5 decades beyond the rungs; a ladder at chance is some 30 points off.
    assert scores.loc["all", "error"] < 8
    assert scores.loc["all", "cover95"] > 0.7
    checked = lc.predictive(fitted, ladder, route=route, draws=20)["grouped"]
    assert checked["prior"]["shift"].dims == ("chain", "draw", "group", "task")
    assert checked["posterior_predictive"]["accuracy"].sizes["accuracy_cell"] == 16 * 8

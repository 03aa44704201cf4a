import json

import matplotlib as mpl

mpl.use("Agg")

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from laddercast.decisions.recipes import RecipeComparison
from laddercast.model.design import Frame
from laddercast.plots import (
    plot_calibration,
    plot_forecast,
    plot_noise,
    plot_recipes,
    plot_stage1,
    plot_stage2,
)

TASKS = ["easy", "hard"]
MODELS = ["small", "middle", "big"]
PARAMS = np.array([2e8, 4e8, 8e8])
TOKENS = np.array([4e9, 8e9, 16e9])
MIDDLE = 4e8, 8e9
"""Reference sizes."""
LETTERS = {"A": 400.0, "alpha": 0.35, "B": 600.0, "beta": 0.35, "E": 0.4}
CURVE = {"a": -0.7, "b": 0.95, "k": 4.0, "L0": 1.0}


@pytest.mark.parametrize("name", [r"\\frac{$", "$x$", "_hidden", "x" * 5000, r"$\\nothing$"])
def test_names_are_drawn_as_they_are(name):
    coords = {"model": ("row", [name]), "task": ("row", [name])}
    coords |= {"params": ("row", [1e9]), "tokens": ("row", [1e10])}
    draws = np.random.default_rng(0).normal(0.5, 0.1, (2, 50, 1))
    data = xr.Dataset({"accuracy": (("chain", "draw", "row"), draws)}, coords)
    forecast = xr.DataTree.from_dict({"predictions": data})
    forecast.attrs["converged"] = 1
    ax = plot_forecast(forecast)
    ax.figure.canvas.draw()
    (tick,) = ax.get_yticklabels()
    assert tick.get_text().replace(r"\$", "$").strip("\u200a")[:59] == name[:59]
    (handle,) = ax.figure.legends[0].get_texts()
    assert handle.get_text() == tick.get_text()


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def fitted_of(loss: str = "loss") -> xr.DataTree:
    """Of a route through each task's loss, or through the reference loss."""
    rng = np.random.default_rng(0)
    chains, common = (2, 150), loss == "reference_loss"

    def about(value: float, *shape: int) -> np.ndarray:
        return value * np.exp(rng.normal(0, 0.01, (*chains, *shape)))

    of_law = () if common else (len(TASKS),)
    posterior = {name: about(value, *of_law) for name, value in LETTERS.items()}
    posterior |= {name: about(value, len(TASKS)) for name, value in CURVE.items()}
    losses = np.array([1.2, 1.1, 1.0])
    tree = az.from_dict(
        {
            "posterior": posterior | {"q": np.ones(chains), "gamma": np.zeros(chains)},
            "observed_data": {
                loss: losses if common else np.stack([losses] * 2, axis=1),
                "accuracy": np.stack([[0.4, 0.45, 0.5]] * 2, axis=1),
            },
            "constant_data": {
                "chance": np.array([0.25, 0.5]),
                "items": np.array([1000.0, 500.0]),
                "params": PARAMS,
                "tokens": TOKENS,
            },
        },
        coords={"task": TASKS, "model": MODELS},
        dims={name: [] if common else ["task"] for name in LETTERS}
        | {name: ["task"] for name in CURVE}
        | {"chance": ["task"], "items": ["task"], "params": ["model"], "tokens": ["model"]}
        | {loss: ["point"] if common else ["point", "task"], "accuracy": ["point", "task"]},
    )
    points = {"point_model": ("point", MODELS), "point_tokens": ("point", TOKENS)}
    observed = tree["observed_data"].to_dataset().assign_coords(points)
    tree["observed_data"] = xr.DataTree(observed)
    tree.attrs["route"] = "by_reference" if common else "two_stage"
    frame = Frame(*MIDDLE, params_knots=(), tokens_knots=(), sizes=())
    tree.attrs["frame"] = json.dumps(frame._asdict())
    return tree


def forecast_of(*, measured: bool = True, converged: int = 1) -> xr.DataTree:
    rng = np.random.default_rng(1)
    coords = {
        "model": ("row", ["7B", "7B", "13B", "13B"]),
        "task": ("row", TASKS * 2),
        "params": ("row", [7e9, 7e9, 13e9, 13e9]),
        "tokens": ("row", [4e12, 4e12, 5e12, 5e12]),
    }
    dims = ("chain", "draw", "row")
    groups = {
        "predictions": xr.Dataset(
            {
                "loss": (dims, rng.normal(0.7, 0.02, (2, 100, 4))),
                "accuracy": (dims, rng.normal(0.7, 0.04, (2, 100, 4))),
            },
            coords=coords,
        )
    }
    if measured:
        values = {"loss": ("row", [0.7] * 4), "accuracy": ("row", [0.7, 0.72, 0.74, np.nan])}
        groups["measured"] = xr.Dataset(values, coords=coords)
    tree = xr.DataTree.from_dict(groups)
    tree.attrs["converged"] = converged
    return tree


def texts(figure: mpl.figure.Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


@pytest.mark.parametrize("plot", [plot_stage1, plot_stage2])
@pytest.mark.parametrize("loss", ["loss", "reference_loss"])
@pytest.mark.parametrize("forecast", [None, forecast_of(), forecast_of(measured=False)])
def test_stages_have_one_panel_for_each_law_or_task(plot, loss, forecast):
    axes = plot(fitted_of(loss), forecast)
    alone = plot is plot_stage1 and loss == "reference_loss"
    assert [ax.get_title() for ax in axes] == (["reference_loss"] if alone else TASKS)
    axes[0].figure.draw_without_rendering()
    legend = texts(axes[0].figure)
    assert legend[:3] == ["200M", "400M", "800M"]
    assert ("measured" in legend) == (forecast is not None and "measured" in forecast.children)


@pytest.mark.parametrize("plot", [plot_stage1, plot_stage2])
def test_a_route_through_no_loss_has_no_stages(plot):
    tree = fitted_of()
    tree["observed_data"] = xr.DataTree(tree["observed_data"].to_dataset().drop_vars("loss"))
    tree.attrs["route"] = "direct"
    with pytest.raises(ValueError, match="the route direct goes through no loss"):
        plot(tree)


def rungs_of(ax) -> list[tuple[float, float]]:
    marked = [line for line in ax.lines if line.get_marker() == "o"]
    return sorted(
        (float(x), float(y))
        for line in marked
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    )


def test_rungs_lie_where_they_were_measured():
    for loss in ("loss", "reference_loss"):
        tree = fitted_of(loss)
        expected = sorted(zip(TOKENS, [1.2, 1.1, 1.0], strict=True))
        for ax in plot_stage1(tree):
            assert sorted(set(rungs_of(ax))) == expected
        for ax in plot_stage2(tree):
            assert rungs_of(ax) == [(1.0, 50.0), (1.1, 45.0), (1.2, 40.0)]


def test_a_fit_to_every_checkpoint_needs_the_ladder_for_its_rungs():
    tree = fitted_of()
    twice = tree["observed_data"].to_dataset().isel(point=[0, 0, 1])
    tree["observed_data"] = xr.DataTree(twice)
    for plot in (plot_stage1, plot_stage2):
        for ax in plot(tree):
            assert not rungs_of(ax)


def test_stage_1_marks_tokens_in_words():
    axes = plot_stage1(fitted_of(), forecast_of())
    axes[0].figure.draw_without_rendering()
    assert [label.get_text() for label in axes[0].get_xticklabels()] == ["10B", "100B", "1T"]


def test_stage_1_draws_the_law():
    axes = plot_stage1(fitted_of())
    line = axes[0].lines[0]
    tokens, loss = line.get_xdata(), line.get_ydata()
    law = 400 * PARAMS[0] ** -0.35 + 600 * tokens**-0.35 + 0.4
    np.testing.assert_allclose(loss, law, rtol=0.02)


def test_stage_1_draws_the_law_with_its_q():
    tree = fitted_of()
    posterior = tree["posterior"].to_dataset()
    tree["posterior"] = xr.DataTree(posterior.assign(q=3.0 * posterior["q"]))
    tokens, loss = plot_stage1(tree)[0].lines[0].get_data()
    law = ((400 * PARAMS[0] ** -0.35) ** 3 + (600 * tokens**-0.35) ** 3) ** (1 / 3) + 0.4
    np.testing.assert_allclose(loss, law, rtol=0.02)


def test_stage_1_draws_the_law_with_its_gamma():
    """The term of tokens is as without it at the reference sizes, and falls as it says."""
    tree, power = fitted_of(), 0.2
    posterior = tree["posterior"].to_dataset()
    tree["posterior"] = xr.DataTree(posterior.assign(gamma=posterior["gamma"] + power))
    tokens, loss = plot_stage1(tree)[0].lines[0].get_data()
    beta = 0.35 * (PARAMS[0] / MIDDLE[0]) ** power
    of_tokens = 600 * MIDDLE[1] ** -0.35 * (tokens / MIDDLE[1]) ** -beta
    np.testing.assert_allclose(loss, 400 * PARAMS[0] ** -0.35 + of_tokens + 0.4, rtol=0.02)


def test_stage_2_draws_the_law_in_percent():
    axes = plot_stage2(fitted_of())
    loss, accuracy = axes[0].lines[0].get_data()
    law = 0.95 - 0.7 / (1 + np.exp(-4 * (loss - 1)))
    np.testing.assert_allclose(accuracy, 100 * law, atol=2)


def test_forecast_draws_into_the_axes_it_is_given():
    figure, ax = plt.subplots()
    assert plot_forecast(forecast_of(), ax=ax) is ax
    assert not figure.legends
    assert ax.get_legend() is not None
    assert [label.get_text() for label in ax.get_yticklabels()] == TASKS


def test_forecast_shows_published_points_and_missing_convergence():
    points = pd.DataFrame(
        {"model": ["7B"], "task": ["easy"], "quantity": ["accuracy"], "q50": [0.66]}
    )
    ax = plot_forecast(forecast_of(converged=0), points)
    assert "NOT CONVERGED" in ax.get_title()
    assert "published method" in texts(ax.figure)
    assert 66.0 in [float(x) for line in ax.lines for x in np.ravel(line.get_xdata())]


def test_panels_need_enough_axes():
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match="1 axes for 2 panels"):
        plot_stage1(fitted_of(), ax=ax)


@pytest.mark.parametrize("with_posterior", [False, True])
@pytest.mark.parametrize("with_error", [False, True])
def test_noise_ranks_tasks(with_posterior, with_error):
    kinds = [("loss_checkpoint", "%"), ("accuracy_checkpoint", "points")]
    noise = pd.DataFrame(
        {"task": task, "noise": kind, "unit": unit, "measured": sd}
        for kind, unit in kinds
        for task, sd in (("hard", 0.9), ("easy", 0.2), ("new", np.nan))
    )
    if with_posterior:
        noise[["q05", "q50", "q95"]] = noise[["measured"] * 3].to_numpy() * [0.8, 1, 1.2]
    error = pd.DataFrame(
        {"quantity": "accuracy", "task": ["easy", "hard", "all"], "error": [3.0, 1.0, 2.0]}
    )
    # Close together and far from 0.
    error["error"] += 40
    axes = plot_noise(noise, error if with_error else None)
    for ax in axes:
        points = [line.get_xdata()[-1] for line in ax.lines if line.get_marker() == "o"]
        assert np.nanmax(points) < 0.97 * ax.get_xlim()[1]
    ranks = [[label.get_text() for label in ax.get_yticklabels()] for ax in axes]
    assert ranks == [["new", "easy", "hard"]] * 2 + [["hard", "easy"]] * with_error


@pytest.mark.parametrize(
    ("ranks", "shown"),
    [((1, 1, 3), ["1= a", "1= b", "3. c"]), ((1, 2, 3), ["1. a", "2. b", "3. c"])],
)
def test_recipes_of_one_rank_are_marked_as_tied(ranks, shown):
    at = {"params": 7e9, "tokens": 1.4e11, "task": "all"}
    pairs = [at | {"a": a, "b": b, "measured": np.nan} for a, b in ("ab", "ac", "bc")]
    spread = dict.fromkeys(("mean", "q025", "q10", "q90", "q975"), 0.01)
    ranking = pd.DataFrame({**at, "recipe": list("abc"), "rank": ranks, "best": 0.3})
    forecast = xr.DataTree()
    forecast.attrs["converged"] = 1
    found = RecipeComparison(pd.DataFrame(pairs).assign(**spread), ranking, forecast)
    left, _ = plot_recipes(found)
    assert [label.get_text() for label in left.get_yticklabels()] == shown


def test_calibration_of_uniform_pits_follows_the_diagonal():
    pit = (np.arange(1000) + 0.5) / 1000
    table = pd.DataFrame({"quantity": "accuracy", "pit": pit})
    table = table.assign(measured=50.0, median=50.0, error=0.0)
    coverage, histogram = plot_calibration(table)
    nominal, inside = coverage.lines[1].get_data()
    np.testing.assert_allclose(inside, nominal, atol=0.5)
    heights = histogram.patches[0].get_data().values
    np.testing.assert_allclose(heights, 10.0)


def test_calibration_keeps_distances_apart_for_each_quantity():
    rows = [
        {"quantity": quantity, "distance": distance, "decades": decades, "pit": pit,
         "error": decades + 2, "baseline_error": np.nan if quantity == "loss" else 1.0}
        for quantity in ("loss", "accuracy")
        for distance, decades, pit in (("near", 0.6, 0.5), ("near", 0.4, 0.5), ("far", 1.9, 0.0))
    ]  # fmt: skip
    table = pd.DataFrame(rows).assign(measured=50.0)
    axes = plot_calibration(table.assign(median=table["measured"] + table["error"]))
    assert len(axes) == 6
    for coverage, histogram, error in (axes[:3], axes[3:]):
        near, far = (line.get_data()[1] for line in coverage.lines[1:])
        assert near.min() == 100  # the median itself lies inside every interval
        np.testing.assert_allclose(far[:-1], 0)  # nothing below all draws lies inside any
        heights = [patch.get_data().values for patch in histogram.patches[::2]]
        assert [int(np.argmax(values)) for values in heights] == [5, 0]
        places, means = next(line for line in error.lines if line.get_color() == "black").get_data()
        np.testing.assert_allclose(places, [0.5, 2.0])
        np.testing.assert_allclose(means, [2.5, 3.9])
    rivals = [sum(line.get_color() == "black" for line in axes[i].lines) for i in (2, 5)]
    assert rivals == [2, 1]  # the published method forecasts accuracy alone here

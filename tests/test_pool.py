from collections.abc import Sequence

import numpy as np
import pytest
import xarray as xr

from laddercast.forecasting.pools import pool
from laddercast.inference.results import diagnose, routes_of, with_complaints
from laddercast.sampling.diagnostics import Complaint

CELLS = (("big", "easy"), ("big", "hard"), ("huge", "easy"))
SOURCES = ("law", "discrepancy", "run", "checkpoint")


def forecast_of(
    route: str,
    *,
    accuracy: float = 0.5,
    loss: str = "loss",
    draws: int = 100,
    model: Sequence[str] | None = None,
    variance: float = 1.0,
) -> xr.DataTree:
    """Draws about one accuracy; loss, where there is one, is 1 more than it draw by draw."""
    models, tasks = zip(*CELLS, strict=True)
    coords: dict[str, object] = {
        "model": ("row", list(model or models)),
        "task": ("row", list(tasks)),
        "params": ("row", [10**9, 10**9, 10**10]),
        "tokens": ("row", [10**11] * 3),
        "checkpoints": ("row", [1.0] * 3),
        "chain": np.arange(2),
        "draw": np.arange(draws),
    }
    dims = ("chain", "draw", "row")
    values = accuracy + np.random.default_rng(0).normal(0, 0.01, (2, draws, len(CELLS)))
    variables = {"accuracy": (dims, values)} | ({"loss": (dims, 1 + values)} if loss else {})
    predictions = xr.Dataset(variables, coords=coords).assign_coords(
        route=("draw", np.repeat(route, draws))
    )
    of_rows = {word: coords[word] for word in ("model", "task", "params", "tokens", "checkpoints")}
    parts = {name: ("row", np.full(len(CELLS), variance)) for name in (*SOURCES, "total")}
    measured = {"accuracy": ("row", [0.5] * 3)} | ({"loss": ("row", [1.5] * 3)} if loss else {})
    tree = xr.DataTree.from_dict(
        {
            "predictions": predictions,
            "variance": xr.Dataset(parts, coords=of_rows),
            "measured": xr.Dataset(measured, coords=of_rows),
        }
    )
    tree.attrs |= {"route": route, "loss": loss}
    return tree


def counts(tree: xr.DataTree) -> dict[str, int]:
    names, numbers = np.unique(tree["predictions"]["route"].to_numpy(), return_counts=True)
    return dict(zip(names.tolist(), numbers.tolist(), strict=True))


ROUTES = ("two_stage", "by_reference", "direct")


def three(**settings: int) -> list[xr.DataTree]:
    return [
        forecast_of("two_stage", accuracy=0.4, **settings),
        forecast_of("by_reference", accuracy=0.5, loss="reference_loss", **settings),
        forecast_of("direct", accuracy=0.9, loss="", **settings),
    ]


def test_routes_weigh_the_same_unless_told() -> None:
    found = pool(three())
    assert counts(found) == dict.fromkeys(ROUTES, 100)
    assert found["predictions"]["accuracy"].mean() == pytest.approx(0.6, abs=0.003)
    assert found.attrs["route"] == "two_stage, by_reference, direct"


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"two_stage": 2, "by_reference": 1, "direct": 1}, (150, 75, 75)),
        ({"direct": 0.7, "by_reference": 0.2, "two_stage": 0.1}, (30, 60, 210)),
        ({"two_stage": 0, "by_reference": 5, "direct": 0}, (0, 300, 0)),
    ],
)
def test_draws_are_in_proportion_to_weights(
    weights: dict[str, float], expected: tuple[int, ...]
) -> None:
    found = pool(three(), weights)
    assert counts(found) == {n: k for n, k in zip(ROUTES, expected, strict=True) if k}
    accuracy = found["predictions"]["accuracy"]
    share = np.array(expected) / sum(expected)
    assert accuracy.mean() == pytest.approx(share @ [0.4, 0.5, 0.9], abs=0.003)
    assert accuracy.dims == ("chain", "draw", "row")


def test_routes_take_turns_so_that_the_first_draws_are_of_all() -> None:
    found = pool(three(), {"two_stage": 2, "by_reference": 1, "direct": 1})
    route = found["predictions"]["route"].to_numpy()
    for few in (20, 60, 160):
        for name, share in zip(ROUTES, (0.5, 0.25, 0.25), strict=True):
            assert np.mean(route[:few] == name) == pytest.approx(share, abs=1.5 / few)


def test_draws_are_thinned_evenly_and_in_order() -> None:
    parts = three()
    predictions = pool(parts, {"two_stage": 1, "by_reference": 3, "direct": 2})["predictions"]
    own = predictions["accuracy"].to_numpy()[:, predictions["route"].to_numpy() == "two_stage"]
    given = parts[0]["predictions"]["accuracy"].to_numpy()
    np.testing.assert_array_equal(own, given[:, ::2])  # 50 of 100


def test_between_the_means_of_routes_there_is_variance_of_its_own() -> None:
    parts = three()
    found = pool(parts)
    means = np.array([100 * p["predictions"]["accuracy"].mean(("chain", "draw")) for p in parts])
    np.testing.assert_allclose(found["variance"]["route"], means.var(axis=0))
    draws = 100 * found["predictions"]["accuracy"].to_numpy()
    np.testing.assert_allclose(found["variance"]["total"], draws.var(axis=(0, 1)))
    weights = {"two_stage": 3, "by_reference": 0, "direct": 1}
    weighted = pool(parts, weights)["variance"]["route"].to_numpy()
    np.testing.assert_allclose(weighted, 3 / 16 * (means[2] - means[0]) ** 2)


def test_other_sources_are_weighted_means_over_routes() -> None:
    parts = [forecast_of("two_stage", variance=1.0), forecast_of("direct", loss="", variance=5.0)]
    variance = pool(parts, {"two_stage": 3, "direct": 1})["variance"]
    for name in SOURCES:
        np.testing.assert_allclose(variance[name], 2.0)


def test_loss_is_of_the_task_where_a_route_has_it_and_belongs_to_its_accuracy_there() -> None:
    found = pool(three())
    assert found.attrs["loss"] == "loss"
    predictions = found["predictions"]
    of_task_loss = predictions["route"].to_numpy() == "two_stage"
    loss, accuracy = predictions["loss"].to_numpy(), predictions["accuracy"].to_numpy()
    np.testing.assert_allclose(loss[:, of_task_loss], 1 + accuracy[:, of_task_loss])
    # The others have no loss of a task: theirs is the same, not 1.5 or 1.9.
    assert np.abs(loss - 1.4).max() < 0.1
    assert "loss" in found["measured"]


def test_loss_is_the_reference_where_no_route_has_that_of_a_task() -> None:
    found = pool(three()[1:])
    assert found.attrs["loss"] == "reference_loss"
    assert np.abs(found["predictions"]["loss"].to_numpy() - 1.5).max() < 0.1


def test_routes_through_no_loss_forecast_none() -> None:
    found = pool([forecast_of("direct", loss=""), forecast_of("other", loss="")])
    assert found.attrs["loss"] == ""
    assert "loss" not in found["predictions"]


def test_a_pool_of_one_has_its_draws_and_variance() -> None:
    one = forecast_of("direct", loss="")
    found = pool([one])
    for own in (found, found["direct"]):
        xr.testing.assert_identical(
            own["predictions"].to_dataset(), one["predictions"].to_dataset()
        )
    for source in SOURCES:
        np.testing.assert_allclose(found["variance"][source], one["variance"][source])
    np.testing.assert_allclose(found["variance"]["route"], 0, atol=1e-9)
    with pytest.raises(ValueError, match="weights name two_stage; the routes are direct"):
        pool([one], {"two_stage": 1.0})


def test_the_forecast_of_each_route_is_kept_as_it_was() -> None:
    parts = three()
    found = pool(parts, {"two_stage": 0, "by_reference": 5, "direct": 1})
    assert list(routes_of(found)) == list(ROUTES)
    for name, part in zip(ROUTES, parts, strict=True):
        assert found[name].attrs == part.attrs
        assert set(found[name].children) == set(part.children)
        for group in part.children:
            xr.testing.assert_identical(found[name][group].to_dataset(), part[group].to_dataset())


def test_complaints_of_routes_are_told_beside_those_of_the_pool() -> None:
    parts = three()
    with_complaints(parts[2], [Complaint("", "divergences", 7, 0)])
    found = diagnose(pool(parts))
    of_route = found[found["route"] == "direct"]
    assert of_route[["site", "measure", "value", "limit"]].to_numpy().tolist() == [
        ["", "divergences", 7, 0]
    ]
    # Of 300 draws, none can have the effective size that a forecast needs.
    of_pool = found[found["route"] == ""]
    assert {"accuracy", "loss"} == set(of_pool["site"])
    assert {"bulk ESS", "tail ESS"} <= set(of_pool["measure"])


def test_a_forecast_of_many_good_draws_has_no_complaints() -> None:
    parts = three(draws=2000)
    assert diagnose(pool(parts)).empty


def test_forecasts_of_other_targets_are_refused() -> None:
    other = forecast_of("direct", model=["big", "big", "vast"])
    with pytest.raises(ValueError, match="the forecasts differ in model; pool those of the same"):
        pool([forecast_of("two_stage"), other])
    fewer = forecast_of("direct").isel(chain=[0])
    fewer.attrs = forecast_of("direct").attrs
    with pytest.raises(ValueError, match="differ in chain"):
        pool([forecast_of("two_stage"), fewer])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"two_stage": 1.0}, "weights name two_stage; the routes are two_stage, by_reference"),
        (dict.fromkeys((*ROUTES, "other"), 1.0), "weights name .*other"),
        ({"two_stage": 1, "by_reference": -1, "direct": 1}, "numbers of at least 0"),
        ({"two_stage": 1, "by_reference": float("nan"), "direct": 1}, "numbers of at least 0"),
        (dict.fromkeys(ROUTES, 0.0), "not all of them 0"),
    ],
)
def test_weights_that_are_no_weights_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pool(three(), weights)


def test_nothing_to_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="no forecasts to pool"):
        pool([])

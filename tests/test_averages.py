import numpy as np
import pytest
import xarray as xr

from laddercast.forecasting.averages import mean_over_tasks
from laddercast.forecasting.forecasts import forecast_table


def forecast_of(draws: np.ndarray, measured: list[float]) -> xr.DataTree:
    """Of targets b and a, in this order, two tasks each; draws (chain, draw, row)."""
    coords = {
        "model": ("row", ["b", "b", "a", "a"]),
        "task": ("row", ["easy", "hard"] * 2),
        "params": ("row", [2e9, 2e9, 1e9, 1e9]),
        "tokens": ("row", [4e10] * 4),
        "route": ("draw", ["first"] * draws.shape[1]),
    }
    dims = ("chain", "draw", "row")
    tree = xr.DataTree.from_dict(
        {
            "predictions": xr.Dataset({"accuracy": (dims, draws), "loss": (dims, draws)}, coords),
            "measured": xr.Dataset({"accuracy": ("row", measured)}),
        }
    )
    tree.attrs["converged"] = 0
    return tree


def test_each_draw_is_averaged_and_targets_keep_their_order():
    draws = np.random.default_rng(0).uniform(0.2, 0.9, (2, 50, 4))
    average = mean_over_tasks(forecast_of(draws, [0.5, 0.7, 0.4, np.nan]))
    found = average["predictions"]
    assert list(found["model"].to_numpy()) == ["b", "a"]
    assert set(found["task"].to_numpy()) == {"all"}
    assert found["route"].dims == ("draw",)
    np.testing.assert_allclose(found["accuracy"][..., 0], draws[..., :2].mean(axis=-1))
    np.testing.assert_allclose(found["accuracy"][..., 1], draws[..., 2:].mean(axis=-1))
    np.testing.assert_allclose(average["measured"]["accuracy"], [0.6, np.nan])
    assert average.attrs["converged"] == 0


def test_what_tasks_share_stays_in_the_interval():
    rng = np.random.default_rng(1)
    shared = rng.normal(0.5, 0.02, (2, 4000, 1))
    own = rng.normal(0.5, 0.02, (2, 4000, 2))
    table = forecast_table(
        mean_over_tasks(forecast_of(np.concatenate([shared, shared, own], axis=2), [np.nan] * 4))
    )
    table = table[table["quantity"] == "accuracy"].set_index("model")
    assert table.loc["b", "sd"] == pytest.approx(0.02, rel=0.05)
    assert table.loc["a", "sd"] == pytest.approx(0.02 / np.sqrt(2), rel=0.05)

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from laddercast.forecasting.forecasts import forecast_table
from laddercast.reporting.doubts import (
    RULES,
    Evidence,
    convergence,
    find_doubts,
    leaves_chance,
    split_doubts,
    variance_shares,
)

TASKS = pd.DataFrame(
    {"chance": [0.25, 0.25], "items": [1000.0, 1000.0]}, index=pd.Index(["easy", "hard"])
)
RUNGS = pd.DataFrame(
    {"params": [1e8, 1e9, 1e8], "tokens": [2e9, 2e10, 2e10]}, index=["small", "large", "long"]
)
EXPECTED = pd.DataFrame(
    {
        "model": [*RUNGS.index] * 2,
        "task": ["easy"] * 3 + ["hard"] * 3,
        "q50": [0.4, 0.6, 0.5] * 2,
    }
)
SHARES = {"law": 60.0, "discrepancy": 30.0, "run": 5.0, "checkpoint": 5.0}


def forecast_of(
    middle: float = 0.75,
    sd: float = 0.02,
    tokens: float = 1e11,
    params: float = 1e9,
    variance: dict[str, float] = SHARES,
    converged: int = 1,
    wander: float = 0.0,
) -> xr.DataTree:
    """One target, of two tasks; `wander` parts the chains."""
    rng = np.random.default_rng(0)
    draws = rng.normal(middle, sd, (4, 1000, 2)) + wander * np.arange(4)[:, None, None]
    coords = {
        "model": ("row", ["big"] * 2),
        "task": ("row", ["easy", "hard"]),
        "params": ("row", [params] * 2),
        "tokens": ("row", [tokens] * 2),
    }
    parts = {name: ("row", [value] * 2) for name, value in variance.items()}
    parts["total"] = ("row", [sum(variance.values())] * 2)
    dims = ("chain", "draw", "row")
    tree = xr.DataTree.from_dict(
        {
            "predictions": xr.Dataset({"accuracy": (dims, draws), "loss": (dims, draws)}, coords),
            "variance": xr.Dataset(parts),
        }
    )
    tree.attrs["converged"] = converged
    return tree


def found(
    forecast: xr.DataTree,
    tasks: pd.DataFrame = TASKS,
    expected: pd.DataFrame = EXPECTED,
    cells: pd.DataFrame | None = None,
    measured: pd.DataFrame | None = None,
) -> pd.DataFrame:
    evidence = Evidence(RUNGS, tasks, expected, cells, measured=measured)
    return find_doubts(forecast, forecast_table(forecast), evidence)


def measured_of(*accuracies: float) -> pd.DataFrame:
    """Of each rung, the same in both tasks."""
    return pd.DataFrame(
        {"task": np.repeat(["easy", "hard"], len(accuracies)), "accuracy": accuracies * 2}
    )


def test_a_calm_forecast_near_the_ladder_has_none():
    assert found(forecast_of()).empty


@pytest.mark.parametrize(
    ("rule", "changed"),
    [
        ("not converged", {"converged": 0}),
        ("not converged", {"wander": 0.004}),
        ("far in compute", {"params": 1e11, "tokens": 1e13}),
        ("another length", {"params": 1e8, "tokens": 1e11}),
        ("rests on the discrepancy", {"variance": SHARES | {"discrepancy": 71.0}}),
        ("routes disagree", {"variance": SHARES | {"route": 101.0}}),
        ("mostly noise", {"variance": {"law": 49.0, "run": 30.0, "checkpoint": 21.0}}),
        ("wider than the ladder", {"sd": 0.08, "middle": 0.8}),
        ("may be no gain", {"middle": 0.62}),
    ],
)
def test_each_rule_speaks_of_its_own_fault_alone(rule, changed):
    doubts = found(forecast_of(**changed))
    assert list(doubts["rule"]) == [rule] * 2
    assert list(doubts["task"]) == ["easy", "hard"]
    assert rule in RULES
    assert doubts["why"].str.endswith(".").all()


def test_the_limit_of_distance_is_the_ladders_own_span():
    # 2 decades from the smallest to the largest rung; the target at 100 tokens per parameter.
    params = np.sqrt(2e19 * 10 ** np.array([1.9, 2.1]) / 100)
    near, far = (found(forecast_of(params=n, tokens=100 * n)) for n in params)
    assert near.empty
    assert set(far["rule"]) == {"far in compute"}
    assert "2.1 decades" in far["why"].iloc[0]


def test_near_chance_depends_on_the_number_of_questions():
    low = measured_of(0.25, 0.27, 0.26)
    tasks = TASKS.assign(items=[1000.0, 100_000.0])
    doubts = found(forecast_of(sd=0.001), tasks, measured=low)
    assert list(doubts[["task", "rule"]].itertuples(index=False, name=None)) == [
        ("easy", "near chance")
    ]
    # Where their number is not known, 1,000 are taken: of three rungs, the limit is 28.3 %.
    unknown = TASKS.assign(items=np.nan)
    assert found(forecast_of(sd=0.001), unknown, measured=measured_of(0.25, 0.285)).empty
    doubts = found(forecast_of(sd=0.001), unknown, measured=low)
    assert list(doubts["rule"]) == ["near chance"] * 2
    assert "questions" not in doubts["why"].iloc[0]


def test_near_chance_comes_with_the_probability_of_leaving_it():
    low = measured_of(0.25, 0.265, 0.26)
    # Two standard errors of 1,000 questions are 2.7 points, of 100,000 less than 2.
    tasks = TASKS.assign(items=[1000.0, 100_000.0])
    forecast = forecast_of(middle=0.27, sd=0.01)
    table = leaves_chance(forecast, Evidence(RUNGS, tasks, EXPECTED, measured=low))
    draws = forecast["predictions"]["accuracy"].to_numpy().reshape(-1, 2)
    error = np.sqrt(0.25 * 0.75 / 1000)
    assert table["probability"][0] == (draws[:, 0] > 0.25 + 2 * error).mean()
    assert np.isnan(table["probability"][1])
    doubts = found(forecast, tasks, measured=low)
    (why,) = doubts.loc[doubts["rule"] == "near chance", "why"]
    said = f"by more than 2.7 points, with a probability of {100 * table['probability'][0]:.0f} %."
    assert why.endswith(said)
    assert why.startswith("The best rung measured 26.5 %")


def test_what_is_true_of_all_is_told_from_what_is_true_of_some():
    table = pd.DataFrame({"model": ["a", "a", "b", "b"], "task": ["x", "y"] * 2})
    rows = [("a", "x", "far"), ("a", "y", "far"), ("b", "x", "far"), ("b", "y", "far")]
    rows += [("b", "x", "long"), ("b", "y", "long"), ("a", "x", "routes disagree")]
    doubts = pd.DataFrame(rows, columns=["model", "task", "rule"])
    common, apart = split_doubts(table, doubts)
    assert list(common.itertuples(index=False, name=None)) == [("", "far"), ("b", "long")]
    assert list(apart["rule"]) == ["routes disagree"]
    # Of one forecast alone, all are its own.
    common, apart = split_doubts(table[:1], doubts[:1])
    assert common.empty
    assert len(apart) == 1


def test_routes_disagree_where_one_lies_outside_the_other():
    def routes(shift: float) -> xr.DataTree:
        forecast = forecast_of()
        for name, by in (("one", 0.0), ("two", shift)):
            data = forecast["predictions"].to_dataset()
            data["accuracy"] = data["accuracy"] + by * (data["task"] == "hard")
            forecast[name] = xr.DataTree.from_dict({"predictions": data})
            forecast[name].attrs["route"] = name
        return forecast

    # Of SD 0.02, an 80 % interval reaches 0.026 to either side.
    assert found(routes(0.02)).empty
    doubts = found(routes(0.03))
    assert list(doubts[["task", "rule"]].itertuples(index=False, name=None)) == [
        ("hard", "routes disagree")
    ]
    assert "outside the 80 % interval of" in doubts["why"].iloc[0]


def test_a_backtest_must_miss_more_than_chance_would():
    def cells(outside: int) -> pd.DataFrame:
        pit = np.r_[np.full(outside, 0.99), np.full(4 - outside, 0.5)]
        return pd.DataFrame({"task": "hard", "quantity": "accuracy", "pit": pit})

    # One of four happens in 19 of 100 honest backtests, two in 1.4.
    assert found(forecast_of(), cells=cells(1)).empty
    doubts = found(forecast_of(), cells=cells(2))
    assert list(doubts["task"]) == ["hard"]
    assert doubts["why"].iloc[0].startswith("2 of 4")


def test_shares_are_of_what_is_known_whatever_its_name():
    forecast = forecast_of(variance={"law": 1.0, "moon": 3.0})
    shares = variance_shares(forecast)
    assert shares.to_dict("list") == {"law": [0.25] * 2, "moon": [0.75] * 2}
    del forecast["variance"]
    assert variance_shares(forecast).empty
    assert found(forecast).empty


def test_pooled_routes_are_judged_each_by_itself():
    """Two routes that disagree are no failure to converge; one whose chains part is."""
    rng = np.random.default_rng(2)
    draws = rng.normal(0.5, 0.01, (4, 2000, 2))
    draws[:, ::2] += 0.3
    forecast = forecast_of()
    dims = ("chain", "draw", "row")
    coords = {
        name: value
        for name, value in forecast["predictions"].coords.items()
        if value.dims == ("row",)
    }
    route = ("draw", ["one", "two"] * 1000)
    data = xr.Dataset({"accuracy": (dims, draws)}, coords).assign_coords(route=route)
    forecast["predictions"] = xr.DataTree(data)
    assert convergence(forecast)["rhat"].max() < 1.01
    draws[0, ::2, 1] += 0.05
    data = xr.Dataset({"accuracy": (dims, draws)}, coords).assign_coords(route=route)
    forecast["predictions"] = xr.DataTree(data)
    quality = convergence(forecast)
    assert quality["rhat"].iloc[0] < 1.01 < quality["rhat"].iloc[1]


def test_suspicions_of_a_fit_are_doubts_of_their_task() -> None:
    forecast = forecast_of()
    forecast.attrs["suspicions"] = json.dumps(
        [{"task": "easy", "rule": "wrong order", "why": "loss rises with compute (as said)"}]
    )
    own = find_doubts(forecast, forecast_table(forecast), Evidence(RUNGS, TASKS, EXPECTED))
    own = own[own["rule"] == "wrong order"]
    assert own["task"].tolist() == ["easy"]
    assert own["why"].tolist() == ["loss rises with compute (as said)."]


def test_a_forecast_that_does_not_say_whether_it_converged_is_doubted() -> None:
    forecast = forecast_of()
    del forecast.attrs["converged"]
    own = find_doubts(forecast, forecast_table(forecast), Evidence(RUNGS, TASKS, EXPECTED))
    assert set(own.loc[own["rule"] == "not converged", "task"]) == {"easy", "hard"}

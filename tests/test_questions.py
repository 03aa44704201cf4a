import numpy as np
import pandas as pd
import pytest
import xarray as xr

import laddercast as lc
from laddercast.decisions.questions import headline

TASKS = ["easy", "hard"]


def forecast_of(draws: np.ndarray, quantity: str = "accuracy") -> xr.DataTree:
    """Of targets a and b, two tasks each; draws (chain, draw, row)."""
    coords = {
        "model": ("row", ["a", "a", "b", "b"]),
        "task": ("row", TASKS * 2),
        "params": ("row", [1e9, 1e9, 4e9, 4e9]),
        "tokens": ("row", [2e10, 2e10, 8e10, 8e10]),
    }
    data = xr.Dataset({quantity: (("chain", "draw", "row"), draws)}, coords)
    tree = xr.DataTree.from_dict({"predictions": data})
    tree.attrs["converged"] = 1
    return tree


def shared_draws() -> np.ndarray:
    """Both targets err together: b is better than a by .02 to within .001."""
    rng = np.random.default_rng(0)
    level = rng.normal(0.5, 0.05, (2, 500, 1))
    a = level + rng.normal(0, 0.0005, (2, 500, 2))
    b = level + 0.02 + rng.normal(0, 0.0005, (2, 500, 2))
    return np.concatenate([a, b], axis=2)


@pytest.fixture
def ladder(small_table: pd.DataFrame) -> lc.Ladder:
    return lc.read_ladder(small_table)


def test_targets_that_err_together_are_told_apart():
    forecast = forecast_of(shared_draws())
    assert lc.probability(forecast, "b", beats="a") == 1
    assert lc.probability(forecast, "a", beats="b") == 0
    found = lc.gain(forecast, "a")
    assert list(found["model"]) == ["b"]
    assert found.loc[0, "q50"] == pytest.approx(0.02, abs=1e-3)
    assert found.loc[0, "q975"] - found.loc[0, "q025"] < 0.004


def test_probabilities_count_draws_of_one_task_and_of_means():
    draws = np.random.default_rng(1).uniform(0.2, 0.9, (2, 500, 4))
    forecast = forecast_of(draws)
    of_task = lc.probability(forecast, "b", above=0.6, task="hard")
    assert of_task == (draws[..., 3] > 0.6).mean()
    assert lc.probability(forecast, "b", below=0.6, task="hard") == pytest.approx(1 - of_task)
    whole = lc.probability(forecast, above=0.6)
    np.testing.assert_allclose(whole["a"], (draws[..., :2].mean(axis=-1) > 0.6).mean())
    weights = {"easy": 3, "hard": 1}
    mean = 0.75 * draws[..., 0] + 0.25 * draws[..., 1]
    assert lc.probability(forecast, "a", above=0.6, weights=weights) == (mean > 0.6).mean()
    assert lc.probability(forecast, "a", above=0.6, weights={"hard": 5, "easy": 0}) == (
        lc.probability(forecast, "a", above=0.6, task="hard")
    )


def test_less_of_a_loss_is_better():
    forecast = forecast_of(shared_draws(), "loss")
    assert lc.probability(forecast, "a", beats="b") == 1
    assert lc.gain(forecast, "b").loc[0, "mean"] == pytest.approx(0.02, abs=1e-3)


def test_the_best_rung_is_the_one_that_measured_best(ladder: lc.Ladder):
    measured = lc.best_rung(
        ladder, pd.DataFrame({"model": ["a"], "params": 10**9, "tokens": 10**11})
    )
    best = measured.set_index("task")["q50"]
    draws = np.full((2, 50, 4), 0.9)
    of_easy = lc.gain(forecast_of(draws), ladder, task="easy")
    np.testing.assert_allclose(of_easy["q50"], 0.9 - best["easy"])
    # One rung need not be the best at all tasks.
    assert (lc.gain(forecast_of(draws), ladder)["q50"] >= 0.9 - best.mean() - 1e-12).all()
    assert set(of_easy["over"]) <= set(ladder.models)


def test_a_rung_without_all_tasks_is_not_the_best(small_table: pd.DataFrame):
    best = small_table["model"] == "800M-100"
    table = small_table[~(best & (small_table["task"] == "hard"))].copy()
    table.loc[best, "accuracy"] = 0.99
    ladder = lc.read_ladder(table)
    draws = forecast_of(np.full((2, 50, 4), 0.9))
    assert set(lc.gain(draws, ladder, task="easy")["over"]) == {"800M-100"}
    assert set(lc.gain(draws, ladder)["over"]) != {"800M-100"}


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ({"above": 0.5, "below": 0.6}, "one of above="),
        ({}, "one of above="),
        ({"above": 0.5, "task": "mmlu"}, "no such task in this forecast: mmlu.*easy, hard"),
        ({"above": 0.5, "model": "z"}, "no such target in this forecast: z; targets are a, b"),
        ({"above": 0.5, "task": "hrad"}, "did you mean hard"),
        ({"above": 60}, "accuracy 60: give a fraction, not percent"),
        ({"above": 0.5, "weights": 1}, "weights=1: give a dict of numbers by task"),
        ({"beats": "z"}, "no such target.*a, b"),
        ({"above": 0.5, "weights": {"mmlu": 1}}, "no task mmlu"),
        ({"above": 0.5, "weights": {"easy": -1}}, "easy: -1"),
        ({"above": 0.5, "weights": {"easy": 0}}, "all are 0"),
        ({"above": 0.5, "task": "easy", "weights": {"easy": 1}}, "leave out task="),
    ],
)
def test_questions_that_cannot_be_asked_say_what_can(question: dict, said: str):
    with pytest.raises(ValueError, match=said):
        lc.probability(forecast_of(shared_draws()), **question)


def test_the_headline_has_the_mean_the_gain_and_the_trust(ladder: lc.Ladder):
    forecast = forecast_of(shared_draws())
    first, second = headline(forecast, ladder)
    assert (first.model, second.model) == ("a", "b")
    whole = lc.gain(forecast, ladder).set_index("model").loc["b"]
    assert second.gain_q50 == pytest.approx(whole["q50"])
    assert second.probability == whole["probability"]
    assert second.gain_q50 == pytest.approx(second.q50 - second.rung_value)
    assert "no backtest" in second.trust
    assert "within the compute of the ladder" in first.trust
    forecast.attrs["converged"] = 0
    cells = pd.DataFrame(
        {"quantity": "accuracy", "measured": 0.5, "error": [1.0, 2.0], "inside80": [True, False]}
    )
    trust = headline(forecast, ladder, cells)[1].trust
    assert "NOT CONVERGED" in trust
    assert "2 measurements" in trust
    assert "50 % lay" in trust


def test_the_headline_of_one_task_names_it(ladder: lc.Ladder):
    whole = forecast_of(shared_draws())
    data = whole["predictions"].to_dataset().isel(row=[0, 2])
    tree = xr.DataTree.from_dict({"predictions": data})
    assert {x.task for x in headline(tree, ladder)} == {"easy"}
    assert "accuracy of easy" in headline(tree, ladder)[0].answer

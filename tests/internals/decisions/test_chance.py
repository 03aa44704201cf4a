import doctest

import numpy as np
import pandas as pd
import pytest

from laddercast.decisions import chance
from laddercast.decisions.chance import beside_guessing, tasks_at_chance


def tasks_of(given_chance: float, items: float) -> pd.DataFrame:
    return pd.DataFrame({"chance": [given_chance], "items": [items]}, index=["t"])


def runs_of(accuracies: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"task": "t", "accuracy": accuracies})


def test_the_example_runs():
    assert doctest.testmod(chance, extraglobs={"pd": pd}).attempted == 3


@pytest.mark.parametrize("rungs", [1, 4, 16, 100])
def test_guessers_are_found_out_however_many_they_are(rungs: int):
    rng = np.random.default_rng(0)
    guessed = rng.binomial(1000, 0.25, (2000, rungs)) / 1000
    limit = beside_guessing(runs_of(guessed[0]), tasks_of(0.25, 1000))["limit"].item()
    # One in 44 is not, give or take four standard errors and what the binomial is skewed.
    assert (guessed.max(axis=1) >= limit).mean() < 0.0228 + 4 * np.sqrt(0.0228 / 2000) + 0.01


def test_one_rung_is_held_to_two_standard_errors():
    (limit,) = beside_guessing(runs_of(np.array([0.3])), tasks_of(0.25, 1000))["limit"]
    assert limit == pytest.approx(0.25 + 2 * np.sqrt(0.25 * 0.75 / 1000))
    assert tasks_at_chance(runs_of(np.array([limit - 1e-6])), tasks_of(0.25, 1000)) == ["t"]
    assert tasks_at_chance(runs_of(np.array([limit])), tasks_of(0.25, 1000)) == []


def test_nothing_right_is_chance_where_nothing_can_be_guessed():
    assert tasks_at_chance(runs_of(np.zeros(4)), tasks_of(0.0, 164)) == ["t"]
    assert tasks_at_chance(runs_of(np.array([0.1])), tasks_of(0.0, 164)) == []


def test_tasks_that_were_not_measured_are_not_said_to_be_at_chance():
    table = beside_guessing(runs_of(np.array([np.nan])), tasks_of(0.25, np.nan))
    assert np.isnan(table["best"].item())
    assert not table["at_chance"].item()

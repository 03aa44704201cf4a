"""Against a linear model with normal noise, of which the exact answer is known."""

import numpy as np
import pytest

from laddercast.decisions.regression import best_plan, halves_of, left, left_by_each, with_measured

DRAWS = 20_000
TOLD = np.array(
    [
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
        [[1.0, 1.0, 0.0], [0.5, 0.0, 0.0]],
        [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]],
        [[0.0, 0.2, 1.0], [0.0, 0.0, 1.0]],
    ]
)
"""What each candidate's two measurements have of three unknown numbers (standard normal)."""
NOISE = np.array([[0.5, 0.3], [1.0, 0.1], [1.0, 1.0], [2.0, 0.4]])
WANTED = np.array([[1.0, 1.0, 0.5], [0.0, 0.5, -1.0]])


def exact(chosen: list[int]) -> np.ndarray:
    """Variance of what is wanted, given what these candidates measure."""
    a, sd = TOLD[chosen].reshape(-1, 3), NOISE[chosen].ravel()
    posterior = np.linalg.inv(np.eye(3) + (a.T / sd**2) @ a)
    return np.diag(WANTED @ posterior @ WANTED.T)


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    unknown = rng.normal(size=(DRAWS, 3))
    x = np.einsum("cmk,sk->scm", TOLD, unknown) + NOISE * rng.normal(size=(DRAWS, 4, 2))
    # Neither level nor unit of a measurement is told anything of.
    return 50 + 7 * x, unknown @ WANTED.T + 3


def test_what_is_left_is_what_the_normal_model_leaves(drawn):
    halves = halves_of(*drawn)
    tolerance = 4 * np.sqrt(2 / DRAWS)
    np.testing.assert_allclose(left(halves), exact([]), rtol=tolerance)
    expected = np.array([exact([candidate]) for candidate in range(4)])
    np.testing.assert_allclose(left_by_each(halves), expected, rtol=tolerance)


def test_measured_one_after_the_other_they_leave_what_all_together_do(drawn):
    halves = with_measured(with_measured(halves_of(*drawn), 3), 0)
    tolerance = 4 * np.sqrt(2 / DRAWS)
    np.testing.assert_allclose(left(halves), exact([3, 0]), rtol=tolerance)
    np.testing.assert_allclose(left_by_each(halves)[1], exact([3, 0, 1]), rtol=tolerance)


def test_many_useless_candidates_do_no_harm():
    rng = np.random.default_rng(1)
    halves = halves_of(rng.normal(size=(600, 60, 4)), rng.normal(size=(600, 1)))
    start = left(halves)
    for candidate in range(40):
        halves = with_measured(halves, candidate)
    # Unshrunk, 160 coefficients of 300 draws would double it.
    assert left(halves) < 1.2 * start


def test_a_plan_keeps_its_budget_and_is_the_best_of_its_orders(drawn):
    groups = [halves_of(*drawn)]
    costs = np.array([3.0, 2.0, 0.1, 2.0])
    order, after, alone = best_plan(groups, costs, 4.0, 4)
    assert set(order) <= {1, 3, 2}
    assert {1, 3} <= set(order)
    assert after == sorted(after, reverse=True)
    np.testing.assert_allclose(alone, left_by_each(groups[0]).mean(axis=1))
    # One alone: whatever leaves least, though another gains more for its cost.
    assert best_plan(groups, costs, 4.0, 1)[0] == [0]


def test_measurements_that_never_vary_tell_nothing():
    rng = np.random.default_rng(2)
    x, y = np.ones((500, 2, 2)), rng.normal(size=(500, 1))
    x[:, 1, 0] = y[:, 0]
    after = left_by_each(halves_of(x, y))[:, 0]
    np.testing.assert_allclose(after[0], left(halves_of(x, y))[0])
    assert after[1] < 1e-4

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import norm

from laddercast.data.ladder import read_ladder
from laddercast.evaluation.scores import score, score_cells

CELLS = (("big", "easy"), ("big", "hard"), ("huge", "easy"), ("huge", "hard"))
GRID = np.linspace(0.0, 1.0, 1001)
"""Draws whose quantile of level q is q."""


def as_forecast(loss, accuracy, measured=None, cells=CELLS) -> xr.DataTree:
    """Draws of shape (cells, draws) as two chains, and what was measured of each cell."""
    models, tasks = zip(*cells, strict=True)
    coords = {"model": ("row", list(models)), "task": ("row", list(tasks))}
    sizes = {"big": 10**9, "huge": 10**10}
    coords |= {name: ("row", [sizes[model] for model in models]) for name in ("params", "tokens")}

    def shaped(draws):
        draws = np.broadcast_to(draws, (len(cells), np.shape(draws)[-1]))
        return ("chain", "draw", "row"), draws.T.reshape(1, -1, len(cells))

    groups = {"predictions": xr.Dataset({"loss": shaped(loss), "accuracy": shaped(accuracy)})}
    if measured is not None:
        groups["measured"] = xr.Dataset({name: ("row", y) for name, y in measured.items()})
    return xr.DataTree.from_dict(
        {name: group.assign_coords(coords) for name, group in groups.items()}
    )


def as_table(loss, accuracy) -> pd.DataFrame:
    models, tasks = zip(*CELLS, strict=True)
    return pd.DataFrame(
        {
            "model": models,
            "params": 10**9,
            "tokens": 10**10,
            "task": tasks,
            "loss": loss,
            "accuracy": accuracy,
        }
    )


def row_of(scores, quantity, task):
    (row,) = scores[(scores["quantity"] == quantity) & (scores["task"] == task)].itertuples()
    return row


def test_crps_is_that_of_a_normal():
    draws = 20_000
    mean, sd = np.array([[1.0], [2.0], [0.5], [3.0]]), np.array([[0.1], [0.5], [1.0], [2.0]])
    x = mean + sd * np.random.default_rng(0).normal(size=(4, draws))
    y = np.array([1.05, 1.0, 0.5, 9.0])
    z = (y - mean[:, 0]) / sd[:, 0]
    exact = z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi)
    cells = score_cells(as_forecast(x, np.linspace(0, 1, draws), {"loss": y}))
    # In units of sd, |x - y| and the mean |x - x'| have SDs below 1 per draw.
    assert np.abs(cells["crps"] / sd[:, 0] - exact).max() < 4 / np.sqrt(draws)
    assert np.abs(cells["pit"] - norm.cdf(z)).max() < 4 * 0.5 / np.sqrt(draws)


def test_crps_is_that_of_the_draws_themselves():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(4, 51)).round(1), rng.normal(size=4)  # some draws are the same
    cells = score_cells(as_forecast(x, np.linspace(0, 1, 51), {"loss": y}))
    between = np.abs(x[:, :, None] - x[:, None]).mean(axis=(1, 2))
    off = np.abs(x - y[:, None]).mean(axis=1)
    np.testing.assert_allclose(cells["crps"], off - between / 2, rtol=1e-12)


def test_coverage_counts_cells():
    measured = {"loss": np.array([0.5, 0.24, 0.05, 0.99]), "accuracy": np.array([0.74] * 4)}
    scores = score(as_forecast(GRID, GRID, measured))
    loss, accuracy = row_of(scores, "loss", "all"), row_of(scores, "accuracy", "all")
    assert (loss.cells, loss.cover50, loss.cover80, loss.cover95) == (4, 0.25, 0.5, 0.75)
    assert (accuracy.cover50, accuracy.cover80, accuracy.cover95) == (1, 1, 1)
    easy = row_of(scores, "loss", "easy")
    assert (easy.cells, easy.cover50, easy.cover80, easy.cover95) == (2, 0.5, 0.5, 1)


def test_units_are_points_for_accuracy_and_its_own_for_loss():
    values = np.array([0.4, 0.6, 0.7, 0.2])
    cells = score_cells(as_forecast(GRID, GRID, {"loss": values, "accuracy": values}))
    names = ["median", "measured", "error", "crps", "width50", "width80", "width95"]
    loss, accuracy = (cells.loc[cells["quantity"] == q, names] for q in ("loss", "accuracy"))
    np.testing.assert_allclose(accuracy, 100 * loss.to_numpy())
    np.testing.assert_allclose(loss["error"], [0.1, 0.1, 0.2, 0.3])
    np.testing.assert_allclose(
        loss[["width50", "width80", "width95"]], np.tile([0.5, 0.8, 0.95], (4, 1))
    )


def test_pit_counts_ties_by_half():
    draws = np.array([0.0, 0.0, 0.5, 1.0])
    cells = score_cells(as_forecast(draws, draws, {"accuracy": np.zeros(4)}))
    assert list(cells["pit"]) == [0.25] * 4


def test_unmeasured_cells_are_skipped():
    measured = {"loss": np.array([0.1, np.nan, 0.5, np.nan])}
    scores = score(as_forecast(GRID, GRID, measured))
    assert list(scores[["quantity", "task"]].itertuples(index=False, name=None)) == [
        ("loss", "easy"),
        ("loss", "all"),
    ]
    assert list(scores["cells"]) == [2, 2]
    np.testing.assert_allclose(scores["error"], 0.2)


def test_all_is_the_mean_over_cells_after_the_tasks():
    measured = {"accuracy": np.array([0.5, 0.1, np.nan, 0.3]), "loss": np.full(4, 0.5)}
    scores = score(as_forecast(GRID, GRID, measured))
    assert list(scores["quantity"]) == ["loss"] * 3 + ["accuracy"] * 3
    assert list(scores["task"]) == ["easy", "hard", "all"] * 2
    np.testing.assert_allclose(scores["error"][3:], [0, 30, 20], atol=1e-9)


def test_measurements_match_by_name_in_any_order():
    values = np.array([0.1, 0.2, 0.3, 0.4])
    forecast = as_forecast(GRID * [[1.0], [1.1], [1.2], [1.3]], GRID)
    other = as_table(0.9, 0.9)
    other["model"] += " of another recipe"
    table = pd.concat([other, as_table(values, values).iloc[::-1]])
    own = as_forecast(
        GRID * [[1.0], [1.1], [1.2], [1.3]], GRID, {"loss": values, "accuracy": values}
    )
    pd.testing.assert_frame_equal(score_cells(forecast, table), score_cells(own))


def test_given_measurements_replace_those_of_the_forecast():
    forecast = as_forecast(GRID, GRID, {"accuracy": np.zeros(4)})
    cells = score_cells(forecast, as_table(np.nan, 0.75))
    assert list(cells["measured"]) == [75.0] * 4


def test_measured_runs_are_scored_at_their_ends(small_table):
    _, held_out = read_ladder(small_table).split(hold_out=["800M-100"])
    checkpoints = small_table[small_table["model"] == "800M-100"]
    cells = tuple(held_out[["model", "task"]].itertuples(index=False, name=None))
    predicted = as_forecast(GRID, GRID, cells=tuple(("big", task) for _, task in cells))
    predicted["predictions"] = (
        predicted["predictions"]
        .to_dataset()
        .assign_coords(model=("row", [model for model, _ in cells]))
    )
    predicted["predictions"]["loss"] = predicted["predictions"]["loss"] * [1.0, 1.1]
    from_runs, from_ends = (score_cells(predicted, table) for table in (checkpoints, held_out))
    pd.testing.assert_frame_equal(from_runs, from_ends)
    np.testing.assert_allclose(from_runs["measured"][:2], held_out["loss"])
    np.testing.assert_allclose(from_runs["measured"][2:], 100 * held_out["accuracy"])


def test_a_forecast_of_the_common_loss_is_scored_against_it():
    table = as_table(0.2, np.nan).assign(reference_loss=0.9)
    forecast = as_forecast(GRID, GRID)
    forecast.attrs["loss"] = "reference_loss"
    cells = score_cells(forecast, table)
    assert list(cells["measured"]) == [0.9] * 4
    by_task = score_cells(as_forecast(GRID * [[1.0], [2.0], [1.0], [2.0]], GRID), table)
    assert list(by_task["measured"]) == [0.2] * 4


@pytest.mark.parametrize(
    ("own", "given", "message"),
    [
        (None, None, "no measurements"),
        ({"loss": np.full(4, np.nan)}, None, "no measurements"),
        (None, as_table(0.5, 0.5).replace("big", "x").replace("huge", "y"), "and tasks easy, hard"),
        (None, as_table(0.5, 0.5).replace("easy", "x").replace("hard", "y"), "models big, huge"),
        (None, as_table(0.5, 0.5)[["model", "params", "tokens"]].drop_duplicates(), "models big"),
    ],
)
def test_nothing_measured_is_an_error(own, given, message):
    with pytest.raises(ValueError, match=message):
        score(as_forecast(GRID, GRID, own), given)

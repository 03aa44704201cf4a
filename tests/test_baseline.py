import math
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from laddercast.baselines.published import FROM, METHODS, baseline, fit_two_step
from laddercast.data.ladder import Ladder, read_ladder, read_targets
from laddercast.data.words import FORECAST_COLUMNS

Law = Callable[..., np.ndarray]

X64 = jax.config.jax_enable_x64
"""As it was before any fit."""

TARGETS = pd.DataFrame({"model": ["7B", "13B"], "params": [7e9, 13e9], "tokens": [4e12, 5e12]})
SIZES, TOKENS_PER_PARAM = (2e8, 4e8, 8e8, 1.6e9), (20, 40, 100, 200)
CHANCE = 0.25


def loss_law(n: np.ndarray, d: np.ndarray) -> np.ndarray:
    return 40 / n**0.22 + 100 / d**0.24 + 0.45


def flops_law(n: np.ndarray, d: np.ndarray) -> np.ndarray:
    return 60 / (6 * n * d) ** 0.1 + 0.5


def accuracy_law(loss: np.ndarray, middle: float = 1.0) -> np.ndarray:
    # Steep enough to pass through the ideal point (0, 1), which the published fit adds.
    return 1 - 0.7 / (1 + np.exp(-30 * (loss - middle)))


def direct_law(n: np.ndarray, d: np.ndarray) -> np.ndarray:
    return 0.95 - 0.7 / (1 + np.exp(-(300 / n**0.3 + 500 / d**0.28 - 2)))


def task_ce_law(task_ce: np.ndarray) -> np.ndarray:
    return 1 + 0.5 * np.log(1 - 1 / (1 + np.exp(-4 * (task_ce - 1.2))))


def ladder_of(**columns: Law) -> pd.DataFrame:
    """A ladder that obeys laws of params and tokens without noise: each run its end alone."""
    n, length = (grid.ravel() for grid in np.meshgrid(SIZES, TOKENS_PER_PARAM))
    d = n * length
    table = pd.DataFrame({"params": n, "tokens": d, "task": "simulated", "chance": CHANCE})
    table["model"] = [f"{x / 1e6:.0f}M-{y}" for x, y in zip(n, length, strict=True)]
    return table.assign(**{name: law(n, d) for name, law in columns.items()})


def two_step_table() -> pd.DataFrame:
    return ladder_of(loss=loss_law, accuracy=lambda n, d: accuracy_law(loss_law(n, d)))


def forecasts(
    table: pd.DataFrame | Ladder, *methods: str, targets: pd.DataFrame = TARGETS
) -> dict[tuple[str, str], np.ndarray]:
    """Forecasts by method and quantity, in the order of targets."""
    ladder = table if isinstance(table, Ladder) else read_ladder(table)
    result = baseline(ladder, targets, methods or METHODS)
    groups = result.groupby(["method", "quantity"])["q50"]
    return {(str(key[0]), str(key[1])): q50.to_numpy() for key, q50 in groups}


SIMULATED: dict[str, tuple[dict[str, Law], dict[str, Law]]] = {
    "two_step": (
        {"loss": loss_law},
        {"loss": loss_law, "accuracy": lambda n, d: accuracy_law(loss_law(n, d))},
    ),
    "two_step_flops": (
        {"loss": flops_law},
        {"loss": flops_law, "accuracy": lambda n, d: accuracy_law(flops_law(n, d), 0.8)},
    ),
    "single_step": (
        {"loss": loss_law},
        {"accuracy": direct_law},
    ),
    "two_step_c4_p0fix": (
        {"reference_loss": lambda n, d: 3 * loss_law(n, d)},
        {"accuracy": lambda n, d: accuracy_law(3 * loss_law(n, d), 3.0)},
    ),
    "two_step_taskce_p0fix": (
        {"loss": loss_law, "task_ce": lambda n, d: 1 + loss_law(n, d) / 4},
        {"accuracy": lambda n, d: task_ce_law(1 + loss_law(n, d) / 4)},
    ),
}
"""For each method, columns of a ladder that obeys its laws, and what it should forecast."""


@pytest.mark.parametrize("method", METHODS)
def test_law_that_a_ladder_obeys_is_recovered(method: str) -> None:
    columns, truth = SIMULATED[method]
    found = forecasts(ladder_of(**{**columns, **truth}), method)
    assert set(found) == {(method, quantity) for quantity in truth}
    for quantity, law in truth.items():
        expected = law(TARGETS["params"].to_numpy(), TARGETS["tokens"].to_numpy())
        assert found[method, quantity] == pytest.approx(expected, abs=2e-5)


def test_coefficients_are_recovered() -> None:
    fit = fit_two_step(read_ladder(two_step_table())).loc["simulated"]
    truth = {"A": 40, "alpha": 0.22, "B": 100, "beta": 0.24, "E": 0.45}
    truth |= {"a": -0.7, "L0": 1, "k": 30, "b": 1}
    assert fit.to_dict() == pytest.approx(truth, rel=2e-3)


def objective(theta: np.ndarray, n: np.ndarray, d: np.ndarray, loss: np.ndarray) -> float:
    """The published Huber loss of log A, log B, alpha, beta and E, times 1e6."""
    terms = (theta[0] - theta[2] * np.log(n), theta[1] - theta[3] * np.log(d), np.log(theta[4]))
    off = np.abs(np.logaddexp.reduce(np.broadcast_arrays(*terms)) - np.log(loss))
    return 1e6 * float(np.where(off < 1e-3, off**2 / 2, 1e-3 * (off - 1e-3 / 2)).sum())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_no_worse_optimum_than_from_the_published_start(seed: int) -> None:
    # A flat law, as of task CE, on which the published start often misses the optimum.
    table = two_step_table()
    law = 1.5 / table["params"] ** 0.12 + 1.5 / table["tokens"] ** 0.1 + 1.2
    noise = np.random.default_rng(seed).normal(0, 0.003, len(table))
    ladder = read_ladder(table.assign(loss=law * np.exp(noise)))
    data = tuple(ladder.table[name].to_numpy(float) for name in ("params", "tokens", "loss"))
    bounds = [(0, None)] * 4 + [(1e-9, None)]
    published = minimize(
        objective, (3, 6, 0.1, 0.2, 1), data, "L-BFGS-B", bounds=bounds, options={"ftol": 1e-13}
    )
    ours = fit_two_step(ladder).loc["simulated"]
    theta = np.array([*np.log(ours[["A", "B"]]), *ours[["alpha", "beta", "E"]]])
    assert objective(theta, *data) <= published.fun * (1 + 1e-6)


def test_rows_and_columns_of_the_forecasts() -> None:
    ladder = read_ladder(pd.concat([two_step_table().assign(task=task) for task in ("one", "two")]))
    found = baseline(ladder, TARGETS)
    assert list(found) == [*FORECAST_COLUMNS, "method"]
    assert list(found["method"].unique()) == ["two_step", "two_step_flops", "single_step"]
    per_quantity = len(TARGETS) * len(ladder.tasks)
    assert (found.groupby(["method", "quantity"]).size() == per_quantity).all()
    assert set(found.loc[found["method"] == "single_step", "quantity"]) == {"accuracy"}
    assert not found.duplicated(["method", "model", "task", "quantity"]).any()
    empty = found.columns[found.isna().all()]
    assert list(empty) == [*(x for x in FORECAST_COLUMNS[5:] if x != "q50")]
    assert found["q50"].notna().all()


def test_measurements_of_targets_are_kept_and_other_tasks_refused() -> None:
    ladder = read_ladder(two_step_table())
    measured = TARGETS.assign(task=["simulated", "other"], accuracy=[0.5, 0.6])
    found = baseline(ladder, measured.iloc[:1], ["two_step"]).set_index("quantity")
    assert list(found["task"]) == ["simulated"] * 2
    assert found.loc["accuracy", "measured"] == 0.5
    assert math.isnan(found.loc["loss", "measured"])
    for of_another in (measured, measured.assign(task="other")):
        with pytest.raises(ValueError, match=r"no such task: other; the tasks .* are simulated;"):
            baseline(ladder, of_another, ["two_step"])
    near = measured.assign(task=["simulated", "simulatd"])
    with pytest.raises(ValueError, match=r"no such task: simulatd; did you mean simulated\?"):
        baseline(ladder, near, ["two_step"])


@pytest.mark.parametrize(
    ("method", "column"),
    [
        ("two_step", "loss"),
        ("two_step_flops", "loss"),
        ("two_step_c4_p0fix", "reference_loss"),
        ("two_step_taskce_p0fix", "task_ce"),
    ],
)
def test_method_without_its_column(method: str, column: str) -> None:
    table = two_step_table().assign(reference_loss=3.0, task_ce=1.0)
    table["reference_loss"] += 1e9 / table["tokens"]
    table["task_ce"] += 1e8 / table["params"] + 1e9 / table["tokens"]
    ladder = read_ladder(table.drop(columns=column))
    with pytest.raises(ValueError, match=f"`{column}` is missing.* {method}"):
        baseline(ladder, TARGETS, [method])
    others = baseline(ladder, TARGETS, [m for m in METHODS if FROM[m] != column])
    assert method not in set(others["method"])
    pd.testing.assert_frame_equal(baseline(ladder, TARGETS), others)


def test_unknown_method() -> None:
    message = r"no such method: three_step; did you mean two_step\? methods are two_step, "
    with pytest.raises(ValueError, match=message):
        baseline(read_ladder(two_step_table()), TARGETS, ["three_step"])


def test_ragged_ladder() -> None:
    table = pd.concat([two_step_table().assign(task=task) for task in ("full", "ragged")])
    table = table.reset_index(drop=True)
    ragged = table.index[table["task"] == "ragged"]
    table.loc[ragged[:2], "loss"] = np.nan
    table.loc[ragged[1:4], "accuracy"] = np.nan
    found = forecasts(table.drop(index=ragged[-2:]), "two_step", "single_step")
    for accuracy in found.values():
        full, ragged_one = accuracy.reshape(len(TARGETS), 2).T
        assert ragged_one == pytest.approx(full, abs=2e-3)
    assert found["two_step", "loss"] == pytest.approx(
        np.repeat(loss_law(TARGETS["params"].to_numpy(), TARGETS["tokens"].to_numpy()), 2), abs=1e-5
    )


def test_three_models_give_what_they_can() -> None:
    table = ladder_of(**SIMULATED["two_step_flops"][1]).iloc[[0, 7, 13]]
    with pytest.warns(UserWarning, match="gives NaN") as caught:
        found = forecasts(table)
    assert [str(w.message) for w in caught] == [
        "simulated: two_step gives NaN, as 5 coefficients cannot be fitted to 3 distinct points",
        "simulated: single_step gives NaN, as 7 coefficients cannot be fitted to 3 distinct points",
    ]
    expected = flops_law(TARGETS["params"].to_numpy(), TARGETS["tokens"].to_numpy())
    assert found["two_step_flops", "loss"] == pytest.approx(expected, abs=1e-4)
    assert np.isfinite(found["two_step_flops", "accuracy"]).all()
    for key in (("two_step", "loss"), ("two_step", "accuracy"), ("single_step", "accuracy")):
        assert np.isnan(found[key]).all()


def test_one_reason_is_told_once_for_all_tasks() -> None:
    table = ladder_of(**SIMULATED["two_step_flops"][1]).iloc[[0, 7, 13]]
    both = pd.concat([table.assign(task=task) for task in ("one", "two")])
    with pytest.warns(UserWarning, match="gives NaN") as caught:
        forecasts(read_ladder(both), "two_step")
    assert [str(w.message) for w in caught] == [
        "one, two: two_step gives NaN, as 5 coefficients cannot be fitted to 3 distinct points"
    ]


def test_task_measured_at_one_size_is_not_forecast() -> None:
    table = pd.concat([two_step_table().assign(task=task) for task in ("one", "two")])
    kept = table[(table["task"] == "one") | (table["params"] == SIZES[0])]
    more = kept[kept["params"] == SIZES[0]]
    more = more.assign(model=more["model"] + "-more", tokens=more["tokens"] * 1.5)
    ladder = read_ladder(pd.concat([kept, more]))
    with pytest.warns(UserWarning, match="two: two_step gives NaN, as a law cannot .* one size"):
        found = forecasts(ladder, "two_step")
    one, two = found["two_step", "loss"].reshape(len(TARGETS), 2).T
    assert np.isfinite(one).all()
    assert np.isnan(two).all()
    # Nor is it fitted, and warned of, where nobody asks for it.
    asked = forecasts(ladder, "two_step", targets=TARGETS.assign(task="one"))
    assert asked["two_step", "loss"] == pytest.approx(one, rel=1e-12)


def test_step_1_is_forecast_where_step_2_cannot_be() -> None:
    table = two_step_table()
    table.loc[table.index[2:], "accuracy"] = np.nan
    table.loc[table.index[2], "accuracy"] = table.loc[table.index[1], "accuracy"]
    table.loc[table.index[2], "loss"] = table.loc[table.index[1], "loss"]
    with pytest.warns(UserWarning, match="two_step gives NaN, as 4 coefficients .* 3 distinct"):
        found = forecasts(table, "two_step")
    assert np.isfinite(found["two_step", "loss"]).all()
    assert np.isnan(found["two_step", "accuracy"]).all()


def test_accuracy_of_zero_has_no_log() -> None:
    table = two_step_table().assign(chance=0.0)
    table["accuracy"] = np.maximum(table["accuracy"] - 0.31, 0)
    assert (table["accuracy"] == 0).any()
    with pytest.warns(UserWarning, match="simulated: single_step gives NaN, as an accuracy of 0"):
        found = forecasts(table)
    assert np.isnan(found["single_step", "accuracy"]).all()
    assert np.isfinite(found["two_step", "accuracy"]).all()


@pytest.mark.slow
def test_step_2_skips_the_first_tenth_of_each_run(small_table: pd.DataFrame) -> None:
    def with_changed(checkpoint: int) -> pd.DataFrame:
        order = small_table.groupby(["model", "task"]).cumcount()
        return small_table.assign(accuracy=small_table["accuracy"].mask(order == checkpoint, 0.9))

    same = forecasts(small_table, "two_step")["two_step", "accuracy"]
    for skipped in (0, 1):  # of 12 checkpoints, a tenth rounded up
        changed = forecasts(with_changed(skipped), "two_step")["two_step", "accuracy"]
        assert changed == pytest.approx(same, abs=1e-12)
    changed = forecasts(with_changed(2), "two_step")["two_step", "accuracy"]
    assert (np.abs(changed - same) > 1e-4).all()


def test_flops_are_never_mixed(small_table: pd.DataFrame) -> None:
    def of(table: pd.DataFrame, targets: pd.DataFrame) -> np.ndarray:
        return forecasts(table, "two_step_flops", targets=targets)["two_step_flops", "loss"]

    six_nd = small_table.assign(flops=6.0 * small_table["params"] * small_table["tokens"])
    own = six_nd.assign(flops=6.0 * six_nd["params"] ** 1.2 * six_nd["tokens"])
    with_flops = TARGETS.assign(flops=6 * TARGETS["params"] * TARGETS["tokens"])
    same = of(small_table, TARGETS)
    assert of(six_nd, with_flops) == pytest.approx(same, rel=1e-6)
    assert of(own, TARGETS) == pytest.approx(same, rel=1e-6)
    own_targets = TARGETS.assign(flops=6 * TARGETS["params"] ** 1.2 * TARGETS["tokens"])
    assert (np.abs(of(own, own_targets) / same - 1) > 1e-4).all()


def test_flops_are_those_of_the_whole_run() -> None:
    table = ladder_of(**SIMULATED["two_step_flops"][1])
    earlier = table.assign(tokens=table["tokens"] * 0.95)[table["params"] > SIZES[0]]
    one = forecasts(table, "two_step_flops")
    several = forecasts(pd.concat([table, earlier]), "two_step_flops")
    assert several["two_step_flops", "loss"] == pytest.approx(
        one["two_step_flops", "loss"], rel=1e-5
    )


def test_every_checkpoint_speaks_where_asked() -> None:
    parts = [
        two_step_table().assign(
            tokens=lambda t, i=i: t["params"] * 10 * i, model=lambda t: t["params"]
        )
        for i in range(1, 13)
    ]
    table = pd.concat(parts).drop_duplicates(["model", "tokens"])
    table = table.assign(loss=loss_law(table["params"], table["tokens"]))
    ladder = read_ladder(table.assign(accuracy=accuracy_law(table["loss"])), rungs="every")
    expected = loss_law(TARGETS["params"].to_numpy(), TARGETS["tokens"].to_numpy())
    assert forecasts(ladder, "two_step")["two_step", "loss"] == pytest.approx(expected, abs=1e-5)


def test_precision_of_the_session_is_left_alone() -> None:
    found = baseline(read_ladder(two_step_table()), TARGETS, ["two_step"])
    assert found["q50"].dtype == np.float64
    assert jax.config.jax_enable_x64 == X64


@pytest.fixture(scope="module")
def olmo(data_dir: Path) -> Ladder:
    return read_ladder(data_dir / "olmo_ladder.csv", tasks=data_dir / "olmo_tasks.csv")


@pytest.fixture(scope="module")
def beside_published(olmo: Ladder, data_dir: Path) -> pd.DataFrame:
    """Our forecasts of the two targets (`q50`) beside the released code's (`predicted`)."""
    path = data_dir.parent / "reference" / "published_method_forecasts.csv"
    if not path.is_file():
        pytest.skip(f"no published forecasts in {path}")
    targets = read_targets(data_dir / "olmo_targets.csv", tasks=data_dir / "olmo_tasks.csv")
    found = baseline(olmo, targets)
    loss_names = {"two_step": "step1", "two_step_flops": "flops_step1"}
    is_loss = found["quantity"] == "loss"
    found["method"] = found["method"].mask(is_loss, found["method"].map(loss_names))
    published = pd.read_csv(path).rename(columns={"target": "model"})
    return found.merge(published, on=["method", "model", "task", "quantity"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "tolerance"),
    [
        ("two_step", 0.001),
        ("two_step_flops", 0.001),
        ("single_step", 0.001),
        ("two_step_c4_p0fix", 0.001),
        ("step1", 0.002),
        ("flops_step1", 0.002),
    ],
)
def test_published_forecasts_are_met(
    beside_published: pd.DataFrame, method: str, tolerance: float
) -> None:
    cells = beside_published[beside_published["method"] == method]
    assert len(cells) == 16
    assert cells["q50"].to_numpy() == pytest.approx(cells["predicted"].to_numpy(), abs=tolerance)
    assert cells["measured"].to_numpy() == pytest.approx(cells["actual"].to_numpy(), abs=1e-5)


@pytest.mark.slow
def test_published_forecasts_of_task_ce_are_met_where_its_fit_reached_the_optimum(
    beside_published: pd.DataFrame,
) -> None:
    # Of the other tasks, step 1 has a lower optimum with E = 0 (MMLU, ARC-Challenge, Social IQa),
    # or step 2 is a straight line whose k has no optimum (HellaSwag, ARC-Easy).
    cells = beside_published[beside_published["method"] == "two_step_taskce_p0fix"]
    off = (cells["q50"] - cells["predicted"]).abs()
    reached = cells["task"].isin(["piqa", "csqa", "openbookqa"])
    assert len(cells) == 16
    assert off[reached].max() < 0.001
    assert off.max() < 0.02


@pytest.mark.slow
def test_published_coefficients_are_met(olmo: Ladder, data_dir: Path) -> None:
    path = data_dir.parent / "reference" / "point_fit_coefficients.csv"
    if not path.is_file():
        pytest.skip(f"no published coefficients in {path}")
    fits = fit_two_step(olmo)
    published = pd.read_csv(path, index_col="task")[fits.columns]
    assert list(published.index) == list(fits.index)
    np.testing.assert_allclose(fits, published, rtol=0.005, atol=1e-6)

from pathlib import Path

import arviz as az
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from laddercast.data.ladder import read_targets
from laddercast.evaluation.calibration import as_ranks, coverage, recovery, uniformity
from laddercast.evaluation.simulation import (
    DEMO_SIZES,
    PRIOR_TARGETS,
    demo_ladder,
    demo_truth,
    simulate,
    simulate_from_prior,
)
from laddercast.model.design import ladder_design
from laddercast.model.routes import ROUTES

QUIET = {"run_loss": 0.0, "run_accuracy": 0.0, "checkpoint_loss": 0.0, "checkpoint_accuracy": 0.0}
STILL = {"walk_loss_scale": 0.0, "walk_accuracy_scale": 0.0}
LENGTHS = (20, 200)
TARGET = pd.DataFrame({"model": ["big"], "params": [7 * 10**9], "tokens": [4 * 10**12]})


def laws(table: pd.DataFrame, truth: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    p = truth.loc[table["task"]].reset_index(drop=True)
    loss = (
        p["A"] / table["params"].astype(float) ** p["alpha"]
        + p["B"] / table["tokens"].astype(float) ** p["beta"]
        + p["E"]
    )
    return loss, p["b"] + p["a"] / (1 + np.exp(-p["k"] * (loss - p["L0"])))


def at_ends(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["tokens"] == table.groupby("model")["tokens"].transform("max")]


def replicates(count: int, truth: pd.DataFrame, **scales: float) -> list[pd.DataFrame]:
    """Ends of runs, less the laws."""
    ends = []
    for seed in range(count):
        ladder, _ = simulate(
            truth, sizes=DEMO_SIZES, tokens_per_param=LENGTHS, seed=seed, **(STILL | scales)
        )
        end = at_ends(ladder.table).reset_index(drop=True)
        loss, accuracy = laws(end, truth)
        end["law"] = accuracy
        end["log_loss"] = np.log(end["loss"] / loss)
        end["factor"] = (end["accuracy"] - accuracy) / np.sqrt(
            accuracy * (1 - accuracy) / truth.loc[end["task"], "items"].to_numpy()
        )
        ends.append(end)
    return ends


def test_without_noise_the_ends_of_runs_and_targets_obey_the_laws() -> None:
    truth = demo_truth().assign(**QUIET)
    ladder, targets = simulate(
        truth, sizes=DEMO_SIZES, tokens_per_param=LENGTHS, targets=TARGET, **STILL
    )
    for table in (at_ends(ladder.table).reset_index(drop=True), targets):
        loss, accuracy = laws(table, truth)
        np.testing.assert_allclose(table["loss"], loss)
        np.testing.assert_allclose(table["accuracy"], accuracy)
    np.testing.assert_allclose(targets["law_loss"], targets["loss"])
    np.testing.assert_allclose(targets["law_accuracy"], targets["accuracy"])


def test_unfinished_checkpoints_lie_above_a_finished_run_and_come_down_to_it() -> None:
    truth = demo_truth().assign(**QUIET)
    ladder, _ = simulate(truth, sizes=DEMO_SIZES, tokens_per_param=LENGTHS, decay=0.04, **STILL)
    table = ladder.table
    table["excess"] = np.log(table["loss"] / laws(table, truth)[0])
    finished = table["tokens"] == table.groupby("model")["tokens"].transform("max")
    assert (table.loc[~finished, "excess"] > 0).all()
    assert table["excess"].max() <= 0.04
    assert (table.groupby(["model", "task"])["excess"].diff().dropna() < 0).all()


@pytest.mark.slow
def test_run_effects_have_the_spread_of_the_truth_and_are_shared_between_tasks() -> None:
    truth = demo_truth().assign(**QUIET | {"run_loss": 0.01, "run_accuracy": 0.5})
    ends = pd.concat(replicates(60, truth, run_correlation=0.5), keys=range(60))
    # A normal and a Student-t part with 4 degrees of freedom (variance 2), half each.
    sd = np.sqrt(0.5 + 0.5 * 2)
    assert ends["log_loss"].std() == pytest.approx(0.01 * sd, rel=0.15)
    wide = ends.pivot_table(index=[ends.index.get_level_values(0), "model"], columns="task")
    for quantity in ("log_loss", "factor"):
        correlation = wide[quantity].corr(method="spearman").to_numpy()
        assert 0.25 < np.median(correlation[np.triu_indices(8, 1)]) < 0.55
    own = simulate(truth, sizes=DEMO_SIZES, tokens_per_param=LENGTHS, run_correlation=1.0, **STILL)
    end = at_ends(own[0].table).reset_index(drop=True)
    end["effect"] = np.log(end["loss"] / laws(end, truth)[0])
    assert (end.groupby("model")["effect"].std() < 1e-9).all()


@pytest.mark.slow
def test_checkpoint_noise_is_white_with_the_spread_of_the_truth() -> None:
    truth = demo_truth().assign(**QUIET | {"checkpoint_loss": 0.01, "checkpoint_accuracy": 0.5})
    ends = pd.concat(replicates(40, truth))
    assert ends["log_loss"].std() == pytest.approx(0.01, rel=0.1)
    assert ends["log_loss"].mean() == pytest.approx(0.0, abs=0.001)
    assert ends["factor"].std() == pytest.approx(0.5, rel=0.1)


@pytest.mark.slow
def test_discrepancy_grows_with_the_root_of_the_distance_extrapolated() -> None:
    truth = demo_truth().assign(**QUIET)
    far = pd.DataFrame(
        {"model": ["near", "far"], "params": [2 * 10**9, 2 * 10**11], "tokens": [4 * 10**11] * 2}
    )
    drift: dict[str, list[np.ndarray]] = {"near": [], "far": []}
    for seed in range(40):
        _, targets = simulate(
            truth, sizes=DEMO_SIZES, tokens_per_param=LENGTHS, targets=far, seed=seed,
            walk_loss_scale=0.01, walk_accuracy_scale=0.0,
        )  # fmt: skip
        targets["drift"] = np.log(targets["loss"] / targets["law_loss"])
        for model, rows in targets.groupby("model"):
            drift[str(model)].append(rows["drift"].to_numpy())
    near, distant = (np.array(drift[model]) for model in ("near", "far"))
    assert (distant - near).std() == pytest.approx(0.01 * np.sqrt(2), rel=0.15)
    assert near.std() < distant.std()


def test_a_mean_of_checkpoints_is_quieter() -> None:
    truth = demo_truth().assign(**QUIET | {"checkpoint_loss": 0.01})
    target = pd.concat([TARGET.assign(model=f"t{i}") for i in range(50)])
    spread = []
    for count in (1, 4):
        _, targets = simulate(
            truth, sizes=DEMO_SIZES, tokens_per_param=LENGTHS,
            targets=target.assign(checkpoints=count), **STILL,
        )  # fmt: skip
        spread.append(np.log(targets["loss"] / targets["law_loss"]).std())
    assert spread[0] / spread[1] == pytest.approx(2, rel=0.2)


def test_accuracies_are_fractions_even_with_absurd_noise() -> None:
    truth = demo_truth().assign(checkpoint_accuracy=100.0)
    ladder, targets = simulate(truth, sizes=DEMO_SIZES, tokens_per_param=LENGTHS, targets=TARGET)
    both = pd.concat([ladder.table["accuracy"], targets["accuracy"]])
    assert both.between(0, 1).all()
    assert {0.0, 1.0} <= set(both)


def test_a_truth_that_lacks_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="truth lacks beta, run_loss"):
        simulate(demo_truth().drop(columns=["beta", "run_loss"]), sizes=[], tokens_per_param=[])


def test_demo_is_a_ladder_of_the_paper_s_shape_and_depends_on_the_seed_alone() -> None:
    ladder, targets, truth = demo_ladder(1)
    again, same_targets, _ = demo_ladder(1)
    other, _, _ = demo_ladder(2)
    assert ladder.fingerprint == again.fingerprint != other.fingerprint
    pd.testing.assert_frame_equal(targets, same_targets)
    assert len(ladder.models) == 16
    assert list(ladder.tasks.index) == list(truth.index)
    design, *_ = ladder_design(ladder)
    for seen in (design.loss, design.accuracy):
        known = np.asarray(seen.at)
        assert known.shape == seen.spread_dof.shape == (16, 8)
        assert known.all()
        assert (seen.spread_dof > 0).all()
    read = read_targets(targets)
    assert list(read["model"].unique()) == ["made-up-7B", "made-up-13B"]
    assert read["checkpoints"].to_list() == [1] * 8 + [5] * 8


def test_demo_truth_is_the_published_fit_rounded(data_dir: Path) -> None:
    path = data_dir.parent / "reference" / "point_fit_coefficients.csv"
    if not path.is_file():
        pytest.skip(f"no reference coefficients in {path}")
    fits = pd.read_csv(path).set_index("task")
    fits["E"] = fits["E"].clip(lower=0.1)
    fits["b"] = fits["b"].clip(upper=0.99)
    truth = demo_truth()
    tasks = pd.read_csv(data_dir / "olmo_tasks.csv").set_index("task")
    letters = ["A", "alpha", "B", "beta", "E", "a", "k", "L0", "b"]
    np.testing.assert_allclose(truth[letters], fits.loc[truth.index, letters], rtol=0.005)
    np.testing.assert_allclose(
        truth[["chance", "items"]], tasks.loc[truth.index, ["chance", "items"]]
    )
    np.testing.assert_allclose(
        truth["run_loss"], fits.loc[truth.index, "loss_rerun_rel_sd"], rtol=0.05
    )
    # Noise is measured in its own units; with the factors it must come out again.
    ladder, _, _ = demo_ladder()
    end = at_ends(ladder.table).reset_index(drop=True)
    loss, accuracy = laws(end, truth)
    mean = pd.DataFrame({"task": end["task"], "loss": loss, "p": accuracy * (1 - accuracy)})
    mean = mean.groupby("task").mean().loc[truth.index]
    binomial = np.sqrt(mean["p"] / truth["items"])
    expected = fits.loc[truth.index]
    for given, known in (
        (truth["checkpoint_loss"] * mean["loss"], expected["loss_checkpoint_sd"]),
        (truth["checkpoint_accuracy"] * binomial, expected["accuracy_checkpoint_sd"]),
        (truth["run_accuracy"] * binomial, expected["accuracy_rerun_sd"]),
    ):
        np.testing.assert_allclose(given, known, rtol=0.1)


@pytest.mark.long
def test_a_draw_from_the_prior_depends_on_the_seed_alone() -> None:
    ladder, targets, population = simulate_from_prior(3)
    again, same_targets, same_population = simulate_from_prior(3)
    other, _, other_population = simulate_from_prior(4)
    assert ladder.fingerprint == again.fingerprint != other.fingerprint
    pd.testing.assert_frame_equal(targets, same_targets)
    assert population == same_population != other_population
    assert {"log_alpha_center", "log_walk_accuracy_scale", "run_loss_correlation"} <= set(
        population
    )
    assert len(targets) == len(PRIOR_TARGETS) * len(ladder.tasks)
    assert targets["accuracy"].between(0, 1).all()
    assert read_targets(targets)["model"].nunique() == len(PRIOR_TARGETS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROUTES)
def test_a_ladder_from_any_route_s_prior_reads_back_as_the_model_assumes(name: str) -> None:
    ladder, targets, population = simulate_from_prior(3, route=ROUTES[name])
    for table in (ladder.table, targets):
        assert ("accuracy" in table) == ("accuracy" in ROUTES[name].reads)
        assert table.get("accuracy", pd.Series(0.5)).between(0, 1).all()
    assert len(targets) == len(PRIOR_TARGETS) * len(ladder.tasks)
    design, observed, labels, _ = ladder_design(ladder)
    assert labels.task == list(ladder.tasks.index)
    read = [quantity for quantity in ROUTES[name].reads if quantity != "accuracy"]
    assert {quantity for quantity in ("loss", "reference_loss") if quantity in targets} == set(read)
    assert ("reference_loss" in ladder.table) == ("reference_loss" in read)
    for quantity in ROUTES[name].reads:
        seen = getattr(design, quantity)
        known = np.asarray(seen.at)
        columns = 1 if quantity == "reference_loss" else len(ladder.tasks)
        assert known.shape == (len(ladder.models), columns)
        assert known.all()
        assert (seen.checkpoints == 5).all()
        if quantity != "accuracy":  # which may be rounded to 0 or 1
            assert (seen.spread_dof == 8).all()
    if "loss" in read:
        log_sd = np.log(observed.loss_spread.mean(axis=0)) / 2
        share = 1 / (1 + np.exp(-population["logit_share_checkpoint_loss_center"]))
        center = population["log_noise_loss_center"] + np.log(share) / 2
        # Draws of tasks about their centers, and 96 degrees of freedom each; of the logit of a
        # share, half its log has at most half the scale.
        scale = np.hypot(
            population["log_noise_loss_scale"], population["logit_share_checkpoint_loss_scale"] / 2
        )
        assert (np.abs(log_sd - center) < 4 * scale + 0.3).all()
    if "reference_loss" in read:
        log_sd = np.log(observed.reference_loss_spread.mean()) / 2
        share = 1 / (1 + np.exp(-population["logit_share_checkpoint_reference"]))
        expected = np.log(population["noise_reference"]) + np.log(share) / 2
        assert log_sd == pytest.approx(expected, abs=0.3)


@pytest.mark.slow
def test_uniformity_tells_calibrated_from_biased_and_overconfident_ranks() -> None:
    rng = np.random.default_rng(1)
    u = rng.uniform(size=(200, 200))
    ranks = pd.DataFrame(u).melt(var_name="quantity", value_name="pit").assign(kind="parameter")
    p_value = uniformity(ranks)["p_value"]
    # Of 200 tests at 5 %, between 2 and 19 reject but once in a thousand times.
    assert 2 <= (p_value < 0.05).sum() <= 19
    for wrong in (ranks["pit"] ** 1.5, 0.5 + 0.5 * np.sign(ranks["pit"] - 0.5)
                  * np.abs(2 * ranks["pit"] - 1) ** 0.6):  # fmt: skip
        found = uniformity(ranks.assign(pit=wrong))["p_value"]
        assert (found < 0.05).mean() > 0.9


def test_ranks_have_the_layout_that_arviz_reads(monkeypatch) -> None:
    u = np.random.default_rng(0).uniform(size=(30, 4))
    rows = [
        (ladder, "parameter" if number < 2 else "mean accuracy", f"x{number}", u[ladder, number])
        for ladder in range(30)
        for number in range(4)
    ]
    recovered = pd.DataFrame(rows, columns=["ladder", "kind", "quantity", "pit"])
    ranks = as_ranks(recovered)
    mean = ranks["prior_sbc"]["mean_accuracy"]
    assert mean.dims == ("chain", "draw", "mean_accuracy_of")
    np.testing.assert_array_equal(mean[0], u[:, 2:])
    with matplotlib.rc_context({"backend": "agg"}):
        plotted = az.plot_ecdf_pit(ranks, var_names="parameter")
    assert set(plotted.viz["ecdf_lines"]["parameter"]["parameter_of"].to_numpy()) == {"x0", "x1"}
    plt.close("all")


def test_discrepancy_may_be_shared_by_tasks() -> None:
    truth = demo_truth().assign(**QUIET)
    far = pd.DataFrame({"model": ["far"], "params": [2 * 10**11], "tokens": [4 * 10**13]})

    def drift(correlation: float) -> np.ndarray:
        _, targets = simulate(
            truth, sizes=DEMO_SIZES, tokens_per_param=LENGTHS, targets=far,
            walk_loss_scale=0.01, walk_correlation=correlation,
        )  # fmt: skip
        return np.log(targets["loss"] / targets["law_loss"]).to_numpy()

    assert np.ptp(drift(1.0)) < 1e-12 < 0.001 < abs(drift(1.0)[0])
    assert np.ptp(drift(0.0)) > 0.01


@pytest.mark.long
def test_recovery_lists_every_parameter_and_target() -> None:
    found = recovery(1, seed=3, tasks=3, chains=2, warmup=100, draws=200)
    _, targets, population = simulate_from_prior(3, tasks=3)
    parameters = found[found["kind"] == "parameter"].set_index("quantity")
    assert parameters["truth"].to_dict() == population
    accuracies = found[found["kind"] == "accuracy"]
    np.testing.assert_allclose(accuracies["truth"], targets["accuracy"])
    inside = (found["truth"] >= found["q05"]) & (found["truth"] <= found["q95"])
    assert (found["inside"] == inside).all()
    # 29 intervals of 90 %: fewer than half inside has a probability below one in a million.
    assert found["inside"].mean() > 0.5
    shares = coverage(found)
    np.testing.assert_allclose(shares[["inside", "below", "above"]].sum(axis=1), 1)
    assert shares["truths"].sum() == len(found)

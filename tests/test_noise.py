from operator import attrgetter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from laddercast.data.ladder import Ladder, read_ladder, run_ends
from laddercast.evaluation.noise import metric_noise, noise_by_task, rerun_noise
from laddercast.inference.fitting import fit
from laddercast.model.letters import scales_of_noise
from laddercast.model.likelihood import FLOOR
from laddercast.model.routes import Route, by_reference, direct, two_stage

# Loss checkpoint SD, accuracy checkpoint SD (points), rerun SD of loss (%) and accuracy (points).
MEASURED = {
    "mmlu": (".0035", ".14", ".38", ".11"),
    "hellaswag": (".0011", ".16", ".18", ".20"),
    "arc_challenge": (".0049", ".46", ".60", ".48"),
    "arc_easy": (".0067", ".43", ".89", ".35"),
    "piqa": (".0027", ".31", ".27", ".50"),
    "csqa": (".0077", ".43", "1.83", ".64"),
    "socialiqa": (".0041", ".36", ".92", ".49"),
    "openbookqa": (".0070", ".69", ".74", ".60"),
    "winogrande": (".0125", ".48", ".77", ".39"),
    "boolq": (".0154", "2.28", "7.3", "2.5"),
}


def agrees(value: float, figure: str) -> bool:
    # To the printed digit; some of the figures were rounded twice.
    return abs(value - float(figure)) <= 0.55 * 10.0 ** -len(figure.split(".")[1])


@pytest.fixture(scope="module")
def measured_tasks(data_dir: Path) -> pd.DataFrame:
    thirteen = pd.read_csv(data_dir / "olmo_tasks_13.csv")
    eight = pd.read_csv(data_dir / "olmo_tasks.csv")
    return pd.concat([thirteen, eight[eight["task"] == "mmlu"]], ignore_index=True)


@pytest.fixture(scope="module")
def measured_ladder(data_dir: Path, measured_tasks: pd.DataFrame) -> Ladder:
    return read_ladder(data_dir / "olmo_ladder.csv", measured_tasks)


@pytest.fixture(scope="module")
def all_runs(data_dir: Path, measured_tasks: pd.DataFrame) -> Ladder:
    names = ("olmo_ladder.csv", "olmo_extra_rungs.csv")
    table = pd.concat([pd.read_csv(data_dir / name) for name in names], ignore_index=True)
    return read_ladder(table, measured_tasks)


@pytest.mark.parametrize(
    ("task", "loss", "accuracy"),
    [
        ("mmlu", 0.00256, 0.00099),
        ("openbookqa", 0.00473, 0.00951),
        ("hellaswag", 0.00070, 0.00158),
    ],
)
def test_published_noise_table(
    measured_ladder: Ladder, task: str, loss: float, accuracy: float
) -> None:
    noise = metric_noise(measured_ladder).set_index(["model", "task", "quantity"])["sd"]
    assert round(noise["1.3B-10xC", task, "loss"], 5) == loss
    assert round(noise["1.3B-10xC", task, "accuracy"], 5) == accuracy


@pytest.mark.parametrize("task", MEASURED)
def test_checkpoint_noise_of_the_measured_ladder(measured_ladder: Ladder, task: str) -> None:
    by_task = noise_by_task(measured_ladder).set_index(["task", "noise", "unit"])["measured"]
    loss, accuracy = MEASURED[task][:2]
    assert agrees(by_task[task, "loss_checkpoint", "loss"], loss)
    assert agrees(by_task[task, "accuracy_checkpoint", "points"], accuracy)


@pytest.mark.slow
@pytest.mark.parametrize("task", MEASURED)
def test_rerun_noise_of_the_measured_runs(all_runs: Ladder, task: str) -> None:
    by_task = noise_by_task(all_runs).set_index(["task", "noise"])["measured"]
    loss, accuracy = MEASURED[task][2:]
    assert agrees(by_task[task, "loss_run"], loss)
    assert agrees(by_task[task, "accuracy_run"], accuracy)


def test_a_straight_trend_counts_as_spread_only_with_its_trend(small_table: pd.DataFrame) -> None:
    share = small_table["tokens"] / small_table.groupby("model")["tokens"].transform("max")
    noise = metric_noise(read_ladder(small_table.assign(accuracy=0.3 + 0.1 * share, loss=2.0)))
    accuracy = noise[noise["quantity"] == "accuracy"]
    # Steps of 1/12 over the 4 checkpoints of the last quarter.
    assert (accuracy["checkpoints"] == 4).all()
    np.testing.assert_allclose(accuracy["sd"], 0.1 / 12 * np.std([0, 1, 2, 3]), rtol=1e-4)
    np.testing.assert_allclose(accuracy["trend_free_sd"], 0, atol=1e-6)
    np.testing.assert_allclose(noise.loc[noise["quantity"] == "loss", "sd"], 0, atol=1e-12)
    np.testing.assert_allclose(noise["relative_sd"], noise["sd"] / noise["mean"])


def test_reruns_are_found_and_compared_at_equal_tokens(small_table: pd.DataFrame) -> None:
    assert rerun_noise(read_ladder(small_table)).empty
    run = small_table[small_table["model"] == "200M-20"]
    rerun = run.assign(model="200M-20b", loss=run["loss"] * 1.02, accuracy=run["accuracy"] + 0.03)
    longer = run.assign(model="200M-21", tokens=run["tokens"] + run["tokens"].max() // 20)
    ladder = read_ladder(pd.concat([small_table, rerun, longer], ignore_index=True))
    found = rerun_noise(ladder)
    assert set(zip(found["model"], found["rerun"], strict=True)) == {("200M-20", "200M-20b")}
    np.testing.assert_allclose(found["loss"].astype(float), 2 / np.sqrt(2))
    np.testing.assert_allclose(found["accuracy"].astype(float), 3 / np.sqrt(2))


def test_reruns_without_equal_tokens_are_compared_at_their_ends(small_table: pd.DataFrame) -> None:
    run = small_table[small_table["model"] == "200M-20"]
    rerun = run.assign(model="b", tokens=run["tokens"] + 1000, loss=run["loss"] * 1.02)
    found = rerun_noise(read_ladder(pd.concat([small_table, rerun], ignore_index=True)))
    np.testing.assert_allclose(found["loss"].astype(float), 2 / np.sqrt(2))


def fit_of(route: Route, **sites: np.ndarray) -> xr.DataTree:
    """A fit of this route to both tasks, whose posterior has what follows from these sites."""
    tasks = ("task", ["easy", "hard"])
    posterior = {
        name: (("chain", "draw", "task")[: value.ndim], value)
        for name, value in scales_of_noise(sites).items()
    }
    constant = {"chance": ("task", [0.25, 0.5]), "items": ("task", [2000, 500])}
    groups = {"posterior": posterior, "constant_data": constant}
    tree = xr.DataTree.from_dict(
        {
            f"{route.name}/{name}": xr.Dataset(values, coords={"task": tasks})
            for name, values in groups.items()
        }
    )
    tree[route.name].attrs["route"] = route.name
    return tree


@pytest.mark.parametrize("route", [by_reference, direct], ids=attrgetter("name"))
def test_noise_of_a_loss_is_that_of_the_route_s_own(
    small_table: pd.DataFrame, route: Route
) -> None:
    ladder = read_ladder(small_table.drop(columns="loss"))
    sites = {
        "log_noise_accuracy": np.full((2, 50, 2), np.log(2.0)),
        # The variance of a checkpoint is a quarter of the run's, so a fifth of the sum.
        "logit_share_checkpoint_accuracy": np.full((2, 50, 2), np.log(0.25)),
        # None exceeds .5: 1 / (1 / .125 + 1 / .5) is .1.
        "log_walk_accuracy": np.full((2, 50, 2), np.log(0.125)),
    }
    if route is by_reference:
        sites |= {
            "noise_reference": np.full((2, 50), np.sqrt(0.001**2 + 0.002**2)),
            "logit_share_checkpoint_reference": np.full((2, 50), np.log(0.25)),
            "walk_reference_scale": np.full((2, 50), 0.003),
        }
    noise = noise_by_task(ladder, fit_of(route, **sites)).set_index(["noise", "task", "unit"])[
        "q50"
    ]
    run, checkpoint = (np.hypot(2 * np.sqrt(share), FLOOR["accuracy"]) for share in (0.8, 0.2))
    ratio = (noise["accuracy_run"] / noise["accuracy_checkpoint"]).to_numpy()
    assert ratio == pytest.approx(run / checkpoint)
    assert noise["accuracy_discrepancy"].to_numpy() == pytest.approx(0.1)
    of_loss = noise[noise.index.get_level_values("noise").str.startswith("loss_")]
    if route is direct:
        assert of_loss.isna().all()
        return
    assert noise["loss_run"].to_numpy() == pytest.approx(0.2)
    assert noise["loss_discrepancy"].to_numpy() == pytest.approx(0.3)
    assert noise["loss_checkpoint"].xs("%", level="unit").to_numpy() == pytest.approx(0.1)
    mean = run_ends(ladder.table).groupby("task")["reference_loss"].mean()
    expected = 0.001 * mean[["easy", "hard"]].to_numpy()
    found = noise["loss_checkpoint"].xs("loss", level="unit")[["easy", "hard"]].to_numpy()
    np.testing.assert_allclose(found, expected)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:the fit has not converged")
def test_posterior_noise_stands_beside_the_measured(small_table: pd.DataFrame) -> None:
    ladder = read_ladder(small_table)
    fitted = fit(ladder, route=two_stage, chains=2, warmup=100, draws=100, progress=False)
    noise = noise_by_task(ladder, fitted).set_index(["task", "noise", "unit"])
    assert (noise["q05"] < noise["q50"]).all()
    assert (noise["q50"] < noise["q95"]).all()
    # The table's checkpoint noise of log loss is 0.3 %.
    for task in ladder.tasks.index:
        assert noise.loc[(task, "loss_checkpoint", "%"), "q05"] < 0.4
        assert noise.loc[(task, "loss_checkpoint", "%"), "q95"] > 0.2
    other = read_ladder(small_table.replace({"task": {"easy": "new"}}))
    with pytest.raises(ValueError, match="not in the fit: new"):
        noise_by_task(other, fitted)

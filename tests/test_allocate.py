import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import laddercast as lc
from laddercast.cli import commands as cli
from laddercast.cli.folders import results_folder
from laddercast.cli.steps import MARK
from laddercast.decisions.files import read_decision, read_goal
from laddercast.forecasting.forecasts import forecast_of_laws
from laddercast.inference.results import frame_of
from laddercast.model import stages

pytestmark = pytest.mark.slow

COLUMNS = [
    "flops", "params", "tokens", "accuracy_q10", "accuracy_q50", "accuracy_q90", "regret_q50",
    "regret_q90", "in_set",
]  # fmt: skip
STATUS = {False: 0, True: 3}
"""By whether the fit complains."""
BUDGET = 3e20
EPSILON = 0.03
"""Few rungs and a short fit cannot tell a best size to the default."""
QUICK = {"chains": 2, "warmup": 60, "draws": 60, "progress": False}


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def ladder(six_runs: lc.Ladder) -> lc.Ladder:
    return six_runs


@pytest.fixture(scope="module")
def fitted(ladder: lc.Ladder) -> xr.DataTree:
    """A short fit, said to have converged: what is tested holds of any draws."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the fit has not converged")
        tree = lc.fit(ladder, route="two_stage", **QUICK)
    tree.attrs["converged"] = 1
    return tree


@pytest.fixture(scope="module")
def table(fitted: xr.DataTree) -> pd.DataFrame:
    return lc.allocate(fitted, BUDGET, epsilon=EPSILON)


def test_each_row_spends_the_budget_and_has_the_regret_of_its_size(table: pd.DataFrame):
    assert list(table) == COLUMNS
    np.testing.assert_allclose(table["flops"], BUDGET, rtol=1e-6)
    np.testing.assert_allclose(6.0 * table["params"] * table["tokens"], BUDGET, rtol=1e-6)
    assert (table["regret_q50"] >= 0).all()
    assert (table["regret_q90"] >= table["regret_q50"]).all()
    assert (table["accuracy_q90"] > table["accuracy_q10"]).all()
    best = table.loc[table["params"] == table.attrs["best"]["params"]].iloc[0]
    assert best["regret_q50"] <= table["regret_q50"].min() + 0.002
    optimum = table.attrs["optimum"]["params"]
    assert list(optimum.values()) == sorted(optimum.values())


def test_the_set_grows_with_epsilon_and_shrinks_with_probability(fitted: xr.DataTree):
    sets = [
        set(np.flatnonzero(lc.allocate(fitted, BUDGET, epsilon=e, probability=p)["in_set"]))
        for e, p in ((0.02, 0.9), (0.03, 0.9), (0.03, 0.5))
    ]
    assert sets[0] < sets[1] < sets[2]


@pytest.mark.filterwarnings("ignore:with a probability of .* the best size lies beyond")
def test_a_mean_of_one_task_is_that_task(fitted: xr.DataTree):
    alone = lc.allocate(fitted, BUDGET, task="piqa", epsilon=EPSILON)
    weighted = lc.allocate(fitted, BUDGET, weights={"piqa": 2.0}, epsilon=EPSILON)
    pd.testing.assert_frame_equal(alone, weighted)


def test_tokens_to_serve_make_the_best_model_smaller_and_are_paid_for(
    fitted: xr.DataTree, table: pd.DataFrame
):
    served = 2e10
    found = lc.allocate(fitted, BUDGET, tokens_served=served, epsilon=EPSILON)
    total = 6.0 * found["params"] * found["tokens"] + 2.0 * found["params"] * served
    np.testing.assert_allclose(total, BUDGET, rtol=1e-6)
    assert found.attrs["best"]["params"] < table.attrs["best"]["params"]
    assert found["accuracy_q50"].max() < table["accuracy_q50"].max()


@pytest.mark.filterwarnings("ignore::laddercast.NotConvergedWarning")
def test_laws_have_neither_noise_nor_deviations_of_sizes(fitted: xr.DataTree):
    """Two sizes that are next to the same differ by next to nothing, unlike two runs."""
    targets = pd.DataFrame(
        {"model": ["a", "b"], "params": [3_000_000_000, 3_600_000_000], "tokens": [10**11] * 2}
    )
    laws = forecast_of_laws(fitted, targets)["predictions"]["accuracy"]
    runs = lc.forecast(fitted, targets.assign(checkpoints=1e6))["predictions"]["accuracy"]
    n = laws.sizes["row"] // 2
    of_laws, of_runs = ((x[..., n:].to_numpy() - x[..., :n].to_numpy()).std() for x in (laws, runs))
    assert of_laws < 0.5 * of_runs
    # Draws belong together: what is added is noise alone.
    added = (runs.to_numpy() - laws.to_numpy()).reshape(-1, 2 * n)
    assert (added.var(axis=0) < runs.to_numpy().reshape(-1, 2 * n).var(axis=0)).all()


@pytest.fixture
def no_floor(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No discrepancy but that of the scales given: what was traced before has a floor."""
    monkeypatch.setattr(stages, "LEAST_BEYOND", {})
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.mark.usefixtures("no_floor")
def test_losses_are_best_at_the_closed_forms_optimum(fitted: xr.DataTree):
    """The published law: N* = G (C / 6)^(b / (a + b)), G = (a A / (b B))^(1 / (a + b))."""
    still = fitted.copy()
    posterior = still["two_stage"]["posterior"].to_dataset()
    posterior["q"] = xr.ones_like(posterior["q"])
    posterior["gamma"] = xr.zeros_like(posterior["gamma"])
    for name in posterior:
        if str(name).startswith("walk") and "interval" in posterior[name].dims:
            posterior[name] = xr.zeros_like(posterior[name])
        if str(name).startswith("log_walk"):
            posterior[name] = xr.full_like(posterior[name], -30.0)
    # As if the data had been of one task: the optimum of a mean has no closed form.
    still["two_stage"]["posterior"] = xr.DataTree(posterior)
    table = lc.allocate(still, BUDGET, task="loss", weights={"hellaswag": 1}, epsilon=EPSILON)
    a, b, logit = (
        posterior[name].sel(task="hellaswag") for name in ("alpha", "beta", "logit_share_a")
    )
    frame = frame_of(fitted)
    ratio = a * np.exp(logit) * frame.params**a / (b * frame.tokens**b)
    best = ratio ** (1 / (a + b)) * (BUDGET / 6) ** (b / (a + b))
    step = np.log(table["params"].iloc[1] / table["params"].iloc[0])
    for name, level in (("q05", 0.05), ("q50", 0.5), ("q95", 0.95)):
        found = table.attrs["optimum"]["params"][name]
        exact = np.clip(best.quantile(level), table["params"].min(), table["params"].max())
        assert abs(np.log(found / float(exact))) <= 1.01 * step
    assert list(table)[3] == "loss_q10"


@pytest.mark.parametrize(
    ("flops", "more", "said"),
    [
        (0, {}, "budget above 0"),
        (float("nan"), {}, "budget above 0"),
        (1e15, {}, "lies below the ladder"),
        (1e27, {}, "decades beyond the largest rung"),
        (BUDGET, {"tokens_served": 1e15}, "for training, lies below the ladder"),
        (BUDGET, {"tokens_served": -1}, "tokens of at least 0"),
        (BUDGET, {"task": "mmlu"}, "'mmlu': give one of hellaswag, piqa"),
        (BUDGET, {"epsilon": 0}, "epsilon above 0"),
        (BUDGET, {"weights": {"piqa": -1}}, "piqa: -1"),
        (BUDGET, {"task": "piqa", "weights": {"piqa": 1}}, "leave out task="),
    ],
)
def test_what_the_ladder_cannot_answer_is_refused(fitted: xr.DataTree, flops, more, said):
    with pytest.raises(ValueError, match=said):
        lc.allocate(fitted, flops, **more)


def test_rungs_on_one_line_are_refused(fitted: xr.DataTree):
    rungs = fitted["two_stage"]["constant_data"].to_dataset()
    rungs["tokens"] = 20 * rungs["params"]
    on_line = fitted.copy()
    on_line["two_stage"]["constant_data"] = xr.DataTree(rungs)
    del on_line["two_stage"]["observed_data"]
    with pytest.raises(ValueError, match="20 tokens per parameter: such a ladder cannot tell"):
        lc.allocate(on_line, BUDGET)


def test_a_task_at_chance_everywhere_is_refused(fitted: xr.DataTree):
    guessed = fitted.copy()
    known = guessed["two_stage"]["constant_data"].to_dataset()
    # Of so few questions, no accuracy can be told from guessing.
    known["items"] = xr.where(known["task"] == "piqa", 1.0, known["items"])
    guessed["two_stage"]["constant_data"] = xr.DataTree(known)
    with pytest.raises(ValueError, match="piqa: no rung is above chance"):
        lc.allocate(guessed, BUDGET, task="piqa")
    assert lc.allocate(guessed, BUDGET, epsilon=0.1).attrs["at_chance"] == ["piqa"]


def test_an_optimum_beyond_the_sizes_is_warned_of(fitted: xr.DataTree):
    """A law without N wants the smallest model."""
    tilted = fitted.copy()
    posterior = tilted["two_stage"]["posterior"].to_dataset()
    posterior["logit_share_a"] = xr.full_like(posterior["logit_share_a"], -12.0)
    tilted["two_stage"]["posterior"] = xr.DataTree(posterior)
    with pytest.warns(lc.FarTargetWarning, match="lies beyond those compared"):
        found = lc.allocate(tilted, BUDGET, task="loss", epsilon=0.2)
    assert found.attrs["edge"] > 0.5


def test_more_is_needed_to_reach_a_goal_more_surely(fitted: xr.DataTree):
    likely = lc.flops_for(fitted, accuracy=0.6, task="hellaswag", probability=0.5)
    surely = lc.flops_for(fitted, accuracy=0.6, task="hellaswag", probability=0.9)
    assert surely["flops"] > likely["flops"]
    assert surely["probability"] >= 0.9
    np.testing.assert_allclose(6 * surely["params"] * surely["tokens"], surely["flops"], rtol=1e-6)


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        ({"accuracy": 0.999}, "is not reached with a probability of 0.9 within 3 decades"),
        ({"accuracy": 0.1}, "reached at the compute of the smallest rung"),
        ({"accuracy": 0.6, "loss": 0.6}, "one of accuracy= and loss="),
        ({"accuracy": float("nan")}, "give a fraction between 0 and 1"),
        ({"accuracy": 60.0}, "accuracy 60, .* give a fraction between 0 and 1"),
        ({"loss": 0.0}, "give a finite loss above 0"),
    ],
)
def test_goals_out_of_reach_are_refused(fitted: xr.DataTree, goal: dict, said: str):
    with pytest.raises(ValueError, match=said):
        lc.flops_for(fitted, **goal)


def test_the_figure_shows_the_set_and_says_if_not_converged(table: pd.DataFrame):
    axes = lc.plot_allocation(table)
    assert len(axes) == 2
    assert axes[0].get_title().startswith("regret (points)")
    table = table.copy()
    table.attrs["converged"] = 0
    assert "NOT CONVERGED" in lc.plot_allocation(table)[0].figure.get_suptitle()
    _, mine = plt.subplots(1, 2)
    assert lc.plot_allocation(table, ax=mine)[0] is mine[0]


def test_bad_budgets_stop_the_command_before_a_fit(
    small_table: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture
):
    small_table.to_csv(tmp_path / "ladder.csv", index=False)
    out = tmp_path / "out"
    words = ["allocate", str(tmp_path / "ladder.csv"), "--out", str(out)]
    assert cli.main([*words, "--flops", "0", "--task", "mmlu"]) == 2
    said = capsys.readouterr().err
    assert "budget above 0" in said
    assert "'mmlu': give one of easy, hard" in said
    for more, told in {
        (): "give a budget (--flops), a goal (--accuracy), or both",
        ("--accuracy", "60"): "give a fraction between 0 and 1",
        ("--accuracy", "0.6", "--task", "loss"): "'loss' has no accuracy",
        ("--accuracy", "0.6", "--tokens-served", "1e9"): "of a budget: give --flops too",
    }.items():
        assert cli.main([*words, *more]) == 2
        assert told in capsys.readouterr().err
    guessed = small_table.assign(accuracy=small_table["chance"])
    guessed.to_csv(tmp_path / "ladder.csv", index=False)
    assert cli.main([*words, "--flops", "1e20"]) == 2
    assert "easy, hard: no rung is above chance" in capsys.readouterr().err
    small_table.drop(columns="accuracy").to_csv(tmp_path / "ladder.csv", index=False)
    assert cli.main([*words, "--accuracy", "0.6"]) == 2
    assert "the ladder has no accuracies" in capsys.readouterr().err
    assert not out.exists()


def test_the_command_tells_the_compute_for_a_goal(
    fitted: xr.DataTree,
    ladder: lc.Ladder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    ladder.table.to_csv(tmp_path / "ladder.csv", index=False)
    ladder.tasks.to_csv(tmp_path / "tasks.csv")
    out = tmp_path / "out"
    words = ["allocate", str(tmp_path / "ladder.csv"), "--tasks", str(tmp_path / "tasks.csv")]
    words += ["--out", str(out), "--task", "hellaswag"]
    monkeypatch.setattr("laddercast.inference.fitting.fit", lambda *_, **__: fitted)
    assert cli.main([*words, "--accuracy", "0.6"]) == STATUS[bool(fitted.attrs["complaints"])]
    known = lc.flops_for(fitted, accuracy=0.6, task="hellaswag")
    assert f"of at least 60.0 % with probability 0.9: {known['flops']:.2g} FLOPs" in (
        capsys.readouterr().out
    )
    (row,) = pd.read_csv(out / "goal.csv").to_dict("records")
    assert row == {"task": "hellaswag", "accuracy": 0.6, **known.to_dict()}
    assert not (out / "allocation.csv").exists()
    pd.testing.assert_series_equal(read_goal(out), known, check_names=False)
    assert read_goal(out).attrs["goal"] == 0.6
    # A goal that is out of reach does not cost the allocation beside it.
    assert cli.main([*words, "--accuracy", "0.999"]) == 2
    assert "is not reached with a probability of 0.9" in capsys.readouterr().err
    both = ["--accuracy", "0.999", "--flops", f"{BUDGET}", "--epsilon", f"{EPSILON}"]
    assert cli.main([*words, *both]) in (0, 3)
    assert "is not reached with a probability of 0.9" in capsys.readouterr().err
    found = read_decision(out, "allocation")
    assert found.attrs["budget"] == BUDGET
    assert found.attrs["fingerprint"] == fitted.attrs["fingerprint"]
    assert not (out / "goal.csv").exists()


def test_an_allocation_leaves_the_mark_of_a_forecast_beside_it(
    fitted: xr.DataTree, small_table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    small_table.to_csv(tmp_path / "ladder.csv", index=False)
    out = tmp_path / "out"
    with results_folder(out, ("fit.nc", MARK)) as folder:
        (folder / "fit.nc").write_text("a fit")
        (folder / MARK).write_text("of the forecast\n")
    calm = fitted.copy()
    calm.attrs["complaints"] = ""
    monkeypatch.setattr("laddercast.inference.fitting.fit", lambda *_, **__: calm)
    words = ["allocate", str(tmp_path / "ladder.csv"), "--out", str(out), "--epsilon", "0.1"]
    assert cli.main([*words, "--flops", f"{BUDGET}"]) == 0
    assert (out / MARK).read_text() == "of the forecast\n"
    assert (out / "fit.nc").exists()


@pytest.mark.long
def test_the_command_writes_the_table_and_the_figure(
    small_table: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture
):
    small_table.drop(columns=["accuracy", "reference_loss"]).to_csv(
        tmp_path / "ladder.csv", index=False
    )
    out = tmp_path / "out"
    words = ["allocate", str(tmp_path / "ladder.csv"), "--out", str(out), "--flops", "1e21"]
    words += ["--epsilon", "0.05", "--chains", "2", "--warmup", "60", "--draws", "60"]
    assert cli.main(words) in (0, 3)
    assert "best size:" in capsys.readouterr().out
    table = pd.read_csv(out / "allocation.csv")
    assert list(table) == [name.replace("accuracy", "loss") for name in COLUMNS]
    assert (out / "allocate.png").stat().st_size > 0
    assert (out / "allocation.json").exists()

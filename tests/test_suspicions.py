"""What speaks against a fit though its draws have converged: told, and told of the right task."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import laddercast as lc
from laddercast.data.ladder import run_ends
from laddercast.data.order import in_wrong_order
from laddercast.data.outliers import far_off, same_measurements
from laddercast.inference.suspicions import of_posterior, of_runs

QUICK = {"route": "direct", "chains": 2, "warmup": 50, "draws": 50, "progress": False}


def turned(table: pd.DataFrame, quantity: str, task: str) -> pd.DataFrame:
    """The table with the sizes of a task's measurements in the contrary order."""
    ends = table[quantity].where(table["task"] != task, table[quantity].max() - table[quantity])
    return table.assign(**{quantity: ends + 0.1})


def test_a_sound_ladder_is_in_order(small_table):
    assert in_wrong_order(run_ends(lc.read_ladder(small_table).table)) == []


@pytest.mark.parametrize(
    ("quantity", "told"), [("loss", "loss rises with compute"),
                           ("accuracy", "accuracy falls with compute")],
)  # fmt: skip
def test_the_wrong_order_is_told_of_its_task(small_table, quantity, told):
    table = turned(small_table, quantity, "easy")
    if quantity == "accuracy":
        table["accuracy"] = table["accuracy"].clip(0, 1)
    found = in_wrong_order(run_ends(lc.read_ladder(table).table))
    assert {task for task, _ in found} == {"easy"}
    assert any(why.startswith(told) for _, why in found)


def test_two_rungs_are_told_if_their_loss_rises(small_table):
    two = lc.read_ladder(turned(small_table, "loss", "easy")).keep(["200M-20", "800M-100"])
    assert ("easy", "loss rises with compute (rank correlation 1.00 over 2 rungs)") in (
        in_wrong_order(run_ends(two.table))
    )


@pytest.mark.slow
def test_noise_about_chance_is_no_wrong_order(small_table):
    rng = np.random.default_rng(0)
    few = []
    for _ in range(40):
        noise = 0.25 + rng.normal(0, 0.01, len(small_table))
        ladder = lc.read_ladder(small_table.assign(accuracy=noise))
        found = in_wrong_order(run_ends(ladder.table))
        few.append(any("compute" in why for _, why in found))
    assert np.mean(few) < 0.35


def told(ladder: lc.Ladder) -> list[str]:
    ends = run_ends(ladder.table)
    return far_off(ends) + same_measurements(ends)


def planted(ladder: lc.Ladder, **changed: pd.Series) -> lc.Ladder:
    return lc.read_ladder(ladder.table.assign(**changed), ladder.tasks)


@pytest.fixture(scope="module")
def sixteen() -> lc.Ladder:
    return lc.demo_ladder(5)[0]


@pytest.mark.slow
def test_simulated_ladders_have_no_run_far_off():
    assert [told(lc.demo_ladder(seed)[0]) for seed in range(10)] == [[]] * 10


def test_a_run_twenty_points_off_is_named(sixteen):
    table, model = sixteen.table, sixteen.models[6]
    of_model = table["model"] == model
    off = table["accuracy"].mask(of_model, (table["accuracy"] - 0.2).clip(0.01))
    (why,) = far_off(run_ends(planted(sixteen, accuracy=off).table))
    assert why.startswith(f"{model}: its accuracy lies ")
    assert " logits below what the other runs say" in why


def test_of_six_runs_one_that_is_off_is_named_and_others_are_not(small_table):
    six = lc.read_ladder(small_table)
    assert len(six.models) == 6
    assert told(six) == []
    off = six.table["accuracy"].mask(six.table["model"] == six.models[2], 0.02)
    (why,) = told(planted(six, accuracy=off))
    assert why.startswith(f"{six.models[2]}: its accuracy lies ")


def test_a_run_with_a_tenth_more_loss_is_named(sixteen):
    table, model = sixteen.table, sixteen.models[9]
    more = table["loss"] * np.where(table["model"] == model, 1.1, 1)
    (why,) = far_off(run_ends(planted(sixteen, loss=more).table))
    assert why.startswith(f"{model}: its loss lies ")


def test_recipes_may_lie_far_apart(sixteen):
    table = sixteen.table
    twins = table.assign(
        model=table["model"] + "-b",
        accuracy=(table["accuracy"] + 0.15).clip(0, 1),
        loss=1.2 * table["loss"],
        recipe="b",
    )
    both = pd.concat([table.assign(recipe="a"), twins], ignore_index=True)
    assert told(lc.read_ladder(both, sixteen.tasks)) == []


def test_runs_with_the_same_scores_are_named(sixteen):
    first, second = sixteen.models[3], sixteen.models[8]
    table = sixteen.table.sort_values("tokens")
    last = table[table["model"] == first].groupby("task")["accuracy"].last()
    of_both = table["model"].isin([first, second])
    same = table["accuracy"].mask(of_both, table["task"].map(last))
    assert f"{first}, {second} have the same accuracy in all tasks" in told(
        planted(sixteen, accuracy=same.reindex(sixteen.table.index))
    )


def test_scores_that_no_run_changes_are_no_sign(sixteen):
    assert told(planted(sixteen, accuracy=sixteen.table["accuracy"] * 0 + 0.5)) == []


def test_parameters_at_the_edge_of_their_prior_are_named():
    draws = np.random.default_rng(0).normal(0, 0.01, (4, 100))
    lower = np.stack([draws, draws + 0.8], axis=2)
    posterior = xr.Dataset(
        {"q": (("chain", "draw"), 6.7 + draws), "log_lower": (("chain", "draw", "task"), lower)},
        coords={"task": ["easy", "hard"]},
    )
    found = of_posterior("direct", posterior, lc.Priors())
    named = {(one["task"], one["why"].split()[0]) for one in found}
    assert named == {("hard", "log_lower"), ("", "q")}
    assert any("6.7, 3.7 standard deviates above its prior's median" in x["why"] for x in found)


@pytest.mark.slow
def test_a_run_far_off_the_law_is_named_though_it_widens_the_noise():
    rng = np.random.default_rng(0)

    def of(effects: list[float]) -> list[str]:
        draws = np.array(effects) + rng.normal(0, 0.5, (4, 100, len(effects)))
        dims = ("chain", "draw", "model")
        posterior = xr.Dataset(
            {"run_accuracy_shared": (dims, draws), "run_loss_shared": (dims, 0.003 * draws)},
            coords={
                "model": [f"m{number}" for number in range(len(effects))],
                "task": ["easy", "hard"],
            },
        )
        return [one["why"] for one in of_runs("direct", posterior, lc.Priors())]

    assert of([0.5, -0.8, 1.2, 0.1]) == []
    (why,) = of([0.5, -11.0, 1.2, 0.1])
    assert why.startswith("m1: its accuracy lies below the law of direct in all tasks, by 4.")
    assert len(of([0.5, -60.0, 1.2, 0.1])) == 2  # and by its loss


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*has not converged")
def test_a_fit_of_the_wrong_order_warns_at_once_and_records_it(small_table):
    table = turned(small_table, "accuracy", "easy")
    table["accuracy"] = table["accuracy"].clip(0, 1)
    with pytest.warns(lc.DoubtWarning, match="easy: accuracy falls with compute"):
        fitted = lc.fit(lc.read_ladder(table), **QUICK)
    found = json.loads(fitted.attrs["suspicions"])
    assert {one["task"] for one in found if one["rule"] == "wrong order"} == {"easy"}

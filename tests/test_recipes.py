"""Recipes as a level of the hierarchy, and pairs of them compared."""

import itertools
import re
import warnings
from contextlib import contextmanager

import jax
import numpy as np
import numpyro
import pandas as pd
import pytest

import laddercast as lc
from laddercast.cli import commands as cli
from laddercast.evaluation.simulation import simulate_from_prior
from laddercast.model.design import ladder_design
from laddercast.model.priors import Priors
from laddercast.sampling.chains import on_device

PAIR = ("books", "web")
SCALE = {"params": 3_000_000_000, "tokens": 60_000_000_000}
QUICK = ["--chains", "2", "--warmup", "50", "--draws", "50", "--route", "direct"]
SETTINGS = {"route": "direct", "chains": 2, "warmup": 150, "draws": 300, "progress": False}


def simulated(recipes=PAIR, seed=3, **given):
    targets = pd.DataFrame({"model": ["big"], **{word: [x] for word, x in SCALE.items()}})
    made = {"sizes": (10**8, 3 * 10**8, 9 * 10**8), "tokens_per_param": (20, 80), "tasks": 2}
    return simulate_from_prior(
        seed, route="direct", targets=targets, recipes=recipes, **made | given
    )


def made_up(recipes=PAIR, gap=0.05, base=0.45):
    """Two tasks whose accuracy rises with size, in the first recipe `gap` higher than in others."""
    rows = []
    for (number, recipe), size in itertools.product(enumerate(recipes), (1e8, 3e8, 9e8)):
        for task, lower in (("easy", 0.1), ("hard", 0.0)):
            accuracy = base + lower + 0.12 * np.log10(size / 1e8) + gap * (number == 0)
            rows.append((f"{size / 1e6:.0f}M", size, 20 * size, task, accuracy, recipe))
    columns = ["model", "params", "tokens", "task", "accuracy", "recipe"]
    return pd.DataFrame(rows, columns=columns).assign(chance=0.25, items=2000)


def sites(ladder, route=lc.two_stage):
    design, observed, *_ = ladder_design(ladder)
    seeded = numpyro.handlers.seed(route.model, jax.random.key(0))
    return numpyro.handlers.trace(seeded).get_trace(design, Priors(), observed)


@contextmanager
def quietly():
    """Brief fits may not converge, which is not what is tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lc.LaddercastWarning)
        yield


def message(call, *args, **named):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the caller looks at the message
        call(*args, **named)
    return str(caught.value)


@pytest.fixture(scope="module")
def ladder_targets_fit():
    ladder, targets, _ = simulated()
    with quietly():
        return ladder, targets, lc.fit(ladder, **SETTINGS)


def test_models_of_one_name_are_told_apart_by_their_recipe():
    ladder = lc.read_ladder(made_up())
    assert ladder.recipes == ["books", "web"]
    assert len(ladder.models) == 6
    assert "100M books" in ladder.models
    rungs, held_out = ladder.split(max_params=5e8)
    assert set(held_out["recipe"]) == set(PAIR)
    assert len(rungs.models) == 4


@pytest.mark.slow
@pytest.mark.parametrize("route", [lc.two_stage, lc.by_reference, lc.direct, lc.chain, lc.stage_1])
def test_one_recipe_has_no_sites_of_recipes_and_the_same_density(route, small_table):
    plain = sites(lc.read_ladder(small_table), route)
    named = sites(lc.read_ladder(small_table.assign(recipe="web")), route)
    assert list(plain) == list(named)
    assert not [name for name in plain if "recipe" in name]
    two = small_table.assign(recipe=np.where(small_table["model"].str.startswith("400M"), "a", "b"))
    several = sites(lc.read_ladder(two), route)
    assert {name for name in several if "recipe" not in name} >= set(plain) - {
        "run_loss_correlation",
        *(f"logit_run_accuracy_correlation{part}" for part in ("", "_center", "_scale")),
    }  # fmt: skip
    assert [name for name in several if name.endswith("_recipe_scale")]


def density(table, priors=None):
    """Log density of the ladder's measurements at given values of all sites, by name of recipe."""
    ladder = lc.read_ladder(table)
    design, observed, labels, _ = ladder_design(ladder)
    with on_device(jax.devices("cpu")[0]):
        seeded = numpyro.handlers.seed(lc.direct.model, jax.random.key(1))
        latent = {
            name: np.asarray(site["value"])
            for name, site in numpyro.handlers.trace(seeded)
            .get_trace(design, Priors(), observed)
            .items()
            if site["type"] == "sample" and not site["is_observed"]
        }
        rng = np.random.default_rng(0)
        off = {recipe: rng.normal(0, 0.1) for recipe in ("a", "b", "c")}
        for name, value in latent.items():
            if name.endswith("_recipe"):
                order = [off[table.attrs["was"][recipe]] for recipe in labels.recipe]
                latent[name] = np.array(order)
            elif name.endswith("_recipe_task"):
                order = [off[table.attrs["was"][recipe]] for recipe in labels.recipe]
                latent[name] = np.array(order)[:, None] + np.zeros(value.shape)
            elif name.startswith("run_accuracy_shared") or name.startswith("walk"):
                latent[name] = np.full(value.shape, 0.1)
        put = numpyro.handlers.substitute(lc.direct.model, data=latent)
        found, _ = numpyro.infer.util.log_density(put, (design, Priors(), observed), {}, {})
    return float(found)


@pytest.mark.slow
def test_permuting_names_of_recipes_changes_nothing():
    table = made_up(("a", "b", "c"))
    table.attrs["was"] = {"a": "a", "b": "b", "c": "c"}
    swapped = table.assign(recipe=table["recipe"].map({"a": "b", "b": "c", "c": "a"}))
    swapped.attrs["was"] = {"b": "a", "c": "b", "a": "c"}
    assert density(swapped) == pytest.approx(density(table), rel=1e-9)
    other = table.copy()
    other.attrs["was"] = {"a": "b", "b": "a", "c": "c"}
    assert density(other) != pytest.approx(density(table), rel=1e-6)


@pytest.mark.slow
def test_recipes_that_cannot_be_compared_are_told(ladder_targets_fit):
    _, _, fitted = ladder_targets_fit
    told = message(lc.compare_recipes, fitted, params=1e7, tokens=1e8)
    assert "below the ladder" in told
    targets = pd.DataFrame({"model": ["x"], "params": [3e9], "tokens": [6e10], "recipe": ["wiki"]})
    told = message(lc.compare_recipes, fitted, targets=targets)
    assert "no recipe wiki; its recipes are books, web" in told
    assert "as many of each" in message(lc.compare_recipes, fitted, params=[1e9], tokens=[1e9, 2e9])
    assert "give `params` and `tokens`" in message(lc.compare_recipes, fitted, params=1e9)


def test_a_recipe_without_rungs_is_a_fault():
    table = made_up()
    bare = table.assign(accuracy=table["accuracy"].where(table["recipe"] == "web"))
    assert "no row of recipe books has a measurement" in message(lc.read_ladder, bare)
    unnamed = table.assign(recipe=table["recipe"].where(table.index != 3))
    with pytest.raises(ValueError, match="row 3: recipe is missing"):
        lc.read_ladder(pd.concat([unnamed, made_up(("other", "web"))], ignore_index=True))


@pytest.mark.slow
def test_files_have_the_columns_that_others_build_on(tmp_path, capsys):
    made_up().to_csv(tmp_path / "ladder.csv", index=False)
    known = made_up().query("params == 9e8").assign(params=3e9, tokens=6e10, model="3B")
    known.to_csv(tmp_path / "targets.csv", index=False)
    words = ["compare", f"{tmp_path}/ladder.csv", "--targets", f"{tmp_path}/targets.csv"]
    assert cli.main([*words, "--out", f"{tmp_path}/out", *QUICK]) in (0, 3)
    printed = capsys.readouterr().out
    assert "2512.24503" in printed
    assert "3 rungs: books, web" in printed
    read = {name: pd.read_csv(tmp_path / "out" / f"{name}.csv") for name in
            ("comparisons", "ranking", "forecast", "scores")}  # fmt: skip
    assert list(read["comparisons"]) == [
        "params", "tokens", "task", "a", "b", "probability", "mean", "sd", "q025", "q10", "q50",
        "q90", "q975", "regret_a", "regret_b", "measured",
    ]  # fmt: skip
    assert list(read["ranking"]) == ["params", "tokens", "task", "recipe", "best", "regret", "rank"]
    assert "recipe" in read["forecast"]
    assert set(read["comparisons"]["task"]) == {"easy", "hard", "all"}
    np.testing.assert_allclose(read["comparisons"]["measured"], 0.05)
    assert (read["comparisons"]["probability"] > 0.5).all()
    assert set(read["scores"]["method"]) == {
        "laddercast", "best_rung", "largest_common_rung", "softened_common_rung"
    }  # fmt: skip
    assert (tmp_path / "out" / "compare.png").stat().st_size > 10_000
    # A report of the same folder begins with the forecasts, and has the comparison.
    assert cli.main(["report", f"{tmp_path}/out"]) in (0, 3)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<h3>Which recipe?</h3>" in page
    assert "mean accuracy over 2 tasks" in page
    assert page.count('aria-label="Recipes by rank, mean over tasks"') == 2


def test_bad_questions_end_a_command_before_a_fit(tmp_path, capsys):
    def told(table, **target):
        table.to_csv(tmp_path / "ladder.csv", index=False)
        given = {"model": "big", "params": 3 * 10**9, "tokens": 6 * 10**10} | target
        pd.DataFrame([given]).to_csv(tmp_path / "targets.csv", index=False)
        words = ["compare", f"{tmp_path}/ladder.csv", "--targets", f"{tmp_path}/targets.csv"]
        assert cli.main([*words, "--out", f"{tmp_path}/out"]) == 2
        return capsys.readouterr().err

    assert "there is one recipe" in told(made_up(("web",)))
    assert "below the ladder" in told(made_up(), params=10**7)
    assert "no recipe wiki" in told(made_up(), recipe="wiki")
    chance = made_up().assign(accuracy=0.25)
    assert re.search("every rung is at chance in easy, hard", told(chance))


@pytest.mark.long
def test_a_difference_is_recovered_and_draws_are_joint(ladder_targets_fit):
    _, targets, fitted = ladder_targets_fit
    with quietly():
        found = lc.compare_recipes(fitted, targets=targets)
    pairs = found.comparisons.set_index("task")
    truth = targets.pivot_table("accuracy", "task", "recipe")
    measured = (truth["books"] - truth["web"]).reindex(["task1", "task2"])
    np.testing.assert_allclose(pairs.loc[["task1", "task2"], "measured"], measured)
    single = pairs.loc[measured.index]
    assert measured.between(single["q025"], single["q975"]).all()
    # What recipes share cancels: the difference is known better than either.
    table = lc.forecast_table(found.forecast)
    sd = table.query("quantity == 'accuracy'").pivot_table("sd", "task", "recipe")
    for task in ("task1", "task2"):
        assert pairs.loc[task, "sd"] < np.hypot(*sd.loc[task])
    assert pairs.loc["all", "mean"] == pytest.approx(pairs.loc[measured.index, "mean"].mean())
    regret = pairs["regret_b"] - pairs["regret_a"]
    np.testing.assert_allclose(regret, pairs["mean"], atol=1e-9)
    ranking = found.ranking.groupby("task")
    np.testing.assert_allclose(ranking["best"].sum(), 1)
    assert (ranking["rank"].min() == 1).all()


@pytest.mark.long
def test_a_target_without_recipe_is_forecast_under_each(ladder_targets_fit):
    _, _, fitted = ladder_targets_fit
    plain = pd.DataFrame({"model": ["big"], **{word: [x] for word, x in SCALE.items()}})
    with quietly():
        table = lc.forecast_table(lc.forecast(fitted, plain))
    assert set(table["recipe"]) == set(PAIR)
    assert len(table) == 4


def test_runs_of_one_schedule_are_twins_whatever_their_recipe():
    ladder = lc.read_ladder(made_up())
    design, _, labels, _ = ladder_design(ladder)
    size = [name.split()[0] for name in labels.model]
    assert [size[twin] for twin in design.twin] == size
    assert len(set(design.twin)) == 3
    assert (design.twin <= np.arange(6)).all()

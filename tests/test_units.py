"""Numbers in other units than meant, targets that cannot be, and scalars where lists are meant."""

from pathlib import Path

import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr

import laddercast as lc
from laddercast.data.values import in_full
from test_ladder import message

TARGETS = pd.DataFrame({"model": ["big"], "params": [3 * 10**9], "tokens": [6 * 10**10]})


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("190M", "190000000"), ("4T", "4000000000000"), ("1.28b", "1280000000"),
        ("7 B", "7000000000"),
        ("500k", "500000"), ("3G", "3000000000"), ("1,300,000", "1300000"), (".5M", "500000"),
        ("0.1234567891T", "123456789100"),
        # Not certain, or no number: left as they are.
        ("1,300", "1,300"), ("1,300M", "1,300M"), ("7x", "7x"), ("M", "M"), ("-7B", "-7B"),
        ("1e9", "1e9"),        ("7BB", "7BB"), ("", ""),
    ],
)  # fmt: skip
def test_counts_with_units(text: str, digits: str) -> None:
    assert in_full(text) == digits


def test_units_in_text_are_the_numbers_in_full(small_table: pd.DataFrame, tmp_path: Path) -> None:
    known = lc.read_ladder(small_table)
    written = small_table.assign(
        params=[f"{params / 1e6:g}M" for params in small_table.params],
        tokens=[str(tokens) for tokens in small_table.tokens],
    )
    assert lc.read_ladder(written).fingerprint == known.fingerprint
    written.to_csv(tmp_path / "ladder.csv", index=False)
    assert lc.read_ladder(tmp_path / "ladder.csv").fingerprint == known.fingerprint
    targets = lc.read_targets({"model": "x", "params": "6.9B", "tokens": "1.3e12"})
    assert targets[["params", "tokens"]].to_numpy().tolist() == [[6_900_000_000, 1_300_000_000_000]]


def scaled(table: pd.DataFrame, **factors: float) -> pd.DataFrame:
    return table.assign(
        **{w: (table[w] / x).round().clip(lower=1).astype(int) for w, x in factors.items()}
    )


UNITS = {
    "params in millions": ({"params": 1e6},
                           "row 0: params 200 is below 100,000 (also row 24: params"),
    "params in billions": ({"params": 1e9}, "params 1 is below 100,000"),
    "tokens in billions": ({"tokens": 1e9},
                           "row 0: tokens 4 is below 1,000,000 (also row 24: tokens"),
    "tokens in millions": ({"tokens": 1e6}, "row 0: tokens 4000 is below 1,000,000"),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNITS)
def test_other_units_of_a_ladder_are_refused(kind: str, small_table: pd.DataFrame) -> None:
    factors, part = UNITS[kind]
    table = small_table.drop_duplicates(["model", "task"], keep="last").reset_index(drop=True)
    whole = scaled(small_table, **factors)
    # Checkpoints of one rounded number are no fault of their own here.
    whole = whole.drop_duplicates(["model", "task", "tokens"])
    error = message(lc.read_ladder, whole)
    assert part in error
    assert "no language model has so few: give the whole number, or its unit, as in" in error
    assert "\n" not in error
    assert part.split(" (")[0].rpartition(": ")[2] in message(
        lc.read_targets, scaled(table, **factors)
    )


def test_early_checkpoints_may_be_short(small_table: pd.DataFrame) -> None:
    first = small_table.groupby("model").tokens.transform("min")
    table = small_table.assign(tokens=small_table.tokens.where(small_table.tokens > first, 32_768))
    assert len(lc.read_ladder(table)) == len(table)


def test_numbers_beyond_any_model_are_refused() -> None:
    error = message(lc.read_targets, TARGETS.assign(params=10**16))
    assert "params 10000000000000000 is above" in error or "params 1e+16 is above" in error
    assert "no language model has so many" in error


WRONG_TARGETS = {
    "both in billions": ({"params": 13, "tokens": 5}, ["params 13 is below", "tokens 5 is below"]),
    "params in millions": ({"params": 13_000}, ["params 13000 is below 100,000"]),
    "params in thousands": (
        {"params": 1_300_000},
        ["params of big (1,300,000): below every rung by more than 100 times", "is 200,000,000"],
    ),
    "tokens in thousands": (
        {"tokens": 5_000_000},
        ["tokens of big (5,000,000): below every rung", "the least is 4,000,000,000", "4B or 2T"],
    ),
    "other task": (
        {"task": "hrad", "accuracy": 0.5},
        ["no such task: hrad; did you mean hard? the tasks of the ladder are easy, hard", "rename"],
    ),
    "a rung's name": (
        {"model": "800M-20"},
        ["800M-20 has 3,000,000,000 params, the rung of this name 800,000,000; give the target"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG_TARGETS)
def test_targets_that_cannot_be_meant(kind: str, small_table: pd.DataFrame) -> None:
    change, parts = WRONG_TARGETS[kind]
    ladder, targets = lc.read_ladder(small_table), TARGETS.assign(**change)
    for rival in (lc.baseline, lc.best_rung, lc.logistic):
        error = message(rival, ladder, targets)
        assert all(part in error for part in parts), error
        assert error.count("\n") == (0 if len(parts) == 1 or kind != "both in billions" else 2)


def test_a_longer_run_of_a_rung_is_a_target(small_table: pd.DataFrame) -> None:
    longer = pd.DataFrame([{"model": "800M-20", "params": 8 * 10**8, "tokens": 10**12}])
    assert len(lc.best_rung(lc.read_ladder(small_table), longer)) == 2


OUTSIDE = {
    "q": (dist.Normal(1, 1),
          "reaches below 0, and q is positive; give one that is, as LogNormal(0.4"),
    "reference_alpha": (dist.Laplace(0.3, 0.1), "reaches below 0"),
    "log_alpha_scale": (dist.Uniform(-1, 1), "reaches below 0"),
    "run_loss_correlation": (dist.HalfNormal(1),
                             "reaches above 1, and run_loss_correlation is between"),
    "walk_loss_correlation": (dist.Normal(0.5, 0.1), "reaches below 0"),
    "noise_reference": (dist.Poisson(1), "is of whole numbers; give a continuous one"),
}  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_priors_where_the_parameter_cannot_be(name: str) -> None:
    prior, part = OUTSIDE[name]
    error = message(lc.Priors, **{name: prior})
    assert error.startswith(f"the prior of {name}, {type(prior).__name__}, ")
    assert part in error


@pytest.mark.parametrize(
    "given",
    [
        {"q": dist.HalfNormal(1)}, {"q": dist.Uniform(0, 3)}, {"q": dist.Gamma(2, 2)},
        {"q": dist.TruncatedNormal(1, 1, low=0)}, {"run_loss_correlation": dist.Uniform(0, 1)},
        {"log_alpha_center": dist.StudentT(3, 0, 1)}, {"q": dist.Beta(2, 2)},
        {"unfinished_loss": dist.HalfNormal(0.1)},
    ],
)  # fmt: skip
def test_other_priors_within_the_support(given: dict) -> None:
    assert lc.Priors(**given)


def test_all_faults_of_priors_come_at_once() -> None:
    error = message(lc.Priors, q=dist.Normal(1, 1), reference_beta=dist.Normal(1, 1))
    assert "the prior of q, Normal" in error
    assert "the prior of reference_beta, Normal" in error


def test_rivals_take_a_scalar_for_a_list(small_table: pd.DataFrame) -> None:
    ladder = lc.read_ladder(small_table)
    one = lc.baseline(ladder, TARGETS.to_dict("records"), "two_step")
    pd.testing.assert_frame_equal(one, lc.baseline(ladder, TARGETS, ["two_step"]))


@pytest.mark.parametrize("value", ["many", 0, 2.5, None, True, float("nan")])
def test_what_is_no_whole_number_is_told_in_one_line(
    value: object, small_table: pd.DataFrame
) -> None:
    ladder = lc.read_ladder(small_table)
    assert f"draws={value!r}: give a whole number from 1 to" in message(lc.fit, ladder, draws=value)
    error = message(lc.bootstrap, ladder, TARGETS, replicates=value)
    assert error == f"replicates={value!r}: give a whole number of at least 1"


@pytest.mark.slow
def test_whole_numbers_of_other_types(small_table: pd.DataFrame) -> None:
    ladder = lc.read_ladder(small_table)
    few = lc.bootstrap(ladder, TARGETS, replicates=3.0)
    assert few["predictions"].sizes["draw"] == 3
    xr.testing.assert_equal(
        few["predictions"].to_dataset(),
        lc.bootstrap(ladder, TARGETS, replicates=np.int32(3))["predictions"].to_dataset(),
    )


def test_simulated_ladders_of_one_size() -> None:
    truth = lc.demo_ladder()[2]
    one, _ = lc.simulate(truth, sizes=2e8, tokens_per_param=(20, 40), checkpoints=4.0)
    several, _ = lc.simulate(truth, sizes=[2e8], tokens_per_param=[20, 40], checkpoints=4)
    assert one.fingerprint == several.fingerprint

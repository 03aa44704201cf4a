import numpy as np
import pandas as pd
import pytest

from laddercast.data.ladder import as_targets, read_ladder
from laddercast.evaluation.folds import CUTS, KINDS, cut_folds


def cells_of(table):
    return set(table[["model", "task"]].itertuples(index=False, name=None))


def held_out_by_fold(ladder, *kinds):
    folds, faults = cut_folds(ladder, kinds)
    assert not faults
    return {fold.name: set(fold.held_out["model"]) for fold in folds}


@pytest.mark.parametrize("kind", KINDS)
def test_rungs_and_targets_share_out_the_ladder(rerun_table, kind):
    ladder = read_ladder(rerun_table)
    folds, faults = cut_folds(ladder, [kind])
    assert folds
    assert not faults
    for fold in folds:
        assert fold.kind == kind
        assert not cells_of(fold.rungs.table) & cells_of(fold.held_out)
        assert cells_of(fold.rungs.table) | cells_of(fold.held_out) == cells_of(rerun_table)
        assert fold.rungs.rungs == ladder.rungs
        here = [cell in cells_of(fold.held_out) for cell in zip(
            ladder.table["model"], ladder.table["task"], strict=True)]  # fmt: skip
        pd.testing.assert_frame_equal(fold.held_out, as_targets(ladder.table[here]))


def test_sizes_forecast_all_that_is_larger(wide_table):
    larger = wide_table[wide_table["params"] == 800_000_000].copy()
    larger["model"] = larger["model"].str.replace("800M", "1600M")
    larger["params"] *= 2
    ladder = read_ladder(pd.concat([wide_table, larger], ignore_index=True))
    lengths = (20, 100, 200)
    largest = {f"1600M-{length}" for length in lengths}
    assert held_out_by_fold(ladder, "sizes") == {  # 200M alone cannot be fitted
        "params <= 4e+08": {f"800M-{length}" for length in lengths} | largest,
        "params <= 8e+08": largest,
    }
    assert held_out_by_fold(ladder, "largest-size") == {"params <= 8e+08": largest}


def test_lengths_forecast_all_that_is_longer(wide_table):
    longer = wide_table[wide_table["model"].str.endswith("-200")].copy()
    longer["model"] = longer["model"].str.replace("-200", "-400")
    longer["tokens"] *= 2
    ladder = read_ladder(pd.concat([wide_table, longer], ignore_index=True))
    longest = {f"{size}M-400" for size in (200, 400, 800)}
    found = {
        "tokens per parameter <= 100": {f"{size}M-200" for size in (200, 400, 800)} | longest,
        "tokens per parameter <= 200": longest,
    }
    assert held_out_by_fold(ladder, "lengths") == found
    half = "tokens per parameter <= 100"
    assert held_out_by_fold(ladder, "longest-runs") == {half: found[half]}


def test_one_size_leaves_out_each_in_turn(wide_table):
    assert held_out_by_fold(read_ladder(wide_table), "one-size") == {
        f"params = {size:.3g}": {f"{size / 1e6:.0f}M-{length}" for length in (20, 100, 200)}
        for size in (2e8, 4e8, 8e8)
    }


def test_one_task_keeps_the_fewest_sizes_that_can_be_fitted(wide_table):
    folds, _ = cut_folds(read_ladder(wide_table), ["one-task"])
    assert [fold.name for fold in folds] == ["easy", "hard"]
    for fold in folds:
        assert set(fold.held_out["task"]) == {fold.name}
        table = fold.rungs.table
        kept = table.loc[table["task"] == fold.name, "model"]
        assert set(kept) == {"200M-20", "200M-100", "200M-200"}  # three models are enough
        assert set(table.loc[table["task"] != fold.name, "model"]) == set(wide_table["model"])


def test_one_task_needs_other_tasks_and_larger_measurements(wide_table):
    alone = read_ladder(wide_table[wide_table["task"] == "easy"])
    folds, faults = cut_folds(alone, ["one-task"])
    assert not folds
    assert "there is one task" in faults[0]
    unmeasured = (wide_table["task"] == "hard") & (wide_table["params"] > 2e8)
    table = wide_table.assign(accuracy=wide_table["accuracy"].mask(unmeasured))
    folds, faults = cut_folds(read_ladder(table), ["one-task"])
    assert [fold.name for fold in folds] == ["easy"]
    assert faults == ["no fold `one-task`: hard: no larger model has measured it"]


def test_reruns_forecast_the_later_name_of_each_pair(rerun_table, wide_table):
    names = {"200M-20-rerun", "800M-100-rerun"}
    assert list(held_out_by_fold(read_ladder(rerun_table), "reruns").values()) == [names]
    folds, faults = cut_folds(read_ladder(wide_table), ["reruns"])
    assert not folds
    assert faults == ["no fold `reruns`: no two models are of one size and length"]


def test_a_fold_comes_once_under_its_first_kind(wide_table):
    ladder = read_ladder(wide_table)
    folds, _ = cut_folds(ladder, ["largest-size", "sizes", "one-size"])
    assert [fold.kind for fold in folds] == ["largest-size", "one-size", "one-size"]


def test_many_levels_are_cut_evenly_with_both_ends(small_table):
    of_each = small_table.groupby(["model", "task"]).tail(1)
    parts = [
        of_each.assign(
            model=of_each["model"] + f"-{factor}",
            tokens=(of_each["tokens"] * factor).round().astype(int),
        )
        for factor in np.geomspace(1, 4, 8)
    ]
    ladder = read_ladder(pd.concat(parts, ignore_index=True))
    folds, _ = cut_folds(ladder, ["lengths"])
    assert len(folds) == CUTS
    ends = ladder.table.groupby("model")[["params", "tokens"]].max()
    ratio = (ends["tokens"] / ends["params"]).round(3)
    assert folds[-1].held_out["model"].nunique() == (ratio == ratio.max()).sum()
    counts = [fold.held_out["model"].nunique() for fold in folds]
    assert counts == sorted(counts, reverse=True)


def test_what_cannot_be_fitted_is_told_with_its_reason(small_table):
    folds, faults = cut_folds(read_ladder(small_table), ["lengths", "sizes"])
    assert [fold.kind for fold in folds] == ["sizes"]
    assert len(faults) == 1
    assert faults[0].startswith("no fold `lengths`: what is left is not fitted (")
    assert "it lacks rungs off one line in log params and log tokens" in faults[0]


def test_a_thin_ladder_is_cut_as_far_as_it_can_be_fitted(small_table):
    line = read_ladder(small_table[small_table["model"].str.endswith("-20")])
    assert held_out_by_fold(line, "sizes") == {"params <= 4e+08": {"800M-20"}}
    rungs, _ = read_ladder(small_table).split(max_params=3e8)
    assert rungs.models == ["200M-20", "200M-100"]
    folds, faults = cut_folds(rungs, ["sizes", "lengths"])
    assert not folds
    assert len(faults) == 2
    losses = read_ladder(small_table.drop(columns=["accuracy", "chance", "items"]))
    assert [fold.kind for fold in cut_folds(losses, ["sizes", "one-task"])[0]] == [
        "sizes", "one-task", "one-task"
    ]  # fmt: skip


def test_unknown_kinds_are_refused(small_table):
    with pytest.raises(ValueError, match=r"no such fold: size; did you mean sizes\? folds are"):
        cut_folds(read_ladder(small_table), ["size"])


@pytest.mark.slow
def test_folds_of_measured_runs(data_dir):
    tables = [pd.read_csv(data_dir / f"olmo_{name}.csv") for name in ("ladder", "extra_rungs")]
    ladder = read_ladder(pd.concat(tables), data_dir / "olmo_tasks.csv")
    folds, faults = cut_folds(ladder, ["sizes", "lengths", "reruns"])
    assert not faults
    fitted = [(fold.kind, len(fold.rungs.models)) for fold in folds]
    # Of 30 runs, 6 of each of five sizes, every 1xC twice: a size alone, or 0.5xC, is too little.
    sizes = [("sizes", 12), ("sizes", 18), ("sizes", 24)]
    assert fitted == [*sizes, ("lengths", 15), ("lengths", 20), ("lengths", 25), ("reruns", 25)]


def test_a_fold_keeps_each_quantity_of_the_ladder(small_table):
    small = small_table["params"] < 5e8
    table = small_table.assign(accuracy=small_table["accuracy"].mask(small))
    _, faults = cut_folds(read_ladder(table), ["largest-size", "reruns"])
    assert "what is left is not fitted" in faults[0]

import contextlib
import dataclasses
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from laddercast.data.faults import SHOWN
from laddercast.data.ladder import (
    Ladder,
    as_targets,
    checkpoint_spread,
    read_ladder,
    read_targets,
    run_ends,
)
from laddercast.data.lines import factor_off, off_line

TASKS = pd.DataFrame({"task": ["easy", "hard"], "chance": [0.25, 0.5], "items": [2000, 500]})


def message(read: Callable[..., object], *args: object, **kwargs: object) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is what is tested
        read(*args, **kwargs)
    assert type(caught.value) is ValueError
    return str(caught.value)


def put(row: int, column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def corrupt(table: pd.DataFrame) -> pd.DataFrame:
        values = table.get(column, pd.Series(index=table.index)).astype(object)
        values[row] = value
        return table.assign(**{column: values.infer_objects()})

    return corrupt


def fill(column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda table: table.assign(**{column: value})


def rename(old: str, new: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda table: table.rename(columns={old: new})


def drop(*columns: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda table: table.drop(columns=list(columns))


def only(condition: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda table: table.query(condition)


FAULTS: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], list[str]]] = {
    "missing column": (drop("tokens"), ["ladder: column `tokens` is missing; add it to model,"]),
    "missing columns": (
        drop("tokens", "task"),
        ["columns `tokens`, `task` are missing; add them to model"],
    ),
    "misspelt column": (rename("params", "parms"), ["column `params` is missing; rename `parms`"]),
    "column in capitals": (rename("accuracy", "Accuracy"), ["`accuracy`", "rename `Accuracy`"]),
    "misspelt loss beside reference_loss": (
        rename("loss", "losss"),
        ["column `losss` looks like a misspelt `loss`; rename it"],
    ),
    "nothing measured": (
        drop("accuracy", "loss", "reference_loss"),
        ["column `accuracy`, `loss` or `reference_loss` is missing; add it to model,"],
    ),
    "reference loss alone": (
        drop("accuracy", "loss"),
        ["only `reference_loss` is given", "call it `loss` to forecast it"],
    ),
    "misspelt reference_loss": (
        lambda table: table.drop(columns=["loss", "accuracy"]).rename(
            columns={"reference_loss": "ref_loss"}
        ),
        ["column `reference_loss` is missing; rename `ref_loss`"],
    ),
    "no chance": (drop("chance"), ["column `chance` is missing; add it"]),
    "short accuracy": (rename("accuracy", "acc"), ["`accuracy` is missing; rename `acc`"]),
    "params of every row": (
        lambda table: table.assign(params=table.params + table.index * (table.index < 24)),
        [
            "row 1: model 200M-20 has params 200000000 and 200000001 and 200000002 and 200000003 "
            "and 200000004 and 19 more; give each model one size"
        ],
    ),
    "misspelt chance": (rename("chance", "chnace"), ["`chance` is missing; rename `chnace`"]),
    "misspelt items": (rename("items", "itmes"), ["`itmes` looks like a misspelt `items`; rename"]),
    "misspelt recipe": (
        lambda table: table.assign(recipes="a"),
        ["`recipes` looks like a misspelt `recipe`; rename"],
    ),
    "column twice": (
        lambda table: pd.concat([table, table[["loss"]]], axis=1),
        ["columns given twice: loss; keep one of each"],
    ),
    "column in the index": (
        lambda table: table.set_index("model"),
        ["column `model` is missing; it is in the index: give `table.reset_index()`"],
    ),
    "empty table": (only("tokens < 0"), ["ladder: the table is empty; give rows"]),
    "no column": (lambda _: pd.DataFrame(), ["ladder: the table is empty; give a table"]),
    "no model": (put(7, "model", None), ["row 7: model is missing; name it"]),
    "blank task": (put(7, "task", "  "), ["row 7: task is missing; name it"]),
    "no params": (put(7, "params", None), ["row 7: params is missing; give a whole number"]),
    "text for accuracy": (put(7, "accuracy", "n/a"), ["row 7: accuracy n/a is not a number; give"]),
    "text for tokens": (
        put(7, "tokens", "20 boxes"),
        ["row 7: tokens 20 boxes is not a number; give"],
    ),
    "boolean accuracy": (
        fill("accuracy", True),
        ["row 0: accuracy True is not a number (also rows 1, 2, 3, 4 and 139 more); give"],
    ),
    "date for tokens": (
        fill("tokens", pd.Timestamp("2025-01-01")),
        ["row 0: tokens 2025-01-01", "is not a number (also rows 1, 2,"],
    ),
    "infinite loss": (put(7, "loss", np.inf), ["row 7: loss inf is infinite; give a finite"]),
    "infinite tokens": (put(7, "tokens", np.inf), ["row 7: tokens inf is infinite; give a finite"]),
    "percent": (
        lambda table: table.assign(accuracy=table.accuracy.where(table.index != 7, 47.2)),
        ["row 7: accuracy 47.2 is above 1; give fractions, not percent"],
    ),
    "negative accuracy": (put(7, "accuracy", -0.01), ["row 7: accuracy -0.01 is below 0; give"]),
    "no values": (
        lambda table: table.assign(loss=None, reference_loss=np.nan, accuracy=" "),
        ["no row has a value of accuracy or loss or reference_loss; give what was measured"],
    ),
    "loss of zero": (put(7, "loss", 0.0), ["row 7: loss 0 is not above 0; leave it empty"]),
    "loss beyond any": (
        put(7, "loss", 1e308),
        ["row 7: loss 1e+308 is above 1,000,000,000; no language model"],
    ),
    "negative params": (
        lambda table: table.assign(params=table.params.where(table.index > 23, -1).astype(float)),
        ["row 0: params -1 is not above 0 (also rows 1, 2, 3, 4 and 19 more); give a whole"],
    ),
    "tokens of zero": (put(7, "tokens", 0), ["row 7: tokens 0 is not above 0; give a whole"]),
    "tokens in billions": (put(7, "tokens", 20.5), ["row 7: tokens 20.5 is fractional; give"]),
    "huge tokens": (put(7, "tokens", 2**64), ["row 7: tokens 1.8446744073709552e+19 is too large"]),
    "two params": (
        put(7, "params", 300_000_000),
        ["row 7: model 200M-20 has params 200000000 and 300000000; give each model one size"],
    ),
    "duplicate": (
        lambda table: pd.concat([table, table.iloc[[7]]], ignore_index=True),
        ["row 7: 200M-20 x hard x 1333333333 is given twice (also row 144); keep one row for each"],
    ),
    "chance of one": (
        lambda table: table.assign(chance=table.chance.where(table.task != "hard", 1)),
        ["row 1: chance 1 is outside [0, 1); give the accuracy of guessing as a fraction"],
    ),
    "negative chance": (fill("chance", -0.1), ["row 0: chance -0.1 is outside [0, 1)"]),
    "task without chance": (
        lambda table: table.assign(chance=table.chance.where(table.task != "hard")),
        ["row 1: task hard has no chance; give the accuracy of guessing, 0 if there is none"],
    ),
    "two chances": (
        put(7, "chance", 0.4),
        ["row 7: task hard has more than one chance or number of items; keep one of each"],
    ),
    "text for chance": (
        fill("chance", "low"),
        ["row 0: chance low is not a number (also row 1); give a number"],
    ),
    "no items": (
        lambda table: table.assign(**{"items": table["items"].where(table.task != "hard", 0)}),
        ["row 1: items 0 is below 1; give the number of questions"],
    ),
    "two kinds of loss": (
        lambda table: table.assign(loss_kind=np.where(table.index < 7, "bits", "nats")),
        ["row 7: more than one loss_kind (bits, nats); losses of several definitions"],
    ),
    "a row of no recipe": (
        lambda table: table.assign(recipe=np.resize(["a", "b", ""], len(table))),
        ["row 2: recipe is missing (also rows 5, 8,"],
    ),
    "a third of a checkpoint": (
        lambda table: table.assign(checkpoints=1 / 3),
        ["row 0: checkpoints 0.3333333333333333 is not a count (also rows 1,"],
    ),
    "two checkpoints and a half": (put(7, "checkpoints", 2.5), ["row 7: checkpoints 2.5 is not a"]),
    "one model": (
        only("model == '200M-20'"),
        ["fewer than 2 models have measurements (200M-20); add models"],
    ),
    "a task without measurements": (
        lambda table: table.assign(
            **{
                word: table[word].where(table.task == "easy")
                for word in ("accuracy", "loss", "reference_loss")
            }
        ),
        ["no row has a measurement of hard; add some, or leave the task out"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_names_row_value_and_cure(fault: str, small_table: pd.DataFrame) -> None:
    corrupt, parts = FAULTS[fault]
    error = message(read_ladder, corrupt(small_table))
    assert all(part in error for part in parts), error
    assert error.count("\n") == 0, f"one fault gives one line: {error}"


WEIRD: list[object] = [
    None, np.nan, pd.NA, pd.NaT, np.inf, -np.inf, -1, 0, 0.5, 1e300, 47, 2**53 + 1, 2**63, 10**30,
    "", " ", "abc", "1e9", "nan", "-inf", "1_0", "0x10", True, b"x", Decimal("0.5"), 1 + 2j, [1, 2],
    {}, (), object(), np.float32(0.3), np.array([1.0, 2.0]), pd.Timestamp("2025-01-01"),
    pd.Timedelta(1, "s"), pd.Period("2025"), pd.Interval(0, 1), pd.Series([1]),
]  # fmt: skip
DTYPES = [
    "category", "object", "str", "Int64", "Float64", "float32", "bool", "boolean", "complex",
    "datetime64[ns]", "timedelta64[s]", "int64[pyarrow]", "double[pyarrow]", "Sparse[float]",
]  # fmt: skip
Corruption = Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]


def of_column(change: Callable[[pd.Series, np.random.Generator], pd.Series]) -> Corruption:
    def corrupt(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
        columns = [table.iloc[:, i] for i in range(table.shape[1])]
        at = rng.integers(len(columns))
        columns[at] = change(columns[at], rng)
        return pd.concat(columns, axis=1)

    return corrupt


def some_cells(column: pd.Series, rng: np.random.Generator) -> pd.Series:
    cells, value = list(column), WEIRD[rng.integers(len(WEIRD))]
    for row in rng.integers(len(cells), size=rng.integers(1, 5)):
        cells[row] = value
    dtype = None if rng.random() < 0.5 else object
    return pd.Series(cells, column.index, name=column.name, dtype=dtype)


def all_cells(column: pd.Series, rng: np.random.Generator) -> pd.Series:
    value = WEIRD[rng.integers(len(WEIRD))]
    return pd.Series([value] * len(column), column.index, name=column.name)


def new_index(table: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    names = list(table.columns[rng.integers(table.shape[1], size=2)])
    indices: list[object] = [
        names, names[0], pd.Index([0] * len(table), name="model"), pd.Index([np.nan] * len(table)),
        pd.date_range("2025-01-01", periods=len(table), name="task"),
        pd.MultiIndex.from_product([range(len(table)), ["x"]], names=["params", None]),
    ]  # fmt: skip
    return table.set_index(indices[rng.integers(len(indices))], drop=bool(rng.random() < 0.3))


FUZZ: dict[str, Corruption] = {
    "some cells": of_column(some_cells),
    "all cells": of_column(all_cells),
    "dtype": of_column(lambda column, rng: column.astype(DTYPES[rng.integers(len(DTYPES))])),
    "fewer columns": lambda table, rng: table.iloc[:, rng.permutation(table.shape[1])[1:]],
    "column twice": lambda table, rng: table.iloc[:, [*range(table.shape[1]), rng.integers(3)]],
    "columns swapped": lambda table, rng: table.set_axis(rng.permutation(table.columns), axis=1),
    "other names": lambda table, rng: table.set_axis(
        [[*range(table.shape[1])], [[0, name] for name in table.columns]][rng.integers(2)], axis=1
    ),
    "misspelt": lambda table, rng: table.rename(
        columns=lambda name: name[:-1] if rng.random() < 0.1 else name
    ),
    "rows twice": lambda table, rng: pd.concat([table, table.sample(3, random_state=rng)]),
    "fewer rows": lambda table, rng: table.sample(rng.integers(12), random_state=rng),
    "index": new_index,
    "known as well": lambda table, rng: table.assign(
        **{["recipe", "loss_kind", "checkpoints", "flops", "seed"][rng.integers(5)]: rng.random()}
    ),
    "none": lambda table, rng: table.sample(frac=1, random_state=rng),
}


@pytest.mark.slow
def test_whatever_is_done_to_a_table_it_is_read_or_refused(small_table: pd.DataFrame) -> None:
    ours = re.compile(r"(\d+ faults:\n- )?(ladder|tasks|targets)( row .+)?: .+; .+")
    read = {"ladder": 0, "targets": 0}
    refused = {}
    cases = 240
    for seed in range(cases):
        rng = np.random.default_rng(seed)
        table = small_table
        for _ in range(rng.integers(1, 4)):
            corrupt = list(FUZZ.values())[rng.integers(len(FUZZ))]
            with contextlib.suppress(Exception):  # what pandas refuses to build is no table
                table = corrupt(table, rng)
        try:
            if seed % 3:
                ladder = read_ladder(table, (None, TASKS)[rng.integers(2)])
                read["ladder"] += 1
                assert 0 < len(run_ends(ladder.table)) == len(as_targets(ladder.table))
            else:
                read["targets"] += bool(len(read_targets(table)))
        except ValueError as error:
            refused[seed] = error
    assert {seed: error for seed, error in refused.items() if not ours.match(str(error))} == {}
    assert {type(error) for error in refused.values()} == {ValueError}
    assert all(read.values())
    assert len(refused) > cases / 2


UNREADABLE: dict[str, tuple[str, bytes, str]] = {
    "zero bytes": ("table.csv", b"", "the file is empty; give a table with a header and rows"),
    "zero bytes of Parquet": ("table.parquet", b"", "cannot be read ("),
    "header only": (
        "table.csv",
        b"model,params,tokens,task,accuracy,loss,chance\n",
        "table is empty;",
    ),
    "random bytes": ("table.csv", np.random.default_rng(0).bytes(2000), "cannot be read ("),
    "random bytes as Parquet": (
        "table.parquet",
        np.random.default_rng(0).bytes(2000),
        "cannot be read (",
    ),
    "NUL": ("table.csv", b"\0" * 100, "cannot be read (NUL bytes"),
    "UTF-16": ("table.csv", "model,params\na,1\n".encode("utf-16"), "give CSV in UTF-8"),
    "UTF-16 without a mark": (
        "table.csv",
        "model,params\na,1\n".encode("utf-16-le"),
        "as in UTF-16",
    ),
    "Latin-1": ("table.csv", "model,params\né,1\n".encode("latin-1"), "give CSV in UTF-8"),
    "not gzip": ("table.csv.gz", b"model,params\na,1\n", "cannot be read ("),
    "semicolons": ("table.csv", b"model;params\na;1\n", "columns are not separated by commas"),
    "blank first line": ("table.csv", b"\nmodel,params\na,1\n", "the first line is blank"),
    "one row too long": ("table.csv", b"model,params\na,1\nb,2,3\n", "Expected 2 fields in line 3"),
    "every row too long": ("table.csv", b"model,params\na,1,3\nb,2,3\n", "Length of header"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_unreadable_file_is_one_fault(kind: str, tmp_path: Path) -> None:
    name, content, part = UNREADABLE[kind]
    path = tmp_path / name
    path.write_bytes(content)
    for read in (read_ladder, read_targets):
        error = message(read, path)
        assert part in error
        assert error.startswith(f"{name}: ")
        assert "; give " in error


def test_no_file_and_no_table() -> None:
    assert message(read_ladder, "absent/ladder.csv") == (
        "absent/ladder.csv: no such file; check the path"
    )
    told = message(read_ladder, Path(__file__).parent)
    assert "tests: is a folder, which cannot be read as a table; give a CSV" in told
    assert "--from" in told
    cure = "give a path, a DataFrame, a dict of columns or a list of dicts"
    assert message(read_ladder, [1]) == f"ladder: list is no table; {cure}"
    assert message(read_ladder, 7) == f"ladder: int is no table; {cure}"


def test_a_bad_kind_of_rungs(small_table: pd.DataFrame) -> None:
    assert 'use "last" or "every"' in message(read_ladder, small_table, rungs="all")


def test_other_columns_and_unnamed_recipes_are_no_fault(small_table: pd.DataFrame) -> None:
    recipe = np.where(small_table.index < 7, "a", "")
    table = small_table.assign(loss_sd=0.1, recipe_id=1, checkpoint=2, step=3, recipe=recipe)
    without_loss = table.drop(columns="loss")
    for given in (table, without_loss, table.drop(columns="recipe")):
        assert set(read_ladder(given).table) == set(given)


def test_all_faults_come_in_one_error(small_table: pd.DataFrame) -> None:
    table = small_table.assign(
        accuracy=small_table.accuracy.where(small_table.index != 6, 47),
        params=small_table.params.where(small_table.model != "800M-20", 0),
    )
    tasks = TASKS.assign(chance=[0.25, 25], items=[0, 500])
    lines = message(read_ladder, table.query("model != '200M-20' or task == 'easy'"), tasks)
    parts = ["faults:", "tasks row 1: chance 25 is outside", "tasks row 0: items 0 is below 1",
             "params 0 is not above 0", "accuracy 47 is above 1"]  # fmt: skip
    assert [part for part in parts if part not in lines] == []
    assert lines.startswith(f"{len(lines.splitlines()) - 1} faults:\n- ")


def test_one_unreadable_file_hides_no_fault_of_the_other(
    small_table: pd.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "empty.csv"
    path.touch()
    error = message(read_ladder, small_table.assign(accuracy=47), path)
    assert "empty.csv: the file is empty" in error
    assert "accuracy 47 is above 1" in error
    error = message(read_ladder, path, TASKS.assign(chance=[0.25, 1]))
    assert "empty.csv: the file is empty" in error
    assert "tasks row 1: chance 1 is outside [0, 1)" in error


def test_many_rows_of_a_fault_are_counted(small_table: pd.DataFrame) -> None:
    error = message(read_ladder, small_table.assign(accuracy=small_table.accuracy * 100))
    shown = ", ".join(f"row {i}: accuracy {small_table.accuracy[i] * 100}" for i in range(1, SHOWN))
    assert f"(also {shown} and {len(small_table) - SHOWN} more); give fractions" in error


def test_rows_of_a_file_count_its_header_and_its_blank_lines(
    small_table: pd.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "ladder.csv"
    small_table.assign(accuracy=small_table.accuracy.where(small_table.index != 5, 2)).to_csv(
        path, index=False
    )
    assert message(read_ladder, path).startswith("ladder.csv row 7: accuracy 2 is above 1")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], "", ",,,,,,,,", *lines[3:], "", ""]))
    assert message(read_ladder, path).startswith("ladder.csv row 9: accuracy 2 is above 1")


TASK_FAULTS: dict[str, tuple[pd.DataFrame, str]] = {
    "no chance": (TASKS[["task"]], "tasks: column `chance` is missing; add it to task"),
    "misspelt task": (TASKS.rename(columns={"task": "tasks"}), "`task` is missing; rename `tasks`"),
    "misspelt items": (TASKS.rename(columns={"items": "item"}), "`item` looks like a misspelt"),
    "no rows": (TASKS[:0], "tasks: the table is empty;"),
    "no columns": (pd.DataFrame(), "tasks: the table is empty;"),
    "unnamed": (TASKS.assign(task=["easy", None]), "tasks row 1: task is missing; name it"),
    "twice": (pd.concat([TASKS, TASKS[:1]]), "tasks row 0: task easy is given twice; keep one"),
    "unknown": (
        TASKS.assign(task=["easy", "heard"]),
        "tasks row 1: task heard is in no row of ladder; did you mean hard? its tasks are easy,",
    ),
    "missing chance": (TASKS.assign(chance=[0.25, None]), "tasks row 1: task hard has no chance;"),
    "infinite items": (TASKS.assign(items=[np.inf, 1]), "tasks row 0: items inf is infinite;"),
}


@pytest.mark.parametrize("fault", TASK_FAULTS)
def test_fault_of_the_tasks(fault: str, small_table: pd.DataFrame) -> None:
    tasks, part = TASK_FAULTS[fault]
    error = message(read_ladder, small_table.drop(columns=["chance", "items"]), tasks)
    assert part in error
    assert error.count("\n") == 0


def test_tasks_choose_and_other_tasks_do_no_harm(small_table: pd.DataFrame) -> None:
    hard = small_table.task == "hard"
    broken = small_table.assign(
        accuracy=small_table.accuracy.astype(object).mask(hard, "bad"),
        tokens=small_table.tokens.astype(object).mask(hard, None),
        recipe=np.where(hard, "a", "b"),
    )
    ladder = read_ladder(broken, TASKS[:1])
    assert set(ladder.table.task) == set(ladder.tasks.index) == {"easy"}
    assert "accuracy bad is not a number" in message(read_ladder, broken, TASKS)


def test_tasks_from_the_ladder_or_beside_it_are_the_same(small_table: pd.DataFrame) -> None:
    own = read_ladder(small_table)
    beside = read_ladder(small_table.drop(columns=["chance", "items"]), TASKS)
    indexed = read_ladder(small_table, TASKS.set_index("task"))
    assert own.fingerprint == beside.fingerprint == indexed.fingerprint
    assert own.tasks.loc["hard"].to_dict() == {"chance": 0.5, "items": 500}
    without = read_ladder(small_table.drop(columns="items"), TASKS[["task", "chance"]])
    assert without.tasks["items"].isna().all()
    assert read_ladder(small_table, TASKS[["task"]]).fingerprint == own.fingerprint


@pytest.mark.parametrize("given", [["accuracy"], ["loss"], ["accuracy", "reference_loss"]])
def test_a_ladder_has_accuracies_or_losses(given: list[str], small_table: pd.DataFrame) -> None:
    others = [word for word in ("accuracy", "loss", "reference_loss") if word not in given]
    ladder = read_ladder(small_table.drop(columns=others))
    emptied = read_ladder(small_table.assign(**dict.fromkeys(others)))
    assert ladder.models == emptied.models
    assert [word in repr(ladder) for word in ("losses: none", "accuracies: none")] == [
        given == ["accuracy"], given == ["loss"]
    ]  # fmt: skip
    assert repr(ladder) == repr(emptied)


def test_losses_alone_need_no_chance(small_table: pd.DataFrame) -> None:
    table = small_table.drop(columns=["accuracy", "chance", "items"])
    for tasks in (None, TASKS[["task"]], TASKS):
        ladder = read_ladder(table, tasks)
        assert list(ladder.tasks.index) == ["easy", "hard"]
    assert read_ladder(table).tasks.isna().all(axis=None)
    assert read_ladder(table, TASKS).tasks.loc["hard"].tolist() == [0.5, 500]
    # Of the tasks that were chosen, that is.
    mixed = small_table.drop(columns=["chance", "items"])
    mixed["accuracy"] = mixed.accuracy.where(mixed.task == "easy")
    assert read_ladder(mixed, TASKS[["task"]][1:]).tasks.isna().all(axis=None)
    assert "column `chance` is missing" in message(read_ladder, mixed, TASKS[["task"]])


def test_one_recipe_of_several_is_kept(small_table: pd.DataFrame) -> None:
    other = small_table.assign(recipe="b", accuracy=47.0)
    table = pd.concat([small_table.assign(recipe="a"), other], ignore_index=True)
    kept = read_ladder(table, recipe="a")
    assert len(kept) == len(small_table)
    assert set(kept.table.recipe) == {"a"}
    assert "no such recipe: c; recipes are a, b" in message(read_ladder, table, recipe="c")
    told = message(read_ladder, small_table, recipe="a")
    assert "column `recipe` is missing; add it, or leave recipe= (--recipe) out" in told
    targets = pd.DataFrame(
        {"model": ["x", "y"], "params": [10**9] * 2, "tokens": [10**10] * 2, "recipe": ["a", "b"]}
    )
    assert read_targets(targets, recipe="b").model.tolist() == ["y"]
    assert len(read_targets(targets.drop(columns="recipe"), recipe="b")) == 2


LINES = {
    "tokens_per_parameter": (
        lambda table: table[table.model.str.endswith("-20")],
        "all rungs have about 20 tokens per parameter",
        {"params": 3 * 10**9, "tokens": 6 * 10**10}, {"params": 3 * 10**9, "tokens": 6 * 10**11},
    ),
    "length": (
        lambda table: table.query("tokens == 4000000000"),
        "all rungs are of one length (4B tokens)",
        {"params": 3 * 10**9, "tokens": 4 * 10**9}, {"params": 10**8, "tokens": 6 * 10**9},
    ),
    "size": (
        lambda table: table.query("params == 200000000"),
        "all rungs are of one size (200M parameters)",
        {"params": 2 * 10**8, "tokens": 6 * 10**11}, {"params": 10**9, "tokens": 4 * 10**9},
    ),
    "point": (
        lambda table: table[table.model == "200M-20"].pipe(
            lambda own: pd.concat([own, own.assign(model="again")])
        ),
        "all rungs are of one size and one length",
        {"params": 2 * 10**8, "tokens": 4 * 10**9}, {"params": 2 * 10**8, "tokens": 6 * 10**9},
    ),
    "two": (
        lambda table: table[table.model.isin(["200M-20", "800M-100"])],
        "all rungs lie on one line in log params and log tokens",
        {"params": 4 * 10**8, "tokens": 17_888_543_820},
        {"params": 4 * 10**8, "tokens": 10**10},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LINES)
def test_rungs_on_one_line_are_told(kind: str, small_table: pd.DataFrame) -> None:
    cut, words, on, off = LINES[kind]
    ladder = read_ladder(cut(small_table))
    assert str(ladder.line) == words
    told = "forecasts along that line rest on data, off it on the priors"
    assert f"{words}: {told}" in repr(ladder)
    assert off_line(ladder.line, pd.DataFrame([on, off])).tolist() == [False, True]
    assert factor_off(ladder.line, pd.DataFrame([on]))[0] == pytest.approx(1, abs=1e-6)


def test_rungs_on_no_line(small_table: pd.DataFrame) -> None:
    assert read_ladder(small_table).line is None
    on_line = small_table[small_table.model.str.endswith("-20")]
    assert read_ladder(on_line, rungs="every").line is None
    assert not off_line(None, pd.DataFrame([LINES["two"][3]])).any()


COUNTS: dict[str, Callable[[list[int]], object]] = {
    "int64": lambda counts: pd.Series(counts),
    "uint64": lambda counts: pd.Series(counts, dtype="uint64"),
    "Int64": lambda counts: pd.Series(counts, dtype="Int64"),
    "arrow": lambda counts: pd.Series(counts, dtype="int64[pyarrow]"),
    "object": lambda counts: pd.Series(counts, dtype=object),
    "text": lambda counts: pd.Series(counts).astype("str"),
    "Decimal": lambda counts: pd.Series([Decimal(count) for count in counts]),
}


@pytest.mark.parametrize("kind", COUNTS)
def test_tokens_above_2_53_are_kept_exactly(
    kind: str, small_table: pd.DataFrame, tmp_path: Path
) -> None:
    exact = [(tokens << 23) + 1 for tokens in small_table.tokens]
    table = small_table.assign(tokens=COUNTS[kind](exact))
    if kind == "text":
        table.to_csv(tmp_path / "ladder.csv", index=False)
        assert set(read_ladder(tmp_path / "ladder.csv").table.tokens) == set(exact)
    if kind == "arrow":
        table.to_parquet(tmp_path / "ladder.parquet")
        assert set(read_ladder(tmp_path / "ladder.parquet").table.tokens) == set(exact)
    read = read_ladder(table).table
    assert set(read.tokens) == set(exact)
    assert read.tokens.dtype == "int64"


@pytest.mark.parametrize("given", [2e8, "2e8", "200000000.0", " 200000000 "])
def test_whole_numbers_may_be_written_as_floats(given: object, small_table: pd.DataFrame) -> None:
    params = small_table.params.astype(object).where(small_table.params != 200_000_000, given)
    assert read_ladder(small_table.assign(params=params)).fingerprint == (
        read_ladder(small_table).fingerprint
    )


def test_csv_with_byte_order_mark_spaces_and_floats(
    small_table: pd.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "ladder.csv"
    lines = small_table.astype({"params": float}).to_csv(index=False).replace(",", ", ")
    path.write_text(lines, encoding="utf-8-sig")
    assert read_ladder(path).fingerprint == read_ladder(small_table).fingerprint


def test_names_that_look_like_numbers_stay_text(small_table: pd.DataFrame, tmp_path: Path) -> None:
    numbers = small_table.model.factorize()[0]
    path = tmp_path / "ladder.csv"
    table = small_table.drop(columns="model").assign(model=[f"00{number}" for number in numbers])
    path.write_text(table.to_csv(index=False).replace(",", ", "))
    assert read_ladder(path).models == ["000", "001", "002", "003", "004", "005"]
    ladder = read_ladder(small_table.assign(model=numbers))
    assert ladder.models == ["0", "1", "2", "3", "4", "5"]
    assert ladder.keep([0, 1, 2]).models == ["0", "1", "2"]


def test_parquet_and_csv_have_one_fingerprint(small_table: pd.DataFrame, tmp_path: Path) -> None:
    table = small_table.astype({"model": "category", "task": "category"})
    table.to_parquet(tmp_path / "ladder.parquet")
    table.to_csv(tmp_path / "ladder.csv", index=False)
    assert (
        read_ladder(tmp_path / "ladder.parquet").fingerprint
        == read_ladder(tmp_path / "ladder.csv").fingerprint
        == read_ladder(small_table).fingerprint
    )


def test_fingerprint_is_of_the_values_a_fit_reads(small_table: pd.DataFrame) -> None:
    known = read_ladder(small_table).fingerprint
    shuffled = small_table.sample(frac=1, random_state=0).assign(step=1)
    assert read_ladder(shuffled).fingerprint == known
    assert list(read_ladder(shuffled[::-1]).tasks.index) == ["easy", "hard"]
    assert read_ladder(small_table, TASKS[::-1]).fingerprint == known
    for column in ("loss", "accuracy", "chance"):
        changed = small_table.assign(**{column: small_table[column] * (1 - 1e-9)})
        assert read_ladder(changed).fingerprint != known
    assert read_ladder(small_table, rungs="every").fingerprint != known


def test_the_users_tables_are_left_alone(small_table: pd.DataFrame) -> None:
    table, tasks = small_table.copy(), TASKS.copy()
    table.index.name, table.attrs["name"], tasks.attrs["name"] = "model", "mine", "mine"
    kept = table.copy(), tasks.copy()
    read_ladder(table, tasks).split(max_params=5e8)
    read_targets(table)
    for given, copy in zip((table, tasks), kept, strict=True):
        pd.testing.assert_frame_equal(given, copy)
        assert given.attrs == copy.attrs
        assert given.index.name == copy.index.name


def test_a_ladder_cannot_be_changed_through_its_tables(small_table: pd.DataFrame) -> None:
    ladder = read_ladder(small_table)
    known = ladder.fingerprint
    table, tasks = ladder.table, ladder.tasks
    table["loss"] = 1.0
    table.loc[0, "accuracy"] = 0.0
    table.columns = range(table.shape[1])
    tasks.loc["easy", "chance"] = 0.9
    small_table["loss"] = 1.0
    assert ladder.fingerprint == known
    with pytest.raises(AttributeError):
        ladder.table = small_table  # type: ignore[misc]


def test_the_constructor_and_copies_validate(small_table: pd.DataFrame) -> None:
    ladder = Ladder(small_table, TASKS, "every", "mine")
    again = dataclasses.replace(ladder, rungs="last")
    assert again.rungs == "last"
    assert (again.table == ladder.table).all(axis=None)
    assert "mine row 0: accuracy" in message(
        dataclasses.replace, ladder, table=small_table.assign(accuracy=2)
    )


SPLITS: dict[str, tuple[dict[str, object], set[str]]] = {
    "largest size": ({"max_params": 5e8}, {"800M-20", "800M-100"}),
    "longest runs": ({"max_tokens_per_param": 20}, {"200M-100", "400M-100", "800M-100"}),
    "named": ({"hold_out": ["200M-20"]}, {"200M-20"}),
    "either": ({"max_params": 5e8, "hold_out": "400M-20"}, {"800M-20", "800M-100", "400M-20"}),
}


@pytest.mark.parametrize("kind", SPLITS)
def test_split_keeps_every_held_out_number_from_the_rungs(
    kind: str, small_table: pd.DataFrame
) -> None:
    arguments, expected = SPLITS[kind]
    ladder = read_ladder(small_table, rungs="every")
    rungs, held_out = ladder.split(**arguments)
    assert set(held_out.model) == expected
    assert set(rungs.models) == set(ladder.models) - expected
    assert rungs.rungs == "every"
    out = small_table.model.isin(expected)
    changed = small_table.assign(
        loss=small_table.loss.mask(out, 9.0),
        reference_loss=small_table.reference_loss.mask(out, 9.0),
        accuracy=small_table.accuracy.mask(out, 0.9),
    )
    others, changed_out = read_ladder(changed, rungs="every").split(**arguments)
    pd.testing.assert_frame_equal(others.table, rungs.table)
    pd.testing.assert_frame_equal(others.tasks, rungs.tasks)
    assert np.allclose(changed_out.loss, 9.0)


def test_held_out_models_are_targets_at_their_ends(small_table: pd.DataFrame) -> None:
    _, held_out = read_ladder(small_table).split(max_params=5e8)
    assert len(held_out) == 2 * 2
    target = held_out.set_index(["model", "task"]).loc[("800M-100", "hard")]
    assert target.tokens == 80e9
    end = small_table.query("model == '800M-100' and task == 'hard' and tokens >= .9 * 80e9")
    assert target.checkpoints == len(end) == 2
    assert target.accuracy == pytest.approx(end.accuracy.mean())
    assert target.loss == pytest.approx(end.loss.mean())


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({}, "nothing is held out"),
        ({"max_params": 1e12}, "nothing is held out by this split; params run from 200000000 to"),
        ({"max_params": 1}, "everything is held out"),
        ({"max_tokens_per_param": 1}, "tokens per parameter at the end from 20 to 100"),
        ({"hold_out": ["7B"]}, "no such model: 7B; models are 200M-20, 200M-100"),
        (
            {"hold_out": ["200M-20", "400M-20", "400M-100", "800M-20", "800M-100"]},
            "fewer than 2 models have measurements (200M-100)",
        ),
    ],
)
def test_a_split_that_leaves_nothing_says_so(
    arguments: dict[str, object], part: str, small_table: pd.DataFrame
) -> None:
    assert part in message(read_ladder(small_table).split, **arguments)


def test_models_are_sorted_by_size_then_length(small_table: pd.DataFrame) -> None:
    shuffled = small_table.sample(frac=1, random_state=1)
    assert read_ladder(shuffled).models == [
        "200M-20", "200M-100", "400M-20", "400M-100", "800M-20", "800M-100"
    ]  # fmt: skip


def ragged(*rows: tuple[str, int, str, float, float]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["model", "tokens", "task", "loss", "accuracy"])
    return table.assign(params=10**9)


def test_the_end_of_a_run_skips_what_was_not_measured() -> None:
    nan = np.nan
    ends = run_ends(
        ragged(
            ("a", 50, "easy", 9.0, 0.9),
            ("a", 95, "easy", 2.0, 0.4),
            ("a", 96, "easy", 3.0, nan),
            ("a", 97, "easy", 2.5, nan),
            ("a", 100, "easy", nan, 0.6),
            ("a", 100, "hard", nan, 0.5),
            ("a", 50, "early", 1.0, 0.1),
            ("b", 7, "easy", 1.5, 0.3),
        )
    ).set_index(["model", "task"])
    assert list(ends.index) == [("a", "early"), ("a", "easy"), ("a", "hard"), ("b", "easy")]
    assert ends.loc[("a", "easy"), ["loss", "accuracy", "checkpoints"]].tolist() == [2.5, 0.5, 2]
    assert ends.loc[("a", "hard"), "accuracy"] == 0.5
    assert np.isnan(ends.loc[("a", "hard"), "loss"])
    assert ends.loc[("a", "early"), ["loss", "accuracy"]].isna().all()
    assert ends.loc[("b", "easy"), ["loss", "accuracy", "checkpoints"]].tolist() == [1.5, 0.3, 1]
    assert ends.tokens.tolist() == [100, 100, 100, 7]


def test_the_end_of_a_run_is_at_most_five_checkpoints_of_its_last_tenth() -> None:
    dense = ragged(*(("a", 1000 + i, "easy", 1.0 + i, 0.5) for i in range(20)))
    end = run_ends(dense).iloc[0]
    assert end.loss == np.mean([1.0 + i for i in range(15, 20)])
    assert end.checkpoints == 5


def test_means_of_checkpoints_weigh_by_their_number() -> None:
    table = ragged(("a", 99, "easy", 1.0, 0.4), ("a", 100, "easy", 2.0, 0.8))
    end = run_ends(table.assign(checkpoints=[3.0, 1.0])).iloc[0]
    assert (end.loss, end.accuracy, end.checkpoints) == (1.25, pytest.approx(0.5), 4)


def test_a_ragged_ladder_reads(small_table: pd.DataFrame) -> None:
    table = small_table.query("task == 'easy' or params > 3e8").copy()
    table.loc[table.index % 5 == 0, "loss"] = np.nan
    table.loc[table.index % 7 == 0, "accuracy"] = np.nan
    ladder = read_ladder(table)
    assert len(run_ends(ladder.table)) == 6 + 4
    rungs, held_out = ladder.split(hold_out=["800M-20"])
    assert len(run_ends(rungs.table)) == 5 + 3
    assert len(held_out) == 2


def test_one_checkpoint_a_run_is_its_end(small_table: pd.DataFrame) -> None:
    last = small_table.tokens == small_table.groupby("model").tokens.transform("max")
    table = read_ladder(small_table[last]).table
    ends = run_ends(table)
    assert (ends.checkpoints == 1).all()
    for column in ("loss", "accuracy", "tokens", "params"):
        assert (ends[column] == table[column]).all()
    assert as_targets(table).checkpoints.tolist() == [1.0] * 12
    assert checkpoint_spread(table, "loss", log=True).empty


def test_spread_is_the_variance_about_a_line() -> None:
    rng = np.random.default_rng(0)
    models, slope, noise = 400, 0.001, 0.01
    table = ragged(
        *(
            (f"m{i}", 1000 + d, "easy", 1.0, 0.3 + slope * d + rng.normal(0, noise))
            for i in range(models)
            for d in range(12)
        )
    )
    spread = checkpoint_spread(table, "accuracy", log=False)
    assert (spread.dof == 10 - 2).all()
    # The mean of 400 variances with 8 degrees of freedom has a standard error of 2.5 %.
    assert spread.variance.mean() == pytest.approx(noise**2, rel=0.1)


def test_spread_needs_four_measured_checkpoints_of_the_last_quarter() -> None:
    line = [("a", d, "easy", np.exp(-d / 100), 0.5) for d in range(10, 101, 5)]
    spread = checkpoint_spread(ragged(*line), "loss", log=True)
    assert spread[["model", "task", "dof"]].to_numpy().tolist() == [["a", "easy", 6 - 2]]
    assert spread.variance.item() == pytest.approx(0, abs=1e-20)
    holes = ragged(*line)
    holes.loc[holes.tokens.isin([80, 85, 90]), "loss"] = np.nan
    assert checkpoint_spread(holes, "loss", log=True).empty
    huge = ragged(*line)
    huge["tokens"] += 2**60
    assert checkpoint_spread(huge, "loss", log=True).dof.item() == 10 - 2


def test_targets_need_no_measurement() -> None:
    targets = read_targets(pd.DataFrame({"model": [7, 13], "params": [7e9, 13e9], "tokens": 1e12}))
    assert targets.model.tolist() == ["7", "13"]
    assert targets.params.tolist() == [7_000_000_000, 13_000_000_000]


def test_targets_of_several_checkpoints_are_their_ends(small_table: pd.DataFrame) -> None:
    targets = read_targets(small_table)
    assert len(targets) == 6 * 2
    assert targets.duplicated(["model", "task"]).sum() == 0
    measured = targets.set_index(["model", "task"])
    ends = run_ends(small_table).set_index(["model", "task"])
    assert (measured.loss == ends.loss).all()
    assert (measured.checkpoints == ends.checkpoints).all()


def test_held_out_models_read_as_targets_unchanged(small_table: pd.DataFrame) -> None:
    _, held_out = read_ladder(small_table).split(max_params=5e8)
    pd.testing.assert_frame_equal(read_targets(held_out), held_out)


def test_targets_carry_their_own_number_of_checkpoints() -> None:
    given = ragged(("7B", 10**9, "easy", 1.0, 0.5), ("13B", 10**9, "easy", 1.0, np.nan))
    assert read_targets(given.assign(checkpoints=[5, None])).checkpoints.tolist() == [5.0, 1.0]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"params": [7e9 + 0.5, 7e9]}, "targets row 0: params 7000000000.5 is fractional"),
        (
            {"accuracy": [50, 1]},
            "targets row 0: accuracy 50 is above 1; give fractions, not percent",
        ),
        ({"checkpoints": [0, 1]}, "targets row 0: checkpoints 0 is not a count; give how many"),
        (
            {"model": "7B"},
            "targets row 0: 7B x easy x 1000000000 is given twice (also row 1); keep one",
        ),
    ],
)
def test_fault_of_targets(change: dict[str, object], part: str) -> None:
    given = ragged(("7B", 10**9, "easy", 1.0, 0.5), ("13B", 10**9, "easy", 1.0, 0.5))
    assert part in message(read_targets, given.assign(**change))


def test_a_model_is_a_target_once() -> None:
    given = pd.DataFrame({"model": "7B", "params": 7e9, "tokens": [1e12, 2e12]})
    assert message(read_targets, given) == (
        "targets row 0: 7B is given twice (also row 1); keep one row for each"
    )


def test_misspelt_task_of_targets() -> None:
    given = ragged(("7B", 10**9, "easy", 1.0, 0.5), ("13B", 10**9, "easy", 1.0, 0.5))
    error = message(read_targets, given.rename(columns={"task": "Task"}))
    assert error.startswith("targets: column `Task` looks like a misspelt `task`; rename it")


def test_measured_ladder(data_dir: Path, tmp_path: Path) -> None:
    ladder = read_ladder(data_dir / "olmo_ladder.csv", tasks=data_dir / "olmo_tasks.csv")
    assert len(ladder) == 12_528
    assert len(ladder.models) == 16
    assert list(ladder.tasks.index)[:2] == ["mmlu", "hellaswag"]
    for name in ("olmo_ladder", "olmo_tasks"):
        pd.read_csv(data_dir / f"{name}.csv").to_parquet(tmp_path / f"{name}.parquet")
    parquet = read_ladder(tmp_path / "olmo_ladder.parquet", tmp_path / "olmo_tasks.parquet")
    assert parquet.fingerprint == ladder.fingerprint
    ends = run_ends(ladder.table)
    assert len(ends) == 16 * 8
    assert (ends.checkpoints == 5).all()
    targets = read_targets(data_dir / "olmo_targets.csv")
    assert targets.groupby("model").checkpoints.first().to_dict() == {"13B-5T": 5, "7B-4T": 1}


def test_measured_ladder_of_reference_losses(data_dir: Path) -> None:
    assert read_ladder(data_dir / "gadre.csv").recipes == ["c4_original", "rpj", "rw_original"]
    table = pd.read_csv(data_dir / "gadre.csv").query("recipe == 'rpj'")
    ladder = read_ladder(table)
    assert len(ladder) == len(table)
    assert len(ladder.tasks) == 46
    assert "loss" not in ladder.table

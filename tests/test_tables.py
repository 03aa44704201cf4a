"""Tables in every form that users have them, and the names of tasks, models, routes and files."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pytest

import laddercast as lc
from test_ladder import message

TASKS = pd.DataFrame({"task": ["easy", "hard"], "chance": [0.25, 0.5], "items": [2000, 500]})
TARGET = {"model": "7B", "params": 7_000_000_000, "tokens": 4_000_000_000_000}


class Streamed:
    """A table of a library that has Arrow's interface and nothing else."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = pyarrow.Table.from_pandas(table, preserve_index=False)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


class Interchanged(Streamed):
    """One that has the older protocol alone."""

    __arrow_c_stream__ = None  # type: ignore[assignment]

    def __dataframe__(self, nan_as_null: bool = False, allow_copy: bool = True) -> object:
        return self.table.__dataframe__(nan_as_null, allow_copy)


del Interchanged.__arrow_c_stream__


def lines_of(table: pd.DataFrame) -> str:
    return "".join(json.dumps(row) + "\n" for row in table.to_dict("records"))


FORMS: dict[str, Callable[[pd.DataFrame], object]] = {
    "pyarrow": lambda table: pyarrow.Table.from_pandas(table),
    "Arrow stream": Streamed,
    "interchange": Interchanged,
    "dict of lists": lambda table: table.to_dict("list"),
    "dict of columns": dict,
    "list of dicts": lambda table: table.to_dict("records"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_ladder_in_any_form_is_the_same(form: str, small_table: pd.DataFrame) -> None:
    known = lc.read_ladder(small_table).fingerprint
    give = FORMS[form]
    assert lc.read_ladder(give(small_table)).fingerprint == known
    bare = small_table.drop(columns=["chance", "items"])
    assert lc.read_ladder(give(bare), give(TASKS)).fingerprint == known
    assert lc.Ladder(give(bare), give(TASKS)).fingerprint == known
    targets = small_table[small_table.params == 800_000_000]
    pd.testing.assert_frame_equal(
        lc.read_targets(give(targets)), lc.read_targets(targets), check_dtype=False
    )


def test_large_counts_beside_missing_ones_stay_exact(small_table: pd.DataFrame) -> None:
    exact = 2**53 + 1
    table = pyarrow.table({"model": ["a", "b"], "params": [10**9] * 2, "tokens": [exact, None]})
    assert "row 1: tokens is missing" in message(lc.read_targets, table)
    assert lc.read_targets(table.slice(0, 1)).tokens.tolist() == [exact]


JSON: dict[str, tuple[str, Callable[[pd.DataFrame], str]]] = {
    "lines": ("ladder.jsonl", lines_of),
    "other suffix": ("ladder.ndjson", lines_of),
    "a list": ("ladder.json", lambda table: table.to_json(orient="records", double_precision=15)),
    "columns": ("ladder.json", lambda table: json.dumps(table.to_dict("list"))),
    "blank lines": ("ladder.jsonl", lambda table: "\n" + lines_of(table).replace("\n", "\n\n")),
}


@pytest.mark.parametrize("kind", JSON)
def test_json_is_read_as_csv_is(kind: str, small_table: pd.DataFrame, tmp_path: Path) -> None:
    name, write = JSON[kind]
    (tmp_path / name).write_text(write(small_table), encoding="utf-8-sig")
    small_table.to_csv(tmp_path / "ladder.csv", index=False)
    read = lc.read_ladder(tmp_path / name)
    other = lc.read_ladder(tmp_path / "ladder.csv")
    assert read.models == other.models
    np.testing.assert_allclose(read.table["loss"], other.table["loss"], rtol=1e-13)
    if "list" not in kind:
        assert read.fingerprint == other.fingerprint


def test_packed_json_lines(small_table: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "ladder.jsonl.gz"
    path.write_bytes(gzip.compress(lines_of(small_table).encode()))
    assert lc.read_ladder(path).fingerprint == lc.read_ladder(small_table).fingerprint


WRONG_JSON = {
    "no JSON": ('{"model": 1}\nmodel\n', "cannot be read (line 2: Expecting value)"),
    "no object": ('{"model": 1}\n[1]\n', "cannot be read (row 2 is no object)"),
    "a number": ("7", "cannot be read (row 1 is no object)"),
    "half a list": ('[{"model": 1},', "cannot be read (line 1: Expecting value)"),
    "too deep": ("[" * 100_000, "cannot be read ("),
    "nothing": ("  \n", "the file is empty"),
    "no columns": ("{}", "columns `model`, `params`, `tokens` are missing"),
}


@pytest.mark.parametrize("kind", WRONG_JSON)
def test_wrong_json_is_one_fault(kind: str, tmp_path: Path) -> None:
    content, part = WRONG_JSON[kind]
    (tmp_path / "ladder.jsonl").write_text(content)
    error = message(lc.read_targets, tmp_path / "ladder.jsonl")
    assert part in error
    assert error.startswith("ladder.jsonl: ")
    assert "\n" not in error


def test_faults_of_json_name_the_line(small_table: pd.DataFrame, tmp_path: Path) -> None:
    wrong = small_table.assign(accuracy=small_table.accuracy.where(small_table.index != 6, 47.0))
    (tmp_path / "ladder.jsonl").write_text("\n" + lines_of(wrong))
    error = message(lc.read_ladder, tmp_path / "ladder.jsonl")
    assert error.startswith("ladder.jsonl row 8: accuracy 47 is above 1")


NO_TABLES = {
    "number": (7, "int is no table"),
    "list": ([1], "list is no table"),
    "empty list": ([], "list is no table"),
    "empty dict": ({}, "the table is empty"),
    "column": (pd.Series([1]), "Series is no table"),
    "Arrow column": (pyarrow.chunked_array([[1]]), "cannot be read as a table ("),
    "ragged dict": ({"model": ["a"], "params": [1, 2]}, "cannot be read as a table ("),
    "function": (len, "builtin_function_or_method is no table"),
}


@pytest.mark.parametrize("kind", NO_TABLES)
def test_what_is_no_table_is_one_fault(kind: str) -> None:
    given, part = NO_TABLES[kind]
    for read in (lc.read_targets, lc.read_ladder):
        error = message(read, given)
        assert part in error
        assert "\n" not in error


def test_the_home_folder(
    small_table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    lc.read_ladder(small_table).to_csv("~/ladder.csv")
    TASKS.to_csv(tmp_path / "tasks.csv", index=False)
    pd.DataFrame([TARGET]).to_csv(tmp_path / "targets.csv", index=False)
    known = lc.read_ladder(small_table).fingerprint
    assert lc.read_ladder("~/ladder.csv", tasks="~/tasks.csv").fingerprint == known
    assert lc.read_targets("~/targets.csv").model.tolist() == ["7B"]


def test_a_ladder_is_written_and_read_back(small_table: pd.DataFrame, tmp_path: Path) -> None:
    bare = small_table.drop(columns=["chance", "items"])
    for ladder in (
        lc.read_ladder(small_table),
        lc.read_ladder(bare, TASKS),
        lc.read_ladder(bare, TASKS[["task", "chance"]]),
        lc.read_ladder(bare.drop(columns="accuracy")),
        lc.read_ladder(small_table.assign(loss=small_table.loss * np.pi)),
    ):
        path = ladder.to_csv(tmp_path / "written.csv")
        assert path == tmp_path / "written.csv"
        assert lc.read_ladder(path).fingerprint == ladder.fingerprint
    every = lc.read_ladder(small_table, rungs="every")
    assert lc.read_ladder(every.to_csv(path), rungs="every").fingerprint == every.fingerprint


@pytest.mark.parametrize(
    "names", [["hard"], "hard", ("hard",), pd.Index(["hard"]), np.array(["hard"])]
)
def test_tasks_are_chosen_by_name(names: object, small_table: pd.DataFrame) -> None:
    known = lc.read_ladder(small_table, TASKS[1:]).fingerprint
    assert lc.read_ladder(small_table, tasks=names).fingerprint == known
    assert lc.Ladder(small_table, names).fingerprint == known
    targets = lc.read_targets(small_table, tasks=names)
    assert set(targets.task) == {"hard"}


def test_names_with_commas_between_and_their_order(small_table: pd.DataFrame) -> None:
    assert list(lc.read_ladder(small_table, "hard, easy").tasks.index) == ["hard", "easy"]
    assert list(lc.read_ladder(small_table, ["hard", "easy", "hard"]).tasks.index) == [
        "hard",
        "easy",
    ]


@pytest.mark.parametrize(
    ("tasks", "part"),
    [
        ("hrad", "ladder: no such task: hrad; did you mean hard? tasks are easy, hard"),
        (["easy", "Hard"], "no such task: Hard; did you mean hard? tasks are easy, hard"),
        (["mmlu"], "no such task: mmlu; tasks are easy, hard"),
        ([], "tasks: no name is given"),
        (",", "tasks: no name is given"),
        ("tasks.csv", "tasks.csv: no such file; check the path"),
        (7, "tasks: int is no table"),
    ],
)
def test_wrong_names_of_tasks(tasks: object, part: str, small_table: pd.DataFrame) -> None:
    assert part in message(lc.read_ladder, small_table, tasks)
    assert part in message(lc.Ladder, small_table, tasks)


def test_names_that_the_targets_lack(small_table: pd.DataFrame) -> None:
    error = message(lc.read_targets, small_table, tasks=["mmlu"])
    assert error == "targets: no row is of mmlu; its tasks are easy, hard"


def test_a_file_of_a_like_name_is_meant(small_table: pd.DataFrame, tmp_path: Path) -> None:
    small_table.to_csv(tmp_path / "ladder.csv", index=False)
    error = message(lc.read_ladder, tmp_path / "lader.csv")
    assert error.endswith("lader.csv: no such file; did you mean ladder.csv?")


def test_a_recipe_that_is_no_text_is_read_as_text(small_table: pd.DataFrame) -> None:
    table = small_table.assign(recipe=[{"mix": 1}] * len(small_table))
    assert lc.read_ladder(table).recipes == ["{'mix': 1}"]
    assert lc.read_ladder(small_table.assign(recipe=3)).recipes == ["3"]


def test_unknown_models_and_recipes_name_the_nearest(small_table: pd.DataFrame) -> None:
    ladder = lc.read_ladder(small_table)
    for use in (ladder.keep, lambda names: ladder.split(hold_out=names)):
        error = message(use, ["200m-20"])
        assert error.startswith("no such model: 200m-20; did you mean 200M-20? models are 200M-20,")
    error = message(lc.read_ladder, small_table.assign(recipe="dolma"), recipe="Dolma2")
    assert "no such recipe: Dolma2; did you mean dolma? recipes are dolma" in error


KNOWN = {"easy": "piqa", "hard": "hellaswag"}


def test_known_tasks_give_what_is_lacking_and_it_is_said(small_table: pd.DataFrame) -> None:
    table = small_table.replace({"task": KNOWN})
    bare = table.drop(columns=["chance", "items"])
    known = lc.known_tasks()
    ladder = lc.read_ladder(bare)
    for task in KNOWN.values():
        assert ladder.tasks.loc[task, "chance"] == known.loc[task, "chance"]
        assert ladder.tasks.loc[task, "items"] == known.loc[task, "items"]
    said = "from the table of known tasks: chance and items of hellaswag, piqa"
    assert said in repr(ladder)
    assert said in repr(ladder.keep(ladder.models[:3]))
    assert lc.read_ladder(bare, ["piqa"]).tasks.index.tolist() == ["piqa"]
    # What users give counts, and only what they lack is added.
    own = lc.read_ladder(table)
    assert own.tasks.loc["piqa", "chance"] == 0.25
    assert "known tasks" not in repr(own)
    part = lc.read_ladder(bare, pd.DataFrame({"task": ["piqa"], "chance": [0.3]}))
    assert part.tasks.loc["piqa", "chance"] == 0.3
    assert "from the table of known tasks: items of piqa" in repr(part)
    mixed = bare.replace({"task": {"hellaswag": "my_task"}})
    error = message(lc.read_ladder, mixed)
    assert "column `chance` is missing; add it" in error
    assert "my_task is not among the known tasks" in error


def test_losses_alone_take_nothing_from_the_known_tasks(small_table: pd.DataFrame) -> None:
    bare = small_table.replace({"task": KNOWN}).drop(columns=["chance", "items", "accuracy"])
    assert lc.read_ladder(bare).tasks.isna().all(axis=None)


ROUTES = ("two_stag", "Direct")


@pytest.mark.parametrize("given", ROUTES)
def test_unknown_routes_name_the_nearest(given: str) -> None:
    near = {"two_stag": "two_stage", "Direct": "direct"}[given]
    assert f"no route {given!r}: did you mean {near}? give one of" in message(
        lc.routes.as_route, given
    )


def test_unknown_folds_and_methods_name_the_nearest(small_table: pd.DataFrame) -> None:
    ladder = lc.read_ladder(small_table)
    error = message(lc.backtest, ladder, folds="largest_size")
    assert error.startswith("no such fold: largest_size; did you mean largest-size? folds are")
    error = message(lc.baseline, ladder, TARGET, "two-step")
    assert error.startswith("no such method: two-step; did you mean two_step? methods are")

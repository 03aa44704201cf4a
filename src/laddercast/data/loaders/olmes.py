"""Metrics and predictions of OLMES, and the table of DataDecide, whose metrics are OLMES'."""

import ast
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from laddercast.data import words as c
from laddercast.data.faults import stop_on
from laddercast.data.known_tasks import is_task
from laddercast.data.ladder import Ladder, Rungs
from laddercast.data.loaders.build import (
    build_ladder,
    check_named,
    check_same_items,
    mean_and_error,
)
from laddercast.data.loaders.files import (
    Placed,
    Source,
    find_files,
    place,
    read_json,
    read_jsonl,
    run_name,
    source_name,
    tell,
)
from laddercast.data.loaders.manifest import RUN, Manifest, check_joined, join, read_manifest
from laddercast.data.loaders.presets import ACC_TASKS, DATADECIDE_PARAMS, WITH_SPACE
from laddercast.data.loaders.shapes import ANY, COUNT, NUMBER, TEXT, Shape, number
from laddercast.data.sources import Tasks, read_table, read_tasks
from laddercast.data.writing import listed, listed_by

LOSSES = ("bits_per_byte_corr", "logits_per_byte_corr")
"""The same quantity, by its newer and its older name."""
TABLES = (".csv", ".parquet", ".pq")
PREDICTION: Shape = {"metrics": dict.fromkeys(LOSSES, NUMBER), "model_output": [ANY]}
DATADECIDE = ("params", "data", "task", "step", "seed", "tokens", "metrics")


@dataclass
class _Task:
    """What the files say of one task of one run."""

    where: str
    run: str
    others: tuple[str, ...]
    task: str
    alias: str
    metrics: dict[str, Any]
    items: int
    shots: str
    questions: list[dict[str, Any]] = field(default_factory=list)


def read_olmes(
    path: Source | pd.DataFrame,
    manifest: Manifest | None = None,
    tasks: Tasks | None = None,
    rungs: Rungs = "last",
    recipe: str | None = None,
    accuracy: str = "acc_per_char",
) -> Ladder:
    """Read OLMES' metrics and predictions (folder or files), or a table as DataDecide publishes.

    A run of OLMES is a folder; the manifest (`model, params, tokens`; `run` if the model has
    another name) names it by its folder or by its model. The table has tokens, and `params` as
    labels, for which the manifest may give numbers (`model` is the label, `params`). `recipe` keeps
    one of several. `accuracy` is the metric taken (`acc_raw` of BoolQ and WinoGrande with the
    default); `loss` is bits per byte with the space before the answer, `loss_se` its standard error
    where predictions were kept; where no task has a loss, accuracies alone are read. Several
    `mmlu_*` without an `mmlu` are read as `mmlu`, their mean. Raises ValueError that names every
    fault.

    >>> ladder = lc.read_olmes("results", manifest="manifest.csv")
    """
    faults: list[str] = []
    name = "table" if isinstance(path, pd.DataFrame) else source_name(path)
    named, task_table = read_tasks(tasks, faults)
    rows_of, manifest_name = read_manifest(manifest, faults)
    if (table := _as_table(path, faults)) is not None:
        rows = _table_rows(table, rows_of, manifest_name, recipe, accuracy, name, faults)
    else:
        files = find_files(
            path if not isinstance(path, pd.DataFrame) else [],
            ("*metrics.json", "metrics-all.jsonl", "*-predictions.jsonl"),
            "metrics of OLMES",
            faults,
        )
        rows = _file_rows(files, path, rows_of, manifest_name, recipe, accuracy, faults)
    rows = _with_mmlu(rows, named)
    of_loss = [row for row in rows if row[c.LOSS] is not None and row[c.ACCURACY] is not None]
    of_reference = [row for row in rows if c.REFERENCE_LOSS in row and row[c.ACCURACY] is not None]
    alone = [row for row in rows if row[c.ACCURACY] is not None]
    measured = of_loss or of_reference or alone
    if rows and not measured:
        faults.append(f"{name}: no task has {accuracy}; multiple-choice tasks do, or choose "
                      "another metric by accuracy=")  # fmt: skip
    read = set(check_named(named, list({row[c.TASK] for row in measured}), name, faults))
    check_same_items(measured, faults)
    if not rows:
        stop_on(faults)
        raise ValueError(f"{name}: no measurements; give metrics of OLMES")
    kept = [row for row in measured if row[c.TASK] in read]
    return build_ladder(kept, task_table, {}, rungs, name, faults)


def _as_table(path: Source | pd.DataFrame, faults: list[str]) -> pd.DataFrame | None:
    if isinstance(path, pd.DataFrame):
        return read_table(path, "table", faults)[0]
    several = [path] if isinstance(path, str | Path) else list(path)
    if len(several) == 1 and Path(several[0]).is_dir():
        inside = [file for end in TABLES for file in sorted(Path(several[0]).glob(f"*{end}"))]
        several = [*inside] if inside else several
    if not any(Path(file).suffix.lower() in TABLES for file in several):
        return None
    tables = [read_table(file, "table", faults)[0] for file in several]
    stop_on(faults)
    for file, table in zip(several, tables, strict=True):
        table.index = pd.Index([f"{Path(file).name}:{row}" for row in table.index])
    return pd.concat(tables)


def _table_rows(
    table: pd.DataFrame, manifest: Mapping[str, dict[str, Any]], manifest_name: str,
    recipe: str | None, accuracy: str, name: str, faults: list[str],
) -> list[dict[str, Any]]:  # fmt: skip
    absent = [word for word in DATADECIDE if word not in table]
    if absent:
        faults.append(f"{name}: no column {listed(absent)}; a table as DataDecide's has "
                      f"{', '.join(DATADECIDE)}")  # fmt: skip
    for word in ("params", "data", "task", "seed"):
        unnamed = list(table.index[table[word].isna()]) if word in table else []
        if len(unnamed):
            faults.append(f"{name} {unnamed[0]}: {word} is missing; name it")
    stop_on(faults)
    recipes = sorted(table["data"].astype(str).unique())
    kept = table[table["data"].astype(str) == recipe] if recipe else table
    if recipe and not len(kept):
        faults.append(f"{name}: no recipe {recipe}; its recipes are {listed(recipes)}")
    elif not recipe and len(recipes) > 1:
        faults.append(f"{name}: {len(recipes)} recipes, of which one law cannot hold; choose one "
                      f"by recipe= (--recipe): {listed(recipes)}")  # fmt: skip
    stop_on(faults)
    names = kept["data"].astype(str) + "-" + kept["params"].astype(str)
    names = names + "-" + kept["seed"].astype(str).str.replace(" ", "-")
    runs = dict(zip(names, kept["params"].astype(str), strict=True))
    said = join({run: [label] for run, label in runs.items()}, manifest)
    known = {
        run: {
            **({c.PARAMS: DATADECIDE_PARAMS[label]} if label in DATADECIDE_PARAMS else {}),
            **said[run],
            c.MODEL: said[run].get(c.MODEL, run) if run in manifest else run,
        }
        for run, label in runs.items()
    }
    labels = {runs[run] for run, row in known.items() if c.PARAMS not in row}
    if labels:
        faults.append(
            f"{manifest_name} has no params of size {listed(sorted(labels))}; give "
            "manifest= (--manifest) a table with model (the size's label) and params"
        )
    rows: list[dict[str, Any]] = []
    bad: list[str] = []
    for where, run, row in zip(kept.index, names, kept.to_dict("records"), strict=True):
        try:
            metrics = _dictionary(row["metrics"])
            found = _quantities(str(row["task"]), metrics, accuracy)
        except ValueError as error:
            bad.append(f"{where} ({error})")
            continue
        rows.append({
            **known[run],
            c.TOKENS: row["tokens"],
            c.TASK: str(row["task"]),
            **found,
            c.RECIPE: str(row["data"]),
            c.SEED: row["seed"],
            **({c.FLOPS: row["compute"] or None} if "compute" in row else {}),
            "step": row["step"],
            RUN: f"{where} {run}",
        })  # fmt: skip
    if bad:
        faults.append(f"{name} {listed(bad, 5)}: metrics are no dictionary of numbers; give them "
                      "as published, as text")  # fmt: skip
    return rows


def _dictionary(metrics: object) -> dict[str, Any]:
    """A dictionary from its text. Read as a literal: nothing in it is ever run."""
    if isinstance(metrics, dict):
        return metrics
    text = re.sub(r"(?<=[:\s])-?(nan|inf)(?=[,}\s])", "None", str(metrics))
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"{type(error).__name__}: {text[:40]}") from None
    if not isinstance(value, dict):
        raise ValueError(text[:40])
    return value


def _quantities(task: str, metrics: Mapping[str, Any], accuracy: str) -> dict[str, Any]:
    plain = accuracy == "acc_per_char" and any(is_task(task, word) for word in ACC_TASKS)
    words = {c.ACCURACY: "acc_raw" if plain else accuracy}
    words |= {c.LOSS: next((word for word in LOSSES if word in metrics), LOSSES[0])}
    found = {name: number(metrics.get(word)) for name, word in words.items()}
    wrong = [w for name, w in words.items() if found[name] is None and metrics.get(w) is not None]
    if wrong:
        raise ValueError(f"{wrong[0]} is no finite number")
    return {**found, c.LOSS_KIND: None if found[c.LOSS] is None else WITH_SPACE}


def _file_rows(
    files: Sequence[Path], root: object, manifest: Mapping[str, dict[str, Any]],
    manifest_name: str, recipe: str | None, accuracy: str, faults: list[str],
) -> list[dict[str, Any]]:  # fmt: skip
    placed: Placed = []
    shape = _shape(accuracy)
    read = [_read_folder(path, group, root, shape, placed) for path, group in _by_folder(files)]
    tell(placed, faults)
    found = [task for tasks in read for task in tasks]
    known = join({task.run: task.others for task in found}, manifest)
    check_joined(known, (c.PARAMS, c.TOKENS), manifest_name, faults)
    aliases: dict[str, set[str]] = {}
    shots: dict[str, dict[str, list[str]]] = {}
    for task in found:
        aliases.setdefault(task.task, set()).add(task.alias)
    rows: list[dict[str, Any]] = []
    seen: dict[tuple[str, str], _Task] = {}
    for task in found:
        # A task asked in several ways (choices by letter or in full) is one task for each.
        word = task.alias if len(aliases[task.task]) > 1 else task.task
        other = seen.setdefault((task.run, word), task)
        if other is not task:
            if (other.metrics, other.items) != (task.metrics, task.items):
                faults.append(f"{word} of run {task.run} is in {other.where} and {task.where} with "
                              "different values; move one of both away")  # fmt: skip
            continue
        shots.setdefault(word, {}).setdefault(task.shots, []).append(task.run)
        row = known[task.run]
        if not {c.PARAMS, c.TOKENS} <= set(row) or (recipe and row.get(c.RECIPE) != recipe):
            continue
        rows.append({
            **row, c.TASK: word, **_quantities(task.task, task.metrics, accuracy),
            **_of_questions(task), c.ITEMS: task.items or None, RUN: task.run,
        })  # fmt: skip
    for word, by_shots in shots.items():
        if len(by_shots) > 1:
            text = listed_by(by_shots)
            faults.append(f"{word}: runs differ in split and examples ({text}); evaluate all alike")
    return rows


def _shape(accuracy: str) -> Shape:
    return {
        "task_name": TEXT,
        "task_config": {"split": ANY, "num_shots": ANY, "metadata": {"alias": TEXT}},
        "num_instances": COUNT,
        "metrics": dict.fromkeys((*LOSSES, "acc_raw", accuracy), NUMBER),
        "model_config": {"model": TEXT, "model_path": TEXT, "revision": TEXT},
    }


def _by_folder(files: Iterable[Path]) -> list[tuple[Path, list[Path]]]:
    folders: dict[Path, list[Path]] = {}
    for file in files:
        folders.setdefault(file.parent, []).append(file)
    return list(folders.items())


def _read_folder(
    folder: Path, files: Sequence[Path], root: object, shape: Shape, placed: Placed
) -> list[_Task]:
    """The tasks of one folder, from `metrics-all.jsonl` if present: it repeats the other files."""
    whole = [file for file in files if file.name == "metrics-all.jsonl"]
    single = [file for file in files if file.name.endswith("metrics.json")]
    entries: list[tuple[str, dict[str, Any]]] = []
    for file in whole:
        entries += read_jsonl(file, shape, placed)
    for file in () if whole else single:
        content = read_json(file, shape, placed)
        entries += [(place(file), content)] if content else []
    run = run_name(folder, root)
    tasks = []
    for where, entry in entries:
        if "metrics" not in entry or "task_name" not in entry:
            placed.append((where, "has no `task_name` and `metrics`; give metrics of OLMES"))
            continue
        config, model = entry.get("task_config", {}), entry.get("model_config", {})
        names = [model[word] for word in ("model", "model_path") if model.get(word)]
        if model.get("revision"):
            names = [f"{word}@{model['revision']}" for word in names]
        alias = config.get("metadata", {}).get("alias") or entry["task_name"]
        shots = (
            f"{str(config.get('split'))[:60]} split, {str(config.get('num_shots'))[:60]} examples"
        )
        tasks.append(_Task(
            where, run, (folder.name, *names), entry["task_name"], alias,
            entry["metrics"], int(entry.get("num_instances", 0)), shots,
        ))  # fmt: skip
    _add_predictions(tasks, [f for f in files if f.name.endswith("-predictions.jsonl")], placed)
    return tasks


def _add_predictions(tasks: Sequence[_Task], files: Sequence[Path], placed: Placed) -> None:
    for file in files:
        name = re.sub(r"^task-\d+-", "", file.name.removesuffix("-predictions.jsonl"))
        owners = [task for task in tasks if name in (task.task, task.alias.replace(":", "_"))]
        if len(owners) == 1:
            owners[0].questions = [line for _, line in read_jsonl(file, PREDICTION, placed)]
            asked, items = len(owners[0].questions), owners[0].items
            if items and asked != items:
                what = f"{asked} questions, but {owners[0].where} counts {items}"
                placed.append((place(file), f"{what}; the file may be cut off, evaluate again"))


def _of_questions(task: _Task) -> dict[str, Any]:
    """From predictions: loss where metrics lack it, its standard error, accuracy of guessing."""
    per_question = [question.get("metrics", {}) for question in task.questions]
    losses = [
        value for metrics in per_question for word in LOSSES[:1 if LOSSES[0] in metrics else 2]
        if (value := number(metrics.get(word))) is not None
    ]  # fmt: skip
    found: dict[str, Any] = {}
    n = len(losses)
    if n > 1 and n == len(per_question):
        mean, found["loss_se"] = mean_and_error(losses)
        if not any(word in task.metrics for word in LOSSES):
            found |= {c.LOSS: mean, c.LOSS_KIND: WITH_SPACE}
    choices = [len(question.get("model_output", [])) for question in task.questions]
    if choices and min(choices) > 1:
        found[c.CHANCE] = math.fsum(1 / count for count in choices) / len(choices)
    return found


def _with_mmlu(rows: list[dict[str, Any]], named: Sequence[str] | None) -> list[dict[str, Any]]:
    """Rows of `mmlu_*` replaced by their mean `mmlu`, unless it is there or they are asked for."""
    parts = {row[c.TASK] for row in rows if str(row[c.TASK]).startswith("mmlu_")}
    if len(parts) < 2 or parts & set(named or ()):
        return rows
    others = [row for row in rows if row[c.TASK] not in parts]
    if any(row[c.TASK] == "mmlu" for row in others):
        return others
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row[c.TASK] in parts:
            groups.setdefault((row[c.MODEL], str(row[c.TOKENS])), []).append(row)
    # A run with some of the parts alone would be compared to the mean of all.
    return others + [_mean(group) for group in groups.values() if len(group) == len(parts)]


def _mean(group: Sequence[dict[str, Any]]) -> dict[str, Any]:
    mean: dict[str, Any] = {**group[0], c.TASK: "mmlu"}
    for word in (c.LOSS, c.ACCURACY, c.CHANCE):
        values = [row.get(word) for row in group]
        numbers = [value for value in values if value is not None]
        mean[word] = mean_and_error(numbers)[0] if len(numbers) == len(group) else None
    errors = [row["loss_se"] for row in group if "loss_se" in row]
    mean.pop("loss_se", None)
    if len(errors) == len(group):
        mean["loss_se"] = math.hypot(*errors) / len(group)
    items = [row.get(c.ITEMS) for row in group]
    mean[c.ITEMS] = sum(count for count in items if count) if all(items) else None
    return mean

"""Exports of experiment trackers: wide tables, a row per step, a column per key."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import pandas as pd

from laddercast.data import words as c
from laddercast.data.cautions import AssumedWarning, warn
from laddercast.data.faults import stop_on
from laddercast.data.known_tasks import is_task
from laddercast.data.ladder import Ladder, Rungs
from laddercast.data.loaders.build import build_ladder, check_named
from laddercast.data.loaders.files import Placed, find_files, source_name, tell
from laddercast.data.loaders.manifest import Manifest, check_joined, join, read_manifest
from laddercast.data.loaders.presets import PRESETS, Keys, Preset, Size, as_preset
from laddercast.data.loaders.tracker_rows import Counts, as_numbers, read_checkpoints
from laddercast.data.sizes import flops
from laddercast.data.sources import Tasks, read_table, read_tasks
from laddercast.data.writing import listed, listed_by

NEAR_NAME = 0.6
"""Columns as like as this to what is wanted are named in errors."""


@dataclass(frozen=True)
class _Log:
    """One run's rows; `where` names its file in errors."""

    run: str
    where: str
    table: pd.DataFrame


def read_wandb(
    source: str | Path | pd.DataFrame | Sequence[str | Path],
    preset: str | Path | Preset = "olmo",
    manifest: Manifest | None = None,
    tasks: Tasks | None = None,
    rungs: Rungs = "last",
) -> Ladder:
    """Read a tracker's exports: CSV or Parquet, one file a run, or one long table of all runs.

    `source` is a folder, files or a DataFrame. `preset` says what the keys mean: "olmo",
    "olmo-core", "levanter", a TOML file, or a `Preset` of your own. `manifest` (`model, params`, or
    `run` too) gives what the log lacks and overrides the preset. Logs may have accuracies alone, or
    losses alone; one loss common to all tasks is `reference_loss` of the preset. `tasks` are names,
    or a table as `read_ladder` takes. Rows without evaluations tell of tokens alone. What was
    logged within 0.5 % of a run's tokens is one checkpoint; of a resumed run the later pass counts.
    Every run becomes a model of the ladder, targets too: `ladder.split(hold_out=[...])` parts them.
    Warns of what it assumed. Raises ValueError that names every fault.

    >>> ladder = lc.read_wandb("runs", preset="levanter", manifest="manifest.csv")
    """
    faults: list[str] = []
    chosen = as_preset(preset)
    name = "log" if isinstance(source, pd.DataFrame) else source_name(source)
    named, task_table = read_tasks(tasks, faults)
    rows_of, manifest_name = read_manifest(manifest, faults)
    logs = _read_logs(source, chosen, faults)
    keys = _common_keys(logs, chosen, name, faults)
    if keys is None or not logs:
        stop_on(faults)
        raise ValueError(f"{name}: no runs; give exports with at least one row")
    found = _tasks(logs, keys, chosen)
    if named is None:
        _warn_of_parts(found, chosen)
    read = check_named(named, found, name, faults)
    sizes = _known_runs(logs, chosen, rows_of, manifest_name, faults)
    accuracy_keys = _accuracy_keys(read, keys, chosen, logs)
    parts, resumed = [], []
    placed: Placed = []
    for log in logs:
        evaluated = _evaluated(log.table, keys, chosen)
        found_counts = _counts(log, chosen, placed)
        points = found_counts and read_checkpoints(
            log.table, found_counts, evaluated, _cure(log, chosen), log.where, placed
        )
        if points and sizes.get(log.run):
            resumed += [log.run] if points.resumed else []
            merged = replace(log, table=points.table)
            common = _common_columns(merged, chosen, sizes[log.run], points.tokens)
            parts += [
                _long(merged, task, keys, chosen, common, accuracy_keys, faults) for task in read
            ]
    tell(placed, faults)
    if resumed:
        warn(f"{listed(resumed, 5)} went over some tokens twice, as after a crash: of these the "
             "later pass is read", AssumedWarning)  # fmt: skip
    table = pd.concat(parts) if parts else pd.DataFrame()
    if parts:
        table = table.dropna(subset=[c.LOSS, c.ACCURACY], how="all").dropna(axis=1, how="all")
    return build_ladder(table, task_table, chosen.tasks, rungs, name, faults)


def _read_logs(
    source: str | Path | pd.DataFrame | Sequence[str | Path], preset: Preset, faults: list[str]
) -> list[_Log]:
    if isinstance(source, pd.DataFrame):
        tables = [("log", read_table(source, "log", faults)[0])]
    else:
        files = find_files(source, ("*.csv", "*.parquet", "*.pq"), "exports", faults)
        tables = [(file.stem, read_table(file, "log", faults)[0]) for file in files]
        wheres = {file.stem: file.name for file in files}
        twice = sorted(stem for stem in wheres if [file.stem for file in files].count(stem) > 1)
        if twice:
            faults.append(f"more than one file of the run {listed(twice)}; keep one of each")
            tables = [(stem, table) for stem, table in tables if stem not in twice]
    logs: list[_Log] = []
    for stem, table in tables:
        where = stem if isinstance(source, pd.DataFrame) else wheres[stem]
        if not len(table.columns):
            continue
        table = table.set_axis([str(column) for column in table], axis=1)
        if not table.columns.is_unique:
            twice_there = table.columns[table.columns.duplicated()]
            faults.append(f"{where}: columns given twice: {listed(twice_there, 5)}; keep one")
            table = table.loc[:, ~table.columns.duplicated()]
        column = next((word for word in preset.run if word in table), None)
        if column is None and isinstance(source, pd.DataFrame):
            faults.append(f"{where}: no column names the run; add one of {', '.join(preset.run)}")
        elif column is None:
            logs.append(_Log(stem, where, table))
        else:
            unnamed = table.index[table[column].isna()]
            if len(unnamed):
                faults.append(f"{where} row {unnamed[0]}: `{column}` names no run; name it")
            groups = table.groupby(table[column].astype(str), sort=False)
            logs += [_Log(str(run).strip(), where, rows) for run, rows in groups]
    runs = [log.run for log in logs]
    for run in dict.fromkeys(run for run in runs if runs.count(run) > 1):
        files_of = [log.where for log in logs if log.run == run]
        faults.append(f"run {run} is in {listed(files_of)}; keep one of each")
    return logs


def _common_keys(logs: Sequence[_Log], preset: Preset, name: str, faults: list[str]) -> Keys | None:
    """The preferred keys that all runs have; a fault where they share none."""
    has: dict[str, list[Keys]] = {}
    for log in logs:
        of_loss = [keys for keys in preset.keys if _has(log.table, keys.losses, preset)]
        has[log.run] = of_loss or [
            keys for keys in preset.keys
            if _has(log.table, (*keys.accuracy, *preset.accuracy.values()), preset)
        ]  # fmt: skip
    keyless = [log for log in logs if not has[log.run]]
    if keyless:
        faults.append(_no_key(keyless, preset))
    sets = [found for found in has.values() if found]
    shared = [keys for keys in preset.keys if sets and all(keys in found for found in sets)]
    if shared:
        return shared[0]
    if sets:
        kinds = {k.loss_kind: [run for run, f in has.items() if k in f] for k in preset.keys}
        faults.append(
            f"{name}: no {c.LOSS_KIND} is common to all runs ({listed_by(kinds)}); bits per byte "
            "of several definitions differ by up to a quarter: keep the runs of one, or evaluate "
            "again"
        )
    return None


def _no_key(logs: Sequence[_Log], preset: Preset) -> str:
    """One fault for all logs without the preset's keys; it names a preset whose keys they have."""
    patterns = [pattern for keys in preset.keys for pattern in (*keys.losses, *keys.accuracy)]
    wanted = " or ".join(f"`{pattern}`" for pattern in dict.fromkeys(patterns))
    others = [
        name
        for name, other in PRESETS.items()
        if all(any(_has(log.table, keys.losses, other) for keys in other.keys) for log in logs)
    ]
    cure = "choose the preset of its trainer, or write one"
    if others:
        cure = f"these are keys of preset {listed(others)}"
    where = listed(dict.fromkeys(log.where for log in logs), 5)
    near = _nearest(patterns, logs[0].table)
    shown = f"nearest are {listed(near)}; columns are {listed(logs[0].table, 6)}"
    shown = shown if near else shown.partition("; ")[2]
    return f"{where}: no key {wanted}; {cure} ({shown})"


def _has(table: pd.DataFrame, patterns: Sequence[str], preset: Preset) -> bool:
    return any(_columns(table, pattern, preset) for pattern in patterns)


def _columns(table: pd.DataFrame, pattern: str, preset: Preset) -> dict[str, str]:
    """Columns of this pattern that have a value, by their task."""
    filled = table.columns[table.notna().any()]
    if preset.task_keys:
        keys = {task: pattern.format(task=key) for task, key in preset.task_keys.items()}
        return {task: key for task, key in keys.items() if key in filled}
    whole = re.escape(pattern).replace(re.escape("{task}"), "(.+)")
    matches = (re.fullmatch(whole, column) for column in filled)
    return {match[min(1, match.re.groups)]: match[0] for match in matches if match}


def _tasks(logs: Sequence[_Log], keys: Keys, preset: Preset) -> list[str]:
    """Tasks with a loss or, where no run has any, an accuracy, in the order of the preset."""
    found: set[str] = set()
    for patterns in (keys.losses, keys.accuracy):
        for log in logs if not found else ():
            for pattern in patterns:
                found.update(_columns(log.table, pattern, preset))
    means = [task for task, parts in preset.aggregates.items() if set(parts) <= found]
    order = [*preset.tasks, *preset.task_keys, *sorted(found)]
    return [task for task in dict.fromkeys([*order, *means]) if task in found or task in means]


def _warn_of_parts(found: Sequence[str], preset: Preset) -> None:
    for whole, parts in preset.aggregates.items():
        both = [part for part in parts if part in found]
        if whole in found and both:
            warn(
                f"{whole} is the mean of {listed(both)}, which are read too: before a fit, choose "
                "the one or the others by tasks= (--tasks)",
            )


def _known_runs(
    logs: Sequence[_Log],
    preset: Preset,
    manifest: Mapping[str, dict[str, object]],
    manifest_name: str,
    faults: list[str],
) -> dict[str, dict[str, object]]:
    """Model, params and, if known, FLOPs per token of each run: manifest, preset, then log."""
    said = join({log.run: [_renamed(log.run, preset)] for log in logs}, manifest)
    known: dict[str, dict[str, object]] = {}
    for log in logs:
        row: dict[str, object] = {}
        size = _size(log.run, preset)
        if preset.params in log.table:
            counts = log.table[preset.params].dropna().unique()
            if len(counts) == 1:
                row = {c.MODEL: log.run, c.PARAMS: counts[0]}
            elif len(counts):
                values = ", ".join(map(str, counts))
                faults.append(f"{log.where}: run {log.run} has `{preset.params}` {values}; "
                              "give each run one size")  # fmt: skip
        if size is not None:
            row = {c.MODEL: _renamed(log.run, preset), c.PARAMS: size.params}
            row["flops_per_token"] = size.flops_per_token or flops(size.params, 1)
        known[log.run] = {**row, **said[log.run]}
        if c.PARAMS in said[log.run]:  # then the size's compute may be another's
            known[log.run].pop("flops_per_token", None)
    check_joined(known, (c.PARAMS,), manifest_name, faults)
    return {run: row for run, row in known.items() if c.PARAMS in row}


def _size(run: str, preset: Preset) -> Size | None:
    return next((size for size in preset.sizes if re.fullmatch(size.run, run)), None)


def _renamed(run: str, preset: Preset) -> str:
    size = _size(run, preset)
    match = re.fullmatch(size.run, run) if size else None
    return match.expand(size.model) if match and size else run


def _evaluated(table: pd.DataFrame, keys: Keys, preset: Preset) -> list[str]:
    """Columns that hold evaluations."""
    patterns = [*keys.patterns, *preset.accuracy.values()]
    found = {key for pattern in patterns for key in _columns(table, pattern, preset).values()}
    return [column for column in table if column in found or column == preset.reference_loss]


def _counts(log: _Log, preset: Preset, placed: Placed) -> Counts | None:
    """Tokens as counted, else steps x tokens of a batch; None after a fault."""
    before = len(placed)
    known = {
        word: as_numbers(log.table[word])
        for word in (*preset.tokens, preset.step, preset.batch_tokens)
        if word in log.table
    }
    for word, numbers in known.items():
        given = log.table[word]
        wrong = given[np.isnan(numbers) & given.notna().to_numpy()]
        if len(wrong):
            place = f"{log.where} row {wrong.index[0]}"
            placed.append((place, f"`{word}` is no finite number; give a number or nothing"))
    tokens = np.full(len(log.table), np.nan)
    for word in preset.tokens:
        tokens = np.where(np.isnan(tokens), known.get(word, tokens), tokens)
    steps = known.get(preset.step)
    if steps is not None and preset.batch_tokens in known:
        with np.errstate(over="ignore"):
            tokens = np.where(np.isnan(tokens), steps * known[preset.batch_tokens], tokens)
    return None if len(placed) > before else Counts(tokens, steps)


def _cure(log: _Log, preset: Preset) -> str:
    """What to log where tokens are not known, with columns that may be meant."""
    words = " or ".join(f"`{word}`" for word in preset.tokens)
    near = _nearest(preset.tokens, log.table)
    if not near:  # trainers name it in many ways, of which all say what it is
        near = [x for x in log.table if "token" in x.lower() and x not in preset.tokens][:3]
    also = f"; or name one of {listed(near)} as `tokens` of a preset" if near else ""
    by_step = f"`{preset.step}` and `{preset.batch_tokens}`"
    return f"log {f'{words}, or ' if words else ''}{by_step}{also}"


def _nearest(wanted: Sequence[str], table: pd.DataFrame) -> list[str]:
    """Columns with names like these, which are not these, the nearest first."""
    likeness = {
        column: max((_likeness(word, column) for word in wanted), default=0.0)
        for column in table
        if column not in wanted
    }
    near = [column for column in likeness if likeness[column] >= NEAR_NAME]
    return sorted(near, key=lambda column: -likeness[column])[:3]


def _likeness(word: str, column: str) -> float:
    """From 0 to 1; of a key with a place for a task what stands before it and behind it counts."""
    before, place, behind = word.partition("{task}")
    if not place:
        tail = word.rpartition("/")[2]
        return max(SequenceMatcher(None, word, column).ratio(), column.endswith(tail))
    ends = column[: len(before)] + column[-len(behind) :] * bool(behind)
    return SequenceMatcher(None, before + behind, ends).ratio()


def _common_columns(
    log: _Log, preset: Preset, known: Mapping[str, object], tokens: pd.Series
) -> pd.DataFrame:
    """What all tasks share at each row: `model, params, tokens, flops, reference_loss` and more."""
    common = pd.DataFrame({c.TOKENS: tokens}, index=log.table.index)
    for word in (c.MODEL, c.PARAMS, c.RECIPE, c.SEED):
        if word in known:
            common[word] = known[word]
    if "flops_per_token" in known:
        common[c.FLOPS] = tokens * float(str(known["flops_per_token"]))
    if preset.step in log.table:
        common["step"] = log.table[preset.step]
    if preset.reference_loss in log.table:
        common[c.REFERENCE_LOSS] = log.table[preset.reference_loss]
    return common


def _long(
    log: _Log, task: str, keys: Keys, preset: Preset, common: pd.DataFrame,
    accuracy_keys: Mapping[str, str | None], faults: list[str],
) -> pd.DataFrame:  # fmt: skip
    """One task's rows, each labelled with its file and row for errors."""
    rows = common.assign(**{
        c.TASK: task,
        c.LOSS: _values(log, task, keys.loss, preset, faults),
        c.ACCURACY: _accuracy(log, task, preset, accuracy_keys, faults),
    })  # fmt: skip
    rows[c.LOSS_KIND] = pd.Series(keys.loss_kind, rows.index).where(rows[c.LOSS].notna())
    if keys.log_soft:
        rows[c.TASK_CE] = -_numbers(log, _values(log, task, keys.log_soft, preset, faults), faults)
    rows.index = pd.Index([f"{log.where}:{row} {task}" for row in rows.index])
    return rows


def _means_of_accuracy(task: str, preset: Preset) -> Mapping[str, float]:
    """Weights of the parts of a task that is their mean and has no keys of its own."""
    return {} if task in preset.task_keys else preset.aggregates.get(task, {})


def _accuracy_keys(
    tasks: Sequence[str], keys: Keys, preset: Preset, logs: Sequence[_Log]
) -> dict[str, str | None]:
    """One definition of each task's accuracy for all runs, also of the parts of a mean.

    The first key common to all runs that have one, else the first that any run has.
    """
    chosen: dict[str, str | None] = {}
    for task in tasks:
        parts = list(_means_of_accuracy(task, preset))
        if parts:
            chosen |= _accuracy_keys(parts, keys, preset, logs)
            continue
        own = [key for name, key in preset.accuracy.items() if is_task(task, name)]
        preferred = own or keys.accuracy
        has = [[key for key in preferred if _key(task, key, preset) in log.table] for log in logs]
        held = [found for found in has if found]
        common = [key for key in preferred if all(key in found for found in held)]
        chosen[task] = next(iter(common or [key for found in held for key in found]), None)
    return chosen


def _accuracy(
    log: _Log, task: str, preset: Preset, accuracy_keys: Mapping[str, str | None],
    faults: list[str],
) -> pd.Series:  # fmt: skip
    parts = _means_of_accuracy(task, preset)
    if parts:
        values = [
            w * _numbers(log, _accuracy(log, part, preset, accuracy_keys, faults), faults)
            for part, w in parts.items()
        ]
        return pd.Series(np.sum(values, axis=0), index=log.table.index)
    key = accuracy_keys[task]
    if key is None:
        return pd.Series(np.nan, index=log.table.index)
    return _values(log, task, key, preset, faults)


def _key(task: str, pattern: str, preset: Preset) -> str:
    return pattern.format(task=preset.task_keys.get(task, task))


def _values(
    log: _Log, task: str, pattern: str | None, preset: Preset, faults: list[str]
) -> pd.Series:
    if pattern is None:
        return pd.Series(np.nan, index=log.table.index)
    key = _key(task, pattern, preset)
    if key in log.table:
        return log.table[key]
    weights = preset.aggregates.get(task, {})
    parts = [
        weight * _numbers(log, _values(log, part, pattern, preset, faults), faults)
        for part, weight in weights.items()
    ]
    if parts:
        return pd.Series(np.sum(parts, axis=0), index=log.table.index)
    return pd.Series(np.nan, index=log.table.index)


def _numbers(log: _Log, values: pd.Series, faults: list[str]) -> pd.Series:
    """Values to reckon with, NaN where there are none; faults are those that are no numbers."""
    numbers = pd.Series(as_numbers(values), index=values.index)
    wrong = values[numbers.isna() & values.notna()]
    if len(wrong):
        shown = f"{log.where} row {wrong.index[0]}: `{values.name}` {str(wrong.iloc[0])[:60]}"
        fault = f"{shown} is no finite number; give a number"
        faults += [fault] if fault not in faults else []  # several means may have one part
    return numbers

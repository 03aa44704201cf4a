"""Whether any input breaks a reader: sound inputs of each, changed at random, and what comes of it.

`python benchmarks/mutated_inputs.py [--count N] [--first N] [--seed S] [--reader NAME]
[--workers N]` changes values, keys and types of JSON, cells, columns and types of tables, bytes,
encodings, presets and manifests, reads them, and counts what was read, refused with one ValueError
that names the place, or neither.
Each of the latter is printed with the number that `--only NUMBER` makes again, and the exit status
is 1 then.
"""

import argparse
import datetime
import io
import json
import random
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from copy import deepcopy
from decimal import Decimal
from functools import partial, reduce
from multiprocessing import get_context
from operator import getitem
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sound_inputs import (
    MANIFEST,
    PRESET,
    SOURCE,
    TASKS,
    as_csv,
    as_lines,
    as_parquet,
    datadecide_table,
    export_files,
    harness_files,
    ladder_table,
    old_harness_files,
    olmes_files,
    training_log_files,
    written_harness_files,
)

import laddercast as lc

# What is done to files

VALUES = [
    None, True, False, 0, -1, 1, 0.5, 47, 1e308, -1e308, 10**30, -(10**400), 10**400, float("nan"),
    float("inf"), float("-inf"), "", " ", "abc", "1", "0.5", "nan", "-inf", "1e999", "\0", "é",
    "a/b", "..", "x" * 300, "\ud800", "{other}", "(.+", [], [None], [1, 2], [[]], ["a"], {},
    {"a": 1}, {"": None}, [[[[[]]]]],
]  # fmt: skip
"""JSON of other types, and numbers and texts at the ends of what there is."""

TEXTS = [
    "", " ", "abc", "nan", "NaN", "inf", "-inf", "1e999", "1e308", "-1", "0", "0.5", "1.5", "47",
    "1,5", "1_0", "0x10", "True", "2025-01-01", "9" * 30, "9" * 5000, "é", "\0", "a/b", '"', "\n",
    "{}", "[1]", "{'a': 1}", "{[]: 1}", "{'acc_per_char': 'x'}", "error", "%s", "\ufeff", "\ud7ff",
    "x" * 300,
]  # fmt: skip

type Files = dict[str, bytes]


def places(value: object, path: tuple = ()) -> Iterator[tuple]:
    """The path of each part of a JSON value, but for the whole."""
    inside = value.items() if isinstance(value, dict) else ()
    inside = enumerate(value) if isinstance(value, list) else inside
    for key, part in inside:
        yield (*path, key)
        yield from places(part, (*path, key))


def changed_json(rng: random.Random, value: object) -> object:
    """With a part or two replaced, dropped, renamed, put elsewhere or there twice."""
    value = deepcopy(value)
    for _ in range(rng.randint(1, 2)):
        paths = list(places(value))
        if not paths:
            return value
        *path, key = rng.choice(paths)
        holder = reduce(getitem, path, value)
        change = rng.choice(("value", "value", "value", "drop", "rename", "part"))
        if change == "value":
            holder[key] = deepcopy(rng.choice(VALUES))
        elif change == "drop":
            del holder[key]
        elif change == "part":
            holder[key] = deepcopy(reduce(getitem, rng.choice(paths), value))
        elif isinstance(holder, dict):
            names = [*holder, "", "other", f"{key} ", str(key).upper(), "a/b", "x" * 300, "\ud800"]
            holder[rng.choice(names)] = holder.pop(key)
        else:
            holder.insert(rng.randint(0, len(holder)), deepcopy(holder[key]))
    return value


def changed_table(rng: random.Random, content: bytes) -> pd.DataFrame:
    """With cells of other text, columns renamed or dropped, columns or rows lost or there twice."""
    table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    for _ in range(rng.randint(1, 3)):
        rows, columns = table.shape
        if not rows or not columns:
            break
        at = rng.randrange(columns)
        change = rng.choice(("cell", "cell", "column", "name", "drop", "rows", "twice"))
        if change == "cell":
            table.iloc[rng.randrange(rows), at] = rng.choice(TEXTS)
        elif change == "column":
            table.isetitem(at, [rng.choice(TEXTS)] * rows)
        elif change == "name":
            names = list(table.columns)
            names[at] = rng.choice([*names, *TEXTS, names[at].upper(), names[at][:-1]])
            table.columns = names
        elif change == "drop":
            table = table.iloc[:, [i for i in range(columns) if i != at]]
        elif change == "rows":
            kept = [rng.randrange(rows) for _ in range(rng.randint(0, 2 * rows))]
            table = table.iloc[kept].reset_index(drop=True)
        else:
            table = pd.concat([table, table.iloc[:, [at]]], axis=1)
    return table


def changed_parquet(rng: random.Random, content: bytes) -> bytes:
    """With columns of other types."""
    table = pq.read_table(io.BytesIO(content)).replace_schema_metadata(None)
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(table.num_columns)
        cells = table.column(at).to_pylist()
        made = [
            lambda x: str(x).encode(), lambda x: b"\xff\xfe", str, lambda x: [x],
            lambda x: {"a": x}, lambda x: None, lambda x: True, lambda x: datetime.date(2025, 1, 1),
            lambda x: datetime.datetime(2025, 1, 1), lambda x: datetime.timedelta(1),
            lambda x: Decimal("0.5"), lambda x: rng.choice(TEXTS), lambda x: rng.random(),
            lambda x: rng.choice((None, x)), lambda x: 2**62,
        ]  # fmt: skip
        column = pa.array([*map(rng.choice(made), cells)])
        if rng.random() < 0.2 and pa.types.is_string(column.type):
            column = column.dictionary_encode()
        table = table.set_column(at, rng.choice([table.column_names[at]] * 9 + TEXTS), column)
    there = io.BytesIO()
    pq.write_table(table, there)
    return there.getvalue()


def changed_bytes(rng: random.Random, content: bytes) -> bytes:
    """Cut off, with some bytes in between, there twice, or in another encoding."""
    at = rng.randint(0, len(content))
    change = rng.choice(("cut", "cut", "insert", "encode", "twice", "overwrite"))
    if change == "cut":
        return content[:at]
    if change == "insert":
        more = rng.choice((rng.randbytes(rng.randint(0, 8)), b'"', b",,", b"[" * 10**5))
        return content[:at] + more + content[at:]
    if change == "overwrite":
        return content[:at] + rng.randbytes(rng.randint(1, 8)) + content[at + 8 :]
    if change == "twice":
        return content + content
    text = content[:at].decode(errors="replace") + "é" + content[at:].decode(errors="replace")
    code = rng.choice(("utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-32"))
    return text.encode(code, errors="replace")


TOML = [
    "1", "-1", "1e400", "nan", "inf", "true", '""', '"x"', '"{task}"', '"{other}"', '"{"', '"(.+"',
    "'\\9'", "[]", "[1]", "[[]]", '["a", 1]', "{}", "{a = 1}", "2025-01-01", "9" * 30, '"\\u0000"',
]  # fmt: skip


def changed_toml(rng: random.Random, content: bytes) -> bytes:
    """With values and names replaced, lines lost or there twice."""
    lines = content.decode().split("\n")
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(len(lines))
        name, mark, value = lines[at].partition(" = ")
        change = rng.choice(("value", "value", "name", "drop", "twice", "move"))
        if change == "value" and mark:
            lines[at] = f"{name} = {rng.choice(TOML)}"
        elif change == "name" and mark:
            lines[at] = f"{rng.choice(('run', 'keys', 'sizes', 'other', name[:-1]))} = {value}"
        elif change == "drop":
            lines[at] = ""
        elif change == "twice":
            lines.insert(at, lines[at])
        else:
            lines.insert(rng.randrange(len(lines)), lines.pop(at))
    return "\n".join(lines).encode()


def changes(rng: random.Random, files: Files) -> Files:
    """A file or two of these, each changed by what it holds, or as bytes."""
    changed: Files = {}
    for _ in range(rng.randint(1, 2)):
        name = rng.choice(sorted(files))
        content = changed.get(name, files[name])
        kind = "bytes" if name in changed or not rng.randrange(5) else Path(name).suffix
        if kind == ".json":
            content = json.dumps(changed_json(rng, json.loads(content))).encode()
        elif kind == ".jsonl":
            content = as_lines(changed_json(rng, [*map(json.loads, content.splitlines())]))
        elif kind == ".csv":
            content = as_csv(changed_table(rng, content))
        elif kind == ".parquet":
            content = changed_parquet(rng, content)
        elif kind == ".toml":
            content = changed_toml(rng, content)
        else:
            content = changed_bytes(rng, content)
        changed[name] = content
    return changed


# The readers

WITH_MANIFEST = {"../manifest.csv": as_csv(MANIFEST)}


class Reader(NamedTuple):
    """How files in a folder are read, and files that are sound."""

    read: Callable[[Path], lc.Ladder | pd.DataFrame]
    files: Files


def exports(preset: str, tasks: list[str] | None = None) -> Reader:
    """A tracker's exports."""
    return Reader(
        lambda at: lc.read_wandb(at, preset, at / "../manifest.csv", tasks, rungs="every"),
        export_files(preset) | WITH_MANIFEST,
    )


def parquet(files: Files) -> Files:
    """The same tables, but for the manifest, as Parquet."""
    return {
        name if name.startswith("..") else name.replace(".csv", ".parquet"):
        content if name.startswith("..") else as_parquet(content)
        for name, content in files.items()
    }  # fmt: skip


def json_lines(files: Files) -> Files:
    """The same tables with an object a line."""
    tables = {name: pd.read_csv(io.BytesIO(content)) for name, content in files.items()}
    return {
        name.replace(".csv", ".jsonl"): as_lines(table.to_dict("records"))
        for name, table in tables.items()
    }


def harness(files: Files, **options: str) -> Reader:
    """Results of lm-evaluation-harness."""
    return Reader(
        lambda at: lc.read_lm_eval(at, at / "../manifest.csv", **options), files | WITH_MANIFEST
    )


LADDER = {"ladder.csv": as_csv(ladder_table()), "tasks.csv": as_csv(TASKS)}
TARGETS = {"targets.csv": as_csv(ladder_table())}
LEVANTER = exports("levanter")
READERS = {
    "ladder and tasks": Reader(
        lambda at: lc.read_ladder(at / "ladder.csv", at / "tasks.csv"), LADDER
    ),
    "ladder alone": Reader(lambda at: lc.read_ladder(at / "ladder.csv", rungs="every"), LADDER),
    "ladder as Parquet": Reader(
        lambda at: lc.read_ladder(at / "ladder.parquet", at / "tasks.parquet"), parquet(LADDER)
    ),
    "ladder as JSON lines": Reader(
        lambda at: lc.read_ladder(at / "ladder.jsonl", at / "tasks.jsonl"), json_lines(LADDER)
    ),
    "targets": Reader(lambda at: lc.read_targets(at / "targets.csv"), TARGETS),
    "harness": harness(harness_files()),
    "harness before 0.4": harness(old_harness_files()),
    "harness with filters": harness(written_harness_files()),
    "harness by metric": harness(written_harness_files(), metric="exact_match,flexible-extract"),
    "OLMES": Reader(
        lambda at: lc.read_olmes(at, at / "../manifest.csv"), olmes_files(True) | WITH_MANIFEST
    ),
    "OLMES task by task": Reader(
        lambda at: lc.read_olmes(at, at / "../manifest.csv"), olmes_files(False) | WITH_MANIFEST
    ),
    "DataDecide": Reader(
        lambda at: lc.read_olmes(at / "table.csv"), {"table.csv": as_csv(datadecide_table())}
    ),
    "DataDecide as Parquet": Reader(
        lambda at: lc.read_olmes(at / "table.parquet"),
        parquet({"table.csv": as_csv(datadecide_table())}),
    ),
    "levanter": LEVANTER,
    "exports as Parquet": LEVANTER._replace(files=parquet(LEVANTER.files)),
    "olmo-core": exports("olmo-core"),
    "olmo": exports("olmo", ["mmlu"]),  # not its parts beside it
    "training logs": Reader(
        lambda at: lc.read_wandb(
            at, at / "../preset.toml", at / "../manifest.csv", rungs="every"
        ),
        training_log_files() | WITH_MANIFEST | {"../preset.toml": PRESET.encode()},
    ),
    "preset": Reader(
        lambda at: lc.read_wandb(at, at / "../preset.toml", rungs="every"),
        training_log_files() | {"../preset.toml": PRESET.encode()},
    ),
}  # fmt: skip
ALONE = {"preset": "../preset.toml"}
"""Readers of which one file alone is changed."""


# What is made of an input

SOUND = {"read", "ValueError"}


def changed_input(seed: int, number: int, name: str | None = None) -> tuple[str, Files]:
    """Input `number` of this seed: a reader and the files that are changed."""
    rng = random.Random(f"{seed} {number}")
    name = name or rng.choice(sorted(READERS))
    files = READERS[name].files
    changed = changes(rng, {ALONE[name]: files[ALONE[name]]} if name in ALONE else files)
    return name, changed


def outcome(name: str, changed: Files) -> tuple[str, str]:
    """What is made of it: `read`, `ValueError`, or what is wrong; and what was told."""
    reader = READERS[name]
    with TemporaryDirectory(dir=_memory()) as place:
        for path, content in (reader.files | changed).items():
            there = Path(place, SOURCE, path)
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                found = reader.read(Path(place, SOURCE))
        except ValueError as error:
            # Its kinds, as of codecs, do not say where.
            if type(error) is not ValueError:
                return "traceback", traceback.format_exc()
            told = str(error)
            return ("ValueError" if _names_a_place(told, changed) else "no place named"), told
        except Exception:
            return "traceback", traceback.format_exc()
    fault = _unsound(found)
    return ("unsound" if fault else "read"), fault


def tried(seed: int, reader: str | None, number: int) -> tuple[int, str, str, str]:
    """Input `number` of this seed: the number, its reader, what is made of it, what was told."""
    name, changed = changed_input(seed, number, reader)
    return number, name, *outcome(name, changed)


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _names_a_place(told: str, changed: Files) -> bool:
    paths = [Path(name) for name in changed]
    named = {part for path in paths for part in (path.name, path.stem, path.parent.name)}
    named |= {SOURCE, "manifest"}  # which may lack a run
    named |= {".csv"} if "../preset.toml" in changed else set()  # which then lacks a key
    return any(name in told for name in named - {"", ".."}) and "Error(" not in told


def _unsound(found: lc.Ladder | pd.DataFrame) -> str:
    """What of a table cannot be, "" if nothing."""
    if isinstance(found, lc.Ladder):
        if not len(found) == len(found.table) > 0 or len(found.fingerprint) != 64:
            return "no rows"
        chance, items = found.tasks["chance"], found.tasks["items"]
        # Losses alone need none.
        alone = "accuracy" not in found.table or found.table["accuracy"].isna().all()
        if not (((chance >= 0) & (chance < 1)) | (chance.isna() & alone)).all():
            return "a chance that none is"
        if not ((items >= 1) | items.isna()).all():
            return "a number of questions below 1"
        if set(found.table["task"]) != set(found.tasks.index):
            return "tasks of table and tasks differ"
        found = found.table
    if not {"model", "params", "tokens"} <= set(found):
        return "columns are missing"
    if not (found[["params", "tokens"]] > 0).all(axis=None):
        return "params or tokens of 0"
    for word in ("loss", "reference_loss", "accuracy"):
        values = found.get(word, pd.Series(dtype=float)).dropna().astype(float)
        if not (np.isfinite(values) & (values >= 0)).all():
            return f"{word} is below 0 or infinite"
    if not (found.get("accuracy", pd.Series(0.0)).dropna() <= 1).all():
        return "accuracy is above 1"
    return ""


def main() -> int:
    """Read so many changed inputs; print the number of each outcome by reader."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="inputs (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="its number (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--reader", choices=sorted(READERS), help="default: each in turn")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this input alone, in full")
    given = parser.parse_args()
    numbers = range(given.first, given.first + given.count)
    numbers = numbers if given.only is None else [given.only]
    counts: Counter[tuple[str, str]] = Counter()
    one = partial(tried, given.seed, given.reader)
    with ExitStack() as stack, suppress(KeyboardInterrupt):  # counts so far; `--first` goes on
        every = map(one, numbers)
        if given.workers > 1:
            pool = stack.enter_context(get_context("spawn").Pool(given.workers))
            every = pool.imap(one, numbers, 50)
        for number, name, made, told in every:
            counts[name, made] += 1
            if made not in SOUND or given.only is not None:
                shown = told if given.only is not None else told.strip().split("\n")[-1][:150]
                print(f"{made}: --seed {given.seed} --only {number} ({name}): {shown}", flush=True)
            if given.only is not None:
                for path, content in changed_input(given.seed, number, given.reader)[1].items():
                    print(f"--- {path}\n{content[:2000]!r}")
            if number % 1000 == 999:
                print(f"{number + 1} inputs", file=sys.stderr, flush=True)
    kinds = sorted({made for _, made in counts}, key=lambda made: (made not in SOUND, made))
    table = pd.DataFrame(
        [[counts[name, made] for made in kinds] for name in sorted({name for name, _ in counts})],
        index=sorted({name for name, _ in counts}), columns=kinds,
    )  # fmt: skip
    table.loc["all"] = table.sum()
    print(table.to_string())
    return int(any(made not in SOUND for _, made in counts))


if __name__ == "__main__":
    sys.exit(main())

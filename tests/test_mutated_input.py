"""Whatever was done to a file, it is read soundly or refused by an error that names it."""

import io
import json
import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import reduce
from operator import getitem
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import laddercast as lc

pytestmark = pytest.mark.filterwarnings("ignore::laddercast.AssumedWarning")

RUNS = [(n * 10**8, length) for n, length in ((1, 20), (1, 100), (2, 20), (4, 100))]
QUESTIONS = 4
SOURCE = "logs"


def examples(count: int) -> settings:
    return settings(max_examples=count, deadline=None, derandomize=True)


# Sound inputs, as bytes by path


def law(params: int, tokens: float) -> float:
    return 0.5 + 30 / params**0.25 + 60 / tokens**0.25


def accuracy_of(loss: float) -> float:
    return 0.25 + 0.7 / (1 + math.exp(5 * (loss - 1.1)))


def run_of(params: int, length: int) -> str:
    return f"{params // 10**6}M-{length}"


def as_csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False).encode()


def as_lines(lines: list) -> bytes:
    return "\n".join(map(json.dumps, lines)).encode()


MANIFEST = pd.DataFrame(
    [(run_of(n, m), n, n * m) for n, m in RUNS], columns=["model", "params", "tokens"]
)
TASKS = pd.DataFrame({"task": ["easy", "hard"], "chance": [0.25, 0.5], "items": [2000, 500]})


def ladder_table() -> pd.DataFrame:
    """Two tasks and two checkpoints a run."""
    rows = []
    for params, length in RUNS:
        for tokens in (params * length * 19 // 20, params * length):
            loss = law(params, tokens)
            for task, chance, items in TASKS.itertuples(index=False):
                rows.append({
                    "model": run_of(params, length), "params": params, "tokens": tokens,
                    "task": task, "loss": loss, "reference_loss": 2 * loss,
                    "accuracy": accuracy_of(loss), "chance": chance, "items": items,
                    "recipe": "web", "loss_kind": "bits per byte", "flops": 6.0 * params * tokens,
                    "checkpoints": 1, "task_ce": loss, "seed": 0,
                })  # fmt: skip
    return pd.DataFrame(rows)


def question(i: int) -> dict[str, object]:
    answers = [f" answer {k}" for k in range(4)]
    return {
        "doc_id": i,
        "target": str(i % 4),
        "arguments": {
            f"gen_args_{k}": {"arg_0": f"Question {i}", "arg_1": answer}
            for k, answer in enumerate(answers)
        },
        "filtered_resps": [[str(-5.0 - (k + i) % 4), "False"] for k in range(4)],
        "filter": "none",
        "acc": float(i % 2),
        "acc_norm": float(i % 2),
    }


def harness_files() -> dict[str, bytes]:
    """Results and samples of two tasks and their group, one folder a run."""
    files = {}
    tasks = ("arc_easy", "piqa")
    for params, length in RUNS:
        run, stamp = run_of(params, length), "2026-01-02T03-04-05.678901"
        share = {"acc,none": 0.5, "acc_norm,none": 0.5, "acc_stderr,none": "N/A"}
        results = {
            "results": dict.fromkeys(tasks, share) | {"both": {"acc,none": 0.5}},
            "n-samples": {task: {"original": QUESTIONS, "effective": QUESTIONS} for task in tasks},
            "n-shot": dict.fromkeys(tasks, 5),
            "versions": dict.fromkeys(tasks, 1),
            "group_subtasks": {"both": list(tasks)},
            "model_name": f"org/{run}",
            "config": {
                "model": "hf", "model_num_parameters": params + 1, "model_args": "revision=main",
            },
        }  # fmt: skip
        files[f"{run}/results_{stamp}.json"] = json.dumps(results).encode()
        lines = as_lines([question(i) for i in range(QUESTIONS)])
        files |= {f"{run}/samples_{task}_{stamp}.jsonl": lines for task in tasks}
    return files


def olmes_files(whole: bool) -> dict[str, bytes]:
    """Metrics and predictions of two tasks, one folder a run; `whole`: in one file of metrics."""
    files = {}
    for params, length in RUNS:
        run, loss, entries = run_of(params, length), law(params, params * length), []
        for i, task in enumerate(("boolq", "csqa")):
            entries.append({
                "task_name": task,
                "task_config": {
                    "split": "validation", "num_shots": 5, "metadata": {"alias": f"{task}:rc"},
                },
                "num_instances": QUESTIONS,
                "metrics": olmes_metrics(loss),
                "model_config": {"model": f"hub/{run}", "revision": "main"},
            })  # fmt: skip
            files[f"{run}/task-{i:03d}-{task}-metrics.json"] = json.dumps(entries[-1]).encode()
            lines = [
                {
                    "doc_id": k,
                    "label": 0,
                    "metrics": {"bits_per_byte_corr": 1 + k % 2},
                    "model_output": [{"sum_logits": -1.0, "num_tokens": 1}] * 2,
                }
                for k in range(QUESTIONS)
            ]
            files[f"{run}/task-{i:03d}-{task}-predictions.jsonl"] = as_lines(lines)
        if whole:
            files[f"{run}/metrics-all.jsonl"] = as_lines(entries)
    return files


def olmes_metrics(loss: float) -> dict[str, float]:
    right = accuracy_of(loss)
    return {
        "acc_raw": right / 2, "acc_per_char": right, "primary_score": right,
        "bits_per_byte_corr": loss,
    }  # fmt: skip


def datadecide_table() -> pd.DataFrame:
    rows = []
    for label, params in {"90M": 97946640, "150M": 151898880, "300M": 319980544}.items():
        for seed, length in (("default", 100), ("small aux 2", 20)):
            for step in (0, 500, 1000):
                tokens = params * step * length // 1000
                for task in ("arc_easy", "mmlu_virology", "mmlu_anatomy"):
                    metrics = {**olmes_metrics(law(params, max(tokens, 1))), "uncond": math.nan}
                    rows.append({
                        "params": label, "data": "web", "task": task, "step": step, "seed": seed,
                        "tokens": tokens, "compute": 6.0 * params * tokens, "metrics": str(metrics),
                    })  # fmt: skip
    return pd.DataFrame(rows)


CORE = "eval/downstream/arc_easy_test_rc_5shot "
EXPORTS = {
    "levanter": (
        ["lm_eval/arc_easy/bpb", "lm_eval/boolq/bpb"],
        ["lm_eval/arc_easy/acc_norm", "lm_eval/boolq/acc"],
        [],
        "throughput/total_tokens",
    ),
    "olmo-core": (
        [f"{CORE}(BPB v2)"],
        [f"{CORE}(length-normalized accuracy)"],
        [f"{CORE}(log soft loss v2)"],
        "tokens",
    ),
    "olmo": (
        [f"eval/downstream_bpb/mmlu_{part}_test_rc_5shot_bpb"
         for part in ("stem", "humanities", "social_sciences", "other")],
        [f"eval/downstream/mmlu_{part}_test_rc_5shot_len_norm"
         for part in ("stem", "humanities", "social_sciences", "other")],
        [f"eval/downstream_soft_log/mmlu_{part}_test_rc_5shot_soft_log"
         for part in ("stem", "humanities", "social_sciences", "other")],
        "throughput/total_tokens",
    ),
}  # fmt: skip
"""Keys of loss, accuracy, log of soft loss, and tokens, by preset."""


def export_files(preset: str) -> dict[str, bytes]:
    """One file a run, with a row before training."""
    losses, accuracies, log_softs, counts = EXPORTS[preset]
    files = {}
    for params, length in RUNS:
        tokens = [0, params * length * 19 // 20, params * length]
        loss = np.array([law(params, max(count, 1e6)) for count in tokens])
        columns = dict.fromkeys(losses, loss)
        columns |= dict.fromkeys(accuracies, np.vectorize(accuracy_of)(loss))
        columns |= dict.fromkeys(log_softs, -loss)
        columns |= {counts: tokens, "_step": range(3), "batch_size_in_tokens": 1000}
        if preset == "olmo-core":
            columns |= {"name": run_of(params, length), "num_params": params}
        files[f"{run_of(params, length)}.csv"] = as_csv(pd.DataFrame(columns))
    return files


# What is done to them

VALUES = [
    None, True, False, 0, -1, 1, 0.5, 47, 1e308, -1e308, 10**30, -(10**400), 10**400, math.nan,
    math.inf, -math.inf, "", " ", "abc", "1", "0.5", "nan", "-inf", "1e999", "\0", "é", "a/b",
    "x" * 300, [], [None], [1, 2], [[]], ["a"], {}, {"a": 1}, {"": None}, [[[[[]]]]],
]  # fmt: skip
"""JSON of other types, and numbers and texts at the ends of what there is."""

TEXTS = [
    "", " ", "abc", "nan", "NaN", "inf", "-inf", "1e999", "1e308", "-1", "0", "0.5", "1.5", "47",
    "1,5", "1_0", "0x10", "True", "2025-01-01", "9" * 30, "9" * 5000, "é", "\0", "a/b", '"', "\n",
    "{}", "[1]", "{'a': 1}", "%s", "\ufeff", "\ud7ff", "x" * 300,
]  # fmt: skip


def places(value: object, path: tuple = ()) -> Iterator[tuple]:
    """The path of each part of a JSON value, but for the whole."""
    inside = value.items() if isinstance(value, dict) else ()
    inside = enumerate(value) if isinstance(value, list) else inside
    for key, part in inside:
        yield (*path, key)
        yield from places(part, (*path, key))


@st.composite
def changed_json(draw: st.DrawFn, value: object) -> object:
    """With a part or two replaced, dropped, renamed, put elsewhere or there twice."""
    value = deepcopy(value)
    for _ in range(draw(st.integers(1, 2))):
        paths = list(places(value))
        if not paths:
            return value
        *path, key = draw(st.sampled_from(paths))
        holder = reduce(getitem, path, value)
        change = draw(st.sampled_from(("value", "value", "drop", "rename", "part")))
        if change == "value":
            holder[key] = deepcopy(draw(st.sampled_from(VALUES)))
        elif change == "drop":
            del holder[key]
        elif change == "part":
            holder[key] = deepcopy(reduce(getitem, draw(st.sampled_from(paths)), value))
        elif isinstance(holder, dict):
            holder[draw(st.sampled_from([*holder, "", "other", f"{key} ", key.upper()]))] = (
                holder.pop(key)
            )
        else:
            holder.insert(draw(st.integers(0, len(holder))), deepcopy(holder[key]))
    return value


@st.composite
def changed_table(draw: st.DrawFn, content: bytes) -> bytes:
    """With cells of other text, columns renamed or dropped, columns or rows lost or there twice."""
    table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    for _ in range(draw(st.integers(1, 3))):
        rows, columns = table.shape
        if not rows or not columns:
            break
        at = draw(st.integers(0, columns - 1))
        change = draw(st.sampled_from(("cell", "cell", "column", "name", "drop", "rows", "twice")))
        if change == "cell":
            table.iloc[draw(st.integers(0, rows - 1)), at] = draw(st.sampled_from(TEXTS))
        elif change == "column":
            table.isetitem(at, [draw(st.sampled_from(TEXTS))] * rows)
        elif change == "name":
            names = list(table.columns)
            names[at] = draw(st.sampled_from([*names, *TEXTS, names[at].upper(), names[at][:-1]]))
            table.columns = names
        elif change == "drop":
            table = table.iloc[:, [i for i in range(columns) if i != at]]
        elif change == "rows":
            kept = draw(st.lists(st.integers(0, rows - 1), max_size=2 * rows))
            table = table.iloc[kept].reset_index(drop=True)
        else:
            table = pd.concat([table, table.iloc[:, [at]]], axis=1)
    return as_csv(table)


@st.composite
def changed_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """Cut off, with some bytes in between, there twice, or in another encoding."""
    at = draw(st.integers(0, len(content)))
    change = draw(st.sampled_from(("cut", "cut", "insert", "encode", "twice", "overwrite")))
    if change == "cut":
        return content[:at]
    if change == "insert":
        more = draw(st.one_of(st.binary(max_size=8), st.sampled_from((b'"', b",,", b"[" * 10**5))))
        return content[:at] + more + content[at:]
    if change == "overwrite":
        return content[:at] + draw(st.binary(min_size=1, max_size=8)) + content[at + 8 :]
    if change == "twice":
        return content + content
    text = content[:at].decode(errors="replace") + "é" + content[at:].decode(errors="replace")
    code = draw(st.sampled_from(("utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-32")))
    return text.encode(code, errors="replace")


@st.composite
def changes(draw: st.DrawFn, files: dict[str, bytes]) -> dict[str, bytes]:
    """A file or two of these, each changed by what it holds, or as bytes."""
    changed: dict[str, bytes] = {}
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(sorted(files)))
        content = changed.get(name, files[name])
        kind = "bytes" if name in changed or not draw(st.integers(0, 4)) else Path(name).suffix
        if kind == ".json":
            content = json.dumps(draw(changed_json(json.loads(content)))).encode()
        elif kind == ".jsonl":
            content = as_lines(draw(changed_json([*map(json.loads, content.splitlines())])))
        elif kind == ".csv":
            content = draw(changed_table(content))
        else:
            content = draw(changed_bytes(content))
        changed[name] = content
    return changed


def check(
    read: Callable[[Path], lc.Ladder | pd.DataFrame], files: dict[str, bytes],
    changed: dict[str, bytes],
) -> str:  # fmt: skip
    """`read` gives what is sound, or says of which file, run or folder it cannot: what it says."""
    told = ""
    with TemporaryDirectory() as place:
        for name, content in (files | changed).items():
            path = Path(place, SOURCE, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        try:
            found = read(Path(place, SOURCE))
        except OSError as error:
            told = str(error)
        except ValueError as error:
            # Not one of its kinds, as of codecs: those do not say where.
            told = str(error) if type(error) is ValueError else repr(error)
    if told:
        paths = [Path(name) for name in changed or files]
        named = {part for path in paths for part in (path.name, path.stem, path.parent.name)}
        named |= {SOURCE, "manifest.csv"}  # which may lack a run
        assert any(name in told for name in named - {"", ".."}), told
        assert "Error(" not in told
        return told
    if isinstance(found, lc.Ladder):
        assert len(found) == len(found.table) > 0
        assert len(found.fingerprint) == 64
        assert repr(found)
        chance, items = found.tasks["chance"], found.tasks["items"]
        # Losses alone need none.
        alone = "accuracy" not in found.table or found.table["accuracy"].isna().all()
        assert (((chance >= 0) & (chance < 1)) | (chance.isna() & alone)).all()
        assert ((items >= 1) | items.isna()).all()
        assert set(found.table["task"]) == set(found.tasks.index)
        found = found.table
    assert {"model", "params", "tokens"} <= set(found)
    assert (found[["params", "tokens"]] > 0).all(axis=None)
    for word in ("loss", "reference_loss", "accuracy"):
        values = found.get(word, pd.Series(dtype=float)).dropna()
        assert np.isfinite(values.astype(float)).all()
        assert (values >= 0).all()
    assert (found.get("accuracy", pd.Series(0.0)).dropna() <= 1).all()
    return ""


# Each reader

LADDER = {"ladder.csv": as_csv(ladder_table()), "tasks.csv": as_csv(TASKS)}
TARGETS = {"targets.csv": as_csv(ladder_table())}
WITH_MANIFEST = {"../manifest.csv": as_csv(MANIFEST)}
HARNESS = harness_files() | WITH_MANIFEST
OLMES = {whole: olmes_files(whole) | WITH_MANIFEST for whole in (True, False)}
DATADECIDE = {"table.csv": as_csv(datadecide_table())}
EXPORTED = {preset: export_files(preset) | WITH_MANIFEST for preset in EXPORTS}


def read_ladder(at: Path) -> lc.Ladder:
    return lc.read_ladder(at / "ladder.csv", at / "tasks.csv")


def read_alone(at: Path) -> lc.Ladder:
    return lc.read_ladder(at / "ladder.csv", rungs="every")


def read_targets(at: Path) -> pd.DataFrame:
    return lc.read_targets(at / "targets.csv")


def read_harness(at: Path) -> lc.Ladder:
    return lc.read_lm_eval(at, at / "../manifest.csv")


def read_olmes(at: Path) -> lc.Ladder:
    return lc.read_olmes(at, at / "../manifest.csv")


def read_datadecide(at: Path) -> lc.Ladder:
    return lc.read_olmes(at / "table.csv")


def read_exports(preset: str | lc.Preset, tasks: list[str] | None = None) -> Callable:
    return lambda at: lc.read_wandb(at, preset, at / "../manifest.csv", tasks, rungs="every")


MINE = lc.Preset(
    keys=(
        lc.Keys("lm_eval/{task}/bpb", "mine", ("lm_eval/{task}/acc_norm", "lm_eval/{task}/acc")),
    ),
    sizes=(lc.Size(r"(.+)M-(\d+)", r"mine-\1-\2", 10**8, 7e8),),
)
PRESETS = {
    "levanter": read_exports("levanter"),
    "olmo-core": read_exports("olmo-core"),
    "olmo": read_exports("olmo", ["mmlu"]),  # not its parts beside it
}
CASES = {
    "ladder and tasks": (read_ladder, LADDER),
    "ladder alone": (read_alone, LADDER),
    "targets": (read_targets, TARGETS),
    "harness": (read_harness, HARNESS),
    "OLMES": (read_olmes, OLMES[True]),
    "OLMES task by task": (read_olmes, OLMES[False]),
    "DataDecide": (read_datadecide, DATADECIDE),
    "a preset of one's own": (read_exports(MINE), EXPORTED["levanter"]),
} | {preset: (read, EXPORTED[preset]) for preset, read in PRESETS.items()}


@pytest.mark.parametrize("case", CASES)
def test_what_is_changed_below_is_sound(case):
    assert not check(*CASES[case], {})


@examples(40)
@given(changes(LADDER), st.sampled_from((read_ladder, read_alone)))
def test_ladder(changed, read):
    check(read, LADDER, changed)


@examples(20)
@given(changes(TARGETS))
def test_targets(changed):
    check(read_targets, TARGETS, changed)


@pytest.mark.filterwarnings("ignore:params of .* are what the harness counts")
@examples(40)
@given(changes(HARNESS))
def test_harness(changed):
    check(read_harness, HARNESS, changed)


@examples(20)
@given(changes(OLMES[True]))
def test_olmes(changed):
    check(read_olmes, OLMES[True], changed)


@examples(20)
@given(changes(OLMES[False]))
def test_olmes_task_by_task(changed):
    check(read_olmes, OLMES[False], changed)


@examples(20)
@given(changes(DATADECIDE))
def test_datadecide(changed):
    check(read_datadecide, DATADECIDE, changed)


@examples(25)
@given(changes(EXPORTED["levanter"]), st.sampled_from((PRESETS["levanter"], read_exports(MINE))))
def test_levanter(changed, read):
    check(read, EXPORTED["levanter"], changed)


@examples(15)
@given(changes(EXPORTED["olmo-core"]))
def test_olmo_core(changed):
    check(PRESETS["olmo-core"], EXPORTED["olmo-core"], changed)


@examples(15)
@given(changes(EXPORTED["olmo"]))
def test_olmo(changed):
    check(PRESETS["olmo"], EXPORTED["olmo"], changed)


KEYS = ["lm_eval/{task}/bpb", "lm_eval/{task}/acc_norm", "lm_eval/{task}/acc", "{task}"]
KEYS += ["{task}{task}", "[{task}", "(.+{task}", "{task}\\"]
NO_KEYS = ["lm_eval/arc_easy/bpb", "", "{", "}{", "{}", "{0}", "{other}", "{task!r}", "{{task}}"]
EXPRESSIONS = [r"(\d+)M-(\d+)", "100M-(?P<x>.+)", ".*", "", "(?i)1.*", "(", "[", "*", "a{2", "\\"]
NAMES = [r"\1-\2", r"\g<x>", r"\g<0>", "one", "", r"\9", r"\g<y>", "\\", "\0"]


@examples(20)
@given(st.sampled_from(NO_KEYS), st.sampled_from(("loss", "accuracy", "log_soft")))
def test_a_key_without_the_place_of_a_task_is_refused(key, field):
    given = {"loss": "{task}", "loss_kind": "mine", "accuracy": ("{task}",)}
    with pytest.raises(ValueError, match="where a task's name stands") as caught:
        lc.Keys(**(given | {field: (key,) if field == "accuracy" else key}))
    assert repr(key) in str(caught.value)


@examples(60)
@given(
    keys=st.tuples(
        st.sampled_from([*KEYS[:1] * 9, *KEYS]),
        st.sampled_from([*KEYS[1:3] * 5, *KEYS]),
        st.sampled_from([None, *KEYS]),
    ),
    size=st.tuples(st.sampled_from(EXPRESSIONS), st.sampled_from(NAMES)),
    others=st.fixed_dictionaries({
        "task_keys": st.sampled_from(({}, {"easy": "arc_easy"}, {"easy": "absent"})),
        "accuracy": st.sampled_from(({}, {"boolq": "lm_eval/boolq/acc"}, {"absent": "{task}"})),
        "aggregates": st.sampled_from(({}, {"mean": {"arc_easy": 0.5, "boolq": 0.5}})),
        "tasks": st.sampled_from(({}, {"arc_easy": (0.25, 100)})),
    }),
)  # fmt: skip
def test_presets(keys, size, others):
    loss, accuracy, log_soft = keys
    told, sizes = "", ()
    try:
        sizes = (lc.Size(*size, 10**8),)
    except ValueError as error:
        told = str(error)
    assert sizes or all(repr(text) in told for text in size)
    preset = lc.Preset(keys=(lc.Keys(loss, "mine", (accuracy,), log_soft),), sizes=sizes, **others)
    tasks = [*others["task_keys"], *others["aggregates"]] or None
    check(read_exports(preset, tasks), EXPORTED["levanter"], {})

"""Results files of lm-evaluation-harness, of 0.4 and before, in one form."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laddercast.data.known_tasks import items_of
from laddercast.data.loaders.files import Placed, Source, place, read_json, run_name
from laddercast.data.loaders.shapes import ANY, COUNT, EACH, TEXT, Kind, Shape, number

type Metric = tuple[str, str]
"""A metric and its filter, which files before 0.4 do not have: there it is `none`."""

NO_FILTER = "none"
ACC, ACC_NORM, BITS = "acc", "acc_norm", "bits_per_byte"
NO_METRICS = ("alias", "name", "sample_len", "sample_count")
METRICS = (ACC_NORM, ACC, "exact_match", "pass@1", "pass_at_1")
"""Accuracies, in order of preference."""

ARGUMENTS = Kind("a text or an object", lambda value: isinstance(value, str | dict))
SHAPE: Shape = {
    "results": {EACH: {EACH: ANY}},
    "n-samples": {EACH: {"original": COUNT, "effective": COUNT}},
    "n-shot": {EACH: ANY},
    "versions": {EACH: ANY},
    "group_subtasks": {EACH: [TEXT]},
    "model_name": TEXT,
    "config": {"model": TEXT, "model_args": ARGUMENTS, "model_num_parameters": ANY},
}


@dataclass(frozen=True)
class Results:
    """One results file: the run's names, and what was measured of each task."""

    path: Path
    run: str
    others: tuple[str, ...]
    content: dict[str, Any]
    scores: dict[str, dict[Metric, float]]

    def part(self, word: str) -> dict[str, Any]:
        """What the file has under this key, by task."""
        return self.content.get(word, {})

    def items(self, task: str) -> int:
        """Number of questions asked; before 0.4, of all there are unless there was a limit."""
        counts = self.part("n-samples").get(task, {})
        known = counts.get("effective", counts.get("original"))
        if known is None:
            known, limit = items_of(task), number(self.part("config").get("limit"))
            if limit is not None:
                known = limit if limit >= 1 else limit * known
        # Zero is not known; no count is as large as what a number with a point no longer tells.
        return int(known) if 0 < known < 2**53 else 0

    @property
    def before_0_4(self) -> bool:
        """Whether metrics are without filters, as they were before 0.4."""
        return not any("," in key for one in self.part("results").values() for key in one)

    def setting(self, word: str, task: str) -> object:
        """A task's `n-shot` or `versions`; examples before 0.4 are the same for all tasks."""
        known = self.part(word).get(task)
        if known is None and word == "n-shot" and self.before_0_4:
            return self.part("config").get("num_fewshot")
        return known

    @property
    def counted(self) -> object:
        """Parameters as the harness counts them, with embeddings."""
        return self.part("config").get("model_num_parameters")


def read_results(
    source: Source, files: Sequence[Path], wanted: Sequence[str], found: Placed
) -> list[Results]:
    """Files that are results; of those under another name than `results*` each is a run.

    `wanted` are metrics that count as accuracies beside the usual ones.
    """
    read = []
    for path in files:
        before = len(found)
        content = read_json(path, SHAPE, found)
        if "results" not in content and len(found) == before:
            found.append((place(path), "has no `results`; give results of the harness"))
        elif "results" in content:
            read.append((path, content, *_model(content)))
    results = []
    for path, content, model, revision in read:
        named = path.name.startswith("results")
        base = run_name(path.parent if named else path.with_suffix(""), source)
        folder = path.parent.name if named else path.stem
        beside = (
            {(m, r) for file, _, m, r in read if file.parent == path.parent} if named else set()
        )
        behind = f"@{revision}" if revision else ""
        # One folder may hold several models, and several revisions of one.
        several = len({m for m, _ in beside}) > 1
        run = (f"{base}/{model}" if several and model else base) + (
            behind if len(beside) > 1 else ""
        )
        models = [name for name in dict.fromkeys((model, Path(model).name)) if name]
        others = [f"{name}{behind}" for name in (folder, *models) if name]
        if len(beside) <= 1:
            others += [name for name in (base, folder, *models) if name]
        elif len({r for m, r in beside if m == model}) == 1:
            others += models
        found += [
            (f"{place(path)}: results.{task!r}", "has a blank at an end; name the task without")
            for task in content["results"]
            if task != task.strip()
        ]
        scores = {
            task: dict(_scores(path, task, summary, wanted, found))
            for task, summary in content["results"].items()
        }
        results.append(Results(path, run, tuple(others), content, scores))
    return results


def holds_results(path: Path) -> bool:
    """Whether a file of any name was written by the harness, and not beside its results."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"results", "versions"} <= set(content)


def leaves_of(results: Sequence[Results]) -> dict[str, list[str]]:
    """Every task and group with the tasks it stands for, a group with its tasks' tasks.

    A group of which no task was measured stands for itself.
    """
    groups: dict[str, list[str]] = {}
    for result in results:
        for group, parts in result.part("group_subtasks").items():
            if inside := [part for part in parts if part != group]:
                groups.setdefault(group, inside)
    measured = {task for result in results for task, scores in result.scores.items() if scores}
    found = {}
    for task in dict.fromkeys([*groups, *sorted(measured)]):
        leaves, waiting, seen = [], [task], {task}
        while waiting:
            name = waiting.pop(0)
            if name not in groups:
                leaves.append(name)
            waiting += [part for part in groups.get(name, ()) if part not in seen]
            seen |= set(groups.get(name, ()))
        leaves = leaves if measured & set(leaves) else [task]
        if measured & set(leaves):
            found[task] = leaves
    return found


def inside_groups(results: Sequence[Results]) -> set[str]:
    """Names that a group stands for."""
    return {
        part
        for result in results
        for group, parts in result.part("group_subtasks").items()
        for part in parts
        if part != group
    }


def split_metric(name: str) -> Metric:
    """The metric and filter of a key."""
    metric, _, filtered = name.partition(",")
    return metric, filtered or NO_FILTER


def written(metric: Metric) -> str:
    """The key of 0.4."""
    return ",".join(metric)


def _scores(
    path: Path, task: str, summary: Mapping[str, Any], wanted: Sequence[str], found: Placed
) -> Iterator[tuple[Metric, float]]:
    for key, value in summary.items():
        metric = split_metric(key)
        known = number(value)
        if key in NO_METRICS:
            continue
        if known is not None:
            yield metric, known
        elif metric[0] in (*METRICS, BITS, *wanted):
            what = "no finite number; leave it out if it was not measured"
            found.append((place(path), f"`results.{task}.{key}` is {what}"))


def _model(content: Mapping[str, Any]) -> tuple[str, str]:
    """Name of the model and its revision, each "" if not known."""
    config = content.get("config", {})
    arguments = config.get("model_args") or {}
    if isinstance(arguments, str):
        pairs = re.findall(r"(?:^|,)(\w+)=([^,]+)", arguments)
        arguments = dict(pairs)
    named = arguments.get("pretrained") if "model_name" not in content else None
    model = content.get("model_name") or named or config.get("model") or ""
    return str(model), str(arguments.get("revision") or "")

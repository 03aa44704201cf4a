"""Results and samples of lm-evaluation-harness; bits per byte computed from the samples if kept."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from laddercast.data import words as c
from laddercast.data.cautions import warn
from laddercast.data.known_tasks import is_task
from laddercast.data.ladder import Ladder, Rungs
from laddercast.data.loaders.build import (
    Tasks,
    build_ladder,
    check_named,
    check_same_items,
    mean_and_error,
    read_tasks,
)
from laddercast.data.loaders.files import (
    Source,
    find_files,
    number,
    part,
    read_json,
    read_jsonl,
    run_name,
    source_name,
)
from laddercast.data.loaders.manifest import Manifest, check_joined, join, read_manifest
from laddercast.data.loaders.presets import ACC_TASKS, WITH_SPACE
from laddercast.data.writing import listed, listed_by

LOSS_SE = "loss_se"
ACC, ACC_NORM, BITS = "acc", "acc_norm", "bits_per_byte"


class Measured(NamedTuple):
    """One task of one run: bits per byte with its standard error, accuracies by metric.

    NaN is what is not known; `of_samples` tells whether the loss was computed from samples.
    """

    loss: float
    loss_se: float
    accuracy: Mapping[str, float]
    chance: float
    items: int
    of_samples: bool = True

    def agrees(self, other: "Measured") -> bool:
        """Whether both can be one evaluation, of which samples may have been kept once."""
        both = (self.loss, other.loss)
        return (
            self.accuracy == other.accuracy
            and self.items == other.items
            and (self.of_samples != other.of_samples or both[0] == both[1] or both[0] != both[0])
        )


@dataclass(frozen=True)
class _Results:
    """One results file: the run's names, and the samples file beside it of each task."""

    path: Path
    run: str
    others: tuple[str, ...]
    content: dict[str, Any]


def read_lm_eval(
    folder: Source,
    manifest: Manifest | None = None,
    tasks: Tasks | None = None,
    rungs: Rungs = "last",
) -> Ladder:
    """Read results and, where kept, samples (`--log_samples`) of lm-evaluation-harness 0.4.

    A run is a folder of results, or one `revision` of several in a folder. The manifest (`model,
    params, tokens`; `run` if the model has another name) names a run by its folder or its
    `model_name`, followed by `@revision`. `loss` is bits per byte with the space before the answer,
    `loss_se` its standard error between questions; without samples it is `bits_per_byte` of the
    results, where they have it. Accuracy is `acc_norm` (`acc` of BoolQ and WinoGrande, and where
    there is no `acc_norm`). Groups stand for their tasks, weighted by questions. Of several files
    of a run that agree the newest counts. Warns of runs without samples beside others that have
    them. Raises ValueError that names every fault.

    >>> ladder = lc.read_lm_eval("results", manifest="manifest.csv")
    """
    faults: list[str] = []
    name = source_name(folder)
    named, task_table = read_tasks(tasks, faults)
    rows_of, manifest_name = read_manifest(manifest, faults)
    files = find_files(folder, ("results*.json",), "results of the harness", faults)
    results = _read_results(folder, files, faults)
    known = join({result.run: result.others for result in results}, rows_of)
    counts = [_counted(result) for result in results if _counted(result)]
    note = (
        f" (the harness counts {listed(dict.fromkeys(counts), 5)} parameters, but with "
        "embeddings: the laws need those without)"
        if counts
        else ""
    )
    check_joined(known, (c.PARAMS, c.TOKENS), manifest_name, faults, note)
    for result in results:
        if known[result.run].get(c.PARAMS) == result.content["config"].get("model_num_parameters"):
            warn(
                f"params of {result.run} are what the harness counts, embeddings included; give "
                "those without embeddings",
            )
    groups = _groups(results)
    leaves = {task for result in results for task in result.content["results"]} - set(groups)
    inside = {task for parts in groups.values() for task in parts}
    top = sorted((leaves | set(groups)) - inside)
    read = check_named(named, top if named is None else sorted(leaves | set(groups)), name, faults)
    _check_same_settings(results, [leaf for task in read for leaf in _leaves(task, groups)], faults)
    measured: dict[tuple[str, str], Measured] = {}
    files_of: dict[tuple[str, str], str] = {}
    for result in results:
        needed = {leaf for task in read for leaf in _leaves(task, groups)}
        for task in sorted(needed & set(result.content["results"])):
            key = (result.run, task)
            found = _measure(result, task, faults)
            if found is None:
                continue
            if key in measured and not measured[key].agrees(found):
                faults.append(
                    f"{task} of run {result.run} is in {files_of[key]} and {result.path.name} with "
                    "different values; move one of both away"
                )
            if key not in measured or found.of_samples or not measured[key].of_samples:
                measured[key], files_of[key] = found, result.path.name
    _check_same_losses(measured, known, faults)
    rows = []
    for task in read:
        parts = _leaves(task, groups)
        metric = _metric(task, [measured[key] for key in measured if key[1] in parts])
        for run in known:
            rows += _row(run, task, parts, metric, measured, known[run], faults)
    check_same_items(rows, faults)
    return build_ladder(rows, task_table, {}, rungs, name, faults)


def _read_results(folder: Source, files: Sequence[Path], faults: list[str]) -> list[_Results]:
    read = []
    for path in files:
        content = read_json(path, faults)
        if not content:
            continue
        if not isinstance(content.get("results"), dict):
            faults.append(f"{path.name}: has no `results`; give results of the harness")
            continue
        content["config"] = part(content, "config")
        read.append((path, content, _revision(content["config"].get("model_args"))))
    results = []
    for path, content, revision in read:
        base = run_name(path.parent, folder)
        model = str(content.get("model_name") or content["config"].get("model") or base)
        beside = {other for file, _, other in read if file.parent == path.parent}
        behind = f"@{revision}" if revision else ""
        others = [path.parent.name + behind, model + behind]
        if len(beside) == 1:
            others += [base, path.parent.name, model]
        run = base + (behind if len(beside) > 1 else "")
        results.append(_Results(path, run, tuple(others), content))
    return results


def _revision(model_args: object) -> str | None:
    if isinstance(model_args, dict):
        return str(model_args["revision"]) if model_args.get("revision") else None
    match = re.search(r"(?:^|,)revision=([^,]+)", str(model_args or ""))
    return match[1] if match else None


def _counted(result: _Results) -> str:
    count = result.content["config"].get("model_num_parameters")
    return str(count) if count else ""


def _groups(results: Sequence[_Results]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for result in results:
        for group, parts in part(result.content, "group_subtasks").items():
            if parts and isinstance(parts, list):
                groups.setdefault(group, [str(task) for task in parts])
    return groups


def _leaves(task: str, groups: Mapping[str, Sequence[str]]) -> list[str]:
    others = {group: parts for group, parts in groups.items() if group != task}
    inside = [leaf for part in groups.get(task, ()) for leaf in _leaves(part, others)]
    return list(dict.fromkeys(inside)) or [task]


def _check_same_settings(
    results: Sequence[_Results], tasks: Sequence[str], faults: list[str]
) -> None:
    for task in dict.fromkeys(tasks):
        for word, what in (("n-shot", "examples (n-shot)"), ("versions", "version of the task")):
            by_value: dict[str, list[str]] = {}
            for result in results:
                if task in part(result.content, word):
                    value = str(result.content[word][task])
                    by_value.setdefault(value, []).append(result.run)
            if len(by_value) > 1:
                text = listed_by(by_value)
                faults.append(f"{task}: runs differ in {what} ({text}); evaluate all alike")


def _check_same_losses(
    measured: Mapping[tuple[str, str], Measured],
    known: Mapping[str, Mapping[str, Any]],
    faults: list[str],
) -> None:
    """Faults are tasks whose loss is of samples in some runs and of results in others.

    A warning tells of runs whose loss is not known though that of others is.
    """
    for task in dict.fromkeys(task for _, task in measured):
        runs = {run: one for (run, other), one in measured.items() if other == task}
        of_samples = [run for run, one in runs.items() if one.of_samples]
        without = [run for run, one in runs.items() if math.isnan(one.loss)]
        of_results = [run for run in runs if run not in of_samples + without]
        if of_samples and of_results:
            faults.append(
                f"{task}: bits per byte are computed from samples of {listed(of_samples, 5)}, and "
                f"{BITS} of the results of {listed(of_results, 5)}, which have no samples; "
                "evaluate all with --log_samples, or none"
            )
        quiet = all(c.REFERENCE_LOSS in known[run] for run in without)
        if 0 < len(without) < len(runs) and not quiet:
            warn(
                f"{task}: no samples of {listed(without, 5)}, of which accuracy alone is read; "
                "evaluate with --log_samples to have their loss",
            )


def _measure(result: _Results, task: str, faults: list[str]) -> Measured | None:
    """Loss from samples or, where none were kept, from results; accuracy from results."""
    summary = part(result.content, "results", task)
    accuracy = {
        metric: value
        for metric in (ACC_NORM, ACC)
        if (value := number(summary.get(f"{metric},none"))) is not None
    }
    counts = part(result.content, "n-samples", task)
    items = int(number(counts.get("effective", counts.get("original"))) or 0)
    stamp = result.path.stem.removeprefix("results")
    path = result.path.parent / f"samples_{task}{stamp}.jsonl"
    if not path.exists():
        loss = number(summary.get(f"{BITS},none"))
        return Measured(
            math.nan if loss is None else loss, math.nan, accuracy, math.nan, items, False
        )
    lines = read_jsonl(path, faults)
    lines = [(where, line) for where, line in lines if line.get("filter", "none") == "none"]
    questions = []
    before = len(faults)
    for where, line in lines:
        try:
            questions.append(_question(line))
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            cure = "is it a multiple-choice task of harness 0.4? else leave it out by tasks="
            if len(faults) < before + 3:
                faults.append(f"{where}: {reason}; {cure}")
    if len(faults) > before or not questions:
        if len(faults) == before:
            faults.append(f"{path.name}: no questions with filter `none`; evaluate again")
        return None
    if items and items != len(questions):
        faults.append(f"{path.name}: {len(questions)} questions, but {result.path.name} counts "
                      f"{items}; the file may be cut off, evaluate again")  # fmt: skip
    losses = [loss for loss, _, _ in questions]
    n = len(losses)
    mean, se = mean_and_error(losses)
    for metric in (ACC_NORM, ACC):
        values = [number(line.get(metric)) for _, line in lines]
        given = [value for value in values if value is not None]
        if len(given) == n:
            of_samples, _ = mean_and_error(given)
            if abs(accuracy.setdefault(metric, of_samples) - of_samples) > 1e-6:
                faults.append(
                    f"{path.name}: {metric} is {of_samples:.6g}, in {result.path.name} "
                    f"{accuracy[metric]:.6g}; samples and results are of two evaluations"
                )
    chance = math.fsum(1 / choices for _, choices, _ in questions) / n
    return Measured(mean, se, accuracy, chance, n)


def _question(line: Mapping[str, Any]) -> tuple[float, int, int]:
    """`(bits per byte of the right answer, number of choices, which is right)`.

    Raises ValueError with the reason, or what reading an unexpected shape raises.
    """
    logs = [float(response[0]) for response in line["filtered_resps"]]
    answers = list(_continuations(line["arguments"]))
    if len(logs) != len(answers):
        raise ValueError(f"{len(logs)} responses to {len(answers)} requests")
    # With mutual-information scoring, unconditional requests follow: no context, same answers.
    half = len(answers) // 2
    doubled = ACC + "_mutual_info" in line or (
        half > 1
        and answers[:half] == answers[half:]
        and len(set(answers)) == half
        and not any(context.strip() for context in _contexts(line["arguments"])[half:])
    )
    if doubled:
        logs, answers = logs[:half], answers[:half]
    right = _right(line, logs, answers)
    size = len(answers[right].encode())
    if not size:
        raise ValueError("the right answer is empty")
    if not math.isfinite(logs[right]):
        raise ValueError(f"log-probability {logs[right]} of the right answer is not finite")
    return -logs[right] / math.log(2) / size, len(answers), right


def _requests(arguments: Any) -> list[Any]:
    if isinstance(arguments, dict):
        return [arguments[f"gen_args_{i}"] for i in range(len(arguments))]
    return list(arguments)


def _continuations(arguments: Any) -> Iterator[str]:
    for request in _requests(arguments):
        yield request["arg_1"] if isinstance(request, dict) else request[1]


def _contexts(arguments: Any) -> list[str]:
    return [
        request["arg_0"] if isinstance(request, dict) else request[0]
        for request in _requests(arguments)
    ]


def _right(line: Mapping[str, Any], logs: Sequence[float], answers: Sequence[str]) -> int:
    target = line["target"]
    if isinstance(target, list | tuple):
        raise ValueError("several right answers, of which bits per byte are not defined")
    text = str(target).strip()
    # The harness reads a target of digits as an index.
    if text.isdecimal() and int(text) < len(answers):
        return int(text)
    same = [i for i, answer in enumerate(answers) if answer.strip() == text]
    if len(same) == 1:
        return same[0]
    # WinoGrande: contexts differ, the answer is one. Which is right follows from the accuracy.
    if len(same) == len(answers) == 2 and ACC in line:
        likeliest = max(range(2), key=lambda i: logs[i])
        return likeliest if line[ACC] else 1 - likeliest
    raise ValueError(f"target {text[:60]!r} is none of the {len(answers)} answers")


def _metric(task: str, measured: Sequence[Measured]) -> str:
    """One metric for all runs: `acc_norm` where each has it, except of tasks that use `acc`."""
    plain = any(is_task(task, word) for word in ACC_TASKS)
    return ACC if plain or not all(ACC_NORM in one.accuracy for one in measured) else ACC_NORM


def _row(
    run: str, task: str, parts: Sequence[str], metric: str,
    measured: Mapping[tuple[str, str], Measured], known: Mapping[str, Any], faults: list[str],
) -> list[dict[str, Any]]:  # fmt: skip
    """The row of a run and task, [] if not measured; a group is the mean over all its questions."""
    found = [measured[run, part] for part in parts if (run, part) in measured]
    if not found or not known:
        return []
    if len(found) < len(parts):
        absent = [part for part in parts if (run, part) not in measured]
        faults.append(f"run {run}: {task} lacks {listed(absent, 10)}; evaluate all of the group")
        return []
    items = sum(one.items for one in found)
    weights = [one.items / items if items else 1 / len(found) for one in found]
    pairs = list(zip(weights, found, strict=True))
    loss = math.fsum(w * one.loss for w, one in pairs)
    row = {
        **known,
        c.TASK: task,
        c.LOSS: loss,
        LOSS_SE: math.hypot(*(w * one.loss_se for w, one in pairs)),
        c.ACCURACY: math.fsum(w * one.accuracy.get(metric, math.nan) for w, one in pairs),
        # Of results, tasks differ in what bits per byte are of.
        c.LOSS_KIND: WITH_SPACE if loss == loss and found[0].of_samples else None,
        c.CHANCE: math.fsum(w * one.chance for w, one in pairs),
        c.ITEMS: items or None,
        "run": run,
    }
    return [row]

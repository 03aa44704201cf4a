"""Results and samples of lm-evaluation-harness; bits per byte computed from the samples if kept."""

import math
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from laddercast.data import words as c
from laddercast.data.cautions import AssumedWarning, SkippedWarning, warn
from laddercast.data.known_tasks import chance_of, is_task
from laddercast.data.ladder import Ladder, Rungs
from laddercast.data.loaders.build import (
    build_ladder,
    check_named,
    check_same_items,
)
from laddercast.data.loaders.files import Placed, Source, find_files, place, source_name, tell
from laddercast.data.loaders.harness_files import (
    ACC,
    ACC_NORM,
    BITS,
    METRICS,
    NO_FILTER,
    Metric,
    Results,
    holds_results,
    inside_groups,
    leaves_of,
    read_results,
    split_metric,
    written,
)
from laddercast.data.loaders.harness_samples import Measured, measure_samples
from laddercast.data.loaders.manifest import Manifest, check_joined, join, read_manifest
from laddercast.data.loaders.presets import ACC_TASKS, WITH_SPACE
from laddercast.data.loaders.shapes import number
from laddercast.data.sources import Tasks, read_tasks
from laddercast.data.writing import listed, listed_by

LOSS_SE = "loss_se"
FILTERS = (NO_FILTER, "strict-match")
"""Filters of answers, in order of preference; others as the results have them."""

type Measurements = Mapping[tuple[str, str], Measured]
"""By run and task."""


def read_lm_eval(
    folder: Source,
    manifest: Manifest | None = None,
    tasks: Tasks | None = None,
    rungs: Rungs = "last",
    metric: str | Mapping[str, str] | None = None,
) -> Ladder:
    """Read results and, where kept, samples (`--log_samples`) of lm-evaluation-harness.

    A run is a folder of results, or one model or `revision` of several in a folder, or a file that
    is not called `results...`. The manifest (`model, params, tokens`; `run` if the model has
    another name) names a run by its folder, its `model_name` or the last part of that, followed by
    `@revision`. `loss` is bits per byte with the space before the answer, `loss_se` its standard
    error between questions; without samples it is `bits_per_byte` of the results, where they have
    it. Accuracy is `metric` (for all tasks that have it, or by task; with a filter behind a comma
    if there are several), else `acc_norm`, `acc` (first of BoolQ and WinoGrande) or `exact_match`,
    whose chance is 0. Groups stand for their tasks, weighted by questions. Of several files of a
    run that agree the newest counts. Warns of what it assumed. Raises ValueError that names every
    fault.

    >>> ladder = lc.read_lm_eval("results", manifest="manifest.csv")
    """
    faults: list[str] = []
    placed: Placed = []
    name = source_name(folder)
    named, task_table = read_tasks(tasks, faults)
    rows_of, manifest_name = read_manifest(manifest, faults)
    files = _find(folder, faults)
    asked = list(metric.values()) if isinstance(metric, Mapping) else [metric] if metric else []
    results = read_results(folder, files, [split_metric(one)[0] for one in asked], placed)
    tell(placed, faults)
    known = join({result.run: result.others for result in results}, rows_of)
    check_joined(known, (c.PARAMS, c.TOKENS), manifest_name, faults, _note(results))
    _warn_of_embeddings(results, known)
    leaves = leaves_of(results)
    faults += [
        f"metric: no task {task}; tasks are {listed(sorted(leaves))}"
        for task in (metric if isinstance(metric, Mapping) else ())
        if task not in leaves
    ]
    _check_asked(metric, leaves, results, faults)
    top = set(leaves) if named is not None else _readable(leaves, results, metric)
    read = check_named(named, sorted(top), name, faults)
    used = list(dict.fromkeys(leaf for task in read for leaf in leaves[task]))
    _check_same_settings(results, used, faults)
    if not len(task_table.columns):
        _tell_items(results, used)
    measured = _measure(results, used, faults)
    _check_same_losses(measured, known, faults)
    chosen = {}
    for task in read:
        own = [one for (_, leaf), one in measured.items() if leaf in leaves[task]]
        chosen[task] = _choose(task, metric, own, faults)
    rows = _rows(read, leaves, chosen, measured, known, faults)
    check_same_items(rows, faults)
    return build_ladder(rows, task_table, {}, rungs, name, faults)


def _find(folder: Source, faults: list[str]) -> list[Path]:
    """Files called `results...`, and JSON of other names, as before 0.4, that holds results.

    Where none is called so, all JSON, so that a fault tells what it lacks.
    """
    what = "results of the harness"
    every = find_files(folder, ("results*.json", "*.json"), what, faults)
    named = set(find_files(folder, ("results*.json",), what, list[str]()))
    if not named:
        return every
    return sorted(path for path in every if path in named or holds_results(path))


def _note(results: Iterable[Results]) -> str:
    counts = [str(result.counted) for result in results if result.counted]
    return (
        f" (the harness counts {listed(dict.fromkeys(counts), 5)} parameters, but with "
        "embeddings: the laws need those without)"
        if counts
        else ""
    )


def _warn_of_embeddings(results: Iterable[Results], known: Mapping[str, Any]) -> None:
    counted = [r.run for r in results if known[r.run].get(c.PARAMS, "") == r.counted]
    if counted:
        warn(f"params of {listed(dict.fromkeys(counted), 5)} are what the harness counts, "
             "embeddings included; give those without embeddings")  # fmt: skip


def _readable(
    leaves: Mapping[str, Sequence[str]], results: Sequence[Results],
    metric: str | Mapping[str, str] | None,
) -> set[str]:  # fmt: skip
    """What no group stands for and has an accuracy, else bits per byte; warns of the others."""
    has: dict[str, list[Metric]] = {}
    for result in results:
        for task, scores in result.scores.items():
            has.setdefault(task, []).extend(scores)
    readable, losses, others = set(), set(), {}
    for task in _top(leaves, results):
        found = list(dict.fromkeys(one for leaf in leaves[task] for one in has.get(leaf, ())))
        if _preferred(task, metric, found):
            readable.add(task)
            continue
        others[task] = listed(map(written, found), 3)
        losses |= {task} if (BITS, NO_FILTER) in found else set()
    if others and readable:
        shown = listed((f"{task} has {metrics}" for task, metrics in sorted(others.items())), 5)
        warn(f"left out, as no accuracy of these is known: {shown}; metric= (--metric) or tasks= "
             "(--tasks) read them", SkippedWarning)  # fmt: skip
    return readable or losses or set(others)


def _top(leaves: Mapping[str, Sequence[str]], results: Sequence[Results]) -> set[str]:
    """What no group stands for; where groups hold each other, none does, but their tasks."""
    top = set(leaves) - inside_groups(results)
    covered = {leaf for task in top for leaf in leaves[task]}
    alone = {leaf for parts in leaves.values() for leaf in parts} - covered
    if alone:
        named = {
            group for x in results for group, parts in x.part("group_subtasks").items() if parts
        }
        groups = sorted(group for group in named if alone & set(leaves.get(group, ())))
        warn(f"{listed(groups, 5)}: groups that hold each other; of these tasks are read "
             f"one by one: {listed(sorted(alone), 5)}", AssumedWarning)  # fmt: skip
    return top | alone


def _preferred(
    task: str, metric: str | Mapping[str, str] | None, found: Iterable[Metric]
) -> list[Metric]:
    """Those of the metrics found that can be the accuracy, the best first."""
    asked = metric.get(task) if isinstance(metric, Mapping) else metric
    found = list(dict.fromkeys(found))
    if asked and "," in asked and split_metric(asked) in found:
        return [split_metric(asked)]
    plain = any(is_task(task, word) for word in ACC_TASKS)
    names = [ACC, *METRICS] if plain else [*METRICS]
    if asked and "," not in asked:
        names = [asked, *names]
    if asked and isinstance(metric, Mapping):
        names = names[:1] if "," not in asked else []  # no other is meant
    filters = list(dict.fromkeys([*FILTERS, *(one[1] for one in found)]))
    pairs = [(name, one) for name in dict.fromkeys(names) for one in filters]
    return [pair for pair in pairs if pair in found]


def _choose(
    task: str, metric: str | Mapping[str, str] | None, measured: Sequence[Measured],
    faults: list[str],
) -> Metric | None:  # fmt: skip
    """One metric for all runs: the first that each has, else the first that any has."""
    found = [one for each in measured for one in each.scores]
    usable = _preferred(task, metric, found)
    common = [one for one in usable if all(one in each.scores for each in measured)]
    chosen = next(iter([*common, *usable]), None)
    if chosen is None and measured and all(math.isnan(each.loss) for each in measured):
        has = listed(dict.fromkeys(map(written, found)), 10)
        faults.append(f"{task}: no accuracy; it has {has}: choose one by metric= (--metric)")
    asked = metric.get(task) if isinstance(metric, Mapping) else metric
    others = [one for one in usable if chosen and one[0] == chosen[0] and one != chosen]
    if chosen and others and asked != written(chosen):
        warn(f"{task}: of {listed(map(written, [chosen, *others]))} the first is read; "
             "metric= (--metric) chooses", AssumedWarning)  # fmt: skip
    return chosen


def _check_asked(
    metric: str | Mapping[str, str] | None, leaves: Mapping[str, Sequence[str]],
    results: Sequence[Results], faults: list[str],
) -> None:  # fmt: skip
    """A fault if no task has the metric asked for, or the one task that it is asked of."""
    if not metric:
        return
    every = [part for parts in leaves.values() for part in parts]
    wanted = [("no task has", metric, every)] if isinstance(metric, str) else [
        (f"{task} has no", asked, leaves[task]) for task, asked in metric.items() if task in leaves
    ]  # fmt: skip
    for what, asked, tasks in wanted:
        found = [one for result in results for task in tasks for one in result.scores.get(task, {})]
        has = [written(one) for one in dict.fromkeys(found) if not one[0].endswith("_stderr")]
        name = written(split_metric(asked)) if "," in asked else asked
        if has and not any(name in (key, key.partition(",")[0]) for key in has):
            near = get_close_matches(asked, has, n=5, cutoff=0.4) or has
            faults.append(f"metric: {what} {asked}; there are {listed(near, 10)}")


def _check_same_settings(
    results: Sequence[Results], tasks: Sequence[str], faults: list[str]
) -> None:
    """Faults are tasks of which runs differ in examples or, within 0.4 or before it, in version.

    A warning tells of tasks of both, as 0.4 numbers versions anew.
    """
    unlike: dict[str, list[str]] = {}
    old = [result for result in results if result.before_0_4]
    new = [result for result in results if not result.before_0_4]
    for task in tasks:
        for word, what, alike in (
            ("n-shot", "examples (n-shot)", [results]),
            ("versions", "version of the task", [old, new]),
        ):
            for some in alike:
                by_value: dict[str, list[str]] = {}
                for result in some:
                    if (value := result.setting(word, task)) is not None:
                        by_value.setdefault(_setting(value), []).append(result.run)
                if len(by_value) > 1:
                    unlike.setdefault(f"{what} ({listed_by(by_value, 5)})", []).append(task)
    faults += [
        f"{listed(of, 5)}: runs differ in {what}; evaluate all alike" for what, of in unlike.items()
    ]
    both = [
        task for task in tasks if all(any(task in x.scores for x in some) for some in (old, new))
    ]
    if both:
        runs = dict.fromkeys(result.run for result in old)
        warn(f"{listed(both, 5)}: {listed(runs, 5)} evaluated before harness 0.4, others since; "
             "as it numbers versions anew, they are taken to be alike", AssumedWarning)  # fmt: skip


def _tell_items(results: Sequence[Results], tasks: Sequence[str]) -> None:
    """Warn of numbers of questions that are not the results' own."""
    taken = {
        task for result in results for task in tasks
        if task in result.scores and not result.part("n-samples").get(task) and result.items(task)
    }  # fmt: skip
    if taken:
        warn(f"the number of questions of {listed(sorted(taken), 10)}: from lc.known_tasks(); "
             "tasks= (--tasks) gives others", AssumedWarning)  # fmt: skip


def _setting(value: object) -> str:
    """A setting to be compared: 1 and 1.0 are one."""
    known = number(value)
    return str(value)[:60] if known is None else f"{known:.15g}"


def _measure(
    results: Sequence[Results], tasks: Sequence[str], faults: list[str]
) -> dict[tuple[str, str], Measured]:
    """What each run has of each task, from the newest of files that agree."""
    measured: dict[tuple[str, str], Measured] = {}
    files_of: dict[tuple[str, str], str] = {}
    unlike: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    placed: Placed = []
    for result in results:
        for task in tasks:
            scores, key = result.scores.get(task, {}), (result.run, task)
            if not scores:
                continue
            known = {(ACC, NO_FILTER), (ACC_NORM, NO_FILTER)} & set(scores)
            before = len(placed)
            found = measure_samples(result, task, placed) if known else None
            if len(placed) > before:
                continue
            if found is None:
                loss = scores.get((BITS, NO_FILTER), math.nan)
                items = result.items(task)
                found = Measured(loss, math.nan, scores, math.nan, items, of_samples=False)
            if key in measured and (differ := measured[key].differences(found)):
                files = (result.run, files_of[key], place(result.path))
                unlike.setdefault(files, {})[task] = differ
            if key not in measured or found.of_samples or not measured[key].of_samples:
                measured[key], files_of[key] = found, place(result.path)
    tell(placed, faults)
    for (run, one, other), by_task in unlike.items():
        values = listed((f"{task}: {listed(which, 3)}" for task, which in by_task.items()), 3)
        faults.append(f"{listed(by_task, 5)} of run {run}: {one} and {other} have different values "
                      f"({values}); move one of both away")  # fmt: skip
    return measured


def _check_same_losses(
    measured: Measurements,
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


def _rows(
    tasks: Sequence[str], leaves: Mapping[str, Sequence[str]],
    chosen: Mapping[str, Metric | None], measured: Measurements,
    known: Mapping[str, Mapping[str, Any]], faults: list[str],
) -> list[dict[str, Any]]:  # fmt: skip
    """One row for each task of each run; what a run has only parts of is a fault."""
    rows = []
    for task in tasks:
        parts, lacking = leaves[task], dict[str, list[str]]()
        for run in known:
            found = {part: measured[run, part] for part in parts if (run, part) in measured}
            if found and len(found) < len(parts):
                absent = [part for part in parts if part not in found]
                lacking.setdefault(listed(absent, 10), []).append(run)
            elif found and known[run]:
                rows.append({**known[run], **_row(task, chosen[task], found), "run": run})
        faults += [
            f"{task}: run {listed(runs, 5)} lacks {absent}; evaluate all of the group"
            for absent, runs in lacking.items()
        ]
    return rows


def _row(task: str, metric: Metric | None, found: Mapping[str, Measured]) -> dict[str, Any]:
    """The mean over all questions of a task or of the tasks of a group."""
    items = [one.items for one in found.values()]
    weights = [n / sum(items) if all(items) else 1 / len(found) for n in items]

    def mean(values: Iterable[float]) -> float:
        return math.fsum(w * value for w, value in zip(weights, values, strict=True))

    parts = found.values()
    loss, chance = mean(one.loss for one in parts), mean(one.chance for one in parts)
    if metric is not None and metric[0] not in (ACC, ACC_NORM):
        chance = 0.0  # answers are written
    elif len(found) > 1 and math.isnan(chance) and math.isnan(chance_of(task)):
        chance = mean(map(chance_of, found))
    return {
        c.TASK: task,
        c.LOSS: loss,
        LOSS_SE: math.hypot(*(w * x.loss_se for w, x in zip(weights, parts, strict=True))),
        c.ACCURACY: mean(one.scores.get(metric, math.nan) if metric else math.nan for one in parts),
        # Of results, tasks differ in what bits per byte are of.
        c.LOSS_KIND: WITH_SPACE if loss == loss and all(x.of_samples for x in parts) else None,
        c.CHANCE: chance,
        c.ITEMS: sum(items) if all(items) else None,
    }

"""Samples of lm-evaluation-harness (`--log_samples`): bits per byte, question by question."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from laddercast.data.loaders.build import mean_and_error
from laddercast.data.loaders.files import Placed, place, read_jsonl
from laddercast.data.loaders.harness_files import ACC, ACC_NORM, NO_FILTER, Metric, Results, written
from laddercast.data.loaders.shapes import ANY, EACH, number


class Measured(NamedTuple):
    """One task of one run: bits per byte with its standard error, accuracies by metric.

    NaN is what is not known; `of_samples` tells whether the loss was computed from samples.
    """

    loss: float
    loss_se: float
    scores: Mapping[Metric, float]
    chance: float
    items: int
    of_samples: bool = True

    def differences(self, other: "Measured") -> list[str]:
        """What differs; nothing if both can be one evaluation, of which samples were kept once."""
        pairs = [
            (written(metric), value, other.scores[metric])
            for metric, value in self.scores.items()
            if metric in other.scores
        ]
        pairs.append(("questions", self.items, other.items))
        if self.of_samples == other.of_samples and not math.isnan(self.loss):
            pairs.append(("bits per byte", self.loss, other.loss))
        return [f"{name} {one:.10g} and {two:.10g}" for name, one, two in pairs if one != two]


def measure_samples(result: Results, task: str, found: Placed) -> Measured | None:
    """What the samples beside the results say of a task; None if there are none, or faulty ones."""
    stamp = result.path.stem.removeprefix("results")
    name = f"samples_{task}{stamp}.jsonl"
    # Tasks may be called what no file can be.
    path = next((file for file in result.path.parent.glob("samples_*") if file.name == name), None)
    if path is None:
        return None
    before = len(found)
    lines = read_jsonl(path, {"filter": ANY, EACH: ANY}, found)
    lines = [(where, line) for where, line in lines if line.get("filter", NO_FILTER) == NO_FILTER]
    questions = []
    for where, line in lines:
        try:
            questions.append(_question(line))
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            cure = "is it a multiple-choice task of harness 0.4? else leave it out by tasks="
            found.append((where, f"{reason}; {cure}"))
    if len(found) > before or not questions:
        if len(found) == before:
            found.append((place(path), "no questions with filter `none`; evaluate again"))
        return None
    n, items, beside = len(questions), result.items(task), place(result.path)
    if items and items != n:
        found.append((place(path), f"{n} questions, but {beside} counts {items}; the file may be "
                      "cut off, evaluate again"))  # fmt: skip
    scores = dict(result.scores[task])
    for metric in ((ACC_NORM, NO_FILTER), (ACC, NO_FILTER)):
        values = [number(line.get(metric[0])) for _, line in lines]
        given = [value for value in values if value is not None]
        if len(given) == n:
            mean, _ = mean_and_error(given)
            if abs(scores.setdefault(metric, mean) - mean) > 1e-6:
                what = f"{metric[0]} is {mean:.6g}, in {beside} {scores[metric]:.6g}"
                cure = "samples and results are of two evaluations"
                found.append((place(path), f"{what}; {cure}"))
    # Of a question with one answer, such as the next word, there is nothing to guess.
    chance = math.fsum(1 / choices if choices > 1 else 0.0 for _, choices, _ in questions) / n
    return Measured(*mean_and_error([loss for loss, _, _ in questions]), scores, chance, n)


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

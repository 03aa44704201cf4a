"""Small inputs of every reader that are sound, as bytes by path: `mutated_inputs` changes them."""

import io
import json
import math

import numpy as np
import pandas as pd

RUNS = [(n * 10**8, length) for n, length in ((1, 20), (2, 20), (4, 100))]
QUESTIONS = 4
SOURCE = "logs"
STAMP = "2026-01-02T03-04-05.678901"


def law(params: int, tokens: float) -> float:
    """A loss in bits per byte."""
    return 0.5 + 30 / params**0.25 + 60 / tokens**0.25


def accuracy_of(loss: float) -> float:
    """An accuracy that follows it."""
    return 0.25 + 0.7 / (1 + math.exp(5 * (loss - 1.1)))


def run_of(params: int, length: int) -> str:
    """A run's name."""
    return f"{params // 10**6}M-{length}"


def as_csv(table: pd.DataFrame) -> bytes:
    """A table as the bytes of a file."""
    return table.to_csv(index=False).encode()


def as_lines(lines: list) -> bytes:
    """One JSON value a line."""
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
    """One line of the harness' samples."""
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
        run, stamp = run_of(params, length), STAMP
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


def old_harness_files() -> dict[str, bytes]:
    """Results before 0.4: one file a run, of any name, metrics without filters, no samples."""
    files = {}
    for params, length in RUNS:
        score = round(accuracy_of(law(params, params * length)), 4)
        summary = {"acc": score, "acc_stderr": 0.01, "acc_norm": score, "acc_norm_stderr": 0.01}
        content = {
            "results": {
                "piqa": summary, "lambada_openai": {"ppl": 9.1, "ppl_stderr": 0.2, "acc": score},
                "wikitext": {"word_perplexity": 30.0, "bits_per_byte": 1.1},
            },
            "versions": {"piqa": 0, "lambada_openai": 0, "wikitext": 1},
            "config": {
                "model": "hf-causal", "model_args": "pretrained=org/x,revision=step1",
                "num_fewshot": 0, "limit": None,
            },
        }  # fmt: skip
        files[f"zero-shot/{run_of(params, length)}.json"] = json.dumps(content).encode()
    return files


def written_harness_files() -> dict[str, bytes]:
    """Results of a task whose answers are written, with two filters, and a group without score."""
    files = {}
    for params, length in RUNS:
        score = round(accuracy_of(law(params, params * length)), 4)
        parts = ("mmlu_anatomy", "mmlu_virology")
        content = {
            "results": {
                "gsm8k": {
                    "alias": "gsm8k", "exact_match,strict-match": score / 2,
                    "exact_match_stderr,strict-match": 0.01,
                    "exact_match,flexible-extract": score,
                    "exact_match_stderr,flexible-extract": "N/A",
                },
                "mmlu": {"alias": "mmlu", "name": "mmlu", "sample_len": 301},
                **{part: {"alias": f" - {part}", "acc,none": score} for part in parts},
            },
            "group_subtasks": {"mmlu": list(parts), "gsm8k": []},
            "configs": {"gsm8k": {"output_type": "generate_until"}},
            "versions": {"gsm8k": 3.0, "mmlu": 2, **dict.fromkeys(parts, 1.0)},
            "n-shot": {"gsm8k": 5, **dict.fromkeys(parts, 0)},
            "n-samples": {
                "gsm8k": {"original": 1319, "effective": 1319},
                "mmlu_anatomy": {"original": 135, "effective": 135},
                "mmlu_virology": {"original": 166, "effective": 166},
            },
            "config": {"model": "vllm", "model_args": {"pretrained": "org/x"}},
            "model_name": f"org/{run_of(params, length)}",
        }  # fmt: skip
        files[f"{run_of(params, length)}/results_{STAMP}.json"] = json.dumps(content).encode()
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
    """What OLMES measures of a task."""
    right = accuracy_of(loss)
    return {
        "acc_raw": right / 2, "acc_per_char": right, "primary_score": right,
        "bits_per_byte_corr": loss,
    }  # fmt: skip


def datadecide_table() -> pd.DataFrame:
    """Two tasks' parts and another, of three sizes, two seeds and three steps."""
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


def training_log_files() -> dict[str, bytes]:
    """One row a step: tokens and training loss, evaluations at neighbouring steps, a resume."""
    files = {}
    for params, length in RUNS:
        end = params * length
        rows = [{"_step": step, "train/tokens": end * step // 400, "train/loss": 3.0}
                for step in range(0, 401, 10)]  # fmt: skip
        rows += [{**row, "_step": row["_step"] + 1} for row in rows[20:22]]  # gone over again
        for step in (100, 200, 300, 400):
            loss = law(params, end * step / 400)
            rows += [{"_step": step + 1, "val/piqa/bpb": loss, "val/c4/loss": 2 * loss},
                     {"_step": step + 2, "val/piqa/acc": accuracy_of(loss)}]  # fmt: skip
        table = pd.DataFrame(rows).sort_values("_step", kind="stable")
        files[f"{run_of(params, length)}.csv"] = as_csv(table)
    return files


PRESET = """
tokens = "train/tokens"
reference_loss = "val/c4/loss"

[[keys]]
loss = "val/{task}/bpb"
loss_kind = "mine"
accuracy = "val/{task}/acc"

[tasks]
piqa = [0.5, 1838]

[[sizes]]
run = '([124])00M-(\\d+)'
params = 100000000
"""


def as_parquet(content: bytes) -> bytes:
    """The same table in another format."""
    there = io.BytesIO()
    pd.read_csv(io.BytesIO(content)).to_parquet(there)
    return there.getvalue()

import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import laddercast as lc
from laddercast.cli.commands import main
from laddercast.data.loaders.presets import (
    BARE_CHOICE,
    OLMO,
    PRESETS,
    WITH_SPACE,
    WITHOUT_SPACE,
)

pytestmark = pytest.mark.filterwarnings("ignore::laddercast.AssumedWarning")

TARGETS = ["7B-4T", "13B-5T"]
KEYS = ["model", "task", "tokens"]
COMPARED = ["params", "loss", "accuracy", "task_ce", "reference_loss", "flops"]
SIZES = (100_000_000, 200_000_000, 400_000_000)
RUNS = [(params, length) for params in SIZES for length in (20, 100)]


def message(read: Callable[..., object], *args: object, **kwargs: object) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is what is tested
        read(*args, **kwargs)
    assert type(caught.value) is ValueError
    return str(caught.value)


def assert_same_rows(read: pd.DataFrame, table: pd.DataFrame) -> None:
    joined = read.merge(table, on=KEYS, how="outer", suffixes=("", "_table"), indicator=True)
    assert (joined["_merge"] == "both").all()
    for word in COMPARED:
        # The tables have six digits.
        np.testing.assert_allclose(joined[word], joined[f"{word}_table"], rtol=5.1e-6)


# Experiment trackers


@pytest.mark.slow
def test_olmo_exports_give_back_the_tables(data_dir: Path):
    with pytest.warns(UserWarning, match="mmlu is the mean of mmlu_stem"):
        ladder = lc.read_wandb(data_dir / "olmo-ladder", preset="olmo")
    rungs, targets = ladder.split(hold_out=TARGETS)
    tables = [pd.read_csv(data_dir / f"{name}.csv") for name in ("olmo_ladder", "olmo_extra_rungs")]
    assert_same_rows(rungs.table, pd.concat(tables))
    given = pd.read_csv(data_dir / "olmo_targets.csv")
    assert_same_rows(targets, given)
    counts = targets.groupby("model")["checkpoints"].first()
    assert counts.to_dict() == {"7B-4T": 1, "13B-5T": 5}
    for file in ("olmo_tasks", "olmo_tasks_13"):
        tasks = pd.read_csv(data_dir / f"{file}.csv", index_col="task")
        known = ladder.tasks.loc[tasks.index]
        np.testing.assert_allclose(known.chance, tasks.chance, rtol=1e-5)
        assert (known["items"] == tasks["items"]).all()


def test_olmo_files_and_named_tasks(data_dir: Path):
    files = sorted((data_dir / "olmo-ladder").glob("*-1xC.csv"))
    ladder = lc.read_wandb(files, tasks=["mmlu", "boolq"], rungs="every")
    assert ladder.models == ["190M-1xC", "370M-1xC", "760M-1xC", "1.3B-1xC", "3.2B-1xC"]
    assert ladder.tasks.to_dict() == {
        "chance": {"mmlu": 0.25, "boolq": 0.5},
        "items": {"mmlu": 14042, "boolq": 3270},
    }
    assert set(ladder.table.loss_kind) == {WITHOUT_SPACE}


@pytest.mark.slow
def test_command_line_of_exports(data_dir: Path, tmp_path: Path, capsys):
    logs = ["baseline", "--from", "wandb:olmo", str(data_dir / "olmo-ladder"), "--tasks"]
    out = ["--out", str(tmp_path)]
    assert main([*logs, "arc_easy", "--hold-out", *TARGETS, *out]) == 0
    held_out = pd.read_csv(tmp_path / "forecast.csv")
    targets = str(data_dir / "olmo_targets.csv")
    assert main([*logs, "arc_easy", "--targets", targets, *out]) == 0
    assert "targets, not fitted: 7B-4T, 13B-5T" in capsys.readouterr().err
    of_file = pd.read_csv(tmp_path / "forecast.csv")
    keys = ["model", "task", "quantity", "method"]
    joined = held_out.merge(of_file, on=keys, suffixes=("", "_file"))
    assert len(joined) == len(held_out)
    np.testing.assert_allclose(joined.q50, joined.q50_file, rtol=1e-5)


def law(params: int, tokens: float) -> float:
    return 0.5 + 30 / params**0.25 + 60 / tokens**0.25


def accuracy_of(loss: float) -> float:
    return 0.25 + 0.7 / (1 + math.exp(5 * (loss - 1.1)))


def wide(params: int, length: int, keys: dict[str, str]) -> pd.DataFrame:
    """One run's export; `keys` names loss and accuracy of arc_easy, and the tokens."""
    tokens = [round(params * length * share) for share in (0, 0.5, 0.95, 1)]
    losses = [law(params, max(count, 1e6)) for count in tokens]
    columns = {"loss": losses, "accuracy": [accuracy_of(x) for x in losses], "tokens": tokens}
    return pd.DataFrame({keys[word]: values for word, values in columns.items()})


LEVANTER_KEYS = {
    "loss": "lm_eval/arc_easy/bpb",
    "accuracy": "lm_eval/arc_easy/acc_norm",
    "tokens": "throughput/total_tokens",
}
CORE_KEYS = {
    "loss": "eval/downstream/arc_easy_test_rc_5shot (BPB v2)",
    "accuracy": "eval/downstream/arc_easy_test_rc_5shot (length-normalized accuracy)",
    "tokens": "throughput/total tokens",
}
OLMO_KEYS = {
    "loss": "eval/downstream_bpb/arc_easy_test_rc_5shot_bpb",
    "accuracy": "eval/downstream/arc_easy_test_rc_5shot_len_norm",
    "tokens": "throughput/total_tokens",
}


def manifest() -> pd.DataFrame:
    return pd.DataFrame(
        [(f"{n // 10**6}M-{m}", n, n * m) for n, m in RUNS], columns=["model", "params", "tokens"]
    )


@pytest.fixture
def levanter(tmp_path: Path) -> Path:
    for params, length in RUNS:
        table = wide(params, length, LEVANTER_KEYS)
        table["lm_eval/boolq/acc"] = table["lm_eval/arc_easy/acc_norm"]
        table["lm_eval/boolq/acc_norm"] = 0.0
        table["lm_eval/boolq/bpb"] = table["lm_eval/arc_easy/bpb"]
        training = pd.DataFrame({"throughput/total_tokens": [12345]})
        pd.concat([table, training]).to_csv(tmp_path / f"{params // 10**6}M-{length}.csv")
    return tmp_path


def test_levanter_with_a_manifest(levanter: Path):
    ladder = lc.read_wandb(levanter, "levanter", manifest().drop(columns="tokens"))
    table = ladder.table
    assert len(ladder) == len(RUNS) * 2 * 3  # neither before training nor between evaluations
    assert set(table.loss_kind) == {BARE_CHOICE}
    np.testing.assert_allclose(
        table.loss, [law(*row) for row in table[["params", "tokens"]].values]
    )
    np.testing.assert_allclose(table.accuracy, table.loss.map(accuracy_of))
    assert ladder.tasks.chance.to_dict() == {"arc_easy": 0.25, "boolq": 0.5}


def test_lacking_runs_are_listed_in_one_error(levanter: Path):
    some = manifest().iloc[:3]
    told = message(lc.read_wandb, levanter, "levanter", some)
    assert "manifest lacks 3 of 6 runs: 200M-100, 400M-100, 400M-20; give manifest=" in told
    assert "6 of 6" in message(lc.read_wandb, levanter, "levanter")


def core_frame() -> pd.DataFrame:
    tables = []
    for params, length in RUNS:
        table = wide(params, length, CORE_KEYS).rename(
            columns={"throughput/total tokens": "tokens"}
        )
        names = {"name": f"run-{params}-{length}", "size": "x", "num_params": params}
        tables.append(table.assign(step=range(4), **names))
    return pd.concat(tables, ignore_index=True)


def test_one_long_table_of_olmo_core_has_both_params_and_tokens(tmp_path: Path):
    core_frame().to_parquet(tmp_path / "ladder.parquet")
    ladder = lc.read_wandb(tmp_path / "ladder.parquet", "olmo-core")
    assert len(ladder) == len(RUNS) * 3
    assert set(ladder.table.params) == set(SIZES)
    assert set(ladder.table.loss_kind) == {WITH_SPACE}
    assert ladder.tasks.chance.to_dict() == {"arc_easy_test_rc_5shot": 0.25}
    assert len(lc.read_wandb(core_frame(), "olmo-core")) == len(ladder)


def test_runs_of_two_kinds_of_loss_are_refused():
    frame = core_frame()
    older = CORE_KEYS["loss"].replace(" v2", "")
    frame[older] = frame[CORE_KEYS["loss"]]
    first = frame.name == frame.name[0]
    assert set(lc.read_wandb(frame, "olmo-core").table.loss_kind) == {WITH_SPACE}
    frame.loc[first, CORE_KEYS["loss"]] = np.nan
    # All runs have the older one: that is no mixture.
    assert set(lc.read_wandb(frame, "olmo-core").table.loss_kind) == {WITHOUT_SPACE}
    frame.loc[~first, older] = np.nan
    told = message(lc.read_wandb, frame, "olmo-core")
    assert "no loss_kind is common to all runs (bpb with space: run-1" in told
    assert "bpb without space: run-100000000-20)" in told
    assert "evaluate again" in told


def test_a_wrong_preset_is_one_fault_that_names_the_right_one(levanter: Path):
    told = message(lc.read_wandb, levanter, "olmo")
    assert told.count("no key") == 1
    assert "100M-100.csv, 100M-20.csv, 200M-100.csv, 200M-20.csv, 400M-100.csv and 1 more" in told
    assert "these are keys of preset levanter" in told
    assert "choose the preset of its trainer" in message(
        lc.read_wandb, core_frame().drop(columns=CORE_KEYS["loss"]), "olmo"
    )


def test_a_preset_of_the_users_own(levanter: Path):
    mine = lc.Preset(
        keys=(lc.Keys("lm_eval/{task}/bpb", "my bpb", ("lm_eval/{task}/acc_norm",)),),
        task_keys={"easy": "arc_easy"},
        tasks={"easy": (0.25, 100)},
        sizes=tuple(lc.Size(rf"{n // 10**6}M-(\d+)", r"mine-\g<0>", n, 7.0 * n) for n in SIZES),
    )
    ladder = lc.read_wandb(levanter, mine)
    assert ladder.models[0] == "mine-100M-20"
    np.testing.assert_allclose(ladder.table.flops, 7.0 * ladder.table.params * ladder.table.tokens)
    assert ladder.tasks.loc["easy"].tolist() == [0.25, 100]


def test_tokens_fall_back_on_steps():
    tables = []
    for params, length in RUNS:
        table = wide(params, length, OLMO_KEYS).rename(columns={"throughput/total_tokens": "x"})
        tokens = table.pop("x")
        size = {100: "190M", 200: "370M", 400: "760M"}[params // 10**6]
        table = table.assign(_step=tokens // 1000, batch_size_in_tokens=1000)
        tables.append(table.assign(run=f"{size}-{length}"))
    frame = pd.concat(tables, ignore_index=True)
    ladder = lc.read_wandb(frame, tasks=["arc_easy"])
    assert ladder.table.tokens.max() == 400_000_000 * 100
    frame.loc[2, "_step"] = np.nan
    told = message(lc.read_wandb, frame, tasks=["arc_easy"])
    assert "log row 2: tokens are not known; log `throughput/total_tokens` or" in told
    # More steps times tokens a step than any number.
    beyond = frame.assign(batch_size_in_tokens=1e305).drop(index=2)
    assert "tokens are not known" in message(lc.read_wandb, beyond, tasks=["arc_easy"])


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (lambda path: path / "none", "no such file or folder; check the path"),
    "empty folder": (lambda path: make(path / "empty"), "no exports (*.csv, *.parquet, *.pq)"),
    "pickle": (
        lambda path: pickled(path / "log.pkl"),
        "log.pkl: pickles are never read, for they can run code; write CSV or Parquet",
    ),
    "folder of pickles": (
        lambda path: pickled(path / "x" / "log.pkl").parent,
        "pickles are never read, write CSV or Parquet",
    ),
    "other keys": (
        lambda path: write(path / "a.csv", "step,val/loss\n1,2\n"),
        "a.csv: no key `lm_eval/{task}/bpb` or `lm_eval/{task}/acc_norm` or `lm_eval/{task}/acc`; "
        "choose the preset of its trainer, or write one "
        "(columns are step, val/loss)",
    ),
    "percent": (
        lambda path: write(
            path / "100M-20.csv",
            "throughput/total_tokens,lm_eval/piqa/acc,lm_eval/piqa/bpb\n2000,70,1\n",
        ),
        "100M-20.csv:2 piqa: accuracy 70 is above 1; give fractions, not percent",
    ),
}


def make(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def write(path: Path, text: str) -> Path:
    make(path.parent)
    path.write_text(text)
    return path


def pickled(path: Path) -> Path:
    make(path.parent)
    path.write_bytes(pickle.dumps({}))
    return path


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_exports(fault: str, tmp_path: Path):
    source, part = FAULTS[fault]
    assert part in message(lc.read_wandb, source(tmp_path), "levanter", manifest())


def test_several_faults_are_told_at_once(levanter: Path):
    path = levanter / "100M-20.csv"
    path.write_text(path.read_text().replace("0.95", "2"))
    wrong = manifest().assign(params=["100 MB", *manifest().params[1:]])
    told = message(lc.read_wandb, levanter, "levanter", wrong, tasks=["piqa", "boolq"])
    assert "row 0: params 100 MB is not a number" in told
    assert "no measurements of piqa; its tasks are arc_easy, boolq" in told
    assert "preset 'olmo2': use olmo, olmo-core" in message(lc.read_wandb, levanter, "olmo2")


@pytest.mark.parametrize("reference", [True, False])
def test_exports_of_accuracies(levanter: Path, reference: bool):
    both = lc.read_wandb(levanter, "levanter", manifest())
    for file in levanter.glob("*.csv"):
        table = pd.read_csv(file).drop(columns=["lm_eval/arc_easy/bpb", "lm_eval/boolq/bpb"])
        if reference:
            table["eval/paloma/c4_en/loss"] = 3.0
        table.to_csv(file, index=False)
    ladder = lc.read_wandb(levanter, "levanter", manifest())
    assert ladder.table.accuracy.tolist() == both.table.accuracy.tolist()
    assert ("reference_loss" in ladder.table) == reference
    assert not {"loss", "loss_kind"} & set(ladder.table)


def test_exports_of_losses(levanter: Path):
    both = lc.read_wandb(levanter, "levanter", manifest())
    for file in levanter.glob("*.csv"):
        table = pd.read_csv(file)
        table[[name for name in table if "/acc" not in name]].to_csv(file, index=False)
    ladder = lc.read_wandb(levanter, "levanter", manifest())
    assert ladder.table.loss.tolist() == both.table.loss.tolist()
    assert "accuracy" not in ladder.table


def test_a_manifest_with_a_run_given_twice(levanter: Path):
    twice = pd.concat([manifest(), manifest().iloc[:1]], ignore_index=True)
    told = message(lc.read_wandb, levanter, "levanter", twice)
    assert "manifest row 6: run 100M-20 is given twice; keep one row for each run" in told


# lm-evaluation-harness


def sample(i: int, loss: float, right: int, *, correct: bool) -> dict[str, object]:
    """A question of four choices; the right one's log-probability makes `loss` bits per byte."""
    choices = [f" answer {k}" for k in range(4)]
    log = -loss * len(choices[right]) * math.log(2)
    logs = [log if k == right else log + (-1 if correct else 1) for k in range(4)]
    return {
        "doc_id": i,
        "target": str(right),
        "arguments": {
            f"gen_args_{k}": {"arg_0": f"Question {i}", "arg_1": choice}
            for k, choice in enumerate(choices)
        },
        "filtered_resps": [[str(value), "False"] for value in logs],
        "filter": "none",
        "acc": float(correct),
        "acc_norm": float(correct),
    }


def harness_run(
    folder: Path, params: int, length: int, tasks: tuple[str, ...] = ("arc_easy",)
) -> Path:
    make(folder)
    rng = np.random.default_rng(params + length)
    date = "2026-01-02T03-04-05.678901"
    mean = law(params, params * length)
    results: dict[str, dict[str, object]] = {}
    for task in tasks:
        losses = mean * np.exp(rng.normal(0, 0.3, 40))
        right = rng.random(40) < accuracy_of(mean)
        lines = [
            sample(i, x, i % 4, correct=bool(r))
            for i, (x, r) in enumerate(zip(losses, right, strict=True))
        ]
        # A second filter of the same questions must not count twice.
        lines += [{**line, "filter": "other", "acc": 0.0} for line in lines]
        write(folder / f"samples_{task}_{date}.jsonl", "\n".join(map(json.dumps, lines)) + "\n")
        share = float(right.mean())
        results[task] = {"acc,none": share, "acc_norm,none": share, "acc_stderr,none": "N/A"}
    content = {
        "results": results,
        "n-samples": {task: {"original": 40, "effective": 40} for task in tasks},
        "n-shot": dict.fromkeys(tasks, 5),
        "versions": dict.fromkeys(tasks, 1),
        "group_subtasks": {task: [] for task in tasks},
        "model_name": f"org/{folder.name}",
        "config": {"model": "hf", "model_num_parameters": params + 5_000_000, "model_args": ""},
    }
    write(folder / f"results_{date}.json", json.dumps(content))
    return folder


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def harness(tmp_path: Path) -> Path:
    for params, length in RUNS:
        harness_run(tmp_path / f"{params // 10**6}M-{length}", params, length)
    return tmp_path


def test_harness_loss_and_its_error_come_from_samples(harness: Path):
    ladder = lc.read_lm_eval(harness, manifest())
    assert len(ladder) == len(RUNS)
    row = ladder.table.set_index("model").loc["200M-100"]
    rng = np.random.default_rng(200_000_000 + 100)
    losses = law(200_000_000, 200_000_000 * 100) * np.exp(rng.normal(0, 0.3, 40))
    assert row.loss == pytest.approx(losses.mean())
    assert row.loss_se == pytest.approx(losses.std(ddof=1) / math.sqrt(40))
    assert (row.params, row.tokens, row.loss_kind) == (200_000_000, 20_000_000_000, WITH_SPACE)
    assert ladder.tasks.loc["arc_easy"].tolist() == [0.25, 40]


def test_manifest_may_name_the_harness_model(harness: Path):
    table = manifest().assign(run="org/" + manifest().model, model=list("abcdef"))
    assert sorted(lc.read_lm_eval(harness, table).models) == list("abcdef")


def test_manifest_may_name_the_last_part_of_the_harness_model(harness: Path):
    moved = [path.rename(path.with_name(f"__{path.name}")) for path in list(harness.iterdir())]
    assert len(lc.read_lm_eval(harness, manifest())) == len(moved) == len(RUNS)


def test_results_of_another_name_beside_others_are_read(harness: Path):
    old = next(harness.glob("100M-20/results*.json"))
    old.rename(harness / "100M-20.json")
    write(harness / "100M-100" / "config.json", '{"results": 3}')
    write(harness / "100M-100" / "notes.json", "[")
    with pytest.warns(UserWarning, match="no samples of 100M-20, of which accuracy alone is read"):
        ladder = lc.read_lm_eval(harness, manifest())
    assert ladder.models == [f"{n // 10**6}M-{m}" for n, m in RUNS]


def test_params_with_embeddings_are_refused(harness: Path):
    told = message(lc.read_lm_eval, harness, manifest().drop(columns="params"))
    assert "manifest has no params of 100M-100, 100M-20, 200M" in told
    assert "105000000" in told
    assert "with embeddings: the laws need those without" in told
    assert "6 of 6 runs" in message(lc.read_lm_eval, harness)
    counted = manifest().assign(params=manifest().params + 5_000_000)
    with pytest.warns(UserWarning, match="are what the harness counts, embeddings included"):
        lc.read_lm_eval(harness, counted)


def test_checkpoints_of_one_folder_are_told_apart_by_revision(tmp_path: Path):
    rows = []
    for params, length in RUNS:
        name = f"{params // 10**6}M-{length}"
        for share in (0.5, 1.0):
            step = f"step{share * 100:.0f}"
            made = harness_run(tmp_path / "made" / name, params, round(length * share))
            for file in list(made.iterdir()):
                moved = make(tmp_path / "logs" / name) / file.name.replace("05.678901", step)
                file.rename(moved)
                if moved.suffix == ".json":
                    arguments = f"pretrained=x,revision={step},dtype=float32"
                    edit(moved, lambda x, a=arguments: x["config"].update(model_args=a))
            tokens = round(params * length * share)
            rows.append(
                {"run": f"{name}@{step}", "model": name, "params": params, "tokens": tokens}
            )
    ladder = lc.read_lm_eval(tmp_path / "logs", pd.DataFrame(rows))
    assert len(ladder.models) == len(RUNS)
    assert len(ladder) == 2 * len(RUNS)


def test_groups_stand_for_their_tasks(tmp_path: Path):
    parts = ("mmlu_a", "mmlu_b")
    for params, length in RUNS:
        folder = harness_run(tmp_path / f"{params // 10**6}M-{length}", params, length, parts)

        def group(content: dict) -> None:
            content["results"]["mmlu"] = {"acc,none": 0.0}
            content["group_subtasks"] = {"mmlu": list(parts)}

        edit(next(folder.glob("results*")), group)
    whole = lc.read_lm_eval(tmp_path, manifest())
    apart = lc.read_lm_eval(tmp_path, manifest(), tasks=parts)
    assert list(whole.tasks.index) == ["mmlu"]
    assert whole.tasks["items"].tolist() == [80]
    for word in ("loss", "accuracy"):
        means = apart.table.groupby("model")[word].mean()
        np.testing.assert_allclose(whole.table.set_index("model")[word], means)


def one_question(**changes: object) -> dict[str, object]:
    return {**sample(0, 1.0, 2, correct=False), **changes}


def test_shapes_of_questions():
    from laddercast.data.loaders.harness_samples import _question

    assert _question(one_question())[0] == pytest.approx(1.0)
    assert _question(one_question(target=" answer 2"))[0] == pytest.approx(1.0)
    # Mutual information: the second half is unconditional.
    doubled = one_question()
    arguments = dict(doubled["arguments"])
    logs = [*doubled["filtered_resps"], *[["-50.0", "False"]] * 4]
    for k in range(4):
        arguments[f"gen_args_{k + 4}"] = {"arg_0": "", "arg_1": arguments[f"gen_args_{k}"]["arg_1"]}
    assert _question({**doubled, "arguments": arguments, "filtered_resps": logs})[:2] == (
        pytest.approx(1.0),
        4,
    )
    # WinoGrande: one answer, two contexts.
    pair = {f"gen_args_{k}": {"arg_0": f"context {k}", "arg_1": " runs."} for k in range(2)}
    logs = [["-1.0", "False"], ["-3.0", "False"]]
    wino = {"arguments": pair, "filtered_resps": logs, "target": "runs."}
    assert _question({**wino, "acc": 1.0})[0] == pytest.approx(1 / math.log(2) / 6)
    assert _question({**wino, "acc": 0.0})[0] == pytest.approx(3 / math.log(2) / 6)
    assert "several right answers" in message(_question, one_question(target=[0, 1]))


def without_samples(folder: Path) -> None:
    next(folder.glob("samples*")).unlink()


def cut_off(folder: Path) -> None:
    path = next(folder.glob("samples*"))
    path.write_text(path.read_text()[:-30])


def fewer_examples(folder: Path) -> None:
    edit(next(folder.glob("results*")), lambda x: x["n-shot"].update(arc_easy=0))


def other_accuracy(folder: Path) -> None:
    edit(
        next(folder.glob("results*")), lambda x: x["results"]["arc_easy"].update({"acc,none": 1.0})
    )


def no_results(folder: Path) -> None:
    edit(next(folder.glob("results*")), lambda x: x.pop("results"))


def twice(folder: Path) -> None:
    path = next(folder.glob("results*"))
    path.with_name("results_2026-02-01.json").write_text(path.read_text())
    samples = next(folder.glob("samples*"))
    samples.with_name("samples_arc_easy_2026-02-01.jsonl").write_text(samples.read_text())


def twice_with_other_values(folder: Path) -> None:
    path = next(folder.glob("results*"))
    again = path.with_name("results_2026-02-01.json")
    again.write_text(path.read_text())
    edit(again, lambda x: x["results"]["arc_easy"].update({"acc,none": 0.125}))


def bits_of_results(folder: Path) -> None:
    without_samples(folder)
    edit(
        next(folder.glob("results*")),
        lambda x: x["results"]["arc_easy"].update({"bits_per_byte,none": 0.9}),
    )


HARNESS_FAULTS = {
    bits_of_results: "arc_easy: bits per byte are computed from samples of 100M-100, 200M",
    cut_off: "samples_arc_easy_2026-01-02T03-04-05.678901.jsonl line 80: is no JSON",
    fewer_examples: "arc_easy: runs differ in examples (n-shot) (5: 100M-100, 200M",
    other_accuracy: "samples and results are of two evaluations",
    no_results: "results_2026-01-02T03-04-05.678901.json: has no `results`",
    twice_with_other_values: "arc_easy of run 100M-20: 100M-20/results_2026-01-02T03-04-05.678901"
    ".json and 100M-20/results_2026-02-01.json have different values (arc_easy: acc,none ",
}


@pytest.mark.parametrize("fault", HARNESS_FAULTS, ids=lambda fault: fault.__name__)
def test_faults_of_the_harness(fault: Callable[[Path], None], harness: Path):
    fault(harness / "100M-20")
    assert HARNESS_FAULTS[fault] in message(lc.read_lm_eval, harness, manifest())


def test_two_files_that_agree_are_one_measurement(harness: Path):
    once = lc.read_lm_eval(harness, manifest())
    twice(harness / "100M-20")
    assert lc.read_lm_eval(harness, manifest()).fingerprint == once.fingerprint
    # Of a second evaluation without samples, the loss of the first stays.
    next((harness / "100M-20").glob("samples*02-01*")).unlink()
    assert lc.read_lm_eval(harness, manifest()).fingerprint == once.fingerprint


def test_results_without_samples_are_accuracies_alone(harness: Path):
    with_samples = lc.read_lm_eval(harness, manifest())
    without_samples(harness / "100M-20")
    with pytest.warns(UserWarning, match="arc_easy: no samples of 100M-20, of which accuracy"):
        mixed = lc.read_lm_eval(harness, manifest())
    assert mixed.table.loss.isna().sum() == 1
    for file in harness.rglob("samples*"):
        file.unlink()
    ladder = lc.read_lm_eval(harness, manifest())
    assert ladder.table.accuracy.tolist() == with_samples.table.accuracy.tolist()
    assert ladder.table.loss.isna().all()
    assert ladder.tasks.loc["arc_easy"].tolist() == [0.25, 40]
    assert "losses: none" in repr(ladder)


def test_bits_per_byte_of_results_are_losses(harness: Path):
    for file in harness.rglob("results*"):

        def text_alone(content: dict, mean: float = len(file.parent.name)) -> None:
            content["results"] = {"wikitext": {"bits_per_byte,none": mean}}
            content["n-samples"] = {"wikitext": {"original": 62, "effective": 62}}

        edit(file, text_alone)
    ladder = lc.read_lm_eval(harness, manifest())
    losses = ladder.table.set_index("model").loss
    assert losses.to_dict() == {name: len(name) for name in manifest().model}
    assert "accuracies: none" in repr(ladder)


def test_losses_alone_beside_accuracies_are_refused_with_the_cure(tmp_path: Path):
    for params, length in RUNS:
        scores = {"piqa": {"acc,none": 0.5}, "wikitext": {"bits_per_byte,none": 0.9}}
        results_file(tmp_path / f"{params // 10**6}M-{length}" / "results.json", scores)
    told = message(lc.read_lm_eval, tmp_path, manifest(), tasks=["piqa", "wikitext"])
    assert "wikitext: losses alone, beside tasks with accuracies; read them apart" in told
    assert "guessing" not in told


def test_a_reference_loss_stands_in_for_samples(harness: Path):
    for file in harness.rglob("samples*"):
        file.unlink()
    quiet = manifest().assign(reference_loss=[3.3, 3.1, 3.0, 2.8, 2.7, 2.5])
    ladder = lc.read_lm_eval(harness, quiet)
    assert ladder.table.reference_loss.tolist() == [3.1, 3.3, 2.8, 3.0, 2.5, 2.7]
    assert ladder.table.loss.isna().all()
    assert ladder.tasks.loc["arc_easy"].tolist() == [0.25, 40]


# OLMES


def olmes_metrics(params: int, tokens: float, bpb: str = "bits_per_byte_corr") -> dict:
    loss = law(params, tokens)
    right = accuracy_of(loss)
    return {"acc_raw": right / 2, "acc_per_char": right, "primary_score": right, bpb: loss}


def olmes_run(folder: Path, params: int, length: int) -> None:
    make(folder)
    rows = []
    for i, task in enumerate(("boolq", "csqa")):
        entry = {
            "task_name": task,
            "task_config": {
                "split": "validation",
                "num_shots": 5,
                "metadata": {"alias": f"{task}:rc"},
            },
            "num_instances": 20,
            "metrics": olmes_metrics(params, params * length),
            "model_config": {"model": f"hub/{folder.name}"},
        }
        rows.append(entry)
        write(folder / f"task-{i:03d}-{task}-metrics.json", json.dumps(entry))
        choices = 2 if task == "boolq" else 5
        lines = [
            {
                "doc_id": k,
                "label": 0,
                "metrics": {"bits_per_byte_corr": 1 + k % 2},
                "model_output": [{"sum_logits": -1.0, "num_tokens": 1, "num_chars": 4}] * choices,
            }
            for k in range(20)
        ]
        text = "\n".join(map(json.dumps, lines))
        write(folder / f"task-{i:03d}-{task}-predictions.jsonl", text)
    write(folder / "metrics-all.jsonl", "\n".join(map(json.dumps, rows)))


@pytest.fixture
def olmes(tmp_path: Path) -> Path:
    for params, length in RUNS:
        olmes_run(tmp_path / f"{params // 10**6}M-{length}", params, length)
    return tmp_path


@pytest.mark.parametrize("whole", [True, False])
def test_olmes_files(olmes: Path, whole: bool):
    for file in olmes.rglob("metrics-all.jsonl") if not whole else ():
        file.unlink()
    ladder = lc.read_olmes(olmes, manifest())
    table = ladder.table.set_index(["model", "task"])
    assert len(table) == 2 * len(RUNS)
    loss = law(100_000_000, 100_000_000 * 20)
    assert table.loss["100M-20", "csqa"] == pytest.approx(loss)
    assert table.accuracy["100M-20", "csqa"] == pytest.approx(accuracy_of(loss))
    assert table.accuracy["100M-20", "boolq"] == pytest.approx(accuracy_of(loss) / 2)
    errors = np.array([1, 2] * 10).std(ddof=1) / math.sqrt(20)
    np.testing.assert_allclose(table.loss_se, errors)
    assert ladder.tasks.chance.to_dict() == {"boolq": 0.5, "csqa": 0.2}
    assert ladder.tasks["items"].tolist() == [20, 20]


def test_olmes_without_losses_are_accuracies_alone(olmes: Path):
    whole = lc.read_olmes(olmes, manifest())
    for file in (*olmes.rglob("*predictions.jsonl"), *olmes.rglob("metrics-all.jsonl")):
        file.unlink()
    for file in olmes.rglob("*metrics.json"):
        edit(file, lambda x: x["metrics"].pop("bits_per_byte_corr"))
        # The same once more is one measurement.
        file.with_name(f"again-{file.name}").write_text(file.read_text())
    ladder = lc.read_olmes(olmes, manifest())
    assert ladder.table.loss.isna().all()
    assert ladder.table.accuracy.tolist() == whole.table.accuracy.tolist()
    edit(next(olmes.rglob("again-*csqa*")), lambda x: x["metrics"].update(acc_per_char=0.125))
    told = message(lc.read_olmes, olmes, manifest())
    assert "csqa of run" in told
    assert "with different values; move one of both away" in told


def test_olmes_without_manifest_lists_all_runs(olmes: Path):
    told = message(lc.read_olmes, olmes)
    assert "the manifest lacks 6 of 6 runs: 100M-100, 100M-20, 200M-100, 200M-20" in told


DATADECIDE_SIZES = {"90M": 97946640, "150M": 151898880, "300M": 319980544}


def datadecide(
    recipes: tuple[str, ...] = ("C4",),
    tasks: tuple[str, ...] = ("arc_easy",),
    sizes: dict[str, int] = DATADECIDE_SIZES,
) -> pd.DataFrame:
    rows = []
    for recipe in recipes:
        for label, params in sizes.items():
            for seed in ("default", "small aux 2"):
                for step in (0, 500, 1000):
                    tokens = params * step // 10
                    for task in tasks:
                        metrics = olmes_metrics(params, max(tokens, 1), "logits_per_byte_corr")
                        rows.append(
                            {
                                "params": label, "data": recipe, "task": task, "step": step,
                                "seed": seed, "chinchilla": "5xC", "tokens": tokens,
                                "compute": 6.0 * params * tokens,
                                "metrics": str({**metrics, "uncond": math.nan}),
                            }
                        )  # fmt: skip
    return pd.DataFrame(rows)


def test_datadecide_table(tmp_path: Path):
    datadecide().to_csv(tmp_path / "table.csv", index=False)
    ladder = lc.read_olmes(tmp_path / "table.csv", rungs="every")
    assert len(ladder) == 3 * 2 * 2  # the untrained models are left out
    table = ladder.table
    assert set(table.model) >= {"C4-90M-default", "C4-90M-small-aux-2"}
    assert set(table.params) == {97946640, 151898880, 319980544}
    assert set(table.recipe) == {"C4"}
    assert set(table.seed) == {"default", "small aux 2"}
    assert set(table.loss_kind) == {WITH_SPACE}
    np.testing.assert_allclose(table.flops, 6.0 * table.params * table.tokens)
    np.testing.assert_allclose(table.accuracy, table.loss.map(accuracy_of))


def test_datadecide_recipes_and_sizes():
    two = datadecide(("C4", "Falcon"))
    told = message(lc.read_olmes, two)
    assert "2 recipes, of which one law cannot hold; choose one by recipe=" in told
    assert "no recipe C5; its recipes are C4, Falcon" in message(lc.read_olmes, two, recipe="C5")
    assert set(lc.read_olmes(two, rungs="every", recipe="Falcon").table.recipe) == {"Falcon"}
    renamed = datadecide().replace({"params": {"90M": "91M"}})
    assert "no params of size 91M; give manifest=" in message(lc.read_olmes, renamed)
    sizes = pd.DataFrame({"model": ["91M"], "params": [91_000_000]})
    ladder = lc.read_olmes(renamed, sizes, rungs="every")
    assert 91_000_000 in set(ladder.table.params)
    assert "C4-91M-default" in ladder.models


def test_parts_of_mmlu_are_read_as_their_mean():
    table = datadecide(tasks=("mmlu_anatomy", "mmlu_virology", "piqa"))
    assert sorted(lc.read_olmes(table, rungs="every").tasks.index) == ["mmlu", "piqa"]
    named = lc.read_olmes(table, tasks=["mmlu_anatomy"], rungs="every")
    assert list(named.tasks.index) == ["mmlu_anatomy"]


def test_text_is_never_run(tmp_path: Path):
    table = datadecide()
    trap = tmp_path / "trap"
    table.loc[4, "metrics"] = f"__import__('pathlib').Path({str(trap)!r}).touch()"
    told = message(lc.read_olmes, table)
    assert "metrics are no dictionary of numbers" in told
    assert not trap.exists()
    assert "no column metrics" in message(lc.read_olmes, table.drop(columns="metrics"))


# The command line


@pytest.mark.slow
def test_command_line_with_a_manifest(harness: Path, tmp_path: Path, capsys):
    manifest().to_csv(tmp_path / "manifest.csv", index=False)
    words = ["baseline", "--from", "lm-eval", str(harness), "--out", str(tmp_path / "out")]
    given = ["--manifest", str(tmp_path / "manifest.csv")]
    assert main([*words, *given, "--hold-out", "400M-100"]) == 0
    assert pd.read_csv(tmp_path / "out" / "forecast.csv").model.unique().tolist() == ["400M-100"]
    assert main([*words, "--hold-out", "400M-100"]) == 2
    assert "lacks 6 of 6 runs" in capsys.readouterr().err
    assert main([*words, *given, "--hold-out", "400M-100,400M-20"]) == 0
    held_out = pd.read_csv(tmp_path / "out" / "forecast.csv").model.unique()
    assert sorted(held_out) == ["400M-100", "400M-20"]
    assert main([*words, *given]) == 2
    assert "no targets: give --targets TARGETS, or --hold-out MODEL" in capsys.readouterr().err
    assert main(["baseline", "x.csv", *given, "--targets", "x", "--out", "x"]) == 2
    assert "--manifest: only with --from" in capsys.readouterr().err


def test_presets_are_sound():
    for preset in PRESETS.values():
        assert all("{task}" in keys.loss for keys in preset.keys)
    assert sum(OLMO.aggregates["mmlu"].values()) == pytest.approx(1)


def test_known_tasks_are_sound():
    known = lc.known_tasks()
    assert known.index.is_unique
    assert ((known.chance >= 0) & (known.chance <= 0.5) | known.chance.isna()).all()
    assert ((known["items"] >= 1) & (known["items"] % 1 == 0) | known["items"].isna()).all()
    assert known.source.notna().all()
    # The subjects of MMLU and its groups add up to all of it.
    subjects = known[known.index.str.startswith("hendrycksTest-")]
    assert len(subjects) == 57
    assert subjects["items"].sum() == known["items"]["mmlu"] == 14042
    for task, (chance, items) in OLMO.tasks.items():
        assert known.chance[task] == chance
        assert known["items"][task] in (items, pytest.approx(math.nan, nan_ok=True))


def test_a_name_that_begins_like_a_known_task_has_its_chance():
    from laddercast.data.known_tasks import chance_of, is_task, items_of

    assert chance_of("csqa_val_rc_5shot") == chance_of("csqa:mc") == 0.2
    assert math.isnan(chance_of("mmlu_pro_biology"))  # not that of mmlu
    assert math.isnan(chance_of("csqaval"))
    assert items_of("arc_easy") == 2376
    assert math.isnan(items_of("arc_easy_val"))  # of another split
    assert is_task("boolq_val", "boolq")


# lm-evaluation-harness: files as they are


def results_file(path: Path, results: dict, **others: object) -> None:
    write(path, json.dumps({"results": results, **others}))


def score_of(params: int, length: int) -> float:
    return round(accuracy_of(law(params, params * length)), 4)


def test_results_before_0_4(tmp_path: Path):
    """One file a run, of any name; metrics without filters; neither samples nor counts."""
    for params, length in RUNS:
        score = score_of(params, length)
        tasks = {
            "piqa": {"acc": score / 2, "acc_stderr": 0.01, "acc_norm": score},
            "boolq": {"acc": score, "acc_norm": 0.0},
            "lambada_openai": {"ppl": 9.1, "acc": score / 3},
            "hendrycksTest-anatomy": {"acc": score, "acc_norm": score},
        }
        name = f"{params // 10**6}M-{length}.json"
        results_file(tmp_path / "zero-shot" / name, tasks, versions=dict.fromkeys(tasks, 0))
    with pytest.warns(
        lc.AssumedWarning, match=r"guessing of boolq, hendrycksTest-anatomy, lambada"
    ):
        ladder = lc.read_lm_eval(tmp_path / "zero-shot", manifest())
    expected = {"boolq": 0.5, "hendrycksTest-anatomy": 0.25, "lambada_openai": 0.0, "piqa": 0.5}
    assert ladder.tasks.chance.to_dict() == expected
    assert ladder.tasks["items"].tolist() == [3270, 135, 5153, 1838]
    scores = ladder.table.set_index(["model", "task"]).accuracy
    score = score_of(*RUNS[0])
    assert scores["100M-20", "piqa"] == scores["100M-20", "boolq"] == score


def test_a_limit_before_0_4_is_the_number_of_questions(tmp_path: Path):
    for params, length in RUNS:
        path = tmp_path / f"{params // 10**6}M-{length}" / "results.json"
        results_file(path, {"piqa": {"acc": score_of(params, length)}}, config={"limit": 100})
    assert lc.read_lm_eval(tmp_path, manifest()).tasks["items"].tolist() == [100]


def test_results_before_0_4_and_since_are_one_ladder(tmp_path: Path):
    """0.4 numbers versions anew; 1 and 1.0 are one version."""
    for i, (params, length) in enumerate(RUNS):
        name, score = f"{params // 10**6}M-{length}", score_of(params, length)
        old = {"versions": {"piqa": 0}, "config": {"num_fewshot": 5}}
        new = {"versions": {"piqa": 1 if i == 3 else 1.0}, "n-shot": {"piqa": 5}}
        path = tmp_path / name / "results.json"
        results_file(path, {"piqa": {"acc" if i < 2 else "acc,none": score}},
                     **(old if i < 2 else new))  # fmt: skip
    with pytest.warns(lc.AssumedWarning, match="piqa: 100M-100, 100M-20 evaluated before harness"):
        assert len(lc.read_lm_eval(tmp_path, manifest())) == len(RUNS)
    with pytest.warns(lc.AssumedWarning, match="the number of questions of piqa: from lc.known_ta"):
        lc.read_lm_eval(tmp_path, manifest())
    first = tmp_path / "100M-20" / "results.json"
    edit(first, lambda x: x["config"].update(num_fewshot=0))
    told = message(lc.read_lm_eval, tmp_path, manifest())
    assert "piqa: runs differ in examples (n-shot) (5: 100M-100, 200M-100" in told
    edit(first, lambda x: x.update(config={}, versions={"piqa": 1}))
    told = message(lc.read_lm_eval, tmp_path, manifest())
    assert "piqa: runs differ in version of the task (0: 100M-100; 1: 100M-20)" in told


def test_a_limit_that_is_none_and_a_name_with_a_blank_are_told(tmp_path: Path):
    for params, length in RUNS:
        path = tmp_path / f"{params // 10**6}M-{length}" / "results.json"
        scores = {"piqa": {"acc": score_of(params, length)}, "copa ": {"acc": 0.5}}
        results_file(path, scores, config={"limit": -1e308})
    with pytest.raises(ValueError, match=r"results.json: results.'copa ': has a blank at an end"):
        lc.read_lm_eval(tmp_path, manifest())


def test_models_in_one_folder_are_told_apart(tmp_path: Path):
    for i, (params, length) in enumerate(RUNS):
        name = f"org/{params // 10**6}M-{length}"
        scores = {"piqa": {"acc,none": score_of(params, length)}}
        results_file(tmp_path / f"results_2026-01-0{i + 1}.json", scores, model_name=name)
    given = manifest().assign(run="org/" + manifest().model)
    assert len(lc.read_lm_eval(tmp_path, given).models) == len(RUNS)


def test_files_of_one_run_may_have_different_tasks(harness: Path):
    for folder in harness.iterdir():
        score = {"acc,none": 0.75}
        results_file(folder / "results_2026-02-01.json", {"piqa": score, "copa": score})
    ladder = lc.read_lm_eval(harness, manifest())
    assert list(ladder.tasks.index) == ["arc_easy", "copa", "piqa"]
    for date in ("2026-02-02", "2026-02-03"):
        results_file(harness / "100M-20" / f"results_{date}.json", {"piqa": score, "copa": score})
    assert lc.read_lm_eval(harness, manifest()).fingerprint == ladder.fingerprint
    results_file(harness / "100M-20" / "results_2026-02-04.json",
                 {"piqa": {"acc,none": 0.5}, "copa": {"acc,none": 0.5}})  # fmt: skip
    told = message(lc.read_lm_eval, harness, manifest())
    assert told.count("different values") == 1
    assert "copa, piqa of run 100M-20: 100M-20/results_2026-02-03.json and 100M-20/results_" in told


def test_tasks_of_groups_that_hold_each_other_are_read_and_told(tmp_path: Path):
    for params, length in RUNS:
        score = {"acc,none": score_of(params, length)}
        path = tmp_path / f"{params // 10**6}M-{length}" / "results_2026.json"
        inside = {"a": ["b", "copa"], "b": ["a"]}
        results_file(path, {"piqa": score, "copa": score}, group_subtasks=inside)
    with pytest.warns(lc.AssumedWarning, match="^a, b: groups that hold each other; .* one: copa$"):
        ladder = lc.read_lm_eval(tmp_path, manifest())
    assert list(ladder.tasks.index) == ["copa", "piqa"]


def test_the_value_in_which_two_files_of_one_run_differ_is_told(tmp_path: Path):
    for params, length in RUNS:
        folder = tmp_path / f"{params // 10**6}M-{length}"
        for date, error in (("2026-01", 0.01), ("2026-02", 0.02)):
            scores = {"acc,none": 0.5, "acc_stderr,none": error}
            results_file(folder / f"results_{date}.json", {"piqa": scores})
    told = message(lc.read_lm_eval, tmp_path, manifest())
    cure = "have different values (piqa: acc_stderr,none 0.01 and 0.02); move one of both away"
    assert told.count(cure) == len(RUNS)


def grouped(folder: Path, changes: dict | None = None) -> None:
    """Results of a task with two filters, and of a group without score that holds itself."""
    for params, length in RUNS:
        score = score_of(params, length)
        results = {
            "gsm8k": {
                "alias": "gsm8k", "exact_match,flexible-extract": score / 2,
                "exact_match,strict-match": score / 4, "exact_match_stderr,strict-match": "N/A",
            },
            "mmlu": {"alias": "mmlu", "name": "mmlu", "sample_len": 2},
            "mmlu_anatomy": {"acc,none": score}, "mmlu_virology": {"acc,none": score},
        }  # fmt: skip
        inside = {"mmlu": ["mmlu", "mmlu_other"], "mmlu_other": ["mmlu_anatomy", "mmlu_virology"]}
        counts = {"mmlu_anatomy": 135, "mmlu_virology": 166, "gsm8k": 1319}
        others = {
            "group_subtasks": inside, "config": None, "n-shot": None,
            "n-samples": {task: {"original": n, "effective": n} for task, n in counts.items()},
        }  # fmt: skip
        path = folder / f"{params // 10**6}M-{length}" / "results_2026.json"
        results_file(path, results | (changes or {}), **others)


def test_groups_without_score_and_written_answers(tmp_path: Path):
    grouped(tmp_path, {"empty_group": {"alias": "empty", "name": "empty", "sample_len": 3}})
    with pytest.warns(lc.AssumedWarning, match="gsm8k: of exact_match,strict-match, exact_match"):
        ladder = lc.read_lm_eval(tmp_path, manifest())
    assert ladder.tasks.to_dict("index") == {
        "gsm8k": {"chance": 0.0, "items": 1319},
        "mmlu": {"chance": 0.25, "items": 301},
    }
    first = ladder.table.set_index(["model", "task"]).accuracy["100M-20"]
    assert first["gsm8k"] == score_of(*RUNS[0]) / 4


@pytest.mark.filterwarnings("error::laddercast.AssumedWarning")
@pytest.mark.filterwarnings("ignore:the accuracy of guessing of mmlu")
@pytest.mark.parametrize("by_task", [True, False])
def test_a_metric_is_chosen(tmp_path: Path, by_task: bool):
    grouped(tmp_path)
    named = "exact_match,flexible-extract"
    metric = {"gsm8k": named} if by_task else named
    ladder = lc.read_lm_eval(tmp_path, manifest(), metric=metric)
    first = ladder.table.set_index(["model", "task"]).accuracy["100M-20"]
    assert first["gsm8k"] == score_of(*RUNS[0]) / 2
    assert first["mmlu"] == pytest.approx(score_of(*RUNS[0]))


def test_a_metric_that_no_task_has_is_refused(tmp_path: Path):
    grouped(tmp_path, {"ifeval": {"prompt_level_strict_acc,none": 0.5}})
    with pytest.warns(lc.SkippedWarning, match="ifeval has prompt_level_strict_acc,none"):
        told = message(lc.read_lm_eval, tmp_path, manifest(), metric="exact_match,flexible")
    assert "no task has exact_match,flexible; there are exact_match,flexible-extract" in told
    with pytest.warns(lc.SkippedWarning, match="ifeval"):
        told = message(lc.read_lm_eval, tmp_path, manifest(), metric={"gsm9k": "acc"})
    assert "metric: no task gsm9k; tasks are gsm8k" in told
    with pytest.warns(lc.SkippedWarning, match="ifeval"):
        told = message(lc.read_lm_eval, tmp_path, manifest(), metric={"gsm8k": "exact_match,flex"})
    assert "metric: gsm8k has no exact_match,flex; there are exact_match,flexible-extract" in told
    told = message(lc.read_lm_eval, tmp_path, manifest(), tasks=["ifeval"])
    assert "ifeval: no accuracy; it has prompt_level_strict_acc,none" in told
    with pytest.warns(lc.SkippedWarning, match="ifeval has prompt_level_strict_acc,none"):
        assert "ifeval" not in lc.read_lm_eval(tmp_path, manifest()).tasks.index
    metric = {"ifeval": "prompt_level_strict_acc"}
    ladder = lc.read_lm_eval(tmp_path, manifest(), metric=metric)
    assert ladder.tasks.chance["ifeval"] == 0


WRONG = {
    "results": (3, "`results` is 3, not an object"),
    "results.piqa": (1.5, "`results.piqa` is 1.5, not an object"),
    "results.piqa.acc,none": (10**400, "`results.piqa.acc,none` is no finite number"),
    "n-samples.piqa.effective": (math.inf, "`n-samples.piqa.effective` is inf, not a count"),
    "n-samples.piqa": ([1], "`n-samples.piqa` is a list, not an object"),
    "group_subtasks": ([], "`group_subtasks` is a list, not an object"),
    "group_subtasks.piqa": ("x", "`group_subtasks.piqa` is the text 'x', not a list"),
    "config": (True, "`config` is True, not an object"),
    "config.model_args": (5, "`config.model_args` is 5, not a text or an object"),
    "model_name": ({"a": 1}, "`model_name` is an object, not a text"),
    "versions": ("x", "`versions` is the text 'x', not an object"),
}


@pytest.mark.parametrize("key", WRONG)
def test_a_value_of_another_type_is_told_once_with_file_and_key(key: str, tmp_path: Path):
    value, expected = WRONG[key]
    for params, length in RUNS:
        content: dict = {
            "results": {"piqa": {"acc,none": 0.5}}, "n-samples": {"piqa": {"effective": 1838}},
            "group_subtasks": {"piqa": []}, "versions": {"piqa": 1}, "config": {},
            "model_name": "m",
        }  # fmt: skip
        *path, last = key.split(".")
        holder = content
        for word in path:
            holder = holder[word]
        holder[last] = value
        write(tmp_path / f"{params // 10**6}M-{length}" / "results.json", json.dumps(content))
    told = message(lc.read_lm_eval, tmp_path, manifest())
    assert f"100M-100/results.json: {expected}" in told
    assert "(also in 5 more: 100M-20/results.json, " in told
    assert told.count(f"`{key}`") == 1


def test_what_is_null_is_left_out(harness: Path):
    whole = lc.read_lm_eval(harness, manifest())
    for file in harness.rglob("results*"):
        edit(file, lambda x: x.update(config=None, group_subtasks=None, versions=None))
    assert lc.read_lm_eval(harness, manifest()).fingerprint == whole.fingerprint


@pytest.mark.parametrize("task", ["a/b", "x" * 300, "nul\0", "..", "lone \ud800"])
def test_names_of_tasks_that_no_file_can_have(harness: Path, task: str):
    for file in harness.rglob("results*"):
        edit(file, lambda x: x["results"].update({task: {"acc,none": 0.5}}))
    if task.isprintable():
        ladder = lc.read_lm_eval(harness, manifest(), tasks=pd.DataFrame(
            {"task": [task, "arc_easy"], "chance": 0.25}))  # fmt: skip
        assert set(ladder.tasks.index) == {task, "arc_easy"}
    else:
        told = message(lc.read_lm_eval, harness, manifest())
        assert f"a key of `results` is the text {task!r}" in told


# OLMES: files as they are

OLMES_WRONG = {
    "model_config": (7, "`model_config` is 7, not an object"),
    "task_config": ("x", "`task_config` is the text 'x', not an object"),
    "num_instances": ([20], "`num_instances` is a list, not a count"),
    "metrics": (0.5, "`metrics` is 0.5, not an object"),
    "task_name": (1, "`task_name` is 1, not a text"),
}


@pytest.mark.parametrize("key", OLMES_WRONG)
def test_a_value_of_another_type_in_olmes(key: str, olmes: Path):
    value, expected = OLMES_WRONG[key]
    for file in olmes.rglob("metrics-all.jsonl"):
        first, *others = file.read_text().splitlines()
        file.write_text("\n".join([json.dumps(json.loads(first) | {key: value}), *others]))
    told = message(lc.read_olmes, olmes, manifest())
    assert f"100M-100/metrics-all.jsonl line 1: {expected}" in told
    assert "(also in 5 more: " in told


def test_predictions_of_another_shape(olmes: Path):
    file = next((olmes / "100M-20").glob("*csqa-predictions.jsonl"))
    file.write_text(file.read_text().replace('{"bits_per_byte_corr": 1}', "3", 1))
    told = message(lc.read_olmes, olmes, manifest())
    assert "task-001-csqa-predictions.jsonl line 1: `metrics` is 3, not an object" in told
    file.write_text(
        file.read_text().replace('"model_output": [', '"model_output": 3, "other": [', 1)
    )
    told = message(lc.read_olmes, olmes, manifest())
    assert "line 1: `model_output` is 3, not a list" in told


@pytest.mark.parametrize("word", ["data", "params", "task", "seed"])
def test_blank_cells_of_datadecide(word: str):
    table = datadecide()
    table.loc[3, word] = None
    assert f"table 3: {word} is missing; name it" in message(lc.read_olmes, table)


def test_names_of_datadecide_that_are_no_text_are_read_as_text():
    table = datadecide()
    table["data"] = [{"mix": 1}] * len(table)
    assert lc.read_olmes(table).recipes == ["{'mix': 1}"]


@pytest.mark.parametrize("metrics", ["{[]: 1}", "{'acc_per_char': 'x'}", "[" * 10**5, "7"])
def test_metrics_of_datadecide_that_are_none(metrics: str):
    table = datadecide()
    table.loc[3, "metrics"] = metrics
    assert "table 3 (" in message(lc.read_olmes, table)


@pytest.mark.parametrize("cell", [b"x", "lone \ud800", 10**5000], ids=["bytes", "half", "huge"])
def test_cells_that_no_text_can_be(cell: object):
    table = datadecide()
    table["seed"] = table["seed"].astype(object)
    table.at[3, "seed"] = cell  # noqa: PD008
    assert "table row 3: `seed` holds bytes, or what is no text" in message(lc.read_olmes, table)
    ladder = table.rename(columns={"seed": "model"})
    for read in (lc.read_ladder, lc.read_targets, lambda x: lc.Ladder(x, pd.DataFrame())):
        assert "row 3: `model` holds bytes" in message(read, ladder)


# Experiment trackers: logs as they are

TRAINING = lc.Preset(
    lc.Keys("val/{task}/bpb", "mine", "val/{task}/acc"),
    tokens="train/tokens",
    reference_loss="val/c4/loss",
)


def training_log(params: int, length: int, resumed: bool = False) -> pd.DataFrame:
    """A row each 10 of 1000 steps; loss is logged one step before accuracy, without tokens.

    If resumed, steps 510 to 600 were gone over before, and losses and accuracies were wrong then.
    """
    rows: list[dict[str, float]] = []
    first = [*range(0, 601, 10)] if resumed else []
    for step in [*first, *range((first and 500) or 0, 1001, 10)]:
        lost = len(rows) < len(first) and step > 500
        rows.append({"_step": step, "train/tokens": step * params * length / 1000})
        if step in (300, 560, 800, 1000):
            loss = law(params, (step + 1) * params * length / 1000) + 5 * lost
            rows.append({"_step": step + 1, "val/arc_easy/bpb": loss, "val/c4/loss": 3 * loss})
            rows.append({"_step": step + 2, "val/arc_easy/acc": accuracy_of(loss)})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("steps", [True, False])
def test_training_logs_as_they_are(tmp_path: Path, steps: bool):
    for params, length in RUNS:
        table = training_log(params, length)
        table = table if steps else table.drop(columns="_step")
        table.to_csv(tmp_path / f"{params // 10**6}M-{length}.csv", index=False)
    ladder = lc.read_wandb(tmp_path, TRAINING, manifest())
    assert len(ladder) == 4 * len(RUNS)
    table = ladder.table
    assert table[["loss", "accuracy", "reference_loss"]].notna().all(axis=None)
    np.testing.assert_allclose(table.accuracy, table.loss.map(accuracy_of))
    np.testing.assert_allclose(table.reference_loss, 3 * table.loss)
    of_one = table[table.model == "100M-20"].tokens / (100_000_000 * 20 / 1000)
    expected = [302, 562, 802, 1000] if steps else [300, 560, 800, 1000]
    np.testing.assert_allclose(of_one, expected)


def test_evaluations_far_apart_are_not_of_one_checkpoint(tmp_path: Path):
    for params, length in RUNS:
        table = training_log(params, length)
        accuracy = table["val/arc_easy/acc"].notna()
        table.loc[accuracy, "_step"] += 7  # 0.8 % of the run after the loss
        order = table.sort_values("_step", kind="stable")
        order.to_csv(tmp_path / f"{params // 10**6}M-{length}.csv", index=False)
    ladder = lc.read_wandb(tmp_path, TRAINING, manifest(), rungs="every")
    assert len(ladder) == 8 * len(RUNS) - len(RUNS)  # at its end a run is no longer
    assert ladder.table[["loss", "accuracy"]].notna().all(axis=1).sum() == len(RUNS)


def test_what_the_known_tasks_gave_of_a_log_is_said(tmp_path: Path):
    for params, length in RUNS:
        training_log(params, length).to_csv(tmp_path / f"{params // 10**6}M-{length}.csv")
    said = "the accuracy of guessing and the number of questions of arc_easy: from lc.known_tasks"
    with pytest.warns(lc.AssumedWarning, match=said):
        lc.read_wandb(tmp_path, TRAINING, manifest())


def test_of_a_resumed_run_the_later_pass_counts(tmp_path: Path):
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    for params, length in RUNS:
        name = f"{params // 10**6}M-{length}.csv"
        training_log(params, length).to_csv(make(straight) / name, index=False)
        training_log(params, length, resumed=length == 100).to_csv(
            make(resumed) / name, index=False
        )
    once = lc.read_wandb(straight, TRAINING, manifest())
    with pytest.warns(lc.AssumedWarning, match="100M-100, 200M-100, 400M-100 went over some token"):
        again = lc.read_wandb(resumed, TRAINING, manifest())
    pd.testing.assert_frame_equal(once.table, again.table)


@pytest.mark.parametrize("every", [10, 40])
def test_tokens_are_carried_by_one_interval_of_logging(tmp_path: Path, every: int):
    """The last evaluation is 31 steps after the last row with tokens."""
    for params, length in RUNS:
        table = training_log(params, length)
        kept = table["train/tokens"].isna() | (table["_step"] % every == 970 % every)
        table = table[kept & ~table["_step"].between(971, 1000)]
        table.to_csv(tmp_path / f"{params // 10**6}M-{length}.csv", index=False)
    if every == 10:
        assert "tokens are not known" in message(lc.read_wandb, tmp_path, TRAINING, manifest())
        return
    table = lc.read_wandb(tmp_path, TRAINING, manifest()).table
    assert table.tokens[table.model == "100M-20"].max() == pytest.approx(0.97 * 20 * 10**8)


def test_tokens_that_nothing_tells_apart_are_refused(tmp_path: Path):
    for params, length in RUNS:
        table = training_log(params, length).drop(columns="_step")
        table.loc[table["train/tokens"] > 0, "train/tokens"] = np.nan
        table.loc[0, "train/tokens"] = 1000
        table.to_csv(tmp_path / f"{params // 10**6}M-{length}.csv", index=False)
    told = message(lc.read_wandb, tmp_path, TRAINING, manifest())
    assert "two evaluations, with no tokens between them; log `train/tokens`" in told
    assert told.count("two evaluations") == 1
    assert "(also in 5 more: " in told


def test_accuracies_with_one_validation_loss(tmp_path: Path):
    for params, length in RUNS:
        table = training_log(params, length).drop(columns="val/arc_easy/bpb")
        table.to_csv(tmp_path / f"{params // 10**6}M-{length}.csv", index=False)
    keys = lc.Keys(accuracy="val/{task}/acc")
    for reference in (None, "val/c4/loss"):
        preset = lc.Preset(keys, tokens="train/tokens", reference_loss=reference)
        table = lc.read_wandb(tmp_path, preset, manifest()).table
        assert table.accuracy.notna().all()
        assert "loss" not in table
        assert ("reference_loss" in table) == (reference is not None)


TOML = """
tokens = "train/tokens"
reference_loss = "val/c4/loss"

[[keys]]
loss = "val/{task}/bpb"
loss_kind = "mine"
accuracy = "val/{task}/acc"

[tasks]
arc_easy = [0.25, 2376]
"""


@pytest.mark.slow
def test_a_preset_is_data(tmp_path: Path, capsys):
    for params, length in RUNS:
        name = f"{params // 10**6}M-{length}.csv"
        training_log(params, length).to_csv(make(tmp_path / "logs") / name, index=False)
    sizes = "".join(f"[[sizes]]\nrun = '{n // 10**6}M-.*'\nparams = {n}\n" for n in SIZES)
    file = write(tmp_path / "mine.toml", TOML + sizes)
    ladder = lc.read_wandb(tmp_path / "logs", file)
    assert ladder.fingerprint == lc.read_wandb(tmp_path / "logs", str(file)).fingerprint
    assert ladder.models == [f"{n // 10**6}M-{m}" for n, m in RUNS]
    assert ladder.tasks["items"].tolist() == [2376]
    words = ["baseline", "--from", "wandb", str(tmp_path / "logs"), "--hold-out", "400M-100"]
    words += ["--out", str(tmp_path / "out")]
    assert main([*words, "--preset", str(file)]) == 0
    assert main(words) == 2
    assert "give --preset FILE with --from wandb" in capsys.readouterr().err


PRESET_FAULTS = {
    "token = 'x'": "preset has no `token`; is it `tokens`?",
    "keys = 3": "keys is 3; give a table [[keys]]",
    "tasks = 4": "tasks is 4; give names with their values",
    "tokens = [1]": "tokens is [1]; give a text, or several",
    "[[keys]]\nlos = '{task}'": "[[keys]] has no `los`; is it `loss`?",
    "[[keys]]\nloss = 'x'": "'x': write {task} where a task's name stands",
    "[[keys]]\nloss_kind = 'x'": "neither loss nor accuracy",
    "[[keys]]\nloss='{task}'\n[[sizes]]\nrun='('\nparams=1": "give a regular expression",
    "[[keys]]\nloss='{task}'\n[[sizes]]\nrun='x'": "[[sizes]] missing 1 required",
    "[[keys]]\nloss='{task}'\n[tasks]\na=25": "tasks.a is 25; give chance (a fraction) and items",
    "[[keys]]\nloss='{task}'\n[aggregates.m]\na=1\nb=1": "give weights that add up to 1",
    "[[keys": "is no TOML that can be read",
}


@pytest.mark.parametrize("text", PRESET_FAULTS)
def test_faults_of_presets_in_toml(text: str, tmp_path: Path):
    told = message(lc.read_wandb, tmp_path, write(tmp_path / "mine.toml", text))
    assert "mine.toml" in told
    assert PRESET_FAULTS[text] in told


def test_the_nearest_keys_are_named(tmp_path: Path):
    training_log(*RUNS[0]).to_csv(tmp_path / "100M-20.csv", index=False)
    keys = lc.Keys("val/{task}/bits", "mine")
    told = message(lc.read_wandb, tmp_path, lc.Preset(keys, tokens="train/tokens"))
    assert "no key `val/{task}/bits`" in told
    assert "nearest are val/arc_easy/bpb" in told
    told = message(lc.read_wandb, tmp_path, lc.Preset(TRAINING.keys, tokens="trainer/total_tokens"))
    assert "name one of train/tokens as `tokens` of a preset" in told
    throughput = lc.Preset(TRAINING.keys, tokens="throughput/total_tokens")
    told = message(lc.read_wandb, tmp_path, throughput)
    assert "or name one of train/tokens as `tokens` of a preset" in told
    told = message(lc.read_wandb, tmp_path, lc.Preset(TRAINING.keys, tokens=()), manifest())
    assert "tokens are not known; log `_step` and `batch_size_in_tokens`" in told


@pytest.mark.parametrize("text", ["error", "1" + "0" * 400, "inf"])
@pytest.mark.parametrize("column", ["train/tokens", "_step", "val/arc_easy/acc"])
def test_cells_that_are_no_numbers(tmp_path: Path, text: str, column: str):
    for params, length in RUNS:
        table = training_log(params, length).astype(object)
        if length == 20:
            table.loc[table[column].last_valid_index(), column] = text
        table.to_csv(tmp_path / f"{params // 10**6}M-{length}.csv", index=False)
    told = message(lc.read_wandb, tmp_path, TRAINING, manifest())
    assert told.count("100M-20.csv") == 1
    assert "number" in told or "infinite" in told


def test_a_pattern_that_a_python_to_come_may_read_otherwise_is_taken_as_it_is() -> None:
    assert lc.Size("[[a]+", "tiny", params=190354176).run == "[[a]+"

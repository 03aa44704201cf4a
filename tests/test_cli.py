import resource
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from laddercast.cli.commands import main
from laddercast.data import words as c

QUICK = ["--chains", "2", "--warmup", "30", "--draws", "20"]
ONE_ROUTE = ["--route", "two_stage"]
TARGETS = pd.DataFrame(
    {
        "model": "3B",
        "params": 3_000_000_000,
        "tokens": 60_000_000_000,
        "task": ["easy", "hard"],
        "loss": [0.8, 0.8],
        "accuracy": [0.8, 0.7],
    }
)


@pytest.fixture
def files(tmp_path: Path, small_table: pd.DataFrame) -> dict[str, str]:
    small_table.to_csv(tmp_path / "ladder.csv", index=False)
    TARGETS.to_csv(tmp_path / "targets.csv", index=False)
    names = {"ladder": "ladder.csv", "targets": "targets.csv", "out": "out"}
    return {name: str(tmp_path / file) for name, file in names.items()}


def results(out: Path) -> list[str]:
    """Names of the files of a folder, but for the list of what was written there."""
    return sorted(path.name for path in out.iterdir() if path.name != ".laddercast.json")


def seconds_of_children() -> float:
    """Processor time, which other tests at the same time do not add to as they do to a clock's."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["demo"],
        ["forecast"],
        ["baseline"],
        ["backtest"],
        ["allocate"],
        ["plan"],
        ["compare"],
        ["report"],
        ["doctor"],
        ["completion"],
    ],
)
def test_help_is_quick(command):
    seconds = []
    for _ in range(3):
        start = seconds_of_children()
        run = subprocess.run(
            [sys.executable, "-m", "laddercast", *command, "--help"], capture_output=True, text=True
        )
        seconds.append(seconds_of_children() - start)
        assert run.returncode == 0
        assert run.stdout.startswith("usage: laddercast")
    assert np.median(seconds) < 0.5


def completed(words: list[str], script: str, folder: Path) -> list[str]:
    """What bash offers for the last of `words`."""
    line = f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}"
    ask = f'{script}\n{line}\n_shtab_laddercast\nprintf "%s\n" "${{COMPREPLY[@]}}"'
    run = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, cwd=folder)
    return run.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_commands_options_and_files(tmp_path, capsys):
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    (tmp_path / "ladder.csv").touch()
    (tmp_path / "folder").mkdir()
    assert completed(["laddercast", "ba"], script, tmp_path) == ["baseline", "backtest"]
    assert completed(["laddercast", "forecast", "--ta"], script, tmp_path) == [
        "--tasks", "--targets"
    ]  # fmt: skip
    assert completed(["laddercast", "forecast", "--rungs", "e"], script, tmp_path) == ["every"]
    assert completed(["laddercast", "forecast", "lad"], script, tmp_path) == ["ladder.csv"]
    assert completed(["laddercast", "forecast", "--tasks", "l"], script, tmp_path) == ["ladder.csv"]
    assert completed(["laddercast", "demo", "--out", ""], script, tmp_path) == ["folder"]


@pytest.mark.parametrize(
    ("shell", "first", "names"),
    [("zsh", "#compdef laddercast", "_files -/"), ("fish", "#", "complete_directories")],
)
def test_other_shells_have_scripts(shell, first, names, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert script.startswith(first)
    assert names in script
    assert "backtest" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_an_unknown_shell_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["completion", "csh"])
    assert stopped.value.code == 2
    assert "choose from" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("laddercast 0.")


FUNCTIONS = """
def functions(*names):
    for name in names:
        assert inspect.isfunction(getattr(lc, name)), name
"""


@pytest.mark.long
def test_names_shared_with_modules_are_functions_if_the_modules_came_first():
    python(
        "import inspect, laddercast.evaluation.scores, laddercast.baselines.published\n"
        "import laddercast as lc\n" + FUNCTIONS + "functions('score', 'baseline')\n"
        "lc.forecast_table\n"
        "functions('forecast', 'score', 'baseline')\n"
        "from laddercast import baseline\n"
        "from laddercast.forecasting.forecasts import forecast\n"
        "assert baseline is lc.baseline and forecast is lc.forecast"
    )


@pytest.mark.long
def test_all_public_names_load_whatever_came_first():
    """ArviZ before `numpyro.infer` is a trap: the one registers the other only if loaded."""
    python(
        "import inspect, arviz\n"
        "import laddercast as lc\n" + FUNCTIONS + "lc.fit\n"
        "functions('forecast', 'score', 'baseline', 'backtest', 'simulate')\n"
        "import laddercast.forecasting.forecasts, laddercast.evaluation.scores\n"
        "import laddercast.baselines.published, laddercast.evaluation.backtests\n"
        "functions('forecast', 'score', 'baseline', 'backtest', 'simulate')\n"
        "assert dir(lc) == sorted(lc.__all__)\n"
        "for name in lc.__all__: assert getattr(lc, name) is not None\n"
        "try: lc.nothing\n"
        "except AttributeError as error: assert 'nothing' in str(error)\n"
        "else: raise SystemExit(1)\n"
        "import numpyro\n"
        "drawn = numpyro.handlers.seed(lambda: numpyro.sample('q', lc.Priors().q), 0)()\n"
        "assert 0 < float(drawn) < 1\n"
    )


def test_importing_the_package_imports_nothing_slow():
    python(
        "import sys, laddercast, laddercast.cli.commands\n"
        "slow = {'jax', 'numpy', 'pandas', 'numpyro', 'arviz', 'xarray', 'matplotlib'}\n"
        "slow |= {'pooch', 'requests', 'shtab', 'tqdm'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)"
    )


def test_every_fault_is_named_in_one_message(files, tmp_path, small_table, capsys):
    wrong = small_table.copy()
    wrong["accuracy"] *= 100
    wrong.to_csv(files["ladder"], index=False)
    TARGETS.drop(columns="tokens").to_csv(files["targets"], index=False)
    status = main(
        ["forecast", files["ladder"], "--targets", files["targets"], "--out", files["out"]]
    )
    said = capsys.readouterr()
    assert status == 2
    assert said.err.startswith("error: ")
    assert "give fractions, not percent" in said.err
    assert "tokens" in said.err
    assert "Traceback" not in said.err
    assert not said.out
    assert not Path(files["out"]).exists()


def test_missing_files_and_folders_that_cannot_be_made(files, capsys):
    assert main(["baseline", "no.csv", "--targets", "none.csv", "--out", files["out"]]) == 2
    said = capsys.readouterr().err
    assert "no.csv" in said
    assert "none.csv" in said
    taken = files["targets"]
    assert main(["baseline", files["ladder"], "--targets", taken, "--out", taken]) == 2
    assert "give a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--draws", "0"], ["--seed", "-1"], ["--rungs", "some"], ["--route", "winding"]]
)
def test_wrong_options_are_refused(files, words):
    with pytest.raises(SystemExit) as stopped:
        main(["forecast", files["ladder"], "--targets", files["targets"], "--out", "x", *words])
    assert stopped.value.code == 2


def test_interrupt(files, monkeypatch, capsys):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(import_module("laddercast.data.ladder"), "read_ladder", stop)
    status = main(
        ["baseline", files["ladder"], "--targets", files["targets"], "--out", files["out"]]
    )
    assert status == 130


def test_baseline_writes_points_and_their_scores(files, capsys):
    out = Path(files["out"])
    status = main(["baseline", files["ladder"], "--targets", files["targets"], "--out", str(out)])
    said = capsys.readouterr()
    assert status == 0
    assert results(out) == ["forecast.csv", "scores.csv"]
    table = pd.read_csv(out / "forecast.csv")
    assert list(table.columns) == [*c.FORECAST_COLUMNS, "method"]
    assert {"two_step", "single_step"} <= set(table["method"])
    scores = pd.read_csv(out / "scores.csv").set_index(["method", "quantity", "task"])
    row = table[(table["method"] == "two_step") & (table["quantity"] == "accuracy")]
    error = 100 * (row["q50"] - row["measured"]).abs().mean()
    assert scores.loc[("two_step", "accuracy", "all"), "error"] == pytest.approx(error)
    assert "3B" in said.out
    assert "mean absolute error" in said.out


def test_baseline_of_accuracies_alone(files, small_table, capsys):
    small_table.drop(columns=["loss", "reference_loss"]).to_csv(files["ladder"], index=False)
    words = [files["ladder"], "--targets", files["targets"], "--out", files["out"]]
    assert main(["baseline", *words, "--rungs", "every"]) == 0
    assert "single_step alone is fitted" in capsys.readouterr().err
    table = pd.read_csv(Path(files["out"]) / "forecast.csv")
    assert set(table["method"]) == {"single_step"}
    assert table["q50"].between(0, 1).all()


def test_results_of_an_earlier_run_do_not_stay(files):
    out = Path(files["out"])
    command = ["baseline", files["ladder"], "--targets", files["targets"], "--out", str(out)]
    assert main(command) == 0
    assert (out / "scores.csv").exists()
    TARGETS[["model", "params", "tokens"]].iloc[:1].to_csv(files["targets"], index=False)
    assert main(command) == 0
    assert results(out) == ["forecast.csv"]


@pytest.mark.long
def test_forecast_writes_all_and_the_saved_fit_forecasts_alike(files, capsys):
    out = Path(files["out"])
    far = TARGETS.assign(model="far", params=10**13, tokens=10**15)
    pd.concat([TARGETS, far]).to_csv(files["targets"], index=False)
    routes = ["--route", "direct", "two_stage"]
    ladder, targets = files["ladder"], files["targets"]
    status = main(["forecast", ladder, "--targets", targets, "--out", str(out), *QUICK, *routes])
    said = capsys.readouterr()
    assert status == 3
    assert results(out) == [
        "NOT_CONVERGED.txt", "fit.nc", "forecast.csv", "forecast.png", "predictions.nc",
        "published.csv", "scores.csv",
    ]  # fmt: skip
    assert said.err.count("do not rely on") == 1
    (told,) = [line for line in said.err.splitlines() if "do not rely on" in line]
    assert len(told) < 500
    assert told.endswith(
        "; all reasons in NOT_CONVERGED.txt; give more --warmup or --draws, or more rungs"
    )
    assert f"written to {out}: forecast.csv, scores.csv, fit.nc" in said.err
    first, _, head, *reasons = (out / "NOT_CONVERGED.txt").read_text().splitlines()
    assert told.startswith(first)
    assert head.split() == ["route", "site", "measure", "value", "limit"]
    for word in ("direct", "two_stage", "R-hat", "tail ESS", "log_alpha"):
        assert any(f" {word} " in f" {row}" for row in reasons)
    assert "warning: target far lies" in said.err
    assert ".py" not in said.err
    assert "inside the 50 / 80 / 95 % interval" in said.out

    table = pd.read_csv(out / "forecast.csv")
    assert list(table.columns) == list(c.FORECAST_COLUMNS)
    assert len(table) == 2 * 2 * 2
    predictions = xr.open_datatree(out / "predictions.nc")["predictions"]
    assert predictions["accuracy"].dims == ("chain", "draw", "row")
    assert list(predictions["task"].to_numpy()) == ["easy", "hard"] * 2
    assert all(type(name) is str for name in predictions["model"].to_numpy().tolist())
    assert set(predictions["route"].to_numpy().tolist()) == {"direct", "two_stage"}
    accuracy = predictions["accuracy"].to_numpy()
    assert ((accuracy >= 0) & (accuracy <= 1)).all()
    assert xr.open_datatree(out / "fit.nc").attrs["converged"] == 0

    again = out / "again.nc"
    python(
        "import warnings; warnings.simplefilter('ignore')\n"
        "import xarray as xr, laddercast as lc\n"
        f"fitted = xr.open_datatree({str(out / 'fit.nc')!r})\n"
        f"forecast = lc.forecast(fitted, {files['targets']!r})\n"
        f"forecast.to_netcdf({str(again)!r}, engine='h5netcdf')"
    )
    other = xr.open_datatree(again)["predictions"].to_dataset()
    xr.testing.assert_equal(other, predictions.to_dataset())

    assert main(["report", str(out)]) == 3
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Not converged" in page
    assert "target far lies" not in capsys.readouterr().err


@pytest.mark.long
def test_demo_shows_the_truth(tmp_path, capsys):
    status = main(["demo", "--out", str(tmp_path), *QUICK, *ONE_ROUTE])
    said = capsys.readouterr()
    assert status in (0, 3)
    assert {"ladder.csv", "tasks.csv", "targets.csv", "truth.csv", "fit.nc", "published.csv"} <= {
        path.name for path in tmp_path.iterdir()
    }
    assert "truth" in said.out
    first, *_, last = said.out.splitlines()
    assert first.startswith("SIMULATED: no real model was trained or measured.")
    assert last.startswith("SIMULATED: no real model was trained or measured.")
    result = xr.open_datatree(tmp_path / "predictions.nc")
    truth = pd.read_csv(tmp_path / "targets.csv")["law_accuracy"]
    assert sorted(result["truth"]["accuracy"].to_numpy()) == pytest.approx(sorted(truth))


@pytest.mark.long
def test_backtest_writes_all(files, capsys):
    out = Path(files["out"])
    status = main(["backtest", files["ladder"], "--out", str(out), *QUICK, *ONE_ROUTE])
    said = capsys.readouterr()
    assert status == 3
    assert set(results(out)) == {
        "forecast.csv", "scores.csv", "backtest.png", "NOT_CONVERGED.txt"
    }  # fmt: skip
    table = pd.read_csv(out / "forecast.csv")
    assert list(table.columns)[: len(c.FORECAST_COLUMNS)] == list(c.FORECAST_COLUMNS)
    accuracy = table[table["quantity"] == "accuracy"]
    assert accuracy["measured"].between(0, 1).all()
    assert accuracy["q50"].between(0, 1).all()
    assert "published" in said.out


@pytest.mark.slow
@pytest.mark.usefixtures("fits")
@pytest.mark.filterwarnings("ignore:fold .* two_step gives NaN")
def test_backtest_cuts_as_told_and_shows_rivals_beside(files, capsys):
    out = Path(files["out"])
    args = ["backtest", files["ladder"], "--out", str(out), "--folds", "one-size, largest-size"]
    assert main(args) == 3  # of few rungs the stand-in says so
    said = capsys.readouterr()
    assert "the fold one-size (params = " in (out / "NOT_CONVERGED.txt").read_text()
    table = pd.read_csv(out / "forecast.csv")
    assert set(table["kind"]) == {"one-size"}  # the largest size is among them
    assert table["fold"].nunique() == 3
    assert table.loc[table["quantity"] == "accuracy", "best_rung"].between(0, 1).all()
    scores = pd.read_csv(out / "scores.csv")
    assert set(scores["kind"]) == {"one-size", "pooled"}
    lines = said.out.splitlines()
    assert max(map(len, lines)) <= 80
    heads = [number for number, line in enumerate(lines) if line.startswith("held out")]
    assert "  50 %  80 %  95 %  " in lines[heads[0]]
    assert "rung" in lines[heads[1]]
    rows = lines[heads[0] + 1 :]
    ours = scores[(scores["method"] == "laddercast") & (scores["quantity"] == "accuracy")]
    ours = ours[ours["kind"] != "pooled"]  # of one kind, it would say the same again
    for row, expected in zip(rows, ours[ours["task"] == "all"].to_dict("records"), strict=False):
        assert row.startswith(f"{expected['kind']}, {expected['distance']}")
        assert f"{expected['error']:.2f}" in row
    assert "pooled" not in said.out


def test_backtest_helps_with_every_kind_of_fold(capsys):
    from laddercast.cli import commands
    from laddercast.evaluation.folds import KINDS

    assert set(commands.FOLDS) == set(KINDS)
    with pytest.raises(SystemExit):
        main(["backtest", "--help"])
    said = "".join(capsys.readouterr().out.split())  # lines break at hyphens
    assert all(kind in said for kind in KINDS)


def test_the_routes_and_folds_offered_are_those_that_there_are():
    from laddercast.cli import commands
    from laddercast.evaluation.folds import KINDS
    from laddercast.model import routes

    assert tuple(routes.ROUTES) == commands.ROUTES
    assert tuple(KINDS) == commands.FOLDS


def run(*words: str, folder: Path | None = None) -> tuple[subprocess.CompletedProcess, float]:
    start = seconds_of_children()
    done = subprocess.run(
        [sys.executable, "-m", "laddercast", *words], capture_output=True, text=True, cwd=folder
    )
    return done, seconds_of_children() - start


def test_a_missing_file_is_told_at_once(files):
    """Before pandas and JAX are loaded, which takes seconds."""
    folder = Path(files["ladder"]).parent
    words = [
        "forecast",
        "lader.csv",
        "--targets",
        "none.parquet",
        "--tasks",
        "zz.jsonl",
        "--out",
        "o",
    ]
    runs = [run(*words, folder=folder) for _ in range(3)]
    assert np.median([seconds for _, seconds in runs]) < 1
    done = runs[0][0]
    assert done.returncode == 2
    assert done.stderr == (
        "error: lader.csv: no such file; did you mean ladder.csv?\n"
        "none.parquet: no such file; check the path\n"
        "zz.jsonl: no such file; check the path\n"
    )
    assert not (folder / "o").exists()
    done, _ = run("report", "absent", folder=folder)
    assert done.stderr == "error: absent: no such folder; check the path\n"
    done, seconds = run("report", str(folder))
    assert "fit.nc is missing" in done.stderr
    assert seconds < 1


@pytest.mark.parametrize(
    "words",
    [
        ["baseline", "{ladder}", "--targets", "none.csv"],
        ["compare", "{ladder}", "--targets", "none.csv"],
        ["plan", "{ladder}", "--targets", "{targets}", "--budget", "1", "--candidates", "none.csv"],
        ["backtest", "{ladder}", "--how-much", "none.csv"],
        ["allocate", "none.csv", "--flops", "1e22"],
    ],
    ids=lambda words: words[0],
)
def test_each_command_tells_of_a_missing_file_at_once(words, files):
    done, seconds = run(*(word.format(**files) for word in words), "--out", files["out"])
    assert done.stderr == "error: none.csv: no such file; check the path\n"
    assert done.returncode == 2
    assert seconds < 1
    assert not Path(files["out"]).exists()


USAGE = {
    ("forcast", "x"): "error: argument COMMAND: no such choice: forcast; did you mean forecast? ",
    ("forecast", "l", "--out", "o", "--taks", "t"): (
        "error: no such argument: --taks t; did you mean --tasks?"
    ),
    ("forecast", "l", "--out", "o", "--route", "two_stag"): (
        "error: argument --route: no such choice: two_stag; did you mean two_stage? choose from"
    ),
    ("forecast", "l"): "error: the following arguments are required: --out",
    ("forecast", "l", "--out", "o", "--draws", "many"): "error: argument --draws: 'many': give a",
    ("backtest", "l", "--out", "o", "--folds", "sizes, sizs"): (
        "error: argument --folds: no such fold: sizs; did you mean sizes? folds are sizes, lengths"
    ),
    (): "error: the following arguments are required: COMMAND",
}


@pytest.mark.parametrize("words", USAGE)
def test_usage_errors_are_one_line_with_the_nearest_name(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(USAGE[words])
    assert said.count("\n") == 1
    assert "--help`" in said


def test_help_names_every_exit_state(capsys):
    from laddercast.cli import commands, failures, steps

    with pytest.raises(SystemExit):
        main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    status = said.partition("Exit status:")[2]
    states = [commands.UNFIT, failures.BAD_INPUT, steps.NOT_CONVERGED, failures.INTERNAL]
    for state in (0, *states, commands.INTERRUPTED):
        assert f" {state} if " in f" {status}" or f" {state} for " in f" {status}"


@pytest.mark.parametrize(
    ("command", "states"),
    [
        ("forecast", [0, 2, 3, 4, 130]),
        ("plan", [0, 2, 3, 4, 130]),
        ("baseline", [0, 2, 4, 130]),
        ("doctor", [0, 1, 2, 4, 130]),
        ("completion", [0, 2, 4, 130]),
    ],
)
def test_help_of_a_command_names_its_exit_states(command, states, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    said = capsys.readouterr().out.partition("Exit status: ")[2].partition(".")[0]
    assert [int(word) for word in said.split() if word.isdecimal()] == states


@pytest.mark.usefixtures("fits")
@pytest.mark.parametrize("words", [["--hold-out", "7B"], ["--folds", "reruns"]])
def test_a_rejected_command_leaves_no_folder(words, files, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    assert main(["backtest", files["ladder"], "--out", str(out), *words]) == 2
    assert not out.parent.exists()
    out.mkdir(parents=True)
    (out / "mine.txt").touch()
    assert main(["backtest", files["ladder"], "--out", str(out), *words]) == 2
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_an_unknown_model_to_hold_out_names_the_nearest(files, capsys):
    words = ["baseline", files["ladder"], "--hold-out", "200m-20", "--out", files["out"]]
    assert main(words) == 2
    assert "no such model: 200m-20; did you mean 200M-20?" in capsys.readouterr().err


def test_tasks_by_name_from_the_command_line(files, capsys):
    words = ["baseline", files["ladder"], "--targets", files["targets"], "--out", files["out"]]
    assert main([*words, "--tasks", "hard"]) == 0
    table = pd.read_csv(Path(files["out"]) / "forecast.csv")
    assert set(table["task"]) == {"hard"}
    assert main([*words, "--tasks", "hrad,easy"]) == 2
    said = capsys.readouterr().err
    assert "ladder.csv: no such task: hrad; did you mean hard? tasks are easy, hard" in said


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"params": 3, "tokens": 60}, "params 3 is below 100,000"),
        ({"tokens": 6_000_000}, "tokens of 3B (6,000,000): below every rung by"),
        ({"task": ["easy", "hrad"]}, "no such task: hrad; did you mean hard?"),
        ({"model": "800M-20"}, "the rung of this name 800,000,000; give the target another name"),
    ],
)
def test_targets_that_cannot_be_meant(change, part, files, capsys):
    TARGETS.assign(**change).to_csv(files["targets"], index=False)
    words = ["forecast", files["ladder"], "--targets", files["targets"], "--out", files["out"]]
    assert main(words) == 2
    assert part in capsys.readouterr().err
    assert not Path(files["out"]).exists()


def test_what_the_known_tasks_gave_is_said(files, small_table, capsys):
    names = {"easy": "piqa", "hard": "hellaswag"}
    bare = small_table.replace({"task": names}).drop(columns=["chance", "items"])
    bare.to_csv(files["ladder"], index=False)
    TARGETS.replace({"task": names}).to_csv(files["targets"], index=False)
    words = ["baseline", files["ladder"], "--targets", files["targets"], "--out", files["out"]]
    assert main(words) == 0
    assert (
        "from the table of known tasks: chance and items of hellaswag, piqa"
        in capsys.readouterr().err
    )


def lines_of(head, rows, left, width=80):
    from laddercast.cli.printing import table_lines

    return table_lines(head, rows, left, width)


HEAD = ["target", "task", "median", "80 % interval", "95 % interval", "measured", "truth"]


@pytest.mark.parametrize("target", ["7B", "a-long-name-of-a-target-7B-4T", "n" * 300])
@pytest.mark.parametrize("task", ["piqa", "a_long_name_of_a_task:rc::olmes", "t" * 300])
@pytest.mark.parametrize("more", [0, 2, 9])
def test_tables_are_no_wider_than_a_terminal_and_lose_nothing(target, task, more):
    cells = ["55.1", "50.2 to 60.3", "48.2 to 62.3", "54.9", "53.7"]
    others = [f"{n}.{n}" for n in range(more)]
    names = [f"another method {n}" for n in range(more)]
    rows = [[own, of, *cells, *others] for own in (target, "13B") for of in (task, "mmlu")]
    lines = lines_of([*HEAD, *names], rows, 2)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for cell in (*cells, *others):
        assert text.count(f" {cell}") >= len(rows)
    for word in (*HEAD[2:], *names):
        assert all(part in text for part in word.split())
    assert "13B" in text
    assert "mmlu" in text


def test_a_narrow_table_is_one_line_a_row():
    lines = lines_of(HEAD[:3], [["7B", "piqa", "55.1"], ["13B", "mmlu", "60.0"]], 2)
    assert lines == ["target  task  median", "7B      piqa    55.1", "13B     mmlu    60.0"]

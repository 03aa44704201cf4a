"""The how-to pages are run: every block, in order, in a folder with files as the page has them."""

import re
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
import pytest

import laddercast as lc
from laddercast.cli import commands as cli
from laddercast.data.loaders.presets import OLMO
from test_loaders import (
    DATADECIDE_SIZES,
    LEVANTER_KEYS,
    accuracy_of,
    datadecide,
    harness_run,
    law,
    make,
    olmes_run,
    wide,
)

pytestmark = pytest.mark.filterwarnings("ignore::laddercast.AssumedWarning")

HOWTO = Path(__file__).parents[1] / "docs" / "howto"
QUICK = ["--chains", "2", "--warmup", "30", "--draws", "20"]
SIZES = {"small": 190354176, "mid": 371262464, "large": 1279395840}
LENGTHS = (20, 50, 100)
RUNS = {f"{size}-{k}": (params, k) for size, params in SIZES.items() for k in LENGTHS}
OTHERS = ("lm_eval",)
"""Programs of others, which the pages show and a test cannot run."""


class Block(NamedTuple):
    language: str
    code: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(m[1], m[2], text.count("\n", 0, m.start(2)) + 1) for m in found]


# Files as the pages have them


def table_files(folder: Path) -> None:
    tasks = {"arc_easy": (0.25, 2376), "piqa": (0.5, 1838)}
    rows = [
        (model, n, n * k, task, round(shift + law(n, n * k), 4),
         round(chance + 0.9 * (accuracy_of(law(n, n * k)) - 0.25) * (1 - chance), 4))
        for model, (n, k) in RUNS.items()
        for (task, (chance, _)), shift in zip(tasks.items(), (0.0, 0.1), strict=True)
    ]  # fmt: skip
    columns = ["model", "params", "tokens", "task", "loss", "accuracy"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "ladder.csv", index=False)
    known = [(task, *values) for task, values in tasks.items()]
    columns = ["task", "chance", "items"]
    pd.DataFrame(known, columns=columns).to_csv(folder / "tasks.csv", index=False)
    targets(folder, {"big": (6887575552, 3945065873408)})


def recipe_files(folder: Path) -> None:
    """Two recipes, one of them better by three points."""
    table_files(folder)
    table = pd.read_csv(folder / "ladder.csv")
    better = table.assign(recipe="books", accuracy=table["accuracy"] + 0.03)
    both = pd.concat([table.assign(recipe="web"), better])
    both.to_csv(folder / "ladder.csv", index=False)


def targets(folder: Path, models: dict[str, tuple[int, int]]) -> None:
    rows = [(name, *sizes) for name, sizes in models.items()]
    columns = ["model", "params", "tokens"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "targets.csv", index=False)


def tracker_files(folder: Path) -> None:
    sizes = {"190M": 190354176, "370M": 371262464, "1B": 1279395840}
    runs = {f"{size}-{k}xC": (params, 20 * k) for size, params in sizes.items() for k in (1, 5)}
    big = {"peteish7_eval_anneal": (6887575552, 573), "peteish13_eval_final": (13202396160, 379)}
    for run, (params, length) in (runs | big).items():
        tables = []
        for task in OLMO.task_keys.values():
            keys = {
                "loss": f"eval/downstream_bpb/{task}_bpb",
                "accuracy": OLMO.accuracy.get(task, f"eval/downstream/{task}_len_norm"),
                "tokens": "throughput/total_tokens",
            }
            tables.append(wide(params, length, keys).set_index("throughput/total_tokens"))
        pd.concat(tables, axis=1).to_csv(make(folder / "olmo-ladder") / f"{run}.csv")
    targets(
        folder,
        {"7B-4T": (6887575552, 3945065873408), "70B-15T": (68976648192, 15_000_000_000_000)},
    )
    manifest = []
    mine = {
        "loss": "val/arc_easy/bpb",
        "accuracy": "val/arc_easy/acc",
        "tokens": "train/tokens",
    }
    for number, (model, (params, length)) in enumerate(RUNS.items(), 1):
        run = f"exp-{number:04d}"
        wide(params, length, LEVANTER_KEYS).to_csv(make(folder / "runs") / f"{run}.csv")
        manifest.append((model, run, params))
        if not model.startswith("mid"):
            wide(params, length, mine).to_csv(make(folder / "exports") / f"{model}.csv")
    columns = ["model", "run", "params"]
    pd.DataFrame(manifest, columns=columns).to_csv(folder / "manifest.csv", index=False)


def lm_eval_files(folder: Path) -> None:
    for model, (params, length) in RUNS.items():
        harness_run(folder / "results" / model, params, length, ("arc_easy", "hellaswag", "boolq"))
    write_manifest(folder)


def olmes_files(folder: Path) -> None:
    for model, (params, length) in RUNS.items():
        olmes_run(make(folder / "results") / f"{model}-eval", params, length)
    write_manifest(folder, "{}-eval")
    targets(folder, {"big": (6887575552, 3945065873408)})
    table = datadecide(
        ("C4", "Falcon"), ("arc_easy", "hellaswag"), DATADECIDE_SIZES | {"1B": 1176832000}
    )
    table.to_parquet(folder / "datadecide.parquet")


def write_manifest(folder: Path, run: str | None = None) -> None:
    rows = [(model, n, n * k) for model, (n, k) in RUNS.items()]
    table = pd.DataFrame(rows, columns=["model", "params", "tokens"])
    if run:
        table["run"] = [run.format(model) for model in RUNS]
    table.to_csv(folder / "manifest.csv", index=False)


PAGES: dict[str, Callable[[Path], None]] = {
    "table": table_files,
    "tracker": tracker_files,
    "lm-eval": lm_eval_files,
    "olmes": olmes_files,
}


OF_FITS = ("save", "tasks", "arviz")
"""Pages about what a fit is good for, from a table."""

DECISIONS = ("questions", "plan", "allocate")


# Running them


def commands(code: str) -> list[list[str]]:
    lines = code.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.strip()]


def run(
    page: Path, run_command: Callable[[list[str]], None], name: str | None = None
) -> list[dict[str, object]]:
    """Run the page's Python in one namespace, of a module of this name; returns its variables after
    each block of Python."""
    names: dict[str, object] = {} if name is None else {"__name__": name}
    after = []
    for block in blocks(page):
        if block.language == "python":
            source = "\n" * (block.line - 1) + block.code  # so that tracebacks name the page's line
            exec(compile(source, str(page), "exec"), names)
            after.append(dict(names))
        elif block.language == "bash":
            for program, *words in commands(block.code):
                if program == "laddercast":
                    run_command(words)
                else:
                    assert program in OTHERS
        elif block.language == "toml":
            Path("preset.toml").write_text(block.code)
        else:
            assert block.language == "csv"
            assert_is_a_file(block)
    return after


def assert_is_a_file(block: Block) -> None:
    head, *rows = block.code.splitlines()
    texts = [file.read_text().splitlines() for file in Path().glob("*.csv")]
    ours = [lines for lines in texts if lines[0] == head]
    assert len(ours) == 1, f"line {block.line}: no file has these columns"
    assert [row for row in rows if row != "..." and row not in ours[0]] == []
    assert rows[-1] == "..." or len(rows) == len(ours[0]) - 1


def assert_forecasts(after: list[dict[str, object]]) -> None:
    forecasts = [names["forecast"] for names in after if "forecast" in names]
    assert forecasts
    for forecast in forecasts:
        table = lc.forecast_table(forecast)
        accuracy = table[table["quantity"] == "accuracy"]
        assert len(accuracy)
        assert accuracy[["q025", "q975"]].stack().between(0, 1).all()


def test_every_page_is_run():
    assert {page.stem for page in HOWTO.glob("*.md")} - {"index"} == {
        *PAGES, *OF_FITS, *DECISIONS, "compare", "route", "cluster",
    }  # fmt: skip


@pytest.fixture
def short_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits too brief to converge, of the shape of the ladder that is asked for first."""
    short = {"chains": 2, "warmup": 100, "draws": 100, "progress": False}
    for name in ("fit", "fit_each", "backtest"):
        monkeypatch.setattr(lc, name, partial(getattr(lc, name), **short))


@pytest.mark.long
@pytest.mark.usefixtures("short_fits")
@pytest.mark.filterwarnings("ignore:the (fit|forecast) has not converged")
@pytest.mark.filterwarnings("ignore:target .* lies")
@pytest.mark.filterwarnings("ignore:.*:UserWarning:arviz")
@pytest.mark.parametrize("name", OF_FITS)
def test_the_pages_of_fits_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    table_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    after = run(HOWTO / f"{name}.md", lambda words: None)
    assert "two_stage" in after[-1]["fitted"].children
    plt.close("all")


@pytest.mark.long
@pytest.mark.usefixtures("short_fits")
@pytest.mark.filterwarnings("ignore:the (fit|forecast) has not converged")
def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    after = run(HOWTO.parent / "tutorial.md", lambda words: None)
    names = after[-1]
    assert len(names["ladder"].models) == 16
    assert list(names["ladder"].tasks.index) == ["hellaswag", "arc_easy", "piqa"]
    assert names["choice"] in ("small-plan", "large-plan")
    page = names["path"].read_text(encoding="utf-8")
    assert "large-plan against small-plan" in page
    assert "best_rung" in capsys.readouterr().out
    plt.close("all")


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_the_page_of_clusters_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With fits too brief to converge, on ladders without losses: rivals' refits take longer."""
    pytest.importorskip("distributed")
    table_files(tmp_path)
    table = pd.read_csv(tmp_path / "ladder.csv").drop(columns="loss")
    table.to_csv(tmp_path / "ladder.csv", index=False)
    monkeypatch.chdir(tmp_path)
    short = {"route": "direct", "chains": 2, "warmup": 50, "draws": 50, "progress": False}
    for name in ("fit_each", "backtest"):
        monkeypatch.setattr(lc, name, partial(getattr(lc, name), **short))
    words = []
    run(HOWTO / "cluster.md", words.append, name="__main__")
    assert cli._parser().parse_args(words[0]).workers == 2


@pytest.mark.long
def test_the_page_of_routes_runs():
    (names,) = run(HOWTO / "route.md", lambda words: None)
    assert list(names["fitted"].children) == ["by_compute", "direct"]
    assert names["forecast"].attrs["converged"]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::laddercast.LaddercastWarning")
def test_the_page_of_recipes_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    quick = {"route": "direct", "chains": 2, "warmup": 30, "draws": 20, "progress": False}
    monkeypatch.setattr(lc, "fit", partial(lc.fit, **quick))
    written = []

    def command(words: list[str]) -> None:
        assert cli.main([*words, *QUICK, "--route", "direct"]) in (0, 3)
        written.extend(path.name for path in Path("out").iterdir())

    (names,) = run(HOWTO / "compare.md", command)
    assert {"comparisons.csv", "ranking.csv", "forecast.csv", "compare.png"} <= set(written)
    assert set(names["found"].comparisons["task"]) == {"arc_easy", "piqa", "all"}


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_the_pages_blocks_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With refits of resampled models in the place of NUTS, and commands up to their fit."""
    PAGES[name](tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lc, "fit", lambda rungs: rungs)
    monkeypatch.setattr(lc, "forecast", partial(lc.bootstrap, replicates=2))
    fits = []

    def record(args: object, ladder: lc.Ladder, wanted: pd.DataFrame, *_: object) -> int:
        fits.append((ladder.models, list(wanted["model"].unique())))
        return 0

    monkeypatch.setattr(cli, "_fit_and_forecast", record)

    def command(words: list[str]) -> None:
        before = len(fits)
        assert cli.main(words) == 0
        assert len(fits) == before + (words[0] == "forecast")

    assert_forecasts(run(HOWTO / f"{name}.md", command))
    assert fits
    for models, wanted in fits:
        assert len(models) >= 3
        assert wanted
        assert not set(models) & set(wanted)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:the (fit|forecast) has not converged")
@pytest.mark.filterwarnings("ignore:target .* lies")
@pytest.mark.parametrize("name", ["lm-eval", "olmes"])
def test_the_pages_forecasts_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With NUTS of one route, too briefly to converge; other pages: below and in test_cli."""
    PAGES[name](tmp_path)
    monkeypatch.chdir(tmp_path)
    quick = {"route": "direct", "chains": 2, "warmup": 30, "draws": 20, "progress": False}
    monkeypatch.setattr(lc, "fit", partial(lc.fit, **quick))

    def command(words: list[str]) -> None:
        short = [*QUICK, "--route", "direct"] if words[0] == "forecast" else []
        assert cli.main([*words, *short]) in (0, 3)

    assert_forecasts(run(HOWTO / f"{name}.md", command))
    assert Path("out", "forecast.csv").exists()


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:target .* lies")
def test_the_trackers_command_on_measured_logs(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Real files to a forecast in one command, the page's own, with targets from a table."""
    code = [block.code for block in blocks(HOWTO / "tracker.md") if block.language == "bash"]
    (words,) = [words for part in code for words in commands(part) if "--targets" in words]
    (tmp_path / "olmo-ladder").symlink_to(data_dir / "olmo-ladder")
    (tmp_path / "targets.csv").symlink_to(data_dir / "olmo_targets.csv")
    monkeypatch.chdir(tmp_path)
    assert words[1:4] == ["forecast", "--from", "wandb:olmo"]
    assert cli.main([*words[1:], *QUICK]) in (0, 3)
    table = pd.read_csv("out/forecast.csv")
    assert set(table["model"]) == {"7B-4T", "13B-5T"}
    assert set(table["task"]) == {"mmlu", "hellaswag", "arc_easy"}
    accuracy = table[table["quantity"] == "accuracy"]
    assert accuracy["measured"].notna().all()
    # Three tasks that a ladder of up to 3.2B forecasts well, even from a brief fit.
    assert (accuracy["q50"] - accuracy["measured"]).abs().mean() < 0.1
    assert pd.read_csv("out/scores.csv").set_index(["quantity", "task"])["crps"].notna().all()


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::laddercast.LaddercastWarning")
@pytest.mark.parametrize("name", DECISIONS)
def test_the_pages_of_decisions_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With NUTS of one route, too briefly to converge."""
    table_files(tmp_path)
    targets(
        tmp_path,
        {"big": (6887575552, 3945065873408), "huge": (13202396160, 5000080130048)},
    )
    monkeypatch.chdir(tmp_path)
    quick = {"route": "two_stage", "chains": 2, "warmup": 30, "draws": 20, "progress": False}
    monkeypatch.setattr(lc, "fit", partial(lc.fit, **quick))

    def command(words: list[str]) -> None:
        assert cli.main([*words, *QUICK, "--route", "two_stage"]) in (0, 3)
        files = {"allocate": {"allocation.csv", "allocate.png"}, "plan": {"plan.csv", "plan.png"}}
        assert files[words[0]] <= {x.name for x in Path("out").iterdir()}

    assert run(HOWTO / f"{name}.md", command)

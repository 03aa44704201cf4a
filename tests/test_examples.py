"""Every public name has an example in its docstring, and all examples run."""

import doctest
import inspect
import warnings
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr

import laddercast as lc
from laddercast.evaluation.backtest_files import write_backtest
from laddercast.evaluation.simulation import simulate_from_prior
from test_datasets import GADRE
from test_howto import lm_eval_files, olmes_files, table_files, tracker_files
from test_plots import fitted_of
from test_report import backtest_of

pytestmark = pytest.mark.slow


def backtest_files(folder: Path) -> None:
    (folder / "backtest").mkdir()
    write_backtest(backtest_of(), folder / "backtest")


FILES = {
    "read_backtest": backtest_files,
    "read_wandb": tracker_files,
    "read_lm_eval": lm_eval_files,
    "read_olmes": olmes_files,
    "fetch_olmo_ladder": tracker_files,
}
"""What makes the files that an example reads, where those are logs."""

SHORT = {"chains": 2, "warmup": 50, "draws": 50, "progress": False}


def public() -> dict[str, Any]:
    """Functions and classes by name: of the package, and of its namespaces."""
    found = {}
    for space in (lc, *(x for x in map(lc.__getattr__, lc.__all__) if inspect.ismodule(x))):
        listed = getattr(space, "__all__", None)
        for name in listed or dir(space):
            value = getattr(space, name)
            own = listed or getattr(value, "__module__", None) == space.__name__
            if own and (inspect.isfunction(value) or inspect.isclass(value)) and name[0] != "_":
                found[name] = value
    return found


def examples_of(value: Any) -> list[doctest.Example]:
    return doctest.DocTestParser().get_examples(inspect.getdoc(value) or "")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits of examples are short, and share what is compiled, however they are asked for."""
    of_one, of_many = (import_module(f"laddercast.inference.{x}") for x in ("fitting", "many"))
    prepare = of_one.prepare

    def short(ladder: lc.Ladder, *args: Any, **settings: Any) -> Any:
        whole = settings.get("within") or ladder
        return prepare(ladder, *args, **settings | SHORT | {"within": whole})

    monkeypatch.setattr(of_one, "prepare", short)
    monkeypatch.setattr(of_many, "prepare", short)


@pytest.fixture(scope="module")
def shared() -> dict[str, Any]:
    """What examples start from: a ladder of two tasks, a short fit, its forecast."""
    whole, targets, truth = lc.demo_ladder()
    tasks = ["hellaswag", "piqa"]
    ladder = lc.Ladder(whole.table, whole.tasks.loc[tasks])
    targets, truth = targets[targets["task"].isin(tasks)], truth.loc[tasks]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lc.NotConvergedWarning)
        fitted = lc.fit(ladder, route="direct", within=ladder, **SHORT)
        forecast = lc.forecast(fitted, targets)
        of_recipes, *_ = simulate_from_prior(route="direct", tasks=2, recipes=("books", "web"))
        fitted_recipes = lc.fit(of_recipes, route="direct", **SHORT)
        table = lc.backtest(ladder, folds=["largest-size"], route="direct", **SHORT)
    return {
        "ladder": ladder, "targets": targets, "truth": truth, "fitted": fitted,
        "forecast": forecast, "table": table, "tasks": ladder.tasks,
        "fitted_recipes": fitted_recipes,
    }  # fmt: skip


def given(name: str, shared: dict[str, Any]) -> dict[str, Any]:
    """The names that an example finds."""
    modules = (lc, az, np, numpyro, dist, pd, warnings)
    short = ("lc", "az", "np", "numpyro", "dist", "pd", "warnings")
    names = dict(zip(short, modules, strict=True)) | shared
    if name.startswith("plot_stage"):
        names["fitted"] = fitted_of()  # of a route through a loss
    if name == "pool":
        one = shared["forecast"]["direct"]
        other = one.copy()
        other.attrs["route"] = "two_stage"
        names["forecast"] = xr.DataTree(children={"direct": one, "two_stage": other})
    return names


@pytest.mark.filterwarnings("ignore::laddercast.LaddercastWarning")
@pytest.mark.filterwarnings("ignore:mmlu is the mean of")
@pytest.mark.parametrize("name", sorted(public()))
def test_every_public_name_has_an_example_that_runs(name, shared, tmp_path, monkeypatch):
    value = public()[name]
    examples = examples_of(value)
    assert 1 <= len(examples) <= 3
    assert not any(example.options or example.want for example in examples)
    monkeypatch.chdir(tmp_path)
    FILES.get(name, table_files)(tmp_path)
    published(tmp_path, monkeypatch)
    scope = given(name, shared)
    for example in examples:
        exec(compile(example.source, f"example of {name}", "exec"), scope)
    plt.close("all")


def published(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the published ladders lie in this folder, made up and small."""
    (folder / "gadre.csv").write_bytes(GADRE)
    sums = {x.stem: x.read_bytes() for x in folder.glob("olmo-ladder/*.csv")}
    sums = {run: sha256(content).hexdigest() for run, content in sums.items()}
    monkeypatch.setattr(lc.datasets, "OLMO_SUMS", sums)
    monkeypatch.setattr(lc.datasets, "GADRE_SUM", sha256(GADRE).hexdigest())
    monkeypatch.setenv("LADDERCAST_DATA", str(folder))


def test_namespaces_are_among_what_is_looked_at():
    names = set(public())
    assert {"fit", "Ladder", "fetch_gadre", "as_route", "plot_noise", "SkippedWarning"} <= names
    spaces = [getattr(lc, name) for name in lc.__all__ if isinstance(getattr(lc, name), ModuleType)]
    assert len(spaces) == 5

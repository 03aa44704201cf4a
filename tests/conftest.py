import os
from collections import Counter
from importlib import import_module
from pathlib import Path

import jax
import numpy as np
import numpyro.distributions  # noqa: F401 (else a test module that comes first gets half of it)
import pandas as pd
import pytest
import xarray as xr

from laddercast.sampling.programs import keep, make_room

# What commands and tests compile is kept between test sessions, but not in the user's own folder.
# All processes of tests share them: what one is writing just now, another compiles too.
COMPILED = Path(__file__).parents[1] / ".pytest_cache" / "compiled"
os.environ["LADDERCAST_COMPILED"] = str(COMPILED)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with many slow tests come first: all others are done beside the last of them."""
    slow = Counter(
        item.path for item in items if any(map(item.get_closest_marker, ("slow", "long")))
    )
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session", autouse=True)
def kept_programs() -> None:
    """Have JAX keep also the small programs of single operations, of which tests make many."""
    keep()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@pytest.fixture(autouse=True)
def room_for_programs() -> None:
    """Fits of many shapes in one process would reach the system's limit of memory maps."""
    make_room()


SIZES = (200e6, 400e6, 800e6)
TOKENS_PER_PARAM = (20, 100)
CHECKPOINTS = 12
TASKS = {"easy": (0.25, 2000, 1.1), "hard": (0.5, 500, 0.8)}
"""Chance, items, and the loss at which stage 2 is steepest."""


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The measured ladders, which a checkout may lack."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("LADDERCAST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no measured ladders in {folder}; set LADDERCAST_DATA")
    return folder


@pytest.fixture
def small_table() -> pd.DataFrame:
    """A sound ladder: 3 sizes x 2 lengths, 2 tasks, 12 checkpoints a run, indexed from 0."""
    rng = np.random.default_rng(0)
    rows = []
    for params in SIZES:
        for length in TOKENS_PER_PARAM:
            for i in range(1, CHECKPOINTS + 1):
                tokens = params * length * i / CHECKPOINTS
                reference_loss = 1.8 + (params / 1e8) ** -0.3 + (tokens / 1e9) ** -0.3
                for task, (chance, items, steepest) in TASKS.items():
                    loss = reference_loss / 3 * np.exp(rng.normal(0, 0.003))
                    law = chance + (0.95 - chance) / (1 + np.exp(4 * (loss - steepest)))
                    rows.append(
                        {
                            "model": f"{params / 1e6:.0f}M-{length}",
                            "params": int(params),
                            "tokens": round(tokens),
                            "task": task,
                            "loss": loss,
                            "reference_loss": reference_loss,
                            "accuracy": rng.binomial(items, law) / items,
                            "chance": chance,
                            "items": items,
                        }
                    )
    return pd.DataFrame(rows)


@pytest.fixture
def command(tmp_path: Path, small_table: pd.DataFrame) -> list[str]:
    """A command of a second that writes `forecast.csv` into `out`."""
    small_table.to_csv(tmp_path / "ladder.csv", index=False)
    targets = {"model": ["3B"], "params": [3_000_000_000], "tokens": [60_000_000_000]}
    pd.DataFrame(targets).to_csv(tmp_path / "targets.csv", index=False)
    files = [str(tmp_path / name) for name in ("ladder.csv", "targets.csv", "out")]
    return ["baseline", files[0], "--targets", files[1], "--out", files[2]]


@pytest.fixture(scope="session")
def six_runs():
    """A simulated ladder of 3 sizes x 2 lengths, 2 tasks."""
    from laddercast.evaluation.simulation import demo_truth, simulate

    truth = demo_truth().loc[["hellaswag", "piqa"]]
    return simulate(truth, sizes=(200e6, 400e6, 800e6), tokens_per_param=(20, 100))[0]


@pytest.fixture
def wide_table(small_table: pd.DataFrame) -> pd.DataFrame:
    """With three lengths, of which the two shorter make a ladder; sizes of 200M to 800M."""
    longer = small_table[small_table["model"].str.endswith("-100")].copy()
    longer["model"] = longer["model"].str.replace("-100", "-200")
    longer["tokens"] *= 2
    return pd.concat([small_table, longer], ignore_index=True)


@pytest.fixture
def rerun_table(wide_table: pd.DataFrame) -> pd.DataFrame:
    """With a second run of two models, one of them half a percent shorter."""
    again = wide_table[wide_table["model"].isin(["200M-20", "800M-100"])].copy()
    again["accuracy"] *= 0.99
    shorter = again["model"] == "800M-100"
    again["tokens"] = again["tokens"].where(~shorter, (0.995 * again["tokens"]).round())
    again["tokens"] = again["tokens"].astype(int)
    again["model"] += "-rerun"
    return pd.concat([wide_table, again], ignore_index=True)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list:
    """Ladders that were fitted, with a quick stand-in for that: forecasts about what it was shown.

    The same stands in for the bootstrap.
    Of a ladder of 4 rungs or fewer the stand-in says that it has not converged.
    """
    from laddercast.data.ladder import read_targets
    from laddercast.sampling.work import Calls

    # The package's attribute of this name is the function.
    module = import_module("laddercast.evaluation.backtests")
    fits_of = import_module("laddercast.inference.many")
    given = []

    def prepare(ladder, **settings):
        def work():
            given.append(ladder)
            yield Calls([lambda: None])
            return ladder

        return work()

    def forecast(ladder, targets, *, seed):
        table = read_targets(targets)
        table = table[table["task"].isin(ladder.tasks.index)]
        rng = np.random.default_rng(seed)
        centers = ladder.table.groupby("task")[["loss", "accuracy"]].mean().loc[table["task"]]
        coords = {
            word: ("row", table[word].to_numpy()) for word in ("model", "task", "params", "tokens")
        }
        dims = ("chain", "draw", "row")
        names = ("loss", "accuracy")
        draws = {q: centers[q].to_numpy() + rng.normal(0, 0.01, (2, 50, len(table))) for q in names}
        groups = {
            "predictions": xr.Dataset({q: (dims, draws[q]) for q in names}, coords=coords),
            "measured": xr.Dataset({q: ("row", table[q].to_numpy(float)) for q in names}),
        }
        tree = xr.DataTree.from_dict(groups)
        tree.attrs["converged"] = int(len(ladder.models) > 4)
        return tree

    monkeypatch.setattr(fits_of, "prepare", prepare)
    monkeypatch.setattr(module, "forecast", forecast)
    monkeypatch.setattr(module, "bootstrap", forecast)
    return given

"""What must not bear on a forecast: order of rows, names, order of tasks, units."""

import warnings
from collections.abc import Callable

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import laddercast as lc

pytestmark = pytest.mark.slow

SIZES = (100_000_000, 200_000_000, 400_000_000)
TOKENS_PER_PARAM = (20, 60, 200)
TARGETS = pd.DataFrame(
    {"model": ["2B", "3B"], "params": [2 * 10**9, 3 * 10**9], "tokens": [8 * 10**10, 6 * 10**10]}
)
ROUTES = {lc.direct.name: lc.direct}
LEVELS = (0.1, 0.5, 0.9)
LIMIT = 5.0
"""Monte-Carlo standard errors by which quantiles of two samples of one distribution may differ."""

seeds = st.integers(0, 2**32 - 1)
factors = st.integers(2, 30)
doublings = st.integers(-8, 8).filter(bool).map(lambda power: 2.0**power)
"""By which no rounding changes."""
names = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=8)


def several(count: int) -> st.SearchStrategy[list[str]]:
    """Names out of their order."""
    lists = st.lists(names, min_size=count, max_size=count, unique=True)
    return lists.filter(lambda found: found != sorted(found))


def examples(count: int) -> settings:
    """Where one fails, no simpler one is looked for: these are simple, and a fit takes seconds."""
    return settings(max_examples=count, deadline=None, derandomize=True, phases=[Phase.generate])


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """The rows of a ladder of 9 runs and 3 tasks, with a reference loss, chance and items."""
    truth = lc.demo_ladder()[2].loc[["arc_easy", "hellaswag", "piqa"]]
    ladder, _ = lc.simulate(
        truth, sizes=SIZES, tokens_per_param=TOKENS_PER_PARAM, checkpoints=12, seed=1
    )
    rows = ladder.table.join(ladder.tasks, on="task")
    n, d = rows["params"] / 1e8, rows["tokens"] / 1e9
    # Of each checkpoint, one number for all tasks.
    noise = pd.Series(np.random.default_rng(0).normal(0, 0.002, len(rows)), rows.index)
    noise = noise.groupby([rows["model"], rows["tokens"]]).transform("first")
    return rows.assign(reference_loss=(1.8 + n**-0.3 + d**-0.3) * np.exp(noise))


def shuffled(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    return table.sample(frac=1, random_state=np.random.RandomState(seed))


def renamed(table: pd.DataFrame, models: list[str], tasks: list[str]) -> pd.DataFrame:
    """With these names of models, and of tasks, whose order stays."""
    of_model = dict(zip(table["model"].unique(), models, strict=True))
    of_task = dict(zip(sorted(table["task"].unique()), sorted(tasks), strict=True))
    return table.assign(model=table["model"].map(of_model), task=table["task"].map(of_task))


# Forecasts of a fit


def forecast_of(
    route: str, table: pd.DataFrame, targets: pd.DataFrame = TARGETS,
    tasks: pd.DataFrame | None = None,
) -> xr.DataTree:  # fmt: skip
    with warnings.catch_warnings():
        # A divergence is rare; what it would bias shows below.
        warnings.filterwarnings("ignore", "the (fit|forecast) has not converged")
        fitted = lc.fit(lc.read_ladder(table, tasks), route=ROUTES[route], progress=False)
        return lc.forecast(fitted, targets)


@pytest.fixture(scope="module", params=ROUTES)
def known(request: pytest.FixtureRequest, table: pd.DataFrame) -> tuple[str, xr.DataTree]:
    """A route and its forecast from the table as it is."""
    return request.param, forecast_of(request.param, table)


def draws_of(forecast: xr.DataTree) -> xr.Dataset:
    """Draws of loss and accuracy, rows by their targets' sizes and their tasks' names."""
    predictions = forecast["predictions"].to_dataset()
    order = np.lexsort((predictions["task"].to_numpy(), predictions["params"].to_numpy()))
    return predictions.isel(row=order).drop_vars(list(predictions.coords))


def assert_same_distribution(forecast: xr.DataTree, other: xr.DataTree, unit: float = 1.0) -> None:
    """Quantiles agree to Monte-Carlo error, losses after division by a unit."""
    both = draws_of(forecast), draws_of(other)
    assert set(both[0]) == set(both[1])
    if "loss" in both[1]:
        both[1]["loss"] /= unit
    for level in LEVELS:
        one, another = (draws.quantile(level, ("chain", "draw")) for draws in both)
        errors = [az.mcse(draws, method="quantile", prob=level) for draws in both]
        for word in one:
            off = np.abs(one[word] - another[word]).to_numpy()
            error = np.hypot(*(of_quantile[word].to_numpy() for of_quantile in errors))
            assert (off < LIMIT * error).all(), (word, level, off / error)


def assert_identical(forecast: xr.DataTree, other: xr.DataTree) -> None:
    xr.testing.assert_equal(draws_of(forecast), draws_of(other))


@pytest.mark.long
@examples(1)
@given(seed=seeds, models=several(9), tasks=several(3))
def test_order_of_rows_and_names_change_no_draw(known, table, seed, models, tasks):
    route, forecast = known
    other = forecast_of(route, shuffled(renamed(table, models, tasks), seed))
    assert_identical(forecast, other)


@pytest.mark.long
@examples(1)
@given(order=st.permutations(range(3)).filter(lambda order: order != [0, 1, 2]))
def test_order_of_tasks_changes_no_forecast(known, table, order):
    route, forecast = known
    tasks = table[["task", "chance", "items"]].drop_duplicates("task").iloc[order]
    assert_same_distribution(forecast, forecast_of(route, table, tasks=tasks))


@pytest.mark.long
@examples(2)
@given(
    units=st.lists(st.sampled_from((np.log(2), 1 / np.log(2), 0.3, 4.0)), min_size=2, max_size=2)
)
def test_units_of_losses_change_no_accuracy(known, table, units):
    route, forecast = known
    # The prior of a loss's level is Normal(0, 1) on its log. A level known to a share s moves by
    # s log(unit) of its own SD, here below .02 of it; the limit is about .15.
    loss, reference_loss = units
    losses = {
        "loss": loss * table["loss"],
        "reference_loss": reference_loss * table["reference_loss"],
    }
    other = forecast_of(route, table.assign(**losses))
    if route == "direct":
        assert_identical(forecast, other)
    assert_same_distribution(forecast, other, loss if route == "two_stage" else reference_loss)


@pytest.mark.long
@examples(2)
@given(params=factors, tokens=factors)
def test_units_of_params_and_tokens_change_no_forecast(known, table, params, tokens):
    route, forecast = known

    def scaled(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(params=params * table["params"], tokens=tokens * table["tokens"])

    assert_same_distribution(forecast, forecast_of(route, scaled(table), scaled(TARGETS)))


# What needs no fit


def baseline(ladder: lc.Ladder) -> pd.DataFrame:
    return lc.baseline(ladder, TARGETS, ["two_step"])


OF_LADDER: dict[str, Callable[[lc.Ladder], pd.DataFrame]] = {
    "table": lambda ladder: ladder.table,
    "tasks": lambda ladder: ladder.tasks,
    "two_step": baseline,
    "best_rung": lambda ladder: lc.best_rung(ladder, TARGETS),
    "lowest_loss_rung": lambda ladder: lc.lowest_loss_rung(ladder, TARGETS),
    "metric_noise": lc.metric_noise,
    "rerun_noise": lc.rerun_noise,
    "noise_by_task": lc.noise_by_task,
}


@pytest.mark.parametrize("name", OF_LADDER)
@examples(10)
@given(seed=seeds)
def test_order_of_rows_changes_nothing(table, name, seed):
    of_ladder = OF_LADDER[name]
    one, other = lc.read_ladder(table), lc.read_ladder(shuffled(table, seed))
    assert one.fingerprint == other.fingerprint
    pd.testing.assert_frame_equal(of_ladder(one), of_ladder(other), check_exact=True)


OF_RUNGS = ("two_step", "best_rung", "lowest_loss_rung", "metric_noise", "noise_by_task")
"""Those that say something of each task."""


@pytest.mark.parametrize("name", OF_RUNGS)
@examples(5)
@given(tasks=several(3), order=st.permutations(range(3)))
def test_names_and_order_of_tasks_change_no_number(table, name, tasks, order):
    of_ladder = OF_LADDER[name]
    one = of_ladder(lc.read_ladder(table))
    given = dict(zip(table["task"].unique(), tasks, strict=True))
    named = table.assign(task=table["task"].map(given))
    chosen = named[["task", "chance", "items"]].drop_duplicates("task").iloc[order]
    other = of_ladder(lc.read_ladder(named, chosen))
    for task, new in given.items():
        found = other[other["task"] == new].assign(task=task)
        pd.testing.assert_frame_equal(
            found.reset_index(drop=True),
            one[one["task"] == task].reset_index(drop=True),
            check_exact=True,
        )


@pytest.mark.parametrize("name", ["best_rung", "lowest_loss_rung", "metric_noise"])
@examples(5)
@given(models=several(9))
def test_names_of_models_change_no_number(table, name, models):
    of_ladder, tasks = OF_LADDER[name], list(table["task"].unique())
    one, other = (
        of_ladder(lc.read_ladder(rows)).select_dtypes("number")
        for rows in (table, renamed(table, models, tasks))
    )
    pd.testing.assert_frame_equal(one, other, check_exact=True)


@examples(10)
@given(seed=seeds, models=several(9), params=factors, tokens=factors)
def test_a_split_holds_out_the_same_runs(table, seed, models, params, tokens):
    tasks = list(table["task"].unique())
    rows = shuffled(renamed(table, models, tasks), seed)
    rows = rows.assign(params=params * rows["params"], tokens=tokens * rows["tokens"])
    for limits, scaled in (
        ({"max_params": 2e8}, {"max_params": params * 2e8}),
        ({"max_tokens_per_param": 60}, {"max_tokens_per_param": 60 * tokens / params}),
    ):
        rungs, held_out = lc.read_ladder(table).split(**limits)
        others, others_out = lc.read_ladder(rows).split(**scaled)
        for part, other in ((rungs.table, others.table), (held_out, others_out)):
            found = other.assign(
                model=other["model"].map(dict(zip(models, table["model"].unique(), strict=True))),
                params=other["params"] // params,
                tokens=other["tokens"] // tokens,
            )
            found = found.sort_values(["model", "task", "tokens"], ignore_index=True)
            pd.testing.assert_frame_equal(part, found, check_exact=True)


@examples(10)
@given(unit=doublings, params=factors, tokens=doublings.map(abs))
def test_noise_of_a_metric_has_its_unit(table, unit, params, tokens):
    tokens = max(tokens, 1 / tokens)  # they stay whole
    one = lc.metric_noise(lc.read_ladder(table))
    other = lc.metric_noise(
        lc.read_ladder(
            table.assign(
                loss=unit * table["loss"],
                params=params * table["params"],
                tokens=int(tokens) * table["tokens"],
            )
        )
    )
    of_loss = one["quantity"] == "loss"
    for word in ("mean", "sd", "trend_free_sd"):
        one[word] = one[word].where(~of_loss, unit * one[word])
    scaled = one.assign(params=params * one["params"], tokens=int(tokens) * one["tokens"])
    pd.testing.assert_frame_equal(scaled, other, check_exact=True)


def drawn(targets: pd.DataFrame, unit: float = 1.0) -> xr.DataTree:
    """A made-up forecast of these cells."""
    draws = np.random.default_rng(0).random((2, 2, 50, len(targets)))
    coords = {word: ("row", targets[word]) for word in ("model", "task", "params", "tokens")}
    dims = ("chain", "draw", "row")
    values = {"loss": (dims, unit * draws[0]), "accuracy": (dims, draws[1])}
    return xr.DataTree.from_dict({"predictions": xr.Dataset(values, coords=coords)})


@examples(10)
@given(seed=seeds, unit=doublings, models=several(9), tasks=several(3))
def test_scores_know_no_order_nor_names_nor_unit(table, seed, unit, models, tasks):
    measured = lc.read_ladder(table).split(max_params=2e8)[1]
    known = lc.score(drawn(measured), measured)
    again = renamed(measured, models[: measured["model"].nunique()], tasks)
    again["loss"] *= unit
    found = lc.score(drawn(again, unit), shuffled(again, seed))
    of_loss = known["quantity"] == "loss"
    for word in ("error", "crps", "width50", "width80", "width95"):
        known[word] = known[word].where(~of_loss, unit * known[word])
    pd.testing.assert_frame_equal(
        known.drop(columns="task"), found.drop(columns="task"), check_exact=True
    )

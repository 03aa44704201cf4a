import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from jax.flatten_util import ravel_pytree
from numpyro import handlers

from laddercast.data.ladder import (
    END_CHECKPOINTS,
    checkpoint_spread,
    read_ladder,
    read_targets,
    run_ends,
)
from laddercast.model.design import (
    DEFAULT_ITEMS,
    EVERY,
    KNOT_DECADES,
    QUANTITIES,
    SITES,
    Design,
    Observed,
    Seen,
    Shape,
    cells,
    in_few_shapes,
    ladder_design,
    pad,
    shape_of,
    target_design,
)
from laddercast.model.priors import Priors
from laddercast.model.routes import ROUTES, Route
from laddercast.model.start import start
from laddercast.sampling.adapt import scaled
from laddercast.sampling.chains import on_device
from laddercast.sampling.curvature import layout_of
from laddercast.sampling.density import Data, forward, inverse, potential_of, structure
from laddercast.sampling.mode import started

TARGETS = pd.DataFrame(
    {"model": ["big", "bigger"], "params": [3_000_000_000, 7_000_000_000], "tokens": 2 * [10**11]}
)


@pytest.fixture
def ragged_table(small_table: pd.DataFrame) -> pd.DataFrame:
    """Without one model's task, another's loss and a third one's accuracy."""
    hard = small_table["task"] == "hard"
    table = small_table[~(hard & (small_table["model"] == "200M-20"))].reset_index(drop=True)
    table.loc[table["model"] == "400M-20", "loss"] = np.nan
    table.loc[table["model"] == "400M-100", "accuracy"] = np.nan
    return table


def test_every_measurement_lands_at_its_place_and_nothing_else_does(
    ragged_table: pd.DataFrame,
) -> None:
    ladder = read_ladder(ragged_table)
    design, observed, labels, frame = ladder_design(ladder)
    ends = run_ends(ladder.table).set_index(["model", "task"])
    tokens = np.exp(design.log_tokens) * frame.tokens
    params = np.exp(design.log_params) * frame.params
    for quantity in ("loss", "accuracy"):
        seen, value = getattr(design, quantity), getattr(observed, SITES[quantity])
        value = np.exp(value) if quantity == "loss" else value
        assert seen.at.shape == value.shape == (len(ladder.models), 2)
        assert seen.at.sum() == ends[quantity].notna().sum()
        for point, task in np.argwhere(seen.at):
            row = ends.loc[(labels.model[design.run[point]], labels.task[task])]
            assert value[point, task] == pytest.approx(row[quantity], rel=1e-12)
            assert seen.checkpoints[point, task] == row["checkpoints"]
            assert tokens[point] == pytest.approx(row["tokens"])
            assert params[point] == pytest.approx(row["params"])
    np.testing.assert_array_equal(design.run[design.end], np.arange(len(labels.model)))
    np.testing.assert_array_equal(design.chance, [0.25, 0.5])
    np.testing.assert_array_equal(design.items, [2000, 500])


def test_the_reference_loss_is_one_column_for_all_tasks(small_table: pd.DataFrame) -> None:
    ladder = read_ladder(small_table)
    design, observed, labels, _ = ladder_design(ladder)
    ends = run_ends(ladder.table).groupby("model")["reference_loss"].first()
    assert design.reference_loss.at.shape == (len(ladder.models), 1)
    assert design.reference_loss.at.all()
    assert observed.log_reference_loss is not None
    expected = ends[[labels.model[run] for run in design.run]]
    np.testing.assert_allclose(np.exp(observed.log_reference_loss[:, 0]), expected)


def test_spreads_between_checkpoints_land_at_their_runs(small_table: pd.DataFrame) -> None:
    ladder = read_ladder(small_table)
    design, observed, labels, _ = ladder_design(ladder)
    for quantity in ("loss", "accuracy"):
        spread = checkpoint_spread(ladder.table, quantity, log=quantity == "loss")
        spread = spread[spread["variance"] > 0].set_index(["model", "task"])
        dof = getattr(design, quantity).spread_dof
        variance = getattr(observed, f"{quantity}_spread")
        assert (dof > 0).sum() == len(spread) > 0
        for run, task in np.argwhere(dof > 0):
            row = spread.loc[(labels.model[run], labels.task[task])]
            assert (dof[run, task], variance[run, task]) == (row["dof"], row["variance"])


def test_every_checkpoint_is_a_point_of_its_run_and_leaves_no_spread(
    small_table: pd.DataFrame,
) -> None:
    last = ladder_design(read_ladder(small_table))[0]
    design, observed, labels, frame = ladder_design(read_ladder(small_table, rungs="every"))
    assert len(design.log_params) > len(last.log_params) == len(design.end)
    table = small_table.set_index(["model", "tokens", "task"])
    tokens = np.round(np.exp(design.log_tokens) * frame.tokens).astype(int)
    assert observed.log_loss is not None
    for point, task in np.argwhere(design.loss.at):
        where = labels.model[design.run[point]], tokens[point], labels.task[task]
        assert observed.log_loss[point, task] == np.log(table.loc[where, "loss"])
    for quantity in QUANTITIES:
        assert (getattr(design, quantity).spread_dof == 0).all()
    of_run = pd.Series(design.log_tokens).groupby(design.run).max()
    np.testing.assert_array_equal(design.log_tokens[design.end], of_run)


def test_what_was_never_measured_is_nowhere_seen(small_table: pd.DataFrame) -> None:
    bare = small_table.drop(columns=["loss", "items"])
    design, *_ = ladder_design(read_ladder(bare))
    assert not design.loss.at.any()
    assert (design.loss.spread_dof == 0).all()
    assert (design.items == DEFAULT_ITEMS).all()
    assert not cells(design, "loss").any()
    assert cells(design, "accuracy").all()


def test_cells_are_the_runs_on_which_something_was_measured(ragged_table: pd.DataFrame) -> None:
    design, _, labels, _ = ladder_design(read_ladder(ragged_table))
    run = labels.model.index
    loss, accuracy = cells(design, "loss"), cells(design, "accuracy")
    missing = {(run("200M-20"), 1), (run("400M-20"), 0), (run("400M-20"), 1)}
    assert set(map(tuple, np.argwhere(~loss))) == missing
    missing = {(run("200M-20"), 1), (run("400M-100"), 0), (run("400M-100"), 1)}
    assert set(map(tuple, np.argwhere(~accuracy))) == missing


def test_reference_sizes_are_means_of_the_ends_and_knots_span_the_ladder(
    small_table: pd.DataFrame,
) -> None:
    ladder = read_ladder(small_table)
    design, _, _, frame = ladder_design(ladder)
    np.testing.assert_allclose(design.log_params[design.end].mean(), 0, atol=1e-9)
    np.testing.assert_allclose(design.log_tokens[design.end].mean(), 0, atol=1e-9)
    at = {
        "params": np.log10(np.exp(design.log_params) * frame.params),
        "tokens": np.log10(np.exp(design.log_tokens) * frame.tokens),
    }
    for word, origin in (("params", frame.params), ("tokens", frame.tokens)):
        knots = np.array(getattr(frame, f"{word}_knots"))
        assert (knots[0], knots[-1]) == pytest.approx((at[word].min(), at[word].max()))
        assert np.abs(knots - np.log10(origin)).min() < 1e-9
        widths = np.diff(knots)
        assert (widths > 0).all()
        assert (widths <= KNOT_DECADES + 1e-9).all()
    # Within the ladder no step lies beyond it; each interval and each size has its own.
    assert not np.abs(design.beyond).any()
    intervals = len(frame.params_knots) + len(frame.tokens_knots) - 2
    assert design.walk.shape[1] == intervals + len(frame.sizes)
    assert (np.abs(design.walk).max(axis=0) > 0).all()


def test_discrepancy_grows_with_distance_in_params_and_in_tokens(
    small_table: pd.DataFrame,
) -> None:
    ladder = read_ladder(small_table)
    *_, frame = ladder_design(ladder)
    models = read_targets(TARGETS).assign(checkpoints=1.0)
    design, _ = target_design(models, ladder.tasks, frame)
    distance = np.log10(TARGETS["params"] / frame.params) + np.log10(
        TARGETS["tokens"] / frame.tokens
    )
    variance = (design.walk**2).sum(axis=1) + (design.beyond**2).sum(axis=1)
    np.testing.assert_allclose(variance, distance + 1, rtol=1e-9)
    # Along equal compute, what grows with params does not cancel what falls with tokens.
    longer = models.assign(params=models["params"] // 4, tokens=models["tokens"] * 4)
    other, _ = target_design(longer, ladder.tasks, frame)
    apart = ((other.walk - design.walk) ** 2).sum(axis=1) + (other.beyond**2).sum(axis=1)
    assert (apart > 0.1).all()


def test_models_of_a_known_size_share_its_deviation_and_new_ones_have_their_own(
    small_table: pd.DataFrame,
) -> None:
    ladder = read_ladder(small_table)
    *_, frame = ladder_design(ladder)
    known = int(ladder.table["params"].iloc[0])
    targets = pd.DataFrame(
        {"model": ["a", "b", "c"], "params": [known, 10 * known, 10 * known], "tokens": 10**10}
    )
    models = read_targets(targets).assign(checkpoints=1.0)
    design, _ = target_design(models, ladder.tasks, frame)
    of_sizes = design.walk[:, -len(frame.sizes) :]
    np.testing.assert_array_equal(of_sizes.astype(bool).sum(axis=1), [1, 0, 0])
    new = design.beyond[:, -1]
    np.testing.assert_array_equal(new, [0, 1, 1])
    np.testing.assert_array_equal(np.flatnonzero(design.of_new_size), [design.beyond.shape[1] - 1])
    wide = in_few_shapes(design)
    for weights, where in ((wide.walk, wide.of_size), (wide.beyond, wide.of_new_size)):
        assert weights.shape[1:] == where.shape
    np.testing.assert_array_equal(wide.walk[:3] @ wide.of_size, [1, 0, 0])
    np.testing.assert_array_equal(wide.beyond[:3] @ wide.of_new_size, [0, 1, 1])


@pytest.mark.parametrize("name", ["by_reference", "two_stage"])
def test_accuracy_follows_what_a_size_is_off_in_loss_as_far_as_it_follows_a_run(
    small_table: pd.DataFrame, name: str
) -> None:
    design, *_ = ladder_design(read_ladder(small_table.assign(reference_loss=small_table["loss"])))
    site = {"by_reference": "walk_reference", "two_stage": "walk_loss_common"}[name]
    last = np.zeros(design.walk.shape[1])
    last[-1] = 1
    of_largest = design.walk[:, -1] > 0

    def off(passing: float, step: float) -> dict[str, np.ndarray]:
        """By how much a step of the discrepancy moves accuracy."""
        found = []
        for times in (0, 1):
            values = {site: times * step * last, "logit_passing": np.full(2, passing)}
            model = handlers.substitute(handlers.seed(ROUTES[name].model, 0), values)
            trace = handlers.trace(model).get_trace(design, Priors())
            found.append(
                {word: np.asarray(trace[word]["value"]) for word in ("law", "discrepancy")}
            )
        return {word: found[1][word] - found[0][word] for word in found[0]}

    for word, moved in off(40.0, 0.1).items():
        assert (moved[of_largest] < -1e-4).all(), word
        np.testing.assert_allclose(moved[~of_largest], 0, atol=1e-9)
    for moved in off(-40.0, 0.1).values():
        np.testing.assert_allclose(moved, 0, atol=1e-9)


def test_accuracies_are_made_smooth_as_far_as_they_are_noise() -> None:
    rng, count = np.random.default_rng(0), 24
    tokens = np.geomspace(1e9, 1e11, count).round()
    known = 0.25 + 0.6 / (1 + np.exp(-2 * np.log(tokens / 2e10)))
    true = {"at chance": np.full(count, 0.25), "known": known}
    items = {"at chance": 400, "known": 100_000}
    rows = [
        pd.DataFrame({
            "model": [f"m{i}" for i in range(count)], "params": 1e9, "tokens": tokens, "task": name,
            "accuracy": rng.binomial(items[name], x) / items[name],
        })
        for name, x in true.items()
    ]  # fmt: skip
    tasks = pd.DataFrame({"task": list(true), "chance": 0.25, "items": list(items.values())})
    table = pd.concat(rows)
    design, observed, labels, _ = ladder_design(read_ladder(table, tasks))
    middle = design.middle
    of = {name: list(labels.task).index(name) for name in true}
    given, found, order = observed.accuracy, middle.measured, np.argsort(design.log_tokens)
    for name, at_most in {"at chance": 0.5, "known": 1.05}.items():
        before, after = (x[order, of[name]] - true[name] for x in (given, found))
        assert np.sqrt(np.mean(after**2)) < at_most * np.sqrt(np.mean(before**2))
    assert (middle.sd[:, of["at chance"]] < 0.8 * np.sqrt(0.25 * 0.75 / 400)).all()
    np.testing.assert_allclose(found[:, of["known"]], given[:, of["known"]], atol=2e-3)


def test_a_long_run_has_few_points_and_its_end_is_one_of_them(small_table: pd.DataFrame) -> None:
    rows = [
        small_table[
            small_table["tokens"] == small_table.groupby("model")["tokens"].transform("max")
        ]
    ]
    for share in np.linspace(0.12, 0.99, 60):
        step = rows[0].assign(tokens=(rows[0]["tokens"] * share).astype(int))
        rows.append(step.assign(accuracy=rows[0]["accuracy"] - 0.01 * (1 - share)))
    ladder = read_ladder(pd.concat(rows), rungs="every")
    design, observed, labels, frame = ladder_design(ladder)
    assert (np.bincount(design.run) == EVERY).all()
    tokens = np.exp(design.log_tokens) * frame.tokens
    ends = ladder.table.groupby("model")["tokens"].max()[labels.model]
    np.testing.assert_allclose(tokens[design.end], ends, rtol=1e-9)
    assert design.accuracy.checkpoints.max() == END_CHECKPOINTS
    # What is to come is nothing at the end, and more the earlier.
    np.testing.assert_allclose(design.unfinished[design.end], 0, atol=1e-9)
    first = design.unfinished[design.run == 0]
    assert (np.diff(first[np.argsort(design.log_tokens[design.run == 0])], axis=0)[:, 0] < 0).all()
    # Trends are slopes along a run's tokens, whatever its level.
    levels = np.arange(len(labels.model), dtype=float)[design.run]
    line = (levels + 2.5 * design.unfinished[:, 1])[:, None]
    for quantity in QUANTITIES:
        weights = design.middle.trends[quantity]
        slopes = np.zeros((len(labels.model), weights.shape[1]))
        np.add.at(slopes, design.run, weights * line)
        np.testing.assert_allclose(slopes, 2.5, rtol=1e-9)
    table = ladder.table.set_index(["model", "task"])
    for point, task in np.argwhere(design.accuracy.at):
        own = table.loc[(labels.model[design.run[point]], labels.task[task]), "accuracy"]
        assert own.min() - 1e-12 <= observed.accuracy[point, task] <= own.max() + 1e-12


def test_targets_are_seen_everywhere_with_their_checkpoints(small_table: pd.DataFrame) -> None:
    ladder = read_ladder(small_table)
    *_, frame = ladder_design(ladder)
    models = read_targets(TARGETS).assign(checkpoints=[1.0, 5.0])
    design, rows = target_design(models, ladder.tasks, frame)
    assert list(zip(rows["model"], rows["task"], strict=True)) == [
        ("big", "easy"), ("big", "hard"), ("bigger", "easy"), ("bigger", "hard")
    ]  # fmt: skip
    for quantity in QUANTITIES:
        seen = getattr(design, quantity)
        assert seen.at.all()
        np.testing.assert_array_equal(seen.checkpoints[:, 0], [1, 5])


def larger(own: Shape) -> Shape:
    return Shape(own.points + 3, own.runs + 2, own.intervals + 1)


def test_padding_adds_rows_of_which_nothing_was_measured(ragged_table: pd.DataFrame) -> None:
    design, observed, *_ = ladder_design(read_ladder(ragged_table))
    own = shape_of(design)
    to = larger(own)
    wide, filled = pad(design, observed, to)
    assert shape_of(wide) == to
    for quantity in QUANTITIES:
        before, after = getattr(design, quantity), getattr(wide, quantity)
        known, added = np.split(after.at, [own.points])
        assert after.at.dtype == bool
        np.testing.assert_array_equal(known, before.at)
        assert not added.any()
        assert not after.spread_dof[own.runs :].any()
        for name, rows in ((SITES[quantity], to.points), (f"{quantity}_spread", to.runs)):
            value, given = getattr(filled, name), getattr(observed, name)
            assert len(value) == rows
            np.testing.assert_array_equal(value[: len(given)], given)
            assert np.isfinite(value).all()
            # A spread has a log to be taken.
            assert (value > 0).all() or name in SITES.values()
    assert set(wide.run) <= set(range(to.runs))
    assert set(wide.end) <= set(range(to.points))
    same, _ = pad(design, observed, own)
    for one, other in zip(jax.tree.leaves(design), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(one, other)


def test_targets_near_and_far_few_and_some_are_of_one_size(small_table: pd.DataFrame) -> None:
    ladder = read_ladder(small_table)
    frame = ladder_design(ladder)[-1]
    names = [f"model {i}" for i in range(20)]
    grid = pd.DataFrame(
        {
            "model": names,
            "params": np.geomspace(10**7, 10**12, 20).astype(int),
            "tokens": 10**11,
            "checkpoints": 1.0,
        }
    )

    def shapes(targets: pd.DataFrame) -> list[tuple[int, ...]]:
        own, _ = target_design(targets, ladder.tasks, frame)
        wide = in_few_shapes(own)
        return [np.shape(leaf) for leaf in jax.tree.leaves(wide)]

    assert shapes(grid[9:12]) == shapes(grid[16:]) != shapes(grid[:5])
    assert shapes(grid[:17]) == shapes(grid)
    assert shapes(grid.assign(tokens=grid["params"] * 10**4)) == shapes(grid)
    own, _ = target_design(grid[:3], ladder.tasks, frame)
    wide = in_few_shapes(own)
    assert (len(wide.run), len(wide.end)) == (4, 4)
    # What is added has no weight.
    for name in ("walk", "beyond"):
        before, after = getattr(own, name), getattr(wide, name)
        np.testing.assert_array_equal(after[:3, : before.shape[1]], before)
        assert not after[:3, before.shape[1] :].any()
    for quantity in QUANTITIES:
        seen: Seen = getattr(wide, quantity)
        np.testing.assert_array_equal(seen.at.all(axis=1), [1, 1, 1, 0])


@pytest.mark.parametrize("field", Shape._fields)
def test_a_design_does_not_shrink(small_table: pd.DataFrame, field: str) -> None:
    design, observed, *_ = ladder_design(read_ladder(small_table))
    own = shape_of(design)
    with pytest.raises(ValueError, match="does not fit into"):
        pad(design, observed, own._replace(**{field: getattr(own, field) - 1}))


def data_of(route: Route, design: Design, observed: Observed) -> Data:
    args = design, Priors(), observed
    data, scales = started(route.model, args, start(*args))
    # Added steps are then standard deviates: their densities depend on nothing else.
    sites = structure(route.model, data)
    return scaled(data, layout_of(sites, data.like, "task"), sites, scales)


def of_own(name: str, value: np.ndarray, own: Shape) -> np.ndarray:
    """The part of a padded site's value that the site has without padding."""
    if name.endswith("_shared"):
        return value[: own.runs]
    if name in ("walk_loss", "walk_reference", "walk_accuracy") or name.endswith("_common"):
        return value[: own.intervals]
    return value


def evaluated(route: Route, data: Data, sites: dict) -> tuple[dict, dict]:
    """Gradient of the potential per site, and log likelihood per quantity and run x task."""
    sites = {name: jnp.asarray(sites[name]) for name in data.like}
    leaves, form = jax.tree.flatten(data)
    potential = potential_of(route.model, form)
    gradient = jax.grad(lambda sites: potential(ravel_pytree(sites)[0], leaves))(sites)
    trace = forward(route.model, data, ravel_pytree(sites)[0]).sites
    likelihood = {
        quantity: np.asarray(trace[site]["fn"].by_run(trace[site]["value"]))
        for quantity, site in SITES.items()
        if site in trace
    }
    assert likelihood
    return gradient, likelihood


@pytest.mark.long
@pytest.mark.parametrize("name", ROUTES)
def test_padding_changes_neither_likelihood_nor_gradient(
    ragged_table: pd.DataFrame, name: str
) -> None:
    route = ROUTES[name]
    design, observed, *_ = ladder_design(read_ladder(ragged_table))
    own = shape_of(design)
    rng = np.random.default_rng(0)
    with on_device(jax.devices("cpu")[0]):
        narrow = data_of(route, design, observed)
        wide = data_of(route, *pad(design, observed, larger(own)))
        place, by_site = ravel_pytree(wide.like)
        place = inverse(route.model, wide, by_site(place))
        sites = by_site(place + 0.1 * rng.normal(size=place.shape))
        own_sites = {site: of_own(site, x, own) for site, x in sites.items()}
        assert {site: np.shape(x) for site, x in own_sites.items()} == {
            site: np.shape(x) for site, x in narrow.like.items()
        }
        expected, likelihood = evaluated(route, narrow, own_sites)
        gradient, padded = evaluated(route, wide, sites)
    for site, value in expected.items():
        found = of_own(site, np.asarray(gradient[site]), own)
        np.testing.assert_allclose(found, value, rtol=1e-7, atol=1e-7, err_msg=site)
    for quantity, value in likelihood.items():
        assert np.isfinite(value).all()
        np.testing.assert_array_equal(value != 0, cells(design, quantity))
        np.testing.assert_allclose(padded[quantity][: own.runs], value, rtol=1e-9)
        assert not padded[quantity][own.runs :].any()

"""From a validated table to the arrays that the model reads: where measured, how far out."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from laddercast.data import words as c
from laddercast.data.ladder import (
    END_CHECKPOINTS,
    WARMUP_SHARE,
    Ladder,
    checkpoint_spread,
    run_ends,
)
from laddercast.sampling.programs import few_sizes

KNOT_DECADES = 0.5
"""Widest interval, in decades of params or of tokens, over which discrepancy is a straight line."""

SIZE_DECADES = 0.05
"""Models whose params lie within such a step are of one size."""

EVERY = 12
"""Of a run's checkpoints, neighbours are averaged until at most so many points are left."""

DEFAULT_ITEMS = 1000.0
"""Questions assumed where `items` is not given: noise factors are relative to it."""

SITES = {
    c.REFERENCE_LOSS: "log_reference_loss",
    c.LOSS: "log_loss",
    c.ACCURACY: "accuracy",
}
"""The site that has each quantity as it was measured: losses in logs."""

QUANTITIES = tuple(SITES)


LEAST_RISE = 0.003
"""Of accuracy with its logit: at its ends a rung still tells something."""

SDS = 0.001, 0.1
"""Of accuracies: within which the SD of one is kept."""

LEAST_INFORMATION = 1e-6
"""Of a slope: of one rung, it is not known at all."""

LEAST_STEPS = 16
"""Of the walk of targets, so that near and far ones share what was compiled: steps cost little."""

FEW_TARGETS = 32
"""Up to so many targets, the steps beyond the ladder are filled up to as many as there can be."""


class Frame(NamedTuple):
    """What a ladder fixes for its forecasts: reference sizes, and where discrepancy is told.

    `params`, `tokens`: geometric means over the ends of runs. Discrepancy random-walks away from
    these, in log10 params and in log10 tokens, along knots (ascending, the reference among them).
    Each size has one of its own, too: `sizes` are numbers as `size_numbers` gives them.
    """

    params: float
    tokens: float
    params_knots: tuple[float, ...]
    tokens_knots: tuple[float, ...]
    sizes: tuple[int, ...]
    recipes: tuple[
        str, ...
    ] = ()  # in the order of a design's indices; none where all runs are alike


class Seen(NamedTuple):
    """Where one quantity was measured, and how well; one task alone for the reference loss."""

    at: np.ndarray  # (points, tasks) whether measured there
    checkpoints: np.ndarray  # (points, tasks) how many checkpoints a measurement is the mean of
    spread_dof: np.ndarray  # (runs, tasks) of the variance between checkpoints; 0 where unknown


class Middle(NamedTuple):
    """The middle of each task's rungs: levels are known best there, and sampled as they are there.

    Each recipe has a middle of its own. Weights are of each point, and sum to 1 for each recipe and
    task that was measured; else they are 0.
    """

    reference_loss: np.ndarray  # (points, 1)
    loss: np.ndarray  # (points, tasks)
    accuracy: np.ndarray  # (points, tasks) by what each point tells of the logit
    slope: np.ndarray  # (points, tasks) whose sum is the logit's slope in the log of compute
    information: np.ndarray  # (recipes, tasks) of that slope: one over its variance
    scatter: np.ndarray  # (points, tasks) by which squares of how a point's logit moves with its
    # accuracy are summed to that variance
    trends: dict[str, np.ndarray]  # by quantity, (points, tasks or 1), whose sums over a run are
    # the slopes of logs or of the logit along its tokens
    measured: np.ndarray  # (points, tasks) accuracy, near a smooth curve where all else is noise
    sd: np.ndarray  # (points, tasks) of it
    checkpoints: dict[str, np.ndarray]  # by quantity, (tasks,): of what is known of noise, the part
    # that is of noise between checkpoints


class Design(NamedTuple):
    """Known numbers of one data set; every field is an array, so it can be traced.

    Points are pairs of a run and a number of tokens at which something was measured, in the order
    of the runs.
    """

    log_params: np.ndarray  # (points,) natural log over the reference params
    log_tokens: np.ndarray  # (points,)
    walk: np.ndarray  # (points, intervals) weights of the discrepancy's steps inside the ladder
    beyond: np.ndarray  # (points, steps) weights of its steps beyond the ladder
    of_size: np.ndarray  # (intervals,) whether a step is the deviation of a size
    of_new_size: np.ndarray  # (steps,)
    unfinished: np.ndarray  # (points, 2 or 0) share of the learning rate's fall that is to come,
    # and log of tokens over those at the run's end; no columns where all points are ends
    run: np.ndarray  # (points,) the run of each point
    recipe: np.ndarray  # (points,) the recipe of each point
    end: np.ndarray  # (runs,) the point at which each run ends
    twin: np.ndarray  # (runs,) the first run of the same params and tokens, of whichever recipe
    reference_loss: Seen
    loss: Seen
    accuracy: Seen
    chance: np.ndarray  # (tasks,)
    items: np.ndarray
    middle: Middle


def recipes(design: Design) -> int:
    """How many recipes the runs are of; 1 where they are all alike."""
    return int(design.middle.information.shape[0])


class Observed(NamedTuple):
    """Measurements as `Seen` has them, any number where nothing was; None is to be forecast."""

    log_reference_loss: np.ndarray | None = None  # (points, 1)
    log_loss: np.ndarray | None = None  # (points, tasks)
    accuracy: np.ndarray | None = None
    reference_loss_spread: np.ndarray | None = None  # (runs, 1) variance of its log ...
    loss_spread: np.ndarray | None = None  # (runs, tasks) ... between last checkpoints
    accuracy_spread: np.ndarray | None = None


class Labels(NamedTuple):
    """Names in the order of a design's indices; of recipes none where all runs are alike."""

    model: list[str]
    task: list[str]
    recipe: list[str]


class Shape(NamedTuple):
    """What a compiled fit depends on beside the number of tasks."""

    points: int
    runs: int
    intervals: int


LEAST_VARIANCE = 0.1
"""Of one question, added to that of its answer: near 0 and 1 runs differ by more than guessing."""


def binomial_variance(accuracy: Any, items: Any) -> Any:
    """Variance of an accuracy over so many items, kept well above zero at 0 and 1."""
    return (accuracy * (1 - accuracy) + LEAST_VARIANCE) / items


def loss_column(table: pd.DataFrame) -> str:
    """`loss` where the table has one, else `reference_loss`."""
    return c.LOSS if c.measured(table, c.LOSS) else c.REFERENCE_LOSS


def ladder_design(ladder: Ladder) -> tuple[Design, Observed, Labels, Frame]:
    """The design of a ladder's own rungs, with what was measured on them."""
    table = ladder.table
    quantities = [quantity for quantity in QUANTITIES if c.measured(table, quantity)]
    rows = run_ends(table)
    spreads = {
        quantity: checkpoint_spread(table, quantity, log=quantity != c.ACCURACY)
        for quantity in quantities
    }
    if ladder.rungs == "every":
        end = table.groupby(c.MODEL)[c.TOKENS].transform("max")
        rows = _few(table[table[c.TOKENS] > WARMUP_SHARE * end], quantities)
        # Every checkpoint is a row of the likelihood, which already tells their noise.
        spreads = {quantity: spread.iloc[:0] for quantity, spread in spreads.items()}
    rows = rows[rows[quantities].notna().any(axis=1)]
    present = set(rows[c.MODEL].unique())
    models = [model for model in ladder.models if model in present]
    labels = Labels(models, list(ladder.tasks.index), ladder.several_recipes)
    points = rows[[c.MODEL, c.PARAMS, c.TOKENS]].drop_duplicates()
    if labels.recipe:
        points[c.RECIPE] = points[c.MODEL].map(table.groupby(c.MODEL)[c.RECIPE].first())
    # By run, in the order of the runs, as the model expects where each has one point.
    order = pd.Index(models).get_indexer(points[c.MODEL])
    points = points.iloc[np.argsort(order, kind="stable")].reset_index(drop=True)
    ends = points.sort_values(c.TOKENS).groupby(c.MODEL).tail(1)
    frame = _frame(ends, points)._replace(recipes=tuple(labels.recipe))
    design = _design(points, ladder.tasks, labels, frame)
    if ladder.rungs == "every":
        whole = points.groupby(c.MODEL)[c.TOKENS].transform("max").to_numpy(float)
        share = points[c.TOKENS].to_numpy(float) / whole
        to_come = (1 + np.cos(np.pi * share)) / 2
        design = design._replace(unfinished=np.stack([to_come, np.log(share)], axis=1))

    values: dict[str, np.ndarray] = {}
    where: dict[str, Any] = {}
    at = pd.MultiIndex.from_frame(points[[c.MODEL, c.TOKENS]])
    point = at.get_indexer(pd.MultiIndex.from_frame(rows[[c.MODEL, c.TOKENS]]))
    for quantity in QUANTITIES:
        seen: Seen = getattr(design, quantity)
        columns = seen.at.shape[1]
        value, dof = np.zeros(seen.at.shape), np.zeros(seen.spread_dof.shape)
        known, checkpoints = np.zeros(seen.at.shape, bool), np.ones(seen.at.shape)
        variance = np.ones(dof.shape)
        if quantity in quantities:
            here = rows[quantity].notna().to_numpy()
            index = point[here], _columns(rows[c.TASK][here], labels, columns)
            given = rows[quantity].to_numpy(float)[here]
            value[index] = np.log(given) if SITES[quantity] != quantity else given
            checkpoints[index] = rows[c.CHECKPOINTS].to_numpy(float)[here]
            known[index] = True
            dof, variance = _spread(spreads[quantity], labels, columns)
        values |= {SITES[quantity]: value, f"{quantity}_spread": variance}
        where[quantity] = Seen(known, checkpoints, dof)
    design = design._replace(**where)
    return (
        design._replace(middle=_middle(design, values[c.ACCURACY])),
        Observed(**values),
        labels,
        frame,
    )


def _few(rows: pd.DataFrame, quantities: list[str]) -> pd.DataFrame:
    """Checkpoints of each run, neighbours averaged until at most `EVERY` points are left.

    Neighbours say next to the same of a law, and noise that all of them share does not average
    out: a point counts for at most `END_CHECKPOINTS`.
    """
    count = rows[c.CHECKPOINTS].fillna(1.0) if c.CHECKPOINTS in rows else 1.0
    rows = rows.assign(**{c.CHECKPOINTS: count})
    points = rows[[c.MODEL, c.TOKENS]].drop_duplicates().sort_values([c.MODEL, c.TOKENS])
    runs = points.groupby(c.MODEL)[c.TOKENS]
    rank, number = runs.rank(ascending=False), runs.transform("size")
    # The last point of a run is its end.
    points["point"] = np.ceil((rank - 1) * (EVERY - 1) / np.maximum(number - 1, EVERY - 1))
    points[c.TOKENS + "_mean"] = np.exp(
        np.log(points[c.TOKENS].astype(float)).groupby([points[c.MODEL], points["point"]])
        .transform("mean")
    ).round().astype("int64")  # fmt: skip
    rows = rows.merge(points, on=[c.MODEL, c.TOKENS])
    rows[c.TOKENS] = rows.pop(c.TOKENS + "_mean")
    known = rows[quantities].notna()
    keys = [rows[word] for word in (c.MODEL, c.TASK, c.PARAMS, c.TOKENS)]
    weight = known.mul(rows[c.CHECKPOINTS], axis=0).groupby(keys).sum()
    total = rows[quantities].mul(rows[c.CHECKPOINTS], axis=0).groupby(keys).sum()
    found = total / weight.where(weight > 0)
    found[c.CHECKPOINTS] = weight.max(axis=1).clip(1.0, END_CHECKPOINTS)
    return found.reset_index()


def _middle(design: Design, accuracy: np.ndarray) -> Middle:
    """The middle of rungs with these accuracies (points, tasks), any number where not measured."""
    chance, at = design.chance, design.accuracy.at

    def sums(x: np.ndarray) -> np.ndarray:
        return _sums(x, design.recipe, recipes(design))

    def shares(weight: np.ndarray) -> np.ndarray:
        return np.asarray(weight / _or_one(sums(weight))[design.recipe])

    variance = binomial_variance(accuracy, design.items)
    measured, sd = _smooth(design, accuracy, np.sqrt(variance))
    # The lower end is where the lowest rungs are, or at chance.
    low = np.where(at, np.clip((1 - measured) / (1 - chance), 0, 1) ** 2 / variance, 0.0)
    floor = np.minimum(np.sum(low * measured, axis=0) / _or_one(low.sum(axis=0)), chance)
    rise = np.maximum((measured - floor) * (1 - measured) / (1 - floor), LEAST_RISE)
    told = np.where(at, rise**2 / variance, 0.0)
    weights = {word: getattr(design, word).at.astype(float) for word in (c.REFERENCE_LOSS, c.LOSS)}
    weights[c.ACCURACY] = told
    weight, compute = shares(told), (design.log_params + design.log_tokens)[:, None]
    slope = told * (compute - sums(weight * compute)[design.recipe])
    information = np.maximum(sums(slope * compute), LEAST_INFORMATION)
    slope = slope / information[design.recipe]
    return Middle(
        shares(weights[c.REFERENCE_LOSS]), shares(weights[c.LOSS]),
        weight, slope, information, slope**2 * variance,
        {quantity: _trend(design, own) for quantity, own in weights.items()},
        measured, np.clip(sd, *SDS),
        {quantity: _known(getattr(design, quantity), len(design.end)) for quantity in QUANTITIES},
    )  # fmt: skip


def _smooth(design: Design, accuracy: np.ndarray, sd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies (points, tasks) drawn towards a curve, and their SDs; 0.5 where not measured.

    The curve is a parabola in the log of compute, one for each recipe and task. Of what accuracies
    are off it, the share is taken away that so few questions leave to chance.
    """
    at, compute = design.accuracy.at, design.log_params + design.log_tokens
    smooth, sd = np.where(at, accuracy, 0.5), sd.copy()
    for recipe, task in np.ndindex(recipes(design), at.shape[1]):
        own = at[:, task] & (design.recipe == recipe), task
        terms = min(3, np.sum(own[0]) - 1)
        if terms < 2:
            continue
        x = compute[own[0]] - compute[own[0]].mean()
        powers = np.vander(x / (np.abs(x).max() or 1.0), terms) / sd[own][:, None]
        onto, scales, _ = np.linalg.svd(powers, full_matrices=False)
        onto = onto[:, scales > 1e-9 * scales[0]]
        value = smooth[own] / sd[own]
        off = value - onto @ (onto.T @ value)
        noise = min(1.0, (len(off) - onto.shape[1]) / max(off @ off, 1e-9))
        smooth[own] -= noise * off * sd[own]
        sd[own] *= np.sqrt(1 - noise + noise * np.sum(onto**2, axis=1))
    return smooth, sd


def _trend(design: Design, weight: np.ndarray) -> np.ndarray:
    """Weights (points, tasks) by which logs or logits are summed to their slopes in each run."""
    if not design.unfinished.shape[1]:
        return np.zeros_like(weight)
    ahead = design.unfinished[:, 1:]

    def sums(x: np.ndarray) -> np.ndarray:
        return _sums(x, design.run, len(design.end))

    off = ahead - (sums(weight * ahead) / _or_one(sums(weight)))[design.run]
    return np.asarray(weight * off / _or_one(sums(weight * off**2))[design.run])


def _sums(x: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Sums (groups, tasks) of (points, tasks) over the points of each group."""
    found = np.zeros((groups, x.shape[1]))
    np.add.at(found, group, x)
    return found


def _or_one(total: np.ndarray) -> np.ndarray:
    """To divide by: one where there is nothing."""
    return np.where(total > 0, total, 1.0)


def _known(seen: Seen, runs: int) -> np.ndarray:
    within = np.maximum(seen.at.sum(axis=0) - runs, 0) + seen.spread_dof.sum(axis=0)
    return np.asarray(within / (within + runs))


def target_design(
    targets: pd.DataFrame, tasks: pd.DataFrame, frame: Frame, *, of_sizes: bool = True
) -> tuple[Design, pd.DataFrame]:
    """The design of targets, all tasks of each jointly; and its rows (`model ... task`).

    `targets` has one row per model with `params, tokens, checkpoints`, uniquely named, and with
    `recipe` where the frame has several. Without `of_sizes`, discrepancy is the walks alone: no
    size deviates.
    """
    rows = targets.merge(pd.DataFrame({c.TASK: list(tasks.index)}), how="cross")
    labels = Labels(list(targets[c.MODEL]), list(tasks.index), list(frame.recipes))
    words = [c.MODEL, c.PARAMS, c.TOKENS, *([c.RECIPE] if frame.recipes else [])]
    points = targets[words].reset_index(drop=True)
    design = _design(points, tasks, labels, frame, of_sizes=of_sizes)
    checkpoints = targets[c.CHECKPOINTS].to_numpy(float)[:, None]
    everywhere: dict[str, Any] = {}
    for quantity in QUANTITIES:
        seen: Seen = getattr(design, quantity)
        of_all = np.broadcast_to(checkpoints, seen.at.shape)
        everywhere[quantity] = Seen(np.ones_like(seen.at), of_all, seen.spread_dof)
    return design._replace(**everywhere), rows


def in_few_shapes(design: Design) -> Design:
    """The design of targets in arrays of few sizes: forecasts of equally many share a program."""
    runs, steps = few_sizes(len(design.end)), design.beyond.shape[1]
    room = Shape(runs, runs, few_sizes(design.walk.shape[1], LEAST_STEPS))
    wide, _ = pad(design, Observed(), room)
    # Each target is at most a step in params, one in tokens and a new size beyond the ladder. Those
    # of a grid share most steps.
    most = few_sizes(3 * runs if runs <= FEW_TARGETS else steps, LEAST_STEPS)
    return wide._replace(
        beyond=np.pad(wide.beyond, [(0, 0), (0, most - steps)]),
        of_new_size=np.pad(wide.of_new_size, (0, most - steps)),
    )


def shape_of(design: Design) -> Shape:
    """The shape of a design, which another can be padded to."""
    return Shape(len(design.log_params), len(design.end), design.walk.shape[1])


def pad(design: Design, observed: Observed, to: Shape) -> tuple[Design, Observed]:
    """The same data in larger arrays: runs, points and intervals of which nothing was measured.

    So ladders of different size, as a backtest's, share what was compiled for the largest. Raises
    ValueError where `to` is smaller.
    """
    own = shape_of(design)
    if min(more := [b - a for a, b in zip(own, to, strict=True)]) < 0:
        raise ValueError(f"a design of {own} does not fit into {to}")
    points, runs, intervals = more

    def longer(x: np.ndarray, rows: int, value: float = 0.0) -> np.ndarray:
        return np.pad(x, [(0, rows), (0, 0)][: x.ndim], constant_values=value)

    def wider(x: np.ndarray) -> np.ndarray:
        return np.pad(x, [(0, points), (0, intervals)])

    where: dict[str, Any] = {
        quantity: Seen(
            longer(seen.at, points, False),
            longer(seen.checkpoints, points, 1.0),
            longer(seen.spread_dof, runs),
        )
        for quantity in QUANTITIES
        for seen in [getattr(design, quantity)]
    }
    # The added runs end at the added points, or share the last.
    last = max(to.points - 1, 0)
    added = np.minimum(own.points + np.arange(runs), last)
    of_point = np.minimum(own.runs + np.arange(points), to.runs - 1)
    return design._replace(
        log_params=longer(design.log_params, points),
        log_tokens=longer(design.log_tokens, points),
        walk=wider(design.walk),
        of_size=np.pad(design.of_size, (0, intervals)),
        beyond=longer(design.beyond, points),
        unfinished=longer(design.unfinished, points),
        middle=design.middle._replace(
            reference_loss=longer(design.middle.reference_loss, points),
            loss=longer(design.middle.loss, points),
            accuracy=longer(design.middle.accuracy, points),
            slope=longer(design.middle.slope, points),
            trends={quantity: longer(x, points) for quantity, x in design.middle.trends.items()},
            measured=longer(design.middle.measured, points, 0.5),
            sd=longer(design.middle.sd, points, SDS[1]),
            scatter=longer(design.middle.scatter, points),
        ),
        run=np.concatenate([design.run, of_point]),
        recipe=longer(design.recipe, points, 0),
        end=np.concatenate([design.end, added]),
        twin=np.concatenate([design.twin, own.runs + np.arange(runs)]),
        **where,
    ), Observed(
        **{
            name: longer(value, runs if name.endswith("spread") else points, 1.0)
            for name, value in observed._asdict().items()
            if value is not None
        }
    )


def cells(design: Design, quantity: str) -> np.ndarray:
    """Whether a quantity was measured on each run at all, (runs, tasks)."""
    seen: Seen = getattr(design, quantity)
    return np.asarray(_sums(seen.at, design.run, len(design.end)) > 0)


def _columns(tasks: pd.Series, labels: Labels, columns: int) -> np.ndarray:
    """The column of each task; zero for a quantity that all tasks share."""
    if columns == 1 and len(labels.task) > 1:
        return np.zeros(len(tasks), int)
    return pd.Index(labels.task).get_indexer(tasks)


def _spread(spread: pd.DataFrame, labels: Labels, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Degrees of freedom (0 where unknown) and variance between checkpoints, (runs, columns)."""
    dof, variance = (np.full((len(labels.model), columns), x) for x in (0.0, 1.0))
    # A spread of zero says that the values were rounded or repeated, not that noise is absent.
    known = spread[spread[c.MODEL].isin(labels.model) & (spread["variance"] > 0)]
    run = pd.Index(labels.model).get_indexer(known[c.MODEL])
    index = run, _columns(known[c.TASK], labels, columns)
    dof[index], variance[index] = known["dof"], known["variance"]
    return dof, variance


def size_numbers(params: Any) -> np.ndarray:
    """Whole numbers (models,) that are alike for models of one size."""
    return np.round(np.log10(np.asarray(params, float)) / SIZE_DECADES).astype(int)


def _frame(ends: pd.DataFrame, points: pd.DataFrame) -> Frame:
    middle = {word: np.log10(ends[word].to_numpy(float)).mean() for word in (c.PARAMS, c.TOKENS)}
    knots = {}
    for word, origin in middle.items():
        given = np.log10(points[word].to_numpy(float))
        up, down = (
            np.linspace(origin, end, 1 + max(1, int(np.ceil(abs(end - origin) / KNOT_DECADES))))
            for end in (given.max(), given.min())
        )
        knots[word] = tuple(np.concatenate([down[:0:-1], up]).tolist())
    return Frame(
        float(10 ** middle[c.PARAMS]), float(10 ** middle[c.TOKENS]),
        knots[c.PARAMS], knots[c.TOKENS],
        tuple(sorted(set(size_numbers(points[c.PARAMS]).tolist()))),
    )  # fmt: skip


def _steps(at: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Weights (points, intervals) of unit normal steps of a random walk from edges[0] to edges[-1].

    Straight inside an interval; `edges` may run upwards or downwards.
    """
    start, stop = edges[:-1], edges[1:]
    # Rungs of one size or length leave intervals without length.
    length = np.where(stop == start, 1.0, stop - start)
    share = np.clip((at[:, None] - start) / length, 0.0, 1.0)
    return np.sqrt(np.abs(stop - start)) * share


def _walks(points: pd.DataFrame, frame: Frame, of_sizes: bool) -> tuple[np.ndarray, ...]:
    """Weights (points, steps) of discrepancy's steps inside the ladder, and beyond it.

    Then of both, which steps (steps,) are deviations of sizes.
    """
    within, beyond = [], []
    slack = 1e-9
    for word, knots, origin in (
        (c.PARAMS, frame.params_knots, frame.params),
        (c.TOKENS, frame.tokens_knots, frame.tokens),
    ):
        at, edges = np.log10(points[word].to_numpy(float)), np.array(knots)
        middle = int(np.abs(edges - np.log10(origin)).argmin())
        up, down = edges[middle:], edges[: middle + 1][::-1]
        within += [_steps(at, up), _steps(at, down)]
        # Beyond the ladder the walk is exact: one step to each further target.
        higher = np.unique(np.append(at[at > up[-1] + slack], up[-1]))
        lower = np.unique(np.append(at[at < down[-1] - slack], down[-1]))[::-1]
        beyond += [_steps(at, higher), _steps(at, lower)]
    size = size_numbers(points[c.PARAMS])
    known = np.array(frame.sizes)
    new = np.setdiff1d(size, known)
    within.append(of_sizes * (size[:, None] == known))
    beyond.append(of_sizes * (size[:, None] == new))
    masks = (
        np.repeat([0.0] * (len(x) - 1) + [1.0], [own.shape[1] for own in x])
        for x in (within, beyond)
    )
    return np.concatenate(within, axis=1), np.concatenate(beyond, axis=1), *masks


def _twins(log_params: np.ndarray, log_tokens: np.ndarray) -> np.ndarray:
    """The first run (runs,) whose params and tokens at its end are those of each, to a percent."""
    sizes = pd.Series(list(zip(np.round(log_params, 2), np.round(log_tokens, 2), strict=True)))
    return np.asarray(sizes.map(dict(zip(sizes[::-1], sizes.index[::-1], strict=True))), int)


def _design(
    points: pd.DataFrame, tasks: pd.DataFrame, labels: Labels, frame: Frame, *,
    of_sizes: bool = True,
) -> Design:  # fmt: skip
    """Everything but what was measured."""
    log_params = np.log(points[c.PARAMS].to_numpy(float))
    log_tokens = np.log(points[c.TOKENS].to_numpy(float))
    walk, beyond, of_size, of_new_size = _walks(points, frame, of_sizes)
    run = pd.Index(labels.model).get_indexer(points[c.MODEL])
    recipe = np.zeros(len(points), int)
    if labels.recipe:
        recipe = pd.Index(labels.recipe).get_indexer(points[c.RECIPE])
    recipes = max(len(labels.recipe), 1)
    longest = pd.Series(log_tokens).groupby(run).idxmax()
    items = tasks[c.ITEMS].to_numpy(float)
    chance = tasks[c.CHANCE].to_numpy(float)
    nowhere = np.zeros((len(points), len(tasks)))

    def nothing(columns: int) -> Seen:
        shape = (len(points), columns)
        dof = np.zeros((len(labels.model), columns))
        return Seen(np.zeros(shape, bool), np.ones(shape), dof)

    return Design(
        log_params=log_params - np.log(frame.params),
        log_tokens=log_tokens - np.log(frame.tokens),
        walk=walk,
        beyond=beyond,
        of_size=of_size,
        of_new_size=of_new_size,
        unfinished=np.zeros((len(points), 0)),
        run=run,
        recipe=recipe,
        end=longest.to_numpy(int),
        twin=_twins(log_params[longest], log_tokens[longest]),
        reference_loss=nothing(1),
        loss=nothing(len(tasks)),
        accuracy=nothing(len(tasks)),
        # Where only losses were measured, nothing reads it.
        chance=np.where(np.isfinite(chance), chance, 0.0),
        items=np.where(np.isfinite(items), items, DEFAULT_ITEMS),
        middle=Middle(
            np.zeros((len(points), 1)), nowhere, nowhere, nowhere,
            np.full((recipes, len(tasks)), LEAST_INFORMATION), nowhere,
            {c.REFERENCE_LOSS: nowhere[:, :1], c.LOSS: nowhere, c.ACCURACY: nowhere},
            nowhere + 0.5, nowhere + SDS[1],
            {
                quantity: np.zeros(1 if quantity == c.REFERENCE_LOSS else len(tasks))
                for quantity in QUANTITIES
            },
        ),
    )  # fmt: skip

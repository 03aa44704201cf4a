"""The stages of a route: losses from laws, accuracy from a loss, and the noise of both.

These are the parts of which routes are made. What a part samples it declares for the sampler, in
`infer=`: an `offset` is what the data rather tell of a site, so that this less the offset hangs
together little with other sites; a `unit` goes in proportion with the SD with which they tell it,
where that depends on other sites; what is `held` stays where it is while a mode is searched.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array, nn
from jax.typing import ArrayLike
from numpyro import handlers

from laddercast.model import laws
from laddercast.model.design import Design, Observed, Seen, binomial_variance, recipes
from laddercast.model.discrepancy import LEAST_BEYOND, Scales, Walk, scale_of, walk
from laddercast.model.likelihood import FLOOR, T_VARIANCE, Runs, one_each
from laddercast.model.priors import Priors
from laddercast.sampling.programs import once

LEAST_SLOPE_SD = 0.02
"""Of logits with the log of compute: none is taken to be known more closely."""

LEAST_SLOPE = 0.01
"""Of what a logit falls with: it falls with compute, but can be flat within a ladder."""

RUNS_THAT_PIN = 10
"""Runs whose common effects a task that follows them in full pins as well as all tasks do."""


class Path(NamedTuple):
    """What stage 2 reads: logs (points, tasks) relative to the value at the reference sizes.

    As the law has it within the ladder, with discrepancy beyond, and with what is known of the
    run's effect; then the variance (runs, tasks) that is left of that effect, in squares of a
    scale, and all of its variance; whether it is of a loss that is measured; and by how much of law
    and discrepancy each size is off, where it is.
    """

    law: Array
    discrepancy: Array
    run: Array
    left: ArrayLike = 0.0
    variance: ArrayLike = 0.0
    measured: bool = False
    size_near: ArrayLike = 0.0
    size_full: ArrayLike = 0.0


class Noise(NamedTuple):
    """Squares of scales (tasks,) of a run's effect, of one checkpoint about that; effects shared.

    `correlation` (tasks,) is the share of the first that a task has in common with all others,
    `shared` (runs, tasks) that part of the effect itself.
    """

    run: Array
    checkpoint: Array
    correlation: Array
    shared: Array

    @property
    def variance(self) -> Array:
        """All of the variance (tasks,) of a run's effect."""
        return self.run * (self.correlation + T_VARIANCE * (1 - self.correlation))


def tasks_plate(design: Design) -> numpyro.plate:
    """The plate of tasks, the last dimension of whatever each task has for itself."""
    return numpyro.plate("task", design.chance.shape[0], dim=-1)


def scalar(
    priors: Priors, name: str, *, offset: ArrayLike | None = None, held: bool = False
) -> Array:
    """A site that all tasks have in common."""
    return numpyro.sample(name, getattr(priors, name), infer=_declared(offset, held))


def of_tasks(
    design: Design, priors: Priors, name: str, offset: ArrayLike | None = None,
    unit: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """A site (tasks,) that is not pooled."""
    with tasks_plate(design):
        return numpyro.sample(name, getattr(priors, name), infer=_declared(offset, unit=unit))


def pooled(
    design: Design, priors: Priors, name: str, *, offset: ArrayLike | None = None,
    held: bool = False,
) -> Array:  # fmt: skip
    """A site (tasks,) that is normal between tasks, with its center and scale."""
    return pooled_about(design, priors, name, offset=offset, held=held)[1]


def pooled_about(
    design: Design, priors: Priors, name: str, *, offset: ArrayLike | None = None,
    held: bool = False,
) -> tuple[Array, Array]:  # fmt: skip
    """The center of a pooled site, and its values (tasks,)."""
    center = scalar(priors, f"{name}_center", held=held)
    # At a joint mode, scales of what is not integrated out are too small by far.
    scale = scalar(priors, f"{name}_scale", held=True)
    with tasks_plate(design):
        normal = dist.Normal(center, scale)
        return center, numpyro.sample(name, normal, infer=_declared(offset, held))


def level_of(
    design: Design, priors: Priors, name: str, offset: Array, unit: Array | None = None
) -> tuple[Array, Array]:  # fmt: skip
    """A level of each task (tasks,) that is not pooled, and of each recipe (recipes, tasks)."""
    of_all = (None if x is None else jnp.mean(x, axis=0) for x in (offset, unit))
    value = of_tasks(design, priors, name, *of_all)
    return value, of_recipes(design, priors, name, value, offset, unit)


def of_recipes(
    design: Design, priors: Priors, name: str, value: Array, offset: ArrayLike,
    unit: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """What each recipe (recipes, tasks) has in the place of the value of each task (tasks,).

    A recipe is off by a part common to its tasks, and each of its tasks by one about that. Where
    there is one recipe, it has the value itself.
    """
    count = recipes(design)
    if count == 1:
        return value[None]
    common = between_recipes(design, priors, f"{name}_recipe")
    scale = scalar(priors, f"{name}_recipe_task_scale", held=True)
    with numpyro.plate("recipe", count, dim=-2), tasks_plate(design):
        about = dist.Normal(value + common[:, None], scale)
        return numpyro.sample(f"{name}_recipe_task", about, infer=_declared(offset, unit=unit))


def between_recipes(
    design: Design, priors: Priors, name: str, value: ArrayLike = 0.0,
    offset: ArrayLike | None = None,
) -> Array:  # fmt: skip
    """What each recipe (recipes,) has about a value in common, the value itself of one recipe."""
    count = recipes(design)
    if count == 1:
        return jnp.reshape(jnp.asarray(value), 1)
    scale = scalar(priors, f"{name}_scale", held=True)
    with numpyro.plate("recipe", count):
        return numpyro.sample(name, dist.Normal(value, scale), infer=_declared(offset))


def of_points(x: Array, design: Design) -> Array:
    """Of (recipes, ...) that of each point's recipe (points, ...), or of the one there is (...)."""
    return x[0] if recipes(design) == 1 else x[design.recipe]


def in_middle(weights: ArrayLike, x: Array, design: Design) -> Array:
    """The mean (recipes, tasks) of x (points, tasks) in the middle of each recipe's rungs."""
    weighted = jnp.asarray(weights) * x
    if recipes(design) == 1:
        return jnp.sum(weighted, axis=0)[None]
    return jax.ops.segment_sum(weighted, design.recipe, recipes(design))


def _declared(
    offset: ArrayLike | None, held: bool = False, unit: ArrayLike | None = None
) -> dict[str, Any]:
    given = {"offset": offset, "unit": unit, "held": held or None}
    return {name: x for name, x in given.items() if x is not None}


def noise_of(design: Design, priors: Priors, quantity: str) -> Noise:
    """Noise of a quantity that each task has.

    Sampled are the sum of both squares, and how much of it is a checkpoint's: where each run was
    measured once, only the sum shows. The shared effects are those of a mean task, as tasks pin
    them, and not what they are in units of a scale: of a typical one where runs are few; with many
    runs, of tasks that follow them closely, as those of the same questions do.
    """
    # Two rungs fit any law: a mode would have no noise.
    typical_share, share = pooled_about(
        design, priors, f"logit_share_checkpoint_{quantity}", held=True
    )
    told = _told_of_noise(design, quantity, share)
    typical_noise, log_noise = pooled_about(
        design, priors, f"log_noise_{quantity}", offset=told, held=True
    )
    run, checkpoint = _split(log_noise, share)
    run, checkpoint = run + FLOOR[quantity] ** 2, checkpoint + FLOOR[quantity] ** 2
    if len(design.chance) == 1:
        # Of one task, no part is common: all of the effect is integrated out.
        return Noise(run, checkpoint, jnp.zeros(1), jnp.zeros((len(design.end), 1)))
    typical, _ = _split(typical_noise, typical_share)
    typical_correlation, correlation = _correlation_of_runs(design, priors, quantity)
    runs = design.end.shape[0]
    of_pinned = _pinned(typical_correlation * typical, correlation, run, runs)
    variance, of_twins = of_pinned, jnp.zeros(())
    if recipes(design) > 1:
        # What makes all tasks of a run better or worse is mostly its schedule: recipes that were
        # trained alike have that in common, so that it cancels where they are compared.
        share = scalar(priors, f"run_{quantity}_twin_share", held=True)
        with numpyro.plate("model", runs):
            # Of each schedule, the element of its first run; others are not read.
            normal = dist.Normal(0, jnp.sqrt(share * variance))
            of_twins = numpyro.sample(f"run_{quantity}_twins", normal)[design.twin]
        variance = variance * (1 - share)
    with numpyro.plate("model", runs):
        shared = numpyro.sample(run_effects_of(quantity), dist.Normal(0, jnp.sqrt(variance)))
    shared = (shared + of_twins)[:, None]
    return Noise(run, checkpoint, correlation, jnp.sqrt(correlation * run / of_pinned) * shared)


def _correlation_of_runs(
    design: Design, priors: Priors, quantity: str
) -> tuple[ArrayLike, Array]:  # fmt: skip
    """Shares of the square of a run's effect that are common: of a typical task, and of each.

    In accuracy tasks follow what makes a run good or bad by very different parts. In loss one
    number forecasts better (docs/accuracy.md).
    """
    name, logit = _correlation_site(quantity, recipes(design) > 1)
    if not logit:
        one = scalar(priors, name, held=True)
        return one, jnp.broadcast_to(one, len(design.chance))
    typical, own = pooled_about(design, priors, name, held=True)
    return nn.sigmoid(typical), nn.sigmoid(own)


def _correlation_site(quantity: str, several_recipes: bool) -> tuple[str, bool]:
    """The name of that share, and whether it is pooled, as a logit.

    Of one recipe, the common part also stands for whatever else its runs differ by.
    """
    name = f"run_{quantity}{'_recipe' if several_recipes else ''}_correlation"
    return (f"logit_{name}", True) if quantity == "accuracy" else (name, False)


def run_effects_of(quantity: str) -> str:
    """The site (runs,) of what all tasks of a run have in common."""
    return f"run_{quantity}_shared"


def _pinned(typical: ArrayLike, correlation: ArrayLike, run: Array, runs: int) -> Array:
    """The variance of a run's common effect in the units in which it is sampled.

    Of the variance for a typical task and those for all tasks (..., tasks), the mean with weights.
    """
    weight = jnp.square(correlation) * runs / RUNS_THAT_PIN
    total = jnp.asarray(typical) + jnp.sum(weight * correlation * run, axis=-1)
    return total / (1 + jnp.sum(weight, axis=-1))


def drawn_scales_of_runs(
    priors: Priors, quantity: str, several_recipes: bool, tasks: int, runs: int, count: int
) -> Array:
    """Scales (count,) of what all tasks of a run share, drawn from priors."""
    of_correlation, logit = _correlation_site(quantity, several_recipes)
    keys = iter(jax.random.split(jax.random.key(0), 9))

    def both(name: str) -> tuple[Array, Array]:
        """Of a typical task (count, 1), and of each (count, tasks)."""
        center, scale = (
            getattr(priors, f"{name}_{of}").sample(next(keys), (count, 1))
            for of in ("center", "scale")
        )
        return center, center + scale * jax.random.normal(next(keys), (count, tasks))

    noise, share = both(f"log_noise_{quantity}"), both(f"logit_share_checkpoint_{quantity}")
    if logit:
        correlation = tuple(map(nn.sigmoid, both(of_correlation)))
    else:
        one = getattr(priors, of_correlation).sample(next(keys), (count, 1))
        correlation = one, jnp.broadcast_to(one, (count, tasks))
    typical, own = (_split(*pair)[0] for pair in zip(noise, share, strict=True))
    return jnp.sqrt(_pinned((correlation[0] * typical)[:, 0], correlation[1], own, runs))


def _told_of_noise(design: Design, quantity: str, share: Array) -> Array:
    """Offset of the log of all noise, given the logit of a checkpoint's share in its square.

    Many checkpoints tell their own noise, and the sum only with what runs add.
    """
    return nn.log_sigmoid(share) * (-design.middle.checkpoints[quantity] / 2)


def _split(log_noise: Array, share: Array) -> tuple[Array, Array]:
    variance, of_checkpoint = jnp.exp(2 * log_noise), nn.sigmoid(share)
    return variance * (1 - of_checkpoint), variance * of_checkpoint


class Terms(NamedTuple):
    """Exponents of N and D, logs of their parts (summing to 1) at the reference sizes.

    All (tasks,), or of several recipes exponents (points, tasks).
    """

    alpha: Array
    beta: Array
    log_a: Array
    log_b: Array


def terms(
    design: Design, priors: Priors, alpha: str, beta: str, log_reducible: ArrayLike = 0.0
) -> Terms:
    """The terms of a law per task; data tell its slopes at the reference sizes.

    `alpha` and `beta` name the pooled sites that hold the logs of its exponents.
    """
    log_a, log_b = log_parts(pooled(design, priors, "logit_share_a"))

    def exponent(name: str, log_part: Array) -> Array:
        found = pooled(design, priors, name, offset=-log_part - log_reducible)
        if recipes(design) > 1:
            off = of_points(between_recipes(design, priors, f"{name}_recipe"), design)
            found = found + off[:, None]
        return jnp.exp(found)

    return Terms(exponent(alpha, log_a), exponent(beta, log_b), log_a, log_b)


def log_parts(logit: Array) -> tuple[Array, Array]:
    """Logs of a share, given as a logit, and of the rest."""
    log_share = nn.log_sigmoid(logit)
    return log_share, log_share - logit


def log_law(
    design: Design, priors: Priors, found: Terms, log_e: ArrayLike | None = None,
    log_reducible: ArrayLike = 0.0,
) -> Array:  # fmt: skip
    """Log of a law at each point (points, tasks), over its value at the reference sizes.

    How N and D interact is sampled here, one for all tasks: `q`, and the power `gamma` of N with
    which the exponent of D goes.
    """
    # Rungs tell how sharply all of a loss bends where N and D meet, not the reducible part alone.
    told = None if log_e is None else jnp.mean(jnp.asarray(log_reducible))
    q, gamma = scalar(priors, "q", offset=told), scalar(priors, "gamma")
    beta = found.beta * jnp.exp(gamma * design.log_params[:, None])
    given = (
        design.log_params[:, None], design.log_tokens[:, None],
        found.log_a / q + log_reducible, found.log_b / q + log_reducible,
    )  # fmt: skip
    if log_e is None:
        return laws.log_reducible(*given, found.alpha, beta, q)
    return laws.log_loss(*given, log_e, found.alpha, beta, q)


def off_law(design: Design, priors: Priors, quantity: str) -> tuple[Walk, Noise]:
    """How a quantity that each task has is off its law: discrepancy, in logs or logits, and noise.

    Sampled before the law is, which follows it.
    """
    noise = noise_of(design, priors, quantity)
    log_scales = pooled_about(design, priors, f"log_walk_{quantity}", held=True)
    name = f"walk_{quantity}"
    share = share_of_recipes(design, priors, name)
    several = len(design.chance) > 1
    correlation = scalar(priors, f"{name}_correlation", held=True) if several else 0.0

    def scales(typical: Array, each: Array) -> Scales:
        common = jnp.sqrt(correlation) * typical if several else None
        return Scales(common, jnp.sqrt(1 - correlation) * each)

    inside = [scale_of(x) for x in log_scales]
    beyond = [jnp.hypot(x, LEAST_BEYOND.get(name, 0.0)) for x in inside]
    return walk(design, name, scales(*inside), scales(*beyond), share), noise


def share_of_recipes(design: Design, priors: Priors, name: str) -> ArrayLike | None:
    """The share of discrepancy's variance beyond the ladder that is each recipe's own."""
    if recipes(design) == 1:
        return None
    return scalar(priors, f"{name}_recipe_share", held=True)


def with_unfinished(
    design: Design, priors: Priors, quantity: str, found: Walk, left: Array
) -> Walk:
    """Discrepancy with that of points before their runs' ends, zero at ends.

    A part goes with the share of the learning rate's fall that is to come, one number for all runs
    and tasks. And each run (for each task, where the quantity has one) has a trend of its own along
    its tokens, as what makes a run good or bad early on need not do so later. Rungs tell it of what
    is `left` (points, tasks or 1) of them without, up to a number for each run.
    """
    if not design.unfinished.shape[1]:
        return found
    to_come, ahead = design.unfinished.T[..., None]
    excess = scalar(priors, f"unfinished_{quantity}") * to_come
    scale = scalar(priors, f"trend_{quantity}_scale", held=True)
    weighted, runs = design.middle.trends[quantity] * (left - excess), design.end.shape[0]
    told = jax.ops.segment_sum(weighted, design.run, runs)
    name, prior = f"trend_{quantity}", dist.Normal(0, scale)
    if quantity == "reference_loss":
        with numpyro.plate("model", runs):
            trend = numpyro.sample(name, prior, infer=_declared(told[:, 0]))[:, None]
    else:
        with numpyro.plate("model", runs, dim=-2), tasks_plate(design):
            trend = numpyro.sample(name, prior, infer=_declared(told))
    more = excess + trend[design.run] * ahead
    return found._replace(near=found.near + more, full=found.full + more)


def task_loss(
    design: Design, priors: Priors, observed: Observed, law: Path, off: tuple[Walk, Noise]
) -> Path:
    """What is known of each run's task loss, of which `law` has the logs less the level."""
    walk, noise = off
    known = law.run + at_points(noise.shared, design)
    walk = with_unfinished(design, priors, "loss", walk, -(known + walk.full))
    known = known + walk.full
    # Told best is the mean of what was measured.
    middle = in_middle(design.middle.loss, known, design)
    typical, own = level_of(design, priors, "log_loss_level", -middle)
    level = of_points(own, design)
    seen = design.loss
    runs = Runs(
        level + known,
        (1 - noise.correlation) * noise.run + law.left,
        noise.checkpoint / seen.checkpoints,
        design,
        seen,
    )
    value = numpyro.sample("log_loss", runs, obs=observed.log_loss)
    _spread("loss", noise.checkpoint, seen, observed.loss_spread)
    effect, left = runs.effect(value)
    # One curve of stage 2 goes for all recipes, whichever has the lower loss.
    off_typical = level - typical
    return Path(
        law.law + walk.near + off_typical, law.discrepancy + walk.full + off_typical,
        known + at_points(effect, design) + off_typical, left, noise.variance + law.variance, True,
        law.size_near + walk.size_near, law.size_full + walk.size_full,
    )  # fmt: skip


def reference_loss(design: Design, priors: Priors, observed: Observed) -> Path:
    """What is known of each run's reference loss, one for all tasks."""
    share = scalar(priors, "logit_share_checkpoint_reference", held=True)
    told = _told_of_noise(design, "reference_loss", share)[0]
    log_noise = jnp.log(scalar(priors, "noise_reference", offset=told, held=True))
    of_run, of_checkpoint = _split(log_noise, share)
    scale = scalar(priors, "walk_reference_scale", held=True)
    share_own = share_of_recipes(design, priors, "walk_reference")
    scales = Scales(scale, None)
    off = walk(design, "walk_reference", scales, scales, share_own)
    log_e, log_reducible = log_parts(scalar(priors, "logit_reference_share_e"))
    log_a, log_b = log_parts(scalar(priors, "logit_reference_share_a"))
    alpha = scalar(priors, "reference_alpha", offset=-log_a - log_reducible)
    beta = scalar(priors, "reference_beta", offset=-log_b - log_reducible)
    if recipes(design) > 1:
        # Of all tasks alike, (points, 1).
        off_alpha = between_recipes(design, priors, "reference_alpha_recipe")
        off_beta = between_recipes(design, priors, "reference_beta_recipe")
        alpha = alpha * jnp.exp(of_points(off_alpha, design))[:, None]
        beta = beta * jnp.exp(of_points(off_beta, design))[:, None]
    found = Terms(alpha, beta, log_a, log_b)
    law = log_law(design, priors, found, log_e, log_reducible)
    off = with_unfinished(design, priors, "reference_loss", off, -(law + off.full))
    known = law + off.full
    middle = in_middle(design.middle.reference_loss, known, design)[:, 0]
    level = scalar(priors, "log_reference_level", offset=-jnp.mean(middle))
    if recipes(design) > 1:
        own = between_recipes(design, priors, "log_reference_level_recipe", level, -middle)
        level = of_points(own, design)[:, None]
    seen = design.reference_loss
    runs = Runs(level + known, of_run, of_checkpoint / seen.checkpoints, design, seen)
    value = numpyro.sample("log_reference_loss", runs, obs=observed.log_reference_loss)
    _spread("reference_loss", of_checkpoint, seen, observed.reference_loss_spread)
    effect, left = runs.effect(value)
    return Path(
        law + off.near, known, known + at_points(effect, design), left, T_VARIANCE * of_run, True,
        off.size_near, off.size_full,
    )  # fmt: skip


def accuracy(
    design: Design, priors: Priors, observed: Observed, path: Path, off: tuple[Walk, Noise],
    steepness: str,
) -> None:  # fmt: skip
    """Stage 2: the logit falls in a straight line with the loss, or with the direct law.

    `steepness` names the pooled site that holds the log of how fast: `log_slope` or `log_rise`.
    """
    logit_gap = of_tasks(design, priors, "logit_gap")
    log_lower = of_tasks(design, priors, "log_lower")
    lower, upper = laws.ends(log_lower, logit_gap, design.chance)
    walk, noise = off
    log_x = path.run
    passed: ArrayLike = 1.0
    if path.measured:
        # A run whose loss is good by chance, or by the configuration of its size, is not as good in
        # accuracy.
        passing = nn.sigmoid(pooled(design, priors, "logit_passing"))
        without = path.discrepancy - path.size_full
        log_x = without + passing * (path.run - without)
        path = path._replace(
            law=path.law - (1 - passing) * path.size_near,
            discrepancy=without + passing * path.size_full,
        )
        passed = passing**2

    # Told best, once discrepancy is known, are the slope in compute and the logit in the middle of
    # the rungs.
    middle, x = design.middle, jnp.expm1(log_x)
    left, per_accuracy = _logit(middle.measured, middle.sd, lower, upper)
    left = left - walk.full
    slopes, falls = in_middle(middle.slope, left, design), -in_middle(middle.slope, x, design)
    variance = in_middle(middle.scatter, per_accuracy**2, design)
    share = middle.information / jnp.sum(middle.information, axis=0)
    of_all = (jnp.sum(share * x, axis=0) for x in (slopes, falls, share * variance))
    told = _log_ratio(*of_all)
    log_steep = pooled(design, priors, steepness, offset=told)
    told = _log_ratio(slopes, falls, variance)
    steeps = jnp.exp(of_recipes(design, priors, steepness, log_steep, told))
    told = in_middle(middle.accuracy, left + of_points(steeps, design) * x, design)
    moves = in_middle(middle.accuracy, per_accuracy, design)
    # Of a recipe in which a task was not measured there is no middle.
    moves = jnp.where(moves > 0, moves, 1.0)
    _, levels = level_of(design, priors, "logit_level", told, moves)
    steep, level = of_points(steeps, design), of_points(levels, design)
    walk = with_unfinished(design, priors, "accuracy", walk, left + steep * x)

    def risen(log_x: Array, shift: Array) -> Array:
        return nn.sigmoid(level - steep * jnp.expm1(log_x) + shift)

    def curve(risen: Array) -> Array:
        return lower + (upper - lower) * risen

    of_upper = once(risen(log_x, walk.full))
    p = curve(of_upper)
    p_end, of_upper, x_end = (at_ends(x, design) for x in (p, of_upper, jnp.exp(log_x)))
    unit = binomial_variance(p_end, design.items)
    # The fall of accuracy with the log of what stage 2 reads.
    if recipes(design) > 1:
        steep = at_ends(steep, design)
    fall = steep * x_end * (upper - lower) * of_upper * (1 - of_upper)
    of_checkpoint, seen = noise.checkpoint * unit, design.accuracy
    runs = Runs(
        p + at_points(noise.shared * jnp.sqrt(unit), design),
        (1 - noise.correlation) * noise.run * unit + fall**2 * passed * path.left,
        at_points(of_checkpoint, design) / seen.checkpoints, design, seen,
    )  # fmt: skip
    numpyro.sample("accuracy", runs, obs=observed.accuracy)
    _spread("accuracy", of_checkpoint, seen, observed.accuracy_spread)
    numpyro.deterministic("law", curve(risen(path.law, walk.near)))
    numpyro.deterministic("discrepancy", curve(risen(path.discrepancy, walk.full)))
    own = noise.variance * unit
    numpyro.deterministic("run_variance", own + fall**2 * passed * path.variance)
    numpyro.deterministic(
        "checkpoint_variance",
        T_VARIANCE * of_checkpoint / at_ends(jnp.asarray(seen.checkpoints), design),
    )


def _logit(accuracy: Any, sd: Any, lower: Array, upper: Array) -> tuple[Array, Array]:
    """The logit of an accuracy between both ends, and by how much it moves with the accuracy.

    An end nearer than the accuracy's SD, or on the wrong side of it, is hardly followed.
    """
    logs, moves = zip(*(_log(x, sd) for x in (accuracy - lower, upper - accuracy)), strict=True)
    return logs[0] - logs[1], moves[0] + moves[1]


def _log_ratio(slope: Array, of_x: Array, variance: Array) -> Array:
    """Log of how much steeper a logit is than what it falls with, of slopes in compute.

    `variance` is that of the first one: if it may as well be zero it is hardly followed.
    """
    sd = jnp.maximum(jnp.sqrt(variance), LEAST_SLOPE_SD)
    return _log(slope, sd)[0] - _log(of_x, LEAST_SLOPE)[0]


def _log(x: Array, sd: Any) -> tuple[Array, Array]:
    """The log of what is positive and was measured as x with an SD, and its derivative by x.

    The log at which a normal density, taken in logs, is highest: that of x itself where it is many
    SDs above zero.
    """
    return jnp.arcsinh(x / (2 * sd)) + jnp.log(sd), jax.lax.rsqrt(x**2 + 4 * jnp.square(sd))


def _spread(quantity: str, variance: Array, seen: Seen, value: ArrayLike | None) -> None:
    """The variance between the last checkpoints of each run; no part of a forecast."""
    if value is None:
        return
    known = seen.spread_dof > 0
    half = jnp.where(known, seen.spread_dof, 1.0) / 2
    rate = half / jnp.broadcast_to(variance, half.shape)
    with handlers.mask(mask=known):
        numpyro.sample(f"{quantity}_spread", dist.Gamma(half, rate), obs=value)


def at_ends(x: Array, design: Design) -> Array:
    """Of (points, ...) those at which runs end, (runs, ...)."""
    return once(x) if one_each(design) else x[design.end]


def at_points(x: Array, design: Design) -> Array:
    """Of (runs, ...) that of each point's run, (points, ...)."""
    return once(x) if one_each(design) else x[design.run]

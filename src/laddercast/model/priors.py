"""The priors: one NumPyro distribution per symbol, to be replaced one by one."""

from collections.abc import Sequence
from dataclasses import Field, dataclass, field, fields
from math import log
from typing import Any

import jax
import numpy as np
import numpyro.distributions as dist

type Distribution = dist.Distribution


def _normal(loc: float, scale: float) -> Distribution:
    return field(default_factory=lambda: dist.Normal(loc, scale))


def _log_normal(median: float, scale: float) -> Distribution:
    return field(default_factory=lambda: dist.LogNormal(log(median), scale))


def _student_t(dof: float, loc: float, scale: float) -> Distribution:
    return field(default_factory=lambda: dist.StudentT(dof, loc, scale))


def _gamma(shape: float, mean: float) -> Distribution:
    return field(default_factory=lambda: dist.Gamma(shape, shape / mean))


def _beta(a: float, b: float) -> Distribution:
    return field(default_factory=lambda: dist.Beta(a, b))


@dataclass(frozen=True)
class Priors:
    """Priors of all routes; sites carry the names of the fields, and a route reads those it needs.

    `*_center` and `*_scale` are the mean and SD between tasks of what they are named after, on
    the scale given in README's notation table. `noise_*` is the scale of all noise, between runs
    and between checkpoints, `share_checkpoint_*` the logit of the latter's share of its square.
    Loss is in the ladder's unit, noise of loss in logs. Scales have densities that vanish at 0, so
    that pooling makes no funnel.

    >>> priors = lc.Priors(q=dist.LogNormal(0, 0.3))
    """

    # Task loss: its value at the reference sizes, its shares, its exponents, how N and D interact,
    # and the power of N with which the exponent of D goes.
    log_loss_level: Distribution = _normal(0.0, 1.0)
    log_alpha_center: Distribution = _normal(log(0.27), 0.4)
    log_alpha_scale: Distribution = _log_normal(0.2, 0.3)
    log_beta_center: Distribution = _normal(log(0.27), 0.4)
    log_beta_scale: Distribution = _log_normal(0.2, 0.3)
    logit_share_e_center: Distribution = _normal(-0.5, 0.5)
    logit_share_e_scale: Distribution = _log_normal(0.4, 0.3)
    logit_share_a_center: Distribution = _normal(0.4, 0.7)
    logit_share_a_scale: Distribution = _log_normal(0.4, 0.3)
    q: Distribution = _log_normal(1.5, 0.4)
    gamma: Distribution = _normal(0.0, 0.05)
    # The same of the reference loss, which is one for all tasks.
    log_reference_level: Distribution = _normal(0.7, 1.0)
    reference_alpha: Distribution = _log_normal(0.27, 0.2)
    reference_beta: Distribution = _log_normal(0.27, 0.2)
    logit_reference_share_e: Distribution = _normal(0.0, 0.7)
    logit_reference_share_a: Distribution = _normal(0.0, 0.7)
    # A chain: the power of the reference loss with which a task's loss falls, and the share of it
    # that would be left at a reference loss of zero.
    log_power_center: Distribution = _normal(log(3.0), 0.4)
    log_power_scale: Distribution = _log_normal(0.3, 0.3)
    logit_share_rest_center: Distribution = _normal(-1.5, 0.7)
    logit_share_rest_scale: Distribution = _log_normal(0.4, 0.3)
    # Stage 2: logit at the reference sizes, its fall with the relative loss (slope) or with the
    # direct law (rise, with exponents of its own), ends of the curve.
    logit_level: Distribution = _normal(-1.0, 1.5)
    log_slope_center: Distribution = _normal(log(7.0), 0.5)
    log_slope_scale: Distribution = _log_normal(0.4, 0.3)
    # Of models that know nothing some tasks score well below chance, few above it.
    log_lower: Distribution = _student_t(4.0, -0.03, 0.08)
    logit_gap: Distribution = _normal(-4.0, 0.6)
    # Of what a run's loss is off, the share that its accuracy follows.
    logit_passing_center: Distribution = _normal(0.0, 1.0)
    logit_passing_scale: Distribution = _log_normal(0.7, 0.4)
    log_rise_center: Distribution = _normal(log(3.0), 0.4)
    log_rise_scale: Distribution = _log_normal(0.4, 0.3)
    log_rise_alpha_center: Distribution = _normal(log(0.27), 0.15)
    log_rise_alpha_scale: Distribution = _log_normal(0.2, 0.3)
    log_rise_beta_center: Distribution = _normal(log(0.27), 0.15)
    log_rise_beta_scale: Distribution = _log_normal(0.2, 0.3)
    # Noise between runs, between checkpoints, and discrepancy from the laws.
    log_noise_loss_center: Distribution = _normal(log(0.0067), 0.7)
    log_noise_loss_scale: Distribution = _log_normal(0.5, 0.3)
    logit_share_checkpoint_loss_center: Distribution = _normal(-1.4, 1.0)
    logit_share_checkpoint_loss_scale: Distribution = _log_normal(0.8, 0.3)
    run_loss_correlation: Distribution = _beta(2.0, 3.0)
    noise_reference: Distribution = _log_normal(0.0022, 0.7)
    logit_share_checkpoint_reference: Distribution = _normal(-1.4, 1.5)
    log_noise_accuracy_center: Distribution = _normal(log(0.7), 0.6)
    log_noise_accuracy_scale: Distribution = _log_normal(0.3, 0.3)
    logit_share_checkpoint_accuracy_center: Distribution = _normal(-0.7, 0.8)
    logit_share_checkpoint_accuracy_scale: Distribution = _log_normal(0.6, 0.3)
    logit_run_accuracy_correlation_center: Distribution = _normal(-0.5, 0.8)
    logit_run_accuracy_correlation_scale: Distribution = _log_normal(1.0, 0.4)
    log_walk_loss_center: Distribution = _normal(log(0.004), 0.6)
    log_walk_loss_scale: Distribution = _log_normal(0.5, 0.3)
    walk_loss_correlation: Distribution = _beta(2.0, 3.0)
    walk_accuracy_correlation: Distribution = _beta(2.0, 3.0)
    # With a light tail: what one run after the other is off by much more is noise.
    walk_reference_scale: Distribution = _gamma(3.0, 0.0024)
    # Before a run's end: the excess at its peak learning rate, in logs or logits, and the SD of
    # trends along a run, per e-fold of tokens.
    unfinished_loss: Distribution = _normal(0.03, 0.03)
    unfinished_reference_loss: Distribution = _normal(0.03, 0.03)
    unfinished_accuracy: Distribution = _normal(0.0, 0.2)
    trend_loss_scale: Distribution = _log_normal(0.01, 0.6)
    trend_reference_loss_scale: Distribution = _log_normal(0.005, 0.6)
    trend_accuracy_scale: Distribution = _log_normal(0.1, 0.6)
    log_walk_accuracy_center: Distribution = _normal(log(0.07), 0.6)
    log_walk_accuracy_scale: Distribution = _log_normal(0.5, 0.3)
    # Between recipes: SDs of what each is off in common, and of its tasks about that. Levels may
    # lie far apart; of exponents and slopes two rungs tell little, so that they lie close together.
    log_loss_level_recipe_scale: Distribution = _log_normal(0.05, 0.8)
    log_loss_level_recipe_task_scale: Distribution = _log_normal(0.05, 0.8)
    log_reference_level_recipe_scale: Distribution = _log_normal(0.05, 0.8)
    logit_level_recipe_scale: Distribution = _log_normal(0.15, 0.8)
    logit_level_recipe_task_scale: Distribution = _log_normal(0.15, 0.8)
    log_alpha_recipe_scale: Distribution = _log_normal(0.05, 0.6)
    log_beta_recipe_scale: Distribution = _log_normal(0.05, 0.6)
    reference_alpha_recipe_scale: Distribution = _log_normal(0.05, 0.6)
    reference_beta_recipe_scale: Distribution = _log_normal(0.05, 0.6)
    log_slope_recipe_scale: Distribution = _log_normal(0.05, 0.6)
    log_slope_recipe_task_scale: Distribution = _log_normal(0.05, 0.6)
    log_rise_recipe_scale: Distribution = _log_normal(0.05, 0.6)
    log_rise_recipe_task_scale: Distribution = _log_normal(0.05, 0.6)
    log_rise_alpha_recipe_scale: Distribution = _log_normal(0.05, 0.6)
    log_rise_beta_recipe_scale: Distribution = _log_normal(0.05, 0.6)
    # Where recipes account for what tasks have in common, runs have less of it.
    run_loss_recipe_correlation: Distribution = _beta(1.0, 9.0)
    logit_run_accuracy_recipe_correlation_center: Distribution = _normal(-2.5, 1.0)
    logit_run_accuracy_recipe_correlation_scale: Distribution = _log_normal(1.0, 0.4)
    # Of what runs have in common, the part that runs of other recipes but the same sizes have, too.
    run_loss_twin_share: Distribution = _beta(2.0, 2.0)
    run_accuracy_twin_share: Distribution = _beta(2.0, 2.0)
    # Of discrepancy beyond the ladder, the share of the variance that each recipe has to itself.
    walk_loss_recipe_share: Distribution = _beta(2.0, 8.0)
    walk_reference_recipe_share: Distribution = _beta(2.0, 8.0)
    walk_accuracy_recipe_share: Distribution = _beta(2.0, 8.0)

    def __post_init__(self) -> None:
        wrong = [
            f"{prior.name} is a {type(getattr(self, prior.name)).__name__}"
            for prior in fields(self)
            if isinstance(getattr(self, prior.name), int | float | str | None)
        ]
        if wrong:
            raise TypeError(f"{'; '.join(wrong)}; give NumPyro distributions")
        faults = [fault for prior in fields(self) if (fault := _outside(prior, self))]
        if faults:
            raise ValueError("; ".join(faults))


PLACES = np.array([-1e9, -1e3, -1.0, -1e-3, 1e-3, 0.5, 0.999, 1.001, 2.0, 1e3, 1e9])
"""On both sides of what can bound a parameter, 0 and 1."""


def _outside(prior: Field, priors: Priors) -> str:
    """What is wrong with the support of a prior: it must lie in that of the default."""
    make: Any = prior.default_factory
    given, default = getattr(priors, prior.name), make()
    name = f"the prior of {prior.name}, {type(given).__name__}"
    if given.support.is_discrete:
        return f"{name}, is of whole numbers; give a continuous one"
    # Against all elements of an array of priors.
    places = PLACES.reshape(-1, *[1] * len(given.batch_shape))
    within = np.asarray(given.support(places)).reshape(len(PLACES), -1).any(axis=1)
    beyond = PLACES[within & ~np.asarray(default.support(PLACES))]
    if not len(beyond):
        return ""
    positive = default.support is dist.constraints.positive
    reached = "below 0" if (beyond < 0).any() else "above 1"
    bounds = "positive" if positive else "between 0 and 1"
    return (
        f"{name}, reaches {reached}, and {prior.name} is {bounds}; give one that is, as "
        f"{_words(default)}"
    )


def _words(prior: Distribution) -> str:
    names = ", ".join(f"{float(getattr(prior, name)):.3g}" for name in prior.arg_constraints)
    return f"{type(prior).__name__}({names})"


@jax.tree_util.register_pytree_node_class
class _InOrder:
    """A distribution whose parts have the same order in every process.

    NumPyro takes them from a set of strings, which Python orders anew in each process: what was
    compiled for one order would never be found again on disk.
    """

    def __init__(self, prior: Distribution) -> None:
        self.prior = prior

    def tree_flatten(self) -> tuple[tuple[Any, ...], Any]:
        names = type(self.prior).gather_pytree_data_fields()
        values, rest = self.prior.tree_flatten()
        parts = sorted(zip(names, values, strict=True), key=lambda part: part[0])
        return tuple(_in_order(value) for _, value in parts), (type(self.prior), rest)

    @classmethod
    def tree_unflatten(cls, about: Any, parts: Sequence[Any]) -> Distribution:
        kind, rest = about
        names = kind.gather_pytree_data_fields()
        of = dict(zip(sorted(names), parts, strict=True))
        return kind.tree_unflatten(rest, tuple(of[name] for name in names))


def _in_order(value: Any) -> Any:
    return _InOrder(value) if isinstance(value, dist.Distribution) else value


def _flatten(priors: Priors) -> tuple[tuple[_InOrder, ...], None]:
    return tuple(_in_order(getattr(priors, prior.name)) for prior in fields(priors)), None


def _unflatten(_: None, parts: Sequence[Any]) -> Priors:
    # Without a check of types: JAX passes placeholders.
    priors = object.__new__(Priors)
    for prior, part in zip(fields(Priors), parts, strict=True):
        object.__setattr__(priors, prior.name, part)
    return priors


# As a pytree, priors are data to a compiled fit: other numbers need no new compilation.
jax.tree_util.register_pytree_node(Priors, _flatten, _unflatten)

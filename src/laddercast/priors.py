"""The priors: one NumPyro distribution per symbol, to be replaced one by one."""

from dataclasses import dataclass, field, fields
from math import log

import jax
import numpyro.distributions as dist

type Distribution = dist.Distribution


def _normal(loc: float, scale: float) -> Distribution:
    return field(default_factory=lambda: dist.Normal(loc, scale))


def _log_normal(median: float, scale: float) -> Distribution:
    return field(default_factory=lambda: dist.LogNormal(log(median), scale))


def _uniform(low: float, high: float) -> Distribution:
    return field(default_factory=lambda: dist.Uniform(low, high))


def _beta(a: float, b: float) -> Distribution:
    return field(default_factory=lambda: dist.Beta(a, b))


@dataclass(frozen=True)
class Priors:
    """Priors of all routes; sites carry the names of the fields, and a route reads those it needs.

    `*_center` and `*_scale` are the mean and SD between tasks of what they are named after, on
    the scale given in README's notation table; of `checkpoint_loss` and `checkpoint_accuracy`
    relative to what lies between runs. Loss is in the ladder's unit, noise of loss in logs.
    Scales have densities that vanish at 0, so that pooling makes no funnel.
    """

    # Task loss: its value at the reference sizes, its shares, its exponents, how N and D interact.
    loss_level: Distribution = _normal(0.0, 1.0)
    alpha_center: Distribution = _normal(log(0.27), 0.15)
    alpha_scale: Distribution = _log_normal(0.2, 0.5)
    beta_center: Distribution = _normal(log(0.27), 0.15)
    beta_scale: Distribution = _log_normal(0.2, 0.5)
    share_e_center: Distribution = _normal(-0.5, 0.5)
    share_e_scale: Distribution = _log_normal(0.4, 0.3)
    share_a_center: Distribution = _normal(0.0, 0.5)
    share_a_scale: Distribution = _log_normal(0.4, 0.5)
    q: Distribution = _log_normal(1.5, 0.4)
    # The same of the reference loss, which is one for all tasks.
    reference_level: Distribution = _normal(0.7, 1.0)
    reference_alpha: Distribution = _log_normal(0.27, 0.2)
    reference_beta: Distribution = _log_normal(0.27, 0.2)
    reference_share_e: Distribution = _normal(0.0, 0.7)
    reference_share_a: Distribution = _normal(0.0, 0.7)
    # Stage 2: logit at the reference sizes, its fall with the relative loss (slope) or with the
    # direct law (rise), ends of the curve.
    accuracy_level: Distribution = _normal(-1.0, 1.5)
    slope_center: Distribution = _normal(log(7.0), 0.5)
    slope_scale: Distribution = _log_normal(0.4, 0.5)
    log_lower: Distribution = _normal(0.0, 0.06)
    gap: Distribution = _uniform(0.0, 0.03)
    rise_center: Distribution = _normal(log(4.5), 0.5)
    rise_scale: Distribution = _log_normal(0.4, 0.5)
    # Noise between runs, between checkpoints, and discrepancy from the laws.
    run_loss_center: Distribution = _normal(log(0.006), 0.7)
    run_loss_scale: Distribution = _log_normal(0.5, 0.4)
    run_loss_correlation: Distribution = _beta(2.0, 3.0)
    run_reference: Distribution = _log_normal(0.002, 0.7)
    run_accuracy_center: Distribution = _normal(log(0.5), 0.5)
    run_accuracy_scale: Distribution = _log_normal(0.3, 0.5)
    run_accuracy_correlation: Distribution = _beta(2.0, 3.0)
    checkpoint_loss_center: Distribution = _normal(log(0.5), 0.5)
    checkpoint_loss_scale: Distribution = _log_normal(0.4, 0.4)
    checkpoint_reference: Distribution = _log_normal(0.001, 1.0)
    checkpoint_accuracy_center: Distribution = _normal(log(0.7), 0.4)
    checkpoint_accuracy_scale: Distribution = _log_normal(0.3, 0.5)
    walk_loss_scale: Distribution = _log_normal(0.004, 0.6)
    walk_reference_scale: Distribution = _log_normal(0.002, 0.6)
    walk_accuracy_scale: Distribution = _log_normal(0.07, 0.5)

    def __post_init__(self) -> None:
        wrong = [
            f"{prior.name} is a {type(getattr(self, prior.name)).__name__}"
            for prior in fields(self)
            if isinstance(getattr(self, prior.name), int | float | str | None)
        ]
        if wrong:
            raise TypeError(f"{'; '.join(wrong)}; give NumPyro distributions")


# As a pytree, priors are data to a compiled fit: other numbers need no new compilation.
jax.tree_util.register_dataclass(
    Priors, data_fields=[prior.name for prior in fields(Priors)], meta_fields=[]
)

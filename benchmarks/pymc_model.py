"""Route `two_stage` in PyMC, from which nutpie makes machine code.

The density and the sites of `laddercast.two_stage`, those whose scale is sampled as standard
deviates, for ladders with one point per run.
"""

from typing import Any

import jax
import numpy as np
import numpyro.distributions as dist
import pymc as pm
import pytensor.tensor as pt

from laddercast.model.design import Design, Observed, Seen, binomial_variance
from laddercast.model.discrepancy import WIDEST
from laddercast.model.likelihood import FLOOR, RUN_DOF
from laddercast.model.priors import Priors
from laddercast.model.stages import RUNS_THAT_PIN


def two_stage(design: Design, priors: Priors, observed: Observed) -> pm.Model:
    """The model, given all of `observed`; ValueError where a run has more than one point."""
    if design.end.shape != design.run.shape:
        raise ValueError("a run has several points; the PyMC model is for one of each")
    # PyMC takes no arrays of JAX.
    design, observed = jax.tree.map(np.asarray, (design, observed))
    with pm.Model() as model:
        loss = _Measured("loss", design, priors)
        exponents = [pt.exp(_pooled(design, priors, f"log_{name}")) for name in ("alpha", "beta")]
        share_a, share_e = (_pooled(design, priors, f"logit_share_{name}") for name in "ae")
        q = _prior(priors, "q")
        exponents[1] = exponents[1] * pt.exp(_prior(priors, "gamma") * design.log_params[:, None])
        terms = [
            log_share - exponent * size[:, None] * q
            for log_share, exponent, size in zip(
                _log_parts(share_a), exponents, (design.log_params, design.log_tokens), strict=True
            )
        ]
        log_e, log_reducible = _log_parts(share_e)
        law = pt.logaddexp(pt.logaddexp(*terms) / q + log_reducible, log_e)
        level = _by_task(design, priors, "log_loss_level")
        effect, left = loss.condition(
            "log_loss", level + law + loss.walk + loss.shared, 1.0, 0.0, design.loss,
            observed.log_loss, observed.loss_spread,
        )  # fmt: skip

        accuracy = _Measured("accuracy", design, priors)
        height = _by_task(design, priors, "logit_level")
        upper = pt.sigmoid(-_by_task(design, priors, "logit_gap"))
        lower = pt.minimum(design.chance * pt.exp(_by_task(design, priors, "log_lower")), upper)
        slope = pt.exp(_pooled(design, priors, "log_slope"))
        passing = pt.sigmoid(_pooled(design, priors, "logit_passing"))
        x = pt.exp(law + loss.walk - loss.sizes + passing * (loss.sizes + loss.shared + effect))
        of_upper = pt.sigmoid(height - slope * (x - 1) + accuracy.walk)
        p = lower + (upper - lower) * of_upper
        unit = binomial_variance(p, design.items)
        fall = slope * x * (upper - lower) * of_upper * (1 - of_upper)
        accuracy.condition(
            "accuracy", p + accuracy.shared * pt.sqrt(unit), unit, (fall * passing) ** 2 * left,
            design.accuracy, observed.accuracy, observed.accuracy_spread,
        )  # fmt: skip
    return model


class _Measured:
    """Noise (tasks,) of a quantity, effects that runs share, and discrepancy (points, tasks)."""

    def __init__(self, name: str, design: Design, priors: Priors) -> None:
        of_both, of_checkpoint = f"log_noise_{name}", f"logit_share_checkpoint_{name}"
        log_noise = _pooled(design, priors, of_both)
        share = _pooled(design, priors, of_checkpoint)
        self.name, floor = name, FLOOR[name] ** 2
        self.run, self.checkpoint = (part + floor for part in _split(log_noise, share))
        model = pm.modelcontext(None)
        typical, _ = _split(model[f"{of_both}_center"], model[f"{of_checkpoint}_center"])
        if name == "accuracy":
            logit = _pooled(design, priors, f"logit_run_{name}_correlation")
            self.correlation = pt.sigmoid(logit)
            common = pt.sigmoid(model[f"logit_run_{name}_correlation_center"]) * typical
        else:
            self.correlation = _prior(priors, f"run_{name}_correlation")
            common = self.correlation * typical
        # One number where it is of all tasks.
        correlation = self.correlation * pt.ones(len(design.chance))
        weight = correlation**2 * len(design.end) / RUNS_THAT_PIN
        common = (common + (weight * correlation * self.run).sum()) / (1 + weight.sum())
        shared = _deviates(f"run_{name}_shared", 0.0, pt.sqrt(common), len(design.end))
        self.shared = pt.sqrt(self.correlation * self.run / common) * shared[:, None]
        own = _bounded(_pooled(design, priors, f"log_walk_{name}"))
        typical = _bounded(model[f"log_walk_{name}_center"])
        correlation = _prior(priors, f"walk_{name}_correlation")
        steps, tasks = design.walk.shape[1], len(design.chance)
        common = _deviates(f"walk_{name}_common", 0.0, pt.sqrt(correlation) * typical, steps)
        own = _deviates(f"walk_{name}", 0.0, pt.sqrt(1 - correlation) * own, (steps, tasks))
        off = common[:, None] + own
        self.walk = pt.dot(design.walk, off)
        self.sizes = pt.dot(design.walk * design.of_size, off)

    def condition(
        self, site: str, loc: Any, unit: Any, added: Any, seen: Seen, value: Any, spread: Any
    ) -> tuple[Any, Any]:
        """Condition on what was measured; means of runs' effects, and the variance left of them.

        Variances are in squares of `unit`; `added` is what a run's effect has beside its own.
        """
        run = (1 - self.correlation) * self.run * unit + added
        total = run + self.checkpoint * unit / seen.checkpoints
        at = np.nonzero(seen.at)
        scale = pt.sqrt(total)
        pm.StudentT(site, RUN_DOF, loc[at], sigma=scale[at], observed=value[at])
        known = np.nonzero(seen.spread_dof > 0)
        if len(known[0]):
            half = seen.spread_dof[known] / 2
            rate = half / (self.checkpoint * unit * np.ones(seen.spread_dof.shape))[known]
            pm.Gamma(f"{self.name}_spread", half, rate, observed=spread[known])
        share, off = pt.switch(seen.at, run / total, 0.0), value - loc
        wider = pt.switch(seen.at, (RUN_DOF + off**2 / total) / (RUN_DOF + 1), 1.0)
        return share * off, run * (1 - share) * wider


def _bounded(log_scale: Any) -> Any:
    return WIDEST / (1 + WIDEST * pt.exp(-log_scale))


def _prior(priors: Priors, name: str, **shape: int) -> Any:
    prior = getattr(priors, name)
    match prior:
        case dist.StudentT():
            nu, mu, sigma = (float(x) for x in (prior.df, prior.loc, prior.scale))
            return pm.StudentT(name, nu=nu, mu=mu, sigma=sigma, **shape)
        case dist.LogNormal():
            return pm.LogNormal(name, float(prior.loc), float(prior.scale), **shape)
        case dist.Normal():
            return pm.Normal(name, float(prior.loc), float(prior.scale), **shape)
        case dist.Beta():
            of_one, of_zero = float(prior.concentration1), float(prior.concentration0)
            return pm.Beta(name, of_one, of_zero, **shape)
    raise ValueError(f"{name} is a {type(prior).__name__}, which is not written for PyMC")


def _by_task(design: Design, priors: Priors, name: str) -> Any:
    return _prior(priors, name, shape=len(design.chance))


def _deviates(name: str, center: Any, scale: Any, shape: int | tuple[int, ...]) -> Any:
    deviate = pm.Normal(f"{name}_decentered", shape=shape)
    return pm.Deterministic(name, center + scale * deviate)


def _pooled(design: Design, priors: Priors, name: str) -> Any:
    center, scale = _prior(priors, f"{name}_center"), _prior(priors, f"{name}_scale")
    return _deviates(name, center, scale, len(design.chance))


def _split(log_noise: Any, share: Any) -> tuple[Any, Any]:
    variance, of_checkpoint = pt.exp(2 * log_noise), pt.sigmoid(share)
    return variance * (1 - of_checkpoint), variance * of_checkpoint


def _log_parts(logit: Any) -> tuple[Any, Any]:
    log_share = -pt.softplus(-logit)
    return log_share, log_share - logit

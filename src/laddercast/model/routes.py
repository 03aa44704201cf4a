"""The routes from params and tokens to accuracy: each a NumPyro model, to fit and to forecast.

A route conditions on what was observed and forecasts what was not, in the order of the design's
points. Sites `law` and `discrepancy` are successive levels of the forecast of accuracy: the laws as
the ladder bends them, then with discrepancy beyond the ladder; `run_variance` and
`checkpoint_variance` are what the run's effect and its checkpoints' noise add to the latter. A
route to a loss alone has none of these four.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from laddercast.data import words as c
from laddercast.data.writing import nearest
from laddercast.model import laws
from laddercast.model.design import Design, Frame, Observed
from laddercast.model.discrepancy import Walk
from laddercast.model.letters import letters
from laddercast.model.priors import Priors
from laddercast.model.stages import (
    Noise,
    Path,
    accuracy,
    at_ends,
    log_law,
    log_parts,
    off_law,
    pooled,
    reference_loss,
    task_loss,
    terms,
)

NOTHING = Observed()

type Letters = Callable[[Mapping[str, Any], Frame, Any], dict[str, Any]]


def _no_letters(posterior: Mapping[str, Any], frame: Frame, chance: Any) -> dict[str, Any]:
    """Of a route that says no more than its sites; a function of a module, as it is pickled."""
    return {}


@dataclass(frozen=True)
class Route:
    """A way from params and tokens to accuracy, or to loss, to fit, pool, score and backtest.

    `model(design, priors, observed)` is a NumPyro model with the sites that this module's first
    lines tell. `reads` are the columns that it conditions on, `through` says in a few words what it
    goes through. `letters` makes more variables of its posterior's draws (chains, draws, ...), each
    with the reference sizes of the ladder and the chance of each task at hand.

    >>> mine = lc.Route("mine", lc.direct.model, reads=("accuracy",), through="a law of mine")
    """

    name: str
    model: Callable[[Design, Priors, Observed], None]
    reads: tuple[str, ...]
    through: str
    letters: Letters = _no_letters


def _own_loss(design: Design, priors: Priors, observed: Observed, off: tuple[Walk, Noise]) -> Path:
    """Each task's loss from a law of its own."""
    log_e, log_reducible = log_parts(pooled(design, priors, "logit_share_e"))
    found = terms(design, priors, "log_alpha", "log_beta", log_reducible)
    law = log_law(design, priors, found, log_e, log_reducible)
    return task_loss(design, priors, observed, Path(law, law, law), off)


def _stage_1(design: Design, priors: Priors, observed: Observed = NOTHING) -> None:
    _own_loss(design, priors, observed, off_law(design, priors, "loss"))


def _two_stage(design: Design, priors: Priors, observed: Observed = NOTHING) -> None:
    of_loss = off_law(design, priors, "loss")
    of_accuracy = off_law(design, priors, "accuracy")
    path = _own_loss(design, priors, observed, of_loss)
    accuracy(design, priors, observed, path, of_accuracy, "log_slope")


def _by_reference(design: Design, priors: Priors, observed: Observed = NOTHING) -> None:
    off = off_law(design, priors, "accuracy")
    path = reference_loss(design, priors, observed)
    accuracy(design, priors, observed, path, off, "log_slope")


def _direct(design: Design, priors: Priors, observed: Observed = NOTHING) -> None:
    off = off_law(design, priors, "accuracy")
    law = log_law(design, priors, terms(design, priors, "log_rise_alpha", "log_rise_beta"))
    accuracy(design, priors, observed, Path(law, law, law), off, "log_rise")


def _chain(design: Design, priors: Priors, observed: Observed = NOTHING) -> None:
    # The task loss is a shifted power of the reference loss (as in arXiv 2411.12925). What is left
    # unknown of a run's reference loss counts in the noise of each task loss by itself.
    of_loss = off_law(design, priors, "loss")
    of_accuracy = off_law(design, priors, "accuracy")
    reference = reference_loss(design, priors, observed)
    log_rest, log_power = log_parts(pooled(design, priors, "logit_share_rest"))
    power = jnp.exp(pooled(design, priors, "log_power", offset=-log_power))

    def law(log_x: Array) -> Array:
        return laws.log_sum(log_power + power * log_x, log_rest)

    log_of_run, of_law, full = map(law, (reference.run, reference.law, reference.discrepancy))
    # By how much the log of a task's loss falls with that of the reference loss.
    fall = power * (1 - jnp.exp(log_rest - at_ends(log_of_run, design)))
    path = Path(
        of_law, full, log_of_run, fall**2 * reference.left, fall**2 * reference.variance,
        size_near=of_law - law(reference.law - reference.size_near),
        size_full=full - law(reference.discrepancy - reference.size_full),
    )  # fmt: skip
    path = task_loss(design, priors, observed, path, of_loss)
    accuracy(design, priors, observed, path, of_accuracy, "log_slope")


two_stage = Route("two_stage", _two_stage, (c.LOSS, c.ACCURACY), "each task's loss", letters)
by_reference = Route(
    "by_reference", _by_reference, (c.REFERENCE_LOSS, c.ACCURACY), "the reference loss", letters
)
direct = Route("direct", _direct, (c.ACCURACY,), "no measured loss", letters)
chain = Route(
    "chain", _chain, (c.REFERENCE_LOSS, c.LOSS, c.ACCURACY),
    "the reference loss, then each task's", letters,
)  # fmt: skip

stage_1 = Route("stage_1", _stage_1, (c.LOSS,), "each task's loss, and no further", letters)

ROUTES = {route.name: route for route in (two_stage, by_reference, direct, chain, stage_1)}

POOLED_BY_DEFAULT = (two_stage, by_reference, direct)
"""Backtests said that `chain` adds nothing to these. Without accuracies, `stage_1` is fitted."""


def as_route(given: Route | str) -> Route:
    """The route of this name, or the route itself. Raises ValueError for another name.

    >>> route = lc.routes.as_route("direct")
    """
    if isinstance(given, Route):
        return given
    if given not in ROUTES:
        near = nearest(given, ROUTES) if isinstance(given, str) else None
        meant = f"did you mean {near}? " if near else ""
        raise ValueError(
            f"no route {given!r}: {meant}give one of {', '.join(ROUTES)}, or a `Route`"
        )
    return ROUTES[given]

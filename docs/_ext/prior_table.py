"""Directive `prior-table`: the priors of `Priors()` as they are, beside what each symbol means."""

from collections.abc import Iterator
from dataclasses import fields
from math import exp
from typing import Any, NamedTuple

import jax
import numpy as np
import numpyro.distributions as dist
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from laddercast.model.priors import Priors


class Meaning(NamedTuple):
    """What a prior is of. `scale` of the site: "log", "logit" or "" (as it is)."""

    symbol: str
    meaning: str
    unit: str = ""
    scale: str = ""


GROUPS: dict[str, dict[str, Meaning]] = {
    "The law of a task's loss": {
        "log_loss_level": Meaning("", "loss at the reference sizes", "loss", "log"),
        "logit_share_e": Meaning("E", "share of E in that loss", "fraction", "logit"),
        "logit_share_a": Meaning(
            "A, B", "A's part in what is left, also of `direct`", "fraction", "logit"
        ),
        "log_alpha": Meaning("alpha", "exponent of N", "", "log"),
        "log_beta": Meaning("beta", "exponent of D", "", "log"),
        "q": Meaning("q", "how N and D interact, of all routes; 1: their terms add up"),
        "gamma": Meaning("gamma", "power of N with which the exponent of D goes, of all routes"),
    },
    "The law of the reference loss": {
        "log_reference_level": Meaning("", "loss at the reference sizes", "loss", "log"),
        "logit_reference_share_e": Meaning("E", "share of E in that loss", "fraction", "logit"),
        "logit_reference_share_a": Meaning("A, B", "A's part in what is left", "fraction", "logit"),
        "reference_alpha": Meaning("alpha", "exponent of N"),
        "reference_beta": Meaning("beta", "exponent of D"),
    },
    "Task loss from reference loss, in a chain": {
        "log_power": Meaning(
            "", "power with which the task loss of `chain` follows reference loss", "", "log"
        ),
        "logit_share_rest": Meaning(
            "", "share of that loss that a reference loss of zero would leave", "fraction", "logit"
        ),
    },
    "Stage 2": {
        "logit_level": Meaning("L0", "stage 2 at the reference sizes", "fraction", "logit"),
        "log_slope": Meaning("k", "fall of the logit with the relative loss", "logit", "log"),
        "log_rise": Meaning(
            "", "rise of the logit as the direct law falls from 1 to 0", "logit", "log"
        ),
        "log_rise_alpha": Meaning("alpha", "exponent of N in the direct law", "", "log"),
        "log_rise_beta": Meaning("beta", "exponent of D in the direct law", "", "log"),
        "logit_passing": Meaning(
            "",
            "of what a run's loss is off its law, the share that accuracy follows",
            "fraction",
            "logit",
        ),
        "log_lower": Meaning("a + b", "lower end of the curve over chance", "ratio", "log"),
        "logit_gap": Meaning(
            "1 - b", "gap between 1 and the upper end of the curve", "fraction", "logit"
        ),
    },
    "Noise": {
        "log_noise_loss": Meaning(
            "", "scale of log loss, run and one checkpoint together", "log loss", "log"
        ),
        "logit_share_checkpoint_loss": Meaning(
            "", "checkpoint's share in the square of that scale", "fraction", "logit"
        ),
        "run_loss_correlation": Meaning(
            "", "part of the run's share that all tasks have in common", "fraction"
        ),
        "noise_reference": Meaning("", "scale of log reference loss, likewise", "log loss"),
        "logit_share_checkpoint_reference": Meaning(
            "", "checkpoint's share in its square", "fraction", "logit"
        ),
        "log_noise_accuracy": Meaning(
            "", "scale of accuracy, likewise, over sqrt((p (1 - p) + 0.1) / items)", "ratio", "log"
        ),
        "logit_share_checkpoint_accuracy": Meaning(
            "", "checkpoint's share in its square", "fraction", "logit"
        ),
        "logit_run_accuracy_correlation": Meaning(
            "", "part of the run's share that the task has in common with all", "fraction", "logit"
        ),
    },
    "Discrepancy": {
        "log_walk_loss": Meaning(
            "",
            "SD of log task loss, per root decade of params and of tokens, and of a size",
            "log loss",
            "log",
        ),
        "walk_loss_correlation": Meaning(
            "", "part of its square that all tasks have in common", "fraction"
        ),
        "walk_reference_scale": Meaning("", "SD of log reference loss, likewise", "log loss"),
        "log_walk_accuracy": Meaning("", "SD of the logit, likewise", "logit", "log"),
        "walk_accuracy_correlation": Meaning(
            "", "part of its square that all tasks have in common", "fraction"
        ),
    },
    "Between recipes": {
        "log_loss_level_recipe_scale": Meaning(
            "", "SD between recipes of the log of the loss, in common", "log loss"
        ),
        "log_loss_level_recipe_task_scale": Meaning(
            "", "... SD about that of each task's", "log loss"
        ),
        "log_reference_level_recipe_scale": Meaning(
            "", "SD between recipes of the log of the reference loss", "log loss"
        ),
        "logit_level_recipe_scale": Meaning("", "SD of the logit, in common", "logit"),
        "logit_level_recipe_task_scale": Meaning("", "... about that of each task's", "logit"),
        "log_alpha_recipe_scale": Meaning("", "SD of the log of alpha", "log"),
        "log_beta_recipe_scale": Meaning("", "SD of the log of beta", "log"),
        "reference_alpha_recipe_scale": Meaning("", "the same of the reference loss", "log"),
        "reference_beta_recipe_scale": Meaning("", "the same of the reference loss", "log"),
        "log_slope_recipe_scale": Meaning("", "SD of the log of the slope, in common", "log"),
        "log_slope_recipe_task_scale": Meaning("", "... about that of each task's", "log"),
        "log_rise_recipe_scale": Meaning("", "SD of the log of the rise, in common", "log"),
        "log_rise_recipe_task_scale": Meaning("", "... about that of each task's", "log"),
        "log_rise_alpha_recipe_scale": Meaning("", "SD of the log of its alpha", "log"),
        "log_rise_beta_recipe_scale": Meaning("", "SD of the log of its beta", "log"),
        "run_loss_recipe_correlation": Meaning(
            "", "of several recipes, in the place of that without `recipe`", "fraction"
        ),
        "logit_run_accuracy_recipe_correlation": Meaning("", "likewise", "fraction", "logit"),
        "run_loss_twin_share": Meaning(
            "", "part of that which runs of the same params and tokens share", "fraction"
        ),
        "run_accuracy_twin_share": Meaning("", "... of accuracy", "fraction"),
        "walk_loss_recipe_share": Meaning(
            "", "a recipe's own part of the square of discrepancy beyond the ladder", "fraction"
        ),
        "walk_reference_recipe_share": Meaning("", "... of the reference loss", "fraction"),
        "walk_accuracy_recipe_share": Meaning("", "... of the logit", "fraction"),
    },
    "Before the end of a run": {
        "unfinished_loss": Meaning(
            "", "excess of log task loss at the peak learning rate", "log loss"
        ),
        "unfinished_reference_loss": Meaning("", "the same of log reference loss", "log loss"),
        "unfinished_accuracy": Meaning("", "the same of the logit", "logit"),
        "trend_loss_scale": Meaning(
            "", "SD between runs of trends of log task loss, per e-fold of tokens", "log loss"
        ),
        "trend_reference_loss_scale": Meaning("", "the same of log reference loss", "log loss"),
        "trend_accuracy_scale": Meaning("", "the same of the logit", "logit"),
    },
}
"""Groups in the page's order, each with its quantities in the order shown.

A quantity is a field of `Priors`, or what `*_center` and `*_scale` fields are the mean and the SD
between tasks of; `*_scale` without a center is a quantity itself. A field without an entry fails
the build, as does an entry without a field.
"""

CENTER, SCALE = "_center", "_scale"
INTERVAL = (0.05, 0.5, 0.95)
DRAWS = 1_000_000
TO_NATURAL = {"log": np.exp, "logit": lambda x: 1 / (1 + np.exp(-x)), "": lambda x: x}


def rows(priors: Priors) -> Iterator[tuple[str, Meaning, list[tuple[str, Any]]]]:
    """Group, meaning and `(field, distribution)` of each quantity, in the page's order."""
    for group, quantities in GROUPS.items():
        for quantity, meaning in quantities.items():
            found = [(name, getattr(priors, name)) for name in fields_of(quantity, priors)]
            yield group, meaning, found


def fields_of(quantity: str, priors: Priors) -> list[str]:
    """The fields of a quantity: its own, or its center and scale; [] if there are none."""
    names = [prior.name for prior in fields(priors)]
    return [name for name in (quantity, quantity + CENTER, quantity + SCALE) if name in names]


def faults(priors: Priors) -> list[str]:
    """Fields without a meaning, and meanings without a field."""
    quantities = [quantity for group in GROUPS.values() for quantity in group]
    covered = [name for quantity in quantities for name in fields_of(quantity, priors)]
    lost = [prior.name for prior in fields(priors) if prior.name not in covered]
    stale = [quantity for quantity in quantities if not fields_of(quantity, priors)]
    twice = sorted({name for name in covered if covered.count(name) > 1})
    return [
        *(f"Priors.{name} has no meaning; add it to GROUPS in {__file__}" for name in lost),
        *(f"{name} is no field of Priors; delete it from GROUPS in {__file__}" for name in stale),
        *(f"Priors.{name} is in GROUPS of {__file__} twice; keep one" for name in twice),
    ]


def described(prior: dist.Distribution) -> str:
    """A distribution as one would type it; locations that are logs of round numbers as `log x`."""
    values = [_number(float(getattr(prior, name)), name) for name in prior.arg_constraints]
    return f"{type(prior).__name__}({', '.join(values)})"


def implied(prior: dist.Distribution, scale: str) -> str:
    """Median and 90 % interval, as the quantity's own scale has them."""
    # From draws, for not all distributions have an inverse of their CDF.
    draws = np.asarray(prior.sample(jax.random.key(0), (DRAWS,)))
    low, middle, high = TO_NATURAL[scale](np.quantile(draws, INTERVAL))
    return f"{middle:.2g} ({low:.2g} to {high:.2g})"


def _number(value: float, name: str) -> str:
    natural = exp(value) if name == "loc" else 0.0
    if round(value, 3) != value and abs(natural - float(f"{natural:.3g}")) < 1e-5 * natural:
        return f"log {natural:.3g}"
    return f"{value:.4g}"


HEAD = ("symbol", "field of `Priors`", "meaning", "unit", "prior", "median (90 %)")


class PriorTable(SphinxDirective):
    """`{prior-table}`: takes no arguments."""

    def run(self) -> list[nodes.Node]:
        """One table a group, written as Markdown and parsed in place."""
        priors = Priors()
        for fault in faults(priors):
            self.state.document.reporter.warning(fault, line=self.lineno)
        parsed = []
        for group in GROUPS:
            lines = [f"**{group}**", "", _line(HEAD), _line(["---"] * len(HEAD))]
            for of, meaning, found in rows(priors):
                if of == group:
                    lines += [_line(cells) for cells in _cells(meaning, found)]
            parsed += self.parse_text_to_nodes("\n".join(lines))
        return parsed


def _cells(meaning: Meaning, found: list[tuple[str, Any]]) -> Iterator[list[str]]:
    pooled = len(found) > 1
    for name, prior in found:
        spread = pooled and name.endswith(SCALE)
        what = f"... its SD between tasks, on the {meaning.scale or 'same'} scale"
        yield [
            "" if spread else meaning.symbol,
            f"`{name}`",
            what if spread else f"{meaning.meaning}{', mean of tasks' if pooled else ''}",
            "" if spread else meaning.unit,
            described(prior),
            implied(prior, "" if spread else meaning.scale),
        ]


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def setup(app: Any) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("prior-table", PriorTable)
    return {"parallel_read_safe": True}

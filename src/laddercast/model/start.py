"""Where to begin the search for a mode: levels and noise as they were measured."""

from typing import Any

import numpy as np

from laddercast.model.design import Design, Observed
from laddercast.model.priors import Priors


def start(design: Design, priors: Priors, observed: Observed) -> dict[str, Any]:
    """Values of sites to begin at; those that a route does not have do no harm."""
    accuracy: Any = observed.accuracy

    def mean(value: Any, seen: Any, default: float) -> np.ndarray:
        count = seen.at.sum(axis=0)
        total = np.where(seen.at, value, 0.0).sum(axis=0)
        return np.where(count > 0, total / np.maximum(count, 1), default)

    share = np.clip((accuracy - design.chance) / (1 - design.chance), 0.02, 0.98)
    logit = np.log(share / (1 - share))

    # As if laws explained little of how rungs differ: where noise is far too small, the rungs that
    # lie furthest off rule the search.
    def noise(value: Any, seen: Any, prior: Any, unit: Any = 1.0) -> np.ndarray:
        off = np.where(seen.at, value - mean(value, seen, 0.0), 0.0) ** 2
        spread = np.sqrt(off.sum(axis=0) / np.maximum(seen.at.sum(axis=0), 1)) / unit
        return np.fmax(spread / 6, prior)  # of a prior without a mean, the spread

    of_loss, of_accuracy = (
        np.exp(np.asarray(getattr(priors, f"log_noise_{word}_center").mean))
        for word in ("loss", "accuracy")
    )
    unit = np.sqrt((mean(accuracy, design.accuracy, 0.25) * 0.5 + 1 / design.items) / design.items)
    values = {
        "log_loss_level": mean(observed.log_loss, design.loss, 0.0),
        "log_reference_level": mean(observed.log_reference_loss, design.reference_loss, 1.0)[0],
        "logit_level": mean(logit, design.accuracy, -1.0),
        "log_noise_loss": np.log(noise(observed.log_loss, design.loss, of_loss)),
        "log_noise_accuracy": np.log(noise(accuracy, design.accuracy, of_accuracy, unit)),
    }
    prior = priors.noise_reference
    of_reference = noise(
        observed.log_reference_loss, design.reference_loss, np.asarray(prior.mean)
    )[0]
    if prior.support(of_reference):
        values["noise_reference"] = of_reference
    return values

"""Random numbers of a target that are the same whichever other targets are asked for."""

from collections.abc import Callable, Mapping
from typing import Any
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist
from numpyro import handlers
from numpyro.primitives import Messenger

from laddercast.data import words as c
from laddercast.model.design import Design, Observed
from laddercast.model.discrepancy import BEYOND
from laddercast.model.likelihood import RUN_DOF, Runs
from laddercast.model.priors import Priors

RUNS = "runs"

type Kinds = dict[str, tuple[str, tuple[int, ...]]]
"""Of each site that a forecast draws: whether of steps, of targets or of runs; its shape."""


class Given(Messenger):  # type: ignore[misc]
    """Gives sites their values by standard deviates, where there are any."""

    def __init__(self, fn: Any, deviates: Mapping[str, Any]) -> None:
        self.deviates = deviates
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        """Replace the value of a site that nothing else has given."""
        if msg["name"] in self.deviates and msg["value"] is None:
            fn, deviate = msg["fn"], self.deviates[msg["name"]]
            msg["value"] = (
                fn.of_deviates(deviate)
                if isinstance(fn, Runs)
                else fn.mean + jnp.sqrt(fn.variance) * deviate
            )


def kinds_of(model: Callable[..., None], design: Design, draw: Mapping[str, Any]) -> Kinds | None:
    """The sites that a forecast from a draw of the posterior draws itself; None if some are others.

    Of a model with such sites nothing is known of what belongs to which target.
    """
    found: Kinds = {}
    others = []

    def look(draw: Mapping[str, Any]) -> None:
        put = handlers.substitute(handlers.seed(model, jax.random.key(0)), data=draw)
        for name, site in handlers.trace(put).get_trace(design, Priors(), Observed()).items():
            if site["type"] != "sample" or name in draw:
                continue
            fn, plates = site["fn"], [frame.name for frame in site["cond_indep_stack"]]
            plate = next((own for own in (BEYOND, c.MODEL) if own in plates), None)
            if isinstance(fn, Runs):
                found[name] = RUNS, site["value"].shape
            elif plate and isinstance(getattr(fn, "base_dist", fn), dist.Normal):
                found[name] = plate, site["value"].shape
            else:
                others.append(name)

    jax.eval_shape(look, draw)
    return None if others else found


def deviates_of(
    kinds: Kinds, targets: list[str], weights: np.ndarray, steps: list[str], draws: int, seed: int
) -> dict[str, np.ndarray]:
    """Standard deviates (draws, targets, ...) of each site, each from its name and its row's.

    Those of `BEYOND` are sums of those of `steps` by their `weights` (targets, steps): how far a
    walk has gone at each target.
    """
    found = {}
    for site, (kind, shape) in kinds.items():
        deviates = np.zeros((draws, *shape))
        for row, name in enumerate(steps if kind == BEYOND else targets):
            numbers = [seed % 2**64, crc32(site.encode()), crc32(name.encode())]
            generator = np.random.default_rng(numbers)
            size = draws, *shape[1:]
            if kind == BEYOND:
                drawn = generator.standard_normal(size)
                for target in np.flatnonzero(weights[:, row]):
                    deviates[:, target] += weights[target, row] * drawn
            elif kind == RUNS:
                deviates[:, row] = generator.standard_t(RUN_DOF, size)
            else:
                deviates[:, row] = generator.standard_normal(size)
        found[site] = deviates
    return found

"""What candidates would measure and what targets are, drawn together from a fit or from priors."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from numpyro import handlers

from laddercast.data import words as c
from laddercast.data.ladder import Ladder
from laddercast.forecasting.forecasts import models_of, sites_of
from laddercast.forecasting.grids import thinned
from laddercast.inference.results import frame_of, known_routes, routes_of, tasks_of
from laddercast.model.design import (
    SITES,
    Design,
    Observed,
    in_few_shapes,
    ladder_design,
    target_design,
)
from laddercast.model.likelihood import RUN_DOF, T_VARIANCE, Runs
from laddercast.model.priors import Priors
from laddercast.model.routes import Route
from laddercast.sampling.chains import on_device
from laddercast.sampling.programs import in_batches

AS_NORMAL = (RUN_DOF + 3) / (RUN_DOF + 1)
"""Variance over squared scale of a normal that tells as much of its middle as the Student-t does.

A regression does not know that outliers tell little, as a fit does.
"""

EXPECTED, NOISE = "expected", "noise"

CELLS = 1_000_000
"""Draws of a route times candidates times tasks, at most: so many take some seconds."""
LEAST_DRAWS, MOST_DRAWS = 600, 4000


class Drawn(NamedTuple):
    """Draws of one route: of what candidates measure, and of what is to be known of targets.

    Accuracies are in points, losses 100 times their logs: percent.
    """

    loss: np.ndarray  # (draws, candidates, tasks or 1 or 0)
    accuracy: np.ndarray  # (draws, candidates, tasks or 0)
    target: np.ndarray  # (draws, targets, tasks) before noise
    noise: np.ndarray  # (targets, tasks) its variance

    @property
    def quantity(self) -> str:
        """What is to be known."""
        return c.ACCURACY if self.accuracy.shape[-1] else c.LOSS


def drawn_from_fit(
    fitted: xr.DataTree,
    candidates: pd.DataFrame,
    targets: pd.DataFrame,
    *,
    route: Route | Sequence[Route] = (),
    draws: int | None = None,
    seed: int = 0,
) -> dict[str, Drawn]:
    """Draws of each route of a fit; both tables have `model, params, tokens`, maybe `checkpoints`.

    Candidates and targets are drawn in one go, so that they share what lies beyond the ladder. The
    routes stay apart: pooled, the route would be a hidden variable.
    """
    models, order = _together(candidates, targets)
    if draws is None:
        draws = _enough(len(models) * len(tasks_of(fitted)))
    own = routes_of(thinned(fitted, draws))
    known = known_routes(own, route)
    found = {}
    for name, tree in own.items():
        design, _ = target_design(models, tasks_of(tree), frame_of(tree))
        sites = sites_of(_measure(known[name].model), tree, design, seed)
        found[name] = _split(sites, order, candidates)
    return found


def drawn_from_priors(
    route: Route,
    tasks: pd.DataFrame,
    candidates: pd.DataFrame,
    targets: pd.DataFrame,
    *,
    priors: Priors | None = None,
    draws: int | None = None,
    seed: int = 0,
) -> Drawn:
    """The same where there is no ladder: its reference sizes are those of all candidates."""
    models, order = _together(candidates, targets)
    # The model needs a ladder before there are measurements: these are never read.
    blank = candidates[[c.MODEL, c.PARAMS, c.TOKENS]].merge(tasks[[c.TASK]], how="cross")
    blank = blank.assign(**{c.LOSS: 1.0, c.REFERENCE_LOSS: 1.0, c.ACCURACY: 0.5})
    empty = Ladder(blank, tasks, name="candidates")
    _, _, _, frame = ladder_design(empty)
    design = in_few_shapes(target_design(models, empty.tasks, frame)[0])
    count = _enough(len(models) * len(tasks)) if draws is None else draws
    with on_device(jax.devices("cpu")[0]):
        keys = jax.random.split(jax.random.key(seed), count)
        placed = jax.tree.map(jnp.asarray, (design, priors or Priors()))
        found = in_batches(_measure(route.model), (keys, {}), *placed)
    sites = {site: x[:, : len(models)] for site, x in found.items()}
    return _split(sites, order, candidates)


def told_of(values: np.ndarray, i: int | None) -> np.ndarray:
    """What tells of task `i` in measurements (draws, candidates, tasks or 1 or 0), on a last axis.

    Its own, and the mean over all tasks, which tells nearly as much of what they have in common as
    all of them would. Of the mean over tasks (None), the mean alone.
    """
    width = values.shape[-1]
    if width <= 1:
        return values
    mean = values.mean(axis=-1)
    return np.stack([mean] if i is None else [values[..., i], mean], axis=-1)


def _enough(cells: int) -> int:
    """Draws of a route, fewer for many candidates and tasks."""
    return int(np.clip(CELLS // cells, LEAST_DRAWS, MOST_DRAWS))


def _together(candidates: pd.DataFrame, targets: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Both as one table of models, and the row in it of each candidate, then of each target."""
    columns = [c.MODEL, c.PARAMS, c.TOKENS, c.CHECKPOINTS]
    both = pd.concat(
        [own.reindex(columns=columns) for own in (candidates, models_of(targets))],
        ignore_index=True,
    )
    both[c.CHECKPOINTS] = both[c.CHECKPOINTS].astype(float).fillna(1.0)
    # Names may be the same in both.
    both[c.MODEL] = both.index.astype(str)
    models = models_of(both)
    return models, pd.Index(models[c.MODEL]).get_indexer(both[c.MODEL])


def _split(sites: dict[str, np.ndarray], order: np.ndarray, candidates: pd.DataFrame) -> Drawn:
    sites = {name: x[:, order] for name, x in sites.items()}
    number = len(candidates)
    loss = next((s for q, s in SITES.items() if q != c.ACCURACY and s in sites), None)
    if SITES[c.LOSS] in sites:
        loss = SITES[c.LOSS]

    def measured(site: str | None) -> np.ndarray:
        values = sites[site] if site in sites else np.empty((*sites[EXPECTED].shape[:2], 0))
        return 100 * values[:, :number]

    return Drawn(
        measured(loss), measured(c.ACCURACY), 100 * sites[EXPECTED][:, number:],
        100**2 * sites[NOISE][:, number:].mean(axis=0),
    )  # fmt: skip


@cache
def _measure(model: Callable[..., None]) -> Callable[..., dict[str, Any]]:
    """A draw of what runs measure, and of what is expected of them with the variance of its noise.

    The site's name, and `expected` and `noise` of accuracy, of a route without one of the loss.
    """

    def one(pair: tuple[Any, dict], design: Design, priors: Priors) -> dict[str, Any]:
        (key, of_noise), draw = jax.random.split(pair[0]), pair[1]

        def as_normal(site: dict) -> Any:
            if site["type"] != "sample" or not isinstance(site["fn"], Runs):
                return None
            number = list(SITES.values()).index(site["name"])
            runs, own = site["fn"], jax.random.fold_in(of_noise, number)
            scale = jnp.sqrt(AS_NORMAL * (runs.run_variance + runs.noise_variance))
            return runs.loc + scale * jax.random.normal(own, jnp.shape(runs.loc), runs.loc.dtype)

        given = handlers.substitute(handlers.seed(model, key), substitute_fn=as_normal)
        sites = handlers.trace(handlers.substitute(given, data=draw)).get_trace(
            design, priors, Observed()
        )
        found = {name: sites[name]["value"] for name in SITES.values() if name in sites}
        if c.ACCURACY in sites:
            noise = sites["run_variance"]["value"] + sites["checkpoint_variance"]["value"]
            expected = sites["discrepancy"]["value"]
        else:
            runs = sites[SITES[c.LOSS]]["fn"]
            expected, noise = runs.loc, T_VARIANCE * (runs.run_variance + runs.noise_variance)
        shape = jnp.shape(expected)
        return found | {EXPECTED: expected, NOISE: jnp.broadcast_to(noise, shape)}

    return one

"""What in the data or the posterior speaks against a fit, though its draws have converged."""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import ndtr, ndtri

from laddercast.data import words as c
from laddercast.data.cautions import DoubtWarning, warn
from laddercast.data.ladder import Ladder, run_ends
from laddercast.data.order import in_wrong_order
from laddercast.data.outliers import far_off, same_measurements
from laddercast.model.priors import Priors
from laddercast.model.stages import drawn_scales_of_runs, run_effects_of

EDGE = 3.0
"""Standard deviates from a prior's median at which a posterior's median lies at its edge."""

OFF = 4.0
"""Standard deviates by which a run is off in all tasks, by the prior of what runs differ by. The
posterior's own scale grows with a run that is far off, and would hide it."""

FROM_PRIOR = 10_000
"""Draws of the prior of that scale."""

ORDER, OUTLIER, SAME = "wrong order", "a run far off the others", "equal measurements"
AT_EDGE, FAR_RUN = "at the edge of a prior", "a run far off the law"
OF_FITS = AT_EDGE, FAR_RUN
"""Rules that need a posterior."""

SHOWN = 5


def of_data(ladder: Ladder) -> list[dict[str, str]]:
    """What is wrong with a ladder's measurements: order, runs far off, runs that are equal."""
    ends = run_ends(ladder.table)
    found = [(task, ORDER, why) for task, why in in_wrong_order(ends)]
    found += [("", OUTLIER, why) for why in far_off(ends)]
    found += [("", SAME, why) for why in same_measurements(ends)]
    return [{c.TASK: task, "rule": rule, "why": why} for task, rule, why in found]


def of_posterior(route: str, posterior: xr.Dataset, priors: Priors) -> list[dict[str, str]]:
    """Parameters of which data say nearly the contrary of what the prior says."""
    found = []
    for field in fields(priors):
        if field.name not in posterior:
            continue
        prior, draws = getattr(priors, field.name), posterior[field.name]
        median = np.median(draws.to_numpy(), axis=(0, 1))
        try:
            deviate = np.asarray(ndtri(np.asarray(prior.cdf(median))))
        except NotImplementedError:  # of a prior of the user's own
            continue
        for place in np.argwhere(np.atleast_1d(np.abs(deviate) > EDGE)):
            index = tuple(place) if deviate.ndim else ()
            names = draws[c.TASK].to_numpy() if c.TASK in draws.dims else [""]
            why = (
                f"{field.name} of {route} is {median[index]:.3g}, {abs(deviate[index]):.1f} "
                f"standard deviates {'above' if deviate[index] > 0 else 'below'} its prior's median"
            )
            found.append({c.TASK: str(names[place[0]]), "rule": AT_EDGE, "why": why})
    return found


def of_runs(route: str, posterior: xr.Dataset, priors: Priors) -> list[dict[str, str]]:
    """Runs that are off the law in all their tasks by more than runs differ by before the data.

    Where a ladder has one task it is not known of runs, nor of a reference loss.
    """
    found = []
    for quantity in (c.ACCURACY, c.LOSS):
        if (name := run_effects_of(quantity)) not in posterior:
            continue
        sizes = posterior.sizes[c.TASK], posterior.sizes[c.MODEL]
        scale = np.asarray(
            drawn_scales_of_runs(priors, quantity, c.RECIPE in posterior.dims, *sizes, FROM_PRIOR)
        )
        effects = posterior[name].median(("chain", "draw"))
        for model, effect in zip(effects[c.MODEL].to_numpy(), effects.to_numpy(), strict=True):
            # No more than nine: of what is further out, draws tell nothing.
            deviate = -ndtri(max(np.mean(ndtr(-abs(effect) / scale)), 1e-19))
            if deviate > OFF:
                side = "above" if effect > 0 else "below"
                why = (
                    f"{model}: its {quantity} lies {side} the law of {route} in all tasks, by "
                    f"{deviate:.1f} standard deviates of what runs differ by"
                )
                found.append({c.TASK: "", "rule": FAR_RUN, "why": why})
    return found


def suspicions_of(attrs: Mapping[Any, Any]) -> list[dict[str, str]]:
    """What `fit` has recorded of both kinds: `task` (empty: all), `rule`, `why`."""
    return list(json.loads(attrs.get("suspicions", "[]")))


def warn_of(what: str, found: list[dict[str, str]]) -> None:
    """Warn of what speaks against a ladder or a fit, if anything does."""
    if not found:
        return
    texts = [f"{one[c.TASK]}: {one['why']}" if one[c.TASK] else one["why"] for one in found]
    more = f"; and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    cure = "do not rely on forecasts of these; look at how they were measured"
    warn(f"{what}: {'; '.join(texts[:SHOWN])}{more}; {cure}", DoubtWarning)

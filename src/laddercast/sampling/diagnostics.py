"""Whether draws can be trusted: R-hat and effective sample sizes, and the limits on them."""

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpyro.diagnostics import effective_sample_size, gelman_rubin
from scipy.special import ndtri
from scipy.stats import rankdata

RHAT_POPULATION = 1.01
RHAT = 1.03
ESS_PARAMETERS = 400
ESS_FORECASTS = 1000

TAILS = (0.05, 0.95)
AT_ONCE = 64
"""Columns of draws that a thread measures together: neither NumPy nor SciPy holds others up."""


class Quality(NamedTuple):
    """Of each column of draws: rank-normalised split R-hat, effective sample sizes."""

    rhat: np.ndarray
    bulk: np.ndarray
    tail: np.ndarray


def quality(*draws: np.ndarray) -> Quality:
    """Quality of draws (chains, draws, ...), as `az.rhat` and `az.ess` define it, column by column.

    The columns are those of all arrays in turn. Many are measured at once: one by one, as ArviZ
    works, it takes as long as some of the sampling. NaN where draws are too few, constant or not
    finite. Vehtari et al., arXiv 1903.08008.
    """
    chains, length = draws[0].shape[:2]
    flat = [own.reshape(chains, length, -1) for own in draws]
    ends = np.cumsum([own.shape[2] for own in flat])
    if length // 2 < 2 or not ends[-1]:
        return Quality(*np.full((3, ends[-1]), np.nan))

    def block(first: int) -> np.ndarray:
        # Put together here: all columns of many tasks at once are large.
        cuts = [
            own[..., max(first - begin, 0) : max(first + AT_ONCE - begin, 0)]
            for own, begin in zip(flat, [0, *ends], strict=False)
        ]
        return _quality(np.concatenate(cuts, axis=-1))

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = np.concatenate(list(threads.map(block, range(0, ends[-1], AT_ONCE))), axis=1)
    found[0] = np.nan if chains < 2 else found[0]
    return Quality(*found)


def _quality(draws: np.ndarray) -> np.ndarray:
    half = draws.shape[1] // 2
    finite = np.isfinite(draws).all(axis=(0, 1))
    split = np.where(finite, np.concatenate([draws[:, :half], draws[:, -half:]]), 0.0)
    lower, median, upper = np.quantile(split, (TAILS[0], 0.5, TAILS[1]), axis=(0, 1))
    scores, folded = _normal_scores(split), _normal_scores(np.abs(split - median))
    with np.errstate(invalid="ignore", divide="ignore"):
        rhat = np.maximum(gelman_rubin(scores), gelman_rubin(folded))
        bulk = effective_sample_size(scores)
        low, high = (effective_sample_size((split <= x).astype(float)) for x in (lower, upper))
    constant = np.ptp(split, axis=(0, 1)) == 0
    return np.where(constant, np.nan, np.array([rhat, bulk, np.minimum(low, high)]))


def _normal_scores(x: np.ndarray) -> np.ndarray:
    """Normal quantiles of the ranks among all draws of a column."""

    def score(rank: np.ndarray) -> np.ndarray:
        return np.asarray(ndtri((rank - 0.375) / (flat.shape[1] + 0.25)))

    flat = np.ascontiguousarray(x.reshape(-1, x.shape[-1]).T)
    order, scores = np.argsort(flat, axis=1), np.empty_like(flat)
    np.put_along_axis(scores, order, score(np.arange(1, flat.shape[1] + 1))[None], axis=1)
    # SciPy's ranks take eight times as long, and are others only where draws are equal.
    equal = (np.diff(np.take_along_axis(flat, order, axis=1), axis=1) == 0).any(axis=1)
    scores[equal] = score(rankdata(flat[equal], axis=1))
    return scores.T.reshape(x.shape)


def pooled_quality(parts: Sequence[np.ndarray], shares: Sequence[float]) -> Quality:
    """Quality of a mixture of draws of several fits, each (chains, draws, columns).

    R-hat is the worst of any part, as each was sampled by itself. The variance of a mixture's mean
    is the sum of its parts', each times its share squared: so their effective sizes add up.
    """
    each = [quality(part) for part in parts]
    share = np.array(shares)[:, None]

    def together(sizes: list[np.ndarray]) -> np.ndarray:
        return np.asarray(1 / (share**2 / np.array(sizes)).sum(axis=0))

    return Quality(
        np.max([own.rhat for own in each], axis=0),
        together([own.bulk for own in each]),
        together([own.tail for own in each]),
    )


def trusted(found: Quality) -> np.ndarray:
    """Whether each column of forecast draws keeps the limits that forecasts have."""
    # Written so that NaN, which constant or infinite draws give, is not trusted.
    least = np.minimum(found.bulk, found.tail)
    return (found.rhat < RHAT_POPULATION) & (least > ESS_FORECASTS)


def complaints(fitted: xr.DataTree) -> list[str]:
    """Why the draws of a fit's posterior cannot be trusted; empty if they converged."""
    posterior = fitted["posterior"].to_dataset()
    found = []
    diverging = int(fitted["sample_stats"]["diverging"].sum())
    if diverging:
        found.append(f"{diverging} divergences")
    found += _too_few_chains(posterior.sizes["chain"])
    sites = {str(name): site.to_numpy() for name, site in posterior.items()}
    of_all = quality(*sites.values())
    first = 0
    for name, own in sites.items():
        columns = own[0, 0].size
        part = Quality(*(x[first : first + columns] for x in of_all))
        first += columns
        # What has no dimension of its own is of the population.
        bound = RHAT_POPULATION if own.ndim == 2 else RHAT
        found += _faults(name, part, bound, ESS_PARAMETERS)
    return found


def complaints_of_forecast(
    name: str, parts: Sequence[np.ndarray], shares: Sequence[float]
) -> list[str]:
    """Why a forecast pooled from draws (chains, draws, rows) of these parts cannot be trusted."""
    found = pooled_quality(parts, shares)
    few = _too_few_chains(parts[0].shape[0])
    return few + _faults(name, found, RHAT_POPULATION, ESS_FORECASTS)


def _too_few_chains(chains: int) -> list[str]:
    return ["one chain cannot show convergence"] if chains < 2 else []


def _faults(name: str, found: Quality, bound: float, limit: float) -> list[str]:
    faults = []
    worst = float(found.rhat.max(initial=-np.inf))
    # `not below` also catches NaN.
    if not worst < bound:
        faults.append(f"{name}: R-hat {worst:.3f} (needs < {bound})")
    for kind, sizes in (("bulk", found.bulk), ("tail", found.tail)):
        least = float(sizes.min(initial=np.inf))
        if not least > limit:
            faults.append(f"{name}: {kind} ESS {least:.0f} (needs > {limit})")
    return faults


def mark(tree: xr.DataTree, found: list[str], what: str = "the fit") -> xr.DataTree:
    """Record convergence in the attributes; warn where it failed."""
    tree.attrs["converged"] = int(not found)
    tree.attrs["complaints"] = "; ".join(found)
    if found:
        warnings.warn(
            f"{what} has not converged: {'; '.join(found)}. "
            "Do not rely on it; give more warmup or draws, or more rungs",
            stacklevel=3,
        )
    return tree

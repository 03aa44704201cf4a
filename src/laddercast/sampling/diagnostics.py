"""Whether draws can be trusted: R-hat and effective sample sizes, and the limits on them."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpyro.diagnostics import effective_sample_size, gelman_rubin
from scipy.special import ndtri
from scipy.stats import rankdata

RHAT_POPULATION = 1.01
RHAT = 1.03
ESS_PARAMETERS = 400
ESS_FORECASTS = 1000

LEAST_BFMI = 0.3
"""Estimated Bayesian fraction of missing information, below which tails are not reached (arXiv
1701.02434)."""
DEEPEST = 0.01
"""Share of draws whose trajectories may end at the greatest length allowed."""

R_HAT, BULK_ESS, TAIL_ESS = "R-hat", "bulk ESS", "tail ESS"
DIVERGENCES, E_BFMI, TREE_DEPTH, CHAINS = "divergences", "E-BFMI", "longest trajectories", "chains"

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
    # Where a twentieth of all draws lie at a bound, as wide accuracies do at 1, that tail is all
    # draws, and the other counts.
    return np.where(constant, np.nan, np.array([rhat, bulk, np.fmin(low, high)]))


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


class Complaint(NamedTuple):
    """One reason not to trust draws: the worst element of a site, or all draws (site "")."""

    site: str
    measure: str
    value: float
    limit: float

    def __str__(self) -> str:
        of, bound = f"{self.site} " if self.site else "", "at most" if self.high else "at least"
        number = ".3f" if self.measure in (R_HAT, E_BFMI) else ".0f"
        return f"{of}{self.measure} {self.value:{number}} ({bound} {self.limit:g})"

    @property
    def high(self) -> bool:
        """Whether the value is too high, not too low."""
        return self.measure in (R_HAT, DIVERGENCES, TREE_DEPTH)


def complaints(
    values: Mapping[str, np.ndarray], stats: Mapping[str, np.ndarray], max_tree_depth: int
) -> list[Complaint]:
    """Why draws (chains, draws, ...) by site cannot be trusted; none if they converged.

    `stats` has `diverging, tree_depth, energy` (chains, draws).
    """
    found = []
    if diverging := int(stats["diverging"].sum()):
        found.append(Complaint("", DIVERGENCES, diverging, 0))
    deepest = int((stats["tree_depth"] >= max_tree_depth).sum())
    if deepest > DEEPEST * stats["tree_depth"].size:
        found.append(Complaint("", TREE_DEPTH, deepest, DEEPEST * stats["tree_depth"].size))
    energy = stats["energy"]
    if energy.shape[1] > 2:
        bfmi = (np.diff(energy, axis=1) ** 2).mean(axis=1) / energy.var(axis=1)
        if not bfmi.min() >= LEAST_BFMI:
            found.append(Complaint("", E_BFMI, float(bfmi.min()), LEAST_BFMI))
    found += _too_few_chains(energy.shape[0])
    of_all, first = quality(*values.values()), 0
    for name, own in values.items():
        columns = own[0, 0].size
        part = Quality(*(x[first : first + columns] for x in of_all))
        first += columns
        # What has no dimension of its own is of the population.
        bound = RHAT_POPULATION if own.ndim == 2 else RHAT
        found += _faults(name, part, bound, ESS_PARAMETERS)
    return found


def complaints_of_forecast(
    name: str, parts: Sequence[np.ndarray], shares: Sequence[float]
) -> list[Complaint]:
    """Why a forecast pooled from draws (chains, draws, rows) of these parts cannot be trusted."""
    found = pooled_quality(parts, shares)
    few = _too_few_chains(parts[0].shape[0])
    return few + _faults(name, found, RHAT_POPULATION, ESS_FORECASTS)


def _too_few_chains(chains: int) -> list[Complaint]:
    return [Complaint("", CHAINS, chains, 2)] if chains < 2 else []


def _faults(name: str, found: Quality, bound: float, limit: float) -> list[Complaint]:
    faults = []
    worst = float(found.rhat.max(initial=-np.inf))
    # `not below` also catches NaN.
    if not worst < bound:
        faults.append(Complaint(name, R_HAT, worst, bound))
    for measure, sizes in ((BULK_ESS, found.bulk), (TAIL_ESS, found.tail)):
        least = float(sizes.min(initial=np.inf))
        if not least > limit:
            faults.append(Complaint(name, measure, least, limit))
    return faults


def times_enough(found: Sequence[Complaint]) -> float:
    """So many times the draws, it seems, would do; infinite where more draws are no answer.

    Effective sizes grow with draws, and what R-hat has above 1 falls.
    """
    times = [1.0]
    for own in found:
        if own.measure in (BULK_ESS, TAIL_ESS):
            times.append(own.limit / own.value)
        elif own.measure == R_HAT:
            times.append((own.value - 1) / (own.limit - 1))
        else:
            times.append(np.inf)
    return float(np.nan_to_num(np.max(times), nan=np.inf, posinf=np.inf))


def summary(found: Sequence[Complaint]) -> str:
    """One short sentence of all complaints, with the worst; empty if there are none."""
    general = [str(own) for own in found if not own.site]
    sites = [own for own in found if own.site]
    if sites:
        worst = max(sites, key=lambda own: own.value if own.measure == R_HAT else 0.0)
        if worst.measure != R_HAT:
            worst = min(sites, key=lambda own: own.value)
        number = len({own.site for own in sites})
        general.append(f"{number} of the variables have not converged, worst {worst}")
    return ", ".join(general)

"""How much of what is unknown measurements would leave: cross-fitted regressions on their draws.

What is to be known is regressed, over draws, on what each candidate would measure. Halves of the
draws predict each other, so that what is left is not flattered by the fit.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from laddercast.sampling.threads import one_blas_thread

HALVES = 2

POWERS = 1.0, 0.5, 0.0
"""Of a candidate's cost, by which its gain is divided in plans."""

LEAST_NOISE = 1e-6
"""Of a measurement's variance, the part that is noise at the least: float32 tells no less."""


class Half(NamedTuple):
    """Draws that a regression is fitted to, and others that it is checked on.

    What candidates measure (candidates, measurements, draws) and what is to be known (quantities,
    draws), both less what the measurements taken so far tell of them.
    """

    x: np.ndarray
    y: np.ndarray
    other_x: np.ndarray
    other_y: np.ndarray


type Halves = tuple[Half, ...]


def halves_of(x: np.ndarray, y: np.ndarray) -> Halves:
    """The halves of draws of `x` (draws, candidates, measurements) and `y` (draws, quantities).

    Each candidate is taken to measure all that `x` has of it; what never varies tells nothing.
    """
    draws = len(y)
    measured = np.moveaxis(x, 0, -1).astype(np.float64)
    wanted = np.asarray(y, float).T
    found = []
    for half in range(HALVES):
        # In turn: neighbours in a chain are alike.
        fit = np.arange(draws) % HALVES == half
        center, scale = (how(measured[..., fit], axis=-1) for how in (np.mean, np.std))
        scale = np.where(scale > 1e-12 * (1 + np.abs(center)), scale, np.inf)
        standard = (measured - center[..., None]) / scale[..., None]
        off = wanted - wanted[:, fit].mean(axis=1, keepdims=True)
        standard = standard.astype(np.float32)
        found.append(Half(standard[..., fit], off[:, fit], standard[..., ~fit], off[:, ~fit]))
    return tuple(found)


def left(halves: Halves) -> np.ndarray:
    """Variance (quantities,) that is left now."""
    return np.concatenate([half.other_y**2 for half in halves], axis=1).mean(axis=1)


def left_by_each(halves: Halves) -> np.ndarray:
    """Variance (candidates, quantities) that each candidate would leave if it came next."""
    total = np.zeros((halves[0].x.shape[0], halves[0].y.shape[0]))
    for half in halves:
        b = _coefficients(half.x, half.y)
        told = half.other_x @ half.other_y.T.astype(half.x.dtype)
        gram = half.other_x @ half.other_x.transpose(0, 2, 1)
        total += (half.other_y**2).sum(axis=1)
        total += (b * (gram @ b - 2 * told)).sum(axis=1)
    return np.asarray(total / sum(half.other_y.shape[1] for half in halves))


def with_measured(halves: Halves, candidate: int) -> Halves:
    """The halves once this candidate is measured."""
    found = []
    for half in halves:
        own, other = half.x[candidate], half.other_x[candidate]
        b = _coefficients(own[None], half.y)[0]
        shape = half.x.shape
        every = half.x.reshape(-1, shape[-1])
        # What others measure loses all that they have in common, which would count twice.
        common = np.linalg.solve(_gram(own[None])[0], own @ every.T).astype(own.dtype)
        found.append(
            Half(
                (every - common.T @ own).reshape(shape),
                half.y - b.T @ own,
                half.other_x - (common.T @ other).reshape(half.other_x.shape),
                half.other_y - b.T @ other,
            )
        )
    return tuple(found)


def _gram(x: np.ndarray) -> np.ndarray:
    """Of (candidates, measurements, draws), products (candidates, measurements, measurements)."""
    gram = x @ x.transpose(0, 2, 1)
    return np.asarray(gram + LEAST_NOISE * x.shape[-1] * np.eye(x.shape[1], dtype=x.dtype))


def _coefficients(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of `y` (quantities, draws) on each candidate's measurements: (candidates, ..., quantities).

    Shrunk by what so many measurements seem to tell by chance (James and Stein), so that useless
    candidates do no harm, however many were taken.
    """
    told = (x @ y.T.astype(x.dtype)).astype(float)
    b = np.linalg.solve(_gram(x).astype(float), told)
    explained = (b * told).sum(axis=1, keepdims=True)
    rest = (y**2).sum(axis=1) - explained
    number, draws = x.shape[1:]
    by_chance = number * rest / max(draws - number, 1)
    share = 1 - by_chance / np.where(explained > 0, explained, np.inf)
    return np.asarray(b * np.clip(share, 0.0, 1.0))


def best_plan(
    groups: Sequence[Halves], costs: np.ndarray, budget: float, most: int
) -> tuple[list[int], list[float], np.ndarray]:
    """Candidates to measure, in order, the variance left after each, and that each leaves alone.

    Variances are means over the `groups` (all of the same candidates) and their quantities. Taken
    next is what gains most for its cost or, in other plans, for less than that or at any: the plan
    that leaves least is given. None is safe alone, as the cheapest gain most for their cost.
    """
    # Matrices are small: several threads would hinder each other.
    with one_blas_thread():
        alone = _mean([left_by_each(own) for own in groups])
        plans = [_greedy(groups, alone, costs, budget, most, power) for power in POWERS]
    order, after = min(plans, key=lambda plan: plan[1][-1] if plan[1] else np.inf)
    return order, after, alone


def _greedy(
    groups: Sequence[Halves], alone: np.ndarray, costs: np.ndarray, budget: float, most: int,
    power: float,
) -> tuple[list[int], list[float]]:  # fmt: skip
    """One plan, by gain over this power of the cost."""
    order: list[int] = []
    variances: list[float] = []
    now, each, spent = float(np.mean([left(own) for own in groups])), alone, 0.0
    while len(order) < most:
        gain = now - each
        can = (spent + costs <= budget * (1 + 1e-9)) & (gain > 0)
        can[order] = False
        if not can.any():
            break
        chosen = int(np.argmax(np.where(can, gain / costs**power, -np.inf)))
        order.append(chosen)
        now, spent = float(each[chosen]), spent + float(costs[chosen])
        variances.append(now)
        if len(order) < most:
            groups = [with_measured(own, chosen) for own in groups]
            each = _mean([left_by_each(own) for own in groups])
    return order, variances


def _mean(variances: Sequence[np.ndarray]) -> np.ndarray:
    """Over groups and quantities, of (candidates, quantities) each."""
    return np.asarray(np.mean([own.mean(axis=1) for own in variances], axis=0))

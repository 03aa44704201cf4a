"""Discrepancy beyond the ladder, as a sum of steps that do not depend on which targets are asked.

A random walk of d decades is built as Levy builds it: steps of whole decades, then displacements of
midpoints of ever shorter intervals, then what is left inside the shortest. Two targets share
the steps of the stretch that they have in common, whether or not both are asked for at once.
"""

import numpy as np
import pandas as pd

from laddercast.data import words as c

HALVINGS = 4
"""Of a decade. Within a sixteenth of one, two targets are off each for itself."""

SLACK = 1e-9
"""Decades that rounding may add."""

type Steps = dict[str, np.ndarray]
"""Weights (points,) of each step, by what it is."""


def _steps(at: np.ndarray, end: float, name: str) -> Steps:
    """Weights of unit normal steps of a walk from `end` out to each point (in decades).

    Points at or before the end have none. The variance of each sum is its distance.
    """
    found: Steps = {}
    sign = 1.0 if name.endswith("up") else -1.0
    for point, place in enumerate(at):
        distance = round(float(sign * (place - end)), 9)
        if distance <= SLACK:
            continue
        for step, weight in _of_distance(distance):
            column = found.setdefault(f"{name} {step}", np.zeros(len(at)))
            column[point] = weight
    return found


def _of_distance(distance: float) -> list[tuple[str, float]]:
    decade = int(distance)
    found = [(f"{whole}", 1.0) for whole in range(decade)]
    begin, length = 0.0, 1.0
    inside = distance - decade
    found.append((f"{decade}", inside))
    for _ in range(HALVINGS):
        share = (inside - begin) / length
        # The middle of a bridge is off by half the root of its length.
        tent = np.sqrt(length) / 2 * (1 - abs(2 * share - 1))
        found.append((f"{decade} + {begin} / {length}", tent))
        length /= 2
        begin += length * (share >= 0.5)
    share = (inside - begin) / length
    found.append((f"at {distance:.9f}", float(np.sqrt(length * share * (1 - share)))))
    return [(step, weight) for step, weight in found if weight > 0]


def weights_beyond(
    points: pd.DataFrame, ends: dict[str, tuple[float, float]], new_sizes: np.ndarray,
    of_size: np.ndarray, size_step: float,
) -> tuple[np.ndarray, list[str]]:  # fmt: skip
    """Weights (points, steps), and what each step is.

    `ends` are the log10 of the lowest and highest knot of params and tokens; `of_size` is the
    number of each point's size; `new_sizes` are not the ladder's, and are off by themselves.
    """
    found: Steps = {}
    for word in (c.PARAMS, c.TOKENS):
        at = np.log10(points[word].to_numpy(float))
        low, high = ends[word]
        found |= _steps(at, high, f"{word} up") | _steps(at, low, f"{word} down")
    for size in new_sizes.tolist():
        found[f"size {size}"] = size_step * (of_size == size).astype(float)
    if not found:
        return np.zeros((len(points), 0)), []
    return np.stack(list(found.values()), axis=1), list(found)

"""The rows of one run of a tracker, as they are logged, made one row per evaluated checkpoint."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from laddercast.data.loaders.files import Placed
from laddercast.data.loaders.shapes import number

NEAR_SHARE = 0.005
"""What was logged within this share of a run's tokens is of one checkpoint, if nothing is twice."""

CARRIED_SHARE = 0.05
"""Tokens are carried to what comes later by one interval of logging, or by this share of the run if
that is less."""


class Counts(NamedTuple):
    """What each row of a log says of its place in the run, NaN where it says nothing."""

    tokens: np.ndarray
    steps: np.ndarray | None


class Checkpoints(NamedTuple):
    """Evaluated rows with their tokens; `resumed` tells whether an earlier pass was left out."""

    table: pd.DataFrame
    tokens: pd.Series
    resumed: bool


def as_numbers(values: pd.Series) -> np.ndarray:
    """Finite numbers as float64, NaN where there are none."""
    if values.dtype.kind in "iuf":
        known = values.to_numpy(float, na_value=np.nan)
        return np.where(np.isfinite(known), known, np.nan)
    return np.array([np.nan if (x := _number(value)) is None else x for value in values], float)


def _number(value: object) -> float | None:
    try:
        return number(float(value) if isinstance(value, str) else value)
    except ValueError:
        return None


def read_checkpoints(
    table: pd.DataFrame, counts: Counts, evaluated: Sequence[str], cure: str, where: str,
    placed: Placed,
) -> Checkpoints | None:  # fmt: skip
    """One row for what was evaluated at about the same tokens, labelled by the rows it is of.

    Rows without evaluations only tell of tokens, which are interpolated by step, or carried forward
    where there are no steps. Of a resumed run, what an earlier pass logged at tokens
    that a later one went over again is left out. None after a fault.
    """
    # Steps times tokens a step can be more than any number.
    finite = np.where(np.isfinite(counts.tokens), counts.tokens, np.nan)
    counts = counts._replace(tokens=finite)
    passes = _passes(counts)
    tokens = _fill(counts, passes)
    filled = table[evaluated].notna().to_numpy()
    rows = np.flatnonzero(filled.any(axis=1))
    unknown = rows[np.isnan(tokens[rows])]
    if len(unknown):
        more = f" (and {len(unknown) - 1} more of its rows)" if len(unknown) > 1 else ""
        place = f"{where} row {table.index[unknown[0]]}{more}"
        placed.append((place, f"tokens are not known; {cure}"))
        return None
    lost = _superseded(tokens, passes)
    kept = rows[~lost[rows]]
    kept = kept[np.argsort(tokens[kept], kind="stable")]
    carried = np.isnan(counts.tokens) & (counts.steps is None)
    groups = _group(tokens, filled, kept)
    for group in groups:
        twice = filled[group].sum(axis=0) > 1
        both = [i for i in group if carried[i] and (filled[i] & twice).any()]
        if len(both) > 1:
            labels = [table.index[i] for i in both]
            placed.append((f"{where} rows {labels[0]} and {labels[1]}",
                           f"two evaluations, with no tokens between them; {cure}"))  # fmt: skip
            return None
    labels = [_label(table.index[group]) for group in groups]
    owners = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    # Of what was logged twice at one number of tokens, the later counts.
    merged = table.iloc[[i for group in groups for i in group]].groupby(owners).last()
    ends = pd.Series([tokens[group[-1]] for group in groups], index=labels, dtype=float)
    return Checkpoints(merged.set_axis(pd.Index(labels)), ends, bool(lost[rows].any()))


def _label(rows: pd.Index) -> object:
    return rows[0] if len(rows) == 1 else f"{rows[0]}-{rows[-1]}"


def _passes(counts: Counts) -> np.ndarray:
    """The pass over the data that each row belongs to, counted from 0.

    One ends where steps or tokens fall, if the rows are in the order in which they were logged.
    """
    falls = np.zeros(len(counts.tokens), bool)
    for values in (counts.tokens, counts.steps):
        if values is not None:
            known = np.flatnonzero(~np.isnan(values))
            change = np.diff(values[known])
            if (change < 0).sum() < (change > 0).sum():
                falls[known[1:][change < 0]] = True
    return np.cumsum(falls)


def _fill(counts: Counts, passes: np.ndarray) -> np.ndarray:
    tokens = counts.tokens.copy()
    if counts.steps is None:
        for one in np.unique(passes):
            tokens[passes == one] = pd.Series(tokens[passes == one]).ffill()
        return tokens
    for one in np.unique(passes):
        rows = np.flatnonzero((passes == one) & ~np.isnan(counts.steps))
        known = rows[~np.isnan(tokens[rows])]
        lacking = rows[np.isnan(tokens[rows])]
        if not len(known) or not len(lacking):
            continue
        order = known[np.argsort(counts.steps[known], kind="stable")]
        x, y = counts.steps[order], tokens[order]
        if not one and x[0] > 0:  # training begins at nothing
            x, y = np.append(0.0, x), np.append(0.0, y)
        steps = counts.steps[lacking]
        interval = min(x[-1] - x[-2], CARRIED_SHARE * x[-1]) if len(x) > 1 else 0.0
        near = steps <= x[-1] + max(1.0, 2 * NEAR_SHARE * x[-1], interval)
        tokens[lacking] = np.where(near, np.round(np.interp(steps, x, y)), np.nan)
    return tokens


def _superseded(tokens: np.ndarray, passes: np.ndarray) -> np.ndarray:
    """Rows at tokens that a later pass went over once more."""
    lost = np.zeros(len(tokens), bool)
    for one in range(1, passes.max(initial=0) + 1):
        later = tokens[(passes == one) & ~np.isnan(tokens)]
        if len(later):
            lost |= (passes < one) & (tokens > later.min()) & (tokens <= later.max())
    return lost


def _group(tokens: np.ndarray, filled: np.ndarray, rows: np.ndarray) -> list[list[int]]:
    """Rows, in the order of tokens, that are of one checkpoint."""
    groups: list[list[int]] = []
    near = NEAR_SHARE * tokens[rows[-1]] if len(rows) else 0.0
    has = np.zeros(filled.shape[1], bool)
    for row in rows:
        gap = tokens[row] - tokens[groups[-1][0]] if groups else np.inf
        if gap == 0 or (gap <= near and not (has & filled[row]).any()):
            groups[-1].append(int(row))
            has = has | filled[row]
        else:
            groups.append([int(row)])
            has = filled[row]
    return groups

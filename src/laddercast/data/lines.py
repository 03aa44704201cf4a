"""Rungs on one line in the logs of params and tokens, which cannot tell the two apart."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from laddercast.data import words as c
from laddercast.data.sizes import whole_runs
from laddercast.data.writing import short_number

THIN = 1e-2
"""Points lie on one line if across it they spread by less than this share of their spread along."""

ALIKE = 0.05
"""Parts of a direction that differ by less are called the same."""

NEAR = 1.25
"""A target is on the line if its params and tokens are within this factor of it."""


class Line(NamedTuple):
    """A line through the middle of the rungs; all numbers are of natural logs.

    `direction` (params, tokens) has length 1, or 0 where all rungs are one point.
    """

    params: float
    tokens: float
    direction: tuple[float, float]

    def __str__(self) -> str:
        """What the rungs have in common."""
        along_params, along_tokens = np.abs(self.direction)
        ratio = np.exp(self.tokens - self.params)
        if along_params + along_tokens == 0:
            return "all rungs are of one size and one length"
        if along_params < THIN:
            return f"all rungs are of one size ({short_number(np.exp(self.params))} parameters)"
        if along_tokens < THIN:
            return f"all rungs are of one length ({short_number(np.exp(self.tokens))} tokens)"
        if abs(self.direction[0] - self.direction[1]) < ALIKE:
            return f"all rungs have about {ratio:.3g} tokens per parameter"
        return "all rungs lie on one line in log params and log tokens"


def rung_points(table: pd.DataFrame, used: str) -> pd.DataFrame:
    """`params, tokens` of what speaks for the laws: ends of runs, or with "every" checkpoints."""
    present = [word for word in c.MEASURED if word in table]
    table = table[table[present].notna().any(axis=1)]
    if used == "every":
        return table[[c.MODEL, c.PARAMS, c.TOKENS]].drop_duplicates()[[c.PARAMS, c.TOKENS]]
    return whole_runs(table)


def line_through(points: pd.DataFrame) -> Line | None:
    """The line on which all points (`params, tokens`) lie, None if they lie on none."""
    logs = np.log(points[[c.PARAMS, c.TOKENS]].to_numpy(float))
    middle = logs.mean(axis=0)
    _, spread, directions = np.linalg.svd(logs - middle, full_matrices=False)
    if spread[-1] > THIN * spread[0] and len(spread) > 1:
        return None
    # Numbers that differ by rounding alone are one point.
    one_point = spread[0] < 1e-9
    found = np.zeros(2) if one_point else directions[0] * np.sign(directions[0].sum() or 1)
    return Line(float(middle[0]), float(middle[1]), (float(found[0]), float(found[1])))


def factor_off(line: Line | None, targets: pd.DataFrame) -> np.ndarray:
    """By what factor each target (`params, tokens`) is off the line, at least 1.

    In tokens at its params or, where less, in params at its tokens.
    """
    if line is None:
        return np.ones(len(targets))
    logs = np.log(targets[[c.PARAMS, c.TOKENS]].to_numpy(float)) - (line.params, line.tokens)
    along = np.array(line.direction)
    if not along.any():
        return np.asarray(np.exp(np.abs(logs).max(axis=1)))
    across = np.abs(logs @ np.array([-along[1], along[0]]))
    return np.asarray(np.exp(across / np.abs(along).max()))


def off_line(line: Line | None, targets: pd.DataFrame) -> np.ndarray:
    """Whether each target lies off the line of the rungs."""
    return factor_off(line, targets) > NEAR

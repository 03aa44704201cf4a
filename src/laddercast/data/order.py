"""Measurements in the wrong order: a loss that rises with compute, an accuracy that falls."""

from typing import Any

import pandas as pd
from scipy.stats import spearmanr

from laddercast.data import words as c

UNLIKELY = 0.05
"""One-sided p-value of a rank correlation of the wrong sign, below which it is no accident."""

FEW_RUNGS = 3
"""Of so few no order is unlikely: a loss that rises all the way is told."""

WRONG = (
    (c.LOSS, "compute", "rises", 1),
    (c.REFERENCE_LOSS, "compute", "rises", 1),
    (c.ACCURACY, "compute", "falls", -1),
    (c.ACCURACY, c.LOSS, "rises", 1),
    (c.ACCURACY, c.REFERENCE_LOSS, "rises", 1),
)
"""What goes with what, how in the wrong order, and the sign of that correlation."""


def in_wrong_order(ends: pd.DataFrame) -> list[tuple[str, str]]:
    """Tasks whose runs' ends have a rank correlation of the wrong sign, and what it is, in words.

    `ends` as `run_ends` gives them.
    A reference loss belongs to no task: its name is then empty. Laws say that losses fall with
    compute, and accuracies with losses; data that say otherwise are wrong, or of no law.
    """
    compute = ends[c.PARAMS].astype(float) * ends[c.TOKENS].astype(float)
    ends = ends.assign(compute=compute)
    found = []
    for quantity, against, verb, sign in WRONG:
        if quantity not in ends or against not in ends:
            continue
        groups: Any = ends.groupby(c.TASK)
        if quantity == c.REFERENCE_LOSS:
            groups = [("", ends.drop_duplicates(c.MODEL))]
        for task, rows in groups:
            why = _why(rows[[quantity, against]].dropna(), sign)
            if why:
                words = quantity.replace("_", " "), against.replace("_", " ")
                found.append((str(task), f"{words[0]} {verb} with {words[1]} ({why})"))
    return found


def _why(rows: pd.DataFrame, sign: int) -> str:
    """The correlation in words if it is of the wrong sign, else nothing."""
    first, second = (rows[word] for word in rows)
    # A constant has no order.
    if len(rows) < 2 or first.nunique() < 2 or second.nunique() < 2:
        return ""
    alternative = "greater" if sign > 0 else "less"
    if len(rows) > FEW_RUNGS:
        correlation, p_value = spearmanr(first, second, alternative=alternative)
        wrong = p_value < UNLIKELY
    else:
        correlation = first.corr(second, method="spearman")
        wrong = rows.columns[0] != c.ACCURACY and sign * correlation > 1 - 1e-9
    return f"rank correlation {correlation:.2f} over {len(rows)} rungs" if wrong else ""

"""Sizes of models and runs: params and tokens of whole runs, training compute."""

from typing import Any

import numpy as np
import pandas as pd

from laddercast.data import words as c


def flops(params: Any, tokens: Any) -> Any:
    """Training compute, 6 N D, of numbers, arrays or columns."""
    return 6.0 * params * tokens


def log10_flops(table: pd.DataFrame) -> pd.Series:
    """Decades of compute of each row, which has `params, tokens`."""
    return np.log10(flops(table[c.PARAMS], table[c.TOKENS]))


def with_flops(*tables: pd.DataFrame) -> tuple[pd.DataFrame, ...]:
    """The tables with their `flops` if each row of all has them, else with 6 N D in their place."""
    if all(c.FLOPS in table and table[c.FLOPS].notna().all() for table in tables):
        return tables
    return tuple(t.assign(**{c.FLOPS: flops(t[c.PARAMS], t[c.TOKENS])}) for t in tables)


def whole_runs(table: pd.DataFrame) -> pd.DataFrame:
    """`params, tokens` of each model (the index) at the end of its run."""
    return table.groupby(c.MODEL)[[c.PARAMS, c.TOKENS]].max()


def two_digits(values: pd.Series) -> pd.Series:
    """Values to two digits: lengths that hardly differ count as one."""
    return values.map(lambda value: float(f"{value:.1e}"))

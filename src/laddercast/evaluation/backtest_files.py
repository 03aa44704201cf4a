"""The files of a backtest: written by a command, and read back as the table it was."""

from pathlib import Path

import pandas as pd

from laddercast.data import words as c
from laddercast.data.paths import no_file
from laddercast.evaluation.backtests import RIVALS, score_backtest
from laddercast.evaluation.scores import UNITS

CELLS, SCORES = "forecast.csv", "scores.csv"

FIRST = ("kind", "fold", "decades", "distance", *RIVALS, "pit", "converged")
"""Columns after those of a forecast; the others come last."""

IN_FRACTIONS = ("mean", "sd", *c.QUANTILES, "measured")


def write_backtest(table: pd.DataFrame, folder: str | Path) -> pd.DataFrame:
    """Write a backtest's cells and their scores, which it returns.

    Forecasts and measurements of accuracy are fractions in the file, as in any `forecast.csv`;
    errors, CRPS and widths are in points, as in `scores.csv`.
    """
    written = table.copy(deep=False)
    unit = table["quantity"].map(UNITS).astype(float)
    for name in (*IN_FRACTIONS, *(name for name in RIVALS if name in table)):
        written[name] = table[name] / unit
    first = [name for name in (*c.FORECAST_COLUMNS, *FIRST) if name in table]
    others = [name for name in table if name not in (*first, "median")]  # which is q50
    written[[*first, *others]].to_csv(Path(folder) / CELLS, index=False)
    scores = score_backtest(table)
    scores.to_csv(Path(folder) / SCORES, index=False)
    return scores


def read_backtest(folder: str | Path) -> pd.DataFrame:
    """The backtest that `laddercast backtest --out folder` wrote, as the table `backtest` gives.

    `score_backtest`, `plot_calibration` and `report` read it. Raises ValueError where the folder
    has none.

    >>> table = lc.read_backtest("backtest")
    """
    path = Path(folder).expanduser() / CELLS
    cure = "`laddercast backtest LADDER --out DIR` writes one"
    try:
        # A model may be called NA.
        texts = dict.fromkeys((c.MODEL, c.TASK, "kind", "fold", "distance"), str)
        table = pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=[""])
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{no_file(path)}; {cure}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); {cure}") from None
    if not {*c.FORECAST_COLUMNS, "kind", "fold", "decades", "error"} <= set(table):
        raise ValueError(f"{path} is not of a backtest; {cure}")
    unit = table["quantity"].map(UNITS).astype(float)
    for name in (*IN_FRACTIONS, *(name for name in RIVALS if name in table)):
        table[name] *= unit
    table["median"] = table["q50"]
    return table


def holds_backtest(folder: str | Path) -> bool:
    """Whether a folder has what `read_backtest` reads."""
    path = Path(folder) / CELLS
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return {"kind", "fold", "error"} <= set(file.readline().strip().split(","))

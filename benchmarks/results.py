"""Where benchmarks keep what they found."""

from pathlib import Path

import pandas as pd


def keep(table: pd.DataFrame, out: Path | None) -> None:
    """Write a CSV file, if one was asked for; a run that breaks off leaves the last one whole."""
    if out:
        passing = out.with_suffix(".partial")
        table.to_csv(passing, index=False)
        passing.replace(out)

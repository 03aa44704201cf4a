"""The manifest: what logs do not record of a run, joined to it by name."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from laddercast.data import words as c
from laddercast.data.checks import check_columns, check_ladder_rows
from laddercast.data.sources import Table, read_table
from laddercast.data.writing import listed

RUN = "run"
"""Optional column: the run's name in the logs, where that is not the name of the model."""
JOINED = (c.PARAMS, c.TOKENS, c.RECIPE, c.SEED, c.FLOPS, c.REFERENCE_LOSS)

type Manifest = Table


def read_manifest(
    source: Manifest | None, faults: list[str]
) -> tuple[dict[str, dict[str, Any]], str]:
    """What the manifest says of each run, by its name in the logs, and the manifest's name.

    Values not given are absent. Faults are those of any table, and a run given twice.
    """
    if source is None:
        return {}, "the manifest"
    table, name = read_table(source, "manifest", faults)
    if not len(table.columns):
        return {}, name
    table = check_columns(table, (c.MODEL,), name, faults)
    # Counts are checked where given: what a log records may be left out.
    for word in (c.PARAMS, c.TOKENS):
        if {c.MODEL, word} <= set(table):
            given = table[[c.MODEL, word]].dropna(subset=[word])
            table[word] = check_ladder_rows(given, name, faults)[word]
    others = [word for word in (c.MODEL, c.FLOPS, c.REFERENCE_LOSS) if word in table]
    check_ladder_rows(table[others].dropna(how="all", axis=1), name, faults)
    if c.MODEL not in table:
        return {}, name
    rows: dict[str, dict[str, Any]] = {}
    for where, row in zip(table.index, table.to_dict("records"), strict=True):
        known = {key: value for key, value in row.items() if not pd.isna(value)}
        run = str(known.get(RUN, known.get(c.MODEL, ""))).strip()
        if run in rows:
            cure = "keep one row for each run; a column `run` tells checkpoints of a model apart"
            faults.append(f"{name} row {where}: run {run} is given twice; {cure}")
        joined = {word: known[word] for word in JOINED if word in known}
        rows[run] = {c.MODEL: str(known.get(c.MODEL, run)).strip(), **joined}
    return rows, name


def join(
    runs: Mapping[str, Sequence[str]], manifest: Mapping[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The manifest's row for each run (a name, and other names for it); {} if there is none."""
    return {
        run: next((manifest[name] for name in (run, *others) if name in manifest), {})
        for run, others in runs.items()
    }


def check_joined(
    known: Mapping[str, dict[str, Any]], words: Sequence[str], name: str, faults: list[str],
    note: str = "",
) -> None:  # fmt: skip
    """Faults are runs that are not in the manifest, and each of `words` that some runs lack."""
    absent = [run for run, row in known.items() if not row]
    if absent:
        columns = ", ".join((c.MODEL, *words))
        faults.append(
            f"{name} lacks {len(absent)} of {len(known)} runs: {listed(absent)}; "
            f"give manifest= (--manifest) a table with {columns}, one row for each{note}"
        )
    for word in words:
        lacking = [run for run, row in known.items() if row and word not in row]
        if lacking:
            also = note if word == c.PARAMS else ""
            faults.append(f"{name} has no {word} of {listed(lacking)}; add them{also}")

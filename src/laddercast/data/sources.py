"""Tables as users have them: files, DataFrames of any library, dicts and lists."""

import gzip
import json
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from laddercast.data import words as c
from laddercast.data.faults import list_rows
from laddercast.data.paths import JSON, PARQUET, is_file, no_file


class ArrowTable(Protocol):
    """A table of polars, pyarrow, DuckDB and others, by the interface that Arrow defines."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """Stream its columns."""


class Interchange(Protocol):
    """A table of a library that has the older protocol alone."""

    def __dataframe__(self, nan_as_null: bool = False, allow_copy: bool = True) -> Any:
        """Give its columns."""


type Rows = Mapping[str, Any] | Sequence[Mapping[str, Any]]

type Table = str | Path | pd.DataFrame | ArrowTable | Interchange | Rows
"""A path to CSV, Parquet or JSON lines (`~` is the home folder); a DataFrame of pandas, polars,
pyarrow and the like; a dict of columns, or of one row; a list of dicts."""

type Tasks = Table | Iterable[str]
"""A table of tasks, a list of their names, or names with commas between."""


def read_table(source: Table, what: str, faults: list[str]) -> tuple[pd.DataFrame, str]:
    """The table as read, indexed by the row numbers that errors name, and its name in errors.

    Row numbers are those a spreadsheet or an editor shows (the header of a CSV is row 1); a
    DataFrame keeps its index. After a fault the table has no columns.
    """
    if isinstance(source, str | os.PathLike):
        return _read_file(Path(source).expanduser(), faults)
    try:
        table = _in_memory(source)
    except Exception as error:
        # Each library raises its own, and cells can be of any kind.
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        faults.append(f"{what}: cannot be read as a table ({reason}); give a path or a DataFrame")
        return pd.DataFrame(), what
    if table is None:
        cure = "give a path, a DataFrame, a dict of columns or a list of dicts"
        faults.append(f"{what}: {type(source).__name__} is no table; {cure}")
        return pd.DataFrame(), what
    if not len(table.columns):
        faults.append(f"{what}: the table is empty; give a table with columns and rows")
    return legible(table, what, faults), what


def read_tasks(tasks: Tasks | None, faults: list[str]) -> tuple[list[str] | None, pd.DataFrame]:
    """Names of the tasks asked for (None: all), and their table if that was given.

    A table has its name in `attrs`.
    """
    if tasks is None:
        return None, pd.DataFrame()
    names = names_of(tasks)
    if names is not None:
        if not names:
            faults.append("tasks: no name is given; name some, or leave tasks= (--tasks) out")
        return names, pd.DataFrame()
    table, name = read_table(tasks, "tasks", faults)
    table.attrs["name"] = name
    if table.index.name == c.TASK and c.TASK not in table:
        table = table.reset_index()
    known = table[c.TASK] if list(table.columns).count(c.TASK) == 1 else None
    return None if known is None else known.dropna().astype(str).str.strip().tolist(), table


def names_of(given: Any) -> list[str] | None:
    """The names, each once, if these and no table or path are given, maybe with commas between."""
    if isinstance(given, str):
        if is_file(given):
            return None
        given = given.split(",")
    else:
        is_table = isinstance(given, pd.DataFrame | Mapping | os.PathLike) or _is_table(given)
        if is_table or not isinstance(given, Iterable):
            return None
        given = list(given)
    if any(isinstance(name, Mapping) for name in given):
        return None
    return list(dict.fromkeys(filter(None, (str(name).strip() for name in given))))


def _is_table(given: Any) -> bool:
    return hasattr(given, "__arrow_c_stream__") or hasattr(given, "__dataframe__")


def _in_memory(source: Any) -> pd.DataFrame | None:
    """What is no file as a DataFrame; None if it is no table."""
    if isinstance(source, pd.DataFrame):
        return source.copy(deep=False)
    if isinstance(source, Mapping):
        several = any(_is_column(value) for value in source.values())
        return pd.DataFrame(dict(source) if several else [dict(source)])
    if isinstance(source, list | tuple):
        rows = len(source) and all(isinstance(row, Mapping) for row in source)
        return pd.DataFrame([dict(row) for row in source]) if rows else None
    # A column alone is a stream, too.
    if isinstance(source, pd.Series) or not _is_table(source):
        return None
    import pyarrow
    from pyarrow.interchange import from_dataframe

    with warnings.catch_warnings():
        # pandas, which some wrap, means to drop the protocol.
        warnings.simplefilter("ignore")
        if hasattr(source, "__arrow_c_stream__"):
            found = pyarrow.table(source)
        else:
            found = from_dataframe(source)
    # As objects: float64 cannot hold integers above 2**53 beside missing ones.
    return found.to_pandas(integer_object_nulls=True)


def _is_column(value: Any) -> bool:
    return not isinstance(value, str | bytes | Mapping) and isinstance(value, Iterable)


def _read_file(path: Path, faults: list[str]) -> tuple[pd.DataFrame, str]:
    name = path.name
    try:
        if path.suffix.lower() in PARQUET:
            table = pd.read_parquet(path)
            # Text that is no UTF-8 fails only when it is used.
            for _, texts in table.select_dtypes(["str", "category"]).items():
                texts.tolist()
        elif _of_json(path):
            table = _read_json(path)
        else:
            table = _read_csv(path)
    except FileNotFoundError:
        faults.append(no_file(path))
        return pd.DataFrame(), name
    except pd.errors.EmptyDataError:
        faults.append(f"{name}: the file is empty; give a table with a header and rows")
        return pd.DataFrame(), name
    except IsADirectoryError:
        cure = "give a CSV or Parquet file, or read logs with a loader (--from)"
        faults.append(f"{path}: is a folder, which cannot be read as a table; {cure}")
        return pd.DataFrame(), name
    except Exception as error:
        # pandas, pyarrow and the decompressors raise nearly anything when bytes are corrupt.
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        cure = "give CSV in UTF-8, Parquet, or JSON with an object a line"
        faults.append(f"{name}: cannot be read ({reason}); {cure}")
        return pd.DataFrame(), name
    if table.index.names == [None] and not _of_json(path):
        table.index = pd.RangeIndex(2, len(table) + 2)
    return legible(table.dropna(how="all"), name, faults), name


def legible(table: pd.DataFrame, name: str, faults: list[str]) -> pd.DataFrame:
    """The table, without columns if a cell or name cannot be written: those are faults."""
    before = len(faults)
    for i, column in enumerate(table.columns):
        if not _is_legible(column):
            faults.append(f"{name}: column {i + 1} has a name that is no text in UTF-8; rename it")
        elif table.dtypes.iloc[i] == np.dtype("O"):
            rows = [row for row, x in zip(table.index, table.iloc[:, i], strict=True)
                    if not _is_legible(x)]  # fmt: skip
            shown, cure = [f"`{str(column)[:60]}`"], "give text or numbers"
            list_rows(pd.Index(rows), shown * len(rows), "holds bytes, or what is no text in UTF-8",
                      cure, name, faults)  # fmt: skip
    return table if len(faults) == before else pd.DataFrame()


def _is_legible(value: object) -> bool:
    try:
        return not isinstance(value, bytes | bytearray) and bool(str(value).encode() or True)
    except (ValueError, RecursionError):  # half a character, an integer of thousands of digits
        return False


def _of_json(path: Path) -> bool:
    last = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return last.suffix.lower() in JSON


def _read_json(path: Path) -> pd.DataFrame:
    """Objects, one a line, or all in one list; the index has the lines, or numbers from 1."""
    packed = path.suffix.lower() == ".gz"
    with (
        gzip.open(path, "rt", encoding="utf-8-sig")
        if packed
        else path.open(encoding="utf-8-sig") as file
    ):
        text = file.read()
    if not text.strip():
        raise pd.errors.EmptyDataError
    try:
        whole = json.loads(text)
    except json.JSONDecodeError as error:
        whole = None
        if text.lstrip().startswith("["):
            raise ValueError(f"line {error.lineno}: {error.msg}") from None
    if isinstance(whole, list):
        rows = dict(enumerate(whole, 1))
    elif isinstance(whole, dict) and any(isinstance(value, list) for value in whole.values()):
        return pd.DataFrame(whole).rename(lambda row: row + 1)
    else:
        lines = enumerate(text.split("\n"), 1)
        rows = {number: _parsed(line, number) for number, line in lines if line.strip()}
    wrong = next((number for number, row in rows.items() if not isinstance(row, dict)), None)
    if wrong is not None:
        raise ValueError(f"row {wrong} is no object")
    return pd.DataFrame(list(rows.values()), index=pd.Index(list(rows)))


def _parsed(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number}: {error.msg}") from None


def _read_csv(path: Path) -> pd.DataFrame:
    # Counts are read as text, for float64 cannot hold integers above 2**53.
    as_text = dict.fromkeys((*c.TEXT, c.PARAMS, c.TOKENS), "str")
    with warnings.catch_warnings():
        # Surplus values of a row are dropped with only a warning.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        table = pd.read_csv(
            path,
            dtype=as_text,
            index_col=False,
            skipinitialspace=True,
            skip_blank_lines=False,  # they count as rows
            low_memory=False,  # else a long column of mixed types warns
        )
    header = [str(column) for column in table.columns]
    if not header:
        raise ValueError("the first line is blank")
    if any("\0" in column for column in header):
        raise ValueError("NUL bytes, as in UTF-16 or a binary file")
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise ValueError("columns are not separated by commas")
    return table

"""Finding and reading the files of a log. Faults are appended to a list, as in `checks`."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from laddercast.data.loaders.shapes import Shape, fitting
from laddercast.data.writing import listed

PICKLES = (".pkl", ".pickle", ".pt", ".joblib")
type Source = str | Path | Sequence[str | Path]
type Placed = list[tuple[str, str]]
"""Faults of many files: where each is, and what it is."""


def find_files(source: Source, patterns: Sequence[str], what: str, faults: list[str]) -> list[Path]:
    """Files of `source`: a folder (searched for `patterns`, at any depth), a file, or several."""
    found: list[Path] = []
    for item in [source] if isinstance(source, str | os.PathLike) else source:
        path = Path(item).expanduser()
        if path.is_dir():
            inside = sorted({file for pattern in patterns for file in path.rglob(pattern)})
            if not inside:
                pickled = any(file.suffix in PICKLES for file in path.rglob("*"))
                cure = "; pickles are never read, write CSV or Parquet" if pickled else ""
                faults.append(f"{path}: no {what} ({', '.join(patterns)}) in this folder{cure}")
            found += inside
        elif path.suffix in PICKLES:
            faults.append(f"{path.name}: pickles are never read, for they can run code; "
                          "write CSV or Parquet")  # fmt: skip
        elif not path.exists():
            faults.append(f"{path}: no such file or folder; check the path")
        else:
            found.append(path)
    return found


def run_name(folder: Path, source: object) -> str:
    """The name of a run: its folder's path below the source, if the source is a folder."""
    if isinstance(source, str | os.PathLike):
        whole = Path(source).expanduser()
        if whole.is_dir() and folder != whole:
            return folder.relative_to(whole).as_posix()
    return folder.name


def source_name(source: Source) -> str:
    """What errors call the source."""
    return Path(source).name or "ladder" if isinstance(source, str | os.PathLike) else "ladder"


def place(path: Path) -> str:
    """What errors call one of many files, whose names may be alike."""
    return f"{path.parent.name}/{path.name}"


def read_json(path: Path, shape: Shape, found: Placed) -> dict[str, Any]:
    """One JSON object of this shape, empty after a fault."""
    lines = _parse([(place(path), _text(path, found))], shape, found)
    return lines[0][1] if lines else {}


def read_jsonl(path: Path, shape: Shape, found: Placed) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a file with one object a line, each with its line for errors."""
    lines = enumerate(_text(path, found).split("\n"), 1)
    return _parse(((f"{place(path)} line {i}", line) for i, line in lines), shape, found)


def tell(found: Placed, faults: list[str]) -> None:
    """One fault for each cause: the first place in full, then the number of others."""
    causes: dict[str, list[str]] = {}
    for where, what in found:
        causes.setdefault(what, []).append(where)
    for what, wheres in causes.items():
        others = len(wheres) - 1
        also = f" (also in {others} more: {listed(wheres[1:], 3)})" if others else ""
        faults.append(f"{wheres[0]}: {what}{also}")


def _text(path: Path, found: Placed) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        found.append((place(path), f"cannot be read ({error}); give JSON in UTF-8"))
        return ""


def _parse(
    texts: Iterable[tuple[str, str]], shape: Shape, found: Placed
) -> list[tuple[str, dict[str, Any]]]:
    parsed = []
    for where, text in texts:
        if not text.strip():
            continue
        try:
            value = json.loads(text)
            faults: list[str] = []
            if isinstance(value, dict):
                parsed.append((where, fitting(value, shape, faults)))
            else:
                faults.append("holds no JSON object")
            found += [(where, f"{fault}; give the tool's own output") for fault in faults]
        except (ValueError, RecursionError) as error:
            cure = "the file may be cut off, write it again"
            found.append((where, f"is no JSON ({error}); {cure}"))
    return parsed

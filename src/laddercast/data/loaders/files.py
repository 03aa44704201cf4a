"""Finding and reading the files of a log. Faults are appended to a list, as in `checks`."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

PICKLES = (".pkl", ".pickle", ".pt", ".joblib")
type Source = str | Path | Sequence[str | Path]


def find_files(source: Source, patterns: Sequence[str], what: str, faults: list[str]) -> list[Path]:
    """Files of `source`: a folder (searched for `patterns`, at any depth), a file, or several."""
    found: list[Path] = []
    for item in [source] if isinstance(source, str | os.PathLike) else source:
        path = Path(item)
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
    if isinstance(source, str | Path) and Path(source).is_dir() and folder != Path(source):
        return folder.relative_to(source).as_posix()
    return folder.name


def source_name(source: Source) -> str:
    """What errors call the source."""
    return Path(source).name or "ladder" if isinstance(source, str | os.PathLike) else "ladder"


def read_json(path: Path, faults: list[str]) -> dict[str, Any]:
    """One JSON object, empty after a fault."""
    lines = _parse([(path.name, _text(path, faults))], faults)
    return lines[0][1] if lines else {}


def read_jsonl(path: Path, faults: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a file with one object a line, each with its line for errors."""
    lines = enumerate(_text(path, faults).split("\n"), 1)
    return _parse(((f"{path.name} line {i}", line) for i, line in lines), faults)


def part(content: Mapping[str, Any], *words: str) -> dict[str, Any]:
    """The object under these keys, one within the other; empty where there is none."""
    found: Any = content
    for word in words:
        found = found.get(word) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def number(value: object) -> float | None:
    """A finite number as float64, else None."""
    try:
        found = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:  # an integer may have any size
        return None
    return found if math.isfinite(found) else None


def _text(path: Path, faults: list[str]) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        faults.append(f"{path.name}: cannot be read ({error}); give JSON in UTF-8")
        return ""


def _parse(texts: Iterable[tuple[str, str]], faults: list[str]) -> list[tuple[str, dict[str, Any]]]:
    parsed = []
    for where, text in texts:
        if not text.strip():
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            faults.append(f"{where}: is no JSON ({error}); the file may be cut off, write it again")
            continue
        if isinstance(value, dict):
            parsed.append((where, value))
        else:
            faults.append(f"{where}: holds no JSON object; give the tool's own output")
    return parsed

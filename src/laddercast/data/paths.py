"""Paths to tables, by their names alone: pandas, which is slow to load, is not needed."""

import os
from pathlib import Path

from laddercast.data.writing import nearest

PARQUET = (".parquet", ".pq")
JSON = (".jsonl", ".ndjson", ".json")
PACKED = (".gz", ".bz2", ".xz", ".zip", ".zst")
SUFFIXES = (".csv", *PARQUET, *JSON, *PACKED)


def is_file(text: str) -> bool:
    """Whether text means a file, not names: it exists, or is called or placed as one."""
    path = Path(text).expanduser()
    try:
        exists = path.exists()
    except (OSError, ValueError):  # too long, or with a NUL
        exists = False
    return exists or path.suffix.lower() in SUFFIXES or text.startswith("~") or os.sep in text


def no_file(path: Path, what: str = "file") -> str:
    """The fault that a file does not exist, with the nearest name of those beside it."""
    try:
        near = nearest(path.name, os.listdir(path.parent))
    except (OSError, ValueError):
        near = None
    return f"{path}: no such {what}; " + (f"did you mean {near}?" if near else "check the path")

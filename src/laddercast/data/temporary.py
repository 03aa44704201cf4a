"""Folders beside results, in which files are written before they take their places.

A process that is killed leaves its folder behind. The next one into the same place clears it or,
where all was written and only the moving was cut short, moves what is left.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

try:
    import fcntl
except ImportError:  # no locks on Windows: nothing is cleared there
    fcntl = None  # type: ignore[assignment]

PREFIX = ".laddercast-"
MANIFEST = ".laddercast.json"
"""Names and checksums of the files that laddercast wrote into a folder."""

LOCK = "lock"
"""Held by the process that writes into a temporary folder, until its end however it ends."""

MOVES = "moves.json"
"""Written last: what is to take its place, so that others can end what was begun."""

YOUNG = 60.0
"""Seconds in which a folder may still be without a lock: its process has only just made it."""


@contextmanager
def passing_folder(place: Path) -> Iterator[Path]:
    """A folder inside `place` to write in, cleared at the end.

    Clears what processes that are gone have left. Raises OSError where nothing can be written.
    """
    clear(place)
    folder = Path(mkdtemp(prefix=PREFIX, dir=place))
    try:
        # It has its name once it is held: nobody ever sees it free.
        lock = os.open(folder / f"{LOCK}.new", os.O_RDWR | os.O_CREAT)
        try:
            _hold(lock)
            os.rename(folder / f"{LOCK}.new", folder / LOCK)
            yield folder
        finally:
            # First the folder goes, then the lock on it.
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clear(place: Path) -> None:
    """Clear temporary folders in `place` whose process is gone; end moves that it had begun."""
    if fcntl is None:
        return
    for folder in sorted(place.glob(f"{PREFIX}*")):
        with suppress(OSError):
            if folder.is_dir() and not folder.is_symlink():
                _clear(folder, place)


def _clear(folder: Path, place: Path) -> None:
    try:
        lock = os.open(folder / LOCK, os.O_RDWR)
    except FileNotFoundError:
        if time.time() - folder.stat().st_mtime > YOUNG:
            shutil.rmtree(folder, ignore_errors=True)
        return
    try:
        if _hold(lock):
            with _alone(place):
                _end_moves(folder, place)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _end_moves(folder: Path, place: Path) -> None:
    try:
        moves = json.loads((folder / MOVES).read_text())
        names = [str(name) for name in (*moves["move"], *moves["remove"])]
    except (OSError, ValueError, KeyError, TypeError):
        return
    known = [written_in(place), written_in(folder)]
    if all(_is_known(place / name, known) and Path(name).name == name for name in names):
        _move(folder, place, moves)


def _hold(file: int) -> bool:
    """Lock an open file; False where another process has it, or the system has no locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Wait until no other process moves files into `place`."""
    if fcntl is None:
        yield
        return
    file = os.open(place, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def written_in(place: Path) -> dict[str, str]:
    """Checksums, by name, of the files that earlier runs are known to have written there."""
    try:
        found = json.loads((place / MANIFEST).read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {str(name): str(sum) for name, sum in found.items()} if isinstance(found, dict) else {}


def foreign(place: Path, names: Iterable[str]) -> list[str]:
    """Those of `names` that lie in `place` and are not as an earlier run wrote them."""
    known = [written_in(place)]
    return [name for name in names if not _is_known(place / name, known)]


def _is_known(path: Path, known: Iterable[Mapping[str, str]]) -> bool:
    """Whether a file is absent, or has one of the checksums known of its name."""
    if not os.path.lexists(path):
        return True
    sums = [own[path.name] for own in known if path.name in own]
    return bool(sums) and not path.is_symlink() and path.is_file() and checksum(path) in sums


def put_in_place(folder: Path, place: Path, names: Iterable[str]) -> list[str]:
    """Move the files of these names to `place`, and return the names of those that were written.

    Of `names`, what was not written is removed from `place`: it would belong to an earlier run.
    Raises FileExistsError, and moves nothing, where `place` has other people's files of that name.
    """
    names = list(names)
    written = [name for name in names if (folder / name).exists()]
    with _alone(place):
        if taken := foreign(place, names):
            raise FileExistsError(f"{', '.join(taken)} in {place} is not from laddercast")
        sums = {name: checksum(folder / name) for name in written}
        before = {name: sum for name, sum in written_in(place).items() if name not in names}
        (folder / MANIFEST).write_text(_manifest(before | sums))
        moves = {"move": written, "remove": [name for name in names if name not in written]}
        # Whole or absent: a reader of half a list would move half of the results.
        (folder / f"{MOVES}.part").write_text(json.dumps(moves))
        os.replace(folder / f"{MOVES}.part", folder / MOVES)
        _move(folder, place, moves)
    return written


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under its name once all of it is written. Leaves nothing where that fails."""
    passing = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        passing.write_bytes(content)
        os.replace(passing, path)
    finally:
        passing.unlink(missing_ok=True)


def record(path: Path) -> None:
    """Add a file to those that laddercast is known to have written into its folder."""
    with passing_folder(path.parent) as folder, _alone(path.parent):
        sums = written_in(path.parent) | {path.name: checksum(path)}
        (folder / MANIFEST).write_text(_manifest(sums))
        os.replace(folder / MANIFEST, path.parent / MANIFEST)


def _manifest(sums: Mapping[str, str]) -> str:
    return json.dumps({"files": dict(sums)}, indent=1, sort_keys=True) + "\n"


def _move(folder: Path, place: Path, moves: Mapping[str, list[str]]) -> None:
    for name in moves["move"]:
        if (folder / name).is_file():  # if not moved before
            os.replace(folder / name, place / name)
    for name in moves["remove"]:
        (place / name).unlink(missing_ok=True)
    # Last: until then the moves can be told from it.
    if (folder / MANIFEST).exists():
        os.replace(folder / MANIFEST, place / MANIFEST)

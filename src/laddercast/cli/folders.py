"""The folder of a command's results: what may be replaced in it, and when."""

import argparse
import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from laddercast.data.temporary import clear, foreign, passing_folder, put_in_place
from laddercast.sampling.interrupts import heard

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What systems say where a disk has no room."""


def folder_name(text: str) -> Path:
    """A path given as an argument; an empty one would be the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r}: give the name of a folder")
    return Path(text)


@contextmanager
def results_folder(
    out: Path, names: Sequence[str], inputs: Iterable[str | Path | None] = ()
) -> Iterator[Path]:
    """A temporary folder inside `out`, whose files move there once all are written.

    Files of these `names` in `out` are replaced or removed if an earlier run wrote them. Raises
    ValueError, before anything is written, where one of them is of somebody else or is one of the
    `inputs`, and OSError where `out` cannot be written.
    """
    _refuse_inputs(out, names, inputs)
    made = [path for path in (out, *out.parents) if not path.exists()]
    try:
        with ExitStack() as stack:
            try:
                out.mkdir(parents=True, exist_ok=True)
                clear(out)
                _refuse_foreign(out, names)
                folder = stack.enter_context(passing_folder(out))
            except OSError as error:
                cure = "give a folder that can be written"
                raise OSError(f"--out {out}: {error.strerror}; {cure}") from None
            try:
                yield folder
                written = _moved(folder, out, names)
            except OSError as error:
                if error.errno not in FULL:
                    raise
                cure = "make room, or give a folder on another disk; nothing was replaced"
                raise OSError(f"--out {out}: {error.strerror}; {cure}") from None
            except BaseException:
                heard()
                raise
    except BaseException:
        with suppress(OSError):  # not empty: of somebody else
            for path in made:
                path.rmdir()
        raise
    print(f"written to {out}: {', '.join(written)}", file=sys.stderr)


def check_file(out: Path, inputs: Iterable[Path], known: Callable[[Path], bool]) -> None:
    """Raise ValueError where a file to be written is an input, or somebody else's."""
    if not out.exists():
        return
    if any(path.exists() and out.samefile(path) for path in inputs):
        raise ValueError(f"--out {out}: it is read for this; give another file")
    if out.is_dir() or (foreign(out.parent, [out.name]) and not known(out)):
        raise ValueError(
            f"--out {out}: it is there and not known to be from laddercast; give another file, or "
            "move it away"
        )


def _refuse_inputs(out: Path, names: Sequence[str], inputs: Iterable[str | Path | None]) -> None:
    taken = [out / name for name in names if (out / name).exists()]
    same = [
        f"{given} is {path}"
        for given in inputs
        if given is not None and os.path.exists(given)
        for path in taken
        if os.path.samefile(given, path)
    ]
    if same:
        raise ValueError(
            f"--out {out}: {'; '.join(same)}, which would be replaced; give another folder"
        )


def _refuse_foreign(out: Path, names: Sequence[str]) -> None:
    if taken := foreign(out, names):
        raise ValueError(
            f"--out {out}: it has {', '.join(taken)}, which this version is not known to have "
            "written, or which has changed since; give another folder, or move these away"
        )


def _moved(folder: Path, out: Path, names: Sequence[str]) -> list[str]:
    try:
        return put_in_place(folder, out, names)
    except FileExistsError as error:
        # Somebody has put a file there meanwhile: neither theirs nor ours is lost.
        number = 1
        while (kept := out / f"results-{number}").exists():
            number += 1
        kept.mkdir()
        put_in_place(folder, kept, names)
        raise ValueError(f"--out {out}: {error}; the results are in {kept}") from None

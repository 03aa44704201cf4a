"""What a command says when it fails, in one line, and its exit status: whose fault it was."""

import errno
import sys
from dis import opmap
from pathlib import Path

from laddercast.data.cautions import HERE

BAD_INPUT, INTERNAL = 2, 4
RAISE = opmap["RAISE_VARARGS"]
WITH_TRACEBACK = "python -X dev -m laddercast"


def tell(error: Exception) -> int:
    """Print why a command failed. 2 for what its user can mend in the input, else 4.

    Ours are the errors that this package raises by a statement of its own, with the cure in their
    words. A ValueError from deeper down, as of LAPACK or of NumPy's C, says nothing of the input.
    """
    if sys.flags.dev_mode:
        raise error
    if _is_of_input(error):
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    what = " ".join(str(error).split()) or "no more is known"
    notes = "".join(f"; {note}" for note in getattr(error, "__notes__", []))
    cure = f"what was wrong shows `{WITH_TRACEBACK} ...`; please report it"
    if isinstance(error, MemoryError):
        cure = "take fewer --draws, --chains or tasks, or a machine with more memory"
    print(
        f"internal failure, not known to be of the input: {type(error).__name__}: {what[:1000]} "
        f"(at {_place(error)}{notes}); {cure}",
        file=sys.stderr,
    )
    return INTERNAL


def _is_of_input(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno != errno.ENOMEM
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if not isinstance(error, ValueError) or trace is None:
        return False
    code = trace.tb_frame.f_code
    # What is called there and written in C has no frame: its errors would look like ours.
    return code.co_filename.startswith(HERE) and code.co_code[trace.tb_lasti] == RAISE


def _place(error: Exception) -> str:
    """The innermost line of this package that led there."""
    own = [f"{Path(file).name}:{line}" for file, line in _lines(error) if file.startswith(HERE)]
    return own[-1] if own else "no line of laddercast"


def _lines(error: Exception) -> list[tuple[str, int]]:
    found, trace = [], error.__traceback__
    while trace is not None:
        found.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    return found

"""Categories of the warnings that results come with, to be filtered or turned into errors."""

import os
import warnings
from pathlib import Path

HERE = str(Path(__file__).parents[1]) + os.sep
"""The folder of the package."""


class LaddercastWarning(UserWarning):
    """What all of them are.

    >>> warnings.simplefilter("ignore", lc.LaddercastWarning)
    """


class NotConvergedWarning(LaddercastWarning):
    """Draws cannot be trusted.

    >>> warnings.simplefilter("error", lc.NotConvergedWarning)  # stop at once
    """


class FarTargetWarning(LaddercastWarning):
    """A target lies beyond what the ladder supports.

    >>> warnings.simplefilter("ignore", lc.FarTargetWarning)
    """


class OffLineWarning(FarTargetWarning):
    """A target lies off the one line of the rungs in log params and log tokens.

    >>> warnings.simplefilter("ignore", lc.OffLineWarning)
    """


class AtChanceWarning(LaddercastWarning):
    """Every rung is at chance in a task, of which nothing is then said.

    >>> warnings.simplefilter("ignore", lc.AtChanceWarning)
    """


class DoubtWarning(LaddercastWarning):
    """Measurements or parameters are such that a forecast is to be doubted, converged or not.

    >>> warnings.simplefilter("error", lc.DoubtWarning)  # stop at once
    """


class SkippedWarning(LaddercastWarning):
    """A fold, or what a rival would forecast, was left out.

    >>> warnings.simplefilter("ignore", lc.SkippedWarning)
    """


class AssumedWarning(LaddercastWarning):
    """A reader took a value or a rule that the files do not state.

    >>> warnings.simplefilter("ignore", lc.AssumedWarning)
    """


def warn(message: str | Warning, category: type[Warning] | None = None) -> None:
    """Warn of the user's line, however deep in the package, and in whichever generator, this is."""
    warnings.warn(message, category, skip_file_prefixes=(HERE,))

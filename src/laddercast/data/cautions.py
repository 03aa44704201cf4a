"""Categories of the warnings that results come with, to be filtered or turned into errors."""


class LaddercastWarning(UserWarning):
    """What all of them are."""


class NotConvergedWarning(LaddercastWarning):
    """Draws cannot be trusted."""


class FarTargetWarning(LaddercastWarning):
    """A target lies beyond what the ladder supports."""


class OffLineWarning(FarTargetWarning):
    """A target lies off the one line of the rungs in log params and log tokens."""


class SkippedWarning(LaddercastWarning):
    """A fold, or what a rival would forecast, was left out."""

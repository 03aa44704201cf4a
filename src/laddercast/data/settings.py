"""Settings as users give them: a scalar where a list is meant, a whole number as a float."""

from collections.abc import Iterable
from numbers import Integral
from typing import Any

import numpy as np

from laddercast.data.values import in_full


def whole(value: Any) -> Any:
    """A whole number as an int, also of another type such as 50.0; what is none as it is."""
    if isinstance(value, bool):
        return value
    if isinstance(value, Integral) or (isinstance(value, float | np.floating) and value % 1 == 0):
        return int(value)
    return value


def is_whole(value: Any, least: int = 1) -> bool:
    """Whether it is an int of at least this."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def check_whole(name: str, value: Any, least: int = 1) -> int:
    """The setting as an int; ValueError where it is no whole number of at least `least`."""
    if not is_whole(whole(value), least):
        raise ValueError(f"{name}={value!r}: give a whole number of at least {least}")
    return int(value)


def as_list(given: Any) -> list[Any]:
    """The elements of what is several, or one of what is one; text is one."""
    # An array of no dimensions is one number.
    several = (
        isinstance(given, Iterable) and not isinstance(given, str) and hasattr(given, "__len__")
    )
    several = several and getattr(given, "ndim", 1) > 0
    return list(given) if several else [given]


def as_number(name: str, given: Any) -> float:
    """The setting as a number, which text may have with a unit; ValueError where it is none."""
    found = as_sizes(given)
    if len(found) != 1 or not isinstance(found[0], float):
        raise ValueError(f"{name}={given!r}: give a number")
    return found[0]


def as_sizes(given: Any) -> list[Any]:
    """One or several numbers, which text may have with a unit; what is no number as it is."""
    found = []
    for one in as_list(given):
        try:
            found.append(float(in_full(one.strip()) if isinstance(one, str) else one))
        except (TypeError, ValueError):
            found.append(one)
    return found

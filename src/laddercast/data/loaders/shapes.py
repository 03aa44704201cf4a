"""The shape of foreign JSON as data, and its one check. Fields that are not read may be anything.

A shape is a kind of value, a list of one shape, or a dictionary of them, in which `EACH` is for all
keys. What is absent or null is no fault.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

EACH = "*"

type Shape = Kind | Sequence[Shape] | Mapping[str, Shape]


class Kind(NamedTuple):
    """What a value must be, in words and as a test."""

    words: str
    fits: Callable[[Any], bool]


def number(value: object) -> float | None:
    """A finite number as float64, else None; true and false are none."""
    try:
        known = isinstance(value, int | float) and not isinstance(value, bool)
        found = float(value) if known else math.nan  # type: ignore[arg-type]
    except OverflowError:  # an integer may have any size
        return None
    return found if math.isfinite(found) else None


def _is_count(value: object) -> bool:
    found = number(value)
    return found is not None and 0 <= found < 2**53 and found == int(found)


ANY = Kind("anything", lambda value: True)
TEXT = Kind("a text", lambda value: isinstance(value, str) and value.isprintable())
COUNT = Kind("a count", _is_count)
NUMBER = Kind("a finite number", lambda value: number(value) is not None)


def fitting(value: Any, shape: Shape, faults: list[str], key: str = "") -> Any:
    """The value without the parts that have another shape: each is a fault with its key."""
    if isinstance(shape, Kind):
        if shape.fits(value):
            return value
        return _refuse(value, shape.words, key, faults)
    if isinstance(shape, Mapping):
        if not isinstance(value, dict):
            return _refuse(value, "an object", key, faults)
        if EACH in shape:  # then keys are names
            faults += [f"a key of `{key[1:]}` is {_shown(k)}" for k in value if not TEXT.fits(k)]
            value = {k: part for k, part in value.items() if TEXT.fits(k)}
        named = {
            name: fitting(part, shape.get(name, shape.get(EACH, ANY)), faults, f"{key}.{name}")
            for name, part in value.items()
        }
        return {name: part for name, part in named.items() if part is not None}
    if not isinstance(value, list):
        return _refuse(value, "a list", key, faults)
    parts = [fitting(part, shape[0], faults, f"{key}.{i}") for i, part in enumerate(value)]
    return [part for part in parts if part is not None]


def _refuse(value: object, words: str, key: str, faults: list[str]) -> None:
    if value is not None:
        faults.append(f"`{key.removeprefix('.')[:120]}` is {_shown(value)}, not {words}")


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return f"the text {value[:60]!r}"
    # Python writes no integer of thousands of digits.
    return "a huge number" if isinstance(value, int) and abs(value) > 10**30 else str(value)

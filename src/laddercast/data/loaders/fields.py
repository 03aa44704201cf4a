"""Checks of what users write into presets, in Python or in TOML. Faults are appended to a list."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Any

from laddercast.data.loaders.shapes import number
from laddercast.data.writing import listed


def raise_faults(what: str, faults: Sequence[str]) -> None:
    """Raise one ValueError of all faults, if there are any."""
    if faults:
        raise ValueError(f"{what}: {'; '.join(faults)}")


def as_text(value: object, word: str, faults: list[str]) -> None:
    """A fault if this is neither text nor left out."""
    if value is not None and not (isinstance(value, str) and value):
        faults.append(f"{word} is {_shown(value)}; give a text")


def as_texts(value: object, word: str, faults: list[str]) -> tuple[str, ...]:
    """One text or several, as a tuple."""
    several = [value] if isinstance(value, str) else value
    if isinstance(several, list | tuple) and all(isinstance(x, str) and x for x in several):
        return tuple(several)
    faults.append(f"{word} is {_shown(value)}; give a text, or several")
    return ()


def as_objects[T](value: object, kind: type[T], word: str, faults: list[str]) -> tuple[T, ...]:
    """One object or several, as a tuple."""
    several = [value] if isinstance(value, kind) else value
    if isinstance(several, list | tuple) and all(isinstance(one, kind) for one in several):
        return tuple(several)
    faults.append(f"{word} is {_shown(value)}; give lc.{kind.__name__}, or several")
    return ()


def as_mapping(value: object, word: str, faults: list[str]) -> dict[str, Any]:
    """A mapping whose keys are names."""
    if isinstance(value, Mapping) and all(isinstance(key, str) and key for key in value):
        return dict(value)
    faults.append(f"{word} is {_shown(value)}; give names with their values")
    return {}


def as_chances(value: object, faults: list[str]) -> dict[str, tuple[float, float]]:
    """Chance and items by task; items not given are NaN."""
    found = {}
    for task, given in as_mapping(value, "tasks", faults).items():
        pair = [given, None] if isinstance(given, int | float) else given
        pair = list(pair) if isinstance(pair, list | tuple) and len(pair) == 2 else [None, None]
        chance, items = number(pair[0]), number(pair[1])
        of_items = pair[1] is None or pair[1] != pair[1] or (items is not None and items >= 1)
        if chance is None or not 0 <= chance < 1 or not of_items:
            faults.append(f"tasks.{task} is {_shown(given)}; give chance (a fraction) and items")
        else:
            found[task] = (chance, float("nan") if items is None else items)
    return found


def as_weights(value: object, faults: list[str]) -> dict[str, dict[str, float]]:
    """Weights of the parts by the task that is their mean."""
    found = {}
    for task, given in as_mapping(value, "aggregates", faults).items():
        parts = as_mapping(given, f"aggregates.{task}", faults)
        weights = {part: number(weight) for part, weight in parts.items()}
        known = {part: weight for part, weight in weights.items() if weight is not None}
        if len(known) < len(parts) or abs(sum(known.values()) - 1) > 0.01:
            faults.append(f"aggregates.{task} is {_shown(given)}; give weights that add up to 1")
        found[task] = known
    means = [part for parts in found.values() for part in parts if part in found]
    if means:
        faults.append(f"aggregates: {listed(means)} is itself a mean; give its parts")
    return found


def has_braces(key: str) -> bool:
    """Whether there are others than those of `{task}`."""
    return bool(set("{}") & set(key.replace("{task}", "")))


def check_fields(content: Mapping[str, Any], kind: type, what: str, faults: list[str]) -> None:
    """Faults are names that are no fields, with those that are meant."""
    names = [field.name for field in fields(kind)]
    for word in content:
        if word not in names:
            near = get_close_matches(word, names, 1)
            cure = f"is it `{near[0]}`?" if near else f"there are {listed(names)}"
            faults.append(f"{what} has no `{word[:60]}`; {cure}")


def build_objects[T](given: object, kind: type[T], word: str, faults: list[str]) -> list[T]:
    """Objects from tables of TOML, one or several."""
    found = []
    tables: list[Any] = given if isinstance(given, list) else [given]
    for table in tables:
        before = len(faults)
        if isinstance(table, dict):
            check_fields(table, kind, f"[[{word}]]", faults)
        else:
            faults.append(f"{word} is {_shown(given)}; give a table [[{word}]]")
        if len(faults) == before:
            try:
                found.append(kind(**table))
            except (ValueError, TypeError) as error:  # a field without a default may lack
                faults.append(str(error).replace(f"{kind.__name__}.__init__()", f"[[{word}]]"))
    return found


def _shown(value: object) -> str:
    try:
        return repr(value)[:80]
    except ValueError:  # Python writes no integer of thousands of digits
        return "a huge number"

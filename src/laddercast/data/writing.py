"""How numbers and lists are written for readers."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from laddercast.data import words as c


class Style(NamedTuple):
    """How a quantity is written: `unit` behind its values, `of_errors` behind what is told of them.

    Values of tables are multiplied by `factor`; scores have that already.
    """

    factor: float
    digits: int
    unit: str
    of_errors: str
    error_digits: int
    plural: str

    def value(self, value: float) -> str:
        """A value of a table without its unit; what is not known as a dash."""
        return "-" if value != value else f"{self.factor * value:.{self.digits}f}"

    def error(self, value: float) -> str:
        """A score without its unit, likewise."""
        return "-" if value != value else f"{value:.{self.error_digits}f}"


STYLES = {
    c.ACCURACY: Style(100.0, 1, " %", " points", 2, "accuracies"),
    c.LOSS: Style(1.0, 4, "", "", 4, "losses"),
}
"""By quantity: accuracies in percent and points, losses in their own unit."""


def short_number(number: float, digits: int = 3) -> str:
    """Some digits and a letter: 1.28B, or of two digits 1.3B; whole numbers keep all digits."""
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * unit:
            scaled = number / unit
            whole = scaled >= 10 ** (digits - 1)
            return f"{scaled:.0f}{letter}" if whole else f"{scaled:.{digits}g}{letter}"
    return f"{number:.3g}"


def percent(value: float) -> str:
    """A fraction in percent, to a tenth: 12.3; what is not known as a dash."""
    return "-" if value != value else f"{100 * value:.1f}"


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number of things: 1 task, 2 tasks."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(names: Iterable[str], most: int = 40) -> str:
    """All names up to a legible number."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def listed_by[T](groups: Mapping[T, Sequence[str]], most: int = 40) -> str:
    """What differs between runs: each value and the names that have it."""
    return "; ".join(f"{value}: {listed(names, most)}" for value, names in groups.items() if names)


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that is most like this one, whatever the case of letters; None if none is."""
    by_lower = {str(one).lower(): str(one) for one in known}
    found = get_close_matches(str(name).lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[found[0]] if found else None


def no_such(what: str, names: Iterable[str], known: Iterable[str], plural: str = "") -> str:
    """A fault: names that are not known, the nearest that are, and a list of those."""
    names, known = list(map(str, names)), list(map(str, known))
    near = [found for name in names if (found := nearest(name, known))]
    meant = f"; did you mean {listed(dict.fromkeys(near), 5)}?" if near else ";"
    return f"no such {what}: {listed(names, 10)}{meant} {plural or what + 's'} are {listed(known)}"

"""Names that are written from right to left, inside sentences that are not."""

import unicodedata
from typing import Any

from markupsafe import Markup

RIGHT_TO_LEFT = ("R", "AL")
CONTROLS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
"""Classes of invisible characters that would turn what comes after them."""

OPEN, CLOSE = "\u2068", "\u2069"


def isolated(value: Any) -> Any:
    """Text in which what is written from right to left does not reorder its neighbours."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isascii():
        return value
    text = "".join(x for x in value if unicodedata.bidirectional(x) not in CONTROLS)
    places = [i for i, x in enumerate(text) if unicodedata.bidirectional(x) in RIGHT_TO_LEFT]
    if not places:
        return text
    # A stretch ends where a letter of the other direction stands before the next of this one.
    stretches = [[places[0], places[0]]]
    for place in places[1:]:
        between = text[stretches[-1][1] + 1 : place]
        if any(unicodedata.bidirectional(x) == "L" for x in between):
            stretches.append([place, place])
        stretches[-1][1] = place
    for first, last in reversed(stretches):
        text = f"{text[:first]}{OPEN}{text[first : last + 1]}{CLOSE}{text[last + 1 :]}"
    return text

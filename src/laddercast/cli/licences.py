"""The packages that laddercast needs, and those that these need, with their licences."""

from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def licences() -> list[tuple[str, str, str]]:
    """`(package, version, licence)` of all that is installed for laddercast, by name.

    As the packages themselves say; those that are missing are left out, which `doctor` tells.
    """
    found: dict[str, Distribution] = {}
    waiting: list[tuple[str, frozenset[str]]] = [("laddercast", frozenset())]
    seen = set(waiting)
    while waiting:
        name, extras = waiting.pop()
        try:
            own = distribution(name)
        except PackageNotFoundError:
            continue
        found[name] = own
        for requirement in map(Requirement, own.requires or []):
            marker = requirement.marker
            if marker and not any(marker.evaluate({"extra": x}) for x in extras or {""}):
                continue
            needed = canonicalize_name(requirement.name), frozenset(requirement.extras)
            if needed not in seen:
                seen.add(needed)
                waiting.append(needed)
    return [(name, own.version, _licence(own)) for name, own in sorted(found.items())]


def _licence(own: Distribution) -> str:
    """The expression, else the classifiers, else the first line of the text."""
    metadata = own.metadata
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = metadata.get_all("Classifier") or []
    named = [str(x).split(" :: ")[-1] for x in classifiers if str(x).startswith("License :: ")]
    if named:
        return ", ".join(named)
    lines = str(metadata.get("License") or "").strip().splitlines()
    return lines[0][:60] if lines else "not said"

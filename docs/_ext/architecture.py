"""Directive `architecture`: a picture of the subpackages, in layers, with the imports between them.

Layers are those of the contract in pyproject.toml. grimp reads the imports; nothing is executed.
`python docs/_ext/architecture.py OUT.svg` writes the picture alone.
"""

import re
import sys
import tomllib
from collections import Counter
from pathlib import Path
from textwrap import wrap
from typing import Any, NamedTuple

import grimp
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
TOP_WIDTH, TITLE_WIDTH, LETTER, LINE, STEP = 420, 106, 7.25, 17, 32
"""Widths of the uppermost box, of titles, of a letter of names; line height; space for an arrow."""

# Colours are the theme's, and the system's where the picture stands alone.
STYLE = """.architecture { font: 13px system-ui, sans-serif; max-width: none;
  background: var(--pst-color-background, Canvas); fill: var(--pst-color-text-base, CanvasText);
  --line: var(--pst-color-text-muted, GrayText); color-scheme: light dark; }
.architecture :is(rect, circle) { fill: var(--pst-color-background, Canvas); stroke: var(--line); }
.architecture rect { fill: var(--pst-color-surface, Canvas); }
.architecture .arrow { fill: none; stroke: var(--line); shape-rendering: crispEdges; }
.architecture .head { fill: var(--line); }
.architecture .package { font-weight: 600; }
.architecture .module { font: 12px ui-monospace, "DejaVu Sans Mono", monospace; }
.architecture .count { font-size: 11px; text-anchor: middle; }"""


class Architecture(NamedTuple):
    """Layers from the top down, the modules of each package, and how many imports join two.

    `loose` are modules in no layer. `exempt` are imports that the contract lets pass; not counted.
    """

    layers: list[list[str]]
    modules: dict[str, list[str]]
    imports: Counter[tuple[str, str]]
    loose: list[str]
    exempt: list[str]


def read() -> Architecture:
    """The package as it is, in the order of its contract."""
    linter = tomllib.loads(PROJECT.read_text())["tool"]["importlinter"]
    contract = next(each for each in linter["contracts"] if each["type"] == "layers")
    graph = grimp.build_graph(linter["root_package"], cache_dir=None)
    exempt = contract.get("ignore_imports", [])
    for found in [each for line in exempt for each in graph.find_matching_direct_imports(line)]:
        graph.remove_import(**found)
    layers = [re.split(r"\s*[|:]\s*", layer) for layer in contract["layers"]]
    packages = [package for layer in layers for package in layer]
    modules = {package: sorted(graph.find_descendants(package)) for package in packages}
    owner = {module: package for package in packages for module in [package, *modules[package]]}
    imports = Counter(
        (package, owner[other])
        for module, package in owner.items()
        for other in graph.find_modules_directly_imported_by(module)
        if owner.get(other, package) != package
    )
    # Of neighbours in a layer, the one that imports more of the others stands above.
    for i, layer in enumerate(layers):
        layers[i] = sorted(layer, key=lambda a: sum(imports[b, a] - imports[a, b] for b in layer))
    return Architecture(layers, modules, imports, sorted(graph.modules - owner.keys()), exempt)


def svg(of: Architecture) -> str:
    """The picture: a box's line leads right; where it meets an arrow is the number of imports.

    Arrows go up on the left side, as between neighbours in a layer they may.
    """
    rows = [package for layer in of.layers for package in layer]
    back = sorted(pair for pair in of.imports if rows.index(pair[0]) > rows.index(pair[1]))
    left = 2 + STEP * len(back)
    right = {package: left + TOP_WIDTH + STEP * i for i, package in enumerate(rows)}
    boxes, y = _box(of.loose[0], of.loose[1:], left, left + TOP_WIDTH, 2)
    leaves, enters, arrows, counts = {}, {}, [], []
    for layer in of.layers:
        y += 8
        for package in layer:
            leaves[package] = y + 17
            drawn, y = _box(package, of.modules[package], left, right[package], y + 5)
            enters[package] = y - 8
            boxes += drawn
    for (importer, other), count in sorted(of.imports.items()):
        start, end, x, tip = right[importer], right[other], right[other] + STEP // 2, 6
        if (importer, other) in back:
            start, end, x, tip = left, left, STEP * back.index((importer, other)) + STEP // 2, -6
        y0, y1 = leaves[importer], enters[other]
        arrows.append(f'<path class="arrow" d="M{start} {y0}H{x}V{y1}H{end}"/>')
        arrows.append(f'<path class="head" d="M{end} {y1}l{tip} -4v8z"/>')
        counts.append(
            f'<g class="count"><title>{importer} imports {other}: {count}</title>'
            f'<circle cx="{x}" cy="{y0}" r="9"/><text x="{x}" y="{y0 + 4}">{count}</text></g>'
        )
    for line in of.exempt:
        y += 22
        said = line.replace("->", "imports")
        boxes.append(f'<text x="{left}" y="{y}">Not drawn: {said}, by way of exception</text>')
    size = f'width="{right[rows[-1]] + STEP}" height="{y + 10}"'
    inside = "".join(boxes + arrows + counts)
    namespace = 'xmlns="http://www.w3.org/2000/svg"'
    return f'<svg {namespace} class="architecture" {size}><style>{STYLE}</style>{inside}</svg>'


def _box(
    package: str, modules: list[str], left: int, right: int, top: int
) -> tuple[list[str], int]:
    """A package with its modules, in lines that fit, and where its box ends."""
    at = f'id="{package}" x="{left + 10}" y="{top + 21}"'
    texts = [f'<text class="package" {at}>{_last(package)}']
    # A package within the package begins a line.
    inner = {module.rpartition(".")[0] for module in modules} - {package}
    groups: dict[str, list[str]] = {package: []}
    for module in modules:
        line = module if module in inner else module.rpartition(".")[0]
        groups.setdefault(line, []).append(module)
    room = int((right - left - TITLE_WIDTH - 8) / LETTER)
    bottom = top + 4
    for group in groups.values():
        each = iter(group)
        for line in wrap("  ".join(_last(m) + "/" * (m in inner) for m in group), room):
            bottom += LINE
            for word in re.finditer(r"\S+", line):
                x = left + TITLE_WIDTH + LETTER * word.start()
                at = f'id="{next(each)}" x="{x:g}" y="{bottom}"'
                texts.append(f'<text class="module" {at}>{word[0]}')
    bottom = max(bottom, top + 4 + LINE) + 13
    size = f'width="{right - left}" height="{bottom - top}" rx="4"'
    return [f'<rect x="{left}" y="{top}" {size}/>', *(f"{text}</text>" for text in texts)], bottom


def _last(module: str) -> str:
    return module.rpartition(".")[2]


class ArchitectureDirective(SphinxDirective):
    """`{architecture}`: takes no arguments."""

    def run(self) -> list[nodes.Node]:
        """The picture, in a box that scrolls where the screen is narrow."""
        self.env.note_reread()
        style = "overflow-x: auto; margin-bottom: 1rem"
        box = f'<div role="region" aria-label="Architecture" tabindex="0" style="{style}">'
        return [nodes.raw("", f"{box}{svg(read())}</div>", format="html")]


def setup(app: Any) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("architecture", ArchitectureDirective)
    return {"parallel_read_safe": True}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(svg(read()))

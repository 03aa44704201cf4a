import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import laddercast as lc

PACKAGE = Path(lc.__file__).parent
DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def architecture() -> ModuleType:
    path = DOCS / "_ext" / "architecture.py"
    spec = importlib.util.spec_from_file_location("architecture", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_names_every_subpackage_and_module_once(architecture: ModuleType):
    paths = [path.relative_to(PACKAGE.parent) for path in PACKAGE.rglob("*.py")]
    modules = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths]
    shown = re.findall(
        r'<text class="\w+" id="(.+?)".*?>(.+?)<', architecture.svg(architecture.read())
    )
    assert sorted(module for module, _ in shown) == sorted(modules)
    assert all(label.strip("/") == module.rpartition(".")[2] for module, label in shown)


def test_no_arrow_points_up_but_between_neighbours_in_a_layer(architecture: ModuleType):
    of = architecture.read()
    picture = architecture.svg(of)
    layer = {package: i for i, layer in enumerate(of.layers) for package in layer}
    pairs = re.findall(r"<title>(\S+) imports (\S+): \d+<", picture)
    arrows = re.findall(r'class="arrow" d="M\d+ (\d+)H\d+V(\d+)H\d+"', picture)
    assert len(pairs) > len(layer)
    for (importer, other), (top, bottom) in zip(pairs, arrows, strict=True):
        assert int(bottom) > int(top) or layer[importer] == layer[other]


def test_an_import_that_points_up_is_drawn_so(architecture: ModuleType):
    of = architecture.read()
    top, bottom = of.layers[0][0], of.layers[-1][0]
    arrows = [
        re.findall(
            r'class="arrow" d="M\d+ (\d+)H\d+V(\d+)H',
            architecture.svg(of._replace(imports={pair: 1})),
        )
        for pair in ((top, bottom), (bottom, top))
    ]
    ((down,), (up,)) = arrows
    assert int(down[0]) < int(down[1])
    assert int(up[0]) > int(up[1])


def test_every_subpackage_has_a_section_on_the_page():
    sections = re.findall(r"^### (\w+)$", (DOCS / "architecture.md").read_text(), re.MULTILINE)
    assert sorted(sections) == sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))

"""Sphinx settings: the site is built offline, from docstrings, Markdown and executed notebooks."""

import re
import sys
from pathlib import Path
from typing import Any

from pygments.lexers.special import TextLexer

import laddercast

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "laddercast"
author = "the laddercast authors"
version = release = laddercast.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx_argparse_cli",
    "architecture",
    "mathml",
    "picture",
    "prior_table",
    "type_alias",
]
exclude_patterns = ["_build", "accuracy_tables.md", "**.ipynb_checkpoints"]
default_role = "code"  # docstrings are written as Markdown: `name` is code

# Outputs are those committed; CI executes the notebooks in a step of its own.
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_use_type_comments = False
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"

# Every name of ours must resolve. Those of other libraries would need their inventories, fetched.
nitpicky = True
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(pd|pandas|xr|xarray|np|numpy|jax|numpyro|dist|matplotlib|pathlib|collections|concurrent)\..*",
    ),
    # Protocols of other libraries' tables.
    (r"py:.*", r"laddercast\.data\.sources\.(ArrowTable|Interchange)"),
    (r"py:.*", r"(Path|Any|Axes|ArrayLike|Mapping|Sequence|Callable|Iterable|Literal|ValueError)"),
]

html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = "laddercast"
html_theme_options = {
    "show_prev_next": False,
    "header_links_before_dropdown": 6,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": [],
    "footer_end": [],
}
html_sidebars = {
    page: []
    for page in ("index", "tutorial", "gallery", "model", "cli", "libraries", "architecture")
}
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False


def _link_public_names(
    _app: Any, what: str, name: str, obj: Any, _options: Any, lines: list[str]
) -> None:
    """Turn `name` of another public object into a link; arguments of that name stay code."""
    own = set(getattr(getattr(obj, "__code__", None), "co_varnames", ()))
    names = set(laddercast.__all__) - own - {name.rpartition(".")[2], "__version__"}

    def linked(found: re.Match[str]) -> str:
        return f":py:obj:`laddercast.{found[1]}`" if found[1] in names else found[0]

    lines[:] = [re.sub(r"(?<![`:])`([A-Za-z_0-9]+)`(?!`)", linked, line) for line in lines]


def setup(app: Any) -> None:
    """Register what conf.py adds to autodoc."""
    app.add_lexer("csv", TextLexer)
    app.connect("autodoc-process-docstring", _link_public_names)

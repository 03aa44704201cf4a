"""Directive `type-alias`: a `type` statement with its value, which autodoc does not show yet."""

from importlib import import_module
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import stringify_annotation


class TypeAlias(SphinxDirective):
    """`{type-alias} module.Name`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The alias as a `py:type`, parsed in place."""
        module, _, name = self.arguments[0].rpartition(".")
        value = stringify_annotation(getattr(import_module(module), name).__value__, "smart")
        lines = [f"```{{py:type}} {self.arguments[0]}", f":canonical: {value.replace('~', '')}"]
        return self.parse_text_to_nodes("\n".join([*lines, "```"]))


def setup(app: Any) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("type-alias", TypeAlias)
    return {"parallel_read_safe": True}

"""Directive `picture`: Python that draws, shown with the figure that it drew.

Blocks of a page share their variables, in order. Figures are made when the page is built and stand
inside it: none is committed, and none can be older than the code. They are kept in `_build` for as
long as neither the page's blocks nor the package change, as a fit takes a while.
"""

import base64
import json
import os
import warnings
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

PACKAGE = Path(__file__).parents[2] / "src" / "laddercast"
DPI = 110


class Picture(SphinxDirective):
    """`{picture} What it shows`, and code; with `:hidden:` the code is run and shown alone."""

    has_content = True
    optional_arguments = 1
    final_argument_whitespace = True
    option_spec = {"hidden": directives.flag}  # noqa: RUF012 - as docutils has it

    def run(self) -> list[nodes.Node]:
        """The code, then its figure."""
        code = "\n".join(self.content)
        blocks = self.env.temp_data.setdefault("pictures", [])
        blocks.append(code)
        shown: list[nodes.Node] = [nodes.literal_block(code, code, language="python")]
        if "hidden" not in self.options:
            caption = self.arguments[0] if self.arguments else "A figure"
            text = base64.b64encode(self._figure(blocks)).decode()
            style = "max-width: 100%; background: #fff"
            tag = f'<img src="data:image/png;base64,{text}" alt="{caption}" style="{style}">'
            shown.append(nodes.raw("", f"<p>{tag}</p>", format="html"))
        return shown

    def _figure(self, blocks: list[str]) -> bytes:
        key = sha256(json.dumps(blocks).encode())
        for file in sorted(PACKAGE.rglob("*.py")):
            key.update(file.read_bytes())
        kept = Path(self.env.srcdir) / "_build" / "pictures" / f"{key.hexdigest()[:24]}.png"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(self._draw(blocks))
        return kept.read_bytes()

    def _draw(self, blocks: list[str]) -> bytes:
        """Run what no block before this one has run yet; returns the last figure."""
        names: dict[str, Any] = self.env.temp_data.setdefault("picture_names", {})
        done = self.env.temp_data.setdefault("picture_done", [])
        plt.close("all")
        with mpl.rc_context({"savefig.dpi": DPI}), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for code in blocks[len(done) :]:
                plt.close("all")
                exec(compile(code, self.env.docname, "exec"), names)
                done.append(code)
            out = BytesIO()
            plt.gcf().savefig(out, format="png", dpi=DPI)
        plt.close("all")
        return out.getvalue()


def setup(app: Any) -> dict[str, bool]:
    """Register the directive."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    app.add_directive("picture", Picture)
    return {"parallel_read_safe": True}

"""Where benchmarks keep what they found, and the page of decisions, of which each has a section."""

import datetime
import re
import shlex
import sys
from argparse import ArgumentParser
from pathlib import Path

import pandas as pd

from laddercast.data.temporary import write_whole

PAGE = Path(__file__).parents[1] / "docs" / "decisions.md"

SECTIONS = {
    "recipes": "Which recipe?",
    "recipes simulated": "Which recipe, of simulated ladders?",
    "plan": "Which rung next?",
    "allocation": "How large, how long?",
}
"""Headings of the page, in order, by the benchmark that writes what stands below them."""


def keep(table: pd.DataFrame, out: Path | None) -> None:
    """Write a CSV file, if one was asked for; a run that breaks off leaves the last one whole."""
    if out:
        write_whole(out, table.to_csv(index=False).encode())


def add_page(parser: ArgumentParser) -> None:
    """Options of all benchmarks of decisions: what is written, and whether anything is fitted."""
    parser.add_argument("--page", type=Path, default=PAGE, help="default: docs/decisions.md")
    parser.add_argument(
        "--tables", action="store_true", help="fit nothing: the section, from what is in DIR"
    )


def write_section(page: Path, name: str, text: str, out: Path) -> None:
    """Put `text` in the place of what stands below the heading of a benchmark, and nothing else.

    It begins with the command, in which `out` is called DIR, and today's date. Headings within it
    are of the third level.
    """
    words = [
        "DIR" if word == str(out) else Path(word).name if "/" in word else word
        for word in sys.argv[1:]
    ]
    # Where the page lies is no part of how its numbers were made.
    if "--page" in words:
        del words[words.index("--page") : words.index("--page") + 2]
    command = shlex.join(["python", f"benchmarks/{name.split()[0]}.py", *words])
    head = f"Made by `{command}`, {datetime.date.today().isoformat()}."
    parts = re.split(r"^(## .*)\n", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    place = parts.index(f"## {SECTIONS[name]}") + 1
    last = place == len(parts) - 1
    parts[place] = f"\n{head}\n\n{text.strip()}\n" + ("" if last else "\n")
    whole = "".join(f"{part}\n" if part.startswith("## ") else part for part in parts)
    write_whole(page, whole.encode())

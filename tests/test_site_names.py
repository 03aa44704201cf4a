"""Only the model names its sites: whoever else did would tie itself to one route."""

import ast
from collections.abc import Iterator
from pathlib import Path

import jax
import numpyro
import pandas as pd
import pytest

import laddercast
from laddercast.data.ladder import read_ladder
from laddercast.model.design import ladder_design
from laddercast.model.priors import Priors
from laddercast.model.routes import ROUTES
from laddercast.sampling.density import is_latent

PACKAGE = Path(laddercast.__file__).parent

LETTERS = {"A", "B", "E", "a", "b", "k", "q", "alpha", "beta", "gamma"}
"""The paper's letters, by which plots and tables call what `letters` makes of a posterior's sites:
`q` and `gamma` are also sites, and where they stand as such cannot be told from the string."""


def latent_sites(table: pd.DataFrame) -> set[str]:
    design, observed, *_ = ladder_design(read_ladder(table))
    names: set[str] = set()
    for route in ROUTES.values():
        seeded = numpyro.handlers.seed(route.model, jax.random.key(0))
        trace = numpyro.handlers.trace(seeded).get_trace(design, Priors(), observed)
        names |= {name for name, site in trace.items() if is_latent(site)}
    return names


def strings(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each string constant, also of parts of f-strings, but for docstrings."""
    tree = ast.parse(source)
    # A string that is a statement by itself documents what it follows.
    documents = {id(x.value) for x in ast.walk(tree) if isinstance(x, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if id(node) not in documents:
                yield node.lineno, text


def named(source: str, sites: set[str]) -> list[tuple[int, str]]:
    return [(line, text) for line, text in strings(source) if text in sites - LETTERS]


@pytest.mark.slow
def test_no_module_outside_the_model_names_a_latent_site(small_table: pd.DataFrame) -> None:
    sites = latent_sites(small_table)
    assert {"log_alpha", "log_alpha_center", "walk_loss", "noise_reference", "q"} <= sites
    assert not {"accuracy", "log_loss", "law"} & sites
    modules = [x for x in PACKAGE.rglob("*.py") if "model" not in x.relative_to(PACKAGE).parts]
    assert len(modules) > 30
    found = [
        f"{path.relative_to(PACKAGE)}:{line} {text}"
        for path in modules
        for line, text in named(path.read_text(), sites)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('x = posterior["log_alpha"]', ["log_alpha"]),
        ('def f():\n    """log_alpha"""\n    return 1', []),
        ('x = 1\n"""log_alpha"""', []),
        ('x = f"{a}log_alpha{b}"', ["log_alpha"]),
        ('x = "q", "accuracy"', []),
    ],
)
def test_what_counts_as_a_name(source: str, found: list[str]) -> None:
    assert [text for _, text in named(source, {"log_alpha", "q"})] == found

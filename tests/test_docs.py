import importlib.util
import re
from dataclasses import fields, make_dataclass
from pathlib import Path
from types import ModuleType

import numpyro.distributions as dist
import pytest

import laddercast as lc

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def prior_table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("prior_table", DOCS / "_ext" / "prior_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_has_every_public_name_once():
    pages = "\n".join(page.read_text() for page in sorted((DOCS / "reference").glob("*.md")))
    listed = re.findall(r"^\.\. (?:auto|py:)\w+:: laddercast\.(\w+)$", pages, re.MULTILINE)
    assert sorted(listed) == sorted(lc.__all__)


def test_links_of_the_readme_lead_somewhere():
    text = (DOCS.parent / "README.md").read_text()
    for file, anchor in re.findall(r"\]\(([\w./-]+)(#[\w-]+)?\)", text):
        page = DOCS.parent / file
        assert page.exists(), file
        if anchor:
            heads = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
            assert anchor[1:] in {head.lower().replace(" ", "-") for head in heads}, anchor


def test_every_how_to_is_reached_from_the_first_page_and_from_its_list():
    first, own = ((DOCS / page).read_text() for page in ("index.md", "howto/index.md"))
    pages = {file.stem for file in (DOCS / "howto").glob("*.md")} - {"index"}
    assert {page for page in pages if f"(howto/{page}.md)" not in first} == set()
    assert pages <= set(own.splitlines())


def test_every_prior_has_a_meaning(prior_table: ModuleType):
    assert prior_table.faults(lc.Priors()) == []


def test_priors_without_a_meaning_and_meanings_without_a_prior_are_faults(prior_table: ModuleType):
    kept = [prior.name for prior in fields(lc.Priors) if prior.name != "q"]
    other = make_dataclass("Other", [*kept, "brand_new"])
    told = prior_table.faults(other(*[None] * (len(kept) + 1)))
    assert len(told) == 2
    assert told[0].startswith("Priors.brand_new has no meaning; add it")
    assert told[1].startswith("q is no field of Priors; delete it")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prior", "scale", "said", "shown"),
    [
        (dist.Uniform(0.0, 0.5), "", "Uniform(0, 0.5)", "0.25 (0.025 to 0.47)"),
        (dist.LogNormal(-0.9162907, 0.3), "", "LogNormal(log 0.4, 0.3)", "0.4 (0.24 to 0.65)"),
        (dist.Normal(-0.9162907, 0.3), "log", "Normal(log 0.4, 0.3)", "0.4 (0.24 to 0.65)"),
        (dist.Normal(0.0, 1e-9), "logit", "Normal(0, 1e-09)", "0.5 (0.5 to 0.5)"),
        (dist.Beta(2.0, 3.0), "", "Beta(2, 3)", "0.39 (0.098 to 0.75)"),
    ],
)
def test_a_prior_is_shown_as_typed_and_as_it_acts(
    prior: dist.Distribution, scale: str, said: str, shown: str, prior_table: ModuleType
):
    assert prior_table.described(prior) == said
    assert prior_table.implied(prior, scale) == shown

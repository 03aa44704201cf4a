"""Benchmarks in their short forms: the page of decisions, bad fits, shapes of ladders."""

import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))
import bad_fits  # noqa: E402
import recipes  # noqa: E402
import shapes  # noqa: E402
from results import PAGE, SECTIONS, write_section  # noqa: E402


def sections_of(page: Path) -> dict[str, str]:
    first, *others = page.read_text().split("\n## ")
    return {"": first} | {part.partition("\n")[0]: part.partition("\n")[2] for part in others}


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "decisions.md"
    path.write_text(PAGE.read_text())
    return path


def recipe_tables(folder: Path) -> None:
    part = {"part": "gadre, inside", "seconds": 1.0, "converged": 1}
    scores = {"method": "laddercast", "task": "each", "pairs": 84, "brier": 0.125, "right": 0.83}
    pairs = {"task": "piqa", "probability": 0.85, "measured": 0.02}
    losses = {"task": "piqa", "ours": 0.01, "best_rung": 0.02}
    for name, row in (("scores", scores), ("pairs", pairs), ("losses", losses)):
        pd.DataFrame([row | part]).to_csv(folder / f"{name}.csv", index=False)


def plan_tables(folder: Path) -> None:
    row = {"way": "plan", "step": 1, "budget": 1e20, "flops": 9e19, "error": 1.5, "crps": 1.125}
    pd.DataFrame([row | {"cover80": 0.9, "added": "760M-1xC"}]).to_csv(
        folder / "plan_paper.csv", index=False
    )


def allocation_tables(folder: Path) -> None:
    (folder / "closed.md").write_text("kept: 1.125\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tables", "said"),
    [
        ("recipes", recipe_tables, "0.125"),
        ("plan", plan_tables, "| 1.12 |"),
        ("allocation", allocation_tables, "kept: 1.125"),
    ],
)
def test_a_benchmark_writes_its_section_and_leaves_the_others(name, tables, said, page, tmp_path):
    out = tmp_path / "found"
    out.mkdir()
    tables(out)
    before = sections_of(page)
    script = ROOT / "benchmarks" / f"{name}.py"
    words = [sys.executable, script, "--out", out, "--tables", "--page", page]
    for _ in range(2):  # the second time, over its own
        subprocess.run(words, check=True, capture_output=True)
    after = sections_of(page)
    assert list(after) == list(before) == ["", *SECTIONS.values()]
    own = SECTIONS[name]
    assert {x: text for x, text in after.items() if x != own} == {
        x: text for x, text in before.items() if x != own
    }
    assert said in after[own]
    first = after[own].strip().splitlines()[0]
    assert first == (
        f"Made by `python benchmarks/{name}.py --out DIR --tables`, {date.today().isoformat()}."
    )


def test_the_page_has_each_section_with_its_command():
    for name, text in zip(SECTIONS, list(sections_of(PAGE).values())[1:], strict=True):
        assert f"`python benchmarks/{name.split()[0]}.py" in text.strip().split("\n\n")[0]
    # Deeper headings are the sections' own.
    assert PAGE.read_text().count("\n## ") == len(SECTIONS)


def test_a_section_that_the_page_lacks_is_an_error(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Decisions\n\n## Which recipe?\n\nold\n")
    with pytest.raises(ValueError, match="How large"):
        write_section(page, "allocation", "new", tmp_path)
    assert "old" in page.read_text()


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::laddercast.LaddercastWarning")
def test_the_short_form_of_recipes_fits_and_writes(page, tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "RECIPES", ["r0", "r1", "r2"])
    words = ["--only", "simulated", "--ladders", "1", "--chains", "2", "--draws", "50"]
    monkeypatch.setattr(
        sys, "argv", ["recipes.py", "--out", str(tmp_path), "--page", str(page), *words]
    )
    recipes.main()
    assert sections_of(page)["Which recipe?"] == sections_of(PAGE)["Which recipe?"]
    text = sections_of(page)[SECTIONS["recipes simulated"]]
    assert "--ladders 1 --chains 2 --draws 50`" in text
    assert "### How often a was better, by what was said" in text
    assert "1 ladders, 0 converged" in text
    pairs = pd.read_csv(tmp_path / "pairs.csv")
    assert set(pairs["a"]) | set(pairs["b"]) == {"r0", "r1", "r2"}
    assert np.isfinite(pairs["probability"]).all()


@pytest.mark.parametrize("seed", range(len(bad_fits.FAILURES)))
def test_failures_inside_a_fit_name_its_route_and_are_exit_status_4(seed):
    assert bad_fits.failing(seed) == ("exit status 4",)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:the fit has not converged")
def test_spoilt_draws_are_never_called_converged():
    sound = bad_fits.sound_fit(0)
    assert bad_fits.said(sound) == ()
    for spoil in bad_fits.SPOILT:
        assert "not converged" in bad_fits.spoilt(spoil, 0), spoil.__name__
    assert bad_fits.said(sound) == ()


LAWS = [
    name
    for name, shape in shapes.SHAPES.items()
    if getattr(shape.draw, "func", shape.draw) is shapes.from_laws
]


@pytest.mark.parametrize("name", LAWS)
def test_ladders_of_a_shape_have_their_fault_and_their_targets(name):
    ladder, targets, _ = shapes.SHAPES[name].draw(0)
    plain, plain_targets, _ = shapes.from_laws(0)
    assert (len(ladder.models), len(targets)) == (16, 16)
    changed = not ladder.table["accuracy"].equals(plain.table["accuracy"])
    assert changed == (name not in ("additive truth", "20 checkpoints of each run"))
    # An outlying rung is no fault of the targets.
    same = targets["accuracy"].equals(plain_targets["accuracy"])
    assert same == (not changed or name == "an outlying rung")


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::laddercast.LaddercastWarning")
def test_the_short_form_of_shapes_goes_on_from_where_it_was(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shapes, "PAGE", tmp_path / "shapes.md")
    words = ["--out", str(tmp_path), "--only", "accuracy alone", "--count"]
    shapes.main([*words, "1"])
    shapes.main([*words, "2"])
    assert "1 of 2 fits kept" in capsys.readouterr().err
    cells = pd.read_csv(tmp_path / "cells.csv")
    assert set(cells["ladder"]) == {0, 1}
    accuracies = cells.loc[cells["kind"] == "accuracy", "pit"]
    assert accuracies.between(0, 1).all()
    # Of 16 honest intervals of 95 %, fewer than 10 hold once in a hundred thousand times, were all
    # independent.
    assert ((accuracies - 0.5).abs() <= 0.475).sum() >= 10
    assert (
        f"direct        2       {100 * cells['converged'].mean():.0f}"
        in (tmp_path / "shapes.md").read_text()
    )
    assert (tmp_path / "ranks" / "accuracy-alone.nc").exists()

import re

import numpy as np
import pandas as pd

from laddercast.data.ladder import Ladder, read_ladder

NASTY = "<script>alert('&')</script>"


def ladder(table: pd.DataFrame, name: str = "ladder") -> Ladder:
    return Ladder(table, pd.DataFrame(), name=name)


def line(shown: str, first: str) -> list[str]:
    """The cells of the line that begins with `first`."""
    (found,) = [row for row in shown.splitlines() if row.split()[:1] == [first]]
    return re.split(r" {2,}", found.strip())


def test_sizes_by_lengths_are_counted(small_table):
    again = small_table[small_table["model"] == "200M-20"].assign(model="200M-20-again")
    shown = repr(ladder(pd.concat([small_table, again], ignore_index=True)))
    assert shown.startswith("ladder: 7 models, 84 checkpoints, 2 tasks, 168 rows")
    assert line(shown, "losses:") == ["losses: loss, reference_loss"]
    assert line(shown, "params") == ["params", "20", "100"]
    assert line(shown, "200M") == ["200M", "2 (24)", "1 (12)"]
    assert line(shown, "800M") == ["800M", "1 (12)", "1 (12)"]
    assert line(shown, "hard") == ["hard", "0.5", "500", "7", "-"]


def test_gaps_are_named(small_table):
    table = small_table.copy()
    table.loc[(table["model"] == "400M-20") & (table["task"] == "easy"), "loss"] = np.nan
    table.loc[(table["model"] == "200M-20") & (table["task"] == "easy"), "accuracy"] = np.nan
    table = table[(table["model"] != "800M-20") | (table["task"] != "hard")]
    shown = repr(ladder(table.assign(recipe="web", seed=3)))
    assert line(shown, "easy")[3:] == ["6", "no loss in 400M-20; no accuracy in 200M-20"]
    assert line(shown, "hard")[3:] == ["5", "not in 800M-20"]
    assert "losses: loss (in 91% of rows), reference_loss" in shown
    assert "recipe: web" in shown
    assert "seeds: 3" in shown


def test_a_lone_reference_loss_and_no_items(small_table):
    table = small_table.drop(columns=["loss", "items"])
    table.loc[table["model"] == "400M-20", "reference_loss"] = np.nan
    shown = repr(ladder(table))
    assert line(shown, "easy") == ["easy", "0.25", "-", "6", "no loss in 400M-20"]


def test_both_show_the_same(small_table):
    rungs = ladder(small_table)
    text, page = repr(rungs), rungs._repr_html_()
    cells = re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", page)
    rows = [row for row in text.splitlines() if row.startswith("  ")]
    assert cells == [cell for row in rows for cell in re.split(r" {2,}", row.strip())]


def test_users_text_is_escaped(small_table):
    table = small_table.replace({"task": {"easy": NASTY}, "model": {"200M-20": NASTY + "\n2"}})
    table = table[(table["model"] != NASTY + "\n2") | (table["task"] != "hard")]
    table = table.assign(recipe=NASTY, loss_kind=NASTY, seed=1)
    rungs = ladder(table, NASTY)
    page = rungs._repr_html_()
    assert "<script" not in page
    # Title, recipe, kind of loss, the task, and the model that lacks the other.
    assert page.count("&lt;script&gt;alert(&#x27;&amp;&#x27;)&lt;/script&gt;") == 5
    # Title and four facts, heading and four lines of sizes, heading and three lines of tasks.
    assert len(repr(rungs).splitlines()) == 5 + 5 + 4


def test_many_sizes_and_lengths_stay_legible():
    rng = np.random.default_rng(0)
    params = (1e7 * 1.2 ** np.arange(60)).astype(int)
    table = pd.DataFrame(
        {
            "model": [f"m{i}" for i in range(60)],
            "params": params,
            "tokens": (params * 10 ** rng.uniform(0, 4, 60)).astype(int),
            "task": "t" * 80,
            "loss": 1.0,
            "accuracy": 0.5,
            "chance": 0.0,
        }
    )
    shown = repr(read_ladder(table))
    head = line(shown, "params")
    assert len(head) <= 14
    assert head[1] == "1-2"
    assert head[-1].endswith(" larger")
    (rest,) = [row for row in shown.splitlines() if "36 larger" in row]
    assert sum(map(int, re.findall(r"\((\d+)\)", rest))) == 36
    assert max(map(len, shown.splitlines())) < 160

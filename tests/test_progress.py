import io
import sys
from types import SimpleNamespace

import nbformat
import pytest
import tqdm
import tqdm.notebook
from nbclient import NotebookClient

from laddercast.sampling import progress
from laddercast.sampling.progress import Lines, _kind, lengthen, progress_bar, with_progress

BARS = """
from concurrent.futures import ThreadPoolExecutor
from laddercast.sampling.progress import lengthen, progress_bar, with_progress

for _ in with_progress(["a", "b"], True, "backtest", "fit"):
    with progress_bar(2, True) as bar, ThreadPoolExecutor(2) as threads:
        lengthen(bar, 2)
        list(threads.map(bar.update, [1, 1, 2]))
"""


WIDGETS = "application/vnd.jupyter.widget-state+json"


@pytest.fixture
def in_notebook(monkeypatch):
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))


def terminal(monkeypatch):
    """Have a screen for what is written."""
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


def test_a_bar_in_a_terminal_and_lines_elsewhere(monkeypatch):
    terminal(monkeypatch)
    assert _kind() is tqdm.tqdm
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert _kind() is Lines


def test_the_notebooks_bar_where_it_can_be_shown(in_notebook, monkeypatch):
    assert _kind() is tqdm.notebook.tqdm
    monkeypatch.setattr(tqdm.notebook, "IProgress", None)
    assert _kind() is tqdm.tqdm


def test_text_without_ipywidgets(in_notebook, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with progress_bar(4, True) as bar:
        assert type(bar) is tqdm.tqdm
        bar.update(4)
    assert "sampling: 100%" in capsys.readouterr().err


def test_a_shell_of_ipython_is_no_notebook(monkeypatch):
    terminal(monkeypatch)
    shell = SimpleNamespace(config={"TerminalIPythonApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert _kind() is tqdm.tqdm


def test_an_inner_bar_goes_and_the_outer_one_stays(monkeypatch):
    screen = terminal(monkeypatch)
    for _ in with_progress(["a", "b"], True, "backtest", "fit"):
        with progress_bar(4, True) as bar:
            bar.update(4)
    last = screen.getvalue().split("\r")[-1]
    assert last.startswith("backtest: 100%")
    assert "2/2 [" in last
    assert "<00:00" in last
    assert last.endswith("\n")
    assert "sampling" in screen.getvalue()


def test_a_file_gets_plain_lines(monkeypatch, capsys):
    """In a file, a bar would be one line of many thousand characters."""
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    for _ in with_progress(["a", "b"], True, "backtest", "fit"):
        with progress_bar(4, True) as bar:
            bar.update(2)
            bar.update(2)
    said = capsys.readouterr().err
    assert "\r" not in said
    lines = said.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("sampling: 2 of 4 steps, 00:00 gone, about 00:00 left")
    assert lines[1].startswith("backtest: 1 of 2 fits, 00:00 gone, about")
    assert lines[3].startswith("backtest: 2 of 2 fits, 00:00 gone")
    assert "left" not in lines[3]


def test_the_only_one_of_an_outer_bar_says_when_it_is_done(capsys):
    for _ in with_progress(["a"], True, "backtest", "fit"):
        with progress_bar(4, True) as bar:
            bar.update(4)
    assert capsys.readouterr().err.startswith("sampling: 4 of 4 steps, 00:00 gone")


def test_totals_never_fall_and_nothing_is_shown_where_none_is_wanted(capsys):
    with progress_bar(5, True) as bar:
        lengthen(bar, 5)
        bar.update(10)
        with pytest.raises(AssertionError):
            lengthen(bar, -5)
    assert "10 of 10 steps" in capsys.readouterr().err
    with progress_bar(10, False) as bar:
        lengthen(bar, 5)
        bar.update(5)
    assert list(with_progress([1, 2], False, "backtest", "fit")) == [1, 2]
    assert list(with_progress([1], True, "backtest", "fit")) == [1]
    assert not capsys.readouterr().err


def test_bars_of_threads_show_in_a_notebook():
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(BARS)])
    NotebookClient(book, timeout=60, kernel_name="python3").execute()
    outputs = book.cells[0].outputs
    assert [output.output_type for output in outputs] == ["display_data"] * len(outputs)
    states = [one["state"] for one in book.metadata.widgets[WIDGETS]["state"].values()]
    bars = [state for state in states if state["_model_name"] == "FloatProgressModel"]
    assert sorted((bar["value"], bar["max"]) for bar in bars) == [(2, 2), (4, 4), (4, 4)]
    assert "danger" not in {bar["bar_style"] for bar in bars}

import io
import sys
from types import SimpleNamespace

import nbformat
import pytest
import tqdm
import tqdm.notebook
from nbclient import NotebookClient

from laddercast.sampling.progress import _kind, lengthen, progress_bar, with_progress

BARS = """
from concurrent.futures import ThreadPoolExecutor
from laddercast.sampling.progress import lengthen, progress_bar, with_progress

for _ in with_progress(["a", "b"], True, "backtest", "fit"):
    with progress_bar(8, True) as bar, ThreadPoolExecutor(2) as threads:
        lengthen(bar, -4)
        list(threads.map(bar.update, [1, 1, 2]))
"""


WIDGETS = "application/vnd.jupyter.widget-state+json"


@pytest.fixture
def in_notebook(monkeypatch):
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))


def test_text_outside_notebooks():
    assert _kind() is tqdm.tqdm


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
    shell = SimpleNamespace(config={"TerminalIPythonApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert _kind() is tqdm.tqdm


def test_an_inner_bar_goes_and_the_outer_one_stays(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    for _ in with_progress(["a", "b"], True, "backtest", "fit"):
        with progress_bar(4, True) as bar:
            bar.update(4)
    last = screen.getvalue().split("\r")[-1]
    assert last.startswith("backtest: 100%")
    assert "2/2 [" in last
    assert "<00:00" in last
    assert last.endswith("\n")
    assert "sampling" in screen.getvalue()


def test_lengths_can_change_and_nothing_is_shown_where_none_is_wanted(capsys):
    with progress_bar(10, True) as bar:
        lengthen(bar, -5)
        bar.update(5)
    assert "5/5" in capsys.readouterr().err
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

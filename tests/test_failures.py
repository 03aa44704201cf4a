"""Failures by kind: bad input, failures inside, interrupts; and settings that are slips."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from threadpoolctl import threadpool_info

import laddercast as lc
from laddercast.cli.commands import main


def no_memory() -> None:
    raise MemoryError


def lost_key() -> None:
    {}["key"]


def not_positive() -> None:
    np.linalg.cholesky(-np.eye(2))


@pytest.mark.parametrize("inside", [not_positive, no_memory, lost_key])
def test_failures_inside_are_not_called_bad_input(command, monkeypatch, capsys, inside):
    # A LinAlgError is a ValueError, though nobody's input is at fault.
    monkeypatch.setattr("laddercast.baselines.published.baseline", lambda *_: inside())
    assert main(command) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("internal failure")
    assert "commands.py:" in line


def test_what_c_raises_in_our_own_lines_is_not_called_bad_input(command, monkeypatch, capsys):
    ours = {}
    text = "def fail(*_):\n    return int('no number')"
    exec(compile(text, str(Path(lc.__file__).parent / "made_up.py"), "exec"), ours)
    monkeypatch.setattr("laddercast.baselines.published.baseline", ours["fail"])
    assert main(command) == 4
    assert "ValueError: invalid literal" in capsys.readouterr().err


def test_the_route_of_a_failed_fit_is_named(small_table, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        not_positive()

    monkeypatch.setattr("laddercast.inference.fitting.sample", fail)
    with pytest.raises(np.linalg.LinAlgError) as failed:
        lc.fit(lc.read_ladder(small_table), route="direct", progress=False)
    assert failed.value.__notes__ == ["in the route direct of ladder"]


@pytest.mark.parametrize(
    "words", [["--seed", str(2**63)], ["--draws", "99999999999999"], ["--seed", "9" * 9999]]
)
def test_slips_of_the_keyboard_are_refused(command, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["forecast", *command[1:], *words])
    assert stopped.value.code == 2
    assert "give a whole number from" in capsys.readouterr().err


@pytest.mark.parametrize("setting", [{"seed": 2**63}, {"seed": -1}, {"draws": 10**14}])
def test_fits_refuse_them_too(small_table, setting):
    with pytest.raises(ValueError, match="give a whole number from"):
        lc.fit(lc.read_ladder(small_table), **setting)


SWALLOWED = """
import gc, signal, sys, time
from importlib import import_module

# A shell's background job inherits that ^C is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

class Finalised:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)  # Python tells of it, and goes on

def work(*_):
    Finalised()
    for _ in range(600):
        time.sleep(0.1)
    print("went on", file=sys.stderr)

sys.unraisablehook = lambda *_: None
import_module("laddercast.data.ladder").read_ladder = work
from laddercast.cli.commands import main
raise SystemExit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_an_interrupt_inside_a_finaliser_is_not_swallowed(command):
    run = subprocess.run(
        [sys.executable, "-c", SWALLOWED, *command], capture_output=True, text=True, check=False
    )
    assert run.returncode == 130, run.stderr
    assert run.stderr.strip() == "interrupted"


FORKED = """
import os, warnings
warnings.simplefilter("ignore")
from laddercast.sampling.chains import on_device
import jax
with on_device(jax.devices("cpu")[0]):
    jax.numpy.ones(3).sum()
child = os.fork()
if not child:
    try:
        on_device(jax.devices("cpu")[0])
    except RuntimeError as error:
        os._exit(7 if "spawn" in str(error) else 1)
    os._exit(0)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_fork_says_so_in_place_of_hanging():
    run = subprocess.run([sys.executable, "-c", FORKED], timeout=100, check=False)
    assert run.returncode == 7


def test_threads_of_blas_are_as_before_where_fits_overlap():
    from laddercast.inference.fitting import settings_of_fits

    def threads() -> set[int]:
        return {own["num_threads"] for own in threadpool_info() if own["user_api"] == "blas"}

    before = threads()
    # Fits end in any order, each in its thread; here both are of one, whose precision is put back.
    with jax.enable_x64(False):
        first, second = settings_of_fits(), settings_of_fits()
        first.close()
        assert threads() == {1}
        second.close()
        assert threads() == before

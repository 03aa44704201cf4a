"""Folders of results: nobody's files are lost, nothing half-written or stray is left."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import xarray as xr

from laddercast.cli.commands import main


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.mark.parametrize("name", ["scores.csv", "forecast.csv"])
def test_files_of_others_are_neither_replaced_nor_removed(command, out, name, capsys):
    (out / name).write_text("mine")
    assert main(command) == 2
    assert (out / name).read_text() == "mine"
    assert sorted(path.name for path in out.iterdir()) == [name]
    said = capsys.readouterr().err
    assert name in said
    assert "give another folder" in said


def test_own_results_are_replaced_but_not_what_a_user_made_of_them(command, out, capsys):
    assert main(command) == 0
    assert main(command) == 0
    table = pd.read_csv(out / "forecast.csv").assign(note="mine")
    table.to_csv(out / "forecast.csv", index=False)
    assert main(command) == 2
    assert "note" in pd.read_csv(out / "forecast.csv")
    assert "has changed since" in capsys.readouterr().err


def test_links_are_not_written_through(command, out, tmp_path):
    (tmp_path / "elsewhere.csv").write_text("mine")
    (out / "forecast.csv").symlink_to(tmp_path / "elsewhere.csv")
    assert main(command) == 2
    assert (tmp_path / "elsewhere.csv").read_text() == "mine"


def test_an_output_that_is_an_input_is_refused(command, out, capsys):
    shutil.copy(command[1], out / "forecast.csv")
    before = (out / "forecast.csv").read_bytes()
    assert main([command[0], str(out / "forecast.csv"), *command[2:]]) == 2
    assert (out / "forecast.csv").read_bytes() == before
    assert "would be replaced" in capsys.readouterr().err


def test_an_empty_out_is_refused(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir())
    with pytest.raises(SystemExit) as stopped:
        main([*command[:-1], ""])
    assert stopped.value.code == 2
    assert sorted(os.listdir()) == before


def test_a_failure_leaves_no_folder(command, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("laddercast.baselines.published.baseline", fail)
    assert main([*command[:-1], str(tmp_path / "new" / "inner")]) == 4
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_told(command, out, capsys):
    # The superuser can write anywhere, but not into a file.
    assert main([*command[:-1], str(out.parent / "ladder.csv" / "inner")]) == 2
    said = capsys.readouterr().err
    assert "give a folder that can be written" in said
    assert "Traceback" not in said


def test_a_folder_on_a_disk_that_can_only_be_read_is_told(command, capsys):
    # Where even the superuser can write nothing.
    place = Path("/sys/laddercast")
    if not place.parent.is_dir():
        pytest.skip("no such place here")
    assert main([*command[:-1], str(place)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "give a folder that can be written" in line


def test_a_file_that_is_open_elsewhere_is_replaced_and_stays_whole_for_its_reader(tmp_path):
    from laddercast.inference.saving import save

    path = tmp_path / "fit.nc"
    older, newer = (
        xr.DataTree.from_dict({"a": xr.Dataset({"x": ("row", [x] * 9)})}) for x in (1, 2)
    )
    save(older, path)
    with xr.open_datatree(path, engine="h5netcdf") as reader:  # which reads later, and locks it
        save(newer, path)
        assert (reader["a"]["x"].to_numpy() == 1).all()
    with xr.open_datatree(path, engine="h5netcdf") as reader:
        assert (reader["a"]["x"].to_numpy() == 2).all()
    assert os.listdir(tmp_path) == ["fit.nc"]


def test_what_killed_processes_left_is_cleared_and_what_others_write_is_not(command, out):
    left, young, held = (out / f".laddercast-{name}" for name in ("left", "young", "held"))
    for folder in (left, young, held):
        folder.mkdir()
        (folder / "fit.nc").write_text("half")
    (left / "lock").touch()
    (held / "lock").touch()
    with (held / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(command) == 0
        assert [path.exists() for path in (left, young, held)] == [False, True, True]
    old = time.time() - 1000
    os.utime(young, (old, old))
    assert main(command) == 0
    assert not list(out.glob(".laddercast-*"))


def test_moves_that_were_cut_short_are_ended(command, out):
    """As after a kill between two renames: one file is moved, one is not, one is to go."""
    from laddercast.data.temporary import checksum, clear, written_in

    assert main(command) == 0
    left = out / ".laddercast-left"
    left.mkdir()
    (left / "lock").touch()
    (left / "forecast.csv").write_text("newer")
    (left / "scores.csv").write_text("newer too")
    sums = {path.name: checksum(path) for path in left.glob("*.csv")}
    (left / ".laddercast.json").write_text(json.dumps({"files": sums}))
    moves = {"move": ["scores.csv", "forecast.csv"], "remove": []}
    (left / "moves.json").write_text(json.dumps(moves))
    os.replace(left / "scores.csv", out / "scores.csv")
    clear(out)
    assert (out / "forecast.csv").read_text() == "newer"
    assert written_in(out) == sums
    assert not left.exists()


def test_a_planted_folder_moves_and_removes_nothing(command, out, tmp_path):
    from laddercast.data.temporary import clear

    (out / "mine.csv").write_text("mine")
    (tmp_path / "above.csv").write_text("mine")
    left = out / ".laddercast-planted"
    left.mkdir()
    (left / "lock").touch()
    for moves in (["mine.csv"], ["../above.csv"]):
        (left / "moves.json").write_text(json.dumps({"move": [], "remove": moves}))
        clear(out)
        left.mkdir(exist_ok=True)
        (left / "lock").touch()
    assert (out / "mine.csv").exists()
    assert (tmp_path / "above.csv").exists()


FULL = """
import resource, sys
import numpy as np, xarray as xr
from pathlib import Path
from laddercast.cli.failures import tell
from laddercast.cli.folders import results_folder
from laddercast.inference.saving import save

tree = xr.DataTree.from_dict({"a": xr.Dataset({"x": ("row", np.random.rand(100_000))})})
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
try:
    with results_folder(Path(sys.argv[1]), ["fit.nc"]) as folder:
        save(tree, folder / "fit.nc")
except Exception as error:
    raise SystemExit(tell(error))
"""


def test_a_full_disk_ends_in_one_line_and_older_results_stay(out):
    (out / "mine").write_text("mine")
    run = subprocess.run(
        [sys.executable, "-c", FULL, str(out)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2, run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert "make room" in run.stderr
    assert [path.name for path in out.iterdir()] == ["mine"]


@pytest.mark.slow
def test_two_processes_into_one_folder_leave_the_results_of_one(command, out):
    start = [sys.executable, "-m", "laddercast", *command]
    runs = [subprocess.Popen(start, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    names = sorted(path.name for path in out.iterdir())
    assert names == [".laddercast.json", "forecast.csv"]

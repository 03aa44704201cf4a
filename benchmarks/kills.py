"""Kill `laddercast demo` and `forecast` at random moments, and look at what they leave.

After each kill, older results are either whole and unchanged or wholly replaced by newer ones, and
the next run clears what was left. `python benchmarks/kills.py --count 100`; exit status 1 where
anything was half written, lost or left.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import xarray as xr

from laddercast.data.temporary import MANIFEST, PREFIX, checksum, clear, written_in

QUICK = ["--chains", "2", "--warmup", "50", "--draws", "50", "--route", "direct"]
LONGEST = 300
"""Seconds within which a signal must be heard, on a machine that does other work as well."""

MINE = "notes.txt"
"""A file of the user's in the same folder."""


def command(out: Path, seed: int, kind: str) -> list[str]:
    """A run that takes some seconds; `forecast` reads what an earlier `demo` has written."""
    start = [sys.executable, "-m", "laddercast", kind]
    if kind == "forecast":
        inputs = out.parent / "inputs"
        start += [str(inputs / "ladder.csv"), "--targets", str(inputs / "targets.csv")]
        start += ["--tasks", str(inputs / "tasks.csv")]
    return [*start, "--out", str(out), "--seed", str(seed), *QUICK]


def state(folder: Path) -> dict[str, str]:
    """Checksums of the files of a folder, by name."""
    return {
        path.name: checksum(path)
        for path in folder.iterdir()
        if path.is_file() and path.name != MANIFEST
    }


def faults_of(out: Path, before: dict[str, str], sent: int) -> list[str]:
    """What is wrong with a folder after a kill: with what was there `before` it."""
    faults = []
    if sent == signal.SIGINT and list(out.glob(f"{PREFIX}*")):
        faults.append("^C has left a folder")
    if (out / MINE).read_text() != "mine":
        faults.append(f"{MINE} was changed")
    clear(out)  # as the next run does first
    if left := [path.name for path in out.iterdir() if path.name.startswith(PREFIX)]:
        faults.append(f"left: {', '.join(left)}")
    now, known = state(out), written_in(out)
    if now != before and {name: x for name, x in now.items() if name != MINE} != known:
        faults.append("neither the older results nor whole newer ones")
    for name in ("fit.nc", "predictions.nc"):
        if name in now:
            with xr.open_datatree(out / name, engine="h5netcdf") as tree:
                tree.load()
    return faults


def kill_one(out: Path, kind: str, seed: int, wait: float, sent: int) -> tuple[bool, list[str]]:
    """Start a run, kill it after so many seconds. Whether it was still going, and what is wrong."""
    before = state(out)
    run = subprocess.Popen(
        command(out, seed, kind), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(wait)
    going = run.poll() is None
    if going:
        run.send_signal(sent)
    try:
        run.wait(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        run.kill()
        run.wait()
        return going, [f"{signal.Signals(sent).name} was not heard within {LONGEST} s"]
    return going, faults_of(out, before, sent)


def kill_many(count: int, seed: int = 0) -> list[str]:
    """All that was found wrong in so many kills, each told as it is found."""
    moments, faults = random.Random(seed), []
    with TemporaryDirectory() as root:
        out = Path(root) / "out"
        for folder in (out, Path(root) / "inputs"):
            begin = time.perf_counter()
            done = subprocess.run(command(folder, 0, "demo"), capture_output=True, check=False)
            if done.returncode not in (0, 3):
                raise RuntimeError(done.stderr.decode())
            whole = time.perf_counter() - begin
        (out / MINE).write_text("mine")
        for number in range(count):
            kind = ("demo", "forecast")[number % 2]
            sent = signal.SIGINT if number % 3 == 2 else signal.SIGKILL
            wait = moments.uniform(0, 1.1 * whole)
            going, found = kill_one(out, kind, number + 1, wait, sent)
            what = f"{signal.Signals(sent).name} of {kind} after {wait:.2f} s"
            told = "; ".join(found) or ("survived" if going else "had ended before")
            print(f"{number + 1} of {count}: {what}: {told}", flush=True)
            faults += [f"{what}: {one}" for one in found]
    return faults


def main() -> int:
    """Run as asked on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    # A shell's background job inherits that ^C is ignored, and so would what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faults = kill_many(args.count, args.seed)
    print(f"{args.count} kills, {len(faults)} faults")
    return int(bool(faults))


if __name__ == "__main__":
    raise SystemExit(main())

"""Calls in other processes: none is lost, warnings arrive, the same seeds give the same draws."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

import laddercast as lc
from laddercast.cli.commands import main
from laddercast.data.cautions import SkippedWarning
from laddercast.inference.executors import TRIES, as_done
from laddercast.inference.many import each_result

QUICK = {"route": "direct", "chains": 2, "warmup": 50, "draws": 50}
COMMAND = ["--chains", "2", "--warmup", "50", "--draws", "50", "--route", "direct"]

# What workers call must be at the top of a module.


def square(number: int) -> int:
    return number**2


def doubtful(number: int) -> int:
    warnings.warn(f"doubt {number}", SkippedWarning, stacklevel=1)
    return number


def wrong(number: int) -> int:
    doubtful(number)
    raise ValueError(f"wrong {number}")


def asleep(folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(600)


def killed_until(times: int, folder: Path, result: object) -> object:
    """The result, but so many calls end their process before."""
    for number in range(times):
        try:
            (folder / f"killed {number}").touch(exist_ok=False)
        except FileExistsError:
            continue
        os.kill(os.getpid(), signal.SIGKILL)
    return result


def is_running(process: int) -> bool:
    """Whether it is there, and not just waiting for its parent to look at how it ended."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_until(true: object, seconds: float = 60) -> None:
    begin = time.monotonic()
    while not true():
        assert time.monotonic() - begin < seconds
        time.sleep(0.05)


def test_calls_in_threads_warn_as_they_come():
    with ThreadPoolExecutor(2) as threads:
        assert sorted(as_done([partial(square, n) for n in range(5)], threads)) == [
            (n, n**2) for n in range(5)
        ]
        with pytest.warns(SkippedWarning, match="doubt 3"):
            assert list(as_done([partial(doubtful, 3)], threads)) == [(0, 3)]
        with pytest.warns(SkippedWarning), pytest.raises(ValueError, match="wrong 1"):
            list(as_done([partial(wrong, 1)], threads))


@pytest.mark.parametrize("count", [0, 1.5, "two"])
def test_a_number_of_processes_is_a_whole_one(count):
    with pytest.raises(ValueError, match="executor="):
        next(as_done([partial(square, 1)], count))


def test_wrong_settings_are_refused_before_a_process_begins(six_runs):
    with pytest.raises(ValueError, match="draws=0"):
        next(lc.fit_each([six_runs] * 2, executor=2, draws=0))


@pytest.mark.slow
def test_what_processes_lose_is_made_again(tmp_path):
    calls = [partial(square, n) for n in range(4)]
    calls.insert(1, partial(killed_until, TRIES - 1, tmp_path, "in the end"))
    assert sorted(as_done(calls, 2)) == [(0, 0), (1, "in the end"), (2, 1), (3, 4), (4, 9)]
    assert len(list(tmp_path.iterdir())) == TRIES - 1


@pytest.mark.slow
def test_a_call_that_ends_every_process_is_given_up(tmp_path):
    with pytest.raises(RuntimeError, match=f"{TRIES} processes have ended under fit 1 of 1"):
        list(as_done([partial(killed_until, 99, tmp_path, "never")], 1))
    assert len(list(tmp_path.iterdir())) == TRIES


@pytest.mark.slow
def test_a_pool_of_one_s_own_that_breaks_is_told(tmp_path):
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, mp_context=context) as pool,
        pytest.raises(RuntimeError, match="has lost a process"),
    ):
        list(as_done([partial(killed_until, 99, tmp_path, "never")], pool))


@pytest.mark.slow
def test_warnings_and_errors_of_processes_arrive():
    found = as_done([partial(doubtful, 0), partial(doubtful, 1), partial(wrong, 7)], 1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [next(found), next(found)] == [(0, 0), (1, 1)]
        with pytest.raises(ValueError, match="wrong 7") as raised:
            next(found)
    assert [str(one.message) for one in caught] == ["doubt 0", "doubt 1", "doubt 7"]
    assert {one.filename for one in caught} == {__file__}
    assert "in wrong" in str(raised.value.__cause__)


@pytest.mark.slow
def test_a_closed_iterator_ends_its_processes_at_once(tmp_path):
    calls = [partial(square, 1), partial(asleep, tmp_path), partial(asleep, tmp_path)]
    found = as_done(calls, 2)
    assert next(found) == (0, 1)
    wait_until(lambda: list(tmp_path.iterdir()))
    found.close()
    assert not any(is_running(int(path.name)) for path in tmp_path.iterdir())


PARENT = """
import sys
from functools import partial
from pathlib import Path
from laddercast.inference.executors import as_done
from test_executors import asleep

if __name__ == "__main__":
    list(as_done([partial(asleep, Path(sys.argv[1]))] * 2, 2))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_processes_end_with_the_one_that_began_them(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    asleep_in = tmp_path / "asleep"
    asleep_in.mkdir()
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(tmp_path / "parent.py"), str(asleep_in)]
    parent = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path})
    wait_until(lambda: len(list(asleep_in.iterdir())) == 2)
    parent.kill()
    parent.wait()
    processes = [int(one.name) for one in asleep_in.iterdir()]
    wait_until(lambda: not any(map(is_running, processes)))


@pytest.fixture(scope="module")
def parts(six_runs) -> list[lc.Ladder]:
    return [six_runs.keep(six_runs.models[:n]) for n in (4, 5, 6)]


@pytest.fixture(scope="module")
def alone(parts) -> list[object]:
    """The fits of the parts, each made in this process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lc.LaddercastWarning)
        return [
            lc.fit(part, seed=seed, within=parts[-1], progress=False, **QUICK)
            for seed, part in enumerate(parts)
        ]


def assert_same(found: list, alone: list) -> None:
    """Every number of the trees, bit for bit, and all that is told of them."""
    for one, other in zip(found, alone, strict=True):
        assert one.attrs == other.attrs
        assert one.identical(other)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::laddercast.LaddercastWarning")
def test_fits_of_processes_are_those_made_here(parts, alone, capsys):
    settings = QUICK | {"within": parts[-1]}
    assert_same(list(lc.fit_each(parts, seeds=range(3), progress=False, **settings)), alone)
    capsys.readouterr()
    assert_same(list(lc.fit_each(parts, seeds=range(3), executor=2, **settings)), alone)
    assert "fits: 3 of 3 fits" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::laddercast.LaddercastWarning")
def test_fits_that_are_lost_are_made_again(parts, alone, tmp_path):
    lost = partial(killed_until, 1, tmp_path)  # after a fit, before its result is sent
    settings = QUICK | {"within": parts[-1], "executor": 2}
    found = each_result(parts[:2], [lost] * 2, seeds=range(2), **settings)
    assert_same([fitted for _, fitted in sorted(found, key=lambda pair: pair[0])], alone[:2])
    assert list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def cluster():
    """A Dask cluster of two processes."""
    distributed = pytest.importorskip("distributed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as found:
            yield found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_fits_on_dask_are_those_made_here_also_with_a_worker_killed(
    cluster, parts, alone, tmp_path
):
    from distributed import Client

    settings = QUICK | {"within": parts[-1], "seeds": range(3)}
    lost = partial(killed_until, 1, tmp_path)
    with Client(cluster) as client:
        executor = client.get_executor()
        assert_same(list(lc.fit_each(parts, executor=executor, **settings)), alone)
        found = each_result(parts, [lost] * 3, executor=executor, **settings)
        assert_same([fitted for _, fitted in sorted(found, key=lambda pair: pair[0])], alone)
    assert list(tmp_path.iterdir())


@pytest.fixture
def ladder_file(six_runs, tmp_path) -> str:
    """A ladder without losses, as refits of the rivals that need them take longer than fits."""
    table = six_runs.table.drop(columns=["loss", "reference_loss"], errors="ignore")
    return str(lc.Ladder(table, six_runs.tasks).to_csv(tmp_path / "ladder.csv"))


@pytest.mark.slow
def test_a_backtest_on_workers_and_on_dask_is_the_one_made_here(
    cluster, six_runs, ladder_file, tmp_path, capsys
):
    named = ["--hold-out", six_runs.models[-1], "--folds", "sizes"]
    words = ["backtest", ladder_file, *named, *COMMAND]
    files = {}
    for name, more in {
        "here": [],
        "pool": ["--workers", "2"],
        "dask": ["--scheduler", cluster.scheduler_address],
    }.items():
        out = tmp_path / name
        assert main([*words, "--out", str(out), *more]) == 3
        assert not (out / "unfinished").exists()
        files[name] = [(out / file).read_bytes() for file in ("forecast.csv", "scores.csv")]
        assert "backtest: 2 of 2 fits" in capsys.readouterr().err
    assert files["pool"] == files["here"]
    assert files["dask"] == files["here"]


def test_where_no_dask_is_the_cure_is_told(ladder_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    words = ["backtest", ladder_file, "--out", str(tmp_path / "out"), "--scheduler", "tcp://x:1"]
    assert main(words) == 2
    assert "install laddercast[dask]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_workers_and_a_scheduler_are_one_too_many(ladder_file, capsys):
    words = ["backtest", ladder_file, "--out", "out", "--scheduler", "tcp://x:1", "--workers", "2"]
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert "not allowed with" in capsys.readouterr().err

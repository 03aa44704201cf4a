"""Calls on executors: processes spawned here, Dask's, any of `concurrent.futures`.

A call that was lost with its process is made again. Between processes go Python objects by pickle,
as each of them trusts the one that started it; nothing is unpickled from a file.
"""

import os
import signal
import threading
import traceback
import warnings
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, NamedTuple
from uuid import uuid4

from laddercast.data.cautions import warn
from laddercast.data.settings import check_whole
from laddercast.sampling.interrupts import heard
from laddercast.sampling.programs import keep, make_room
from laddercast.sampling.threads import stop_in_a_fork

TRIES = 3
"""Times that a call is made before it is given up, if its process ends under it each time."""

AHEAD = 256
"""Calls that an executor has at a time, as nobody can ask it how many it makes at once."""

HERE = uuid4().hex
"""Another one in each process, wherever it runs."""

_one_at_a_time = threading.Lock()


class Outcome(NamedTuple):
    """What a call in another process gave: its result, or what it raised; and its warnings."""

    result: Any
    warnings: Sequence[Warning]
    error: Exception | None = None
    trace: str = ""


def as_done[T](
    calls: Sequence[Callable[[], T]], executor: Executor | int
) -> Generator[tuple[int, T]]:
    """What each call returns, with its number, as they end; calls and results can be pickled.

    With a number as `executor`, in as many processes spawned here. Where one of these ends under a
    call, new ones make again what was lost; RuntimeError when that has happened to a call 3 times.
    Dask makes again what it has lost. A pool of one's own that breaks raises RuntimeError.
    Warnings of calls are shown here. What a call raises is raised at once; calls not yet begun are
    then left alone, as they are when the iterator is closed.
    """
    # A process that is forked from now on would hang in JAX: it raises instead.
    stop_in_a_fork()
    if isinstance(executor, Executor):
        lost, _ = yield from _on(executor, calls, range(len(calls)), AHEAD)
        if lost:
            raise RuntimeError(
                "the executor has lost a process, and takes no more work; give the number of "
                "processes as `executor`, which are replaced when they are lost"
            )
        return
    count = check_whole("executor", executor)
    losses, left = Counter[int](), list(range(len(calls)))
    while left:
        with _spawned(min(count, len(left))) as pool:
            # No more at a time than processes: what was lost was being computed.
            lost, waiting = yield from _on(pool, calls, left, count)
        losses.update(lost)
        for number in lost:
            if losses[number] >= TRIES:
                raise RuntimeError(
                    f"{TRIES} processes have ended under fit {number + 1} of {len(calls)}: "
                    "killed, or out of memory, for which there should be fewer processes; or not "
                    "begun, as a script's own lines must stand under "
                    '`if __name__ == "__main__":`'
                )
        left = [*lost, *waiting]


def _on[T](
    pool: Executor, calls: Sequence[Callable[[], T]], numbers: Sequence[int], at_once: int
) -> Generator[tuple[int, T], None, tuple[list[int], list[int]]]:
    """Results as they come; then the calls that were lost with the pool, and those not begun."""
    waiting, running = deque(numbers), dict[Future[Outcome], int]()
    lost: list[int] = []
    broken = False
    try:
        while running or (waiting and not broken):
            while waiting and not broken and len(running) < at_once:
                try:
                    running[pool.submit(_call, calls[waiting[0]], HERE)] = waiting[0]
                    waiting.popleft()
                except BrokenExecutor:
                    broken = True
            failed: Outcome | None = None
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number = running.pop(future)
                try:
                    outcome = future.result()
                except BrokenExecutor:
                    lost.append(number)
                    broken = True
                    continue
                for told in outcome.warnings:
                    warn(told)
                if outcome.error is None:
                    yield number, outcome.result
                else:
                    failed = outcome
            if failed is not None and failed.error is not None:
                raise failed.error from (RuntimeError(failed.trace) if failed.trace else None)
    finally:
        for future in running:
            future.cancel()
    return lost, list(waiting)


def _call(call: Callable[[], Any], caller: str) -> Outcome:
    """Make a call where an executor has it made."""
    if caller == HERE:  # in a thread: warnings show as they come
        return Outcome(call(), ())
    # One at a time: what is compiled can be dropped, and warnings are of this call.
    with _one_at_a_time, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        # Of a program that another process is writing just now; it is compiled here too.
        warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
        keep()
        make_room(alone=True)
        result, error, trace = None, None, ""
        try:
            result = call()
        except Exception as raised:
            error, trace = raised, f"in a worker:\n{traceback.format_exc()}"
    messages = [one.message for one in caught if isinstance(one.message, Warning)]
    return Outcome(result, messages, error, trace)


@contextmanager
def _spawned(count: int) -> Iterator[Executor]:
    """A pool of as many new processes, which end with the block or with this process."""
    context = get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(count, context, initializer=_begin, initargs=(reader,))
    try:
        yield pool
    except BaseException:
        heard()
        writer.close()  # nobody waits for what they are at
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        writer.close()
        reader.close()


def _begin(reader: Connection) -> None:
    """Let this process end once the other end of the pipe is closed, however that came about."""

    def end() -> None:
        try:
            reader.recv()
        except (EOFError, OSError):
            os._exit(1)

    # ^C goes to all processes of a terminal: the one that started this ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end, daemon=True).start()


@contextmanager
def executor_for(workers: int | None, scheduler: str | None) -> Iterator[Executor | int | None]:
    """The executor that a command was asked for: local processes, or Dask's at this address.

    Raises ValueError without Dask, OSError where nothing answers.
    """
    if scheduler is None:
        yield workers
        return
    try:
        from distributed import Client
    except ImportError:
        raise ValueError("--scheduler: Dask is not installed; install laddercast[dask]") from None
    try:
        client = Client(scheduler)
    except (OSError, ValueError) as error:
        raise OSError(f"--scheduler {scheduler}: no Dask scheduler answers ({error})") from None
    with client:
        yield client.get_executor()

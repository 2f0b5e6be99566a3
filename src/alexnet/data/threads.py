"""Work in threads, results in order, a bounded number under way."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_PATIENCE = 0.25  # seconds that a result may take while its consumer waits
_NICE = 10  # a ninth of the processor's time beside a thread that has the usual priority


def in_threads(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int = 0,
    ahead: int = 0,
    *,
    yielding: bool = False,
) -> Generator[Result, None, None]:
    """Yield ``work(item)`` for each item, in order.

    Unlike ``ThreadPoolExecutor.map``, items are taken only as they are needed, and a consumer that
    stops (an error, Ctrl-C) leaves no queue to be worked off.

    Args:
        work: must be safe in threads, and worthwhile there (decoding releases Python's lock).
        items: what to work on.
        threads: how many; as many as there are processors when 0.
        ahead: how many items may be under way or waiting to be consumed; 8 a thread when 0.
        yielding: leave the processors to what the consumer does, where it can use all of them: an
            operation on several threads waits for the last of them. What is not done by the time
            it is asked for is done on all processors while the consumer waits. Where another
            program leaves no time for that, the threads take a small share of it.
    """
    threads = threads or available_processors()
    ahead = ahead or 8 * threads
    executor = ThreadPoolExecutor(threads, initializer=_take_idle_time if yielding else None)
    waits_long = yielding
    pending: deque[tuple[Future[Result], Item]] = deque()
    items = iter(items)
    try:
        while True:
            for item in items:
                pending.append((executor.submit(work, item), item))
                if len(pending) >= ahead:
                    break
            if not pending:
                return
            first = pending[0][0]
            if waits_long and not wait([first], _PATIENCE).done:
                waits_long = False
                executor.shutdown(wait=False)
                executor = ThreadPoolExecutor(threads, initializer=_take_a_share)
                pending = deque((_moved(executor, work, *one), one[1]) for one in pending)
            yield pending.popleft()[0].result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _moved(
    executor: ThreadPoolExecutor,
    work: Callable[[Item], Result],
    future: Future[Result],
    item: Item,
) -> Future[Result]:
    """The same work by another executor, where it was not begun yet."""
    return executor.submit(work, item) if future.cancel() else future


def _take_idle_time() -> None:
    """Let this thread run only on processors that have nothing else to do (Linux), or seldom."""
    if not hasattr(os, "SCHED_IDLE"):
        return
    try:
        os.sched_setscheduler(threading.get_native_id(), os.SCHED_IDLE, os.sched_param(0))
    except OSError:  # a sandbox that forbids it
        _take_a_share()


def _take_a_share() -> None:
    """Lower this thread's priority (Linux, where threads have one of their own)."""
    if hasattr(os, "SCHED_IDLE"):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def available_processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

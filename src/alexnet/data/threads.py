"""Work in threads, results in order, a bounded number under way."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

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
        yielding: leave the processor to what the consumer does, where it can use all of it: an
            operation on several threads waits for the last of them.
    """
    threads = threads or available_processors()
    ahead = ahead or 8 * threads
    executor = ThreadPoolExecutor(threads, initializer=_yield_to_others if yielding else None)
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(executor.submit(work, item))
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _yield_to_others() -> None:
    """Lower this thread's priority, where threads have one of their own (Linux)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def available_processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

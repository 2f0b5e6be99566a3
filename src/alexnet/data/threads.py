"""Work in threads, results in order, a bounded number under way."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int = 0, ahead: int = 0
) -> Generator[Result, None, None]:
    """Yield ``work(item)`` for each item, in order.

    Unlike ``ThreadPoolExecutor.map``, items are taken only as they are needed, and a consumer that
    stops (an error, Ctrl-C) leaves no queue to be worked off.

    Args:
        work: must be safe in threads, and worthwhile there (decoding releases Python's lock).
        items: what to work on.
        threads: how many; as many as there are processors when 0.
        ahead: how many items may be under way or waiting to be consumed; 8 a thread when 0.
    """
    threads = threads or available_processors()
    ahead = ahead or 8 * threads
    executor = ThreadPoolExecutor(threads)
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


def available_processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

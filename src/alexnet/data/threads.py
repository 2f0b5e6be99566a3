"""Work in threads: beside what its consumer does, or on the threads of torch's operations."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from alexnet.native import native

Item = TypeVar("Item")
Result = TypeVar("Result")

_WORK = ctypes.CFUNCTYPE(None)
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
    executor = ThreadPoolExecutor(threads, initializer=yield_to_others if yielding else None)
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


def between_operations(work: Callable[[int], object], count: int) -> None:
    """Do ``work(0)`` to ``work(count - 1)`` on the threads of torch's operations, in any order.

    Where an operation keeps all processors busy there is no time beside it: a thread of another
    kind takes its time from one of the operation's, and the rest wait for that one.

    Args:
        work: as in :func:`in_threads`. After an error no more is begun, and the error is raised.
        count: how often.
    """
    library = native().library
    numbers, errors = iter(range(count)), list[BaseException]()

    @_WORK
    def some() -> None:
        try:
            for number in numbers:
                work(number)
                if errors:
                    return
        except BaseException as error:  # Ctrl-C too: C cannot pass it on
            errors.append(error)

    if library is None:
        some()
    else:
        library.on_threads(some, torch.get_num_threads())
    if errors:
        raise errors[0]


def operations_take_all() -> bool:
    """Whether torch's operations work on all processors, and :func:`between_operations` does."""
    return (
        native().library is not None
        and torch.get_num_threads() >= available_processors()
        and not torch.cuda.is_initialized()
    )


def yield_to_others() -> None:
    """Lower this thread's priority, where threads have one of their own (Linux)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def available_processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

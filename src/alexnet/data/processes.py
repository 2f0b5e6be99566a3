"""Work in processes that never outlive the one that started them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from alexnet.data.threads import available_processors
from alexnet.errors import FailedError

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_processes(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int = 0
) -> Generator[Result, None, None]:
    """Yield ``work(item)`` for each item, as each is done.

    Items are taken only as they are needed. When the consumer stops (an error, Ctrl-C) the
    processes are ended at once; when this process is killed they end by themselves. A process that
    is killed (memory that ran out) is an error here, never a wait without end.

    Args:
        work: a function of a module, which a process can be told by name.
        items: what to work on; each is sent to a process.
        workers: how many processes; as many as there are processors when 0.

    Raises:
        FailedError: a process was killed.
    """
    waiting = iter(items)
    with _started(work, workers or available_processors()) as idle:
        busy: set[Connection] = set()
        while True:
            while idle and (item := next(waiting, None)) is not None:
                connection = idle.pop()
                busy.add(connection)
                _send(connection, item)
            if not busy:
                return
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                busy.remove(connection)
                idle.append(connection)
                yield _result(connection)


@contextlib.contextmanager
def _started(work: Callable[[Any], Any], count: int) -> Iterator[list[Connection]]:
    """The ends of pipes to ``count`` processes, which are gone when the block ends."""
    processes, connections = [], []
    try:
        for _ in range(count):
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.Process(target=_serve, args=(work, theirs), daemon=True)
            process.start()
            theirs.close()  # so that the end of the process is the end of the pipe
            processes.append(process)
            connections.append(ours)
        yield list(connections)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
            process.close()
        for connection in connections:
            connection.close()


def _send(connection: Connection, item: object) -> None:
    try:
        connection.send(item)
    except OSError as error:
        raise _killed() from error


def _result(connection: Connection) -> Any:
    try:
        result = connection.recv()
    except (EOFError, OSError) as error:
        raise _killed() from error
    if isinstance(result, _Raised):
        raise result.error
    return result


def _killed() -> FailedError:
    return FailedError(
        "a worker process was killed, perhaps for want of memory: run the same command again, "
        "with fewer --workers"
    )


class _Raised:
    """An error on its way from a process."""

    def __init__(self, error: BaseException) -> None:
        try:
            pickle.loads(pickle.dumps(error))
            self.error = error
        except Exception:  # an error whose arguments do not make it again
            self.error = RuntimeError(f"{type(error).__name__}: {error}")


def _serve(work: Callable[[Any], Any], connection: Connection) -> None:
    """What a process does until it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    while True:
        try:
            item = connection.recv()
        except (EOFError, OSError):
            return
        try:
            result = work(item)
        except Exception as error:
            result = _Raised(error)
        connection.send(result)


def _leave_with_parent() -> None:
    """A parent that was killed cannot end its processes: they look after themselves."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)

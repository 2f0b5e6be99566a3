"""Work in threads: in order, not ahead of its consumer, and out of the way of others' work.

Between operations: each piece once, on as many threads as operations have.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from alexnet.data import threads
from alexnet.data.threads import (
    between_operations,
    in_threads,
    operations_take_all,
)
from alexnet.native import Native, native

compiled = pytest.mark.skipif(native().library is None, reason="needs a C compiler")


@pytest.fixture(params=["compiled", "not compiled"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """On three threads of operations, or on this one where nothing could be compiled."""
    if request.param == "not compiled":
        monkeypatch.setattr(threads, "native", lambda: Native(None, "left out"))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_threads_keep_the_order_and_do_not_run_ahead():
    taken = []

    def items():
        for number in range(1000):
            taken.append(number)
            yield number

    def work(number: int) -> int:
        time.sleep(0.001 * (number % 3))
        return number

    results = in_threads(work, items(), threads=3, ahead=10)
    assert [next(results) for _ in range(20)] == list(range(20))
    assert len(taken) <= 31
    results.close()
    assert list(in_threads(work, [])) == []


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux gives threads a priority")
def test_threads_that_yield_are_not_starved_by_other_programs(tmp_path: Path):
    # A fifth of a second of work; with nothing but idle time (SCHED_IDLE) half a minute.
    other = tmp_path / "busy.py"
    other.write_text("while True: pass")
    count = len(os.sched_getaffinity(0))
    busy = [subprocess.Popen([sys.executable, str(other)]) for _ in range(count)]

    def work(number: int) -> int:
        end = time.thread_time() + 0.002
        while time.thread_time() < end:
            pass
        return number

    try:
        time.sleep(0.5)
        began = time.perf_counter()
        results = in_threads(work, range(100), threads=2, ahead=50, yielding=True)
        assert list(results) == list(range(100))
        assert time.perf_counter() - began < 15
    finally:
        for one in busy:
            one.kill()
            one.wait()


def test_an_error_in_a_thread_arrives():
    def work(number: int) -> float:
        return 1 / (number - 3)

    with pytest.raises(ZeroDivisionError):
        list(in_threads(work, range(100), threads=2))


@pytest.mark.usefixtures("either_way")
def test_between_operations_each_number_is_worked_on_once() -> None:
    for count in (0, 1, 2, 100):
        found: list[int] = []
        between_operations(found.append, count)
        assert sorted(found) == list(range(count))


@compiled
def test_between_operations_all_their_threads_work(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(3, timeout=30)  # breaks unless three are there at a time
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        between_operations(lambda number: together.wait(), 3)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(3)), raising=False)
        assert operations_take_all()
        torch.set_num_threads(2)
        assert not operations_take_all()  # the third is better put to work beside them
    finally:
        torch.set_num_threads(before)


def test_nothing_is_done_between_operations_without_a_compiler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "native", lambda: Native(None, "left out"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)
    assert not operations_take_all()


@pytest.mark.usefixtures("either_way")
def test_between_operations_an_error_arrives_and_no_more_is_begun() -> None:
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        if number == 3:
            raise ZeroDivisionError("of the fourth")
        time.sleep(0.01)

    with pytest.raises(ZeroDivisionError, match="of the fourth"):
        between_operations(work, 1000)
    assert len(begun) < 20
    between_operations(begun.append, 2)  # the threads are as good as before


@pytest.mark.usefixtures("either_way")
def test_between_operations_ctrl_c_is_not_lost() -> None:
    def work(number: int) -> None:
        if number == 5:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.002)

    with pytest.raises(KeyboardInterrupt):
        between_operations(work, 1000)

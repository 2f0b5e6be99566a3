"""Work in threads: in order, not ahead of its consumer, and out of the way of others' work."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alexnet.data.threads import in_threads


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

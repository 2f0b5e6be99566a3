"""The benchmarks' way of measuring side by side: processes that take turns."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from _turns import give_turns  # noqa: E402

WORK = f"""
import sys, time, types
sys.path.insert(0, {str(BENCHMARKS)!r})
from _turns import take_turns
wall = time.perf_counter
timed = types.ModuleType("timed")
take_turns(timed)
began, own = wall(), timed.time.perf_counter()
while timed.time.perf_counter() - own < 0.6:
    pass
print([began, wall()])
"""
ENDLESS = f"""
import json, sys, time, types
sys.path.insert(0, {str(BENCHMARKS)!r})
from _turns import take_turns
timed = types.ModuleType("timed")
readings = take_turns(timed)
try:
    for _ in range(2000):
        timed.time.perf_counter()
        time.sleep(0.002)
except KeyboardInterrupt:
    pass
print(json.dumps(readings))
"""


def test_all_run_in_the_same_time_and_clocks_stand_still_between_turns(tmp_path: Path) -> None:
    script = tmp_path / "work.py"
    script.write_text(WORK)
    began = time.perf_counter()
    said = give_turns([[sys.executable, str(script)]] * 3, 0.05)
    spans = [json.loads(line) for line in said]
    # Three times 0.6 s of their own clocks, one at a time; begun and ended together.
    assert time.perf_counter() - began > 1.8
    for first, last in spans:
        assert last - first > 1.2
    assert max(first for first, _ in spans) < min(last for _, last in spans) - 1.0


def test_one_that_fails_ends_it(tmp_path: Path) -> None:
    script = tmp_path / "fails.py"
    script.write_text("raise SystemExit(3)")
    with pytest.raises(SystemExit, match=r"fails\.py"):
        give_turns([[sys.executable, str(script)]], 0.05)


def test_an_endless_one_has_turns_until_the_others_have_ended(tmp_path: Path) -> None:
    script, endless = tmp_path / "work.py", tmp_path / "endless.py"
    script.write_text(WORK)
    endless.write_text(ENDLESS)
    commands = [[sys.executable, str(path)] for path in (endless, script)]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in a shell's background
    try:
        said = give_turns(commands, 0.05, endless=1)
    finally:
        signal.signal(signal.SIGINT, before)
    steps, (first, last) = (json.loads(one) for one in said)
    own = [reading for reading, _ in steps]
    shared = [reading for _, reading in steps]
    # From its first turn, which comes when all are ready, until the other has ended, however long
    # a loaded machine takes over that; its clock ran about half of the time.
    assert first < shared[0]
    assert shared[-1] > last - 0.3
    assert 0.4 < own[-1] - own[0] < 0.75 * (shared[-1] - shared[0])
    assert last - first > 1.1

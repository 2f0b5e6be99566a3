"""Long measurements beside each other: a second or two of each in turn, so that drift hits all.

The machine's own speed may change by more from minute to minute than what is looked for. Processes
that measure call :func:`take_turns` first; from their clock's first reading on
:func:`give_turns` stops all but one of them, and the clocks of those that are stopped stand still.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace

Reading = tuple[float, float]
"""The clock of a process's own turns and, at the same moment, the one that all processes share."""


def take_turns(timed: ModuleType) -> list[Reading]:
    """Give a module that reads ``time.perf_counter`` a clock of this process's own turns.

    The process stops at the clock's first reading, until its first turn.

    Returns:
        What is read from then on, as it is read.
    """
    real, away, begun = time.perf_counter, 0.0, False
    readings: list[Reading] = []

    def stand(*_: object) -> None:
        nonlocal away
        before = real()
        os.kill(os.getpid(), signal.SIGSTOP)
        away += real() - before

    def clock() -> float:
        nonlocal begun
        if not begun:
            begun = True
            stand()
        now = real()
        readings.append((now - away, now))
        return now - away

    signal.signal(signal.SIGTSTP, stand)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    setattr(timed, "time", SimpleNamespace(perf_counter=clock))  # noqa: B010
    return readings


def give_turns(commands: Sequence[Sequence[str]], seconds: float, endless: int = 0) -> list[str]:
    """What processes that :func:`take_turns` print, each having run so many seconds at a time.

    Args:
        commands: what to start.
        seconds: how long a turn is.
        endless: so many of the first go on until the others have ended, and are interrupted then.

    Raises:
        SystemExit: one of them failed.
    """
    children = [subprocess.Popen(c, stdout=subprocess.PIPE, text=True) for c in commands]
    try:
        running = [child for child in children if _stopped(child)]
        while any(child in running for child in children[endless:]):
            running = [child for child in running if _runs_on(child, seconds)]
        for child in running:
            os.kill(child.pid, signal.SIGINT)
            os.kill(child.pid, signal.SIGCONT)
        return [child.communicate()[0] for child in children]
    finally:
        for child in children:
            with child:  # closes its pipe and waits for it
                child.kill()


def _runs_on(child: subprocess.Popen[str], seconds: float) -> bool:
    """Let it run for so long; whether there is more to do."""
    os.kill(child.pid, signal.SIGCONT)
    time.sleep(seconds)
    os.kill(child.pid, signal.SIGTSTP)
    return _stopped(child)


def _stopped(child: subprocess.Popen[str]) -> bool:
    """Wait until it has stopped (true) or has ended."""
    _, status = os.waitpid(child.pid, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        return True
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{child.args} failed, see above")
    return False

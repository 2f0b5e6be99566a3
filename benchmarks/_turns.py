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


def take_turns(timed: ModuleType) -> None:
    """Give a module that reads ``time.perf_counter`` a clock of this process's own turns.

    The process stops at the clock's first reading, until its first turn.
    """
    real, away, begun = time.perf_counter, 0.0, False

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
        return real() - away

    signal.signal(signal.SIGTSTP, stand)
    setattr(timed, "time", SimpleNamespace(perf_counter=clock))  # noqa: B010


def give_turns(commands: Sequence[Sequence[str]], seconds: float) -> list[str]:
    """What processes that :func:`take_turns` print, each having run so many seconds at a time.

    Raises:
        SystemExit: one of them failed.
    """
    children = [subprocess.Popen(c, stdout=subprocess.PIPE, text=True) for c in commands]
    try:
        running = [child for child in children if _stopped(child)]
        while running:
            running = [child for child in running if _runs_on(child, seconds)]
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

"""What all tests share: one torch thread a test process, and the command as a real process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Before torch is imported: two test processes on two cores, a thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def alexnet_command() -> Command:
    """Runs ``python -m alexnet`` with arguments; keywords go to ``subprocess.run``."""

    def run(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "alexnet", *map(str, arguments)]
        settings: dict[str, object] = {"capture_output": True, "text": True, "timeout": 240}
        return subprocess.run(line, **{**settings, **options})  # type: ignore[call-overload]

    return run

"""What ``torchrun`` tells each process it starts; without it there is one, the main process."""

from __future__ import annotations

import os


def rank() -> int:
    """This process's number among those that ``torchrun`` started, from 0."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes ``torchrun`` started, on all machines together; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_world_size() -> int:
    """How many of them run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this is the process that writes files and speaks to the user."""
    return rank() == 0


def launch() -> str | None:
    """What tells one call of ``torchrun`` from another; None without it."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    return f"none-{os.getppid()}" if name == "none" else name


def restarts() -> int:
    """How often ``torchrun`` started this machine's processes again after one was lost."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))

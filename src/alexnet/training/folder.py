"""The run folder while a training writes it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from alexnet.errors import UsageError
from alexnet.files import (
    FORMAT_VERSION,
    is_leftover,
    read_json,
    remove_leftovers,
    write_error,
    write_text,
)
from alexnet.torchrun import is_main

CONFIG = "config.json"
LOCK = ".lock"
PATIENCE = 10.0
"""Seconds to wait for a training that is about to end."""


class RunFolder:
    """Where a run's files go, and its lines of ``metrics.jsonl`` and TensorBoard.

    Attributes:
        path: of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: Lock | None = None

    @property
    def checkpoints(self) -> Path:
        """The folder of the files that a resume needs."""
        return self.path / "checkpoints"

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, resume: bool) -> RunFolder:
        """Make a fresh folder, or open one to go on with.

        Raises:
            UsageError: a fresh run would overwrite something, there is nothing to resume, the
                folder cannot be written to, or another process trains in it.
        """
        folder = Path(path)
        try:
            there = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
            if CONFIG in there:
                if not resume:
                    raise UsageError(
                        f"{folder} exists: go on with it by --resume, or choose another folder "
                        f"with -o"
                    )
            elif _occupied(folder, there):
                raise UsageError(
                    f"{folder} holds something else than a run: choose another folder with -o"
                )
            elif resume and not folder.exists():
                raise UsageError(f"{folder} holds no run to resume: leave --resume out")
            folder.mkdir(parents=True, exist_ok=True)
            lock = Lock(folder / LOCK)
            remove_leftovers(folder)
        except OSError as error:
            raise write_error(error, folder) from error
        opened = cls(folder)
        opened._lock = lock
        return opened

    @property
    def begun(self) -> bool:
        """Whether there is a run in it to go on with."""
        return (self.path / CONFIG).is_file()

    def read_config(self) -> dict[str, Any]:
        """What the run was started with."""
        return read_json(self.path / CONFIG)

    def write_history(self, history: list[dict[str, Any]]) -> None:
        """Write ``metrics.jsonl``, one line an epoch, in the main process."""
        if not is_main():
            return
        lines = (json.dumps({"format_version": FORMAT_VERSION, **record}) for record in history)
        write_text(self.path / "metrics.jsonl", "".join(f"{line}\n" for line in lines))

    @contextlib.contextmanager
    def tensorboard(self, history: list[dict[str, Any]]) -> Iterator[Any]:
        """A TensorBoard writer that starts with ``history``; a resumed run has no double lines.

        None in other processes than the main one.
        """
        if not is_main():
            yield None
            return
        from torch.utils.tensorboard import SummaryWriter

        folder = self.path / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)
        with SummaryWriter(str(folder)) as writer:
            for record in history:
                write_scalars(writer, record)
            yield writer


class Lock:
    """A file that one process holds until it ends or lets go; two trainings never share a folder.

    Where locks are not to be had (Windows, some network disks) it is a file like any other.

    Args:
        path: of the file, which is gone when it is let go.

    Raises:
        UsageError: another process holds it.
        OSError: the folder cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        until = time.monotonic() + PATIENCE
        while not (file := self._held(path)):
            if time.monotonic() > until:
                raise UsageError(
                    f"another process trains in {path.parent}: wait for it, or choose another "
                    f"folder with -o"
                )
            time.sleep(0.1)
        self._release = weakref.finalize(self, _let_go, file, path)

    @staticmethod
    def _held(path: Path) -> IO[str] | None:
        """The file, locked; None where another process has it."""
        file = path.open("a")
        try:
            if fcntl is not None:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.close()
                return None
        if os.fstat(file.fileno()).st_nlink == 0:  # let go, and gone, meanwhile
            file.close()
            return None
        return file


def _let_go(file: IO[str], path: Path) -> None:
    path.unlink(missing_ok=True)
    file.close()


def _occupied(folder: Path, names: set[str]) -> bool:
    """Whether there is more than a run leaves that was killed before its first moment."""
    if not folder.is_dir():
        return folder.exists()
    return any(name not in ("bad_images.csv", LOCK) and not is_leftover(name) for name in names)


def write_scalars(writer: Any, record: dict[str, Any]) -> None:
    """Send an epoch's numbers to TensorBoard; a writer that is None is passed over."""
    if writer is None:
        return
    for name, value in record.items():
        if isinstance(value, int | float) and name != "epoch":
            writer.add_scalar(name.replace("_", "/", 1), value, record["epoch"])

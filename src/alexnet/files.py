"""Files that are whole or absent: atomic writes, checksums, and a version in every file."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import hashlib
import json
import mmap
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alexnet.errors import AlexnetError, FailedError, UsageError

FORMAT_VERSION = 1
"""Version of the files of a run folder; a reader refuses a newer one."""


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` when the block ends well.

    The bytes are flushed to the disk before the rename, so a crash at any moment leaves the old
    file or the new one, never a part. Missing folders above are made.

    Raises:
        FailedError: the disk is full.
        UsageError: the folder cannot be written to.
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise write_error(error, target) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def expect(path: str | os.PathLike[str], offset: int = 0, size: int = 0) -> None:
    """Have the system fetch ``size`` bytes of a file that are read soon, or all of it (0).

    Nothing is waited for but looking up the file, and nothing is said where that fails: whoever
    reads it will. Systems without such advice are left alone.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    with contextlib.suppress(OSError, ValueError):
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            os.posix_fadvise(file, offset, size, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(file)


def expect_mapped(address: int, size: int) -> None:
    """As :func:`expect`, of ``size`` bytes of this process's memory that a file is mapped to."""
    if hasattr(mmap, "MADV_WILLNEED"):
        start = address - address % mmap.PAGESIZE
        length = ctypes.c_size_t(address + size - start)
        _system().madvise(ctypes.c_void_p(start), length, mmap.MADV_WILLNEED)


@functools.cache
def _system() -> ctypes.CDLL:
    """The functions of the C library that this process has loaded."""
    return ctypes.CDLL(None)


_OTHERS = re.compile(r"\.tmp[0-9A-Za-z]{6}")
"""Names that safetensors gives to files until they are whole."""


def is_leftover(name: str) -> bool:
    """Whether a file of this name is what a process had not renamed yet that was killed."""
    return name.startswith(".") and (name.endswith(".tmp") or bool(_OTHERS.fullmatch(name)))


def remove_leftovers(folder: Path) -> None:
    """Remove, at any depth, what processes that were killed had not renamed yet.

    Raises:
        UsageError: the folder cannot be written to.
    """
    try:
        for path in folder.rglob(".*"):
            if is_leftover(path.name) and path.is_file():
                path.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(error, folder) from error


def write_error(error: OSError, path: Path) -> AlexnetError:
    """Translate what the system said about a write into one line for the user."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FailedError(
            f"no space left on the disk to write {path}: free some, then --resume "
            f"('alexnet prepare' goes on by itself)"
        )
    reason = error.strerror or str(error)
    return UsageError(f"cannot write {path} ({reason}): choose a folder that can be written to")


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` (UTF-8) to ``path`` atomically."""
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write ``content`` with its ``format_version`` first, atomically."""
    versioned = {"format_version": FORMAT_VERSION, **content}
    write_text(path, json.dumps(versioned, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what :func:`write_json` wrote.

    Raises:
        UsageError: no such file, not JSON, or written by a newer version.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path} ({error.strerror}): check the path") from error
    except ValueError as error:
        raise UsageError(f"{path} is not valid JSON ({error}): restore or remove it") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} does not hold a JSON object: restore or remove it")
    version = content.get("format_version", FORMAT_VERSION)
    if not isinstance(version, int):
        raise UsageError(f"{path} has format_version {version!r}: restore or remove it")
    if version > FORMAT_VERSION:
        raise UsageError(
            f"{path} was written by a newer alexnet (format {version}, this one reads up to "
            f"{FORMAT_VERSION}): upgrade with: pip install -U alexnet"
        )
    return content


def sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Flush the rename itself; a system that cannot sync a folder goes without."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

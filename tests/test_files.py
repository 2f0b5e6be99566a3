from __future__ import annotations

import ctypes
import errno
import hashlib
import mmap
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet import files
from alexnet.errors import FailedError, UsageError


def test_json_survives_with_its_version_first(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x.json"
    files.write_json(path, {"name": "Käse", "values": [1, 2.5, None]})
    assert path.read_text().startswith('{\n  "format_version": 1,')
    assert files.read_json(path) == {
        "format_version": 1, "name": "Käse", "values": [1, 2.5, None],
    }  # fmt: skip


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"", "is not valid JSON"),
        (b"[1]", "does not hold a JSON object"),
        (b'{"format_version": 2}', "written by a newer alexnet (format 2, this one reads up to 1)"),
        (b'{"format_version": "2"}', "has format_version '2'"),
        (b'{"format_version": null}', "has format_version None"),
    ],
)
def test_json_that_cannot_be_used_is_one_line(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        files.read_json(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_json_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .* \(No such file or directory\): check"):
        files.read_json(tmp_path / "x.json")


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    files.write_text(path, "old")

    def fail() -> None:
        with files.atomic_path(path) as temporary:
            temporary.write_text("half")
            assert temporary.parent == tmp_path
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["x"]


def test_killed_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    files.write_text(path, "old")
    code = f"""
import os, signal
from alexnet import files
with files.atomic_path({str(path)!r}) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    (leftover,) = (one for one in tmp_path.iterdir() if one.name != "x")
    assert leftover.match(".x.*.tmp")  # what the next run clears away


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    path = tmp_path / "x"
    sizes = (10, 3_000_000)
    files.write_bytes(path, bytes(sizes[0]))
    code = f"""
from alexnet import files
for round in range(8):
    for size in {sizes}:
        files.write_bytes({str(path)!r}, bytes(size))
"""
    writer = subprocess.Popen([sys.executable, "-c", code])
    seen = set()
    while writer.poll() is None:
        seen.add(len(path.read_bytes()))
    assert writer.returncode == 0
    assert seen <= set(sizes)


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_a_file_has_the_permissions_that_the_user_s_mask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "x", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640
    assert os.umask(before) == before  # looking at the mask leaves it


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="choose a folder that can be written to") as caught:
        files.write_text(tmp_path / "file" / "x", "text")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        (errno.ENOSPC, FailedError, "no space left on the disk to write x: free some"),
        (errno.EDQUOT, FailedError, "no space left on the disk to write x: free some"),
        (errno.EACCES, UsageError, "cannot write x (Permission denied): choose a folder"),
        (errno.EROFS, UsageError, "cannot write x (Read-only file system): choose a folder"),
    ],
)
def test_what_the_system_says_of_a_write(code: int, kind: type[Any], said: str) -> None:
    error = files.write_error(OSError(code, os.strerror(code)), Path("x"))
    assert type(error) is kind
    assert str(error).startswith(said)


def test_the_checksum(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc" * 1000)
    assert files.sha256(tmp_path / "x") == hashlib.sha256(b"abc" * 1000).hexdigest()


def test_text_is_utf_8(tmp_path: Path) -> None:
    files.write_text(tmp_path / "x", "Käse ✓")
    assert (tmp_path / "x").read_bytes() == "Käse ✓".encode()


def in_memory(path: Path) -> bool:
    """Whether the system has a file's first bytes at hand."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        pages = (ctypes.c_ubyte * (len(mapped) // mmap.PAGESIZE))()
        start = ctypes.c_void_p(address(mapped))
        if ctypes.CDLL(None).mincore(start, ctypes.c_size_t(len(mapped)), pages):
            pytest.skip("the system does not tell what it has at hand")
        return bool(pages[0] & 1)


def address(mapped: mmap.mmap) -> int:
    """Where in memory a file is mapped to."""
    return int(np.frombuffer(mapped, np.uint8).ctypes.data)


@pytest.fixture
def cold(tmp_path: Path) -> Path:
    """A file that lies on the disk alone."""
    if sys.platform != "linux":
        pytest.skip("the system does not tell what it has at hand")
    path = tmp_path / "cold"
    path.write_bytes(os.urandom(1 << 16))
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)
    if in_memory(path):
        pytest.skip("this disk is memory")
    return path


def comes(path: Path) -> bool:
    """Whether a file is at hand soon."""
    last = time.monotonic() + 30
    while not in_memory(path) and time.monotonic() < last:
        time.sleep(0.01)
    return in_memory(path)


def test_a_file_that_is_expected_is_fetched(cold: Path) -> None:
    files.expect(cold)
    assert comes(cold)
    files.expect(cold.with_name("absent"))  # who reads it will say so
    files.expect("zero\0byte")


def test_a_mapped_file_that_is_expected_is_fetched(cold: Path) -> None:
    with cold.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        files.expect_mapped(address(mapped) + 100, 1000)
        assert comes(cold)

"""Pictures inside tar archives, read in place: where each begins is looked up once."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from alexnet import files
from alexnet.data.decode import DecodeError
from alexnet.data.named import cache_folder
from alexnet.data.names import ChosenNames, PackedNames
from alexnet.data.pictures import Indices, Pictures
from alexnet.errors import AlexnetError, FailedError
from alexnet.progress import track

_BLOCK = 512  # bytes; an archive ends with two of zeros


@dataclass(frozen=True)
class Members:
    """The files in an archive, in its order.

    Attributes:
        names: of the files; of a file in an archive inside, ``"ARCHIVE/FILE"``.
        offsets: int64 ``[N]``, where each begins in the outermost file.
        sizes: int64 ``[N]``, in bytes.
    """

    names: PackedNames
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets)


class ArchivePictures(Pictures):
    """Pictures in an uncompressed tar archive.

    Attributes:
        path: of the archive.
        offsets: int64 ``[N]``, where each file begins.
        sizes: int64 ``[N]``, in bytes.
    """

    def __init__(
        self,
        path: Path,
        offsets: NDArray[np.int64],
        sizes: NDArray[np.int64],
        classes: Sequence[str],
        labels: NDArray[np.integer],
        names: Sequence[str],
    ) -> None:
        super().__init__(classes, labels, names)
        self.path, self.offsets, self.sizes = path, offsets, sizes

    def stored(self, index: int) -> bytes:
        """The file's bytes; the archive is opened anew, which any process can."""
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(int(self.offsets[index]))
                return file.read(int(self.sizes[index]))
        except OSError as error:
            raise DecodeError(f"cannot be read ({error.strerror})") from error

    def expect(self, index: int) -> None:
        """Have the file's part of the archive fetched."""
        files.expect(self.path, int(self.offsets[index]), int(self.sizes[index]))

    def subset(self, indices: Indices) -> ArchivePictures:
        """The files at ``indices``; nothing is copied but numbers."""
        rows = np.asarray(indices, dtype=np.int64)
        names = ChosenNames(self.names, rows)
        offsets, sizes = self.offsets[rows], self.sizes[rows]
        return ArchivePictures(self.path, offsets, sizes, self.classes, self.labels[rows], names)

    def marks(self) -> NDArray[np.int64]:
        """The size of each file."""
        return self.sizes


def list_archive(path: Path, *, nested: bool) -> Members:
    """The files of a tar archive, or (``nested``) of the tar archives in it.

    What was found is kept in the user's cache folder while the archive's size and time are the
    same: looking it up reads a header a picture all over a large file.

    Raises:
        FailedError: the archive is damaged or cut.
    """
    try:
        status = path.stat()
        key = f"{path.resolve()}:{status.st_size}:{status.st_mtime_ns}:{nested}"
        kept = cache_folder() / "archives" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
        found = _read_kept(kept)
        if found is None:
            found = _read_nested(path) if nested else _read_flat(path)
            _keep(kept, found)
    except (tarfile.TarError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise FailedError(f"{path} is damaged ({reason}): download it again") from error
    return found


def _read_flat(path: Path) -> Members:
    with path.open("rb") as file:
        members = list(_members(file, 0, path.stat().st_size))
    return _packed((Path(name).name, offset, size) for name, offset, size in members)


def _read_nested(path: Path) -> Members:
    with path.open("rb") as file:
        archives = list(_members(file, 0, path.stat().st_size))

        def inside() -> Iterator[tuple[str, int, int]]:
            for archive, start, length in track(archives, f"looking up {path.name}", len(archives)):
                stem = Path(archive).stem
                for name, offset, size in _members(file, start, start + length):
                    yield f"{stem}/{Path(name).name}", offset, size

        return _packed(inside())


def _packed(members: Iterator[tuple[str, int, int]]) -> Members:
    numbers: list[tuple[int, int]] = []

    def names() -> Iterator[str]:
        for name, offset, size in members:
            numbers.append((offset, size))
            yield name

    packed = PackedNames.pack(names())
    table = np.array(numbers, np.int64).reshape(-1, 2)
    return Members(packed, table[:, 0].copy(), table[:, 1].copy())


def _members(file: BinaryIO, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """Name, place and size of each regular file of the archive that lies from start to end."""
    file.seek(start)
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (member := archive.next()) is not None and member.offset < end:
            vars(archive)["members"] = []  # else every header is kept
            if member.offset_data + member.size > end:
                raise tarfile.ReadError(f"cut within {member.name}")
            if member.isreg():
                yield member.name, member.offset_data, member.size
        # tarfile stops at what is no header, too; an archive inside may do without its end.
        file.seek(archive.offset)
        if (archive.offset < end or not start) and file.read(_BLOCK) != bytes(_BLOCK):
            raise tarfile.ReadError(f"no archive at byte {archive.offset}")


def _read_kept(path: Path) -> Members | None:
    try:
        with np.load(path) as kept:
            names = PackedNames(kept["text"], kept["ends"])
            return Members(names, kept["offsets"], kept["sizes"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _keep(path: Path, members: Members) -> None:
    stream = io.BytesIO()
    names = {"text": members.names.text, "ends": members.names.ends}
    np.savez(stream, **names, offsets=members.offsets, sizes=members.sizes)
    try:
        files.write_bytes(path, stream.getvalue())
    except AlexnetError:  # a home that cannot be written to: it is looked up again the next time
        return

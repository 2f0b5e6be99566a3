"""Labeled pictures, decoded when asked for, and the parts that a data set is split into."""

from __future__ import annotations

import abc
import copy
import csv
import hashlib
import io
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from alexnet import files
from alexnet.data.decode import DecodeError, decode, square
from alexnet.data.squares import HELD_AT_ONCE, make_squares, squares_are_made
from alexnet.errors import FailedError
from alexnet.spec import InputSpec

Indices = NDArray[np.int64] | Sequence[int]
Image = NDArray[np.uint8]


@dataclass(frozen=True)
class BadImage:
    """A file that was skipped, and why.

    Attributes:
        name: path relative to the data folder, in characters that can be printed.
        reason: such as ``"empty file"``, ``"truncated: ..."`` or ``"not an image"``.
    """

    name: str
    reason: str

    @property
    def hidden(self) -> bool:
        """Whether it is something of the system's that nobody meant to be a picture."""
        return self.reason.startswith(("hidden ", "system "))


class Pictures(abc.ABC):
    """Labeled pictures.

    Attributes:
        classes: the names of the classes.
        labels: int64 ``[N]``, indices into ``classes``.
        names: a name a picture: path relative to the data folder, or ``"mnist-5k/17"``.
        mapped: whether the system reads the pictures from the disk as they are asked for and takes
            the memory back, so that keeping them decoded would only cost memory.
    """

    mapped: bool = False

    def __init__(
        self, classes: Sequence[str], labels: NDArray[np.integer], names: Sequence[str]
    ) -> None:
        if len(labels) != len(names):
            raise ValueError(f"{len(labels)} labels for {len(names)} names: give one a picture")
        self.classes = tuple(classes)
        self.labels: NDArray[np.int64] = np.asarray(labels, dtype=np.int64)
        self.names = names

    def __len__(self) -> int:
        return len(self.labels)

    @abc.abstractmethod
    def stored(self, index: int) -> Path | bytes | Image:
        """What holds a picture: a file, a file's bytes, or pixels, uint8 ``[H, W, 1 or 3]``.

        Raises:
            DecodeError: there is nothing.
        """

    def decode(self, index: int, at_least: int = 0) -> Image:
        """One picture: uint8 ``[H, W, 3]`` in RGB or ``[H, W, 1]`` in gray.

        Args:
            index: of the picture.
            at_least: as in :func:`alexnet.data.decode.decode`.

        Raises:
            DecodeError: it cannot be decoded.
        """
        stored = self.stored(index)
        return stored if isinstance(stored, np.ndarray) else decode(stored, at_least)

    def square(self, index: int, spec: InputSpec, side: int) -> Image:
        """One picture as a network reads it: uint8 ``[C, side, side]``.

        Args:
            index: of the picture.
            spec: as in :func:`alexnet.data.fit.fit`.
            side: as there.

        Raises:
            DecodeError: it cannot be decoded.
        """
        return square(self.stored(index), spec, side)

    def squares(
        self, indices: Sequence[int], spec: InputSpec, rooms: Image, threads: int
    ) -> list[int]:
        """Those of many pictures that can be made together, which is faster.

        Args:
            indices: of the pictures.
            spec: as in :meth:`square`.
            rooms: uint8 ``[N, C, side, side]``, where they are put.
            threads: that work on them.

        Returns:
            The places of the others: :meth:`read_square` has them, or says what is wrong.
        """
        left, done = [], 0
        while done < len(indices):
            if not squares_are_made(spec):
                return list(range(len(indices)))
            stored = self._some_stored(indices[done:])
            part = slice(done, done + len(stored))
            left += [done + place for place in make_squares(stored, spec, rooms[part], threads)]
            done = part.stop
        return left

    def _some_stored(self, indices: Sequence[int]) -> list[Path | bytes | Image | None]:
        """What holds the first of these pictures, as many as may be in memory at once."""
        stored: list[Path | bytes | Image | None] = []
        held = 0
        for index in indices:
            try:
                one = self.stored(index)
            except DecodeError:
                one = None
            stored.append(one)
            held += len(one) if isinstance(one, bytes) else 0
            if held > HELD_AT_ONCE:
                break
        return stored

    def read(self, index: int, at_least: int = 0) -> Image:
        """One picture that could be decoded before, as :meth:`decode` has it.

        Raises:
            FailedError: it cannot be read any more.
        """
        try:
            return self.decode(index, at_least)
        except DecodeError as error:
            raise self.lost(index, error) from error

    def read_square(self, index: int, spec: InputSpec, side: int) -> Image:
        """One picture that could be decoded before, as :meth:`square` has it.

        Raises:
            FailedError: it cannot be read any more.
        """
        try:
            return self.square(index, spec, side)
        except DecodeError as error:
            raise self.lost(index, error) from error

    def lost(self, index: int, error: DecodeError) -> FailedError:
        """What is said of a picture that cannot be read any more."""
        return FailedError(
            f"{self.names[index]} could be read before and cannot now ({error}): "
            "keep the pictures unchanged while they are used, then start again"
        )

    def expect(self, index: int) -> None:
        """Have the system fetch a picture's bytes that are read soon; nothing is waited for."""
        del index

    @abc.abstractmethod
    def subset(self, indices: Indices) -> Pictures:
        """The pictures at ``indices``, in that order."""

    @abc.abstractmethod
    def marks(self) -> NDArray[np.int64]:
        """A number a picture, ``[N]``, that tells when it was changed: its size or a checksum."""

    def relabeled(self, classes: Sequence[str], labels: NDArray[np.integer]) -> Self:
        """The same pictures under other classes."""
        other = copy.copy(self)
        other.classes, other.labels = tuple(classes), np.asarray(labels, dtype=np.int64)
        return other


class ArrayPictures(Pictures):
    """Pictures of one size in one array.

    Attributes:
        images: uint8 ``[N, H, W, C]``, C being 1 or 3.
    """

    def __init__(
        self,
        images: Image,
        classes: Sequence[str],
        labels: NDArray[np.integer],
        names: Sequence[str],
    ) -> None:
        super().__init__(classes, labels, names)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
            raise ValueError(f"images must be uint8 [N, H, W, 1 or 3], not {images.shape}")
        if len(images) != len(labels):
            raise ValueError(f"{len(labels)} labels for {len(images)} images: give one an image")
        self.images = images

    def stored(self, index: int) -> Image:
        """A view of the array."""
        return self.images[index]

    def squares(
        self, indices: Sequence[int], spec: InputSpec, rooms: Image, threads: int
    ) -> list[int]:
        """None: there are no files."""
        del spec, rooms, threads
        return list(range(len(indices)))

    def marks(self) -> NDArray[np.int64]:
        """A checksum of each picture."""
        return np.array([zlib.crc32(one.tobytes()) for one in self.images], np.int64)

    def subset(self, indices: Indices) -> ArrayPictures:
        """A copy of the pictures at ``indices``."""
        rows = np.asarray(indices, dtype=np.int64)
        names = [self.names[row] for row in rows]
        return ArrayPictures(self.images[rows], self.classes, self.labels[rows], names)


class FilePictures(Pictures):
    """Pictures in files of their own.

    Attributes:
        paths: a path a picture.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        classes: Sequence[str],
        labels: NDArray[np.integer],
        names: Sequence[str],
    ) -> None:
        super().__init__(classes, labels, names)
        if len(paths) != len(labels):
            raise ValueError(f"{len(labels)} labels for {len(paths)} paths: give one a picture")
        self.paths = paths

    def stored(self, index: int) -> Path:
        """The file."""
        return self.paths[index]

    def expect(self, index: int) -> None:
        """Have the file fetched."""
        files.expect(self.paths[index])

    def marks(self) -> NDArray[np.int64]:
        """The size of each file; -1 where it cannot be told."""
        return np.array([_size(path) for path in self.paths], np.int64)

    def subset(self, indices: Indices) -> FilePictures:
        """The paths at ``indices``."""
        rows = np.asarray(indices, dtype=np.int64)
        paths = [self.paths[row] for row in rows]
        names = [self.names[row] for row in rows]
        return FilePictures(paths, self.classes, self.labels[rows], names)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # decoding will say why
        return -1


@dataclass(frozen=True)
class Splits:
    """A data set in its parts.

    Attributes:
        name: what was opened.
        classes: the names of the classes; every part's labels index them.
        train: the pictures to learn from.
        val: the pictures to choose by (settings, the best epoch), if any.
        test: the pictures to be read once, at the end, if any.
        refused: the files that were skipped.
        note: what else the reader should know, a sentence each; empty when there is nothing.
        descriptions: what a class is called by people, where its name is a code.
    """

    name: str
    classes: tuple[str, ...]
    train: Pictures
    val: Pictures | None
    test: Pictures | None
    refused: tuple[BadImage, ...] = ()
    note: str = ""
    descriptions: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """What tells these pictures, and how they are divided, from others: 16 hexadecimal digits.

        It is of names, labels, classes and what tells when a picture was changed.
        """
        digest = hashlib.sha256(self.names_digest.encode())
        for part in (self.train, self.val, self.test):
            if part is not None:
                digest.update(part.marks().astype("<i8").tobytes())
        return digest.hexdigest()[:16]

    @property
    def names_digest(self) -> str:
        """The same of names, labels and classes alone: a prepared copy has the original's."""
        digest = hashlib.sha256("\0".join(self.classes).encode())
        for part in (self.train, self.val, self.test):
            names, labels = ((), np.empty(0)) if part is None else (part.names, part.labels)
            digest.update(f"\n{len(labels)}\n".encode())
            digest.update(labels.astype("<i8").tobytes())
            digest.update("\0".join(names).encode())
        return digest.hexdigest()[:16]


def write_bad_images(path: str | os.PathLike[str], refused: Iterable[BadImage]) -> None:
    """Write ``refused`` as CSV (UTF-8; columns ``name`` and ``reason``), atomically."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("name", "reason"))
    writer.writerows((bad.name, bad.reason) for bad in refused)
    files.write_text(path, text.getvalue())

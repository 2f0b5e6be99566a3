"""Pictures fitted to one size: in memory where they fit, streamed from their files otherwise.

Both give the same bytes, so what is trained does not depend on the machine's memory.
"""

from __future__ import annotations

import abc
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alexnet.data.pictures import ArrayPictures, Indices, Pictures
from alexnet.data.reading import between_steps, from_processes, from_threads
from alexnet.data.threads import available_processors, in_threads, operations_take_all
from alexnet.progress import track
from alexnet.spec import InputSpec
from alexnet.torchrun import local_world_size

Batch = tuple[Tensor, Tensor, Tensor]

MEMORY_LIMIT = 4 << 30
"""Bytes of decoded pictures that are kept, unless told otherwise."""

_TOGETHER = 256  # pictures that are read into memory at a time


class Pixels(abc.ABC):
    """Pictures fitted to one square size.

    Attributes:
        labels: int64 ``[N]``.
        names: a name a picture.
        side: of the square, in pixels.
        channels: 1 or 3.
    """

    labels: Tensor
    names: Sequence[str]
    side: int
    channels: int

    def __len__(self) -> int:
        return len(self.labels)

    @abc.abstractmethod
    def batches(self, plan: Iterable[Tensor]) -> Generator[Batch, None, None]:
        """Read batches.

        Args:
            plan: for each batch the indices of its pictures, int64 ``[B]``.

        Yields:
            uint8 ``[B, C, side, side]``, the labels ``[B]``, and the indices ``[B]`` as given.

        Raises:
            FailedError: a file cannot be read any more.
        """

    @abc.abstractmethod
    def subset(self, indices: Indices | Tensor) -> Pixels:
        """The pictures at ``indices``, in that order; they are numbered from 0 again."""

    def near(self, device: torch.device) -> Pixels:
        """The same pictures where ``device`` reads them fastest.

        That is a GPU's own memory, or memory that it copies from by itself (pinned); for a
        processor it is where they are.
        """
        del device
        return self


class MemoryPixels(Pixels):
    """Pictures in one tensor; a subset shares it.

    Args:
        images: uint8 ``[M, C, side, side]``.
        labels: int64 ``[N]``.
        names: a name a picture.
        rows: int64 ``[N]``, the row of ``images`` of each picture; all in order when None.
        pinned: whether batches are copied into memory that a GPU copies from by itself.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        names: Sequence[str],
        rows: Tensor | None = None,
        *,
        pinned: bool = False,
    ) -> None:
        self.images, self.labels, self.names, self.rows = images, labels, names, rows
        self.pinned = pinned
        self.channels, self.side = images.shape[1], images.shape[2]

    def batches(self, plan: Iterable[Tensor]) -> Generator[Batch, None, None]:
        """Copy each batch out of the tensor, on the device where that is."""
        images = self.images
        for indices in plan:
            rows = indices if self.rows is None else self.rows[indices]
            rows = rows.to(images.device, non_blocking=images.is_cuda)
            shape = (len(rows), *images.shape[1:])
            room = images.new_empty(shape, pin_memory=True) if self.pinned else None
            yield torch.index_select(images, 0, rows, out=room), self.labels[indices], indices

    def subset(self, indices: Indices | Tensor) -> MemoryPixels:
        """The pictures at ``indices``, as rows of the same tensor."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        rows = chosen if self.rows is None else self.rows[chosen]
        names = [self.names[index] for index in chosen.tolist()]
        return MemoryPixels(self.images, self.labels[chosen], names, rows, pinned=self.pinned)

    def near(self, device: torch.device) -> MemoryPixels:
        """On the GPU where they take half of its free memory at most."""
        if device.type != "cuda" or self.images.is_cuda:
            return self
        fits = self.images.nbytes <= torch.cuda.mem_get_info(device)[0] // 2
        images = self.images.to(device) if fits else self.images
        return MemoryPixels(images, self.labels, self.names, self.rows, pinned=not fits)


class StreamedPixels(Pixels):
    """Pictures read from their files batch by batch.

    Args:
        pictures: where they are.
        spec: what they are fitted to.
        side: of the square.
        workers: processes that read; with 0, threads of this one.
        pinned: whether batches lie in memory that a GPU copies from by itself.
    """

    def __init__(
        self,
        pictures: Pictures,
        spec: InputSpec,
        side: int,
        workers: int = 0,
        *,
        pinned: bool = False,
    ) -> None:
        self.pictures, self.spec, self.side, self.workers = pictures, spec, side, workers
        self.pinned = pinned
        self.channels = spec.channels
        self.labels = torch.tensor(pictures.labels)
        self.names = pictures.names

    def batches(self, plan: Iterable[Tensor]) -> Generator[Batch, None, None]:
        """Read ahead, in worker processes or threads; or between operations that need them all."""
        reader = _Fitted(self.pictures, self.spec, self.side)
        shape = (self.channels, self.side, self.side)
        if self.workers:
            stream = from_processes(reader, plan, self.workers, self.pinned)
        elif operations_take_all():
            stream = between_steps(reader, plan, shape)
        else:
            stream = from_threads(reader, plan, shape, _share_of_processors(), self.pinned)
        for indices, images in stream:
            yield images, self.labels[indices], indices

    def subset(self, indices: Indices | Tensor) -> StreamedPixels:
        """The pictures at ``indices``, streamed as well."""
        chosen = np.asarray(indices, dtype=np.int64)
        return self._of(self.pictures.subset(chosen), self.pinned)

    def near(self, device: torch.device) -> StreamedPixels:
        """Read into pinned memory for a GPU."""
        return self._of(self.pictures, True) if device.type == "cuda" else self

    def _of(self, pictures: Pictures, pinned: bool) -> StreamedPixels:
        return StreamedPixels(pictures, self.spec, self.side, self.workers, pinned=pinned)


def load_pixels(
    pictures: Pictures,
    spec: InputSpec,
    *,
    train: bool,
    workers: int = 0,
    memory_limit: int | None = None,
) -> Pixels:
    """Fit pictures to one size, in memory if they take at most ``memory_limit`` bytes.

    Args:
        pictures: what to read.
        spec: of the network.
        train: True keeps the square of ``spec.resize`` that training crops are cut from; False the
            center crop that is evaluated.
        workers: processes that read where the pictures are streamed; with 0, threads.
        memory_limit: in bytes; None is 0 for pictures that are mapped, else :data:`MEMORY_LIMIT`,
            divided among the processes that torchrun started on this machine.

    Raises:
        FailedError: a file cannot be read any more.
    """
    side = spec.resize if train else spec.crop
    if not fits_in_memory(len(pictures) * spec.channels * side**2, pictures, memory_limit):
        return StreamedPixels(pictures, spec, side, workers)
    images = _fitted_already(pictures, spec, side)
    if images is None:
        images = torch.empty(len(pictures), spec.channels, side, side, dtype=torch.uint8)
        filled = _fill(images.numpy(), _Fitted(pictures, spec, side))
        for _ in track(filled, "reading pictures", len(pictures)):
            pass
    return MemoryPixels(images, torch.tensor(pictures.labels), pictures.names)


def workers_beside(device: torch.device, pictures: Pictures, spec: InputSpec) -> int:
    """How many processes decode for what trains on ``device``, unless told otherwise.

    A GPU leaves the processors free: its process's share of the machine's, or none where C reads
    the pictures, whose threads do not wait for Python's lock and hand nothing over. Beside a
    network that trains on the processors themselves threads decode: processes would take its time.
    """
    if device.type == "cpu" or (device.type == "cuda" and _read_in_c(pictures, spec)):
        return 0
    if device.type != "cuda":
        return 2
    return max(2, _share_of_processors())


def _read_in_c(pictures: Pictures, spec: InputSpec) -> bool:
    """Whether many pictures are made together: at least seven of eight that are tried."""
    if not len(pictures):
        return False
    tried = np.linspace(0, len(pictures) - 1, 8).astype(int).tolist()
    rooms = np.empty((len(tried), spec.channels, spec.crop, spec.crop), np.uint8)
    return len(pictures.squares(tried, spec, rooms, 1)) <= 1


def _share_of_processors() -> int:
    """Of those that torchrun started on this machine, this process's, at least one."""
    return max(1, available_processors() // local_world_size())


def fits_in_memory(size: int, pictures: Pictures, memory_limit: int | None) -> bool:
    """Whether so many bytes of pictures are held in memory, as :func:`load_pixels` decides it."""
    if memory_limit is None:
        memory_limit = 0 if pictures.mapped else MEMORY_LIMIT // local_world_size()
    return size <= memory_limit


def _fitted_already(pictures: Pictures, spec: InputSpec, side: int) -> Tensor | None:
    """Pictures of an array that only need to be cut: no work a picture."""
    if not isinstance(pictures, ArrayPictures):
        return None
    if pictures.images.shape[1:] != (spec.resize, spec.resize, spec.channels):
        return None
    start = (spec.resize - side) // 2
    squares = pictures.images[:, start : start + side, start : start + side]
    return torch.from_numpy(np.require(squares.transpose(0, 3, 1, 2), requirements=["C", "W"]))


@dataclass(frozen=True)
class _Fitted:
    """The squares of pictures."""

    pictures: Pictures
    spec: InputSpec
    side: int

    def one(self, index: int) -> NDArray[np.uint8]:
        return self.pictures.read_square(index, self.spec, self.side)

    def many(self, indices: Sequence[int], rooms: NDArray[np.uint8], threads: int) -> list[int]:
        return self.pictures.squares(indices, self.spec, rooms, threads)

    def expect(self, index: int) -> None:
        self.pictures.expect(index)


def _fill(rooms: NDArray[np.uint8], fitted: _Fitted) -> Iterator[None]:
    """Read all pictures; one is done each time."""
    for first in range(0, len(rooms), _TOGETHER):
        part = range(first, min(first + _TOGETHER, len(rooms)))
        left = fitted.many(part, rooms[first : part.stop], available_processors())
        yield from [None] * (len(part) - len(left))
        others = in_threads(fitted.one, [part[place] for place in left])
        for place, square in zip(left, others, strict=True):
            rooms[part[place]] = square
            yield

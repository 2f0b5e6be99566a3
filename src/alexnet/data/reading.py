"""How the batches of a plan are read: in threads, between steps, or by processes."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from alexnet.data.threads import between_operations, yield_to_others
from alexnet.errors import AlexnetError, FailedError

_AHEAD = 256  # pictures that are read, or fetched from the disk, before they are asked for

Image = NDArray[np.uint8]


class Reader(Protocol):
    """Where pictures come from, by their numbers: uint8 ``[C, side, side]`` each."""

    def one(self, index: int) -> Image:
        """A picture."""
        ...

    def many(self, indices: Sequence[int], rooms: Image, threads: int) -> list[int]:
        """Put those that can be made together into ``rooms``; the places of the others."""
        ...

    def expect(self, index: int) -> None:
        """Have the system fetch a picture that is read soon."""
        ...


def from_threads(
    reader: Reader, plan: Iterable[Tensor], shape: tuple[int, int, int], threads: int, pinned: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the indices and the pictures of each batch, read ahead while others are worked on.

    Threads write into the batch: whoever waits for it has nothing to copy.
    """
    batches = ThreadPoolExecutor(1, initializer=yield_to_others)
    pictures = ThreadPoolExecutor(threads, initializer=yield_to_others)
    under_way: deque[tuple[Tensor, Future[Tensor]]] = deque()

    def read(indices: Tensor) -> Tensor:
        images = torch.empty(len(indices), *shape, dtype=torch.uint8, pin_memory=pinned)
        _read_batch(
            reader, indices.tolist(), images.numpy(), threads, partial(_in_any_order, pictures)
        )
        return images

    try:
        for indices in plan:
            under_way.append((indices, batches.submit(read, indices)))
            if len(under_way) > 1 and sum(len(batch) for batch, _ in under_way) > _AHEAD:
                first, images = under_way.popleft()
                yield first, images.result()
        while under_way:
            first, images = under_way.popleft()
            yield first, images.result()
    finally:
        pictures.shutdown(wait=False, cancel_futures=True)
        batches.shutdown(wait=True, cancel_futures=True)
        pictures.shutdown(wait=True)


def _in_any_order(executor: ThreadPoolExecutor, work: Callable[[int], object], count: int) -> None:
    for future in [executor.submit(work, number) for number in range(count)]:
        future.result()


def between_steps(
    reader: Reader, plan: Iterable[Tensor], shape: tuple[int, int, int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the indices and the pictures of each batch, read when it is asked for.

    What lies on a disk is fetched from there before.
    """
    asking = ThreadPoolExecutor(1, initializer=yield_to_others)
    coming: deque[Tensor] = deque()

    def ask(indices: list[int]) -> None:
        for index in indices:
            reader.expect(index)

    def read(indices: Tensor) -> tuple[Tensor, Tensor]:
        images, threads = (
            torch.empty(len(indices), *shape, dtype=torch.uint8),
            torch.get_num_threads(),
        )
        _read_batch(reader, indices.tolist(), images.numpy(), threads, between_operations)
        return indices, images

    try:
        for indices in plan:
            coming.append(indices)
            asking.submit(ask, indices.tolist())
            if len(coming) > 1 and sum(map(len, coming)) > _AHEAD:
                yield read(coming.popleft())
        while coming:
            yield read(coming.popleft())
    finally:
        asking.shutdown(wait=True, cancel_futures=True)


def _read_batch(
    reader: Reader,
    indices: list[int],
    rooms: Image,
    threads: int,
    each: Callable[[Callable[[int], object], int], None],
) -> None:
    """Read many pictures together, the others one by one; ``each`` calls so many times."""
    left = reader.many(indices, rooms, threads)

    def work(number: int) -> None:
        rooms[left[number]] = reader.one(indices[left[number]])

    each(work, len(left))


class _Batches(Dataset[tuple[Tensor, Tensor] | str]):
    """What a worker process does: whole batches, and errors as their text.

    An exception would arrive with the worker's traceback in its message.
    """

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor] | str:
        try:
            squares = [torch.from_numpy(self.reader.one(index)) for index in indices]
        except AlexnetError as error:
            return str(error)
        return torch.tensor(indices), torch.stack(squares)


def from_processes(
    reader: Reader, plan: Iterable[Tensor], workers: int, pinned: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the indices and the pictures of each batch, read by so many other processes."""
    loader = DataLoader(
        _Batches(reader),
        batch_sampler=(indices.tolist() for indices in plan),
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_leave_signals_to_the_parent,
        pin_memory=pinned,
    )
    for batch in loader:
        if isinstance(batch, str):
            raise FailedError(batch)
        yield batch


def _leave_signals_to_the_parent(worker: int) -> None:
    """A worker ends when its parent does: until the checkpoint is written it has to read on.

    A terminal's Ctrl-C, torchrun and Slurm send their signals to the workers as well.
    """
    del worker
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _as_it_is(batch: Any) -> Any:
    return batch

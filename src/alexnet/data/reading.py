"""How the batches of a plan are read: in threads, between steps, or by processes."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from alexnet.data.threads import between_operations, in_threads, yield_to_others
from alexnet.errors import AlexnetError, FailedError

_AHEAD = 256  # pictures that are read, or fetched from the disk, before they are asked for

Read = Callable[[int], NDArray[np.uint8]]
"""A picture by its number: uint8 ``[C, side, side]``."""


def from_threads(
    read: Read, plan: Iterable[Tensor], shape: tuple[int, int, int], pinned: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the indices and the pictures of each batch, read ahead while others are worked on.

    Threads write into the batch: whoever waits for it has nothing to copy.
    """
    under_way: deque[tuple[Tensor, Tensor]] = deque()

    def places() -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for indices in plan:
            images = torch.empty(len(indices), *shape, dtype=torch.uint8, pin_memory=pinned)
            under_way.append((indices, images))
            yield from zip(indices.tolist(), images.numpy(), strict=True)

    def work(place: tuple[int, NDArray[np.uint8]]) -> None:
        index, room = place
        room[...] = read(index)

    done = 0
    for _ in in_threads(work, places(), ahead=_AHEAD, yielding=True):
        done += 1
        if done == len(under_way[0][0]):
            yield under_way.popleft()
            done = 0


def between_steps(
    read: Read,
    expect: Callable[[int], None],
    plan: Iterable[Tensor],
    shape: tuple[int, int, int],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the indices and the pictures of each batch, read when it is asked for.

    What lies on a disk is fetched from there before: ``expect`` is told of a picture.
    """
    asking = ThreadPoolExecutor(1, initializer=yield_to_others)
    coming: deque[Tensor] = deque()

    def ask(indices: list[int]) -> None:
        for index in indices:
            expect(index)

    try:
        for indices in plan:
            coming.append(indices)
            asking.submit(ask, indices.tolist())
            if len(coming) > 1 and sum(map(len, coming)) > _AHEAD:
                yield _read_together(read, coming.popleft(), shape)
        while coming:
            yield _read_together(read, coming.popleft(), shape)
    finally:
        asking.shutdown(wait=True, cancel_futures=True)


def _read_together(
    read: Read, indices: Tensor, shape: tuple[int, int, int]
) -> tuple[Tensor, Tensor]:
    images = torch.empty(len(indices), *shape, dtype=torch.uint8)
    rooms, wanted = images.numpy(), indices.tolist()

    def work(place: int) -> None:
        rooms[place] = read(wanted[place])

    between_operations(work, len(wanted))
    return indices, images


class _Reader(Dataset[tuple[Tensor, Tensor] | str]):
    """What a worker process does: whole batches, and errors as their text.

    An exception would arrive with the worker's traceback in its message.
    """

    def __init__(self, read: Read) -> None:
        self.read = read

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor] | str:
        try:
            squares = [torch.from_numpy(self.read(index)) for index in indices]
        except AlexnetError as error:
            return str(error)
        return torch.tensor(indices), torch.stack(squares)


def from_processes(
    read: Read, plan: Iterable[Tensor], workers: int, pinned: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the indices and the pictures of each batch, read by so many other processes."""
    loader = DataLoader(
        _Reader(read),
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

"""What each process takes of a step's batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alexnet.data.augment import leaders_of


@dataclass(frozen=True)
class Share:
    """A process's part of a step's batch: as many rows in every process.

    Attributes:
        indices: int64 ``[M]``, the pictures; rows that only fill up repeat the batch's first one.
        leaders: int64 ``[M]``, the pictures whose crop and mirror these take.
        first: place of the first row in the batch.
        counted: rows, from the first on, that are pictures of the batch.
        total: pictures of the whole batch.
    """

    indices: Tensor
    leaders: Tensor
    first: int
    counted: int
    total: int

    @property
    def rows(self) -> Tensor:
        """Place of each row in the batch, int64 ``[M]``."""
        return torch.arange(self.first, self.first + len(self.indices))


def share_of(batch: Tensor, rank: int, count: int, together: int = 1) -> Share:
    """The part of ``batch`` that process ``rank`` of ``count`` takes.

    Parts are consecutive and begin at even places, so that neighbors that are mixed with each other
    (mixup, CutMix) stay together; where the batch does not divide, the last ones are filled up with
    rows that count nothing.

    Args:
        batch: int64 ``[B]``, the indices of the step's pictures.
        rank: of the process.
        count: processes that share the batch.
        together: pictures in a row that take the crop and mirror of the first of them.
    """
    leaders = leaders_of(batch, together)
    if count == 1:
        return Share(batch, leaders, 0, len(batch), len(batch))
    size = 2 * -(-len(batch) // (2 * count))
    first, last = rank * size, min((rank + 1) * size, len(batch))
    places = torch.arange(first, first + size)
    places[max(0, last - first) :] = 0
    return Share(batch[places], leaders[places], first, max(0, last - first), len(batch))

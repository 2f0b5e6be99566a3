"""The order of the pictures and every random draw of augmentation, as pure functions.

Nothing here has a state: the order of an epoch is a function of (seed, epoch), a draw a function of
(seed, epoch, index of the picture, number of the draw). So a run resumes from one number, and
neither the size of a batch nor the number of workers or processes changes what is drawn.
The function is that of :mod:`alexnet.chance`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from alexnet.chance import GOLDEN, ORDER, VARY, hash64, shifted, signed, stream_key


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The order in which an epoch reads ``count`` pictures.

    Returns:
        int64 ``[count]``, a permutation of 0 to ``count - 1`` that depends on ``seed`` and
        ``epoch`` alone.
    """
    # A bijection of the counter: no two keys are equal, so the order has no ties to break.
    return hash64(stream_key(ORDER, seed, epoch), torch.arange(count)).argsort()


def epoch_batches(
    count: int, batch_size: int, seed: int, epoch: int, *, first: int = 0, drop_last: bool
) -> Iterator[Tensor]:
    """The batches of an epoch, each the indices of its pictures.

    Args:
        count: how many pictures there are.
        batch_size: pictures a batch.
        seed: with ``epoch``, decides the order.
        epoch: from 0.
        first: batches to skip at the start, for a run that resumes within an epoch.
        drop_last: leave out the last batch where it is smaller (unless it is the only one).

    Raises:
        ValueError: a batch size below 1 or a negative ``first``.
    """
    if batch_size < 1 or first < 0:
        raise ValueError(f"batch_size={batch_size} must be at least 1 and first={first} at least 0")
    order = epoch_order(count, seed, epoch)
    if drop_last and count >= batch_size:
        count -= count % batch_size
    for start in range(first * batch_size, count, batch_size):
        yield order[start : min(start + batch_size, count)]


def draws(seed: int, epoch: int, indices: Tensor, count: int, stream: int = VARY) -> Tensor:
    """Random numbers for pictures, the same whatever the batch they are in.

    Args:
        seed: of the run.
        epoch: from 0.
        indices: int64 ``[B]``, which pictures.
        count: numbers a picture; asking for more leaves the first ones as they were.
        stream: what they are for; no two streams share a number.

    Returns:
        float32 ``[B, count]``, uniform in [0, 1), on the device of ``indices``.
    """
    pictures = hash64(stream_key(stream, seed, epoch), indices)
    numbers = hash64(
        0, pictures[:, None] + signed(GOLDEN) * torch.arange(1, count + 1, device=indices.device)
    )
    # The upper 24 bits: every float32 of the form k / 2^24, each equally likely.
    return shifted(numbers, 40).to(torch.float32) * 2.0**-24


def normal(uniform: Tensor) -> Tensor:
    """Standard normal numbers from :func:`draws`, one for one.

    Args:
        uniform: float32 of the form k / 2^24, any shape.

    Returns:
        float32 of the same shape: the normal quantile of ``uniform + 2^-25``, the middle of the
        24-bit number's interval, which is never 0 or 1; at most 5.4 either way.
    """
    return math.sqrt(2) * torch.erfinv(2 * uniform - 1 + 2.0**-24)  # the sum is exact in float32

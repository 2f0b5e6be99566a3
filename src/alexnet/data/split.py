"""Stratified splits that a seed decides."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from alexnet.chance import CLASSES, FOLDS, SPLIT, hash64, stream_key


def stratified_split(
    labels: ArrayLike, fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hold out a part of the pictures, the same share of every class.

    The held-out part has ``round(fraction * N)`` pictures: of each class the share rounded down,
    and one more of those classes that the rounding would cost most. A class always keeps a picture
    in training, so one of a single picture has none held out (and the part is smaller by as much).

    Args:
        labels: integers ``[N]``.
        fraction: of the pictures to hold out, 0 to 1.
        seed: which pictures.

    Returns:
        The kept and the held-out indices, int64, each in rising order.

    Raises:
        ValueError: a fraction that is not in [0, 1].
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction={fraction} must lie between 0 and 1")
    values = np.asarray(labels, dtype=np.int64).reshape(-1)
    present, sizes = np.unique(values, return_counts=True)
    quotas = _quotas(sizes, fraction, _ranks(len(present), CLASSES, seed))
    ranks = _ranks(len(values), SPLIT, seed)
    held_out = np.zeros(len(values), dtype=bool)
    for value, quota in zip(present, quotas, strict=True):
        members = np.flatnonzero(values == value)
        held_out[members[ranks[members].argsort()[:quota]]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _quotas(
    sizes: NDArray[np.int64], fraction: float, ties: NDArray[np.int64]
) -> NDArray[np.int64]:
    """How many of each class to hold out: the method of largest remainders."""
    exact = fraction * sizes
    quotas = np.minimum(np.floor(exact).astype(np.int64), sizes - 1)
    missing = round(float(exact.sum())) - int(quotas.sum())
    # Largest remainder first; equal ones (to rounding) in an order that the seed decides.
    order = np.lexsort((ties, -np.round(exact - quotas, 9)))
    for index in order[exact[order] > quotas[order]]:
        if missing > 0 and quotas[index] < sizes[index] - 1:
            quotas[index] += 1
            missing -= 1
    return quotas


def stratified_folds(labels: ArrayLike, folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of each picture, int64 ``[N]``: classes are dealt out evenly to the folds."""
    values = np.asarray(labels, dtype=np.int64)
    ranks = _ranks(len(values), FOLDS, seed)
    assigned = np.empty(len(values), dtype=np.int64)
    for value in np.unique(values):
        members = np.flatnonzero(values == value)
        assigned[members[ranks[members].argsort()]] = np.arange(len(members)) % folds
    return assigned


def _ranks(count: int, purpose: int, seed: int) -> NDArray[np.int64]:
    """Distinct random numbers, one an item."""
    return hash64(stream_key(purpose, seed), torch.arange(count)).numpy()

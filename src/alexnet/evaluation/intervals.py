"""How sure a figure is: intervals by the bootstrap (Efron 1979), percentiles, a fixed seed."""

from __future__ import annotations

import numpy as np
from torch import Tensor

SAMPLES = 2000
_AT_ONCE = 1 << 22  # numbers drawn together

Interval = tuple[float, float]


def bootstrap(values: Tensor, *, level: float = 0.95, seed: int = 0) -> list[Interval]:
    """Intervals of means over pictures, all from the same samples.

    Args:
        values: ``[M, N]``, M figures of each of N pictures.
        level: share of samples within the interval.
        seed: of the samples.

    Returns:
        For each figure the lower and the upper end.
    """
    array = values.double().numpy()
    count = array.shape[1]
    if not count:
        return [(float("nan"), float("nan"))] * len(array)
    random = np.random.default_rng(seed)
    means = []
    at_once = max(1, _AT_ONCE // count)
    for start in range(0, SAMPLES, at_once):
        size = (min(at_once, SAMPLES - start), count)
        drawn = random.integers(0, count, size)
        means.append(np.stack([row[drawn].mean(1) for row in array]))
    ends = np.quantile(np.concatenate(means, 1), [(1 - level) / 2, (1 + level) / 2], axis=1)
    return [(float(low), float(high)) for low, high in ends.T]

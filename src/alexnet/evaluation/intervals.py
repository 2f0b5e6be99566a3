"""How sure a mean is: over pictures by the bootstrap, over a few runs by Student's t."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np
from torch import Tensor

SAMPLES = 2000
FEW = 10
"""Right or wrong answers of which fewer are too few for the bootstrap."""
_AT_ONCE = 1 << 22  # numbers drawn together

_T95 = (12.706, 4.303, 3.182, 2.776)  # Student's t, two-sided 95%, of 1 to 4 degrees of freedom

Interval = tuple[float, float]


def bootstrap(values: Tensor, *, level: float = 0.95, seed: int = 0) -> list[Interval]:
    """Intervals of means over pictures, all from the same samples (Efron 1979, percentiles).

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


def share_interval(right: int, count: int, ends: Interval) -> Interval:
    """The 95% interval of a share: of few right or wrong answers Wilson's, else the bootstrap's.

    Samples of answers that are all right are all right: the bootstrap would be sure of them.

    Args:
        right: how many answers are.
        count: of answers.
        ends: the bootstrap's interval.
    """
    return wilson(right / count, count) if min(right, count - right) < FEW else ends


def wilson(share: float, count: int) -> Interval:
    """The 95% interval of a share observed in ``count`` trials (Wilson 1927)."""
    if count == 0:
        return 0.0, 1.0
    z = statistics.NormalDist().inv_cdf(0.975)
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count)
    half *= math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def students_t(values: Sequence[float]) -> Interval:
    """The 95% interval of the mean of a few figures, such as one a seed, or paired differences.

    Args:
        values: two or more.

    Returns:
        The lower and the upper end.

    Raises:
        statistics.StatisticsError: fewer than two values.
    """
    mean, count = statistics.mean(values), len(values)
    half = _t95(count - 1) * statistics.stdev(values) / math.sqrt(count)
    return mean - half, mean + half


def _t95(freedom: int) -> float:
    """Student's t, two-sided 95%, within 0.001 (Abramowitz and Stegun 1964, 26.7.5)."""
    if freedom <= len(_T95):
        return _T95[freedom - 1]
    z = statistics.NormalDist().inv_cdf(0.975)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))

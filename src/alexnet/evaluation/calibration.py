"""Whether probabilities mean what they say: calibration error, reliability, temperature.

Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks. ICML 2017.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

BINS = 15
_LEAST, _MOST = 0.05, 20.0
"""Between these a temperature is sought."""


@dataclass(frozen=True)
class Reliability:
    """How often answers of some confidence are right, in bins of equal width.

    Attributes:
        count: pictures in each bin.
        confidence: mean probability of their answers; None where there are none.
        accuracy: share that is right; None where there are none.
    """

    count: tuple[int, ...]
    confidence: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]

    def to_dict(self) -> dict[str, list[float | None] | list[int]]:
        """Plain JSON types."""
        return {
            "count": list(self.count),
            "confidence": list(self.confidence),
            "accuracy": list(self.accuracy),
        }

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of confidence and accuracy, over pictures."""
        total = sum(self.count)
        parts = zip(self.count, self.confidence, self.accuracy, strict=True)
        apart = sum(n * abs(c - a) for n, c, a in parts if c is not None and a is not None)
        return apart / total if total else 0.0


def reliability(confidence: Tensor, right: Tensor, bins: int = BINS) -> Reliability:
    """Sort answers into bins by their confidence.

    Args:
        confidence: ``[N]``, the probability of each answer.
        right: bool ``[N]``.
        bins: how many; a bin holds its upper edge.
    """
    values = confidence.double().nan_to_num(0.0).numpy()  # of a loss that is no number either
    place = np.clip(np.ceil(values * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    sums = (np.bincount(place, weights, bins) for weights in (values, right.double().numpy()))
    means = (
        tuple(float(s / n) if n else None for s, n in zip(totals, count, strict=True))
        for totals in sums
    )
    confidences, accuracies = means
    return Reliability(tuple(count.tolist()), confidences, accuracies)


def fit_temperature(log_probabilities: Tensor, labels: Tensor) -> float:
    """The temperature that makes the labels most likely.

    The loss is convex in its inverse, so that a search by golden sections finds it.

    Args:
        log_probabilities: float64 ``[N, K]``, or logits: a constant a row changes nothing.
        labels: int64 ``[N]``.

    Returns:
        From 0.05 to 20.

    Raises:
        ValueError: there are no pictures.
    """
    if not len(labels):
        raise ValueError("a temperature cannot be fitted to no pictures")

    def loss(inverse: float) -> float:
        return float(torch.nn.functional.cross_entropy(log_probabilities * inverse, labels))

    low, high = 1 / _MOST, 1 / _LEAST
    golden = (5**0.5 - 1) / 2
    while high - low > 1e-7 * high:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if loss(left) <= loss(right):
            high = right
        else:
            low = left
    return 2 / (low + high)

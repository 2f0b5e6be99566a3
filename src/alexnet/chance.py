"""Random numbers as a pure function of counters: no state, the same on every machine.

The function is SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
generators", figure 17) used as a hash of counters. It is the same on every device, platform and
version of PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
"""2^64 / golden ratio: the step between two counters."""
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB

ORDER, VARY, SPLIT, FOLDS, CLASSES, DROPOUT, OPERATIONS, MIX, CORRUPT = range(1, 10)
"""One stream a purpose, so that no two share a number: the first part of a stream's key."""


def stream_key(*parts: int) -> int:
    """One 64-bit key for a stream of numbers, from any whole numbers (negative ones too)."""
    key = 0
    for part in parts:
        key = _mixed((key + GOLDEN + (part & _MASK)) & _MASK)
        key = _mixed((key ^ (part >> 64 & _MASK)) & _MASK)
    return key


def hash64(key: int, counters: Tensor) -> Tensor:
    """SplitMix64's output for each counter of a stream: a bijection of the counters.

    Args:
        key: of the stream, from :func:`stream_key`.
        counters: int64, any shape.

    Returns:
        int64 of the same shape: 64 well mixed bits.
    """
    bits = counters * signed(GOLDEN) + signed(key)
    bits = (bits ^ shifted(bits, 30)) * signed(_FIRST)
    bits = (bits ^ shifted(bits, 27)) * signed(_SECOND)
    return bits ^ shifted(bits, 31)


def signed(bits: int) -> int:
    """The int64 with the same 64 bits: torch has no arithmetic on uint64."""
    return bits - (1 << 64) if bits >> 63 else bits


def shifted(bits: Tensor, places: int) -> Tensor:
    """A logical shift to the right: torch's copies the sign, so its bits are masked off."""
    return (bits >> places) & ((1 << (64 - places)) - 1)


def _mixed(bits: int) -> int:
    bits = ((bits ^ bits >> 30) * _FIRST) & _MASK
    bits = ((bits ^ bits >> 27) * _SECOND) & _MASK
    return bits ^ bits >> 31

"""Resizing with antialiasing, only the region that is wanted, straight into planes of color."""

from __future__ import annotations

import ctypes
import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from alexnet.native import native

_AT_ONCE = 16  # places of a row that native/resize.c computes together
_BYTES = 128  # of a row that it picks their pixels from
_REACH = {"bilinear": 1.0, "bicubic": 2.0}  # of a filter, in pixels

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Region:
    """Part of the resized picture: ``rows`` from ``top``, ``columns`` from ``left``."""

    top: int
    left: int
    rows: int
    columns: int


def resize(pixels: Bytes, sides: tuple[int, int], interpolation: str) -> Bytes:
    """A whole picture: Pillow's but for a gray level, three times as fast.

    Args:
        pixels: uint8 ``[H, W, 3]``.
        sides: rows and columns of the result.
        interpolation: ``"bilinear"`` or ``"bicubic"``; smaller pictures are means (antialias).

    Returns:
        uint8 ``[rows, columns, 3]``, the bytes of ``torchvision.transforms.v2.Resize``.
    """
    ours = np.require(pixels, requirements=["C", "W"])  # torch warns of what cannot be written
    picture = torch.from_numpy(ours).permute(2, 0, 1)[None]
    resized = F.interpolate(picture, sides, mode=interpolation, antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def resize_region(
    pixels: Bytes, sides: tuple[int, int], region: Region, interpolation: str
) -> Bytes:
    """A region of a resized picture: Pillow's but for a gray level.

    Args:
        pixels: uint8 ``[H, W, 3]``.
        sides: rows and columns of the whole resized picture.
        region: what is wanted of it.
        interpolation: ``"bilinear"`` or ``"bicubic"``; smaller pictures are means (antialias).

    Returns:
        uint8 ``[3, rows, columns]``, the bytes of ``torchvision.transforms.v2.Resize``.
    """
    found = _by_native(np.ascontiguousarray(pixels), sides, region, interpolation)
    if found is not None:
        return found
    whole = resize(pixels, sides, interpolation)
    rows = slice(region.top, region.top + region.rows)
    columns = slice(region.left, region.left + region.columns)
    return np.array(whole[rows, columns].transpose(2, 0, 1), order="C")


def planes_of_color(pixels: Bytes) -> Bytes:
    """A copy with each color in a plane of its own.

    Args:
        pixels: uint8 ``[rows, columns, C]``.

    Returns:
        uint8 ``[C, rows, columns]``.
    """
    rows, columns, channels = pixels.shape
    library = native().library
    if library is None or pixels.strides[1:] != (3, 1) or channels != 3:
        return np.array(pixels.transpose(2, 0, 1), order="C")  # never a view of `pixels`
    out = np.empty((3, rows, columns), np.uint8)
    addresses = (ctypes.c_void_p(part.ctypes.data) for part in (pixels, out))
    library.planes_of_color(*addresses, *map(ctypes.c_int64, (rows, columns, pixels.strides[0])))
    return out


class _Region(ctypes.Structure):
    """``Region`` of ``native/resize.h``."""

    _fields_ = (
        *(
            (name, ctypes.c_int64)
            for name in (
                "height", "width", "rows", "columns", "first_row", "last_row", "first_column",
                "last_column", "row_pairs", "column_pairs", "row_bits", "column_bits",
            )
        ),
        *(
            (name, ctypes.c_void_p)
            for name in (
                "starts", "picks", "row_weights", "tops", "heights", "column_weights",
            )
        ),
    )  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How C computes a region; it is read there, by many threads at once.

    Attributes:
        library: that does it.
        shape: of the result, ``[3, rows, columns]``.
        region: ``Region`` of ``native/resize.h``.
        tables: what that points to.
    """

    library: ctypes.CDLL
    shape: tuple[int, int, int]
    region: ctypes.Structure
    tables: tuple[NDArray[np.generic], ...]

    @property
    def address(self) -> int:
        """Where the region is told."""
        return ctypes.addressof(self.region)


@functools.lru_cache(maxsize=256)
def plan(
    height: int, width: int, sides: tuple[int, int], region: Region, interpolation: str
) -> Plan | None:
    """How a picture's region is resized in C; None where it is not.

    Args:
        height: of the picture, in pixels.
        width: of the picture.
        sides: as for :func:`resize_region`, as are the others.
        region: what is wanted.
        interpolation: by what.
    """
    library = native().library
    if library is None or not hasattr(library, "resize_region"):
        return None
    row = _row_tables(width, sides[1], region.left, region.columns, interpolation)
    if row is None:
        return None
    tops, heights, down, bits = _weights(height, sides[0], interpolation)
    rows = slice(region.top, region.top + region.rows)
    tops, heights, down = (np.ascontiguousarray(part[rows]) for part in (tops, heights, down))
    tables = row.starts, row.picks, row.weights, tops, heights, down
    told = _Region(
        height, width, region.rows, region.columns, int(tops[0]), int((tops + heights).max()),
        row.first, row.last, row.picks.shape[1], down.shape[1] // 2, row.bits, bits,
        *(part.ctypes.data for part in tables),
    )  # fmt: skip
    return Plan(library, (3, region.rows, region.columns), told, tables)


def _by_native(
    pixels: Bytes, sides: tuple[int, int], region: Region, interpolation: str
) -> Bytes | None:
    """The region by ``native/resize.c``; None where that cannot be done."""
    how = plan(*pixels.shape[:2], sides, region, interpolation)
    if how is None:
        return None
    out = np.empty(how.shape, np.uint8)
    addresses = (ctypes.c_void_p(part.ctypes.data) for part in (pixels, out))
    if how.library.resize_region(*addresses, ctypes.byref(how.region)):
        raise MemoryError("no memory to resize a picture")
    return out


@functools.lru_cache(maxsize=256)
def _weights(
    size: int, wanted: int, interpolation: str
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int16], int]:
    """How each of ``wanted`` places in a line is made of ``size``, in whole numbers.

    Returns:
        The first pixel of each place, how many there are, their weights (an even number, what is
        too many being 0), and the number of binary places behind the weights' point. As many as
        keep the largest of them within 16 bits.
    """
    scale = size / wanted
    wide = max(scale, 1.0)
    support = _REACH[interpolation] * wide
    center = scale * (np.arange(wanted) + 0.5)
    first = np.maximum((center - support + 0.5).astype(np.int64), 0)
    count = np.minimum((center + support + 0.5).astype(np.int64), size) - first
    most = math.ceil(support) * 2 + 1
    count = np.clip(count, 0, most)
    taps = np.arange(most + most % 2)
    away = (taps + first[:, None] - center[:, None] + 0.5) / wide
    values = np.where(taps < count[:, None], _filter(away, interpolation), 0.0)
    values /= values.sum(1, keepdims=True)
    bits = next(b for b in range(22) if b == 21 or int(0.5 + values.max() * (2 << b)) >= 1 << 15)
    scaled = values * (1 << bits)
    whole = np.trunc(scaled + np.where(values < 0, -0.5, 0.5)).astype(np.int16)
    return first.astype(np.int32), count.astype(np.int32), whole, bits


def _filter(x: NDArray[np.float64], interpolation: str) -> NDArray[np.float64]:
    """A triangle, or Keys's cubic with a = -1/2 (Pillow's, and torch's with antialias)."""
    x = np.abs(x)
    if interpolation == "bilinear":
        return np.maximum(1 - x, 0)
    a = -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


@dataclass(frozen=True)
class _Row:
    """Tables for :data:`_AT_ONCE` places of a row together, as ``native/resize.c`` reads them.

    Of the row's pixels they need those from ``first`` up to ``last``.
    """

    starts: NDArray[np.int32]
    picks: Bytes
    weights: NDArray[np.int16]
    bits: int
    first: int
    last: int


@functools.lru_cache(maxsize=256)
def _row_tables(size: int, wanted: int, left: int, columns: int, interpolation: str) -> _Row | None:
    """For a row of ``size`` pixels; None where places lie too far apart."""
    first, count, weights, bits = _weights(size, wanted, interpolation)
    blocks = math.ceil(columns / _AT_ONCE)
    place = np.minimum(left + np.arange(blocks * _AT_ONCE), left + columns - 1)
    first, count, weights = first[place], count[place], weights[place]
    starts = first.reshape(blocks, _AT_ONCE).min(1)
    away = first.reshape(blocks, _AT_ONCE, 1) - starts[:, None, None]
    taps = np.arange(weights.shape[1])
    within = np.minimum(taps, np.maximum(count - 1, 0).reshape(blocks, _AT_ONCE, 1))
    picks = 3 * (away + within)
    if picks.max() + 2 >= _BYTES:
        return None
    pairs = len(taps) // 2

    def laid(values: NDArray[np.int64]) -> NDArray[np.int64]:
        split = values.reshape(blocks, _AT_ONCE, pairs, 2)
        return np.ascontiguousarray(split.transpose(0, 2, 1, 3)).reshape(blocks, pairs, -1)

    return _Row(
        starts=(3 * starts).astype(np.int32),
        picks=laid(picks).astype(np.uint8),
        weights=laid(weights.astype(np.int64)).astype(np.int16),
        bits=bits,
        first=int(first.min()),
        last=int((first + count).max()),
    )

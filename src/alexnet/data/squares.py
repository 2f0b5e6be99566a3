"""Many JPEGs become squares at once, in C: Python's lock is taken once for all of them."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet.data.fit import side_of
from alexnet.data.jpeg import Head, plan_of
from alexnet.native import native
from alexnet.spec import InputSpec

HELD_AT_ONCE = 64 << 20
"""Bytes of files that are in memory at once, as in ``native/squares.c``."""

Image = NDArray[np.uint8]


class _Square(ctypes.Structure):
    """``Square`` of ``native/squares.c``."""

    _fields_ = (
        ("path", ctypes.c_char_p),
        ("data", ctypes.c_char_p),
        *((name, ctypes.c_int64) for name in ("size", "height", "width", "exif")),
        ("region", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("came", ctypes.c_int64),
    )


def squares_are_made(spec: InputSpec) -> bool:
    """Whether :func:`make_squares` makes any: in color, compiled, on AVX-512 VBMI."""
    library = native().library
    return library is not None and hasattr(library, "make_squares") and spec.channels == 3


def make_squares(
    stored: Sequence[Path | bytes | Image | None], spec: InputSpec, rooms: Image, threads: int
) -> list[int]:
    """Make those squares that C makes of a JPEG, as :func:`alexnet.data.decode.square` makes them.

    Args:
        stored: what holds each picture.
        spec: as in :func:`alexnet.data.fit.fit`.
        rooms: uint8 ``[N, C, side, side]``, where they are put.
        threads: of OpenMP's that work on them.

    Returns:
        The places of the others, whose rooms mean nothing: unusual or damaged pictures, other
        formats, very large ones, and all where :func:`squares_are_made` says so.

    Raises:
        ValueError: ``rooms`` are not what they should be.
    """
    library = native().library
    side = side_of(spec, rooms.shape[-1])
    if rooms.shape != (len(stored), spec.channels, side, side) or rooms.dtype != np.uint8:
        raise ValueError(f"rooms of {rooms.dtype} {rooms.shape} for {len(stored)} pictures")
    if not rooms.flags.c_contiguous or not rooms.flags.writeable:
        raise ValueError("rooms must be contiguous, and may be written to")
    if library is None or not squares_are_made(spec):
        return list(range(len(stored)))
    paths = [_path(one) for one in stored]
    places = [i for i, one in enumerate(stored) if paths[i] or isinstance(one, bytes)]
    squares = (_Square * len(places))()
    for square, place in zip(squares, places, strict=True):
        one = stored[place]
        square.path = paths[place]
        if isinstance(one, bytes):
            square.data, square.size = one, len(one)
        square.out = rooms.ctypes.data + place * rooms.strides[0]
    done = 0
    while done < len(places):
        done += _made(library, squares, done, spec, side, threads)
    made = {place for square, place in zip(squares, places, strict=True) if not square.came}
    return [place for place in range(len(stored)) if place not in made]


def _path(stored: object) -> bytes | None:
    """A path as the system takes it; None for what is none."""
    with contextlib.suppress(UnicodeEncodeError):
        path = os.fsencode(stored) if isinstance(stored, Path) else b""
        return path if path and b"\0" not in path else None
    return None


def _made(
    library: ctypes.CDLL,
    squares: ctypes.Array[_Square],
    first: int,
    spec: InputSpec,
    side: int,
    threads: int,
) -> int:
    """Make as many squares, from the first on, as may be in memory at once; how many these were."""
    here = ctypes.byref(squares, first * ctypes.sizeof(_Square))
    library.open_squares.restype = ctypes.c_int64
    opened = library.open_squares(here, ctypes.c_int64(len(squares) - first), threads)
    plans = []  # C reads them: the cache alone would not keep so many
    try:
        for square in squares[first : first + opened]:
            if not square.came:
                head = Head(square.height, square.width, bool(square.exif))
                plans.append(plan_of(head, spec, side))
                square.region = None if plans[-1] is None else plans[-1].address
    finally:  # what was read is let go of there
        library.make_squares(here, ctypes.c_int64(opened), threads)
    return opened

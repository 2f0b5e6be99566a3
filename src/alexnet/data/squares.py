"""Many JPEGs become squares at once, in C: Python's lock is taken once for all of them."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet.data.jpeg import Head, plan_of
from alexnet.layers.native import native
from alexnet.spec import InputSpec

_TOGETHER = 64  # pictures whose bytes may be in memory, a thread aside

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
        formats, very large ones, and all where nothing could be compiled.
    """
    library = native().library
    if library is None or not hasattr(library, "make_squares") or spec.channels != 3:
        return list(range(len(stored)))
    if not rooms.flags.c_contiguous:
        raise ValueError("rooms must be contiguous")
    left = []
    for first in range(0, len(stored), _TOGETHER * threads):
        part = slice(first, first + _TOGETHER * threads)
        left += [
            first + place for place in _made(library, stored[part], spec, rooms[part], threads)
        ]
    return left


def _made(
    library: ctypes.CDLL,
    stored: Sequence[Path | bytes | Image | None],
    spec: InputSpec,
    rooms: Image,
    threads: int,
) -> Iterator[int]:
    """The places of those that are not made."""
    places = [place for place, one in enumerate(stored) if isinstance(one, (Path, bytes))]
    squares = (_Square * len(places))()
    for square, place in zip(squares, places, strict=True):
        one = stored[place]
        if isinstance(one, bytes):
            square.data, square.size = one, len(one)
        else:
            square.path = os.fsencode(one)  # type: ignore[arg-type]
    address, step, side = rooms.ctypes.data, rooms.strides[0], rooms.shape[2]
    library.open_squares.restype = ctypes.c_int64
    done = 0
    while done < len(places):
        here = ctypes.byref(squares, done * ctypes.sizeof(_Square))
        opened = library.open_squares(here, ctypes.c_int64(len(places) - done), threads)
        for number in range(done, done + opened):
            square = squares[number]
            if not square.came:
                head = Head(square.height, square.width, bool(square.exif))
                how = plan_of(head, spec, side)
                square.region = None if how is None else how.address
                square.out = address + places[number] * step
        library.make_squares(here, ctypes.c_int64(opened), threads)
        done += opened
    made = {place for square, place in zip(squares, places, strict=True) if not square.came}
    return (place for place in range(len(stored)) if place not in made)

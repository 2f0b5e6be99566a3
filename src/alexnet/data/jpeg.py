"""A JPEG becomes pixels: by C of the package's own, else by libjpeg-turbo, else by Pillow.

The first (``native/jpeg.c``) decodes what cameras and programs usually write, to the same pixels as
libjpeg-turbo in two thirds of the time, and refuses the rest. The second (simplejpeg) tells what is
damaged, and reads large pictures at a fraction of their size.
"""

from __future__ import annotations

import ctypes
import io
import re
from typing import NamedTuple

import numpy as np
import PIL.Image
import simplejpeg
from numpy.typing import NDArray

from alexnet.data.fit import by_region, pixels_wanted
from alexnet.data.pillow import (
    MAX_PIXELS,
    DecodeError,
    check_size,
    decode_with_pillow,
    formats,
    one_line,
    orientation,
    upright,
)
from alexnet.data.quiet import quiet_pillow
from alexnet.data.resample import Plan, plan
from alexnet.native import native
from alexnet.spec import InputSpec

_ADOBE = b"\xff\xee\x00\x0eAdobe"  # the marker of Adobe's programs, which invert CMYK
_FEW = 16  # bytes
_EXIF, _APP1 = b"Exif\0\0", b"\xe1"
_LAST = (b"\xda", b"\xd9")  # the scan begins, the picture ends
_ALONE = (b"\x01", *(bytes([number]) for number in range(0xD0, 0xD8)))  # without a length

Image = NDArray[np.uint8]


def decode_jpeg(data: bytes, at_least: int = 0) -> Image:
    """Decode a JPEG, upright.

    Args:
        data: the file.
        at_least: as in :func:`alexnet.data.decode.decode`.

    Returns:
        uint8 ``[H, W, 3]`` in RGB, or ``[H, W, 1]`` where the file is gray.

    Raises:
        DecodeError: truncated, damaged or too large.
    """
    found = _by_native(data, at_least)
    if found is not None:
        return found
    try:
        return upright(_by_libjpeg(data, at_least), _orientation(data))
    except DecodeError:
        raise
    except (ValueError, RuntimeError) as error:
        reason = one_line(error)
        kind = _kind_of_damage(reason, data)
        if kind:
            raise DecodeError(f"{kind}: {reason}") from error
        return decode_with_pillow(io.BytesIO(data), "JPEG")


def square_of_jpeg(data: bytes, spec: InputSpec, side: int) -> Image | None:
    """The square of a JPEG that :func:`alexnet.data.fit.fit` makes of its pixels.

    Rows of pixels are resized as they are decoded: the whole picture is nowhere.

    Returns:
        uint8 ``[3, side, side]``; None where it takes decoding and resizing one after the other.
    """
    head = _head(native().library, data)
    how = None if head is None else plan_of(head, spec, side)
    if how is None:
        return None
    out = np.empty(how.shape, np.uint8)
    room, region = ctypes.c_void_p(out.ctypes.data), ctypes.byref(how.region)
    came = how.library.jpeg_region(data, ctypes.c_int64(len(data)), room, region)
    return None if came else out


class Head(NamedTuple):
    """What a JPEG says of itself: rows and columns, and whether it has EXIF."""

    height: int
    width: int
    exif: bool


def plan_of(head: Head, spec: InputSpec, side: int) -> Plan | None:
    """How a JPEG is resized while it is decoded; None where that is not done."""
    if head.exif or spec.channels != 3 or head.width * head.height > MAX_PIXELS:
        return None
    if _smaller(head.height, head.width, pixels_wanted(spec.resize)):
        return None
    found = by_region(head.height, head.width, spec, side)
    return plan(head.height, head.width, *found, spec.interpolation) if found else None


def _head(library: ctypes.CDLL | None, data: bytes) -> Head | None:
    """What a JPEG says of itself; None where ``native/jpeg.c`` does not decode it."""
    if library is None or not hasattr(library, "jpeg_head"):
        return None
    told = (ctypes.c_int64 * 3)()
    if library.jpeg_head(data, ctypes.c_int64(len(data)), told):
        return None
    height, width, exif = told
    return Head(height, width, bool(exif))


def _by_native(data: bytes, at_least: int) -> Image | None:
    """The whole picture by ``native/jpeg.c``; None where that does not decode it."""
    library = native().library
    head = _head(library, data)
    if library is None or head is None:
        return None
    check_size(head.width, head.height)
    if _smaller(head.height, head.width, at_least):
        return None
    pixels = np.empty((head.height, head.width, 3), np.uint8)
    room = ctypes.c_void_p(pixels.ctypes.data)
    numbers = (ctypes.c_int64(number) for number in (len(data), head.height, head.width))
    size, height, width = numbers
    if library.jpeg_pixels(data, size, room, height, width):
        return None
    return upright(pixels, _orientation(data)) if head.exif else pixels


def _smaller(height: int, width: int, at_least: int) -> bool:
    """Whether half of the size suffices."""
    return 0 < 2 * at_least <= min(height, width)


def _by_libjpeg(data: bytes, at_least: int) -> Image:
    height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
    check_size(int(width), int(height))
    if colors in ("CMYK", "YCCK") and _ADOBE not in data:
        return _from_ink(simplejpeg.decode_jpeg(data, "CMYK"))
    color = "GRAY" if colors.upper() == "GRAY" else "RGB"
    smaller = _smaller(int(height), int(width), at_least)
    least, factor = (at_least, 2) if smaller else (0, 1)
    return simplejpeg.decode_jpeg(data, color, min_height=least, min_width=least, min_factor=factor)


def _kind_of_damage(reason: str, data: bytes) -> str | None:
    """Whether a part of the picture is lost, by what libjpeg warns of.

    Strict simplejpeg also refuses what does no harm, where None lets Pillow decide; but Pillow
    passes over the warnings that a damaged picture gives as well. Bytes left over are harmless
    where they are few or padding; else what was read before them went astray.
    """
    said = reason.lower()
    if "premature end" in said:
        return "truncated" if "jpeg file" in said else "damaged"
    left_over = re.search(r"(\d+) extraneous bytes", said)
    if left_over:
        count, end = int(left_over[1]), data.rfind(b"\xff\xd9")
        padding = len(set(data[max(end - count, 0) : end])) == 1
        return None if count <= _FEW or padding else "damaged"
    return "damaged" if "bad huffman code" in said else None


def _from_ink(ink: Image) -> Image:
    """RGB of CMYK that is stored as ink: libjpeg-turbo takes every CMYK JPEG for inverted."""
    light = 255 - ink.astype(np.uint16)
    return ((light[:, :, :3] * light[:, :, 3:] + 127) // 255).astype(np.uint8)


def _orientation(data: bytes) -> int:
    if not _has_exif(data):  # for small pictures opening costs as much as decoding
        return 1
    with quiet_pillow(), PIL.Image.open(io.BytesIO(data), formats=formats()) as image:
        return orientation(image)


def _has_exif(data: bytes) -> bool:
    """Whether a segment before the scan is EXIF's (JPEG, ITU T.81, section B.1.1)."""
    place = 2
    while data[place : place + 1] == b"\xff":
        marker = data[place + 1 : place + 2]
        if marker == _APP1 and data.startswith(_EXIF, place + 4):
            return True
        if marker in _LAST:
            return False
        if marker == b"\xff":  # fills up
            place += 1
        elif marker in _ALONE:
            place += 2
        else:  # libjpeg takes a length that leaves its own bytes out for an empty segment
            place += 2 + max(2, int.from_bytes(data[place + 2 : place + 4], "big"))
    return False

"""A picture file of almost any kind becomes pixels.

JPEG is decoded by simplejpeg (libjpeg-turbo), and by Pillow where that refuses; the rest by Pillow.
Color profiles are not applied, as is the habit in the field.
"""

from __future__ import annotations

import io
import re
import stat
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import PIL.Image
import simplejpeg
import torch
from numpy.typing import NDArray

from alexnet.data.fit import fit
from alexnet.data.pillow import (
    MAX_PIXELS,
    DecodeError,
    check_size,
    decode_with_pillow,
    eight_bits,
    formats,
    from_pillow,
    one_line,
    orientation,
    upright,
)
from alexnet.data.quiet import quiet_pillow

__all__ = ["MAX_PIXELS", "DecodeError", "decode", "fit", "from_any"]

_PNG = b"\x89PNG\r\n\x1a\n"
_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    _PNG: "PNG",
    b"GIF8": "GIF",
    b"RIFF": "WebP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"BM": "BMP",
}
_ADOBE = b"\xff\xee\x00\x0eAdobe"  # the marker of Adobe's programs, which invert CMYK
_FEW = 16  # bytes
_EXIF, _APP1 = b"Exif\0\0", b"\xe1"
_LAST = (b"\xda", b"\xd9")  # the scan begins, the picture ends
_ALONE = (b"\x01", *(bytes([number]) for number in range(0xD0, 0xD8)))  # without a length
_HEIC = frozenset({b"ftypheic", b"ftypheix", b"ftypheim", b"ftyphevc", b"ftypmif1"})


def decode(source: str | Path | bytes, at_least: int = 0) -> NDArray[np.uint8]:
    """Decode a picture: its first frame, upright, without transparency.

    Transparent parts become white, 16 bits are scaled to 8, CMYK becomes RGB (without a color
    profile; inverted where Adobe's marker says so), and the orientation of EXIF is applied.

    Args:
        source: a path, or the bytes of a file.
        at_least: pixels of the shorter side that suffice: a larger JPEG may be decoded at a half,
            a quarter or an eighth of its size, in a fraction of the time; 0 decodes it whole.

    Returns:
        uint8 ``[H, W, 3]`` in RGB, or ``[H, W, 1]`` where the file is gray.

    Raises:
        DecodeError: empty, truncated, damaged, too large, not a picture, or not to be read.
    """
    try:
        if isinstance(source, bytes):
            return _decode_stream(io.BytesIO(source), len(source), at_least)
        path = Path(source)
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DecodeError("a folder" if path.is_dir() else "not a regular file")
        with path.open("rb") as file:
            return _decode_stream(file, status.st_size, at_least)
    except DecodeError:
        raise
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise DecodeError(f"cannot be read ({reason})") from error
    except ValueError as error:  # a path with a zero byte in it
        raise DecodeError(f"cannot be read ({one_line(error)})") from error


def _decode_stream(file: BinaryIO, size: int, at_least: int) -> NDArray[np.uint8]:
    if size == 0:
        raise DecodeError("empty file")
    head = file.read(16)
    file.seek(0)
    if head[4:12] in _HEIC:
        raise DecodeError("a HEIC picture: convert it to JPEG or PNG")
    kind = next((kind for start, kind in _SIGNATURES.items() if head.startswith(start)), None)
    if kind == "JPEG":
        return _decode_jpeg(file.read(), at_least)
    if kind == "PNG":
        data = file.read()
        _check_png(data)
        file = io.BytesIO(data)
    return decode_with_pillow(file, kind)


def _decode_jpeg(data: bytes, at_least: int) -> NDArray[np.uint8]:
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
        check_size(int(width), int(height))
        if colors in ("CMYK", "YCCK") and _ADOBE not in data:
            pixels = _from_ink(simplejpeg.decode_jpeg(data, "CMYK"))
        else:
            color = "GRAY" if colors.upper() == "GRAY" else "RGB"
            smaller = 0 < 2 * at_least <= min(int(height), int(width))
            least, factor = (at_least, 2) if smaller else (0, 1)
            pixels = simplejpeg.decode_jpeg(
                data, color, min_height=least, min_width=least, min_factor=factor
            )
    except DecodeError:
        raise
    except (ValueError, RuntimeError) as error:
        reason = one_line(error)
        kind = _kind_of_damage(reason, data)
        if kind:
            raise DecodeError(f"{kind}: {reason}") from error
        return decode_with_pillow(io.BytesIO(data), "JPEG")
    return upright(pixels, _jpeg_orientation(data))


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


def _from_ink(ink: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB of CMYK that is stored as ink: libjpeg-turbo takes every CMYK JPEG for inverted."""
    light = 255 - ink.astype(np.uint16)
    return ((light[:, :, :3] * light[:, :, 3:] + 127) // 255).astype(np.uint8)


def _jpeg_orientation(data: bytes) -> int:
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


def _check_png(data: bytes) -> None:
    """Check the checksums of a PNG's chunks, which Pillow leaves unread in the picture's data.

    A chunk is its length, its kind, that many bytes and their CRC (PNG, third edition, section
    5.3). Kinds that begin with a small letter are not needed for the picture.
    """
    start = len(_PNG)
    while start + 12 <= len(data):
        end = start + 8 + int.from_bytes(data[start : start + 4], "big")
        checksum = int.from_bytes(data[end : end + 4], "big")
        needed = not data[start + 4] & 0x20
        if needed and end + 4 <= len(data) and zlib.crc32(data[start + 4 : end]) != checksum:
            raise DecodeError(f"damaged: wrong checksum at byte {end} of the PNG file")
        if data[start + 4 : start + 8] == b"IEND":  # what follows is not of the picture
            return
        start = end + 4


def from_any(
    image: str | Path | bytes | PIL.Image.Image | NDArray[Any] | torch.Tensor,
    at_least: int = 0,
) -> NDArray[np.uint8]:
    """Pixels from whatever holds a picture.

    Args:
        image: a path; the bytes of a file; a Pillow image; an array ``[H, W]`` or
            ``[H, W, 1, 3 or 4]``; or a tensor ``[H, W]`` or ``[1, 3 or 4, H, W]``. Arrays and
            tensors are uint8, uint16 (0 to 65535), bool, or floats from 0 to 1; four channels are
            RGB and alpha.
        at_least: as in :func:`decode`.

    Returns:
        uint8 ``[H, W, 3]`` in RGB, or ``[H, W, 1]`` where the picture is gray.

    Raises:
        DecodeError: not a picture, or values out of range.
    """
    if isinstance(image, (str, Path, bytes)):
        return decode(image, at_least)
    if isinstance(image, PIL.Image.Image):
        return from_pillow(image)
    if isinstance(image, torch.Tensor):
        stored = image.detach().cpu()
        stored = stored.float() if stored.is_floating_point() else stored
        return _from_array(stored.permute(1, 2, 0).numpy() if stored.ndim == 3 else stored.numpy())
    if isinstance(image, np.ndarray):
        return _from_array(image)
    raise DecodeError(
        f"{type(image).__name__} is not an image: give a path, bytes, a Pillow image, "
        "a numpy array or a torch tensor"
    )


def _from_array(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise DecodeError(
            f"shape {array.shape} is not a picture's: arrays are [height, width, channels], "
            "tensors [channels, height, width], with 1, 3 or 4 channels"
        )
    pixels = np.ascontiguousarray(_as_bytes(array))
    if pixels.shape[2] == 4:
        return from_pillow(PIL.Image.fromarray(pixels))
    return pixels


def _as_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return eight_bits(array)
    if array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1:
        return np.rint(array.astype(np.float64) * 255).astype(np.uint8)
    raise DecodeError(
        f"values of {array.dtype} from {array.min()} to {array.max()}: give uint8 (0 to 255) "
        "or floats from 0 to 1"
    )

"""A picture file of almost any kind becomes pixels.

JPEG has a module of its own; the rest is decoded by Pillow.
Color profiles are not applied, as is the habit in the field.
"""

from __future__ import annotations

import io
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray

from alexnet.data.fit import fit, pixels_wanted, side_of
from alexnet.data.jpeg import decode_jpeg, square_of_jpeg
from alexnet.data.pillow import (
    MAX_PIXELS,
    DecodeError,
    decode_with_pillow,
    eight_bits,
    from_pillow,
    one_line,
)
from alexnet.spec import InputSpec

Result = TypeVar("Result")

__all__ = ["MAX_PIXELS", "DecodeError", "decode", "fit", "from_any", "square"]

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
    return _opened(source, lambda file, size: _decode_stream(file, size, at_least))


def square(
    image: str | Path | bytes | PIL.Image.Image | NDArray[Any] | torch.Tensor,
    spec: InputSpec,
    side: int | None = None,
) -> NDArray[np.uint8]:
    """A picture becomes the square that a network reads, as :func:`from_any` and ``fit`` make it.

    Large JPEGs are decoded at what suffices for that, and others are resized meanwhile.

    Args:
        image: as in :func:`from_any`.
        spec: as in :func:`alexnet.data.fit.fit`.
        side: as there.

    Returns:
        uint8 ``[C, side, side]``.

    Raises:
        DecodeError: it cannot be decoded.
        ValueError: ``side`` is larger than ``spec.resize`` or below 1.
    """
    side = side_of(spec, side)
    if not isinstance(image, (str, Path, bytes)):
        return fit(from_any(image), spec, side)

    def read(file: BinaryIO, size: int) -> Callable[[], NDArray[np.uint8]]:
        if _SIGNATURES.get(file.read(3)) == "JPEG":
            file.seek(0)
            data = file.read()
            found = square_of_jpeg(data, spec, side)
            if found is not None:
                return lambda: found
            file = io.BytesIO(data)
        file.seek(0)
        pixels = _decode_stream(file, size, pixels_wanted(spec.resize))
        return lambda: fit(pixels, spec, side)

    return _opened(image, read)()


def _opened(source: str | Path | bytes, read: Callable[[BinaryIO, int], Result]) -> Result:
    """What ``read`` makes of a file and its size in bytes."""
    try:
        if isinstance(source, bytes):
            return read(io.BytesIO(source), len(source))
        path = Path(source)
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DecodeError("a folder" if path.is_dir() else "not a regular file")
        with path.open("rb") as file:
            return read(file, status.st_size)
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
        return decode_jpeg(file.read(), at_least)
    if kind == "PNG":
        data = file.read()
        _check_png(data)
        file = io.BytesIO(data)
    return decode_with_pillow(file, kind)


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

"""Decoding by Pillow, and a Pillow image of any mode as pixels."""

from __future__ import annotations

import functools
from typing import Any, BinaryIO

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from alexnet.data.quiet import quiet_pillow
from alexnet.errors import UsageError

MAX_PIXELS = 1 << 27
"""Pictures of more pixels (134 million) are refused: a small file can claim any size."""

# Pictures only: no format that runs a program (EPS), is a document or a stack of measurements.
_FORMATS = ("PNG", "WEBP", "GIF", "JPEG", "MPO", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000")
_ORIENTATION = 0x0112
_ALPHA = frozenset({"LA", "La", "RGBA", "RGBa", "PA"})


class DecodeError(UsageError):
    """A file or value that is not a whole picture; its text is the reason alone."""


def one_line(error: BaseException) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def check_size(width: int, height: int) -> None:
    """Refuse a picture of more than :data:`MAX_PIXELS`."""
    if width * height > MAX_PIXELS:
        raise DecodeError(f"too large: {width}x{height} pixels, at most {MAX_PIXELS:,} are read")


@functools.cache
def formats() -> tuple[str, ...]:
    """The formats that Pillow may try, as far as it was built with them."""
    PIL.Image.init()
    return tuple(name for name in _FORMATS if name in PIL.Image.OPEN)


def decode_with_pillow(file: BinaryIO, kind: str | None) -> NDArray[np.uint8]:
    """Decode a file by Pillow.

    Args:
        file: at its start.
        kind: the format that its first bytes promise, for the reason given where that is not so.

    Raises:
        DecodeError: too large, damaged, or not an image.
    """
    with quiet_pillow():
        try:
            image = PIL.Image.open(file, formats=formats())
        except PIL.Image.DecompressionBombError as error:
            raise DecodeError(f"too large: at most {MAX_PIXELS:,} pixels are read") from error
        except PIL.UnidentifiedImageError as error:
            header = f"damaged: the {kind} file's header cannot be read"
            raise DecodeError(header if kind else "not an image") from error
        except Exception as error:  # a damaged header raises what the format's reader meets first
            raise _damage(error) from error
        with image:
            return from_pillow(image)


def from_pillow(image: PIL.Image.Image) -> NDArray[np.uint8]:
    """A Pillow image as uint8 ``[H, W, 1 or 3]``: its first frame as opened, upright, on white.

    Raises:
        DecodeError: too large, truncated or damaged.
    """
    check_size(*image.size)
    with quiet_pillow():
        try:
            image.load()
            return upright(_to_pixels(image), orientation(image))
        except DecodeError:
            raise
        except Exception as error:
            raise _damage(error) from error


def _damage(error: Exception) -> DecodeError:
    reason = one_line(error)
    return DecodeError(f"{'truncated' if 'truncated' in reason.lower() else 'damaged'}: {reason}")


def orientation(image: PIL.Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 (upright) where there is none or the EXIF is broken."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # EXIF is written by anything; a broken one must not cost the picture
        return 1
    return value if isinstance(value, int) else 1


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo what the orientation says (Exif 2.3, section 4.6.4): [H, W, C] to [H', W', C]."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _to_pixels(image: PIL.Image.Image) -> NDArray[np.uint8]:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _from_deep(image)
    if image.mode == "CMYK" and image.format in ("JPEG", "MPO") and "adobe" not in image.info:
        image = PIL.ImageOps.invert(image)  # Pillow takes every CMYK JPEG for an inverted one
    if image.mode in _ALPHA or "transparency" in image.info:
        gray = image.mode in ("1", "L", "LA", "La")
        pixels = _on_white(image.convert("RGBA"))
        return pixels[:, :, :1].copy() if gray else pixels
    if image.mode in ("1", "L"):
        return np.array(image.convert("L"))[:, :, None]
    return np.array(image.convert("RGB"))


def _on_white(image: PIL.Image.Image) -> NDArray[np.uint8]:
    white = PIL.Image.new("RGBA", image.size, "white")
    return np.array(PIL.Image.alpha_composite(white, image).convert("RGB"))


def _from_deep(image: PIL.Image.Image) -> NDArray[np.uint8]:
    """Gray of 16 bits, which Pillow's own conversion would clip at 255."""
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise DecodeError("not of 8 or 16 bits a channel: convert it to 8 bits")
    pixels = eight_bits(values)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        pixels[values == transparent] = 255
    return pixels[:, :, None]


def eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """0 to 65535 scaled to 0 to 255, rounded to the nearest."""
    return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)

"""A picture of any size and color becomes the square that a network reads."""

from __future__ import annotations

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from alexnet.data.resample import Region, planes_of_color, resize_region
from alexnet.spec import InputSpec

_FILTERS = {
    "nearest": PIL.Image.Resampling.NEAREST,
    "bilinear": PIL.Image.Resampling.BILINEAR,
    "bicubic": PIL.Image.Resampling.BICUBIC,
    "lanczos": PIL.Image.Resampling.LANCZOS,
}

_BY_BYTES = ("bilinear", "bicubic")


def fit(pixels: NDArray[np.uint8], spec: InputSpec, side: int | None = None) -> NDArray[np.uint8]:
    """Resize and cut a picture as ``spec`` says; padding and normalization are left to the spec.

    The picture's shorter side becomes ``spec.resize`` (``fit="stretch"``: both sides), and the
    square of ``side`` at its center is kept. So the evaluation crop (``side=spec.crop``) is the
    center of the square that training crops are cut from (``side=spec.resize``). Positions are
    those of torchvision's Resize and CenterCrop.

    Args:
        pixels: uint8 ``[H, W, 3]`` in RGB or ``[H, W, 1]`` in gray.
        spec: the size, interpolation and colors wanted. Gray is BT.601 luma; gray shown to a
            network of three channels is repeated. ``"bgr"`` gives RGB too: ``spec.normalize``
            turns it around.
        side: of the square, at most ``spec.resize``; ``spec.crop`` when None.

    Returns:
        uint8 ``[C, side, side]``.

    Raises:
        ValueError: ``side`` is larger than ``spec.resize`` or below 1.
    """
    side = side_of(spec, side)
    pixels = _recolored(pixels, spec.channels)
    height, width, channels = pixels.shape
    found = by_region(height, width, spec, side) if channels == 3 else None
    if found:
        return resize_region(pixels, *found, spec.interpolation)
    sides, top, left = _whole(height, width, spec)
    if (height, width) != sides:
        pixels, top, left = _resized_by_pillow(pixels, spec, sides, (top, left)), 0, 0
    start = (spec.resize - side) // 2
    top, left = top + start, left + start
    return planes_of_color(pixels[top : top + side, left : left + side])


def side_of(spec: InputSpec, side: int | None) -> int:
    """The side of a square, ``spec.crop`` when None.

    Raises:
        ValueError: it is larger than ``spec.resize`` or below 1.
    """
    side = spec.crop if side is None else side
    if not 1 <= side <= spec.resize:
        raise ValueError(f"side={side} must lie between 1 and resize={spec.resize}")
    return side


def by_region(
    height: int, width: int, spec: InputSpec, side: int
) -> tuple[tuple[int, int], Region] | None:
    """How :func:`fit` resizes a color picture of this size, if not by Pillow.

    Returns:
        The sides of the whole, and the region that is kept; None for what is only cut, too.
    """
    sides, top, left = _whole(height, width, spec)
    if (height, width) == sides or max(sides) > 2 * spec.resize:
        return None
    if spec.interpolation not in _BY_BYTES:
        return None
    start = (spec.resize - side) // 2
    return sides, Region(top + start, left + start, side, side)


def _recolored(pixels: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    return np.asarray(PIL.Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))[:, :, None]


def _whole(height: int, width: int, spec: InputSpec) -> tuple[tuple[int, int], int, int]:
    """Rows and columns of the resized picture, and where its central square begins in it."""
    if spec.fit != "crop":
        return (spec.resize, spec.resize), 0, 0
    # As torchvision: the longer side is rounded down, its crop's position to the nearest.
    longer = int(spec.resize * max(height, width) / min(height, width))
    start = round((longer - spec.resize) / 2)
    if width >= height:
        return (spec.resize, longer), 0, start
    return (longer, spec.resize), start, 0


def pixels_wanted(resize: int) -> int:
    """What a picture's shorter side must keep to be resized to so many pixels.

    Twice as many: what is then left of a reduced JPEG differs little from the whole one resized.
    """
    return 2 * resize


def _resized_by_pillow(
    pixels: NDArray[np.uint8], spec: InputSpec, sides: tuple[int, int], corner: tuple[int, int]
) -> NDArray[np.uint8]:
    """The central square of a picture: a very long one costs no more than a square one."""
    gray = pixels.shape[2] == 1
    image = PIL.Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if gray else pixels))
    box = []
    for length, resized, first in zip(pixels.shape[:2], sides, corner, strict=True):
        step = length / resized
        last = min((first + spec.resize) * step, float(length))
        box.append((first * step, last if resized > spec.resize else float(length)))
    (top, bottom), (left, right) = box
    square, by = (spec.resize, spec.resize), _FILTERS[spec.interpolation]
    resized = np.asarray(image.resize(square, by, box=(left, top, right, bottom)))
    return resized[:, :, None] if gray else resized

"""A picture of any size and color becomes the square that a network reads."""

from __future__ import annotations

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from alexnet.spec import InputSpec

_FILTERS = {
    "nearest": PIL.Image.Resampling.NEAREST,
    "bilinear": PIL.Image.Resampling.BILINEAR,
    "bicubic": PIL.Image.Resampling.BICUBIC,
    "lanczos": PIL.Image.Resampling.LANCZOS,
}

_BY_TORCH = ("bilinear", "bicubic")


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
    side = spec.crop if side is None else side
    if not 1 <= side <= spec.resize:
        raise ValueError(f"side={side} must lie between 1 and resize={spec.resize}")
    pixels = _recolored(pixels, spec.channels)
    if pixels.shape[:2] != (spec.resize, spec.resize):
        pixels = _resized(pixels, spec)
    start = (spec.resize - side) // 2
    square = pixels[start : start + side, start : start + side]
    return np.array(square.transpose(2, 0, 1), order="C")  # a copy, never a view of `pixels`


def _recolored(pixels: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    return np.asarray(PIL.Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))[:, :, None]


def _resized(pixels: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """The central square of the resized picture, ``[resize, resize, C]``."""
    height, width = pixels.shape[:2]
    shorter, longest = min(height, width), max(height, width)
    # As torchvision: the longer side is rounded down, its crop's position to the nearest.
    longer = int(spec.resize * longest / shorter) if spec.fit == "crop" else spec.resize
    start = round((longer - spec.resize) / 2)
    wide = width >= height
    if spec.interpolation in _BY_TORCH and pixels.shape[2] == 3 and longer <= 2 * spec.resize:
        sides = (spec.resize, longer) if wide else (longer, spec.resize)
        whole = resize(pixels, sides, spec.interpolation)
        stop = start + spec.resize
        return whole[:, start:stop] if wide else whole[start:stop]
    step = longest / longer
    box = (0.0, 0.0, float(width), float(height))
    if spec.fit == "crop":
        first, last = start * step, min((start + spec.resize) * step, float(longest))
        box = (first, 0.0, last, float(height)) if wide else (0.0, first, float(width), last)
    return _resized_by_pillow(pixels, spec, box)


def resize(
    pixels: NDArray[np.uint8], sides: tuple[int, int], interpolation: str
) -> NDArray[np.uint8]:
    """A whole picture at so many pixels: Pillow's but for a gray level, three times as fast.

    Args:
        pixels: uint8 ``[H, W, 3]``.
        sides: rows and columns of the result.
        interpolation: ``"bilinear"`` or ``"bicubic"``; smaller pictures are means (antialias).

    Returns:
        uint8 ``[rows, columns, 3]``.
    """
    ours = np.require(pixels, requirements=["C", "W"])  # torch warns of what cannot be written
    picture = torch.from_numpy(ours).permute(2, 0, 1)[None]
    resized = F.interpolate(picture, sides, mode=interpolation, antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def pixels_wanted(resize: int) -> int:
    """What a picture's shorter side must keep to be resized to so many pixels.

    Twice as many: what is then left of a reduced JPEG differs little from the whole one resized.
    """
    return 2 * resize


def _resized_by_pillow(
    pixels: NDArray[np.uint8], spec: InputSpec, box: tuple[float, float, float, float]
) -> NDArray[np.uint8]:
    """A box of the picture: a very long picture costs no more than a square one."""
    gray = pixels.shape[2] == 1
    image = PIL.Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if gray else pixels))
    sides = (spec.resize, spec.resize)
    resized = np.asarray(image.resize(sides, _FILTERS[spec.interpolation], box=box))
    return resized[:, :, None] if gray else resized

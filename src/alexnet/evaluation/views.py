"""Several views of a picture, whose answers are averaged.

Krizhevsky et al. 2012 (section 4.1) test on ten: the four corners and the center of the 256x256
square, each as it is and mirrored, "averaging the predictions made by the network's softmax layer".
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from alexnet.data.loader import Pixels, load_pixels
from alexnet.data.sources import Pictures
from alexnet.errors import UsageError, unknown_name
from alexnet.spec import InputSpec

Views = Literal["center", "ten-crop", "multi-scale"]
VIEWS: dict[str, int] = {"center": 1, "ten-crop": 10, "multi-scale": 30}
"""How many views each kind has."""
SCALES = (1.0, 1.125, 1.25)
"""Of ``multi-scale``, times ``spec.resize``: 256, 288 and 320 (Szegedy et al. 2014, section 7)."""


def check_views(views: str) -> None:
    """Raise a UsageError that suggests the nearest for a kind that there is not."""
    if views not in VIEWS:
        raise unknown_name("kind of views", views, VIEWS)


def load_squares(pictures: Pictures, spec: InputSpec, views: Views, workers: int = 0) -> Pixels:
    """Read the squares that the views are cut from, each picture decoded once.

    Args:
        pictures: what to read.
        spec: of the network.
        views: ``"center"`` reads the center crop alone, ``"ten-crop"`` the square of
            ``spec.resize``, ``"multi-scale"`` the one of the largest scale.
        workers: processes that read what does not fit into memory; with 0, threads.
    """
    check_views(views)
    if views == "multi-scale":
        spec = spec.replace(resize=round(spec.resize * SCALES[-1]))
    return load_pixels(pictures, spec, train=views != "center", workers=workers)


def cut_views(squares: Tensor, spec: InputSpec, views: Views) -> Tensor:
    """Cut the views of a batch.

    Args:
        squares: uint8 ``[B, C, S, S]`` from :func:`load_squares`.
        spec: of the network.
        views: which. ``"multi-scale"`` has ten crops at each of :data:`SCALES`; the smaller squares
            are made from the largest.

    Returns:
        uint8 ``[V, B, C, crop, crop]``; a picture's first view is not mirrored.

    Raises:
        UsageError: an unknown kind, or squares that are too small.
    """
    check_views(views)
    if squares.shape[-1] < spec.crop:
        raise UsageError(f"squares of {squares.shape[-1]} pixels cannot be cut to {spec.crop}")
    if views == "center":
        start = (squares.shape[-1] - spec.crop) // 2
        return _at(squares, start, start, spec.crop)[None]
    if views == "ten-crop":
        return _ten_crops(squares, spec.crop)
    sides = [round(spec.resize * scale) for scale in SCALES]
    return torch.cat([_ten_crops(_resized(squares, side), spec.crop) for side in sides])


def _ten_crops(squares: Tensor, crop: int) -> Tensor:
    spare = squares.shape[-1] - crop
    corners = [(0, 0), (0, spare), (spare, 0), (spare, spare), (spare // 2, spare // 2)]
    views = torch.stack([_at(squares, top, left, crop) for top, left in corners])
    return torch.cat((views, views.flip(-1)))


def _at(squares: Tensor, top: int, left: int, crop: int) -> Tensor:
    return squares[:, :, top : top + crop, left : left + crop]


def _resized(squares: Tensor, side: int) -> Tensor:
    if squares.shape[-1] == side:
        return squares
    wide = F.interpolate(squares.float(), (side, side), mode="bilinear", antialias=True)
    return wide.round().clamp(0, 255).to(torch.uint8)

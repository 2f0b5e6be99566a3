"""Augmentation in batches, on the device where the pictures are.

All geometry (crop, zoom, aspect, rotation, shear, shift, mirror) is one affine map a picture and
one bilinear sampling of the batch; a plain crop and mirror copies the pixels exactly instead.
Every number comes from :func:`alexnet.data.order.draws`, so a picture's augmentation depends on
(seed, epoch, index) and on nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from alexnet.data.order import draws

# Which draw each choice reads: turning one on changes no other.
_MIRROR, _X, _Y, _SCALE, _ASPECT, _ROTATE, _SHIFT_X, _SHIFT_Y, _SHEAR = range(9)
_BRIGHTNESS, _CONTRAST, _SATURATION = range(9, 12)
_ERASE, _ERASE_AREA, _ERASE_ASPECT, _ERASE_X, _ERASE_Y = range(12, 17)
_DRAWS = 17

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: the gray of a color
_SMALL = 64 * 64  # pixels; above, slices are copied one by one faster than gathered


@dataclass(frozen=True)
class AugmentConfig:
    """What is varied, and by how much; the defaults vary nothing.

    Attributes:
        mirror: probability of a left-right mirror.
        crop: True cuts at a random position of the stored square, False at its center.
        scale: range of the magnification, drawn log-uniformly: 1.25 shows the picture a quarter
            larger. With ``crop`` and a range from ``crop / resize`` up, this is the
            random-resized-crop of Szegedy et al. 2014 (section 6).
        aspect: width over height is changed by a factor in [1 / (1 + aspect), 1 + aspect].
        rotate: largest rotation in degrees, either way.
        shift: largest translation as a fraction of the output's side, either way and direction.
        shear: largest horizontal shear in degrees, either way.
        brightness: values are multiplied by a factor in [1 - brightness, 1 + brightness].
        contrast: the same for the distance from the picture's mean gray.
        saturation: the same for the distance of each pixel from its own gray.
        erase: probability that a rectangle (2% to 20% of the area) is filled
            (Zhong et al. 2017, "Random erasing").
    """

    mirror: float = 0.0
    crop: bool = False
    scale: tuple[float, float] = (1.0, 1.0)
    aspect: float = 0.0
    rotate: float = 0.0
    shift: float = 0.0
    shear: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    erase: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", (float(self.scale[0]), float(self.scale[1])))
        for name in ("mirror", "erase", "brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie between 0 and 1")
        for name in ("aspect", "rotate", "shift", "shear"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        if not self.shear < 90:
            raise ValueError(f"shear={self.shear} must be less than 90 degrees")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale={self.scale} must be (low, high) with 0 < low <= high")

    @property
    def resamples(self) -> bool:
        """Whether pixels are interpolated, rather than copied as they are."""
        turned = self.aspect or self.rotate or self.shift or self.shear
        return bool(turned) or self.scale != (1.0, 1.0)


def augment(
    pixels: Tensor,
    crop: int,
    config: AugmentConfig,
    *,
    seed: int,
    epoch: int,
    indices: Tensor,
    fill: float | None = 0,
) -> Tensor:
    """Cut and vary a batch of pictures.

    Args:
        pixels: uint8 ``[B, C, S, S]``.
        crop: side of the result, at most S.
        config: what is varied.
        seed: of the run.
        epoch: from 0.
        indices: int64 ``[B]``, the pictures' indices in the training part.
        fill: gray level (0 to 255) of what lies outside the picture and of erased rectangles; None
            repeats the picture's edge outside it, and erases to middle gray.

    Returns:
        float32 ``[B, C, crop, crop]``, 0 to 255, on the device of ``pixels``.

    Raises:
        ValueError: ``crop`` is larger than the pictures.
    """
    if not 1 <= crop <= pixels.shape[-1]:
        raise ValueError(f"crop={crop} must lie between 1 and the side, {pixels.shape[-1]}")
    if not len(pixels):
        return pixels.new_empty(0, pixels.shape[1], crop, crop, dtype=torch.float32)
    numbers = draws(seed, epoch, indices.to(pixels.device), _DRAWS)
    cut = _resampled if config.resamples else _copied
    images = cut(pixels, crop, config, numbers, fill)
    if config.brightness or config.contrast or config.saturation:
        images = _relit(images, config, numbers)
    if config.erase:
        images = _erased(images, config, numbers, 127.5 if fill is None else fill)
    return images


def _copied(
    pixels: Tensor, crop: int, config: AugmentConfig, numbers: Tensor, fill: float | None
) -> Tensor:
    """Crop and mirror in whole pixels: exact copies, nothing outside to fill."""
    spare = pixels.shape[-1] - crop
    if config.crop and spare:
        images = _crops(pixels, crop, _whole(numbers[:, _X], spare), _whole(numbers[:, _Y], spare))
    else:
        start = spare // 2
        images = pixels[:, :, start : start + crop, start : start + crop]
    if config.mirror:
        mirrored = (numbers[:, _MIRROR] < config.mirror).view(-1, 1, 1, 1)
        images = torch.where(mirrored, images.flip(3), images)
    return images.to(torch.float32).contiguous()


def _whole(uniform: Tensor, largest: int) -> Tensor:
    """Whole numbers 0 to ``largest``, equally likely."""
    return (uniform.double() * (largest + 1)).long()


def _crops(pixels: Tensor, crop: int, x: Tensor, y: Tensor) -> Tensor:
    if pixels.device.type == "cpu" and crop * crop > _SMALL:
        images = pixels.new_empty(*pixels.shape[:2], crop, crop)
        for row, (left, top) in enumerate(zip(x.tolist(), y.tolist(), strict=True)):
            images[row] = pixels[row, :, top : top + crop, left : left + crop]
        return images
    windows = pixels.unfold(2, crop, 1).unfold(3, crop, 1)  # a view: [B, C, y, x, crop, crop]
    return windows[torch.arange(len(pixels), device=pixels.device), :, y, x]


def _resampled(
    pixels: Tensor, crop: int, config: AugmentConfig, numbers: Tensor, fill: float | None
) -> Tensor:
    """Any geometry: one affine map a picture, one bilinear sampling for the batch."""
    images = pixels.to(torch.float32)
    shape = [*pixels.shape[:2], crop, crop]
    theta = _affine(pixels.shape[-1], crop, config, numbers)
    grid = F.affine_grid(theta, shape, align_corners=False)
    if fill is None or _stays_inside(pixels.shape[-1], crop, config):
        # Positions within half a pixel of the edge read the edge itself, not a blend with `fill`.
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    if fill:
        return F.grid_sample(images - fill, grid, align_corners=False).add_(fill)
    return F.grid_sample(images, grid, align_corners=False)


def _stays_inside(side: int, crop: int, config: AugmentConfig) -> bool:
    """Whether no draw reaches beyond the picture."""
    moved = config.rotate or config.shift or config.shear
    widest = crop / config.scale[0] * math.sqrt(1 + config.aspect)
    return not moved and widest <= side * (1 + 1e-6)


def _affine(side: int, crop: int, config: AugmentConfig, numbers: Tensor) -> Tensor:
    """The map from output to input positions, ``[B, 2, 3]`` in affine_grid's units.

    In pixels, with u the position relative to the output's center, the input is read at
    ``center + M u + t``. The picture is sheared, rotated, stretched, magnified, moved, and mirrored
    last, so M holds the inverses, the mirror first on u.
    """

    def between(draw: int, limit: float) -> Tensor:
        return (2 * numbers[:, draw] - 1) * limit

    low, high = (math.log(value) for value in config.scale)
    region = torch.exp(-(low + (high - low) * numbers[:, _SCALE]))  # input pixels an output pixel
    ratio = torch.exp(between(_ASPECT, 0.5 * math.log1p(config.aspect)))
    width, height = region / ratio, region * ratio
    angle = torch.deg2rad(between(_ROTATE, config.rotate))
    slope = torch.tan(torch.deg2rad(between(_SHEAR, config.shear)))
    flip = torch.where(numbers[:, _MIRROR] < config.mirror, -1.0, 1.0)
    cos, sin = angle.cos(), angle.sin()
    # Shear . rotation . diag(width, height) . mirror, as rows.
    first = torch.stack(((cos - slope * sin) * width, (sin + slope * cos) * height), 1)
    second = torch.stack((-sin * width, cos * height), 1)
    matrix = torch.stack((first, second), 1)
    shift = torch.stack((between(_SHIFT_X, config.shift), between(_SHIFT_Y, config.shift)), 1)
    offset = (matrix @ (-crop * shift)[:, :, None])[:, :, 0]
    if config.crop:
        spare = (side - crop * torch.stack((width, height), 1)).clamp_min(0)
        offset = offset + spare * (numbers[:, [_X, _Y]] - 0.5)
    else:  # as a copied crop, whose center is half a pixel off where side - crop is odd
        offset = offset - 0.5 * ((side - crop) % 2)
    matrix = matrix * torch.stack((flip, torch.ones_like(flip)), 1)[:, None, :]
    return torch.cat((matrix * (crop / side), offset[:, :, None] * (2 / side)), 2)


def _relit(images: Tensor, config: AugmentConfig, numbers: Tensor) -> Tensor:
    """Brightness, contrast and saturation, in this order, clamped to 0 to 255 at the end."""

    def factor(draw: int, limit: float) -> Tensor:
        return (1 + (2 * numbers[:, draw] - 1) * limit).view(-1, 1, 1, 1)

    if config.brightness:
        images = images * factor(_BRIGHTNESS, config.brightness)
    if config.contrast:
        mean = _gray(images).mean((2, 3), keepdim=True)
        images = torch.lerp(mean, images, factor(_CONTRAST, config.contrast))
    if config.saturation and images.shape[1] == 3:
        images = torch.lerp(_gray(images), images, factor(_SATURATION, config.saturation))
    return images.clamp(0, 255)


def _gray(images: Tensor) -> Tensor:
    """``[B, 1, H, W]``: the luma of RGB, or gray as it is."""
    if images.shape[1] == 1:
        return images
    luma = torch.tensor(_LUMA, device=images.device).view(1, 3, 1, 1)
    return (images * luma).sum(1, keepdim=True)


def _erased(images: Tensor, config: AugmentConfig, numbers: Tensor, fill: float) -> Tensor:
    side = images.shape[-1]
    area = 0.02 + 0.18 * numbers[:, _ERASE_AREA]
    ratio = torch.exp((2 * numbers[:, _ERASE_ASPECT] - 1) * math.log(3.3))
    width, height = side * (area * ratio).sqrt(), side * (area / ratio).sqrt()
    left = numbers[:, _ERASE_X] * (side - width)
    top = numbers[:, _ERASE_Y] * (side - height)
    middle = torch.arange(side, device=images.device) + 0.5
    columns = (middle >= left[:, None]) & (middle < (left + width)[:, None])
    rows = (middle >= top[:, None]) & (middle < (top + height)[:, None])
    chosen = (numbers[:, _ERASE] < config.erase).view(-1, 1, 1)
    mask = rows[:, :, None] & columns[:, None, :] & chosen
    return images.masked_fill(mask[:, None], fill)

"""Augmentation in batches, on the device where the pictures are.

All geometry (crop, zoom, aspect, rotation, shear, shift, mirror) is one affine map a picture and
one bilinear sampling of the batch; a plain crop and mirror copies the pixels exactly instead.
Every number comes from :func:`alexnet.data.order.draws`, so a picture's augmentation depends on
(seed, epoch, index) and on nothing else.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from alexnet.data.augment_config import AugmentConfig
from alexnet.data.colors import ColorStatistics, color_noise
from alexnet.data.order import draws, normal
from alexnet.data.randaugment import randaugment

# Which draw each choice reads: turning one on changes no other.
_MIRROR, _X, _Y, _SCALE, _ASPECT, _ROTATE, _SHIFT_X, _SHIFT_Y, _SHEAR = range(9)
_BRIGHTNESS, _CONTRAST, _SATURATION = range(9, 12)
_ERASE, _ERASE_AREA, _ERASE_ASPECT, _ERASE_X, _ERASE_Y = range(12, 17)
_COLOR = 17  # and one more a channel
_DRAWS = 20
_SHARED = 3  # the first ones, which may be another picture's

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: the gray of a color
_SMALL = 64 * 64  # pixels; above, slices are copied one by one faster than gathered


def augment(
    pixels: Tensor,
    crop: int,
    config: AugmentConfig,
    *,
    seed: int,
    epoch: int,
    indices: Tensor,
    fill: float | None = 0,
    leaders: Tensor | None = None,
    colors: ColorStatistics | None = None,
) -> Tensor:
    """Cut and vary a batch of pictures.

    In this order: crop, geometry and mirror; RandAugment; brightness, contrast and saturation;
    color noise; erasing. Mixing pictures is :func:`alexnet.data.mix.mix`.

    Args:
        pixels: uint8 ``[B, C, S, S]``.
        crop: side of the result, at most S.
        config: what is varied.
        seed: of the run.
        epoch: from 0.
        indices: int64 ``[B]``, the pictures' indices in the training part.
        fill: gray level (0 to 255) of what lies outside the picture and of erased rectangles; None
            repeats the picture's edge outside it, and fills with middle gray what is erased or,
            in RandAugment, outside.
        leaders: int64 ``[B]``, for each picture the index of the one whose crop position and mirror
            it takes (from :func:`leaders_of`); its own when None.
        colors: of the training pictures, for color noise.

    Returns:
        float32 ``[B, C, crop, crop]`` on the device of ``pixels``, 0 to 255 but for color noise,
        which is not clamped.

    Raises:
        ValueError: ``crop`` is larger than the pictures, or what the configuration needs
            (``leaders``, ``colors``) is missing or does not fit.
    """
    if not len(pixels) or not config.varies:
        _check(pixels, crop, config, leaders, colors)
        start = (pixels.shape[-1] - crop) // 2
        return pixels[:, :, start : start + crop, start : start + crop].to(torch.float32)
    numbers = random_numbers(
        pixels, crop, config, seed=seed, epoch=epoch, indices=indices, leaders=leaders,
        colors=colors,
    )  # fmt: skip
    middle = 127.5 if fill is None else fill
    cut = _resampled if config.resamples else _copied
    images = cut(pixels, crop, config, numbers, fill)
    if config.randaugment:
        whole = images if images.dtype == torch.uint8 else images.round().to(torch.uint8)
        count, magnitude = config.randaugment, config.magnitude
        images = randaugment(
            whole, count, magnitude, seed=seed, epoch=epoch, indices=indices, fill=middle
        )
    images = images.to(torch.float32)
    if config.brightness or config.contrast or config.saturation:
        images = _relit(images, config, numbers)
    if colors is not None and config.noisy(epoch):
        images = _recolored(images, config, numbers, colors)
    if config.erase:
        images = _erased(images, config, numbers, middle)
    return images


def random_numbers(
    pixels: Tensor,
    crop: int,
    config: AugmentConfig,
    *,
    seed: int,
    epoch: int,
    indices: Tensor,
    leaders: Tensor | None,
    colors: ColorStatistics | None,
) -> Tensor:
    """What is drawn for each picture, ``[B, draws]``; arguments and errors as :func:`augment`'s."""
    _check(pixels, crop, config, leaders, colors)
    numbers = draws(seed, epoch, _sent(indices, pixels), _DRAWS)
    if leaders is None:
        return numbers
    shared = draws(seed, epoch, _sent(leaders, pixels), _SHARED)
    return torch.cat((shared, numbers[:, _SHARED:]), 1)


def _sent(few: Tensor, to: Tensor) -> Tensor:
    """Some numbers on the device of ``to``, which a GPU takes without being waited for."""
    return few.to(to.device, non_blocking=to.is_cuda)


def places_of(numbers: Tensor, spare: int, config: AugmentConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Where each picture is cut, and whether it is mirrored.

    Args:
        numbers: from :func:`random_numbers`.
        spare: side of the pictures less that of the crop.
        config: what is varied.

    Returns:
        Columns on the left and rows above, int64 ``[B]``; bool ``[B]``.
    """
    mirrored = numbers[:, _MIRROR] < config.mirror
    if config.crop and spare:
        return _whole(numbers[:, _X], spare), _whole(numbers[:, _Y], spare), mirrored
    middle = torch.full_like(mirrored, spare // 2, dtype=torch.int64)
    return middle, middle, mirrored


def color_shift(numbers: Tensor, config: AugmentConfig, colors: ColorStatistics) -> Tensor:
    """What color noise adds to each picture once that is divided by ``pca_divide``.

    With m the mean color, a pixel p becomes ``m + (p - m + noise) / pca_divide``. That the noise is
    divided too follows Krizhevsky's code; it subtracts a mean at each position, where we read the
    mean color, since a picture is moved and mirrored before.

    Returns:
        float32 ``[B, C]``, for pixels of 0 to 255.
    """
    channels = len(colors.mean)
    alphas = config.pca * normal(numbers[:, _COLOR : _COLOR + channels])
    noise = color_noise(alphas, colors, config.pca_unit)
    if config.pca_divide == 1:
        return noise
    mean = 255 * _sent(torch.tensor(colors.mean), numbers)
    return (noise - mean) / config.pca_divide + mean


def leaders_of(indices: Tensor, share: int) -> Tensor:
    """For each picture of a whole batch, the one whose crop position and mirror it takes.

    Args:
        indices: int64 ``[B]``, the batch's pictures in order, of all processes together.
        share: how many in a row take those of the first of them; the last group may be smaller.

    Returns:
        int64 ``[B]``: the index at position ``(i // share) * share``.

    Raises:
        ValueError: ``share`` is below 1.
    """
    if share < 1:
        raise ValueError(f"share={share} must be 1, which does nothing, or more")
    if share == 1:
        return indices
    positions = torch.arange(len(indices), device=indices.device)
    return indices[positions // share * share]


def _check(
    pixels: Tensor,
    crop: int,
    config: AugmentConfig,
    leaders: Tensor | None,
    colors: ColorStatistics | None,
) -> None:
    if not 1 <= crop <= pixels.shape[-1]:
        raise ValueError(f"crop={crop} must lie between 1 and the side, {pixels.shape[-1]}")
    if config.share > 1 and leaders is None:
        raise ValueError(
            f"share={config.share} needs leaders: give leaders_of(the whole batch's indices, share)"
        )
    if config.pca and colors is None:
        raise ValueError(f"pca={config.pca} needs colors: give those of measure_colors")
    if config.pca and colors is not None and len(colors.mean) != pixels.shape[1]:
        raise ValueError(
            f"colors has {len(colors.mean)} channels for pictures of {pixels.shape[1]}: "
            "measure the colors of the training pictures"
        )


def _copied(
    pixels: Tensor, crop: int, config: AugmentConfig, numbers: Tensor, fill: float | None
) -> Tensor:
    """Crop and mirror in whole pixels: exact copies, still uint8, nothing outside to fill."""
    spare = pixels.shape[-1] - crop
    x, y, mirrored = places_of(numbers, spare, config)
    if pixels.device.type == "cpu" and crop * crop > _SMALL:
        return _one_by_one(pixels, crop, x, y, mirrored)
    windows = pixels.unfold(2, crop, 1).unfold(3, crop, 1)  # a view: [B, C, y, x, crop, crop]
    images = windows[torch.arange(len(pixels), device=pixels.device), :, y, x]
    return torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images).contiguous()


def _whole(uniform: Tensor, largest: int) -> Tensor:
    """Whole numbers 0 to ``largest``, equally likely."""
    return (uniform.double() * (largest + 1)).long()


def _one_by_one(pixels: Tensor, crop: int, x: Tensor, y: Tensor, mirrored: Tensor) -> Tensor:
    images = pixels.new_empty(*pixels.shape[:2], crop, crop)
    places = zip(x.tolist(), y.tolist(), mirrored.tolist(), strict=True)
    for row, (left, top, flipped) in enumerate(places):
        window = pixels[row, :, top : top + crop, left : left + crop]
        images[row] = window.flip(2) if flipped else window
    return images


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


def _recolored(
    images: Tensor, config: AugmentConfig, numbers: Tensor, colors: ColorStatistics
) -> Tensor:
    """Color noise, one shift a picture; in place."""
    if config.pca_divide != 1:
        images = images.div_(config.pca_divide)
    return images.add_(color_shift(numbers, config, colors)[:, :, None, None])


def _gray(images: Tensor) -> Tensor:
    """``[B, 1, H, W]``: the luma of RGB, or gray as it is."""
    if images.shape[1] == 1:
        return images
    luma = _sent(torch.tensor(_LUMA), images).view(1, 3, 1, 1)
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

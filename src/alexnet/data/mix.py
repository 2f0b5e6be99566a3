"""Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019): pictures and labels mixed in pairs.

The pictures at positions 0 and 1 of a batch are mixed with each other, those at 2 and 3, and so on.
So a batch can be shared among processes, as long as each share begins at an even position.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from alexnet.chance import MIX
from alexnet.data.augment_config import AugmentConfig
from alexnet.data.order import draws

_WHICH, _SHARE, _X, _Y = range(4)
_DRAWS = 4


def mix(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    config: AugmentConfig,
    *,
    seed: int,
    epoch: int,
    indices: Tensor,
) -> tuple[Tensor, Tensor]:
    """Mix each picture with its neighbor.

    Of a pair (a, b) and a share lam, mixup makes ``lam a + (1 - lam) b`` and
    ``lam b + (1 - lam) a``; CutMix exchanges a rectangle between the two, and lam is the share of
    the area that stays. What is drawn depends on seed, epoch and the index of the pair's first
    picture. The last picture of an odd batch is left as it is.

    Args:
        images: float ``[B, C, S, S]``, left as they are.
        labels: int64 ``[B]``.
        num_classes: K.
        config: ``mixup`` and ``cutmix``, the alphas; neither mixes nothing.
        seed: of the run.
        epoch: from 0.
        indices: int64 ``[B]``, the pictures' indices in the training part. Where they are on the
            CPU, nothing waits for the device of ``images``.

    Returns:
        The images, and the targets, float32 ``[B, K]``: the shares of the classes.
    """
    targets = F.one_hot(labels, num_classes).to(torch.float32)
    even = len(images) // 2 * 2
    if not config.mixes or not even:
        return images, targets
    numbers = draws(seed, epoch, indices.cpu()[:even:2], _DRAWS, MIX)
    share = beta(numbers[:, _SHARE], config.mixup or config.cutmix)
    sent = partial(torch.Tensor.to, non_blocking=images.is_cuda)
    weight = sent(share, images)[:, None, None, None]
    if config.cutmix:
        side = images.shape[-1]
        cut = numbers[:, _WHICH] < (0.5 if config.mixup else 1)
        boxes = _boxes(side, beta(numbers[:, _SHARE], config.cutmix), numbers) * cut[:, None]
        outside = sent(torch.where(cut, 1.0, share), images)
        weight = _weights(side, outside, sent(boxes, images.device))
        # The share of the labels is that of the rectangle in whole pixels, cut off at the edges.
        area = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
        share = torch.where(cut, 1 - area.double() / side**2, share.double())
    return _blended(images, weight, even), _blended(targets, sent(share, targets)[:, None], even)


def _blended(values: Tensor, weight: Tensor, even: int) -> Tensor:
    """Each of a pair as ``weight`` of itself and the rest of the other.

    Args:
        values: ``[B, ...]``.
        weight: ``[even / 2, ...]``, broadcast; lerp copies exactly where it is 0 or 1.
        even: how many of the B are in pairs.
    """
    mixed = values.clone() if even < len(values) else torch.empty_like(values)
    first, second = values[:even:2], values[1:even:2]
    torch.lerp(second, first, weight, out=mixed[:even:2])
    torch.lerp(first, second, weight, out=mixed[1:even:2])
    return mixed


def _boxes(side: int, share: Tensor, numbers: Tensor) -> Tensor:
    """The rectangles that are exchanged (Yun et al. 2019, section 3.1).

    Each has the picture's shape and about ``1 - share`` of its area; its center is any pixel, and
    it is cut off at the edges.

    Returns:
        int64 ``[P, 4]``: left, right, top, bottom; right and bottom are the first pixels outside.
    """
    half = (side * (1 - share).sqrt()).long() // 2
    x, y = ((numbers[:, draw].double() * side).long() for draw in (_X, _Y))
    return torch.stack((x - half, x + half, y - half, y + half), 1).clamp(0, side)


def _weights(side: int, outside: Tensor, boxes: Tensor) -> Tensor:
    """What each of a pair keeps at each pixel, ``[P, 1, side, side]``: nothing within the box."""
    pixel = torch.arange(side, device=boxes.device)
    left, right, top, bottom = boxes.T[:, :, None]
    columns, rows = (pixel >= left) & (pixel < right), (pixel >= top) & (pixel < bottom)
    inside = rows[:, :, None] & columns[:, None, :]
    return outside[:, None, None].masked_fill(inside, 0)[:, None]


def beta(uniform: Tensor, alpha: float) -> Tensor:
    """Numbers of the distribution Beta(alpha, alpha), its quantiles.

    The distribution is symmetric, so its lower half suffices. There x = r^p / 2 with r from 0 to 1
    and p = max(2, 1 / alpha) turns the density into a bounded function of r for any alpha, which is
    summed at the middles of 4,096 steps.

    Args:
        uniform: float32 ``[P]`` of the form k / 2^24, on the CPU; the middle of that number's
            interval is taken, which is never 0 or 1.
        alpha: above 0.

    Returns:
        float32 ``[P]``, from 0 to 1; within 1e-6 for alpha from 0.1 to 100.
    """
    power = max(2.0, 1 / alpha)
    r = (np.arange(4096) + 0.5) / 4096
    density = np.exp((power * alpha - 1) * np.log(r) + (alpha - 1) * np.log(2 - r**power))
    area = np.concatenate(([0.0], density.cumsum() / density.sum()))
    middle = uniform.double().numpy() + 2.0**-25
    below = np.interp(2 * np.minimum(middle, 1 - middle), area, np.arange(4097) / 4096)
    lower = below**power / 2
    return torch.from_numpy(np.where(middle < 0.5, lower, 1 - lower)).float()

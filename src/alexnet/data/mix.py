"""Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019): pictures and labels mixed in pairs.

The pictures at positions 0 and 1 of a batch are mixed with each other, those at 2 and 3, and so on.
So a batch can be shared among processes, as long as each share begins at an even position.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from alexnet.data.augment_config import AugmentConfig
from alexnet.data.order import MIX, draws

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
    share, weight = (part.to(images.device) for part in _weights(images.shape[-1], config, numbers))
    return _blended(images, weight.to(images.dtype), even), _blended(targets, share, even)


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


def _weights(side: int, config: AugmentConfig, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """What each of a pair keeps: of its label, ``[P, 1]``, and at each pixel, ``[P, 1, ?, ?]``.

    The second is ``[P, 1, 1, 1]`` where no pair exchanges a rectangle.
    """
    share = beta(numbers[:, _SHARE], config.mixup or config.cutmix)[:, None]
    if not config.cutmix:
        return share, share[:, :, None, None]
    inside = _boxes(side, beta(numbers[:, _SHARE], config.cutmix), numbers)
    # The share of the labels is that of the rectangle in whole pixels, cut off at the edges.
    kept = 1 - inside.sum((1, 2), dtype=torch.float64)[:, None] / side**2
    cut = numbers[:, _WHICH, None] < (0.5 if config.mixup else 1)
    weight = torch.where(cut[:, :, None], (~inside).float(), share[:, :, None])
    return torch.where(cut, kept.float(), share), weight[:, None]


def _boxes(side: int, share: Tensor, numbers: Tensor) -> Tensor:
    """Which pixels are exchanged, bool ``[P, side, side]`` (Yun et al. 2019, section 3.1).

    The rectangle has the picture's shape and about ``1 - share`` of its area; its center is any
    pixel, and it is cut off at the edges.
    """
    half = (side * (1 - share).sqrt()).long() // 2
    pixel = torch.arange(side)

    def within(draw: int) -> Tensor:
        center = (numbers[:, draw].double() * side).long()
        return (pixel >= (center - half)[:, None]) & (pixel < (center + half)[:, None])

    return within(_Y)[:, :, None] & within(_X)[:, None, :]


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

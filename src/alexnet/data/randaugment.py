"""RandAugment (Cubuk et al. 2020) in batches: torchvision's operations on pictures grouped by draw.

Each picture draws its operations and their signs by itself. Those of a batch that drew alike are
handled in one call, so the number of calls does not grow with the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from alexnet.chance import OPERATIONS
from alexnet.data.augment_config import MAGNITUDES
from alexnet.data.order import draws

Operation = Callable[[Tensor, float, float], Tensor]
"""From uint8 ``[n, C, H, W]``, a level from -1 to 1, and the gray level outside the picture."""


def randaugment(
    images: Tensor,
    count: int,
    magnitude: float,
    *,
    seed: int,
    epoch: int,
    indices: Tensor,
    fill: float,
) -> Tensor:
    """Apply ``count`` operations in turn to each picture, each drawn from fourteen.

    The operations and what a magnitude means to each are torchvision's ``RandAugment``'s with 31
    bins and its nearest-pixel sampling; a picture draws the same one whatever batch it is in.

    Args:
        images: uint8 ``[B, C, H, W]``, left as they are; C is 1 or 3.
        count: operations a picture.
        magnitude: of all operations, from 0 to 30; fractions lie between two bins.
        seed: of the run.
        epoch: from 0.
        indices: int64 ``[B]``, the pictures' indices in the training part. Where they are on the
            CPU, nothing waits for the device of ``images``.
        fill: gray level (0 to 255) of what lies outside the picture.

    Returns:
        uint8 ``[B, C, H, W]``.
    """
    images, level = images.clone(), magnitude / MAGNITUDES
    numbers = draws(seed, epoch, indices.cpu(), 2 * count, OPERATIONS)
    operations = _operations()
    signed = torch.tensor([has_sign for _, has_sign in operations])
    for slot in range(count):
        chosen = (numbers[:, 2 * slot].double() * len(operations)).long()
        negative = signed[chosen] & (numbers[:, 2 * slot + 1] < 0.5)
        group = 2 * chosen + negative
        for value in group.unique().tolist():
            rows = (group == value).nonzero()[:, 0].to(images.device)
            operation, _ = operations[value // 2]
            images[rows] = operation(images[rows], -level if value % 2 else level, fill)
    return images


def _operations() -> tuple[tuple[Operation, bool], ...]:
    """The fourteen, each with whether its level has a sign; the order decides which a draw means.

    torchvision is imported here: its transforms take seconds to load, for those who use them.
    """
    from torchvision.transforms.v2 import functional as TF

    def moved(images: Tensor, x: float, y: float, fill: float) -> Tensor:
        return TF.affine(images, 0.0, [int(x), int(y)], 1.0, [0.0, 0.0], fill=[fill])

    def sheared(images: Tensor, x: float, y: float, fill: float) -> Tensor:
        shear = [math.degrees(math.atan(x)), math.degrees(math.atan(y))]
        return TF.affine(images, 0.0, [0, 0], 1.0, shear, fill=[fill], center=[0, 0])

    return (
        (lambda images, level, fill: images, False),
        (lambda images, level, fill: sheared(images, 0.3 * level, 0, fill), True),
        (lambda images, level, fill: sheared(images, 0, 0.3 * level, fill), True),
        (lambda images, level, fill: moved(images, _far(images, 3) * level, 0, fill), True),
        (lambda images, level, fill: moved(images, 0, _far(images, 2) * level, fill), True),
        (lambda images, level, fill: TF.rotate(images, 30 * level, fill=[fill]), True),
        (lambda images, level, fill: TF.adjust_brightness(images, 1 + 0.9 * level), True),
        (lambda images, level, fill: TF.adjust_saturation(images, 1 + 0.9 * level), True),
        (lambda images, level, fill: TF.adjust_contrast(images, 1 + 0.9 * level), True),
        (lambda images, level, fill: TF.adjust_sharpness(images, 1 + 0.9 * level), True),
        (lambda images, level, fill: TF.posterize(images, round(8 - 4 * level)), False),
        (lambda images, level, fill: TF.solarize(images, 255 * (1 - level)), False),
        (lambda images, level, fill: TF.autocontrast(images), False),
        (lambda images, level, fill: TF.equalize(images), False),
    )


def _far(images: Tensor, dimension: int) -> float:
    """The largest translation in pixels: 150 of the 331 of the networks it was made for."""
    return 150 / 331 * images.shape[dimension]

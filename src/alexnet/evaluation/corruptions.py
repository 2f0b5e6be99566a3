"""Common corruptions: how much worse a network sees when pictures get worse.

Kinds and strengths are those of Hendrycks, Dietterich: Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations (ICLR 2019), as far as a few operations make them: noise,
blur (by torchvision), brightness, contrast, pixelation and JPEG (by simplejpeg). The strengths are
ImageNet-C's, and CIFAR-10-C's for pictures of at most 64 pixels. They are applied to the square
that a network sees, and a picture's noise depends on its index alone.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any

import numpy as np
import simplejpeg
import torch
from torch import Tensor
from torch.nn import functional as F

from alexnet.chance import CORRUPT, stream_key
from alexnet.data.loader import Batch, Pixels
from alexnet.data.pictures import Indices

SEVERITIES = (1, 2, 3, 4, 5)
SMALL = 64
"""Side in pixels up to which CIFAR-10-C's strengths are taken."""

STRENGTHS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "gaussian noise": ((0.08, 0.12, 0.18, 0.26, 0.38), (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot noise": ((60, 25, 12, 5, 3), (500, 250, 100, 75, 50)),
    "impulse noise": ((0.03, 0.06, 0.09, 0.17, 0.27), (0.01, 0.02, 0.03, 0.05, 0.07)),
    "speckle noise": ((0.15, 0.2, 0.35, 0.45, 0.6), (0.06, 0.1, 0.12, 0.16, 0.2)),
    "gaussian blur": ((1, 2, 3, 4, 6), (0.4, 0.6, 0.7, 0.8, 1)),
    "brightness": ((0.1, 0.2, 0.3, 0.4, 0.5), (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": ((0.4, 0.3, 0.2, 0.1, 0.05), (0.75, 0.5, 0.4, 0.3, 0.15)),
    "pixelate": ((0.6, 0.5, 0.4, 0.3, 0.25), (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg": ((25, 18, 15, 10, 7), (80, 65, 58, 50, 40)),
}
"""For each kind those of ImageNet-C and those of CIFAR-10-C, from severity 1 to 5."""


def corrupt(images: Tensor, indices: Tensor, kind: str, severity: int) -> Tensor:
    """Corrupt a batch.

    Args:
        images: uint8 ``[B, C, S, S]``.
        indices: int64 ``[B]``, which pictures they are.
        kind: one of :data:`STRENGTHS`.
        severity: from 1 to 5.

    Returns:
        uint8 of the same shape.
    """
    large, small = STRENGTHS[kind]
    strength = (small if images.shape[-1] <= SMALL else large)[severity - 1]
    number = list(STRENGTHS).index(kind)
    found = []
    for image, index in zip(images, indices.tolist(), strict=True):
        random = torch.Generator().manual_seed(stream_key(CORRUPT, number, severity, index) >> 1)
        found.append(_KINDS[kind](image, strength, random))
    return torch.stack(found)


def _bytes(x: Tensor) -> Tensor:
    """Values from 0 to 1 as bytes, rounded down as there."""
    return (x.clamp(0, 1) * 255).to(torch.uint8)


def _gaussian_noise(image: Tensor, strength: float, random: torch.Generator) -> Tensor:
    return _bytes(image / 255 + strength * torch.randn(image.shape, generator=random))


def _shot_noise(image: Tensor, strength: float, random: torch.Generator) -> Tensor:
    return _bytes(torch.poisson(image / 255 * strength, generator=random) / strength)


def _impulse_noise(image: Tensor, strength: float, random: torch.Generator) -> Tensor:
    drawn = torch.rand(image.shape, generator=random)
    white = torch.where(drawn < strength, torch.tensor(255, dtype=torch.uint8), image)
    return torch.where(drawn < strength / 2, torch.tensor(0, dtype=torch.uint8), white)


def _speckle_noise(image: Tensor, strength: float, random: torch.Generator) -> Tensor:
    x = image / 255
    return _bytes(x + x * strength * torch.randn(image.shape, generator=random))


def _gaussian_blur(image: Tensor, strength: float, random: torch.Generator) -> Tensor:
    from torchvision.transforms.v2 import functional as T

    reach = min(round(4 * strength), (image.shape[-1] - 1) // 2)
    return _bytes(T.gaussian_blur(image / 255, [2 * reach + 1] * 2, [strength] * 2))


def _brightness(image: Tensor, strength: float, random: torch.Generator) -> Tensor:
    x = image / 255
    value = x.amax(0, keepdim=True)  # of HSV
    scaled = x / value.clamp_min(1e-9) * (value + strength).clamp_max(1)
    return _bytes(torch.where(value > 0, scaled, torch.full_like(x, strength)))


def _contrast(image: Tensor, strength: float, random: torch.Generator) -> Tensor:
    x = image / 255
    mean = x.mean((1, 2), keepdim=True)
    return _bytes((x - mean) * strength + mean)


def _pixelate(image: Tensor, strength: float, random: torch.Generator) -> Tensor:
    side = image.shape[-1]
    wide = image[None].float()
    few = F.adaptive_avg_pool2d(wide, max(1, int(side * strength)))
    return F.interpolate(few, (side, side), mode="nearest-exact")[0].round().to(torch.uint8)


def _jpeg(image: Tensor, strength: float, random: torch.Generator) -> Tensor:
    kind = "GRAY" if len(image) == 1 else "RGB"
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    subsampling = "Gray" if len(image) == 1 else "420"  # as Pillow's
    encoded = simplejpeg.encode_jpeg(pixels, int(strength), kind, subsampling)
    return torch.from_numpy(simplejpeg.decode_jpeg(encoded, kind)).permute(2, 0, 1)


_KINDS: dict[str, Callable[[Tensor, float, torch.Generator], Tensor]] = {
    "gaussian noise": _gaussian_noise,
    "shot noise": _shot_noise,
    "impulse noise": _impulse_noise,
    "speckle noise": _speckle_noise,
    "gaussian blur": _gaussian_blur,
    "brightness": _brightness,
    "contrast": _contrast,
    "pixelate": _pixelate,
    "jpeg": _jpeg,
}


class CorruptedPixels(Pixels):
    """Pictures that are corrupted as they are read.

    Args:
        pixels: whole ones.
        kind: one of :data:`STRENGTHS`.
        severity: from 1 to 5.
    """

    def __init__(self, pixels: Pixels, kind: str, severity: int) -> None:
        self.pixels, self.kind, self.severity = pixels, kind, severity
        self.labels, self.names = pixels.labels, pixels.names
        self.side, self.channels = pixels.side, pixels.channels

    def batches(self, plan: Iterable[Tensor]) -> Generator[Batch, None, None]:
        """Read and corrupt batches."""
        for images, labels, indices in self.pixels.batches(plan):
            yield corrupt(images, indices, self.kind, self.severity), labels, indices

    def subset(self, indices: Indices | Tensor) -> CorruptedPixels:
        """The pictures at ``indices``; their noise is that of their new numbers."""
        return CorruptedPixels(self.pixels.subset(indices), self.kind, self.severity)


def robustness(accuracies: dict[str, list[float]]) -> dict[str, Any]:
    """Means over severities and kinds of what was scored.

    Args:
        accuracies: for each kind the top-1 of every severity.
    """
    each = {kind: sum(values) / len(values) for kind, values in accuracies.items()}
    return {
        "top1": accuracies,
        "mean_of_kind": each,
        "mean": sum(each.values()) / len(each) if each else None,
    }

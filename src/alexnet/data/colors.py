"""The colors of a data set: their mean and principal components, and noise along these.

The noise is that of Krizhevsky et al. 2012 (section 4.1), who add to every pixel of a picture the
same multiple of each principal component of the training pixels.
"""

from __future__ import annotations

import ctypes
import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from alexnet.data.loader import Pixels
from alexnet.layers.reach import in_reach
from alexnet.native import native
from alexnet.progress import track

ColorUnit = Literal["variance", "deviation"]

_AT_ONCE = 32  # pictures; exact sums make the choice one of memory alone


@dataclass(frozen=True)
class ColorStatistics:
    """Mean and principal components of pixels whose values lie between 0 and 1.

    Attributes:
        mean: a value a channel, ``[C]``.
        eigenvalues: of the covariance of the channels, descending, ``[C]``: the variance along each
            eigenvector.
        eigenvectors: rows, ``[C][C]``: ``eigenvectors[i]`` has unit length and belongs to
            ``eigenvalues[i]``; its entry of the largest magnitude is positive.
        pictures: how many pictures were measured.
    """

    mean: tuple[float, ...]
    eigenvalues: tuple[float, ...]
    eigenvectors: tuple[tuple[float, ...], ...]
    pictures: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "eigenvalues", tuple(self.eigenvalues))
        object.__setattr__(self, "eigenvectors", tuple(tuple(row) for row in self.eigenvectors))
        channels = len(self.mean)
        lengths = [len(self.eigenvalues), len(self.eigenvectors), *map(len, self.eigenvectors)]
        if any(length != channels for length in lengths):
            raise ValueError(
                f"eigenvalues={self.eigenvalues} and eigenvectors={self.eigenvectors} do not fit a "
                f"mean of {channels} channels: give {channels} of each, as measure_colors does"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            **dataclasses.asdict(self),
            "mean": list(self.mean),
            "eigenvalues": list(self.eigenvalues),
            "eigenvectors": [list(row) for row in self.eigenvectors],
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> ColorStatistics:
        """The inverse of :meth:`to_dict`; unknown fields are an error."""
        return cls(**fields)


def measure_colors(pixels: Pixels, limit: int = 10_000) -> ColorStatistics:
    """Measure the mean color and its principal components over all pixels of the pictures.

    The sums are exact, so the result depends on nothing but the pictures that are read.

    Args:
        pixels: the training pictures.
        limit: the largest number of pictures read; of more, this many are picked evenly.

    Returns:
        The mean, and eigenvalues and eigenvectors of the covariance (divided by the number of
        pixels, not by one less).

    Raises:
        ValueError: there are no pictures, or ``limit`` is below 1.
        FailedError: a file cannot be read any more.
    """
    if limit < 1 or not len(pixels):
        raise ValueError(
            f"cannot measure the colors of {len(pixels)} pictures with limit={limit}: "
            "give at least one picture and a limit of at least 1"
        )
    count = min(len(pixels), limit)
    plan = (torch.arange(count) * len(pixels) // count).split(_AT_ONCE)
    sums = torch.zeros(pixels.channels, dtype=torch.int64)
    products = torch.zeros(pixels.channels, pixels.channels, dtype=torch.int64)
    for images, _, _ in track(pixels.batches(plan), "measuring colors", len(plan)):
        _add_sums(images, sums, products)
    return _statistics(sums.tolist(), products.tolist(), count * pixels.side**2, count)


def _add_sums(images: Tensor, sums: Tensor, products: Tensor) -> None:
    """Add a batch's sums over pixels, ``[C]``, and of products of colors, ``[C, C]``: int64."""
    library = native().library
    if library is not None and in_reach(images):
        images = images.contiguous()
        count, channels = images.shape[:2]
        sizes = [ctypes.c_int64(n) for n in (count, channels, images[0, 0].numel())]
        places = [ctypes.c_void_p(t.data_ptr()) for t in (images, sums, products)]
        library.color_sums(places[0], *sizes, *places[1:])
        return
    # Whole numbers below 2^53: float64 adds and multiplies them exactly, in any order.
    values = images.transpose(0, 1).flatten(1).to(torch.float64)
    sums += values.sum(1).long()
    products += (values @ values.T).long()


def _statistics(
    sums: list[int], products: list[list[int]], count: int, pictures: int
) -> ColorStatistics:
    """From sums over ``count`` pixels of 0 to 255: Python's whole numbers, rounded once."""
    channels = range(len(sums))
    covariance = [
        [
            (count * products[i][j] - sums[i] * sums[j]) / (count * count * 255 * 255)
            for j in channels
        ]
        for i in channels
    ]
    eigenvalues, columns = np.linalg.eigh(np.array(covariance))
    rows = columns.T[::-1]  # eigh's values ascend
    largest = np.abs(rows).argmax(1)
    rows = rows * np.where(rows[channels, largest] < 0, -1.0, 1.0)[:, None]
    return ColorStatistics(
        mean=tuple(total / (count * 255) for total in sums),
        eigenvalues=tuple(max(0.0, float(value)) for value in eigenvalues[::-1]),
        eigenvectors=tuple(tuple(row) for row in rows.tolist()),
        pictures=pictures,
    )


def color_noise(normals: Tensor, colors: ColorStatistics, unit: ColorUnit) -> Tensor:
    """The shift of each picture's color.

    Krizhevsky et al. 2012 (section 4.1) add ``P (alpha_i lambda_i)``, where the columns of P are
    the eigenvectors, lambda_i the eigenvalues and alpha_i normal with a standard deviation of 0.1.
    They do not state the unit of the pixels, which a variance depends on; 0 to 1 is our reading.
    Their code multiplies by the standard deviations instead, whose unit does not matter.

    Args:
        normals: ``[B, C]``, the alphas of each picture.
        colors: of the training pictures.
        unit: ``"variance"`` multiplies by the eigenvalues, ``"deviation"`` by their square roots.

    Returns:
        float32 ``[B, C]``, for pixels of 0 to 255, on the device of ``normals``.
    """
    lengths = [math.sqrt(v) if unit == "deviation" else v for v in colors.eigenvalues]
    axes = torch.tensor(
        [
            [255 * length * entry for entry in row]
            for length, row in zip(lengths, colors.eigenvectors, strict=True)
        ]
    ).to(normals.device, non_blocking=normals.is_cuda)
    return (normals[:, :, None] * axes).sum(1)

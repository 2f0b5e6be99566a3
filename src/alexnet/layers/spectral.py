"""Convolution by way of the frequencies, for a processor: a quarter of the multiplications.

A convolution is a product at each frequency (Mathieu, Henaff and LeCun 2013, "Fast Training of
Convolutional Networks through FFTs", arXiv:1312.5851). Maps of AlexNet's size are transformed
whole, and not by an FFT but by matrix products, which any length does for, 14 or 29, and which are
what a processor is fastest at. A complex product takes three real ones (Gauss), whose sums are part
of those matrices. So the layer is a bilinear algorithm in the sense of Winograd:

    y = C^T ((B w) . (A x)),  dx = A^T ((B w) . (C g)),  dw = B^T ((A x) . (C g)),

in which ``.`` is, at each of M places, a product of matrices over channels or pictures. Direct
convolution of 5x5 on 27x27 multiplies 25 times an output and a channel, this 1.7 times; of 3x3 on
13x13, 9 and 1.7; the transforms come on top. In float32 it is as near to the exact result as the
sum is (some 1e-6 of its norm).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

Pair = tuple[int, int]

# What the three factors of Re(x w g) are made of: with x = a + bi, w = c + di and g = e + fi it is
# (a + b) c (e - f) - a (d - c) f - b (c + d) e.
_X_FORMS = ((1, 1), (1, 0), (0, 1))
_W_FORMS = ((1, 0), (-1, 1), (1, 1))
_G_FORMS = ((1, -1), (0, -1), (-1, 0))


@dataclass(frozen=True)
class Geometry:
    """The sides of maps and kernels, each ``(height, width)``; the stride is 1."""

    inputs: Pair
    kernel: Pair
    padding: Pair

    @property
    def outputs(self) -> Pair:
        """The sides of what comes out."""
        sides = zip(self.inputs, self.kernel, self.padding, strict=True)
        height, width = (side + 2 * pad - kernel + 1 for side, kernel, pad in sides)
        return height, width

    @property
    def periods(self) -> Pair:
        """Lengths of the transforms, the least at which nothing that wraps around is seen."""
        sides = zip(self.inputs, self.outputs, self.kernel, self.padding, strict=True)
        down, across = (max(side + pad, out + kernel - 1 - pad) for side, out, kernel, pad in sides)
        return down, across


@dataclass(frozen=True)
class Band:
    """What is done with one frequency of the vertical transform: a real and an imaginary row.

    Attributes:
        x: ``[m, 2 * width]``, what makes ``m`` factors of two rows of the input.
        g: ``[m, 2 * width]``, the same for the gradient by the output.
        w: ``[m, kernel height * kernel width]``, the same for the kernels themselves.
    """

    x: Tensor
    g: Tensor
    w: Tensor


@dataclass(frozen=True)
class Plan:
    """The matrices of one geometry.

    Attributes:
        down_x: ``[frequencies, 2, height]``, the vertical transform of the input.
        down_g: ``[frequencies, 2, height]``, that of the gradient by the output.
        bands: what is done with each frequency.
    """

    down_x: Tensor
    down_g: Tensor
    bands: tuple[Band, ...]


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)  # what is kept may be used in training
def plan(geometry: Geometry) -> Plan:
    """The matrices, computed in float64 and rounded once."""
    down, across = geometry.periods
    sides = (geometry.inputs, geometry.outputs, geometry.kernel)
    # The kernels are turned by their padding, and conjugated with the gradients: it correlates.
    signs, shifts = (-1, 1, 1), ((0, 0), (0, 0), geometry.padding)
    vertical = [
        _rows(down, side[0], sign, shift[0])
        for side, sign, shift in zip(sides, signs, shifts, strict=True)
    ]
    bands = []
    for frequency in range(down // 2 + 1):
        real = _is_real(frequency, down)
        x, g, w = (
            _across(across, side[1], sign, shift[1], forms, real=real)
            for side, sign, shift, forms in zip(
                sides, signs, shifts, (_X_FORMS, _G_FORMS, _W_FORMS), strict=True
            )
        )
        # Frequencies that stand for their conjugates as well count twice.
        counts = _counts(across, real=real) / (down * across)
        kernels = torch.einsum("ra,mrb->mab", vertical[2][frequency], w.unflatten(1, (2, -1)))
        bands.append(Band(*map(_narrow, (x, g, counts[:, None] * kernels.flatten(1)))))
    return Plan(_narrow(vertical[0]), _narrow(vertical[1]), tuple(bands))


def _narrow(matrix: Tensor) -> Tensor:
    """A matrix in float32, row by row in memory."""
    return matrix.float().contiguous()


def _is_real(frequency: int, period: int) -> bool:
    """Whether a real signal's transform has no imaginary part there."""
    return 2 * frequency % period == 0


def _waves(period: int, frequency: int, side: int, sign: int, shift: int) -> tuple[Tensor, Tensor]:
    """Cosine and signed sine at the places of a signal, ``[side]`` each."""
    places = torch.arange(side, dtype=torch.float64, device="cpu") - shift
    # Reduced before it is scaled, so that whole turns are exact.
    angles = places.mul(frequency).remainder(period) * (2 * math.pi / period)
    sine = torch.zeros_like(angles) if _is_real(frequency, period) else sign * angles.sin()
    return angles.cos(), sine


def _rows(period: int, side: int, sign: int, shift: int) -> Tensor:
    """The transform of a real signal, ``[frequencies, 2, side]``."""
    rows = [
        torch.stack(_waves(period, frequency, side, sign, shift))
        for frequency in range(period // 2 + 1)
    ]
    return torch.stack(rows)


def _across(
    period: int, side: int, sign: int, shift: int, forms: tuple[Pair, ...], *, real: bool
) -> Tensor:
    """The transform of a real or a complex signal as products' factors, ``[m, 2 * side]``."""
    rows = []
    for frequency in range(period // 2 + 1 if real else period):
        cosine, sine = _waves(period, frequency, side, sign, shift)
        none = torch.zeros_like(sine)
        if real and _is_real(frequency, period):
            rows.append(torch.cat((cosine, none)))
            continue
        first = torch.cat((cosine, none if real else -sine))
        second = torch.cat((sine, none if real else cosine))
        rows += [a * first + b * second for a, b in forms]
    return torch.stack(rows)


def _counts(period: int, *, real: bool) -> Tensor:
    """How many frequencies each factor stands for, ``[m]``."""
    if not real:
        return torch.full((3 * period,), 2.0, dtype=torch.float64, device="cpu")
    counts: list[float] = []
    for frequency in range(period // 2 + 1):
        counts += [1.0] if _is_real(frequency, period) else [2.0] * 3
    return torch.tensor(counts, dtype=torch.float64, device="cpu")


MOST_THREADS = 16
"""Of the pool of ``native/pool.c``."""


def at_work(geometry: Geometry, threads: int) -> int:
    """How many of so many threads have a band to work on."""
    return min(threads, geometry.periods[0] // 2 + 1, MOST_THREADS)


def cost(
    geometry: Geometry, pictures: int, inputs: int, outputs: int, groups: int
) -> tuple[float, float]:
    """What both ways take, a forward pass, in multiplications of a fast matrix product.

    The direct one, and :class:`Spectral`, whose transforms are thin products and whose kernels'
    factors, three and more times as many as a picture's, have to be written and read.
    """
    (height, width), (down, across) = geometry.inputs, geometry.periods
    (out_height, out_width), (tall, wide) = geometry.outputs, geometry.kernel
    kernels = inputs // groups * outputs
    direct = pictures * out_height * out_width * tall * wide * kernels
    factors = 3 * down * across // 2
    ways = (
        inputs * width * down * (height + 3 * across),
        outputs * out_width * down * (out_height + 3 * across),
    )
    return direct, 1.2 * pictures * factors * kernels + 1.6 * pictures * sum(
        ways
    ) + 60 * factors * kernels

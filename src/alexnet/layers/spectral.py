"""Convolution by way of the frequencies, for a processor: a fifth of the multiplications or less.

A convolution is a product at each frequency (Mathieu, Henaff and LeCun 2013, "Fast Training of
Convolutional Networks through FFTs", arXiv:1312.5851). Maps of AlexNet's size are transformed
whole, and not by an FFT but by matrix products, which any length does for, 14 or 29, and which are
what a processor is fastest at. A complex product takes three real ones (Gauss), whose sums are part
of those matrices. So the layer is a bilinear algorithm in the sense of Winograd:

    y = C^T ((B w) . (A x)),  dx = A^T ((B w) . (C g)),  dw = B^T ((A x) . (C g)),

in which ``.`` is, at each of M places, a product of matrices over channels or pictures. Direct
convolution of 5x5 on 27x27 multiplies 25 times an output and a channel, this 1.7 times; of 3x3 on
13x13, 9 and 1.7. In float32 it is as near to the exact result as the sum is (some 1e-6 of its
norm).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

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
        bands.append(Band(x.float(), g.float(), (counts[:, None] * kernels.flatten(1)).float()))
    return Plan(vertical[0].float(), vertical[1].float(), tuple(bands))


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


class Spectral(torch.autograd.Function):
    """The convolution with its gradients; of the maps, it keeps the input alone."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: Pair, groups: int
    ) -> Tensor:
        """Convolve ``x`` ``[N, C, H, W]``, channels_last, by ``weight`` ``[O, C / groups, r, s]``.

        All is float32. ``padding`` is zeros above and below, left and right.
        """
        geometry = Geometry((x.shape[2], x.shape[3]), (weight.shape[2], weight.shape[3]), padding)
        matrices = plan(geometry)
        down, kernels = _down(matrices.down_x, x), _kernels(weight, groups, "co")
        maps = _Maps(matrices.down_g, down, groups, geometry.outputs[1], len(weight))
        for index, band in enumerate(matrices.bands):
            factors = _grouped(_factors(band.x, down[:, index]), groups)
            products = torch.bmm(factors, _weights(band.w, kernels))
            if bias is not None and not index:
                # A constant is the frequency 0, whose factor of the gradient is its sum.
                products[:groups] += bias.view(groups, 1, -1)
            maps.take(index, band.g, products)
        ctx.save_for_backward(x, weight)
        ctx.told = geometry, groups, bias is not None
        return maps.whole()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients by ``x``, ``weight`` and ``bias``."""
        (g,), (x, weight) = gradients, ctx.saved_tensors
        geometry, groups, biased = ctx.told
        wanted = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():  # a gradient of the gradient is asked for
            found = torch.ops.aten.convolution_backward(
                g, x, weight, [len(weight)] if biased else None, [1, 1], list(geometry.padding),
                [1, 1], False, [0, 0], groups, list(wanted),
            )  # fmt: skip
            return (*found, None, None)
        matrices = plan(geometry)
        down = _down(matrices.down_g, g.contiguous(memory_format=torch.channels_last))
        by_x = _InputGradient(matrices, down, x, weight, groups) if wanted[0] else None
        by_weight = _WeightGradient(matrices, x, weight, groups) if wanted[1] else None
        by_bias = None
        for index, band in enumerate(matrices.bands):
            factors = _factors(band.g, down[:, index])
            if wanted[2] and not index:
                by_bias = factors[:, 0].sum(0)
            for gradient in (by_x, by_weight):
                if gradient is not None:
                    gradient.take(index, _grouped(factors, groups))
        return (
            None if by_x is None else by_x.maps.whole(),
            None if by_weight is None else by_weight.whole(),
            by_bias,
            None,
            None,
        )


class _InputGradient:
    """The gradient by the input, put together a band at a time."""

    def __init__(
        self, matrices: Plan, down: Tensor, x: Tensor, weight: Tensor, groups: int
    ) -> None:
        self.bands, self.kernels = matrices.bands, _kernels(weight, groups, "oc")
        self.maps = _Maps(matrices.down_x, down, groups, x.shape[3], x.shape[1])

    def take(self, index: int, factors: Tensor) -> None:
        """Add a band, given its factors ``[m * groups, N, O / groups]`` of the gradient."""
        band = self.bands[index]
        self.maps.take(index, band.x, torch.bmm(factors, _weights(band.w, self.kernels)))


class _WeightGradient:
    """The gradient by the kernels, put together a band at a time."""

    def __init__(self, matrices: Plan, x: Tensor, weight: Tensor, groups: int) -> None:
        self.bands, self.groups, self.shape = matrices.bands, groups, weight.shape
        self.down = _down(matrices.down_x, x)
        outputs, inputs, *sides = weight.shape
        self.sums = weight.new_zeros(sides[0] * sides[1], outputs * inputs)

    def take(self, index: int, factors: Tensor) -> None:
        """Add a band, given its factors ``[m * groups, N, O / groups]`` of the gradient."""
        band = self.bands[index]
        inputs = _grouped(_factors(band.x, self.down[:, index]), self.groups)
        products = torch.bmm(factors.transpose(1, 2), inputs)
        self.sums.addmm_(band.w.t(), products.view(len(band.w), -1))

    def whole(self) -> Tensor:
        """It, ``[O, C / groups, r, s]``."""
        return self.sums.view(*self.shape[2:], *self.shape[:2]).permute(2, 3, 0, 1)


class _Maps:
    """Maps that are put together a band at a time.

    ``rows`` is ``[groups, frequencies, N, 2, W, C / groups]``: what is written at a time lies
    together, as torch's batches of products want it.
    """

    def __init__(
        self, matrix: Tensor, like: Tensor, groups: int, width: int, channels: int
    ) -> None:
        self.matrix = matrix
        self.rows = like.new_empty(groups, len(matrix), len(like), 2, width, channels // groups)

    def take(self, index: int, matrix: Tensor, products: Tensor) -> None:
        """Set a band's rows from its products ``[m * groups, N, C / groups]``."""
        rows = self.rows[:, index]
        turned = matrix.t().expand(rows.shape[1], -1, -1)
        for part, place in zip(products.unflatten(0, (-1, len(rows))).unbind(1), rows, strict=True):
            torch.bmm(turned, part.transpose(0, 1), out=place.flatten(1, 2))

    def whole(self) -> Tensor:
        """The maps ``[N, C, H, W]``, channels_last: what :func:`_down` does, transposed."""
        count, width, height = self.rows.shape[2], self.rows.shape[4], self.matrix.shape[2]
        turned = self.matrix.permute(1, 2, 0).expand(count, -1, -1, -1).unbind(1)
        maps = []
        for part in self.rows:
            real, imaginary = part.transpose(0, 1).flatten(3).unbind(2)  # [N, frequencies, W * c]
            whole = torch.bmm(turned[0], real).baddbmm_(turned[1], imaginary)
            maps.append(whole.view(count, height, width, -1))
        joined = maps[0] if len(maps) == 1 else torch.cat(maps, 3)
        return joined.permute(0, 3, 1, 2)


def _down(matrix: Tensor, maps: Tensor) -> Tensor:
    """The vertical transform ``[N, frequencies, 2, W, C]`` of ``[N, C, H, W]``, channels_last."""
    rows = maps.permute(0, 2, 3, 1)
    every = matrix.flatten(0, 1).expand(len(rows), -1, -1)
    down = torch.bmm(every, rows.flatten(2))
    return down.view(len(rows), *matrix.shape[:2], *rows.shape[2:])


def _factors(matrix: Tensor, rows: Tensor) -> Tensor:
    """The factors ``[N, m, C]`` of a band's rows ``[N, 2, W, C]``."""
    return torch.bmm(matrix.expand(len(rows), -1, -1), rows.flatten(1, 2))


def _grouped(factors: Tensor, groups: int) -> Tensor:
    """Factors ``[N, m, C]`` as matrices ``[m * groups, N, C / groups]``."""
    count, places, channels = factors.shape
    return factors.view(count, places * groups, channels // groups).transpose(0, 1)


def _kernels(weight: Tensor, groups: int, order: str) -> Tensor:
    """Kernels ``[O, C / groups, r, s]`` as ``[r * s, groups, ...]``, last outputs and inputs.

    In the ``order`` ``"oc"`` or ``"co"``.
    """
    last = {"oc": (1, 2), "co": (2, 1)}[order]
    return weight.unflatten(0, (groups, -1)).permute(3, 4, 0, *last).flatten(0, 1).contiguous()


def _weights(matrix: Tensor, kernels: Tensor) -> Tensor:
    """The kernels' factors as matrices ``[m * groups, ...]``."""
    return torch.mm(matrix, kernels.flatten(1)).view(-1, *kernels.shape[2:])


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

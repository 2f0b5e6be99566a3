"""How a convolution by way of the frequencies is computed: :mod:`alexnet.layers.spectral`'s plan.

:class:`Compiled` is C (``native/spectral.c``) that calls the matrix products of the library that
torch brings; a thread takes a band at a time, so that none waits for another more than thrice a
layer. :class:`InTorch` is torch's own products, each on all threads, for machines without a
compiler or that library.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from alexnet.layers.spectral import Geometry, Plan, at_work, plan
from alexnet.native import native

Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]
Wanted = tuple[bool, bool, bool]


class Kernel(Protocol):
    """Computes float32 maps in channels_last."""

    def forward(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, groups: int
    ) -> Tensor:
        """Convolve ``x`` ``[N, C, H, W]`` by ``weight`` ``[O, C / groups, r, s]``."""

    def backward(
        self,
        x: Tensor,
        weight: Tensor,
        g: Tensor,
        geometry: Geometry,
        groups: int,
        wanted: Wanted,
    ) -> Gradients:
        """The gradients by ``x``, ``weight`` and the bias that are ``wanted``."""


class InTorch:
    """Torch's operations, a band after another."""

    def forward(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, groups: int
    ) -> Tensor:
        """Convolve ``x``."""
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
        return maps.whole()

    def backward(
        self,
        x: Tensor,
        weight: Tensor,
        g: Tensor,
        geometry: Geometry,
        groups: int,
        wanted: Wanted,
    ) -> Gradients:
        """The gradients that are wanted."""
        matrices = plan(geometry)
        down = _down(matrices.down_g, g)
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


class _Told(ctypes.Structure):
    """``Spectral`` of ``native/spectral.c``."""

    _fields_ = (
        *(
            (name, ctypes.c_int64)
            for name in (
                "pictures", "groups", "inputs", "outputs", "height", "width", "out_height",
                "out_width", "taps", "frequencies", "most",
            )
        ),
        *(
            (name, ctypes.c_void_p)
            for name in (
                "down_x", "down_g", "across_x", "across_g", "kernels", "factors", "order",
                "products", "threads_of_one",
            )
        ),
        ("threads", ctypes.c_int),
    )  # fmt: skip


class Compiled:
    """``native/spectral.c``, on its own threads."""

    def __init__(self, library: ctypes.CDLL, products: int, threads_of_one: int) -> None:
        self.library, self.products, self.threads_of_one = library, products, threads_of_one
        library.spectral_room.restype = ctypes.c_int64

    def forward(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, groups: int
    ) -> Tensor:
        """Convolve ``x``."""
        bands = _bands(geometry)
        told = self._told(x, weight, bands, geometry, groups)
        y = _maps(x, len(weight), geometry.outputs)
        down, rows = (
            _rows(x, told, told.inputs, told.width),
            _rows(x, told, told.outputs, told.out_width),
        )
        self._call("forward", told, x, _kernels(weight, groups, "co"), bias, y, down, rows)
        return y

    def backward(
        self,
        x: Tensor,
        weight: Tensor,
        g: Tensor,
        geometry: Geometry,
        groups: int,
        wanted: Wanted,
    ) -> Gradients:
        """The gradients that are wanted."""
        bands = _bands(geometry)
        told = self._told(x, weight, bands, geometry, groups)
        dx = rows = parts = down_x = db = None
        if wanted[0]:
            dx, rows = (
                _maps(x, x.shape[1], geometry.inputs),
                _rows(x, told, told.inputs, told.width),
            )
        if wanted[1]:
            shape = (told.frequencies, *weight.shape[2:], *weight.shape[:2])
            parts, down_x = x.new_empty(shape), _rows(x, told, told.inputs, told.width)
        if wanted[2]:
            db = x.new_zeros(len(weight))
        down_g = _rows(x, told, told.outputs, told.out_width)
        kernels = _kernels(weight, groups, "oc")
        self._call("backward", told, x, kernels, g, dx, parts, db, down_x, down_g, rows)
        return dx, None if parts is None else parts.sum(0).permute(2, 3, 0, 1), db

    def _told(
        self, x: Tensor, weight: Tensor, bands: _Bands, geometry: Geometry, groups: int
    ) -> _Told:
        """What the library is told; ``bands`` must be kept while it is."""
        matrices = bands.matrices
        return _Told(
            len(x), groups, x.shape[1], len(weight), *geometry.inputs, *geometry.outputs,
            geometry.kernel[0] * geometry.kernel[1], len(matrices.bands), bands.most,
            matrices.down_x.data_ptr(), matrices.down_g.data_ptr(), *bands.places,
            self.products, self.threads_of_one, at_work(geometry, torch.get_num_threads()),
        )  # fmt: skip

    def _call(self, name: str, told: _Told, *tensors: Tensor | None) -> None:
        room = self.library.spectral_room(ctypes.byref(told)) * told.threads
        every = [*tensors, torch.empty(room, dtype=torch.float32, device="cpu")]
        places = [ctypes.c_void_p(None if t is None else t.data_ptr()) for t in every]
        if getattr(self.library, f"spectral_{name}")(*places, ctypes.byref(told)):
            raise MemoryError("no memory for a convolution")


class _Bands:
    """A plan's bands as the library reads them; ``matrices`` is what its addresses are of."""

    def __init__(self, matrices: Plan) -> None:
        self.matrices = matrices
        sizes = [len(band.w) for band in matrices.bands]
        order = sorted(range(len(sizes)), key=lambda index: -sizes[index])
        count, self.most = len(sizes), max(sizes)
        self.kept = [
            (ctypes.c_void_p * count)(*(getattr(band, name).data_ptr() for band in matrices.bands))
            for name in ("x", "g", "w")
        ] + [(ctypes.c_int64 * count)(*numbers) for numbers in (sizes, order)]
        self.places = [ctypes.cast(array, ctypes.c_void_p).value for array in self.kept]


@functools.lru_cache(maxsize=64)
def _bands(geometry: Geometry) -> _Bands:
    return _Bands(plan(geometry))


def _maps(like: Tensor, channels: int, sides: tuple[int, int]) -> Tensor:
    """Room for maps ``[N, channels, H, W]``, channels_last."""
    return torch.empty(
        len(like), channels, *sides,
        dtype=torch.float32, device="cpu", memory_format=torch.channels_last,
    )  # fmt: skip


def _rows(like: Tensor, told: _Told, channels: int, width: int) -> Tensor:
    """Room for vertically transformed maps."""
    return like.new_empty(len(like), told.frequencies, 2, width, channels)


@functools.cache
def best_kernel() -> Kernel:
    """The compiled one where there are a compiler and the products' library."""
    library = native().library
    if library is None:
        return InTorch()
    try:
        products, threads = _torchs_products()
    except (OSError, AttributeError):
        return InTorch()
    return Compiled(library, products, threads)


def _torchs_products() -> tuple[int, int]:
    """Addresses of MKL's batched product and of what sets its threads, as torch brings them."""
    torchs = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    functions = torchs.cblas_sgemm_batch, torchs.MKL_Set_Num_Threads_Local
    products, threads = (ctypes.cast(function, ctypes.c_void_p).value for function in functions)
    if products is None or threads is None:
        raise AttributeError("no address")
    return products, threads

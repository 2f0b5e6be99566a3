"""Local response normalization (Krizhevsky et al. 2012, section 3.3).

    b[i] = a[i] / (k + alpha * sum_{j in window(i)} a[j]^2) ^ beta

The paper multiplies the SUM by alpha; Caffe, the original code and ``torch.nn.LocalResponseNorm``
multiply the MEAN over the window's nominal size (the paper's alpha=1e-4, n=5 is their alpha=5e-4).
Both readings are here: ``alpha_mode="sum"`` and ``alpha_mode="mean"``. On a processor and on a GPU
the narrow floating types are computed by :mod:`alexnet.layers.lrn_kernels`, everything else by
torch's operations.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alexnet.layers.choice import check_at_least, check_choice
from alexnet.layers.lrn_kernels import KernelNorm, Window, kernel_for, lay_out, plain

AlphaMode = Literal["mean", "sum"]


def local_response_norm(
    x: Tensor,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    alpha_mode: AlphaMode = "mean",
    groups: int = 1,
    rectify: bool = False,
) -> Tensor:
    """Normalize each activation by the energy of ``size`` neighboring channels.

    Args:
        x: ``[N, C, ...]`` of any floating dtype; the arithmetic is done in float32 at least.
        size: channels in the window. At the first and last channels the window is cut off, the
            divisor of ``"mean"`` stays ``size``. An even window reaches one channel further down.
        alpha: factor of the squares.
        beta: exponent.
        k: constant added to them.
        alpha_mode: ``"mean"`` divides alpha by ``size`` as torch and Caffe do; ``"sum"`` is the
            paper's formula.
        groups: normalize within each of this many equal parts of the channels (the towers).
        rectify: take ``max(x, 0)`` first, as a ReLU before would, without a pass of its own.

    Returns:
        A tensor of the shape and dtype of ``x``.

    Raises:
        ValueError: channels that ``groups`` does not divide, an unknown mode, a window of none.
    """
    channels = x.shape[1]
    if channels % groups:
        raise ValueError(f"{channels} channels cannot be split into groups={groups}")
    check_choice("alpha_mode", alpha_mode, ("mean", "sum"))
    check_at_least(1, size=size)
    window = Window(
        below=size // 2,
        above=(size - 1) // 2,
        factor=alpha / size if alpha_mode == "mean" else alpha,
        beta=beta,
        k=k,
        rectify=rectify,
    )
    kernel = kernel_for(x)
    if kernel is None:
        return plain(x, window, groups)
    # Laid out here, where it is recorded: a gradient of the gradient goes through the copy.
    y: Tensor = KernelNorm.apply(lay_out(x, groups)[0], window, groups, kernel)
    return y


class LocalResponseNorm(nn.Module):
    """:func:`local_response_norm` as a module; a drop-in for ``torch.nn.LocalResponseNorm``.

    Input and output: ``[N, C, ...]``. The paper's layer is
    ``LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0, alpha_mode="sum")``.
    """

    def __init__(
        self,
        size: int,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 1.0,
        *,
        alpha_mode: AlphaMode = "mean",
        groups: int = 1,
    ) -> None:
        super().__init__()
        check_at_least(1, size=size, groups=groups)
        check_choice("alpha_mode", alpha_mode, ("mean", "sum"))
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k
        self.alpha_mode: AlphaMode = alpha_mode
        self.groups = groups

    def forward(self, x: Tensor, rectify: bool = False) -> Tensor:
        """Normalize ``x`` (``[N, C, ...]``), or ``max(x, 0)``."""
        return local_response_norm(
            x,
            self.size,
            self.alpha,
            self.beta,
            self.k,
            alpha_mode=self.alpha_mode,
            groups=self.groups,
            rectify=rectify,
        )

    def extra_repr(self) -> str:
        """The arguments, for ``print(network)``."""
        return (
            f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}, "
            f"alpha_mode={self.alpha_mode!r}, groups={self.groups}"
        )


class SpatialResponseNorm(nn.Module):
    """Response normalization over a ``size`` x ``size`` neighborhood within each map.

    The original code's network has one after its second LRN, which the paper's prose leaves out:
    5x5, alpha 0.001 (divided by the 25 positions), beta 0.75. Its constant is not stated; we take
    k = 1, cuda-convnet's default. ``size`` is odd; positions beyond the border count as zeros.
    Input and output: ``[N, C, H, W]``.
    """

    def __init__(self, size: int, alpha: float = 0.001, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        check_at_least(1, size=size)
        if size % 2 == 0:
            raise ValueError(f"size={size}: a neighborhood around a position has an odd side")
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: Tensor) -> Tensor:
        """Normalize ``x`` (``[N, C, H, W]``)."""
        wide = x if x.dtype == torch.float64 else x.float()
        energy = F.avg_pool2d(wide.square(), self.size, stride=1, padding=self.size // 2)
        return (wide * (energy * self.alpha + self.k).pow(-self.beta)).to(x.dtype)

    def extra_repr(self) -> str:
        """The arguments, for ``print(network)``."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"

"""LeNet's own layers (LeCun et al., 1998, 'Gradient-based learning ...').

Trainable sub-sampling and the sparse C3 (section II.B), the Euclidean radial basis function output
and the loss that goes with it (sections II.B and II.C).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TrainableSubsampling(nn.Module):
    """LeNet-5's S2 and S4: the sum of each 2x2 block times a coefficient a map, plus a bias.

    Input ``[N, C, H, W]``, output ``[N, C, H // 2, W // 2]``; the squashing follows outside.
    The coefficient starts at 1/4, where the layer is average pooling. (The paper draws it like
    every weight, uniformly within 2.4 / fan-in, which can start a map at or near zero.)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), 0.25))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Sub-sample ``x`` (``[N, C, H, W]``) by two."""
        return self.scale(F.avg_pool2d(x, 2))

    def scale(self, means: Tensor) -> Tensor:
        """The same from the blocks' means."""
        return means * (4 * self.weight[:, None, None]) + self.bias[:, None, None]

    def extra_repr(self) -> str:
        """The number of maps, for ``print(network)``."""
        return f"{len(self.weight)}"


class SparseConv2d(nn.Module):
    """A convolution in which each output map reads only the input maps that a table names.

    Only the connections that exist have weights, so parameter counts are the paper's (C3: 60
    kernels, 1,516 parameters). Input ``[N, in_channels, H, W]``.

    Args:
        in_channels: input maps.
        table: for each output map, the input maps it reads; at least one, none twice.
        kernel_size: side of the kernels.
        stride: step between positions.
        bias: whether each output map has a bias.

    Attributes:
        weight: ``[connections, kernel_size, kernel_size]``, in the order of the table.
        fan_in: for each output map, how many inputs a unit of it reads.

    Raises:
        ValueError: a table that names a map that is not there, one twice, or none.
    """

    targets: Tensor
    sources: Tensor

    def __init__(
        self,
        in_channels: int,
        table: Sequence[Sequence[int]],
        kernel_size: int,
        stride: int = 1,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        pairs = [(out, source) for out, sources in enumerate(table) for source in sources]
        if not all(0 <= source < in_channels for _, source in pairs):
            raise ValueError(f"the table names an input map outside 0 to {in_channels - 1}")
        if len(set(pairs)) < len(pairs) or not all(table):
            raise ValueError("the table gives an output map no input map, or the same one twice")
        self.in_channels, self.out_channels = in_channels, len(table)
        self.kernel_size, self.stride = kernel_size, stride
        self.fan_in = [len(sources) * kernel_size**2 for sources in table]
        self.register_buffer("targets", torch.tensor([p[0] for p in pairs]), persistent=False)
        self.register_buffer("sources", torch.tensor([p[1] for p in pairs]), persistent=False)
        self.weight = nn.Parameter(torch.empty(len(pairs), kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(len(table))) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw each weight uniformly within 2.4 / fan-in of its map (appendix A); biases are 0."""
        bounds = torch.tensor([2.4 / count for count in self.fan_in], device=self.weight.device)
        with torch.no_grad():
            self.weight.uniform_(-1.0, 1.0).mul_(bounds[self.targets][:, None, None])
            if self.bias is not None:
                self.bias.zero_()

    @property
    def connections(self) -> int:
        """How many pairs of an output and an input map are connected."""
        return len(self.weight)

    def dense_weight(self) -> Tensor:
        """The weights as an ordinary kernel, zeros where nothing is connected; ``[O, I, K, K]``."""
        shape = (self.out_channels, self.in_channels, self.kernel_size, self.kernel_size)
        empty = self.weight.new_zeros(shape)
        return empty.index_put((self.targets, self.sources), self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x`` (``[N, in_channels, H, W]``) without padding."""
        return F.conv2d(x, self.dense_weight(), self.bias, self.stride)

    def extra_repr(self) -> str:
        """The arguments, for ``print(network)``."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, connections={self.connections}"
        )


class UnitBias(nn.Module):
    """A bias for every unit of a map rather than one a map (LeCun et al. 1989, section 3.3).

    Input and output ``[N, channels, side, side]``.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels, side, side))

    def forward(self, x: Tensor) -> Tensor:
        """Add the biases to ``x``."""
        return x + self.bias

    def extra_repr(self) -> str:
        """The shape, for ``print(network)``."""
        return "x".join(str(n) for n in self.bias.shape)


class EuclideanRBF(nn.Module):
    """LeNet-5's output: minus the squared distance to a fixed code of each class (equation 7).

    Input ``[N, F]``, output ``[N, classes]`` in the codes' dtype (float32); the largest (the
    nearest code) wins, so the output can be used wherever logits can. The codes are fixed
    parameters: a buffer, kept in the state dict.

    Args:
        codes: ``[classes, F]`` of +1 and -1.
    """

    codes: Tensor

    def __init__(self, codes: Tensor) -> None:
        super().__init__()
        self.register_buffer("codes", codes.float())

    @property
    def in_features(self) -> int:
        """Length of a code."""
        return self.codes.shape[1]

    @property
    def out_features(self) -> int:
        """Number of classes."""
        return self.codes.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """Minus the squared distances of ``x`` (``[N, F]``) to the codes."""
        return -(x.to(self.codes.dtype).unsqueeze(1) - self.codes).square().sum(2)

    def extra_repr(self) -> str:
        """The sizes, for ``print(network)``."""
        return f"{self.in_features}, {self.out_features}"


def map_loss(logits: Tensor, labels: Tensor, j: float = 0.1) -> Tensor:
    """LeNet-5's discriminative criterion (equation 9), averaged over the batch.

    ``y[label] + log(exp(-j) + sum_i exp(-y_i))`` with the distances ``y = -logits``: cross-entropy
    with one further 'rubbish' class whose logit is ``-j``, which keeps pulling the right code
    closer when it has already won. The paper says that j is positive and gives no value; 0.1 is
    ours.

    Args:
        logits: ``[N, classes]`` from :class:`EuclideanRBF`.
        labels: ``[N]`` class numbers, or ``[N, classes]`` probabilities.
        j: the distance at which the rubbish class stands.

    Returns:
        A scalar.
    """
    rubbish = logits.new_full((len(logits), 1), -j)
    if labels.is_floating_point():
        labels = F.pad(labels, (0, 1))
    return F.cross_entropy(torch.cat((logits, rubbish), 1), labels)


def random_codes(classes: int, features: int = 84, seed: int = 1998) -> Tensor:
    """Fixed random codes of +1 and -1 for classes that have no bitmap; ``[classes, features]``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, (classes, features), generator=generator).float() * 2 - 1


# Each digit on a grid 7 wide and 12 high. The paper shows its bitmaps as a picture only (figure
# 3); these are drawn after it by us: same size and style, not bit for bit.
_DIGITS = """
..###.. ...##.. .#####. .#####. .....#. ####### ..####. ####### .#####. .#####.
.#...#. ..###.. #.....# #.....# ....##. #...... .#..... #.....# #.....# #.....#
#.....# ...##.. ......# ......# ...#.#. #...... #...... ......# #.....# #.....#
#.....# ...##.. ......# ......# ..#..#. #...... #...... .....#. #.....# #.....#
#.....# ...##.. .....#. .....#. .#...#. #.####. #...... .....#. .#...#. #....##
#.....# ...##.. ....#.. ..###.. #....#. ##....# #.####. ....#.. ..###.. .####.#
#.....# ...##.. ...#... .....#. #....#. ......# ##....# ....#.. .#...#. ......#
#.....# ...##.. ..#.... ......# ####### ......# #.....# ...#... #.....# ......#
#.....# ...##.. .#..... ......# .....#. ......# #.....# ...#... #.....# ......#
#.....# ...##.. #...... ......# .....#. ......# #.....# ..#.... #.....# ......#
.#...#. ...##.. #...... #.....# .....#. #.....# .#...#. ..#.... #.....# .....#.
..###.. ..####. ####### .#####. .....#. .#####. ..###.. ..#.... .#####. .####..
"""


def digit_codes() -> Tensor:
    """The 7x12 bitmaps of the ten digits as codes of +1 (ink) and -1; ``[10, 84]``."""
    rows = [line.split() for line in _DIGITS.strip().splitlines()]
    bitmaps = ["".join(row[digit] for row in rows) for digit in range(10)]
    return torch.tensor([[1.0 if c == "#" else -1.0 for c in bitmap] for bitmap in bitmaps])

"""What devices must send each other in a training step, counted by formula.

All exchanges are rings (Patarasuk and Yuan 2009, 'Bandwidth optimal all-reduce algorithms for
clusters of workstations'): of a tensor of T bytes among N ranks, a rank sends (and receives)

    all-gather, reduce-scatter    (N - 1) / N T      in N - 1 messages
    all-reduce                    2 (N - 1) / N T    in 2 (N - 1) messages
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from alexnet.errors import UsageError
from alexnet.tasks.scaling.counts import FLOAT, Counts

Kind = Literal["all-reduce", "all-gather", "reduce-scatter"]
Phase = Literal["forward", "backward", "gradients"]

HEAD = ("fc6", "fc7", "fc8")
"""The layers that ``hybrid`` splits over the ranks."""
FIRST_BUCKET, BUCKET = 1 << 20, 25 << 20
"""Bytes of gradients that torch's DistributedDataParallel collects before it sends them."""


@dataclass(frozen=True)
class Exchange:
    """One tensor that ranks exchange in a step.

    Attributes:
        layer: where in the network.
        phase: ``"forward"`` (before the layer's forward pass is over, which waits for it),
            ``"backward"`` (its backward pass waits), or ``"gradients"`` (of weights; may run while
            the backward pass goes on to the layers before).
        kind: of collective.
        size: bytes of the whole tensor.
        ranks: how many exchange it.
    """

    layer: str
    phase: Phase
    kind: Kind
    size: int
    ranks: int

    @property
    def rounds(self) -> int:
        """How often each part of the ring is gone through: 2 for an all-reduce."""
        return 2 if self.kind == "all-reduce" else 1

    @property
    def sent(self) -> float:
        """Bytes that a rank sends."""
        return self.rounds * (self.ranks - 1) / self.ranks * self.size

    @property
    def messages(self) -> int:
        """Messages that a rank sends, one after the other."""
        return self.rounds * (self.ranks - 1)


def ddp(counts: Counts, devices: int, batch_size: int) -> list[Exchange]:
    """Every rank has the whole network: all gradients are all-reduced, in buckets.

    Args:
        counts: of the network.
        devices: ranks.
        batch_size: pictures a rank; the traffic does not depend on it.
    """
    del batch_size
    return gradients([(layer.name, layer.parameters) for layer in counts.layers], devices)


def hybrid(counts: Counts, devices: int, batch_size: int) -> list[Exchange]:
    """Convolutions data parallel, fully connected layers split over the same ranks.

    Krizhevsky 2014 (arXiv:1404.5997, section 4), with the pictures of all ranks in one pass (his
    scheme a): fc6 by its units, fc7 and fc8 by their inputs, so that no rank needs all the units of
    a hidden layer.

        forward                            backward
        pool5 [N B, 9216] all-gathered     its gradient reduce-scattered
        fc7 sums [N B, 4096]               gradient of fc7's units all-gathered
            reduce-scattered by units
        fc8 sums [N B, 1000]               gradient of the logits all-gathered
            reduce-scattered by pictures

    Args:
        counts: of an AlexNet with fc6, fc7 and fc8.
        devices: ranks.
        batch_size: pictures a rank.
    """
    pictures, convolutions = devices * batch_size, counts.before("fc6")
    features = convolutions[-1].outputs
    wide: dict[str, tuple[Kind, int, Kind]] = {
        "fc6": ("all-gather", features, "reduce-scatter"),
        "fc7": ("reduce-scatter", counts.layer("fc7").outputs, "all-gather"),
        "fc8": ("reduce-scatter", counts.layer("fc8").outputs, "all-gather"),
    }
    exchanges = []
    for name, (forward, units, backward) in wide.items():
        size = pictures * units * counts.element
        exchanges.append(Exchange(name, "forward", forward, size, devices))
        exchanges.append(Exchange(name, "backward", backward, size, devices))
    named = [(layer.name, layer.parameters) for layer in convolutions]
    return exchanges + gradients(named, devices)


def towers(counts: Counts, devices: int, batch_size: int) -> list[Exchange]:
    """The layout of 2012: half of every layer on each device of a pair, every picture on both.

    Krizhevsky et al. 2012, section 3.2 and figure 2: the towers meet before conv3, fc6 and
    fc7, where each device gathers the other's half; the gradient of what was gathered is
    reduce-scattered. fc8 is divided by what it reads: each device has logits of its half, which are
    all-reduced. Within a tower LRN needs nothing from the other. With more than two devices, pairs
    are data parallel: each half of the weights is all-reduced among the pairs.

    Args:
        counts: of an AlexNet of two groups.
        devices: an even number.
        batch_size: pictures a device; a pair works on twice as many, half of each picture a device.
    """
    pairs, pictures = devices // 2, 2 * batch_size
    exchanges = []
    for name in ("conv3", "fc6", "fc7"):
        size = pictures * counts.before(name)[-1].outputs * counts.element
        exchanges.append(Exchange(name, "forward", "all-gather", size, 2))
        exchanges.append(Exchange(name, "backward", "reduce-scatter", size, 2))
    logits = pictures * counts.layer("fc8").outputs * counts.element
    exchanges.append(Exchange("fc8", "forward", "all-reduce", logits, 2))
    halves = [(layer.name, layer.parameters // 2) for layer in counts.layers]
    return exchanges + gradients(halves, pairs)


Scheme = Callable[[Counts, int, int], list[Exchange]]
SCHEMES: dict[str, Scheme] = {"ddp": ddp, "hybrid": hybrid, "towers": towers}
"""The ways to use many devices, by name."""


def exchanges(scheme: str, counts: Counts, devices: int, batch_size: int) -> list[Exchange]:
    """What is exchanged in a step of ``scheme``; nothing on one device."""
    return SCHEMES[scheme](counts, devices, batch_size) if devices > 1 else []


def fits(scheme: str, counts: Counts, devices: int) -> bool:
    """Whether a network can be trained so on that many devices; one device needs no scheme."""
    if scheme == "ddp" or devices == 1:
        return True
    if scheme == "hybrid":
        return counts.has(*HEAD)
    return counts.groups == 2 and counts.has("conv3", *HEAD) and devices % 2 == 0


def check(scheme: str, counts: Counts, devices: int) -> None:
    """Refuse what cannot be.

    Raises:
        UsageError: a network without the layers that the scheme splits, or an odd number of towers.
    """
    if fits(scheme, counts, devices):
        return
    if scheme == "towers" and fits(scheme, counts, 2):
        raise UsageError(f"--parallel towers needs pairs: --gpus {devices} is odd, make it even")
    wanted = "two groups, fc6, fc7 and fc8" if scheme == "towers" else "fc6, fc7 and fc8"
    raise UsageError(
        f"--parallel {scheme} splits a network of {wanted}, which {counts.model} is not: "
        "use --parallel ddp, or --model alexnet"
    )


def gradients(layers: Sequence[tuple[str, int]], ranks: int) -> list[Exchange]:
    """All-reduces of the weights' gradients, in the order in which the backward pass has them.

    As in torch's DistributedDataParallel, gradients are collected until they are 25 MiB (1 MiB the
    first time), then sent; a bucket belongs to the layer that filled it.

    Args:
        layers: name and number of weights, input to output.
        ranks: how many average them; one needs no exchange.
    """
    found: list[Exchange] = []
    size, limit, last = 0, FIRST_BUCKET, ""
    if ranks < 2:
        return found
    for name, parameters in reversed(layers):
        if parameters:
            size, last = size + parameters * FLOAT, name
        if size >= limit:
            found.append(Exchange(last, "gradients", "all-reduce", size, ranks))
            size, limit = 0, BUCKET
    if size:
        found.append(Exchange(last, "gradients", "all-reduce", size, ranks))
    return found

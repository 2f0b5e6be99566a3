"""When what happens in a step: compute on one track, exchanges on another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alexnet.errors import UsageError
from alexnet.tasks.scaling.counts import Counts
from alexnet.tasks.scaling.traffic import Exchange


@dataclass(frozen=True)
class Link:
    """What joins the devices.

    Attributes:
        bandwidth: bytes a second that a device sends while it receives as many.
        latency: seconds that a message takes beside its bytes.
    """

    bandwidth: float
    latency: float

    @classmethod
    def of(cls, gbits: float, microseconds: float) -> Link:
        """From Gbit/s and microseconds.

        Raises:
            UsageError: no bandwidth, or a latency below 0.
        """
        if not gbits > 0:
            raise UsageError(f"--network is {gbits:g}: it must be above 0 Gbit/s")
        if not 0 <= microseconds < float("inf"):
            raise UsageError(f"--latency is {microseconds:g}: it must be 0 or more microseconds")
        return cls(gbits * 1e9 / 8, microseconds * 1e-6)

    def seconds(self, exchange: Exchange) -> float:
        """How long an exchange takes."""
        return exchange.messages * self.latency + exchange.sent / self.bandwidth


def apart(compute: float, update: float, exchanges: Sequence[Exchange], link: Link) -> float:
    """Seconds of a step in which nothing is computed while something is sent: the upper bound."""
    return compute + sum(map(link.seconds, exchanges)) + update


def overlapped(
    counts: Counts, compute: float, update: float, exchanges: Sequence[Exchange], link: Link
) -> float:
    """Seconds of a step in which gradients are sent while the backward pass goes on: the lower one.

    Compute is spread over the layers by their multiplications. An exchange that a layer waits for
    stops it; the all-reduce of a bucket begins when its last layer has been gone through. The link
    carries one exchange after the other, in the order in which they are ready; the update waits for
    all of them.

    Args:
        counts: of the network.
        compute: seconds of forward and backward pass on a device.
        update: seconds of what is done once a step, after everything else.
        exchanges: what is sent.
        link: over which.
    """
    second_per_mac = compute / counts.macs
    now = free = 0.0  # the devices' time; when the link is free
    for layer in counts.layers:
        now += layer.macs * second_per_mac
        now += sum(link.seconds(e) for e in exchanges if _is(e, layer.name, "forward"))
    for layer in reversed(counts.layers):
        now += layer.backward_macs * second_per_mac
        for exchange in exchanges:
            if _is(exchange, layer.name, "backward"):
                now = free = max(now, free) + link.seconds(exchange)
            elif _is(exchange, layer.name, "gradients"):
                free = max(now, free) + link.seconds(exchange)
    return max(now, free) + update


def _is(exchange: Exchange, layer: str, phase: str) -> bool:
    return exchange.layer == layer and exchange.phase == phase

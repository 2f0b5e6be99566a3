"""Loss, right answers and pictures of an epoch, added up where they arise."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from alexnet.training.parallel import Parallel


class Sums:
    """Running sums of one epoch over this process's pictures.

    Args:
        totals: of the batches that are done, as :meth:`gathered` returned them; empty at first.
        parallel: how the processes share the batches.
        device: where the sums are kept.
    """

    def __init__(self, totals: dict[str, Any], parallel: Parallel, device: torch.device) -> None:
        self.parallel = parallel
        loss, right, images = self._own(totals.get("processes", []))
        place = device if device.type != "mps" else torch.device("cpu")  # it has no float64
        self.loss = torch.tensor(loss, dtype=torch.float64, device=place)
        self.right = torch.tensor(int(right), device=device)
        self.images = int(images)
        self.before = float(totals.get("seconds", 0.0))
        self.start = time.perf_counter()

    def _own(self, processes: list[list[float]]) -> list[float]:
        """This process's sums so far; the first one takes all where others are gone on with."""
        if len(processes) == self.parallel.data_count:
            return processes[self.parallel.data_rank]
        if self.parallel.data_rank or not processes:
            return [0.0, 0, 0]
        return [sum(values) for values in zip(*processes, strict=True)]

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count pictures: their mean loss, logits ``[N, K]`` and labels ``[N]``."""
        self.loss += loss.detach().to(self.loss.device) * len(labels)
        self.right += (logits.detach().argmax(1) == labels).sum()
        self.images += len(labels)

    @property
    def finite(self) -> bool:
        """Whether the loss is still a number; waits for the device."""
        return bool(torch.isfinite(self.loss))

    def gathered(self) -> dict[str, Any]:
        """Plain numbers, of each process that takes pictures; all of them call it together."""
        own = [float(self.loss), float(self.right), float(self.images)]
        processes = [own]
        if self.parallel.data_count > 1:
            parts = [torch.zeros(3, dtype=torch.float64) for _ in range(self.parallel.data_count)]
            dist.all_gather(parts, torch.tensor(own, dtype=torch.float64))
            processes = [part.tolist() for part in parts]
        seconds = self.before + time.perf_counter() - self.start
        return {"processes": processes, "seconds": seconds}


def total(totals: dict[str, Any]) -> tuple[float, int, int]:
    """Loss, right answers and pictures of all processes together."""
    loss, right, images = (sum(values) for values in zip(*totals["processes"], strict=True))
    return loss, int(right), int(images)

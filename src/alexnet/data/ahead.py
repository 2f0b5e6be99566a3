"""Batches on their way to a GPU while it works on the one before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from alexnet.data.loader import Batch


def ahead(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield the batches with pictures and labels on ``device``.

    On a GPU the next batch is copied, on a stream of its own, while this one is worked on; anywhere
    else they are handed on as they are.
    """
    if device.type != "cuda":
        yield from batches
        return
    copying = torch.cuda.Stream(device)
    waiting: tuple[Batch, torch.Event] | None = None
    for pixels, labels, indices in batches:
        working = torch.cuda.current_stream(device)
        copying.wait_stream(working)  # pictures of the GPU's own memory are gathered there
        with torch.cuda.stream(copying):
            coming = _sent(pixels, device), _sent(labels, device), indices
        if waiting is not None:
            yield _arrived(*waiting)
        waiting = coming, copying.record_event()
    if waiting is not None:
        yield _arrived(*waiting)


def _sent(values: Tensor, device: torch.device) -> Tensor:
    return values.to(device, non_blocking=True)


def _arrived(batch: Batch, copied: torch.Event) -> Batch:
    """The batch, for what is computed from now on, and its memory kept until that is done."""
    pixels, labels, indices = batch
    working = torch.cuda.current_stream(pixels.device)
    working.wait_event(copied)
    for values in (pixels, labels):
        values.record_stream(working)
    return pixels, labels, indices

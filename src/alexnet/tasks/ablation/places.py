"""Where trainings run beside each other: a processor each, or a GPU."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from alexnet.data.threads import available_processors
from alexnet.runtime import resolve

ON_ONE_GPU = 4
"""Trainings at a time on the only GPU: small networks leave it waiting for its next kernel."""
_GPUS = "CUDA_VISIBLE_DEVICES"


def places(device: str = "auto", processes: int = 1) -> list[dict[str, str]]:
    """What to add to the environment of each training that runs at a time; none is no room.

    Several GPUs have a training each, which has its GPUs to itself; a single one is shared.

    Args:
        device: as in the settings, ``training.device``.
        processes: that share a training.

    Raises:
        UsageError: there is no such device.
    """
    chosen = resolve(device).device
    if chosen.type == "cpu":
        return [{}] * (available_processors() // processes)
    told = torch.device("cuda" if device == "auto" else device)
    if chosen.type != "cuda" or told.index is not None:
        return [{}] * (ON_ONE_GPU if processes == 1 else 0)
    count, named = torch.cuda.device_count(), os.environ.get(_GPUS)
    names = named.split(",") if named else [str(number) for number in range(count)]
    return shares([name.strip() for name in names[:count]], processes)


def shares(gpus: Sequence[str], processes: int) -> list[dict[str, str]]:
    """What :func:`places` has of GPUs with these names, as ``CUDA_VISIBLE_DEVICES`` has them."""
    if len(gpus) == 1 and processes == 1:
        return [{_GPUS: gpus[0]}] * ON_ONE_GPU
    firsts = range(0, len(gpus) - processes + 1, processes)
    return [{_GPUS: ",".join(gpus[first : first + processes])} for first in firsts]

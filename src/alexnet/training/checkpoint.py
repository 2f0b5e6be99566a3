"""Checkpoints: one safetensors file each, with the numbers that are not tensors in its header.

A training needs the weights, the optimizer's buffers and its position (epoch and batch) to go on:
the order of the pictures, their augmentation and dropout are functions of the seed and the
position. A file is written whole or not at all, and the one before the newest is kept.
"""

from __future__ import annotations

import errno
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from safetensors.torch import save as serialize
from torch import Tensor, nn

from alexnet.errors import UsageError
from alexnet.files import FORMAT_VERSION, atomic_path, write_bytes
from alexnet.progress import log

KEPT = 2
_DAMAGE = (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError)


@dataclass
class Position:
    """Where a training stands, in plain JSON types.

    Attributes:
        epoch: the epoch that is going on, or comes next, from 0.
        batch: batches of it that are done.
        totals: sums over those batches (loss, right answers, pictures, seconds).
        history: a record for each finished epoch, the lines of metrics.jsonl.
        best_epoch: the epoch whose weights are kept; -1 before the first.
        best_score: its score on the validation part.
        finished: nothing is left to do.
    """

    epoch: int = 0
    batch: int = 0
    totals: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = -1
    best_score: float = float("-inf")
    finished: bool = False


def save(
    folder: Path,
    position: Position,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> Path:
    """Write a checkpoint and remove all but the newest :data:`KEPT`."""
    tensors = {f"model.{name}": value for name, value in network.state_dict().items()}
    state = optimizer.state_dict()
    numbers: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = value
            else:
                numbers.setdefault(str(index), {})[key] = value
    header = {
        "format_version": FORMAT_VERSION,
        "position": vars(position),
        "optimizer": {"groups": state["param_groups"], "numbers": numbers},
    }
    copies = {name: t.detach().contiguous().clone() for name, t in tensors.items()}
    path = folder / f"epoch-{position.epoch:04d}-batch-{position.batch:06d}.safetensors"
    with atomic_path(path) as temporary:
        try:
            save_file(copies, temporary, metadata={"state": json.dumps(header)})
        except SafetensorError as error:
            raise _system_error(error) from error
    for old in found(folder)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def _system_error(error: SafetensorError) -> OSError:
    """What the system said about a write; safetensors puts its number into a text."""
    number = re.search(r"os error (\d+)", str(error))
    code = int(number[1]) if number else errno.EIO
    return OSError(code, os.strerror(code))


def set_aside(path: Path, network: nn.Module) -> None:
    """Write the network's weights whole or not at all, as :func:`read_weights` reads them."""
    state = {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}
    write_bytes(path, serialize(state))


def read_weights(path: Path) -> dict[str, Tensor]:
    """What :func:`set_aside` wrote.

    Raises:
        UsageError: not there, or damaged.
    """
    try:
        return load_file(path)
    except _DAMAGE as error:
        raise UsageError(f"{path} cannot be read: start again in another run folder") from error


def found(folder: Path) -> list[Path]:
    """The checkpoints in ``folder``, oldest first."""
    paths = folder.glob("epoch-*.safetensors")
    return sorted(paths, key=lambda path: [int(part) for part in re.findall(r"\d+", path.stem)])


def load_newest(
    folder: Path, network: nn.Module, optimizer: torch.optim.Optimizer
) -> Position | None:
    """Restore the newest readable checkpoint; a damaged one is named and the one before is used.

    Returns:
        The position, or None where there is no checkpoint.

    Raises:
        UsageError: there are checkpoints, and none can be read.
    """
    paths = found(folder)
    for path in reversed(paths):
        try:
            return _load(path, network, optimizer)
        except _DAMAGE as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            log.warning("checkpoint %s is damaged (%s): using the one before", path, reason)
    if paths:
        raise UsageError(
            f"no checkpoint in {folder} can be read: start again in another run folder"
        )
    return None


def _load(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> Position:
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["state"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    state: dict[int, dict[str, Any]] = {
        int(index): dict(values) for index, values in header["optimizer"]["numbers"].items()
    }
    weights: dict[str, Tensor] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            index, _, key = rest.partition(".")
            state.setdefault(int(index), {})[key] = value
        else:
            weights[rest] = value
    network.load_state_dict(weights)
    optimizer.load_state_dict({"state": state, "param_groups": header["optimizer"]["groups"]})
    _lay_out(optimizer)
    return Position(**header["position"])


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Give the optimizer's buffers the memory layout of their parameters.

    A file keeps no layout, and fused kernels walk through a parameter and its buffers as they lie
    in memory: with a parameter in ``channels_last`` they would take other elements' momentum.
    """
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)

"""Checkpoints: one safetensors file each, with the numbers that are not tensors in its header.

A training needs the weights, the optimizer's buffers and its position (epoch and batch) to go on:
the order of the pictures, their augmentation and dropout are functions of the seed and the
position. A file is written whole or not at all, carries a checksum of all that is in it, and the
one before the newest is kept.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from alexnet.errors import UsageError
from alexnet.files import FORMAT_VERSION, atomic_path
from alexnet.progress import log

KEPT = 2
_DAMAGE = (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError)


@dataclass
class Position:
    """Where a training stands, in plain JSON types.

    Attributes:
        epoch: the epoch that is going on, or comes next, from 0.
        batch: batches of it that are done.
        totals: sums over those batches: ``seconds``, and for each process its ``loss``, ``right``
            answers and ``images``.
        history: a record for each finished epoch, the lines of metrics.jsonl.
        best_epoch: the epoch whose weights are kept; -1 before the first.
        best_score: its score on the validation part.
        finished: nothing is left to do.
    """

    epoch: int = 0
    batch: int = 0
    totals: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = -1
    best_score: float = float("-inf")
    finished: bool = False


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint holds.

    Attributes:
        position: where the training stood.
        tensors: all of them, by name.
        numbers: what is no tensor, in JSON types.
    """

    position: Position
    tensors: dict[str, Tensor]
    numbers: dict[str, Any]


def save(folder: Path, snapshot: Snapshot) -> Path:
    """Write a checkpoint and remove all but the newest :data:`KEPT`."""
    position = snapshot.position
    copies = {name: t.detach().cpu().contiguous() for name, t in snapshot.tensors.items()}
    state = json.dumps({"position": vars(position), "numbers": snapshot.numbers})
    header = {
        "format_version": str(FORMAT_VERSION),
        "state": state,
        "sha256": _checksum(state, copies),
    }
    path = folder / f"epoch-{position.epoch:04d}-batch-{position.batch:06d}.safetensors"
    with atomic_path(path) as temporary:
        try:
            save_file(_unshared(copies), temporary, metadata=header)
        except SafetensorError as error:
            raise _system_error(error) from error
    for old in found(folder)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of which no two lie in the same memory, which the format does not allow."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        start = tensor.untyped_storage().data_ptr()
        result[name] = tensor.clone() if start in seen else tensor
        seen.add(start)
    return result


def _checksum(state: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the header's text and of every tensor's name, shape, type and bytes."""
    digest = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _system_error(error: SafetensorError) -> OSError:
    """What the system said about a write; safetensors puts its number into a text."""
    number = re.search(r"os error (\d+)", str(error))
    code = int(number[1]) if number else errno.EIO
    return OSError(code, os.strerror(code))


def found(folder: Path) -> list[Path]:
    """The checkpoints in ``folder``, oldest first."""
    paths = folder.glob("epoch-*.safetensors")
    return sorted(paths, key=lambda path: [int(part) for part in re.findall(r"\d+", path.stem)])


def newest(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; damaged ones are named and passed over.

    Raises:
        UsageError: there are checkpoints, and none can be read.
    """
    paths = found(folder)
    for path in reversed(paths):
        try:
            read(path)
        except _DAMAGE as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            log.warning("checkpoint %s is damaged (%s): using the one before", path, reason)
        else:
            return path
    if paths:
        raise UsageError(
            f"no checkpoint in {folder} can be read: start again in another run folder"
        )
    return None


def read(path: Path) -> Snapshot:
    """Read a checkpoint.

    Raises:
        SafetensorError, OSError, KeyError, TypeError, ValueError: it is damaged.
    """
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if header["format_version"] != str(FORMAT_VERSION):
        raise ValueError(f"its format_version is {header['format_version']!r}")
    if _checksum(header["state"], tensors) != header["sha256"]:
        raise ValueError("its checksum is another")
    state = json.loads(header["state"])
    return Snapshot(Position(**state["position"]), tensors, state["numbers"])

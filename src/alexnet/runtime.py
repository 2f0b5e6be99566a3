"""Device, precision, threads, seeds and rank: the only place that knows what machine this is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

# Threads that wait for each other must sleep, not spin: on processors that other programs use as
# well, spinning makes a small network's step up to a hundred times slower. Read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from alexnet.errors import UsageError

Precision = Literal["auto", "fp32", "bf16", "fp16"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Runtime:
    """Where the work is done, and in what precision.

    Attributes:
        device: the torch device.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``: what matrix products are computed in.
        threads: CPU threads of one operation.
        rank: this process's number, from 0.
        world_size: how many processes work together.
        channels_last: store maps with the channels innermost, which large convolutions want.
    """

    device: torch.device
    precision: str
    threads: int
    rank: int = 0
    world_size: int = 1
    channels_last: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """The precision as a torch dtype."""
        return _DTYPES[self.precision]

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which matrix products run in this precision; weights stay float32."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    @property
    def memory_format(self) -> torch.memory_format:
        """How four-dimensional tensors are laid out."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def place(self, tensor: torch.Tensor) -> torch.Tensor:
        """``tensor`` (``[N, C, H, W]``) on this device, in this layout."""
        return tensor.to(self.device, non_blocking=True, memory_format=self.memory_format)

    def place_network(self, network: torch.nn.Module) -> torch.nn.Module:
        """``network`` moved to this device, in this layout."""
        return network.to(self.device, memory_format=self.memory_format)  # type: ignore[call-overload]

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """While entered, one operation uses :attr:`threads` threads."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def to_dict(self) -> dict[str, Any]:
        """What ``auto`` became, in plain JSON types."""
        return {
            "device": str(self.device),
            "precision": self.precision,
            "threads": self.threads,
            "world_size": self.world_size,
        }


def resolve(device: str = "auto", precision: str = "auto", *, large: bool = True) -> Runtime:
    """Decide device and precision.

    Args:
        device: ``"auto"`` (a GPU where there is one, else the CPU) or a torch device name.
        precision: ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``. ``auto`` takes bf16 where the
            hardware computes in it and the network is large enough to gain by it.
        large: False for a network as small as LeNet: casts and layouts would only slow it, and on a
            busy processor threads that wait for each other do so many times over.

    Raises:
        UsageError: a device that is not here, an unknown precision, or fp16 on a CPU.
    """
    chosen = _resolve_device(device)
    if precision == "auto":
        precision = "bf16" if large and has_fast_bf16(chosen) else "fp32"
    if precision not in _DTYPES:
        raise UsageError(f"unknown precision {precision!r}: choose auto, fp32, bf16 or fp16")
    if precision == "fp16" and chosen.type == "cpu":
        raise UsageError("precision 'fp16' needs a GPU: use 'bf16' or 'fp32' on a processor")
    return Runtime(
        device=chosen,
        precision=precision,
        threads=torch.get_num_threads() if large else 1,
        rank=int(os.environ.get("RANK", "0")),
        world_size=int(os.environ.get("WORLD_SIZE", "1")),
        channels_last=large,
    )


def _resolve_device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"unknown device {name!r}: choose auto, cpu, cuda or mps") from error
    available = {
        "cpu": True,
        "cuda": torch.cuda.device_count() > (device.index or 0),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(device.type, False):
        raise UsageError(f"device {name!r} is not available here: use 'cpu' or 'auto'")
    return device


def has_fast_bf16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bf16 faster than fp32 (on a CPU: AVX-512 BF16 or AMX)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def seed_draws(seed: int, device: torch.device) -> None:
    """Seed what draws dropout masks on ``device``, and nothing else: cheap enough for each step."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)

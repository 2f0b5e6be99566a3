"""Device, precision, threads, seeds and rank: the only place that knows what machine this is."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist

from alexnet.errors import AlexnetError, FailedError, UsageError
from alexnet.torchrun import is_main, local_world_size, rank, restarts, world_size

Result = TypeVar("Result")

Precision = Literal["auto", "fp32", "bf16", "fp16", "fp64"]
_DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp64": torch.float64,
}


@dataclass(frozen=True)
class Runtime:
    """Where the work is done, and in what precision.

    Attributes:
        device: the torch device.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``: what matrix products are computed in;
            ``"fp64"`` holds the weights in double precision as well, to check others against.
        threads: CPU threads of one operation.
        rank: this process's number, from 0.
        world_size: how many processes work together.
        channels_last: store maps with the channels innermost, which large convolutions want.
        deterministic: on a GPU, take algorithms that give the same bits each time, and do not try
            out which are fastest. A processor's always do.
    """

    device: torch.device
    precision: str
    threads: int
    rank: int = 0
    world_size: int = 1
    channels_last: bool = False
    deterministic: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """The precision as a torch dtype."""
        return _DTYPES[self.precision]

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which matrix products run in this precision; weights stay as they are."""
        if self.precision in ("fp32", "fp64"):
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    @property
    def weights_dtype(self) -> torch.dtype:
        """What weights, inputs and the loss are held in: float32, or float64 for ``fp64``."""
        return torch.float64 if self.precision == "fp64" else torch.float32

    @property
    def memory_format(self) -> torch.memory_format:
        """How four-dimensional tensors are laid out."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def place(self, tensor: torch.Tensor) -> torch.Tensor:
        """``tensor`` (``[N, C, H, W]``) on this device, in this layout."""
        return tensor.to(
            self.device, self.weights_dtype, non_blocking=True, memory_format=self.memory_format
        )

    def place_network(self, network: torch.nn.Module) -> torch.nn.Module:
        """``network`` moved to this device, in this layout."""
        return network.to(self.device, self.weights_dtype, memory_format=self.memory_format)  # type: ignore[call-overload]

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """While entered, one operation uses :attr:`threads` threads.

        On a processor, a large network's memory is also kept from one step to the next, and numbers
        too small for the exponent are zero: they take a hundred times as long as others. On a GPU
        the first step tries out which algorithms are fastest, and fp32 is fp32: torch's default
        rounds what a convolution is given to TF32's 10 bits.
        """
        if self.device.type == "cpu" and self.channels_last:
            keep_freed_memory()
        cudnn = torch.backends.cudnn
        before = torch.get_num_threads(), cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32
        torch.set_num_threads(self.threads)
        small = flushes_denormals()
        torch.set_flush_denormal(True)
        if self.device.type == "cuda":
            cudnn.benchmark, cudnn.deterministic = not self.deterministic, self.deterministic
            cudnn.allow_tf32 = False
        try:
            yield
        finally:
            torch.set_num_threads(before[0])
            torch.set_flush_denormal(small)
            cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32 = before[1:]

    def to_dict(self) -> dict[str, Any]:
        """What ``auto`` became, in plain JSON types."""
        return {
            "device": str(self.device),
            "precision": self.precision,
            "threads": self.threads,
            "world_size": self.world_size,
        }


def flushes_denormals() -> bool:
    """Whether this thread takes numbers too small for float32's exponent for zero."""
    return not bool(torch.full((1,), 1e-40).mul_(1.0).any())


@functools.cache
def keep_freed_memory() -> bool:
    """Let glibc keep what is freed for the next step, instead of giving it back to the system.

    It gives tensors of more than 32 MB back at once, and a page of 4 KB that is asked for again
    must be cleared and mapped again: half of the time of AlexNet's step at 128 pictures.

    Returns:
        Whether the system's allocator took the settings; other systems have others.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of malloc.h
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, (1 << 31) - 1))


def resolve(
    device: str = "auto",
    precision: str = "auto",
    *,
    large: bool = True,
    deterministic: bool = False,
) -> Runtime:
    """Decide device and precision.

    Args:
        device: ``"auto"`` (a GPU where there is one, else the CPU) or a torch device name.
        precision: ``"auto"``, ``"fp32"``, ``"bf16"``, ``"fp16"`` or ``"fp64"``. ``auto`` takes bf16
            where the hardware computes in it and the network is large enough to gain by it.
        large: False for a network as small as LeNet: casts and layouts would only slow it, and on a
            busy processor threads that wait for each other do so many times over.
        deterministic: see :class:`Runtime`.

    Raises:
        UsageError: a device that is not here, an unknown precision, or fp16 on a CPU.
    """
    chosen = _resolve_device(device)
    if precision == "auto":
        precision = "bf16" if large and has_fast_bf16(chosen) else "fp32"
    if precision not in _DTYPES:
        raise UsageError(f"unknown precision {precision!r}: choose auto, fp32, bf16, fp16 or fp64")
    if precision == "fp16" and chosen.type == "cpu":
        raise UsageError("precision 'fp16' needs a GPU: use 'bf16' or 'fp32' on a processor")
    return Runtime(
        device=chosen,
        precision=precision,
        threads=torch.get_num_threads() if large else 1,
        rank=rank(),
        world_size=world_size(),
        channels_last=large,
        deterministic=deterministic,
    )


def _resolve_device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            own, there = _own_gpu(), torch.cuda.device_count()
            if own >= there:
                raise UsageError(
                    f"there are {there} GPUs here and {local_world_size()} processes: start as "
                    f"many (--nproc-per-node {there}), or use the processor, training.device=cpu"
                )
            return torch.device("cuda", own)
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


def _own_gpu() -> int:
    """The number of the GPU that is this process's, if there are as many."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def has_fast_bf16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bf16 faster than fp32.

    Processors do by AMX, or by AVX-512 BF16 but for Intel's, which have one unit for it and two for
    fp32: without AMX (which a virtual machine may hide) bf16 has 0.6 times the speed there.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        if torch.cpu._is_amx_tile_supported():
            return True
        return bool(torch.cpu._is_avx512_bf16_supported()) and not _is_intel()
    return False


@functools.cache
def _is_intel() -> bool:
    """Whether the processor is one of Intel's."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        told = platform.processor()
    return "GenuineIntel" in told


def seed_draws(seed: int, device: torch.device) -> None:
    """Seed what draws dropout masks on ``device``, and nothing else: cheap enough for each step."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@contextlib.contextmanager
def process_group() -> Iterator[None]:
    """While entered, the processes that ``torchrun`` started can work together.

    With one process it does nothing. Tensors on a GPU travel by NCCL, those on the CPU by gloo.

    Raises:
        FailedError: another process went away.
    """
    if world_size() == 1 or dist.is_initialized():
        yield
        return
    if torch.cuda.is_available() and _own_gpu() < torch.cuda.device_count():
        torch.cuda.set_device(_own_gpu())
    try:
        _join()
        yield
    except AlexnetError as error:
        _leave_to_main(error)
        raise
    except RuntimeError as error:
        if not _is_lost(error):
            raise
        raise FailedError(
            f"process {rank()} of {world_size()} lost another one (what stopped that one is "
            "printed above or in its own log): torchrun --max-restarts 3 starts them again by "
            "itself; else go on with --resume"
        ) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


_groups = itertools.count()


def _join() -> None:
    """Find the other processes.

    torchrun lets its workers meet in a store of its own, which after a restart still holds the
    addresses of those that are gone (PyTorch's issue 135712), as it does those of a group that came
    to its end. On one machine each start and each group have a part of the store to themselves; on
    several, set ``TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1``.
    """
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not shared or local_world_size() != world_size():
        dist.init_process_group(backend)
        return
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    place = f"start {restarts()}, group {next(_groups)}"
    store = dist.PrefixStore(place, dist.TCPStore(host, port, is_master=False))
    dist.init_process_group(backend, store=store, rank=rank(), world_size=world_size())


def _leave_to_main(error: AlexnetError) -> None:
    """Mark an error that the main process has as well as ``told``: it is the one that speaks."""
    if error.told or not dist.is_initialized():
        return
    store, name, said = dist.distributed_c10d._get_default_store(), "error", str(error)
    with contextlib.suppress(dist.DistError):  # the main process works on, or is gone
        if is_main():
            store.set(name, said)
            return
        store.wait([name], timedelta(seconds=5))
        error.told = store.get(name).decode() == said


def _is_lost(error: RuntimeError) -> bool:
    """Whether an error comes from a connection to another process."""
    said = str(error).lower()
    signs = ("connection closed", "connection reset", "broken pipe", "gloo", "nccl", "timed out")
    return isinstance(error, dist.DistError) or any(sign in said for sign in signs)


def on_main(work: Callable[[], Result]) -> Result:
    """Let the main process do something and tell the others its result, or its error.

    Args:
        work: called in the main process only; what it returns is pickled on the way to the others.

    Raises:
        AlexnetError: what ``work`` raised; in the other processes marked as ``told`` already.
    """
    if not dist.is_initialized():
        return work()
    outcome: list[Any] = [None, None]
    if is_main():
        try:
            outcome[0] = work()
        except AlexnetError as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        outcome[1].told = not is_main()
        raise outcome[1]
    result: Result = outcome[0]
    return result


def wait_for_all() -> None:
    """Return when every process is here."""
    if dist.is_initialized():
        dist.barrier()


def everywhere(holds: bool) -> bool:
    """Whether something holds in every process; all of them call it together."""
    return not add_up(torch.tensor(int(not holds))).item()


def add_up(tensor: torch.Tensor) -> torch.Tensor:
    """Replace ``tensor`` by its sum over all processes, and return it."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor

"""One training step of the network of 2012, batch 128, against the same network of stock modules.

Claims, medians of 5 rounds on the default precision here (bf16 where the processor has it):

    stock fp32   at least 4.5 times the same network of torch's own modules, as they come
    stock best   at least 3.8 times the best of that and of what torch's documentation advises for
                 it: channels_last, the fused optimizer, denormals flushed, in fp32 and by bfloat16
                 autocast
    lrn          at least 0.90 of the images a second of the network without normalization
    floor        torch's convolutions and linear layers, each measured alone, take at least 0.85 of
                 the step's time; in fp32 on a processor they take longer than all of it, where
                 the package convolves by way of the frequencies

Beside them, without a claim: the share of the package's own convolutions and linear layers where
they are others than torch's; the rival's best settings with an allocator that keeps freed memory,
as the package sets it (torch's guide advises jemalloc or TCMalloc to that end), and those compiled
as well by ``torch.compile``, where there is a compiler; it takes a minute before the first step.

    python benchmarks/step.py
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import _record
from _alternate import Side, alternate, best, ratio, serve, spread

from alexnet import runtime
from alexnet.layers.dropout import number_masks
from alexnet.models.registry import create_model
from alexnet.native import native
from alexnet.training.config import TrainingConfig
from alexnet.training.optim import build_optimizer

import torch  # isort: skip - after alexnet, which sets how its threads wait
from torch import Tensor, nn  # isort: skip
from torch.nn import functional as F  # isort: skip

BATCH = 128
ROUNDS = 5
WARMUP = 2  # rounds until a process has all the memory it will use
LEAST = {"stock fp32": 4.5, "stock best": 3.8, "lrn": 0.90, "floor": 0.85}
KEPT = {"stock, memory kept, fp32": False, "stock, memory kept, bf16": True}
COMPILED = {"stock, compiled, fp32": False, "stock, compiled, bf16": True}
"""Each with whether it is in bfloat16, and in a process of its own."""
SIDES = ("stock", *KEPT, "alexnet", "without normalization", "layers")
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
OWN = {name: f"{name}, the package's" for name in LAYERS[1:5]}
KINDS = {
    "convolutions": ("convolution", "Spectral"),
    "linear layers": ("aten::mm", "aten::addmm"),
    "response normalization": ("KernelNorm",),
    "pooling": ("_Pooled",),
    "ReLU": ("threshold_backward", "clamp_min", "relu"),
    "casts and copies": ("copy_",),
    "update": ("_fused_sgd",),
}


def stock_network() -> nn.Module:
    """The paper's network as one writes it with torch's modules."""

    def norm() -> nn.Module:
        return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, 2)

    return nn.Sequential(
        nn.Conv2d(3, 96, 11, 4), nn.ReLU(), norm(), pool(),
        nn.Conv2d(96, 256, 5, 1, 2, groups=2), nn.ReLU(), norm(), pool(),
        nn.Conv2d(256, 384, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(384, 384, 3, 1, 1, groups=2), nn.ReLU(),
        nn.Conv2d(384, 256, 3, 1, 1, groups=2), nn.ReLU(), pool(), nn.Flatten(),
        nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(),
        nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(),
        nn.Linear(4096, 1000),
    )  # fmt: skip


def batch(size: int = BATCH) -> tuple[Tensor, Tensor]:
    """Pictures of noise and their labels."""
    return torch.randn(size, 3, 227, 227), torch.arange(size) % 1000


def stock_step(advised: bool, bf16: bool = False, compiled: bool = False) -> Callable[[], None]:
    """The usual loop's step, as it comes or with what torch's documentation advises."""
    layout = torch.channels_last if advised else torch.contiguous_format
    network = stock_network().to(memory_format=layout)  # type: ignore[call-overload]
    if compiled:
        network.compile()
    settings: dict[str, Any] = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
    optimizer = torch.optim.SGD(network.parameters(), **settings, fused=advised or None)
    inputs, labels = batch()
    inputs = inputs.to(memory_format=layout)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(network(inputs), labels)
        loss.backward()
        optimizer.step()

    return step


def package_step(size: int = BATCH, **arguments: Any) -> Callable[[], None]:
    """The package's: its layers, precision, layout, optimizer and numbered dropout masks."""
    chosen = runtime.resolve()
    network = chosen.place_network(create_model("alexnet", **arguments)).train()
    optimizer = build_optimizer(network, TrainingConfig(optimizer="paper"))
    inputs, labels = batch(size)
    labels %= arguments.get("num_classes", 1000)
    inputs, rows = chosen.place(inputs), torch.arange(size)
    numbers = iter(range(1 << 30))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        number_masks(network, 0, next(numbers), rows)
        with chosen.autocast():
            logits = network(inputs)
        F.cross_entropy(logits, labels).backward()
        optimizer.step()

    return step


def alone(name: str, own: bool = False) -> Callable[[], None]:
    """One layer forward and backward, on numbers of the precision it has in the step.

    A convolution is torch's, or with ``own`` the package's.
    """
    chosen = runtime.resolve()
    network = create_model("alexnet")
    layer = network.get_submodule(name).to(chosen.dtype)
    if isinstance(layer, nn.Conv2d):
        layer = layer.to(memory_format=chosen.memory_format)  # type: ignore[call-overload]
    shapes = dict(zip(LAYERS, (
        (3, 227, 227), (96, 27, 27), (256, 13, 13), (384, 13, 13), (384, 13, 13),
        (9216,), (4096,), (4096,),
    ), strict=True))  # fmt: skip
    x = torch.randn(BATCH, *shapes[name]).to(chosen.dtype)
    if x.dim() == 4:
        x = x.to(memory_format=chosen.memory_format)
    x.requires_grad_(name != "conv1")
    wanted = [*layer.parameters(), *([x] if name != "conv1" else [])]
    direct = isinstance(layer, nn.Conv2d) and not own
    call = functools.partial(nn.Conv2d.forward, layer) if direct else layer
    gradient = torch.randn_like(call(x).detach())

    def work() -> None:
        torch.autograd.grad(call(x), wanted, gradient)

    return work


def arms(side: str) -> dict[str, Callable[[], float]]:
    """What one process measures, in seconds."""
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    if side == "layers":
        runtime.keep_freed_memory()
        chosen = {name: alone(name) for name in LAYERS}
        if runtime.resolve().precision == "fp32":
            chosen |= {told: alone(name, own=True) for name, told in OWN.items()}
    elif side == "alexnet":
        runtime.keep_freed_memory()
        chosen = {"alexnet": package_step()}
    elif side == "without normalization":
        runtime.keep_freed_memory()
        chosen = {"alexnet without normalization": package_step(norm="none")}
    elif side == "stock":
        chosen = {
            "stock, fp32": stock_step(False),
            "stock, advised, fp32": stock_step(True),
            "stock, advised, bf16": stock_step(True, bf16=True),
        }
    else:
        runtime.keep_freed_memory()
        bf16 = {**KEPT, **COMPILED}[side]
        chosen = {side: stock_step(True, bf16, side in COMPILED)}
    return {name: functools.partial(seconds, work) for name, work in chosen.items()}


def seconds(work: Callable[[], None]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def profile() -> dict[str, float]:
    """Milliseconds of one step by kind of work, the median of 9 steps.

    What the profiler takes breaks up the memory that a step would use again; so much is kept at
    hand that no step has to ask the system for more.
    """
    runtime.keep_freed_memory()
    step = package_step()
    step()
    spare = torch.ones(1 << 28)
    step()
    del spare
    found: dict[str, list[float]] = {}
    for _ in range(9):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            step()
        times = dict.fromkeys((*KINDS, "everything else"), 0.0)
        for event in profiler.events() or ():
            times[kind_of(event)] += event.self_cpu_time_total / 1e3
        for kind, value in times.items():
            found.setdefault(kind, []).append(value)
    return {kind: sorted(values)[4] for kind, values in found.items()}


def kind_of(event: Any) -> str:
    """What an operation is part of: of the outermost that is of a kind."""
    found = "everything else"
    while event is not None:
        for kind, parts in KINDS.items():
            if any(part in event.name for part in parts):
                found = kind
        event = event.cpu_parent
    return found


def summary(
    times: dict[str, list[float]], beside: dict[str, list[float]], parts: dict[str, float]
) -> dict[str, Any]:
    """Ratios, and whether the claims hold; ``beside`` has what was measured with the compiled."""
    ours = times["alexnet"]
    floor = [sum(values) for values in zip(*(times[name] for name in LAYERS), strict=True)]
    own = (
        [
            sum(values)
            for values in zip(*(times[OWN.get(name, name)] for name in LAYERS), strict=True)
        ]
        if set(OWN.values()) <= set(times)
        else []
    )
    as_it_comes = times["stock, fp32"]
    advised = times["stock, advised, fp32"], times["stock, advised, bf16"]
    ratios = {
        "stock fp32": ratio(as_it_comes, ours),
        "stock best": ratio(best(as_it_comes, *advised), ours),
        "stock best, memory kept": ratio(best(*(times[name] for name in KEPT)), ours),
        "lrn": ratio(times["alexnet without normalization"], ours),
        "floor": ratio(floor, ours),
    }
    if own:
        ratios["own layers"] = ratio(own, ours)
    if beside:
        rivals = [beside[name] for name in COMPILED]
        ratios["stock best, compiled"] = ratio(best(*rivals), beside["alexnet"])
    return {
        "claim": f"times as fast, or the share: at least {LEAST}",
        "batch_size": BATCH,
        "runtime": runtime.resolve().to_dict(),
        "ratios": ratios,
        "seconds": {name: spread(values) for name, values in {**beside, **times}.items()},
        "images_a_second": {
            name: spread([BATCH / value for value in values])
            for name, values in times.items()
            if name not in (*LAYERS, *OWN.values())
        },
        "profile_milliseconds": {kind: round(value, 1) for kind, value in parts.items()},
        "holds": all(ratios[name]["median"] >= least for name, least in LEAST.items()),
    }


def main() -> int:
    """Measure; 1 when a claim does not hold."""
    if sys.argv[1:] == ["profile"]:
        print(json.dumps(profile()))
        return 0
    if len(sys.argv) > 1:
        serve(arms(sys.argv[1]))
        return 0
    times = alternate({side: Side(command(side)) for side in SIDES}, ROUNDS, WARMUP)
    beside = {}
    if native().library is not None:  # apart: the memory of all together is over 24 GB
        compiled = {side: Side(command(side)) for side in (*COMPILED, "alexnet")}
        beside = alternate(compiled, ROUNDS, WARMUP)
    done = subprocess.run(command("profile"), stdout=subprocess.PIPE, text=True, check=True)
    result = summary(times, beside, json.loads(done.stdout))
    _record.write(__file__, ("torch",), result)
    return 0 if result["holds"] else 1


def command(side: str) -> Sequence[str]:
    """The process of one side."""
    return sys.executable, __file__, side


if __name__ == "__main__":
    sys.exit(main())

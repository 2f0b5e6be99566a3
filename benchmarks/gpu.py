"""On an NVIDIA GPU: normalization, the training step and whole epochs, beside stock modules.

Medians of 5 rounds, one arm after another in one process:

    layers LRN and max-pooling 3/2, forward and backward on 128x96x55x55 and 128x256x27x27
           together, channels_last, bf16, over torch's; beside them a copy of both maps
    step   `alexnet`, bf16, over the same network of torch's own modules: as they come (fp32), and
           with what torch's documentation advises (channels_last, bf16 autocast, the fused
           optimizer, cudnn.benchmark); and over itself without normalization
    epoch  images a second of `alexnet.train` with the paper's augmentation, over bare steps:
           pictures in the GPU's memory, and decoded anew from 500x375 JPEGs

Claims: the step is at least 1.0 times the advised one at a batch of 128, 512 and 1024; LRN at least
5 times torch's. Without a GPU nothing is measured and nothing is written.

    python benchmarks/gpu.py
    python benchmarks/gpu.py profile     what a step's time is spent on
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _record
import pipeline
import step
import torch
from _alternate import ratio, spread
from torch.nn import functional as F

import alexnet
from alexnet import runtime
from alexnet.layers import LocalResponseNorm, MaxPool2d
from alexnet.layers.dropout import number_masks
from alexnet.models.registry import create_model
from alexnet.training.config import TrainingConfig
from alexnet.training.optim import build_optimizer

SIZES = (128, 512, 1024)
ROUNDS = 5
SECONDS = 0.25  # of an arm in a round
LEAST = {"step": 1.0, "lrn": 5.0}
MAPS = ((128, 96, 55, 55), (128, 256, 27, 27))
PICTURES, LINKS = 1024, 32


def seconds(work: Callable[[], None], repeats: int) -> float:
    """Wall time of one call, the device waited for at the end."""
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(repeats):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / repeats


def alternate(arms: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    """Seconds of each arm in each round."""
    repeats = {}
    for name, work in arms.items():
        seconds(work, 5)
        repeats[name] = max(3, int(SECONDS / seconds(work, 5)))
    found: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(ROUNDS):
        for name, work in arms.items():
            found[name].append(seconds(work, repeats[name]))
    return found


def both_ways(layer: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], None]:
    """A layer forward and backward on both maps."""
    layout = torch.channels_last
    maps = [
        torch.randn(shape, device="cuda", dtype=torch.bfloat16).to(memory_format=layout)
        for shape in MAPS
    ]
    for x in maps:
        x.requires_grad_()
    gradients = [torch.randn_like(layer(x)) for x in maps]

    def work() -> None:
        for x, gradient in zip(maps, gradients, strict=True):
            torch.autograd.grad(layer(x), x, gradient)

    return work


def copied() -> Callable[[], None]:
    """A copy of both maps: a read and a write, of the five that the memory must move for it."""
    sources = [torch.randn(shape, device="cuda", dtype=torch.bfloat16) for shape in MAPS]
    targets = [torch.empty_like(source) for source in sources]

    def work() -> None:
        for source, target in zip(sources, targets, strict=True):
            target.copy_(source)

    return work


def layers() -> dict[str, Any]:
    """Response normalization and pooling."""
    ours = LocalResponseNorm(5, 1e-4, 0.75, 2.0, alpha_mode="sum")
    stock = torch.nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0)
    found = alternate(
        {
            "alexnet lrn": both_ways(ours),
            "torch lrn": both_ways(stock),
            "alexnet pooling": both_ways(MaxPool2d(3, 2)),
            "torch pooling": both_ways(torch.nn.MaxPool2d(3, 2)),
            "copy": copied(),
        }
    )
    return {
        "lrn_over_torch": ratio(found["torch lrn"], found["alexnet lrn"]),
        "pooling_over_torch": ratio(found["torch pooling"], found["alexnet pooling"]),
        "milliseconds": {name: spread([1e3 * v for v in found[name]]) for name in found},
    }


def stock_step(batch: int, advised: bool) -> Callable[[], None]:
    """The usual loop's step."""
    layout = torch.channels_last if advised else torch.contiguous_format
    network = step.stock_network().to("cuda", memory_format=layout)  # type: ignore[call-overload]
    told: dict[str, Any] = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
    optimizer = torch.optim.SGD(network.parameters(), **told, fused=advised or None)
    inputs = torch.randn(batch, 3, 227, 227, device="cuda").to(memory_format=layout)
    labels = torch.arange(batch, device="cuda") % 1000

    def work() -> None:
        torch.backends.cudnn.benchmark = advised
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=advised):
            loss = F.cross_entropy(network(inputs), labels)
        loss.backward()
        optimizer.step()

    return work


def package_step(batch: int, **arguments: Any) -> Callable[[], None]:
    """The package's, with its layers, precision, layout, optimizer and numbered masks."""
    chosen = runtime.resolve("cuda")
    network = chosen.place_network(create_model("alexnet", **arguments)).train()
    optimizer = build_optimizer(network, TrainingConfig(optimizer="paper"))
    inputs = chosen.place(torch.randn(batch, 3, 227, 227)).to(chosen.dtype)
    labels, rows = torch.arange(batch, device="cuda") % 1000, torch.arange(batch)
    numbers = iter(range(1 << 30))

    def work() -> None:
        torch.backends.cudnn.benchmark = True  # as while a runtime is active
        optimizer.zero_grad(set_to_none=True)
        number_masks(network, 0, next(numbers), rows)
        with chosen.autocast():
            logits = network(inputs)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    return work


def steps(batch: int) -> dict[str, Any]:
    """The step at one size."""
    found = alternate(
        {
            "alexnet": package_step(batch),
            "without normalization": package_step(batch, norm="none"),
            "stock, advised": stock_step(batch, True),
            "stock, fp32": stock_step(batch, False),
        }
    )
    ours = found["alexnet"]
    torch.cuda.empty_cache()
    return {
        "batch_size": batch,
        "over": {name: ratio(values, ours) for name, values in found.items() if name != "alexnet"},
        "images_a_second": {n: spread([batch / v for v in values]) for n, values in found.items()},
    }


def epochs(bare: float) -> dict[str, Any]:
    """Images a second of the second of two epochs, and their share of bare steps'."""
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "data"
        parts = [range(first, first + 64) for first in range(0, PICTURES, 64)]
        with concurrent.futures.ProcessPoolExecutor() as pool:
            list(pool.map(drawn, [folder] * len(parts), parts))
        for picture in list(folder.rglob("*.jpg")):
            for number in range(1, LINKS):
                os.link(picture, picture.with_name(f"{picture.stem}-{number}.jpg"))
        for name, limit, workers in (
            ("in memory", 16.0, 0),
            ("from JPEGs, threads", 0.0, 0),
            ("from JPEGs, processes", 0.0, os.cpu_count() or 2),
        ):
            told: dict[str, Any] = {
                "training.epochs": 2,
                "training.batch_size": 512,
                "training.schedule": "cosine",
                "data.val_fraction": 0.0,
                "data.test_fraction": 0.01,
                "data.memory_gb": limit,
                "data.workers": workers,
            }
            run = Path(temporary) / name
            alexnet.train(folder, "alexnet", "paper", out=run, settings=told)
            lines = (run / "metrics.jsonl").read_text().splitlines()
            speed = json.loads(lines[-1])["images_per_second"]
            found[name] = {"images_a_second": speed, "over_bare_steps": round(speed / bare, 3)}
    return found


def drawn(folder: Path, numbers: range) -> None:
    """Some of the pictures."""
    pipeline.draw(folder, len(numbers), numbers.start)


def profile() -> None:
    """Print the kernels of ten steps, the longest first, and the time that nothing ran."""
    work = package_step(SIZES[0])
    seconds(work, 20)
    wall = seconds(work, 20)
    both = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=both) as profiler:
        seconds(work, 10)
    print(profiler.key_averages().table(sort_by="cuda_time_total", row_limit=45))
    print(f"a step takes {1e3 * wall:.3f} ms")


def main() -> int:
    """Measure; 1 when a claim does not hold."""
    if not torch.cuda.is_available():
        print("there is no GPU here: nothing is measured")
        return 0
    if sys.argv[1:] == ["profile"]:
        profile()
        return 0
    single, sizes = layers(), [steps(batch) for batch in SIZES]
    bare = sizes[1]["images_a_second"]["alexnet"]["median"]
    result: dict[str, Any] = {
        "claim": f"times as fast, at least {LEAST}",
        "gpu": torch.cuda.get_device_name(),
        "layers": single,
        "steps": sizes,
        "epochs": epochs(bare),
    }
    result["holds"] = single["lrn_over_torch"]["median"] >= LEAST["lrn"] and all(
        size["over"]["stock, advised"]["median"] >= LEAST["step"] for size in sizes
    )
    _record.write(__file__, ("torch", "triton"), result, result["gpu"])
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())

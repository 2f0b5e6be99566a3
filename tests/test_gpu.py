"""On an NVIDIA GPU: the same numbers as on a processor. Without one, all of it is skipped."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import alexnet
from alexnet import runtime
from alexnet.data import open_data
from alexnet.data.ahead import ahead
from alexnet.data.loader import MemoryPixels, Pixels, StreamedPixels, load_pixels
from alexnet.layers import LocalResponseNorm, MaxPool2d, local_response_norm
from alexnet.layers.lrn_kernels import KernelNorm, Window, gpu_kernel, plain
from alexnet.models import create_model, input_spec

Command = Callable[..., "subprocess.CompletedProcess[str]"]
Draw = Callable[..., Path]

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

GPU = torch.device("cuda", 0)


def test_triton_is_here_and_used() -> None:
    assert gpu_kernel() is not None
    x = torch.rand(2, 8, 3, 3, device=GPU, requires_grad=True)
    assert "KernelNorm" in type(local_response_norm(x, 5).grad_fn).__name__


@pytest.mark.parametrize(  # each is compiled anew, about a second
    ("dtype", "layout", "groups", "window"),
    [
        (torch.float32, "maps", 1, Window(2, 2, 1e-4, 0.75, 2.0)),
        (torch.float32, "channels last", 2, Window(2, 2, 0.3, 0.75, 2.0, rectify=True)),
        (torch.bfloat16, "channels last", 1, Window(2, 2, 0.3, 0.75, 2.0, rectify=True)),
        (torch.bfloat16, "maps", 2, Window(3, 1, 0.5, 0.6, 1.0)),
        (torch.float16, "channels last", 2, Window(2, 2, 0.3, 0.75, 2.0)),
        (torch.float16, "neither", 1, Window(0, 0, 0.2, 1.25, 0.5)),
        (torch.float32, "channels last", 1, Window(9, 9, 0.02, 0.75, 1.0)),
    ],
)
def test_the_kernel_is_the_formula(
    dtype: torch.dtype, layout: str, groups: int, window: Window
) -> None:
    torch.manual_seed(0)
    x = (3 * torch.randn(3, 24, 17, 11, device=GPU)).to(dtype)
    if layout == "channels last":
        x = x.to(memory_format=torch.channels_last)
    elif layout == "neither":
        x = x.movedim(1, 0).contiguous().movedim(0, 1)
    g = torch.randn_like(x)
    kernel = gpu_kernel()
    assert kernel is not None
    x.requires_grad_()
    y = KernelNorm.apply(x, window, groups, kernel)
    (dx,) = torch.autograd.grad(y, x, g)
    exact = x.detach().double().requires_grad_()
    wanted = plain(exact, window, groups)
    (slope,) = torch.autograd.grad(wanted, exact, g.double())
    close = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(y.double(), wanted, rtol=close, atol=close)
    torch.testing.assert_close(dx.double(), slope, rtol=8 * close, atol=8 * close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("size", "stride", "ceil"), [(3, 2, False), (3, 2, True), (2, 2, False)])
def test_pooling_is_torchs(dtype: torch.dtype, size: int, stride: int, ceil: bool) -> None:
    torch.manual_seed(0)
    x = torch.randint(0, 50, (5, 24, 13, 10), device=GPU).to(dtype)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    y = MaxPool2d(size, stride, ceil_mode=ceil)(x)
    assert "_Pooled" in type(y.grad_fn).__name__
    wanted = torch.nn.functional.max_pool2d(x, size, stride, ceil_mode=ceil)
    assert torch.equal(y, wanted)
    g = torch.randint_like(y, 9)
    (dx,), (slope,) = (torch.autograd.grad(pooled, x, g) for pooled in (y, wanted))
    assert torch.equal(dx, slope)


def test_a_constant_of_zero_meets_no_channel_that_is_not_there() -> None:
    x = torch.rand(2, 3, 4, 4, device=GPU).add_(0.1).requires_grad_()
    y = local_response_norm(x, 5, 1.0, 0.75, 0.0)
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert dx.isfinite().all()


def test_the_gradient_of_the_gradient() -> None:
    layer = LocalResponseNorm(5, alpha=0.3, k=2.0)
    x = torch.rand(2, 6, 3, 3, device=GPU, requires_grad=True)
    (dx,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(dx.sum(), x)
    wide = x.detach().double().requires_grad_()
    (slope,) = torch.autograd.grad(layer(wide).square().sum(), wide, create_graph=True)
    (wanted,) = torch.autograd.grad(slope.sum(), wide)
    torch.testing.assert_close(second.double(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 5])
def test_alexnet_answers_as_a_processor_does(batch: int) -> None:
    torch.manual_seed(0)
    network = create_model("alexnet", num_classes=10).eval()
    x = torch.randn(batch, 3, 227, 227)
    with torch.inference_mode():
        wanted = network(x)
        found = network.to(GPU, memory_format=torch.channels_last)(x.to(GPU)).cpu()  # type: ignore[call-overload]
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


def settings(**more: Any) -> dict[str, Any]:
    told: dict[str, Any] = {
        "training.epochs": 2,
        "training.batch_size": 10,
        "training.seed": 3,
        "data.workers": 0,
        "model.hidden": 64,
        "data.image_size": 67,
    }
    return {**told, **{name.replace("__", "."): value for name, value in more.items()}}


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(run / "model.safetensors")


def trained(data: Path, run: Path, **more: Any) -> dict[str, torch.Tensor]:
    alexnet.train(data, "alexnet", "paper", out=run, settings=settings(**more))
    return weights_of(run)


def test_training_is_that_of_a_processor(tmp_path: Path, draw_shapes: Draw) -> None:
    """Crops, mirrors, color noise and dropout masks are drawn alike; the rest is rounding."""
    data = draw_shapes(tmp_path / "data", per_class=20, side=90)
    both = [
        trained(data, tmp_path / device, training__device=device, training__precision="fp32")
        for device in ("cpu", "cuda")
    ]
    for name, wanted in both[0].items():
        off = (both[1][name] - wanted).norm() / wanted.norm()
        assert off < 1e-3, name


@pytest.mark.parametrize("memory_gb", [None, 0])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_same_bits_twice(
    tmp_path: Path, draw_shapes: Draw, precision: str, memory_gb: float | None
) -> None:
    data = draw_shapes(tmp_path / "data", per_class=12, side=90)
    told: dict[str, Any] = {
        "training__precision": precision,
        "training__deterministic": True,
        "data__memory_gb": memory_gb,
    }
    first, second = (trained(data, tmp_path / name, **told) for name in "ab")
    for name, value in first.items():
        assert value.isfinite().all()
        assert torch.equal(value, second[name]), name


def test_an_interrupted_run_of_adamw_goes_on_to_the_same_bits(
    tmp_path: Path, draw_shapes: Draw
) -> None:
    """The fused kernel wants its count of steps on the GPU, where a checkpoint's is not."""
    data = draw_shapes(tmp_path / "data", per_class=12, side=90)
    told: dict[str, Any] = {
        "training__deterministic": True,
        "training__optimizer": "adamw",
        "training__lr": 0.001,
        "training__schedule": "cosine",
        "training__keep": "last",
        "training__epochs": 30,
        "training__precision": "fp32",
        "training__device": "cuda",
        "data__val_fraction": 0.0,
    }
    wanted = trained(data, tmp_path / "whole", **told)
    line = [sys.executable, "-m", "alexnet", "train", str(data), "--model", "alexnet"]
    line += ["--recipe", "paper", "-o", str(tmp_path / "run")]
    for name, value in settings(**told).items():
        line += ["--set", f"{name}={value}"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        while not list((tmp_path / "run" / "checkpoints").glob("*")):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.communicate()
        assert process.returncode == 130
    alexnet.train(data, "alexnet", "paper", out=tmp_path / "run", resume=True)
    for name, value in weights_of(tmp_path / "run").items():
        assert torch.equal(value, wanted[name]), name


def test_in_memory_from_files_and_from_processes(tmp_path: Path, draw_shapes: Draw) -> None:
    data = open_data(str(draw_shapes(tmp_path / "data", per_class=12, side=90)), seed=0)
    spec = input_spec("alexnet", 67)
    plan = torch.randperm(len(data.train)).split(7)
    kept = load_pixels(data.train, spec, train=True)
    assert isinstance(kept, MemoryPixels)
    wanted = list(kept.batches(iter(plan)))
    near = kept.near(GPU)
    assert isinstance(near, MemoryPixels)
    assert near.images.is_cuda
    streams: list[Pixels] = [near, MemoryPixels(kept.images, kept.labels, kept.names, pinned=True)]
    for workers in (0, 2):
        read = load_pixels(data.train, spec, train=True, workers=workers, memory_limit=0)
        streamed = read.near(GPU)
        assert isinstance(streamed, StreamedPixels)
        assert streamed.pinned
        streams.append(streamed)
    for pixels in streams:
        found = list(ahead(pixels.batches(iter(plan)), GPU))
        assert len(found) == len(wanted)
        for (images, labels, _), (pictures, classes, _) in zip(found, wanted, strict=True):
            assert images.is_cuda
            assert torch.equal(images.cpu(), pictures)
            assert torch.equal(labels.cpu(), classes)


def test_pictures_beyond_half_of_the_free_memory_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = MemoryPixels(torch.zeros(8, 3, 4, 4, dtype=torch.uint8), torch.zeros(8), ["a"] * 8)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * 8 * 48 - 1, 1 << 40))
    near = kept.near(GPU)
    assert near.pinned
    assert not near.images.is_cuda
    (batch,) = near.batches([torch.arange(3)])
    assert batch[0].is_pinned()


def test_it_scores_as_a_processor_does() -> None:
    results = [
        alexnet.evaluate("lenet5/mnist-5k", "mnist-5k", device=device, precision="fp32")
        for device in ("cpu", "cuda")
    ]
    assert results[0].top1 == results[1].top1
    assert (results[0].confusion == results[1].confusion).all()
    assert math.isclose(results[0].loss, results[1].loss, rel_tol=1e-4)


def test_the_commands_take_it(tmp_path: Path, draw_shapes: Draw, alexnet_command: Command) -> None:
    data = draw_shapes(tmp_path / "data", per_class=12, side=90)
    run = tmp_path / "run"
    line = ["train", data, "--model", "alexnet", "--set", "data.image_size=67", "-o", run]
    line += ["--set", "training.epochs=1", "--set", "model.hidden=64"]
    done = alexnet_command(*map(str, line))
    assert not done.returncode, done.stderr
    told = json.loads((run / "config.json").read_text())["runtime"]
    assert told["device"].startswith("cuda")
    assert told["precision"] == "bf16"
    picture = next((data / "circle").iterdir())
    done = alexnet_command("predict", run, picture, "--json")
    assert not done.returncode, done.stderr
    assert torch.cuda.get_device_name() in alexnet_command("doctor").stdout


def test_algorithms_are_tried_out_only_while_it_works() -> None:
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32
    with runtime.resolve("cuda").active():
        assert (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32) == (True, False, False)
    with runtime.resolve("cuda", deterministic=True).active():
        assert (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32) == (False, True, False)
    assert (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32) == before

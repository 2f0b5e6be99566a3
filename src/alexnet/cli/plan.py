"""``alexnet plan``."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from alexnet.cli.options import Common


def plan(
    *,
    model: Annotated[str, Parameter(alias="-m")] = "alexnet",
    gpus: int = 1024,
    network: float = 100.0,
    latency: float = 5.0,
    parallel: Literal["ddp", "hybrid", "towers", "all"] = "all",
    batch_size: int = 128,
    total_batch_size: int | None = None,
    images: int = 1_281_167,
    epochs: int = 90,
    step: Annotated[tuple[str, ...], Parameter(show_default=False)] = (),
    device_tflops: float | None = None,
    memory_bandwidth: float | None = None,
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    device: str = "auto",
    optimizer: Literal["sgd", "adamw"] = "sgd",
    common: Common = Common(),
) -> None:
    """Tell time, memory and traffic of a training before it is paid for.

    A step is measured on this machine (some seconds), or given by --step or --device-tflops. The
    training on 1, 2, 4, ... devices follows from it: 'step' is with gradients sent during the
    backward pass, 'apart' with nothing at the same time; the truth lies between. Reading pictures
    and validation are not counted.

    For example:

        alexnet plan
        alexnet plan --gpus 8 --network 48 --step 0.39@128 --precision fp32
        alexnet plan --parallel ddp --total-batch-size 32768 --device-tflops 1.3 --epochs 100

    Args:
        model: A name of 'alexnet models', or torchvision:NAME or timm:NAME.
        gpus: The largest number of devices.
        network: Gbit/s that each device can send while it receives as many.
        latency: Microseconds that a message takes beside its bytes.
        parallel: ddp averages all gradients; hybrid splits the fully connected layers (Krizhevsky
            2014); towers puts half of every layer on each of two devices (2012).
        batch_size: Pictures a step on each device.
        total_batch_size: Pictures a step on all devices together instead, divided among them.
        images: Training pictures; ImageNet's by default.
        epochs: Times that they are gone through.
        step: A step measured elsewhere, as SECONDS@PICTURES. Repeatable: two sizes tell what a
            step costs beside its pictures.
        device_tflops: Instead of measuring, 10^12 operations a second that a device sustains (not
            its peak).
        memory_bandwidth: GB/s of a device's memory, with --device-tflops or one --step: what a
            step moves whatever its batch then takes its own time.
        precision: What matrix products are computed in; gradients are float32 in each.
        device: Where to measure.
        optimizer: SGD with momentum, or AdamW.
    """
    from alexnet import plan_training
    from alexnet.cli.output import emit, say, table
    from alexnet.tasks.scaling.show import COLUMNS, describe, lines
    from alexnet.tasks.scaling.steps import read_steps

    found = plan_training(
        model,
        gpus=gpus,
        network=network,
        latency=latency,
        batch_size=batch_size,
        total_batch_size=total_batch_size,
        parallel=parallel,
        images=images,
        epochs=epochs,
        step=read_steps(step),
        device_tflops=device_tflops,
        memory_bandwidth=memory_bandwidth,
        precision=precision,
        device=device,
        optimizer=optimizer,
    )
    if common.json:
        emit(found.to_dict())
        return
    say(describe(found))
    for title, rows in lines(found):
        say()
        table(COLUMNS, rows, title=title)

"""``alexnet train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from alexnet.cli.options import Common, Settings


def train(
    data: str,
    /,
    *,
    out: Annotated[Path, Parameter(alias="-o")],
    model: Annotated[str, Parameter(alias="-m")] = "lenet5",
    recipe: str | None = None,
    resume: bool = False,
    settings: Settings = Settings(),
    common: Common = Common(),
) -> None:
    """Train a network from scratch.

    With few pictures and no GPU, 'alexnet finetune' gets further.

    For example:

        alexnet train mnist-5k --model lenet5 -o runs/digits
        alexnet train photos/ --model alexnet_bn -o runs/photos --set training.epochs=30

    Args:
        data: mnist-5k (bundled), mnist, fashion-mnist, cifar10 and others by name; a folder with
            one folder a class, which may have train/, val/ and test/ of its own; what 'alexnet
            prepare' wrote; imagenet:PATH; or hf:OWNER/NAME.
        out: The run folder to write; one that exists is refused without --resume.
        model: A name of 'alexnet models', or torchvision:NAME or timm:NAME.
        recipe: How to train; the model's own by default.
        resume: Go on where an interrupted run stopped.
    """
    from alexnet import train as run_training
    from alexnet.cli.run import show_run

    run = run_training(
        data, model=model, recipe=recipe, out=out, resume=resume, settings=settings.read()
    )
    show_run(run, data, as_json=common.json)

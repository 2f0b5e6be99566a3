"""``alexnet train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from alexnet.cli.options import Common, Settings
from alexnet.errors import UsageError


def train(
    data: str,
    /,
    *,
    out: Annotated[Path | None, Parameter(alias="-o")] = None,
    model: Annotated[str, Parameter(alias="-m")] = "lenet5",
    recipe: str | None = None,
    parallel: Literal["ddp", "hybrid", "towers"] | None = None,
    resume: bool = False,
    dry_run: bool = False,
    settings: Settings = Settings(),
    common: Common = Common(),
) -> None:
    """Train a network from scratch.

    With few pictures and no GPU, 'alexnet finetune' gets further.

    For example:

        alexnet train mnist-5k --model lenet5 -o runs/digits
        alexnet train photos/ --model alexnet_bn -o runs/photos --set training.epochs=30
        alexnet train photos/ --model alexnet --recipe paper --dry-run
        torchrun --nproc-per-node 2 -m alexnet train photos/ --model alexnet -o runs/photos

    Args:
        data: mnist-5k (bundled), mnist, fashion-mnist, cifar10 and others by name; a folder with
            one folder a class, which may have train/, val/ and test/ of its own; what 'alexnet
            prepare' wrote; imagenet:PATH; or hf:OWNER/NAME.
        out: The run folder to write; one that exists is refused without --resume.
        model: A name of 'alexnet models', or torchvision:NAME or timm:NAME.
        recipe: How to train; the model's own by default.
        parallel: How the processes that torchrun started share a step: ddp (each takes pictures),
            hybrid (and fc6 to fc8 are divided among them) or towers (two processes, a tower each).
        resume: Go on where an interrupted run stopped.
        dry_run: Take a few steps and print the settings, the number of steps, the memory and the
            time that the training would need; nothing is written.
    """
    told = settings.read() | ({"training.parallel": parallel} if parallel else {})
    if dry_run:
        from alexnet.cli.run import show_rehearsal
        from alexnet.tasks.rehearse import rehearse

        show_rehearsal(rehearse(data, model, recipe, settings=told), as_json=common.json)
        return
    if out is None:
        raise UsageError("'alexnet train' needs --out, the run folder to write: -o runs/1")
    from alexnet import train as run_training
    from alexnet.cli.run import show_run

    run = run_training(data, model=model, recipe=recipe, out=out, resume=resume, settings=told)
    show_run(run, data, as_json=common.json)

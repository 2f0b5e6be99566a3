"""``alexnet finetune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from alexnet.cli.options import Common, Settings


def finetune(
    data: str,
    /,
    *,
    out: Annotated[Path, Parameter(alias="-o")],
    model: Annotated[str, Parameter(alias="-m")] = "alexnet_owt",
    weights: Annotated[str, Parameter(alias="-w")] = "imagenet1k-features",
    resume: bool = False,
    settings: Settings = Settings(),
    common: Common = Common(),
) -> None:
    """Make a classifier of your own pictures, from features learned on ImageNet.

    A few dozen pictures a class and two cores are enough. Broken files are skipped and listed in
    bad_images.csv; report.html in the run folder shows how well it went.

    For example:

        alexnet finetune photos/ -o runs/photos

    where photos/ has one folder a class, such as photos/cat/1.jpg and photos/dog/2.jpg.

    Args:
        data: A folder with one folder a class (it may have train/, val/ and test/ of its own), or a
            data set by name, such as mnist-5k.
        out: The run folder to write; one that exists is refused without --resume.
        model: The network; the weights must be of it.
        weights: What to start from: a name of 'alexnet weights list', a file, a run folder or
            hf:OWNER/NAME.
        resume: Go on where an interrupted run stopped.
    """
    from alexnet import finetune as run_finetuning
    from alexnet.cli.run import show_run

    run = run_finetuning(
        data, out, model=model, weights=weights, resume=resume, settings=settings.read()
    )
    show_run(run, data, as_json=common.json)

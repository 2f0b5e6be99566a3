"""``alexnet weights list|show|convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cyclopts import App

from alexnet.cli.options import WHAT_THERE_IS, Common

weights = App(
    name="weights",
    help="List trained weights, show where they come from, convert them.",
    group=WHAT_THERE_IS,
)


@weights.command(name="list")
def list_all(model: str | None = None, /, *, common: Common = Common()) -> None:
    """List the weights that go by a name.

    For example:

        alexnet weights list
        alexnet weights list lenet5

    Args:
        model: Only those of this network.
    """
    from alexnet.cli.output import emit, table
    from alexnet.models.weights import list_weights

    found = list_weights(model)
    if common.json:
        for record in found:
            emit(record.to_dict())
        return
    columns = ["model", "weights", "covers", "classes", "license"]
    rows = (
        (one.model, one.name, one.covers, len(one.classes) if one.classes else None, one.licence)
        for one in found
    )
    table(columns, rows)


@weights.command
def show(name: str, /, *, model: str | None = None, common: Common = Common()) -> None:
    """Show one set of weights: source, license, preprocessing, metrics, the command that made it.

    For example:

        alexnet weights show imagenet1k-features

    Args:
        name: A name of 'alexnet weights list'.
        model: The network, where several have weights of that name.
    """
    from alexnet.cli.output import emit, flatten, pairs
    from alexnet.models.weights import get_weights

    record = get_weights(name, model).to_dict()
    if common.json:
        emit(record)
    else:
        pairs(
            {
                key: flatten(value)
                for key, value in record.items()
                if value not in (None, "", {}, [])
            }
        )


@weights.command
def convert(
    source: str,
    target: Path,
    /,
    *,
    to: Literal["torchvision", "alexnet"] = "torchvision",
    common: Common = Common(),
) -> None:
    """Rewrite weights of alexnet_owt in torchvision's layout, or torchvision's in ours.

    The result is a .safetensors file whose keys are those of torchvision.models.alexnet
    (features.0.weight, ...) or of this package (conv1.weight, ...).

    For example:

        alexnet weights convert runs/owt torchvision.safetensors
        alexnet weights convert alexnet-places.pth ours.safetensors --to alexnet

    Args:
        source: A run folder, a .safetensors, .pth or .pt file, weights by name, or hf:OWNER/NAME.
        target: The file to write.
        to: The layout of the result.
    """
    from alexnet.cli.output import emit, say
    from alexnet.tasks.convert import convert_weights

    count = convert_weights(source, target, to)
    if common.json:
        emit({"weights": str(target), "layout": to, "tensors": count})
    else:
        say(f"{target}: {count} tensors in the layout of {to}")

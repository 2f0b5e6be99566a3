"""``alexnet summary``."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from alexnet.cli.options import Common, split_assignment


def summary(
    model: str,
    /,
    *,
    num_classes: int | None = None,
    image_size: int | None = None,
    assignments: Annotated[tuple[str, ...], Parameter(name="--set", show_default=False)] = (),
    common: Common = Common(),
) -> None:
    """Show a network layer by layer, as a lecture would: maps, kernels, parameters, MACs.

    For example:

        alexnet summary alexnet
        alexnet summary torchvision:vgg11 --num-classes 10

    Args:
        model: A name of 'alexnet models', or torchvision:NAME or timm:NAME.
        num_classes: Outputs; the published number by default.
        image_size: Side of the input in pixels; the published one by default.
        assignments: An argument of the network, as model.NAME=VALUE: model.groups=1,
            model.norm=none. Repeatable.
    """
    from alexnet.cli.output import emit, say, table
    from alexnet.tasks.catalog import describe

    arguments = dict(map(split_assignment, assignments))
    facts, rows = describe(
        model, num_classes=num_classes, image_size=image_size, settings=arguments
    )
    if common.json:
        emit({**facts, "layers": [row.to_dict() for row in rows]})
        return
    heading = f"{facts['name']}: {facts['description']}"
    say(f"{heading}\n{facts['paper']}\n" if facts["paper"] else f"{heading}\n")
    columns = [
        "layer", "kind", "maps", "size", "kernel", "stride", "pad", "groups", "then",
        "parameters", "MACs",
    ]  # fmt: skip
    table(columns, ([value or None for value in row.to_dict().values()] for row in rows))
    say()
    fixed = f" and {facts['fixed_parameters']:,} fixed" if facts["fixed_parameters"] else ""
    size = "x".join(map(str, facts["input"]))
    say(f"{facts['parameters']:,} parameters{fixed}; {facts['macs']:,} MACs for one {size} picture")

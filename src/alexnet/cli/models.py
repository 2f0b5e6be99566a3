"""``alexnet models``."""

from __future__ import annotations

from alexnet.cli.options import Common


def models(*, common: Common = Common()) -> None:
    """List the networks: year, size, and what a picture must be.

    MACs are the multiplications of the convolutions and linear layers for one picture. Any
    torchvision or timm network goes by a prefix, as torchvision:vgg11 or timm:resnet18.

    For example:

        alexnet models
    """
    from alexnet.cli.output import emit, table
    from alexnet.tasks.catalog import list_facts

    facts = list_facts()
    if common.json:
        for fact in facts:
            emit(fact)
        return
    columns = ["name", "year", "parameters", "fixed", "MACs", "input", "what it is"]
    table(
        columns,
        (
            (
                fact["name"],
                str(fact["year"]),
                fact["parameters"],
                fact["fixed_parameters"],
                fact["macs"],
                "x".join(map(str, fact["input"])),
                fact["description"],
            )
            for fact in facts
        ),
    )

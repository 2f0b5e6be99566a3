"""``alexnet ablate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from alexnet.cli.options import Common, Settings


def ablate(
    *,
    data: Annotated[str, Parameter(alias="-d")],
    out: Annotated[Path, Parameter(alias="-o")],
    model: Annotated[str, Parameter(alias="-m")] = "alexnet_cifar",
    seeds: int = 5,
    minutes: float = 25.0,
    settings: Settings = Settings(),
    common: Common = Common(),
) -> None:
    """Measure what each of AlexNet's ideas brings: ReLU, overlapping pooling, LRN, dropout, ...

    Trains the network with and without each of them, in pairs of the same seed, and up the stairs
    from LeNet's choices to AlexNet's. Started again, it trains nothing twice.

    For example:

        alexnet ablate --data mnist-5k -o runs/ablation

    Args:
        data: A folder with one folder a class, or a data set by name.
        out: Folder for ablation.json, ablation.md and report.html.
        model: alexnet_cifar, the paper's network for small pictures, or another AlexNet.
        seeds: How many pairs.
        minutes: That all trainings together may take; the number of epochs follows from it.
    """
    from alexnet.cli.output import emit, percent, say, table
    from alexnet.tasks.ablation import ablate
    from alexnet.tasks.ablation.page import diverged

    result = ablate(data, out, model=model, seeds=seeds, minutes=minutes, settings=settings.read())
    if common.json:
        emit(result)
        return
    table(
        ["innovation", "instead", "top-1 without", "difference", "n"],
        [
            (
                row["name"],
                row["against"],
                percent(row["top1"]),
                f"{100 * row['difference']:+.2f}",
                row["n"],
            )
            for row in result["innovations"]
        ],
    )
    say()
    for row in result["innovations"]:
        say(row["sentence"])
    say()
    table(
        ["from LeNet to AlexNet", "top-1"],
        [(row["name"], percent(row["top1"])) for row in result["stairs"]],
    )
    say()
    say(result["race"]["sentence"])
    if result["processes"]:
        say(result["processes"]["sentence"])
    for sentence in diverged(result):
        say(sentence)
    say(f"with curves: {out / 'report.html'}")

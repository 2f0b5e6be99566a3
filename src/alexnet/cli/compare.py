"""``alexnet compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from alexnet.cli.options import Common, Settings


def compare(
    *models: str,
    data: Annotated[str, Parameter(alias="-d")],
    out: Annotated[Path, Parameter(alias="-o")],
    minutes: float = 15.0,
    image_size: int | None = None,
    settings: Settings = Settings(),
    common: Common = Common(),
) -> None:
    """Set networks side by side: the lecture's table, measured on your pictures.

    Trains each on the same pictures, with the same time, and tests it on the same others. Started
    again, it goes on where it was interrupted.

    For example:

        alexnet compare lenet5 alexnet --data mnist-5k -o runs/compared
        alexnet compare alexnet torchvision:vgg11 hog-svm -d photos/ --minutes 2 -o runs/three

    Args:
        models: Names of 'alexnet models', torchvision:NAME, timm:NAME, run folders, or hog-svm,
            the hand-made features that AlexNet displaced.
        data: A folder with one folder a class, or a data set by name.
        out: Folder for the runs, report.html, compare.json, compare.csv and compare.md.
        minutes: Of training for each network, at most; a recipe may need less.
        image_size: Side of the input in pixels, of networks that take any; smaller is faster.
    """
    from alexnet.cli.output import emit, say, table
    from alexnet.tasks.comparison import compare
    from alexnet.tasks.report import comparison_table

    result = compare(
        models, data, out, minutes=minutes, image_size=image_size, settings=settings.read()
    )
    if common.json:
        emit(result)
        return
    rows = result["models"]
    table(
        ["", *(row["name"] for row in rows)], [(n, *cells) for n, cells in comparison_table(rows)]
    )
    say()
    say(f"side by side, with curves and filters: {out / 'report.html'}")

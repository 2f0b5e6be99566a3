"""``alexnet demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from alexnet.cli.options import Common


def demo(
    *,
    out: Annotated[Path, Parameter(alias="-o")] = Path("runs/demo"),
    common: Common = Common(),
) -> None:
    """Set LeNet (1998) against AlexNet on bundled handwritten digits, in two minutes.

    Trains LeNet-5 from scratch and AlexNet from features learned on ImageNet, on the same 4,000
    digits, tests both on 1,000 others, and prints them side by side. Nothing is downloaded.

    For example:

        alexnet demo -o runs/demo

    Args:
        out: Folder for report.html, demo.json and the two runs.
    """
    from alexnet.cli.output import emit, say, table
    from alexnet.tasks.demo import comparison_rows, run_demo

    result = run_demo(out)
    if common.json:
        emit(result)
        return
    table(["", "LeNet", "AlexNet"], comparison_rows(result))
    say()
    say(f"side by side, with curves and filters: {out / 'report.html'}")
    say("next, with one folder a class of your own photos:")
    say("  alexnet finetune photos/ -o runs/photos")
    say("  alexnet predict runs/photos new.jpg")

"""``alexnet calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from alexnet.cli.options import Common


def calibrate(
    run: Path,
    /,
    *,
    data: Annotated[str, Parameter(alias="-d")],
    split: Literal["train", "val", "test"] = "val",
    batch_size: int = 256,
    common: Common = Common(),
) -> int:
    """Make a run's probabilities mean what they say: of answers given 80%, 80% should be right.

    Fits one number, the temperature that logits are divided by, to labeled pictures that the
    network did not learn from, and keeps it in the run; predict and evaluate then use it. The order
    of the classes does not change.

    For example:

        alexnet calibrate runs/photos --data photos/

    Args:
        run: A run folder.
        data: A folder with one folder a class, or a data set by name.
        split: Which part of the data; not the one that the network is judged by in the end.
        batch_size: Pictures at a time.
    """
    from alexnet.cli.output import emit, pairs, percent
    from alexnet.tasks.calibrate import calibrate

    found = calibrate(run, data, split=split, batch_size=batch_size)
    if common.json:
        emit(found.to_dict())
        return 0
    before, after = found.calibration_error
    pairs(
        {
            "temperature": found.temperature,
            "pictures": found.images,
            "loss": f"{found.loss[0]:.4f} before, {found.loss[1]:.4f} after",
            "calibration error": f"{percent(before)} before, {percent(after)} after",
            "kept in": run / "config.json",
        }
    )
    return 0

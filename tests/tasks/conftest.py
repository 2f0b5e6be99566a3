"""A finished run, which several tests look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alexnet.tasks.run import Run
from alexnet.tasks.train import train

Draw = Callable[..., Path]

SMALL: dict[str, Any] = {"training.epochs": 1, "training.batch_size": 8}


@pytest.fixture(scope="session")
def finished_run(draw_shapes: Draw, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A lenet5_dense, trained for one epoch on ``shapes``, which lies beside its run folder."""
    folder = tmp_path_factory.mktemp("finished")
    return train(draw_shapes(folder / "shapes"), "lenet5_dense", out=folder / "run", settings=SMALL)

"""A finished run, which several tests look at."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a file system of so many bytes, where that is allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size: int) -> Path:
        line = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(line, capture_output=True).returncode:
            pytest.skip("file systems cannot be mounted here")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", "--lazy", str(folder)], check=True)

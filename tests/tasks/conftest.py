"""Folders of drawn shapes, which a network can tell apart after seconds of training."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from alexnet.tasks.run import Run
from alexnet.tasks.train import train

Draw = Callable[..., Path]

SHAPES = ("circle", "cross", "square")
SMALL: dict[str, Any] = {"training.epochs": 1, "training.batch_size": 8}


def draw(
    folder: Path, per_class: int = 8, side: int = 28, shapes: tuple[str, ...] = SHAPES
) -> Path:
    """Write ``per_class`` PNG pictures of each shape, in random colors, on a noisy ground."""
    random = np.random.default_rng(len(shapes))
    for shape in shapes:
        (folder / shape).mkdir(parents=True)
        for number in range(per_class):
            ground = random.integers(0, 90, (side, side, 3), dtype=np.uint8)
            picture = Image.fromarray(ground)
            color = tuple(int(value) for value in random.integers(140, 255, 3))
            x, y = (int(value) for value in random.integers(side // 10, side // 4, 2))
            box = (x, y, x + side * 5 // 8, y + side * 5 // 8)
            pen = ImageDraw.Draw(picture)
            if shape == "circle":
                pen.ellipse(box, fill=color)
            elif shape == "square":
                pen.rectangle(box, fill=color)
            else:
                pen.line(box, fill=color, width=side // 7)
                pen.line((box[0], box[3], box[2], box[1]), fill=color, width=side // 7)
            picture.save(folder / shape / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def draw_shapes() -> Draw:
    """The function that writes a folder of shapes."""
    return draw


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A lenet5_dense, trained for one epoch on ``shapes``, which lies beside its run folder."""
    folder = tmp_path_factory.mktemp("finished")
    return train(draw(folder / "shapes"), "lenet5_dense", out=folder / "run", settings=SMALL)


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

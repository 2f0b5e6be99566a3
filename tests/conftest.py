"""What all tests share: one torch thread a process, the command as real processes, pictures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

# Before torch is imported: two test processes on two cores, a thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")

Command = Callable[..., "subprocess.CompletedProcess[str]"]
Draw = Callable[..., Path]

SHAPES = ("circle", "cross", "square")


@pytest.fixture(scope="session")
def alexnet_command() -> Command:
    """Runs ``python -m alexnet`` with arguments; keywords go to ``subprocess.run``."""

    def run(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "alexnet", *map(str, arguments)]
        settings: dict[str, object] = {"capture_output": True, "text": True, "timeout": 240}
        return subprocess.run(line, **{**settings, **options})  # type: ignore[call-overload]

    return run


@pytest.fixture(scope="session")
def torchrun() -> Command:
    """Runs ``torchrun --nproc-per-node COUNT`` with arguments; keywords go to ``Popen``."""

    def run(
        count: int, *arguments: str | Path, timeout: float = 240, **options: object
    ) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        line += ["--nproc-per-node", str(count), *map(str, arguments)]
        pipes: dict[str, object] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        settings = {**pipes, "text": True, "start_new_session": True, **options}
        with subprocess.Popen(line, **settings) as process:  # type: ignore[call-overload]
            try:
                out, err = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # the workers, too
                raise
        return subprocess.CompletedProcess(line, process.returncode, out, err)

    return run


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

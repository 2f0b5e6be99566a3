"""What all tests share: one torch thread a process, the command as real processes, pictures."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

# Before torch is imported: two test processes on two cores, a thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

if not torch.cuda.is_available():  # before Triton is imported: a processor interprets its kernels
    os.environ["TRITON_INTERPRET"] = "1"

# A test says what is right, not how fast a busy machine is.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

Archives = Callable[..., dict[str, str]]
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


@pytest.fixture(scope="session")
def write_archives() -> Archives:
    """Writes ImageNet's archives in small, and gives synset -> words."""

    def write(
        folder: Path, synsets: int = 4, train: int = 6, val: int = 2, side: int = 40
    ) -> dict[str, str]:
        """``train`` pictures a synset, and ``val`` validation pictures a synset."""
        folder.mkdir(parents=True, exist_ok=True)
        names = [f"n{number * 7919 % 100_000_000:08}" for number in range(1, synsets + 1)]
        words = {name: f"thing {number}, object" for number, name in enumerate(names)}
        pictures = [_jpeg(number, side) for number in range(min(synsets, 50))]
        with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as outer:
            for number, name in enumerate(names):
                inner = io.BytesIO()
                with tarfile.open(fileobj=inner, mode="w") as archive:
                    for picture in range(train):
                        content = pictures[number % len(pictures)]
                        _add(archive, f"{name}_{picture}.JPEG", content)
                _add(outer, f"{name}.tar", inner.getvalue())
        truth = [(number * 3 + 1) % synsets for number in range(synsets * val)]
        with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as archive:
            for number, synset in enumerate(truth, 1):
                content = pictures[synset % len(pictures)]
                _add(archive, f"ILSVRC2012_val_{number:08}.JPEG", content)
        # Their IDs go by another order than the synsets, and inner nodes of WordNet have some too.
        ids = {name: synsets - number for number, name in enumerate(names)}
        lines = "".join(f"{ids[names[synset]]}\n" for synset in truth)
        with tarfile.open(folder / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
            root = "ILSVRC2012_devkit_t12"
            _add(archive, f"{root}/readme.txt", b"a copy in small")
            _add(archive, f"{root}/data/meta.mat", _meta(ids, words, train))
            _add(archive, f"{root}/data/ILSVRC2012_validation_ground_truth.txt", lines.encode())
        return words

    return write


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _jpeg(number: int, side: int) -> bytes:
    """A rough picture that its number decides."""
    rough = np.random.default_rng(number).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(rough).resize((side + 10, side)).save(stream, "JPEG")
    return stream.getvalue()


def _meta(ids: dict[str, int], words: dict[str, str], train: int) -> bytes:
    """meta.mat: a struct array of the leaves and of an inner node that holds them all."""
    from scipy.io import savemat

    fields = ("WNID", "words", "gloss", "children")
    numbers = ("ILSVRC2012_ID", "num_children", "wordnet_height", "num_train_images")
    rows = np.zeros((len(ids) + 1, 1), [(name, object) for name in (*fields, *numbers)])
    leaves = {number: name for name, number in ids.items()}
    for row in range(len(ids)):
        name, number = leaves[row + 1], float(row + 1)
        known = (name, words[name], "a gloss", np.zeros((1, 0)), number, 0.0, 0.0, float(train))
        rows[row, 0] = known
    inner = np.arange(1.0, len(ids) + 1)[None]
    last = float(len(ids))
    rows[-1, 0] = ("n99999999", "entity", "all", inner, last + 1, last, 1.0, 0.0)
    stream = io.BytesIO()
    savemat(stream, {"synsets": rows})
    return stream.getvalue()

"""A run folder of a network that was trained for seconds, and pictures good and bad."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet.models import create_model, save_run


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained lenet5_dense for the ten digits."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("runs") / "digits"
    save_run(folder, create_model("lenet5_dense"), classes=tuple("0123456789"))
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two pictures, a truncated one and a text; some more stay away."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    for name in ("good.jpg", "other.png"):
        Image.fromarray(pixels).save(folder / name)
    (folder / "broken.jpg").write_bytes((folder / "good.jpg").read_bytes()[:200])
    (folder / "notes.txt").write_text("not a picture")
    return folder

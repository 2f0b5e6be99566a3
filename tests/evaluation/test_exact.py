"""The same figures whatever the batch, the processes and the workers that read (fp32)."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import alexnet

Command = Callable[..., "subprocess.CompletedProcess[str]"]
Draw = Callable[..., Path]

BATCHES, WORKERS = (1, 7, 64), (0, 2)
SCRIPT = """
import json, sys
import alexnet
from alexnet.data import loader
from alexnet.runtime import process_group
from alexnet.torchrun import is_main

run, data, out, wanted = sys.argv[1:]
loader.MEMORY_LIMIT = 0  # pictures are read anew, by the workers
found = {}
with process_group():
    for batch, workers in json.loads(wanted):
        one = alexnet.evaluate(run, data, split="train", batch_size=batch, workers=workers,
                               precision="fp32", mistakes=0)
        found[f"{batch} {workers}"] = one.to_dict()
if is_main():
    open(out, "w").write(json.dumps(found))
"""
NETWORKS: dict[str, dict[str, Any]] = {
    "lenet5_dense": {"model.in_chans": 3},
    "alexnet": {"model.hidden": 64, "data.image_size": 67, "model.init": "default"},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_exact(name: str, draw_shapes: Draw, tmp_path: Path, torchrun: Command) -> None:
    data, script = draw_shapes(tmp_path / "shapes", per_class=35), tmp_path / "script.py"
    script.write_text(SCRIPT)
    settings = {"training.epochs": 1, "training.batch_size": 16, "training.precision": "fp32"}
    settings |= {"data.val_fraction": 0.0, "data.test_fraction": 0.04, **NETWORKS[name]}
    run = alexnet.train(data, name, out=tmp_path / "run", settings=settings).folder
    wanted = json.dumps(list(itertools.product(BATCHES, WORKERS)))
    found = {}
    for processes in (1, 2):
        out = tmp_path / f"{processes}.json"
        done = torchrun(processes, script, run, data, out, wanted)
        assert done.returncode == 0, done.stderr
        told = json.loads(out.read_text())
        found |= {f"{processes} {how}": one for how, one in told.items()}
    assert len(found) == 2 * len(BATCHES) * len(WORKERS)
    first = found["1 1 0"]
    assert first["images"] % 2 == 1
    assert 0 < first["top1"] < 1
    for how, one in found.items():
        for figure in ("images", "top1", "top5", "confusion", "per_class"):
            assert one[figure] == first[figure], (how, figure)
        assert one["loss"] == pytest.approx(first["loss"], abs=1e-6), how

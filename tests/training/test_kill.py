"""One training is killed again and again, in real processes, and ends as if it never had been."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

Draw = Callable[..., Path]

MODELS: dict[str, dict[str, Any]] = {
    "lenet5": {"augment.rotate": 10, "training.lr": 0.0005},
    "alexnet": {
        "data.image_size": 67,
        "model.hidden": 64,
        "model.init": "default",
        "augment.mixup": 0.2,
        "augment.randaugment": 1,
    },
}
COMMON: dict[str, Any] = {
    "data.val_fraction": 0.2,
    "data.memory_gb": 0,  # read from files, by the workers
    "training.batch_size": 8,
    "training.keep": "best",
    "training.checkpoint_minutes": 0.002,
}


def start(
    data: Path, out: Path, model: str, settings: dict[str, Any], *more: str
) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "alexnet", "train", str(data), "--model", model, "-o", str(out)]
    for name, value in settings.items():
        line += ["--set", f"{name}={value}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*line, *more], env=environment, start_new_session=True, **pipes)


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").glob("epoch-*.safetensors"))


def live_and_die(process: subprocess.Popen[str], run: Path, moment: float, whole: bool) -> None:
    """Kill a training at a moment after its first new checkpoint: it, or its workers with it."""
    before, until = checkpoints(run), time.monotonic() + 120
    while checkpoints(run) == before:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.005)
    time.sleep(moment)
    if whole:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    assert process.stderr is not None
    process.stderr.close()
    assert process.returncode == -signal.SIGKILL, "it was finished before it was killed"


def ended(process: subprocess.Popen[str]) -> None:
    said = process.communicate(timeout=900)[1]
    assert process.returncode == 0, said


def history(run: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if "second" not in k} for record in records]


def kill_and_compare(
    data: Path, folder: Path, model: str, settings: dict[str, Any], kills: int, seed: int
) -> None:
    """Train undisturbed, and with ``kills`` kills; both must end with the same bits."""
    settings = {**COMMON, **MODELS[model], **settings}
    ended(start(data, folder / "undisturbed", model, settings))
    moments, run = random.Random(seed), folder / "killed"
    seen = []
    for number in range(kills):
        more = ["--resume"] if number else []
        process = start(data, run, model, {} if number else settings, *more)
        live_and_die(process, run, moments.uniform(0, 0.5), whole=bool(number % 2))
        seen.append(checkpoints(run)[-1])
    assert seen == sorted(seen)
    assert len(set(seen)) > kills // 2  # it got on between the kills
    ended(start(data, run, model, {}, "--resume"))
    mine, theirs = (load_file(one / "model.safetensors") for one in (run, folder / "undisturbed"))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert history(run) == history(folder / "undisturbed")
    assert not list(run.rglob(".*.tmp"))


def test_three_kills_leave_no_trace(draw_shapes: Draw, tmp_path: Path) -> None:
    data = draw_shapes(tmp_path / "shapes", per_class=24)
    settings = {"training.epochs": 25, "data.workers": 2}
    kill_and_compare(data, tmp_path, "lenet5", settings, kills=3, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_twenty_kills_leave_no_trace(
    model: str, workers: int, precision: str, draw_shapes: Draw, tmp_path: Path
) -> None:
    data = draw_shapes(tmp_path / "shapes", per_class=60)
    settings: dict[str, Any] = {
        "training.epochs": 400 if model == "lenet5" else 60,
        "training.precision": precision,
        "data.workers": workers,
    }
    if precision == "bf16":
        settings["training.ema"] = 0.9
    kill_and_compare(data, tmp_path, model, settings, kills=20, seed=workers)

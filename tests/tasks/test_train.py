"""Training is killed, in real processes, and goes on as if it had not been."""

from __future__ import annotations

import csv
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import alexnet
from alexnet import files
from alexnet.errors import UsageError
from alexnet.tasks.train import train

Draw = Callable[..., Path]

MODEL = "lenet5_dense"
MANY_EPOCHS: dict[str, Any] = {
    "training.epochs": 60,
    "training.batch_size": 8,
    "training.keep": "best",
    "data.val_fraction": 0.2,
    "augment.rotate": 10.0,
    "model.dropout": 0.2,
}


def start(
    data: str | Path, out: Path, settings: dict[str, Any], *more: str
) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "alexnet", "train", str(data), "--model", MODEL, "-o", str(out)]
    for name, value in settings.items():
        line += ["--set", f"{name}={value}"]
    return subprocess.Popen([*line, *more], stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def assert_every_file_is_whole(run: Path) -> None:
    for path in run.rglob("*"):
        if path.name.startswith(".") or "tensorboard" in path.parts or path.is_dir():
            assert path.name[0] != "." or files.is_leftover(path.name) or path.name == ".lock"
        elif path.suffix == ".safetensors":
            assert load_file(path)
        elif path.suffix == ".json":
            assert json.loads(path.read_text())["format_version"] == 1
        elif path.suffix == ".jsonl":
            assert all(
                json.loads(line)["format_version"] == 1 for line in path.read_text().splitlines()
            )
        elif path.suffix == ".csv":
            with path.open(newline="") as file:
                assert next(csv.reader(file)) == ["name", "reason"]
        else:
            assert path.suffix == ".html"
            assert path.read_text().rstrip().endswith("</html>")


def written(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def history(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in one.items() if "second" not in k} for one in lines]


def assert_same_run(run: Path, undisturbed: Path) -> None:
    mine, theirs = (load_file(one / "model.safetensors") for one in (run, undisturbed))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert history(run) == history(undisturbed)
    assert (run / "report.html").is_file()
    about, other = (json.loads((one / "config.json").read_text()) for one in (run, undisturbed))
    assert about["status"] == "finished"
    for metrics in (about["metrics"], other["metrics"]):
        del metrics["train_seconds"]
    assert about["metrics"] == other["metrics"]
    assert not list(run.rglob(".*"))


def test_sigkill_at_random_moments_leaves_whole_files_and_the_run_resumes_as_undisturbed(
    draw_shapes: Draw, tmp_path: Path
) -> None:
    data = draw_shapes(tmp_path / "shapes", per_class=16)
    began = time.perf_counter()
    train(data, MODEL, out=tmp_path / "undisturbed", settings=MANY_EPOCHS)
    took = time.perf_counter() - began
    moments, run = random.Random(1), tmp_path / "killed"
    for attempt in range(3):
        resume = ["--resume"] if attempt else []
        before = written(run / "metrics.jsonl")
        process = start(data, run, {} if attempt else MANY_EPOCHS, *resume)
        while process.poll() is None and written(run / "metrics.jsonl") == before:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, took / 6))
        kill(process)
        assert process.returncode == -signal.SIGKILL, "it was finished before it was killed"
        assert_every_file_is_whole(run)
    assert 0 < len(history(run)) < MANY_EPOCHS["training.epochs"]
    train(data, MODEL, out=run, resume=True)
    assert_every_file_is_whole(run)
    assert_same_run(run, tmp_path / "undisturbed")


def test_sigint_in_the_middle_of_an_epoch_keeps_the_batch(tmp_path: Path) -> None:
    settings = {"training.epochs": 2, "training.batch_size": 16}
    run = tmp_path / "run"
    process = start("mnist-5k", run, settings)
    wait_for(run / "metrics.jsonl", process)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert_every_file_is_whole(run)
    newest = max((run / "checkpoints").iterdir())
    with safe_open(newest, framework="pt") as file:
        position = json.loads(file.metadata()["state"])["position"]
    assert position["epoch"] == 1
    assert 0 < position["batch"] < 250
    train("mnist-5k", MODEL, out=run, resume=True)
    train("mnist-5k", MODEL, out=tmp_path / "undisturbed", settings=settings)
    assert_same_run(run, tmp_path / "undisturbed")


def test_killed_before_its_first_moment_it_starts_with_and_without_resume(
    draw_shapes: Draw, tmp_path: Path
) -> None:
    data = draw_shapes(tmp_path / "shapes", per_class=4)
    pixels = np.random.default_rng(0).integers(0, 255, (2500, 2500, 3), dtype=np.uint8)
    for number in range(8):  # takes a second to look at
        Image.fromarray(pixels).save(data / "circle" / f"big {number}.jpg")
    settings = {"training.epochs": 1}
    process = start(data, tmp_path / "run", settings)
    wait_for(tmp_path / "run", process)
    time.sleep(0.05)
    kill(process)
    assert not (tmp_path / "run" / "config.json").exists()
    for path in data.rglob("big*"):
        path.unlink()
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    for run, resume in ((tmp_path / "run", True), (tmp_path / "again", False)):
        # What a kill may leave while the first files are written.
        (run / ".config.json.k1ll3d.tmp").write_text("{")
        (run / ".lock").touch()
        (run / "bad_images.csv").write_text("name,reason\n")
        train(data, MODEL, out=run, resume=resume, settings=settings)
        assert not list(run.glob(".*"))
        assert (run / "report.html").is_file()


def test_a_run_killed_while_it_is_finished_is_finished_by_a_resume(
    draw_shapes: Draw, tmp_path: Path
) -> None:
    data = draw_shapes(tmp_path / "shapes")
    run = train(data, MODEL, out=tmp_path / "run", settings={"training.epochs": 1})
    assert train(data, MODEL, out=run.folder, resume=True).metrics == run.metrics
    # The last file that is written says that the run is finished.
    files = [p for p in run.folder.iterdir() if p.is_file()]
    assert max(files, key=lambda path: path.stat().st_mtime_ns).name == "config.json"
    config = json.loads((run.folder / "config.json").read_text())
    (run.folder / "config.json").write_text(json.dumps({**config, "status": "running"}))
    (run.folder / "report.html").unlink()
    again = train(data, MODEL, out=run.folder, resume=True)
    assert (run.folder / "report.html").is_file()
    assert again.config["status"] == "finished"
    assert again.metrics == run.metrics


def test_a_run_does_not_go_on_with_other_pictures(draw_shapes: Draw, tmp_path: Path) -> None:
    data = draw_shapes(tmp_path / "shapes")
    run = train(data, MODEL, out=tmp_path / "run", settings={"training.epochs": 1}).folder
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "status": "running"}))
    (data / "circle" / "0.png").rename(data / "circle" / "other.png")  # as many of each
    with pytest.raises(UsageError, match="has other pictures than when"):
        train(data, MODEL, out=run, resume=True)


def test_a_trained_network_is_worth_its_name(tmp_path: Path) -> None:
    run = alexnet.train(
        "mnist-5k", "lenet5_dense", out=tmp_path / "run",
        settings={"training.epochs": 2, "training.device": "cpu"},
    )  # fmt: skip
    assert run.metrics["test_top1"] > 0.8
    assert run.metrics["test_images"] == 1000
    assert run.metrics["epoch"] == 2
    assert run.config["settings"]["augment"]["mirror"] == 0  # a digit has no mirror image
    assert run.config["runtime"] == {
        "device": "cpu", "precision": "fp32", "threads": 1, "world_size": 1,
    }  # fmt: skip
    evaluation = json.loads((run.folder / "evaluation.json").read_text())
    assert evaluation["part"] == "test"
    assert evaluation["top1"] == run.metrics["test_top1"]
    again = alexnet.evaluate(run.folder, "mnist-5k")
    assert again.top1 == run.metrics["test_top1"]


@pytest.mark.parametrize(("model", "warned"), [("lenet5", True), ("lenet5_dense", False)])
def test_a_network_that_learned_nothing_is_reported_with_the_way_out(
    model: str, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"training.epochs": 1, "training.batch_size": 64, "training.lr": 0.05}
    train("mnist-5k", model, out=tmp_path / "run", settings=settings)
    assert ("takes every picture of the test part for" in caplog.text) is warned
    assert ("--set training.lr=0.005" in caplog.text) is warned


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"training.schedule": "plateau"}, "there is none: set data.val_fraction"),
        ({"training.parallel": "hybrid"}, "needs several processes"),
        ({"training.parallel": "towers"}, "needs several processes"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_a_run_is_begun(
    settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        train("mnist-5k", MODEL, out=tmp_path / "run", settings=settings)
    short = {"training.epochs": 1, "training.batch_size": 256}
    assert train("mnist-5k", MODEL, out=tmp_path / "run", settings=short).metrics["epoch"] == 1

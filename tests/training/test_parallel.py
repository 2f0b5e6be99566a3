"""Real processes, started by torchrun, train what one process trains."""

from __future__ import annotations

import json
import os
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

from alexnet.tasks.train import train

Command = Callable[..., "subprocess.CompletedProcess[str]"]
Draw = Callable[..., Path]
Settings = dict[str, Any]

WAYS = ("ddp", "hybrid", "towers")
SMALL: Settings = {
    "model.preset": "original",
    "model.hidden": 64,
    "model.init": "default",
    "model.dropout": 0.5,
    "data.image_size": 67,
    "data.test_fraction": 0.175,
    "data.val_fraction": 0.195,
    "training.optimizer": "sgd",
    "training.clip_norm": 0.0,
    "training.epochs": 1,
    "training.batch_size": 7,
    "training.warmup": 0.0,
    "training.lr": 0.05,
    "training.keep": "last",
    "training.precision": "fp64",
}
"""A small AlexNet of two towers; the last of 18 batches is a single picture."""

FP32: Settings = {"training.precision": "fp32", "model.dropout": 0.0, "training.epochs": 2}
EVERYTHING: Settings = {
    "training.optimizer": "adamw",
    "training.lr": 0.001,
    "training.clip_norm": 0.5,
    "training.micro_batch": 2,
    "training.ema": 0.9,
    "training.decay": "weights",
    "training.label_smoothing": 0.1,
    "training.class_balance": 1.0,
    "training.batch_size": 11,
}

SEVERAL = """
import json, sys
from alexnet.cli.main import main

sys.exit(max([main(words) for words in json.loads(sys.argv[1])]))
"""
"""Several commands in the same processes, one after another."""


@pytest.fixture(scope="module")
def shapes(draw_shapes: Draw, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """180 pictures: 120 to train on, and odd numbers to validate and to test on."""
    return draw_shapes(tmp_path_factory.mktemp("parallel") / "shapes", per_class=60)


def words(
    data: Path | str, out: Path, settings: Settings, way: str, model: str = "alexnet"
) -> list[str]:
    line = ["train", str(data), "--model", model, "-o", str(out), "--parallel", way]
    for name, value in settings.items():
        line += ["--set", f"{name}={value}"]
    return line


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def distance(run: Path, other: Path) -> float:
    """Norm of the difference of two runs' weights over the norm of the weights."""
    mine, theirs = weights_of(run), weights_of(other)
    assert mine.keys() == theirs.keys()
    pairs = [(mine[name].double(), theirs[name].double()) for name in mine]
    difference = torch.stack([(a - b).norm() for a, b in pairs]).norm()
    return float(difference / torch.stack([b.norm() for _, b in pairs]).norm())


def figures(run: Path) -> dict[str, Any]:
    """What was counted: right answers of each part, and who was taken for whom."""
    metrics = json.loads((run / "config.json").read_text())["metrics"]
    evaluation = json.loads((run / "evaluation.json").read_text())
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        "metrics": {name: value for name, value in metrics.items() if "top" in name},
        "confusion": evaluation["confusion"],
        "images": (metrics["test_images"], evaluation["images"]),
        "top1": [(record["train_top1"], record["val_top1"]) for record in history],
        "balanced": [record["val_balanced_accuracy"] for record in history],
    }


def assert_same_figures(run: Path, other: Path) -> None:
    assert figures(run) == figures(other)
    mine, theirs = (json.loads((one / "evaluation.json").read_text()) for one in (run, other))
    assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
    counts = json.loads((run / "config.json").read_text())["data"]
    assert counts["train"] % 7 == 1
    assert counts["val"] % 2 == counts["test"] % 2 == 1


@pytest.fixture(scope="module")
def alone(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Settings], Path]:
    """The run folder of one process with these settings, trained once."""
    done: dict[str, Path] = {}

    def run(settings: Settings) -> Path:
        key = json.dumps(settings)
        if key not in done:
            folder = tmp_path_factory.mktemp("alone")
            train(shapes, "alexnet", out=folder / "run", settings=settings)
            barely = {**settings, "training.lr": 1e-30, "training.weight_decay": 0.0}
            train(shapes, "alexnet", out=folder / "start", settings=barely)
            # Far more than what the ways of sharing may differ by.
            assert distance(folder / "run", folder / "start") > 1e-3
            done[key] = folder / "run"
        return done[key]

    return run


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_train_what_one_does(
    way: str, shapes: Path, alone: Callable[[Settings], Path], tmp_path: Path, torchrun: Command
) -> None:
    settings, run = SMALL | FP32, tmp_path / "run"
    done = torchrun(2, "-m", "alexnet", *words(shapes, run, settings, way))
    assert done.returncode == 0, done.stderr
    assert distance(run, alone(settings)) < 1e-5
    # One of them spoke, and told what was sent.
    assert done.stdout.count("test top1") == 1
    assert done.stderr.count("train 1/2: loss") == 1
    assert "MB sent a step" in done.stderr
    config = json.loads((run / "config.json").read_text())
    assert config["runtime"]["world_size"] == 2
    assert config["settings"]["training"]["parallel"] == way
    assert not list(run.rglob(".*"))


def test_in_double_precision_they_agree_to_ten_digits_with_dropout_too(
    shapes: Path, alone: Callable[[Settings], Path], tmp_path: Path, torchrun: Command
) -> None:
    script = tmp_path / "several.py"
    script.write_text(SEVERAL)
    lines = [words(shapes, tmp_path / way, SMALL, way) for way in WAYS]
    done = torchrun(2, script, json.dumps(lines))
    assert done.returncode == 0, done.stderr
    expected = alone(SMALL)
    for way in WAYS:
        assert distance(tmp_path / way, expected) < 1e-10, way
        assert_same_figures(tmp_path / way, expected)
    # The masks are a matter of the seed: without dropout the weights are others.
    assert distance(expected, alone(SMALL | {"model.dropout": 0.0})) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "ways"), [(2, WAYS), (4, ("ddp", "hybrid"))], ids=["two", "four"]
)
@pytest.mark.parametrize(
    "more",
    [
        EVERYTHING,
        EVERYTHING | {"training.optimizer": "paper", "training.lr": 0.01},
        {"training.optimizer": "sgd", "training.bias_lr": 0.01, "training.stem_epochs": "1,2"},
        {"model.dropout_position": "before", "model.dropout_scaled_at": "test"},
    ],
    ids=["adamw", "paper", "rates", "dropout"],
)
def test_whatever_else_is_set_they_agree(
    more: Settings, count: int, ways: tuple[str, ...], shapes: Path,
    alone: Callable[[Settings], Path], tmp_path: Path, torchrun: Command,
) -> None:  # fmt: skip
    settings = SMALL | {"training.epochs": 2} | more
    script = tmp_path / "several.py"
    script.write_text(SEVERAL)
    lines = [words(shapes, tmp_path / way, settings, way) for way in ways]
    done = torchrun(count, script, json.dumps(lines), timeout=280)
    assert done.returncode == 0, done.stderr
    for way in ways:
        assert distance(tmp_path / way, alone(settings)) < 1e-10, way
        assert_same_figures(tmp_path / way, alone(settings))


def workers_of(agent: int, restarts: int) -> list[int]:
    """The processes of torchrun's n-th start, in the order of their ranks."""
    found = {}
    for child in Path(f"/proc/{agent}/task/{agent}/children").read_text().split():
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        told = dict(entry.split(b"=", 1) for entry in environment if b"=" in entry)
        if told.get(b"TORCHELASTIC_RESTART_COUNT") == str(restarts).encode():
            found[int(told[b"RANK"])] = int(child)
    return [found[rank] for rank in sorted(found)]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_run_that_lost_a_process_goes_on_by_itself_to_the_same_bits(
    shapes: Path, tmp_path: Path, torchrun: Command
) -> None:
    settings = SMALL | FP32 | {"model.dropout": 0.5, "training.checkpoint_minutes": 0.002}
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    line += [
        "--max-restarts",
        "3",
        "-m",
        "alexnet",
        *words(shapes, tmp_path / "run", settings, "ddp"),
    ]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, start_new_session=True)
    checkpoints, until = tmp_path / "run" / "checkpoints", time.monotonic() + 120
    try:
        while not any(checkpoints.glob("epoch-0000-batch-*")):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.002)
        first = workers_of(process.pid, 0)
        assert len(first) == 2
        os.kill(first[1], signal.SIGKILL)
        said = process.communicate(timeout=120)[1]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 0, said
    assert "Signal 9 (SIGKILL) received" in said or "exitcode: -9" in said
    assert (tmp_path / "run" / "report.html").is_file()
    undisturbed = tmp_path / "undisturbed"
    done = torchrun(2, "-m", "alexnet", *words(shapes, undisturbed, settings, "ddp"))
    assert done.returncode == 0, done.stderr
    mine, theirs = weights_of(tmp_path / "run"), weights_of(undisturbed)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert figures(tmp_path / "run") == figures(undisturbed)


REFUSED = {
    "towers of the paper's preset": (
        {"model.preset": "paper"}, "towers", "alexnet",
        "towers needs a normalization that stays within a tower",
    ),
    "hybrid LeNet-5": ({}, "hybrid", "lenet5", "hybrid divides fc6 to fc8 of an AlexNet"),
    "towers of LeNet-5": ({}, "towers", "lenet5", "towers needs a network of two towers"),
    "units that do not divide": (
        {"model.hidden": 63}, "hybrid", "alexnet", "63 units of fc6 and fc7 cannot be divided by 2",
    ),
    "lars in parts": (
        {"training.optimizer": "lars"}, "hybrid", "alexnet", "LARS needs the whole norm",
    ),
    "a folder that exists": ({}, "ddp", "alexnet", "exists: go on with it by --resume"),
    "a setting that does not exist": ({"training.epoch": 1}, "ddp", "alexnet", "did you mean"),
}  # fmt: skip


def test_what_two_processes_cannot_do_is_said_once(
    shapes: Path, tmp_path: Path, torchrun: Command
) -> None:
    script, lines = tmp_path / "several.py", []
    script.write_text(SEVERAL)
    (tmp_path / "6").mkdir()
    (tmp_path / "6" / "config.json").write_text("{}")
    for number, (settings, way, model, _) in enumerate(REFUSED.values()):
        basis = SMALL if model == "alexnet" else {}
        out = tmp_path / ("6" if "exists:" in list(REFUSED.values())[number][3] else str(number))
        lines.append(words(shapes, out, basis | settings, way, model))
    done = torchrun(2, script, json.dumps(lines))
    assert done.returncode == 1  # torchrun's own
    assert done.stdout == ""
    said = [text for text in done.stderr.splitlines() if text.startswith("alexnet: ")]
    assert len(said) == len(REFUSED)
    for text, (_, _, _, expected) in zip(said, REFUSED.values(), strict=True):
        assert expected in text
    assert "exitcode  : 2" in done.stderr
    assert "mistake of ours" not in done.stderr


def test_three_towers_are_refused_once(shapes: Path, tmp_path: Path, torchrun: Command) -> None:
    done = torchrun(3, "-m", "alexnet", *words(shapes, tmp_path / "run", SMALL, "towers"))
    said = [text for text in done.stderr.splitlines() if text.startswith("alexnet: ")]
    (text,) = said
    assert "towers needs two processes, a tower each, and there are 3" in text
    assert "exitcode  : 2" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("way", ["hybrid", "towers"])
def test_one_process_alone_shares_nothing(
    way: str, shapes: Path, tmp_path: Path, alexnet_command: Command
) -> None:
    done = alexnet_command(*words(shapes, tmp_path / "run", SMALL, way))
    assert done.returncode == 2
    said = [text for text in done.stderr.splitlines() if text.startswith("alexnet: ")]
    assert said == [
        f"alexnet: --parallel {way} needs several processes: start them with torchrun "
        "--nproc-per-node 2 -m alexnet train ..."
    ]


def test_two_processes_evaluate_what_one_does(
    shapes: Path, alone: Callable[[Settings], Path], alexnet_command: Command, torchrun: Command
) -> None:
    run = alone(SMALL)
    line = ["-m", "alexnet", "evaluate", str(run), "--data", str(shapes), "--json"]
    done = torchrun(2, *line, "--split", "val", "--batch-size", "4")
    assert done.returncode == 0, done.stderr
    both = json.loads(done.stdout)  # printed once
    one = json.loads(alexnet_command(*line[2:], "--split", "val").stdout)
    losses = both.pop("loss"), one.pop("loss")
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for found in (both, one):
        for mistake in found["mistakes"]:
            mistake["probability"] = round(mistake["probability"], 4)
    assert both == one
    assert both["images"] == 29

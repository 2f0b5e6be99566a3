"""Real processes, started by torchrun, train what one process trains."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import alexnet
from alexnet.cli.main import main
from alexnet.errors import UsageError
from alexnet.models import create_model
from alexnet.runtime import Runtime
from alexnet.tasks.train import train
from alexnet.training.towers import Towers

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
    "data.test_fraction": 0.17,
    "data.val_fraction": 0.207,
    "training.optimizer": "sgd",
    "training.clip_norm": 0.0,
    "training.epochs": 1,
    "training.batch_size": 7,
    "training.warmup": 0.0,
    "training.lr": 0.05,
    "training.keep": "last",
    "training.precision": "fp64",
    "augment.mixup": 0.4,
    "augment.share": 3,
}
"""A small AlexNet of two towers; the last of 20 batches is a single picture."""

ROUNDED: Settings = {"training.precision": "fp32", "model.dropout": 0.0, "training.lr": 0.02}
"""In fp32 a rounding may switch a unit or a maximum: the difference jumps in one step, and grows.
At a rate of 0.05 that took 3 of 12 runs to 1e-5 or more (others to 5e-8), at 0.02 none of 12."""

SETTINGS = {"fp32": SMALL | ROUNDED, "fp64": SMALL}
APART = {"fp32": 1e-5, "fp64": 1e-10}
"""What the weights may differ by; masks of dropout, mixing and shared crops are the same."""

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
    """204 pictures: 134 to train on, and odd numbers to validate and to test on."""
    return draw_shapes(tmp_path_factory.mktemp("parallel") / "shapes", per_class=68)


def words(
    data: Path | str, out: Path, settings: Settings, way: str, model: str = "alexnet"
) -> list[str]:
    line = ["train", str(data), "--model", model, "-o", str(out), "--parallel", way]
    for name, value in settings.items():
        line += ["--set", f"{name}={value}"]
    return line


def weights_of(run: Path) -> dict[str, Tensor]:
    return load_file(run / "model.safetensors")


def difference(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    """Norm of the difference of two networks' weights over the norm of the weights."""
    assert mine.keys() == theirs.keys()
    pairs = [(mine[name].double(), theirs[name].double()) for name in mine]
    apart = torch.stack([(a - b).norm() for a, b in pairs]).norm()
    return float(apart / torch.stack([b.norm() for _, b in pairs]).norm())


def distance(run: Path, other: Path) -> float:
    """The difference of two runs' weights."""
    return difference(weights_of(run), weights_of(other))


def moved(run: Path) -> float:
    """How far a run's weights are from those that it began with."""
    torch.manual_seed(0)
    arguments = json.loads((run / "config.json").read_text())["arguments"]
    return difference(weights_of(run), create_model("alexnet", **arguments).state_dict())


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
            # Far more than what the ways of sharing may differ by.
            assert moved(folder / "run") > 1e-3
            done[key] = folder / "run"
        return done[key]

    return run


@pytest.fixture(scope="module")
def together(
    shapes: Path, tmp_path_factory: pytest.TempPathFactory, torchrun: Command
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Runs of two processes, ``WAY PRECISION`` each, and what they said."""
    folder = tmp_path_factory.mktemp("together")
    (folder / "several.py").write_text(SEVERAL)
    lines = [
        words(shapes, folder / f"{way} {precision}", settings, way)
        for way in WAYS
        for precision, settings in SETTINGS.items()
    ]
    return folder, torchrun(2, folder / "several.py", json.dumps(lines))


@pytest.mark.parametrize("precision", SETTINGS)
@pytest.mark.parametrize("way", WAYS)
def test_two_processes_train_what_one_does(
    way: str, precision: str, alone: Callable[[Settings], Path],
    together: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:  # fmt: skip
    folder, done = together
    run, expected = folder / f"{way} {precision}", alone(SETTINGS[precision])
    assert done.returncode == 0, done.stderr
    assert distance(run, expected) < APART[precision]
    if precision == "fp64":
        assert_same_figures(run, expected)
    config = json.loads((run / "config.json").read_text())
    assert config["runtime"]["world_size"] == 2
    assert config["settings"]["training"]["parallel"] == way
    assert not list(run.rglob(".*"))


def test_one_of_the_processes_speaks(
    together: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    _, done = together
    assert done.stdout.count("test top1") == len(WAYS) * len(SETTINGS)
    assert done.stderr.count("train 1/1: loss") == len(WAYS) * len(SETTINGS)
    assert done.stderr.count("MB sent a step (data parallelism: ") == len(WAYS) * len(SETTINGS)


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
    shapes: Path, tmp_path: Path, together: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    run, undisturbed = tmp_path / "run", together[0] / "ddp fp64"
    settings = SMALL | {"training.checkpoint_minutes": 0.002}
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    line += ["--max-restarts", "3", "-m", "alexnet", *words(shapes, run, settings, "ddp")]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, start_new_session=True)
    until = time.monotonic() + 120
    try:
        while not any((run / "checkpoints").glob("epoch-0000-batch-*")):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.002)
        _, second = workers_of(process.pid, 0)
        os.kill(second, signal.SIGKILL)
        said = process.communicate(timeout=120)[1]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 0, said
    assert "exitcode: -9" in said
    assert said.count("going on after epoch 0, batch ") == 1
    assert (run / "report.html").is_file()
    mine, theirs = weights_of(run), weights_of(undisturbed)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert figures(run) == figures(undisturbed)


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
    "a network that does not exist": ({}, "ddp", "lenet6", "did you mean 'lenet5'"),
    "a way that does not exist": ({}, "hybird", "alexnet", "hybird"),
}  # fmt: skip


def test_what_two_processes_cannot_do_is_said_once(
    shapes: Path, tmp_path: Path, torchrun: Command
) -> None:
    script, lines = tmp_path / "several.py", []
    script.write_text(SEVERAL)
    (tmp_path / "a folder that exists").mkdir()
    (tmp_path / "a folder that exists" / "config.json").write_text("{}")
    for name, (settings, way, model, _) in REFUSED.items():
        basis = SMALL if model == "alexnet" else {}
        lines.append(words(shapes, tmp_path / name, basis | settings, way, model))
    done = torchrun(2, script, json.dumps(lines))
    assert done.returncode == 1  # torchrun's own
    assert done.stdout == ""
    said = [text for text in done.stderr.splitlines() if text.startswith("alexnet: ")]
    assert len(said) == len(REFUSED)
    for text, (_, _, _, expected) in zip(said, REFUSED.values(), strict=True):
        assert expected in text
    assert "exitcode  : 2" in done.stderr
    assert "mistake of ours" not in done.stderr


ELSEWHERE = """
import os, sys
from alexnet.cli.main import main

if os.environ["RANK"] == "1":  # as on another machine, where relative paths lead elsewhere
    os.chdir(sys.argv[1])
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("lacks", ["the run folder", "the data"])
def test_what_another_machine_lacks_is_said_before_the_first_step(
    lacks: str, shapes: Path, tmp_path: Path, torchrun: Command
) -> None:
    script, elsewhere = tmp_path / "elsewhere.py", tmp_path / "elsewhere"
    script.write_text(ELSEWHERE)
    elsewhere.mkdir()
    (tmp_path / "pictures").symlink_to(shapes)
    data = "pictures" if lacks == "the data" else shapes
    out = tmp_path / "run" if lacks == "the data" else Path("run")
    line = words(data, out, SMALL, "ddp")
    done = torchrun(2, script, elsewhere, *line, cwd=tmp_path)
    said = [text for text in done.stderr.splitlines() if text.startswith("alexnet: ")]
    expected = {
        "the run folder": "alexnet: not every process sees the run folder run: it must lie on a "
        "disk that all machines share",
        "the data": "alexnet: not every process can read circle/0.png of pictures, ",
    }[lacks]
    assert len(said) == 1
    assert said[0].startswith(expected)
    assert "train 1/1" not in done.stderr


def test_three_towers_are_refused() -> None:
    network = create_model("alexnet", image_size=67, hidden=8, preset="original")
    with pytest.raises(UsageError, match="needs two processes, a tower each, and there are 3"):
        Towers(network, Runtime(torch.device("cpu"), "fp32", 1, rank=2, world_size=3))


@pytest.mark.parametrize("way", ["hybrid", "towers"])
def test_one_process_alone_shares_nothing(
    way: str, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(shapes, tmp_path / "run", SMALL, way)) == 2
    said = [text for text in capsys.readouterr().err.splitlines() if text.startswith("alexnet: ")]
    assert said == [
        f"alexnet: --parallel {way} needs several processes: start them with torchrun "
        "--nproc-per-node 2 -m alexnet train ..."
    ]


def assert_close(found: Any, wanted: Any) -> None:
    """The same but for rounding: in fp32 it depends on the batch."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            assert_close(found[name], value)
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_close(one, other)
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=1e-6)
    else:
        assert found == wanted


def test_two_processes_evaluate_what_one_does(
    shapes: Path, alone: Callable[[Settings], Path], torchrun: Command
) -> None:
    run = alone(SMALL)
    line = ["evaluate", str(run), "--data", str(shapes), "--split", "val", "--json"]
    done = torchrun(2, "-m", "alexnet", *line, "--batch-size", "4")
    assert done.returncode == 0, done.stderr
    both = json.loads(done.stdout)  # printed once
    one = alexnet.evaluate(run, shapes, split="val").to_dict()
    assert_close(both, json.loads(json.dumps(one)))
    assert (both["top1"], both["top5"], both["images"]) == (one["top1"], one["top5"], 35)


@pytest.mark.parametrize("way", ["ddp", "hybrid"])
def test_what_is_validated_is_what_is_kept(
    way: str, shapes: Path, tmp_path: Path, torchrun: Command
) -> None:
    """Batch norms and the running average of each process have seen its own pictures."""
    more = {"training.ema": 0.9, "training.precision": "fp64"}
    told = {name: v for name, v in SMALL.items() if name not in ("model.preset", "model.init")}
    line = words(shapes, tmp_path / "run", told | more, way, "alexnet_bn")
    done = torchrun(2, "-m", "alexnet", *line)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    found = alexnet.evaluate(tmp_path / "run", shapes, split="val", precision="fp64")
    assert found.loss == pytest.approx(record["val_loss"], rel=1e-8)

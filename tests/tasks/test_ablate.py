"""Ablations: pairs, verdicts, and nothing trained twice."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from alexnet.data.sources import open_data
from alexnet.data.threads import available_processors
from alexnet.errors import UsageError
from alexnet.tasks.ablation import ablate
from alexnet.tasks.ablation.ablate import _epochs_told, has_towers
from alexnet.tasks.ablation.arms import BASE, innovations, stairs
from alexnet.tasks.ablation.places import ON_ONE_GPU, places, shares
from alexnet.tasks.ablation.runs import SOME, Runs, Trained, _Training
from alexnet.tasks.ablation.slope import mean_slope
from alexnet.tasks.ablation.verdicts import _first, race, together, verdict

Draw = Callable[..., Path]


def trained(*errors: float) -> Trained:
    return Trained(0.5, 100, errors, 1.0)


def test_verdicts() -> None:
    assert verdict("x", [0.02, 0.03, 0.025]).startswith("x: helps (+2.50 points of top-1, 95% ")
    assert verdict("x", [-0.02, -0.03, -0.025]).startswith("x: hurts")
    assert verdict("x", [-0.02, 0.03, 0.0]).startswith("x: not shown by these data")
    assert verdict("x", [0.0, 0.0]) == "x: makes no difference here (n = 2)"


def test_the_race_counts_epochs_to_the_error_that_tanh_ends_with() -> None:
    tanh = [trained(0.5, 0.4, 0.3, 0.2), trained(0.5, 0.4, 0.3, 0.1)]
    relu = [trained(0.3, 0.2, 0.1, 0.05), trained(0.3, 0.1, 0.1, 0.0)]
    found = race({"relu": relu, "tanh": tanh}, {"relu": 0.01, "tanh": 0.01})
    assert found["reached"] == [2, 2]
    assert found["holds"]
    assert found["sentence"].endswith(
        "ReLU and tanh have 15.00% and 40.00% after 2 epochs, 2.50% and 15.00% at the end"
    )
    slow = race({"relu": tanh, "tanh": relu}, {"relu": 0.01, "tanh": 0.01})
    assert slow["reached"] == [None, None]
    assert not slow["holds"]
    assert "in 0 of 2 pairs" in slow["sentence"]
    assert _first([0.3, 0.2, 0.2], 0.2) == 2


def test_the_race_says_why_relu_is_not_faster() -> None:
    rates = {"relu": 0.01, "tanh": 0.01}

    def told(tanh_slope: float, end: float, tanh_end: float = 0.2) -> str:
        tanh = [dataclasses.replace(trained(0.5, tanh_end), slope=tanh_slope)] * 2
        relu = [dataclasses.replace(trained(0.5, end), slope=0.4)] * 2
        found = race({"relu": relu, "tanh": tanh}, rates)
        assert found["slopes"] == pytest.approx({"relu": 0.4, "tanh": tanh_slope})
        return str(found["sentence"])

    no_less = "tanh is 0.60 at the end, of ReLU 0.40: tanh passes on no less of the gradient"
    assert f"Why: the mean slope of {no_less}" in told(0.6, 0.3)
    assert "Why is not known; the mean slope of tanh is 0.10" in told(0.1, 0.3)
    assert "both know nearly all of the pictures" in told(0.1, 0.015, 0.01)
    relu, tanh = [trained(0.1, 0.0)] * 2, [trained(0.5, 0.2)] * 2
    assert "slope" not in race({"relu": relu, "tanh": tanh}, rates)["sentence"]


def test_slopes_are_derivatives() -> None:
    inputs = torch.tensor([[0.0, 1.0, -3.0, 3.0], [0.0, 0.5, -0.5, 2.0]]).view(2, 1, 2, 2)
    wanted = inputs.clone().requires_grad_()
    wanted.tanh().sum().backward()
    assert wanted.grad is not None
    network = nn.Sequential(nn.Tanh(), nn.Flatten())
    assert mean_slope(network, inputs) == pytest.approx(float(wanted.grad.mean()))
    assert not network[0]._forward_hooks
    assert mean_slope(nn.ReLU(), inputs) == 4 / 8
    assert mean_slope(nn.Sigmoid(), inputs) is None


def test_processes_are_compared_in_accuracy_and_in_time() -> None:
    alone = [dataclasses.replace(trained(0.1), top1=0.90, seconds=s) for s in (10.0, 12.0)]
    divided = [dataclasses.replace(trained(0.1), top1=0.91, seconds=s) for s in (5.0, 8.0)]
    found = together(alone, divided, 2)
    assert found["difference"] == pytest.approx(0.01)
    assert found["faster"] == pytest.approx(1.75)
    assert found["sentence"].startswith("2 processes: helps (+1.00 points")
    assert "; 1.75 times as fast as one (95% " in found["sentence"]


def test_the_stairs_end_at_the_base_and_change_one_thing_a_step() -> None:
    steps = stairs()
    last = steps[-1].changes
    assert all(BASE[name] == value for name, value in last.items())
    for before, after in itertools.pairwise(steps[:-1]):
        assert sum(before.changes[name] != value for name, value in after.changes.items()) == 1
    names = [idea.name for idea in innovations(mirrored=False, towers=False)]
    assert "mirror images" not in names
    assert "two towers" not in names
    for idea in innovations(mirrored=True, towers=True):
        assert any(BASE.get(name) != value for name, value in idea.without.changes.items())


def test_epochs_are_taken_as_they_are_told() -> None:
    assert _epochs_told({"training.lr": "0.1"}) is None
    assert _epochs_told({"training.epochs": "3"}) == 3
    assert _epochs_told({"training.epochs": 3}) == 3


def test_trainings_have_a_processor_each_or_gpus_of_their_own() -> None:
    processors = available_processors()
    assert places("cpu") == [{}] * processors
    assert places("cpu", processors) == [{}]
    assert places("cpu", processors + 1) == []
    assert shares(["3"], 1) == [{"CUDA_VISIBLE_DEVICES": "3"}] * ON_ONE_GPU
    assert shares(["3"], 2) == []
    alone = shares(["0", "1", "GPU-x"], 1)
    assert [place["CUDA_VISIBLE_DEVICES"] for place in alone] == ["0", "1", "GPU-x"]
    assert shares(["0", "1", "GPU-x"], 2) == [{"CUDA_VISIBLE_DEVICES": "0,1"}]


@pytest.fixture(scope="module")
def data(draw_shapes: Draw, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_shapes(tmp_path_factory.mktemp("ablate") / "shapes", per_class=12)


def command(data: Path, out: Path) -> list[str]:
    line = [sys.executable, "-m", "alexnet", "ablate", "--data", str(data), "-o", str(out)]
    return [*line, "--seeds", "2", "--set", "training.epochs=1", "--set", "data.image_size=16"]


@pytest.mark.slow
def test_killed_and_started_again_it_trains_nothing_twice(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(command(data, out), start_new_session=True)
    until = time.monotonic() + 200
    while len(list((out / "runs").glob("*.json"))) < 5:
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {p: p.stat().st_mtime_ns for p in (out / "runs").glob("*.json")}
    assert subprocess.run(command(data, out), check=False).returncode == 0
    after = {p: p.stat().st_mtime_ns for p in (out / "runs").glob("*.json")}
    assert len(after) > len(before)
    assert {p: after[p] for p in before} == before
    result = json.loads((out / "ablation.json").read_text())
    assert all(row["n"] == 2 and row["sentence"] for row in result["innovations"])
    assert set(result["race"]["slopes"]) == {"relu", "tanh"}
    assert not [p for p in (out / "runs").iterdir() if p.is_dir()]
    if available_processors() > 1:
        assert result["processes"]["n"] == 2
        assert "times as fast as one" in (out / "report.html").read_text()
    for name in ("ablation.md", "report.html"):
        assert "local response normalization" in (out / name).read_text()
    began = time.monotonic()
    assert subprocess.run(command(data, out), check=False).returncode == 0
    assert time.monotonic() - began < 30


def test_what_a_kill_left_of_a_finished_training_goes(tmp_path: Path) -> None:
    runs = Runs(tmp_path, "mnist-5k", open_data("mnist-5k").train, "alexnet_cifar")
    settings = {"training.seed": 1}
    name = runs._name(_Training(settings, 1))
    kept = {"top1": 0.5, "images": 10, "train_errors": [0.1], "seconds": 1.0, "slope": 0.4}
    (tmp_path / f"{name}.json").write_text(json.dumps(kept))
    (tmp_path / name / "checkpoints").mkdir(parents=True)
    assert runs.train([settings]) == [Trained(0.5, 10, (0.1,), 1.0, 0.4)]
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.json"]


def test_a_training_that_diverges_is_kept_as_one_that_learned_nothing(
    data: Path, tmp_path: Path
) -> None:
    told = {
        "training.epochs": 2, "training.lr": 1e30, "data.image_size": 16, "model.norm": "none",
        "augment.scale": (0.9, 1.1),
    }  # fmt: skip
    runs = Runs(tmp_path, str(data), open_data(str(data)).train, "alexnet_cifar", "cpu")
    (found,) = runs.train([told])
    assert found == Trained(0.0, 0, (1.0, 1.0), 0.0, None, diverged=True)
    (kept,) = tmp_path.iterdir()
    before = kept.stat().st_mtime_ns
    assert runs.train([told]) == [found]
    assert kept.stat().st_mtime_ns == before


def test_slopes_are_measured_on_pictures_of_all_classes() -> None:
    learned = open_data("mnist-5k").train
    some = Runs.__new__(Runs)
    some.learned = learned.subset(np.argsort(learned.labels, kind="stable"))
    counts = np.bincount(some._some.labels, minlength=10)
    assert counts.sum() == SOME
    assert counts.min() >= 25
    some.learned = learned.subset([3, 4])
    del some._some
    assert some._some.names == learned.names[3:5]


def test_the_stairs_end_at_what_was_asked_for() -> None:
    told = {**BASE, "model.dropout": "0.3", "augment.shift": "0.2"}
    assert {**told, **stairs(told)[-1].changes} == told


@pytest.mark.parametrize(("model", "towers"), [("alexnet", True), ("alexnet_owt", False)])
def test_only_a_network_with_towers_is_compared_to_one_with_a_single_tower(
    model: str, towers: bool
) -> None:
    assert has_towers(model) is towers


def test_what_it_refuses(data: Path, tmp_path: Path) -> None:
    for setting in ("model.norm", "training.seed"):
        with pytest.raises(UsageError, match=f"{setting} is what an ablation changes"):
            ablate(data, tmp_path / "a", settings={setting: "1"})
    untested = {"data.test_fraction": 0.0, "training.epochs": 1}
    with pytest.raises(UsageError, match=r"shapes has no test part: .*test_fraction above 0"):
        ablate(data, tmp_path / "a", settings=untested)
    with pytest.raises(UsageError, match="at least 2, for an interval"):
        ablate(data, tmp_path / "a", seeds=1)
    with pytest.raises(UsageError, match=r"training\.epochs"):
        ablate(data, tmp_path / "b", settings={"training.epochs": "some"})
    with pytest.raises(UsageError, match="lenet5 has no choices to ablate"):
        ablate(data, tmp_path / "a", model="lenet5")
    (tmp_path / "note").touch()
    with pytest.raises(UsageError, match="holds other files"):
        ablate(data, tmp_path, settings={"training.epochs": 1})

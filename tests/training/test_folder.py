from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet.errors import UsageError
from alexnet.training import folder as folder_module
from alexnet.training.folder import RunFolder, write_scalars


def test_a_fresh_folder_is_made_and_has_only_the_lock(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path / "runs" / "a", resume=False)
    assert folder.path.is_dir()
    assert [path.name for path in folder.path.iterdir()] == [".lock"]
    assert not folder.begun
    assert folder.checkpoints == folder.path / "checkpoints"


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    "leftover",
    ["", "bad_images.csv", ".config.json.abc.tmp", ".tmpAtIq8m", ".lock", ".bad_images.csv.x.tmp"],
)
def test_what_a_kill_leaves_before_the_first_moment_is_no_obstacle(
    leftover: str, resume: bool, tmp_path: Path
) -> None:
    if leftover:
        (tmp_path / leftover).touch()
    folder = RunFolder.open(tmp_path, resume=resume)
    assert not folder.begun
    assert {path.name for path in tmp_path.iterdir()} <= {"bad_images.csv", ".lock"}


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", ["photo.jpg", "metrics.jsonl", ".hidden", "notes.tmp"])
def test_a_folder_of_other_things_is_left_alone(name: str, resume: bool, tmp_path: Path) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(UsageError, match="holds something else than a run: choose another"):
        RunFolder.open(tmp_path, resume=resume)
    assert (tmp_path / name).read_text() == "precious"


def test_a_run_is_gone_on_with_by_resume_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model": "lenet5"}')
    (tmp_path / "checkpoints").mkdir()
    for leftover in (".epoch.safetensors.x.tmp", ".tmpAtIq8m"):  # safetensors' own name
        (tmp_path / "checkpoints" / leftover).touch()
    with pytest.raises(UsageError, match="exists: go on with it by --resume, or choose another"):
        RunFolder.open(tmp_path, resume=False)
    folder = RunFolder.open(tmp_path, resume=True)
    assert folder.begun
    assert folder.read_config() == {"model": "lenet5"}
    assert not list(folder.checkpoints.iterdir())


def test_there_is_nothing_to_resume_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no run to resume: leave --resume out"):
        RunFolder.open(tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("resume", [False, True])
def test_a_file_is_no_folder(resume: bool, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="choose another folder with -o"):
        RunFolder.open(tmp_path / "file", resume=resume)


def test_below_a_file_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="choose a folder that can be written to"):
        RunFolder.open(tmp_path / "file" / "run", resume=False)


def test_the_history_is_a_line_an_epoch(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_history([{"epoch": 1}, {"epoch": 2}])
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"format_version": 1, "epoch": 1},
        {"format_version": 1, "epoch": 2},
    ]


def test_tensorboard_has_every_epoch_once(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    folder = RunFolder(tmp_path)
    records = [{"epoch": n, "stage": "train", "train_loss": 1 / n, "lr": 0.1} for n in (1, 2, 3)]
    for begun in (0, 2):  # a run, and the same resumed after its second epoch
        with folder.tensorboard(records[:begun]) as writer:
            for record in records[begun:]:
                write_scalars(writer, record)
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert sorted(events.Tags()["scalars"]) == ["lr", "train/loss"]
    found = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert found == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]


HOLD = """
import sys, time
from alexnet.training.folder import RunFolder

folder = RunFolder.open(sys.argv[1], resume=False)
print("held", flush=True)
time.sleep(60)
"""


def test_two_trainings_do_not_share_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "PATIENCE", 0.3)
    line = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=r"another process trains in .*run: wait for it"):
            RunFolder.open(tmp_path / "run", resume=False)
        holder.kill()
    opened = RunFolder.open(tmp_path / "run", resume=False)  # whoever is killed lets go
    assert (tmp_path / "run" / ".lock").exists()
    del opened
    gc.collect()
    assert not list((tmp_path / "run").iterdir())

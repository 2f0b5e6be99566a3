"""A data set packed: what comes back is what went in, whatever happened on the way."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

import alexnet
from alexnet.cli.main import main
from alexnet.data import FilePictures, Splits, fit, load_pixels, open_data
from alexnet.data.pack import shrink
from alexnet.data.sources import has_mirror_images
from alexnet.errors import FailedError, UsageError
from alexnet.spec import InputSpec

Contents = dict[str, bytes]


def fill(folder: Path, classes: str, count: int) -> Path:
    """``count`` pictures a class: of several sizes, some gray, JPEG and PNG."""
    random = np.random.default_rng(0)
    for name in classes.split():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            rough = random.integers(0, 256, (4, 5, 3), dtype=np.uint8)
            width, height = (int(side) for side in random.integers(20, 90, 2))
            picture = Image.fromarray(rough).resize((width, height))
            picture = picture.convert("L") if number % 3 == 0 else picture
            picture.save(folder / name / f"{number:03}.{'png' if number % 4 else 'jpg'}")
    return folder


def clutter(folder: Path) -> None:
    """What is refused, by its name and by its content."""
    (folder / "README.md").write_text("not in a class folder")
    (folder / "void").mkdir()
    (folder / "rubbish").mkdir()
    (folder / "rubbish" / "page.jpg").write_text("<html>")
    (folder / "ant" / ".DS_Store").write_bytes(b"x")
    cut = (folder / "ant" / "000.jpg").read_bytes()[:-300]
    (folder / "ant" / "005 cut.jpg").write_bytes(cut)
    (folder / "bee" / "empty.png").touch()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = fill(tmp_path / "photos", "ant bee cat", 20)
    clutter(folder)
    return folder


def bytes_of(folder: Path) -> Contents:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def same(first: Splits, second: Splits) -> None:
    assert first.classes == second.classes
    assert first.refused == second.refused
    assert first.note == second.note
    for name in ("train", "val", "test"):
        one, other = getattr(first, name), getattr(second, name)
        assert (one is None) == (other is None)
        if one is not None:
            assert one.classes == other.classes
            assert one.labels.tolist() == other.labels.tolist()
            assert list(one.names) == list(other.names)


@pytest.mark.parametrize("format", ["jpeg", "raw"])
def test_it_opens_as_the_original(photos: Path, tmp_path: Path, format: str) -> None:
    done = alexnet.prepare(photos, tmp_path / "packed", size=32, format=format, workers=1)  # type: ignore[arg-type]
    original = open_data(str(photos))
    bad = [one for one in original.refused if not one.hidden]
    assert (done.images, done.refused) == (60, len(bad) - 2)  # less empty classes
    for options in ({}, {"seed": 3}, {"test_fraction": 0.0}, {"val_fraction": 0.0}):
        same(open_data(str(photos), **options), open_data(str(done.folder), **options))  # type: ignore[arg-type]
    listed = (done.folder / "bad_images.csv").read_text()
    assert "ant/005 cut.jpg,truncated" in listed
    assert "bee/empty.png,empty file" in listed


def test_a_folder_with_parts_keeps_them(tmp_path: Path) -> None:
    source = tmp_path / "parts"
    fill(source / "Train", "ant bee cat", 9)
    fill(source / "valid", "bee cat", 5)
    fill(source / "test", "ant", 4)
    fill(source / "raw", "ant", 1)
    (source / "test" / "void").mkdir()
    (source / "valid" / "bee" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    done = alexnet.prepare(source, tmp_path / "packed", size=32, workers=1)
    same(open_data(str(source)), open_data(str(done.folder)))
    again = alexnet.prepare(done.folder, tmp_path / "again", size=24, workers=1)
    same(open_data(str(source)), open_data(str(again.folder)))
    shutil.rmtree(source / "valid")
    fewer = alexnet.prepare(source, tmp_path / "fewer", size=32, workers=1)
    same(open_data(str(source)), open_data(str(fewer.folder)))


def test_pixels(photos: Path, tmp_path: Path) -> None:
    spec = InputSpec(size=24, resize=32)
    for format, tolerance in (("raw", 1), ("jpeg", 60)):
        packed = alexnet.prepare(photos, tmp_path / format, size=32, format=format, workers=1)  # type: ignore[arg-type]
        kept = open_data(str(packed.folder)).train
        original = open_data(str(photos)).train
        assert isinstance(original, FilePictures)
        for index in range(len(kept)):
            pixels, before = kept.read(index), original.read(index)
            wanted = shrink(before, 32)
            assert pixels.shape == wanted.shape  # gray stays gray, small stays small
            assert min(pixels.shape[:2]) == min(32, *before.shape[:2])
            if format == "raw":
                assert np.array_equal(pixels, wanted)
            apart = fit(pixels, spec, 32).astype(int) - fit(before, spec, 32)
            assert np.abs(apart).max() <= tolerance
            assert np.abs(apart).mean() <= (0.5 if format == "raw" else 6)


def test_hugging_face_reads_it(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    datasets = pytest.importorskip("datasets")
    mine = open_data(str(photos), test_fraction=0, val_fraction=0).train
    alexnet.prepare(photos, tmp_path / "packed", size=32, workers=1)
    found = datasets.load_from_disk(str(tmp_path / "packed"))
    assert list(found) == ["train"]
    assert isinstance(found["train"].features["image"], datasets.Image)
    names = found["train"].features["label"].names
    assert [names[label] for label in found["train"]["label"]] == [
        mine.classes[label] for label in mine.labels
    ]
    kept = open_data(str(tmp_path / "packed"), test_fraction=0, val_fraction=0).train
    for index in (0, 7, 59):
        shown = np.asarray(found["train"][index]["image"])
        assert np.abs(kept.read(index).squeeze() - shown.astype(int)).max() <= 2
    alexnet.prepare(photos, tmp_path / "raw", size=32, format="raw", workers=1)
    row = datasets.load_from_disk(str(tmp_path / "raw"))["train"][1]
    assert row.keys() == {"name", "height", "width", "channels", "bytes", "label"}
    assert len(row["bytes"]) == row["height"] * row["width"] * row["channels"]
    assert row["name"] == mine.names[1]


def test_a_finished_folder_is_left_alone_and_a_damaged_one_made_again(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = tmp_path / "packed"
    line = ["prepare", str(photos), "-o", str(packed), "--workers", "1", "--json"]
    assert main(line) == 1
    first = json.loads(capsys.readouterr().out)
    assert first.keys() == {"folder", "images", "refused", "shards", "bytes", "seconds"}
    content = bytes_of(packed)
    stamps = {path: path.stat().st_mtime_ns for path in packed.rglob("*")}
    assert main(line) == 1
    second = json.loads(capsys.readouterr().out)
    assert second | {"seconds": 0} == first | {"seconds": 0}
    assert stamps == {path: path.stat().st_mtime_ns for path in packed.rglob("*")}
    (packed / ".preparing").mkdir()  # as after a kill between the manifest and the tidying up
    (packed / ".preparing" / "plan.json").write_text("{}")
    assert len(open_data(str(packed)).classes) == 3
    assert main(line) == 1
    assert bytes_of(packed) == content
    shard = next(packed.rglob("*.arrow"))
    shard.write_bytes(shard.read_bytes()[:-50])
    with pytest.raises(FailedError, match=r"has .* bytes of .*: run the same 'alexnet pre"):
        open_data(str(packed))
    assert main(line) == 1
    assert bytes_of(packed) == content


def test_a_picture_mended_or_added_is_another_data_set(photos: Path, tmp_path: Path) -> None:
    alexnet.prepare(photos, tmp_path / "packed", workers=1)
    shutil.copy(photos / "bee" / "001.png", photos / "bee" / "empty.png")
    with pytest.raises(UsageError, match="begun with other pictures"):
        alexnet.prepare(photos, tmp_path / "packed", workers=1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 0}, "size is 0: it must be at least 1"),
        ({"quality": 101}, "quality is 101: it must be from 1 to 100"),
        ({"workers": -1}, "workers is -1"),
        ({"format": "png"}, "format is png: it must be jpeg or raw"),
        ({"size": 64}, "begun with other settings (size 32, format jpeg, quality 90)"),
        ({"out": "photos/inside"}, "lies in the data"),
        ({"out": "full"}, "holds something else"),
        ({"data": "nowhere/"}, "there is no folder nowhere/"),
        ({"data": "empty"}, "has no usable picture"),
        ({"data": "one"}, "one class only"),
    ],
)
def test_wrong_use_is_one_line(
    options: dict[str, object], said: str, photos: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    fill(tmp_path / "one", "ant", 2)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    if options == {"size": 64}:
        alexnet.prepare("photos", "packed", size=32, workers=1)
    with pytest.raises(UsageError) as caught:
        alexnet.prepare(**{"data": "photos", "out": "packed", **options})  # type: ignore[arg-type]
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,500 pictures, which are twenty, large enough to take seconds."""
    folder = tmp_path_factory.mktemp("many") / "many"
    random = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (folder / name).mkdir(parents=True)
        for number in range(10):
            rough = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            first = folder / name / f"{number}.jpg"
            Image.fromarray(rough).resize((320, 240)).save(first)
            for copy in range(1, 75):
                os.link(first, folder / name / f"{number}-{copy}.jpg")
        (folder / name / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


@pytest.fixture(scope="module")
def uninterrupted(many: Path) -> Contents:
    folder = many.parent / "whole"
    alexnet.prepare(many, folder, size=64, workers=2)
    return bytes_of(folder)


def begin(many: Path, packed: Path, shards: int) -> subprocess.Popen[str]:
    """The command, when it has written so many shards."""
    line = [sys.executable, "-m", "alexnet", "prepare", str(many), "-o", str(packed)]
    line += ["--size", "64", "--workers", "2"]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: len(list(packed.glob(".preparing/train-*.json"))) >= shards, process)
    return process


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while not ready():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.002)


@pytest.mark.parametrize("shards", [0, 3])
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(
    many: Path, uninterrupted: Contents, tmp_path: Path, shards: int
) -> None:
    packed = tmp_path / "packed"
    process = begin(many, packed, shards)
    wait_for(lambda: (packed / ".preparing" / "plan.json").exists(), process)
    children = psutil.Process(process.pid).children()
    process.kill()
    process.communicate()
    assert not psutil.wait_procs(children, timeout=10)[1]  # nobody works on without it
    with pytest.raises(UsageError, match="not prepared to the end: run the same 'alexnet prepare'"):
        open_data(str(packed))
    with pytest.raises(UsageError, match="begun with other settings"):
        alexnet.prepare(many, packed, size=65)
    if shards:
        damage(packed)
    records = [json.loads(path.read_bytes()[:-1]) for path in records_of(packed)[2:]]
    stamps = {record["file"]: (packed / record["file"]).stat().st_mtime_ns for record in records}
    done = alexnet.prepare(many, packed, size=64, workers=1)
    assert (done.images, done.refused, done.shards) == (1500, 2, 6)
    assert bytes_of(packed) == uninterrupted
    # What was whole was not written again.
    assert len(stamps) >= shards - 2
    assert stamps == {file: (packed / file).stat().st_mtime_ns for file in stamps}


def records_of(packed: Path) -> list[Path]:
    return sorted(packed.glob(".preparing/train-*.json"))


def damage(packed: Path) -> None:
    """A bit of a shard falls over, a record is cut, and half a file lies about."""
    records = records_of(packed)
    shard = packed / json.loads(records[0].read_text())["file"]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    records[1].write_text("{")
    (packed / "train" / ".data.arrow.x.tmp").write_bytes(b"half")


def test_ctrl_c_says_how_to_go_on(many: Path, uninterrupted: Contents, tmp_path: Path) -> None:
    packed = tmp_path / "a folder"
    process = begin(many, packed, 1)
    children = psutil.Process(process.pid).children()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it as well
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert said.splitlines()[-1] == (
        f"alexnet: interrupted; go on with the same command: alexnet prepare {many} "
        f"-o '{packed}' --size 64 --workers 2"
    )
    assert "Traceback" not in said
    assert not psutil.wait_procs(children, timeout=10)[1]
    assert not list(packed.rglob("*.tmp"))
    alexnet.prepare(many, packed, size=64)
    assert bytes_of(packed) == uninterrupted


def test_a_worker_that_is_killed_is_one_line(many: Path, tmp_path: Path) -> None:
    process = begin(many, tmp_path / "packed", 1)
    for child in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 3
    last = said.splitlines()[-1]
    assert last.startswith("alexnet: a worker process was killed")
    assert "run the same command again, with fewer --workers" in last


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_folder_that_cannot_be_written_to() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)  # pytest's own folders are closed to others
        fill(root / "photos", "ant bee", 2)
        os.seteuid(65534)
        try:
            with pytest.raises(UsageError, match="choose a folder that can be written to"):
                alexnet.prepare(root / "photos", root / "packed", workers=1)
        finally:
            os.seteuid(0)


# The shards take 1.5 MB: the disk is full at the plan, in a shard, and at the manifest.
@pytest.mark.parametrize("size", [4 << 10, 500 << 10])
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    size: int, many: Path, uninterrupted: Contents, small_disk: Callable[[int], Path]
) -> None:
    disk = small_disk(size)
    with pytest.raises(FailedError, match=r"no space left on the disk to write .*itself"):
        alexnet.prepare(many, disk / "packed", size=64)
    assert not list(disk.rglob("*.tmp"))
    subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
    alexnet.prepare(many, disk / "packed", size=64)
    assert bytes_of(disk / "packed") == uninterrupted


def test_a_file_in_the_way(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="choose"):
        alexnet.prepare(photos, tmp_path / "file" / "packed", workers=1)
    with pytest.raises(UsageError, match="holds something else"):
        alexnet.prepare(photos, tmp_path / "file", workers=1)


def test_named_data_and_digits_have_no_mirror_images(tmp_path: Path) -> None:
    done = alexnet.prepare("mnist-5k", tmp_path / "digits", format="raw", workers=1)
    splits, digits = open_data("mnist-5k"), open_data(str(done.folder))
    assert (len(digits.train), len(digits.val or ()), len(digits.test or ())) == (3600, 400, 1000)
    assert list(digits.train.names) == list(splits.train.names)
    spec = InputSpec(size=28, resize=28, channel_order="gray", mean=(0.0,), std=(1.0,))
    streamed = load_pixels(digits.train, spec, train=True, memory_limit=1 << 30)
    kept = load_pixels(splits.train, spec, train=True)
    plan = [torch.arange(0, 3600, 100)]
    for one, other in zip(streamed.batches(plan), kept.batches(plan), strict=True):
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))
    assert not has_mirror_images(str(done.folder))


def test_training_streams_from_it(photos: Path, tmp_path: Path) -> None:
    packed = alexnet.prepare(photos, tmp_path / "packed", size=32, format="raw", workers=1).folder
    settings = {"training.epochs": 1, "training.batch_size": 8}
    streamed = alexnet.train(packed, "lenet5_dense", out=tmp_path / "a", settings=settings)
    kept = alexnet.train(
        packed, "lenet5_dense", out=tmp_path / "b", settings={**settings, "data.memory_gb": 1}
    )
    assert streamed.metrics["test_loss"] == kept.metrics["test_loss"]
    assert streamed.config["data"]["folder"] == str(packed.resolve())
    assert alexnet.evaluate(str(tmp_path / "a"), packed).images == streamed.metrics["test_images"]
    with pytest.raises(UsageError, match=r"data\.memory_gb is -1\.0: it must be 0 or more"):
        alexnet.train(packed, out=tmp_path / "c", settings={"data.memory_gb": -1})


def test_a_run_knows_the_prepared_copy_of_what_it_was_trained_on(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"training.epochs": 1, "data.test_fraction": 0.2}
    run = alexnet.train(photos, "lenet5_dense", out=tmp_path / "run", settings=settings)
    packed = alexnet.prepare(photos, tmp_path / "packed", size=32, workers=1).folder
    found = alexnet.evaluate(run.folder, packed)
    assert found.images == run.metrics["test_images"]
    assert "it is divided as that was" in caplog.text

"""ImageNet as it is distributed, in small: archives and folders read in place."""

from __future__ import annotations

import csv
import io
import logging
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alexnet import files
from alexnet.data import Splits, decode, open_data
from alexnet.data.archive import list_archive
from alexnet.data.sources import data_folder, list_data
from alexnet.errors import AlexnetError, FailedError, UsageError

Words = dict[str, str]
TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def archives(tmp_path: Path, write_archives: Callable[..., Words]) -> tuple[Path, Words]:
    return tmp_path / "imagenet", write_archives(tmp_path / "imagenet")


def pixels_of(splits: Splits) -> dict[str, tuple[str, bytes]]:
    found = {}
    for part in (splits.train, splits.val, splits.test):
        for index in range(len(part or ())):
            assert part is not None
            label = splits.classes[part.labels[index]]
            found[part.names[index]] = (label, part.read(index).tobytes())
    return found


def extract(folder: Path, target: Path) -> None:
    """The archives as people unpack them: a folder a synset, and a flat val/."""
    with tarfile.open(folder / TRAIN) as outer:
        for member in outer:
            content = outer.extractfile(member)
            assert content
            with tarfile.open(fileobj=io.BytesIO(content.read())) as inner:
                inner.extractall(target / "train" / member.name.removesuffix(".tar"))
    with tarfile.open(folder / VAL) as archive:
        archive.extractall(target / "val")


def test_archives_are_read_in_place(archives: tuple[Path, Words]) -> None:
    folder, words = archives
    before = sorted(folder.iterdir())
    splits = open_data(f"imagenet:{folder}")
    assert splits.classes == tuple(sorted(words))
    assert splits.descriptions == words
    assert (len(splits.train), len(splits.val or ()), len(splits.test or ())) == (22, 2, 8)
    assert "2 pictures of train/ are held out for validation." in splits.note
    assert "The test part is ImageNet's validation part" in splits.note
    found = pixels_of(splits)
    with tarfile.open(folder / TRAIN) as outer:
        for member in outer:
            content = outer.extractfile(member)
            assert content
            with tarfile.open(fileobj=io.BytesIO(content.read())) as inner:
                for picture in inner:
                    file = inner.extractfile(picture)
                    assert file
                    synset = member.name.removesuffix(".tar")
                    label, pixels = found.pop(f"train/{synset}/{picture.name}")
                    assert (label, pixels) == (synset, decode(file.read()).tobytes())
    order = list(words)  # number i of the truth is the synset 3 i + 1, by its own order
    for number in range(8):
        label, _ = found.pop(f"val/ILSVRC2012_val_{number + 1:08}.JPEG")
        assert label == order[(3 * number + 1) % 4]
    assert not found
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("unpacked", [False, True])
def test_a_picture_s_own_bytes_are_asked_for(
    unpacked: bool,
    archives: tuple[Path, Words],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, _ = archives
    if unpacked:
        extract(folder, tmp_path / "flat")
        shutil.copy(folder / DEVKIT, tmp_path / "flat")
        folder = tmp_path / "flat"
    fetched: list[bytes] = []

    def note(path: Path, offset: int = 0, size: int = 0) -> None:
        content = path.read_bytes()
        fetched.append(content[offset : offset + size] if size else content)

    monkeypatch.setattr(files, "expect", note)
    pictures = open_data(f"imagenet:{folder}").train
    for index in range(len(pictures)):
        pictures.expect(index)
        assert np.array_equal(decode(fetched.pop()), pictures.read(index))


def test_folders_and_kaggle_are_the_same_pictures(
    archives: tuple[Path, Words], tmp_path: Path
) -> None:
    folder, words = archives
    official = open_data(f"imagenet:{folder}")
    flat = tmp_path / "flat"
    extract(folder, flat)
    with pytest.raises(UsageError, match=r"does not say what is on its pictures: put ILSVRC2012_d"):
        open_data(f"imagenet:{flat}")
    shutil.copy(folder / DEVKIT, flat)
    assert pixels_of(open_data(f"imagenet:{flat}")) == pixels_of(official)

    kaggle = tmp_path / "kaggle" / "ILSVRC" / "Data" / "CLS-LOC"
    shutil.copytree(flat, kaggle)
    (kaggle / DEVKIT).unlink()
    root = tmp_path / "kaggle"
    text = "".join(f"{name} {said}\n" for name, said in words.items())
    (root / "LOC_synset_mapping.txt").write_text(text)
    test = official.test
    assert test is not None
    with (root / "LOC_val_solution.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("ImageId", "PredictionString"))
        for name, label in zip(test.names, test.labels, strict=True):
            synset = official.classes[label]
            rows.writerow((Path(name).stem, f"{synset} 1 2 3 4 {synset} 5 6 7 8 "))
    for place in (root, kaggle):
        splits = open_data(f"imagenet:{place}")
        assert pixels_of(splits) == pixels_of(official)
        assert splits.descriptions == words

    sorted_val = tmp_path / "sorted"
    shutil.copytree(flat / "train", sorted_val / "train")
    for name, label in zip(test.names, test.labels, strict=True):
        (sorted_val / "val" / official.classes[label]).mkdir(parents=True, exist_ok=True)
        shutil.copy(flat / name, sorted_val / "val" / official.classes[label])
    splits = open_data(f"imagenet:{sorted_val}")
    assert sorted(splits.test.labels if splits.test else ()) == sorted(test.labels)
    assert not splits.descriptions
    shutil.rmtree(sorted_val / "val")
    assert open_data(f"imagenet:{sorted_val}").test is None


def test_places_are_looked_up_once(archives: tuple[Path, Words], cache: Path) -> None:
    path = archives[0] / TRAIN
    first = list_archive(path, nested=True)
    (kept,) = cache.rglob("*.npz")
    stamp = kept.stat().st_mtime_ns
    again = list_archive(path, nested=True)
    assert kept.stat().st_mtime_ns == stamp
    assert list(first.names) == list(again.names)
    assert np.array_equal(first.offsets, again.offsets)
    assert np.array_equal(first.sizes, again.sizes)
    kept.write_bytes(b"PK rubbish")
    assert list(list_archive(path, nested=True).names) == list(first.names)
    shutil.copy(archives[0] / VAL, path)  # another archive by the same name
    with pytest.raises(FailedError, match="damaged"):
        list_archive(path, nested=True)


def test_a_subset_travels_to_a_process_cheaply(archives: tuple[Path, Words]) -> None:
    pictures = list_data(f"imagenet:{archives[0]}").parts["train"].pictures
    part = pictures.subset([3, 20]).subset([1])
    other = pickle.loads(pickle.dumps(part))
    assert other.names[0] == pictures.names[20]
    assert np.array_equal(other.read(0), pictures.read(20))
    assert part.marks().tolist() == pictures.marks()[[20]].tolist()


def cut(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


def replace_in_devkit(folder: Path, name: str, change: Callable[[bytes], bytes | None]) -> None:
    with tarfile.open(folder / DEVKIT) as archive:
        content = {}
        for member in archive:
            file = archive.extractfile(member)
            assert file
            content[member.name] = file.read()
    with tarfile.open(folder / DEVKIT, "w:gz") as archive:
        for inner, data in content.items():
            changed = change(data) if inner.endswith(name) else data
            if changed is not None:
                member = tarfile.TarInfo(inner)
                member.size = len(changed)
                archive.addfile(member, io.BytesIO(changed))


@pytest.mark.parametrize(
    ("harm", "kind", "said"),
    [
        (lambda f: (f / TRAIN).unlink(), UsageError, f"has no {TRAIN} and no folder train/: put"),
        (lambda f: shutil.rmtree(f), UsageError, "there is no folder"),
        (lambda f: (f / DEVKIT).unlink(), UsageError, f"{VAL} does not say what is on its"),
        (lambda f: cut(f / TRAIN, 30_000), FailedError, f"{TRAIN} is damaged (cut within n"),
        (lambda f: cut(f / TRAIN, 0), FailedError, f"{TRAIN} is damaged ("),
        (lambda f: cut(f / VAL, 9000), FailedError, f"{VAL} is damaged ("),
        (lambda f: (f / VAL).write_bytes(b"<html>" * 999), FailedError, f"{VAL} is damaged ("),
        (lambda f: cut(f / DEVKIT, 300), FailedError, f"{DEVKIT} is damaged ("),
        (
            lambda f: replace_in_devkit(f, "meta.mat", lambda data: None),
            FailedError,
            f"{DEVKIT} has no data/meta.mat: download",
        ),
        (
            lambda f: replace_in_devkit(f, "meta.mat", lambda data: data[:300]),
            FailedError,
            f"{DEVKIT} is damaged (",
        ),
        (
            lambda f: replace_in_devkit(f, "truth.txt", lambda data: data[:-2]),
            FailedError,
            "a picture that",
        ),
        (
            lambda f: replace_in_devkit(f, "truth.txt", lambda data: data + b"1\n"),
            FailedError,
            f"{VAL} is incomplete: it holds 8 pictures and",
        ),
        (
            lambda f: replace_in_devkit(f, "truth.txt", lambda data: b"999\n" + data),
            FailedError,
            f"{DEVKIT} is damaged (999)",
        ),
    ],
)
def test_what_is_missing_or_broken_is_one_line(
    archives: tuple[Path, Words], harm: Callable[[Path], object], kind: type[AlexnetError],
    said: str,
) -> None:  # fmt: skip
    harm(archives[0])
    with pytest.raises(kind) as caught:
        open_data(f"imagenet:{archives[0]}")
    assert said in str(caught.value)
    assert str(archives[0]) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_archive_that_lacks_pictures_is_told_by_the_devkit(
    tmp_path: Path, write_archives: Callable[..., Words]
) -> None:
    write_archives(tmp_path / "all", train=6)
    write_archives(tmp_path / "fewer", train=5)
    shutil.copy(tmp_path / "fewer" / TRAIN, tmp_path / "all" / TRAIN)
    with pytest.raises(FailedError, match=r"holds 5 pictures of n\d{8} and .*says 6"):
        open_data(f"imagenet:{tmp_path / 'all'}")


def test_a_broken_picture_is_refused_where_it_matters(
    archives: tuple[Path, Words], caplog: pytest.LogCaptureFixture
) -> None:
    folder, _ = archives
    for name in (TRAIN, VAL):
        content = bytearray((folder / name).read_bytes())
        first = content.index(b"\xff\xd8\xff")
        content[first : first + 300] = bytes(300)
        (folder / name).write_bytes(content)
    splits = open_data(f"imagenet:{folder}", val_fraction=0)
    assert splits.test is not None
    assert len(splits.test) == 7  # of the part that is measured it is left out
    assert [bad.name for bad in splits.refused] == ["val/ILSVRC2012_val_00000001.JPEG"]
    assert len(splits.train) == 24
    with caplog.at_level(logging.WARNING, "alexnet"):
        first_pixels = splits.train.read(0)  # for training another of its class stands
    assert np.array_equal(first_pixels, splits.train.read(1))
    assert "another picture of its class is read in its place" in caplog.text
    (folder / TRAIN).write_bytes(bytes((folder / TRAIN).stat().st_size))
    with pytest.raises(FailedError, match="nor can others of its class"):
        splits.train.read(0)


def test_the_folder_is_known_by_any_path(
    archives: tuple[Path, Words], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(archives[0])
    assert data_folder("imagenet:.") == archives[0].resolve()
    assert data_folder("imagenet:nowhere") is None

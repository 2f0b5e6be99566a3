"""Folders as people have them."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from alexnet.data import BadImage, Splits, open_data, write_bad_images
from alexnet.data.pictures import Pictures
from alexnet.errors import FailedError, UsageError

NOBODY = 65534


def fill(folder: Path, count: int, color: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        pixels = np.full((8, 10, 3), (color, index % 256, 128), np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{index:03}.png")


def part(pictures: Pictures | None) -> Pictures:
    assert pictures is not None
    return pictures


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for number, name in enumerate(("bird", "cat", "dog")):
        fill(root / name, 20, 80 * number)
    return root


def parts(splits: Splits) -> dict[str, list[str]]:
    found = {"train": splits.train, "val": splits.val, "test": splits.test}
    return {name: sorted(part.names) for name, part in found.items() if part is not None}


def refused(splits: Splits) -> dict[str, str]:
    names = [bad.name for bad in splits.refused]
    assert len(set(names)) == len(names)
    return {bad.name: bad.reason for bad in splits.refused}


def test_flat_folder_is_split_stratified(photos):
    splits = open_data(str(photos))
    assert splits.classes == ("bird", "cat", "dog")
    assert {name: len(names) for name, names in parts(splits).items()} == {
        "train": 43,
        "val": 5,
        "test": 12,
    }
    assert np.bincount(part(splits.test).labels).tolist() == [4, 4, 4]
    assert len({name for names in parts(splits).values() for name in names}) == 60
    assert not splits.refused
    assert not splits.note
    for held in (splits.train, part(splits.val), part(splits.test)):
        for index in range(len(held)):
            name = held.names[index]
            assert name.split("/")[0] == splits.classes[held.labels[index]]
            pixels = held.read(index)
            assert pixels.shape == (8, 10, 3)
            assert pixels[0, 0].tolist() == [80 * held.labels[index], int(name[-7:-4]), 128]


def test_split_depends_on_the_seed_and_the_names_not_on_the_disk(photos, tmp_path):
    copy = tmp_path / "copy"
    for path in sorted(photos.rglob("*.png"), reverse=True):  # another order of creation
        (copy / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy / path.parent.name / path.name)
    first = parts(open_data(str(photos), seed=3))
    assert first == parts(open_data(f"{copy}{os.sep}", seed=3, workers=1))
    assert first["test"] != parts(open_data(str(photos), seed=4))["test"]
    for name in ("test", "val"):
        assert name in parts(open_data(str(photos)))
    assert "test" not in parts(open_data(str(photos), test_fraction=0))
    assert "val" not in parts(open_data(str(photos), val_fraction=0))


def test_users_parts_are_kept(photos, tmp_path):
    for name in ("train", "valid", "test"):
        shutil.copytree(photos, tmp_path / "parts" / name)
    shutil.rmtree(tmp_path / "parts" / "valid" / "dog")
    shutil.rmtree(tmp_path / "parts" / "test" / "bird")
    (tmp_path / "parts" / "raw").mkdir()
    splits = open_data(str(tmp_path / "parts"))
    assert {name: len(names) for name, names in parts(splits).items()} == {
        "train": 60,
        "val": 40,
        "test": 40,
    }
    assert splits.classes == part(splits.test).classes == ("bird", "cat", "dog")
    assert set(part(splits.val).labels) == {0, 1}
    assert set(part(splits.test).labels) == {1, 2}
    assert all(name.startswith("valid/") for name in part(splits.val).names)
    assert part(splits.test).read(0)[0, 0, 0] == 80  # a cat, by the training part's number
    assert splits.note == "Not read: raw."


@pytest.mark.parametrize("given", [["train"], ["train", "test"], ["Train", "Test"]])
def test_validation_is_held_out_of_train_where_it_is_missing(photos, tmp_path, given):
    for name in given:
        shutil.copytree(photos, tmp_path / "parts" / name)
    found = parts(open_data(str(tmp_path / "parts")))
    assert {name: len(names) for name, names in found.items()} == {
        "train": 54,
        "val": 6,
        **({"test": 60} if len(given) == 2 else {}),
    }
    assert "val" not in parts(open_data(str(tmp_path / "parts"), val_fraction=0))


def test_a_class_may_be_called_train(tmp_path):
    for name in ("train", "bus", "car"):
        fill(tmp_path / name, 5)
    assert open_data(str(tmp_path)).classes == ("bus", "car", "train")


def test_classes_of_val_must_be_among_trains(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "parts" / "train")
    shutil.copytree(photos, tmp_path / "parts" / "val")
    shutil.rmtree(tmp_path / "parts" / "train" / "dog")
    with pytest.raises(UsageError, match="class 'dog', of which train/ has no"):
        open_data(str(tmp_path / "parts"))
    shutil.copytree(tmp_path / "parts" / "val", tmp_path / "parts" / "validation")
    with pytest.raises(UsageError, match="both val/ and validation/"):
        open_data(str(tmp_path / "parts"))


def test_an_empty_val_is_said_and_replaced(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "parts" / "train")
    (tmp_path / "parts" / "val" / "dog").mkdir(parents=True)
    splits = open_data(str(tmp_path / "parts"))
    assert len(part(splits.val)) == 6
    assert "val/ has no usable picture." in splits.note
    assert refused(splits) == {"val/dog/": "class without a usable picture"}


def test_pictures_of_a_class_may_lie_deeper(photos):
    fill(photos / "cat" / "2021" / "spring", 3)
    splits = open_data(str(photos), test_fraction=0, val_fraction=0)
    assert "cat/2021/spring/000.png" in splits.train.names
    assert np.bincount(splits.train.labels).tolist() == [20, 23, 20]


def test_clutter_is_skipped_and_listed(photos):
    clutter = {
        "cat/.hidden.png": "hidden file",
        "cat/.DS_Store": "system file",
        "dog/Thumbs.db": "system file",
        "dog/desktop.ini": "system file",
        "dog/._000.png": "hidden file",
        "dog/empty.jpg": "empty file",
        "dog/notes.txt": "not an image",
        "README.md": "not in a class folder",
        ".gitignore": "hidden file",
    }
    for name in clutter:
        (photos / name).write_bytes(b"" if "empty" in name else b"not a picture\n")
    fill(photos / ".git", 3)
    fill(photos / "__MACOSX" / "cat", 3)
    fill(photos / "cat" / ".thumbnails", 3)
    (photos / "fish").mkdir()
    (photos / "frog").mkdir()
    (photos / "frog" / "broken.png").write_bytes(b"\x89PNG")
    splits = open_data(str(photos))
    assert splits.classes == ("bird", "cat", "dog")
    assert sum(map(len, parts(splits).values())) == 60
    found = refused(splits)
    assert found.pop("frog/broken.png")
    assert found == clutter | {
        ".git/": "hidden folder",
        "__MACOSX/": "system folder",
        "cat/.thumbnails/": "hidden folder",
        "fish/": "class without a usable picture",
        "frog/": "class without a usable picture",
    }
    assert splits.note == "Left out, without a usable picture: fish, frog."


def damage() -> dict[str, bytes]:
    """Ten ways in which a picture of a folder is broken."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    image = PIL.Image.fromarray(noise)
    files = {}
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP"):
        stream = io.BytesIO()
        image.save(stream, kind)
        files[kind] = stream.getvalue()
    half = {kind: data[: len(data) // 2] for kind, data in files.items()}
    jpeg, png = files["JPEG"], files["PNG"]
    middle = len(jpeg) // 2
    return {
        "zero bytes.jpg": b"",
        "cut.jpg": half["JPEG"],
        "overwritten.jpg": jpeg[:middle] + bytes(500) + jpeg[middle + 500 :],
        "header only.jpg": jpeg[:20],
        "cut.png": half["PNG"],
        "bit.png": png[:middle] + bytes([png[middle] ^ 4]) + png[middle + 1 :],
        "cut.webp": half["WEBP"],
        "cut.gif": half["GIF"],
        "cut.bmp": half["BMP"],
        "page.jpg": b"<html>not found</html>",
    }


def test_twenty_of_two_hundred_damaged_in_ten_ways_are_all_named(tmp_path):
    expected = set()
    for name in ("ant", "bee"):
        fill(tmp_path / name, 90)
        for file, data in damage().items():
            (tmp_path / name / file).write_bytes(data)
            expected.add(f"{name}/{file}")
    assert len(expected) == 20
    splits = open_data(str(tmp_path))
    assert set(refused(splits)) == expected
    assert all(reason and "\n" not in reason for reason in refused(splits).values())
    assert sum(map(len, parts(splits).values())) == 180


def test_links_pipes_and_loops(photos, tmp_path):
    (photos / "cat" / "up").symlink_to(photos)
    (photos / "cat" / "again").symlink_to(photos / "cat")
    (photos / "cat" / "self").symlink_to(photos / "cat" / "self")
    (photos / "cat" / "gone.png").symlink_to(photos / "nowhere.png")
    os.mkfifo(photos / "cat" / "pipe.png")
    fill(tmp_path / "elsewhere", 2)
    (photos / "fox").symlink_to(tmp_path / "elsewhere")
    (photos / "fox" / "extra.png").symlink_to(photos / "dog" / "000.png")
    splits = open_data(str(photos))
    assert splits.classes == ("bird", "cat", "dog", "fox")
    assert refused(splits) == {
        "cat/up/": "a link to a folder that was read already",
        "cat/again/": "a link to a folder that was read already",
        "cat/self": "cannot be read (Too many levels of symbolic links)",
        "cat/gone.png": "cannot be read (No such file or directory)",
        "cat/pipe.png": "not a regular file",
    }
    assert sum(map(len, parts(splits).values())) == 63


def test_names_that_are_not_utf8_or_hold_control_characters(photos, tmp_path):
    root = os.fsencode(photos)
    source = root + b"/dog/000.png"
    os.mkdir(root + b"/caf\xe9")
    for name in (
        b"/caf\xe9/a.png",
        b"/caf\xe9/b.png",
        b"/dog/na\xefve.png",
        b"/dog/two\nlines.png",
    ):
        shutil.copy(source, root + name)
    with open(root + b"/dog/bad\xff.png", "wb"):
        pass
    splits = open_data(str(photos), test_fraction=0, val_fraction=0)
    assert splits.classes == ("bird", r"caf\xe9", "cat", "dog")
    assert {r"caf\xe9/a.png", r"dog/na\xefve.png", r"dog/two\nlines.png"} <= set(splits.train.names)
    for index, name in enumerate(splits.train.names):
        assert name.encode().decode().isprintable()
        assert splits.train.read(index).shape == (8, 10, 3)
    assert refused(splits) == {r"dog/bad\xff.png": "empty file"}
    write_bad_images(tmp_path / "bad.csv", splits.refused)


def test_accents_spelled_in_two_ways_are_one_class(tmp_path):
    fill(tmp_path / "parts" / "train" / "caf\u00e9", 4)
    fill(tmp_path / "parts" / "train" / "bar", 4)
    fill(tmp_path / "parts" / "val" / "cafe\u0301", 4)  # as macOS writes it
    splits = open_data(str(tmp_path / "parts"))
    assert splits.classes == ("bar", "caf\u00e9")
    assert part(splits.val).labels.tolist() == [1] * 4


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """Root may read everything: be somebody else for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_may_not_be_read_is_refused():
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)  # pytest's own folders are closed to others
        for label in ("ape", "cat", "owl"):
            fill(root / label, 3)
        open_data(name)  # all that is imported when it is needed
        (root / "cat" / "000.png").chmod(0)
        (root / "owl").chmod(0)
        with without_privileges():
            splits = open_data(name)
        assert splits.classes == ("ape", "cat")
        assert refused(splits) == {
            "cat/000.png": "cannot be read (Permission denied)",
            "owl/": "cannot be read (Permission denied)",
        }
        root.chmod(0)
        with without_privileges(), pytest.raises(UsageError, match="check its permissions"):
            open_data(name)
        root.chmod(0o755)
        (root / "owl").chmod(0o755)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: None, "no usable picture: put the pictures of each class"),
        (lambda root: fill(root, 3), "no usable picture (3 refused, first 000.png: not in a class"),
        (lambda root: fill(root / "cat", 3), "one class only, 'cat'; two are needed: put"),
        (lambda root: (root / "a").mkdir(), "no usable picture (1 refused, first a/: class"),
        (
            lambda root: [fill(root / "all" / name, 2) for name in "ab"],
            "all if its folders are the classes",
        ),
        (
            lambda root: [fill(root / "a", 2), (root / "b").mkdir()],
            "usable pictures of one class only, 'a'",
        ),
    ],
)
def test_folders_that_cannot_be_used_say_so_in_one_line(tmp_path, make, words):
    make(tmp_path)
    with pytest.raises(UsageError) as caught:
        open_data(str(tmp_path))
    assert words in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_class_of_one_picture_is_for_training(photos):
    fill(photos / "eel", 1)
    splits = open_data(str(photos))
    assert "eel/000.png" in splits.train.names
    assert splits.note == "In the training part only, with a single picture: eel."


def test_a_picture_that_breaks_later_is_one_line(photos):
    splits = open_data(str(photos))
    (photos / splits.train.names[0]).write_bytes(b"")
    with pytest.raises(FailedError, match=r"/\d\d\d.png could be read before.*empty file"):
        splits.train.read(0)


def test_bad_images_csv(tmp_path):
    bad = [BadImage('a,b/"c".png', "empty file"), BadImage("ü/d.png", "truncated: x, y")]
    write_bad_images(tmp_path / "new" / "bad_images.csv", bad)
    path = tmp_path / "new" / "bad_images.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["name", "reason"], *([b.name, b.reason] for b in bad)]
    write_bad_images(path, [])
    assert path.read_bytes() == b"name,reason\n"
    assert os.listdir(path.parent) == ["bad_images.csv"]


@pytest.mark.parametrize(
    "given", [("Training", "Testing"), ("train", "dev", "test"), ("training", "validation")]
)
def test_parts_go_by_several_names(photos, tmp_path, given):
    for name in given:
        shutil.copytree(photos, tmp_path / "parts" / name)
    found = parts(open_data(str(tmp_path / "parts"), val_fraction=0))
    assert len(found) == len(given)
    assert open_data(str(tmp_path / "parts")).classes == ("bird", "cat", "dog")


@pytest.mark.parametrize("given", [("train", "training", "test"), ("train", "val", "dev")])
def test_two_folders_for_one_part_are_refused(photos, tmp_path, given):
    for name in given:
        shutil.copytree(photos, tmp_path / "parts" / name)
    with pytest.raises(UsageError, match="keep one of them"):
        open_data(str(tmp_path / "parts"))

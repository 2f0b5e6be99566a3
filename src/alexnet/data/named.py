"""Data sets with a name: the bundled digits, and torchvision's."""

from __future__ import annotations

import contextlib
import gzip
import os
import socket
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet import files
from alexnet.data.pictures import ArrayPictures, Image
from alexnet.data.split import stratified_folds
from alexnet.errors import FailedError, UsageError

MNIST_5K_SHA256 = "246e0c30eeea57c8d0037d3f38c8e00651ec204cc61b8022563e9aeeb9d756f4"
"""Of bundled/mnist_5k.npz, which scripts/make_mnist_5k.py makes."""

FOLDS = 5
DIGITS = tuple("0123456789")
GARMENTS = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
KUZUSHIJI = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")

Part = tuple[Image, NDArray[np.int64]]  # uint8 [N, H, W, C] and labels [N]


@dataclass(frozen=True)
class NamedData:
    """A data set that has a training and a test part of its own.

    Attributes:
        title: the class of torchvision that downloads it, which also names its folder.
        read: the parts under a folder (train, then test), or None where they are not there; with
            the names of the classes.
        files: what the user would have to put there, said in words.
        own_names: whether the files' names tell it from other data sets.
    """

    title: str
    read: Callable[[Path], tuple[Part, Part, tuple[str, ...]] | None]
    files: str
    own_names: bool = True


def bundled_digits(fold: int) -> tuple[ArrayPictures, ArrayPictures]:
    """MNIST-5k without one of its five stratified folds of 1,000, and that fold.

    The folds are the same on every machine and for every seed.

    Raises:
        UsageError: no such fold.
        FailedError: the bundled file is damaged.
    """
    if not 0 <= fold < FOLDS:
        raise UsageError(f"mnist-5k has no fold {fold}: choose 0 to {FOLDS - 1}")
    path = Path(__file__).parents[1] / "bundled" / "mnist_5k.npz"
    if not path.is_file() or files.sha256(path) != MNIST_5K_SHA256:
        raise FailedError(f"{path} is missing or damaged: reinstall the package alexnet")
    with np.load(path) as archive:
        images, labels = archive["images"][..., None], archive["labels"].astype(np.int64)
    folds = stratified_folds(labels, FOLDS, seed=0)
    parts = []
    for rows in (np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)):
        names = [f"mnist-5k/{row}" for row in rows]  # the same in any part
        parts.append(ArrayPictures(images[rows], DIGITS, labels[rows], names))
    return parts[0], parts[1]


def named_parts(name: str) -> tuple[ArrayPictures, ArrayPictures]:
    """The training and test part of a data set of :data:`NAMED`.

    It is looked for in ``ALEXNET_DATA``, the cache folder, ``./data`` and where Debian's package
    puts it, and downloaded where it is in none of them.

    Raises:
        FailedError: the files are not here and cannot be downloaded, or are damaged.
    """
    entry = NAMED[name]
    found = _find(name, entry)
    if found is None:
        found = _download(name, entry)
    train, test, classes = found
    return _pictures(name, "train", train, classes), _pictures(name, "test", test, classes)


def _pictures(name: str, part: str, content: Part, classes: tuple[str, ...]) -> ArrayPictures:
    images, labels = content
    names = [f"{name}/{part}/{index}" for index in range(len(labels))]
    return ArrayPictures(images, classes, labels, names)


def _find(name: str, entry: NamedData) -> tuple[Part, Part, tuple[str, ...]] | None:
    for root in search_folders():
        here = [root] if entry.own_names or root.resolve().name in (name, entry.title) else []
        for folder in (root / entry.title / "raw", root / name, root / entry.title, *here):
            try:
                found = entry.read(folder)
            except (OSError, ValueError, EOFError, zlib.error, struct.error) as error:
                raise FailedError(
                    f"the files of {name} in {folder} are damaged ({error}): remove them, "
                    "and they are downloaded again"
                ) from error
            if found is not None:
                return found
    return None


def search_folders() -> list[Path]:
    """Where named data sets are looked for, the first being where they are downloaded to."""
    folders = [cache_folder(), Path("data"), Path("/usr/share/datasets")]
    if "ALEXNET_DATA" in os.environ:
        folders.insert(0, Path(os.environ["ALEXNET_DATA"]).expanduser())
    return folders


def cache_folder() -> Path:
    """``alexnet`` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "alexnet"


def _download(name: str, entry: NamedData) -> tuple[Part, Part, tuple[str, ...]]:
    import torchvision

    folder = search_folders()[0]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _network_timeout(30):  # a server that does not answer must not hang a run
            getattr(torchvision.datasets, entry.title)(str(folder), download=True)
        found = _find(name, entry)
        reason = "what was downloaded is incomplete"
    except (OSError, RuntimeError) as error:
        found, reason = None, str(error).strip().splitlines()[0] if str(error) else repr(error)
    if found is None:
        raise FailedError(
            f"{name} is not on this machine and cannot be downloaded ({reason}): put "
            f"{entry.files} in {folder / name}, or set ALEXNET_DATA to a folder with {name}/ in it"
        )
    return found


@contextlib.contextmanager
def _network_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _read_idx_parts(
    classes: tuple[str, ...], folder: Path
) -> tuple[Part, Part, tuple[str, ...]] | None:
    """MNIST's four files, packed or not."""
    parts: list[Part] = []
    for part in ("train", "t10k"):
        images = _first_file(folder, f"{part}-images-idx3-ubyte")
        labels = _first_file(folder, f"{part}-labels-idx1-ubyte")
        if images is None or labels is None:
            return None
        content = read_idx(images)[..., None], read_idx(labels).astype(np.int64)
        if len(content[0]) != len(content[1]):
            raise ValueError(f"{len(content[0])} images and {len(content[1])} labels")
        parts.append(content)
    return parts[0], parts[1], classes


def _first_file(folder: Path, name: str) -> Path | None:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    return None


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array of an IDX file of unsigned bytes (http://yann.lecun.com/exdb/mnist/).

    Raises:
        ValueError: not such a file, or of the wrong length.
    """
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path.name} is not an IDX file of bytes")
    start = 4 + 4 * data[3]
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    if len(data) - start != int(np.prod(shape, dtype=np.int64)):
        raise ValueError(f"{path.name} holds {len(data) - start} bytes for the shape {shape}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy()


def _read_cifar(title: str, folder: Path) -> tuple[Part, Part, tuple[str, ...]] | None:
    """CIFAR's python version, by torchvision's reader, which checks the files' MD5."""
    import torchvision

    dataset = getattr(torchvision.datasets, title)
    if not (folder / dataset.base_folder).is_dir():
        return None
    try:
        train, test = (dataset(str(folder), train=part) for part in (True, False))
    except RuntimeError as error:
        raise ValueError(str(error).splitlines()[0]) from error
    return _labeled(train), _labeled(test), tuple(train.classes)


def _labeled(dataset: Any) -> Part:
    return np.asarray(dataset.data, np.uint8), np.asarray(dataset.targets, np.int64)


def _idx(title: str, classes: Sequence[str]) -> NamedData:
    names = "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz and the two t10k- files"
    return NamedData(title, partial(_read_idx_parts, tuple(classes)), names, own_names=False)


NAMED: dict[str, NamedData] = {
    "mnist": _idx("MNIST", DIGITS),
    "fashion-mnist": _idx("FashionMNIST", GARMENTS),
    "kmnist": _idx("KMNIST", KUZUSHIJI),
    "cifar10": NamedData("CIFAR10", partial(_read_cifar, "CIFAR10"), "cifar-10-batches-py"),
    "cifar100": NamedData("CIFAR100", partial(_read_cifar, "CIFAR100"), "cifar-100-python"),
}
"""The data sets that are found on the disk or downloaded."""

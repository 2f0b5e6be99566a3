"""ImageNet (ILSVRC 2012) as it is distributed: the official archives, or folders.

Russakovsky et al. 2015, "ImageNet Large Scale Visual Recognition Challenge". Its validation part is
its only labeled part beside the training part (the test part's labels were never published), so it
is the test part here.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet import files
from alexnet.data.archive import ArchivePictures, list_archive
from alexnet.data.devkit import DEVKIT, Devkit, find_devkit, picture_number
from alexnet.data.listing import printable
from alexnet.data.names import ChosenNames, PackedNames
from alexnet.data.parts import Contents, Part
from alexnet.data.pictures import Indices, Pictures
from alexnet.errors import FailedError, UsageError
from alexnet.progress import track

PREFIX = "imagenet:"
TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
NOTE = "The test part is ImageNet's validation part, its only labeled one beside the training part."
FIX = f"put {TRAIN_TAR}, {VAL_TAR} and {DEVKIT}.tar.gz there, or the folders train/ and val/"
_INSIDE = ("", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")  # Kaggle's folders
_SYNSET = re.compile(r"n\d{8}")


class FolderPictures(Pictures):
    """Very many files below a folder; the path of each is made when it is read.

    Attributes:
        root: what the names are relative to.
    """

    def __init__(
        self, root: Path, classes: Sequence[str], labels: NDArray[np.integer], names: Sequence[str]
    ) -> None:
        super().__init__(classes, labels, names)
        self.root = root

    def stored(self, index: int) -> Path:
        """The file."""
        return self.root / self.names[index]

    def expect(self, index: int) -> None:
        """Have the file fetched."""
        files.expect(self.root / self.names[index])

    def subset(self, indices: Indices) -> FolderPictures:
        """The files at ``indices``; nothing is copied but numbers."""
        rows = np.asarray(indices, dtype=np.int64)
        return FolderPictures(
            self.root, self.classes, self.labels[rows], ChosenNames(self.names, rows)
        )

    def marks(self) -> NDArray[np.int64]:
        """The size of each file; -1 where it cannot be told."""
        sizes = np.full(len(self), -1, np.int64)
        for index, name in enumerate(self.names):
            path = self.root / name
            sizes[index] = path.stat().st_size if path.is_file() else -1
        return sizes


def list_imagenet(data: str) -> Contents:
    """What is in ImageNet's archives or folders; pictures are not looked into.

    Args:
        data: ``"imagenet:PATH"``. There are the official archives, or ``train/`` with a folder a
            synset and ``val/`` with the same or without folders, or Kaggle's ``ILSVRC/``.

    Raises:
        UsageError: what is needed is not there.
        FailedError: an archive or a table is damaged or incomplete.
    """
    folder = Path(data.removeprefix(PREFIX)).expanduser()
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}: {FIX}")
    places = [folder / inner for inner in _INSIDE]
    root = next((p for p in places if (p / TRAIN_TAR).is_file() or (p / "train").is_dir()), None)
    if root is None:
        raise UsageError(f"{folder} has no {TRAIN_TAR} and no folder train/: {FIX}")
    devkit = find_devkit(root)
    train = _train(root, devkit)
    parts = {"train": Part(train, (), "train/", str(root))}
    test = _validation(root, devkit)
    notes = ["It has no validation archive or folder val/, so there is no test part."]
    if test is not None:
        parts["test"] = Part(test, (), "val/", str(root / "val"))
        notes = [NOTE]
    return Contents(
        data,
        parts,
        divided=True,
        large=True,
        notes=tuple(notes),
        descriptions=devkit.descriptions,
        fix=FIX,
    )


def _train(root: Path, devkit: Devkit) -> Pictures:
    archive = root / TRAIN_TAR
    if not archive.is_file():
        return _class_folders(root, "train")
    members = list_archive(archive, nested=True)
    synsets = [name.split("/")[0] for name in members.names]
    classes = sorted(set(synsets))
    wrong = [name for name in classes if not _SYNSET.fullmatch(name)]
    if wrong or not classes:
        raise FailedError(
            f"{archive} holds {wrong[0] + '.tar' if wrong else 'no archives'} where a synset's "
            "(n########.tar) should be: download it again"
        )
    _require_counts(archive, Counter(synsets), devkit)
    names = PackedNames.pack(f"train/{printable_name(name)}" for name in members.names)
    labels = _labels(synsets, classes)
    return ArchivePictures(archive, members.offsets, members.sizes, classes, labels, names)


def printable_name(name: str) -> str:
    """A name in an archive in characters that print."""
    return "/".join(printable(part) for part in name.split("/"))


def _require_counts(archive: Path, found: Counter[str], devkit: Devkit) -> None:
    """Refuse an archive that lacks classes or pictures, by what the devkit says."""
    for synset, count in devkit.counts.items():
        if found[synset] != count:
            raise FailedError(
                f"{archive} is incomplete: it holds {found[synset]:,} pictures of {synset} and "
                f"{devkit.source} says {count:,}: download it again"
            )


def _validation(root: Path, devkit: Devkit) -> Pictures | None:
    archive, folder = root / VAL_TAR, root / "val"
    if not archive.is_file() and folder.is_dir() and _synset_folders(folder):
        return _class_folders(root, "val")
    if archive.is_file():
        members = list_archive(archive, nested=False)
        names = [printable_name(name) for name in members.names]
        labels, classes = _by_number(archive, names, devkit)
        packed = PackedNames.pack(f"val/{name}" for name in names)
        return ArchivePictures(archive, members.offsets, members.sizes, classes, labels, packed)
    if folder.is_dir():
        names = _files_in(folder)
        labels, classes = _by_number(folder, names, devkit)
        packed = PackedNames.pack(f"val/{name}" for name in names)
        return FolderPictures(root, classes, labels, packed)
    return None


def _by_number(
    place: Path, names: Sequence[str], devkit: Devkit
) -> tuple[NDArray[np.int64], list[str]]:
    """The labels of validation pictures without folders, by the number in each name."""
    if not devkit.truth:
        raise UsageError(
            f"{place} does not say what is on its pictures: put {DEVKIT}.tar.gz (or Kaggle's "
            "LOC_val_solution.csv) beside it"
        )
    try:
        synsets = [devkit.truth[picture_number(name)] for name in names]
    except (KeyError, ValueError) as error:
        raise FailedError(
            f"{place} holds a picture that {devkit.source} has no label for ({error}): use the "
            "devkit of ILSVRC 2012"
        ) from error
    if len(names) != len(devkit.truth):
        raise FailedError(
            f"{place} is incomplete: it holds {len(names):,} pictures and {devkit.source} has "
            f"labels for {len(devkit.truth):,}: download it again"
        )
    classes = sorted(set(synsets))
    return _labels(synsets, classes), classes


def _labels(synsets: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    number = {name: index for index, name in enumerate(classes)}
    return np.array([number[name] for name in synsets], np.int64)


def _class_folders(root: Path, part: str) -> FolderPictures:
    classes = _synset_folders(root / part)
    if not classes:
        raise UsageError(
            f"{root / part} has no folders named as synsets (n########): for other folders leave "
            f"out {PREFIX}"
        )
    counts: list[int] = []

    def names() -> Iterator[str]:
        for synset in track(classes, f"listing {part}/", len(classes)):
            found = _files_in(root / part / synset)
            counts.append(len(found))
            yield from (f"{part}/{synset}/{name}" for name in found)

    packed = PackedNames.pack(names())
    return FolderPictures(root, classes, np.repeat(np.arange(len(classes)), counts), packed)


def _synset_folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if _SYNSET.fullmatch(e.name) and e.is_dir())


def _files_in(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if _is_shown(e.name) and e.is_file())


def _is_shown(name: str) -> bool:
    return not name.startswith(".") and name.isprintable()

"""What comes beside ImageNet's pictures: names of the classes, and the validation part's labels."""

from __future__ import annotations

import csv
import io
import re
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alexnet.errors import FailedError, missing_extra

DEVKIT = "ILSVRC2012_devkit_t12"
_META, _TRUTH = "data/meta.mat", "data/ILSVRC2012_validation_ground_truth.txt"
_SOLUTION, _MAPPING = "LOC_val_solution.csv", "LOC_synset_mapping.txt"
_PARENTS = 3  # from ILSVRC/Data/CLS-LOC up to where Kaggle's tables are


@dataclass(frozen=True)
class Devkit:
    """What is known of the classes and of the validation part.

    Attributes:
        source: the file it was read from, for a message; None where there is none.
        descriptions: synset -> words, such as ``"tench, Tinca tinca"``.
        truth: number of the validation picture, from 1 -> synset.
        counts: synset -> training pictures; empty where it is not told.
    """

    source: Path | None = None
    descriptions: Mapping[str, str] = field(default_factory=dict)
    truth: Mapping[int, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


def find_devkit(folder: Path) -> Devkit:
    """The devkit's archive or folder, or Kaggle's tables, in ``folder`` or near it.

    Raises:
        UsageError: scipy, which reads the devkit's meta.mat, is not installed.
        FailedError: what is there is damaged.
    """
    for place in (folder, *folder.parents[:_PARENTS]):
        for name in (f"{DEVKIT}.tar.gz", f"{DEVKIT}.tar"):
            if (place / name).is_file():
                return _official(place / name, _from_archive(place / name))
        for inner in (place / DEVKIT, place):
            if (inner / _META).is_file() and (inner / _TRUTH).is_file():
                found = {name: (inner / name).read_bytes() for name in (_META, _TRUTH)}
                return _official(inner, found)
        if (place / _MAPPING).is_file() or (place / _SOLUTION).is_file():
            return _kaggle(place)
    return Devkit()


def _from_archive(path: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = next((n for n in (_META, _TRUTH) if member.name.endswith(n)), None)
                content = archive.extractfile(member) if name else None
                if name and content:
                    found[name] = content.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from error
    return found


def _official(source: Path, content: Mapping[str, bytes]) -> Devkit:
    for name in (_META, _TRUTH):
        if name not in content:
            raise FailedError(f"{source} has no {name}: download it again")
    synsets = _read_meta(source, content[_META])
    try:
        numbers = [int(line) for line in content[_TRUTH].split()]
        truth = {place: synsets[number][0] for place, number in enumerate(numbers, 1)}
    except (ValueError, KeyError) as error:
        raise _damaged(source, error) from error
    leaves = [found for found in synsets.values() if found[3] == 0]
    return Devkit(
        source,
        {synset: words for synset, words, _, _ in leaves},
        truth,
        {synset: count for synset, _, count, _ in leaves if count},
    )


def _read_meta(source: Path, content: bytes) -> dict[int, tuple[str, str, int, int]]:
    """ILSVRC2012_ID -> synset, words, training pictures, children."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise missing_extra("scipy", "data", "ImageNet's meta.mat") from error
    try:
        table: Any = np.atleast_1d(loadmat(io.BytesIO(content), squeeze_me=True)["synsets"])
        return {
            int(row["ILSVRC2012_ID"]): (
                str(row["WNID"]),
                str(row["words"]),
                int(row["num_train_images"]),
                int(row["num_children"]),
            )
            for row in table
        }
    except Exception as error:  # scipy raises what a damaged table leads to
        raise _damaged(source, error) from error


def _kaggle(folder: Path) -> Devkit:
    descriptions: dict[str, str] = {}
    truth: dict[int, str] = {}
    path = folder / _MAPPING
    try:
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            pairs = (line.split(" ", 1) for line in lines if line.strip())
            descriptions = {pair[0]: pair[1].strip() for pair in pairs}
        if (folder / _SOLUTION).is_file():
            path = folder / _SOLUTION
            with path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    truth[picture_number(row["ImageId"])] = row["PredictionString"].split()[0]
    except (OSError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise _damaged(path, error) from error
    return Devkit(path, descriptions, truth)


def picture_number(name: str) -> int:
    """17 of ``"ILSVRC2012_val_00000017.JPEG"``.

    Raises:
        ValueError: the name has no number at its end.
    """
    found = re.search(r"(\d+)(\.\w+)?$", name)
    if found is None:
        raise ValueError(f"{name} has no number")
    return int(found[1])


def _damaged(path: Path, error: Exception) -> FailedError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return FailedError(f"{path} is damaged ({reason}): download it again")

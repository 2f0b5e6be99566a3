"""A folder that ``alexnet prepare`` wrote: what its manifest says, and its pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alexnet import files
from alexnet.data.arrow import ArrowNames, ArrowPictures, Rows, whole_numbers
from alexnet.data.parts import Contents, Part
from alexnet.data.pictures import BadImage
from alexnet.errors import FailedError, UsageError

MANIFEST = "prepared.json"
"""Written last: a folder that has it is whole."""
PROGRESS = ".preparing"
"""What is known of a folder that is not whole yet."""
FOLDERS = {"train": "train", "val": "validation", "test": "test"}
"""A part's folder, which is its name as a split of ``datasets``."""


def is_prepared(folder: Path) -> bool:
    """Whether ``alexnet prepare`` wrote the folder, be it whole or not."""
    try:
        return (folder / MANIFEST).is_file() or (folder / PROGRESS).is_dir()
    except OSError:  # a folder that may not be read: listing it says why
        return False


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a whole folder.

    Raises:
        UsageError: the folder is not whole yet, or its manifest is damaged.
    """
    if not (folder / MANIFEST).is_file():
        raise UsageError(
            f"{folder} is not prepared to the end: run the same 'alexnet prepare' command again"
        )
    return files.read_json(folder / MANIFEST)


def list_prepared(folder: Path) -> Contents:
    """What is in a prepared folder; nothing is decoded, as every picture was when it was made.

    Raises:
        UsageError: the folder is not whole yet, or its manifest is damaged.
        FailedError: a shard is missing or damaged.
    """
    return contents_of(folder, read_manifest(folder))


def contents_of(folder: Path, manifest: Mapping[str, Any]) -> Contents:
    """What is in a folder with this manifest.

    Raises:
        UsageError: the manifest is not one.
        FailedError: a shard is missing or damaged.
    """
    try:
        column = None if manifest["settings"]["format"] == "raw" else "image"
        classes = [str(name) for name in manifest["classes"]]
        parts = {
            str(name): _part(folder, part, classes, column)
            for name, part in manifest["parts"].items()
        }
        return Contents(
            str(folder),
            parts,
            divided=bool(manifest["divided"]),
            checked=True,
            notes=tuple(manifest["notes"]),
            descriptions=dict(manifest["descriptions"]),
            mirror=bool(manifest["mirror_images"]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{folder / MANIFEST} is not a manifest ({type(error).__name__}: {error}): "
            "prepare the data again, into another folder"
        ) from error


def _part(folder: Path, part: Mapping[str, Any], classes: list[str], column: str | None) -> Part:
    for shard in part["shards"]:
        _require_whole(folder / shard["file"], shard["bytes"])
    rows = Rows([folder / shard["file"] for shard in part["shards"]])
    labels = whole_numbers(rows, "label")
    if len(labels) != part["images"]:
        raise FailedError(f"{folder} holds {len(labels)} pictures of {part['images']}: {_REMAKE}")
    listed = list(part["classes"])
    number = {name: index for index, name in enumerate(listed)}
    order = np.array([number.get(name, -1) for name in classes], dtype=np.int64)
    names = ArrowNames(rows, column or "name")
    pictures = ArrowPictures(rows, column, listed, order[labels], names)
    refused = tuple(BadImage(bad["name"], bad["reason"]) for bad in part["refused"])
    return Part(pictures, refused, part["title"], str(folder))


_REMAKE = "run the same 'alexnet prepare' command again"


def _require_whole(path: Path, size: int) -> None:
    """Refuse a shard of another size: cheap, where reading it all is not."""
    found = path.stat().st_size if path.is_file() else None
    if found != size:
        said = "is missing" if found is None else f"has {found:,} bytes of {size:,}"
        raise FailedError(f"{path} {said}: {_REMAKE}")


def fingerprint(contents: Contents) -> str:
    """What tells one data set from another: names, labels and sizes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, part in contents.parts.items():
        pictures = part.pictures
        refused = [[bad.name, bad.reason] for bad in part.refused]
        head = [name, part.title, list(pictures.classes), refused, len(pictures)]
        digest.update(json.dumps(head).encode())
        digest.update(pictures.labels.astype("<i8").tobytes())
        digest.update(pictures.marks().astype("<i8").tobytes())
        for picture in pictures.names:
            digest.update(picture.encode() + b"\0")
    return digest.hexdigest()

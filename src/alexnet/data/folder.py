"""A folder of class folders, as people have them: with hidden, empty and broken files in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from alexnet.data.listing import folders_of, list_classes
from alexnet.data.parts import Contents, Part
from alexnet.data.pictures import FilePictures
from alexnet.errors import UsageError

NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""What people call the parts."""


def list_folder(folder: Path) -> Contents:
    """What is in a folder of class folders, before any file is looked into.

    A folder with ``train/`` and any of ``val/`` and ``test/`` (or other :data:`NAMES`) keeps these
    parts; another is still to be divided. The pictures of a class may lie in folders below its own.

    Raises:
        UsageError: not a folder, or one that cannot be read.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: name a folder of class folders")
    named = _named_parts(folder)
    if not named:
        return Contents(str(folder), {"train": _list_part(folder, "")}, divided=False)
    parts = {name: _list_part(path, f"{path.name}/") for name, path in named.items()}
    unread = [path.name for path in folders_of(folder) if path not in named.values()]
    notes = (f"Not read: {', '.join(unread)}.",) if unread else ()
    return Contents(str(folder), parts, divided=True, notes=notes)


def _named_parts(folder: Path) -> dict[str, Path]:
    """The user's own ``train``, ``val`` and ``test``; nothing when the folder has no such parts."""
    subfolders = folders_of(folder)
    found: dict[str, Path] = {}
    for part, names in NAMES.items():
        called = [path for path in subfolders if path.name.lower() in names]
        if len(called) > 1:
            raise UsageError(
                f"{folder} has both {called[0].name}/ and {called[1].name}/: keep one of them"
            )
        if called:
            found[part] = called[0]
    alone = len(subfolders) == 1
    return found if "train" in found and (len(found) > 1 or alone) else {}


def _list_part(folder: Path, title: str) -> Part:
    listing = list_classes(folder, title)
    number = {name: index for index, name in enumerate(listing.classes)}
    labels = np.array([number[file.label] for file in listing.files], dtype=np.int64)
    paths = [file.path for file in listing.files]
    names = [file.name for file in listing.files]
    pictures = FilePictures(paths, listing.classes, labels, names)
    return Part(pictures, tuple(listing.refused), title, str(folder))

"""A folder of class folders, as people have them: with hidden, empty and broken files in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from alexnet.data.listing import folders_of, list_classes
from alexnet.data.parts import Contents, Part
from alexnet.data.pictures import FilePictures
from alexnet.errors import UsageError

_VALIDATION = ("val", "valid", "validation")


def list_folder(folder: Path) -> Contents:
    """What is in a folder of class folders, before any file is looked into.

    A folder with ``train/`` and any of ``val/`` (or ``valid/``, ``validation/``) and ``test/``
    keeps these parts; another is still to be divided. The pictures of a class may lie in folders
    below its own.

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
    found = {path.name.lower(): path for path in subfolders}
    validation = [name for name in _VALIDATION if name in found]
    alone = [path.name.lower() for path in subfolders] == ["train"]
    if "train" not in found or not (validation or "test" in found or alone):
        return {}
    if len(validation) > 1:
        raise UsageError(
            f"{folder} has both {found[validation[0]].name}/ and {found[validation[1]].name}/: "
            "keep one of them"
        )
    keys = {"train": "train", "test": "test"} | dict.fromkeys(validation, "val")
    return {keys[name]: path for name, path in found.items() if name in keys}


def _list_part(folder: Path, title: str) -> Part:
    listing = list_classes(folder, title)
    number = {name: index for index, name in enumerate(listing.classes)}
    labels = np.array([number[file.label] for file in listing.files], dtype=np.int64)
    paths = [file.path for file in listing.files]
    names = [file.name for file in listing.files]
    pictures = FilePictures(paths, listing.classes, labels, names)
    return Part(pictures, tuple(listing.refused), title, str(folder))

"""What lies in a folder of class folders, before any file is looked into."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from alexnet.data.pictures import BadImage
from alexnet.errors import UsageError

_SYSTEM = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx"})


@dataclass(frozen=True)
class Listed:
    """A file that may be a picture.

    Attributes:
        label: the class, which the first folder names.
        name: path relative to the data folder, in characters that can be printed.
        path: what to open.
    """

    label: str
    name: str
    path: Path


@dataclass
class Listing:
    """The content of a folder of class folders, in the order of the names.

    Attributes:
        classes: the names of the class folders.
        files: what may be pictures.
        refused: what was skipped by its name or its place.
    """

    classes: list[str] = field(default_factory=list)
    files: list[Listed] = field(default_factory=list)
    refused: list[BadImage] = field(default_factory=list)


def list_classes(folder: Path, prefix: str = "") -> Listing:
    """List a folder of class folders; their own folders are followed, links to folders too.

    Args:
        folder: what to list.
        prefix: of the names, such as ``"train/"``.

    Raises:
        UsageError: the folder itself cannot be read.
    """
    listing = Listing()
    for path in _entries(folder):
        name = f"{prefix}{printable(path.name)}"
        reason = _reason_to_skip(path)
        if not _is_folder(path):
            listing.refused.append(BadImage(name, reason or "not in a class folder"))
        elif reason:
            listing.refused.append(BadImage(f"{name}/", reason))
        else:
            label = class_name(path.name)
            listing.classes.append(label)
            seen = {_identity(folder), _identity(path)}
            _list_below(listing, path, label, name, seen)
    listing.classes = sorted(set(listing.classes))
    return listing


def folders_of(folder: Path) -> list[Path]:
    """The folders in a folder that may hold pictures, sorted by name."""
    return [path for path in _entries(folder) if _is_folder(path) and not _reason_to_skip(path)]


def _list_below(
    listing: Listing, folder: Path, label: str, name: str, seen: set[tuple[int, int]]
) -> None:
    """Add what is in ``folder``; ``seen`` holds the folders that were entered for this class."""
    try:
        entries = _entries(folder)
    except UsageError as error:
        listing.refused.append(BadImage(f"{name}/", str(error.__cause__)))
        return
    for path in entries:
        inner = f"{name}/{printable(path.name)}"
        reason = _reason_to_skip(path)
        if not _is_folder(path):
            if reason:
                listing.refused.append(BadImage(inner, reason))
            else:
                listing.files.append(Listed(label, inner, path))
            continue
        if not reason and _identity(path) in seen:
            reason = "a link to a folder that was read already"
        if reason:
            listing.refused.append(BadImage(f"{inner}/", reason))
            continue
        seen.add(_identity(path))
        _list_below(listing, path, label, inner, seen)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir(), key=lambda path: os.fsencode(path.name))
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
        raise UsageError(f"the folder {folder} {reason}: check its permissions") from OSError(
            reason
        )


def _reason_to_skip(path: Path) -> str | None:
    kind = "folder" if _is_folder(path) else "file"
    if path.name.lower() in _SYSTEM or path.name == ".DS_Store":
        return f"system {kind}"
    return f"hidden {kind}" if path.name.startswith(".") else None


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a link to itself: opening it will say so
        return False


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def class_name(name: str) -> str:
    """A folder's name as a class: one spelling for what macOS and Linux write differently."""
    return unicodedata.normalize("NFC", printable(name))


def printable(name: str) -> str:
    r"""A file's name in characters that print and encode: others become ``\xe9`` or ``\n``."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    shown: Iterator[str] = (
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )
    return "".join(shown)

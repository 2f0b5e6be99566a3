"""A folder of class folders, as people have them: with hidden, empty and broken files in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet.data.decode import DecodeError, decode
from alexnet.data.listing import folders_of, list_classes
from alexnet.data.pictures import BadImage, FilePictures, Pictures, Splits
from alexnet.data.split import stratified_split
from alexnet.data.threads import in_threads
from alexnet.errors import UsageError
from alexnet.progress import track

_VALIDATION = ("val", "valid", "validation")


@dataclass(frozen=True)
class _Part:
    """One folder of class folders, every file looked at."""

    pictures: FilePictures
    refused: list[BadImage]
    empty: list[str]


def open_folder(
    folder: Path, seed: int, val_fraction: float, test_fraction: float, workers: int = 0
) -> Splits:
    """Open a folder of class folders; every file is decoded once, to find the bad ones.

    A folder with ``train/`` and any of ``val/`` (or ``valid/``, ``validation/``) and ``test/``
    keeps these parts (without a validation part, one is held out of ``train/``); another is split,
    stratified by class, as ``seed`` says. The pictures of a class may lie in folders below its own.

    Args:
        folder: what to open.
        seed: which pictures are held out.
        val_fraction: of the training part, held out where there is no ``val/``.
        test_fraction: of the pictures, held out where there is no ``train/``.
        workers: threads that decode; as many as there are processors when 0.

    Raises:
        UsageError: not a folder, one that cannot be read, fewer than two classes with usable
            pictures, or a class in ``val/`` or ``test/`` that ``train/`` lacks.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: name a folder of class folders")
    named = _named_parts(folder)
    if not named:
        return _split(folder, _read_part(folder, "", workers), seed, val_fraction, test_fraction)
    parts = {name: _read_part(path, f"{path.name}/", workers) for name, path in named.items()}
    return _keep(folder, parts, named, seed, val_fraction)


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


def _split(
    folder: Path, part: _Part, seed: int, val_fraction: float, test_fraction: float
) -> Splits:
    _require_classes(folder, part)
    pictures = part.pictures
    kept, tested = stratified_split(pictures.labels, test_fraction, seed)
    # Another seed, or the same positions would tend to be chosen twice.
    learned, chosen = stratified_split(pictures.labels[kept], val_fraction, seed + 1)
    return Splits(
        str(folder),
        pictures.classes,
        pictures.subset(kept[learned]),
        _or_none(pictures.subset(kept[chosen])),
        _or_none(pictures.subset(tested)),
        tuple(part.refused),
        " ".join((*_empty_note(part), *_single_note(pictures))),
    )


def _keep(
    folder: Path, parts: dict[str, _Part], paths: dict[str, Path], seed: int, val_fraction: float
) -> Splits:
    _require_classes(paths["train"], parts["train"])
    train: Pictures = parts["train"].pictures
    held_out: dict[str, Pictures | None] = {"val": None, "test": None}
    notes = _empty_note(parts["train"])
    for name in held_out.keys() & parts.keys():
        held_out[name] = _or_none(_relabeled(parts[name].pictures, train.classes, paths[name]))
        if held_out[name] is None:
            notes.append(f"{paths[name].name}/ has no usable picture.")
    if held_out["val"] is None and val_fraction:
        kept, chosen = stratified_split(train.labels, val_fraction, seed)
        train, held_out["val"] = train.subset(kept), _or_none(train.subset(chosen))
        notes.append(f"{len(chosen)} pictures of train/ are held out for validation.")
    unread = [path.name for path in folders_of(folder) if path not in paths.values()]
    if unread:
        notes.append(f"Not read: {', '.join(unread)}.")
    refused = tuple(bad for part in parts.values() for bad in part.refused)
    return Splits(
        str(folder),
        train.classes,
        train,
        held_out["val"],
        held_out["test"],
        refused,
        " ".join(notes),
    )


def _read_part(folder: Path, prefix: str, workers: int) -> _Part:
    """List a folder of class folders and decode every file."""
    listing = list_classes(folder, prefix)
    paths = [file.path for file in listing.files]
    reasons = in_threads(_reason_to_refuse, paths, workers)
    checked = track(reasons, f"checking {prefix or folder.name}", len(paths))
    good, refused = [], list(listing.refused)
    for file, reason in zip(listing.files, checked, strict=True):
        if reason is None:
            good.append(file)
        else:
            refused.append(BadImage(file.name, reason))
    usable = {file.label for file in good}
    empty = [name for name in listing.classes if name not in usable]
    said = {bad.name for bad in refused}
    unusable = (BadImage(f"{prefix}{name}/", "class without a usable picture") for name in empty)
    refused += [bad for bad in unusable if bad.name not in said]
    classes = sorted(usable)
    number = {name: index for index, name in enumerate(classes)}
    labels = np.array([number[file.label] for file in good], dtype=np.int64)
    names = [file.name for file in good]
    pictures = FilePictures([file.path for file in good], classes, labels, names)
    return _Part(pictures, sorted(refused, key=lambda bad: bad.name), empty)


def _reason_to_refuse(path: Path) -> str | None:
    try:
        decode(path)
    except DecodeError as error:
        return str(error)
    return None


def _require_classes(folder: Path, part: _Part) -> None:
    classes = part.pictures.classes
    layout = "put the pictures of each class in a folder of its own"
    if not classes:
        first = part.refused[0] if part.refused else None
        found = (
            f" ({len(part.refused)} refused, first {first.name}: {first.reason})" if first else ""
        )
        raise UsageError(f"{folder} has no usable picture{found}: {layout}")
    if len(classes) == 1:
        inner = folder / classes[0]
        deeper = len(folders_of(inner)) > 1 if inner.is_dir() else False
        fix = f"name {inner} if its folders are the classes" if deeper else layout
        raise UsageError(
            f"{folder} has usable pictures of one class only, {classes[0]!r}; two are needed: {fix}"
        )


def _relabeled(pictures: FilePictures, classes: tuple[str, ...], folder: Path) -> FilePictures:
    """The same pictures with labels that index the training part's classes."""
    unknown = [name for name in pictures.classes if name not in classes]
    if unknown:
        raise UsageError(
            f"{folder} has the class {unknown[0]!r}, of which train/ has no usable picture: "
            "add some there or remove the folder"
        )
    order = np.array([classes.index(name) for name in pictures.classes], dtype=np.int64)
    return FilePictures(pictures.paths, classes, order[pictures.labels], pictures.names)


def _or_none(pictures: Pictures) -> Pictures | None:
    return pictures if len(pictures) else None


def _empty_note(part: _Part) -> list[str]:
    if not part.empty:
        return []
    return [f"Left out, without a usable picture: {', '.join(part.empty)}."]


def _single_note(pictures: FilePictures) -> list[str]:
    counts = np.bincount(pictures.labels, minlength=len(pictures.classes))
    single = [name for name, count in zip(pictures.classes, counts, strict=True) if count == 1]
    return (
        [f"In the training part only, with a single picture: {', '.join(single)}."]
        if single
        else []
    )

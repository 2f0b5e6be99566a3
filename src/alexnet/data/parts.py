"""What a data set consists of, and how it becomes a training, a validation and a test part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from alexnet.data.decode import DecodeError
from alexnet.data.listing import folders_of
from alexnet.data.pictures import BadImage, Pictures, Splits
from alexnet.data.split import stratified_split
from alexnet.data.threads import in_threads
from alexnet.errors import UsageError
from alexnet.progress import track

FOLDERS = "put the pictures of each class in a folder of its own"
"""What to do about a folder without pictures or classes."""


@dataclass(frozen=True)
class Part:
    """A part of a data set as it was found.

    Attributes:
        pictures: what may be decoded; their classes are all that were found, some perhaps empty.
        refused: what is left out.
        title: what names begin with and a sentence calls it, such as ``"train/"``; may be empty.
        place: where it is, for a message.
    """

    pictures: Pictures
    refused: tuple[BadImage, ...] = ()
    title: str = ""
    place: str = ""


@dataclass(frozen=True)
class Contents:
    """A data set as it was found.

    Attributes:
        name: what was opened.
        parts: ``"train"``, and ``"val"`` and ``"test"`` where the data have them.
        divided: whether the parts are the data's own; else the one part is still to be divided.
        checked: whether every picture is known to decode.
        large: whether the pictures may be too many to decode each when the data are opened.
        notes: what the reader should know, a sentence each.
        descriptions: what a class is called by people, where its name is a code.
        mirror: whether a picture's mirror image is of the same class.
        fix: what to do where classes or pictures are missing.
    """

    name: str
    parts: Mapping[str, Part]
    divided: bool
    checked: bool = False
    large: bool = False
    notes: tuple[str, ...] = ()
    descriptions: Mapping[str, str] = field(default_factory=dict)
    mirror: bool = True
    fix: str = FOLDERS


def check(part: Part, workers: int = 0) -> Part:
    """Decode every picture once and leave out the bad ones.

    Args:
        part: what was found.
        workers: threads that decode; as many as there are processors when 0.
    """
    pictures = part.pictures

    def reason_to_refuse(index: int) -> str | None:
        try:
            pictures.decode(index, at_least=1)
        except DecodeError as error:
            return str(error)
        return None

    reasons = in_threads(reason_to_refuse, range(len(pictures)), workers)
    name = part.title or Path(part.place).name
    found = list(track(reasons, f"checking {name}", len(pictures)))
    good = [index for index, reason in enumerate(found) if reason is None]
    if len(good) == len(found):
        return part
    bad = [BadImage(pictures.names[i], reason) for i, reason in enumerate(found) if reason]
    return replace(part, pictures=pictures.subset(good), refused=(*part.refused, *bad))


def divide(contents: Contents, seed: int, val_fraction: float, test_fraction: float) -> Splits:
    """Make the three parts.

    Data with parts of their own keep them (without a validation part, one is held out of the
    training part); others are split, stratified by class. Classes without a picture are left out.

    Args:
        contents: what was found; what could not be decoded is already left out.
        seed: which pictures are held out.
        val_fraction: of the training part, held out where the data have no validation part.
        test_fraction: of the pictures, held out where the data are not divided.

    Raises:
        UsageError: fewer than two classes with pictures, or a class in another part that the
            training part lacks.
    """
    parts = {name: _without_empty_classes(part) for name, part in contents.parts.items()}
    _require_classes(parts["train"], contents.fix)
    if contents.divided:
        splits = _keep(contents, parts, seed, val_fraction)
    else:
        splits = _split(contents, parts["train"], seed, val_fraction, test_fraction)
    known = {name: contents.descriptions.get(name, "") for name in splits.classes}
    return replace(splits, descriptions={name: text for name, text in known.items() if text})


def _split(
    contents: Contents, part: Part, seed: int, val_fraction: float, test_fraction: float
) -> Splits:
    pictures = part.pictures
    kept, tested = stratified_split(pictures.labels, test_fraction, seed)
    # Another seed, or the same positions would tend to be chosen twice.
    learned, chosen = stratified_split(pictures.labels[kept], val_fraction, seed + 1)
    notes = (*_empty_note(contents.parts["train"], part), *_single_note(pictures), *contents.notes)
    return Splits(
        contents.name,
        pictures.classes,
        pictures.subset(kept[learned]),
        _or_none(pictures.subset(kept[chosen])),
        _or_none(pictures.subset(tested)),
        part.refused,
        " ".join(notes),
    )


def _keep(contents: Contents, parts: Mapping[str, Part], seed: int, val_fraction: float) -> Splits:
    train: Pictures = parts["train"].pictures
    held_out: dict[str, Pictures | None] = {"val": None, "test": None}
    notes = _empty_note(contents.parts["train"], parts["train"])
    for name in [name for name in held_out if name in parts]:
        held_out[name] = _or_none(_renumbered(parts[name], parts["train"]))
        if held_out[name] is None:
            notes.append(f"{parts[name].title} has no usable picture.")
    if held_out["val"] is None and val_fraction:
        kept, chosen = stratified_split(train.labels, val_fraction, seed)
        train, held_out["val"] = train.subset(kept), _or_none(train.subset(chosen))
        title = parts["train"].title
        notes.append(f"{len(chosen)} pictures of {title} are held out for validation.")
    refused = tuple(bad for part in parts.values() for bad in part.refused)
    return Splits(
        contents.name,
        train.classes,
        train,
        held_out["val"],
        held_out["test"],
        refused,
        " ".join((*notes, *contents.notes)),
    )


def _without_empty_classes(part: Part) -> Part:
    """Only the classes that have pictures; the others are among the refused."""
    pictures = part.pictures
    usable = np.bincount(pictures.labels, minlength=len(pictures.classes)) > 0
    said = {bad.name for bad in part.refused}
    names = [f"{part.title}{name}/" for name in _empty_classes(pictures)]
    empty = (BadImage(name, "class without a usable picture") for name in names if name not in said)
    refused = sorted((*part.refused, *empty), key=lambda bad: bad.name)
    if not usable.all():
        classes = [name for name, good in zip(pictures.classes, usable, strict=True) if good]
        pictures = pictures.relabeled(classes, (usable.cumsum() - 1)[pictures.labels])
    return replace(part, pictures=pictures, refused=tuple(refused))


def _empty_classes(pictures: Pictures) -> list[str]:
    counts = np.bincount(pictures.labels, minlength=len(pictures.classes))
    return [name for name, count in zip(pictures.classes, counts, strict=True) if not count]


def _require_classes(part: Part, fix: str) -> None:
    classes, refused = part.pictures.classes, part.refused
    if not classes:
        found = (
            f" ({len(refused)} refused, first {refused[0].name}: {refused[0].reason})"
            if refused
            else ""
        )
        raise UsageError(f"{part.place} has no usable picture{found}: {fix}")
    if len(classes) == 1:
        inner = Path(part.place) / classes[0]
        deeper = len(folders_of(inner)) > 1 if inner.is_dir() else False
        fix = f"name {inner} if its folders are the classes" if deeper else fix
        raise UsageError(
            f"{part.place} has usable pictures of one class only, {classes[0]!r}; "
            f"two are needed: {fix}"
        )


def _renumbered(part: Part, train: Part) -> Pictures:
    """The part's pictures with labels that index the training part's classes."""
    pictures, classes = part.pictures, train.pictures.classes
    unknown = [name for name in pictures.classes if name not in classes]
    if unknown:
        raise UsageError(
            f"{part.place} has the class {unknown[0]!r}, of which {train.title} has no usable "
            "picture: add some there or leave the class out"
        )
    number = {name: index for index, name in enumerate(classes)}
    order = np.array([number[name] for name in pictures.classes], dtype=np.int64)
    return pictures.relabeled(classes, order[pictures.labels])


def _or_none(pictures: Pictures) -> Pictures | None:
    return pictures if len(pictures) else None


def _empty_note(found: Part, kept: Part) -> list[str]:
    empty = [name for name in found.pictures.classes if name not in kept.pictures.classes]
    return [f"Left out, without a usable picture: {', '.join(empty)}."] if empty else []


def _single_note(pictures: Pictures) -> list[str]:
    counts = np.bincount(pictures.labels, minlength=len(pictures.classes))
    single = [name for name, count in zip(pictures.classes, counts, strict=True) if count == 1]
    return (
        [f"In the training part only, with a single picture: {', '.join(single)}."]
        if single
        else []
    )

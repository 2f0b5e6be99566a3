"""Where pictures come from: a name or a folder becomes a training, a validation and a test part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from alexnet.data import huggingface, imagenet
from alexnet.data.folder import list_folder
from alexnet.data.lenient import lenient
from alexnet.data.named import NAMED, bundled_digits, named_parts
from alexnet.data.parts import Contents, Part, check, divide
from alexnet.data.pictures import (
    ArrayPictures,
    BadImage,
    FilePictures,
    Pictures,
    Splits,
    write_bad_images,
)
from alexnet.data.prepared import is_prepared, list_prepared, read_manifest
from alexnet.data.split import stratified_split
from alexnet.errors import UsageError, unknown_name

__all__ = [
    "ArrayPictures",
    "BadImage",
    "FilePictures",
    "Pictures",
    "Splits",
    "data_folder",
    "data_names",
    "has_mirror_images",
    "list_data",
    "open_data",
    "stratified_split",
    "write_bad_images",
]


def data_names() -> list[str]:
    """The names that :func:`open_data` knows."""
    return ["mnist-5k", *NAMED]


def has_mirror_images(data: str) -> bool:
    """Whether a picture's mirror image is of the same class: False for digits and letters."""
    folder = data_folder(data)
    if folder is not None and is_prepared(folder):
        return bool(read_manifest(folder).get("mirror_images", True))
    return data not in ("mnist-5k", "mnist", "kmnist")


def data_folder(data: str) -> Path | None:
    """The folder that ``data`` names, as a whole path; None where it names none."""
    if not data or data in data_names():
        return None
    folder = Path(data.removeprefix(imagenet.PREFIX)).expanduser()
    try:
        return folder.resolve() if folder.is_dir() else None
    except OSError:
        return None


def open_data(
    data: str,
    *,
    seed: int = 0,
    fold: int = 0,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    workers: int = 0,
) -> Splits:
    """Open a data set.

    Args:
        data: a name of :func:`data_names`; a folder of class folders, or of ``train/`` with
            ``val/`` or ``test/`` (or both) that hold class folders; a folder that
            :func:`alexnet.prepare` wrote; ``"imagenet:PATH"``; ``"hf:OWNER/NAME"`` or a folder of a
            Hugging Face data set.
        seed: decides what is held out where the data have no such part of their own.
        fold: of ``mnist-5k``, 0 to 4: the thousand digits that are its test part.
        val_fraction: of the training part (what the test part leaves), held out for choosing.
        test_fraction: of a folder of class folders, held out as test part.
        workers: threads that check a folder's files; as many as there are processors when 0.

    Raises:
        UsageError: no such data set, a folder with fewer than two classes or no usable picture,
            a fraction out of range.
        FailedError: files that are damaged or cannot be downloaded.
    """
    _check_fractions(val_fraction, test_fraction)
    if data == "mnist-5k":
        train, test = bundled_digits(fold)
        return _with_validation(data, train, test, val_fraction, seed)
    if fold:
        raise UsageError(f"fold={fold}: only mnist-5k has folds; use another seed for {data}")
    if data in NAMED:
        train, test = named_parts(data)
        return _with_validation(data, train, test, val_fraction, seed)
    contents = list_data(data)
    if contents.large:
        return lenient(divide(contents, seed, val_fraction, test_fraction), workers)
    if not contents.checked:
        parts = {name: check(part, workers) for name, part in contents.parts.items()}
        contents = replace(contents, parts=parts)
    return divide(contents, seed, val_fraction, test_fraction)


def list_data(data: str) -> Contents:
    """What is in a data set, before it is divided and before pictures are looked into.

    Raises:
        UsageError: no such data set, or a folder that cannot be read.
        FailedError: files that are damaged or cannot be downloaded.
    """
    if data in data_names():
        named = bundled_digits(0) if data == "mnist-5k" else named_parts(data)
        parts = {
            name: Part(pictures, (), f"{name}/", data)
            for name, pictures in zip(("train", "test"), named, strict=True)
        }
        mirror = has_mirror_images(data)
        return Contents(data, parts, divided=True, checked=True, mirror=mirror)
    if data.startswith(huggingface.PREFIX):
        return huggingface.list_hub(data)
    if data.startswith(imagenet.PREFIX):
        return imagenet.list_imagenet(data)
    folder = Path(data).expanduser()
    try:
        exists = bool(data) and folder.exists()
    except OSError as error:
        raise UsageError(f"{data} cannot be read ({error.strerror}): check the path") from error
    if not exists:
        raise _no_such_data(data)
    if folder.is_dir() and is_prepared(folder):
        return list_prepared(folder)
    if folder.is_dir() and huggingface.is_hugging_face(folder):
        return huggingface.list_hugging_face(folder)
    return list_folder(folder)


def _check_fractions(val_fraction: float, test_fraction: float) -> None:
    for name, value in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= value < 1:
            raise UsageError(f"{name}={value}: choose a fraction from 0 up to, not including, 1")


def _with_validation(
    name: str, train: ArrayPictures, test: ArrayPictures, fraction: float, seed: int
) -> Splits:
    kept, held_out = stratified_split(train.labels, fraction, seed)
    if not len(held_out):
        return Splits(name, train.classes, train, None, test)
    return Splits(name, train.classes, train.subset(kept), train.subset(held_out), test)


def _no_such_data(data: str) -> UsageError:
    if "/" in data or "\\" in data or data.startswith("."):
        return UsageError(f"there is no folder {data}: check the path")
    return unknown_name("data set or folder", data, data_names())

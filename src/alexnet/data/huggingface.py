"""Hugging Face data sets: of the Hub, and of a folder with Arrow or Parquet files.

Arrow files are read where they lie. Parquet is turned into Arrow by the package ``datasets``, in
its cache, as is what comes from the Hub.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alexnet import files
from alexnet.data.arrow import ArrowPictures, NumberedNames, Rows, import_pyarrow, whole_numbers
from alexnet.data.parts import Contents, Part
from alexnet.errors import FailedError, UsageError, missing_extra

PREFIX = "hf:"
FIX = "use data with pictures of two classes or more"
_SPLITS = {"train": "train", "test": "test"}
_SPLITS |= dict.fromkeys(("validation", "valid", "val", "dev"), "val")
_IMAGES = ("image", "img", "picture", "jpg", "jpeg", "png")
_LABELS = ("label", "labels", "fine_label", "class", "category", "target", "cls", "y")


def list_hub(data: str) -> Contents:
    """What is in a data set of the Hub, downloaded where it is not in the cache yet.

    Args:
        data: ``"hf:OWNER/NAME"``, with ``@REVISION`` or ``:CONFIG`` after it where there are more.

    Raises:
        UsageError: ``datasets`` is not installed, or there are no pictures or labels in it.
        FailedError: no such data set, or it cannot be downloaded.
    """
    name, _, config = data.removeprefix(PREFIX).partition(":")
    name, _, revision = name.partition("@")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise UsageError(f"{data} is not a data set of the Hub: write hf:OWNER/NAME")
    loaded = _load(data, name, name=config or None, revision=revision or None)
    return _contents(data, loaded)


def is_hugging_face(folder: Path) -> bool:
    """Whether a folder holds a saved data set, or Arrow or Parquet files."""
    try:
        saved = any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))
        return saved or bool(_data_files(folder))
    except OSError:  # a folder that may not be read: listing it says why
        return False


def list_hugging_face(folder: Path) -> Contents:
    """What is in a folder that ``save_to_disk`` wrote, or that holds Arrow or Parquet files.

    Raises:
        UsageError: no column of pictures or of labels, no training split, or a damaged description.
        FailedError: a file is damaged.
    """
    if (folder / "dataset_dict.json").is_file():
        names = files.read_json(folder / "dataset_dict.json").get("splits", [])
        return _contents(str(folder), {name: _saved(folder / name) for name in names})
    if (folder / "state.json").is_file():
        return _contents(str(folder), {"train": _saved(folder)})
    splits: dict[str, list[Path]] = {}
    for path in _data_files(folder):
        splits.setdefault(_split_of(path.relative_to(folder)), []).append(path)
    if all(path.suffix == ".arrow" for paths in splits.values() for path in paths):
        return _contents(str(folder), splits)
    found = {name: [str(path) for path in paths] for name, paths in splits.items()}
    kinds = {path.suffix for paths in splits.values() for path in paths}
    if len(kinds) > 1:
        raise UsageError(f"{folder} has both .arrow and .parquet files: keep one kind")
    return _contents(str(folder), _load(str(folder), "parquet", data_files=found))


def _data_files(folder: Path) -> list[Path]:
    """Arrow and Parquet files in the folder and in the folders that data sets have them in."""
    found: list[Path] = []
    for pattern in ("*", "data/*", *(f"{name}/*" for name in _SPLITS)):
        for suffix in (".parquet", ".arrow"):
            found += folder.glob(f"{pattern}{suffix}")
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


def _split_of(path: Path) -> str:
    """The split that a file's name or folder begins with; ``train`` where it says none."""
    for part in (path.name, path.parent.name):
        word = re.match(r"[a-z]+", part.lower())
        if word and word[0] in _SPLITS:
            return word[0]
    return "train"


def _saved(folder: Path) -> list[Path]:
    """The Arrow files of one split that ``save_to_disk`` wrote."""
    state = files.read_json(folder / "state.json")
    if state.get("_indices_data_files"):
        raise UsageError(f"{folder} holds a selection of rows: save it with flatten_indices()")
    try:
        return [folder / str(entry["filename"]) for entry in state["_data_files"]]
    except (KeyError, TypeError) as error:
        raise UsageError(f"{folder / 'state.json'} names no files: restore or remove it") from error


def _load(data: str, path: str, **options: Any) -> dict[str, list[Path]]:
    """What ``datasets.load_dataset`` finds: for each split its Arrow files."""
    try:
        import datasets
    except ImportError as error:
        raise missing_extra("datasets", "data", data) from error
    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(path, **options)
    except Exception as error:  # each builder has errors of its own
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise FailedError(
            f"{data} cannot be loaded ({reason}): check the name (hf:OWNER/NAME, or "
            "hf:OWNER/NAME:CONFIG) and the connection, or download it and give its folder"
        ) from error
    finally:
        if not bars:
            datasets.enable_progress_bars()
    return {
        str(name): [Path(entry["filename"]) for entry in split.cache_files]
        for name, split in loaded.items()
    }


def _contents(name: str, splits: Mapping[str, Sequence[Path]]) -> Contents:
    known = {split: _SPLITS.get(split.lower()) for split in splits}
    if len(splits) == 1:  # whatever it is called
        known = dict.fromkeys(splits, "train")
    if "train" not in known.values():
        raise UsageError(f"{name} has the splits {', '.join(splits)}: one must be called train")
    parts: dict[str, Part] = {}
    notes: list[str] = []
    for split, part in known.items():
        if part is None or part in parts:
            notes.append(f"Not read: {split}.")
            continue
        found, note = _part(name, split, splits[split])
        notes += note
        if len(found.pictures) or part == "train":
            parts[part] = found
    divided = len(parts) > 1
    return Contents(name, parts, divided=divided, large=True, notes=tuple(notes), fix=FIX)


def _part(name: str, split: str, paths: Sequence[Path]) -> tuple[Part, list[str]]:
    """A split's pictures; those without a label are left out, and a note says so."""
    rows = Rows(paths)
    image = _column(name, rows, "pictures", _IMAGES, _is_image)
    label = _column(name, rows, "labels", _LABELS, _is_label)
    classes, labels = _labels(rows, label)
    names = NumberedNames(f"{split}/", len(rows))
    pictures = ArrowPictures(rows, image, classes, labels, names)
    labeled = np.flatnonzero(labels >= 0)
    note = []
    if len(labeled) < len(labels):
        note = [f"Left out of {split}/, without a label: {len(labels) - len(labeled)} pictures."]
        pictures = pictures.subset(labeled)
    return Part(pictures, (), f"{split}/", f"{name} ({split})"), note


def _column(
    name: str,
    rows: Rows,
    what: str,
    usual: Sequence[str],
    suits: Callable[[Any, dict[str, Any]], int],
) -> str:
    """The column of pictures or labels: the one that suits best, by kind and then by name."""
    fields = list(rows.schema) if rows.schema is not None else []
    features = rows.features()
    suiting = {field.name: suits(field.type, features.get(field.name) or {}) for field in fields}
    best = max(suiting.values(), default=0)
    found = [column for column, degree in suiting.items() if degree == best and best]
    named = [column for column in usual if column in found]
    if named:
        return named[0]
    if len(found) == 1:
        return found[0]
    columns = ", ".join(field.name for field in fields) or "none"
    said = f"several columns of {what}" if found else f"no column of {what}"
    raise UsageError(f"{name} has {said} (its columns: {columns}): name one of them {usual[0]}")


def _is_image(kind: Any, feature: Mapping[str, Any]) -> int:
    types = import_pyarrow().types
    if feature.get("_type") == "Image":
        return 3
    if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        return 2
    return int(types.is_binary(kind) or types.is_large_binary(kind))


def _is_label(kind: Any, feature: Mapping[str, Any]) -> int:
    types = import_pyarrow().types
    if feature.get("_type") == "ClassLabel":
        return 2
    return int(types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind))


def _labels(rows: Rows, column: str) -> tuple[list[str], NDArray[np.int64]]:
    """The names of the classes, and each row's; -1 where a row has no label."""
    arrow = import_pyarrow()
    feature = rows.features().get(column) or {}
    values = arrow.chunked_array(list(rows.columns(column)))
    if feature.get("_type") == "ClassLabel" and feature.get("names"):
        names = [str(name) for name in feature["names"]]
        if values.null_count:
            labels = values.fill_null(-1).to_numpy().astype(np.int64)
        else:
            labels = whole_numbers(rows, column)
        return names, np.where(labels < len(names), labels, -1)
    found = sorted(value for value in values.unique().to_pylist() if value is not None)
    places = arrow.compute.index_in(values, value_set=arrow.array(found, values.type))
    return [str(value) for value in found], places.fill_null(-1).to_numpy().astype(np.int64)

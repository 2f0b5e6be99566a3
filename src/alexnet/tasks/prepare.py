"""Pack a data set: every picture decoded, resized and stored once, to be read fast ever after.

What is done is settled before it is begun: the listing says which picture goes into which shard,
and a shard is a function of its pictures alone. So work that was interrupted goes on by the same
command, and ends with the same bytes as work that was not.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from alexnet import files
from alexnet.data.arrow import Rows, import_pyarrow, whole_numbers
from alexnet.data.pack import Packing, Shard, features, write_shard
from alexnet.data.parts import Contents, Part, divide
from alexnet.data.pictures import BadImage, write_bad_images
from alexnet.data.prepared import FOLDERS, MANIFEST, PROGRESS, contents_of, fingerprint
from alexnet.data.processes import in_processes
from alexnet.data.sources import data_folder, list_data
from alexnet.errors import UsageError
from alexnet.progress import log, track

LEAST, MOST = 256, 256
"""Pictures of a shard, at least, and shards of a part, at most."""
PLAN = "plan.json"


@dataclass(frozen=True)
class Prepared:
    """A prepared folder.

    Attributes:
        folder: where it is.
        images: pictures in it.
        refused: files that were left out, but for hidden ones.
        shards: files that hold the pictures.
        bytes: their size together.
        seconds: how long it took, this time.
    """

    folder: Path
    images: int
    refused: int
    shards: int
    bytes: int
    seconds: float


def prepare(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    size: int = 256,
    format: Literal["jpeg", "raw"] = "jpeg",
    quality: int = 90,
    workers: int = 0,
) -> Prepared:
    """Write a packed, resized copy of a data set, which training reads without loading it.

    The folder is a data set for :func:`alexnet.data.open_data`, divided as the original would be,
    and a ``DatasetDict`` for ``datasets.load_from_disk``. Work that was interrupted goes on by the
    same call; a folder that is finished is left as it is.

    Args:
        data: a data set's name or a folder (see :func:`alexnet.data.open_data`).
        out: the folder to write.
        size: pixels that the shorter side of larger pictures is resized to.
        format: ``"jpeg"``, or ``"raw"`` for the pixels as they are: exact, several times larger,
            read without decoding.
        quality: of JPEG, 1 to 100.
        workers: processes; as many as there are processors when 0.

    Raises:
        UsageError: a wrong name or value, a folder of something else, or one that was begun with
            other data or settings.
        FailedError: no space on the disk, or damaged data.
    """
    began = time.perf_counter()
    data, folder = os.fspath(data), Path(out)
    packing = _packing(size, format, quality, workers)
    import_pyarrow()
    _require_outside(data, folder)
    contents = list_data(data)
    plan = _plan(contents, packing)
    if _finished(folder, plan):
        log.info("%s is finished: nothing to do", folder)
    else:
        _begin(folder, plan)
        records = _write_shards(folder, contents, packing, plan, workers)
        _finish(folder, contents, plan, records)
    shutil.rmtree(folder / PROGRESS, ignore_errors=True)
    manifest = files.read_json(folder / MANIFEST)
    shards = [shard for part in manifest["parts"].values() for shard in part["shards"]]
    total = sum(shard["bytes"] for shard in shards)
    images, refused = manifest["images"], manifest["refused"]
    return Prepared(folder, images, refused, len(shards), total, time.perf_counter() - began)


def _packing(size: int, format: Literal["jpeg", "raw"], quality: int, workers: int) -> Packing:
    for name, value, good, wanted in (
        ("size", size, size >= 1, "at least 1"),
        ("format", format, format in ("jpeg", "raw"), "jpeg or raw"),
        ("quality", quality, 1 <= quality <= 100, "from 1 to 100"),
        ("workers", workers, workers >= 0, "0 or more"),
    ):
        if not good:
            raise UsageError(f"{name} is {value}: it must be {wanted}")
    return Packing(size, format, quality if format == "jpeg" else None)


def _require_outside(data: str, folder: Path) -> None:
    """Refuse to write into the data, whose listing would be another the next time."""
    source, target = data_folder(data), folder.resolve()
    if source is not None and (source == target or source in target.parents):
        raise UsageError(f"{folder} lies in the data, {data}: choose another folder with -o")


def _plan(contents: Contents, packing: Packing) -> dict[str, Any]:
    """What decides every byte of the folder."""
    shards = {}
    for name, part in contents.parts.items():
        count = len(part.pictures)
        each = max(LEAST, math.ceil(count / MOST))
        shards[name] = {"pictures": each, "shards": max(1, math.ceil(count / each))}
    settings = packing.to_dict()
    return {"settings": settings, "source": fingerprint(contents), "layout": shards}


def _finished(folder: Path, plan: dict[str, Any]) -> bool:
    """Whether the folder is whole."""
    if not (folder / MANIFEST).is_file():
        return False
    manifest = files.read_json(folder / MANIFEST)
    _require_same(folder, manifest, plan)
    for part in manifest["parts"].values():
        for shard in part["shards"]:
            path = folder / shard["file"]
            if not path.is_file() or path.stat().st_size != shard["bytes"]:
                log.warning("%s is missing or damaged: the folder is made again", path)
                return False
    return True


def _begin(folder: Path, plan: dict[str, Any]) -> None:
    """Make the folder, or check that it was begun with the same data and settings."""
    written = folder / PROGRESS / PLAN
    try:
        if written.is_file():
            _require_same(folder, files.read_json(written), plan)
            log.info("%s was begun before: going on", folder)
        elif not (folder / MANIFEST).is_file() and _occupied(folder):
            raise UsageError(f"{folder} holds something else: choose another folder with -o")
        files.remove_leftovers(folder)
        files.write_json(written, plan)
        (folder / MANIFEST).unlink(missing_ok=True)
    except OSError as error:
        raise files.write_error(error, folder) from error


def _require_same(folder: Path, before: dict[str, Any], plan: dict[str, Any]) -> None:
    if before.get("settings") != plan["settings"]:
        settings = before.get("settings") or {}
        said = ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)
        raise UsageError(
            f"{folder} was begun with other settings ({said}): use the same, or choose another "
            f"folder with -o"
        )
    if any(before.get(name) != plan[name] for name in ("source", "layout")):
        raise UsageError(
            f"{folder} was begun with other pictures: restore them, or choose another folder "
            f"with -o"
        )


def _occupied(folder: Path) -> bool:
    """Whether there is more than is left by a beginning that was killed at once."""
    if not folder.is_dir():
        return folder.exists()
    return any(path.name != PROGRESS for path in folder.iterdir())


def _shards(
    folder: Path, contents: Contents, packing: Packing, plan: dict[str, Any]
) -> Iterator[Shard]:
    """Which pictures go into which shard."""
    classes = all_classes(contents)
    for name, part in contents.parts.items():
        each, count = plan["layout"][name]["pictures"], plan["layout"][name]["shards"]
        labels = _relabeled(part, classes)
        for number in range(count):
            rows = np.arange(number * each, min((number + 1) * each, len(labels)))
            yield Shard(
                folder,
                f"{FOLDERS[name]}/data-{number:05}-of-{count:05}.arrow",
                f"{PROGRESS}/{FOLDERS[name]}-{number:05}.json",
                part.pictures.subset(rows).relabeled(classes, labels[rows]),
                classes,
                packing,
            )


def all_classes(contents: Contents) -> tuple[str, ...]:
    """The classes of all parts, the training part's first."""
    parts = sorted(contents.parts.items(), key=lambda item: item[0] != "train")
    return tuple(dict.fromkeys(name for _, part in parts for name in part.pictures.classes))


def _relabeled(part: Part, classes: tuple[str, ...]) -> NDArray[np.int64]:
    """The part's labels as indices into all classes."""
    number = {name: index for index, name in enumerate(classes)}
    order = np.array([number[name] for name in part.pictures.classes], dtype=np.int64)
    return order[part.pictures.labels]


def _write_shards(
    folder: Path, contents: Contents, packing: Packing, plan: dict[str, Any], workers: int
) -> list[dict[str, Any]]:
    """Write what is missing, in processes; the records of all shards, in the order of the files."""
    records: list[dict[str, Any]] = []
    shards = _shards(folder, contents, packing, plan)

    def one_a_picture() -> Iterator[None]:
        for record in in_processes(write_shard, shards, workers):
            records.append(record)
            yield from [None] * (record["images"] + len(record["refused"]))

    total = sum(len(part.pictures) for part in contents.parts.values())
    try:
        for _ in track(one_a_picture(), "preparing", total):
            pass
    finally:
        files.remove_leftovers(folder)
    return sorted(records, key=lambda record: record["file"])


def _finish(
    folder: Path, contents: Contents, plan: dict[str, Any], records: list[dict[str, Any]]
) -> None:
    """Write what makes the shards a data set, the manifest last.

    Raises:
        UsageError: too few classes or pictures could be used.
    """
    classes = all_classes(contents)
    parts = {
        name: _described(folder, name, part, classes, plan["settings"], records)
        for name, part in contents.parts.items()
    }
    refused = [bad for part in parts.values() for bad in part["refused"]]
    manifest = {
        **plan,
        "images": sum(part["images"] for part in parts.values()),
        "refused": sum(not BadImage(**bad).hidden for bad in refused),
        "classes": list(classes),
        "descriptions": dict(contents.descriptions),
        "divided": contents.divided,
        "mirror_images": contents.mirror,
        "notes": list(contents.notes),
        "parts": parts,
    }
    divide(contents_of(folder, manifest), 0, 0.0, 0.0)  # says what cannot be used as it is
    splits = {"splits": [FOLDERS[name] for name in FOLDERS if name in parts]}
    files.write_text(folder / "dataset_dict.json", json.dumps(splits))
    write_bad_images(folder / "bad_images.csv", (BadImage(**bad) for bad in refused))
    files.write_json(folder / MANIFEST, manifest)


def _described(
    folder: Path,
    name: str,
    part: Part,
    classes: tuple[str, ...],
    settings: dict[str, Any],
    records: list[dict[str, Any]],
) -> dict[str, Any]:
    """A part's entry in the manifest; writes what makes its folder a split of ``datasets``."""
    split = FOLDERS[name]
    mine = [record for record in records if record["file"].startswith(f"{split}/")]
    labels = whole_numbers(Rows([folder / record["file"] for record in mine]), "label")
    counts = dict(zip(classes, np.bincount(labels, minlength=len(classes)).tolist(), strict=True))
    bad = [bad for record in mine for bad in record["refused"]]
    refused = [*part.refused, *(BadImage(name, reason) for name, reason in bad)]
    keys = ("file", "images", "bytes", "sha256")
    shards = [{key: record[key] for key in keys} for record in mine]
    digest = hashlib.sha256("".join(shard["sha256"] for shard in shards).encode()).hexdigest()
    state = {
        "_data_files": [{"filename": Path(shard["file"]).name} for shard in shards],
        "_fingerprint": digest[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }
    columns = features(Packing(**settings), classes)
    info = {"citation": "", "description": "", "features": columns, "homepage": "", "license": ""}
    files.write_text(folder / split / "state.json", json.dumps(state, indent=2))
    files.write_text(folder / split / "dataset_info.json", json.dumps(info, indent=2))
    return {
        "title": part.title,
        "images": len(labels),
        "classes": {name: counts[name] for name in part.pictures.classes},
        "refused": [asdict(bad) for bad in sorted(refused, key=lambda bad: bad.name)],
        "shards": shards,
    }

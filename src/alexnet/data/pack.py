"""One shard of a prepared data set: a pure function of its pictures and the settings.

A shard is an Arrow stream that Hugging Face's ``datasets`` reads as it is. JPEG has the columns
``image`` (a struct of ``bytes`` and ``path``, the picture's name) and ``label``; raw has ``name``,
``height``, ``width``, ``channels``, ``bytes`` (the pixels, row by row, channels innermost) and
``label``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import PIL.Image
import simplejpeg

from alexnet import files
from alexnet.data.arrow import import_pyarrow
from alexnet.data.decode import DecodeError
from alexnet.data.fit import pixels_wanted
from alexnet.data.pictures import Image, Pictures
from alexnet.data.resample import resize
from alexnet.errors import UsageError

if TYPE_CHECKING:
    import pyarrow

ROWS = 1000
"""Pictures of a record batch, at most."""
BATCH_BYTES = 64 << 20
"""Bytes of pictures that a record batch is closed at."""
LONGEST_JPEG = 65535  # pixels of a side (ITU-T T.81, section B.2.2)


@dataclass(frozen=True)
class Packing:
    """How pictures are stored.

    Attributes:
        size: length in pixels that longer shorter sides are resized to; smaller pictures stay.
        format: ``"jpeg"`` or ``"raw"``.
        quality: of JPEG, 1 to 100; None for raw.
    """

    size: int
    format: Literal["jpeg", "raw"]
    quality: int | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Shard:
    """What one shard is made of.

    Attributes:
        folder: of the whole data set.
        file: the Arrow file, relative to it.
        record: the JSON file that says that the shard is whole, relative to it.
        pictures: what goes into it.
        classes: all classes of the data set, which the labels index.
        packing: how pictures are stored.
    """

    folder: Path
    file: str
    record: str
    pictures: Pictures
    classes: tuple[str, ...]
    packing: Packing


def write_shard(shard: Shard) -> dict[str, Any]:
    """Write a shard, unless it is there and whole.

    The shard is written first, then its record, each renamed to its place when it is on the disk,
    so that a process killed at any moment leaves a whole shard with a record, or no record.

    Returns:
        The record: ``file``, ``images``, ``bytes``, ``sha256`` and ``refused`` (names, reasons).

    Raises:
        FailedError: the disk is full.
        UsageError: the folder cannot be written to.
    """
    path = shard.folder / shard.file
    done = _record_of_whole(path, shard.folder / shard.record)
    if done is not None:
        return done
    refused: list[list[str]] = []
    schema = arrow_schema(shard.packing, shard.classes)
    ipc = import_pyarrow().ipc
    images = 0
    with files.atomic_path(path) as temporary:
        with temporary.open("wb") as file, ipc.new_stream(file, schema) as writer:
            for batch in _batches(_rows(shard, refused), schema):
                writer.write_batch(batch)
                images += batch.num_rows
        size, digest = temporary.stat().st_size, files.sha256(temporary)
    record = {"file": shard.file, "images": images, "bytes": size, "sha256": digest}
    record["refused"] = refused
    files.write_json(shard.folder / shard.record, record)
    return record


def _record_of_whole(path: Path, written: Path) -> dict[str, Any] | None:
    """A shard's record, if the shard's bytes are those that it tells of."""
    if not (path.is_file() and written.is_file()):
        return None
    try:
        record = files.read_json(written)
    except UsageError:
        return None
    same = path.stat().st_size == record.get("bytes") and files.sha256(path) == record.get("sha256")
    return record if same else None


def features(packing: Packing, classes: Iterable[str]) -> dict[str, Any]:
    """The columns as ``datasets`` describes them."""
    label = {"names": list(classes), "_type": "ClassLabel"}
    if packing.format == "jpeg":
        return {"image": {"_type": "Image"}, "label": label}
    kinds = {"name": "string", "height": "int32", "width": "int32", "channels": "int32"}
    kinds |= {"bytes": "binary"}
    values = {name: {"dtype": kind, "_type": "Value"} for name, kind in kinds.items()}
    return {**values, "label": label}


def arrow_schema(packing: Packing, classes: Iterable[str]) -> pyarrow.Schema:
    """The columns of a shard, with what ``datasets`` reads of them."""
    arrow = import_pyarrow()
    if packing.format == "jpeg":
        image = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
        columns = [("image", image), ("label", arrow.int64())]
    else:
        sides = [(name, arrow.int32()) for name in ("height", "width", "channels")]
        ends = [("bytes", arrow.binary()), ("label", arrow.int64())]
        columns = [("name", arrow.string()), *sides, *ends]
    info = {"info": {"features": features(packing, classes)}}
    return arrow.schema(columns, metadata={"huggingface": json.dumps(info)})


def _rows(shard: Shard, refused: list[list[str]]) -> Iterator[dict[str, Any]]:
    """A row a picture; what cannot be decoded or stored goes to ``refused``."""
    pictures = shard.pictures
    for index in range(len(pictures)):
        name = pictures.names[index]
        try:
            pixels = shrink(
                pictures.decode(index, pixels_wanted(shard.packing.size)), shard.packing.size
            )
            row = _row(name, pixels, shard.packing)
        except DecodeError as error:
            refused.append([name, str(error)])
            continue
        yield {**row, "label": int(pictures.labels[index])}


def _row(name: str, pixels: Image, packing: Packing) -> dict[str, Any]:
    height, width, channels = pixels.shape
    if packing.quality is None:
        sides = {"height": height, "width": width, "channels": channels}
        return {"name": name, **sides, "bytes": pixels.tobytes()}
    if max(height, width) > LONGEST_JPEG:
        raise DecodeError(f"too long for JPEG: {width}x{height} pixels (--format raw takes it)")
    color, sampling = ("RGB", "420") if channels == 3 else ("GRAY", "Gray")
    encoded = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), packing.quality, color, sampling)
    return {"image": {"bytes": encoded, "path": name}}


def shrink(pixels: Image, size: int) -> Image:
    """Resize a picture so that its shorter side is ``size``; a smaller picture stays as it is.

    The filter and the rounding are those of :func:`alexnet.data.fit`, so that a network whose
    ``resize`` is ``size`` sees what it would see of the original.

    Args:
        pixels: uint8 ``[H, W, C]``.
        size: in pixels.

    Returns:
        uint8 ``[H', W', C]``.
    """
    height, width, channels = pixels.shape
    shorter = min(height, width)
    if shorter <= size:
        return pixels
    sides = [size if side == shorter else int(size * side / shorter) for side in (width, height)]
    if channels == 3:
        return resize(pixels, (sides[1], sides[0]), "bilinear")
    image = PIL.Image.fromarray(np.ascontiguousarray(pixels[:, :, 0]))
    resized = np.asarray(image.resize((sides[0], sides[1]), PIL.Image.Resampling.BILINEAR))
    return resized[:, :, None]


def _batches(
    rows: Iterable[dict[str, Any]], schema: pyarrow.Schema
) -> Iterator[pyarrow.RecordBatch]:
    batch = import_pyarrow().RecordBatch
    waiting: list[dict[str, Any]] = []
    held = 0
    for row in rows:
        waiting.append(row)
        held += len(row["bytes"] if "bytes" in row else row["image"]["bytes"])
        if len(waiting) == ROWS or held >= BATCH_BYTES:
            yield batch.from_pylist(waiting, schema)
            waiting, held = [], 0
    if waiting:
        yield batch.from_pylist(waiting, schema)

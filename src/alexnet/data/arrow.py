"""Pictures in Arrow files, read where they lie: memory-mapped, so that their number costs nothing.

Only pyarrow is needed to read; the files are those of Hugging Face's ``datasets``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from alexnet import files
from alexnet.data.decode import DecodeError
from alexnet.data.names import ChosenNames, LazyNames
from alexnet.data.pictures import Image, Indices, Pictures
from alexnet.errors import FailedError, missing_extra

if TYPE_CHECKING:
    import pyarrow

_FILE_MAGIC = b"ARROW1"  # of Arrow's file format; its stream format has none


def import_pyarrow() -> Any:
    """The package pyarrow.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise missing_extra("pyarrow", "data", "a prepared or Hugging Face data set") from error
    return pyarrow


class Rows:
    """The rows of Arrow files, one file after the other, memory-mapped.

    A process that gets one from another opens the files anew instead of copying what is in them.

    Attributes:
        files: in order.
        schema: of the first file; None where there are no files.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(files)
        self.schema: pyarrow.Schema | None = None
        self._batches: list[pyarrow.RecordBatch] = []
        for path in self.files:
            schema, batches = _open(path)
            self.schema = self.schema or schema
            self._batches += batches
        self._ends = np.cumsum([batch.num_rows for batch in self._batches], dtype=np.int64)

    def __reduce__(self) -> tuple[type[Rows], tuple[tuple[Path, ...]]]:
        return Rows, (self.files,)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def locate(self, row: int) -> tuple[pyarrow.RecordBatch, int]:
        """The batch that a row is in, and its place there."""
        number = int(np.searchsorted(self._ends, row, side="right"))
        return self._batches[number], row - (int(self._ends[number - 1]) if number else 0)

    def columns(self, name: str) -> Iterator[pyarrow.Array]:
        """A column, batch by batch."""
        return (batch.column(name) for batch in self._batches)

    def features(self) -> dict[str, Any]:
        """What ``datasets`` wrote of the columns' meaning; empty where it wrote nothing."""
        metadata = (self.schema.metadata if self.schema is not None else None) or {}
        try:
            found = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        except (ValueError, KeyError, TypeError):
            return {}
        return found if isinstance(found, dict) else {}


def _open(path: Path) -> tuple[pyarrow.Schema, list[pyarrow.RecordBatch]]:
    arrow = import_pyarrow()
    try:
        # What is mapped stays so while a batch is used; the file itself need not stay open.
        with arrow.memory_map(str(path)) as source:
            if source.read(len(_FILE_MAGIC)) == _FILE_MAGIC:
                reader = arrow.ipc.open_file(source)
                batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
                return reader.schema, batches
            source.seek(0)
            reader = arrow.ipc.open_stream(source)
            return reader.schema, list(reader)
    except (OSError, arrow.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise FailedError(
            f"{path} is missing or damaged ({reason}): restore or remake it"
        ) from error


class ArrowPictures(Pictures):
    """Pictures in rows of Arrow files.

    Attributes:
        rows: where they are.
        column: an encoded picture: a struct of ``bytes`` and ``path``, or the bytes alone. None
            where the pixels themselves are stored, in ``height``, ``width``, ``channels`` and
            ``bytes``.
        chosen: int64 ``[N]``, the row of each picture; all in order when None.
    """

    mapped = True

    def __init__(
        self,
        rows: Rows,
        column: str | None,
        classes: Sequence[str],
        labels: NDArray[np.integer],
        names: Sequence[str],
        chosen: NDArray[np.int64] | None = None,
    ) -> None:
        super().__init__(classes, labels, names)
        self.rows, self.column, self.chosen = rows, column, chosen

    def stored(self, index: int) -> Path | bytes | Image:
        """The row's bytes; pixels that are stored as they are stay where they lie."""
        batch, row = self._locate(index)
        if self.column is None:
            shape = [batch.column(name)[row].as_py() for name in ("height", "width", "channels")]
            return np.frombuffer(batch.column("bytes")[row].as_buffer(), np.uint8).reshape(shape)
        value = batch.column(self.column)[row].as_py()
        encoded = value.get("bytes") if isinstance(value, dict) else value
        if encoded is not None:
            return encoded
        path = value.get("path") if isinstance(value, dict) else None
        if not path:
            raise DecodeError("no picture in this row")
        return Path(path)

    def expect(self, index: int) -> None:
        """Have the row's bytes fetched."""
        batch, row = self._locate(index)
        value = batch.column(self.column or "bytes")[row]
        stored = (value["bytes"] if hasattr(value, "keys") else value).as_buffer()
        if stored is not None:
            files.expect_mapped(stored.address, stored.size)

    def _locate(self, index: int) -> tuple[pyarrow.RecordBatch, int]:
        return self.rows.locate(int(index if self.chosen is None else self.chosen[index]))

    def subset(self, indices: Indices) -> ArrowPictures:
        """The rows at ``indices``; nothing is copied but their numbers."""
        picked = np.asarray(indices, dtype=np.int64)
        chosen = picked if self.chosen is None else self.chosen[picked]
        names = ChosenNames(self.names, picked)
        return ArrowPictures(
            self.rows, self.column, self.classes, self.labels[picked], names, chosen
        )

    def marks(self) -> NDArray[np.int64]:
        """The number of bytes of each picture."""
        arrow = import_pyarrow()
        sizes = []
        for values in self.rows.columns("bytes" if self.column is None else self.column):
            if arrow.types.is_struct(values.type):
                values = values.field("bytes")
            lengths = arrow.compute.binary_length(values).fill_null(-1)
            sizes.append(lengths.to_numpy(zero_copy_only=False).astype(np.int64))
        found = np.concatenate(sizes) if sizes else np.zeros(0, np.int64)
        return found if self.chosen is None else found[self.chosen]


class ArrowNames(LazyNames):
    """The names in a column of text (or the ``path`` of a column of pictures)."""

    def __init__(self, rows: Rows, column: str) -> None:
        super().__init__(len(rows))
        self.rows, self.column = rows, column

    def name(self, index: int) -> str:
        """The name in row ``index``."""
        batch, row = self.rows.locate(index)
        value = batch.column(self.column)[row]
        return str(value["path"].as_py() if hasattr(value, "keys") else value.as_py())


class NumberedNames(LazyNames):
    """Names that are a row's number, such as ``"train/17"``."""

    def __init__(self, prefix: str, count: int) -> None:
        super().__init__(count)
        self.prefix = prefix

    def name(self, index: int) -> str:
        """The name of row ``index``."""
        return f"{self.prefix}{index}"


def whole_numbers(rows: Rows, column: str) -> NDArray[np.int64]:
    """A column of whole numbers, int64 ``[N]``."""
    parts = [values.to_numpy(zero_copy_only=False) for values in rows.columns(column)]
    return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)

"""Pictures in Arrow files: nothing in memory a picture, in whatever process."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet import files
from alexnet.data.arrow import ArrowNames, ArrowPictures, NumberedNames, Rows
from alexnet.data.decode import DecodeError
from alexnet.data.names import ChosenNames, PackedNames
from alexnet.data.processes import in_processes
from alexnet.errors import FailedError, UsageError
from alexnet.spec import InputSpec


def write(folder: Path, counts: list[int], side: int = 4) -> list[Path]:
    """Raw pictures of one gray, their number, in files of several batches."""
    paths, number = [], 0
    for count in counts:
        path = folder / f"{len(paths)}.arrow"
        sides = [(name, pyarrow.int32()) for name in ("height", "width", "channels")]
        columns = [("name", pyarrow.string()), *sides, ("bytes", pyarrow.binary())]
        schema = pyarrow.schema([*columns, ("label", pyarrow.int64())])
        with path.open("wb") as file, pyarrow.ipc.new_stream(file, schema) as writer:
            for start in range(0, count, 3):
                rows = range(number + start, number + min(start + 3, count))
                size = {"height": side, "width": side, "channels": 1}
                table = [
                    {"name": f"p{r}", **size, "bytes": bytes([r % 256]) * side**2, "label": r % 2}
                    for r in rows
                ]
                writer.write_batch(pyarrow.RecordBatch.from_pylist(table, schema))
        number += count
        paths.append(path)
    return paths


def pictures(paths: list[Path]) -> ArrowPictures:
    rows = Rows(paths)
    labels = np.arange(len(rows)) % 2
    return ArrowPictures(rows, None, ("even", "odd"), labels, ArrowNames(rows, "name"))


@settings(deadline=None)
@given(st.lists(st.integers(0, 8), max_size=4), st.data())
def test_any_selection_of_a_selection(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], data: st.DataObject
) -> None:
    every = pictures(write(tmp_path_factory.mktemp("rows"), counts))
    assert len(every) == sum(counts)
    order = list(range(len(every)))
    part = every
    for _ in range(2):
        if not order:
            break
        picked = data.draw(st.lists(st.integers(0, len(order) - 1), max_size=9))
        part, order = part.subset(picked), [order[index] for index in picked]
        assert list(part.names) == [f"p{number}" for number in order]
        assert part.labels.tolist() == [number % 2 for number in order]
        assert part.marks().tolist() == [16] * len(order)
        assert [int(part.read(i)[0, 0, 0]) for i in range(len(part))] == order


def test_it_holds_no_file_open_and_copies_nothing(tmp_path: Path) -> None:
    paths = write(tmp_path, [60] * 20, side=100)
    before = (len(os.listdir("/proc/self/fd")), pyarrow.total_allocated_bytes())
    every = pictures(paths)
    half = every.subset(np.arange(0, 1200, 2))
    assert half.read(599)[0, 0, 0] == 1198 % 256
    assert (len(os.listdir("/proc/self/fd")), pyarrow.total_allocated_bytes()) == before
    assert len(pickle.dumps(half)) < 600 * 2 * 8 + 4000  # its rows and labels, no picture, no name


def _read(part: ArrowPictures) -> tuple[int, str]:
    return int(part.read(0)[0, 0, 0]), part.names[0]


def test_another_process_opens_it_anew(tmp_path: Path) -> None:
    part = pictures(write(tmp_path, [5, 5])).subset([7])
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_read, (part,)) == (7, "p7")
    assert list(in_processes(_read, [part], 1)) == [(7, "p7")]


def test_files_that_are_no_arrow(tmp_path: Path) -> None:
    (tmp_path / "a.arrow").write_bytes(b"not arrow at all" * 10)
    for path in (tmp_path / "a.arrow", tmp_path / "gone.arrow"):
        with pytest.raises(FailedError, match=r"arrow is missing or damaged") as caught:
            Rows([path])
        assert "\n" not in str(caught.value)


def test_encoded_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    Image.new("L", (3, 2), 9).save(tmp_path / "a.png")
    encoded = (tmp_path / "a.png").read_bytes()
    values = [{"bytes": encoded, "path": None}, {"bytes": None, "path": str(tmp_path / "a.png")}]
    values += [{"bytes": None, "path": None}, {"bytes": b"", "path": "x"}]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    batch = pyarrow.record_batch({"image": pyarrow.array(values, kind)})
    with pyarrow.ipc.new_file(str(tmp_path / "b.arrow"), batch.schema) as writer:
        writer.write_batch(batch)
    rows = Rows([tmp_path / "b.arrow"])
    names = NumberedNames("train/", 4)
    found = ArrowPictures(rows, "image", ("a",), np.zeros(4, np.int64), names)
    for index in (0, 1):
        assert found.read(index).tolist() == np.full((2, 3, 1), 9).tolist()
    for index, reason in ((2, "no picture in this row"), (3, "empty file")):
        with pytest.raises(DecodeError, match=reason):
            found.decode(index)
    assert found.marks().tolist() == [len(encoded), -1, -1, 0]
    fetched = asked_for(monkeypatch)
    for index in range(4):
        found.expect(index)
    assert fetched == [encoded, b""]


def asked_for(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bytes that the system is asked to fetch, as they come."""
    fetched: list[bytes] = []

    def note(address: int, size: int) -> None:
        fetched.append(ctypes.string_at(address, size))

    monkeypatch.setattr(files, "expect_mapped", note)
    return fetched


def test_a_row_s_own_bytes_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = pictures(write(tmp_path, [5, 4])).subset([7, 0, 4])
    fetched = asked_for(monkeypatch)
    for index in range(3):
        every.expect(index)
    assert fetched == [bytes([number]) * 16 for number in (7, 0, 4)]


@given(st.lists(st.text()))
def test_packed_names(names: list[str]) -> None:
    names = [name.encode("utf-8", "ignore").decode() for name in names]
    packed = PackedNames.pack(names)
    assert list(packed) == names
    rows = np.arange(len(names))[::-1].copy()
    chosen = ChosenNames(ChosenNames(packed, rows), rows[: len(names) // 2])
    assert list(chosen) == names[::-1][::-1][: len(names) // 2]
    assert packed[-1:] == names[-1:]
    with pytest.raises(IndexError):
        _ = packed[len(names)]


def _square(number: int) -> int:
    if number == 3:
        raise UsageError("three is no number")
    if number == 4:
        raise UnicodeDecodeError("utf-8", b"x", 0, 1, "odd")  # cannot be made of its text
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    if number > 100:
        time.sleep(30)
    return number * number


def test_work_in_processes() -> None:
    assert sorted(in_processes(_square, [2, 1, 0], 2)) == [0, 1, 4]
    assert list(in_processes(_square, [], 2)) == []
    with pytest.raises(UsageError, match="three is no number"):
        list(in_processes(_square, [1, 3, 2], 1))
    with pytest.raises((UnicodeDecodeError, RuntimeError), match="odd"):
        list(in_processes(_square, [4], 1))
    with pytest.raises(FailedError, match="a worker process was killed"):
        list(in_processes(_square, [5, 1], 1))


def test_a_consumer_that_stops_ends_the_processes() -> None:
    began = time.monotonic()
    results = in_processes(_square, [1, 101, 102], 2)
    assert next(results) == 1
    results.close()
    assert time.monotonic() - began < 20
    assert not multiprocessing.active_children()


def test_streaming_in_processes_from_mapped_files(tmp_path: Path) -> None:
    import torch

    from alexnet.data import StreamedPixels, load_pixels

    every = pictures(write(tmp_path, [20, 20], side=8))
    spec = InputSpec(size=8, resize=8, channel_order="gray", mean=(0.0,), std=(1.0,))
    streamed = load_pixels(every, spec, train=True, workers=2)
    assert isinstance(streamed, StreamedPixels)
    plan = torch.arange(40).split(7)
    found = torch.cat([batch[:, 0, 0, 0] for batch, _, _ in streamed.batches(plan)])
    assert found.tolist() == list(range(40))

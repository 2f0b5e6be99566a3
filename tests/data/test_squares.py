"""Many squares at once: those that are made are what one by one gives, and the others are told."""

from __future__ import annotations

import ctypes
import io
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from alexnet.data.decode import DecodeError, square
from alexnet.data.pictures import ArrayPictures, Pictures
from alexnet.data.squares import _Square, make_squares
from alexnet.native import native
from alexnet.spec import InputSpec, lenet_spec

SPEC = InputSpec(size=56, resize=64)
HERE = hasattr(native().library, "make_squares")
needs_it = pytest.mark.skipif(not HERE, reason="needs a C compiler and AVX-512 VBMI")


def saved(height: int, width: int, kind: str = "JPEG", **options: Any) -> bytes:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def turned() -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    return saved(70, 90, exif=exif)


def huge() -> bytes:
    data = bytearray(saved(70, 90))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = b"\xff\xdc\xff\xdc"
    return bytes(data)


def stuffed(size: int) -> bytes:
    """A JPEG with so many bytes of comments."""
    data, comment = saved(70, 90), b"\xff\xfe\xff\xff" + bytes(65533)
    return data[:2] + comment * (size // len(comment)) + data[2:]


def rooms_for(count: int, side: int = 64) -> np.ndarray:
    return np.full((count, 3, side, side), 7, np.uint8)


@needs_it
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("side", [64, 56])
def test_all_of_a_batch_are_made(threads: int, side: int, tmp_path: Path) -> None:
    stored: list[Any] = []
    for number in range(150):
        data = saved(66 + number % 31, 80 + number % 7)
        stored.append(data)
        if number % 3:
            stored[-1] = tmp_path / f"{number}.jpg"
            stored[-1].write_bytes(data)
    stored[:0], stored[140:140] = [None], [b"", None]
    rooms = rooms_for(len(stored), side)
    assert make_squares(stored, SPEC, rooms, threads) == [0, 140, 141]
    for room, one in zip(rooms, stored, strict=True):
        assert not one or np.array_equal(room, square(one, SPEC, side))


@needs_it
def test_what_is_not_made_is_told_and_what_is_beside_it_is_made(tmp_path: Path) -> None:
    files = {
        "good": saved(70, 90),
        "gray": saved(70, 90)[:2],
        "empty": b"",
        "png": saved(70, 90, "PNG"),
        "progressive": saved(70, 90, progressive=True),
        "cut": saved(70, 90)[:-300],
        "broken": saved(70, 90)[:-300] + b"\xff\xd9",
        "turned": turned(),
        "huge": huge(),
        "large": saved(300, 260),  # of which libjpeg decodes a half
        "fits": saved(64, 90),  # is only cut
        "long": stuffed(5 << 20),
        "good too": saved(90, 70),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    odd = [tmp_path / name for name in ("pipe", "folder", "missing")]
    for stored in ([*map(tmp_path.joinpath, files), *odd, None], [*files.values(), None]):
        rooms = rooms_for(len(stored))
        good = [0, len(files) - 1]
        if isinstance(stored[0], bytes):
            good.insert(1, list(files).index("long"))  # its bytes are here anyway
        assert make_squares(stored, SPEC, rooms, 2) == [
            i for i in range(len(stored)) if i not in good
        ]
        for place in good:
            assert np.array_equal(rooms[place], square(files[list(files)[place]], SPEC, 64))


@needs_it
def test_more_than_may_be_held_at_once_is_read_in_parts_and_let_go(tmp_path: Path) -> None:
    paths = []
    for number in range(40):  # 120 MB
        paths.append(tmp_path / f"{number}.jpg")
        paths[-1].write_bytes(stuffed(3 << 20))
    wanted, opened = square(paths[0], SPEC, 64), set(os.listdir("/proc/self/fd"))
    before = 0
    for turn in range(12):
        rooms = rooms_for(len(paths))
        assert make_squares(paths, SPEC, rooms, 2) == []
        assert all(np.array_equal(room, wanted) for room in rooms)
        if turn < 2:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert set(os.listdir("/proc/self/fd")) == opened
    library = native().library
    assert library is not None
    squares = (_Square * len(paths))(*((os.fsencode(path),) for path in paths))
    held = library.open_squares(squares, ctypes.c_int64(len(paths)), 2)
    library.make_squares(squares, ctypes.c_int64(held), 2)
    assert 64 / 3.1 - 1 < held <= 64 / 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10


class Encoded(ArrayPictures):
    """Pictures as an archive has them."""

    def __init__(self, encoded: list[bytes]) -> None:
        count = len(encoded)
        images, labels = np.zeros((count, 1, 1, 1), np.uint8), np.zeros(count, int)
        super().__init__(images, ("a",), labels, [str(i) for i in range(count)])
        self.encoded = encoded

    def stored(self, index: int) -> Any:
        if not self.encoded[index]:
            raise DecodeError("empty")
        return self.encoded[index]

    squares = Pictures.squares


@needs_it
def test_of_an_archive_s_bytes_few_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = [saved(66 + number, 80) for number in range(20)]
    encoded[7], encoded[13] = b"", b"nothing"
    monkeypatch.setattr("alexnet.data.pictures.HELD_AT_ONCE", 4 * len(encoded[0]))
    counts = []

    def noted(stored: Any, *rest: Any) -> list[int]:
        counts.append(sum(len(one) for one in stored if one) / len(encoded[0]))
        return make_squares(stored, *rest)

    monkeypatch.setattr("alexnet.data.pictures.make_squares", noted)
    rooms = rooms_for(19)
    indices = [number for number in range(20) if number != 2]
    assert Encoded(encoded).squares(indices, SPEC, rooms, 2) == [6, 12]
    assert max(counts) < 5.5
    for room, index in zip(rooms, indices, strict=True):
        assert index in (7, 13) or np.array_equal(room, square(encoded[index], SPEC, 64))


@needs_it
def test_more_sizes_than_are_remembered() -> None:
    """What C reads of each is kept until it is done."""
    stored = [saved(66 + number % 70, 80 + number // 70) for number in range(320)]
    rooms = rooms_for(len(stored))
    left = make_squares(stored, SPEC, rooms, 5)
    assert left == []
    for room, one in zip(rooms, stored, strict=True):
        assert np.array_equal(room, square(one, SPEC, 64))


@needs_it
def test_names_that_no_file_can_have_are_left(tmp_path: Path) -> None:
    good = tmp_path / "a.jpg"
    good.write_bytes(saved(70, 90))
    stored = [Path(f"{good}\0b"), good, Path("\ud800.jpg")]
    assert make_squares(stored, SPEC, rooms_for(3), 2) == [0, 2]


@pytest.mark.parametrize(
    "rooms",
    [
        np.zeros((2, 3, 64, 64), np.uint8),
        np.zeros((1, 1, 64, 64), np.uint8),
        np.zeros((1, 3, 64, 56), np.uint8),
        np.zeros((1, 3, 65, 65), np.uint8),
        np.zeros((1, 3, 64, 64), np.float32),
        np.zeros((1, 3, 64, 128), np.uint8)[..., ::2],
    ],
)
def test_rooms_of_another_kind_are_refused(rooms: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"rooms|must lie between"):
        make_squares([saved(70, 90)], SPEC, rooms, 2)


def test_gray_networks_and_none_at_all() -> None:
    spec = lenet_spec()
    rooms = np.zeros((2, 1, spec.crop, spec.crop), np.uint8)
    assert make_squares([saved(70, 90)] * 2, spec, rooms, 2) == [0, 1]
    assert make_squares([], SPEC, rooms_for(0), 2) == []

"""Pixels in memory and streamed: the same bytes, whatever reads them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from alexnet.data import (
    ArrayPictures,
    FilePictures,
    MemoryPixels,
    StreamedPixels,
    epoch_batches,
    fit,
    load_pixels,
    loader,
    open_data,
)
from alexnet.data.loader import workers_beside
from alexnet.data.pictures import Image, Pictures
from alexnet.data.threads import available_processors, operations_take_all
from alexnet.errors import FailedError
from alexnet.native import native
from alexnet.spec import InputSpec, lenet_spec

SPEC = InputSpec(size=24, resize=32)
WAYS = ("beside", "between", "processes")


@pytest.fixture(params=WAYS)
def workers(request: pytest.FixtureRequest) -> Iterator[int]:
    """Processes that read; none where threads do, beside torch's operations or between them."""
    before = torch.get_num_threads()
    torch.set_num_threads(available_processors() if request.param == "between" else 1)
    assert operations_take_all() or request.param != "between" or native().library is None
    yield 2 if request.param == "processes" else 0
    torch.set_num_threads(before)


@pytest.fixture
def pictures(tmp_path: Path) -> Pictures:
    generator = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for index in range(12):
            height, width = generator.integers(20, 60, 2)
            pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
            PIL.Image.fromarray(pixels).save(tmp_path / name / f"{index}.jpg")
    return open_data(str(tmp_path), val_fraction=0, test_fraction=0).train


@pytest.mark.parametrize("train", [True, False])
def test_streamed_equals_in_memory_whoever_reads(pictures, train, workers, monkeypatch):
    monkeypatch.setattr(loader, "_TOGETHER", 7)
    plan = list(epoch_batches(len(pictures), 5, 0, 0, drop_last=False))
    memory = load_pixels(pictures, SPEC, train=train)
    assert isinstance(memory, MemoryPixels)
    side = 32 if train else 24
    wanted = np.stack([fit(pictures.read(index), SPEC, side) for index in range(len(pictures))])
    assert np.array_equal(memory.images.numpy(), wanted)
    streamed = load_pixels(pictures, SPEC, train=train, workers=workers, memory_limit=0)
    assert isinstance(streamed, StreamedPixels)
    assert (streamed.side, streamed.channels, len(streamed)) == (side, 3, 24)
    assert list(streamed.names) == list(memory.names)
    batches = zip(memory.batches(plan), streamed.batches(plan), plan, strict=True)
    for expected, found, indices in batches:
        assert expected[0].dtype == torch.uint8
        assert expected[0].shape == (len(indices), 3, side, side)
        assert torch.equal(expected[1], torch.from_numpy(pictures.labels)[indices])
        assert torch.equal(expected[2], indices)
        assert all(torch.equal(*pair) for pair in zip(expected, found, strict=True))


@pytest.mark.parametrize("limit", [4 << 30, 0])
def test_subsets_of_subsets(pictures, limit):
    pixels = load_pixels(pictures, SPEC, train=False, memory_limit=limit)
    whole, _, _ = next(pixels.batches([torch.arange(24)]))
    part = pixels.subset([20, 3, 7, 7]).subset(torch.tensor([3, 1, 0]))
    images, labels, indices = next(part.batches([torch.arange(3)]))
    assert torch.equal(images, whole[[7, 3, 20]])
    assert labels.tolist() == pictures.labels[[7, 3, 20]].tolist() == part.labels.tolist()
    assert indices.tolist() == [0, 1, 2]
    assert list(part.names) == [pictures.names[row] for row in (7, 3, 20)]


def test_the_limit_is_in_bytes(pictures):
    bytes_needed = 24 * 3 * 32 * 32
    fits = load_pixels(pictures, SPEC, train=True, memory_limit=bytes_needed)
    assert isinstance(fits, MemoryPixels)
    streams = load_pixels(pictures, SPEC, train=True, memory_limit=bytes_needed - 1)
    assert isinstance(streams, StreamedPixels)


@pytest.mark.parametrize("spec", [lenet_spec(), InputSpec(size=24, resize=28), InputSpec()])
def test_arrays_of_the_right_size_need_no_resizing_and_others_get_it(spec):
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28, 1), dtype=np.uint8)
    pictures = ArrayPictures(images, ("a", "b"), np.arange(6) % 2, [str(i) for i in range(6)])
    for train, side in ((True, spec.resize), (False, spec.crop)):
        pixels = load_pixels(pictures, spec, train=train)
        ((batch, _, _),) = pixels.batches([torch.arange(6)])
        wanted = np.stack([fit(image, spec, side) for image in images])
        assert np.array_equal(batch.numpy(), wanted)


def test_a_file_that_breaks_while_streaming_is_one_line(pictures, workers):
    assert isinstance(pictures, FilePictures)
    streamed = load_pixels(pictures, SPEC, train=True, workers=workers, memory_limit=0)
    pictures.paths[5].write_bytes(b"")
    with pytest.raises(FailedError) as caught:
        list(streamed.batches(torch.arange(24).split(8)))
    assert "could be read before" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(FailedError, match="could be read before"):
        load_pixels(pictures, SPEC, train=True)


def test_a_reader_may_stop_early(pictures, workers):
    streamed = load_pixels(pictures, SPEC, train=True, workers=workers, memory_limit=0)
    batches = streamed.batches(torch.arange(24).split(4))
    assert len(next(batches)[0]) == 4
    batches.close()
    assert len(list(streamed.batches(torch.arange(24).split(4)))) == 6


class Told(ArrayPictures):
    """Pictures that note what is asked of them."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.expected: list[int] = []
        self.decoded: list[int] = []

    def expect(self, index: int) -> None:
        self.expected.append(index)

    def stored(self, index: int) -> Image:
        self.decoded.append(index)
        return super().stored(index)


@pytest.mark.skipif(native().library is None, reason="needs a C compiler")
def test_between_operations_files_are_asked_for_ahead_and_read_when_they_are_due() -> None:
    count, size = 2000, 100
    images = np.zeros((count, 32, 32, 3), np.uint8)
    told = Told(images, ("a",), np.zeros(count, np.int64), [str(i) for i in range(count)])
    before = torch.get_num_threads()
    torch.set_num_threads(available_processors())
    try:
        batches = StreamedPixels(told, SPEC, 32).batches(torch.arange(count).split(size))
        for number in range(3):
            next(batches)
            due = range((number + 1) * size)
            assert sorted(told.decoded) == list(due)
            last = time.monotonic() + 30
            while len(told.expected) < len(due) + 200 and time.monotonic() < last:
                time.sleep(0.01)
            assert told.expected == list(range(len(due) + 200))
        batches.close()
    finally:
        torch.set_num_threads(before)


def test_beside_the_steps_some_batches_are_read_ahead_but_not_all() -> None:
    count = 2000
    images = np.zeros((count, 32, 32, 3), np.uint8)
    told = Told(images, ("a",), np.zeros(count, np.int64), [str(i) for i in range(count)])
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        plan = iter(torch.arange(count).split(100))
        batches = StreamedPixels(told, SPEC, 32).batches(plan)
        next(batches)
        last = time.monotonic() + 30
        while len(told.decoded) < 300 and time.monotonic() < last:
            time.sleep(0.01)
        time.sleep(0.1)
        assert sorted(told.decoded) == list(range(300))
        assert next(plan)[0] == 300
        batches.close()
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_leaves_the_reading_ones_to_their_parent(pictures, number):
    """What a terminal, torchrun and Slurm do: the parent decides when to stop."""
    streamed = load_pixels(pictures, SPEC, train=True, workers=2, memory_limit=0)
    batches = streamed.batches(torch.arange(24).split(1))
    for _ in range(2):  # one of each worker's
        next(batches)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        assert worker.pid is not None
        os.kill(worker.pid, number)
    time.sleep(0.2)
    assert len(list(batches)) == 22
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("images", "labels", "names", "word"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), [0, 1], "ab", "uint8"),
        (np.zeros((2, 4, 4, 2), np.uint8), [0, 1], "ab", "uint8"),
        (np.zeros((3, 4, 4, 3), np.uint8), [0, 1], "ab", "2 labels for 3 images"),
        (np.zeros((2, 4, 4, 3), np.uint8), [0, 1], "abc", "2 labels for 3 names"),
    ],
)
def test_arrays_that_do_not_match_are_refused(images, labels, names, word):
    with pytest.raises(ValueError, match=word):
        ArrayPictures(images, ("a", "b"), np.array(labels), list(names))


def test_paths_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="2 labels for 1 paths"):
        FilePictures([Path("a")], ("a", "b"), np.array([0, 1]), ["a", "b"])


def test_an_import_of_the_package_is_quiet_and_light():
    heavy = "{'torchvision', 'sklearn', 'matplotlib', 'timm'}"
    code = f"import sys, alexnet.data; print({heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    assert done.stderr == ""


def test_a_gpu_has_a_process_of_each_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where C does not read the pictures."""
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)), raising=False)
    images = np.zeros((20, 8, 8, 3), np.uint8)
    told = (ArrayPictures(images, ("a",), np.zeros(20, int), [str(i) for i in range(20)]), SPEC)
    assert workers_beside(torch.device("cpu"), *told) == 0
    assert workers_beside(torch.device("cuda"), *told) == 16
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert workers_beside(torch.device("cuda", 3), *told) == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert workers_beside(torch.device("cuda", 3), *told) == 2


@pytest.mark.skipif(not hasattr(native().library, "make_squares"), reason="needs AVX-512 VBMI")
def test_a_gpu_has_no_processes_where_c_reads_the_pictures(pictures: Pictures) -> None:
    assert isinstance(pictures, FilePictures)
    for path in pictures.paths:
        PIL.Image.new("RGB", (60, 50)).save(path)
    assert workers_beside(torch.device("cuda"), pictures, SPEC) == 0
    for path in pictures.paths[::2]:
        PIL.Image.new("RGB", (60, 50)).save(path, "PNG")
    assert workers_beside(torch.device("cuda"), pictures, SPEC) >= 2

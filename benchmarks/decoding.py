"""JPEGs to pixels, and to the squares that a network reads, on one thread and on all.

Claims, medians of 9 rounds, one arm after another in one process, 64 pictures of 500x375 with the
detail of photographs, as written (quality 90, 59 KB) and at quality 75:

    decode   `alexnet.data.decode` in RGB, at least 1.1 times as many a second as simplejpeg, which
             gives the same bytes, and as Pillow
    square   `alexnet.data.square`, 256 by 256, at least 1.3 times as many as simplejpeg and the
             package's own resizing of what it gives

    python benchmarks/decoding.py
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _record
import numpy as np
import pipeline
import simplejpeg
import torch
from _alternate import best, ratio, spread
from PIL import Image

from alexnet import runtime
from alexnet.data import decode, fit, square
from alexnet.data.squares import make_squares
from alexnet.data.threads import available_processors
from alexnet.models import input_spec

COUNT, ROUNDS, REPEATS = 64, 9, 4
QUALITIES = (90, 75)
LEAST = {"decode": 1.1, "square": 1.3}
SPEC = input_spec("alexnet")


def by_pillow(data: bytes) -> np.ndarray:
    """The pixels."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def by_simplejpeg(data: bytes) -> np.ndarray:
    """The pixels."""
    return simplejpeg.decode_jpeg(data, "RGB")


def saved(pictures: list[bytes], quality: int) -> list[bytes]:
    """The pictures, written anew."""
    written = []
    for data in pictures:
        stream = io.BytesIO()
        Image.open(io.BytesIO(data)).save(stream, "JPEG", quality=quality)
        written.append(stream.getvalue())
    return written


def each(work: Callable[[bytes], Any], pictures: list[bytes]) -> Callable[[], None]:
    """All pictures, one by one."""

    def arm() -> None:
        for data in pictures:
            work(data)

    return arm


def measured(pictures: list[bytes]) -> dict[str, list[float]]:
    """Seconds a picture of each arm in each round."""
    rooms = np.empty((len(pictures), 3, SPEC.resize, SPEC.resize), np.uint8)
    for data in pictures:
        pixels = by_simplejpeg(data)
        assert np.array_equal(decode(data), pixels)
        assert np.array_equal(square(data, SPEC, SPEC.resize), fit(pixels, SPEC, SPEC.resize))
    threads = available_processors()
    arms = {
        "alexnet": each(decode, pictures),
        "simplejpeg": each(by_simplejpeg, pictures),
        "Pillow": each(by_pillow, pictures),
        "square": each(lambda data: square(data, SPEC, SPEC.resize), pictures),
        "simplejpeg, resized": each(
            lambda data: fit(by_simplejpeg(data), SPEC, SPEC.resize), pictures
        ),
        "squares on all threads": lambda: make_squares(pictures, SPEC, rooms, threads),
    }
    found: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(ROUNDS + 1):
        for name, arm in arms.items():
            began = time.perf_counter()
            for _ in range(REPEATS):
                arm()
            if number:
                found[name].append((time.perf_counter() - began) / REPEATS / len(pictures))
    return found


def main() -> int:
    """Measure; 1 when a claim does not hold."""
    runtime.keep_freed_memory()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        pipeline.draw(Path(temporary), COUNT)
        drawn = [path.read_bytes() for path in sorted(Path(temporary).rglob("*.jpg"))]
    ratios, milliseconds, sizes = {}, {}, {}
    for quality in QUALITIES:
        pictures = drawn if quality == QUALITIES[0] else saved(drawn, quality)
        times = measured(pictures)
        ratios[quality] = {
            "decode over simplejpeg": ratio(times["simplejpeg"], times["alexnet"]),
            "decode over Pillow": ratio(times["Pillow"], times["alexnet"]),
            "decode over the best": ratio(
                best(times["simplejpeg"], times["Pillow"]), times["alexnet"]
            ),
            "square over simplejpeg": ratio(times["simplejpeg, resized"], times["square"]),
        }
        milliseconds[quality] = {
            name: spread([1e3 * value for value in values]) for name, values in times.items()
        }
        sizes[quality] = round(sum(map(len, pictures)) / len(pictures))
    result = {
        "claim": f"times as many pictures a second, at least {LEAST}",
        "bytes_a_picture": sizes,
        "threads": available_processors(),
        "ratios": ratios,
        "milliseconds_a_picture": milliseconds,
        "holds": all(
            found["decode over the best"]["median"] >= LEAST["decode"]
            and found["square over simplejpeg"]["median"] >= LEAST["square"]
            for found in ratios.values()
        ),
    }
    _record.write(__file__, ("torch", "pillow", "simplejpeg", "numpy"), result)
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())

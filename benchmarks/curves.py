"""How cost grows: with pictures, with the batch, with their size, with threads.

Claims: the time of an epoch from files is linear in the number of pictures (seconds a picture
within 5% of the largest's, from 1 to 16 times as many), and memory is flat (within 5%). AlexNet at
67 pixels with 512 units in fc6 and fc7, JPEGs of 500x375 decoded anew. All five sizes are measured
side by side, a second of each in turn (the machine's own speed changes by several percent to half
within minutes), so many epochs of each that all train on as many pictures, after a training that
warms up; a ratio is the median of those of 2 rounds. The other curves are of the training step of
the full network, each point a process of its own; memory is its highest resident size.

    python benchmarks/curves.py
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import _record
import numpy as np
import pipeline
from _alternate import ratio, spread
from _turns import give_turns, take_turns

import alexnet
from alexnet import runtime
from alexnet.training import sums
from alexnet.training.measure import measure_step

FIRST, TIMES, ROUNDS = 512, (1, 2, 4, 8, 16), 2
BATCHES = tuple(2**power for power in range(10))
SIZES = (67, 99, 131, 163, 195, 227)
TURN = 1.0
"""Seconds."""
WITHIN = 0.05


def memory() -> float:
    """The highest resident size so far, in gigabytes (2^30 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


def epoch(warmup: str, folder: str, epochs: str) -> dict[str, float]:
    """The mean of so many epochs from the files of a folder, taking turns with other sizes."""
    train_on(warmup, 1)
    take_turns(sums)
    records = train_on(folder, int(epochs))
    return {
        "seconds": statistics.mean(record["seconds"] for record in records),
        "pictures": round(records[0]["seconds"] * records[0]["images_per_second"]),
        "gigabytes": memory(),
    }


def train_on(folder: str, epochs: int) -> list[dict[str, float]]:
    """What is told of the epochs of a training from files."""
    settings: dict[str, Any] = {
        "training.epochs": epochs,
        "training.batch_size": 64,
        "training.schedule": "cosine",
        "model.hidden": 512,
        "data.image_size": 67,
        "data.val_fraction": 0.0,
        "data.test_fraction": 0.001,
        "data.memory_gb": 0.0,
    }
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "run"
        alexnet.train(folder, "alexnet", "paper", out=out, settings=settings)
        return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def one_step(batch: str, size: str, threads: str) -> dict[str, float]:
    """Median of a few steps of the full network."""
    chosen = dataclasses.replace(runtime.resolve(), threads=int(threads))
    network = alexnet.create_model("alexnet", image_size=int(size))
    found = measure_step(network, int(batch), chosen, 5 if int(batch) < 256 else 3)
    return {
        "seconds": found.seconds,
        "images_a_second": found.images_per_second,
        "gigabytes": memory(),
    }


def ask(*words: str) -> dict[str, float]:
    """One point, in a process of its own."""
    line = [sys.executable, __file__, *words]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True)
    return point(done.stdout, *words)


def point(said: str, *words: str) -> dict[str, float]:
    """What a process said last."""
    print(*words, said.strip(), file=sys.stderr, flush=True)
    values: dict[str, float] = json.loads(said.splitlines()[-1])
    return {name: round(value, 5) for name, value in values.items()}


def by_pictures() -> dict[int, list[dict[str, float]]]:
    """Epochs of more and more pictures, links to a few; side by side in each round."""
    found: dict[int, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        few = Path(temporary) / "few"
        pipeline.draw(few, 64)
        files = sorted(few.glob("*/*.jpg"))
        for times in TIMES:
            for number in range(times * FIRST):
                source = files[number % len(files)]
                folder = Path(temporary) / f"times {times}" / source.parent.name
                folder.mkdir(parents=True, exist_ok=True)
                os.link(source, folder / f"{number:05}.jpg")
        folders = {times: str(Path(temporary) / f"times {times}") for times in TIMES}
        commands = [
            [sys.executable, __file__, "epoch", folders[TIMES[0]], folder, str(TIMES[-1] // times)]
            for times, folder in folders.items()
        ]
        for _ in range(ROUNDS):
            for times, said in zip(TIMES, give_turns(commands, TURN), strict=True):
                found.setdefault(times * FIRST, []).append(point(said, "epoch", str(times)))
    return found


def line(points: Mapping[int, Mapping[str, float]]) -> tuple[float, float, dict[int, float]]:
    """Constant and slope of the line whose relative errors have the least squares, and those."""
    pictures = np.array([point["pictures"] for point in points.values()])
    seconds = np.array([point["seconds"] for point in points.values()])
    slope, constant = np.polyfit(pictures, seconds, 1, w=1 / seconds)
    off = seconds / (constant + slope * pictures) - 1
    return float(constant), float(slope), dict(zip(points, off.round(4).tolist(), strict=True))


def main() -> int:
    """Measure; 1 when a claim does not hold."""
    if len(sys.argv) > 1:
        kind, *rest = sys.argv[1:]
        print(json.dumps(epoch(*rest) if kind == "epoch" else one_step(*rest)))
        return 0
    cores = str(runtime.resolve().threads)
    epochs = by_pictures()
    medians = {
        n: {name: statistics.median(p[name] for p in points) for name in points[0]}
        for n, points in epochs.items()
    }
    constant, slope, from_line = line(medians)
    each = {n: [p["seconds"] / p["pictures"] for p in points] for n, points in epochs.items()}
    off = {n: ratio(values, each[max(each)])["median"] - 1 for n, values in each.items()}
    memories = {n: [p["gigabytes"] for p in points] for n, points in epochs.items()}
    grown = ratio(memories[max(memories)], memories[FIRST])["median"] - 1
    result = {
        "claim": f"seconds a picture, and memory, within {WITHIN:.0%} from 1 to {TIMES[-1]} times",
        "epochs_by_pictures": medians,
        "rounds": ROUNDS,
        "milliseconds_a_picture": {n: spread([1e3 * v for v in each[n]]) for n in each},
        "line": {"seconds_a_start": round(constant, 4), "milliseconds_a_picture": 1000 * slope},
        "off_the_line": from_line,
        "seconds_a_picture_off": {n: round(value, 4) for n, value in off.items()},
        "memory_grown": round(grown, 4),
        "step_by_batch": {n: ask("step", str(n), "227", cores) for n in BATCHES},
        "step_by_image_size": {n: ask("step", "32", str(n), cores) for n in SIZES},
        "step_by_threads": {n: ask("step", "32", "227", str(n)) for n in (1, 2)},
        "holds": all(abs(value) <= WITHIN for value in off.values()) and grown <= WITHIN,
    }
    _record.write(__file__, ("torch", "pillow"), result)
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())

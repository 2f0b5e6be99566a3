"""Training in bf16 ends where training in fp32 does.

Claim: test top-1 within 0.3 points, for LeNet-5 (textbook form, Fashion-MNIST, 60,000 pictures, 6
epochs, 10,000 to test on; 3 seeds) and for the AlexNet of 2012 (67 pixels, 512 units in fc6 and
fc7, 40,000 pictures of Fashion-MNIST, others for each seed, 8 epochs; 24,000 to test on, the test
part and 14,000 that were not trained on; 6 seeds). It is of the mean of all seeds and of that of
the first 3. A pair has the same pictures, weights to begin with, order and masks; the last epoch
counts, and what it is tested on is read once.

The setting was fixed before its runs. Of 12,000 pictures and 8 epochs, which is 1,500 steps,
AlexNet's training loss still falls by a tenth an epoch at the end, and how far it got differs by
chance: the same seed's score moved by up to 0.4 points when convolutions and updates came to round
otherwise, more than three or six seeds can average out. 40,000 are 5,000 steps.

    python benchmarks/bf16.py      # about an hour on two cores
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import _record
import numpy as np
import PIL.Image

import alexnet
from alexnet.data.sources import Pictures, open_data

WITHIN, FIRST = 0.003, 3
SEEDS = {"lenet5_dense": (1, 2, 3), "alexnet": tuple(range(1, 7))}
TRAINED_ON, TESTED_TOO = 40_000, 14_000
TASKS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "lenet5_dense": ("fashion-mnist", "lenet5_dense", "lenet-modern", {"training.epochs": 6}),
    "alexnet": (
        "",  # of Fashion-MNIST, see some_of
        "alexnet",
        "paper",
        {
            "model.hidden": 512,
            "model.init": "default",
            "data.image_size": 67,
            "data.val_fraction": 0.0,
            "training.epochs": 8,
            "training.batch_size": 64,
            "training.lr": 0.02,
            "augment.mirror": 0.0,
            "augment.pca": 0.0,
            "training.schedule": "cosine",
            "training.keep": "last",
        },
    ),
}


def some_of(seed: int, folder: Path) -> None:
    """Write pictures of Fashion-MNIST, drawn by ``seed``, as class folders of two parts."""
    parts = open_data("fashion-mnist")
    assert parts.test is not None
    order = np.random.default_rng(seed).permutation(len(parts.train)).tolist()
    others = order[TRAINED_ON : TRAINED_ON + TESTED_TOO]
    write(parts.train, order[:TRAINED_ON], folder / "train", "train")
    write(parts.train, others, folder / "test", "train")
    write(parts.test, range(len(parts.test)), folder / "test", "test")


def write(pictures: Pictures, indices: Iterable[int], folder: Path, source: str) -> None:
    """Write some pictures of a part, named after it."""
    for index in indices:
        target = folder / f"{pictures.labels[index]:02}" / f"{source}{index:05}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(pictures.read(index)[:, :, 0]).save(target)


def pair(task: str, seed: int) -> list[dict[str, Any]]:
    """One run in each precision."""
    with tempfile.TemporaryDirectory() as temporary:
        data = TASKS[task][0]
        if not data:
            data = str(Path(temporary) / "data")
            some_of(seed, Path(data))
        return [
            score(task, precision, seed, data, Path(temporary) / precision)
            for precision in ("fp32", "bf16")
        ]


def score(task: str, precision: str, seed: int, data: str, out: Path) -> dict[str, Any]:
    """One run."""
    _, model, recipe, settings = TASKS[task]
    settings = {
        **settings,
        "training.precision": precision,
        "training.seed": seed,
        "data.seed": seed,
    }
    run = alexnet.train(data, model, recipe, out=out, settings=settings)
    found = {
        "task": task,
        "precision": precision,
        "seed": seed,
        "test_images": run.metrics["test_images"],
        "test_top1": run.metrics["test_top1"],
    }
    print(found, file=sys.stderr, flush=True)
    return found


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means and what is between the precisions, and whether the claim holds."""
    tasks: dict[str, dict[str, Any]] = {}
    for task in TASKS:
        scores = {
            precision: [
                r["test_top1"] for r in runs if (r["task"], r["precision"]) == (task, precision)
            ]
            for precision in ("fp32", "bf16")
        }
        apart = [b - a for a, b in zip(scores["fp32"], scores["bf16"], strict=True)]
        tasks[task] = {
            **{
                precision: {"mean": statistics.mean(values), "sd": statistics.stdev(values)}
                for precision, values in scores.items()
            },
            "bf16_minus_fp32": [round(v, 5) for v in _record.paired_interval(apart)],
            "of_the_first": round(statistics.mean(apart[:FIRST]), 5),
        }
    return {
        "claim": f"test top-1 within {WITHIN}, means of all seeds and of the first {FIRST}",
        "tasks": tasks,
        "differences_are": "mean, lower and upper end of the 95% interval (Student's t)",
        "runs": runs,
        "holds": all(
            max(abs(found["bf16_minus_fp32"][0]), abs(found["of_the_first"])) <= WITHIN
            for found in tasks.values()
        ),
    }


def main() -> int:
    """Measure; 1 when the claim does not hold."""
    result = summary([run for task in TASKS for seed in SEEDS[task] for run in pair(task, seed)])
    _record.write(__file__, ("torch",), result)
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())

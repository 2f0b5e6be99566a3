"""Training in bf16 ends where training in fp32 does.

Claim: test top-1 within 0.3 points, means of 3 seeds, for LeNet-5 (textbook form, Fashion-MNIST,
60,000 pictures, 6 epochs, 10,000 to test on) and for the AlexNet of 2012 (67 pixels, 512 units in
fc6 and fc7, 12,000 pictures of Fashion-MNIST, others for each seed, 8 epochs, 10,000 to test on). A
pair has the same pictures, weights to begin with, order and masks; the last epoch counts, and the
test part is read once.

    python benchmarks/bf16.py
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import _record
import numpy as np
import PIL.Image

import alexnet
from alexnet.data.sources import Pictures, open_data

SEEDS, WITHIN = (1, 2, 3), 0.003
TRAINED_ON = 12_000
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


def some_of(pictures: Pictures, count: int, seed: int, folder: Path) -> None:
    """Write ``count`` pictures of a part, drawn by ``seed``, as class folders."""
    chosen = np.random.default_rng(seed).permutation(len(pictures))[:count]
    for index in chosen.tolist():
        target = folder / f"{pictures.labels[index]:02}" / f"{index:05}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(pictures.read(index)[:, :, 0]).save(target)


def score(task: str, precision: str, seed: int) -> dict[str, Any]:
    """One run."""
    data, model, recipe, settings = TASKS[task]
    settings = {
        **settings,
        "training.precision": precision,
        "training.seed": seed,
        "data.seed": seed,
    }
    with tempfile.TemporaryDirectory() as temporary:
        if not data:
            parts, data = open_data("fashion-mnist"), str(Path(temporary) / "data")
            some_of(parts.train, TRAINED_ON, seed, Path(data) / "train")
            assert parts.test is not None
            some_of(parts.test, len(parts.test), 0, Path(data) / "test")
        out = Path(temporary) / "run"
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


def main() -> int:
    """Measure; 1 when the claim does not hold."""
    runs = [
        score(task, precision, seed)
        for task in TASKS
        for seed in SEEDS
        for precision in ("fp32", "bf16")
    ]
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
        }
    result = {
        "claim": f"test top-1 within {WITHIN}, means of {len(SEEDS)} seeds",
        "tasks": tasks,
        "differences_are": "mean, lower and upper end of the 95% interval (Student's t)",
        "runs": runs,
        "holds": all(abs(found["bf16_minus_fp32"][0]) <= WITHIN for found in tasks.values()),
    }
    _record.write(__file__, ("torch",), result)
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())

"""Training in bf16 ends where training in fp32 does.

Claim: test top-1 within 0.3 points, means of 3 seeds, for LeNet-5 (textbook form, Fashion-MNIST,
60,000 pictures, 6 epochs, 10,000 to test on) and for the AlexNet of 2012 (67 pixels, 512 units in
fc6 and fc7, MNIST-5k, 12 epochs, 1,000 to test on, another fold for each seed). A pair has the same
weights to begin with, order and masks; the last epoch counts, and the test part is read once.

    python benchmarks/bf16.py
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import _record

import alexnet

SEEDS, WITHIN = (1, 2, 3), 0.003
TASKS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "lenet5_dense": ("fashion-mnist", "lenet5_dense", "lenet-modern", {"training.epochs": 6}),
    "alexnet": (
        "mnist-5k",
        "alexnet",
        "paper",
        {
            "model.hidden": 512,
            "model.init": "default",
            "data.image_size": 67,
            "data.val_fraction": 0.0,
            "training.epochs": 12,
            "training.batch_size": 64,
            "training.lr": 0.02,
            "augment.mirror": 0.0,
            "augment.pca": 0.0,
            "training.schedule": "cosine",
            "training.keep": "last",
        },
    ),
}


def score(task: str, precision: str, seed: int) -> dict[str, Any]:
    """One run."""
    data, model, recipe, settings = TASKS[task]
    settings = {
        **settings,
        **({"data.fold": seed} if data == "mnist-5k" else {}),
        "training.precision": precision,
        "training.seed": seed,
        "data.seed": seed,
    }
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "run"
        run = alexnet.train(data, model, recipe, out=out, settings=settings)
    found = {
        "task": task,
        "precision": precision,
        "seed": seed,
        "test_top1": run.metrics["test_top1"],
        "train_seconds": run.metrics["train_seconds"],
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

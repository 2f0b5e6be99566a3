"""What the recipes bring to an AlexNet trained from random weights.

Aim: on 10,000 training pictures of Fashion-MNIST (the first thousand of each class), `modern`
scores more than `paper`, and both more than `paper` without any augmentation. AlexNet of 2014 at 67
pixels with 512 units in fc6 and fc7, 20 epochs each, three seeds. `modern` and `paper` were tried
with one other seed on 2,000 further pictures of the training part, which also decide the kept
epoch; the 10,000 test pictures are read once by each of the nine runs, at its end.

    python benchmarks/recipes_fashion.py            # about an hour on two cores
    python benchmarks/recipes_fashion.py ARM SEED FOLDER   # one run, of data in class folders
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import _record
import numpy as np
from PIL import Image

import alexnet
from alexnet.data.sources import Pictures, open_data

SEEDS = (0, 1, 2)
PARTS = {"train": (0, 1000), "val": (1000, 1200)}
COMMON: dict[str, Any] = {
    "data.image_size": 67,
    "model.hidden": 512,
    "training.epochs": 20,
}
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "no augmentation": (
        "paper",
        {"training.plateau": 2, "augment.mirror": 0, "augment.crop": False, "augment.pca": 0},
    ),
    "paper": ("paper", {"training.plateau": 2}),
    "modern": ("modern", {}),
}


def write_pngs(folder: Path, pictures: Pictures, first: int, last: int) -> None:
    """Write pictures ``first`` to ``last`` of each class as PNG files in class folders."""
    for label, name in enumerate(pictures.classes):
        target = folder / name.replace("/", "-")
        target.mkdir(parents=True)
        for index in np.flatnonzero(pictures.labels == label)[first:last]:
            Image.fromarray(pictures.read(int(index))[:, :, 0]).save(target / f"{index}.png")


def write_data(folder: Path) -> None:
    """The three parts as class folders."""
    splits = open_data("fashion-mnist", val_fraction=0.0)
    assert splits.test is not None
    for part, (first, last) in PARTS.items():
        write_pngs(folder / part, splits.train, first, last)
    write_pngs(folder / "test", splits.test, 0, 10_000)


def train(arm: str, seed: int, data: Path) -> dict[str, Any]:
    """One run; what it scored."""
    recipe, changes = ARMS[arm]
    with tempfile.TemporaryDirectory() as temporary:
        run = alexnet.train(
            data,
            "alexnet_owt",
            recipe,
            out=Path(temporary) / "run",
            settings={**COMMON, **changes, "training.seed": seed},
        )
    kept = ("val_top1", "test_top1", "test_loss", "epoch", "train_seconds")
    return {"arm": arm, "seed": seed, **{key: run.metrics[key] for key in kept}}


def run_all(data: Path) -> list[dict[str, Any]]:
    """Every arm with every seed, two processes of one thread at a time."""

    def one(task: tuple[str, int]) -> dict[str, Any]:
        line = [sys.executable, __file__, task[0], str(task[1]), str(data)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(line, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        print(done.stdout.strip(), flush=True)
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    tasks = [(arm, seed) for seed in SEEDS for arm in ARMS]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, tasks))


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread of each arm, and the paired differences."""
    scores = {arm: [r["test_top1"] for r in runs if r["arm"] == arm] for arm in ARMS}
    none, paper, modern = (scores[arm] for arm in ARMS)
    pairs = {
        "modern - paper": [a - b for a, b in zip(modern, paper, strict=True)],
        "paper - no augmentation": [a - b for a, b in zip(paper, none, strict=True)],
    }
    return {
        "claim": "modern above paper above no augmentation, test top-1, mean of three seeds",
        "arms": {
            arm: {
                "mean": round(statistics.mean(values), 4),
                "sd": round(statistics.stdev(values), 4),
                "n": len(values),
            }
            for arm, values in scores.items()
        },
        "differences": {
            name: [round(v, 4) for v in (*_record.paired_interval(values), *values)]
            for name, values in pairs.items()
        },
        "differences_are": "mean, lower and upper end of the 95% interval, then each seed",
        "runs": runs,
        "holds": all(statistics.mean(values) > 0 for values in pairs.values()),
    }


def main() -> int:
    """Train everything; 1 when the claim does not hold."""
    if len(sys.argv) == 4:
        print(json.dumps(train(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / "pictures"
        write_data(data)
        result = summary(run_all(data))
    _record.write(__file__, ("torch", "torchvision"), result)
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())

"""What the recipes bring to an AlexNet trained from random weights.

Aim: on the pictures of Debian's tuxpaint-stamps-default (773 drawings and photographs in 12 classes
of very different sizes), `modern` scores more than `paper`, and both more than `paper` without any
augmentation. AlexNet with batch norm at 67 pixels, 512 units in fc6 and fc7; 300 epochs, four
splits, each of another fifth of the pictures to test on. Settings were tried on two more splits of
the same pictures, by their validation parts, at 150 epochs; the epoch is chosen on a quarter of
each training part, and a test part is read once by each run, at its end.

    python benchmarks/recipes_stamps.py [--into FILE]     # about 40 minutes on two cores
    python benchmarks/recipes_stamps.py ARM SEED FOLDER   # one run, of data in class folders

With ``--into`` each run's scores are added to FILE, and those that are there are not run again.
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
from finetune_stamps import export

import alexnet

SEEDS = range(1, 5)  # 9 and 10 are the splits that settings were tried on
COMMON: dict[str, Any] = {
    "data.image_size": 67,
    "data.val_fraction": 0.25,
    "model.hidden": 512,
    "training.epochs": 300,
    "training.batch_size": 32,
}
PAPER = {"training.plateau": 50}
PLAIN = {"augment.mirror": 0, "augment.crop": False, "augment.pca": 0}
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "no augmentation": ("paper", {**PAPER, **PLAIN}),
    "paper": ("paper", PAPER),
    "modern": ("modern", {"training.lr": 0.001}),
}


def train(arm: str, seed: int, data: Path) -> dict[str, Any]:
    """One run; what it scored."""
    recipe, changes = ARMS[arm]
    with tempfile.TemporaryDirectory() as temporary:
        run = alexnet.train(
            data,
            "alexnet_bn",
            recipe,
            out=Path(temporary) / "run",
            settings={**COMMON, **changes, "training.seed": seed, "data.seed": seed},
        )
    kept = ("val_top1", "test_top1", "test_balanced_accuracy", "epoch", "train_seconds")
    return {"arm": arm, "seed": seed, **{key: run.metrics[key] for key in kept}}


def run_all(data: Path, into: Path | None) -> list[dict[str, Any]]:
    """Every arm with every seed, two processes of one thread at a time."""
    known = into.read_text().splitlines() if into is not None and into.exists() else []
    results: list[dict[str, Any]] = [json.loads(line) for line in known]
    there = {(result["arm"], result["seed"]) for result in results}

    def one(task: tuple[str, int]) -> dict[str, Any]:
        line = [sys.executable, __file__, task[0], str(task[1]), str(data)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(line, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        print(done.stdout.strip(), flush=True)
        result: dict[str, Any] = json.loads(done.stdout)
        if into is not None:
            with into.open("a") as file:
                file.write(json.dumps(result) + "\n")
        return result

    tasks = [(arm, seed) for seed in SEEDS for arm in ARMS if (arm, seed) not in there]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results += pool.map(one, tasks)
    return sorted(results, key=lambda result: (result["seed"], list(ARMS).index(result["arm"])))


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and spread of each arm, and the paired differences."""
    scores = {arm: [r["test_top1"] for r in runs if r["arm"] == arm] for arm in ARMS}
    none, paper, modern = (scores[arm] for arm in ARMS)
    pairs = {
        "modern - paper": [a - b for a, b in zip(modern, paper, strict=True)],
        "paper - no augmentation": [a - b for a, b in zip(paper, none, strict=True)],
    }
    return {
        "claim": "modern above paper above no augmentation, test top-1, mean of four splits",
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
        "differences_are": "mean, lower and upper end of the 95% interval, then each split",
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
        export(data)
        into = Path(sys.argv[2]) if sys.argv[1:2] == ["--into"] else None
        result = summary(run_all(data, into))
    _record.write(__file__, ("torch", "torchvision"), result)
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())

"""The LeNets on Fashion-MNIST from random weights, by the networks' defaults.

Claim: the last epoch of at most 20 scores at least 0.900 (lenet5) and 0.905 (lenet5_dense) on the
10,000 test pictures. The settings were chosen on 6,000 pictures taken from the training part.

    python benchmarks/lenet_fashion.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import _record

import alexnet

FLOORS = {"lenet5": 0.900, "lenet5_dense": 0.905}
SEEDS = (0,)


def main() -> int:
    """Train both; 1 when the claim does not hold."""
    rows: list[dict[str, Any]] = []
    for model in FLOORS:
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as work:
                run = alexnet.train(
                    "fashion-mnist",
                    model,
                    out=Path(work) / "run",
                    settings={"training.seed": seed},
                )
            rows.append(
                {
                    "model": model,
                    "seed": seed,
                    "top1": run.metrics["test_top1"],
                    "epochs": run.config["settings"]["training"]["epochs"],
                    "train_seconds": run.metrics["train_seconds"],
                }
            )
            print(rows[-1], flush=True)
    holds = all(row["top1"] >= FLOORS[row["model"]] and row["epochs"] <= 20 for row in rows)
    result = {"claim": f"Fashion-MNIST test top-1 at least {FLOORS}", "runs": rows, "holds": holds}
    _record.write(__file__, ("torch", "torchvision"), result)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())

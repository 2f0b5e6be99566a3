"""LeNet-5 and AlexNet on MNIST-5k as in `alexnet demo`, over all five stratified folds.

Claim: fine-tuned AlexNet is above a linear probe on the same frozen features (paired, 95% interval
above 0), and LeNet-5 from random weights scores at least 0.98 on average.

    python benchmarks/digits_folds.py
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

import _record
from _probe import features, probe

from alexnet.data.sources import open_data
from alexnet.tasks.demo import run_demo

FLOOR = 0.98


def main() -> int:
    """Measure all folds; 1 when the claim does not hold."""
    rows = []
    for fold in range(5):
        with tempfile.TemporaryDirectory() as work:
            result = run_demo(Path(work) / "demo", fold)
            splits = open_data("mnist-5k", fold=fold, val_fraction=0.0)
            assert splits.test is not None
            run = Path(work) / "demo" / "alexnet_owt"
            rival = probe(features(run, splits.train), features(run, splits.test), None)
        rows.append(
            {
                "fold": fold,
                "lenet5": result["lenet5"]["top1"],
                "alexnet_owt": result["alexnet_owt"]["top1"],
                "probe": rival["top1"],
            }
        )
        print(rows[-1], flush=True)
    gain = _record.paired_interval([row["alexnet_owt"] - row["probe"] for row in rows])
    lenet = statistics.mean(row["lenet5"] for row in rows)
    result = {
        "claim": f"alexnet_owt above a linear probe; lenet5 at least {FLOOR} on average",
        "folds": rows,
        "gain_over_probe": {"mean": gain[0], "low": gain[1], "high": gain[2]},
        "mean_lenet5": lenet,
        "mean_alexnet_owt": statistics.mean(row["alexnet_owt"] for row in rows),
        "holds": gain[1] > 0 and lenet >= FLOOR,
    }
    _record.write(__file__, ("torch", "torchvision", "scikit-learn"), result)
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())

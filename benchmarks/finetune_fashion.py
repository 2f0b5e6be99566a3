"""`alexnet finetune` on ten thousand pictures of a folder.

Aim: fine-tuned on 10,000 training pictures of Fashion-MNIST written out as PNG files (the first
thousand of each class), AlexNet scores at least 0.90 on the 10,000 test pictures.

    python benchmarks/finetune_fashion.py
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import _record
import numpy as np
from PIL import Image

import alexnet
from alexnet.data.sources import Pictures, open_data

FLOOR = 0.90
A_CLASS = 1000


def write_pngs(folder: Path, pictures: Pictures) -> int:
    """Write the first pictures of each class as PNG files in class folders."""
    count = 0
    for label, name in enumerate(pictures.classes):
        target = folder / name.replace("/", "-")
        target.mkdir(parents=True)
        for index in np.flatnonzero(pictures.labels == label)[:A_CLASS]:
            Image.fromarray(pictures.read(int(index))[:, :, 0]).save(target / f"{index}.png")
            count += 1
    return count


def main() -> int:
    """Fine-tune; 1 when the claim does not hold."""
    splits = open_data("fashion-mnist", val_fraction=0.0)
    assert splits.test is not None
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        written = {
            "train": write_pngs(work / "pictures" / "train", splits.train),
            "test": write_pngs(work / "pictures" / "test", splits.test),
        }
        began = time.perf_counter()
        run = alexnet.finetune(work / "pictures", work / "run")
        seconds = time.perf_counter() - began
    top1 = run.metrics["test_top1"]
    result = {
        "claim": f"Fashion-MNIST test top-1 at least {FLOOR} from 10,000 PNG files",
        "pictures": written,
        "top1": top1,
        "balanced_accuracy": run.metrics["test_balanced_accuracy"],
        "seconds": round(seconds, 1),
        "holds": top1 >= FLOOR,
    }
    _record.write(__file__, ("torch", "torchvision"), result)
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())

"""Ensembles: three LeNets together against the best of them, and LeNet with AlexNet.

Claim: on Fashion-MNIST's 10,000 test pictures three LeNet-5 (textbook form) that differ in their
seeds score more together than the best of them alone, mean of 5 triples, with the paired interval.
Beside it, without a claim: the first LeNet with AlexNet fine-tuned from the bundled features.

    python benchmarks/ensembles.py [--into FOLDER] [--alexnet RUN]   # about half an hour
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import _record

import alexnet

TRIPLES, DATA = 5, "fashion-mnist"


def trained(folder: Path, seed: int) -> Path:
    """A LeNet, trained now if it is not there."""
    out = folder / f"lenet-{seed}"
    settings = {"training.seed": seed}
    resume = (out / "config.json").is_file()
    return alexnet.train(DATA, "lenet5_dense", out=out, resume=resume, settings=settings).folder


def tuned(folder: Path) -> Path:
    """An AlexNet, fine-tuned now if it is not there."""
    out = folder / "alexnet"
    resume = (out / "config.json").is_file()
    return alexnet.finetune(DATA, out, resume=resume, settings={"training.epochs": 3}).folder


def together(runs: list[Path]) -> dict[str, Any]:
    """What some runs score together, and each alone."""
    found = alexnet.evaluate([str(run) for run in runs], DATA, split="test", mistakes=0)
    members = [one.top1 for _, one in found.members]
    gain = found.gain
    if gain is not None:
        gain = {**gain, "over": Path(gain["over"]).name}
    result = {"top1": found.top1, "members": members, "gain": gain}
    print(result, file=sys.stderr, flush=True)
    return result


def main() -> int:
    """Measure; 1 when the claim does not hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--into", type=Path, help="keeps the runs, and goes on with those there")
    parser.add_argument("--alexnet", type=Path, help="a fine-tuned run, in place of a new one")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.into or Path(temporary)
        # A LeNet trains in one thread: one a processor.
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
            lenets = list(pool.map(partial(trained, folder), range(1, 3 * TRIPLES + 1)))
        triples = [together(lenets[3 * n : 3 * n + 3]) for n in range(TRIPLES)]
        mixed = together([lenets[0], asked.alexnet or tuned(folder)])
    gains = [one["top1"] - max(one["members"]) for one in triples]
    mean, low, high = _record.paired_interval(gains)
    result = {
        "claim": "three LeNets together above the best of them, mean of five triples",
        "triples": triples,
        "gain": {"mean": mean, "interval": [low, high], "n": TRIPLES},
        "lenet_with_alexnet": mixed,
        "test_images": 10_000,
        "holds": mean > 0,
    }
    _record.write(__file__, ("torch",), result)
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())

"""LeNet-5 (textbook form) on Fashion-MNIST's 60,000 pictures against the usual loop.

The usual loop is a torchvision-style data set (an image, Pad, ToTensor, Normalize), a DataLoader,
the network of torch's modules, SGD. Both sides see the input of LeNet's paper: a border of two
pixels, -0.1 for the background to 1.175. Claim, batch 64, the same optimizer: an epoch at least 3.5
times as fast as that loop's, median of 5 rounds. Beside it, without a claim: the loop tuned for two
cores (two workers that stay, one thread for the network, which is too small for two beside them;
two workers and all else as it comes took longer than none), and the loop over tensors in memory.
What both score is measured by lenet_scores.py.

    python benchmarks/lenet_loop.py
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import _record
from _alternate import Side, alternate, best, ratio, serve, spread

import alexnet

FILES = Path("/usr/share/datasets/fashion-mnist")
"""Debian's dataset-fashion-mnist."""
ROUNDS, LEAST = 5, 3.5
BATCH = 64
SETTINGS = {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}


def usual_network() -> Any:
    """LeNet-5 as tutorials write it."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    )  # fmt: skip


class Usual:
    """The usual loop.

    Args:
        workers: of the DataLoader; None has all pictures, normalized, as one tensor in memory.
        seed: of the weights and the order.
        held_out: how many pictures are kept to validate on.
        stay: the workers stay from epoch to epoch.
    """

    def __init__(
        self, workers: int | None, seed: int, held_out: int = 0, stay: bool = False
    ) -> None:
        import torch

        torch.manual_seed(seed)
        images, labels = read("train")
        order = torch.randperm(len(labels))
        kept = order[held_out:]
        self.validation = images[order[:held_out]], labels[order[:held_out]]
        self.images, self.labels = images[kept], labels[kept]
        self.inputs = normalized(self.images) if workers is None else None
        self.loader = None
        if workers is not None:
            self.loader = loader(self.images, self.labels, workers, stay)
        self.network = usual_network()
        self.optimizer = torch.optim.SGD(self.network.parameters(), **SETTINGS)

    def batches(self) -> Iterable[Any]:
        """An epoch's batches."""
        return self.loader if self.loader is not None else self._from_memory()

    def _from_memory(self) -> Iterator[Any]:
        import torch

        assert self.inputs is not None
        for indices in torch.randperm(len(self.inputs)).split(BATCH):
            yield self.inputs[indices], self.labels[indices]

    def epoch(self) -> float:
        """Train one epoch; its seconds."""
        from torch.nn import functional as F

        self.network.train()
        began = time.perf_counter()
        for inputs, labels in self.batches():
            self.optimizer.zero_grad()
            F.cross_entropy(self.network(inputs), labels).backward()
            self.optimizer.step()
        return time.perf_counter() - began

    def score(self, images: Any, labels: Any) -> float:
        """Share of right answers."""
        import torch

        self.network.eval()
        with torch.no_grad():
            parts = [self.network(part).argmax(1) for part in normalized(images).split(1000)]
        return float((torch.cat(parts) == labels).double().mean())


def read(part: str) -> tuple[Any, Any]:
    """uint8 ``[N, 28, 28]`` and int64 ``[N]`` of ``"train"`` or ``"t10k"``."""
    import numpy as np
    import torch

    images = gzip.decompress((FILES / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((FILES / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28)
    return (
        torch.from_numpy(pixels.copy()),
        torch.from_numpy(np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)),
    )


def normalized(images: Any) -> Any:
    """What Pad, ToTensor and Normalize make of all of them."""
    from torch.nn import functional as F

    return (F.pad(images, (2, 2, 2, 2)).float() / 255 * 1.275 - 0.1)[:, None]


def loader(images: Any, labels: Any, workers: int, stay: bool) -> Any:
    """A DataLoader as in torchvision's and PyTorch's examples."""
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    class Pictures(Dataset[Any]):
        """As torchvision.datasets.MNIST hands them out."""

        change = transforms.Compose(
            [
                transforms.Pad(2),
                transforms.ToTensor(),
                transforms.Normalize((0.1 / 1.275,), (1 / 1.275,)),
            ]
        )

        def __len__(self) -> int:
            return len(labels)

        def __getitem__(self, index: int) -> Any:
            image = Image.fromarray(images[index].numpy(), mode="L")
            return self.change(image), int(labels[index])

    return DataLoader(Pictures(), BATCH, shuffle=True, num_workers=workers, persistent_workers=stay)


def train_ours(seed: int, epochs: int, held_out: int = 0) -> tuple[list[Any], float]:
    """The package's training of the same network with the same settings: epochs and test score."""
    with tempfile.TemporaryDirectory() as temporary:
        run = alexnet.train(
            "fashion-mnist",
            "lenet5_dense",
            "lenet-modern",
            out=Path(temporary) / "run",
            settings={
                **{f"training.{name}": value for name, value in SETTINGS.items()},
                "training.optimizer": "sgd",
                "training.batch_size": BATCH,
                "training.epochs": epochs,
                "training.schedule": "cosine",
                "training.warmup": 0.0,
                "training.seed": seed,
                "data.seed": seed,
                "data.val_fraction": held_out / 60000,
                "augment.mirror": 0.0,
            },
        )
        lines = (Path(temporary) / "run" / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines], float(run.metrics["test_top1"])


def our_epoch() -> float:
    """Seconds of one epoch, as the run records them."""
    return float(train_ours(0, 1)[0][0]["seconds"])


def arms(side: str) -> dict[str, Callable[[], float]]:
    """What one process measures."""
    if side == "alexnet":
        return {"alexnet": our_epoch}
    import torch

    torch.set_flush_denormal(True)
    if side == "tuned":
        torch.set_num_threads(1)
        made = {"loader, tuned": Usual(2, 0, stay=True)}
    else:
        made = {"loader": Usual(0, 0), "tensors in memory": Usual(None, 0)}
    return {name: usual.epoch for name, usual in made.items()}


def main() -> int:
    """Measure; 1 when the claim does not hold."""
    if len(sys.argv) == 2:
        serve(arms(sys.argv[1]))
        return 0
    sides = {side: Side([sys.executable, __file__, side]) for side in ("usual", "tuned", "alexnet")}
    times = alternate(sides, ROUNDS)
    tuned = best(times["loader"], times["loader, tuned"])
    speed = {
        "loader": ratio(times["loader"], times["alexnet"]),
        "loader, tuned": ratio(tuned, times["alexnet"]),
        "tensors in memory": ratio(times["tensors in memory"], times["alexnet"]),
    }
    result = {
        "claim": f"an epoch {LEAST} times as fast",
        "seconds_an_epoch": {name: spread(values) for name, values in times.items()},
        "times_as_fast": speed,
        "holds": speed["loader"]["median"] >= LEAST,
    }
    _record.write(__file__, ("torch", "torchvision"), result)
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())

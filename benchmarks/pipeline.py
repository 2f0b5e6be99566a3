"""From a folder of 500x375 JPEGs to trained weights: the pictures never make the step wait.

Claims, medians of 5 rounds or 15 epochs, batch 64:

    alexnet      an epoch, its pictures decoded anew and augmented as in the paper, at least 0.95 of
                 the images a second of bare steps on noise, a second of each in turn: of those
                 that were done while the epoch lasted; and the same of one whose pictures were
                 kept in memory, as up to 4 GB of them are unless told otherwise, and of one that
                 reads what ``alexnet prepare --format raw`` made of the folder
    alexnet_owt  at least 1.8 times torchvision's network trained as its reference does
                 (ImageFolder, random resized crops, mirror images, a DataLoader of two workers,
                 fp32), and no slower than the best of that and of its transforms v2 on tensors of
                 bytes, channels_last, the fused optimizer, workers that stay and freed memory
                 kept, in fp32 and in bf16

    python benchmarks/pipeline.py
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import _record
import step
from _alternate import Side, alternate, best, ratio, serve, spread
from _turns import Reading, give_turns, take_turns

import alexnet
from alexnet import runtime
from alexnet.training import sums

BATCH, BATCHES, ROUNDS = 64, 8, 5
EPOCHS = 15  # that are compared with bare steps
TESTED = 5  # pictures that are held out, so that an epoch has whole batches, as bare steps have
TURN = 1.0  # seconds
DECODED, KEPT, PREPARED = "alexnet", "alexnet in memory", "alexnet, prepared"
TURNS = {"bare": "bare steps", "decoded": DECODED, "kept": KEPT, "prepared": PREPARED}
IN_MEMORY = Path("/dev/shm")
SIDES = ("alexnet_owt", "torchvision", "torchvision, advised")
LEAST = {
    "alexnet over bare steps": 0.95,
    "alexnet in memory over bare steps": 0.95,
    "alexnet, prepared, over bare steps": 0.95,
    "owt over torchvision": 1.8,
    "owt over its best": 1.0,
}


def draw(folder: Path, count: int, first: int = 0) -> None:
    """Pictures of two classes with the detail of photographs: 60 to 90 KB each."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(first)
    for number in range(first, first + count):
        rough = [random.integers(0, 256, (h, w, 3)) for h, w in ((6, 8), (48, 64), (188, 250))]
        layers = [
            np.asarray(Image.fromarray(part.astype("uint8")).resize((500, 375), 3), float)
            for part in rough
        ]
        mixed = 0.6 * layers[0] + 0.25 * layers[1] + 0.15 * layers[2]
        target = folder / "ab"[number % 2] / f"{number:04}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mixed.clip(0, 255).astype("uint8")).save(target, quality=90)


def ours(folder: Path, model: str, recipe: str, epochs: int = 2, kept: float = 0.0) -> list[float]:
    """Seconds a picture in each epoch of ``alexnet.train``.

    They are decoded anew, but for ``kept`` gigabytes of them.

    The run lies in memory where the system has such a place: after each epoch 0.7 GB of checkpoint
    and weights are written, and the disk would be busy with them during the next, which has eight
    batches here and thousands elsewhere.
    """
    settings: dict[str, Any] = {
        "training.epochs": epochs,
        "training.batch_size": BATCH,
        "training.schedule": "cosine",
        "data.val_fraction": 0.0,
        "data.test_fraction": TESTED / (BATCH * BATCHES + TESTED),
        "data.memory_gb": kept,
    }
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as temporary:
        alexnet.train(folder, model, recipe, out=Path(temporary) / "run", settings=settings)
        lines = (Path(temporary) / "run" / "metrics.jsonl").read_text().splitlines()
        made = json.loads((Path(temporary) / "run" / "config.json").read_text())
        assert made["data"]["train"] == BATCH * BATCHES
    return [1 / float(json.loads(line)["images_per_second"]) for line in lines]


class Span(NamedTuple):
    """Pictures that a process was busy with in its turns: an epoch of them, or a step's.

    Attributes:
        each: seconds a picture, of its own turns.
        first: when it began, by the clock that all processes share.
        last: when it ended.
    """

    each: float
    first: float
    last: float


def spans(readings: list[Reading], pictures: int) -> list[Span]:
    """Of a clock that is read when so many pictures begin and when they are done."""
    pairs = zip(readings[::2], readings[1::2], strict=True)
    return [Span((own - begun) / pictures, first, last) for (begun, first), (own, last) in pairs]


def bare() -> list[Span]:
    """Steps on noise, until interrupted."""
    readings, work, done = take_turns(step), step.package_step(BATCH, num_classes=2), 0
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            step.seconds(work)
            done += 1
    return spans(readings[: 2 * done], BATCH)


def epochs(folder: Path, kept: bool) -> list[Span]:
    """Epochs of ``alexnet.train``, whose clock is read twice in each."""
    readings = take_turns(sums)
    ours(folder, "alexnet", "paper", EPOCHS + 1, 4.0 * kept)
    assert len(readings) == 2 * (EPOCHS + 1)
    return spans(readings, BATCH * BATCHES)


def in_turns(folder: Path) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Epochs from files, from memory and prepared, and for each of them the bare steps meanwhile.

    All are in seconds a picture; nobody's first epoch counts.
    """
    ready = folder.with_name("prepared")
    alexnet.prepare(folder, ready, format="raw")
    read = {"prepared": ready}
    commands = [[sys.executable, __file__, kind, str(read.get(kind, folder))] for kind in TURNS]
    said = give_turns(commands, TURN, endless=1)
    steps, *others = [[Span(*span) for span in json.loads(t.splitlines()[-1])] for t in said]
    counted = [every[1:] for every in others]
    took = [[one.each for one in every] for every in counted]
    beside = [[meanwhile(steps, one) for one in every] for every in counted]
    print(took, beside, sep="\n", file=sys.stderr, flush=True)
    names = list(TURNS.values())[1:]
    return dict(zip(names, took, strict=True)), dict(zip(names, beside, strict=True))


def meanwhile(steps: list[Span], epoch: Span) -> float:
    """Seconds a picture of the steps that were done while the epoch lasted."""
    middle = [(one.first + one.last) / 2 for one in steps]
    return statistics.mean(
        one.each
        for one, when in zip(steps, middle, strict=True)
        if epoch.first <= when <= epoch.last
    )


def reference(folder: Path, advised: bool, bf16: bool = False) -> Callable[[], float]:
    """Seconds a picture in an epoch of torchvision's reference recipe."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader
    from torchvision import datasets, models, transforms
    from torchvision.transforms import v2

    torch.set_flush_denormal(True)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    usual = [
        transforms.RandomResizedCrop(224),
        transforms.RandomHorizontalFlip(),
        transforms.PILToTensor(),
        transforms.ConvertImageDtype(torch.float),
        transforms.Normalize(mean, std),
    ]
    faster = [
        v2.PILToTensor(),
        v2.RandomResizedCrop(224),
        v2.RandomHorizontalFlip(),
        v2.ToDtype(torch.float, scale=True),
        v2.Normalize(mean, std),
    ]
    change = v2.Compose(faster) if advised else transforms.Compose(usual)
    pictures = datasets.ImageFolder(str(folder), change)
    loader = DataLoader(
        pictures, BATCH, shuffle=True, num_workers=2, drop_last=True, persistent_workers=advised
    )
    layout = torch.channels_last if advised else torch.contiguous_format
    network = models.alexnet(num_classes=2).train().to(memory_format=layout)  # type: ignore[call-overload]
    rates: dict[str, Any] = {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4}
    optimizer = torch.optim.SGD(network.parameters(), **rates, fused=advised or None)
    criterion = nn.CrossEntropyLoss()

    def epoch() -> float:
        began, seen = time.perf_counter(), 0
        for images, labels in loader:
            images = images.to(memory_format=layout)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = criterion(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()  # the reference logs it
            seen += len(labels)
        return (time.perf_counter() - began) / seen

    return epoch


def arms(side: str, folder: Path) -> dict[str, Callable[[], float]]:
    """What one process measures, in seconds a picture."""
    if side == "torchvision":
        return {side: reference(folder, advised=False)}
    runtime.keep_freed_memory()
    if side == "torchvision, advised":
        return {
            f"{side}, {'bf16' if b else 'fp32'}": reference(folder, True, b) for b in (False, True)
        }
    return {side: lambda: ours(folder, "alexnet_owt", "owt")[1]}


def summary(times: dict[str, list[float]], steps: dict[str, list[float]]) -> dict[str, Any]:
    """Ratios, and whether the claims hold; ``steps`` has the bare ones beside each of some."""
    rivals = [values for name, values in times.items() if name.startswith("torchvision")]
    ratios = {
        "alexnet over bare steps": ratio(steps[DECODED], times[DECODED]),
        "alexnet in memory over bare steps": ratio(steps[KEPT], times[KEPT]),
        "alexnet, prepared, over bare steps": ratio(steps[PREPARED], times[PREPARED]),
        "owt over torchvision": ratio(times["torchvision"], times["alexnet_owt"]),
        "owt over its best": ratio(best(*rivals), times["alexnet_owt"]),
    }
    return {
        "claim": f"times as many images a second: at least {LEAST}",
        "batch_size": BATCH,
        "ratios": ratios,
        "images_a_second": {
            name: spread([1 / value for value in values])
            for name, values in {"bare steps": steps[DECODED], **times}.items()
        },
        "holds": all(ratios[name]["median"] >= least for name, least in LEAST.items()),
    }


def main() -> int:
    """Measure; 1 when a claim does not hold."""
    if len(sys.argv) > 1:
        kind, folder = sys.argv[1], Path(sys.argv[2])
        if kind in TURNS:
            runtime.keep_freed_memory()
            print(json.dumps(bare() if kind == "bare" else epochs(folder, kind == "kept")))
        else:
            serve(arms(kind, folder))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "pictures"
        draw(folder, BATCH * BATCHES + TESTED)
        sides = {side: Side([sys.executable, __file__, side, str(folder)]) for side in SIDES}
        took, beside = in_turns(folder)
        result = summary({**took, **alternate(sides, ROUNDS)}, beside)
    _record.write(__file__, ("torch", "torchvision", "pillow"), result)
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())

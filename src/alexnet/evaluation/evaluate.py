"""Score a network on labeled pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from alexnet.data.loader import Pixels, load_pixels
from alexnet.data.sources import BadImage, Pictures, Splits, data_folder, open_data
from alexnet.errors import UsageError
from alexnet.evaluation.metrics import Evaluation, Mistake, Tally
from alexnet.models.pretrained import load_run
from alexnet.models.registry import model_entry
from alexnet.progress import log, track
from alexnet.runtime import Runtime, add_up, on_main, process_group, resolve
from alexnet.spec import InputSpec

Split = Literal["auto", "train", "val", "test"]


class Scorable(Protocol):
    """A network with what its outputs mean and what its input must be: a run, a classifier."""

    @property
    def network(self) -> nn.Module:
        """The network."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of its outputs, where they are known."""

    @property
    def spec(self) -> InputSpec:
        """Its input."""

    @property
    def config(self) -> dict[str, Any]:
        """How it was made."""


def evaluate(
    model: str | Path | Scorable,
    data: str | Path,
    *,
    split: Split = "auto",
    batch_size: int = 256,
    device: str = "auto",
    precision: str = "auto",
    mistakes: int = 24,
) -> Evaluation:
    """Score a run, a classifier or weights by name on a data set or a folder of class folders.

    Args:
        model: what :func:`alexnet.models.pretrained.load_run` reads, or something loaded.
        data: a data set's name, or a folder. The folder that the run was trained on is divided as
            it was then; another folder without parts is read whole.
        split: which part; ``"auto"`` is ``test``, else ``val``, else everything there is.
        batch_size: pictures a step; the result does not depend on it.
        device: ``"auto"`` or a torch device.
        precision: ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        mistakes: how many of the most confident mistakes to keep.

    Raises:
        UsageError: the data have a class that the network does not know, or no such part.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}: it must be at least 1")
    with process_group():
        return _evaluate(model, data, split, batch_size, device, precision, mistakes)


def _evaluate(
    model: str | Path | Scorable,
    data: str | Path,
    split: Split,
    batch_size: int,
    device: str,
    precision: str,
    mistakes: int,
) -> Evaluation:
    loaded: Scorable = load_run(str(model)) if isinstance(model, str | Path) else model
    entry = model_entry(str(getattr(loaded.network, "model_name", "")))
    runtime = resolve(device, precision, large=entry.low_precision_pays)
    splits = on_main(lambda: _open_as_trained(str(data), loaded.config))
    pictures = _part(splits, split)
    pixels = load_pixels(pictures, loaded.spec, train=False)
    classes = _names_of_outputs(loaded, pictures)
    pixels.labels = match_classes(pixels.labels, pictures.classes, classes, str(data))
    return score(
        runtime.place_network(loaded.network),
        pixels,
        loaded.spec,
        runtime,
        classes,
        batch_size=batch_size,
        mistakes=mistakes,
        skipped=splits.refused,
    )


def score(
    network: nn.Module,
    pixels: Pixels,
    spec: InputSpec,
    runtime: Runtime,
    classes: tuple[str, ...],
    *,
    batch_size: int = 256,
    mistakes: int = 0,
    skipped: Sequence[BadImage] = (),
) -> Evaluation:
    """Score ``network`` on pictures already fitted to its input; exact for any batch size.

    Where torchrun started several processes, all of them call it together with the same weights:
    each takes its share of the pictures, and every one gets the whole result.
    """
    network.eval()
    tally = Tally(len(classes))
    confidence, taken_for = torch.zeros(len(pixels)), torch.zeros(len(pixels), dtype=torch.int64)
    mine = torch.arange(runtime.rank, len(pixels), runtime.world_size)
    plan = mine.split(batch_size) if len(mine) else ()
    with torch.inference_mode(), runtime.active():
        for batch, labels, indices in track(pixels.batches(plan), "evaluating", len(plan)):
            inputs = runtime.place(spec.normalize(batch.to(runtime.device)))
            with runtime.autocast():
                logits = network(inputs).float()
            tally.add(logits, labels.to(logits.device))
            best = logits.softmax(1).max(1)
            confidence[indices], taken_for[indices] = best.values.cpu(), best.indices.cpu()
    tally.add_up()
    add_up(confidence), add_up(taken_for)
    worst = _worst(confidence, taken_for, pixels.labels, mistakes)
    shown = _mistakes(pixels, worst, confidence, taken_for, classes)
    return Evaluation.from_tally(tally, classes, mistakes=tuple(shown), skipped=tuple(skipped))


def match_classes(
    labels: Tensor, theirs: tuple[str, ...], ours: tuple[str, ...], data: str
) -> Tensor:
    """Renumber the data's labels ``[N]`` as the network numbers its classes, by name.

    Raises:
        UsageError: a class of the data that the network does not have.
    """
    if theirs == ours:
        return labels
    unknown = [name for name in theirs if name not in ours]
    if unknown:
        raise UsageError(
            f"{data} has {len(unknown)} class(es) that the network was not trained on "
            f"({', '.join(unknown[:3])}{', ...' if len(unknown) > 3 else ''}): "
            f"it knows {', '.join(ours[:5])}{', ...' if len(ours) > 5 else ''}"
        )
    return torch.tensor([ours.index(name) for name in theirs])[labels]


def same_data(data: str, recorded: Mapping[str, Any]) -> bool:
    """Whether ``data`` is what a run's ``config.json`` records as its data.

    A folder is the same by whatever path, and from whatever folder, it is named.
    """
    folder = data_folder(data)
    if folder is not None and recorded.get("folder"):
        return str(folder) == recorded["folder"]
    return data == recorded.get("name")


def _names_of_outputs(loaded: Scorable, pictures: Pictures) -> tuple[str, ...]:
    if loaded.classes is not None:
        return loaded.classes
    outputs = getattr(loaded.network, "num_classes", None)
    if isinstance(outputs, int) and outputs != len(pictures.classes):
        raise UsageError(
            f"the network has {outputs} outputs without names and the data {len(pictures.classes)} "
            f"classes: evaluate it on data with as many"
        )
    return pictures.classes


def _open_as_trained(data: str, config: Mapping[str, Any]) -> Splits:
    """Open ``data``, divided as in the run's training if it is what the run was trained on."""
    trained = config.get("data", {})
    settings = config.get("settings", {}).get("data", {})
    if not same_data(data, trained):
        return open_data(data, val_fraction=0.0, test_fraction=0.0)
    splits = open_data(
        data,
        seed=settings.get("seed", 0),
        fold=settings.get("fold", 0),
        val_fraction=settings.get("val_fraction", 0.0),
        test_fraction=settings.get("test_fraction", 0.0),
    )
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    if any(len(part or ()) != trained.get(name) for name, part in parts.items()):
        log.warning(
            "%s has changed since the network was trained on it: pictures that it learned from "
            "may be in any part",
            data,
        )
    return splits


def _part(splits: Splits, split: Split) -> Pictures:
    parts = {"test": splits.test, "val": splits.val, "train": splits.train}
    if split == "auto":
        return splits.test or splits.val or splits.train
    chosen = parts.get(split)
    if chosen is None:
        there = ", ".join(name for name, part in parts.items() if part is not None)
        raise UsageError(f"{splits.name} has no {split!r} part: choose from {there}, auto")
    return chosen


def _worst(confidence: Tensor, taken_for: Tensor, labels: Tensor, count: int) -> Tensor:
    wrong = (taken_for != labels).nonzero().flatten()
    return wrong[confidence[wrong].argsort(descending=True, stable=True)[:count]]


def _mistakes(
    pixels: Pixels,
    worst: Tensor,
    confidence: Tensor,
    taken_for: Tensor,
    classes: tuple[str, ...],
) -> list[Mistake]:
    if not len(worst):
        return []
    ((pictures, _, _),) = pixels.batches([worst])
    return [
        Mistake(
            name=str(pixels.names[index]),
            label=classes[int(pixels.labels[index])],
            predicted=classes[int(taken_for[index])],
            probability=float(confidence[index]),
            thumbnail=picture.permute(1, 2, 0).numpy(),
        )
        for picture, index in zip(pictures, worst.tolist(), strict=True)
    ]

"""Score a network on labeled pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from alexnet.data.loader import Pixels
from alexnet.data.sources import Pictures, Splits, data_folder, open_data
from alexnet.errors import UsageError
from alexnet.evaluation.corruptions import SEVERITIES, STRENGTHS, CorruptedPixels, robustness
from alexnet.evaluation.metrics import Evaluation
from alexnet.evaluation.score import Member, score_together
from alexnet.evaluation.views import Views, check_views, load_squares
from alexnet.models.pretrained import load_run
from alexnet.models.registry import model_entry
from alexnet.progress import log
from alexnet.runtime import on_main, process_group, resolve
from alexnet.spec import InputSpec

Split = Literal["auto", "train", "val", "test"]
PARTS = ("train", "val", "test")


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
    model: str | Path | Scorable | Sequence[str | Path | Scorable] | Mapping[str, Scorable],
    data: str | Path,
    *,
    split: Split = "auto",
    views: Views = "center",
    batch_size: int = 256,
    device: str = "auto",
    precision: str = "auto",
    mistakes: int = 24,
    corruptions: bool = False,
    workers: int = 0,
) -> Evaluation:
    """Score a run, a classifier or weights by name on a data set or a folder of class folders.

    Args:
        model: what :func:`alexnet.models.pretrained.load_run` reads, or something loaded; several
            are an ensemble, whose probabilities are averaged (a mapping gives them names). They may
            be different networks with inputs of their own; their classes are the same, in any
            order.
        data: a data set's name, or a folder. The folder that the first run was trained on is
            divided as it was then; another folder without parts is read whole.
        split: which part; ``"auto"`` is ``test``, else ``val``, else everything there is.
        views: of each picture, whose probabilities are averaged: ``"center"``, ``"ten-crop"`` (the
            paper's) or ``"multi-scale"``.
        batch_size: views a step; the result does not depend on it.
        device: ``"auto"`` or a torch device.
        precision: ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        mistakes: how many of the most confident mistakes to keep.
        corruptions: score the pictures with common corruptions too (see
            :mod:`alexnet.evaluation.corruptions`): nine kinds, five severities each.
        workers: processes that read pictures that do not fit into memory; with 0, threads.

    Raises:
        UsageError: the data have a class that the network does not know, or no such part; networks
            of different classes, or of which one learned from pictures that another is tested on;
            no network at all.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}: it must be at least 1")
    if workers < 0:
        raise UsageError(f"workers is {workers}: it must be 0 or more")
    check_views(views)
    with process_group():
        loaded = _all_loaded(model)
        if not loaded:
            raise UsageError("there is no network to evaluate: give a run")
        splits = on_main(lambda: open_as_trained(str(data), loaded[0][1].config))
        pictures = _part(splits, split)
        if pictures is not splits.train:
            on_main(lambda: _check_unseen(loaded, pictures, str(data)))
        members, classes = _members(loaded, pictures, str(data), views, device, precision, workers)
        found = score_together(
            members, classes, batch_size=batch_size, mistakes=mistakes, skipped=splits.refused
        )
        if corruptions:
            found = replace(found, robustness=_robustness(members, classes, batch_size))
    return found.with_intervals()


def evaluate_on(loaded: Scorable, pictures: Pictures, data: str) -> Evaluation:
    """Score a loaded network on pictures as they are: one view, no mistakes kept.

    Args:
        loaded: the network.
        pictures: that it is scored on.
        data: what a message calls them.

    Raises:
        UsageError: the pictures have a class that the network does not know.
    """
    members, classes = _members([_loaded(loaded)], pictures, data, "center", "auto", "auto")
    return score_together(members, classes).with_intervals()


def _check_unseen(loaded: Sequence[tuple[str, Scorable]], pictures: Pictures, data: str) -> None:
    """Refuse networks that learned from pictures which the first one is tested on."""
    first, told = loaded[0][0], _division(loaded[0][1].config)
    for name, other in loaded[1:]:
        both = 0 if _division(other.config) == told else learned_from(data, other.config, pictures)
        if both:
            raise UsageError(
                f"{name} learned from {both:,} of the {len(pictures):,} pictures of {data} that "
                f"{first} is tested on (data.seed, data.fold or data.test_fraction differ): "
                f"evaluate each alone"
            )


def learned_from(data: str, config: Mapping[str, Any], pictures: Pictures) -> int:
    """How many of some pictures of ``data`` a run learned from; 0 where it has other data.

    Args:
        data: a data set's name or a folder of class folders.
        config: the content of the run's ``config.json``.
        pictures: of these data.
    """
    if not same_data(data, config.get("data", {})):
        return 0
    learned = set(open_as_trained(data, config).train.names)
    return sum(name in learned for name in pictures.names)


def _division(config: Mapping[str, Any]) -> dict[str, Any]:
    """How a run's data were divided into what it learned from and what it did not."""
    told = config.get("settings", {}).get("data", {})
    return {name: told.get(name) for name in ("seed", "fold", "val_fraction", "test_fraction")}


def _robustness(
    members: Sequence[Member], classes: tuple[str, ...], batch_size: int
) -> dict[str, Any]:
    """Top-1 for every kind and severity of corruption."""
    found: dict[str, list[float]] = {}
    for kind in STRENGTHS:
        for severity in SEVERITIES:
            whole = {id(m.pixels): m.pixels for m in members}
            worse = {k: CorruptedPixels(pixels, kind, severity) for k, pixels in whole.items()}
            seen = [replace(m, pixels=worse[id(m.pixels)]) for m in members]
            one = score_together(seen, classes, batch_size=batch_size)
            found.setdefault(kind, []).append(one.top1)
        log.info("%s: %s", kind, " ".join(f"{100 * top1:.1f}%" for top1 in found[kind]))
    return robustness(found)


def _all_loaded(model: Any) -> list[tuple[str, Scorable]]:
    """Networks with their names."""
    if isinstance(model, Mapping):
        return list(model.items())
    return [_loaded(one) for one in (model if isinstance(model, list | tuple) else [model])]


def _loaded(model: Any) -> tuple[str, Scorable]:
    if isinstance(model, str | Path):
        return str(model), load_run(str(model))
    return str(getattr(model.network, "model_name", type(model.network).__name__)), model


def member_of(
    loaded: Scorable, data: str, *, split: Split, device: str = "auto", precision: str = "auto"
) -> Member:
    """One network with a part of the data that it was trained on, ready to be scored.

    Raises:
        UsageError: as :func:`evaluate`.
    """
    splits = open_as_trained(data, loaded.config)
    (member,), _ = _members(
        [_loaded(loaded)], _part(splits, split), data, "center", device, precision
    )
    return member


def _members(
    loaded: Sequence[tuple[str, Scorable]],
    pictures: Pictures,
    data: str,
    views: Views,
    device: str,
    precision: str,
    workers: int = 0,
) -> tuple[list[Member], tuple[str, ...]]:
    """The networks with the pictures that each reads, and the classes they are scored by."""
    classes = _names_of_outputs(loaded[0][1], pictures)
    labels = match_classes(torch.tensor(pictures.labels), pictures.classes, classes, data)
    read: dict[InputSpec, Pixels] = {}
    members = []
    for name, one in loaded:
        if one.spec not in read:
            if views != "center" and one.spec.resize == one.spec.crop:
                log.warning(
                    "%s reads pictures of %d pixels whole: its crops are all the same",
                    name,
                    one.spec.crop,
                )
            read[one.spec] = load_squares(pictures, one.spec, views, workers)
            read[one.spec].labels = labels
        entry = model_entry(str(getattr(one.network, "model_name", "")))
        runtime = resolve(device, precision, large=entry.low_precision_pays)
        members.append(
            Member(
                name=name,
                network=runtime.place_network(one.network),
                spec=one.spec,
                runtime=runtime,
                pixels=read[one.spec],
                views=views,
                columns=_columns(name, _names_of_outputs(one, pictures), loaded[0][0], classes),
                temperature=float(one.config.get("temperature", 1.0)),
            )
        )
    return members, classes


def _columns(
    name: str, its: tuple[str, ...], first: str, classes: tuple[str, ...]
) -> Tensor | None:
    """Which output of a network each class is."""
    if its == classes:
        return None
    if set(its) != set(classes) or len(its) != len(classes):
        odd = sorted(set(its) ^ set(classes))[:3]
        raise UsageError(
            f"{name} and {first} know different classes ({', '.join(odd)}): networks of an "
            f"ensemble must have the same"
        )
    return torch.tensor([its.index(one) for one in classes])


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


def open_as_trained(data: str, config: Mapping[str, Any]) -> Splits:
    """Open ``data``, divided as in the run's training if it is what the run was trained on.

    A folder that has been moved since is known again by its pictures' names; other data without
    parts of their own are one part.

    Args:
        data: a data set's name or a folder of class folders.
        config: the content of the run's ``config.json``.
    """
    trained = config.get("data", {})
    told = {name: value for name, value in _division(config).items() if value is not None}
    divided: dict[str, Any] = {"val_fraction": 0.0, "test_fraction": 0.0, **told}
    if not same_data(data, trained):
        whole = open_data(data, val_fraction=0.0, test_fraction=0.0)
        if "digest" not in trained or _count(whole) != sum(trained[name] for name in PARTS):
            return whole
        splits = open_data(data, **divided)
        if splits.digest == trained["digest"]:
            log.info("%s has the pictures that the network was trained on, moved", data)
            return splits
        if splits.names_digest == trained["names_digest"]:
            log.warning(
                "%s has classes and names as what the network was trained on: it is divided as "
                "that was; if the pictures are others, rename them to have all tested",
                data,
            )
            return splits
        return whole
    splits = open_data(data, **divided)
    parts = {"train": splits.train, "val": splits.val, "test": splits.test}
    if "digest" in trained:
        changed = splits.digest != trained["digest"]
    else:
        changed = any(len(part or ()) != trained.get(name) for name, part in parts.items())
    if changed:
        log.warning(
            "%s has changed since the network was trained on it: pictures that it learned from "
            "may be in any part",
            data,
        )
    return splits


def _count(splits: Splits) -> int:
    return sum(len(part or ()) for part in (splits.train, splits.val, splits.test))


def _part(splits: Splits, split: Split) -> Pictures:
    parts = {"test": splits.test, "val": splits.val, "train": splits.train}
    if split == "auto":
        return splits.test or splits.val or splits.train
    chosen = parts.get(split)
    if chosen is None:
        there = ", ".join(name for name, part in parts.items() if part is not None)
        hint = "; data.val_fraction=0.1 in training keeps one" if split == "val" else ""
        raise UsageError(f"{splits.name} has no {split!r} part: choose from {there}, auto{hint}")
    return chosen

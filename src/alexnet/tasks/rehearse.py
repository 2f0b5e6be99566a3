"""What a training would be and cost, from a few of its steps: nothing is written."""

from __future__ import annotations

import dataclasses
import math
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from alexnet.data.order import epoch_batches
from alexnet.errors import UsageError
from alexnet.models.registry import model_entry
from alexnet.tasks.finetune import build, suited, unfreeze_last
from alexnet.tasks.request import Request
from alexnet.tasks.run import Session
from alexnet.torchrun import world_size
from alexnet.training.config import FinetuneConfig
from alexnet.training.loop import class_counts
from alexnet.training.optim import build_loss, learning_rate, set_rates
from alexnet.training.recipes import get_recipe
from alexnet.training.share import share_of
from alexnet.training.sharing import share_work
from alexnet.training.state import TrainingState
from alexnet.training.step import Stepper, set_training
from alexnet.training.sums import Sums

STEPS = 4
"""Steps that are taken; the first one warms up and is not counted."""
VALIDATION = 1 / 3
"""Of a training step's arithmetic, that a picture of the validation part costs: forward only."""


@dataclass(frozen=True)
class Rehearsal:
    """What a training would be.

    Attributes:
        config: every setting as it would be used.
        pictures: of the training, validation and test part.
        parameters: that are trained.
        steps_an_epoch: batches of the training part.
        steps: of the whole training.
        step_seconds: median of the measured steps, reading and augmentation included.
        seconds: estimate for the whole training, validation included.
        memory_bytes: largest memory of the process during the steps, with the pictures that would
            be held in memory.
        runtime: what every ``auto`` became.
    """

    config: dict[str, Any]
    pictures: dict[str, int]
    parameters: int
    steps_an_epoch: int
    steps: int
    step_seconds: float
    seconds: float
    memory_bytes: int
    runtime: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return vars(self)


def rehearse(
    data: str | os.PathLike[str],
    model: str = "lenet5",
    recipe: str | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
) -> Rehearsal:
    """Take the first steps of a training on its own pictures, and say what the whole would cost.

    Args:
        data: as for :func:`alexnet.train`.
        model: the network's name.
        recipe: how to train; None is the network's own recipe.
        settings: dotted names to values.

    Raises:
        UsageError: as :func:`alexnet.train`; or several processes, which this does not look at.
    """
    if world_size() > 1:
        raise UsageError("--dry-run looks at one process: start it without torchrun")
    config = get_recipe(recipe or model_entry(model).recipe)
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "run"
        request = Request.make(
            "train", data, model, None, config, out, resume=False, settings=settings or {}
        )
        return _rehearsed(Session(request), _built)


def rehearse_finetune(
    data: str | os.PathLike[str],
    model: str = "alexnet_owt",
    weights: str = "imagenet1k-features",
    *,
    settings: Mapping[str, Any] | None = None,
) -> Rehearsal:
    """As :func:`rehearse`, of the epochs of a fine-tuning: fitting the head is not looked at.

    Args:
        data: as for :func:`alexnet.finetune`.
        model: the network's name.
        weights: what it starts from.
        settings: dotted names to values.

    Raises:
        UsageError: as :func:`alexnet.finetune`.
    """
    config, told = get_recipe("finetune"), settings or {}
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "run"
        request = Request.make(
            "finetune", data, model, weights, config, out, resume=False, settings=told
        )
        session = Session(request)
        request.config = suited(request.config, len(session.splits.train), told)
        return _rehearsed(session, _built_to_finetune)


def _built(session: Session) -> nn.Module:
    session.read_pictures(session.request.config.data.image_size)
    return session.build_network()


def _built_to_finetune(session: Session) -> nn.Module:
    network, told = build(session), session.request.config.finetune or FinetuneConfig()
    unfreeze_last(network, told.unfreeze)
    return network


def _rehearsed(session: Session, built: Callable[[Session], nn.Module]) -> Rehearsal:
    training = session.request.config.training
    splits = session.splits
    counts = {part: len(getattr(splits, part) or ()) for part in ("train", "val", "test")}
    size = math.ceil(counts["train"] / training.batch_size)
    # The steps read as many pictures as they need, not the whole of a large data set.
    some = splits.train.subset(range(min(counts["train"], STEPS * training.batch_size)))
    session.splits = dataclasses.replace(splits, train=some, val=None)
    network = session.runtime.place_network(built(session))
    seconds = _time_steps(session, network, size)
    return Rehearsal(
        config=session.request.config.to_dict(),
        pictures=counts,
        parameters=sum(p.numel() for p in network.parameters() if p.requires_grad),
        steps_an_epoch=size,
        steps=size * training.epochs,
        step_seconds=seconds,
        seconds=training.epochs
        * seconds
        * (size + VALIDATION * counts["val"] / training.batch_size),
        memory_bytes=_peak(session.runtime.device) + _held(session, counts["train"]),
        runtime=session.runtime.to_dict(),
    )


def _time_steps(session: Session, network: nn.Module, size: int) -> float:
    """Median seconds of a few steps, the first one left out (unless it is the only one)."""
    config, pixels, runtime = session.request.config, session.train_pixels, session.runtime
    training = config.training
    classes = class_counts(pixels, len(session.splits.classes))
    state = TrainingState(share_work(network, training, runtime), training, runtime)
    loss_of = build_loss(network, training, classes)
    stepper = Stepper(
        state, session.spec, training, config.augment, session.colors, len(classes), runtime,
        loss_of,
    )  # fmt: skip
    batches = list(
        epoch_batches(len(pixels), training.batch_size, training.seed, 0, drop_last=False)
    )
    sums = Sums({}, state.parallel, runtime.device)
    set_training(network)
    runs = []
    with runtime.active():
        began = time.perf_counter()
        for number, (images, labels, _) in enumerate(pixels.batches(iter(batches))):
            rate = learning_rate(number, size * training.epochs, training)
            set_rates(state.optimizer, rate, 0, training)
            share = share_of(batches[number], 0, 1, config.augment.share)
            stepper.step(images, labels, share, 0, number, sums)
            assert sums.images  # has waited for the device
            float(sums.loss)
            now = time.perf_counter()
            runs.append(now - began)
            began = now
    whole = [run for run, batch in zip(runs, batches, strict=True) if len(batch) == len(batches[0])]
    return statistics.median(whole[1:] or whole)


def _peak(device: torch.device) -> int:
    """The most memory that was in use, in bytes: the GPU's, or this process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _held(session: Session, pictures: int) -> int:
    """Bytes of the pictures that the training would hold in memory beside those read here."""
    pixels = session.train_pixels
    more = pictures - len(pixels)
    return more * pixels.channels * pixels.side**2 if session.in_memory(pictures) else 0

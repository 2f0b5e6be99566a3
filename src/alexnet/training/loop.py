"""The training loop.

It is a function of its inputs and of the position alone: the order of the pictures, their
augmentation and the dropout masks of a step come from the seed and the step's number, so that a
training that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from alexnet.data.ahead import ahead
from alexnet.data.augment import AugmentConfig
from alexnet.data.colors import ColorStatistics
from alexnet.data.loader import Pixels
from alexnet.data.order import epoch_batches
from alexnet.errors import FailedError
from alexnet.evaluation.metrics import Evaluation
from alexnet.progress import log, track
from alexnet.runtime import Runtime, on_main
from alexnet.spec import InputSpec
from alexnet.torchrun import is_main
from alexnet.training import checkpoint
from alexnet.training.checkpoint import Position, Snapshot
from alexnet.training.config import TrainingConfig
from alexnet.training.folder import RunFolder, write_scalars
from alexnet.training.interrupt import CHECKPOINT, NOTHING, STOP, Agreement, Interrupt
from alexnet.training.optim import build_loss, learning_rate, lower_rate, plateaus, set_rates
from alexnet.training.share import share_of
from alexnet.training.sharing import share_work
from alexnet.training.state import TrainingState
from alexnet.training.step import Stepper, set_training
from alexnet.training.sums import Sums, total
from alexnet.training.traffic import bytes_sent, data_parallel_bytes

CHECK_EVERY = 50  # batches between looks at the loss, each of which waits for the device
DIVERGED = "the loss is no longer a number"
"""What a training says that ends so."""


@dataclass
class Job:
    """What :func:`fit` needs.

    Attributes:
        network: on its device; only parameters that require gradients are trained.
        pixels: the training pictures, stored at ``spec.resize``.
        classes: how many there are.
        spec: the network's input.
        training: how the weights are moved.
        augment: how the pictures are varied.
        runtime: device and precision.
        folder: where to write.
        validate: scores the network on the validation part, where there is one.
        keep: writes the weights that are kept, given the position and that epoch's record.
        stage: name of this part of the training in ``metrics.jsonl``.
        position: where to begin; its history comes first in ``metrics.jsonl``.
        colors: of the training part, where there is color noise.
    """

    network: nn.Module
    pixels: Pixels
    classes: int
    spec: InputSpec
    training: TrainingConfig
    augment: AugmentConfig
    runtime: Runtime
    folder: RunFolder
    validate: Callable[[], Evaluation] | None
    keep: Callable[[Position], None]
    stage: str
    position: Position
    colors: ColorStatistics | None = None


def fit(job: Job) -> Position:
    """Train from ``job.position`` (or from the newest checkpoint) to the end.

    Where torchrun started several processes, all of them call it, and only the main one writes.

    Returns:
        The position at the end, with the history of all epochs.

    Raises:
        FailedError: the loss is no longer a number.
        KeyboardInterrupt: Ctrl-C; a checkpoint of this very batch was written before.
    """
    return _Training(job).run()


class _Training:
    """A training under way.

    Attributes:
        job: what it was given.
        pixels: its pictures, near the device.
        state: what moves.
        position: where it stands.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.pixels = job.pixels.near(job.runtime.device)
        parallel = share_work(job.network, job.training, job.runtime)
        self.parallel, self.state = parallel, TrainingState(parallel, job.training, job.runtime)
        self.position = self._begin()
        self.agreement = Agreement()
        self.saved = time.monotonic()

    def _begin(self) -> Position:
        """Take up the newest checkpoint, or begin."""
        newest = on_main(lambda: checkpoint.newest(self.job.folder.checkpoints))
        if newest is None:
            return self.job.position
        snapshot = checkpoint.read(newest)
        try:
            self.state.restore(snapshot.tensors, snapshot.numbers)
        except (KeyError, ValueError, RuntimeError) as error:
            raise FailedError(
                f"{newest} is of another network or optimizer ({error}): restore config.json, or "
                "start again in another run folder"
            ) from error
        position = snapshot.position
        log.info("going on after epoch %d, batch %d", position.epoch, position.batch)
        return position

    def run(self) -> Position:
        """Go through the epochs that are left."""
        job, position = self.job, self.position
        with (
            job.runtime.active(),
            job.folder.tensorboard(position.history) as board,
            Interrupt() as interrupt,
        ):
            while not position.finished:
                self._run_epoch(interrupt)
                average = self.state.average
                with self.parallel.settled(average.tensors if average else None):
                    record = finish_epoch(job, position)
                write_scalars(board, record)
                self._save()
            if interrupt.requested:  # in the last epoch's validation
                raise KeyboardInterrupt
        return position

    def _run_epoch(self, interrupt: Interrupt) -> None:
        """Go through the training pictures once, from ``position.batch`` on."""
        job, config, position = self.job, self.job.training, self.position
        pixels, device = self.pixels, job.runtime.device
        count = len(pixels)
        size = math.ceil(count / config.batch_size)
        counts = class_counts(job.pixels, job.classes)
        loss_of = build_loss(job.network, config, counts)
        stepper = Stepper(
            self.state, job.spec, config, job.augment, job.colors, len(counts), job.runtime, loss_of
        )
        scores = [record["val_top1"] for record in position.history if "val_top1" in record]
        batches = list(
            epoch_batches(
                count, config.batch_size, config.seed, position.epoch, first=position.batch,
                drop_last=False,
            )
        )  # fmt: skip
        place = (self.parallel.data_rank, self.parallel.data_count, job.augment.share)
        plan = (share_of(batch, *place).indices for batch in batches)
        title = f"epoch {position.epoch + 1}/{config.epochs}"
        sums = Sums(position.totals, self.parallel, device)
        sent, first = bytes_sent(), position.batch
        set_training(self.parallel.trained)
        stream = track(ahead(pixels.batches(plan), device), title, len(batches))
        for (images, labels, _), batch in zip(stream, batches, strict=True):
            number = position.epoch * size + position.batch
            rate = learning_rate(number, config.epochs * size, config, scores)
            set_rates(self.state.optimizer, rate, position.epoch, config)
            share = share_of(batch, *place)
            stepper.step(images, labels, share, position.epoch, number, sums)
            position.batch += 1
            if position.batch % CHECK_EVERY == 0 or position.batch == size:
                self._check(sums)
            self._listen(interrupt, sums)
        if self.agreement.settle() == STOP:
            self._stop(sums)
        position.totals = sums.gathered()
        by_tcp = job.runtime.world_size > 1 and job.runtime.device.type == "cpu"
        if by_tcp and sent is not None and position.batch > first:
            position.totals["sent"] = ((bytes_sent() or 0) - sent) // (position.batch - first)

    def _listen(self, interrupt: Interrupt, sums: Sums) -> None:
        """Write a checkpoint, or stop, when it is time to or somebody asked."""
        late = time.monotonic() - self.saved > 60 * self.job.training.checkpoint_minutes
        wish = STOP if interrupt.requested else CHECKPOINT if late and is_main() else NOTHING
        agreed = self.agreement.reach(wish)
        if agreed == STOP:
            self._stop(sums)
        if agreed == CHECKPOINT:
            self.position.totals = sums.gathered()
            self._save()

    def _stop(self, sums: Sums) -> None:
        self.position.totals = sums.gathered()
        self._save()
        raise KeyboardInterrupt

    def _check(self, sums: Sums) -> None:
        if not sums.finite:
            position = self.position
            where = f"epoch {position.epoch + 1}, batch {position.batch}"
            raise diverged(self.job.training, where)

    def _save(self) -> None:
        """Write a checkpoint of where the training stands."""
        tensors, numbers = self.state.gather()
        if is_main():
            checkpoint.save(self.job.folder.checkpoints, Snapshot(self.position, tensors, numbers))
        self.saved = time.monotonic()


def finish_epoch(job: Job, position: Position) -> dict[str, Any]:
    """Validate, write the epoch's record, keep the weights if they are to be kept, move on.

    With ``keep="best"`` a later epoch wins against an earlier one that is better by less than one
    standard error of the validation score: on a small validation part the difference is chance, and
    the later epoch has the smaller learning rate behind it.
    """
    config = job.training
    loss, right, images = total(position.totals)
    seconds = position.totals["seconds"]
    record: dict[str, Any] = {
        "epoch": position.epoch + 1,
        "stage": job.stage,
        "train_loss": loss / images,
        "train_top1": right / images,
    }
    score, tolerance = position.best_score, 0.0  # keep="last": a later epoch always wins
    if job.validate is not None:
        result = job.validate()
        if not math.isfinite(result.loss):
            raise diverged(config, f"validation of epoch {position.epoch + 1}")
        record["val_loss"], record["val_top1"] = result.loss, result.top1
        record["val_balanced_accuracy"] = result.balanced_accuracy
        if config.keep == "best":
            score = result.balanced_accuracy if config.class_balance else result.top1
            best = max(score, position.best_score)
            tolerance = math.sqrt(max(0.0, best * (1 - best)) / result.images)
    record["seconds"] = round(seconds, 3)
    record["images_per_second"] = round(images / max(seconds, 1e-9), 1)
    if "sent" in position.totals:
        weights = sum(p.numel() for p in job.network.parameters() if p.requires_grad)
        record["bytes_sent_a_step"] = position.totals["sent"]
        record["bytes_of_ddp"] = data_parallel_bytes(weights, job.runtime.world_size)
    position.history.append(record)
    if score >= position.best_score - tolerance:
        position.best_epoch = position.epoch
        if is_main():
            job.keep(position)
    position.best_score = max(score, position.best_score)
    log.info("%s", describe(record, config.epochs))
    waited = position.epoch - position.best_epoch
    position.epoch, position.batch, position.totals = position.epoch + 1, 0, {}
    stopped = bool(config.patience) and waited >= config.patience
    if config.schedule == "plateau":
        scores = [record["val_top1"] for record in position.history if "val_top1" in record]
        stopped = stopped or plateaus(scores, config.plateau) > config.drops
    position.finished = position.epoch >= config.epochs or stopped
    job.folder.write_history(position.history)
    return record


def diverged(config: TrainingConfig, where: str) -> FailedError:
    """The error for a loss that is infinite or not a number."""
    return FailedError(
        f"{DIVERGED} ({where}): lower the learning rate, --set {lower_rate(config)}, in a new run "
        f"folder"
    )


def describe(record: dict[str, Any], epochs: int) -> str:
    """An epoch's record as a line for a person."""
    line = f"{record['stage']} {record['epoch']}/{epochs}: loss {record['train_loss']:.4f}"
    line += f", top-1 {record['train_top1']:.4f}"
    if "val_top1" in record:
        line += f" | validation loss {record['val_loss']:.4f}, top-1 {record['val_top1']:.4f}"
    line += f" | {record['seconds']:.1f} s, {record['images_per_second']:.0f} images/s"
    if "bytes_sent_a_step" in record:
        sent, ddp = record["bytes_sent_a_step"] / 1e6, record["bytes_of_ddp"] / 1e6
        line += f" | {sent:.1f} MB sent a step (data parallelism: {ddp:.1f})"
    return line


def class_counts(pixels: Pixels, classes: int) -> Tensor:
    """Training pictures of each of so many classes, ``[K]``."""
    return torch.bincount(pixels.labels, minlength=classes)

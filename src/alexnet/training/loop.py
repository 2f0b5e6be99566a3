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

from alexnet.data.augment import AugmentConfig, augment
from alexnet.data.loader import Pixels
from alexnet.data.order import epoch_batches
from alexnet.errors import FailedError
from alexnet.evaluation.metrics import Evaluation
from alexnet.progress import log, track
from alexnet.runtime import Runtime, seed_draws
from alexnet.spec import InputSpec
from alexnet.training import checkpoint
from alexnet.training.checkpoint import Position
from alexnet.training.config import TrainingConfig
from alexnet.training.folder import RunFolder, write_scalars
from alexnet.training.interrupt import Interrupt
from alexnet.training.optim import build_loss, build_optimizer, learning_rate, set_learning_rate

CHECK_EVERY = 50  # batches between looks at the loss, each of which waits for the device


@dataclass
class Job:
    """What :func:`fit` needs.

    Attributes:
        network: on its device; only parameters that require gradients are trained.
        pixels: the training pictures, stored at ``spec.resize``.
        spec: the network's input.
        training: how the weights are moved.
        augment: how the pictures are varied.
        runtime: device and precision.
        folder: where to write.
        validate: scores the network on the validation part, where there is one.
        keep: writes the weights that are kept, given the position and that epoch's record.
        stage: name of this part of the training in ``metrics.jsonl``.
        position: where to begin; its history comes first in ``metrics.jsonl``.
    """

    network: nn.Module
    pixels: Pixels
    spec: InputSpec
    training: TrainingConfig
    augment: AugmentConfig
    runtime: Runtime
    folder: RunFolder
    validate: Callable[[], Evaluation] | None
    keep: Callable[[Position], None]
    stage: str
    position: Position


def fit(job: Job) -> Position:
    """Train from ``job.position`` (or from the newest checkpoint) to the end.

    Returns:
        The position at the end, with the history of all epochs.

    Raises:
        FailedError: the loss is no longer a number.
        KeyboardInterrupt: Ctrl-C; a checkpoint of this very batch was written before.
    """
    optimizer = build_optimizer(job.network.parameters(), job.training)
    position = checkpoint.load_newest(job.folder.checkpoints, job.network, optimizer)
    position = job.position if position is None else position
    with (
        job.runtime.active(),
        job.folder.tensorboard(position.history) as board,
        Interrupt() as interrupt,
    ):
        while not position.finished:
            run_epoch(job, optimizer, position, interrupt)
            record = finish_epoch(job, position)
            write_scalars(board, record)
            checkpoint.save(job.folder.checkpoints, position, job.network, optimizer)
        if interrupt.requested:  # in the last epoch's validation
            raise KeyboardInterrupt
    return position


def run_epoch(
    job: Job, optimizer: torch.optim.Optimizer, position: Position, interrupt: Interrupt
) -> None:
    """Go through the training pictures once, from ``position.batch`` on."""
    config, count = job.training, len(job.pixels)
    batches = math.ceil(count / config.batch_size)
    loss_of = build_loss(job.network, config, class_counts(job.pixels, job.network))
    plan = epoch_batches(
        count, config.batch_size, config.seed, position.epoch, first=position.batch, drop_last=False
    )
    sums = Sums(position.totals, job.runtime.device)
    title = f"epoch {position.epoch + 1}/{config.epochs}"
    set_training(job.network)
    for pixels, labels, indices in track(job.pixels.batches(plan), title, batches - position.batch):
        step = position.epoch * batches + position.batch
        set_learning_rate(optimizer, learning_rate(step, config.epochs * batches, config))
        seed_draws(config.seed * 1_000_003 + step, job.runtime.device)  # dropout masks
        inputs = prepare(job, pixels, indices, position.epoch)
        labels = labels.to(job.runtime.device, non_blocking=True)
        with job.runtime.autocast():
            logits = job.network(inputs)
        loss = loss_of(logits, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if config.clip_norm:
            nn.utils.clip_grad_norm_(job.network.parameters(), config.clip_norm)
        optimizer.step()
        sums.add(loss.detach(), logits.detach(), labels)
        position.batch += 1
        if position.batch % CHECK_EVERY == 0 or position.batch == batches:
            sums.check(config, position)
        if interrupt.requested:
            position.totals = sums.to_dict()
            checkpoint.save(job.folder.checkpoints, position, job.network, optimizer)
            raise KeyboardInterrupt
    position.totals = sums.to_dict()


def set_training(network: nn.Module) -> None:
    """Training mode, but for batch norms that are frozen: their statistics stay as they are."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine and not module.weight.requires_grad:
            module.eval()


def prepare(job: Job, pixels: Tensor, indices: Tensor, epoch: int) -> Tensor:
    """Augment and normalize one batch on the device; float ``[N, C, size, size]``."""
    varied = augment(
        pixels.to(job.runtime.device, non_blocking=True),
        job.spec.crop,
        job.augment,
        seed=job.training.seed,
        epoch=epoch,
        indices=indices,
        fill=job.spec.pad_value if job.spec.pad else None,
    )
    return job.runtime.place(job.spec.normalize(varied))


def finish_epoch(job: Job, position: Position) -> dict[str, Any]:
    """Validate, write the epoch's record, keep the weights if they are to be kept, move on.

    With ``keep="best"`` a later epoch wins against an earlier one that is better by less than one
    standard error of the validation score: on a small validation part the difference is chance, and
    the later epoch has the smaller learning rate behind it.
    """
    config, totals = job.training, position.totals
    record: dict[str, Any] = {
        "epoch": position.epoch + 1,
        "stage": job.stage,
        "train_loss": totals["loss"] / totals["images"],
        "train_top1": totals["right"] / totals["images"],
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
    record["seconds"] = round(totals["seconds"], 3)
    record["images_per_second"] = round(totals["images"] / max(totals["seconds"], 1e-9), 1)
    position.history.append(record)
    if score >= position.best_score - tolerance:
        position.best_epoch = position.epoch
        job.keep(position)
    position.best_score = max(score, position.best_score)
    log.info("%s", describe(record, config.epochs))
    waited = position.epoch - position.best_epoch
    position.epoch, position.batch, position.totals = position.epoch + 1, 0, {}
    stopped = bool(config.patience) and waited >= config.patience
    position.finished = position.epoch >= config.epochs or stopped
    job.folder.write_history(position.history)
    return record


def diverged(config: TrainingConfig, where: str) -> FailedError:
    """The error for a loss that is infinite or not a number."""
    return FailedError(
        f"the loss is no longer a number ({where}): lower the learning rate, "
        f"--set training.lr={config.lr / 10:g}, in a new run folder"
    )


def describe(record: dict[str, Any], epochs: int) -> str:
    """An epoch's record as a line for a person."""
    line = f"{record['stage']} {record['epoch']}/{epochs}: loss {record['train_loss']:.4f}"
    line += f", top-1 {record['train_top1']:.4f}"
    if "val_top1" in record:
        line += f" | validation loss {record['val_loss']:.4f}, top-1 {record['val_top1']:.4f}"
    return line + f" | {record['seconds']:.1f} s, {record['images_per_second']:.0f} images/s"


def class_counts(pixels: Pixels, network: nn.Module) -> Tensor:
    """Training pictures of each of the network's classes, ``[K]``."""
    return torch.bincount(pixels.labels, minlength=int(getattr(network, "num_classes", 0)))


class Sums:
    """Loss, right answers and pictures of an epoch, added up on the device."""

    def __init__(self, totals: dict[str, float], device: torch.device) -> None:
        self.loss = torch.tensor(totals.get("loss", 0.0), dtype=torch.float64, device="cpu")
        self.right = torch.tensor(int(totals.get("right", 0)), device=device)
        self.loss = self.loss.to(device if device.type != "mps" else "cpu")
        self.images = int(totals.get("images", 0))
        self.before = totals.get("seconds", 0.0)
        self.start = time.perf_counter()

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count one batch, whose mean loss is ``loss``."""
        self.loss += loss.to(self.loss.device) * len(labels)
        self.right += (logits.argmax(1) == labels).sum()
        self.images += len(labels)

    def check(self, config: TrainingConfig, position: Position) -> None:
        """Raise FailedError when the loss has stopped being a number."""
        if not torch.isfinite(self.loss):
            raise diverged(config, f"epoch {position.epoch + 1}, batch {position.batch}")

    def to_dict(self) -> dict[str, float]:
        """Plain numbers, in which an interrupted epoch is kept."""
        return {
            "loss": float(self.loss),
            "right": int(self.right),
            "images": self.images,
            "seconds": self.before + time.perf_counter() - self.start,
        }

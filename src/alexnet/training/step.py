"""One step of a training: a batch goes forward and back, and the weights move."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alexnet.chance import stream_key
from alexnet.data.augment_config import AugmentConfig
from alexnet.data.colors import ColorStatistics
from alexnet.data.inputs import make_inputs
from alexnet.data.mix import mix
from alexnet.models.contract import Network
from alexnet.runtime import Runtime, seed_draws
from alexnet.spec import InputSpec
from alexnet.training.config import TrainingConfig
from alexnet.training.share import Share
from alexnet.training.state import TrainingState
from alexnet.training.sums import Sums

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Stepper:
    """What every step of a training does alike.

    Attributes:
        state: what moves.
        spec: the network's input.
        training: how the weights are moved.
        augment: how the pictures are varied.
        colors: of the training part, for color noise.
        classes: how many there are, for mixing.
        runtime: device and precision.
        loss_of: mean loss of logits and labels.
    """

    state: TrainingState
    spec: InputSpec
    training: TrainingConfig
    augment: AugmentConfig
    colors: ColorStatistics | None
    classes: int
    runtime: Runtime
    loss_of: Loss

    def step(
        self, pixels: Tensor, labels: Tensor, share: Share, epoch: int, number: int, sums: Sums
    ) -> None:
        """Move the weights once, at the rates that the optimizer's groups have.

        Args:
            pixels: uint8 ``[M, C, resize, resize]``, the pictures of the share.
            labels: int64 ``[M]``.
            share: which rows of the batch they are.
            epoch: from 0.
            number: of the step, from 0, over all epochs.
            sums: where loss and right answers are added.
        """
        state, config = self.state, self.training
        labels = labels.to(self.runtime.device, non_blocking=True)
        parts = list(_parts(len(share.indices), config.micro_batch))
        state.optimizer.zero_grad(set_to_none=True)
        for rows in parts:
            more = rows is not parts[-1]
            with state.parallel.accumulating() if more else contextlib.nullcontext():
                self._number_masks(share, rows, number)
                counted = max(0, min(share.counted, rows.stop) - rows.start)
                inputs, targets = self._prepare(
                    pixels[rows], labels[rows], share, rows, epoch, counted
                )
                loss = self._loss(inputs, labels[rows], targets, counted, sums)
                loss = loss * (counted / share.total)
                state.scaler.scale(loss).backward()
        if config.clip_norm:
            state.scaler.unscale_(state.optimizer)
            state.parallel.clip(config.clip_norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        if state.average:
            state.average.update(state.parallel.trained.state_dict())

    def _number_masks(self, share: Share, rows: slice, number: int) -> None:
        seed = self.training.seed
        self.state.parallel.number_masks(seed, number, share, rows)
        # Other libraries' dropout draws from the generator.
        key = stream_key(seed, number, share.first + rows.start)
        seed_draws(key >> 1, self.runtime.device)

    def _prepare(
        self,
        pixels: Tensor,
        labels: Tensor,
        share: Share,
        rows: slice,
        epoch: int,
        counted: int,
    ) -> tuple[Tensor, Tensor]:
        """Augment and normalize on the device: ``[M, C, size, size]``, and what to learn of it.

        What to learn is that of the first ``counted`` pictures.
        """
        seed, indices = self.training.seed, share.indices[rows]
        inputs = make_inputs(
            pixels.to(self.runtime.device, non_blocking=True),
            self.spec,
            self.augment,
            seed=seed,
            epoch=epoch,
            indices=indices,
            leaders=share.leaders[rows] if self.augment.share > 1 else None,
            colors=self.colors,
            dtype=self._input_dtype(),
            layout=self.runtime.memory_format,
        )
        if not self.augment.mixes:
            return inputs, labels
        # A batch's last picture is not mixed with what fills up the rows of a process.
        mixed, targets = mix(
            inputs[:counted], labels[:counted], self.classes, self.augment,
            seed=seed, epoch=epoch, indices=indices[:counted],
        )  # fmt: skip
        if counted < len(inputs):
            mixed = torch.cat((mixed, inputs[counted:]))
        return self.runtime.place(mixed), targets.to(self.runtime.weights_dtype)

    def _input_dtype(self) -> torch.dtype:
        """Of what is put in: the networks here begin with a convolution, which would round it."""
        runtime = self.runtime
        large = isinstance(self.state.parallel.network, Network) and runtime.channels_last
        rounded = large and runtime.precision == "bf16" and not self.augment.mixes
        return torch.bfloat16 if rounded else runtime.weights_dtype

    def _loss(
        self, inputs: Tensor, labels: Tensor, targets: Tensor, counted: int, sums: Sums
    ) -> Tensor:
        """Mean loss of the first ``counted`` pictures, the others having none."""
        with self.runtime.autocast():
            logits = self.state.parallel.forward(inputs)
        if not counted:
            return logits.float().sum() * 0.0
        logits, labels = logits[:counted], labels[:counted]
        loss = self.loss_of(logits, targets[:counted])
        sums.add(loss, logits, labels)
        return loss


def _parts(size: int, largest: int) -> Iterator[slice]:
    """Consecutive rows, ``largest`` at most (all where that is 0), each part from an even row."""
    largest = max(2, largest - largest % 2) if largest else size
    for start in range(0, size, max(1, largest)):
        yield slice(start, min(start + largest, size))


def set_training(network: nn.Module) -> None:
    """Training mode, but for batch norms that are frozen: their statistics stay as they are."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine and not module.weight.requires_grad:
            module.eval()

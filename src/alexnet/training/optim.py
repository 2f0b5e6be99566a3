"""Optimizers and schedules, from plain numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn import functional as F

from alexnet.training.config import TrainingConfig


def build_optimizer(
    parameters: Iterable[nn.Parameter], config: TrainingConfig
) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW over the parameters that are trained, in one fused kernel."""
    trained = [p for p in parameters if p.requires_grad]
    fused = bool(trained) and trained[0].device.type in ("cpu", "cuda", "mps")
    if config.optimizer == "adamw":
        return torch.optim.AdamW(trained, config.lr, weight_decay=config.weight_decay, fused=fused)
    return torch.optim.SGD(
        trained,
        config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov and config.momentum > 0,
        weight_decay=config.weight_decay,
        fused=fused,
    )


def learning_rate(step: int, total: int, config: TrainingConfig) -> float:
    """The rate of step ``step`` (from 0) of ``total``: linear warm-up, then the schedule."""
    warmup = config.warmup * total
    if step < warmup:
        return config.lr * (step + 1) / (math.ceil(warmup) + 1)
    done = (step - warmup) / max(1.0, total - warmup)
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * done))
    if config.schedule == "step":
        return config.lr * 0.1 ** int(done * 3)
    return config.lr


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group of the optimizer the rate ``lr``."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def build_loss(
    network: nn.Module, config: TrainingConfig, class_counts: torch.Tensor
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The network's own criterion, or cross-entropy, with the classes balanced if asked for.

    Args:
        network: one of ours (with a ``loss``) or any other classifier.
        config: reads ``label_smoothing`` and ``class_balance``.
        class_counts: training pictures of each class, ``[K]``.

    Returns:
        A function of logits ``[N, K]`` and labels ``[N]``.
    """
    criterion = getattr(network, "loss", F.cross_entropy)
    prior = (class_counts.float() / class_counts.sum()).clamp_min(1e-12).log()
    offset = config.class_balance * prior

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        adjusted = logits.float() + offset.to(logits.device) if config.class_balance else logits
        result: torch.Tensor = criterion(
            adjusted.float(), labels, label_smoothing=config.label_smoothing
        )
        return result

    return loss

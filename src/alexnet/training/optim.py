"""Optimizers, schedules and the loss, from plain numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

from alexnet.errors import UsageError, missing_extra
from alexnet.training.config import TrainingConfig


class PaperSGD(torch.optim.SGD):
    """The update rule of Krizhevsky et al. 2012, section 5.

        v = 0.9 v - 0.0005 lr w - lr gradient,    w = w + v

    PyTorch's keeps ``b = 0.9 b + gradient + 0.0005 w`` and moves by ``-lr b``. With ``v = -lr b``
    the two are one while the rate stays; when it falls, the paper's v goes on at the old rate, so
    that b must grow by the old rate over the new one. For the step in which it does, momentum does
    that in passing; the fused kernel does the rest.
    """

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move the weights once."""
        momenta = [group["momentum"] for group in self.param_groups]
        for group in self.param_groups:
            before, rate = group.get("moved_at", group["lr"]), group["lr"]
            if before != rate and rate:
                self._go_on(group, before / rate, in_passing=closure is None)
            if rate:
                group["moved_at"] = rate
        try:
            return super().step(closure)
        finally:
            for group, momentum in zip(self.param_groups, momenta, strict=True):
                group["momentum"] = momentum

    def _go_on(self, group: dict[str, Any], factor: float, *, in_passing: bool) -> None:
        """Let momentum be ``factor`` times as much, by its coefficient in this step if it can be.

        It cannot where the coefficient is used twice (Nesterov) or a scaler may leave the step out,
        nor for parameters that do not move in it.
        """
        in_passing &= not group["nesterov"] and getattr(self, "found_inf", None) is None
        for parameter in group["params"]:
            buffer = self.state[parameter].get("momentum_buffer")
            if buffer is not None and not (in_passing and parameter.grad is not None):
                buffer.mul_(factor)
        if in_passing:
            group["momentum"] *= factor


def build_optimizer(
    parameters: Mapping[str, nn.Parameter] | nn.Module, config: TrainingConfig
) -> torch.optim.Optimizer:
    """The optimizer over the parameters that are trained, in fused kernels where there are any.

    Each group carries, beside the optimizer's own settings, the ``names`` of its parameters, and by
    what :func:`set_rates` finds its rate: its ``role`` (``"all"`` or ``"biases"``) and whether it
    is the first layer (``stem``).

    Args:
        parameters: by name, or a network with all of them.
        config: which optimizer, and its numbers.

    Raises:
        UsageError: LARS without timm.
    """
    named = parameters if isinstance(parameters, Mapping) else dict(parameters.named_parameters())
    groups = _groups({name: p for name, p in named.items() if p.requires_grad}, config)
    fused = all(g["params"][0].device.type in ("cpu", "cuda", "mps") for g in groups)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, config.lr, fused=fused)
    if config.optimizer == "lars":
        try:
            from timm.optim.lars import Lars
        except ImportError as error:
            raise missing_extra("timm", "timm", "training.optimizer=lars") from error
        return Lars(groups, config.lr, momentum=config.momentum, trust_coeff=config.trust)
    kind = PaperSGD if config.optimizer == "paper" else torch.optim.SGD
    nesterov = config.nesterov and config.momentum > 0
    made = kind(groups, config.lr, momentum=config.momentum, nesterov=nesterov, fused=fused)
    if fused and config.momentum and config.precision == "fp16":
        # A first step that is left out, for numbers too large for fp16, leaves the fused kernel's
        # momentum unwritten, and the next step would take it as it is.
        for parameter in (p for group in made.param_groups for p in group["params"]):
            made.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return made


def _groups(named: Mapping[str, nn.Parameter], config: TrainingConfig) -> list[dict[str, Any]]:
    """Parameters of one rate and decay each; a fused kernel takes no DTensors beside tensors."""
    stem = next(iter(named), "").rpartition(".")[0]
    groups: dict[tuple[str, bool, float, bool], dict[str, Any]] = {}
    for name, parameter in named.items():
        # Biases (of layers that share no weights they have a place each), factors of norms.
        small = parameter.ndim < 2 or name.rpartition(".")[2] == "bias"
        role = "biases" if config.bias_lr and small else "all"
        first = config.stem_epochs != (0, 0) and name.rpartition(".")[0] == stem
        spared = small and (config.decay == "weights" or bool(config.bias_lr))
        decay = 0.0 if spared else config.weight_decay
        divided = isinstance(parameter.data, DTensor)
        group = groups.setdefault(
            (role, first, decay, divided),
            {"params": [], "names": [], "role": role, "stem": first, "weight_decay": decay},
        )
        group["params"].append(parameter)
        group["names"].append(name)
        if divided:
            group["fused"] = False
    return list(groups.values())


def learning_rate(
    step: int, total: int, config: TrainingConfig, scores: Sequence[float] = ()
) -> float:
    """The rate of step ``step`` (from 0) of ``total``: linear warm-up, then the schedule.

    Args:
        step: of the whole training.
        total: steps of the whole training.
        config: the schedule and its numbers.
        scores: validation scores of the epochs so far, which ``"plateau"`` goes by.
    """
    warmup = config.warmup * total
    if step < warmup:
        return config.lr * (step + 1) / (math.ceil(warmup) + 1)
    done = (step - warmup) / max(1.0, total - warmup)
    if config.schedule == "cosine":
        return config.lr * 0.5 * (1 + math.cos(math.pi * done))
    if config.schedule == "table":
        return config.rates[min(step * config.epochs // total, len(config.rates) - 1)]
    if config.schedule == "poly":
        return config.lr * (1 - done) ** config.power
    if config.schedule == "step":
        return config.lr * 0.1 ** int(done * 3)
    if config.schedule == "milestones":
        epoch = step * config.epochs // total  # epochs that are over
        return config.lr * 0.1 ** sum(epoch >= milestone for milestone in config.milestones)
    if config.schedule == "plateau":
        return config.lr * 0.1 ** min(plateaus(scores, config.plateau), config.drops)
    return config.lr


def check_schedule(config: TrainingConfig, *, validated: bool) -> None:
    """Refuse, before anything is written, a schedule that has nothing to go by.

    Args:
        config: which schedule.
        validated: whether there is a validation part.

    Raises:
        UsageError: ``"plateau"`` without validation scores.
    """
    if config.schedule == "plateau" and not validated:
        raise UsageError(
            "training.schedule=plateau goes by the validation part, and there is none: set "
            "data.val_fraction, or another schedule"
        )


def lower_rate(config: TrainingConfig) -> str:
    """A setting with a tenth of the learning rate, to advise where a training diverged."""
    if config.schedule == "table":
        return f"training.rates={','.join(f'{rate / 10:g}' for rate in config.rates)}"
    return f"training.lr={config.lr / 10:g}"


def plateaus(scores: Iterable[float], patience: int) -> int:
    """How often the validation score stopped rising.

    A plateau is ``patience`` epochs without a score above the best before; the next one is counted
    from there on (Krizhevsky et al. 2012, section 5: 'divide the learning rate by 10 when the
    validation error rate stopped improving with the current learning rate').
    """
    best, waited, found = float("-inf"), 0, 0
    for score in scores:
        if score > best:
            best, waited = score, 0
            continue
        waited += 1
        if waited == patience:
            found, waited = found + 1, 0
    return found


def set_rates(
    optimizer: torch.optim.Optimizer, lr: float, epoch: int, config: TrainingConfig
) -> None:
    """Give every group its rate: ``lr``, or what its role says.

    Args:
        optimizer: from :func:`build_optimizer`.
        lr: the schedule's rate.
        epoch: from 0.
        config: rates of biases and of the first layer.
    """
    for group in optimizer.param_groups:
        slow, frozen = config.stem_epochs
        if group["stem"] and epoch >= slow:
            group["lr"] = 0.0 if epoch >= frozen else config.stem_lr
        else:
            group["lr"] = config.bias_lr if group["role"] == "biases" else lr


def build_loss(
    network: nn.Module, config: TrainingConfig, class_counts: torch.Tensor
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The network's own criterion, or cross-entropy, with the classes balanced if asked for.

    Args:
        network: one of ours (with a ``loss``) or any other classifier.
        config: reads ``label_smoothing`` and ``class_balance``.
        class_counts: training pictures of each class, ``[K]``.

    Returns:
        A function of logits ``[N, K]`` and labels ``[N]`` (or shares ``[N, K]``): their mean loss.
    """
    criterion = getattr(network, "loss", F.cross_entropy)
    prior = (class_counts.float() / class_counts.sum()).clamp_min(1e-12).log()
    offset = config.class_balance * prior

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        wide = logits if logits.dtype == torch.float64 else logits.float()
        adjusted = wide + offset.to(wide.device) if config.class_balance else wide
        result: torch.Tensor = criterion(adjusted, labels, label_smoothing=config.label_smoothing)
        return result

    return loss

"""Make a run's probabilities mean what they say, by one number (Guo et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from alexnet import files
from alexnet.errors import UsageError
from alexnet.evaluation.calibration import fit_temperature, reliability
from alexnet.evaluation.evaluate import Split, member_of
from alexnet.evaluation.score import all_log_probabilities
from alexnet.models.pretrained import CONFIG, load_run


@dataclass(frozen=True)
class Calibration:
    """What a temperature does to the pictures that it was fitted on.

    Attributes:
        temperature: that logits are divided by; above 1 where the network was too sure.
        images: how many pictures it was fitted on.
        loss: mean cross-entropy (nats) before and after.
        calibration_error: before and after, in 15 bins.
    """

    temperature: float
    images: int
    loss: tuple[float, float]
    calibration_error: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in vars(self).items()}


def calibrate(
    run: str | Path,
    data: str | Path,
    *,
    split: Split = "val",
    batch_size: int = 256,
    device: str = "auto",
    precision: str = "auto",
) -> Calibration:
    """Fit a temperature to labeled pictures and keep it in the run.

    From then on :func:`alexnet.evaluate` and :class:`alexnet.Classifier` divide logits by it. Which
    class comes first does not change, nor does the order of the others.

    Args:
        run: a run folder.
        data: a data set's name, or a folder; divided as it was when the run was trained on it.
        split: which part: one that the network did not learn from, and not the one it is judged by.
        batch_size: pictures a step.
        device: ``"auto"`` or a torch device.
        precision: ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``.

    Raises:
        UsageError: not a run folder, no such part of the data, or one without a mistake.
    """
    folder = Path(run)
    if not (folder / CONFIG).is_file():
        raise UsageError(f"{run} is not a run folder: a temperature is kept in a run's {CONFIG}")
    loaded = load_run(str(folder))
    loaded.config.pop("temperature", None)
    member = member_of(loaded, str(data), split=split, device=device, precision=precision)
    logs, labels = all_log_probabilities(member, batch_size), member.pixels.labels
    if bool((logs.argmax(1) == labels).all()):
        raise UsageError(
            f"{run} is right on all {len(labels):,} pictures of the {split} part of {data}: "
            f"without a mistake there is no temperature to fit; use a larger part, or --split"
        )
    temperature = fit_temperature(logs, labels)
    losses, errors = [], []
    for chosen in (1.0, temperature):
        scaled = (logs / chosen).log_softmax(1)
        best = scaled.exp().max(1)
        losses.append(float(torch.nn.functional.nll_loss(scaled, labels)))
        errors.append(reliability(best.values, best.indices == labels).error)
    recorded = files.read_json(folder / CONFIG)
    files.write_json(folder / CONFIG, {**recorded, "temperature": temperature})
    return Calibration(temperature, len(labels), (losses[0], losses[1]), (errors[0], errors[1]))

"""Fine-tune a pretrained network: the folder of photos that becomes a classifier.

Three stages, the first two from Kumar et al. 2022 ('Fine-tuning can distort pretrained features and
underperform out-of-distribution'), the last from Wortsman et al. 2022 ('Robust fine-tuning of
zero-shot models'):

1. head: the features of every picture and of its mirror image are computed once; the classifier is
   fitted to them, standardized, by L-BFGS; the scaling is folded into its weights.
2. finetune: the last layers are trained on varied pictures, starting from that head.
3. average, of few pictures only: the mean of both stages' weights, and the classifier fitted again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alexnet.data.loader import Pixels
from alexnet.data.sources import Pictures
from alexnet.errors import UsageError
from alexnet.models.contract import Network
from alexnet.models.registry import model_entry
from alexnet.models.state import load_into, read_state, write_state
from alexnet.models.weights import find_weights
from alexnet.progress import log, track
from alexnet.runtime import process_group, wait_for_all
from alexnet.tasks.request import Request
from alexnet.tasks.run import Run, Session, finished
from alexnet.torchrun import is_main
from alexnet.training.checkpoint import Position
from alexnet.training.config import Config, FinetuneConfig
from alexnet.training.recipes import get_recipe

PENALTIES = (0.003, 0.03, 0.1, 0.3)
"""Penalties on the standardized head that are tried on the validation part."""
HEAD, TUNED = "head.safetensors", "finetuned.safetensors"
HEAD_BYTES = 2 << 30
"""Features kept for the head take at most this much memory; of more pictures a part is taken."""
HEAD_PICTURES = 10_000
"""As many fit a head that the fine-tuning changes anyway."""
BY_SIZE: tuple[tuple[int, dict[str, Any]], ...] = (
    (1500, {"finetune.share": 1.0, "training.epochs": 12}),
    (
        5000,
        {
            "training.lr": 0.001,
            "training.batch_size": 64,
            "training.epochs": 8,
            "augment.rotate": 3.0,
            "augment.scale": (0.95, 1.1),
            "augment.aspect": 0.05,
            "augment.shift": 0.03,
        },
    ),
    (
        20000,
        {
            "training.epochs": 4,
            "augment.rotate": 0.0,
            "augment.scale": (1.0, 1.0),
            "augment.aspect": 0.0,
            "augment.shift": 0.0,
        },
    ),
)
"""What changes from that many training pictures on: they can move the features further, and are
various enough to need less augmentation; of the most, few epochs, and only mirror images."""
SMALL_PICTURE = 64
"""Pictures whose shorter side is at most this (in pixels, the median) are read at SMALL_INPUT."""
SMALL_INPUT = 127
"""Input that gives pool5 a map of 3x3: a quarter of the work where there is no more detail."""


def finetune(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    model: str = "alexnet_owt",
    weights: str = "imagenet1k-features",
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Run:
    """Turn a pretrained network into a classifier of other pictures, and write a run folder.

    Weights that cover the convolutions only get a head of one layer, fc8 on pool5
    (``model.hidden`` chooses another); the input is 224 pixels, or 127 where the pictures are tiny
    (``data.image_size``). With 1,500 training pictures and more the fine-tuned weights are kept as
    they are, not averaged with the head's; five thousand and more are trained on with a larger
    learning rate and varied less, twenty thousand and more mirrored only (:data:`BY_SIZE`). What
    ``settings`` say comes first.

    Args:
        data: a folder of class folders or a data set's name.
        out: the run folder to write.
        model: the network's name.
        weights: what to start from.
        resume: go on with the run in ``out``, with the settings that it was started with.
        settings: dotted names to values, such as ``{"training.epochs": 5}``.

    Returns:
        The finished run; its metrics are those of the test part, which was read once, at the end.

    Raises:
        UsageError: a wrong name, value, file or folder.
        FailedError: no space on the disk, or a loss that is no longer a number.
    """
    with process_group():
        return _finetune(data, out, model, weights, resume=resume, settings=settings or {})


def _finetune(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    model: str,
    weights: str,
    *,
    resume: bool,
    settings: Mapping[str, Any],
) -> Run:
    config = get_recipe("finetune")
    request = Request.make(
        "finetune", data, model, weights, config, out, resume=resume, settings=settings
    )
    done = finished(request)
    if done is not None:
        return done
    covers_features_only(request)  # or refused, before anything is written
    session = Session(request)
    if not request.resumed:
        request.config = suited(request.config, len(session.splits.train), settings)
    session.begin(build(session))
    told, position = request.config.finetune or FinetuneConfig(), Position()
    if not session.resumable:
        kept = not told.unfreeze or told.share < 1
        position = fit_head(session, None if kept else HEAD_PICTURES)
    if not told.unfreeze:
        return session.finish(position)
    unfreeze_last(session.network, told.unfreeze)
    position = session.fit(position, "finetune")
    averages = told.share < 1 and position.best_epoch >= 0
    return session.finish(position, (lambda: average(session, told.share)) if averages else None)


def build(session: Session) -> nn.Module:
    """Read the pictures at the size that suits them, and build the network that is fine-tuned.

    Raises:
        UsageError: it has no linear classifier.
    """
    request, features_only = session.request, covers_features_only(session.request)
    session.read_pictures(choose_size(request, session.splits.train, any_size=features_only))
    network = session.build_network(**({"hidden": 0} if features_only else {}))
    linear_classifier(network)
    return network


def covers_features_only(request: Request) -> bool:
    """Whether the weights that it starts from are those of convolutions, without a head.

    Raises:
        UsageError: they are another network's.
    """
    record = None if request.weights is None else find_weights(request.weights, request.model)
    return record is not None and record.covers == "features"


def suited(config: Config, pictures: int, settings: Mapping[str, Any]) -> Config:
    """The settings for that many training pictures; what ``settings`` say comes first."""
    for least, changes in BY_SIZE:
        if pictures >= least:
            config = config.override(changes)
    return config.override(settings)


def choose_size(request: Request, pictures: Pictures, *, any_size: bool) -> int | None:
    """The input's side: as set, else small for tiny pictures, else the network's own (None).

    Args:
        request: what was asked for.
        pictures: the training part.
        any_size: whether the weights fit an input of any size, as convolutions do.
    """
    if request.config.data.image_size is not None or not any_size:
        return request.config.data.image_size
    sample = np.linspace(0, len(pictures) - 1, min(len(pictures), 50)).astype(int)
    median = float(np.median([min(pictures.read(int(index)).shape[:2]) for index in sample]))
    own = model_entry(request.model).spec.size
    if median > SMALL_PICTURE or own <= SMALL_INPUT or ":" in request.model:
        return None
    log.info("the pictures are small (%g pixels): the network reads them at 127", median)
    return SMALL_INPUT


def fit_head(session: Session, most: int | None = None) -> Position:
    """Fit the classifier on frozen features; its record is the first of the history.

    Args:
        session: with the network, which is changed.
        most: pictures that are looked at; None is all.
    """
    record = {"epoch": 0, **fit_classifier(session, "head", most)}
    balanced = session.request.config.training.class_balance > 0
    score = record.get("val_balanced_accuracy" if balanced else "val_top1", float("-inf"))
    position = Position(history=[record], best_score=score)
    if is_main():
        session.keep(position)
        write_state(session.request.folder.checkpoints / HEAD, session.network)
    return position


def fit_classifier(session: Session, stage: str, most: int | None = None) -> dict[str, Any]:
    """Fit the network's last layer to the training pictures, the other layers as they are.

    The penalty is the one of :data:`PENALTIES` that minimizes the same loss (its classes balanced
    alike) on the validation part.

    Args:
        session: with the network, which is changed.
        stage: what this part of the training is called.
        most: training pictures that are looked at; None is all.

    Returns:
        Its record for the history, without the epoch.
    """
    began = time.perf_counter()
    network, classes = session.network, len(session.splits.classes)
    config = session.request.config
    mirror = config.augment.mirror > 0
    features, labels = head_features(session, session.train_pixels, mirror=mirror, most=most)
    pictures = len(labels) // (2 if mirror else 1)
    log.info(
        "%s: %d features of %d pictures%s",
        stage,
        features.shape[1],
        pictures,
        " and their mirror images" if mirror else "",
    )
    prior = torch.bincount(labels, minlength=classes).float().clamp_min(0.5)
    offset = config.training.class_balance * (prior / prior.sum()).log()
    chosen = config.finetune.l2 if config.finetune else None
    candidates: list[tuple[float, float]] = []
    classifier = linear_classifier(network)
    if chosen is None and session.val_pixels is not None:
        unseen, truth = head_features(session, session.val_pixels, mirror=False)
        for l2 in PENALTIES:
            solve_head(classifier, features, labels, offset, l2)
            loss = F.cross_entropy(classify(classifier, unseen) + offset, truth)
            candidates.append((float(loss), -l2))
        chosen = -min(candidates)[1]
    solve_head(classifier, features, labels, offset, PENALTIES[1] if chosen is None else chosen)
    logits = classify(classifier, features)
    record: dict[str, Any] = {
        "stage": stage,
        "train_loss": float(F.cross_entropy(logits, labels)),
        "train_top1": float((logits.argmax(1) == labels).float().mean()),
    }
    if session.val_pixels is not None:
        result = session.validate()
        record.update(
            val_loss=result.loss,
            val_top1=result.top1,
            val_balanced_accuracy=result.balanced_accuracy,
        )
    record["seconds"] = round(time.perf_counter() - began, 3)
    record["images_per_second"] = round(pictures / record["seconds"], 1)
    log.info(
        "%s: top-1 %.4f, validation %.4f", stage, record["train_top1"], record.get("val_top1", 0)
    )
    return record


@torch.no_grad()
def classify(classifier: nn.Linear, features: Tensor) -> Tensor:
    """The classifier's logits ``[N, K]`` in float32, on the CPU as the features are."""
    return F.linear(features, classifier.weight.float().cpu(), classifier.bias.float().cpu())


def average(session: Session, share: float) -> dict[str, Any]:
    """Settle the network between the fitted head and the fine-tuned weights, and fit it again.

    Few pictures leave much to chance: fine-tuned networks differ from one split to the next by more
    than they gain. The mean of the weights differs less (Wortsman et al. 2022); the classifier
    fitted again to its features, under a penalty and with the classes balanced, treats small
    classes better (Kang et al. 2020, 'Decoupling representation and classifier for long-tailed
    recognition').

    Args:
        session: whose network has the weights that the fine-tuning kept.
        share: of the fine-tuned weights in the mean.

    Returns:
        Its record for the history, without the epoch.
    """
    network, checkpoints = session.network, session.request.folder.checkpoints
    tuned_file = checkpoints / TUNED
    if is_main() and not tuned_file.exists():  # else a run is ended again, killed at its end
        write_state(tuned_file, network)
    wait_for_all()
    head, tuned = read_state(checkpoints / HEAD), read_state(tuned_file)
    mean = {
        name: torch.lerp(head[name], value, share) if value.is_floating_point() else value
        for name, value in tuned.items()
    }
    load_into(network, mean)
    return fit_classifier(session, "average")


def head_features(
    session: Session, pixels: Pixels, *, mirror: bool, most: int | None = None
) -> tuple[Tensor, Tensor]:
    """What the classifier reads of every picture (and of its mirror image).

    Args:
        session: with the network.
        pixels: the pictures.
        mirror: whether mirror images are read too.
        most: how many pictures are; fewer where their features take more than :data:`HEAD_BYTES`.

    Returns:
        float32 ``[N or 2N, features]`` on the CPU, and the labels.
    """
    network, spec, runtime = session.network.eval(), session.spec, session.runtime
    per_picture = 4 * linear_classifier(network).in_features * (2 if mirror else 1)
    count = min(most or len(pixels), len(pixels), max(1, HEAD_BYTES // per_picture))
    picked = torch.linspace(0, len(pixels) - 1, count).long()
    margin = (pixels.side - spec.crop) // 2
    parts: list[Tensor] = []
    labels: list[Tensor] = []
    with torch.inference_mode(), runtime.autocast():
        batches = picked.split(128)
        for batch, truth, _ in track(pixels.batches(batches), "features", len(batches)):
            center = batch[:, :, margin : margin + spec.crop, margin : margin + spec.crop]
            inputs = runtime.place(spec.normalize(center.to(runtime.device)))
            for view in (inputs, inputs.flip(3)) if mirror else (inputs,):
                parts.append(pre_logits(network, view).float().cpu())
                labels.append(truth)
    return torch.cat(parts), torch.cat(labels)


def pre_logits(network: nn.Module, inputs: Tensor) -> Tensor:
    """What the classifier reads, ``[N, features]``."""
    assert isinstance(network, Network)
    return network.forward_head(network.forward_features(inputs), pre_logits=True)


def solve_head(
    classifier: nn.Linear, features: Tensor, labels: Tensor, offset: Tensor, l2: float
) -> None:
    """Fit a linear classifier by L-BFGS and write it into ``classifier``.

    Minimizes the mean cross-entropy of ``standardized @ W.T + b + offset`` plus ``l2 / 2 * |W|^2``;
    the standardization is folded into the weights, so that they read raw features.

    Args:
        classifier: of ``features`` inputs and K outputs; overwritten.
        features: float32 ``[N, features]``.
        labels: ``[N]``.
        offset: added to the logits while fitting, ``[K]`` (logit adjustment).
        l2: penalty.
    """
    mean, std = features.mean(0), features.std(0)
    std = std + 1e-3 * std.mean() + 1e-6  # a feature that never fires stays at zero
    standardized = (features - mean) / std
    weight = torch.zeros(classifier.out_features, features.shape[1], requires_grad=True)
    bias = torch.zeros(classifier.out_features, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=60, history_size=10, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(F.linear(standardized, weight, bias) + offset, labels)
        loss = loss + l2 / 2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    solver.step(closure)  # type: ignore[arg-type]
    with torch.no_grad():
        classifier.weight.copy_(weight / std)
        classifier.bias.copy_(bias - (weight / std) @ mean)


def unfreeze_last(network: nn.Module, count: int) -> None:
    """Let the last ``count`` layers that have weights be trained, and no others."""
    layers = [
        module
        for module in network.modules()
        if any(True for _ in module.parameters(recurse=False))
    ]
    for number, module in enumerate(layers):
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad = number >= len(layers) - count


def linear_classifier(network: nn.Module) -> nn.Linear:
    """The network's last layer, or UsageError where it is not a linear one."""
    classifier = network.get_classifier() if isinstance(network, Network) else None
    if not isinstance(classifier, nn.Linear):
        raise UsageError(
            f"{getattr(network, 'model_name', type(network).__name__)} has no linear classifier to "
            f"fine-tune: choose an AlexNet, such as --model alexnet_owt"
        )
    return classifier

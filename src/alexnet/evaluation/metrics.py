"""What a network scored: first what became of each picture, then figures over all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alexnet.data.sources import BadImage
from alexnet.evaluation.calibration import Reliability, reliability
from alexnet.evaluation.intervals import Interval, bootstrap, share_interval
from alexnet.runtime import add_up


@dataclass(frozen=True)
class Answers:
    """What became of each picture, ``[N]`` each.

    Attributes:
        labels: its class.
        taken_for: the class with the largest probability.
        confidence: that probability.
        right5: whether its class is among the five most probable (all classes, if fewer).
        losses: its cross-entropy in nats, float64.
    """

    labels: Tensor
    taken_for: Tensor
    confidence: Tensor
    right5: Tensor
    losses: Tensor

    @property
    def right1(self) -> Tensor:
        """Whether its class is the most probable."""
        return self.taken_for == self.labels


class Tally:
    """Answers of one batch after another: exact for any batch size and order.

    Args:
        num_classes: K.
        images: how many pictures there are, over all processes.
    """

    def __init__(self, num_classes: int, images: int) -> None:
        self.num_classes, self.images = num_classes, images
        whole = torch.zeros(3, images, dtype=torch.int64)
        self._labels, self._taken_for, self._right5 = whole
        self._confidence, self._losses = torch.zeros(2, images, dtype=torch.float64)

    def add(self, logits: Tensor, labels: Tensor, indices: Tensor) -> None:
        """Note one batch.

        Args:
            logits: ``[B, K]``, or logarithms of probabilities.
            labels: int64 ``[B]``.
            indices: int64 ``[B]``, which of the pictures they are.
        """
        logits, labels = logits.double().cpu(), labels.cpu()
        best = logits.topk(min(5, self.num_classes), dim=1).indices
        self._labels[indices] = labels
        self._taken_for[indices] = best[:, 0]
        self._right5[indices] = (best == labels[:, None]).any(1).long()
        self._confidence[indices] = logits.softmax(1).amax(1)
        losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        self._losses[indices] = losses

    def add_up(self) -> None:
        """Take over what the other processes noted; all of them call it together."""
        parts = self._labels, self._taken_for, self._right5, self._confidence, self._losses
        for part in parts:
            add_up(part)

    def answers(self) -> Answers:
        """What was noted."""
        return Answers(
            self._labels, self._taken_for, self._confidence, self._right5.bool(), self._losses
        )


@dataclass(frozen=True)
class Mistake:
    """A picture that was taken for another class.

    Attributes:
        name: of the picture.
        label: what it is.
        predicted: what it was taken for.
        probability: that the network gave to ``predicted``.
        thumbnail: uint8 ``[H, W, C]``, what the network saw.
    """

    name: str
    label: str
    predicted: str
    probability: float
    thumbnail: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Evaluation:
    """What a network scored on a set of labeled pictures; shares are from 0 to 1.

    Attributes:
        images: how many pictures were read.
        top1: share whose class came first.
        top5: share whose class was among the first five.
        loss: mean cross-entropy (nats).
        balanced_accuracy: mean over the classes present of each class's recall.
        confusion: ``[K, K]`` counts, rows the true class.
        classes: their names.
        mistakes: the most confident wrong answers, worst first.
        skipped: pictures that could not be read, and why.
        intervals: for ``top1``, ``top5`` and ``loss`` the ends of the 95% interval (bootstrap; of
            shares of few right or wrong answers Wilson's).
        reliability: how often answers of some confidence are right.
        views: of each picture, whose probabilities were averaged.
        members: name and score of each network alone, where there were several.
        robustness: top-1 under common corruptions, and means; None where that was not asked for.
        answers: what became of each picture.
    """

    images: int
    top1: float
    top5: float
    loss: float
    balanced_accuracy: float
    confusion: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    mistakes: tuple[Mistake, ...] = ()
    skipped: tuple[BadImage, ...] = field(default=())
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    reliability: Reliability | None = None
    views: str = "center"
    members: tuple[tuple[str, Evaluation], ...] = ()
    robustness: Mapping[str, Any] | None = None
    answers: Answers | None = field(default=None, repr=False, compare=False)

    @classmethod
    def from_tally(cls, tally: Tally, classes: tuple[str, ...], **more: Any) -> Evaluation:
        """The figures of what ``tally`` has noted."""
        answers, count = tally.answers(), max(1, tally.images)
        size = len(classes)
        pairs = torch.bincount(answers.labels * size + answers.taken_for, minlength=size**2)
        confusion = pairs.view(size, size).numpy()
        present = confusion.sum(1) > 0
        recalls = confusion.diagonal()[present] / confusion.sum(1)[present]
        right = answers.right1, answers.right5
        return cls(
            images=tally.images,
            top1=int(right[0].sum()) / count,
            top5=int(right[1].sum()) / count,
            loss=float(answers.losses.sum()) / count,
            balanced_accuracy=float(recalls.mean()) if present.any() else 0.0,
            confusion=confusion,
            classes=classes,
            reliability=reliability(answers.confidence, answers.right1),
            answers=answers,
            **more,
        )

    def with_intervals(self) -> Evaluation:
        """The same with :attr:`intervals`, its own and its members'."""
        if self.answers is None or not self.images:
            return self
        answers = self.answers
        figures = [answers.right1.double(), answers.right5.double(), answers.losses]
        top1, top5, loss = bootstrap(torch.stack(figures))
        top1, top5 = (
            share_interval(int(right.sum()), self.images, ends)
            for right, ends in ((answers.right1, top1), (answers.right5, top5))
        )
        members = tuple((name, one.with_intervals()) for name, one in self.members)
        intervals = {"top1": top1, "top5": top5, "loss": loss}
        return replace(self, intervals=intervals, members=members)

    @property
    def only_answer(self) -> str | None:
        """The class that every picture was taken for, though they are of several; else None."""
        given, present = self.confusion.sum(0).nonzero()[0], self.confusion.sum(1).nonzero()[0]
        return self.classes[given[0]] if len(given) == 1 < len(present) else None

    @property
    def calibration_error(self) -> float | None:
        """Expected calibration error in 15 bins (Guo et al. 2017)."""
        return None if self.reliability is None else self.reliability.error

    @property
    def gain(self) -> dict[str, Any] | None:
        """What an ensemble has above its best member: the paired difference of top-1, its ends.

        None for one network alone.
        """
        if not self.members or self.answers is None:
            return None
        name, best = max(self.members, key=lambda member: member[1].top1)
        assert best.answers is not None
        apart = self.answers.right1.double() - best.answers.right1.double()
        ((low, high),) = bootstrap(apart[None])
        return {"over": name, "top1": self.top1 - best.top1, "interval": [low, high]}

    @property
    def per_class(self) -> list[dict[str, Any]]:
        """For each class its name, pictures, recall and precision (None where undefined)."""
        rows = []
        predicted = self.confusion.sum(0)
        for number, name in enumerate(self.classes):
            images, right = int(self.confusion[number].sum()), int(self.confusion[number, number])
            rows.append(
                {
                    "class": name,
                    "images": images,
                    "recall": right / images if images else None,
                    "precision": right / int(predicted[number]) if predicted[number] else None,
                }
            )
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; the mistakes' pictures are left out."""
        return {
            "top1": self.top1,
            "top5": self.top5,
            "loss": self.loss,
            "balanced_accuracy": self.balanced_accuracy,
            "images": self.images,
            "views": self.views,
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
            "calibration_error": self.calibration_error,
            "reliability": self.reliability and self.reliability.to_dict(),
            "members": [
                {"name": name, "top1": one.top1, "top5": one.top5, "loss": one.loss}
                for name, one in self.members
            ],
            "gain": self.gain,
            "robustness": None if self.robustness is None else dict(self.robustness),
            "skipped": len(self.skipped),
            "bad_images": [{"name": bad.name, "reason": bad.reason} for bad in self.skipped],
            "per_class": self.per_class,
            "confusion": self.confusion.tolist(),
            "mistakes": [
                {
                    "image": m.name,
                    "label": m.label,
                    "predicted": m.predicted,
                    "probability": m.probability,
                }
                for m in self.mistakes
            ],
        }

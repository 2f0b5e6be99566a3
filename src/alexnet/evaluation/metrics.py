"""Counts first, ratios last: an evaluation adds up sums and divides once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alexnet.data.sources import BadImage
from alexnet.runtime import add_up


class Tally:
    """Running sums over batches: exact for any batch size.

    Attributes:
        images: pictures counted.
        loss: sum of the pictures' cross-entropies (float64).
        right1: pictures whose class has the largest logit.
        right5: pictures whose class is among the five largest (all classes, if fewer).
        confusion: ``[K, K]`` counts, rows the true class, columns the predicted one.
    """

    def __init__(self, num_classes: int) -> None:
        self.images = 0
        self.loss = 0.0
        self.right1 = 0
        self.right5 = 0
        self.confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Count one batch: logits ``[N, K]``, labels ``[N]`` (on one device)."""
        logits = logits.double()
        num_classes = logits.shape[1]
        best = logits.topk(min(5, num_classes), dim=1).indices
        hits = best == labels[:, None]
        self.images += len(labels)
        self.right1 += int(hits[:, 0].sum())
        self.right5 += int(hits.sum())
        self.loss += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
        pairs = (labels * num_classes + best[:, 0]).cpu()
        self.confusion += torch.bincount(pairs, minlength=num_classes**2).view_as(self.confusion)

    def add_up(self) -> None:
        """Add what the other processes counted; all of them call it together."""
        counts = torch.tensor([self.images, self.right1, self.right5])
        self.images, self.right1, self.right5 = add_up(counts).tolist()
        self.loss = float(add_up(torch.tensor(self.loss, dtype=torch.float64)))
        add_up(self.confusion)


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

    @classmethod
    def from_tally(cls, tally: Tally, classes: tuple[str, ...], **more: Any) -> Evaluation:
        """Divide the sums of ``tally``."""
        confusion = tally.confusion.numpy()
        count = max(1, tally.images)
        present = confusion.sum(1) > 0
        recalls = confusion.diagonal()[present] / confusion.sum(1)[present]
        return cls(
            images=tally.images,
            top1=tally.right1 / count,
            top5=tally.right5 / count,
            loss=tally.loss / count,
            balanced_accuracy=float(recalls.mean()) if present.any() else 0.0,
            confusion=confusion,
            classes=classes,
            **more,
        )

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

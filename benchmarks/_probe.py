"""The rival of fine-tuning: a linear probe on the same frozen features, at its best."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import balanced_accuracy_score

import alexnet
from alexnet.data.loader import load_pixels
from alexnet.data.sources import Pictures
from alexnet.models.contract import Network
from alexnet.models.pretrained import load_run

Labeled = tuple[NDArray[np.float32], NDArray[np.int64]]


@torch.inference_mode()
def features(run: Path, pictures: Pictures) -> Labeled:
    """pool5 of the frozen network for pictures prepared as the run prepares them."""
    loaded = load_run(run)
    size = loaded.spec.size
    frozen = alexnet.create_model(
        "alexnet_owt", "imagenet1k-features", hidden=0, image_size=size
    ).eval()
    assert isinstance(frozen, Network)
    pixels = load_pixels(pictures, loaded.spec, train=False)
    parts = [
        frozen.forward_features(loaded.spec.normalize(batch)).flatten(1).numpy()
        for batch, _, _ in pixels.batches(torch.arange(len(pixels)).split(64))
    ]
    return np.concatenate(parts), pictures.labels


def joined(first: Labeled, second: Labeled) -> Labeled:
    """Two sets as one."""
    return np.concatenate((first[0], second[0])), np.concatenate((first[1], second[1]))


def probe(train: Labeled, test: Labeled, class_weight: str | None) -> dict[str, float]:
    """Top-1 and balanced accuracy of logistic regression on standardized features.

    Its penalty is tuned by five-fold cross-validation. The features are rotated onto the training
    pictures' own span first, which changes nothing in an L2-penalized linear model and makes the
    problem small.
    """
    mean, std = train[0].mean(0), train[0].std(0) + 1e-6
    standard = (train[0] - mean) / std
    _, _, axes = np.linalg.svd(standard, full_matrices=False)
    model = LogisticRegressionCV(
        Cs=[1e-5, 1e-4, 1e-3, 1e-2, 1e-1],
        cv=5,
        class_weight=class_weight,
        scoring="balanced_accuracy",
        max_iter=500,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # steps that end at max_iter, renamed arguments
        model.fit(standard @ axes.T, train[1])
    predicted = model.predict(((test[0] - mean) / std) @ axes.T)
    return {
        "top1": float((predicted == test[1]).mean()),
        "balanced": float(balanced_accuracy_score(test[1], predicted)),
    }

"""What AlexNet displaced: hand-made features with a linear classifier.

Histograms of oriented gradients (Dalal, Triggs: Histograms of Oriented Gradients for Human
Detection. CVPR 2005), by scikit-image, and a linear support vector machine, by scikit-learn.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alexnet.data.fit import fit
from alexnet.data.sources import Pictures, Splits
from alexnet.data.split import stratified_split
from alexnet.data.threads import in_threads
from alexnet.errors import missing_extra
from alexnet.evaluation.metrics import Evaluation, Tally
from alexnet.progress import track
from alexnet.spec import InputSpec

NAME = "hog-svm"
SIDE, SMALL_SIDE = 64, 28
"""Pixels of the square that is described; small pictures are read at the smaller."""
PENALTIES, HELD = (0.01, 0.1, 1.0), 0.2
"""Values of C that are tried, on that share of the training pictures."""


def measure(splits: Splits, seed: int = 0) -> tuple[dict[str, Any], Evaluation]:
    """Fit and test it.

    Args:
        splits: the parts of the data, of which there is a test part; the others are learned from.
        seed: which pictures the penalty is chosen on.

    Returns:
        The row of a comparison but for what it scored, and what it scored on the test part.

    Raises:
        UsageError: scikit-image or scikit-learn is not installed.
    """
    try:
        from sklearn.svm import LinearSVC
    except ImportError as error:
        raise missing_extra("scikit-learn", "classic", NAME) from error
    spec = _spec(splits.train)
    began = time.perf_counter()
    features, labels = _all_features(splits.train, spec, "describing the training pictures")
    if splits.val is not None:
        more, theirs = _all_features(splits.val, spec, "describing the validation pictures")
        features, labels = np.concatenate((features, more)), np.concatenate((labels, theirs))
    kept, held = stratified_split(labels, HELD, seed)

    def fitted(penalty: float, rows: NDArray[np.int64]) -> Any:
        return LinearSVC(C=penalty, random_state=seed).fit(features[rows], labels[rows])

    scores = dict.fromkeys(PENALTIES, 0.0)
    if len(held):  # not where every class has a single picture
        scores = {c: fitted(c, kept).score(features[held], labels[held]) for c in PENALTIES}
    chosen = max(scores, key=lambda c: scores[c])
    machine = fitted(chosen, np.arange(len(labels)))
    seconds = time.perf_counter() - began
    test = splits.test
    assert test is not None
    theirs_, truth = _all_features(test, spec, "describing the test pictures")
    outputs = np.full((len(truth), len(splits.classes)), -np.inf)
    decided = machine.decision_function(theirs_)
    if decided.ndim == 1:  # of two classes it gives one number
        decided = np.stack((-decided, decided), 1)
    outputs[:, machine.classes_] = decided
    tally = Tally(len(splits.classes), len(truth))
    tally.add(torch.from_numpy(outputs), torch.from_numpy(truth), torch.arange(len(truth)))
    evaluation = Evaluation.from_tally(tally, splits.classes).with_intervals()
    weights = int(machine.coef_.size + machine.intercept_.size)
    return {
        "year": 2005,
        "authors": "Dalal, Triggs (features)",
        "layers": 1,
        "activation": "none",
        "pooling": "histograms of 8 gradient directions in cells",
        "regularization": f"C = {chosen:g}",
        "normalization": "blocks of 2x2 cells (L2, clipped)",
        "input": [1, spec.size, spec.size],
        "parameters": weights,
        "fixed_parameters": 0,
        "macs": weights - len(machine.intercept_),
        "weight_bytes": 8 * weights,
        "activation_bytes": 8 * features.shape[1],
        "initialized_from": "hand-made features",
        "trained_on": splits.name,
        "train_images": len(labels),
        "train_seconds": round(seconds, 3),
        "accelerator": "processor",
        **_speed(machine, test, spec),
    }, evaluation


def _spec(pictures: Pictures) -> InputSpec:
    sample = [min(pictures.read(i).shape[:2]) for i in range(min(20, len(pictures)))]
    side = SMALL_SIDE if float(np.median(sample)) <= SMALL_SIDE else SIDE
    return InputSpec(size=side, resize=side, channel_order="gray", mean=(0.0,), std=(1.0,))


def _describe(square: NDArray[np.uint8]) -> NDArray[np.float32]:
    try:
        from skimage.feature import hog
    except ImportError as error:
        raise missing_extra("scikit-image", "classic", NAME) from error
    cell = 4 if square.shape[-1] <= SMALL_SIDE else 8
    found = hog(
        square[0], orientations=8, pixels_per_cell=(cell, cell), cells_per_block=(2, 2),
        block_norm="L2-Hys",
    )  # fmt: skip
    return np.asarray(found, np.float32)


def _all_features(
    pictures: Pictures, spec: InputSpec, title: str
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    described = in_threads(
        lambda index: _describe(fit(pictures.read(index), spec)), range(len(pictures))
    )
    rows = list(track(described, title, len(pictures)))
    return np.stack(rows), np.asarray(pictures.labels, np.int64)


def _speed(machine: Any, pictures: Pictures, spec: InputSpec) -> dict[str, float]:
    squares = [fit(pictures.read(i), spec) for i in range(min(64, len(pictures)))]
    runs = []
    for square in squares:
        began = time.perf_counter()
        machine.decision_function(_describe(square)[None])
        runs.append(time.perf_counter() - began)
    each = sorted(runs)[len(runs) // 2]
    return {"images_per_second": round(1 / each, 1), "latency_ms": round(1000 * each, 3)}

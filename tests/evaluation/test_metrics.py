from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from alexnet.data.sources import BadImage
from alexnet.evaluation import Evaluation, Mistake, Tally

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(53, 7, generator=GENERATOR)
LABELS = torch.randint(0, 6, (53,), generator=GENERATOR)  # class 6 has no picture
CLASSES = tuple("abcdefg")


def tally(batch_size: int, logits: torch.Tensor = LOGITS) -> Tally:
    counted = Tally(logits.shape[1], len(logits))
    order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(batch_size))
    for some in order.split(batch_size):
        counted.add(logits[some], LABELS[some], some)
    return counted


@pytest.mark.parametrize("batch_size", [1, 2, 5, 52, 53, 1000])
def test_the_sums_are_those_of_plain_numpy_for_any_batch_size(batch_size: int) -> None:
    result = Evaluation.from_tally(tally(batch_size), CLASSES)
    logits, labels = LOGITS.numpy().astype(np.float64), LABELS.numpy()
    order = np.argsort(-logits, axis=1)
    rows = np.arange(len(labels))
    shifted = logits - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[rows, labels]
    confusion = np.zeros((7, 7), dtype=np.int64)
    np.add.at(confusion, (labels, order[:, 0]), 1)
    assert result.images == 53
    assert result.top1 == (order[:, 0] == labels).sum() / 53
    assert result.top5 == (order[:, :5] == labels[:, None]).sum() / 53
    assert result.loss == pytest.approx(losses.mean(), rel=1e-12)
    np.testing.assert_array_equal(result.confusion, confusion)
    recalls = [(order[labels == one, 0] == one).mean() for one in range(6)]
    assert result.balanced_accuracy == pytest.approx(np.mean(recalls), rel=1e-12)


def test_with_fewer_than_five_classes_all_are_among_the_first_five() -> None:
    counted = Tally(3, 1)
    counted.add(torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([0]), torch.tensor([0]))
    result = Evaluation.from_tally(counted, ("a", "b", "c"))
    assert (result.top1, result.top5) == (0.0, 1.0)


def test_bf16_logits_are_added_in_float64() -> None:
    result = tally(10, LOGITS.bfloat16()).answers().losses.sum()
    exact = torch.nn.functional.cross_entropy(LOGITS.bfloat16().double(), LABELS, reduction="sum")
    assert result.item() == pytest.approx(exact.item(), rel=1e-12)


def test_no_picture_is_no_division_by_zero() -> None:
    result = Evaluation.from_tally(Tally(2, 0), ("a", "b"))
    assert (result.images, result.top1, result.loss, result.balanced_accuracy) == (0, 0, 0, 0)


def test_each_class_by_hand() -> None:
    counted = Tally(3, 4)
    one_hot = torch.eye(3)
    guesses, labels = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 1])
    counted.add(one_hot[guesses], labels, torch.arange(4))
    rows = Evaluation.from_tally(counted, ("a", "b", "c")).per_class
    assert rows == [
        {"class": "a", "images": 3, "recall": 2 / 3, "precision": 1.0},
        {"class": "b", "images": 1, "recall": 1.0, "precision": 0.5},
        {"class": "c", "images": 0, "recall": None, "precision": None},
    ]


@pytest.mark.parametrize(
    ("guesses", "labels", "only"),
    [
        ([1, 1, 1], [0, 1, 2], "b"),
        ([1, 1, 2], [0, 1, 2], None),
        ([1, 1, 1], [1, 1, 1], None),  # there is one class: all are right
        ([1, 1, 1], [2, 2, 2], None),
    ],
)
def test_one_answer_to_every_picture_is_noticed(
    guesses: list[int], labels: list[int], only: str | None
) -> None:
    counted = Tally(3, 3)
    counted.add(torch.eye(3)[guesses], torch.tensor(labels), torch.arange(3))
    assert Evaluation.from_tally(counted, ("a", "b", "c")).only_answer == only


def test_it_becomes_plain_json() -> None:
    wrong = Mistake("x.png", "a", "b", 0.75, np.zeros((2, 2, 3), dtype=np.uint8))
    result = Evaluation.from_tally(
        tally(53), CLASSES, mistakes=(wrong,), skipped=(BadImage("y.png", "empty file"),)
    )
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert content["skipped"] == 1
    assert content["bad_images"] == [{"name": "y.png", "reason": "empty file"}]
    assert content["mistakes"] == [
        {"image": "x.png", "label": "a", "predicted": "b", "probability": 0.75}
    ]
    assert content["top1"] == result.top1
    assert np.array(content["confusion"]).sum() == 53
    assert [row["class"] for row in content["per_class"]] == list(CLASSES)

"""The loop on pictures that are drawn here: a bright square at one of four corners."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from alexnet import runtime as machine
from alexnet.data.augment import AugmentConfig
from alexnet.data.loader import MemoryPixels
from alexnet.data.sources import BadImage
from alexnet.errors import FailedError
from alexnet.evaluation import Evaluation, score
from alexnet.models import create_model, input_spec
from alexnet.training import checkpoint
from alexnet.training.checkpoint import Position
from alexnet.training.config import TrainingConfig
from alexnet.training.folder import RunFolder
from alexnet.training.loop import Job, describe, fit

CORNERS = ("top left", "top right", "bottom left", "bottom right")
SPEC = input_spec("lenet5_dense")


def corners(
    count: int = 96, seed: int = 0, shares: tuple[float, ...] = (1, 1, 1, 1)
) -> MemoryPixels:
    """Gray pictures of 28x28, a bright square on noise in one of the corners."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 120, (count, 1, 28, 28), generator=generator, dtype=torch.uint8)
    labels = torch.multinomial(
        torch.tensor(shares, dtype=torch.float32), count, True, generator=generator
    )
    for image, label in zip(images, labels.tolist(), strict=True):
        top, left = 16 * (label // 2), 16 * (label % 2)
        image[0, top : top + 12, left : left + 12] += 100
    return MemoryPixels(images, labels, [f"{number}.png" for number in range(count)])


def make_job(folder: Path, *, augment: AugmentConfig | None = None, **settings: Any) -> Job:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    network = create_model("lenet5_dense", num_classes=4)
    defaults: dict[str, Any] = {"epochs": 3, "batch_size": 16, "lr": 0.05, "device": "cpu"}
    return Job(
        network=network,
        pixels=corners(),
        classes=4,
        spec=SPEC,
        training=TrainingConfig(**{**defaults, **settings}),
        augment=augment or AugmentConfig(),
        colors=None,
        runtime=machine.resolve("cpu", settings.get("precision", "fp32"), large=False),
        folder=RunFolder(folder),
        validate=None,
        keep=lambda position: None,
        stage="train",
        position=Position(),
    )


def top1(job: Job, pixels: MemoryPixels) -> float:
    return score(job.network, pixels, SPEC, job.runtime, CORNERS).top1


def judged(*scores: float, images: int = 100, loss: float = 1.0, balanced: float = 0.5) -> Any:
    """A validation that returns these shares of right answers, one an epoch."""
    remaining = iter(scores)

    def validate() -> Evaluation:
        return Evaluation(
            images=images, top1=next(remaining), top5=1.0, loss=loss, balanced_accuracy=balanced,
            confusion=torch.zeros(4, 4, dtype=torch.int64).numpy(), classes=CORNERS,
            skipped=(BadImage("a", "b"),),
        )  # fmt: skip

    return validate


def test_it_learns_and_writes_what_it_did(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    job = make_job(tmp_path, epochs=6)
    unseen = corners(seed=1)
    assert top1(job, unseen) < 0.6
    with caplog.at_level("INFO", logger="alexnet"):
        position = fit(job)
    assert top1(job, unseen) > 0.95
    assert position.finished
    assert position.epoch == 6
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2, 3, 4, 5, 6]
    for record in records:
        assert record.keys() == {
            "format_version", "epoch", "stage", "train_loss", "train_top1", "seconds",
            "images_per_second",
        }  # fmt: skip
    assert records[-1]["train_loss"] < 0.2 < 1 < records[0]["train_loss"]
    assert records[-1]["train_top1"] > 0.95
    assert "train 6/6: loss" in caplog.text
    assert list((tmp_path / "tensorboard").iterdir())


def test_the_training_loss_and_top1_are_those_of_the_epoch(tmp_path: Path) -> None:
    """With a rate of almost nothing the network does not move: its score is the epoch's."""
    job = make_job(tmp_path, epochs=1, lr=1e-12, batch_size=7)  # the last batch is smaller
    (record,) = fit(job).history
    evaluation = score(job.network, job.pixels, SPEC, job.runtime, CORNERS)
    assert record["train_loss"] == pytest.approx(evaluation.loss, rel=1e-5)
    assert record["train_top1"] == pytest.approx(evaluation.top1)


def test_a_second_training_gives_the_same_bits(tmp_path: Path) -> None:
    first, second = make_job(tmp_path / "1"), make_job(tmp_path / "2")
    for job in (first, second):
        torch.manual_seed(id(job) % 1000)
        fit(job)
    for name, tensor in first.network.state_dict().items():
        assert torch.equal(second.network.state_dict()[name], tensor)


def kept_epochs(job: Job) -> list[int]:
    kept: list[int] = []
    job.keep = lambda position: kept.append(position.epoch)
    fit(job)
    return kept


def test_the_best_is_kept_with_one_standard_error_for_the_later(tmp_path: Path) -> None:
    # On 100 pictures at 0.80 a standard error is 0.04.
    job = make_job(tmp_path, epochs=5, keep="best")
    job.validate = judged(0.80, 0.77, 0.75, 0.90, 0.88)
    assert kept_epochs(job) == [0, 1, 3, 4]
    assert job.position.best_score == 0.90


def test_many_pictures_leave_less_to_chance(tmp_path: Path) -> None:
    job = make_job(tmp_path, epochs=3, keep="best")
    job.validate = judged(0.80, 0.79, 0.81, images=10_000)
    assert kept_epochs(job) == [0, 2]


def test_the_standard_error_is_not_a_staircase_down(tmp_path: Path) -> None:
    """Each epoch is measured against the best of all, not against the one that is kept."""
    job = make_job(tmp_path, epochs=4, keep="best")
    job.validate = judged(0.80, 0.77, 0.74, 0.71)
    assert kept_epochs(job) == [0, 1]


def test_the_last_is_kept_whatever_its_score(tmp_path: Path) -> None:
    job = make_job(tmp_path, epochs=3, keep="last")
    job.validate = judged(0.9, 0.5, 0.1)
    assert kept_epochs(job) == [0, 1, 2]
    job = make_job(tmp_path / "b", epochs=2, keep="best")  # nothing to judge by
    assert kept_epochs(job) == [0, 1]


def test_balanced_classes_are_judged_by_balanced_accuracy(tmp_path: Path) -> None:
    job = make_job(tmp_path, epochs=2, keep="best", class_balance=1.0)
    job.validate = judged(0.9, 0.1, balanced=0.7)
    assert kept_epochs(job) == [0, 1]
    assert job.position.best_score == 0.7


def test_patience_ends_it_early(tmp_path: Path) -> None:
    job = make_job(tmp_path, epochs=9, keep="best", patience=2)
    job.validate = judged(0.9, 0.91, 0.5, 0.5, 0.99)
    position = fit(job)
    assert [record["epoch"] for record in position.history] == [1, 2, 3, 4]
    assert position.finished
    assert position.best_epoch == 1


def test_a_loss_that_is_no_number_ends_it_in_one_line(tmp_path: Path) -> None:
    job = make_job(tmp_path, lr=0.5)
    with torch.no_grad():
        next(job.network.parameters()).fill_(float("nan"))
    with pytest.raises(FailedError) as caught:
        fit(job)
    said = str(caught.value)
    assert said.startswith("the loss is no longer a number (epoch 1, batch 6): lower the learning")
    assert "--set training.lr=0.05" in said
    assert "\n" not in said
    assert not checkpoint.found(job.folder.checkpoints)


def test_a_validation_loss_that_is_no_number_ends_it_too(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    job.validate = judged(0.5, loss=float("nan"))
    with pytest.raises(FailedError, match="validation of epoch 1"):
        fit(job)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_class_balance_raises_the_recall_of_the_rare(tmp_path: Path) -> None:
    recalls = []
    for balance in (0.0, 1.0):
        job = make_job(tmp_path / str(balance), epochs=3, class_balance=balance, lr=0.02)
        job.pixels = corners(count=128, shares=(0.9, 0.034, 0.033, 0.033))
        # The square is hard to see: what the network is not sure of is decided by the classes.
        job.pixels.images = (job.pixels.images.float() / 2 + 30 * torch.rand(128, 1, 28, 28)).byte()
        fit(job)
        recalls.append(score(job.network, corners(seed=2), SPEC, job.runtime, CORNERS))
    assert recalls[1].balanced_accuracy > recalls[0].balanced_accuracy + 0.05


@pytest.mark.skipif(
    not machine.has_fast_bf16(torch.device("cpu")), reason="this processor has no bf16"
)
def test_bf16_learns_and_leaves_float32_weights(tmp_path: Path) -> None:
    job = make_job(tmp_path, epochs=6, precision="bf16")
    fit(job)
    assert top1(job, corners(seed=1)) > 0.9
    assert {p.dtype for p in job.network.parameters()} == {torch.float32}
    plain = make_job(tmp_path / "fp32", epochs=6)
    fit(plain)
    assert not torch.equal(next(plain.network.parameters()), next(job.network.parameters()))


def test_what_is_frozen_stays(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    frozen = list(job.network.parameters())[:2]
    for parameter in frozen:
        parameter.requires_grad = False
    before = [parameter.clone() for parameter in frozen]
    last = list(job.network.parameters())[-1].clone()
    fit(job)
    assert all(torch.equal(a, b) for a, b in zip(before, frozen, strict=True))
    assert not torch.equal(last, list(job.network.parameters())[-1])


def test_the_gradient_is_clipped(tmp_path: Path) -> None:
    job = make_job(
        tmp_path, epochs=1, batch_size=96, lr=1.0, momentum=0.0, weight_decay=0.0,
        warmup=0.0, clip_norm=0.001,
    )  # fmt: skip
    before = [parameter.detach().clone() for parameter in job.network.parameters()]
    fit(job)
    pairs = zip(before, job.network.parameters(), strict=True)
    moved = torch.stack([(a - b.detach()).norm() for a, b in pairs]).norm()
    assert moved.item() == pytest.approx(0.001, rel=1e-3)


class Stopping(MemoryPixels):
    """Pictures that send a signal before a batch."""

    def __init__(self, pixels: MemoryPixels, at: int, number: signal.Signals) -> None:
        super().__init__(pixels.images, pixels.labels, pixels.names)
        self.at, self.number, self.seen = at, number, 0

    def batches(self, plan: Any) -> Any:
        for batch in super().batches(plan):
            if self.seen == self.at:
                os.kill(os.getpid(), self.number)
            self.seen += 1
            yield batch


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at", [0, 8, 11, 17])  # of 3 epochs of 6 batches
def test_interrupted_at_any_batch_it_goes_on_to_the_same_bits(
    at: int, number: signal.Signals, tmp_path: Path
) -> None:
    augment = AugmentConfig(rotate=5.0)
    undisturbed = make_job(tmp_path / "undisturbed", augment=augment)
    expected = fit(undisturbed)
    job = make_job(tmp_path / "interrupted", augment=augment)
    job.pixels = Stopping(corners(), at, number)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        fit(job)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    again = make_job(tmp_path / "interrupted", augment=augment)
    position = fit(again)
    for name, tensor in undisturbed.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], tensor)
    for mine, theirs in zip(position.history, expected.history, strict=True):
        assert mine["train_loss"] == theirs["train_loss"]
        assert mine["train_top1"] == theirs["train_top1"]


def test_interrupted_in_the_last_validation_it_stops_and_nothing_is_left_to_do(
    tmp_path: Path,
) -> None:
    job = make_job(tmp_path, epochs=1)
    answer = judged(0.5)

    def validate() -> Evaluation:
        os.kill(os.getpid(), signal.SIGINT)
        return answer()

    job.validate = validate
    with pytest.raises(KeyboardInterrupt):
        fit(job)
    position = fit(make_job(tmp_path, epochs=1))
    assert position.finished
    assert len(position.history) == 1


def test_a_second_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    job.pixels = Stopping(corners(), 0, signal.SIGINT)
    inner = job.network.forward

    def forward(inputs: torch.Tensor) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        return inner(inputs)

    job.network.forward = forward
    with pytest.raises(KeyboardInterrupt):
        fit(job)
    assert not checkpoint.found(job.folder.checkpoints)


def test_a_second_sigterm_leaves_time_for_the_checkpoint(tmp_path: Path) -> None:
    """Slurm sends one to every process, and torchrun passes its own on."""
    job = make_job(tmp_path)
    job.pixels = stopping = Stopping(corners(), 2, signal.SIGTERM)
    inner = job.network.forward

    def forward(inputs: torch.Tensor) -> torch.Tensor:
        if stopping.seen == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return inner(inputs)

    job.network.forward = forward
    with pytest.raises(KeyboardInterrupt):
        fit(job)
    (path,) = checkpoint.found(job.folder.checkpoints)
    assert path.stem == "epoch-0000-batch-000003"


def test_a_position_that_is_given_comes_first_in_the_history(tmp_path: Path) -> None:
    job = make_job(tmp_path, epochs=1, keep="best")
    head = {"epoch": 0, "stage": "head", "train_loss": 1.0, "train_top1": 0.5}
    job.position = Position(history=[head], best_score=0.99)
    job.validate = judged(0.5)
    job.stage = "finetune"
    position = fit(job)
    assert [record["stage"] for record in position.history] == ["head", "finetune"]
    assert position.best_epoch == -1


def test_an_epoch_as_a_line() -> None:
    record = {
        "stage": "train", "epoch": 2, "train_loss": 0.5, "train_top1": 0.75, "seconds": 1.25,
        "images_per_second": 1234.5, "val_loss": 0.6, "val_top1": 0.7,
    }  # fmt: skip
    assert describe(record, 9) == (
        "train 2/9: loss 0.5000, top-1 0.7500 | validation loss 0.6000, top-1 0.7000 "
        "| 1.2 s, 1234 images/s"
    )


def test_networks_with_another_criterion_learn(tmp_path: Path) -> None:
    job = make_job(tmp_path, epochs=12, lr=0.002, batch_size=8)
    torch.manual_seed(0)
    job.network = create_model("lenet5", num_classes=4)
    fit(job)
    assert isinstance(job.network, nn.Module)
    assert top1(job, corners(seed=1)) > 0.9

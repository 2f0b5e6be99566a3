from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from alexnet.errors import UsageError
from alexnet.training import checkpoint
from alexnet.training.checkpoint import Position, found, load_newest, save
from alexnet.training.config import TrainingConfig
from alexnet.training.optim import build_optimizer


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    return layers.to(memory_format=torch.channels_last)


def optimizer_of(model: nn.Module, kind: Any = "adamw") -> torch.optim.Optimizer:
    return build_optimizer(model.parameters(), TrainingConfig(optimizer=kind, lr=0.01))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    inputs = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    model(inputs.to(memory_format=torch.channels_last)).square().sum().backward()
    optimizer.step()


POSITION = Position(
    epoch=3,
    batch=7,
    totals={"loss": 1.5, "right": 3.0},
    history=[{"epoch": 1, "stage": "train", "train_loss": 0.25}],
    best_epoch=2,
    best_score=0.75,
    finished=True,
)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_what_was_saved_is_loaded(kind: str, tmp_path: Path) -> None:
    model = network()
    optimizer = optimizer_of(model, kind)
    step(model, optimizer, 0)
    save(tmp_path, POSITION, model, optimizer)
    other = network(seed=1)
    others = optimizer_of(other, kind)
    assert load_newest(tmp_path, other, others) == POSITION
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)
    # Both go on alike: the optimizer's buffers are the same, and in the same places.
    for seed in (1, 2):
        step(model, optimizer, seed)
        step(other, others, seed)
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


def test_a_fresh_position_and_an_optimizer_without_buffers_are_saved_too(tmp_path: Path) -> None:
    model = network()
    save(tmp_path, Position(), model, optimizer_of(model))
    assert load_newest(tmp_path, model, optimizer_of(model)) == Position()


def test_without_a_checkpoint_there_is_no_position(tmp_path: Path) -> None:
    model = network()
    assert load_newest(tmp_path / "none", model, optimizer_of(model)) is None


def test_only_the_newest_two_are_kept_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    model = network()
    optimizer = optimizer_of(model)
    for epoch, batch in ((9998, 5), (9999, 0), (9999, 999_999), (9999, 1_000_000), (10_000, 0)):
        position = dataclasses.replace(POSITION, epoch=epoch, batch=batch)
        save(tmp_path, position, model, optimizer)
        loaded = load_newest(tmp_path, model, optimizer)
        assert loaded is not None
        assert (loaded.epoch, loaded.batch) == (epoch, batch)
        assert len(found(tmp_path)) <= checkpoint.KEPT
    names = [path.name for path in found(tmp_path)]
    assert names == ["epoch-9999-batch-1000000.safetensors", "epoch-10000-batch-000000.safetensors"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def without_header(path: Path) -> None:
    save_file({"model.x": torch.zeros(1)}, path)


def with_another_header(path: Path) -> None:
    save_file({"model.x": torch.zeros(1)}, path, metadata={"state": "[]"})


def of_another_network(path: Path) -> None:
    model = nn.Linear(1, 1)
    written = save(path.parent / "other", POSITION, model, optimizer_of(model))
    path.write_bytes(written.read_bytes())


@pytest.mark.parametrize(
    "damage", [cut, empty, without_header, with_another_header, of_another_network]
)
def test_a_damaged_newest_is_named_and_the_one_before_is_used(
    damage: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = network()
    optimizer = optimizer_of(model)
    step(model, optimizer, 0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save(tmp_path, dataclasses.replace(POSITION, epoch=1), model, optimizer)
    step(model, optimizer, 1)
    newest = save(tmp_path, dataclasses.replace(POSITION, epoch=2), model, optimizer)
    damage(newest)
    other = network(seed=1)
    position = load_newest(tmp_path, other, optimizer_of(other))
    assert position is not None
    assert position.epoch == 1
    for name, tensor in before.items():
        assert torch.equal(other.state_dict()[name], tensor)
    (record,) = caplog.records
    assert str(newest) in record.getMessage()
    assert "is damaged" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_where_none_can_be_read_it_is_one_line(tmp_path: Path) -> None:
    model = network()
    for epoch in (1, 2):
        path = save(
            tmp_path, dataclasses.replace(POSITION, epoch=epoch), model, optimizer_of(model)
        )
        cut(path)
    with pytest.raises(UsageError, match="start again in another run folder") as caught:
        load_newest(tmp_path, model, optimizer_of(model))
    assert "\n" not in str(caught.value)


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    model = network()
    path = save(tmp_path, POSITION, model, optimizer_of(model))
    before = path.read_bytes()
    sparse = nn.Parameter(model.get_parameter("0.weight").detach().to_sparse())
    model.get_submodule("0").register_parameter("weight", sparse)  # which no file can hold
    with pytest.raises((ValueError, RuntimeError, NotImplementedError)):
        save(tmp_path, POSITION, model, optimizer_of(network()))
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == [path.name]

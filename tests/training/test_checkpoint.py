from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from alexnet import runtime
from alexnet.errors import UsageError
from alexnet.training import checkpoint
from alexnet.training.checkpoint import Position, Snapshot, found, newest, read, save
from alexnet.training.config import TrainingConfig
from alexnet.training.optim import set_rates
from alexnet.training.parallel import Parallel
from alexnet.training.state import TrainingState, _placed

SMALL = runtime.resolve("cpu", "fp32", large=False)

POSITION = Position(
    epoch=3,
    batch=7,
    totals={"processes": [[1.5, 3.0, 7.0]], "seconds": 0.25},
    history=[{"epoch": 1, "stage": "train", "train_loss": 0.25}],
    best_epoch=2,
    best_score=0.75,
    finished=True,
)


def state_of(seed: int = 0, width: int = 4, **settings: Any) -> TrainingState:
    """A small network with batch norm, in the layout of the large ones."""
    torch.manual_seed(seed)
    layers = nn.Sequential(
        nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(4 * width, 2)
    )
    network = layers.to(memory_format=torch.channels_last)
    chosen: dict[str, Any] = {"lr": 0.01, "optimizer": "adamw", **settings}
    config = TrainingConfig(**chosen)
    return TrainingState(Parallel(network), config, SMALL)


def step(state: TrainingState, seed: int) -> None:
    network = state.parallel.network
    inputs = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    state.optimizer.zero_grad()
    network(inputs.to(memory_format=torch.channels_last)).square().sum().backward()
    state.optimizer.step()
    if state.average:
        state.average.update(network.state_dict())


def keep(folder: Path, state: TrainingState, **position: Any) -> Path:
    return save(folder, Snapshot(dataclasses.replace(POSITION, **position), *state.gather()))


def tensors_of(state: TrainingState) -> dict[str, Tensor]:
    """All of the state's tensors, copied."""
    return {name: tensor.clone() for name, tensor in state.gather()[0].items()}


def assert_same(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert torch.equal(tensor, theirs[name]), name


KINDS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd"},
    "the paper's rule": {"optimizer": "paper"},
    "lars": {"optimizer": "lars", "decay": "weights"},
    "adamw": {"optimizer": "adamw"},
    "adamw, an average, two groups": {"optimizer": "adamw", "ema": 0.9, "decay": "weights"},
    "biases apart and a slow stem": {"optimizer": "sgd", "bias_lr": 0.5, "stem_epochs": (1, 2)},
}


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_a_state_that_was_saved_goes_on_as_if_it_had_not_been(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    state, other = state_of(**settings), state_of(seed=1, **settings)
    config = TrainingConfig(**settings)
    step(state, 0)
    set_rates(state.optimizer, 0.002, 0, config)
    step(state, 1)
    snapshot = read(keep(tmp_path, state))
    assert snapshot.position == POSITION
    step(other, 5)  # it has buffers of its own, which are replaced
    other.restore(snapshot.tensors, snapshot.numbers)
    assert_same(tensors_of(other), tensors_of(state))
    # Both go on alike: buffers, counts and rates are the same, and in the same places.
    for seed, rate in ((2, 0.001), (3, 0.004)):
        for one in (state, other):
            set_rates(one.optimizer, rate, 0, config)
            step(one, seed)
        assert_same(tensors_of(other), tensors_of(state))


def test_a_fresh_state_and_position_are_saved_too(tmp_path: Path) -> None:
    state, other = state_of(ema=0.5), state_of(seed=1, ema=0.5)
    snapshot = read(save(tmp_path, Snapshot(Position(), *state.gather())))
    assert snapshot.position == Position()
    other.restore(snapshot.tensors, snapshot.numbers)
    assert_same(tensors_of(other), tensors_of(state))


def test_the_average_goes_on_at_its_own_pace(tmp_path: Path) -> None:
    state, other = state_of(ema=0.9), state_of(seed=1, ema=0.9)
    for seed in range(4):
        step(state, seed)
    snapshot = read(keep(tmp_path, state))
    other.restore(snapshot.tensors, snapshot.numbers)
    assert state.average is not None
    assert other.average is not None
    assert other.average.steps == 4
    weights, average = state.parallel.network.state_dict(), state.average.tensors
    assert not torch.equal(weights["3.weight"], average["3.weight"])
    assert torch.equal(weights["1.num_batches_tracked"], average["1.num_batches_tracked"])


def test_layouts_and_types_of_tensors_are_kept(tmp_path: Path) -> None:
    memory = torch.arange(6.0)
    tensors = {
        "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "double": torch.tensor(0.1, dtype=torch.float64),
        "count": torch.tensor([1 << 40]),
        "none": torch.zeros(0, 3),
        "shared": memory[:4],
        "overlapping": memory[2:],
        "turned": torch.arange(6.0).view(2, 3).T,
    }
    snapshot = read(save(tmp_path, Snapshot(Position(), tensors, {"a": [1, {"b": None}]})))
    assert_same(snapshot.tensors, tensors)
    assert {n: t.dtype for n, t in snapshot.tensors.items()} == {
        n: t.dtype for n, t in tensors.items()
    }
    assert snapshot.numbers == {"a": [1, {"b": None}]}


@pytest.mark.parametrize(
    ("other", "error"),
    [
        ({"width": 5}, RuntimeError),
        ({"decay": "weights"}, ValueError),
        ({"bias_lr": 0.1, "decay": "weights"}, ValueError),
        ({"ema": 0.5}, KeyError),
    ],
)
def test_a_state_of_another_network_or_optimizer_is_refused(
    other: dict[str, Any], error: type[Exception], tmp_path: Path
) -> None:
    state = state_of()
    step(state, 0)
    snapshot = read(keep(tmp_path, state))
    with pytest.raises(error):
        state_of(**other).restore(snapshot.tensors, snapshot.numbers)


def test_a_state_of_a_network_with_other_layers_is_refused(tmp_path: Path) -> None:
    state = state_of()
    snapshot = read(keep(tmp_path, state))
    fewer = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    more = nn.Sequential(*state.parallel.network.children(), nn.Linear(2, 2))
    for network, error in ((fewer, ValueError), (more, KeyError)):
        another = TrainingState(Parallel(network), TrainingConfig(optimizer="adamw"), SMALL)
        with pytest.raises(error):
            another.restore(snapshot.tensors, snapshot.numbers)


def test_a_state_in_which_another_parameter_is_frozen_is_refused(tmp_path: Path) -> None:
    states = []
    for frozen in ("0.bias", "1.bias"):
        network = state_of().parallel.network
        network.get_parameter(frozen).requires_grad = False
        states.append(TrainingState(Parallel(network), TrainingConfig(), SMALL))
    step(states[0], 0)
    snapshot = read(keep(tmp_path, states[0]))
    with pytest.raises(ValueError, match="parameters are others"):
        states[1].restore(snapshot.tensors, snapshot.numbers)


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert newest(tmp_path / "none") is None
    assert newest(tmp_path) is None


def test_only_the_newest_two_are_kept_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    state = state_of()
    for epoch, batch in ((9998, 5), (9999, 0), (9999, 999_999), (9999, 1_000_000), (10_000, 0)):
        path = keep(tmp_path, state, epoch=epoch, batch=batch)
        assert newest(tmp_path) == path
        position = read(path).position
        assert (position.epoch, position.batch) == (epoch, batch)
        assert len(found(tmp_path)) <= checkpoint.KEPT
    names = [path.name for path in found(tmp_path)]
    assert names == ["epoch-9999-batch-1000000.safetensors", "epoch-10000-batch-000000.safetensors"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_in_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def lengthened(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(8))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def without_header(path: Path) -> None:
    save_file({"model.x": torch.zeros(1)}, path)


def with_another_header(path: Path) -> None:
    save_file({"model.x": torch.zeros(1)}, path, metadata={"state": "[]"})


def with_a_tensor_less(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        header, names = file.metadata(), sorted(file.keys())
        tensors = {name: file.get_tensor(name) for name in names[1:]}
    save_file(tensors, path, metadata=header)


def with_two_tensors_exchanged(path: Path) -> None:
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
        tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    one, two = "optimizer.0.bias.exp_avg", "optimizer.1.bias.exp_avg"
    assert tensors[one].shape == tensors[two].shape
    tensors[one], tensors[two] = tensors[two], tensors[one]
    save_file(tensors, path, metadata=header)


def of_a_newer_format(path: Path) -> None:
    content = path.read_bytes()
    assert content.count(b'"format_version":"1"') == 1
    path.write_bytes(content.replace(b'"format_version":"1"', b'"format_version":"2"'))


@pytest.mark.parametrize(
    "damage",
    [
        cut, cut_in_half, cut_in_the_header, lengthened, empty, without_header,
        with_another_header, with_a_tensor_less, with_two_tensors_exchanged, of_a_newer_format,
    ],
)  # fmt: skip
def test_a_damaged_newest_is_named_and_the_one_before_is_used(
    damage: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = state_of()
    step(state, 0)
    before = tensors_of(state)
    first = keep(tmp_path, state, epoch=1)
    step(state, 1)
    last = keep(tmp_path, state, epoch=2)
    assert newest(tmp_path) == last
    assert not caplog.records
    damage(last)
    assert newest(tmp_path) == first
    assert_same(read(first).tensors, before)
    (record,) = caplog.records
    said = record.getMessage()
    assert said.startswith(f"checkpoint {last} is damaged (")
    assert said.endswith("): using the one before")
    assert "\n" not in said


def test_a_flipped_bit_in_any_byte_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Names, shapes, the state's text, the checksum and the format's version: all of the file."""
    tensors = {"model.weight": torch.randn(2, 3), "average.steps": torch.tensor([7])}
    numbers = {"groups": [{"names": ["weight"], "lr": 0.1}]}
    first = save(tmp_path, Snapshot(Position(epoch=1), tensors, numbers))
    last = save(tmp_path, Snapshot(Position(epoch=2), tensors, numbers))
    content = last.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        last.write_bytes(damaged)
        assert newest(tmp_path) == first, content[max(0, place - 20) : place + 20]
        assert str(last) in caplog.records[-1].getMessage()
    assert len(caplog.records) == len(content) > 500
    last.write_bytes(content)
    assert newest(tmp_path) == last


def test_where_none_can_be_read_it_is_one_line(tmp_path: Path) -> None:
    for epoch in (1, 2):
        cut(keep(tmp_path, state_of(), epoch=epoch))
    with pytest.raises(UsageError, match="start again in another run folder") as caught:
        newest(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    state = state_of()
    path = keep(tmp_path, state)
    before = path.read_bytes()
    tensors, numbers = state.gather()
    sparse = torch.eye(3).to_sparse()  # which no file can hold
    with pytest.raises((ValueError, RuntimeError, NotImplementedError)):
        save(tmp_path, Snapshot(POSITION, {**tensors, "sparse": sparse}, numbers))
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_the_header_can_be_read_without_this_package(tmp_path: Path) -> None:
    path = keep(tmp_path, state_of())
    length = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + length])
    about = header["__metadata__"]
    assert about["format_version"] == "1"
    assert json.loads(about["state"])["position"]["batch"] == 7


@pytest.mark.parametrize(("fused", "device"), [(True, "meta"), (None, "cpu")])
def test_a_fused_optimizer_s_count_of_steps_lies_beside_its_parameter(
    fused: bool | None, device: str
) -> None:
    parameter = nn.Parameter(torch.empty(3, device="meta"))
    placed = _placed(torch.tensor(7.0), parameter, {"fused": fused})
    assert placed.device.type == device

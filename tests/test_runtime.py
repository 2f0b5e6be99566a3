from __future__ import annotations

import pytest
import torch

from alexnet import runtime
from alexnet.errors import UsageError
from alexnet.models import create_model

CPU = torch.device("cpu")


def test_a_small_network_is_left_in_float32_on_one_thread() -> None:
    found = runtime.resolve("cpu", large=False)
    assert found.device == CPU
    assert found.precision == "fp32"
    assert found.dtype == torch.float32
    assert found.threads == 1
    assert not found.channels_last
    assert found.memory_format == torch.contiguous_format
    assert found.to_dict() == {
        "device": "cpu", "precision": "fp32", "threads": 1, "world_size": 1,
    }  # fmt: skip


def test_a_large_network_takes_what_the_processor_has() -> None:
    found = runtime.resolve("cpu", large=True)
    assert found.precision == ("bf16" if runtime.has_fast_bf16(CPU) else "fp32")
    assert found.threads == torch.get_num_threads()
    assert found.memory_format == torch.channels_last


def test_auto_takes_a_gpu_where_there_is_one() -> None:
    found = runtime.resolve(large=False).device.type
    if torch.cuda.is_available():
        assert found == "cuda"
    else:
        assert found == ("mps" if torch.backends.mps.is_available() else "cpu")


@pytest.mark.parametrize(
    ("device", "precision", "said"),
    [
        ("tpu", "auto", "unknown device 'tpu': choose auto, cpu, cuda or mps"),
        ("", "auto", "unknown device ''"),
        ("meta", "auto", "device 'meta' is not available here: use 'cpu' or 'auto'"),
        ("xpu", "auto", "device 'xpu' is not available here"),
        ("cuda:99", "auto", "device 'cuda:99' is not available here"),
        ("cpu", "fp8", "unknown precision 'fp8': choose auto, fp32, bf16, fp16 or fp64"),
        ("cpu", "fp16", "precision 'fp16' needs a GPU: use 'bf16' or 'fp32'"),
    ],
)
def test_what_is_not_here(device: str, precision: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        runtime.resolve(device, precision)
    assert said in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_here() -> None:
    with pytest.raises(UsageError, match="device 'cuda' is not available here"):
        runtime.resolve("cuda")


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_matrix_products_are_computed_in_the_precision(precision: str, dtype: torch.dtype) -> None:
    found = runtime.resolve("cpu", precision)
    with found.autocast():
        assert torch.nn.Linear(3, 2)(torch.zeros(1, 3)).dtype == dtype
    assert torch.nn.Linear(3, 2)(torch.zeros(1, 3)).dtype == torch.float32


def test_fp64_holds_weights_and_pictures_in_double_precision() -> None:
    found = runtime.resolve("cpu", "fp64")
    network = found.place_network(torch.nn.Conv2d(1, 2, 3))
    assert {p.dtype for p in network.parameters()} == {torch.float64}
    with found.autocast():
        maps = network(found.place(torch.zeros(1, 1, 3, 3)))
    assert (maps.dtype, found.dtype, found.weights_dtype) == (torch.float64,) * 3
    assert runtime.resolve("cpu", "bf16").weights_dtype == torch.float32


def test_pictures_and_networks_are_laid_out() -> None:
    found = runtime.resolve("cpu", "fp32", large=True)
    assert found.place(torch.zeros(2, 3, 5, 5)).is_contiguous(memory_format=torch.channels_last)
    network = found.place_network(create_model("alexnet_cifar"))
    weights = [p for p in network.parameters() if p.dim() == 4]
    assert weights
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    found = runtime.Runtime(CPU, "fp32", threads=before + 1)

    def fail() -> None:
        with found.active():
            assert torch.get_num_threads() == before + 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == before


def test_the_seed_decides_what_is_drawn() -> None:
    drawn = []
    for seed in (1, 1, 2):
        runtime.seed_draws(seed, CPU)
        drawn.append(torch.rand(3))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_the_rank_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    found = runtime.resolve("cpu")
    assert (found.rank, found.world_size) == (3, 4)


def test_a_gpu_has_fast_bf16_or_not() -> None:
    assert runtime.has_fast_bf16(torch.device("mps")) is False
    assert isinstance(runtime.has_fast_bf16(CPU), bool)


@pytest.mark.parametrize(
    ("amx", "avx512", "intel", "fast"),
    [(True, True, True, True), (False, True, True, False), (False, True, False, True),
     (False, False, False, False)],
)  # fmt: skip
def test_bf16_pays_by_amx_or_by_avx512_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512: bool, intel: bool, fast: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(runtime, "_is_intel", lambda: intel)
    assert runtime.has_fast_bf16(CPU) is fast


def test_small_numbers_are_zero_while_a_network_works() -> None:
    assert not runtime.flushes_denormals()
    with runtime.resolve("cpu", "fp32").active():
        assert runtime.flushes_denormals()
    assert not runtime.flushes_denormals()

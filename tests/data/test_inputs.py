"""Pictures become inputs in one pass, or one operation after another: the same numbers."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import pytest
import torch

from alexnet.data import inputs
from alexnet.data.augment import leaders_of
from alexnet.data.augment_config import AugmentConfig
from alexnet.data.colors import ColorStatistics
from alexnet.data.inputs import make_inputs
from alexnet.native import native
from alexnet.spec import InputSpec

PAPER = AugmentConfig(crop=True, mirror=0.5, pca=0.1)
COLORS = ColorStatistics(
    mean=(0.4, 0.5, 0.3),
    eigenvalues=(0.2, 0.02, 0.005),
    eigenvectors=((0.6, 0.6, 0.5), (0.7, -0.7, 0.1), (0.4, 0.3, -0.8)),
    pictures=1,
)
SPEC = InputSpec(size=67, resize=80, mean=(120.0, 110.0, 100.0), std=(50.0, 60.0, 70.0))


def both_ways(spec: InputSpec, config: AugmentConfig, **more: object) -> list[torch.Tensor]:
    """In one pass, and without the library; seen to differ in what they call."""
    pixels = torch.randint(0, 256, (9, spec.channels, spec.resize, spec.resize)).byte()
    arguments = {"seed": 3, "epoch": 1, "indices": torch.arange(20, 29), **more}
    one = mock.patch.object(inputs, "augment", side_effect=AssertionError("not in one pass"))
    with one:
        fast = make_inputs(pixels, spec, config, **arguments)  # type: ignore[arg-type]
    with mock.patch.object(inputs, "_in_one_pass", return_value=False):
        return [fast, make_inputs(pixels, spec, config, **arguments)]  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "config",
    [
        PAPER,
        AugmentConfig(),
        AugmentConfig(mirror=0.5),
        replace(PAPER, pca_divide=1.1, pca_unit="deviation", share=4),
    ],
    ids=["paper", "center", "mirror", "original"],
)
def test_one_pass_gives_the_same_numbers(
    config: AugmentConfig, layout: torch.memory_format, dtype: torch.dtype
) -> None:
    assert native().library is not None, native().why
    leaders = leaders_of(torch.arange(20, 29), config.share) if config.share > 1 else None
    fast, slow = both_ways(SPEC, config, colors=COLORS, leaders=leaders, dtype=dtype, layout=layout)
    assert fast.dtype == dtype
    assert fast.shape == (9, 3, 67, 67)
    assert fast.is_contiguous(memory_format=layout)
    assert slow.is_contiguous(memory_format=layout)
    if dtype == torch.float32:
        torch.testing.assert_close(fast, slow, rtol=0, atol=2e-6)
    else:  # where a sum lies between two numbers, the last bit may differ
        assert (fast != slow).float().mean() < 1e-3
        torch.testing.assert_close(fast, slow, rtol=2**-7, atol=2e-6)


def test_gray_pictures() -> None:
    spec = InputSpec(size=67, resize=80, channel_order="gray", mean=(120.0,), std=(50.0,))
    config = AugmentConfig(crop=True, mirror=0.5)
    fast, slow = both_ways(spec, config, layout=torch.channels_last)
    torch.testing.assert_close(fast, slow, rtol=0, atol=2e-6)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        fast, slow = both_ways(SPEC, PAPER, colors=COLORS, layout=torch.channels_last)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(fast, slow, rtol=0, atol=2e-6)


def test_what_the_configuration_needs_is_asked_for() -> None:
    pixels = torch.zeros(2, 3, 80, 80, dtype=torch.uint8)
    with pytest.raises(ValueError, match="needs colors"):
        make_inputs(pixels, SPEC, PAPER, seed=0, epoch=0, indices=torch.arange(2))

"""Common corruptions: as strong as they should be, and the same for any batch."""

from __future__ import annotations

import itertools

import pytest
import torch

from alexnet.data.loader import MemoryPixels
from alexnet.evaluation.corruptions import SEVERITIES, STRENGTHS, CorruptedPixels, corrupt


def pictures(side: int, channels: int = 3, count: int = 4) -> torch.Tensor:
    """Soft blobs, not too dark and not too bright."""
    random = torch.Generator().manual_seed(0)
    rough = torch.rand(count, channels, 6, 6, generator=random) * 160 + 40
    smooth = torch.nn.functional.interpolate(rough, (side, side), mode="bicubic")
    return smooth.clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("kind", STRENGTHS)
@pytest.mark.parametrize(("side", "channels"), [(28, 1), (96, 3)])
def test_each_severity_takes_more_away(kind: str, side: int, channels: int) -> None:
    images, indices = pictures(side, channels), torch.arange(4)
    lost = []
    for severity in SEVERITIES:
        worse = corrupt(images, indices, kind, severity)
        assert worse.shape == images.shape
        assert worse.dtype == torch.uint8
        lost.append((worse.float() - images).abs().mean().item())
    assert lost[0] > 0
    if kind == "pixelate" and side == 28:  # 18 to 26 cells: how they fall matters more
        return
    assert all(later >= earlier * 0.98 for earlier, later in itertools.pairwise(lost))
    assert lost[-1] > lost[0]


def test_noise_has_the_published_strength() -> None:
    gray, indices = torch.full((8, 3, 96, 96), 128, dtype=torch.uint8), torch.arange(8)
    for severity, wanted in zip((1, 2), STRENGTHS["gaussian noise"][0], strict=False):
        noisy = corrupt(gray, indices, "gaussian noise", severity).double() / 255
        assert noisy.std().item() == pytest.approx(wanted, rel=0.02)
    salted = corrupt(gray, indices, "impulse noise", 5)
    assert ((salted == 0) | (salted == 255)).double().mean().item() == pytest.approx(0.27, rel=0.02)
    flat = corrupt(gray, indices, "contrast", 5)
    assert torch.equal(flat, gray - (flat != gray).to(torch.uint8))
    brighter = corrupt(gray, indices, "brightness", 2).double()
    assert brighter.mean().item() == pytest.approx(128 + 0.2 * 255, abs=1)


def test_black_becomes_brighter_too() -> None:
    black = torch.zeros(1, 3, 96, 96, dtype=torch.uint8)
    assert (corrupt(black, torch.arange(1), "brightness", 1) == 25).all()


@pytest.mark.parametrize("kind", STRENGTHS)
def test_a_picture_is_corrupted_alike_in_any_batch(kind: str) -> None:
    pixels = MemoryPixels(pictures(28), torch.arange(4), list("abcd"))
    worse = CorruptedPixels(pixels, kind, 3)
    ((whole, _, _),) = worse.batches([torch.arange(4)])
    for row, ((alone, labels, indices),) in enumerate(
        [list(worse.batches([torch.tensor([row])])) for row in range(4)]
    ):
        assert torch.equal(alone[0], whole[row])
        assert labels.tolist() == indices.tolist() == [row]

"""Regions of resized pictures: torchvision's bytes, by the library and without it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as T
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.data import resample
from alexnet.data.resample import Region, planes_of_color, resize_region
from alexnet.native import Native, native


def by_torchvision(pixels: np.ndarray, sides: tuple[int, int], how: str) -> np.ndarray:
    planes = torch.from_numpy(pixels).permute(2, 0, 1)
    mode = T.InterpolationMode(how)
    resized = T.functional.resize(planes, list(sides), interpolation=mode, antialias=True)
    return resized.numpy()


@settings(max_examples=300, deadline=None)
@given(
    size=st.tuples(st.integers(1, 140), st.integers(1, 140)),
    sides=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    how=st.sampled_from(["bilinear", "bicubic"]),
    within=st.tuples(*[st.floats(0, 1)] * 4),
    seed=st.integers(0, 9),
)
def test_a_region_has_torchvisions_bytes(
    size: tuple[int, int],
    sides: tuple[int, int],
    how: str,
    within: tuple[float, float, float, float],
    seed: int,
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    top, left = int(within[0] * (sides[0] - 1)), int(within[1] * (sides[1] - 1))
    rows = 1 + int(within[2] * (sides[0] - top - 1))
    columns = 1 + int(within[3] * (sides[1] - left - 1))
    found = resize_region(pixels, sides, Region(top, left, rows, columns), how)
    whole = by_torchvision(pixels, sides, how)
    assert found.flags.c_contiguous
    assert np.array_equal(found, whole[:, top : top + rows, left : left + columns])


@pytest.mark.parametrize("size", [(375, 500), (500, 375), (333, 500), (257, 256), (100, 130)])
@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
def test_photographs(size: tuple[int, int], how: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    height, width = size
    shorter = min(size)
    sides = int(256 * height / shorter), int(256 * width / shorter)
    found = resize_region(pixels, sides, Region(0, 0, *sides), how)
    assert np.array_equal(found, by_torchvision(pixels, sides, how))


def test_the_library_is_used_where_the_processor_can(monkeypatch: pytest.MonkeyPatch) -> None:
    library = native().library
    if library is None or not hasattr(library, "resize_region"):
        pytest.skip("this processor has no AVX-512 VBMI")
    monkeypatch.setattr(resample, "resize", None)  # what would be called instead
    pixels = np.zeros((375, 500, 3), np.uint8)
    assert resize_region(pixels, (256, 341), Region(0, 42, 256, 256), "bilinear").shape[0] == 3


def test_without_it_the_bytes_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (375, 500, 3), dtype=np.uint8)
    asked = (256, 341), Region(16, 58, 224, 227), "bicubic"
    found = resize_region(pixels, *asked)
    monkeypatch.setattr(resample, "_by_native", lambda *_: None)
    assert np.array_equal(found, resize_region(pixels, *asked))


@pytest.mark.parametrize("compiled", [True, False])
def test_planes_of_any_view(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(resample, "native", lambda: Native(None, "left out"))
    four = np.random.default_rng(2).integers(0, 256, (40, 75, 4), dtype=np.uint8)
    whole = np.ascontiguousarray(four[..., :3])
    views = [
        whole, whole[3:37, 5:70], whole[::-1], whole[:, ::-1], whole[::2, ::3], whole[..., ::-1],
        whole.transpose(1, 0, 2), four[..., :3], whole[..., :1], whole[:1, :1], four,
    ]  # fmt: skip
    for view in views:
        found = planes_of_color(view)
        assert found.flags.c_contiguous
        assert np.array_equal(found, view.transpose(2, 0, 1))
        assert not np.shares_memory(found, view)

"""Pictures of any size become the square of the spec, as torchvision would cut it."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import PIL.Image
import pytest
import torch
import torchvision.transforms.v2 as T
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.data.fit import fit
from alexnet.spec import InputSpec, lenet_spec


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    generator = np.random.default_rng(height * width)
    coarse = generator.integers(0, 256, (5, 7, channels), dtype=np.uint8).squeeze()
    image = PIL.Image.fromarray(coarse).resize((width, height), PIL.Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(height, width, channels)


@pytest.mark.parametrize("size", [(300, 400), (400, 300), (256, 256), (100, 80), (333, 777)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
def test_equals_torchvision(size, interpolation):
    spec = InputSpec(interpolation=interpolation)
    image = PIL.Image.fromarray(picture(*size))
    mode = T.InterpolationMode(interpolation)
    expected = T.CenterCrop(224)(T.Resize(256, mode)(image))
    ours = fit(np.asarray(image), spec)
    assert ours.shape == (3, 224, 224)
    off = np.abs(ours.transpose(1, 2, 0).astype(int) - np.asarray(expected))
    assert off.max() <= 2  # Pillow keeps the position of what is cut in single precision
    assert off.mean() < 0.05


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from([1, 3]),
    st.sampled_from(["crop", "stretch"]),
    st.sampled_from([(32, 27), (32, 28), (28, 28)]),
    st.sampled_from(["rgb", "bgr", "gray"]),
)
def test_evaluation_crop_is_the_center_of_the_training_square(
    height, width, channels, how, sides, order
):
    values = (0.5,) if order == "gray" else (0.5,) * 3
    spec = InputSpec(
        size=sides[1], resize=sides[0], fit=how, channel_order=order, mean=values, std=values
    )
    pixels = picture(height, width, channels)
    square, crop = fit(pixels, spec, side=spec.resize), fit(pixels, spec)
    assert square.shape == (spec.channels, sides[0], sides[0])
    assert square.dtype == np.uint8
    assert square.flags.c_contiguous
    assert square.flags.writeable
    start = (sides[0] - sides[1]) // 2
    stop = start + sides[1]
    assert np.array_equal(crop, square[:, start:stop, start:stop])


def test_stretch_resizes_both_sides():
    pixels = picture(60, 40)
    spec = InputSpec(size=20, resize=24, fit="stretch")
    by_pillow = PIL.Image.fromarray(pixels).resize((24, 24), PIL.Image.Resampling.BILINEAR)
    as_bytes = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    ours = fit(pixels, spec, side=24)
    assert np.array_equal(ours, T.functional.resize(as_bytes, [24, 24], antialias=True).numpy())
    assert np.abs(ours.transpose(1, 2, 0).astype(int) - np.asarray(by_pillow)).max() <= 1
    gray = pixels[:, :, :1]
    expected = PIL.Image.fromarray(gray[:, :, 0]).resize((24, 24), PIL.Image.Resampling.BILINEAR)
    gray_spec = dataclasses.replace(spec, channel_order="gray", mean=(0.0,), std=(1.0,))
    assert np.array_equal(fit(gray, gray_spec, side=24)[0], np.asarray(expected))


def test_a_picture_of_the_right_size_is_not_touched():
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, 1), dtype=np.uint8)
    fitted = fit(pixels, lenet_spec())
    assert np.array_equal(fitted[0], pixels[:, :, 0])
    assert not np.shares_memory(fitted, pixels)


@pytest.mark.parametrize(("size", "top", "left"), [((24, 39), 2, 10), ((37, 24), 8, 2)])
@pytest.mark.parametrize("channels", [1, 3])
def test_one_of_the_right_shorter_side_is_only_cut(size, top, left, channels):
    pixels = picture(size[0], size[1], channels)
    pixels.setflags(write=False)  # as those of prepared data are
    spec = InputSpec(size=20, resize=24)
    if channels == 1:
        spec = spec.replace(channel_order="gray", mean=(0.0,), std=(1.0,))
    fitted = fit(pixels, spec)
    square = pixels[top : top + 20, left : left + 20]
    assert np.array_equal(fitted, square.transpose(2, 0, 1))
    assert fitted.flags.c_contiguous
    assert fitted.flags.writeable
    assert not np.shares_memory(fitted, pixels)


def test_gray_and_color():
    gray, color = picture(9, 9, 1), picture(9, 9, 3)
    rgb = InputSpec(size=9, resize=9)
    assert np.array_equal(fit(gray, rgb), np.repeat(gray.transpose(2, 0, 1), 3, axis=0))
    assert np.array_equal(fit(color, rgb.replace(channel_order="bgr")), color.transpose(2, 0, 1))
    luma = color @ [0.299, 0.587, 0.114]  # BT.601
    assert np.abs(fit(color, lenet_spec(13))[0] - luma).max() <= 0.51


@pytest.mark.parametrize("size", [(1, 200_000), (200_000, 1), (3, 100_000)])
def test_a_very_long_picture_costs_no_more(size):
    # Resized whole it would take 39 GB.
    start = time.perf_counter()
    assert fit(np.full((*size, 3), 77, np.uint8), InputSpec()).tolist() == [[[77] * 224] * 224] * 3
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("side", [0, 257])
def test_a_side_that_is_not_there_is_refused(side):
    with pytest.raises(ValueError, match="side"):
        fit(picture(9, 9), InputSpec(), side=side)

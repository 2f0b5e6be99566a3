"""Augmentation against a plain reference, a picture and a pixel at a time."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.data.augment import augment, leaders_of
from alexnet.data.augment_config import AugmentConfig
from alexnet.data.colors import ColorStatistics, color_noise
from alexnet.data.order import draws, normal
from alexnet.data.randaugment import randaugment
from alexnet.training.config import Config, from_dict

EVERYTHING = AugmentConfig(
    mirror=0.5,
    crop=True,
    scale=(0.7, 1.5),
    aspect=0.4,
    rotate=30,
    shift=0.2,
    shear=15,
    brightness=0.4,
    contrast=0.3,
    saturation=0.5,
    erase=0.5,
)

EVERY_NEW_THING = AugmentConfig(
    mirror=0.5,
    crop=True,
    brightness=0.4,
    erase=0.5,
    pca=0.1,
    pca_unit="deviation",
    pca_divide=1.1,
    randaugment=2,
)
COLORS = ColorStatistics(
    mean=(0.5, 0.4, 0.3),
    eigenvalues=(0.2, 0.02, 0.005),
    eigenvectors=((0.6, 0.8, 0.0), (0.8, -0.6, 0.0), (0.0, 0.0, 1.0)),
    pictures=7,
)


def pictures(count: int, channels: int, side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count + channels + side)
    shape = (count, channels, side, side)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def bilinear(image: np.ndarray, x: float, y: float, fill: float, clamp: bool) -> np.ndarray:
    """The value at (x, y) of an image [C, S, S] whose first pixel's center is (0, 0)."""
    side = image.shape[-1]
    value = np.zeros(len(image))
    if clamp:
        x, y = min(max(x, 0), side - 1), min(max(y, 0), side - 1)
    for column, row in ((c, r) for c in range(2) for r in range(2)):
        i, j = math.floor(y) + row, math.floor(x) + column
        weight = max(0, 1 - abs(y - i)) * max(0, 1 - abs(x - j))
        inside = 0 <= i < side and 0 <= j < side
        value += weight * (image[:, i, j] if inside else np.full(len(image), fill))
    return value


def reference(
    image: np.ndarray, crop: int, config: AugmentConfig, u: np.ndarray, fill: float, clamp: bool
) -> np.ndarray:
    """One picture, from the description of each step; u are its 17 draws."""
    side, angle = image.shape[-1], math.radians((2 * u[5] - 1) * config.rotate)
    slope = math.tan(math.radians((2 * u[8] - 1) * config.shear))
    magnification = math.exp(
        math.log(config.scale[0]) + math.log(config.scale[1] / config.scale[0]) * u[3]
    )
    ratio = (1 + config.aspect) ** (2 * u[4] - 1)
    wide, high = magnification * math.sqrt(ratio), magnification / math.sqrt(ratio)
    # From the picture to the output, around the centers; then the whole is inverted.
    shear = np.array([[1, -slope, 0], [0, 1, 0], [0, 0, 1]])
    cos, sin = math.cos(angle), math.sin(angle)
    rotate = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    stretch = np.diag([wide, high, 1])
    moves = [crop * config.shift * (2 * u[k] - 1) for k in (6, 7)]
    move = np.array([[1, 0, moves[0]], [0, 1, moves[1]], [0, 0, 1]])
    mirror = np.diag([-1 if u[0] < config.mirror else 1, 1, 1])
    inverse = np.linalg.inv(mirror @ move @ stretch @ rotate @ shear)
    if config.crop:
        position = [max(0, side - crop / s) * (u[k] - 0.5) for k, s in ((1, wide), (2, high))]
    else:
        position = [(side - crop) // 2 - (side - crop) / 2] * 2
    result = np.zeros((len(image), crop, crop))
    for i in range(crop):
        for j in range(crop):
            there = inverse @ [j - (crop - 1) / 2, i - (crop - 1) / 2, 1]
            x, y = there[:2] + np.array(position) + (side - 1) / 2
            result[:, i, j] = bilinear(image, x, y, fill, clamp)
    return relit(result, config, u, fill)


def relit(image: np.ndarray, config: AugmentConfig, u: np.ndarray, fill: float) -> np.ndarray:
    def gray(pixels: np.ndarray) -> np.ndarray:
        return pixels if len(pixels) == 1 else np.tensordot([[0.299, 0.587, 0.114]], pixels, 1)

    image = image * (1 + (2 * u[9] - 1) * config.brightness)
    image = gray(image).mean() + (image - gray(image).mean()) * (
        1 + (2 * u[10] - 1) * config.contrast
    )
    if len(image) == 3:
        image = gray(image) + (image - gray(image)) * (1 + (2 * u[11] - 1) * config.saturation)
    if config.brightness or config.contrast or config.saturation:
        image = np.clip(image, 0, 255)
    if u[12] < config.erase:
        side, area = image.shape[-1], 0.02 + 0.18 * u[13]
        ratio = 3.3 ** (2 * u[14] - 1)
        wide, high = side * math.sqrt(area * ratio), side * math.sqrt(area / ratio)
        left, top = u[15] * (side - wide), u[16] * (side - high)
        for i in range(side):
            for j in range(side):
                if left <= j + 0.5 < left + wide and top <= i + 0.5 < top + high:
                    image[:, i, j] = fill
    return image


GEOMETRY = AugmentConfig(mirror=0.5, rotate=25, shift=0.1, shear=10, scale=(0.8, 1.2))
CROPS = AugmentConfig(mirror=0.5, crop=True, scale=(0.75, 1.6), aspect=0.1)
LIGHT = AugmentConfig(brightness=0.5, contrast=0.5, saturation=0.5)


@pytest.mark.parametrize(
    ("config", "clamp"),
    [(EVERYTHING, False), (GEOMETRY, False), (CROPS, True), (LIGHT, False)],
    ids=["everything", "geometry", "random resized crop", "light"],
)
@pytest.mark.parametrize(("channels", "side", "crop"), [(1, 12, 12), (3, 13, 9), (3, 12, 9)])
def test_equals_the_reference(config, clamp, channels, side, crop):
    pixels, indices = pictures(6, channels, side), torch.tensor([5, 0, 17, 3, 99, 4])
    if config is CROPS and side == 12:
        clamp = False  # a magnification of 0.75 can then reach beyond the picture
    ours = augment(pixels, crop, config, seed=3, epoch=2, indices=indices, fill=40)
    numbers = draws(3, 2, indices, 17).double().numpy()
    for row in range(len(pixels)):
        image = pixels[row].double().numpy()
        expected = reference(image, crop, config, numbers[row], 40, clamp)
        assert np.abs(ours[row].numpy() - expected).max() < 0.05


@pytest.mark.parametrize(("side", "crop"), [(28, 28), (32, 28), (33, 28), (90, 70)])
def test_plain_crop_and_mirror_copy_pixels_exactly(side, crop):
    pixels, indices = pictures(40, 3, side), torch.arange(40)
    config = AugmentConfig(mirror=0.5, crop=True)
    ours = augment(pixels, crop, config, seed=1, epoch=0, indices=indices)
    numbers = draws(1, 0, indices, 17)
    mirrored = 0
    for row in range(40):
        x, y = (int(numbers[row, k].item() * (side - crop + 1)) for k in (1, 2))
        expected = pixels[row, :, y : y + crop, x : x + crop].float()
        if numbers[row, 0] < 0.5:
            expected, mirrored = expected.flip(2), mirrored + 1
        assert torch.equal(ours[row], expected)
    assert 8 < mirrored < 32
    assert ours.dtype == torch.float32
    assert ours.is_contiguous()


@pytest.mark.parametrize(("side", "crop"), [(28, 28), (256, 227), (256, 224), (9, 2)])
def test_nothing_varied_is_the_center_crop(side, crop):
    pixels = pictures(3, 3, side)
    start = (side - crop) // 2
    expected = pixels[:, :, start : start + crop, start : start + crop].float()
    ours = augment(pixels, crop, AugmentConfig(), seed=0, epoch=0, indices=torch.arange(3))
    assert torch.equal(ours, expected)
    # and sampling with next to no zoom finds the same place
    barely = AugmentConfig(scale=(1.0, 1.0 + 1e-6))
    ours = augment(pixels, crop, barely, seed=0, epoch=0, indices=torch.arange(3))
    assert (ours - expected).abs().max() < 0.1


def test_all_crop_positions_are_reached():
    pixels = torch.arange(49, dtype=torch.uint8).view(1, 1, 7, 7).expand(2000, 1, 7, 7)
    config = AugmentConfig(crop=True)
    ours = augment(pixels, 5, config, seed=0, epoch=0, indices=torch.arange(2000))
    corners, counts = ours[:, 0, 0, 0].unique(return_counts=True)
    assert corners.tolist() == [0, 1, 2, 7, 8, 9, 14, 15, 16]
    assert counts.min() > 160


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(8)), st.integers(1, 8))
def test_the_batch_does_not_matter(order, batch):
    pixels, indices = pictures(8, 3, 12), torch.arange(8)
    whole = augment(pixels, 10, EVERYTHING, seed=0, epoch=4, indices=indices)
    for rows in torch.tensor(order).split(batch):
        part = augment(pixels[rows], 10, EVERYTHING, seed=0, epoch=4, indices=indices[rows])
        assert torch.allclose(part, whole[rows], atol=1e-3)


def test_seed_epoch_and_index_each_matter():
    pixels = pictures(1, 3, 12).expand(2, -1, -1, -1)
    results = [
        augment(pixels, 10, EVERYTHING, seed=seed, epoch=epoch, indices=torch.tensor([0, 1]))
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    assert len({tuple(image.flatten().tolist()) for result in results for image in result}) == 6


@pytest.mark.parametrize("name", ["rotate", "shift", "brightness", "erase"])
def test_turning_one_on_leaves_the_mirror_alone(name):
    pixels = torch.zeros(64, 1, 10, 10, dtype=torch.uint8)
    pixels[:, :, :, :5] = 200
    indices = torch.arange(64)
    plain = augment(pixels, 10, AugmentConfig(mirror=0.5), seed=0, epoch=0, indices=indices)
    amounts: dict[str, Any] = {name: 0.1}
    more = AugmentConfig(mirror=0.5, **amounts)
    varied = augment(pixels, 10, more, seed=0, epoch=0, indices=indices)
    left = plain[..., :5].sum((1, 2, 3)) > plain[..., 5:].sum((1, 2, 3))
    assert torch.equal(left, varied[..., :5].sum((1, 2, 3)) > varied[..., 5:].sum((1, 2, 3)))


def test_results_stay_in_range_and_the_input_is_untouched():
    pixels = pictures(32, 3, 20)
    before = pixels.clone()
    ours = augment(pixels, 16, EVERYTHING, seed=0, epoch=0, indices=torch.arange(32))
    assert ours.min() >= 0
    assert ours.max() <= 255
    plain = augment(pixels, 20, AugmentConfig(erase=1), seed=0, epoch=0, indices=torch.arange(32))
    assert (plain == 0).any()
    assert torch.equal(pixels, before)


def test_a_batch_of_none():
    empty = torch.zeros(0, 3, 12, 12, dtype=torch.uint8)
    indices = torch.zeros(0, dtype=torch.int64)
    for config in (EVERYTHING, AugmentConfig(crop=True, mirror=0.5)):
        assert augment(empty, 8, config, seed=0, epoch=0, indices=indices).shape == (0, 3, 8, 8)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mirror": 1.5},
        {"erase": -0.1},
        {"brightness": 2},
        {"rotate": -5},
        {"shift": float("nan")},
        {"shear": 90},
        {"scale": (1.2, 0.8)},
        {"scale": (0, 1)},
        {"aspect": -1},
        {"share": 0},
        {"pca": -0.1},
        {"pca": float("inf")},
        {"pca_unit": "eigenvalues"},
        {"pca_until": -1},
        {"pca_divide": 0.9},
        {"pca_divide": float("nan")},
        {"randaugment": -1},
        {"magnitude": 31},
        {"magnitude": float("nan")},
        {"mixup": -1},
        {"cutmix": float("inf")},
    ],
)
def test_wrong_amounts_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AugmentConfig(**wrong)


@pytest.mark.parametrize("crop", [0, 13])
def test_a_crop_that_does_not_fit_is_refused(crop):
    indices = torch.arange(2)
    with pytest.raises(ValueError, match="crop"):
        augment(pictures(2, 1, 12), crop, EVERYTHING, seed=0, epoch=0, indices=indices)


def test_what_was_drawn_before_is_drawn_still():
    # From the version in which these were all the options: bytes, and means to two places.
    first = [0x8A01FF, 0xA7F89C, 0x314816, 0x2E750B, 0x3F2D3B, 0x8EFD95, 0x01565B, 0x709AAB]
    first += [0x90F799, 0xC7C151, 0xF49C61, 0x8248EC, 0x92C766, 0x2D8946, 0xC321F4, 0x9349AC]
    first += [0xF7152E]
    assert (draws(5, 2, torch.tensor([7]), 17)[0] * 2**24).tolist() == first
    pixels = (torch.arange(4 * 3 * 20 * 20).view(4, 3, 20, 20) * 7919 % 256).to(torch.uint8)
    indices = torch.tensor([3, 141, 59, 26])
    config = AugmentConfig(mirror=0.5, crop=True, erase=0.7)
    copied = augment(pixels, 16, config, seed=5, epoch=2, indices=indices, fill=9)
    digest = hashlib.sha256(copied.to(torch.uint8).numpy().tobytes()).hexdigest()
    assert digest.startswith("c5f5d7b0518b9ffb")
    means = augment(pixels, 16, EVERYTHING, seed=5, epoch=2, indices=indices, fill=9).mean((2, 3))
    expected = [53.04, 54.43, 52.92, 102.33, 101.71, 100.5, 140.3, 138.75, 139.96]
    assert means.flatten()[:9].tolist() == pytest.approx(expected, abs=0.01)


@given(st.lists(st.integers(0, 99), max_size=70), st.integers(1, 40))
def test_leaders_are_the_first_of_each_group(indices, share):
    ours = leaders_of(torch.tensor(indices, dtype=torch.int64), share)
    assert ours.tolist() == [indices[position // share * share] for position in range(len(indices))]


@pytest.mark.parametrize("scale", [1.0, 1.4], ids=["copied", "resampled"])
def test_leaders_decide_crop_and_mirror(scale):
    # With one magnification for all, the place and the mirror are all that is drawn.
    alone = AugmentConfig(crop=True, mirror=0.5, scale=(scale, scale))
    together = dataclasses.replace(alone, share=5)
    pixels, indices = pictures(12, 3, 20), torch.arange(12)
    leaders = leaders_of(indices, 5)
    ours = augment(pixels, 12, together, seed=0, epoch=0, indices=indices, leaders=leaders)
    assert torch.equal(ours, augment(pixels, 12, alone, seed=0, epoch=0, indices=leaders))
    assert not torch.equal(ours, augment(pixels, 12, alone, seed=0, epoch=0, indices=indices))


def test_leaders_decide_nothing_else():
    pixels, indices = pictures(12, 3, 20), torch.arange(12)
    config = dataclasses.replace(EVERYTHING, crop=False, mirror=0.0, pca=0.1, randaugment=1)
    own, shared = (
        augment(
            pixels, 12, config, seed=0, epoch=0, indices=indices, leaders=leaders, colors=COLORS
        )
        for leaders in (None, torch.zeros(12, dtype=torch.int64))
    )
    assert torch.equal(own, shared)


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.floats(0.001, 0.3), min_size=3, max_size=3),
    st.floats(0.01, 1.0),
    st.sampled_from(["variance", "deviation"]),
    st.integers(0, 2**32),
)
def test_color_noise_has_the_covariance_of_the_formula(eigenvalues, deviation, unit, seed):
    # P diag((deviation * lambda)^2) P^T, times 255^2; the noise is normal, so the standard error
    # of a covariance is sqrt((Cii Cjj + Cij^2) / n). Six of them.
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    values = sorted(eigenvalues, reverse=True)
    colors = ColorStatistics((0.5,) * 3, tuple(values), tuple(map(tuple, basis.T.tolist())), 1)
    lengths = np.sqrt(values) if unit == "deviation" else np.array(values)
    expected = basis @ np.diag((255 * deviation * lengths) ** 2) @ basis.T
    count = 20_000
    pixels = torch.full((count, 3, 1, 1), 100, dtype=torch.uint8)
    config = AugmentConfig(pca=deviation, pca_unit=unit)
    indices = torch.arange(count)
    ours = augment(pixels, 1, config, seed=seed, epoch=1, indices=indices, colors=colors)
    noise = ours[:, :, 0, 0].double().numpy() - 100
    spread = np.sqrt(np.diag(expected))
    assert (np.abs(noise.mean(0)) < 6 * spread / math.sqrt(count) + 1e-4).all()
    error = np.sqrt((np.outer(spread, spread) ** 2 + expected**2) / count)
    assert (np.abs(np.cov(noise.T) - expected) < 6 * error + 1e-4).all()


def test_color_noise_is_one_shift_a_picture_and_normal():
    pixels, indices = pictures(8, 3, 12), torch.arange(8)
    config = AugmentConfig(pca=0.1)
    ours = augment(pixels, 12, config, seed=0, epoch=0, indices=indices, colors=COLORS)
    shift = ours.double() - pixels
    assert torch.allclose(shift, shift[:, :, :1, :1].expand_as(shift), atol=1e-4)
    alphas = 0.1 * normal(draws(0, 0, indices, 20)[:, 17:])
    expected = color_noise(alphas, COLORS, "variance").double()
    assert torch.allclose(shift[:, :, 0, 0], expected, atol=1e-4)
    assert shift[:, :, 0, 0].unique().numel() == 24
    gray = ColorStatistics((0.5,), (0.1,), ((1.0,),), 1)
    ours = augment(pixels[:, :1], 12, config, seed=0, epoch=0, indices=indices, colors=gray)
    assert torch.allclose(ours - pixels[:, :1], 25.5 * alphas[:, :1, None, None], atol=1e-4)


def test_color_noise_stops_at_its_epoch():
    pixels, indices = pictures(4, 3, 12), torch.arange(4)
    for until, noisy in ((0, [True] * 4), (2, [True, True, False, False])):
        config = AugmentConfig(pca=0.1, pca_divide=1.5, pca_until=until)
        for epoch, expected in enumerate(noisy):
            ours = augment(pixels, 12, config, seed=0, epoch=epoch, indices=indices, colors=COLORS)
            assert torch.equal(ours, pixels.float()) != expected


def test_division_is_about_the_mean_color_and_takes_the_noise_with_it():
    pixels, indices = pictures(4, 3, 12), torch.arange(4)
    plain, divided = (
        augment(
            pixels,
            12,
            AugmentConfig(pca=0.1, pca_divide=divide),
            seed=0,
            epoch=0,
            indices=indices,
            colors=COLORS,
        )
        for divide in (1.0, 1.1)
    )
    mean = torch.tensor([127.5, 102.0, 76.5]).view(1, 3, 1, 1)
    assert torch.allclose(divided, mean + (plain - mean) / 1.1, atol=1e-3)


def test_randaugment_comes_after_the_crop():
    pixels, indices = pictures(9, 3, 20), torch.arange(9)
    plain = AugmentConfig(crop=True, mirror=0.5)
    both = dataclasses.replace(plain, randaugment=2, magnitude=15)
    crops = augment(pixels, 16, plain, seed=3, epoch=4, indices=indices, fill=7).to(torch.uint8)
    expected = randaugment(crops, 2, 15, seed=3, epoch=4, indices=indices, fill=7)
    ours = augment(pixels, 16, both, seed=3, epoch=4, indices=indices, fill=7)
    assert torch.equal(ours, expected.float())
    turned = dataclasses.replace(both, rotate=20)  # interpolated pixels are rounded before
    assert augment(pixels, 16, turned, seed=3, epoch=4, indices=indices).frac().eq(0).all()


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(9)), st.integers(1, 9))
def test_the_batch_does_not_matter_to_noise_and_operations(order, batch):
    pixels, indices = pictures(9, 3, 12), torch.arange(9)
    leaders = leaders_of(indices, 4)

    def varied(rows: torch.Tensor) -> torch.Tensor:
        return augment(
            pixels[rows],
            10,
            EVERY_NEW_THING,
            seed=0,
            epoch=4,
            indices=indices[rows],
            leaders=leaders[rows],
            colors=COLORS,
        )

    whole = varied(indices)
    for rows in torch.tensor(order).split(batch):
        assert torch.allclose(varied(rows), whole[rows], atol=1e-3)


@pytest.mark.parametrize(
    ("config", "colors", "message"),
    [
        (AugmentConfig(pca=0.1), None, "measure_colors"),
        (AugmentConfig(pca=0.1), ColorStatistics((0.5,), (0.1,), ((1.0,),), 1), "1 channels"),
        (AugmentConfig(share=2), COLORS, "leaders_of"),
    ],
)
def test_what_the_configuration_needs_is_asked_for(config, colors, message):
    indices = torch.arange(2)
    with pytest.raises(ValueError, match=message):
        augment(pictures(2, 3, 12), 9, config, seed=0, epoch=0, indices=indices, colors=colors)
    with pytest.raises(ValueError, match="share=0"):
        leaders_of(indices, 0)


def test_configurations_are_read_back_old_ones_too():
    whole = Config(augment=EVERY_NEW_THING).to_dict()
    assert from_dict(json.loads(json.dumps(whole))) == Config(augment=EVERY_NEW_THING)
    old = Config(augment=EVERYTHING).to_dict()
    new = ("share", "pca", "pca_unit", "pca_until", "pca_divide", "randaugment", "magnitude")
    for name in (*new, "mixup", "cutmix"):
        del old["augment"][name]
    assert from_dict(json.loads(json.dumps(old))) == Config(augment=EVERYTHING)
    changed = Config().override({"augment.pca": "0.1", "augment.pca_unit": "deviation"})
    assert changed.augment == AugmentConfig(pca=0.1, pca_unit="deviation")

"""Mixup and CutMix: the algebra of a pair, and the distributions of what is drawn."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.nn import functional as F

from alexnet.chance import MIX
from alexnet.data.augment_config import AugmentConfig
from alexnet.data.mix import beta, mix
from alexnet.data.order import draws

BOTH = AugmentConfig(mixup=0.4, cutmix=1.0)
CONFIGS = st.sampled_from([AugmentConfig(mixup=0.4), AugmentConfig(cutmix=1.0), BOTH])


def batch(count: int, side: int = 9, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    images = torch.rand(count, 3, side, side, generator=generator)
    return images, torch.randint(0, classes, (count,), generator=generator)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 13), CONFIGS, st.integers(0, 9))
def test_targets_are_shares_and_pairs_are_symmetric(count, config, epoch):
    images, labels = batch(count)
    indices = torch.arange(count) + 100
    mixed, targets = mix(images, labels, 5, config, seed=2, epoch=epoch, indices=indices)
    assert mixed.shape == images.shape
    assert targets.dtype == torch.float32
    assert targets.shape == (count, 5)
    assert torch.allclose(targets.sum(1), torch.ones(count))
    assert targets.min() >= 0 if count else True
    # What one of a pair gives, the other receives: pictures and labels add up to what they were.
    even = count // 2 * 2
    assert torch.allclose(mixed[:even:2] + mixed[1::2], images[:even:2] + images[1::2], atol=1e-5)
    hot = F.one_hot(labels, 5).float()
    assert torch.allclose(targets[:even:2] + targets[1::2], hot[:even:2] + hot[1::2], atol=1e-6)
    assert torch.equal(mixed[even:], images[even:])
    assert torch.equal(targets[even:], hot[even:])


def shares(targets: torch.Tensor) -> torch.Tensor:
    """What the first of each pair keeps, where all labels differ."""
    return targets.diagonal()[: len(targets) // 2 * 2 : 2]


def test_mixup_is_the_formula():
    images, _ = batch(8)
    labels, indices = torch.arange(8), torch.arange(8)
    config = AugmentConfig(mixup=0.7)
    mixed, targets = mix(images, labels, 8, config, seed=0, epoch=0, indices=indices)
    uniform = draws(0, 0, indices[::2], 2, stream=MIX)[:, 1].double() + 2.0**-25
    expected = torch.from_numpy(stats.beta.ppf(uniform.numpy(), 0.7, 0.7))
    assert torch.allclose(shares(targets).double(), expected, atol=1e-6)
    for pair, share in enumerate(expected.tolist()):
        first, second = images[2 * pair], images[2 * pair + 1]
        assert torch.allclose(mixed[2 * pair], share * first + (1 - share) * second, atol=1e-5)
        assert torch.allclose(mixed[2 * pair + 1], share * second + (1 - share) * first, atol=1e-5)


@pytest.mark.parametrize("side", [8, 9, 227])
def test_cutmix_exchanges_a_rectangle_of_exactly_the_share_of_the_labels(side):
    count = 60
    images = torch.arange(count).float().view(-1, 1, 1, 1).expand(-1, 1, side, side)
    config = AugmentConfig(cutmix=1.0)
    labels = indices = torch.arange(count)
    mixed, targets = mix(images, labels, count, config, seed=0, epoch=0, indices=indices)
    for row in range(count):
        other = row ^ 1
        changed = mixed[row, 0] == other
        assert (changed | (mixed[row, 0] == row)).all()
        rows, columns = changed.any(1), changed.any(0)
        assert torch.equal(changed, rows[:, None] & columns)  # a rectangle, and in one piece:
        for line in (rows, columns):
            assert line.int().diff().abs().sum() <= 2
        assert torch.equal(changed, mixed[other, 0] == row)
        assert targets[row, other].item() == pytest.approx(changed.sum().item() / side**2, abs=1e-7)
    assert shares(targets).unique().numel() >= 10


def test_cutmix_before_the_edges_has_the_area_that_was_drawn():
    # The center is any pixel and half a side is rounded down; over the draws where nothing is cut
    # off, the area is that of the Beta distribution to a pixel either way.
    side, count = 65, 2000
    images = torch.zeros(count, 1, side, side)
    images[1::2] = 1
    indices = torch.arange(count)
    labels = indices % 2
    mixed, _ = mix(images, labels, 2, AugmentConfig(cutmix=1.0), seed=0, epoch=0, indices=indices)
    numbers = draws(0, 0, indices[::2], 4, stream=MIX)
    half = (side * (1 - beta(numbers[:, 1], 1.0)).sqrt()).long() // 2
    center = (numbers[:, 2:].double() * side).long()
    whole = ((center >= half[:, None]) & (center + half[:, None] <= side)).all(1)
    assert 100 < whole.sum() < 900
    area = mixed[::2].sum((1, 2, 3))
    assert torch.equal(area[whole], (4 * half**2)[whole].float())
    assert (area[~whole] < (4 * half**2)[~whole]).all()
    # The two directions are drawn apart.
    left, top = mixed[::2].amax((1, 2)).argmax(1), mixed[::2].amax((1, 3)).argmax(1)
    assert (left != top).sum() > 500


def test_both_are_chosen_equally_often_and_are_what_each_is_alone():
    count = 4000
    images = torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    labels, indices = torch.arange(count) % 2, torch.arange(count)
    both, mixup, cutmix = (
        mix(images, labels, 2, config, seed=0, epoch=0, indices=indices)
        for config in (BOTH, AugmentConfig(mixup=0.4), AugmentConfig(cutmix=1.0))
    )
    cut = (both[0] == cutmix[0]).flatten(1).all(1)
    assert torch.equal(cut[::2], cut[1::2])
    assert 900 < cut[::2].sum() < 1100  # of 2000
    assert torch.equal(both[1][cut], cutmix[1][cut])
    assert torch.equal(both[0][~cut], mixup[0][~cut])
    assert torch.equal(both[1][~cut], mixup[1][~cut])


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.4, 0.5, 0.8, 1.0, 1.01, 1.5, 2.0, 8.0, 100.0])
def test_beta_is_its_quantile(alpha):
    uniform = torch.arange(0, 2**24, 1013).float() / 2**24
    expected = stats.beta.ppf(uniform.double().numpy() + 2.0**-25, alpha, alpha)
    ours = beta(uniform, alpha).double()
    assert (ours - torch.from_numpy(expected)).abs().max() < 1e-6
    ends = beta(torch.tensor([0.0, 1 - 2.0**-24]), alpha)
    assert 0 <= ends.min() <= ends.max() <= 1


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_have_the_beta_distribution(alpha):
    count = 20_000
    images, indices = torch.zeros(count, 1, 1, 1), torch.arange(count) * 7
    labels = torch.arange(count) % 2
    config = AugmentConfig(mixup=alpha)
    _, targets = mix(images, labels, 2, config, seed=5, epoch=3, indices=indices)
    result = stats.kstest(targets[::2, 0].numpy(), stats.beta(alpha, alpha).cdf)
    assert result.pvalue > 1e-3


@settings(max_examples=30, deadline=None)
@given(CONFIGS, st.lists(st.integers(0, 6), max_size=6))
def test_how_a_batch_is_shared_does_not_matter(config, cuts):
    images, labels = batch(13)
    indices = torch.arange(13) * 31 % 13
    whole = mix(images, labels, 5, config, seed=0, epoch=1, indices=indices)
    edges = [0, *sorted(2 * cut for cut in cuts), 13]
    parts = [
        mix(
            images[start:stop],
            labels[start:stop],
            5,
            config,
            seed=0,
            epoch=1,
            indices=indices[start:stop],
        )
        for start, stop in itertools.pairwise(edges)
    ]
    assert torch.equal(torch.cat([part[0] for part in parts]), whole[0])
    assert torch.equal(torch.cat([part[1] for part in parts]), whole[1])


def test_seed_epoch_and_the_first_of_a_pair_matter():
    images, labels = batch(2)

    def mixed(seed: int, epoch: int, first: int, second: int) -> torch.Tensor:
        indices = torch.tensor([first, second])
        return mix(images, labels, 5, BOTH, seed=seed, epoch=epoch, indices=indices)[0]

    results = [mixed(0, 0, 0, 1), mixed(1, 0, 0, 1), mixed(0, 1, 0, 1), mixed(0, 0, 1, 0)]
    assert len({tuple(result.flatten().tolist()) for result in results}) == 4
    assert torch.equal(mixed(0, 0, 0, 1), mixed(0, 0, 0, 9))


def test_the_input_is_untouched_and_neither_mixes_nothing():
    images, labels = batch(6)
    before = images.clone()
    mix(images, labels, 5, BOTH, seed=0, epoch=0, indices=torch.arange(6))
    assert torch.equal(images, before)
    plain, targets = mix(
        images, labels, 5, AugmentConfig(), seed=0, epoch=0, indices=torch.arange(6)
    )
    assert torch.equal(plain, images)
    assert torch.equal(targets, F.one_hot(labels, 5).float())


def test_cross_entropy_takes_the_targets():
    images, labels = batch(6)
    _, targets = mix(images, labels, 5, BOTH, seed=0, epoch=0, indices=torch.arange(6))
    logits = torch.linspace(-1, 1, 30).view(6, 5)
    expected = -(targets * logits.log_softmax(1)).sum(1).mean()
    assert torch.allclose(F.cross_entropy(logits, targets), expected)

"""RandAugment against torchvision's, and a picture at a time against the batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from alexnet.data.randaugment import randaugment


def pictures(count: int, channels: int, side: int) -> torch.Tensor:
    """Smooth ones with some noise, so that every operation changes them visibly."""
    generator = torch.Generator().manual_seed(count)
    ramp = torch.linspace(20, 180, side)
    noise = 40 * torch.rand(count, channels, side, side, generator=generator)
    colors = torch.linspace(0.6, 1, channels).view(1, channels, 1, 1)
    return ((ramp[:, None] + ramp) / 2 * colors + noise).to(torch.uint8)


@pytest.mark.parametrize("magnitude", [15, 30])
@pytest.mark.parametrize(("channels", "fill"), [(3, 0.0), (3, 128.0), (1, 128.0)])
def test_does_what_torchvision_does(channels, magnitude, fill):
    # All that torchvision makes of one picture in many draws, and all that we make of it. (These
    # magnitudes are exact in its float32 table of them.)
    picture = pictures(1, channels, 33)[0]
    count = 400
    transform = v2.RandAugment(num_ops=1, magnitude=magnitude, num_magnitude_bins=31, fill=fill)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = {transform(picture).numpy().tobytes() for _ in range(count)}
    batch = picture.expand(count, -1, -1, -1)
    indices = torch.arange(count)
    ours = randaugment(batch, 1, magnitude, seed=0, epoch=0, indices=indices, fill=fill)
    found = {image.numpy().tobytes() for image in ours}
    assert found == theirs
    # Fourteen operations, nine of them with two signs; some do nothing to gray, or at the end.
    assert len(found) >= 17


def test_operations_are_equally_likely():
    # Chi-square over the results; those with two signs have half each. 22 degrees of freedom: 60 is
    # beyond the 0.99999 quantile.
    count = 8000
    batch = pictures(1, 3, 16).expand(count, -1, -1, -1)
    ours = randaugment(batch, 1, 15, seed=1, epoch=0, indices=torch.arange(count), fill=128)
    _, counts = ours.flatten(1).unique(dim=0, return_counts=True)
    expected = torch.tensor([count / 28] * 18 + [count / 14] * 5)
    assert (((counts.sort().values - expected) ** 2) / expected).sum() < 60


@settings(max_examples=20, deadline=None)
@given(
    st.permutations(range(40)),
    st.integers(1, 40),
    st.sampled_from([1, 3]),
    st.sampled_from([16, 29]),
    st.floats(0, 30),
)
def test_the_batch_does_not_matter(order, batch, channels, side, magnitude):
    images, indices = pictures(40, channels, side), torch.arange(40)

    def varied(rows: torch.Tensor) -> torch.Tensor:
        return randaugment(
            images[rows], 2, magnitude, seed=0, epoch=4, indices=indices[rows], fill=128
        )

    whole = varied(indices)
    for rows in torch.tensor(order).split(batch):
        assert torch.equal(varied(rows), whole[rows])


def test_a_large_picture_alone_is_the_one_of_the_batch():
    images, indices = pictures(30, 3, 227), torch.arange(30)
    whole = randaugment(images, 1, 9, seed=0, epoch=0, indices=indices, fill=128)
    for row in range(30):
        alone = randaugment(
            images[row : row + 1], 1, 9, seed=0, epoch=0, indices=indices[row : row + 1], fill=128
        )
        assert torch.equal(alone[0], whole[row])


def test_seed_epoch_and_index_matter_and_one_more_operation_comes_last():
    images, indices = pictures(1, 3, 16).expand(50, -1, -1, -1), torch.arange(50)

    def varied(count: int, seed: int = 0, epoch: int = 0) -> torch.Tensor:
        return randaugment(images, count, 12, seed=seed, epoch=epoch, indices=indices, fill=128)

    assert len(varied(1).flatten(1).unique(dim=0)) > 10
    assert not torch.equal(varied(1), varied(1, seed=1))
    assert not torch.equal(varied(1), varied(1, epoch=1))
    # Where the second operation did nothing, the first is seen as it was.
    unchanged = (varied(2) == varied(1)).flatten(1).all(1).sum()
    assert 1 <= unchanged < 20


def test_the_input_is_untouched_and_nothing_is_nothing():
    images = pictures(20, 3, 16)
    before = images.clone()
    indices = torch.arange(20)
    ours = randaugment(images, 2, 20, seed=0, epoch=0, indices=indices, fill=0)
    assert ours.dtype == torch.uint8
    assert torch.equal(images, before)
    none = randaugment(images, 0, 20, seed=0, epoch=0, indices=indices, fill=0)
    assert torch.equal(none, images)

"""Views of a picture and ensembles of networks, against slow sums in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from alexnet.data.loader import MemoryPixels
from alexnet.errors import UsageError
from alexnet.evaluation.score import Member, log_mean, score_together
from alexnet.evaluation.views import SCALES, VIEWS, Views, cut_views
from alexnet.runtime import resolve
from alexnet.spec import InputSpec

SPEC = InputSpec(size=11, resize=16, mean=(120.0, 110.0, 100.0), std=(50.0, 60.0, 70.0), scale=1.0)
CLASSES = ("a", "b", "c", "d", "e", "f")


def squares(count: int = 5, side: int = 16) -> Tensor:
    drawn = torch.randint(
        0, 256, (count, 3, side, side), generator=torch.Generator().manual_seed(1)
    )
    return drawn.to(torch.uint8)


def pixels_of(images: Tensor, labels: Tensor | None = None) -> MemoryPixels:
    labels = torch.arange(len(images)) % len(CLASSES) if labels is None else labels
    return MemoryPixels(images, labels, [str(n) for n in range(len(images))])


class Linear(nn.Module):
    """Logits large enough that a mean of logits is not a mean of probabilities."""

    def __init__(self, seed: int, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(len(CLASSES), 3 * 11 * 11, generator=random) / 4)
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return x.flatten(1) @ self.weight.T


def member(
    network: nn.Module, pixels: MemoryPixels, views: Views = "center", **more: object
) -> Member:
    runtime = resolve("cpu", "fp32", large=False)
    return Member("one", network, SPEC, runtime, pixels, views, **more)  # type: ignore[arg-type]


def slow_views(square: np.ndarray) -> list[np.ndarray]:
    """The ten of section 4.1, one by one."""
    found = []
    for top, left in ((0, 0), (0, 5), (5, 0), (5, 5), (2, 2)):
        found.append(square[:, top : top + 11, left : left + 11])
    return found + [view[:, :, ::-1] for view in found]


def slow_probabilities(network: Linear, square: np.ndarray) -> list[np.ndarray]:
    """Softmax of each view in float64."""
    mean, std = (np.array(v)[:, None, None] for v in (SPEC.mean, SPEC.std))
    weight = network.weight.detach().double().numpy()
    found = []
    for view in slow_views(square):
        logits = weight @ ((view.astype(np.float64) - mean) / std).ravel()
        powers = np.exp(logits - logits.max())
        found.append(powers / powers.sum())
    return found


def test_ten_crops_are_those_of_the_paper() -> None:
    images = squares()
    found = cut_views(images, SPEC, "ten-crop")
    assert found.shape == (10, 5, 3, 11, 11)
    for number, square in enumerate(images.numpy()):
        for view, wanted in zip(found[:, number].numpy(), slow_views(square), strict=True):
            np.testing.assert_array_equal(view, wanted)


def test_probabilities_of_ten_crops_are_averaged_not_logits() -> None:
    images, network = squares(), Linear(0)
    logs = member(network, pixels_of(images), "ten-crop").log_probabilities(images, 256)
    for row, square in zip(logs.exp().detach().numpy(), images.numpy(), strict=True):
        each = slow_probabilities(network, square)
        np.testing.assert_allclose(row, np.mean(each, 0), rtol=2e-4)
        swapped = np.exp(np.mean(np.log(each), 0))
        assert np.abs(swapped / swapped.sum() - np.mean(each, 0)).max() > 0.01


def test_each_view_alone_is_right() -> None:
    """Equal means could come of unequal views."""
    images, network = squares(2), Linear(0)
    cut = cut_views(images, SPEC, "ten-crop")
    for number, view in enumerate(cut):
        logs = member(network, pixels_of(view)).log_probabilities(view, 256)
        for row, square in zip(logs.exp().detach().numpy(), images.numpy(), strict=True):
            np.testing.assert_allclose(row, slow_probabilities(network, square)[number], rtol=2e-4)


def test_views_go_through_the_network_in_batches() -> None:
    images, network = squares(7), Linear(0)
    result = score_together(
        [member(network, pixels_of(images), "ten-crop")], CLASSES, batch_size=20
    )
    assert sum(network.seen) == 70
    assert max(network.seen) == 20
    assert len(network.seen) == 4
    assert result.views == "ten-crop"


@pytest.mark.parametrize("batch_size", [1, 3, 10, 64])
@pytest.mark.parametrize("views", VIEWS)
def test_the_batch_changes_nothing(views: Views, batch_size: int) -> None:
    side = round(16 * SCALES[-1]) if views == "multi-scale" else 16
    images = squares(9, side)
    one, other = (
        score_together([member(Linear(0), pixels_of(images), views)], CLASSES, batch_size=size)
        for size in (256, batch_size)
    )
    assert (one.top1, one.top5) == (other.top1, other.top5)
    assert one.loss == pytest.approx(other.loss, abs=1e-6)


def test_three_scales_of_ten() -> None:
    images = squares(2, 20)
    found = cut_views(images, SPEC, "multi-scale")
    assert found.shape == (30, 2, 3, 11, 11)
    assert torch.equal(found[20:], cut_views(images, SPEC.replace(resize=20), "ten-crop"))
    flat = torch.full((1, 3, 20, 20), 77, dtype=torch.uint8)
    assert (cut_views(flat, SPEC, "multi-scale") == 77).all()


def test_an_ensemble_is_the_mean_of_probabilities_in_the_order_of_its_classes() -> None:
    images = squares(12)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    turned = Linear(2)
    with torch.no_grad():  # the same network, its outputs in another order
        turned.weight.copy_(turned.weight[order].clone())
    columns = order.argsort()
    pixels = pixels_of(images)
    plain = [member(Linear(seed), pixels) for seed in (1, 2)]
    mixed = [member(Linear(1), pixels), member(turned, pixels, columns=columns)]
    wanted, found = (score_together(members, CLASSES) for members in (plain, mixed))
    assert found.loss == pytest.approx(wanted.loss, abs=1e-6)
    logs = torch.stack([one.log_probabilities(images, 256) for one in plain]).detach()
    mean = logs.exp().mean(0).log()
    torch.testing.assert_close(log_mean(logs), mean)
    losses = -mean[torch.arange(12), pixels.labels]
    assert wanted.loss == pytest.approx(float(losses.mean()), rel=1e-12)
    alone = [score_together([one], CLASSES) for one in plain]
    assert [one.top1 for _, one in wanted.members] == [one.top1 for one in alone]
    assert [one.loss for _, one in wanted.members] == [one.loss for one in alone]


def test_what_an_ensemble_gains_is_paired() -> None:
    images = squares(40)
    members = [member(Linear(seed), pixels_of(images)) for seed in (1, 2)]
    result = score_together(members, CLASSES)
    best = max(one.top1 for _, one in result.members)
    gain = result.gain
    assert gain is not None
    assert gain["top1"] == pytest.approx(result.top1 - best)
    assert gain["interval"][0] <= gain["top1"] <= gain["interval"][1]
    assert score_together(members[:1], CLASSES).gain is None


def test_unknown_views_and_squares_that_are_too_small() -> None:
    with pytest.raises(UsageError, match=r"unknown kind of views 'ten-crops'.*ten-crop"):
        cut_views(squares(), SPEC, "ten-crops")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="10 pixels cannot be cut to 11"):
        cut_views(squares(side=10), SPEC, "ten-crop")

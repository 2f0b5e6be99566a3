from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from alexnet.spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec, lenet_spec


def test_torchvision_s_convention() -> None:
    pixels = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    expected = (pixels / 255 - mean) / std
    torch.testing.assert_close(InputSpec().normalize(pixels), expected)


def test_caffe_s_convention() -> None:
    spec = InputSpec(
        size=2, resize=2, channel_order="bgr", scale=1.0, mean=(104.0, 117.0, 124.0), std=(1, 1, 1)
    )
    red = torch.tensor([200.0, 10.0, 20.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    found = spec.normalize(red)[0, :, 0, 0]
    torch.testing.assert_close(found, torch.tensor([20.0 - 104, 10.0 - 117, 200.0 - 124]))


def test_lenet_s_convention() -> None:
    """LeCun et al. 1998, II.B: the background is -0.1, the foreground 1.175, in a 32x32 field."""
    spec = lenet_spec()
    assert (spec.size, spec.crop, spec.channels) == (32, 28, 1)
    found = spec.normalize(torch.full((1, 1, 28, 28), 255, dtype=torch.uint8))
    assert found.shape == (1, 1, 32, 32)
    assert found[0, 0, 2, 2].item() == pytest.approx(1.175)
    assert found[0, 0, 1, 16].item() == pytest.approx(-0.1)
    assert found[0, 0, 30, 30].item() == pytest.approx(-0.1)
    assert found[0, 0, 29, 29].item() == pytest.approx(1.175)


def test_the_padding_has_its_gray_level() -> None:
    spec = InputSpec(size=4, resize=2, pad=1, pad_value=128, scale=1.0, mean=(0,) * 3, std=(1,) * 3)
    found = spec.normalize(torch.zeros(1, 3, 2, 2, dtype=torch.uint8))
    assert found[0, 0].tolist() == [
        [128, 128, 128, 128], [128, 0, 0, 128], [128, 0, 0, 128], [128, 128, 128, 128],
    ]  # fmt: skip


def test_floats_are_normalized_alike_and_left_unchanged() -> None:
    pixels = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    floats = pixels.float()
    torch.testing.assert_close(InputSpec().normalize(floats), InputSpec().normalize(pixels))
    assert torch.equal(floats, pixels.float())


@pytest.mark.parametrize("spec", [InputSpec(), lenet_spec(), InputSpec(fit="stretch", size=63)])
def test_it_survives_its_trip_through_json(spec: InputSpec) -> None:
    assert InputSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"resize": 100}, "resize=100 is smaller than the crop of 224 pixels"),
        ({"size": 4, "pad": 2}, "is smaller than the crop of 0 pixels"),
        ({"channel_order": "gray"}, "mean has 3 values for 1 gray channels: give one a channel"),
        ({"std": (1.0,)}, "std has 1 values for 3 rgb channels"),
    ],
)
def test_fields_that_do_not_fit_each_other(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        InputSpec(**fields)


def test_an_unknown_field_is_an_error() -> None:
    with pytest.raises(TypeError, match="warp"):
        InputSpec.from_dict({"warp": 9})


def test_a_copy_with_changes() -> None:
    spec = InputSpec().replace(size=63, resize=72)
    assert (spec.size, spec.resize, spec.crop) == (63, 72, 63)
    assert InputSpec().size == 224

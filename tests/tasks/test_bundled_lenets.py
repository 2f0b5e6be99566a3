"""The trained LeNets that come with the package score what their records say."""

from __future__ import annotations

from pathlib import Path

import pytest

import alexnet
from alexnet.models.weights import get_weights


@pytest.mark.parametrize(
    ("weights", "data", "needs"),
    [
        ("lenet5/mnist-5k", "mnist-5k", None),
        ("lenet5/fashion-mnist", "fashion-mnist", "/usr/share/datasets/fashion-mnist"),
    ],
)
def test_a_bundled_lenet_scores_what_its_record_says(
    weights: str, data: str, needs: str | None
) -> None:
    if needs is not None and not Path(needs).is_dir():
        pytest.skip(f"{needs} is not here")
    result = alexnet.evaluate(weights, data, split="test")
    (recorded,) = get_weights(weights).metrics.values()
    # Another processor may round the last bits otherwise: a picture in two thousand may turn.
    assert result.top1 == pytest.approx(recorded["top1"], abs=0.0005)
    assert result.top5 == pytest.approx(recorded["top5"], abs=0.0005)

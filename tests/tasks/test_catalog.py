from __future__ import annotations

import pytest

from alexnet.errors import UsageError
from alexnet.tasks.catalog import describe, list_facts


def test_the_published_sizes() -> None:
    facts = {fact["name"]: fact for fact in list_facts()}
    parameters = {name: fact["parameters"] for name, fact in facts.items()}
    assert parameters["alexnet"] == 60_965_224
    assert parameters["alexnet_ungrouped"] == 62_378_344
    assert parameters["alexnet_owt"] == 61_100_840
    assert parameters["lenet5"] == 60_000
    assert facts["lenet5"]["fixed_parameters"] == 840
    assert parameters["lenet5_dense"] == 61_706
    assert parameters["lenet1989"] == 9_760
    assert facts["lenet5"]["macs"] == 326_520
    assert facts["lenet1989"]["input"] == [1, 16, 16]


def test_arguments_and_size_reach_the_network() -> None:
    settings = {"model.groups": "1", "model.norm": "none", "model.in_chans": "1"}
    facts, rows = describe("alexnet", num_classes=7, image_size=131, settings=settings)
    assert facts["input"] == [1, 131, 131]
    assert rows[-1].maps == 7
    assert all(row.groups == 1 for row in rows)
    assert "local response normalization" not in {row.kind for row in rows}


def test_another_library_s_network() -> None:
    facts, rows = describe("torchvision:alexnet")
    assert facts["parameters"] == 61_100_840 == sum(row.parameters for row in rows)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.lr", "not of the network: write model.NAME=VALUE"),
        ("model.grops", "did you mean 'groups'"),
    ],
)
def test_a_setting_that_is_not_the_network_s(setting: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        describe("alexnet", settings={setting: "2"})

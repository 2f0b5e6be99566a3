from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import alexnet
from alexnet.tasks import doctor


def test_it_finds_what_is_here() -> None:
    found = {
        group: {one.name: one for one in findings} for group, findings in doctor.examine().items()
    }
    assert found["software"]["alexnet"].value == alexnet.__version__
    assert found["software"]["torch"].value == torch.__version__.split("+")[0]
    assert found["hardware"]["memory"].value.endswith("GiB")
    assert found["hardware"]["threads"].value == str(torch.get_num_threads())
    assert found["data"]["mnist-5k"].value == "bundled"
    assert found["weights"]["alexnet_owt/imagenet1k-features"].value == "bundled"
    assert found["weights"]["alexnet_owt/imagenet1k"].value == "to download"


def test_data_in_the_user_s_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "CIFAR10").mkdir()
    monkeypatch.setenv("ALEXNET_DATA", str(tmp_path))
    found = {one.name: one for one in doctor.examine()["data"]}
    assert found["cifar10"].why == os.fspath(tmp_path / "CIFAR10")
    assert found["cifar100"].value in ("not here", "found")


def test_a_missing_extra_is_told_with_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.EXTRAS, "no_such_package", ("cluster", "work on many machines"))
    found = {one.name: one for one in doctor.examine()["extras"]}
    assert found["no_such_package"].value == "missing"
    assert len(found) == len(doctor.EXTRAS)  # two packages of one extra are two
    assert found["no_such_package"].why == "work on many machines: pip install 'alexnet[cluster]'"

"""The demo in small: its two trainings take an epoch each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from alexnet.errors import UsageError
from alexnet.tasks import demo


@pytest.fixture(scope="module")
def small() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "LENET", {"training.epochs": 1, "training.batch_size": 16})
        patch.setattr(
            demo,
            "ALEXNET",
            {"data.image_size": 63, "finetune.unfreeze": 0, "finetune.l2": 0.1},
        )
        yield


@pytest.fixture(scope="module")
def shown(small: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("demo") / "out"
    return out, demo.run_demo(out)


def test_it_compares_the_two_on_the_same_digits(shown: tuple[Path, dict[str, Any]]) -> None:
    out, result = shown
    written = json.loads((out / "demo.json").read_text())
    assert written.pop("format_version") == 1
    assert written == json.loads(json.dumps(result))
    assert (result["data"], result["fold"]) == ("mnist-5k", 0)
    lenet, alexnet = result["lenet5"], result["alexnet_owt"]
    assert (lenet["year"], alexnet["year"]) == (1998, 2014)
    assert (lenet["layers"], alexnet["layers"]) == (7, 6)
    assert lenet["activation"] != alexnet["activation"]
    assert lenet["pooling"] != alexnet["pooling"]
    assert lenet["parameters"] == 60_000
    assert lenet["input"] == [1, 32, 32]
    assert alexnet["input"] == [3, 63, 63]
    assert lenet["initialized_from"] == "random weights"
    assert alexnet["initialized_from"] == "imagenet1k-features"
    for row in (lenet, alexnet):
        assert row["test_images"] == 1000
        assert 0.5 < row["top1"] <= 1
        assert row["train_seconds"] > 0
        assert row["images_per_second"] > 0
        assert row["latency_ms"] > 0
        assert row["macs"] > 0
    page = (out / "report.html").read_text()
    assert page.rstrip().endswith("</html>")
    assert "LeNet against AlexNet" in page


def test_the_table_has_a_cell_for_each(shown: tuple[Path, dict[str, Any]]) -> None:
    rows = demo.comparison_rows(shown[1])
    assert all(len(row) == 3 for row in rows)
    assert len(rows) >= 10
    text = " ".join(cell for row in rows for cell in row).lower()
    for word in ("1998", "2014", "60,000", "parameters", "activation", "pooling", "top-1"):
        assert word in text


def test_a_second_demo_replaces_the_first(
    small: None, shown: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(shown[0], out)
    before = (out / "lenet5" / "config.json").stat().st_mtime_ns
    result = demo.run_demo(out, fold=1)
    assert result["fold"] == 1
    assert json.loads((out / "demo.json").read_text())["fold"] == 1
    assert (out / "lenet5" / "config.json").stat().st_mtime_ns > before


def test_an_interrupted_demo_goes_on(
    small: None, shown: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Killed after its first network, with the second one just begun."""
    out = tmp_path / "out"
    out.mkdir()
    shutil.copytree(shown[0] / "lenet5", out / "lenet5")
    (out / "alexnet_owt").mkdir()
    (out / "alexnet_owt" / "bad_images.csv").write_text("name,reason\n")
    before = (out / "lenet5" / "model.safetensors").stat().st_mtime_ns
    result = demo.run_demo(out)
    assert (out / "lenet5" / "model.safetensors").stat().st_mtime_ns == before
    assert result["lenet5"]["top1"] == shown[1]["lenet5"]["top1"]
    assert result["alexnet_owt"]["top1"] == shown[1]["alexnet_owt"]["top1"]


def test_a_demo_killed_while_its_report_is_written_goes_on(
    small: None, shown: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(shown[0], out)
    (out / "demo.json").unlink()
    (out / ".demo.json.k1ll3d.tmp").touch()
    result = demo.run_demo(out)
    assert result["lenet5"]["top1"] == shown[1]["lenet5"]["top1"]
    assert (out / "demo.json").is_file()
    assert not list(out.glob(".*"))


def test_a_folder_of_other_things_is_left_alone(small: None, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_text("precious")
    with pytest.raises(UsageError, match=r"holds other files \(photo\.jpg\): choose another"):
        demo.run_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


@pytest.mark.parametrize("content", ['{"name": "mine"}', "not JSON"])
def test_a_demo_json_of_somebody_else_s_is_left_alone(
    small: None, content: str, tmp_path: Path
) -> None:
    (tmp_path / "demo.json").write_text(content)
    (tmp_path / "lenet5").mkdir()
    (tmp_path / "lenet5" / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="choose another folder with -o"):
        demo.run_demo(tmp_path)
    assert (tmp_path / "lenet5" / "thesis.txt").read_text() == "precious"
    assert (tmp_path / "demo.json").read_text() == content


def test_a_file_is_no_folder(small: None, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file: choose another folder with -o"):
        demo.run_demo(tmp_path / "file")
    with pytest.raises(UsageError, match="choose a folder that can be written to"):
        demo.run_demo(tmp_path / "file" / "below")


def test_a_folder_that_only_bears_a_demo_s_name_is_left_alone(small: None, tmp_path: Path) -> None:
    (tmp_path / "lenet5").mkdir()
    (tmp_path / "lenet5" / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="holds something else than a run"):
        demo.run_demo(tmp_path)
    assert (tmp_path / "lenet5" / "thesis.txt").read_text() == "precious"

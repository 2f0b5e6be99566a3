from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from alexnet.cli.main import main


def json_lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    found = {one["name"]: one for one in json_lines(capsys)}
    wanted = ("alexnet", "alexnet_ungrouped", "alexnet_owt", "lenet5", "lenet5_dense", "lenet1989")
    parameters = [found[name]["parameters"] for name in wanted]
    assert parameters == [60965224, 62378344, 61100840, 60000, 61706, 9760]
    fields = {"name", "year", "parameters", "fixed_parameters", "macs", "input"}
    assert fields <= found["alexnet"].keys()
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    assert "60,965,224" in text
    assert "3x227x227" in text


def test_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", "lenet5", "--json"]) == 0
    (found,) = json_lines(capsys)
    assert [row["name"] for row in found["layers"]][:3] == ["c1", "s2", "c3"]
    assert main(["summary", "alexnet", "--set", "model.groups=1"]) == 0
    text = capsys.readouterr().out
    assert "conv1" in text
    assert "62,378,344 parameters; 1,135,256,096 MACs for one 3x227x227 picture" in text


def test_weights(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["weights", "list", "alexnet_owt", "--json"]) == 0
    names = [one["name"] for one in json_lines(capsys)]
    assert "imagenet1k-features" in names
    assert main(["weights", "list"]) == 0
    assert "covers" in capsys.readouterr().out
    assert main(["weights", "show", "imagenet1k-features", "--json"]) == 0
    (shown,) = json_lines(capsys)
    assert shown["covers"] == "features"
    assert len(shown["sha256"]) == 64
    assert main(["weights", "show", "imagenet1k"]) == 0
    assert "(1000 in all)" in capsys.readouterr().out
    target = tmp_path / "theirs.safetensors"
    assert main(["weights", "convert", "imagenet1k-features", str(target), "--json"]) == 0
    assert json_lines(capsys) == [{"weights": str(target), "layout": "torchvision", "tensors": 10}]
    assert (
        main(["weights", "convert", str(target), str(tmp_path / "o.safetensors"), "--to=alexnet"])
        == 0
    )
    assert "10 tensors in the layout of alexnet" in capsys.readouterr().out


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    (found,) = json_lines(capsys)
    assert found["data"]["mnist-5k"]["value"] == "bundled"
    assert main(["doctor"]) == 0
    assert "hardware" in capsys.readouterr().out


def test_predict_answers_the_good_ones_and_names_the_others(
    run_folder: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [
        str(pictures / name) for name in ("good.jpg", "broken.jpg", "missing.jpg", "notes.txt")
    ]
    assert main(["predict", str(run_folder), *names, "--top", "3", "--json"]) == 1
    found = json_lines(capsys)
    assert [one["image"] for one in found] == names
    good = found[0]["predictions"]
    assert len(good) == 3
    assert good[0].keys() == {"label", "probability"}
    assert good[0]["probability"] >= good[1]["probability"]
    assert all(one["error"] and "predictions" not in one for one in found[1:])
    assert main(["predict", str(run_folder), *names]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "%" in lines[0]
    assert all("error: " in line for line in lines[1:])


def test_predict_takes_folders_patterns_and_standard_input(
    run_folder: Path, pictures: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{pictures / 'good.jpg'}\n"))
    (pictures / "broken.jpg").unlink()
    line = [str(run_folder), str(pictures), str(pictures / "*.png"), "-"]
    assert main(["predict", *line, "--json"]) == 0
    found = [Path(one["image"]).name for one in json_lines(capsys)]
    assert found == ["good.jpg", "other.png", "other.png", "good.jpg"]


def test_evaluate(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["evaluate", str(run_folder), "--data", "mnist-5k", "--split", "test"]
    report = tmp_path / "report.html"
    assert main([*line, "--json", "--report", str(report)]) == 0
    (found,) = json_lines(capsys)
    assert found["images"] == 1000
    assert found["skipped"] == 0
    assert 0 <= found["top1"] <= found["top5"] <= 1
    assert "on mnist-5k" in report.read_text()
    assert main(line) == 0
    text = capsys.readouterr().out
    assert f"top-1              {100 * found['top1']:.2f}%" in text
    assert len(text.splitlines()) == 8 + 1 + 1 + 10


def test_evaluate_several_runs_together(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["evaluate", str(run_folder), "lenet5/mnist-5k", "mnist-5k", "--split", "test"]
    assert main([*line, "--json"]) == 0
    (found,) = json_lines(capsys)
    assert [one["name"] for one in found["members"]] == [str(run_folder), "lenet5/mnist-5k"]
    assert found["gain"]["over"] == "lenet5/mnist-5k"
    low, high = found["gain"]["interval"]
    assert low <= found["gain"]["top1"] <= high
    assert main(line) == 0
    text = capsys.readouterr().out
    assert "Each alone" in text
    assert "points of top-1 against lenet5/mnist-5k (95%:" in text


def test_evaluate_without_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "lenet5/mnist-5k"]) == 2
    assert "give a run and the data: alexnet evaluate RUN DATA" in capsys.readouterr().err


def test_calibrate(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = shutil.copytree(run_folder, tmp_path / "run")
    line = ["calibrate", str(run), "--data", "mnist-5k"]
    assert main(line) == 2
    assert "has no 'val' part" in capsys.readouterr().err
    line += ["--split", "train"]
    assert main([*line, "--json"]) == 0
    (found,) = json_lines(capsys)
    assert json.loads((run / "config.json").read_text())["temperature"] == found["temperature"]
    assert main(line) == 0
    assert "calibration error" in capsys.readouterr().out


def test_train_prints_metrics_and_what_to_do_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "settings.toml"
    config.write_text("[training]\nepochs = 9\nbatch_size = 100\n")
    run = tmp_path / "run"
    line = ["train", "mnist-5k", "--model", "lenet5_dense", "-o", str(run)]
    settings = ["--config", str(config), "--set", "training.epochs=1"]
    assert main([*line, *settings]) == 0
    text = capsys.readouterr().out
    assert f"next: alexnet predict {run} PICTURE..." in text
    assert "top1" in text
    settings_used = json.loads((run / "config.json").read_text())["settings"]["training"]
    assert settings_used["epochs"] == 1
    assert settings_used["batch_size"] == 100
    assert main([*line, *settings, "--resume", "--json"]) == 0
    (found,) = json_lines(capsys)
    assert found["run"] == str(run)
    assert main(line) == 2
    assert "--resume" in capsys.readouterr().err

from __future__ import annotations

import json

import pytest

from alexnet.cli.main import main

LINE = ["plan", "--step", "0.11@8", "--step", "0.41@128", "--precision", "fp32", "--gpus", "4"]


def test_plan_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*LINE, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == "alexnet"
    assert found["macs"] == {"forward": 724_406_816, "backward": 1_343_398_432}
    assert found["step"]["per_step_seconds"] == pytest.approx(0.09)
    assert found["step"]["measured"][1] == {"batch_size": 128, "seconds": 0.41}
    assert found["network_bytes_per_second"] == 12.5e9
    assert found["training"]["images"] == 1_281_167
    rows = {(row["parallel"], row["devices"]): row for row in found["rows"]}
    assert set(rows) == {(p, n) for p in ("ddp", "hybrid", "towers") for n in (1, 2, 4)}
    assert rows["ddp", 2]["sent_bytes"] == 243_860_896
    fields = {
        "batch_size", "total_batch_size", "step_seconds", "step_seconds_apart",
        "images_per_second", "efficiency", "efficiency_apart", "steps", "seconds",
        "seconds_apart", "messages",
    }  # fmt: skip
    assert fields <= rows["hybrid", 4].keys()
    parts = rows["hybrid", 4]["memory"]
    assert parts.pop("total") == sum(parts.values())


def test_plan_as_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*LINE, "--parallel", "ddp"]) == 0
    text = capsys.readouterr().out
    assert "step on one device: 90 ms and 2.5 ms a picture" in text
    table = text.splitlines()[-4:]
    assert table[0].split()[:3] == ["devices", "batch", "step"]
    assert [line.split()[0] for line in table[1:]] == ["1", "2", "4"]
    assert "hybrid:" not in text


def test_wrong_steps_are_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--step", "fast"]) == 2
    assert "--step 'fast' is not SECONDS@PICTURES" in capsys.readouterr().err
    assert main(["plan", "--parallel", "model"]) == 2
    assert "alexnet plan --help" in capsys.readouterr().err

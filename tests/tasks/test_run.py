"""What a user can do wrong in training and using a run: one line with the fix, each."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from alexnet.cli.main import main
from alexnet.errors import FailedError, UsageError
from alexnet.models import create_model
from alexnet.tasks.run import Run
from alexnet.tasks.train import train

Draw = Callable[..., Path]

TRAIN = "train shapes -m lenet5_dense -o new"
FINETUNE = "finetune shapes -o new --set data.image_size=63 --set training.epochs=1"


@pytest.fixture
def here(finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with ``shapes`` and the finished ``run``, to damage as one likes."""
    shutil.copytree(finished_run.folder.parent, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["data"] |= {"name": "shapes", "folder": str(tmp_path / "shapes")}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(line: str, capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """Run the command, which must fail with one line; the line."""
    capsys.readouterr()
    assert main(line.split()) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    said = [text for text in captured.err.splitlines() if text.startswith("alexnet: ")]
    assert len(said) == 1
    assert captured.err.endswith(f"{said[0]}\n")
    assert "mistake of ours" not in said[0]
    return said[0]


def change_config(run: Path, **changes: Any) -> None:
    """Give entries of ``config.json`` other values; None removes one."""
    config = json.loads((run / "config.json").read_text()) | changes
    kept = {name: config[name] for name in config if changes.get(name, ...) is not None}
    (run / "config.json").write_text(json.dumps(kept))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train nothing-here/ -m lenet5_dense -o new", "there is no folder nothing-here/: check"),
        ("train note.txt -m lenet5_dense -o new", "note.txt is not a folder"),
        ("train empty -m lenet5_dense -o new", "empty has no usable picture"),
        ("train one -m lenet5_dense -o new", "one class only, 'circle'; two are needed"),
        ("train notes -m lenet5_dense -o new", "notes has no usable picture"),
        (f"{TRAIN} --set data.image_size=0", "image_size=0 is too small for lenet5_dense"),
        (f"{TRAIN} --set data.image_size=10", "too small for LeNet-5: at least 16 pixels"),
        ("finetune shapes -o new --set data.image_size=62", "at least 63 pixels"),
        ("finetune shapes -o new --set data.image_size=-5", "image_size=-5 is too small"),
        (f"{TRAIN} --set data.image_size=big", "data.image_size is 'big': it must be a whole"),
        (f"{TRAIN} --set data.fit=squeeze", "data.fit is 'squeeze': choose from crop, stretch"),
        (f"{TRAIN} --set data.fold=3", "only mnist-5k has folds"),
        ("train mnist-5k -o new --set data.fold=5", "no fold 5: choose 0 to 4"),
        (f"{TRAIN} --set data.val_fraction=1", "it must be from 0 to below 1"),
        (f"{TRAIN} --set training.lr=0", "training.lr is 0.0: it must be above 0"),
        (f"{TRAIN} --set training.lr=nan", "training.lr is nan: it must be above 0"),
        (f"{TRAIN} --set training.seed=-1", "training.seed is -1: it must be from 0"),
        (f"{TRAIN} --set training.weight_decay=inf", "training.weight_decay is inf"),
        (f"{TRAIN} --set augment.mirror=2", "augment.mirror=2.0 must lie between 0 and 1"),
        (f"{TRAIN} --set augment.scale=2,1", "augment.scale=(2.0, 1.0) must be (low, high)"),
        (f"{TRAIN} --set augment.scale=2", "give 2 values with a comma between"),
        (f"{TRAIN} --set model.pooling=median", "cannot build lenet5_dense"),
        (f"{TRAIN} --set model.layers=3", "unknown argument of lenet5_dense 'layers'"),
        (f"{TRAIN} --set model.num_classes=3", "it is the number of the data's classes"),
        (f"{TRAIN} --set model.image_size=28", "set data.image_size"),
        (f"{TRAIN} --set model.in_chans=2", "pictures have 1 (gray) or 3 (RGB) channels"),
        (f"{TRAIN} --set training.device=tpu", "unknown device 'tpu': choose auto, cpu, cuda"),
        (f"{TRAIN} --set training.device=meta", "device 'meta' is not available here: use"),
        (f"{TRAIN} --set training.device=xpu", "device 'xpu' is not available here: use"),
        (f"{TRAIN} --set training.device=cuda:64", "device 'cuda:64' is not available here"),
        (f"{TRAIN} --set training.precision=fp8", "choose from auto, fp32, bf16, fp16"),
        (f"{TRAIN} --set training.device=cpu --set training.precision=fp16", "needs a GPU"),
        (f"{TRAIN} --config broken.toml", "broken.toml is not valid TOML"),
        (f"{TRAIN} --config bare.toml", "'epochs' stands outside a section: write [training]"),
        (f"{TRAIN} --config latin.toml", "latin.toml is not valid TOML"),
        (f"{TRAIN} --config number.toml", "augment.scale is 5: give 2 values"),
        (f"{TRAIN} --config shapes", "cannot read shapes (Is a directory)"),
        ("finetune shapes -o new -m lenet5", "belong to alexnet_owt, not to lenet5: use --model"),
        ("finetune shapes -o new -w run", "do not fit alexnet_owt"),
        ("finetune shapes -o new -w gone.safetensors", "no file gone.safetensors: check the path"),
        ("finetune shapes -o new -w cut.safetensors", "cut.safetensors is damaged"),
        (f"{FINETUNE} --set finetune.unfreeze=-1", "finetune.unfreeze is -1: it must be 0 or"),
        (f"{FINETUNE} --set finetune.l2=-1", "finetune.l2 is -1.0: it must be 0 or more"),
    ],
)
def test_what_is_asked_for_cannot_be(
    line: str, said: str, here: Path, draw_shapes: Draw, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "empty").mkdir()
    draw_shapes(here / "one", per_class=2, shapes=("circle",))
    (here / "notes" / "x").mkdir(parents=True)
    (here / "notes" / "x" / "a.jpg").write_text("no picture")
    (here / "note.txt").write_text("no folder")
    (here / "broken.toml").write_text("[training\n")
    (here / "bare.toml").write_text("epochs = 3\n")
    (here / "latin.toml").write_bytes(b'[training]\noptimizer = "\xe4"\n')
    (here / "number.toml").write_text("[augment]\nscale = 5\n")
    weights = (here / "run" / "model.safetensors").read_bytes()
    (here / "cut.safetensors").write_bytes(weights[: len(weights) // 2])
    assert said in refused(line, capsys)
    # Nothing is in the way of the same command, put right.
    assert {path.name for path in (here / "new").glob("*")} <= {"bad_images.csv"}


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("run", "run exists: go on with it by --resume, or choose another folder with -o"),
        ("shapes", "shapes holds something else than a run: choose another folder with -o"),
        ("shapes --resume", "shapes holds something else than a run: choose another folder"),
        ("note.txt", "note.txt holds something else than a run: choose another folder"),
        ("note.txt/x", "cannot write note.txt/x (Not a directory): choose a folder that can be"),
        ("nowhere --resume", "nowhere holds no run to resume: leave --resume out"),
        ("/proc/alexnet", "choose a folder that can be written to"),
        ("run --resume --set training.epochs=9", "was started with other settings: resume"),
        ("run --resume --set training.epochs=0", "training.epochs is 0: it must be at least 1"),
    ],
)
def test_where_a_run_cannot_be_written(
    out: str, said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "note.txt").write_text("no folder")
    before = sorted((path, path.stat().st_mtime_ns) for path in here.rglob("*") if path.is_file())
    assert said in refused(f"train shapes -m lenet5_dense -o {out}", capsys)
    after = sorted((path, path.stat().st_mtime_ns) for path in here.rglob("*") if path.is_file())
    assert after == before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train other -m lenet5_dense -o run", "was started with data 'shapes', not 'other'"),
        ("train mnist-5k -m lenet5_dense -o run", "was started with data 'shapes', not 'mnist-5k'"),
        ("train shapes -m lenet1989 -o run", "with model 'lenet5_dense', not 'lenet1989'"),
        ("finetune shapes -m lenet5_dense -o run", "was started with task 'train', not 'finetune'"),
    ],
)
def test_a_run_goes_on_as_it_began_only(
    line: str, said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "other").mkdir()
    line = refused(f"{line} --resume", capsys)
    assert said in line
    assert "resume with the same, or choose another folder with -o" in line


@pytest.mark.parametrize("name", ["shapes", "shapes/", "./shapes", "{here}/shapes"])
def test_a_run_goes_on_with_the_same_folder_however_it_is_called(name: str, here: Path) -> None:
    assert (
        main(["train", name.format(here=here), "-m", "lenet5_dense", "-o", "run", "--resume"]) == 0
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format_version": 99}, "was written by a newer alexnet"),
        ({"format_version": "one"}, "has format_version 'one': restore or remove it"),
        ({"settings": None}, "is not that of a training that can go on (KeyError: 'settings')"),
        ({"settings": {"training": {}}}, "is not that of a training that can go on"),
        ({"data": "shapes"}, "is not that of a training that can go on"),
    ],
)
def test_a_run_with_a_damaged_config_does_not_go_on(
    changes: dict[str, Any], said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_config(here / "run", **changes)
    line = refused("train shapes -m lenet5_dense -o run --resume", capsys)
    assert said in line
    assert "config.json" in line


def test_unknown_settings_of_another_version_do_not_go_on(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = json.loads((here / "run" / "config.json").read_text())["settings"]
    settings["training"]["warp"] = 9
    change_config(here / "run", settings=settings)
    line = refused("train shapes -m lenet5_dense -o run --resume", capsys)
    assert "'warp'" in line
    assert "choose another folder with -o" in line


def test_checkpoints_that_cannot_be_read_are_named(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_config(here / "run", status="running")
    for path in (here / "run" / "checkpoints").iterdir():
        path.write_bytes(b"damaged")
    said = refused("train shapes -m lenet5_dense -o run --resume", capsys)
    assert "no checkpoint in run/checkpoints can be read: start again in another" in said


def without(name: str) -> Callable[[Path], None]:
    return lambda run: (run / name).unlink()


def with_text(name: str, text: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        (run / name).write_text(text)

    return change


def with_entries(**changes: Any) -> Callable[[Path], None]:
    return lambda run: change_config(run, **changes)


def with_other_weights(run: Path) -> None:
    state = {
        name: tensor.contiguous() for name, tensor in create_model("lenet1989").state_dict().items()
    }
    save_file(state, run / "model.safetensors")


def with_half_the_weights(run: Path) -> None:
    weights = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(weights[: len(weights) // 2])


@pytest.mark.parametrize("command", ["predict run {picture}", "evaluate run --data shapes"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without("model.safetensors"), "run has no model.safetensors: give the folder of a fin"),
        (without("config.json"), "run has no config.json: give the folder of a finished run"),
        (with_text("config.json", "{"), "run/config.json is not valid JSON"),
        (with_text("config.json", "[]"), "run/config.json does not hold a JSON object: restore"),
        (with_entries(format_version=99), "upgrade with: pip install -U alexnet"),
        (with_entries(format_version="one"), "has format_version 'one': restore or remove it"),
        (with_entries(model=None), "run/config.json is not a run's (KeyError: 'model'): restore"),
        (with_entries(model="lenet6"), "unknown model 'lenet6': did you mean 'lenet5'?"),
        (with_entries(arguments={"warp": 9}), "unknown argument of lenet5_dense 'warp'"),
        (with_entries(input={"size": 0}), "run/config.json is not a run's"),
        (with_other_weights, "do not fit lenet5_dense"),
        (with_half_the_weights, "run/model.safetensors is damaged"),
    ],
)
def test_a_run_that_cannot_be_used(
    command: str, damage: Callable[[Path], None], said: str, here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    damage(here / "run")
    assert said in refused(command.format(picture="shapes/circle/0.png"), capsys)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("evaluate run --data others", "others has 1 class(es) that the network was not trained"),
        ("evaluate run --data others", "(triangle): it knows circle, cross, square"),
        ("evaluate run --data shapes --split val", "has no 'val' part: choose from test, train"),
        ("evaluate run --data shapes --batch-size 0", "batch_size is 0: it must be at least 1"),
        ("evaluate run --data shaeps", "unknown data set or folder 'shaeps'"),
        ("evaluate imagenet1k-features --data shapes", "alexnet finetune DATA -o RUN"),
        ("predict shapes/circle/0.png shapes/circle/0.png", "is a file: give a run folder"),
        ("predict run shapes/circle/0.png --top 0", "top is 0: it must be at least 1"),
        ("predict run shapes/circle/0.png --batch-size 0", "batch_size is 0: it must be at least"),
        ("demo -o shapes", "shapes holds other files"),
        ("demo -o shapes/circle/0.png", "0.png is a file: choose another folder with -o"),
        ("demo -o shapes/circle/0.png/x", "(Not a directory): choose a folder that can be writ"),
    ],
)
def test_what_a_run_cannot_be_asked(
    line: str, said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(here / "shapes", here / "others")
    (here / "others" / "cross").rename(here / "others" / "triangle")
    assert said in refused(line, capsys)


@pytest.mark.parametrize("rate", ["1e9", "1e30"])
def test_a_loss_that_is_no_number_is_one_line_with_a_lower_rate(
    rate: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(f"{TRAIN} --set training.lr={rate}", capsys, code=3)
    assert "the loss is no longer a number (epoch " in said
    assert f"lower the learning rate, --set training.lr={float(rate) / 10:g}" in said


@pytest.mark.parametrize("val_fraction", ["0", "0.3"])
def test_weights_that_burst_in_the_last_step_are_no_finished_run(
    val_fraction: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("lr=1e30", "epochs=1", "batch_size=99", "warmup=0")
    line = " ".join([TRAIN, *(f"--set training.{one}" for one in settings)])
    line += f" --set model.activation=relu --set data.val_fraction={val_fraction}"
    said = refused(line, capsys, code=3)
    part = "on the test part" if val_fraction == "0" else "validation of epoch 1"
    assert f"the loss is no longer a number ({part})" in said


# The weights take 250 KB, a checkpoint 500 KB: the disk is full at the settings, at the weights,
# at the first checkpoint, at the second, and at the report.
@pytest.mark.parametrize("size", [4 << 10, 200 << 10, 600 << 10, 1100 << 10, 1600 << 10])
def test_a_full_disk_is_one_line(
    size: int, here: Path, small_disk: Callable[[int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    disk = small_disk(size)
    line = f"train shapes -m lenet5_dense -o {disk}/run --set training.epochs=3"
    said = refused(line, capsys, code=3)
    assert "no space left on the disk to write " in said
    assert "free some, then --resume" in said
    assert not list(disk.rglob("*.tmp"))
    for path in disk.rglob("*.json"):
        assert json.loads(path.read_text())
    for path in disk.rglob("*.safetensors"):
        assert load_file(path)
    subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
    assert main([*line.split(), "--resume"]) == 0


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    import io

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def jpeg(pixels: np.ndarray[Any, Any]) -> bytes:
    import io

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


def ten_damages(pixels: np.ndarray[Any, Any]) -> dict[str, bytes]:
    """Ten files that should have been pictures, by name."""
    good_png, good_jpeg = png(pixels), jpeg(pixels)
    flipped = bytearray(good_png)
    flipped[len(flipped) // 2] ^= 0xFF  # the checksum of the compressed pixels is wrong
    bomb = bytearray(good_png)
    bomb[16:24] = (1 << 17).to_bytes(4, "big") * 2  # says that it is 131,072 pixels wide and high
    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    return {
        "empty.jpg": b"",
        "cut.jpg": good_jpeg[: len(good_jpeg) // 2],
        "cut.png": good_png[: len(good_png) // 2],
        "header only.jpg": good_jpeg[:20],
        "zeros.png": bytes(len(good_png)),
        "flipped.png": bytes(flipped),
        "bomb.png": bytes(bomb),
        "text.jpg": b"<html>404 not found</html>",
        "movie.mp4": b"\x00\x00\x00\x18ftypmp42" + bytes(100),
        "signature only.png": good_png[:8],
    }


def test_a_folder_of_200_pictures_of_which_20_are_damaged_trains_and_names_all_20(
    draw_shapes: Draw, tmp_path: Path
) -> None:
    data = draw_shapes(tmp_path / "shapes", per_class=90, shapes=("circle", "square"))
    damaged = set()
    for shape in ("circle", "square"):
        pixels = np.asarray(Image.open(data / shape / "0.png"))
        for name, content in ten_damages(pixels).items():
            (data / shape / name).write_bytes(content)
            damaged.add(f"{shape}/{name}")
    assert len(damaged) == 20
    assert len([path for path in data.rglob("*") if path.is_file()]) == 200
    run = train(data, "lenet5_dense", out=tmp_path / "run", settings={"training.epochs": 2})
    with (run.folder / "bad_images.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["name"] for row in rows} == damaged
    assert len(rows) == 20
    assert all(row["reason"] for row in rows)
    assert run.metrics["skipped"] == 20
    counts = run.config["data"]
    assert counts["train"] + counts["val"] + counts["test"] == 180
    assert counts["refused"] == 20


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX alone")
def test_a_bad_picture_whose_name_is_not_utf_8_is_named(draw_shapes: Draw, tmp_path: Path) -> None:
    data = draw_shapes(tmp_path / "shapes")
    Path(os.fsdecode(os.fsencode(data / "circle") + b"/\xff.jpg")).write_bytes(b"")
    shutil.copy(data / "circle" / "0.png", os.fsdecode(os.fsencode(data / "circle") + b"/\xfe.png"))
    run = train(data, "lenet5_dense", out=tmp_path / "run", settings={"training.epochs": 1})
    assert run.metrics["skipped"] == 1
    assert len((run.folder / "bad_images.csv").read_text().splitlines()) == 2


def test_pictures_of_one_pixel_are_no_obstacle(tmp_path: Path) -> None:
    for number, name in enumerate(("dark", "light")):
        (tmp_path / "dots" / name).mkdir(parents=True)
        for index in range(6):
            pixel = np.full((1, 1), 200 * number + index, dtype=np.uint8)
            Image.fromarray(pixel).save(tmp_path / "dots" / name / f"{index}.png")
    run = train(tmp_path / "dots", "lenet5_dense", out=tmp_path / "run",
                settings={"training.epochs": 2, "training.batch_size": 4})  # fmt: skip
    assert run.metrics["test_images"] == 2


def test_the_same_seed_gives_the_same_network_and_another_seed_another(
    draw_shapes: Draw, tmp_path: Path
) -> None:
    data = draw_shapes(tmp_path / "shapes")
    weights = []
    for number, seed in enumerate((1, 1, 2)):
        settings = {"training.epochs": 1, "training.seed": seed}
        torch.manual_seed(number)  # what the caller drew before does not matter
        run = train(data, "lenet5_dense", out=tmp_path / str(number), settings=settings)
        weights.append(load_file(run.folder / "model.safetensors")["c1.weight"])
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_run_reads_gray_pictures_if_the_network_is_told_so(
    draw_shapes: Draw, tmp_path: Path
) -> None:
    data = draw_shapes(tmp_path / "shapes")
    settings = {"training.epochs": 1, "model.in_chans": 3}
    run = train(data, "lenet5_dense", out=tmp_path / "run", settings=settings)
    assert run.config["input"]["channel_order"] == "rgb"
    assert load_file(run.folder / "model.safetensors")["c1.weight"].shape[1] == 3


def test_errors_are_of_both_families() -> None:
    assert issubclass(UsageError, ValueError)
    assert issubclass(FailedError, RuntimeError)

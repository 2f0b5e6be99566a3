from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alexnet.cli.main import _interrupted, app, main
from alexnet.errors import FailedError

COMMANDS = (
    "demo", "doctor", "evaluate", "finetune", "models", "predict", "prepare", "summary", "train",
    "weights list", "weights show", "weights convert",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_s_help_has_an_example(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert "For example:" in text
    assert f"alexnet {command}" in text
    assert "--json" in text
    assert "--debug" in text
    assert "Args:" not in text


def test_no_command_prints_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    assert "alexnet finetune photos/ -o runs/photos" in text
    assert "Exit codes: 0 done, 1 done with some inputs refused" in text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("trian", 'Unknown command "trian". Did you mean "train"?'),
        ("weights lst", 'Did you mean "list"?'),
        ("train mnist-5k --modle lenet5 -o x", "Unknown option: --modle. Did you mean --model?"),
        ("train mnist-5k", "'alexnet train' needs --out"),
        ("train -o x", "'alexnet train' needs DATA"),
        ("predict run", "'alexnet predict' needs IMAGES"),
        ("demo x", "unexpected 'x'"),
        ("evaluate x --data y --split tset", 'Did you mean "test"?'),
        ("predict x y --top many", 'Invalid value for --top: unable to convert "many" into int'),
        ("--json models", "options follow it, as in 'alexnet models --json'"),
        ("train mnist-5k -o x --set foo", "--set 'foo' is not NAME=VALUE"),
        ("train mnist-5k -o x --config missing.toml", "cannot read missing.toml"),
        ("train mnist-5k -o x --set training.epoch=2", "did you mean 'training.epochs'"),
        ("train mnist-5k -o x --set training.epochs=two", "must be a whole number"),
        ("train mnist-5k -o x --model lenet", "did you mean 'lenet5'"),
        ("train mnist-5k -o x --recipe lenet-moden", "did you mean 'lenet-modern'"),
        ("train no-such-data -o x", "no-such-data"),
        ("prepare mnist-5k", "'alexnet prepare' needs --out"),
        ("prepare no-such-data -o x", "unknown data set or folder 'no-such-data'"),
        ("prepare imagenet:nowhere -o x", "there is no folder nowhere: put ILSVRC2012_img_train"),
        ("prepare mnist-5k -o x --size 0", "size is 0: it must be at least 1"),
        ("prepare mnist-5k -o x --format png", 'Invalid value "png" for --format'),
        ("summary alexnt", "did you mean 'alexnet'"),
        ("summary lenet5 --set training.lr=1", "write model.NAME=VALUE"),
        ("weights show imagenet", "did you mean 'imagenet1k'"),
        ("weights convert imagenet1k-features x.pth", "must end in .safetensors"),
        ("predict no/such/run y.jpg", "no/such/run"),
        ("evaluate no/such/run --data mnist-5k", "no/such/run"),
        ("finetune mnist-5k -o x --weights imagenet1k-feature", "did you mean"),
    ],
)
def test_wrong_use_is_one_line_with_the_fix_and_exit_code_2(
    line: str, said: str, capsys: pytest.CaptureFixture[str],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("alexnet: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err
    # Nothing is in the way of the same line, put right.
    assert not list((tmp_path / "x").rglob("*"))


def test_debug_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", "alexnt", "--debug"]) == 2
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert text.splitlines()[-1].startswith("alexnet: unknown model 'alexnt'")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (FailedError("no space left"), 3, "alexnet: no space left\n"),
        (KeyError("x"), 3, "alexnet: KeyError: 'x' (a mistake of ours; --debug shows where)\n"),
        (MemoryError(), 3, "alexnet: out of memory: halve --set training.batch_size"),
        (PermissionError(13, "Permission denied", "f"), 3, "alexnet: Permission denied: f\n"),
        (FailedError("two\nlines"), 3, "alexnet: two lines\n"),
        (KeyboardInterrupt(), 130, "\nalexnet: interrupted; no file was left half-written"),
    ],
)
def test_every_failure_is_one_line(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    app.command(fail, name="fail-for-a-test")
    try:
        assert main(["fail-for-a-test"]) == code
    finally:
        del app["fail-for-a-test"]
    assert capsys.readouterr().err.startswith(said)


def test_a_reader_that_leaves_is_no_error() -> None:
    line = f"{sys.executable} -m alexnet models --json | head -c 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert done.stdout in ("{141\n", "{0\n")
    assert done.stderr == ""


def test_ctrl_c_says_how_to_go_on_and_the_run_resumes(tmp_path: Path) -> None:
    run = tmp_path / "a run"
    line = [sys.executable, "-m", "alexnet", "train", "mnist-5k", "--model", "lenet5_dense", "-o"]
    line += [str(run), "--set", "training.epochs=3", "--set", "training.seed=1"]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    until = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists() and time.monotonic() < until:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert said.splitlines()[-1] == (
        f"alexnet: interrupted; go on with: alexnet train mnist-5k --model lenet5_dense "
        f"-o '{run}' --set training.epochs=3 --set training.seed=1 --resume"
    )
    assert "Traceback" not in said
    assert not list(run.rglob("*.tmp"))
    assert main([*line[3:], "--resume"]) == 0
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 3
    assert (run / "report.html").is_file()


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX alone")
def test_a_file_name_that_is_not_utf_8_can_be_printed(tmp_path: Path, run_folder: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff.jpg"
    line = [sys.executable, "-m", "alexnet", "predict", str(run_folder), name, "--json"]
    done = subprocess.run(line, capture_output=True)
    assert done.returncode == 1, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"error" in done.stdout


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX alone")
def test_a_list_with_a_name_that_is_not_utf_8_is_read_on(run_folder: Path, pictures: Path) -> None:
    line = [sys.executable, "-m", "alexnet", "predict", str(run_folder), "-", "--json"]
    names = b"\n".join((os.fsencode(pictures / "good.jpg"), b"/\xff.jpg", b""))
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(line, input=names, env=environment, capture_output=True)
    assert done.returncode == 1, done.stderr
    good, bad = (json.loads(told) for told in done.stdout.splitlines())
    assert good["predictions"]
    assert bad["error"]


@pytest.mark.parametrize(
    ("begun", "expected"),
    [
        (False, "interrupted before the run was begun: run the same command again"),
        (True, "interrupted; go on with: alexnet train photos -o {run} --resume"),
    ],
)
def test_ctrl_c_advises_to_resume_what_was_begun(
    begun: bool, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    if begun:
        run.mkdir()
        (run / "config.json").write_text("{}")
    assert _interrupted(["train", "photos", "-o", str(run)]) == 130
    assert capsys.readouterr().err.strip() == f"alexnet: {expected.format(run=run)}"

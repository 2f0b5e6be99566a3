"""LeNet against AlexNet on the bundled digits: the lecture's comparison in two minutes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alexnet import files
from alexnet.data.sources import open_data
from alexnet.errors import UsageError
from alexnet.progress import log
from alexnet.tasks.comparison.facts import describe
from alexnet.tasks.finetune import finetune
from alexnet.tasks.predict import Classifier
from alexnet.tasks.report import comparison_table, write_comparison
from alexnet.tasks.run import Run
from alexnet.tasks.train import train

DATA = "mnist-5k"
LENET: dict[str, Any] = {
    "training.epochs": 40,
    "training.batch_size": 32,
    "training.lr": 0.002,
    "augment.rotate": 10.0,
    "augment.scale": (0.9, 1.1),
    "augment.aspect": 0.1,
    "augment.shift": 0.06,
}
ALEXNET: dict[str, Any] = {
    "data.image_size": 95,
    "training.epochs": 8,
    "training.batch_size": 64,
    "training.lr": 0.001,
}
"""Chosen on pictures of the training part."""


def run_demo(out: str | Path, fold: int = 0) -> dict[str, Any]:
    """Train LeNet-5 from scratch and AlexNet from ImageNet features, and compare them.

    Args:
        out: folder for both runs, ``report.html`` and ``demo.json``. An earlier demo in it is
            replaced, one that was interrupted goes on.
        fold: which thousand of the 5,000 digits both are tested on.

    Returns:
        The content of ``demo.json``: ``lenet5`` and ``alexnet_owt``, each with its facts and
        figures, and ``data``.

    Raises:
        UsageError: ``out`` holds something else.
    """
    out = Path(out)
    _make_room(out)
    runs = {}
    log.info("LeNet-5 (1998), from random weights, on 4,000 digits")
    runs["lenet5"] = train(
        DATA,
        "lenet5",
        out=out / "lenet5",
        resume=_begun(out / "lenet5"),
        settings={"data.fold": fold, **LENET},
    )
    log.info("AlexNet (one tower, 2014), from features learned on ImageNet, on the same digits")
    runs["alexnet_owt"] = finetune(
        DATA,
        out / "alexnet_owt",
        resume=_begun(out / "alexnet_owt"),
        settings={"data.fold": fold, **ALEXNET},
    )
    classifiers = {name: Classifier.load(run.folder) for name, run in runs.items()}
    rows = {name: _row(name, run, classifiers[name]) for name, run in runs.items()}
    result = {"data": DATA, "fold": fold, **rows}
    write_comparison(
        out / "report.html",
        list(rows.values()),
        {name: _history(run) for name, run in runs.items()},
        networks={name: one.network for name, one in classifiers.items()},
        title="LeNet against AlexNet on handwritten digits",
        notes=NOTES,
    )
    files.write_json(out / "demo.json", result)
    return result


NOTES = (
    "Both learned from the same 4,000 digits of MNIST and were tested once on the same 1,000 "
    "others.",
    "AlexNet begins with convolutions trained on ImageNet. The weights bundled here end at pool5, "
    "so one new layer (fc8) on pool5 takes the place of fc6 to fc8, and its input is 95 pixels "
    "wide, which is plenty for a digit.",
)


def comparison_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The table of a demo: label, LeNet's cell, AlexNet's cell."""
    rows = [result["lenet5"], result["alexnet_owt"]]
    return [(label, *cells) for label, cells in comparison_table(rows)]


def _make_room(out: Path) -> None:
    """Clear an earlier demo away; leave anything else alone."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file: choose another folder with -o")
    if _is_demo(out / "demo.json"):
        for name in ("lenet5", "alexnet_owt"):
            shutil.rmtree(out / name, ignore_errors=True)
        (out / "demo.json").unlink()
    elif out.is_dir():  # nothing, or what a demo leaves that was interrupted
        expected = ("lenet5", "alexnet_owt", "report.html")
        names = [p.name for p in out.iterdir()]
        others = [n for n in names if n not in expected and not files.is_leftover(n)]
        if others:
            raise UsageError(
                f"{out} holds other files ({others[0]}): choose another folder with -o"
            )
    files.remove_leftovers(out)


def _is_demo(path: Path) -> bool:
    """Whether a demo wrote this file."""
    try:
        return {"lenet5", "alexnet_owt"} <= files.read_json(path).keys()
    except UsageError:
        return False


def _begun(folder: Path) -> bool:
    """Whether an interrupted demo left this run."""
    return (folder / "config.json").is_file()


def _history(run: Run) -> list[dict[str, Any]]:
    lines = (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _row(name: str, run: Run, classifier: Classifier) -> dict[str, Any]:
    """One network's facts and figures."""
    test = open_data(DATA, fold=run.config["settings"]["data"]["fold"]).test
    assert test is not None
    return {
        "name": name,
        **describe(name, classifier, test),
        "train_seconds": run.metrics["train_seconds"],
        "top1": run.metrics["test_top1"],
        "test_images": run.metrics["test_images"],
    }

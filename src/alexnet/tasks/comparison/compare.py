"""Train several networks on the same pictures within the same time, and set them side by side."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import alexnet
from alexnet import files
from alexnet.data.sources import Splits
from alexnet.errors import FailedError, UsageError
from alexnet.evaluation.evaluate import evaluate_on, learned_from, match_classes
from alexnet.evaluation.metrics import Evaluation
from alexnet.models.alexnet import AlexNet
from alexnet.models.pretrained import CONFIG, load_run
from alexnet.models.registry import create_model, model_entry
from alexnet.models.weights import TENSORS, list_weights
from alexnet.progress import log
from alexnet.tasks.asked import open_to_test, plan_of, require_same_pictures, write_plan
from alexnet.tasks.comparison import hog
from alexnet.tasks.comparison.facts import describe
from alexnet.tasks.comparison.written import write
from alexnet.tasks.finetune import HEAD_PICTURES, finetune
from alexnet.tasks.predict import Classifier
from alexnet.tasks.rehearse import rehearse, rehearse_finetune
from alexnet.tasks.run import Run
from alexnet.tasks.train import train
from alexnet.training.loop import DIVERGED

MINUTES = 15.0
HEAD_EPOCHS = 1.5
"""Epochs that fitting the head on the frozen features of all pictures takes as long as, about."""
MOST_SIDE = 256
"""Above this no network is too large for its pictures."""
FROM_SCRATCH: dict[str, Any] = {
    "data.val_fraction": 0.0,
    "training.epochs": 30,
    "training.batch_size": 64,
    "training.optimizer": "adamw",
    "training.lr": 0.001,
    "training.weight_decay": 0.05,
    "training.schedule": "cosine",
    "training.keep": "last",
    "training.label_smoothing": 0.0,
    "training.ema": 0.0,
    "augment.mixup": 0.0,
    "augment.cutmix": 0.0,
    "augment.randaugment": 0,
}
"""Of a deep network that starts from random weights on some thousands of pictures."""


@dataclass(frozen=True)
class Entrant:
    """A network of a comparison.

    Attributes:
        name: as it was given, and in the result.
        how: ``"train"``, ``"finetune"``, ``"run"`` (trained already) or ``"hog"``.
        settings: of its training.
    """

    name: str
    how: str
    settings: Mapping[str, Any]

    @property
    def folder(self) -> str:
        """The name of its folder."""
        return self.name.replace(":", "-").replace("/", "-").strip(".-") or "network"


def compare(
    models: Sequence[str],
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    minutes: float = MINUTES,
    image_size: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train networks on the same pictures, test them on the same others, and write both down.

    Each is trained as suits it: a network whose features are bundled is fine-tuned from them, the
    others start from random weights; all have the same time, of which a few measured steps tell how
    many epochs it is enough for, up to the recipe's own. A run folder is taken as it is. What is
    finished is not trained and measured again when the same comparison is started once more.

    Args:
        models: names, ``"torchvision:NAME"``, ``"timm:NAME"``, run folders, or ``"hog-svm"``, the
            hand-made features that AlexNet displaced.
        data: a data set's name or a folder of class folders.
        out: a folder for the runs, ``compare.json``, ``.csv``, ``.md`` and ``report.html``.
        minutes: of training that each may have.
        image_size: side of the input of every network that takes any, or the least above it that
            it takes (AlexNet: 67); None is each one's own.
        settings: dotted names to values, for every network that is trained.

    Returns:
        The content of ``compare.json``: ``data``, ``classes``, ``images`` (of each part),
        ``models``, a row each, and ``diverged``, the names of those that could not be trained.

    Raises:
        UsageError: no model, one twice, an unknown name, data without a test part, a run that
            learned from it or knows other classes, or ``out`` belongs to another comparison or to
            other pictures.
        FailedError: every network's loss ceased to be a number.
    """
    if not minutes > 0:
        raise UsageError(f"minutes is {minutes:g}: it must be more than 0")
    entrants = [_entrant(str(name), image_size, settings or {}) for name in models]
    names = [entrant.name for entrant in entrants]
    if not names:
        raise UsageError("there is nothing to compare: name networks, such as lenet5 alexnet")
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{name} is named twice")
    out, data = Path(out), os.fspath(data)
    asked = {
        "data": data, "minutes": minutes, "image_size": image_size,
        "settings": dict(settings or {}),
    }  # fmt: skip
    plan = plan_of(out, asked, "a comparison")
    splits = open_to_test(data, settings or {})
    require_same_pictures(out, plan, splits)
    _plan_epochs(out, plan, entrants, data, minutes)
    for entrant in entrants:
        if entrant.how == "run":
            _check_run(entrant.name, data, splits)
    rows, histories, networks, diverged = [], {}, {}, []
    for entrant in entrants:
        log.info("%s", entrant.name)
        if entrant.how == "hog":
            rows.append(_hog_row(splits, _kept_row(out, entrant)))
            continue
        folder = Path(entrant.name) if entrant.how == "run" else out / entrant.folder
        try:
            run = _trained(entrant, data, folder, plan)
        except FailedError as error:
            if DIVERGED not in str(error):
                raise
            log.error("%s: %s", entrant.name, DIVERGED)
            diverged.append(entrant.name)
            continue
        row, classifier = _row(entrant, folder, data, splits, run, _kept_row(out, entrant))
        rows.append(row)
        histories[entrant.name] = _history(folder)
        networks[entrant.name] = classifier.network
    if not rows:
        raise FailedError(
            f"no network could be trained: {DIVERGED}; lower the learning rate, "
            f"--set training.lr=0.001, in another folder"
        )
    counts = {part: len(getattr(splits, part) or ()) for part in ("train", "val", "test")}
    result = {
        "data": data,
        "classes": len(splits.classes),
        "images": counts,
        "minutes": minutes,
        "image_size": image_size,
        "models": rows,
        "diverged": diverged,
    }
    write(out, result, histories, networks)
    return result


def _kept_row(out: Path, entrant: Entrant) -> Path:
    """Where a row is kept."""
    return out / "rows" / f"{entrant.folder}.json"


def _entrant(name: str, image_size: int | None, settings: Mapping[str, Any]) -> Entrant:
    if name == hog.NAME:
        return Entrant(name, "hog", {})
    if (Path(name) / CONFIG).is_file():
        return Entrant(name, "run", {})
    entry = model_entry(name)
    size = {} if image_size is None else {"data.image_size": _side(name, image_size)}
    if _bundled_features(name):
        return Entrant(name, "finetune", {**size, **settings})
    if entry.low_precision_pays:
        own = {"model.init": "default"} if _takes_init(name) else {}
        return Entrant(name, "train", {**FROM_SCRATCH, **own, **size, **settings})
    return Entrant(name, "train", dict(settings))  # LeNet's input is its own


def _takes_init(name: str) -> bool:
    """Whether how its weights are drawn can be chosen."""
    with torch.device("meta"):
        return ":" not in name and isinstance(create_model(name), AlexNet)


def _side(name: str, wanted: int) -> int:
    """The side wanted, or the least above it that the network takes."""
    if ":" in name:
        return wanted
    for side in range(wanted, max(wanted, MOST_SIDE) + 1):
        try:
            with torch.device("meta"):
                create_model(name, image_size=side)
        except UsageError:
            continue
        if side > wanted:
            log.info("%s takes no pictures smaller than %d pixels", name, side)
        return side
    return wanted


def _bundled_features(model: str) -> str | None:
    found = [w.name for w in list_weights() if w.model == model and w.covers == "features"]
    return found[0] if found else None


def _check_run(run: str, data: str, splits: Splits) -> None:
    """Refuse a run that cannot be tested on the test part.

    Raises:
        UsageError: it learned from some of it, or does not know a class.
    """
    loaded = load_run(run)
    assert splits.test is not None
    if loaded.classes is not None:
        labels = torch.tensor(splits.test.labels)
        match_classes(labels, splits.classes, loaded.classes, data)
    both = learned_from(data, loaded.config, splits.test)
    if both:
        raise UsageError(
            f"{run} learned from {both:,} of the {len(splits.test):,} test pictures of {data}: "
            f"divide them as for its training (--set data.seed, data.fold, data.test_fraction)"
        )


def _plan_epochs(
    out: Path, plan: dict[str, Any], entrants: Sequence[Entrant], data: str, minutes: float
) -> None:
    """Each network's epochs: as before, or chosen now."""
    epochs = plan.setdefault("epochs", {})
    write_plan(out, plan)
    for entrant in entrants:
        if entrant.how in ("train", "finetune") and entrant.name not in epochs:
            epochs[entrant.name] = _epochs(entrant, data, minutes)
            write_plan(out, plan)


def _epochs(entrant: Entrant, data: str, minutes: float) -> int:
    """As many epochs as there is time for, up to those of the recipe."""
    if entrant.how == "finetune":
        told = rehearse_finetune(data, entrant.name, settings=entrant.settings)
        before = HEAD_EPOCHS * min(1.0, HEAD_PICTURES / told.pictures["train"])
    else:
        told, before = rehearse(data, entrant.name, settings=entrant.settings), 0.0
    epochs = int(told.config["training"]["epochs"])
    possible = math.floor(60 * minutes / (told.seconds / epochs) - before)
    chosen = max(1, min(epochs, possible))
    log.info(
        "%s: %d epoch%s of %.0f s",
        entrant.name,
        chosen,
        "" if chosen == 1 else "s",
        told.seconds / epochs,
    )
    return chosen


def _trained(entrant: Entrant, data: str, folder: Path, plan: Mapping[str, Any]) -> Run | None:
    if entrant.how == "run":
        return None
    more = {"data.val_fraction": 0.0} if entrant.how == "train" else {}
    settings = {**more, **entrant.settings, "training.epochs": plan["epochs"][entrant.name]}
    begun = (folder / CONFIG).is_file()
    if entrant.how == "finetune":
        return finetune(data, folder, model=entrant.name, resume=begun, settings=settings)
    return train(data, entrant.name, out=folder, resume=begun, settings=settings)


def _row(
    entrant: Entrant, folder: Path, data: str, splits: Splits, run: Run | None, kept: Path
) -> tuple[dict[str, Any], Classifier]:
    classifier = Classifier.load(folder)
    test = splits.test
    assert test is not None

    def measured() -> dict[str, Any]:
        evaluation = evaluate_on(classifier, test, data)
        metrics = run.metrics if run is not None else classifier.config.get("metrics", {})
        return {
            "name": entrant.name,
            **describe(str(classifier.config["model"]), classifier, test),
            "train_seconds": metrics.get("train_seconds"),
            **_scores(evaluation),
        }

    written = (folder / TENSORS).stat()
    return _once(kept, [written.st_mtime_ns, written.st_size], measured), classifier


def _hog_row(splits: Splits, kept: Path) -> dict[str, Any]:
    def measured() -> dict[str, Any]:
        facts, evaluation = hog.measure(splits)
        return {"name": hog.NAME, **facts, **_scores(evaluation)}

    return _once(kept, [], measured)


def _once(kept: Path, weights: list[int], measured: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A row as it was written down before of the same weights, or measured now."""
    key = [alexnet.__version__, *weights]
    if kept.is_file():
        before = files.read_json(kept)
        if before.get("of") == key:
            return dict(before["row"])
    row = measured()
    kept.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(kept, {"of": key, "row": row})
    return row


def _scores(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "top1": evaluation.top1,
        "top1_interval": list(evaluation.intervals["top1"]),
        "top5": evaluation.top5,
        "top5_interval": list(evaluation.intervals["top5"]),
        "balanced_accuracy": evaluation.balanced_accuracy,
        "test_images": evaluation.images,
    }


def _history(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

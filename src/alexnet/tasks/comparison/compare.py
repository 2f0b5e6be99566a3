"""Train several networks on the same pictures within the same time, and set them side by side."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from alexnet import files
from alexnet.data.sources import Splits, open_data
from alexnet.errors import UsageError
from alexnet.evaluation.evaluate import evaluate
from alexnet.evaluation.metrics import Evaluation
from alexnet.models.pretrained import CONFIG
from alexnet.models.registry import create_model, model_entry
from alexnet.models.weights import list_weights
from alexnet.progress import log
from alexnet.tasks.asked import plan_of, write_plan
from alexnet.tasks.comparison import hog
from alexnet.tasks.comparison.facts import describe
from alexnet.tasks.finetune import HEAD_PICTURES, finetune
from alexnet.tasks.predict import Classifier
from alexnet.tasks.rehearse import rehearse, rehearse_finetune
from alexnet.tasks.report import comparison_table, write_comparison
from alexnet.tasks.run import Run
from alexnet.tasks.train import train
from alexnet.training.recipes import get_recipe

RESULT = "compare.json"
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
    finished is not trained again when the same comparison is started once more.

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
        The content of ``compare.json``: ``data``, ``classes``, ``images`` (of each part) and
        ``models``, a row each.

    Raises:
        UsageError: no model, one twice, an unknown name, or ``out`` belongs to another comparison.
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
    plan = _planned(out, entrants, data, minutes, image_size, settings or {})
    splits = open_data(data, **plan["split"])
    rows, histories, networks = [], {}, {}
    for entrant in entrants:
        log.info("%s", entrant.name)
        if entrant.how == "hog":
            rows.append(_hog_row(out / entrant.folder, splits))
            continue
        folder = Path(entrant.name) if entrant.how == "run" else out / entrant.folder
        run = _trained(entrant, data, folder, plan)
        row, classifier = _row(entrant, folder, data, splits, run)
        rows.append(row)
        histories[entrant.name] = _history(folder)
        networks[entrant.name] = classifier.network
    counts = {part: len(getattr(splits, part) or ()) for part in ("train", "val", "test")}
    result = {
        "data": data,
        "classes": len(splits.classes),
        "images": counts,
        "minutes": minutes,
        "image_size": image_size,
        "models": rows,
    }
    _write(out, result, histories, networks)
    return result


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
        own = {"model.init": "default"} if ":" not in name else {}
        return Entrant(name, "train", {**FROM_SCRATCH, **own, **size, **settings})
    return Entrant(name, "train", dict(settings))  # LeNet's input is its own


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


def _planned(
    out: Path,
    entrants: Sequence[Entrant],
    data: str,
    minutes: float,
    image_size: int | None,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """How the data are divided, and each network's epochs: as before, or chosen now."""
    asked = {
        "data": data, "minutes": minutes, "image_size": image_size, "settings": dict(settings),
    }  # fmt: skip
    plan = {"epochs": {}, **plan_of(out, asked, "a comparison"), "split": _split(settings)}
    write_plan(out, plan)
    for entrant in entrants:
        if entrant.how in ("train", "finetune") and entrant.name not in plan["epochs"]:
            plan["epochs"][entrant.name] = _epochs(entrant, data, minutes)
            write_plan(out, plan)
    return plan


def _split(settings: Mapping[str, Any]) -> dict[str, Any]:
    """How the data are divided: no validation part unless the settings ask for one."""
    about_data = {name: v for name, v in settings.items() if name.startswith("data.")}
    told = get_recipe("lenet-modern").override({"data.val_fraction": 0.0, **about_data}).data
    return {name: getattr(told, name) for name in ("seed", "fold", "val_fraction", "test_fraction")}


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
    entrant: Entrant, folder: Path, data: str, splits: Splits, run: Run | None
) -> tuple[dict[str, Any], Classifier]:
    classifier = Classifier.load(folder)
    model = str(classifier.config["model"])
    test = splits.test or splits.val or splits.train
    evaluation = evaluate(classifier, data, mistakes=0)
    metrics = run.metrics if run is not None else classifier.config.get("metrics", {})
    return {
        "name": entrant.name,
        **describe(model, classifier, test),
        "train_seconds": metrics.get("train_seconds"),
        **_scores(evaluation),
    }, classifier


def _hog_row(folder: Path, splits: Splits) -> dict[str, Any]:
    """Its row: as written down before, or measured now."""
    kept = folder / "row.json"
    if kept.is_file():
        return files.read_json(kept)
    facts, evaluation = hog.measure(splits)
    row = {"name": hog.NAME, **facts, **_scores(evaluation)}
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(kept, row)
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


def _write(
    out: Path,
    result: Mapping[str, Any],
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
    networks: Mapping[str, Any],
) -> None:
    rows = result["models"]
    files.write_json(out / RESULT, dict(result))
    files.write_text(out / "compare.csv", _as_csv(rows))
    files.write_text(out / "compare.md", as_markdown(rows))
    counts = result["images"]
    write_comparison(
        out / "report.html",
        rows,
        histories,
        networks=networks,
        title=f"{len(rows)} ways to see {Path(result['data']).name}",
        notes=[
            f"Learned from the same {counts['train']:,} pictures of {result['data']}, in "
            f"{result['classes']} classes, and tested once on the same {counts['test']:,} others. "
            f"Each had the epochs that {result['minutes']:g} minutes should suffice for."
            f"{_held_back(result)}",
            "In brackets the 95% interval over test pictures; another training would differ too.",
        ],
    )


def _held_back(result: Mapping[str, Any]) -> str:
    """Who learned from fewer pictures, choosing by the others."""
    whole = result["images"]["train"]
    here = [row for row in result["models"] if row.get("trained_on") == result["data"]]
    fewer = [row["name"] for row in here if row["train_images"] < whole]
    if not fewer:
        return ""
    return f" Of those to learn from, some were held back to choose by for: {', '.join(fewer)}."


def _as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        shown = {
            k: "x".join(map(str, v)) if k == "input" else v for k, v in row.items() if v is not None
        }
        writer.writerow(shown)
    return text.getvalue()


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as Markdown, a column a network."""
    names = [str(row["name"]) for row in rows]
    lines = [["", *names], ["---"] + ["---:"] * len(names)]
    lines += [[label, *cells] for label, cells in comparison_table(rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)

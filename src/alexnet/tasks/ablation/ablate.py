"""Train with and without each of the paper's ideas, in pairs, and say what it brought."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from alexnet import files
from alexnet.data.sources import has_mirror_images
from alexnet.errors import FailedError, UsageError
from alexnet.models.alexnet import AlexNet
from alexnet.models.registry import create_model, model_entry
from alexnet.progress import log
from alexnet.runtime import resolve
from alexnet.tasks.ablation.arms import BASE, CHANGED, RATES, Arm, innovations, races, stairs
from alexnet.tasks.ablation.page import as_markdown, write_ablation
from alexnet.tasks.ablation.places import places
from alexnet.tasks.ablation.runs import Runs, Trained
from alexnet.tasks.ablation.verdicts import paired, race, summary, together
from alexnet.tasks.asked import open_to_test, plan_of, require_same_pictures, write_plan
from alexnet.tasks.rehearse import rehearse
from alexnet.training.recipes import get_recipe

RESULT = "ablation.json"
MINUTES, SEEDS, PROCESSES = 25.0, 5, 2
START_SECONDS = {"cpu": 6.0, "cuda": 20.0}
"""That a training takes to begin and to end."""
BESIDE_OTHERS = {"cpu": 1.25, "cuda": 2.15}
"""How much longer a step takes beside the others (:data:`ON_ONE_GPU` on an H200)."""
SMALL_MODEL = "alexnet_cifar"
SIZES, ENOUGH_EPOCHS, LEAST_EPOCHS = (32, 24, 20, 16), 8, 2
"""Sides of the small network's input in pixels: the first at which there is time for enough."""


def ablate(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    model: str = SMALL_MODEL,
    seeds: int = SEEDS,
    minutes: float = MINUTES,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure what each of AlexNet's innovations brings on these data.

    Every pair has the same pictures, order and seed. Trainings run one a processor (or a GPU; four
    share a single one), as many epochs as there is time for; where there is not time for eight, the
    small network reads smaller pictures. Each training is kept under what it was told, so that
    nothing is trained twice when the same is started again.

    Args:
        data: a data set's name or a folder of class folders.
        out: a folder for the results, ``ablation.json``, ``.md`` and ``report.html``.
        model: ``"alexnet_cifar"``, the paper's network for small pictures, or another AlexNet.
        seeds: how many pairs.
        minutes: that all trainings together may take.
        settings: dotted names to values, for every training.

    Returns:
        The content of ``ablation.json``: ``innovations``, ``stairs`` and ``race``, each with n,
        means, 95% intervals (Student's t, paired) and a sentence.

    Raises:
        UsageError: fewer than 2 seeds, a model without these choices, a setting that an ablation
            itself changes, data without a test part, or ``out`` belongs to another ablation or to
            other pictures.
        FailedError: a training failed.
    """
    if seeds < 2:
        raise UsageError(f"seeds is {seeds}: it must be at least 2, for an interval")
    if not minutes > 0:
        raise UsageError(f"minutes is {minutes:g}: it must be more than 0")
    if not model_entry(model).name.startswith("alexnet"):
        raise UsageError(f"{model} has no choices to ablate: alexnet_cifar or alexnet has")
    for name in (*(f"model.{one}" for one in CHANGED), "training.seed"):
        if name in (settings or {}):
            raise UsageError(f"{name} is what an ablation changes: leave it out")
    out, data = Path(out), os.fspath(data)
    mirrored = has_mirror_images(data)
    base = {**BASE, **({} if mirrored else {"augment.mirror": 0.0}), **(settings or {})}
    ideas, steps = innovations(mirrored=mirrored, towers=has_towers(model)), stairs(base)
    device = str(base.get("training.device", "auto"))
    shared = bool(places(device, PROCESSES))
    trainings = seeds * (1 + len(ideas) + len(steps) - 2 + 2 + shared) + 2 * (len(RATES) - 1)
    asked = {
        "data": data, "model": model, "seeds": seeds, "minutes": minutes,
        "settings": dict(settings or {}),
    }  # fmt: skip
    plan = plan_of(out, asked, "an ablation")
    splits = open_to_test(data, base)
    assert splits.test is not None
    require_same_pictures(out, plan, splits)
    if "epochs" not in plan:
        plan |= _planned(asked, base, trainings, device)
    write_plan(out, plan)
    base |= {**plan["settings"], "training.epochs": plan["epochs"]}
    runs = Runs(out / "runs", data, splits.train, model, device)

    def train(
        changes: Sequence[Mapping[str, Any]], numbers: Sequence[int], processes: int = 1
    ) -> list[list[Trained]]:
        """A list a change, of a training a seed."""
        told = [_settings(base, one, mirrored, seed) for one in changes for seed in numbers]
        found = runs.train(told, processes)
        size = len(numbers)
        return [found[start : start + size] for start in range(0, len(found), size)]

    every = list(range(seeds))
    rivals = races()
    log.info("%d trainings of %d epochs", trainings, plan["epochs"])
    first = {kind: train([arm.changes for arm in arms], [0]) for kind, arms in rivals.items()}
    fastest = {kind: _fastest(rivals[kind], [f[0] for f in found]) for kind, found in first.items()}
    raced = dict(zip(fastest, train([arm.changes for arm in fastest.values()], every), strict=True))
    whole, *without = train([{}, *(idea.without.changes for idea in ideas)], every)
    climbed = train([arm.changes for arm in steps], every)
    divided = train([{}], every, PROCESSES)[0] if shared else None
    if any(one.diverged for one in (*whole, *(divided or ()))):
        raise FailedError(
            f"with all of AlexNet's ideas the loss is no longer a number: lower the learning rate, "
            f"--set training.lr={float(base['training.lr']) / 10:g}, in another folder"
        )
    result = {
        **asked,
        "epochs": plan["epochs"],
        "image_size": base.get("data.image_size"),
        "test_images": len(splits.test),
        "base": summary([one.top1 for one in whole]),
        "innovations": [
            {
                "name": idea.name,
                "against": idea.without.name,
                "claim": idea.claim,
                **paired(idea.name, whole, other),
            }
            for idea, other in zip(ideas, without, strict=True)
        ],
        "stairs": [
            {"name": arm.name, **summary([one.top1 for one in found])}
            for arm, found in zip(steps, climbed, strict=True)
        ],
        "processes": divided and together(whole, divided, PROCESSES),
        "diverged": sum(
            one.diverged for found in (*without, *climbed, *raced.values()) for one in found
        ),
        "race": race(raced, {kind: arm.changes["training.lr"] for kind, arm in fastest.items()}),
    }
    files.write_json(out / RESULT, result)
    files.write_text(out / "ablation.md", as_markdown(result))
    write_ablation(out / "report.html", result)
    return result


def has_towers(model: str) -> bool:
    """Whether a network is divided in two."""
    network = create_model(model)
    return isinstance(network, AlexNet) and network.conv2.groups > 1


def _planned(
    asked: Mapping[str, Any], base: Mapping[str, Any], trainings: int, device: str
) -> dict[str, Any]:
    """How many epochs there is time for, and of pictures of which size."""
    start = START_SECONDS.get(resolve(device).device.type, START_SECONDS["cpu"])
    each = 60 * float(asked["minutes"]) * len(places(device)) / trainings - start
    asked_size = "data.image_size" in base or asked["model"] != SMALL_MODEL
    for size in (None,) if asked_size else SIZES:
        told = {} if size is None else {"data.image_size": size}
        epochs = _epochs_told(base) or max(
            LEAST_EPOCHS, math.floor(each / _epoch_seconds(asked, {**base, **told}))
        )
        if epochs >= ENOUGH_EPOCHS:
            break
    return {"epochs": epochs, "settings": told}


def _epochs_told(base: Mapping[str, Any]) -> int | None:
    """As the settings say, where they do; from a command line they are text."""
    asked = {name: value for name, value in base.items() if name == "training.epochs"}
    return get_recipe("paper").override(asked).training.epochs if asked else None


def _epoch_seconds(asked: Mapping[str, Any], settings: Mapping[str, Any]) -> float:
    """Of one thread, beside another that does the same."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        told = rehearse(asked["data"], asked["model"], settings={**settings, "training.epochs": 1})
    finally:
        torch.set_num_threads(before)
    kind = torch.device(told.runtime["device"]).type
    return told.seconds * BESIDE_OTHERS.get(kind, BESIDE_OTHERS["cpu"])


def _settings(
    base: Mapping[str, Any], changes: Mapping[str, Any], mirrored: bool, seed: int
) -> dict[str, Any]:
    told = {**base, **changes, "training.seed": seed}
    if not mirrored:
        told["augment.mirror"] = 0.0
    return told


def _fastest(arms: Sequence[Arm], found: Sequence[Trained]) -> Arm:
    """The arm whose training error is the least at the end."""
    return min(zip(arms, found, strict=True), key=lambda pair: pair[1].train_errors[-1])[0]

"""Train with and without each of the paper's ideas, in pairs, and say what it brought."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from alexnet import files
from alexnet.data.sources import has_mirror_images
from alexnet.errors import UsageError
from alexnet.models.alexnet import AlexNet
from alexnet.models.registry import create_model, model_entry
from alexnet.progress import log
from alexnet.runtime import resolve
from alexnet.tasks.ablation.arms import BASE, RATES, Arm, innovations, races, stairs
from alexnet.tasks.ablation.page import write_ablation
from alexnet.tasks.ablation.places import places
from alexnet.tasks.ablation.runs import Runs, Trained
from alexnet.tasks.asked import plan_of, write_plan
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
EASY = 0.02
"""A training error below which there is next to nothing left to learn."""
# Student's t, two-sided 95%, by degrees of freedom; above, the normal distribution's.
_T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


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
        UsageError: fewer than 2 seeds, a model without these choices, or ``out`` belongs to another
            ablation.
        FailedError: a training failed.
    """
    if seeds < 2:
        raise UsageError(f"seeds is {seeds}: it must be at least 2, for an interval")
    if not minutes > 0:
        raise UsageError(f"minutes is {minutes:g}: it must be more than 0")
    if not model_entry(model).name.startswith("alexnet"):
        raise UsageError(f"{model} has no choices to ablate: alexnet_cifar or alexnet has")
    out, data = Path(out), os.fspath(data)
    mirrored = has_mirror_images(data)
    towers = isinstance(create_model(model), AlexNet)
    base = {**BASE, **({} if mirrored else {"augment.mirror": 0.0}), **(settings or {})}
    ideas, steps = innovations(mirrored=mirrored, towers=towers), stairs()
    device = str(base.get("training.device", "auto"))
    shared = bool(places(device, PROCESSES))
    trainings = seeds * (1 + len(ideas) + len(steps) - 2 + 2 + shared) + 2 * (len(RATES) - 1)
    asked = {
        "data": data, "model": model, "seeds": seeds, "minutes": minutes,
        "settings": dict(settings or {}),
    }  # fmt: skip
    plan = _planned(out, asked, base, trainings, device)
    base |= {**plan["settings"], "training.epochs": plan["epochs"]}
    runs = Runs(out / "runs", data, model, device)

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
    result = {
        **asked,
        "epochs": plan["epochs"],
        "image_size": base.get("data.image_size"),
        "test_images": whole[0].images,
        "base": _summary([one.top1 for one in whole]),
        "innovations": [
            {
                "name": idea.name,
                "against": idea.without.name,
                "claim": idea.claim,
                **_paired(idea.name, whole, other),
            }
            for idea, other in zip(ideas, without, strict=True)
        ],
        "stairs": [
            {"name": arm.name, **_summary([one.top1 for one in found])}
            for arm, found in zip(steps, climbed, strict=True)
        ],
        "processes": divided and together(whole, divided),
        "race": race(raced, {kind: arm.changes["training.lr"] for kind, arm in fastest.items()}),
    }
    files.write_json(out / RESULT, result)
    files.write_text(out / "ablation.md", as_markdown(result))
    write_ablation(out / "report.html", result)
    return result


def _planned(
    out: Path, asked: Mapping[str, Any], base: Mapping[str, Any], trainings: int, device: str
) -> dict[str, Any]:
    """How many epochs: as written down before, or as there is time for now."""
    plan = plan_of(out, asked, "an ablation")
    if "epochs" in plan:
        return plan
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
    plan |= {"epochs": epochs, "settings": told}
    write_plan(out, plan)
    return plan


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


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95% interval of a mean (Student's t)."""
    mean, count = statistics.mean(values), len(values)
    half = _T95.get(count - 1, 1.96) * statistics.stdev(values) / math.sqrt(count)
    return mean - half, mean + half


def _summary(values: Sequence[float]) -> dict[str, Any]:
    low, high = interval(values)
    return {
        "n": len(values),
        "top1": statistics.mean(values),
        "interval": [low, high],
        "values": list(values),
    }


def _paired(name: str, base: Sequence[Trained], other: Sequence[Trained]) -> dict[str, Any]:
    """What the base has above what is trained instead, seed by seed."""
    apart = [with_it.top1 - without.top1 for with_it, without in zip(base, other, strict=True)]
    low, high = interval(apart)
    return {
        **_summary([one.top1 for one in other]),
        "difference": statistics.mean(apart),
        "difference_interval": [low, high],
        "sentence": verdict(name, apart),
    }


def verdict(name: str, apart: Sequence[float]) -> str:
    """Whether something helps, in plain words, from paired differences of top-1."""
    mean, (low, high) = statistics.mean(apart), interval(apart)
    points = f"{100 * mean:+.2f} points of top-1, 95% {100 * low:+.2f} to {100 * high:+.2f}"
    told = "helps" if low > 0 else "hurts" if high < 0 else "not shown by these data"
    if low == high == 0:
        return f"{name}: makes no difference here (n = {len(apart)})"
    return f"{name}: {told} ({points}, n = {len(apart)})"


def together(alone: Sequence[Trained], divided: Sequence[Trained]) -> dict[str, Any]:
    """What processes that share each batch bring, in accuracy and in time."""
    name = f"{PROCESSES} processes"
    faster = [one.seconds / shared.seconds for one, shared in zip(alone, divided, strict=True)]
    low, high = interval(faster)
    found = _paired(name, divided, alone)
    mean = statistics.mean(faster)
    return {
        **found,
        "faster": mean,
        "faster_interval": [low, high],
        "sentence": (
            f"{found['sentence']}; {mean:.2f} times as fast as one (95% {low:.2f} to {high:.2f})"
        ),
    }


def race(raced: Mapping[str, Sequence[Trained]], rates: Mapping[str, float]) -> dict[str, Any]:
    """In how many epochs ReLU reaches the training error that tanh ends with (figure 1)."""
    relu, tanh = raced["relu"], raced["tanh"]
    epochs = len(tanh[0].train_errors)
    reached = [
        _first(one.train_errors, other.train_errors[-1])
        for one, other in zip(relu, tanh, strict=True)
    ]
    known = [one for one in reached if one is not None]
    mean = statistics.mean(known) if len(known) == len(reached) else None
    if mean is None:
        told = (
            f"ReLU reaches the training error that tanh has after {epochs} epochs in "
            f"{len(known)} of {len(reached)} pairs"
        )
    else:
        told = (
            f"ReLU reaches the training error that tanh has after {epochs} epochs in "
            f"{mean:.1f} epochs (mean of {len(known)})"
        )
        told += "" if mean <= epochs / 2 else ": more than half of them"
    half = (epochs + 1) // 2
    errors = {
        epoch: [statistics.mean(one.train_errors[epoch - 1] for one in f) for f in (relu, tanh)]
        for epoch in (half, epochs)
    }
    midway, end = ("{:.2%} and {:.2%}".format(*errors[epoch]) for epoch in (half, epochs))
    told += f"; ReLU and tanh have {midway} after {half} epochs, {end} at the end"
    holds = mean is not None and mean <= epochs / 2
    slopes = {
        kind: statistics.mean(one.slope for one in found if one.slope is not None)
        for kind, found in raced.items()
        if any(one.slope is not None for one in found)
    }
    if len(slopes) == 2 and not holds:
        told += f". {_why(slopes, max(errors[epochs]))}"
    return {
        "epochs": epochs,
        "rates": dict(rates),
        "reached": reached,
        "mean": mean,
        "holds": holds,
        "slopes": slopes,
        "errors": {
            kind: [
                statistics.mean(values)
                for values in zip(*(t.train_errors for t in found), strict=True)
            ]
            for kind, found in raced.items()
        },
        "sentence": told,
    }


def _why(slopes: Mapping[str, float], most: float) -> str:
    """Why ReLU is not much faster, as far as is measured; ``most``: the larger error at the end."""
    relu, tanh = slopes["relu"], slopes["tanh"]
    found = f"the mean slope of tanh is {tanh:.2f} at the end, of ReLU {relu:.2f}"
    if tanh < relu:
        found += ": tanh does pass on less of the gradient, the paper's reason (3.1)"
    else:
        found += ": tanh passes on no less of the gradient, against the paper's reason (3.1)"
    if most < EASY:
        return (
            "Why: by then both know nearly all of the pictures, which leaves little to be faster "
            f"at; {found}"
        )
    return f"Why: {found}" if tanh >= relu else f"Why is not known; {found}"


def _first(errors: Sequence[float], wanted: float) -> int | None:
    """The first epoch, counted from 1, with an error of at most ``wanted``."""
    return next((epoch for epoch, error in enumerate(errors, 1) if error <= wanted), None)


def as_markdown(result: Mapping[str, Any]) -> str:
    """The tables as Markdown."""
    base = result["base"]
    lines = [
        f"{result['model']}{_at(result)} on {result['data']}, {result['epochs']} epochs, "
        f"{result['seeds']} seeds, {result['test_images']:,} test pictures; top-1 of the base "
        f"{_percent(base)}.",
        "",
        "| innovation | instead | n | top-1 without it | difference, points (95%) | verdict |",
        "|---|---|---:|---:|---:|---|",
    ]
    for row in result["innovations"]:
        low, high = (100 * end for end in row["difference_interval"])
        said = row["sentence"].partition(": ")[2].partition(" (")[0]
        lines.append(
            f"| {row['name']} | {row['against']} | {row['n']} | {_percent(row)} | "
            f"{100 * row['difference']:+.2f} ({low:+.2f} to {high:+.2f}) | {said} |"
        )
    lines += ["", "| from LeNet to AlexNet | n | top-1 |", "|---|---:|---:|"]
    lines += [f"| {row['name']} | {row['n']} | {_percent(row)} |" for row in result["stairs"]]
    told = [result[name]["sentence"] + "." for name in ("race", "processes") if result[name]]
    return "\n".join([*lines, "", " ".join(told), ""])


def _at(result: Mapping[str, Any]) -> str:
    size = result["image_size"]
    return f" at {size}x{size} pixels" if size else ""


def _percent(row: Mapping[str, Any]) -> str:
    low, high = (100 * end for end in row["interval"])
    return f"{100 * row['top1']:.2f}% ({low:.2f} to {high:.2f})"

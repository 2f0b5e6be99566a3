"""What was asked of a training, before anything is built; a resume keeps it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet.data.sources import has_mirror_images
from alexnet.errors import UsageError
from alexnet.evaluation.evaluate import same_data
from alexnet.models.registry import model_entry
from alexnet.runtime import everywhere, on_main
from alexnet.torchrun import launch, restarts
from alexnet.training.config import Config, from_dict
from alexnet.training.folder import RunFolder


@dataclass
class Request:
    """What was asked for, before anything is built.

    Attributes:
        task: ``"train"`` or ``"finetune"``.
        data: a data set's name or a folder.
        model: the network's name.
        weights: what it starts from; None is random weights.
        config: the settings.
        folder: the run folder.
        resumed: whether the run goes on.
    """

    task: str
    data: str
    model: str
    weights: str | None
    config: Config
    folder: RunFolder
    resumed: bool

    @classmethod
    def make(
        cls,
        task: str,
        data: str | os.PathLike[str],
        model: str,
        weights: str | None,
        config: Config,
        out: str | os.PathLike[str],
        *,
        resume: bool,
        settings: Mapping[str, Any],
    ) -> Request:
        """Check names and open the run folder; a resumed run keeps the settings it began with.

        Where torchrun started several processes, the main one does it for all of them; started
        again by torchrun after a process was lost, a run goes on by itself.

        Raises:
            UsageError: an unknown model or setting, a folder that exists, or a resume that asks
                for something else than the run was started with.
        """
        # On several machines torchrun counts a restart where the process was lost only.
        restarted = not everywhere(restarts() == 0)
        return on_main(
            lambda: cls._make(
                task, os.fspath(data), model, weights, config, out,
                resume=resume or (restarted and _goes_on(out)), settings=settings,
            )
        )  # fmt: skip

    @classmethod
    def _make(
        cls,
        task: str,
        data: str,
        model: str,
        weights: str | None,
        config: Config,
        out: str | os.PathLike[str],
        *,
        resume: bool,
        settings: Mapping[str, Any],
    ) -> Request:
        model_entry(model)
        folder = RunFolder.open(out, resume=resume) if resume else None
        if folder is None or not folder.begun:
            if not has_mirror_images(data):
                config = config.override({"augment.mirror": 0.0})
            config = config.override(settings)
            _check_arguments(config)
            _check_effect(config, settings)
            folder = RunFolder.open(out, resume=resume)
            return cls(task, data, model, weights, config, folder, False)
        started, before = _read_start(folder)
        if same_data(data, started["data"]):
            data = started["data"]["name"]
        started["data"] = started["data"]["name"]
        asked = {"task": task, "data": data, "model": model, "weights": weights}
        for name, value in asked.items():
            if value != started[name]:
                raise UsageError(
                    f"{folder.path} was started with {name} {started[name]!r}, not {value!r}: "
                    f"resume with the same, or choose another folder with -o"
                )
        if before.override(settings) != before:
            raise UsageError(
                f"{folder.path} was started with other settings: resume without --set and "
                f"--config, or choose another folder with -o"
            )
        return cls(task, data, model, weights, before, folder, True)


def _goes_on(out: str | os.PathLike[str]) -> bool:
    """Whether this very call of torchrun began the run in ``out``."""
    folder = RunFolder(Path(out))
    return folder.begun and folder.read_config().get("launch") == launch()


def _check_effect(config: Config, settings: Mapping[str, Any]) -> None:
    """Refuse what was set and would do nothing."""
    training = config.training
    if training.schedule == "table" and "training.lr" in settings:
        raise UsageError(
            "training.lr does nothing where training.schedule=table: set training.rates, one an "
            "epoch"
        )
    if training.keep == "last" and training.patience and "training.patience" in settings:
        raise UsageError(
            "training.patience does nothing where training.keep=last: set training.keep=best too"
        )


def _check_arguments(config: Config) -> None:
    """Refuse arguments of the network that the data decide."""
    for name, instead in (
        ("num_classes", "it is the number of the data's classes"),
        ("image_size", "set data.image_size"),
    ):
        if name in config.model:
            raise UsageError(f"model.{name} cannot be set here: {instead}")


def _read_start(folder: RunFolder) -> tuple[dict[str, Any], Config]:
    """What a run was started with, and its settings.

    Raises:
        UsageError: ``config.json`` is not that of a training.
    """
    recorded = folder.read_config()
    try:
        config = from_dict(recorded["settings"])
        config.check()
        started = {
            "task": recorded["task"],
            "data": {**recorded["data"], "name": str(recorded["data"]["name"])},
            "model": recorded["model"],
            "weights": recorded["initialized_from"],
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{folder.path / 'config.json'} is not that of a training that can go on "
            f"({type(error).__name__}: {error}): choose another folder with -o"
        ) from error
    return started, config

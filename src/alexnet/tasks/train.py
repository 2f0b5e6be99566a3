"""Train a network from random weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from alexnet.models.registry import model_entry
from alexnet.runtime import process_group
from alexnet.tasks.request import Request
from alexnet.tasks.run import Run, Session, finished
from alexnet.training.checkpoint import Position
from alexnet.training.recipes import get_recipe


def train(
    data: str | os.PathLike[str],
    model: str = "lenet5",
    recipe: str | None = None,
    *,
    out: str | os.PathLike[str],
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Run:
    """Train a network from random weights and write a run folder.

    Started by torchrun, all processes call it and train the network together.

    Args:
        data: a data set's name or a folder of class folders (see
            :func:`alexnet.data.open_data`).
        model: the network's name.
        recipe: how to train; None is the network's own recipe.
        out: the run folder to write.
        resume: go on with the run in ``out``, with the settings that it was started with.
        settings: dotted names to values, such as ``{"training.epochs": 5}``.

    Returns:
        The finished run; its metrics are those of the test part, which was read once, at the end.

    Raises:
        UsageError: a wrong name, value, file or folder.
        FailedError: no space on the disk, or a loss that is no longer a number.
    """
    with process_group():
        config = get_recipe(recipe or model_entry(model).recipe)
        request = Request.make(
            "train", data, model, None, config, out, resume=resume, settings=settings or {}
        )
        done = finished(request)
        if done is not None:
            return done
        session = Session(request)
        session.read_pictures(request.config.data.image_size)
        session.begin(session.build_network())
        return session.finish(session.fit(Position(), "train"))

"""A folder that belongs to one question: the same asked again goes on in it, another is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alexnet import files
from alexnet.data.sources import Splits, open_data
from alexnet.errors import UsageError
from alexnet.training.recipes import get_recipe

PLAN = "plan.json"


def plan_of(out: Path, asked: Mapping[str, Any], what: str) -> dict[str, Any]:
    """What is written down in a folder of the same question, or a new plan for a folder of its own.

    Args:
        out: the folder; it need not exist.
        asked: the question, in JSON's types.
        what: it is, such as ``"a comparison"``.

    Returns:
        The content of ``plan.json``; of a new one, ``{"asked": asked}``.

    Raises:
        UsageError: the folder holds another question's files, or others.
    """
    if (out / PLAN).is_file():
        plan = files.read_json(out / PLAN)
        now, then = json.loads(json.dumps(asked)), plan.get("asked") or {}
        if now != then:
            raise UsageError(
                f"{out} holds {what} that was asked for otherwise ({_apart(now, then)}): choose "
                f"another folder with -o"
            )
        return plan
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} holds other files: choose another folder with -o")
    return {"asked": dict(asked)}


def _apart(now: Mapping[str, Any], then: Mapping[str, Any]) -> str:
    """What differs first."""
    name = next(name for name in {**now, **then} if now.get(name) != then.get(name))
    return f"{name} was {json.dumps(then.get(name))} and is {json.dumps(now.get(name))}"


def open_to_test(data: str, settings: Mapping[str, Any]) -> Splits:
    """The pictures that networks learn from and are tested on, divided as ``settings`` say.

    Without a validation part unless the settings ask for one.

    Args:
        data: a data set's name or a folder of class folders.
        settings: dotted names to values, of which those of ``data.`` count.

    Raises:
        UsageError: there is no test part.
    """
    about_data = {name: v for name, v in settings.items() if name.startswith("data.")}
    told = get_recipe("paper").override({"data.val_fraction": 0.0, **about_data}).data
    splits = open_data(
        data,
        seed=told.seed,
        fold=told.fold,
        val_fraction=told.val_fraction,
        test_fraction=told.test_fraction,
    )
    if splits.test is None:
        raise UsageError(
            f"{data} has no test part: put pictures that nothing learns from into a folder test/ "
            f"beside train/, or leave data.test_fraction above 0"
        )
    return splits


def require_same_pictures(out: Path, plan: dict[str, Any], splits: Splits) -> None:
    """Note which pictures a plan is of; refuse others than it was begun with.

    Raises:
        UsageError: pictures came or went since.
    """
    if plan.setdefault("pictures", splits.digest) != splits.digest:
        raise UsageError(
            f"{splits.name} has other pictures than when {out} was begun: restore them, or choose "
            f"another folder with -o"
        )


def write_plan(out: Path, plan: Mapping[str, Any]) -> None:
    """Write the plan into its folder, which is made if it is not there."""
    out.mkdir(parents=True, exist_ok=True)
    files.write_json(out / PLAN, dict(plan))

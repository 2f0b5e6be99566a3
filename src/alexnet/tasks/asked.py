"""A folder that belongs to one question: the same asked again goes on in it, another is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alexnet import files
from alexnet.errors import UsageError

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
        if json.loads(json.dumps(asked)) != plan.get("asked"):
            raise UsageError(
                f"{out} holds {what} that was asked for otherwise: choose another folder with -o"
            )
        return plan
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} holds other files: choose another folder with -o")
    return {"asked": dict(asked)}


def write_plan(out: Path, plan: Mapping[str, Any]) -> None:
    """Write the plan into its folder, which is made if it is not there."""
    out.mkdir(parents=True, exist_ok=True)
    files.write_json(out / PLAN, dict(plan))

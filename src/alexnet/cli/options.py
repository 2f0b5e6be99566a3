"""Options that several commands share, and settings given by --set and --config."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from alexnet.errors import UsageError

WHAT_THERE_IS = Group("What there is", sort_key=3)
"""The commands that only look."""
EVERYWHERE = Group("Everywhere", sort_key=9)
"""What every command understands."""
_SETTINGS = Group("Settings", sort_key=5)


STANDARD_INPUT = "<standard input>"
"""Stands for a lone ``-`` while a line is parsed: cyclopts would take that for an option."""


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """What every command understands.

    Attributes:
        json: JSON on standard output, one object or one a line; all else on standard error.
        debug: Show the traceback of an error.
    """

    json: Annotated[bool, Parameter(group=EVERYWHERE)] = False
    debug: Annotated[bool, Parameter(group=EVERYWHERE)] = False


@Parameter(name="*")
@dataclass(frozen=True)
class Settings:
    """Settings by name; --set wins over the file.

    Attributes:
        assignments: A setting, as NAME=VALUE: training.epochs=20, training.lr=0.02,
            training.batch_size=64, training.seed=1, training.precision=fp32, data.image_size=64,
            augment.mirror=0, model.dropout=0.3. Repeatable.
        config: A TOML file of settings, such as a [training] table with epochs = 20.
    """

    assignments: Annotated[
        tuple[str, ...], Parameter(name="--set", group=_SETTINGS, show_default=False)
    ] = ()
    config: Annotated[Path | None, Parameter(group=_SETTINGS)] = None

    def read(self) -> dict[str, Any]:
        """All settings by their dotted names; values that --set gave are still text.

        Raises:
            UsageError: a file that cannot be read, or an assignment without ``=``.
        """
        settings: dict[str, Any] = {}
        if self.config:
            from alexnet.training.config import read_toml

            settings |= read_toml(self.config)
        return settings | dict(map(split_assignment, self.assignments))


def split_assignment(text: str) -> tuple[str, str]:
    """``"training.epochs=20"`` as name and value.

    Raises:
        UsageError: no ``=``, or nothing before it.
    """
    name, equals, value = text.partition("=")
    if not (name.strip() and equals):
        raise UsageError(
            f"--set {text!r} is not NAME=VALUE: write, for example, --set training.epochs=20"
        )
    return name.strip(), value.strip()

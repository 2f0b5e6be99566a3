"""What a user did wrong, said in one line that names the thing and the fix.

The command line prints ``str(error)`` and leaves with ``error.exit_code``; a traceback is for
mistakes of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AlexnetError(Exception):
    """Base of every error that a user can cause; its text is one line with the fix."""

    exit_code = 3
    told = False
    """Whether another process of the same run tells the user."""


class UsageError(AlexnetError, ValueError):
    """A wrong name, value, file or folder: nothing was started."""

    exit_code = 2


class FailedError(AlexnetError, RuntimeError):
    """Work that started and could not be finished: no space, a loss that is not a number."""

    exit_code = 3


def unknown_name(kind: str, name: str, known: Iterable[str], listing: str = "") -> UsageError:
    """The error for a name that is not in ``known``: suggests the nearest one.

    Args:
        kind: what the name should have named, such as ``"model"``.
        name: what the user wrote.
        known: the names there are.
        listing: how to see them all, such as ``"'alexnet models' lists them"``.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"choose from: {', '.join(names)}"
    return UsageError(f"unknown {kind} {name!r}: {hint}" + (f" ({listing})" if listing else ""))


def missing_extra(package: str, extra: str, purpose: str) -> UsageError:
    """The error for an optional package that is not installed."""
    return UsageError(
        f"{purpose} needs the package {package!r}: install it with: pip install 'alexnet[{extra}]'"
    )

"""The checks that the arguments of layers and networks go through."""

from __future__ import annotations

from collections.abc import Iterable


def check_choice(argument: str, value: object, known: Iterable[object]) -> None:
    """Raise ValueError, naming the argument and the choices, unless ``value`` is ``known``."""
    choices = list(known)
    if value not in choices:
        raise ValueError(f"{argument}={value!r}: choose from {', '.join(map(str, choices))}")


def check_at_least(minimum: int, **arguments: object) -> None:
    """Raise ValueError, naming the argument, for one that is below ``minimum`` or no integer."""
    for argument, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise ValueError(f"{argument}={value!r}: a whole number of at least {minimum}")


def check_probability(**arguments: object) -> None:
    """Raise ValueError, naming the argument, for one that is not from 0 to below 1."""
    for argument, value in arguments.items():
        if not isinstance(value, int | float) or not 0 <= value < 1:
            raise ValueError(f"{argument}={value!r}: a probability from 0 to below 1")

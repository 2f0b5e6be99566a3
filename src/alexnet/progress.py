"""Progress on standard error: a bar with the time left on a terminal, silence elsewhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from alexnet.torchrun import is_main

T = TypeVar("T")

log = logging.getLogger("alexnet")
"""What the package has to say; the command line sends it to standard error."""


log.addFilter(lambda record: is_main() or record.levelno >= logging.ERROR)


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield ``items``, drawing a bar named ``what`` when standard error is a terminal."""
    if not sys.stderr.isatty() or not is_main():
        yield from items
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield from bars.track(items, total=total, description=what)

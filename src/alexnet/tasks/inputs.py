"""Which files a person meant: files, folders, patterns, and a list on standard input."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

PICTURE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".avif", ".avifs"),
        *(".bmp", ".dib", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
        *(".jp2", ".j2k", ".jpx"),
        *(".heic", ".heif"),  # which are not read, and refused aloud
    )
)
"""What is taken from a folder; a file that is named is tried whatever it is called."""


def expand(arguments: Iterable[str], stream: TextIO) -> Iterator[str]:
    """Yield the files that ``arguments`` mean, in order, as soon as each is known.

    Args:
        arguments: a file (yielded even when it is not there, so that its absence is reported), a
            folder (all pictures below it, sorted, hidden files aside), a pattern with ``*``, ``?``
            or ``[]`` (its matches, sorted), or ``-`` (the lines of ``stream``).
        stream: read where an argument is ``-``; empty lines are left out.
    """
    for argument in arguments:
        if argument == "-":
            yield from (line.rstrip("\r\n") for line in stream if line.strip())
        elif os.path.isdir(argument):  # False, not an error, of a name that is too long
            yield from _pictures_below(argument) or [argument]
        elif not os.path.exists(argument) and glob.has_magic(argument):
            yield from sorted(glob.glob(argument, recursive=True)) or [argument]
        else:
            yield argument


def _pictures_below(folder: str) -> list[str]:
    """Sorted; links to folders are not followed, so a loop cannot trap it."""
    found = []
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            os.path.join(here, name)
            for name in sorted(names)
            if Path(name).suffix.lower() in PICTURE_SUFFIXES and not name.startswith(".")
        ]
    return found

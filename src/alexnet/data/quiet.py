"""Pillow's warnings kept off the user's terminal, safely among threads."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator

_lock = threading.Lock()
_users = 0
_filters: warnings.catch_warnings[None] | None = None


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Ignore the warnings of Pillow (odd metadata, large pictures): the result tells all.

    ``warnings.catch_warnings`` alone, used by several threads, would leave the wrong filters
    behind; here the first thread in sets them and the last one out restores them.
    """
    global _users, _filters
    with _lock:
        if not _users:
            _filters = warnings.catch_warnings()
            _filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\b")
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users and _filters is not None:
                _filters.__exit__(None, None, None)
                _filters = None

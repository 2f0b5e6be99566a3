"""The pages of figures say what the scripts measured."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_pages_follow_from_the_results() -> None:
    spec = importlib.util.spec_from_file_location("results", ROOT / "scripts" / "make_results.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for path, text in script.pages().items():
        assert path.read_text() == text, f"run python scripts/make_results.py ({path.name})"

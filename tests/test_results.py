"""The pages of figures say what the scripts measured."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_pages_follow_from_the_results() -> None:
    spec = importlib.util.spec_from_file_location("results", ROOT / "scripts" / "make_results.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for path, text in script.pages().items():
        assert path.read_text() == text, f"run python scripts/make_results.py ({path.name})"


@pytest.mark.parametrize(
    "script", sorted((ROOT / "benchmarks").glob("[!_]*.py")), ids=lambda p: p.stem
)
def test_every_script_has_been_run(script: Path) -> None:
    assert (ROOT / "benchmarks" / "results" / f"{script.stem}.json").is_file()

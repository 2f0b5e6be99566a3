from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest

from alexnet.cli.output import emit, flatten, pairs, percent, table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_plain_table_sets_numbers_flush_right(capsys: pytest.CaptureFixture[str]) -> None:
    table(["name", "count"], [("a", 1), ("longer", 1234567), ("b", None)], title="things")
    assert capsys.readouterr().out.splitlines() == [
        "things",
        "name        count",
        "a               1",
        "longer  1,234,567",
        "b",
    ]


def test_a_table_on_a_terminal_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    table(["name", "count"], [("[red]a[/red]", 1)])
    text = screen.getvalue()
    assert "─" in text
    assert "[red]a[/red]" in text  # a name is not markup


def test_what_a_terminal_would_obey_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    pairs({"file": "a\x1b[31m\n\udcff", "yes": True, "share": 0.123456})
    assert capsys.readouterr().out == ("file   a\\x1b[31m\\n\\udcff\nyes    yes\nshare  0.1235\n")


def test_wording() -> None:
    assert percent(0.98123) == "98.12%"
    assert percent(None) == ""
    assert flatten({"a": [1, 2], "b": {"c": None}}) == "a 1, 2; b c "
    assert flatten(list(range(11))).endswith("9, ... (11 in all)")


def test_json_has_no_infinity(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"loss": float("nan"), "all": (1, float("inf")), "name": "Zoë"})
    assert capsys.readouterr().out == '{"loss": null, "all": [1, null], "name": "Zoë"}\n'


def test_json_stays_json_where_the_output_is_not_utf_8() -> None:
    code = "from alexnet.cli.output import emit; emit({'name': 'Zo\\xeb \\U0001f600'})"
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1:backslashreplace"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert json.loads(done.stdout.decode("latin-1")) == {"name": "Zo\xeb \U0001f600"}

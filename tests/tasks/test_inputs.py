from __future__ import annotations

import io
import os
from pathlib import Path

import PIL.Image
import pytest

from alexnet.data.pillow import formats
from alexnet.tasks.inputs import expand


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.jpg", "sub/c.webp", ".git/d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def meant(folder: Path, *arguments: str, stdin: str = "") -> list[str]:
    found = expand([str(folder / a) if a != "-" else a for a in arguments], io.StringIO(stdin))
    return [os.path.relpath(path, folder) for path in found]


def test_a_folder_is_its_pictures_sorted_without_hidden_ones(folder: Path) -> None:
    assert meant(folder, "") == ["a.PNG", "b.jpg", "sub/c.webp"]


def test_a_file_is_taken_whatever_it_is_called_or_whether_it_is_there(folder: Path) -> None:
    assert meant(folder, "notes.txt", "missing.jpg") == ["notes.txt", "missing.jpg"]


def test_a_pattern_is_its_matches_and_itself_where_nothing_matches(folder: Path) -> None:
    assert meant(folder, "*.jpg", "**/*.webp", "*.tiff") == ["b.jpg", "sub/c.webp", "*.tiff"]


def test_a_file_with_a_pattern_s_characters_in_its_name(folder: Path) -> None:
    (folder / "a[1].jpg").touch()
    assert meant(folder, "a[1].jpg") == ["a[1].jpg"]


def test_a_folder_without_pictures_stands_for_itself(folder: Path) -> None:
    (folder / "empty").mkdir()
    assert meant(folder, "empty") == ["empty"]


def test_a_dash_is_the_lines_of_standard_input(folder: Path) -> None:
    found = list(expand(["-"], io.StringIO("x.jpg\n\n y z.jpg\r\n")))
    assert found == ["x.jpg", " y z.jpg"]


def test_links_that_go_round_do_not_trap_it(folder: Path) -> None:
    (folder / "sub" / "round").symlink_to(folder)
    assert meant(folder, "") == ["a.PNG", "b.jpg", "sub/c.webp"]


def test_a_name_that_is_too_long_is_one_file_among_others(folder: Path) -> None:
    long = "x" * 300 + ".jpg"
    assert meant(folder, "b.jpg", long, "sub") == ["b.jpg", long, "sub/c.webp"]


def test_every_kind_of_picture_that_is_read_is_taken_from_a_folder(tmp_path: Path) -> None:
    PIL.Image.init()
    some = {".avif", ".jp2", ".pgm", ".pnm", ".dib", ".jfif", ".apng", ".tif"}
    wanted = sorted(name for name in some if PIL.Image.EXTENSION.get(name) in formats())
    assert len(wanted) >= 7
    for name in (*wanted, ".heic"):
        (tmp_path / f"a{name}").touch()
    assert meant(tmp_path, "") == sorted(f"a{name}" for name in (*wanted, ".heic"))

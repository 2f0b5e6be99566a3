from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import alexnet

ROOT = Path(__file__).parents[1]


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not importlib.util.find_spec("importlinter"), reason="import-linter")
def test_imports_point_one_way(tmp_path: Path) -> None:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    line = [sys.executable, "-c", code, "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 kept, 0 broken" in done.stdout


def test_importing_the_package_and_asking_for_help_load_nothing_heavy() -> None:
    heavy = "('torch', 'torchvision', 'matplotlib', 'numpy', 'huggingface_hub', 'timm', 'sklearn')"
    code = f"import sys, alexnet; print([name for name in {heavy} if name in sys.modules])"
    assert python(code).strip() == "[]"
    code = f"""
import sys
from alexnet.cli.main import main
for words in (["--help"], ["train", "--help"], ["weights", "--help"], ["trian"], ["--version"]):
    main(words)
print([name for name in {heavy} if name in sys.modules])
"""
    assert python(code).splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", alexnet.__all__)
def test_every_public_name_resolves(name: str) -> None:
    value = getattr(alexnet, name)
    assert value is not None
    assert name in dir(alexnet)
    if name not in ("__version__", "layers"):
        assert value.__name__ == name


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'transmogrify'"):
        _ = alexnet.transmogrify  # type: ignore[attr-defined]


def test_the_version_is_one_and_in_the_changelog() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", alexnet.__version__)
    assert f"## {alexnet.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    try:
        installed = metadata.version("alexnet")
    except metadata.PackageNotFoundError:
        return
    assert installed == alexnet.__version__


def test_dependencies_that_are_imported_are_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[><=\[]", entry)[0] for entry in project["dependencies"]}
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        found |= set(re.findall(r"^\s*(?:import|from) (\w+)", path.read_text(), re.MULTILINE))
    names = {
        "PIL": "pillow",
        "huggingface_hub": "huggingface-hub",
        "sklearn": "scikit-learn",
        "skimage": "scikit-image",
    }
    third = {
        names.get(name, name)
        for name in found - set(sys.stdlib_module_names) - {"alexnet", "__future__"}
        if importlib.util.find_spec(name)
    }
    # markupsafe is what jinja2's own strings are made of; torch brings triton along where there is
    # one, and without it another path is taken; the others are extras.
    extras = {"timm", "datasets", "pyarrow", "scipy", "scikit-image", "scikit-learn"}
    assert third - {"markupsafe", "triton"} - extras == declared - {"tensorboard"}


@pytest.mark.slow
def test_the_wheel_has_the_data_and_the_templates(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(line, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for path in (ROOT / "src").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert str(path.relative_to(ROOT / "src")) in names


def test_what_the_wheel_is_made_of_is_in_the_package() -> None:
    folder = Path(alexnet.__file__).parent
    for name in (
        "py.typed",
        "bundled/mnist_5k.npz",
        "bundled/imagenet1k_features.safetensors",
        "tasks/templates/report.html.j2",
        "tasks/templates/page.css",
    ):
        assert (folder / name).is_file(), name

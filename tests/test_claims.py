"""The accuracy claims of README, each by the script that measures it; minutes to half an hour."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("script", "needs"),
    [
        ("digits_folds", None),
        ("finetune_fashion", "/usr/share/datasets/fashion-mnist"),
        ("finetune_stamps", "/usr/share/tuxpaint/stamps"),
        ("lenet_fashion", "/usr/share/datasets/fashion-mnist"),
    ],
)
def test_the_claim_holds(script: str, needs: str | None) -> None:
    if needs is not None and not Path(needs).is_dir():
        pytest.skip(f"{needs} is not here")
    done = subprocess.run([sys.executable, str(BENCHMARKS / f"{script}.py")], check=False)
    assert done.returncode == 0

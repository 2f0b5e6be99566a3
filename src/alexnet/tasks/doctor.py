"""What this machine has, what will be used, and why."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import alexnet
from alexnet import runtime
from alexnet.data.named import NAMED, search_folders
from alexnet.errors import AlexnetError
from alexnet.models.weights import list_weights
from alexnet.native import native

EXTRAS = {
    "timm": ("timm", "networks named timm:NAME"),
    "pyarrow": ("data", "prepare, and the data that it wrote"),
    "datasets": ("data", "hf:OWNER/NAME and Parquet files"),
    "scipy": ("data", "ImageNet's archives"),
}
"""Optional package -> the extra that installs it, and what it is for."""


@dataclass(frozen=True)
class Finding:
    """One thing about this machine.

    Attributes:
        name: of what was looked at.
        value: what was found.
        why: what follows from it, or what to do; may be empty.
    """

    name: str
    value: str
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"value": self.value, "why": self.why}


def examine() -> dict[str, list[Finding]]:
    """Look at versions, hardware, data, weights and extras; the keys are headings."""
    return {
        "software": _software(),
        "hardware": _hardware(),
        "data": _data(),
        "weights": _weights(),
        "extras": _extras(),
    }


def _software() -> list[Finding]:
    packages = ("torch", "torchvision", "numpy", "safetensors", "simplejpeg", "pillow")
    return [
        Finding("alexnet", alexnet.__version__, str(Path(alexnet.__file__).parent)),
        Finding("python", platform.python_version(), sys.executable),
        *(Finding(name, metadata.version(name)) for name in packages),
        Finding("system", platform.platform()),
    ]


def _hardware() -> list[Finding]:
    chosen = runtime.resolve()
    kind = chosen.device.type
    if kind == "cuda":
        why = torch.cuda.get_device_name(chosen.device)
    else:
        why = "no GPU that torch can use was found" if kind == "cpu" else "Apple's GPU"
    fast = runtime.has_fast_bf16(chosen.device)
    bf16 = "large networks train in it" if fast else "everything runs in fp32"
    compiled = native()
    free = shutil.disk_usage(Path.cwd()).free
    return [
        Finding("device", str(chosen.device), why),
        Finding("bf16", "yes" if fast else "no", f"{bf16}; LeNet is too small to gain by it"),
        Finding("threads", str(chosen.threads), f"of {os.cpu_count()} processors; OMP_NUM_THREADS"),
        Finding("native code", "no" if compiled.library is None else "yes", compiled.why),
        Finding("memory", _gigabytes(_memory()), "pictures are kept in it where they fit"),
        Finding("free disk", _gigabytes(free), f"at {Path.cwd()}"),
    ]


def _memory() -> int:
    """Bytes of this machine's memory; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count else "unknown"


def _data() -> list[Finding]:
    home = search_folders()[0]
    found = [Finding("mnist-5k", "bundled", "nothing to download")]
    for name, entry in NAMED.items():
        places = [root / part for root in search_folders() for part in (entry.title, name)]
        place = next((place for place in places if place.is_dir()), None)
        if place:
            found.append(Finding(name, "found", str(place)))
        else:
            found.append(Finding(name, "not here", f"downloaded on first use, to {home}"))
    return found


def _weights() -> list[Finding]:
    found = []
    for record in list_weights():
        if "://" in record.path_or_url:
            value, why = "to download", "fetched when it is first used"
        else:
            value, why = _bundled(record.fetch)
        found.append(Finding(f"{record.model}/{record.name}", value, why))
    return found


def _bundled(fetch: Callable[[], Path]) -> tuple[str, str]:
    """Whether a file of the package is there and whole."""
    try:
        fetch()
    except AlexnetError as error:
        return "damaged", str(error)
    return "bundled", "checksum right"


def _extras() -> list[Finding]:
    found = []
    for package, (extra, purpose) in EXTRAS.items():
        if importlib.util.find_spec(package):
            found.append(Finding(package, f"installed ({metadata.version(package)})", purpose))
        else:
            found.append(Finding(package, "missing", f"{purpose}: pip install 'alexnet[{extra}]'"))
    return found

"""C that is compiled on the machine it runs on, where that has a compiler; nothing depends on it.

The first use compiles ``*.c`` beside this file for this very processor (about two seconds) into a
cache folder; later ones load it. The library does in one pass over the memory what torch's own
operations do in several; without a compiler, or with ``ALEXNET_NATIVE=0``, those are used.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

log = logging.getLogger("alexnet")

FLAGS = (
    "-O3 -march=native -mprefer-vector-width=512 -fno-math-errno -fno-trapping-math "
    "-std=gnu11 -fopenmp -pthread -fPIC"
)
SECONDS = 120


@dataclass(frozen=True)
class Native:
    """What came of compiling.

    Attributes:
        library: the functions; None where there are none.
        why: in a few words, where it comes from or what is missing.
    """

    library: ctypes.CDLL | None
    why: str


@functools.cache
def native() -> Native:
    """The compiled functions, compiled now if they are not in the cache folder."""
    if os.environ.get("ALEXNET_NATIVE", "1") == "0":
        return Native(None, "turned off by ALEXNET_NATIVE=0")
    compiler = (
        shlex.split(os.environ.get("CC", ""))
        or [found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))][:1]
    )
    if not compiler:
        return Native(None, "no C compiler was found (Debian: apt-get install gcc)")
    sources = sorted(Path(__file__).parent.glob("*.c"))
    target = _folder() / f"{_key(compiler)}.so"
    try:
        if not target.is_file():
            _compile(compiler, sources, target)
        return Native(ctypes.CDLL(str(target)), f"compiled by {compiler[0]}: {target}")
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        short = said.strip().splitlines()[-1]
        if isinstance(error, subprocess.CalledProcessError) and not error.stderr.strip():
            short = f"it ended with status {error.returncode} and said nothing"
        why = f"{compiler[0]} failed: {short}"
        log.debug("native functions are not used: %s", said)
        return Native(None, why)


def _folder() -> Path:
    """Where compiled libraries are kept."""
    if chosen := os.environ.get("ALEXNET_CACHE"):
        return Path(chosen) / "native"
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "alexnet" / "native"


def _key(compiler: list[str]) -> str:
    """What tells a library from those of other sources, compilers and processors."""
    found = Path(shutil.which(compiler[0]) or compiler[0])
    state = found.resolve().stat() if found.exists() else None
    processor = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(errors="replace").split("\n\n")[0].splitlines()
        processor += "".join(ln for ln in lines if ln.startswith(("flags", "Features", "model")))
    parts = [
        *(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.[ch]"))),
        *(str(part).encode() for part in (compiler, FLAGS, processor, torch.__version__)),
        str((state.st_size, state.st_mtime_ns) if state else None).encode(),
    ]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def _compile(compiler: list[str], sources: list[Path], target: Path) -> None:
    """Write ``target``, whole or not at all; several processes may do so at once.

    OpenMP's library is torch's own: a second one would have threads of its own that compete.
    """
    log.debug("compiling %s", target)
    target.parent.mkdir(parents=True, exist_ok=True)
    openmp = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    begin = [*compiler, *FLAGS.split()]
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as temporary:
        written = Path(temporary) / "library.so"
        parts = {str(source): f"{temporary}/{source.stem}.o" for source in sources}
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            lines = ([*begin, "-c", source, "-o", part] for source, part in parts.items())
            list(threads.map(_run, lines))
        _run([*begin, "-shared", *parts.values(), "-o", str(written), *map(str, openmp[:1]), "-lm"])
        written.replace(target)


def _run(line: list[str]) -> None:
    subprocess.run(line, check=True, capture_output=True, text=True, timeout=SECONDS)

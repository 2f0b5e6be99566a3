"""Files from an address, kept in a cache folder, whole and checked or not there at all."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import urlsplit

import torch

from alexnet import files, progress
from alexnet.errors import FailedError, UsageError

CHUNK = 1 << 20


def cache_folder() -> Path:
    """Where downloaded weights are kept: ``ALEXNET_CACHE``, or torch's own folder of them."""
    if chosen := os.environ.get("ALEXNET_CACHE"):
        return Path(chosen)
    return Path(torch.hub.get_dir()) / "checkpoints"


def download(url: str, sha256: str) -> Path:
    """The local copy of ``url``, downloaded when it is not in the cache folder.

    Args:
        url: the address; its last part is the name of the file.
        sha256: the file's checksum, or the beginning of it that is known.

    Raises:
        FailedError: it could not be downloaded; the text says where to put it by hand.
        UsageError: the file in the cache folder is not the one, or the folder cannot be written to.
    """
    target = cache_folder() / PurePosixPath(urlsplit(url).path).name
    if target.is_file():
        if not files.sha256(target).startswith(sha256):
            raise UsageError(
                f"{target} is damaged (its SHA-256 does not begin with {sha256}): remove it"
            )
        return target
    progress.log.info("downloading %s to %s", url, target)
    with files.atomic_path(target) as temporary:
        _fetch(url, temporary, target)
        if not files.sha256(temporary).startswith(sha256):
            raise FailedError(
                f"what came from {url} is damaged (its SHA-256 does not begin with {sha256}): "
                f"try again, or put the file at {target}"
            )
    return target


def _fetch(url: str, temporary: Path, target: Path) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": "alexnet"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer, temporary.open("wb") as file:
            length = int(answer.headers.get("Content-Length") or 0)
            total = -(-length // CHUNK) if length else None
            for chunk in progress.track(_chunks(answer), f"downloading {target.name}", total):
                file.write(chunk)
            if length and file.tell() != length:
                raise urllib.error.URLError(f"{file.tell()} of {length} bytes came")
    except (
        urllib.error.URLError,
        http.client.HTTPException,
        ConnectionError,
        TimeoutError,
    ) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the connection
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise FailedError(
            f"cannot download {url} ({reason}): get it elsewhere and put it at {target}"
        ) from error


def _chunks(answer: IO[bytes]) -> Iterator[bytes]:
    while chunk := answer.read(CHUNK):
        yield chunk

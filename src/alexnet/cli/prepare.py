"""``alexnet prepare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from alexnet.cli.options import Common


def prepare(
    data: str,
    /,
    *,
    out: Annotated[Path, Parameter(alias="-o")],
    size: int = 256,
    format: Literal["jpeg", "raw"] = "jpeg",
    quality: int = 90,
    workers: int = 0,
    common: Common = Common(),
) -> int:
    """Pack many pictures into a few files, resized, for training that reads them fast.

    Every command takes the folder as DATA, and Hugging Face's load_from_disk reads it too. Pictures
    that cannot be read are left out and listed in bad_images.csv; the command then leaves with 1.
    Interrupted, it goes on by the same command.

    For example:

        alexnet prepare photos/ -o packed
        alexnet prepare imagenet:/data/imagenet -o /data/imagenet-256
        alexnet train /data/imagenet-256 --model alexnet -o runs/imagenet

    Args:
        data: A folder with one folder a class, a data set by name, imagenet:PATH, or
            hf:OWNER/NAME.
        out: The folder to write.
        size: Pixels that the shorter side of larger pictures is resized to.
        format: jpeg, or raw: the pixels themselves, exact and several times larger.
        quality: Of JPEG, 1 to 100.
        workers: Processes; as many as there are processors by default.
    """
    from alexnet import prepare as run_preparing
    from alexnet.cli.output import emit, pairs, say

    done = run_preparing(data, out, size=size, format=format, quality=quality, workers=workers)
    code = 1 if done.refused else 0
    found = {
        "images": done.images,
        "refused": done.refused,
        "shards": done.shards,
        "bytes": done.bytes,
        "seconds": round(done.seconds, 3),
    }
    if common.json:
        emit({"folder": str(out), **found})
        return code
    pairs({"folder": out, **found})
    if done.refused:
        say(f"refused files, with the reason: {out / 'bad_images.csv'}")
    say(f"\nnext: alexnet train {out} --model alexnet -o RUN")
    return code

"""From a batch of pictures in bytes to what a network is trained on.

Where pictures are only cut, mirrored and given color noise, as in the paper, that, normalization
and the change of layout are one pass over the memory (``native/inputs.c``); with anything else, on
a GPU or without a compiler they are one operation after another.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from alexnet.data.augment import augment, color_shift, places_of, random_numbers
from alexnet.data.augment_config import AugmentConfig
from alexnet.data.colors import ColorStatistics
from alexnet.layers.reach import in_reach
from alexnet.native import native
from alexnet.spec import InputSpec

_LEAST = 64 * 64  # pixels of a crop; smaller ones cost what the call costs
_KINDS = {torch.float32: "float", torch.bfloat16: "bf16"}


def make_inputs(
    pixels: Tensor,
    spec: InputSpec,
    config: AugmentConfig,
    *,
    seed: int,
    epoch: int,
    indices: Tensor,
    leaders: Tensor | None = None,
    colors: ColorStatistics | None = None,
    dtype: torch.dtype = torch.float32,
    layout: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Vary (:func:`alexnet.data.augment.augment`) and normalize a batch.

    Args:
        pixels: uint8 ``[B, C, resize, resize]``.
        spec: of the network.
        config: what is varied.
        seed: of the run.
        epoch: from 0.
        indices: int64 ``[B]``, the pictures' indices in the training part.
        leaders: int64 ``[B]``, for each picture the index of the one whose crop it takes.
        colors: of the training pictures, for color noise.
        dtype: of the result: float32, or bfloat16, the same rounded.
        layout: of the result: contiguous or channels_last.

    Returns:
        ``[B, C, size, size]`` on the device of ``pixels``.

    Raises:
        ValueError: as :func:`alexnet.data.augment.augment`.
    """
    drawn: dict[str, Any] = {"seed": seed, "epoch": epoch, "indices": indices, "leaders": leaders}
    if _in_one_pass(pixels, spec, config, dtype):
        return _one_pass(pixels, spec, config, drawn, colors, dtype, layout)
    fill = spec.pad_value if spec.pad else None
    varied = augment(pixels, spec.crop, config, **drawn, fill=fill, colors=colors)
    return spec.normalize(varied, in_place=True).to(dtype, memory_format=layout)


def _in_one_pass(
    pixels: Tensor, spec: InputSpec, config: AugmentConfig, dtype: torch.dtype
) -> bool:
    copied = not (config.resamples or config.randaugment or config.erase)
    lit = config.brightness or config.contrast or config.saturation
    return (
        copied
        and not lit
        and not spec.pad
        and spec.channel_order != "bgr"
        and spec.crop**2 >= _LEAST
        and len(pixels) > 0
        and dtype in _KINDS
        and in_reach(pixels)
        and native().library is not None
    )


class _Told(ctypes.Structure):
    """``Pictures`` of ``native/inputs.c``."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("count", "channels", "side", "crop")),
        ("channels_last", ctypes.c_int),
        ("threads", ctypes.c_int),
    )


def _one_pass(
    pixels: Tensor,
    spec: InputSpec,
    config: AugmentConfig,
    drawn: dict[str, Any],
    colors: ColorStatistics | None,
    dtype: torch.dtype,
    layout: torch.memory_format,
) -> Tensor:
    pixels = pixels.contiguous()
    count, channels, side = pixels.shape[:3]
    numbers = random_numbers(pixels, spec.crop, config, colors=colors, **drawn)
    places = [part.contiguous() for part in places_of(numbers, side - spec.crop, config)]
    std = torch.tensor(spec.std)
    scale = spec.scale / std
    shift = (-torch.tensor(spec.mean) / std).expand(count, channels)
    if colors is not None and config.noisy(drawn["epoch"]):
        shift = shift + color_shift(numbers, config, colors) * scale
        scale = scale / config.pca_divide
    scale, shift = scale.contiguous(), shift.contiguous()
    out = torch.empty(count, channels, spec.crop, spec.crop, dtype=dtype, memory_format=layout)
    last = layout == torch.channels_last
    told = _Told(count, channels, side, spec.crop, last, torch.get_num_threads())
    memory = [ctypes.c_void_p(t.data_ptr()) for t in (pixels, *places, scale, shift, out)]
    if getattr(native().library, f"inputs_{_KINDS[dtype]}")(*memory, ctypes.byref(told)):
        raise MemoryError("no memory to cut pictures")
    return out

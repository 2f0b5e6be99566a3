"""InputSpec: everything that stands between a picture and the numbers a network reads.

It travels with the weights, so that a network never sees pictures prepared for another one. It can
say torchvision's convention (RGB, 0-1, mean and std), Caffe's (BGR, 0-255, mean subtracted) and
LeNet's (28x28 padded to 32x32, -0.1 to 1.175).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

ChannelOrder = Literal["rgb", "bgr", "gray"]
Interpolation = Literal["bilinear", "bicubic", "lanczos", "nearest"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class InputSpec:
    """How a picture becomes the input of a network.

    A picture (uint8, 0 to 255) has its shorter side resized to ``resize`` (``fit="crop"``; or both
    sides, ``fit="stretch"``), a square of side ``size - 2 * pad`` cut from its center, ``pad``
    pixels of ``pad_value`` put around that, and then, in float,
    ``((pixel * scale) - mean) / std`` taken in each channel.

    Attributes:
        size: side of the network's input in pixels, the padding included.
        channel_order: ``"rgb"``, ``"bgr"`` or ``"gray"`` (one channel).
        resize: length in pixels of the picture's shorter side before the crop.
        fit: ``"crop"`` keeps the aspect ratio and crops; ``"stretch"`` resizes both sides.
        interpolation: filter of the resize, always antialiased.
        pad: pixels added on each side after the crop.
        pad_value: gray level (0 to 255) of the added pixels.
        scale: factor on the pixel's value (1/255 gives 0 to 1; 1 keeps 0 to 255).
        mean: subtracted after scaling, a value a channel (in the order of ``channel_order``).
        std: divides after the subtraction, a value a channel.
    """

    size: int = 224
    channel_order: ChannelOrder = "rgb"
    resize: int = 256
    fit: Literal["crop", "stretch"] = "crop"
    interpolation: Interpolation = "bilinear"
    pad: int = 0
    pad_value: int = 0
    scale: float = 1 / 255
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        if self.resize < self.crop or self.crop < 1:
            raise ValueError(
                f"resize={self.resize} is smaller than the crop of {self.crop} pixels "
                f"(size={self.size} less 2 x pad={self.pad}): make resize at least {self.crop}"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise ValueError(
                    f"{name} has {len(values)} values for {self.channels} "
                    f"{self.channel_order} channels: give one a channel"
                )

    @property
    def channels(self) -> int:
        """Number of channels: 1 for gray, else 3."""
        return 1 if self.channel_order == "gray" else 3

    @property
    def crop(self) -> int:
        """Side of the square cut from the resized picture, before padding."""
        return self.size - 2 * self.pad

    def normalize(self, pixels: torch.Tensor, *, in_place: bool = False) -> torch.Tensor:
        """Turn pictures into the network's input.

        Args:
            pixels: uint8 (or float, 0 to 255), ``[N, C, crop, crop]``, in RGB or gray.
            in_place: float32 pixels may be overwritten.

        Returns:
            float32 ``[N, C, size, size]`` on the same device, padded, in ``channel_order``.
        """
        import torch
        from torch.nn import functional as F

        if self.channel_order == "bgr":
            pixels = pixels.flip(1)
        if self.pad:
            pixels = F.pad(pixels, (self.pad,) * 4, value=self.pad_value)
        # One multiply and one add a pixel: ((p * scale) - mean) / std = p * (scale/std) - mean/std.
        told = torch.tensor((self.std, self.mean))
        told = told.to(pixels.device, non_blocking=pixels.is_cuda)  # not waited for
        std, mean = told.view(2, 1, -1, 1, 1)
        wide = pixels.float()
        out = wide if in_place else None
        return torch.addcmul(-mean / std, wide, self.scale / std, out=out)

    def replace(self, **changes: Any) -> InputSpec:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> InputSpec:
        """The inverse of :meth:`to_dict`; unknown fields are an error."""
        return cls(**fields)


def lenet_spec(size: int = 32) -> InputSpec:
    """LeNet-5's input (LeCun et al. 1998, section II.B).

    A 28x28 digit in a 32x32 field; the background (0 in MNIST's files) is -0.1 and the foreground
    (255) 1.175, which makes the mean about 0 and the variance about 1.
    """
    return InputSpec(
        size=size,
        channel_order="gray",
        resize=size - 4,
        pad=2,
        scale=1.275 / 255,
        mean=(0.1,),
        std=(1.0,),
    )

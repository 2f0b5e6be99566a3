"""How pictures are varied in training: frozen, printable, checked when it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass

from alexnet.data.colors import ColorUnit

MAGNITUDES = 30.0
"""RandAugment's largest magnitude."""


@dataclass(frozen=True)
class AugmentConfig:
    """What is varied, and by how much; the defaults vary nothing.

    Attributes:
        mirror: probability of a left-right mirror.
        crop: True cuts at a random position of the stored square, False at its center.
        scale: range of the magnification, drawn log-uniformly: 1.25 shows the picture a quarter
            larger. With ``crop`` and a range from ``crop / resize`` up, this is the
            random-resized-crop of Szegedy et al. 2014 (section 6).
        aspect: width over height is changed by a factor in [1 / (1 + aspect), 1 + aspect].
        rotate: largest rotation in degrees, either way.
        shift: largest translation as a fraction of the output's side, either way and direction.
        shear: largest horizontal shear in degrees, either way.
        brightness: values are multiplied by a factor in [1 - brightness, 1 + brightness].
        contrast: the same for the distance from the picture's mean gray.
        saturation: the same for the distance of each pixel from its own gray.
        erase: probability that a rectangle (2% to 20% of the area) is filled
            (Zhong et al. 2017, "Random erasing").
        share: pictures of a batch in a row that share one crop position and mirror; the code of
            Krizhevsky et al. 2012 gave them to 32 together.
        pca: standard deviation of the multiples of the training pixels' principal components that
            are added to a picture's color; 0.1 in Krizhevsky et al. 2012 (section 4.1).
        pca_unit: ``"variance"`` multiplies them by the eigenvalues for pixels of 0 to 1, as the
            paper's formula; ``"deviation"`` by their square roots, as its authors' code.
        pca_until: epochs with color noise; 0 is all. The authors' code had it off from 67 on.
        pca_divide: while there is color noise, the distance of a pixel from the mean color is
            divided by this, the noise included: 1.1 in the authors' code, which so keeps the scale
            near that of pictures without noise.
        randaugment: operations a picture (Cubuk et al. 2020, "RandAugment"); 0 is none.
        magnitude: of these operations, from 0 to 30.
        mixup: alpha of the Beta distribution of the shares in which two pictures are added (Zhang
            et al. 2018, "mixup"); 0 is none.
        cutmix: the same for the area of a rectangle that two pictures exchange (Yun et al. 2019,
            "CutMix"). With ``mixup`` too, each pair has one of the two, equally likely.
    """

    mirror: float = 0.0
    crop: bool = False
    scale: tuple[float, float] = (1.0, 1.0)
    aspect: float = 0.0
    rotate: float = 0.0
    shift: float = 0.0
    shear: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    erase: float = 0.0
    share: int = 1
    pca: float = 0.0
    pca_unit: ColorUnit = "variance"
    pca_until: int = 0
    pca_divide: float = 1.0
    randaugment: int = 0
    magnitude: float = 9.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", (float(self.scale[0]), float(self.scale[1])))
        for name in ("mirror", "erase", "brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie between 0 and 1")
        for name in ("aspect", "rotate", "shift", "shear", "pca_until", "randaugment"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        for name in ("pca", "mixup", "cutmix"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be 0 or more, and finite")
        for name in ("share", "pca_divide"):
            if not 1 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"{name}={getattr(self, name)} must be 1, which does nothing, or more"
                )
        if not self.shear < 90:
            raise ValueError(f"shear={self.shear} must be less than 90 degrees")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale={self.scale} must be (low, high) with 0 < low <= high")
        if self.pca_unit not in ("variance", "deviation"):
            raise ValueError(f"pca_unit={self.pca_unit!r} must be 'variance' or 'deviation'")
        if not 0 <= self.magnitude <= MAGNITUDES:
            raise ValueError(f"magnitude={self.magnitude} must lie between 0 and {MAGNITUDES:g}")

    @property
    def resamples(self) -> bool:
        """Whether pixels are interpolated, rather than copied as they are."""
        turned = self.aspect or self.rotate or self.shift or self.shear
        return bool(turned) or self.scale != (1.0, 1.0)

    @property
    def varies(self) -> bool:
        """Whether anything is drawn for a picture, mixing apart."""
        light = self.brightness or self.contrast or self.saturation
        return bool(
            self.resamples or self.crop or self.mirror or self.randaugment or light or self.pca
            or self.erase
        )  # fmt: skip

    @property
    def mixes(self) -> bool:
        """Whether pictures are mixed with each other, and with them their labels."""
        return bool(self.mixup or self.cutmix)

    def noisy(self, epoch: int) -> bool:
        """Whether pictures get color noise in ``epoch`` (from 0)."""
        return bool(self.pca) and (not self.pca_until or epoch < self.pca_until)

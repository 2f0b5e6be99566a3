"""Pictures that are too many to look into when a data set is opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alexnet.data.decode import DecodeError
from alexnet.data.parts import Part, check
from alexnet.data.pictures import Image, Indices, Pictures, Splits
from alexnet.errors import FailedError
from alexnet.progress import log
from alexnet.spec import InputSpec

TRIES = 10
"""Pictures of a class that are tried before it is given up."""


class LenientPictures(Pictures):
    """Pictures nobody has looked into: for one that cannot be decoded another of its class stands.

    A training of days does not end at one broken file among a million; a warning names the file.

    Attributes:
        pictures: what is read.
    """

    def __init__(self, pictures: Pictures) -> None:
        super().__init__(pictures.classes, pictures.labels, pictures.names)
        self.pictures = pictures
        self.mapped = pictures.mapped

    def stored(self, index: int) -> Path | bytes | Image:
        """What holds the picture itself."""
        return self.pictures.stored(index)

    def decode(self, index: int, at_least: int = 0) -> Image:
        """The picture, or the next of its class that can be decoded."""
        return self._or_another(index, lambda place: self.pictures.decode(place, at_least))

    def square(self, index: int, spec: InputSpec, side: int) -> Image:
        """The picture's square, or that of the next of its class that can be decoded."""
        return self._or_another(index, lambda place: self.pictures.square(place, spec, side))

    def lost(self, index: int, error: DecodeError) -> FailedError:
        """What is said where others of the class cannot be decoded, either."""
        return FailedError(
            f"{self.names[index]} cannot be decoded ({error}), nor can others of its class: "
            "restore the data"
        )

    def expect(self, index: int) -> None:
        """Have the picture fetched."""
        self.pictures.expect(index)

    def _or_another(self, index: int, read: Callable[[int], Image]) -> Image:
        try:
            return read(index)
        except DecodeError as error:
            found = self._another(index, read)
            if found is None:
                raise
            log.warning(
                "%s cannot be decoded (%s): another picture of its class is read in its place; "
                "'alexnet prepare' leaves such files out",
                self.names[index],
                error,
            )
            return found

    def _another(self, index: int, read: Callable[[int], Image]) -> Image | None:
        members = np.flatnonzero(self.labels == self.labels[index])
        start = int(np.searchsorted(members, index))
        for other in np.roll(members, -start)[1 : TRIES + 1]:
            try:
                return read(int(other))
            except DecodeError:
                continue
        return None

    def subset(self, indices: Indices) -> LenientPictures:
        """The pictures at ``indices``, as lenient."""
        return LenientPictures(self.pictures.subset(indices))

    def marks(self) -> NDArray[np.int64]:
        """Those of the pictures."""
        return self.pictures.marks()


def lenient(splits: Splits, workers: int = 0) -> Splits:
    """Splits of which only the test part is decoded now: what is measured must be exact.

    Args:
        splits: of pictures nobody has looked into.
        workers: threads that decode; as many as there are processors when 0.
    """
    refused, test = splits.refused, splits.test
    if test is not None:
        checked = check(Part(test, (), "test/"), workers)
        refused = (*refused, *checked.refused)
        test = checked.pictures if len(checked.pictures) else None
    val = None if splits.val is None else LenientPictures(splits.val)
    train = LenientPictures(splits.train)
    return replace(splits, train=train, val=val, test=test, refused=refused)

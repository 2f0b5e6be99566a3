"""Pictures that are too many to look into when a data set is opened."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from alexnet.data.decode import DecodeError
from alexnet.data.parts import Part, check
from alexnet.data.pictures import Image, Indices, Pictures, Splits
from alexnet.errors import FailedError
from alexnet.progress import log

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

    def decode(self, index: int, at_least: int = 0) -> Image:
        """The picture, or the next of its class that can be decoded."""
        try:
            return self.pictures.decode(index, at_least)
        except DecodeError as error:
            found = self._another(index, at_least)
            if found is None:
                raise
            log.warning(
                "%s cannot be decoded (%s): another picture of its class is read in its place; "
                "'alexnet prepare' leaves such files out",
                self.names[index],
                error,
            )
            return found

    def read(self, index: int, at_least: int = 0) -> Image:
        """The picture, or another of its class.

        Raises:
            FailedError: neither it nor those after it can be decoded.
        """
        try:
            return self.decode(index, at_least)
        except DecodeError as error:
            raise FailedError(
                f"{self.names[index]} cannot be decoded ({error}), nor can others of its class: "
                "restore the data"
            ) from error

    def expect(self, index: int) -> None:
        """Have the picture fetched."""
        self.pictures.expect(index)

    def _another(self, index: int, at_least: int) -> Image | None:
        members = np.flatnonzero(self.labels == self.labels[index])
        start = int(np.searchsorted(members, index))
        for other in np.roll(members, -start)[1 : TRIES + 1]:
            try:
                return self.pictures.decode(int(other), at_least)
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

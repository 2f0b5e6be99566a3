"""Names of very many pictures, without a Python string each until it is asked for."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray


class LazyNames(Sequence[str], abc.ABC):
    """A sequence that makes a name when it is asked for; ``name(index)`` does."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    @abc.abstractmethod
    def name(self, index: int) -> str:
        """The name at ``index``, from 0."""

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self.name(number) for number in range(*index.indices(self.length))]
        number = int(index)
        number += self.length if number < 0 else 0
        if not 0 <= number < self.length:
            raise IndexError(f"{index} is not among {self.length} names")
        return self.name(number)


class PackedNames(LazyNames):
    """Names in one array of bytes.

    Attributes:
        text: all names after each other, UTF-8, uint8.
        ends: where each ends, int64 ``[N]``.
    """

    def __init__(self, text: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        super().__init__(len(ends))
        self.text, self.ends = text, ends

    @classmethod
    def pack(cls, names: Iterable[str]) -> PackedNames:
        """Names as they come."""
        text = bytearray()
        ends: list[int] = []
        for name in names:
            text += name.encode()
            ends.append(len(text))
        return cls(np.frombuffer(bytes(text), np.uint8), np.array(ends, np.int64))

    def name(self, index: int) -> str:
        """The name at ``index``."""
        start = int(self.ends[index - 1]) if index else 0
        return self.text[start : int(self.ends[index])].tobytes().decode()


class ChosenNames(LazyNames):
    """The names at ``rows`` of others; a choice of a choice is one choice."""

    def __init__(self, names: Sequence[str], rows: NDArray[np.int64]) -> None:
        super().__init__(len(rows))
        if isinstance(names, ChosenNames):
            names, rows = names.names, names.rows[rows]
        self.names, self.rows = names, rows

    def name(self, index: int) -> str:
        """The name at ``index``."""
        return self.names[int(self.rows[index])]

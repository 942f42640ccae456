"""Arrays that grow at their end without being copied at each write."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST = 1 << 10
"""Lines that there is room for at least, once something was added."""


class Room:
    """An array with room behind its end: what is added is copied once, what is there only when the room runs out.

    The room is doubled then. Room that nobody wrote to is address space and takes no memory.

    Args:
        array: what is there; it is not written to.

    `array` is all of it, as a view; views handed out before keep their length and their content.
    """

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = self._held = array

    def add(self, more: NDArray[Any]) -> NDArray[Any]:
        """Puts more lines behind the last one and returns all of them."""
        used, size = len(self.array), len(self.array) + len(more)
        self.reserve(size)
        self._held[used:size] = more
        self.array = self._held[:size]
        return self.array

    def reserve(self, size: int) -> None:
        """Makes room for so many lines in all, and for as many again, unless they have it."""
        if size > len(self._held):
            held = np.empty((max(2 * size, LEAST), *self.array.shape[1:]), dtype=self.array.dtype)
            held[: len(self.array)] = self.array
            self._held, self.array = held, held[: len(self.array)]

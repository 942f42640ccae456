"""Keys and values of prompts that were thought before, to be reused by prompts that begin alike.

A user's next prompt begins with the last one as long as the history grew at its end. Prompts are kept in lexicographic
order: the one that shares most with a new prompt then stands beside the place where that would be put, so that a
look-up is a bisection.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from threading import Lock
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from l2d.backbone import Layers
from l2d.packing import common_prefix


class Known(NamedTuple):
    """A prompt's tokens with their keys and values."""

    prompt: NDArray[np.int32]
    layers: Layers

    @property
    def bytes(self) -> int:
        """What the tensors take."""
        return sum(tensor.nbytes for layer in self.layers for tensor in layer)


class PrefixCache:
    """A bounded set of prompts, the longest unused one leaving first.

    Args:
        most_bytes: of keys and values; a prompt that does not fit alone is not kept.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.bytes = 0
        self._turn = Lock()
        self._sorted: list[bytes] = []
        self._known: OrderedDict[bytes, Known] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def longest(self, prompt: NDArray[np.int32]) -> tuple[int, Layers]:
        """How many of the prompt's first tokens are known, at most, and their keys and values."""
        with self._turn:
            return self._longest(prompt)

    def _longest(self, prompt: NDArray[np.int32]) -> tuple[int, Layers]:
        place = bisect_left(self._sorted, _key(prompt))
        shared, best = 0, None
        for near in self._sorted[max(0, place - 1) : place + 1]:
            common = common_prefix(self._known[near].prompt, prompt)
            if common > shared:
                shared, best = common, near
        if best is None:
            return 0, ()
        self._known.move_to_end(best)
        return shared, [(keys[:, :, :shared], values[:, :, :shared]) for keys, values in self._known[best].layers]

    def add(self, prompt: NDArray[np.int32], layers: Layers) -> None:
        """Keeps a prompt; one right before it in the order that it begins with gives way, a shorter history usually."""
        known = Known(prompt.copy(), layers)
        if known.bytes <= self.most_bytes:
            with self._turn:
                self._add(known, _key(prompt))

    def clear(self) -> None:
        """Forgets everything."""
        with self._turn:
            self._sorted.clear()
            self._known.clear()
            self.bytes = 0

    def _add(self, known: Known, key: bytes) -> None:
        if key in self._known:
            self._drop(key)
        place = bisect_left(self._sorted, key)
        if place and key.startswith(self._sorted[place - 1]):
            self._drop(self._sorted[place - 1])
        insort(self._sorted, key)
        self._known[key] = known
        self.bytes += known.bytes
        while self.bytes > self.most_bytes:
            self._drop(next(iter(self._known)))

    def _drop(self, key: bytes) -> None:
        self.bytes -= self._known.pop(key).bytes
        del self._sorted[bisect_left(self._sorted, key)]


def _key(prompt: NDArray[np.int32]) -> bytes:
    """Bytes that sort as the tokens do."""
    return np.ascontiguousarray(prompt, dtype=">u4").tobytes()

"""How much a decoder holds: the bytes of every array and tensor that can be reached from it, each counted once."""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Iterable, Iterator
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from numpy.lib.array_utils import byte_bounds

Span = tuple[int, int]
"""First address, and the one behind the last."""

CLOSED = (type, ModuleType, FrameType, CodeType, str, bytes, int, float, complex)
"""What is not looked into: it holds no array, or leads to the whole program."""


def held_mib(*roots: object) -> float:
    """MiB of numpy arrays, torch tensors and modules' parameters that are reachable from some objects.

    Storage that several of them share (views, tied weights, a tensor over a numpy array, a memory map opened once)
    counts once, and a view counts with the whole array that it keeps alive. Memory-mapped files count in full, whether
    or not their pages are in memory. Not counted: Python's own objects (titles, dicts, lists of numbers), what
    libraries hold outside Python, such as tokenizers and Arrow tables, and what is held only during a call.

    A decoder is asked a few times before it is measured, since indexes are built on first use.
    """
    spans: dict[str, list[Span]] = defaultdict(list)
    for found in _reachable(roots):
        if isinstance(found, torch.Tensor):
            if found.layout == torch.strided and found.device.type != "meta":
                storage = found.untyped_storage()
                # Addresses of different devices are different address spaces.
                spans[str(found.device)].append((storage.data_ptr(), storage.data_ptr() + storage.nbytes()))
        elif isinstance(found, np.ndarray):
            spans["cpu"].append(byte_bounds(_owner(found)))
    return sum(_covered(part) for part in spans.values()) / 2**20


def _reachable(roots: Iterable[object]) -> Iterator[object]:
    """Everything that the roots refer to, directly or not, by the garbage collector's knowledge of references."""
    pending, seen = list(roots), set[int]()
    while pending:
        current = pending.pop()
        if id(current) in seen or isinstance(current, CLOSED):
            continue
        seen.add(id(current))
        yield current
        pending.extend(_references(current))


def _references(holder: object) -> Iterable[Any]:
    if isinstance(holder, FunctionType):  # its globals are the module's, not the decoder's
        return [*(holder.__closure__ or ()), *(holder.__defaults__ or ()), holder.__dict__]
    return gc.get_referents(holder)


def _owner(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array whose memory a view keeps alive; the view itself over memory that is not numpy's."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _covered(spans: list[Span]) -> int:
    """Bytes in the union of some spans."""
    total, reached = 0, 0
    for start, stop in sorted(spans):
        total += max(0, stop - max(start, reached))
        reached = max(reached, stop)
    return total

"""Prepared matrix kernels, which oneDNN keeps for every shape it has met."""

from __future__ import annotations

import os

CAPACITY = 128
"""Kernels that are kept: those of some thirty lengths. Making one again takes less than a run's times differ by."""

VARIABLES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""Where oneDNN, and torch's own list in front of it, look for how many they may keep. Both must be bounded."""


def bound_kernels() -> None:
    """Bounds what a process that lives keeps for ever new lengths, where the environment does not say how much.

    Prompts and batches have a length of their own almost every time. With the usual thousand kernels a backbone of 22
    million parameters grows by some hundred MiB within its first thousand batches. Both libraries look when they
    compute for the first time: what has computed before keeps its size.
    """
    for name in VARIABLES:
        os.environ.setdefault(name, str(CAPACITY))

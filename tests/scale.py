"""How much the kill and fuzz tests do: enough to notice in `make test`, the full figures in `make test-long`."""

from __future__ import annotations

import os
from collections import Counter, defaultdict

FULL = "L2D_FIGURES" in os.environ
"""Names the file that the figures are written to."""

KILLS = 10 if FULL else 2
"""Kills of a tuning run, and of a memory build."""

FLIPS = 60 if FULL else 8
"""Bits flipped in each file of a memory."""

FUZZ = 20 if FULL else 1
"""How many times the usual number of broken files."""

FIGURES: dict[str, Counter[str]] = defaultdict(Counter)
"""What the tests counted, by subject; a full-size run writes it down."""


def count(subject: str, **counts: int) -> None:
    """Adds to the figures of a subject."""
    FIGURES[subject].update(counts)

"""Log -> per-user histories -> examples (history, target); splits; the prepared data set on disk."""

from __future__ import annotations

from l2d.interactions.dataset import Dataset
from l2d.interactions.log import (
    SPLITS,
    UNKNOWN_TIME,
    Example,
    Examples,
    Interactions,
    SplitName,
    Splits,
    block_start,
    chains,
    examples_of,
    split_by_time,
    split_leave_last_out,
)

__all__ = [
    "SPLITS",
    "UNKNOWN_TIME",
    "Dataset",
    "Example",
    "Examples",
    "Interactions",
    "SplitName",
    "Splits",
    "block_start",
    "chains",
    "examples_of",
    "split_by_time",
    "split_leave_last_out",
]

"""The journal of a run: every interaction that came after tuning, and the thoughts that are not in the memory yet."""

from __future__ import annotations

from l2d.memory.journal.log import ERASE, NOTHING, Log, Wish
from l2d.memory.journal.sqlite import RESTORE
from l2d.memory.journal.writing import Journal

__all__ = ["ERASE", "NOTHING", "RESTORE", "Journal", "Log", "Wish"]

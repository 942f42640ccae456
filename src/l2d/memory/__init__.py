"""The durable set of (thought, item, user, time): build, read, aggregate, nearest neighbours."""

from __future__ import annotations

from l2d.memory.build import SHARD, Plan, build, plan
from l2d.memory.entries import Entries, ItemVectors, aggregate, item_sums, run_sums
from l2d.memory.nearest import Filter, Near, Points
from l2d.memory.store import Memory, MemoryInfo

__all__ = [
    "SHARD",
    "Entries",
    "Filter",
    "ItemVectors",
    "Memory",
    "MemoryInfo",
    "Near",
    "Plan",
    "Points",
    "aggregate",
    "build",
    "item_sums",
    "plan",
    "run_sums",
]

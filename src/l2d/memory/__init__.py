"""The durable set of (thought, item, user, time): build, read, aggregate, nearest neighbours."""

from __future__ import annotations

from l2d.memory.build import SHARD, Plan, build, plan
from l2d.memory.columns import Batch
from l2d.memory.entries import Entries, ItemVectors, aggregate, item_sums, run_sums
from l2d.memory.info import MemoryInfo
from l2d.memory.joined import LiveState
from l2d.memory.journal import Journal, Log
from l2d.memory.ledger import Version
from l2d.memory.live import LiveMemory
from l2d.memory.nearest import Filter, Near, Points
from l2d.memory.store import Memory

__all__ = [
    "SHARD",
    "Batch",
    "Entries",
    "Filter",
    "ItemVectors",
    "Journal",
    "LiveMemory",
    "LiveState",
    "Log",
    "Memory",
    "MemoryInfo",
    "Near",
    "Plan",
    "Points",
    "Version",
    "aggregate",
    "build",
    "item_sums",
    "plan",
    "run_sums",
]

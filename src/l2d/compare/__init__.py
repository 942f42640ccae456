"""Many decoders in one run: quality, latency, throughput, model calls and memory, tested against the first of them."""

from l2d.compare.asking import Service, ask, rank_in_blocks, sample, timed_histories
from l2d.compare.comparison import Comparison, Row
from l2d.compare.contestants import Contestant, Kind
from l2d.compare.curves import Latent, latency_by_length, quality_by_memory, quality_by_neighbours
from l2d.compare.measuring import compare
from l2d.compare.plan import Plan

__all__ = [
    "Comparison",
    "Contestant",
    "Kind",
    "Latent",
    "Plan",
    "Row",
    "Service",
    "ask",
    "compare",
    "latency_by_length",
    "quality_by_memory",
    "quality_by_neighbours",
    "rank_in_blocks",
    "sample",
    "timed_histories",
]

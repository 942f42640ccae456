"""Nearest neighbours in two stages: a scan in low precision that may not lose anybody, then distances in float64."""

from __future__ import annotations

from l2d.memory.nearest.index import Indexed, pays
from l2d.memory.nearest.near import Filter, Near
from l2d.memory.nearest.points import Points
from l2d.memory.nearest.products import Mask, mean, product

__all__ = ["Filter", "Indexed", "Mask", "Near", "Points", "mean", "pays", "product"]

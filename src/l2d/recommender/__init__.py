"""The facade: composes the stages, loads and saves a run directory, no logic of its own."""

from __future__ import annotations

from l2d.recommender.answering import Recommendation, RecommendRequest
from l2d.recommender.explaining import Explanation
from l2d.recommender.facade import DECODERS, Recommender
from l2d.recommender.measuring import Report, Row
from l2d.recommender.quickstart import quickstart

__all__ = [
    "DECODERS",
    "Explanation",
    "RecommendRequest",
    "Recommendation",
    "Recommender",
    "Report",
    "Row",
    "quickstart",
]

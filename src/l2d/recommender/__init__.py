"""The facade: composes the stages, loads and saves a run directory, no logic of its own."""

from __future__ import annotations

from l2d.recommender.adding import Added, Item
from l2d.recommender.answering import Found, Recommendation, RecommendRequest
from l2d.recommender.arriving import Interaction, Written
from l2d.recommender.disclosing import PublicExplanation
from l2d.recommender.explaining import Explanation
from l2d.recommender.facade import DECODERS, Recommender
from l2d.recommender.forgetting import Forgotten
from l2d.recommender.measuring import Report, Row
from l2d.recommender.quickstart import quickstart

__all__ = [
    "DECODERS",
    "Added",
    "Explanation",
    "Forgotten",
    "Found",
    "Interaction",
    "Item",
    "PublicExplanation",
    "RecommendRequest",
    "Recommendation",
    "Recommender",
    "Report",
    "Row",
    "Written",
    "quickstart",
]

"""Requests in the user's words -> rows, filters and thoughts -> lists in the user's words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from l2d.decode import Global
from l2d.errors import ConfigError
from l2d.ranking import NOTHING, Decoder, Rankings, Requests

if TYPE_CHECKING:
    from l2d.recommender.opening import OpenRun


@dataclass(frozen=True)
class Recommendation:
    """One recommended item."""

    item_id: str | int
    title: str
    score: float


@dataclass(frozen=True)
class RecommendRequest:
    """One request in the user's words.

    Args:
        history: ids or titles, oldest first.
        k: list length.
        exclude: ids or titles that must not be recommended.
        allow: the only ids or titles that may be; None for all.
    """

    history: Sequence[str | int]
    k: int = 10
    exclude: Sequence[str | int] = field(default=())
    allow: Sequence[str | int] | None = None


def answer(
    run: OpenRun,
    requests: Sequence[RecommendRequest],
    decoder: Decoder,
    *,
    exclude_seen: bool,
    minimum_entries: int,
) -> list[list[Recommendation]]:
    """See `AskedRun.recommend_batch`."""
    if any(request.k < 1 for request in requests):
        raise ConfigError("k is too small", got=min(request.k for request in requests), expected="at least 1")
    whole = [run.rows(request.history) for request in requests]
    excluded = [run.rows(request.exclude) for request in requests]
    if exclude_seen:
        excluded = [np.union1d(a, b).astype(np.int32) for a, b in zip(excluded, whole, strict=True)]
    histories = [run.trimmed(rows) for rows in whole]
    prompts = [run.prompts.prompt(history) for history in histories] if decoder.needs_thoughts else []
    made = Requests(
        histories,
        run.answering.think(prompts) if decoder.needs_thoughts else None,
        exclude=excluded,
        allow=[None if request.allow is None else run.rows(request.allow) for request in requests],
        minimum_entries=minimum_entries,
    )
    rankings = decoder.rank(made, max((request.k for request in requests), default=1))
    return [_listed(run, rankings, line, request.k) for line, request in enumerate(requests)]


def similar(run: OpenRun, item: str | int, k: int) -> list[Recommendation]:
    """See `AskedRun.similar_items`."""
    row = run.catalog.find(item)
    if not run.item_vectors.counts[row]:
        raise ConfigError(
            "nothing is known of this item",
            got=repr(run.catalog.titles[row]),
            expected="an item with memory entries",
            cure="choose one that occurs as a training target",
        )
    own = np.array([row], dtype=np.int32)
    requests = Requests([own], run.item_vectors.vectors[own], exclude=[own])
    return _listed(run, Global(run.item_vectors).rank(requests, k), 0, k)


def _listed(run: OpenRun, rankings: Rankings, line: int, k: int) -> list[Recommendation]:
    found = zip(rankings.rows[line, :k].tolist(), rankings.scores[line, :k].tolist(), strict=True)
    titles, item_id = run.catalog.titles, run.catalog.item_id
    return [Recommendation(item_id(row), titles[row], score) for row, score in found if row != NOTHING]

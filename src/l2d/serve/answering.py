"""A batch becomes answers: one call of the library, and what is said beside the lists."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from l2d.serve.batching import Job
from l2d.serve.errors import translated
from l2d.serve.pace import FIRST_GUESS

if TYPE_CHECKING:
    from l2d.recommender import Recommendation, Recommender, RecommendRequest

LANGUAGE = "beam"
"""The language decoder that answers; its requests are answered alone, one at a time."""

LANGUAGE_GUESS = 1.0
"""Seconds that it is thought to take before it was asked for the first time."""


def answering_decoders(run: Recommender, *, language: bool) -> tuple[str, ...]:
    """What may be asked for: nothing that would have to be trained first."""
    from l2d.recommender import DECODERS

    known = set(run.every_decoder())
    return tuple(
        name
        for name, kind in DECODERS.items()
        if name in known and (kind in ("latent", "baseline") or (language and name == LANGUAGE))
    )


class Kind(NamedTuple):
    """What requests must have in common to be thought together."""

    decoder: str
    exclude_seen: bool = False
    explain: bool = False
    users: bool = False


def first_guess(kind: Hashable) -> float:
    """Seconds that a request of a kind takes which was never answered: a language decoder thinks token by token."""
    return LANGUAGE_GUESS if isinstance(kind, Kind) and kind.decoder == LANGUAGE else FIRST_GUESS


@dataclass(frozen=True)
class Answer:
    """A list and what it was made by.

    Args:
        items: the list.
        explanations: one per item, where asked for.
        run: name of the arm.
        version: of its memory.
        decoder: what answered.
        cold: whether the history was empty, so that popularity answered.
    """

    items: list[Recommendation]
    explanations: list[Any] | None
    run: str
    version: str
    decoder: str
    cold: bool


def answers(run: Recommender, jobs: list[Job], *, name: str, version: str) -> list[Answer | Exception]:
    """The answer to each request of a batch; an error that one brings about does not reach the others.

    Args:
        run: that answers.
        jobs: of one kind.
        name: of the arm.
        version: of its memory.
    """
    try:
        return list(_answered(run, jobs, name, version))
    except Exception as error:  # noqa: BLE001  # whose fault it is shows when each is asked alone
        if len(jobs) == 1 or translated(error) is None:
            return [error for _ in jobs]
        return [outcome for job in jobs for outcome in answers(run, [job], name=name, version=version)]


def _answered(run: Recommender, jobs: list[Job], name: str, version: str) -> list[Answer]:
    kind = jobs[0].kind
    assert isinstance(kind, Kind)
    requests: list[RecommendRequest] = [job.payload for job in jobs]
    lists = run.recommend_batch(requests, decoder=kind.decoder, exclude_seen=kind.exclude_seen)
    found = []
    for request, items in zip(requests, lists, strict=True):
        cold = run.is_cold(request)
        explanations = _explained(run, request, items, kind.users) if kind.explain else None
        found.append(Answer(items, explanations, name, version, "popularity" if cold else kind.decoder, cold))
    return found


def _explained(run: Recommender, request: RecommendRequest, items: list[Recommendation], users: bool) -> list[Any]:
    named = [f"id:{item.item_id}" for item in items]
    if users and not run.is_cold(request):
        return [run.explain(request.history, name, with_users=True) for name in named]
    return list(run.explain_many(request.history, named))

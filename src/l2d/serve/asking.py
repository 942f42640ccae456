"""Routes that answer and change nothing."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Path, Query, Request
from starlette.responses import Response

from l2d.recommender import RecommendRequest
from l2d.serve.answering import LANGUAGE, Answer, Kind
from l2d.serve.arm import Arm
from l2d.serve.batching import Job
from l2d.serve.errors import Refused, too_late
from l2d.serve.house import House, Visit, house_of, visit_of
from l2d.serve.schema import MOST_DEADLINE, BatchBody, RecommendBody

LANGUAGE_PATIENCE = 10
"""How many times the usual deadline a language decoder has, where a request does not say."""


def as_json(value: Any) -> Response:
    """An answer; the library's own encoder would walk through it twice."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text.encode(), media_type="application/json")


async def recommend(request: Request, body: RecommendBody) -> Response:
    """Recommends for one history or user."""
    house, visit = house_of(request), visit_of(request)
    arm, job = prepared(house, visit, body, None)
    visit.arm = arm.name
    (answer,) = await answered(request, [(arm, job)])
    return as_json(shown(answer, visit))


async def recommend_batch(request: Request, body: BatchBody) -> Response:
    """Recommends for several at once: all are answered, or none."""
    house, visit = house_of(request), visit_of(request)
    work = []
    for place, one in enumerate(body.requests):
        try:
            work.append(prepared(house, visit, one, body.deadline_ms))
        except Refused as error:
            error.parts["what"] = f"requests.{place}: {error.parts['what']}"
            raise
    if len({arm.name for arm, _ in work}) == 1:
        visit.arm = work[0][0].name
    answers = await answered(request, work)
    return as_json({"responses": [shown(answer, visit) for answer in answers], "request_id": visit.request_id})


def prepared(house: House, visit: Visit, body: RecommendBody, deadline_ms: int | None) -> tuple[Arm, Job]:
    """The arm that answers a request, and what it is handed.

    Raises:
        Refused: no such run, decoder or item.
    """
    arm = house.arms.of(body.user, body.run)
    decoder = body.decoder or house.settings.decoder or arm.run.usual
    if decoder not in arm.decoders:
        raise Refused(422, "this run has no such decoder", got=decoder, expected=", ".join(arm.decoders))
    history = arm.history_of(body.user) if body.history is None and body.user is not None else body.history or []
    for items in (body.exclude, body.allow or ()):
        arm.rows(items)
    conditions = body.conditions
    if conditions:
        arm.run.catalog.where(conditions)  # evaluated once here, where it may be refused, and kept for the thread
    asked = RecommendRequest(history, body.k, body.exclude, body.allow, conditions)
    tokens = arm.prompt_tokens(history)
    usual = house.settings.deadline_ms * (LANGUAGE_PATIENCE if decoder == LANGUAGE else 1)
    deadline = visit.deadline(body.deadline_ms or deadline_ms or min(usual, MOST_DEADLINE))
    kind = Kind(decoder, body.exclude_seen, body.explain, body.explain and "audit" in visit.key.scopes)
    return arm, Job(kind, tokens, visit.arrived, deadline, asked, alone=decoder == LANGUAGE)


async def answered(request: Request, work: Sequence[tuple[Arm, Job]]) -> list[Answer]:
    """Waits for answers, or for the client to leave: then nothing is done for it any more.

    Raises:
        Refused: one of them would be late.
    """
    by_arm: dict[Arm, list[Job]] = {}
    for arm, job in work:
        by_arm.setdefault(arm, []).append(job)
    admitted: list[tuple[Arm, list[Job]]] = []

    def leave(_: object = None) -> None:
        for arm, jobs in admitted:
            arm.drop(jobs)

    watch: asyncio.Task[Any] | None = None
    try:
        for arm, jobs in by_arm.items():
            arm.admit(jobs)
            admitted.append((arm, jobs))
        watch = asyncio.ensure_future(request.receive())
        watch.add_done_callback(lambda done: None if done.cancelled() else leave())
        found = [await work[0][1].sink] if len(work) == 1 else await asyncio.gather(*(job.sink for _, job in work))
        if time.monotonic() > min(job.deadline for _, job in work):  # it waited for its turn here
            raise too_late()
        return list(found)
    except BaseException:
        leave()
        raise
    finally:
        if watch is not None:
            watch.cancel()


def shown(answer: Answer, visit: Visit) -> dict[str, Any]:
    """An answer as JSON."""
    items: list[dict[str, Any]] = [
        {"item_id": item.item_id, "title": item.title, "score": item.score} for item in answer.items
    ]
    if answer.explanations is not None:
        for item, explanation in zip(items, answer.explanations, strict=True):
            item["explanation"] = asdict(explanation)
    return {
        "items": items,
        "request_id": visit.request_id,
        "run": answer.run,
        "memory_version": answer.version,
        "decoder": answer.decoder,
        "cold": answer.cold,
        "milliseconds": round((time.monotonic() - visit.arrived) * 1000, 3),
    }


Run = Annotated[str | None, Query(max_length=256, description="The run that answers; the first one if left out.")]
K = Annotated[int, Query(ge=1, le=1000, description="Length of the list.")]


async def similar(
    request: Request,
    item: Annotated[str, Path(min_length=1, max_length=2000, description="Id or title of an item.")],
    k: K = 10,
    run: Run = None,
) -> Response:
    """The items nearest to one in latent space."""
    house, visit = house_of(request), visit_of(request)
    arm = house.arms.named(run)
    visit.arm = arm.name
    if arm.run.catalog.look_up(item) is None:
        raise Refused(404, "no such item", got=item, cure="search for it: GET /v1/items?query=")

    found = await arm.call(
        "similar", lambda opened: opened.similar_items(item, k=k), deadline=visit.deadline(house.settings.deadline_ms)
    )
    items = [{"item_id": one.item_id, "title": one.title, "score": one.score} for one in found]
    return as_json({"items": items, "request_id": visit.request_id, "run": arm.name, "memory_version": arm.version})


async def find_items(
    request: Request,
    query: Annotated[str, Query(max_length=200, description="Beginning, words or a part of a title, or an id.")],
    k: Annotated[int, Query(ge=1, le=100)] = 20,
    run: Run = None,
) -> Response:
    """Searches the catalogue."""
    house, visit = house_of(request), visit_of(request)
    arm = house.arms.named(run)
    visit.arm = arm.name
    found = await arm.call(
        "find", lambda opened: opened.find_items(query, k=k), deadline=visit.deadline(house.settings.deadline_ms)
    )
    return as_json({"items": [asdict(one) for one in found], "request_id": visit.request_id, "run": arm.name})

"""Routes that write: to all runs, so that each stays current whoever is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Path, Request
from starlette.responses import Response

from l2d.serve.arm import Arm
from l2d.serve.asking import as_json
from l2d.serve.errors import Refused
from l2d.serve.house import House, house_of, visit_of
from l2d.serve.schema import InteractionsBody, ItemsBody

if TYPE_CHECKING:
    from l2d.recommender import Recommender


MOVE_AT = 256
"""Entries waiting in the journal from which on they are moved into Lance; before a write would have to do so itself."""


async def add_interactions(request: Request, body: InteractionsBody) -> Response:
    """Writes interactions into the memory; they take part in the next request. Repeating it does no harm."""
    from l2d.recommender import Interaction

    now = int(time.time())  # one time for all runs
    made = [
        Interaction(one.user_id, one.item_id, now if one.timestamp is None else one.timestamp)
        for one in body.interactions
    ]

    def add(run: Recommender) -> dict[str, Any]:
        found = run.add_interactions(made)
        return {"added": found.added, "known": found.known, "entries": found.entries}

    found = await written(request, "interactions", add, lambda counts: counts["added"])
    for arm in house_of(request).arms:
        if arm.pending >= MOVE_AT:
            arm.move_soon()
    return found


async def forget_user(
    request: Request, user_id: Annotated[str, Path(min_length=1, max_length=256, description="Id of a user.")]
) -> Response:
    """Deletes a user's interactions and all that the memory made of them. What the tuned weights learnt stays."""

    def forget(run: Recommender) -> dict[str, Any]:
        found = run.forget(user=user_id)
        return {"interactions": found.interactions, "entries": found.entries}

    return await written(request, "forget", forget, lambda counts: counts["interactions"], long=True)


async def put_items(request: Request, body: ItemsBody) -> Response:
    """Adds items by their titles, or replaces the metadata of known ones."""
    from l2d.recommender import Item, RecommendRequest

    made = [Item(one.item_id, one.title, one.metadata) for one in body.items]

    def put(run: Recommender) -> dict[str, Any]:
        found = run.put_items(made)
        run.recommend_batch(
            [RecommendRequest([f"id:{made[0].item_id}"])]
        )  # what depends on the catalogue is made again
        return {name: value for name, value in asdict(found).items() if name in ("added", "known", "updated")}

    return await written(request, "items", put, lambda counts: counts["added"] + counts.get("updated", 0))


async def written(
    request: Request,
    kind: str,
    work: Callable[[Recommender], dict[str, Any]],
    count: Callable[[dict[str, Any]], int],
    *,
    long: bool = False,
) -> Response:
    """Writes to all runs and says what it did to each.

    Raises:
        Refused: this server only reads, or a run does not take it; what others took stays, and is known there when
            the request is repeated.
    """
    house, visit = house_of(request), visit_of(request)
    refuse_writes(house)

    if len(house.arms) == 1:
        visit.arm = house.arms.first.name

    async def into(arm: Arm) -> dict[str, Any]:
        try:
            counts = await (arm.change if long else arm.write)(kind, work)
        except BaseException:
            visit.arm = arm.name
            raise
        told = {"run": arm.name, "memory_version": arm.version, **counts}
        house.metrics.written.labels(arm.name, kind).inc(count(told))
        arm.writes.appendleft((kind, count(told), time.monotonic(), told["memory_version"]))
        return told

    # An acknowledged write is durable; one whose client left meanwhile is done all the same.
    found = await asyncio.shield(asyncio.gather(*(into(arm) for arm in house.arms)))
    return as_json({**found[0], "request_id": visit.request_id, "runs": found})


def refuse_writes(house: House) -> None:
    """Refuses where another process is the writer.

    Raises:
        Refused: always, on a server that only reads.
    """
    if house.settings.read_only:
        raise Refused(403, "this server only reads", cure="send writes to the server that writes", reason="read-only")

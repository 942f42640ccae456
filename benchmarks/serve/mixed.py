"""What users do with a server, as a plan: lists for histories, lists for known users, and writes among them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from hosted import CLIENT_CORE, Hosted
from load import Call, Found, Loading
from runs import Material

K = 10
BY_USER = 0.1
"""Share of requests that name a user instead of a history."""


def mixed(
    material: Material, count: int, *, writes: float, seed: int = 0, deadline_ms: int | None = None
) -> list[Call]:
    """A plan.

    Args:
        material: of the run that is served.
        count: of its requests.
        writes: share that are an interaction each.
        seed: of what is drawn.
        deadline_ms: of the requests; None for the server's.
    """
    generator = np.random.default_rng(seed)
    extra: dict[str, Any] = {"k": K} | ({} if deadline_ms is None else {"deadline_ms": deadline_ms})
    now = int(time.time())
    calls = []
    for place, share in enumerate(generator.random(count).tolist()):
        user = material.users[int(generator.integers(len(material.users)))]
        if share < writes:
            item = material.items[int(generator.integers(len(material.items)))]
            written = {"user_id": user, "item_id": item, "timestamp": now + place}
            calls.append(Call("write", "POST", "/v1/interactions", {"interactions": [written]}))
        elif share < writes + BY_USER:
            calls.append(Call("recommend", "POST", "/v1/recommend", {"user": user, **extra}))
        else:
            history = material.histories[place % len(material.histories)]
            calls.append(Call("recommend", "POST", "/v1/recommend", {"history": history, **extra}))
    return calls


def capacity(
    server: Hosted, calls: list[Call], *, seconds: float, concurrencies: tuple[int, ...] = (8, 16, 32)
) -> tuple[float, Found]:
    """The most answers a second that a closed load gets, and what the best of them met."""
    best: tuple[float, Found] | None = None
    for concurrency in concurrencies:
        found = Loading(calls, server.port, core=CLIENT_CORE, concurrency=concurrency, seconds=seconds).found()
        rate = float(found.summary()["per_second"])
        if best is None or rate > best[0]:
            best = rate, found
    assert best is not None
    return best

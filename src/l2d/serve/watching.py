"""Routes by which one sees how the server is doing."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from fastapi import Request
from starlette.responses import Response

from l2d.serve.arm import Arm
from l2d.serve.asking import as_json
from l2d.serve.errors import Refused
from l2d.serve.house import house_of, visit_of
from l2d.serve.metrics import CONTENT_TYPE


async def healthz(request: Request) -> Response:
    """Whether the process answers."""
    return as_json({"ok": True})


async def readyz(request: Request) -> Response:
    """Whether requests are taken; 503 while the server is about to end."""
    house = house_of(request)
    runs = [{"run": arm.name, "ready": arm.alive, "waiting": arm.waiting()} for arm in house.arms]
    ready = not house.draining and all(arm.alive for arm in house.arms)
    told: dict[str, Any] = {"ready": ready, "draining": house.draining}
    with suppress(Refused):  # names and load of runs are for those who have a key
        house.keyring.holder(request.headers.get("authorization"))
        told["runs"] = runs
    found = as_json(told)
    found.status_code = 200 if ready else 503
    return found


async def metrics(request: Request) -> Response:
    """Counters and histograms for Prometheus."""
    house = house_of(request)
    house.metrics.draining.set(house.draining)
    return Response(house.metrics.written_out(list(house.arms)), media_type=CONTENT_TYPE)


async def memory(request: Request) -> Response:
    """What the runs remember, and the last writes."""
    house, visit = house_of(request), visit_of(request)
    runs = [await described(arm, visit.deadline(house.settings.deadline_ms)) for arm in house.arms]
    return as_json({"runs": runs, "read_only": house.settings.read_only, "request_id": visit.request_id})


async def described(arm: Arm, deadline: float) -> dict[str, Any]:
    """A run's memory in figures."""
    found = await arm.described(deadline)
    now = time.monotonic()
    writes = [
        {"kind": kind, "count": count, "seconds_ago": round(now - when, 1), "memory_version": version}
        for kind, count, when, version in arm.writes
    ]
    return {"run": arm.name, **found, "decoders": arm.decoders, "last_writes": writes}

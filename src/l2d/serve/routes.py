"""The table of routes: method, path, scope, and what goes in and out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import Receive, Scope, Send

from l2d.serve import asking, live, reloading, schema, static, watching
from l2d.serve.house import Visit
from l2d.serve.keys import check_scope

PUBLIC = "public"
"""In place of a scope: anybody who reaches the server."""


ACCEPTED = 202
"""What is asked for is being done."""


class Declared(NamedTuple):
    """A route."""

    method: str
    path: str
    scope: str
    endpoint: Callable[..., Any]
    answer: type[schema.BaseModel] | None
    faults: tuple[int, ...] = ()


READ = (401, 403, 422, 429, 503)
WRITE = (401, 403, 408, 413, 422, 503)

TABLE = (
    Declared("POST", "/v1/recommend", "read", asking.recommend, schema.RecommendAnswer, (*READ, 404, 408, 413)),
    Declared("POST", "/v1/recommend:batch", "read", asking.recommend_batch, schema.BatchAnswer, (*READ, 404, 408, 413)),
    Declared("GET", "/v1/similar/{item:path}", "read", asking.similar, schema.SimilarAnswer, (*READ, 404)),
    Declared("GET", "/v1/items", "read", asking.find_items, schema.FoundAnswer, (*READ, 404)),
    Declared("PUT", "/v1/items", "write", live.put_items, schema.WrittenAnswer, WRITE),
    Declared("POST", "/v1/interactions", "write", live.add_interactions, schema.WrittenAnswer, WRITE),
    Declared("DELETE", "/v1/users/{user_id:path}", "write", live.forget_user, schema.WrittenAnswer, (*WRITE, 404)),
    Declared("GET", "/v1/memory", "read", watching.memory, schema.MemoryAnswer, READ),
    Declared("POST", "/v1/reload", "audit", reloading.reload, schema.ReloadAnswer, READ),
    Declared("GET", "/metrics", "read", watching.metrics, None, (401, 403)),
    Declared("GET", "/healthz", PUBLIC, watching.healthz, schema.HealthAnswer),
    Declared("GET", "/readyz", PUBLIC, watching.readyz, schema.ReadyAnswer),
)


class ScopedRoute(APIRoute):
    """A route that asks for a key before it reads anything."""

    needs: str = ""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Checks the key, then answers."""
        visit: Visit = scope["visit"]
        visit.route = self.path_format
        if self.needs != PUBLIC:
            headers = dict(scope["headers"])
            given = headers.get(b"authorization", b"").decode("latin-1")
            visit.key = scope["app"].state.house.keyring.holder(given)
            check_scope(visit.key, self.needs)
        await super().handle(scope, receive, send)


def add_routes(app: FastAPI) -> None:
    """Adds all routes of the table, the page and the description of both."""
    app.router.route_class = ScopedRoute
    for one in TABLE:
        kind = JSONResponse if one.answer is not None else PlainTextResponse
        _add(
            app,
            one,
            responses=_responses(one),
            status_code=ACCEPTED if one.path == "/v1/reload" else None,
            response_class=kind,
            tags=[one.path.split("/")[1] if one.scope != PUBLIC else "state"],
        )
    for name, content in static.page_files().items():
        path = "/" if name == "index.html" else f"/{name}"
        _add(app, Declared("GET", path, PUBLIC, static.page_route(name, content), None), include_in_schema=False)
    _add(app, Declared("GET", "/openapi.json", PUBLIC, _description(app), None), include_in_schema=False)


def _add(app: FastAPI, one: Declared, **options: Any) -> None:
    app.add_api_route(one.path, one.endpoint, methods=[one.method], response_model=None, **options)
    route = app.router.routes[-1]
    assert isinstance(route, ScopedRoute)
    route.needs = one.scope


def _responses(one: Declared) -> dict[int | str, dict[str, Any]]:
    found: dict[int | str, dict[str, Any]] = {status: {"model": schema.FaultAnswer} for status in one.faults}
    if one.answer is not None:
        found[200] = {"model": one.answer}
    if one.path == "/v1/reload":
        found[ACCEPTED] = found.pop(200)
    if one.path == "/readyz":
        found[503] = {"model": schema.ReadyAnswer}
    return found


def _description(app: FastAPI) -> Callable[..., Any]:
    from fastapi import Request
    from starlette.responses import Response

    async def openapi(request: Request) -> Response:
        return asking.as_json(app.openapi())

    openapi.__annotations__ = {"request": Request, "return": Response}
    return openapi

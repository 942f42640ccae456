"""The application: routes behind the gate, runs that start and end with it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from l2d import __version__
from l2d.serve.arms import Arms
from l2d.serve.errors import Refused, answer
from l2d.serve.gate import Gate
from l2d.serve.heap import keep_small
from l2d.serve.house import House, visit_of
from l2d.serve.keys import Keyring
from l2d.serve.metrics import Metrics
from l2d.serve.reloading import follow
from l2d.serve.routes import PUBLIC, ScopedRoute, add_routes
from l2d.serve.settings import Settings

ABOUT: dict[str, Any] = {
    "title": "l2d",
    "version": __version__,
    "description": "Recommendations by latent-space decoding: one prefill, no decode step, no invalid item.",
    "openapi_url": None,
    "docs_url": None,
    "redoc_url": None,
    "redirect_slashes": False,
    "separate_input_output_schemas": False,
}


def create_app(arms: Arms, settings: Settings, keyring: Keyring, metrics: Metrics) -> FastAPI:
    """A server as an ASGI application.

    Args:
        arms: its runs, opened.
        settings: what its operator set.
        keyring: its keys.
        metrics: its counters, which the arms have, too.
    """
    house = House(arms, settings, keyring, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        arms.start()
        beside = [asyncio.create_task(keep_small())]
        if settings.read_only:
            beside.append(asyncio.create_task(follow(house)))
        yield
        for task in beside:
            task.cancel()
        await arms.close()

    app = FastAPI(lifespan=lifespan, **ABOUT)
    app.state.house = house
    app.add_middleware(Gate, house=house)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _unreadable)
    add_routes(app)
    for route in app.routes:
        if isinstance(route, ScopedRoute) and route.include_in_schema:
            metrics.expect_failures(route.path_format, sorted(route.methods or ()), [arm.name for arm in arms])
    described = app.openapi
    app.openapi = lambda: with_scopes(app, described)  # type: ignore[method-assign]
    return app


async def _refused(request: Request, error: Exception) -> Response:
    visit = visit_of(request)
    assert isinstance(error, HTTPException)
    if not isinstance(error, Refused):  # the framework's own: no such route, no such method
        what = {404: "no such route", 405: "no such method here"}.get(error.status_code, "the request cannot be read")
        allow = (error.headers or {}).get("Allow")
        status = 422 if error.status_code == 400 else error.status_code
        error = Refused(status, what, got=request.method, expected=allow, reason="route")
        if allow:
            error.headers = {"Allow": allow}
    visit.reason = error.reason
    return answer(error, visit.request_id)


async def _unreadable(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(step) for step in first["loc"] if step != "body")
    message = first["msg"].removeprefix("Value error, ")
    given = first.get("input")
    got = None if isinstance(given, dict | list | None) else given
    refused = Refused(422, f"{place}: {message}" if place else message, got=got)
    visit_of(request).reason = refused.reason
    return answer(refused, visit_of(request).request_id)


def description() -> dict[str, Any]:
    """The OpenAPI description of every server, which no run is needed for."""
    app = FastAPI(**ABOUT)
    add_routes(app)
    return with_scopes(app, app.openapi)


def with_scopes(app: FastAPI, described: Any) -> dict[str, Any]:
    """The OpenAPI description, with the scope that each route needs."""
    if app.openapi_schema is None:
        found = described()
        found.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for route in app.routes:
            if isinstance(route, ScopedRoute) and route.include_in_schema and route.needs != PUBLIC:
                for method in route.methods or ():
                    operation = found["paths"][route.path_format][method.lower()]
                    operation["security"] = [{"key": [route.needs]}]
                    for status, told in operation["responses"].items():
                        if int(status) >= 400 and "text/plain" in told["content"]:  # faults are JSON on every route
                            told["content"]["application/json"] = told["content"].pop("text/plain")
        text = json.dumps(found).replace("HTTPValidationError", "FaultAnswer")
        app.openapi_schema = json.loads(text)
    return app.openapi_schema

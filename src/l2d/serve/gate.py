"""What every request passes: its number, the limits of its body, the log; and what becomes of errors."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import secrets
import sys
import time
import traceback
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from l2d.serve.errors import CLIENT_GONE, Refused, answer, busy, failure, translated
from l2d.serve.house import House, Visit
from l2d.serve.patience import ARRIVED
from l2d.serve.settings import LOOPBACK

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
ALWAYS_OPEN = ("/healthz", "/readyz", "/metrics")
"""Answered while the server drains."""

OPERATORS = ("disk", "engine")
"""Reasons that the log tells more of than the answer."""

GUARDS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]


class Gate:
    """An ASGI application around another.

    Args:
        app: what it leads to.
        house: the server.
    """

    def __init__(self, app: ASGIApp, house: House) -> None:
        self.app = app
        self.house = house

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Takes a request in and says what became of it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        visit = scope["visit"] = Visit(_request_id(headers), scope.get(ARRIVED) or time.monotonic())
        self.house.open += 1
        sender = _sender(visit, send, self.house)
        try:
            self._admit(scope, headers)
            await self.app(scope, self._limited(headers, receive), sender)
        except Exception as error:  # noqa: BLE001  # the last stop: the client learns no more than a number
            await self._failed(error, visit, scope, receive, sender)
        finally:
            self.house.open -= 1
            self._record(scope, visit)

    def _admit(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Refuses what is not even looked at.

        Raises:
            Refused: another site's name for this machine or its page, a body that is too long, or a server that is
                about to end.
        """
        if not self.house.keyring:
            name = headers.get(b"host", b"").decode("latin-1")
            name = name[1 : name.find("]")] if name.startswith("[") else name.partition(":")[0]
            if name.lower() not in (*LOOPBACK, self.house.settings.host):
                # A page of another site may point a name of its own at this machine and read what is answered.
                raise Refused(421, "this server answers under the name of this machine alone", reason="host")
            if scope["method"] != "GET" and headers.get(b"sec-fetch-site") == b"cross-site":
                raise Refused(403, "a page of another site may not ask for that", reason="host")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self.house.settings.body_bytes:
            raise self._too_long()
        if self.house.draining and scope["path"] not in ALWAYS_OPEN:
            raise busy("the server is about to end", reason="draining", retry_after=1)

    def _too_long(self) -> Refused:
        most = self.house.settings.body_bytes
        return Refused(413, "the body is too long", expected=f"at most {most} bytes", reason="size")

    def _limited(self, headers: dict[bytes, bytes], receive: Receive) -> Receive:
        """Reads a body of bounded length in bounded time."""
        if b"content-length" not in headers and b"transfer-encoding" not in headers:
            return receive
        ends = asyncio.get_running_loop().time() + self.house.settings.read_seconds
        size, whole = 0, False

        async def limited() -> Message:
            nonlocal size, whole
            if whole:
                return await receive()
            try:
                async with asyncio.timeout_at(ends):
                    message = await receive()
            except TimeoutError:
                raise Refused(408, "the body did not come in time", reason="slow") from None
            size += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if size > self.house.settings.body_bytes:
                raise self._too_long()
            return message

        return limited

    async def _failed(self, error: Exception, visit: Visit, scope: Scope, receive: Receive, send: Send) -> None:
        refused = translated(error)
        if refused is None:
            visit.reason = "failure"
            log(request_id=visit.request_id, failure="".join(traceback.format_exception(error)))
        elif refused.reason in OPERATORS:
            log(request_id=visit.request_id, failure=f"{type(error).__name__}: {error}")
        if visit.status:  # the answer has begun: nothing can be said any more
            return
        response = failure(visit.request_id) if refused is None else answer(refused, visit.request_id)
        if refused is not None:
            visit.reason = refused.reason
        await response(scope, receive, send)

    def _record(self, scope: Scope, visit: Visit) -> None:
        """Counts the request and writes its line."""
        seconds = time.monotonic() - visit.arrived
        status = visit.status or CLIENT_GONE
        metrics = self.house.metrics
        route = visit.route or "none"
        metrics.requests.labels(route, scope["method"] if visit.route else "any", str(status), visit.arm).inc()
        metrics.total.labels(route, visit.arm).observe(seconds)
        if visit.reason:
            metrics.refused.labels(visit.arm, visit.reason).inc()
            metrics.refusing.labels(visit.arm, visit.reason).observe(seconds)
        if not self.house.settings.quiet:
            log(
                request_id=visit.request_id, method=scope["method"], route=route, status=status,
                milliseconds=round(seconds * 1000, 2), run=visit.arm, key=visit.key.name, reason=visit.reason,
            )  # fmt: skip


def log(**fields: Any) -> None:
    """Writes one JSON line on stderr."""
    told = {"time": round(time.time(), 3), **{name: value for name, value in fields.items() if value != ""}}
    sys.stderr.write(json.dumps(told) + "\n")


_PROCESS, _COUNT = secrets.token_hex(4), itertools.count(1)
"""Numbers that are made here: unique is enough, and a system call for each would cost as much as the rest of this."""


def _request_id(headers: dict[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    return given if REQUEST_ID.fullmatch(given) else f"{_PROCESS}-{next(_COUNT):x}"


def _sender(visit: Visit, send: Send, house: House) -> Send:
    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            visit.status = message["status"]
            headers = [*message["headers"], *GUARDS, (b"x-request-id", visit.request_id.encode())]
            names = {name for name, _ in headers}
            if b"cache-control" not in names:
                headers.append((b"cache-control", b"no-store"))
            if house.draining:
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        await send(message)

    return sender

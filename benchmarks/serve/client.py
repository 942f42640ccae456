"""A client that costs little: HTTP/1.1 over kept connections, one request at a time on each, nothing but asyncio."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What came back.

    Args:
        status: of HTTP; 0 where the connection broke before an answer was whole.
        body: its bytes, or what broke.
        at: when it was whole, by `time.perf_counter`.
        retry_after: seconds the server asks to wait; None where it does not.
    """

    status: int
    body: bytes
    at: float
    retry_after: float | None = None

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def encoded(
    method: str, path: str, body: Any = None, *, key: str | None = None, headers: Mapping[str, str] | None = None
) -> bytes:
    """A request as it goes over the wire."""
    payload = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(payload)}"]
    lines += ["Content-Type: application/json"] if payload else []
    lines += [f"Authorization: Bearer {key}"] if key else []
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + payload


class Connection(asyncio.Protocol):
    """One kept connection; it reads answers that have a length, which all of the server's have."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.waiting: asyncio.Future[Answer] | None = None
        self.open = False

    @classmethod
    async def to(cls, host: str, port: int) -> Connection:
        """A new connection.

        Raises:
            OSError: nobody listens.
        """
        _, made = await asyncio.get_running_loop().create_connection(cls, host, port)
        return made

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        """Sends a request; at most one is under way."""
        self.waiting = made = asyncio.get_running_loop().create_future()
        if self.open:
            self.transport.write(request)
        else:
            self._done(Answer(0, b"closed before it was asked", time.perf_counter()))
        return made

    def close(self) -> None:
        """Hangs up at once, whatever is under way."""
        self.open = False
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.open = transport, True

    def connection_lost(self, error: Exception | None) -> None:
        """Called by asyncio."""
        self.open = False
        self._done(Answer(0, str(error or "closed by the server").encode(), time.perf_counter()))

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self.buffer += data
        ends = self.buffer.find(b"\r\n\r\n")
        if ends < 0:
            return
        head = bytes(self.buffer[:ends]).lower()
        length = _field(head, b"content-length")
        if length is None:
            self._done(Answer(0, b"an answer without a length", time.perf_counter()))
            self.close()
            return
        whole = ends + 4 + int(length)
        if len(self.buffer) < whole:
            return
        body = bytes(self.buffer[ends + 4 : whole])
        del self.buffer[:whole]
        after = _field(head, b"retry-after")
        if _field(head, b"connection") == b"close":
            self.open = False
        self._done(Answer(int(head[9:12]), body, time.perf_counter(), float(after) if after else None))

    def _done(self, answer: Answer) -> None:
        waiting, self.waiting = self.waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)


def _field(head: bytes, name: bytes) -> bytes | None:
    """A header's value."""
    start = head.find(b"\r\n" + name + b":")
    if start < 0:
        return None
    start += len(name) + 3
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else None].strip()

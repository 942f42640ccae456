"""Refusals and failures as answers: what, got, expected, cure; never a path, never a traceback."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

from l2d.errors import (
    ArtifactBusy,
    ConfigError,
    DataError,
    EngineError,
    InputError,
    L2DError,
    OutOfSpace,
    UnknownItem,
)

LONGEST_ECHO = 200
"""Characters of what a client sent that an answer repeats."""

CLIENT_GONE = 499
"""In the log, for a request whose client did not wait."""

PATHLIKE = re.compile(r"[^\s/'\"`(]*(?:/[^\s/'\"`)]+)+/?")
"""Steps with slashes between them: what a library's error says about where something lies."""

STATES = ("was opened for reading", "is not open")
"""What a ConfigError says that speaks of this server rather than of the request."""


class Refused(HTTPException):
    """A request that is not answered, and how it is told so.

    Args:
        status: the HTTP status.
        what, got, expected, cure: as in `L2DError`.
        reason: one word for the metrics.
        retry_after: seconds after which to try again, where that helps.
    """

    def __init__(
        self,
        status: int,
        what: str,
        *,
        got: object = None,
        expected: object = None,
        cure: str | None = None,
        reason: str = "input",
        retry_after: float | None = None,
    ) -> None:
        headers = {} if retry_after is None else {"Retry-After": str(max(1, math.ceil(retry_after)))}
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if status in (408, 413):  # what is left of the body would be taken for the next request
            headers["Connection"] = "close"
        super().__init__(status, what, headers)
        self.reason = reason
        self.parts = {"what": what, "got": got, "expected": expected, "cure": cure}


def busy(what: str, *, reason: str, retry_after: float, status: int = 503) -> Refused:
    """A request that cannot be answered in time."""
    return Refused(status, what, cure="try again later", reason=reason, retry_after=retry_after)


def too_late() -> Refused:
    """An answer that is there, and nobody's use any more."""
    return busy("the answer came too late", reason="late", retry_after=1)


def translated(error: Exception) -> Refused | None:
    """What a library's error is for a client; None where it is a fault of ours."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, ArtifactBusy):
        return busy("another process writes to this run or took its place", reason="busy", retry_after=5)
    if isinstance(error, OutOfSpace):
        return busy("the disk is full", reason="disk", retry_after=30)
    if isinstance(error, EngineError):
        return busy("what thinks does not answer", reason="engine", retry_after=5)
    if isinstance(error, OSError) or type(error) is InputError:  # of files that cannot be written
        return busy("the disk does not take it", reason="disk", retry_after=30)
    if isinstance(error, ConfigError) and any(state in error.what for state in STATES):
        return busy("the run is not open for that at the moment", reason="busy", retry_after=5)
    # Other errors name files and commands: they are the operator's business.
    if isinstance(error, ConfigError | DataError | UnknownItem) and error.file is None:
        return Refused(
            422, PATHLIKE.sub("<path>", error.what), got=error.got, expected=error.expected, cure=_for_clients(error)
        )
    return None


def _for_clients(error: L2DError) -> str | None:
    """The cure, unless it speaks of commands or options, which a client has not."""
    if error.cure is None or "l2d " in error.cure or "--" in error.cure:
        return None
    return PATHLIKE.sub("<path>", error.cure)


def body(parts: Mapping[str, Any], request_id: str) -> bytes:
    """An error's answer."""
    told = {name: _shown(value) for name, value in parts.items() if value is not None}
    return json.dumps({"error": told, "request_id": request_id}).encode()


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= LONGEST_ECHO else text[: LONGEST_ECHO - 3] + "..."


def answer(refused: Refused, request_id: str) -> Response:
    """A refusal as a response."""
    return Response(body(refused.parts, request_id), refused.status_code, refused.headers, "application/json")


def failure(request_id: str) -> Response:
    """What is said of a fault of ours: nothing but the number under which the log has it."""
    parts = {"what": "the server failed", "cure": "tell its operator the request_id"}
    return Response(body(parts, request_id), 500, media_type="application/json")

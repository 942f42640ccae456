"""What all routes share, and what is known of one request."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from starlette.requests import Request

from l2d.serve.arms import Arms
from l2d.serve.keys import ANYBODY, Key, Keyring
from l2d.serve.metrics import Metrics
from l2d.serve.settings import Settings


@dataclass
class House:
    """A server.

    Args:
        arms: its runs.
        settings: what its operator set.
        keyring: its keys.
        metrics: its counters.
        draining: whether it is about to end, so that new requests are refused.
        open: requests that are being answered.
        reloading: the runs being opened anew.
    """

    arms: Arms
    settings: Settings
    keyring: Keyring
    metrics: Metrics
    draining: bool = False
    open: int = 0
    reloading: asyncio.Task[None] | None = None


@dataclass
class Visit:
    """One request on its way.

    Args:
        request_id: under which its answer and the log have it.
        arrived: monotonic time of its first byte, as far as the server had read it.
        key: who asks.
        arm: which run answers, once that is known.
        route: the route's path, as it is declared.
        status: what was answered.
        reason: why it was refused, if it was.
    """

    request_id: str
    arrived: float = field(default_factory=time.monotonic)
    key: Key = ANYBODY
    arm: str = ""
    route: str = ""
    status: int = 0
    reason: str = ""

    def deadline(self, milliseconds: int) -> float:
        """Monotonic time by which it must be answered."""
        return self.arrived + milliseconds / 1000


def house_of(request: Request) -> House:
    """The server that a request came to."""
    found: House = request.app.state.house
    return found


def visit_of(request: Request) -> Visit:
    """What is known of a request."""
    found: Visit = request.scope["visit"]
    return found

"""Connections that cost nothing for long: a bounded number, heads of bounded size, and bounded time for both ways."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from l2d.serve.settings import Settings

ARRIVED = "l2d.arrived"
"""Where a request's scope has the monotonic time of its first byte."""


def patient(protocol: Any, settings: Settings) -> Any:
    """A protocol class of uvicorn's that loses patience with clients that send no whole head, or read no answer.

    Args:
        protocol: either of uvicorn's.
        settings: of the server.
    """

    class Patient(protocol):  # type: ignore[misc]
        """See `patient`."""

        _hurry: asyncio.TimerHandle | None = None
        _unread: asyncio.TimerHandle | None = None
        _head = 0
        _began: float | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > settings.connections:
                transport.abort()
            else:
                self._expect()

        def connection_lost(self, exc: Exception | None) -> None:
            self._relax()
            self.resume_writing()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            if self._unread is None:
                self._unread = self.loop.call_later(settings.read_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._unread is not None:
                self._unread.cancel()
                self._unread = None

        def data_received(self, data: bytes) -> None:
            if self._began is None and (self.cycle is None or self.cycle.response_complete):
                self._began = time.monotonic()
            super().data_received(data)
            answering = self.cycle is not None and not self.cycle.response_complete
            if answering and self._began is not None:
                self.scope[ARRIVED], self._began = self._began, None
            if self.transport.is_closing():
                self._relax()
            elif not answering:
                self._head += len(data)
                if self._head > settings.header_bytes:
                    self.transport.abort()
                elif self._hurry is None:
                    self._expect()
            else:
                self._relax()

        def _expect(self) -> None:
            self._hurry = self.loop.call_later(settings.read_seconds, self.transport.abort)

        def _relax(self) -> None:
            self._head = 0
            if self._hurry is not None:
                self._hurry.cancel()
                self._hurry = None

    return Patient

"""Connections that cost nothing for long: a bounded number, with heads of bounded size in bounded time."""

from __future__ import annotations

import asyncio
from typing import Any

from l2d.serve.settings import Settings


def patient(protocol: Any, settings: Settings) -> Any:
    """A protocol class of uvicorn's that loses patience with clients that send no whole head of a request.

    Args:
        protocol: either of uvicorn's.
        settings: of the server.
    """

    class Patient(protocol):  # type: ignore[misc]
        """See `patient`."""

        _hurry: asyncio.TimerHandle | None = None
        _head = 0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > settings.connections:
                transport.abort()
            else:
                self._expect()

        def connection_lost(self, exc: Exception | None) -> None:
            self._relax()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.transport.is_closing():
                self._relax()
            elif self.cycle is None or self.cycle.response_complete:
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

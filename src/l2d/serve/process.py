"""The process around the application: its socket, its signals, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI

from l2d.errors import ConfigError, InternalError
from l2d.serve.gate import log
from l2d.serve.house import House
from l2d.serve.patience import patient
from l2d.serve.reloading import reload_all
from l2d.serve.settings import Settings

LEAST_DRAIN = 0.5
"""Seconds for which new requests are told that the server ends, so that clients on open connections hear of it."""


def bound(settings: Settings) -> socket.socket:
    """A socket at the address, before anything slow is done.

    Raises:
        ConfigError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((settings.host, settings.port))
    except OSError as error:
        made.close()
        raise ConfigError(
            "the address cannot be listened at", got=f"{settings.host}:{settings.port} ({error.strerror or error})",
            cure="choose another --host or --port, or stop what listens there",
        ) from error  # fmt: skip
    return made


def address(listening: socket.socket) -> str:
    """A socket's address as a URL."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn, except that what was taken is answered before it ends, and that ending as asked is no failure."""

    def __init__(self, config: uvicorn.Config, house: House) -> None:
        super().__init__(config)
        self.house = house
        self._drain: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Takes SIGTERM and SIGINT for an order to end, SIGHUP for one to open the runs anew."""
        loop = asyncio.get_running_loop()
        actions: dict[int, Any] = {
            signal.SIGTERM: self.stop, signal.SIGINT: self.stop, signal.SIGHUP: lambda: reload_all(self.house),
        }  # fmt: skip
        for number, action in actions.items():
            loop.add_signal_handler(number, action)
        try:
            yield
        finally:
            for number in actions:
                loop.remove_signal_handler(number)

    def stop(self) -> None:
        """Refuses new requests, answers the others, then ends; told twice, ends at once."""
        if self._drain is not None:
            self.should_exit = self.force_exit = True
            return
        self.house.draining = True
        self._drain = asyncio.get_running_loop().create_task(self._drained())

    async def _drained(self) -> None:
        began = time.monotonic()
        most = self.house.settings.drain_seconds
        log(event="draining", open=self.house.open)
        await asyncio.sleep(min(LEAST_DRAIN, most))
        while self.house.open and time.monotonic() - began < most:
            await asyncio.sleep(0.01)
        if self.house.open:
            self.force_exit = True
        self.should_exit = True


def run_server(app: FastAPI, settings: Settings, listening: socket.socket, ready: Any) -> None:
    """Serves until told to end.

    Args:
        app: from `create_app`.
        settings: of the server.
        listening: from `bound`.
        ready: called with the address once requests are taken.

    Raises:
        InternalError: the server ended before it took requests.
    """
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="on", ws="none", server_header=False, date_header=True,
        timeout_keep_alive=75, timeout_graceful_shutdown=1, proxy_headers=False, backlog=1024,
    )  # fmt: skip
    config.load()
    config.http_protocol_class = patient(config.http_protocol_class, settings)
    server = Server(config, app.state.house)

    async def serve() -> None:
        listening.listen(config.backlog)

        async def told() -> None:
            while not server.started:
                await asyncio.sleep(0.005)
            ready(address(listening))

        telling = asyncio.ensure_future(told())
        try:
            await server.serve([listening])
        finally:
            telling.cancel()

    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(serve())
    if not server.started:
        raise InternalError("the server did not start")

"""A server in this process over a small run, and one in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI
from numpy.typing import NDArray

from l2d import Recommender
from l2d.serve.app import create_app
from l2d.serve.arm import Arm
from l2d.serve.arms import Arms
from l2d.serve.keys import Key, Keyring
from l2d.serve.metrics import Metrics
from l2d.serve.opening import learn_pace, open_run
from l2d.serve.patience import patient
from l2d.serve.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
HERE = "http://127.0.0.1"
PATIENT = 60_000
"""Milliseconds that no request of a test takes."""


class SlowThinker:
    """Another thinker's thoughts, so many seconds later for each prompt."""

    def __init__(self, thinker: Any, seconds: float) -> None:
        self.thinker, self.seconds = thinker, seconds
        self.width = thinker.width

    def think(self, prompts: Sequence[NDArray[np.int32]], progress: Any = None) -> NDArray[np.float32]:
        time.sleep(self.seconds * len(prompts))
        thoughts: NDArray[np.float32] = self.thinker.think(prompts, progress)
        return thoughts


def slowed(run: Recommender, seconds: float) -> Recommender:
    """The run, taking so long for each prompt."""
    run.engine = replace(run.engine, thinker=SlowThinker(run.engine.thinker, seconds))
    run.__dict__.pop("answering", None)
    return run


def app_of(runs: dict[str, Recommender], keys: Sequence[Key] = (), **options: Any) -> FastAPI:
    """The application over open runs."""
    settings = Settings(**{"deadline_ms": PATIENT, "quiet": True, **options})
    metrics = Metrics()
    arms = [Arm(name, run, settings, metrics, lambda run=run: opened(run.path)) for name, run in runs.items()]
    for arm in arms:
        learn_pace(arm)
    return create_app(Arms(arms), settings, Keyring(keys), metrics)


def opened(path: Path, *, writer: bool = False) -> Recommender:
    return open_run(path, read_only=not writer, device="cpu", engine="torch", notice=lambda _: None)


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The application behind a real socket, in a thread of this process; yields its address."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        place.listen(512)
        config = uvicorn.Config(app, log_config=None, access_log=False, ws="none", lifespan="on")
        config.load()
        config.http_protocol_class = patient(config.http_protocol_class, app.state.house.settings)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([place],))
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.005)
            yield f"{HERE}:{place.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


class Process:
    """`l2d serve` on a free port."""

    def __init__(self, *arguments: object) -> None:
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed with the process
        command = [sys.executable, "-m", "l2d", "serve", *map(str, arguments), "--port", "0"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.log, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("l2d answers at "), self.told()
        self.address = line.split()[-1]

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.log.close()

    def told(self) -> str:
        """What it wrote to stderr."""
        self.log.seek(0)
        return self.log.read()

    def lines(self) -> list[dict[str, Any]]:
        """The lines of its log."""
        return [json.loads(line) for line in self.told().splitlines() if line.startswith("{")]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """A signal, and the exit code that follows."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def client(self, **options: Any) -> httpx.Client:
        """A client of this server."""
        return httpx.Client(base_url=self.address, timeout=60, **options)

"""The server as a process of its own: started on a core, asked, watched, stopped or killed."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))
sys.path.insert(2, str(Path(__file__).resolve().parents[1] / "speed"))

from prometheus_client.parser import text_string_to_metric_families

from origin import ROOT

SERVER_CORE, CLIENT_CORE = 0, 1
"""One core each, so that neither takes the other's time."""

ONE_THREAD = {
    name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")
}


class NotReady(RuntimeError):
    """A server that ended, or did not get ready in time; its last lines are in the message."""


class Hosted:
    """`l2d serve` in a process.

    Args:
        runs: what it serves.
        options: of its command line.
        core: that it gets; None for any.
        env: further environment.
        ready: seconds that it has to get ready.

    Attributes:
        ready_seconds: from the start of the process to the first 200 of `/readyz`.
    """

    def __init__(
        self,
        *runs: Path,
        options: Sequence[str] = (),
        core: int | None = SERVER_CORE,
        env: Mapping[str, str] | None = None,
        key: str | None = None,
        ready: float = 120.0,
    ) -> None:
        self.port, self.key = free_port(), key
        self.log = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the server
        command = [sys.executable, "-m", "l2d", "serve", *map(str, runs), "--port", str(self.port), *options]
        paths = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": paths, **(env or {})}
        started = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT, env=environment)
        if core is not None:
            os.sched_setaffinity(self.process.pid, {core % (os.cpu_count() or 1)})
        try:
            self._await(started + ready)
        except BaseException:
            self.kill()
            raise
        self.ready_seconds = time.perf_counter() - started

    def _await(self, until: float) -> None:
        while True:
            if self.process.poll() is not None:
                raise NotReady(f"the server ended with {self.process.returncode}:\n{self.told()}")
            try:
                if self.ask("GET", "/readyz", timeout=5)[0] == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            if time.perf_counter() > until:
                raise NotReady(f"the server is not ready in time:\n{self.told()}")
            time.sleep(0.02)

    def __enter__(self) -> Hosted:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            ended = self.process.poll()
            error.add_note(f"the server {'ran' if ended is None else f'had ended with {ended}'}: {self.told()}")
        if self.process.poll() is None:
            self.kill() if error is not None else self.stop()
        self.log.close()

    def ask(self, method: str, path: str, body: Any = None, *, timeout: float = 60.0) -> tuple[int, Any]:
        """One request on a connection of its own: status, and the answer read as JSON where it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, body=payload, headers=headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text.decode(errors="replace")

    def metrics(self) -> dict[str, float]:
        """Samples of `/metrics`, by name and labels as they are written there."""
        status, text = self.ask("GET", "/metrics")
        assert status == 200, text
        found = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return found

    def resident_mib(self) -> float:
        """Resident memory of the process."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0

    def told(self, most: int = 4000) -> str:
        """The last of what it wrote to its output."""
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-most:]

    def stop(self, seconds: float = 60.0) -> int:
        """SIGTERM, and the exit code.

        Raises:
            subprocess.TimeoutExpired: it does not end in time; then it is killed.
        """
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])

"""Load from a process of its own: requests that arrive when they arrive, or as many at once as asked for.

    python benchmarks/serve/load.py plan.jsonl found.npz --port 8000 --rates 200:60
    python benchmarks/serve/load.py plan.jsonl found.npz --port 8000 --concurrency 16 --seconds 10

A plan has a request per line: {"kind", "method", "path", "body"}; it begins anew when it is used up. With `--rates`
requests are sent at random times drawn beforehand (a Poisson process), whether or not earlier ones were answered, and a
latency counts from the time at which a request should have been sent: a server that stalls cannot hide it by keeping
the client from asking. With `--concurrency` so many requests are always under way. The result has one row per request,
and says how late the client itself was and how much of its core it took.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client import Answer, Connection, encoded

PATIENCE = 60.0
"""Seconds after which a request that has no answer counts as failed."""

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p999": 0.999, "max": 1.0}


@dataclass(frozen=True)
class Call:
    """One request of a plan."""

    kind: str
    method: str
    path: str
    body: Any = None


@dataclass(frozen=True)
class Found:
    """What a load met, a row per request.

    Args:
        place: of the request in the plan.
        intended: seconds after the start at which it should have been sent.
        sent: at which it was.
        ended: at which its answer was whole.
        status: of HTTP; 0 where it failed.
        kinds: of the plan's requests.
        seconds: that the load lasted, without the answers that were waited for at the end.
        client: share of its core that the client took.
    """

    place: NDArray[np.int64]
    intended: NDArray[np.float64]
    sent: NDArray[np.float64]
    ended: NDArray[np.float64]
    status: NDArray[np.int64]
    kinds: NDArray[np.str_]
    seconds: float
    client: float

    @classmethod
    def read(cls, path: Path) -> Found:
        """What the process of a load wrote."""
        with np.load(path) as kept:
            arrays = {name: kept[name] for name in kept.files}
        return cls(**{**arrays, **{name: float(arrays[name]) for name in ("seconds", "client")}})

    def of(self, kind: str) -> Found:
        """The requests of one kind."""
        return self.where(self.kinds[self.place] == kind)

    def where(self, chosen: NDArray[np.bool_]) -> Found:
        """Some of the requests."""
        rows = {name: getattr(self, name)[chosen] for name in ("place", "intended", "sent", "ended", "status")}
        return Found(**rows, kinds=self.kinds, seconds=self.seconds, client=self.client)

    @property
    def good(self) -> NDArray[np.bool_]:
        """Which were answered as asked for."""
        return self.status // 100 == 2

    @property
    def latency_ms(self) -> NDArray[np.float64]:
        """From the time at which it should have been sent to the whole answer."""
        return (self.ended - self.intended) * 1000

    def summary(self) -> dict[str, Any]:
        """Counts by status, answers per second, and quantiles of the good ones' latency in milliseconds."""
        statuses, counts = np.unique(self.status, return_counts=True)
        good = self.where(self.good)
        late = (self.sent - self.intended) * 1000
        return {
            "requests": len(self.status),
            "status": {str(status): int(count) for status, count in zip(statuses, counts, strict=True)},
            "per_second": float(np.sum(good.ended <= self.seconds) / self.seconds),
            "latency_ms": quantiles(good.latency_ms),
            "sent_late_ms": quantiles(late),
            "client_core": self.client,
        }


def quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    """Some quantiles; none of nothing."""
    if not len(values):
        return {}
    return {name: float(np.quantile(values, share)) for name, share in QUANTILES.items()}


class Load:
    """Requests under way, and what became of them.

    Args:
        host: of the server.
        port: of the server.
        requests: as they go over the wire; begun anew when used up.
        most: connections at most; what finds none free waits, and its waiting counts.
    """

    def __init__(self, host: str, port: int, requests: Sequence[bytes], *, most: int) -> None:
        self.host, self.port, self.requests, self.most = host, port, requests, most
        self.free: list[Connection] = []
        self.connections = 0
        self.backlog: deque[tuple[int, float]] = deque()
        self.under_way: set[asyncio.Task[None]] = set()
        self.rows: list[tuple[int, float, float, float, int]] = []
        self.next = itertools.count()

    async def open_loop(self, due_times: Iterable[float]) -> None:
        """Sends when it is time to, in seconds after the start."""
        self.start = time.perf_counter()
        for due in due_times:
            while (left := self.start + due - time.perf_counter()) > 0:
                await asyncio.sleep(left)
            self._arrive(next(self.next), due)
        await self._rest()

    async def closed_loop(self, concurrency: int, seconds: float, count: int | None) -> None:
        """Keeps so many under way, for a time or until so many were sent."""
        await self.warm(concurrency)
        self.start = time.perf_counter()

        async def worker() -> None:
            while time.perf_counter() - self.start < seconds:
                place = next(self.next)
                if count is not None and place >= count:
                    return
                await self._one(place, time.perf_counter() - self.start, self._taken())
                if not self.rows[-1][-1]:
                    await asyncio.sleep(0.01)  # a server that is gone is not asked in a tight loop

        await asyncio.gather(*(worker() for _ in range(concurrency)))

    async def warm(self, connections: int) -> None:
        """Opens connections beforehand."""
        self.connections += connections
        made = await asyncio.gather(*(Connection.to(self.host, self.port) for _ in range(connections)))
        self.free.extend(made)

    def _arrive(self, place: int, due: float) -> None:
        free = self._taken()
        if free is None and self.connections > self.most:
            self.connections -= 1
            self.backlog.append((place, due))
            return
        task = asyncio.ensure_future(self._one(place, due, free))
        self.under_way.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self.under_way.discard(task)
        while self.backlog and (self.free or self.connections < self.most):
            self._arrive(*self.backlog.popleft())

    async def _rest(self) -> None:
        while self.under_way or self.backlog:
            await asyncio.wait(self.under_way)
            await asyncio.sleep(0)

    def _taken(self) -> Connection | None:
        """A free connection, or None and the right to open one: at once, before another request asks."""
        while self.free:
            connection = self.free.pop()
            if connection.open:
                return connection
            self.connections -= 1
        self.connections += 1
        return None

    async def _one(self, place: int, due: float, connection: Connection | None) -> None:
        place %= len(self.requests)
        try:
            connection = connection or await Connection.to(self.host, self.port)
        except OSError:
            self.connections -= 1
            now = time.perf_counter() - self.start
            self.rows.append((place, due, now, now, 0))
            return
        sent = time.perf_counter()
        answer = await _patiently(connection, self.requests[place])
        if connection.open:
            self.free.append(connection)
        else:
            self.connections -= 1
        self.rows.append((place, due, sent - self.start, answer.at - self.start, answer.status))


def arrivals(phases: Sequence[tuple[float, float]], seed: int) -> NDArray[np.float64]:
    """Times of a Poisson process whose phases are (requests a second, seconds)."""
    generator, times, start = np.random.default_rng(seed), [], 0.0
    for rate, seconds in phases:
        times.append(start + np.sort(generator.uniform(0, seconds, size=generator.poisson(rate * seconds))))
        start += seconds
    return np.concatenate(times)


def read_phases(text: str) -> list[tuple[float, float]]:
    """Phases as they stand on the command line: RATE:SECONDS,RATE:SECONDS.

    Raises:
        ValueError: they do not.
    """
    phases = [phase.split(":") for phase in text.split(",")]
    return [(float(rate), float(seconds)) for rate, seconds in phases]


async def _patiently(connection: Connection, request: bytes) -> Answer:
    future = connection.ask(request)
    handle = asyncio.get_running_loop().call_later(PATIENCE, connection.close)
    try:
        return await future
    finally:
        handle.cancel()


def main(given_arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("found", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key")
    parser.add_argument("--rates", type=read_phases, help="RATE:SECONDS,...: requests a second on average, in turn")
    parser.add_argument("--concurrency", type=int, help="requests that are always under way")
    parser.add_argument("--seconds", type=float, default=10.0, help="with --concurrency")
    parser.add_argument("--count", type=int, help="requests at most, with --concurrency")
    parser.add_argument("--first", type=int, default=0, help="place in the plan to begin with")
    parser.add_argument("--connections", type=int, default=1024, help="at most, with --rates")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(given_arguments)
    if (options.rates is None) == (options.concurrency is None):
        parser.error("one of --rates and --concurrency")
    calls = [Call(**json.loads(line)) for line in options.plan.read_text(encoding="utf-8").splitlines()]
    calls = calls[options.first :] + calls[: options.first]
    requests = [encoded(call.method, call.path, call.body, key=options.key) for call in calls]
    load = Load(options.host, options.port, requests, most=options.connections)
    gc.freeze()
    gc.disable()  # a pause of the client would count as the server's
    before = time.process_time()
    asyncio.run(_run(load, options))
    lasted = time.perf_counter() - load.start
    columns = np.array(load.rows, dtype=np.float64).reshape(-1, 5).T
    place, intended, sent, ended, status = columns
    seconds = sum(lasts for _, lasts in options.rates) if options.rates else min(options.seconds, lasted)
    np.savez(
        options.found, place=place.astype(np.int64), intended=intended, sent=sent, ended=ended,
        status=status.astype(np.int64), kinds=np.array([call.kind for call in calls]), seconds=seconds,
        client=(time.process_time() - before) / lasted,
    )  # fmt: skip


async def _run(load: Load, options: argparse.Namespace) -> None:
    if options.rates is not None:
        await load.open_loop(arrivals(options.rates, options.seed).tolist())
    else:
        await load.closed_loop(options.concurrency, options.seconds, options.count)


class Loading:
    """A load in a process of its own, pinned to a core.

    Args:
        calls: the plan.
        port: of the server.
        core: that the client gets; None for any.
        options: of the command line, without dashes.
    """

    def __init__(self, calls: Iterable[Call], port: int, *, core: int | None = None, **options: Any) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="l2d-load-")
        plan, self.place = (Path(self.folder.name) / name for name in ("plan.jsonl", "found.npz"))
        plan.write_text("".join(json.dumps(_record(call)) + "\n" for call in calls), encoding="utf-8")
        command = [sys.executable, __file__, str(plan), str(self.place), "--port", str(port)]
        for name, value in options.items():
            command += [] if value is None else [f"--{name}", str(value)]
        self.process = subprocess.Popen(command)
        if core is not None:
            os.sched_setaffinity(self.process.pid, {core})

    def found(self) -> Found:
        """Waits for the end.

        Raises:
            RuntimeError: the client failed.
        """
        try:
            if self.process.wait():
                raise RuntimeError("the client failed; see above")
            return Found.read(self.place)
        finally:
            self.folder.cleanup()


def _record(call: Call) -> Mapping[str, Any]:
    return {"kind": call.kind, "method": call.method, "path": call.path, "body": call.body}


if __name__ == "__main__":
    main()

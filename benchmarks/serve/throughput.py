"""How much of the offline engine's throughput does the server keep?

    python benchmarks/serve/throughput.py --shape 22m
    python benchmarks/serve/throughput.py --shape 5m --run runs/amazon-cds

The server has one core and one thread, the client another core. The offline engine answers the same requests on the
server's core with `recommend_batch`, in turn with the served rounds, in calls of the size that suits it best. `single`
are requests to /v1/recommend with as many under way as suits the server best; `batch` are requests to
/v1/recommend:batch of 64 each, beside offline calls of 64. `client alone` is the same client against a server that does
nothing, so that it can be seen not to be the limit.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hosted import CLIENT_CORE, SERVER_CORE, Hosted, free_port
from load import Call, Loading
from runs import Material, arguments, keep, prepared
from turns import shown, spread
from unserved import Offline

K = 10
BATCH = 64
PATIENT = 30_000
"""Milliseconds that a request may take here: what is asked is how many are answered, not how soon."""


def main(given_arguments: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, shape="22m")
    parser.add_argument("--rounds", type=int, default=10, help="served and offline, in turn")
    parser.add_argument("--count", type=int, help="requests in a round; default 1,024, of a 5m 4,096")
    parser.add_argument("--under-way", nargs="+", type=int, default=[1, 4, 8, 16, 32, 64, 128])
    parser.add_argument("--calls", nargs="+", type=int, default=[16, 64, 256, 1024], help="sizes of offline calls")
    options = parser.parse_args(given_arguments)
    options.count = options.count or (4096 if options.shape == "5m" else 1024)
    if options.smoke:
        options.shape, options.rounds, options.count = "tiny", 2, 128
        options.under_way, options.calls = [2, 8], [16, 64]
    keep(f"throughput-{options.shape}", measured(options), options)


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """The record of one shape."""
    run = prepared(options.shape, options.run)
    histories = Material.of(run).histories
    with Hosted(run, options=options.serve) as server, Offline(run, histories, k=K) as offline:
        singles = Plan(server.port, [_single(history) for history in histories], 1)
        groups = [histories[at : at + BATCH] for at in range(0, len(histories) - BATCH + 1, BATCH)] or [histories]
        batches = Plan(server.port, [_batch(group) for group in groups], len(groups[0]))
        part, turn = options.count, _Turns(options.count)
        sweeps = {
            "single": {size: singles.per_second(turn(), part, size) for size in options.under_way},
            "batch": {size: batches.per_second(turn(), part, size) for size in (1, 2, 4)},
            "offline": {size: offline.per_second(turn(), part, size) for size in options.calls},
        }
        best = {name: max(sweep, key=lambda size: sweep[size]) for name, sweep in sweeps.items()}
        calls: dict[str, Callable[[int], float]] = {
            "single": lambda first: singles.per_second(first, part, best["single"]),
            "offline": lambda first: offline.per_second(first, part, best["offline"]),
            "batch": lambda first: batches.per_second(first, part, best["batch"]),
            "offline in 64s": lambda first: offline.per_second(first, part, BATCH),
        }
        rates: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(options.rounds):
            first = turn()
            for name, call in calls.items():
                rates[name].append(call(first))
        described = {"rss_mib": server.resident_mib(), "ready_seconds": server.ready_seconds}
    found = {name: np.array(values) for name, values in rates.items()}
    shares = {
        "single_over_offline": spread(found["single"] / found["offline"]),
        "batch_over_offline_in_64s": spread(found["batch"] / found["offline in 64s"]),
        "batch_over_offline": spread(found["batch"] / found["offline"]),
    }
    for name, share in shares.items():
        print(f"{options.shape} {name.replace('_', ' ')}: {shown(share)}", flush=True)
    return {
        "shape": options.shape, "requests": options.count, "rounds": options.rounds, "k": K, "best": best,
        "sweeps": {name: {str(size): rate for size, rate in sweep.items()} for name, sweep in sweeps.items()},
        "per_second": {name: float(np.median(values)) for name, values in found.items()},
        "client_alone_per_second": client_alone(), "client_core": max(singles.client, batches.client),
        **described, **shares,
    }  # fmt: skip


class _Turns:
    """Every round has requests of its own, as far as there are enough."""

    def __init__(self, count: int) -> None:
        self.count, self.place = count, -count

    def __call__(self) -> int:
        self.place += self.count
        return self.place


class Plan:
    """Calls to a server, as a load that is closed.

    Args:
        port: of the server.
        calls: begun anew when used up.
        size: requests in a call.
    """

    def __init__(self, port: int, calls: Sequence[Call], size: int) -> None:
        self.port, self.calls, self.size = port, calls, size
        self.client = 0.0

    def per_second(self, first: int, count: int, concurrency: int) -> float:
        """Requests answered per second, so many calls being under way.

        Raises:
            RuntimeError: one was not answered.
        """
        first, count = first // self.size % len(self.calls), -(-count // self.size)
        found = Loading(
            self.calls, self.port, core=CLIENT_CORE, concurrency=concurrency, count=count, first=first, seconds=600
        ).found()
        if not found.good.all():
            raise RuntimeError(f"not all were answered: {found.summary()['status']}")
        self.client = max(self.client, found.client)
        return count * self.size / float(found.ended.max())


def _single(history: list[str | int]) -> Call:
    return Call("recommend", "POST", "/v1/recommend", {"history": history, "k": K, "deadline_ms": PATIENT})


def _batch(histories: Sequence[list[str | int]]) -> Call:
    requests = [{"history": history, "k": K} for history in histories]
    return Call("batch", "POST", "/v1/recommend:batch", {"requests": requests, "deadline_ms": PATIENT})


def client_alone(seconds: float = 2.0) -> float:
    """Requests per second of the client against a server that answers the same to all."""
    port = free_port()
    command = [sys.executable, str(Path(__file__).with_name("nothing.py")), str(port)]
    idle = subprocess.Popen(command, stdout=subprocess.PIPE)
    os.sched_setaffinity(idle.pid, {SERVER_CORE})
    try:
        assert idle.stdout is not None
        idle.stdout.readline()
        calls = [_single(list(range(10)))]
        found = Loading(calls, port, core=CLIENT_CORE, concurrency=16, seconds=seconds).found()
        return float(found.summary()["per_second"])
    finally:
        idle.kill()
        idle.wait()


if __name__ == "__main__":
    main()

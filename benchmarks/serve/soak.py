"""Does the server stay as it is under long load with writes?

    python benchmarks/serve/soak.py --shape 22m --minutes 30

Its capacity for this mix is measured first with a closed load; then requests arrive at random at four fifths of it, one
in ten an interaction that has to be durable before it is acknowledged. What must hold: no error, p99 at most three
times p50, memory flat. Every interaction stays in memory as an entry, so the growth of resident memory is told per
minute and per entry, after a warm-up of a fifth of the time.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hosted import CLIENT_CORE, Hosted
from load import Found, Loading, quantiles
from mixed import capacity, mixed
from runs import Material, arguments, copied, keep, prepared

LOAD = 0.8
WRITES = 0.1
WARM_UP = 0.2


def main(given_arguments: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, shape="22m")
    parser.add_argument("--minutes", type=float, default=30.0)
    options = parser.parse_args(given_arguments)
    if options.smoke:
        options.shape, options.minutes = "tiny", 0.1
    keep(f"soak-{options.shape}", measured(options), options)


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """The record."""
    source, seconds = prepared(options.shape, options.run), options.minutes * 60
    material = Material.of(source)
    with tempfile.TemporaryDirectory(prefix="l2d-soak-") as folder:
        run = copied(source, Path(folder) / "run")
        with Hosted(run, options=options.serve) as server:
            trial = mixed(material, 20_000, writes=WRITES, seed=1)
            most, _ = capacity(server, trial, seconds=min(10.0, seconds))
            rate = LOAD * most
            calls = mixed(material, int(rate * seconds * 1.2) + 100, writes=WRITES)
            before = entries(server)
            load = Loading(calls, server.port, core=CLIENT_CORE, rates=f"{rate}:{seconds}")
            with Watch(server, every=max(0.2, seconds / 360)) as watch:
                found = load.found()
            after = entries(server)
            code = server.stop()
    record = {
        "shape": options.shape, "minutes": options.minutes, "capacity": most, "rate": rate, "writes": WRITES,
        **judged(found), "memory": watch.judged(after - before), "entries_added": after - before, "exit_code": code,
    }  # fmt: skip
    memory = record["memory"]
    print(
        f"{options.shape}: {record['requests']} requests, {record['errors']} errors; p99 over p50 "
        f"{record['p99_over_p50']:.2f}; memory {memory['first_mib']:.0f} to {memory['last_mib']:.0f} MiB, "
        f"{memory['mib_per_minute']:+.2f} a minute",
        flush=True,
    )
    return record


def judged(found: Found) -> dict[str, Any]:
    """What the client met."""
    recommended = found.of("recommend")
    good = recommended.where(recommended.good)
    told = quantiles(good.latency_ms)
    minute = (good.intended // 60).astype(int)
    return {
        "requests": len(found.status),
        "errors": int((~found.good).sum()),
        "recommend": recommended.summary(),
        "write": found.of("write").summary(),
        "p99_over_p50": told["p99"] / told["p50"],
        "p99_over_p50_by_minute": [
            round(float(np.quantile(part, 0.99) / np.median(part)), 2)
            for one in np.unique(minute)
            if len(part := good.latency_ms[minute == one])
        ],
    }


def entries(server: Hosted) -> int:
    """Entries of the memory that is served."""
    status, told = server.ask("GET", "/v1/memory")
    assert status == 200, told
    return int(told["runs"][0]["entries"])


class Watch:
    """Resident memory of the server, again and again until the end."""

    def __init__(self, server: Hosted, *, every: float) -> None:
        self.server, self.every = server, every
        self.rows: list[tuple[float, float]] = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self.start = time.perf_counter()
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def _look(self) -> None:
        while not self.over.wait(self.every):
            self.rows.append((time.perf_counter() - self.start, self.server.resident_mib()))

    def judged(self, entries_added: int) -> dict[str, float]:
        """Growth after the warm-up, by least squares."""
        at, mib = self._settled()
        slope = float(np.polyfit(at, mib, 1)[0]) * 60
        grown = slope * (at[-1] - at[0]) / 60
        share = (1 - WARM_UP) * entries_added
        return {
            "first_mib": float(mib[0]), "last_mib": float(mib[-1]), "most_mib": float(mib.max()),
            "mib_per_minute": slope, "kib_per_entry": grown * 1024 / share if share else 0.0,
        }  # fmt: skip

    def _settled(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        rows = np.array(self.rows)
        rows = rows[rows[:, 0] >= WARM_UP * rows[-1, 0]]
        return rows[:, 0], rows[:, 1]


if __name__ == "__main__":
    main()

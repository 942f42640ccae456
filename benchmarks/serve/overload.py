"""What does the server do with three times the load that it can carry, and afterwards?

    python benchmarks/serve/overload.py --shape 22m --minutes 2

Requests arrive at random: first at half of the measured capacity, then at three times it, then at half again, all with
the same deadline. What must hold: an accepted request is answered within its deadline, the rest are refused with 503
within 50 ms at the 95th percentile by the server's own histogram, and within five seconds everything is as before.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hosted import CLIENT_CORE, Hosted
from load import Found, Loading, quantiles
from mixed import capacity, mixed
from runs import Material, arguments, keep, prepared

OVER, HALF = 3.0, 0.5
WINDOW = 0.5
"""Seconds that are looked at together when recovery is judged."""

AS_BEFORE = 1.5
"""Median latency of a window over the median before the overload, at most, for the server to count as recovered."""


def main(given_arguments: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, shape="22m")
    parser.add_argument("--minutes", type=float, default=2.0, help="of overload")
    parser.add_argument("--deadline-ms", type=int, default=500)
    options = parser.parse_args(given_arguments)
    if options.smoke:
        options.shape, options.minutes = "tiny", 0.05
    keep(f"overload-{options.shape}", measured(options), options)


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """The record."""
    run, seconds = prepared(options.shape, options.run), options.minutes * 60
    material = Material.of(run)
    calm = min(15.0, seconds)
    with Hosted(run, options=[*options.serve, "--read-only"]) as server:
        most, _ = capacity(server, mixed(material, 20_000, writes=0.0, seed=1), seconds=min(10.0, seconds))
        phases = [(HALF * most, calm), (OVER * most, seconds), (HALF * most, calm)]
        count = int(sum(rate * lasts for rate, lasts in phases) * 1.2) + 100
        calls = mixed(material, count, writes=0.0, deadline_ms=options.deadline_ms)
        before = server.metrics()
        rates = ",".join(f"{rate}:{lasts}" for rate, lasts in phases)
        found = Loading(calls, server.port, core=CLIENT_CORE, rates=rates, connections=4096).found()
        refusals = refused_within(before, server.metrics())
    parts = [found.where((found.intended >= start) & (found.intended < end)) for start, end in (
        (0, calm), (calm, calm + seconds), (calm + seconds, np.inf))]  # fmt: skip
    record = {
        "shape": options.shape, "minutes": options.minutes, "deadline_ms": options.deadline_ms, "capacity": most,
        "over": OVER, "phases": {name: part.summary() for name, part in zip(PHASES, parts, strict=True)},
        "accepted_in_time": in_time(parts[1], options.deadline_ms),
        "accepted_over_capacity": float(parts[1].good.sum() / seconds / most),
        "refused": refusals, "refused_seen_ms": quantiles(parts[1].where(parts[1].status == 503).latency_ms),
        "recovered_after_seconds": recovered(parts[0], parts[2], calm + seconds),
    }  # fmt: skip
    print(
        f"{options.shape}: accepted in time {record['accepted_in_time']:.2%}, at {record['accepted_over_capacity']:.2f}"
        f" of capacity; refused within {refusals['p95_ms']:.0f} ms at p95; recovered after "
        f"{record['recovered_after_seconds']} s",
        flush=True,
    )
    return record


BUCKET = re.compile(r'l2d_refusal_seconds_bucket\{le="(?P<end>[^"]+)",reason="(?P<reason>\w+)",run="[^"]*"\}')
PHASES = ("before", "overload", "after")


def in_time(found: Found, deadline_ms: float) -> float:
    """Share of the accepted requests that were answered within their deadline, by the client's clock."""
    good = found.where(found.good)
    return float((good.latency_ms <= deadline_ms).mean()) if len(good.status) else 0.0


def recovered(before: Found, after: Found, end: float) -> float | None:
    """Seconds after the overload from which on everything is answered as fast as before; None if it never is."""
    usual = np.median(before.where(before.good).latency_ms)
    window = ((after.intended - end) // WINDOW).astype(int)
    well = [
        bool(part.good.all()) and float(np.median(part.latency_ms)) <= AS_BEFORE * usual
        for one in range(int(window.max(initial=0)) + 1)
        if len((part := after.where(window == one)).status)
    ]
    ill = [place for place, fine in enumerate(well) if not fine]
    last = ill[-1] + 1 if ill else 0
    return last * WINDOW if last < len(well) else None


def refused_within(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """How soon requests were refused with 503, by the server's histogram: count, and bounds of the 95th percentile."""
    buckets: dict[float, float] = {}
    for name, value in after.items():
        found = BUCKET.fullmatch(name)
        if found and found["reason"] in ("late", "full"):
            end = float(found["end"].replace("+Inf", "inf"))
            buckets[end] = buckets.get(end, 0.0) + value - before.get(name, 0.0)
    count = buckets.get(np.inf, 0.0)
    ends = sorted(buckets)
    last = next((place for place, end in enumerate(ends) if buckets[end] >= 0.95 * count), 0)
    if not count:
        return {"count": 0, "p95_ms": 0.0}
    return {"count": count, "p95_ms": ends[last] * 1000, "within_50_ms": buckets[0.05] / count}


if __name__ == "__main__":
    main()

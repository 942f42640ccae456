"""What answers cost in time: single requests taken in turn over all rows, and requests per second in batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import fmean, median
from typing import Any

import numpy as np

from l2d.compare.asking import Cost, Progress, Service
from l2d.costs import PHASES, Phase
from l2d.latency import in_turn
from l2d.ranking import Rows

BATCHES = (8, 32, 128)
"""Batch sizes tried for throughput, beside 1."""

SECONDS = 3.0
"""Seconds that a row may spend on finding its best batch size."""


@dataclass(frozen=True)
class Latency:
    """Single requests of one row.

    Args:
        p50: median milliseconds from history to list.
        p95: milliseconds that 95 % of the requests stayed below.
        phases: mean milliseconds by phase; they add up to the mean, which a few slow requests lift above the median.
        model_calls: mean forward passes of the backbone per request.
        draft_calls: mean forward passes of a drafting model.
        timed: requests behind these figures.
    """

    p50: float
    p95: float
    phases: Mapping[Phase, float]
    model_calls: float
    draft_calls: float
    timed: int

    @property
    def mean(self) -> float:
        """Mean milliseconds per request."""
        return sum(self.phases.values())


@dataclass(frozen=True)
class Throughput:
    """The most that one row answered.

    Args:
        requests_per_second: at the best batch size.
        batch: that batch size.
    """

    requests_per_second: float
    batch: int


@dataclass(frozen=True)
class Speed:
    """How fast one row is.

    Args:
        latency: of single requests.
        throughput: in batches.
    """

    latency: Latency
    throughput: Throughput

    def to_json(self) -> dict[str, Any]:
        """The keys of a row that these figures fill."""
        single = self.latency
        return {
            "latency_ms": {"p50": single.p50, "p95": single.p95, **single.phases},
            "model_calls": single.model_calls,
            "draft_calls": single.draft_calls,
            "timed": single.timed,
            **asdict(self.throughput),
        }


def latencies(
    services: Mapping[str, Service], histories: Sequence[Rows], k: int, progress: Progress | None = None
) -> dict[str, Latency]:
    """Times single requests, all rows answering one history before any answers the next.

    Args:
        services: rows by name.
        histories: what each of them is asked, one at a time.
        k: list length.
        progress: called with histories (done, total).
    """
    costs: dict[str, list[Cost]] = {name: [] for name in services}

    def call(name: str, history: Rows) -> None:
        costs[name].append(services[name].answer([history], k)[1])

    times = in_turn({name: partial(call, name) for name in services}, histories, progress=progress)
    # Warm-up rounds come first and are booked too: only the last costs belong to the times.
    return {name: _latency(times[name], costs[name][-len(histories) :]) for name in services}


def _latency(milliseconds: np.ndarray[Any, np.dtype[np.float64]], costs: Sequence[Cost]) -> Latency:
    p50, p95 = np.percentile(milliseconds, [50, 95])
    return Latency(
        p50=float(p50),
        p95=float(p95),
        phases={phase: 1000 * fmean(cost.seconds[phase] for cost in costs) for phase in PHASES},
        model_calls=fmean(cost.model_calls for cost in costs),
        draft_calls=fmean(cost.draft_calls for cost in costs),
        timed=len(costs),
    )


def throughput(
    service: Service,
    histories: Sequence[Rows],
    k: int,
    single: float,
    *,
    batches: Sequence[int] = BATCHES,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> Throughput:
    """Requests per second at the best of several batch sizes.

    Smaller sizes come first. Each has an equal share of the time and counts by its median batch; a size is left out
    with all larger ones if one batch of it, at the best rate so far, would pass what is left of the time.

    Args:
        service: who is asked.
        histories: what it is asked, again from the front where a batch is larger.
        k: list length.
        single: requests per second one at a time, as the timed requests showed it.
        batches: sizes to try.
        seconds: time for all of them.
        clock: seconds that pass.
    """
    best, end = Throughput(single, 1), clock() + seconds
    for batch in sorted(batches):
        if clock() + batch / best.requests_per_second > end:
            break
        asked = [histories[place % len(histories)] for place in range(batch)]
        until = clock() + seconds / len(batches)
        spent: list[float] = []
        while not spent or clock() + spent[-1] < until:
            start = clock()
            service.answer(asked, k)
            spent.append(clock() - start)
        rate = batch / median(spent)
        if rate > best.requests_per_second:
            best = Throughput(rate, batch)
    return best

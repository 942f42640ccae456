"""What Prometheus reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from l2d import __version__

if TYPE_CHECKING:
    from l2d.serve.arm import Arm

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """Counters and histograms of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        made: dict[str, Any] = {"registry": self.registry}
        Gauge("l2d_info", "The version of l2d.", ("version",), **made).labels(__version__).set(1)
        self.requests = Counter("l2d_requests", "Answered requests.", ("route", "method", "status", "run"), **made)
        self.total = Histogram(
            "l2d_request_seconds", "From the head of a request to its answer.", ("route", "run"),
            buckets=SECONDS, **made,
        )  # fmt: skip
        self.queued = Histogram(
            "l2d_queue_seconds", "Waiting of requests that were thought.", ("run",), buckets=SECONDS, **made
        )
        self.thinking = Histogram(
            "l2d_thinking_seconds", "Answering of a batch: thoughts and lists.", ("run",), buckets=SECONDS, **made
        )
        self.sizes = Histogram("l2d_batch_size", "Requests of a batch.", ("run",), buckets=SIZES, **made)
        self.calls = Histogram(
            "l2d_call_seconds", "Work between batches: writes, look-ups, swaps.", ("run", "kind"),
            buckets=SECONDS, **made,
        )  # fmt: skip
        self.refused = Counter("l2d_refused", "Requests that were not answered.", ("run", "reason"), **made)
        self.refusing = Histogram(
            "l2d_refusal_seconds", "From the head of a request to its refusal.", ("run", "reason"),
            buckets=SECONDS, **made,
        )  # fmt: skip
        self.written = Counter("l2d_written", "Interactions, users and items written.", ("run", "kind"), **made)
        self.cold = Counter("l2d_cold", "Answers to an empty history.", ("run",), **made)
        self.queue = Gauge("l2d_queue_length", "Requests that wait.", ("run",), **made)
        self.entries = Gauge("l2d_memory_entries", "Entries of the memory.", ("run",), **made)
        self.pending = Gauge("l2d_memory_pending", "Entries that are not in Lance yet.", ("run",), **made)
        self.version = Gauge("l2d_memory_version", "Lance version of the memory.", ("run",), **made)
        self.sequence = Gauge("l2d_memory_sequence", "Number of the last live interaction.", ("run",), **made)
        self.draining = Gauge("l2d_draining", "Whether the server is about to end.", **made)

    def expect_failures(self, route: str, methods: Sequence[str], runs: Sequence[str]) -> None:
        """Begins the counts of failures at 0: a rate does not see the first one of a count that begins with it.

        Args:
            route: its path.
            methods: its methods.
            runs: names of the arms; a failure may also come before one is chosen.
        """
        for method in methods:
            for run in ("", *runs):
                self.requests.labels(route, method, "500", run)

    def batch(self, run: str, waited: Sequence[float], seconds: float) -> None:
        """Takes in a batch.

        Args:
            run: the arm.
            waited: seconds that each of its requests stood in the queue.
            seconds: that answering took.
        """
        queued = self.queued.labels(run)
        for one in waited:
            queued.observe(one)
        self.thinking.labels(run).observe(seconds)
        self.sizes.labels(run).observe(len(waited))

    def written_out(self, arms: Sequence[Arm]) -> bytes:
        """The text that Prometheus reads."""
        for arm in arms:
            self.queue.labels(arm.name).set(arm.waiting())
            version, _, sequence = arm.version.partition(".")
            self.version.labels(arm.name).set(float(version))
            self.sequence.labels(arm.name).set(float(sequence or 0))
            self.entries.labels(arm.name).set(arm.entries)
            self.pending.labels(arm.name).set(arm.pending)
        return generate_latest(self.registry)

"""A run and the one thread that thinks, writes and swaps in turn; everybody else only hands it work."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from l2d.serve.answering import Answer, answers, first_guess
from l2d.serve.batching import Batcher, Job
from l2d.serve.errors import CLIENT_GONE, Refused, busy, too_late
from l2d.serve.metrics import Metrics
from l2d.serve.pace import Pace
from l2d.serve.settings import Settings

if TYPE_CHECKING:
    from l2d.recommender import Recommender

Result = TypeVar("Result")
Outcome = tuple[asyncio.Future[Any], Any, Exception | None]


@dataclass(eq=False)
class Call:
    """Work other than recommending, done between batches."""

    kind: str
    work: Callable[[], Any]
    sink: asyncio.Future[Any]
    changes: bool


class Lane:
    """A run behind its queue.

    Args:
        name: as answers and metrics call it.
        run: the run.
        settings: of the server.
        metrics: of the server.
    """

    def __init__(
        self,
        name: str,
        run: Recommender,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self.name = name
        self.run = run
        self.settings = settings
        self.metrics = metrics
        self.pace = Pace(first_guess)
        self.batcher = Batcher(
            self.pace,
            capacity=settings.queue,
            max_batch=settings.max_batch,
            max_tokens=settings.max_tokens,
            max_wait=settings.max_wait_ms / 1000,
            usual_deadline=settings.deadline_ms / 1000,
        )
        self._calls: deque[Call] = deque()
        self._turn = threading.Condition()
        self._closing = False
        self._called_last = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.version, self.entries, self.pending = run.version, len(run.entries), run.live.pending
        self._thread = threading.Thread(target=self._work, name=f"l2d-{name}", daemon=True)

    # Called in the event loop.

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins to answer; what is answered is handed back to this loop."""
        self._loop = loop
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread answers."""
        return self._thread.is_alive() and not self._closing

    def waiting(self) -> int:
        """Requests and calls in the queue."""
        return len(self.batcher) + len(self._calls)

    def admit(self, jobs: Sequence[Job]) -> list[asyncio.Future[Answer]]:
        """Puts requests into the queue, all or none.

        Raises:
            Refused: they would be late, there is no room, or the thread is about to end.
        """
        assert self._loop is not None
        for job in jobs:
            job.sink = self._loop.create_future()
        with self._turn:
            self._refuse_at_the_end()
            besides = sum(self.pace.seconds(call.kind, 1) for call in self._calls)
            self.batcher.admit(jobs, time.monotonic(), besides=besides)
            self._turn.notify()
        return [job.sink for job in jobs]

    def drop(self, jobs: Sequence[Job]) -> None:
        """Forgets requests that wait and whose client has gone."""
        with self._turn:
            gone = [job for job in jobs if self.batcher.remove(job)]
        error = Refused(CLIENT_GONE, "the client has gone", reason="gone")
        _settle([(job.sink, None, error) for job in gone])

    async def call(
        self,
        kind: str,
        work: Callable[[Recommender], Result],
        *,
        deadline: float | None = None,
        changes: bool = False,
    ) -> Result:
        """Has work done on the run between two batches.

        Args:
            kind: of work, for estimates and metrics.
            work: gets the run.
            deadline: monotonic time by which it must have been done; None where being late does no harm.
            changes: whether the memory may be another one afterwards.

        Raises:
            Refused: too much waits, the work would be late, or the thread is about to end.
        """
        assert self._loop is not None
        sink = self._loop.create_future()
        with self._turn:
            self._refuse_at_the_end()
            now = time.monotonic()
            ahead = sum(self.pace.seconds(call.kind, 1) for call in self._calls)
            # A batch goes between two calls.
            ahead += min(self.batcher.ahead(now), (len(self._calls) + 1) * self.batcher.longest)
            if len(self._calls) >= self.settings.writes:
                raise busy("too many requests are waiting", reason="full", retry_after=ahead)
            if deadline is not None and now + ahead + self.pace.seconds(kind, 1) > deadline:
                raise busy("the answer would be late", reason="late", retry_after=ahead)
            self._calls.append(Call(kind, lambda: work(self.run), sink, changes))
            self._turn.notify()
        found: Result = await sink
        if deadline is not None and time.monotonic() > deadline:
            raise too_late()
        return found

    def _refuse_at_the_end(self) -> None:
        if self._closing:
            raise busy("the server is about to end", reason="draining", retry_after=1)

    async def close(self) -> None:
        """Answers what waits, then ends the thread; what comes later is refused."""
        with self._turn:
            self._closing = True
            self._turn.notify()
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join)

    # Called in the thread.

    def _work(self) -> None:
        if self.settings.threads is not None:
            import torch

            torch.set_num_threads(self.settings.threads)
        while True:
            with self._turn:
                call, jobs, late = self._next()
            self._refuse(late)
            if call is not None:
                self._do(call)
            elif jobs:
                self._think(jobs)
            elif not late:
                return

    def _next(self) -> tuple[Call | None, list[Job], list[Job]]:
        """A call or a batch, in turn where both wait; nothing at the end of all work."""
        while True:
            now = time.monotonic()
            if self._calls and (not self._called_last or not self.batcher.jobs):
                call = self._calls.popleft()
                self.batcher.busy(now, self.pace.seconds(call.kind, 1))
                self._called_last = True
                return call, [], []
            taken = self.batcher.take(now)
            if taken.jobs or taken.late:
                if taken.jobs:
                    self.batcher.began(taken.jobs, now)
                self._called_last = False
                return None, taken.jobs, taken.late
            if self._calls:
                self._called_last = False
                continue
            if self._closing and not self.batcher.jobs:
                return None, [], []
            self._turn.wait(taken.wait)

    def _do(self, call: Call) -> None:
        began = time.monotonic()
        try:
            try:
                found, error = call.work(), None
            finally:
                if call.changes:
                    run = self.run
                    self.version, self.entries, self.pending = run.version, len(run.entries), run.live.pending
        except Exception as raised:  # noqa: BLE001  # whoever asked gets it; the thread goes on
            found, error = None, raised
        now = time.monotonic()
        with self._turn:
            self.pace.learn(call.kind, 1, now - began)
            self.batcher.idle(now)
        self.metrics.calls.labels(self.name, call.kind).observe(now - began)
        self._hand([(call.sink, found, error)])

    def _think(self, jobs: list[Job]) -> None:
        began = time.monotonic()
        outcomes = answers(self.run, jobs, name=self.name, version=self.version)
        now = time.monotonic()
        with self._turn:
            self.batcher.ended(jobs, began, now)
        self.metrics.batch(self.name, [began - job.arrived for job in jobs], now - began)
        handed: list[Outcome] = []
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, Exception):
                handed.append((job.sink, None, outcome))
            elif now > job.deadline:
                handed.append((job.sink, None, too_late()))
            else:
                self.metrics.cold.labels(self.name).inc(outcome.cold)
                handed.append((job.sink, outcome, None))
        self._hand(handed)

    def _refuse(self, late: list[Job]) -> None:
        if late:
            error = busy("the answer would be late", reason="late", retry_after=1)
            self._hand([(job.sink, None, error) for job in late])

    def _hand(self, outcomes: list[Outcome]) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(_settle, outcomes)
        except RuntimeError:  # the loop is closed: the server was told to end at once
            self._closing = True


def _settle(outcomes: list[Outcome]) -> None:
    for sink, found, error in outcomes:
        if sink.done():
            continue
        if error is None:
            sink.set_result(found)
        else:
            sink.set_exception(error)
            sink.exception()  # whoever waited may have left: an error that nobody fetches is no news then

"""Which requests are thought together, and which are refused because they would be late.

Nothing here knows threads, clocks or HTTP: the time is an argument, so that every rule can be tried in a test.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from l2d.serve.errors import Refused, busy
from l2d.serve.pace import Pace

WINDOW = 4
"""Batches' worth of the oldest requests among which like lengths are looked for: none is overtaken by more."""

SLACK = 0.02
"""Share of a deadline kept for what is not estimated: parsing, writing the answer, the threads' turns."""

LONGEST_BATCH = 0.4
"""Share of the shortest deadline in it that a batch may take, so that those who come meanwhile get their turn."""

LONGEST_OF_ALL = 0.8
"""Share of the usual deadline that a batch takes at most, however patient its requests are."""


@dataclass(eq=False)
class Job:
    """A request that waits.

    Args:
        kind: decoder and options; only requests of one kind are thought together.
        tokens: length of its prompt.
        arrived: when it came, in seconds of a monotonic clock.
        deadline: when its answer must be there, on the same clock.
        payload: the request.
        alone: whether no other request of its kind may be in the house.
        sink: who waits for the answer.
    """

    kind: Hashable
    tokens: int
    arrived: float
    deadline: float
    payload: Any = None
    alone: bool = False
    sink: Any = field(default=None, repr=False)

    @property
    def bucket(self) -> int:
        """Requests of one bucket differ in length by less than a factor of two."""
        return self.tokens.bit_length()

    @property
    def due(self) -> float:
        """When it should be done, so that the answer is out by the deadline."""
        return self.deadline - SLACK * (self.deadline - self.arrived)


@dataclass(frozen=True)
class Taken:
    """What is to be done now.

    Args:
        jobs: to be thought together.
        late: to be refused, since they cannot be answered in time.
        wait: seconds after which to ask again where there is neither; None until something comes.
    """

    jobs: list[Job]
    late: list[Job]
    wait: float | None = None


class Batcher:
    """A bounded queue.

    Args:
        pace: how long things take.
        capacity: most requests in it.
        max_batch: most requests of a batch.
        max_tokens: most prompt tokens of a batch; a single longer request is a batch of its own.
        max_wait: seconds that a request waits for company.
        usual_deadline: seconds of a request that names none.
    """

    def __init__(
        self, pace: Pace, *, capacity: int, max_batch: int, max_tokens: int, max_wait: float, usual_deadline: float
    ) -> None:
        self.pace = pace
        self.capacity = capacity
        self.max_batch = max_batch
        self.max_tokens = max_tokens
        self.max_wait = max_wait
        self.usual_deadline = usual_deadline
        self.longest = LONGEST_BATCH * usual_deadline
        self.jobs: dict[Job, None] = {}
        self._totals: dict[Hashable, list[int]] = {}
        self._running: list[Job] = []
        self._busy_until = 0.0
        self._idle_since = 0.0

    def __len__(self) -> int:
        return len(self.jobs)

    def ahead(self, now: float) -> float:
        """Seconds of work that is running or waiting."""
        waiting = sum(
            self.pace.seconds(kind, tokens, -(-count // self.max_batch))
            for kind, (count, tokens) in self._totals.items()
        )
        return waiting + max(0.0, self._busy_until - now)

    def admit(self, jobs: Sequence[Job], now: float, *, besides: float = 0.0) -> None:
        """Puts requests into the queue, all or none.

        Args:
            jobs: the requests.
            now: the time.
            besides: seconds of other work that waits.

        Raises:
            Refused: the queue is full, the answer would be late, or one of a kind that runs alone is there already.
        """
        ahead = self.ahead(now) + besides
        if len(self.jobs) + len(jobs) > self.capacity:
            raise busy("too many requests are waiting", reason="full", retry_after=ahead)
        for job in jobs:
            there = [*self.jobs, *self._running]
            if job.alone and (len(jobs) > 1 or any(other.alone for other in there)):
                raise busy("another such request is being answered", reason="alone", retry_after=1, status=429)
        own = self._cost(jobs)
        # Younger requests of like length may go first, by a batch at most.
        if now + ahead + own + min(ahead, self.longest) > min(job.due for job in jobs):
            raise busy("the answer would be late", reason="late", retry_after=ahead)
        for job in jobs:
            self.jobs[job] = None
            total = self._totals.setdefault(job.kind, [0, 0])
            total[0] += 1
            total[1] += job.tokens

    def _cost(self, jobs: Sequence[Job]) -> float:
        kinds: dict[Hashable, tuple[int, int]] = {}
        for job in jobs:
            count, tokens = kinds.get(job.kind, (0, 0))
            kinds[job.kind] = count + 1, tokens + job.tokens
        return sum(
            self.pace.seconds(kind, tokens, -(-count // self.max_batch)) for kind, (count, tokens) in kinds.items()
        )

    def remove(self, job: Job) -> bool:
        """Takes a request out whose client has gone; False where it is not in the queue any more."""
        if job not in self.jobs:
            return False
        del self.jobs[job]
        total = self._totals[job.kind]
        total[0] -= 1
        total[1] -= job.tokens
        if not total[0]:
            del self._totals[job.kind]
        return True

    def take(self, now: float) -> Taken:
        """What to do now; what it returns is out of the queue."""
        late = [job for job in self.jobs if now + self.pace.seconds(job.kind, job.tokens) > job.due]
        for job in late:
            self.remove(job)
        if not self.jobs:
            return Taken([], late)
        batch = self._together(now)
        oldest = min(job.arrived for job in batch)
        alone = len(self.jobs) == 1 and oldest >= self._idle_since
        wait = oldest + self.max_wait - now
        if wait > 0 and not alone and len(batch) < self.max_batch and not late:
            return Taken([], [], wait)
        for job in batch:
            self.remove(job)
        return Taken(batch, late)

    def _together(self, now: float) -> list[Job]:
        """The oldest request and what goes with it: like lengths first, as many as are done in time."""
        first = next(iter(self.jobs))
        if first.alone:
            return [first]
        near = [job for job, _ in zip(self.jobs, range(WINDOW * self.max_batch), strict=False)]
        near = [job for job in near[1:] if job.kind == first.kind and not job.alone]
        near.sort(key=lambda job: abs(job.bucket - first.bucket))
        batch, tokens, due = [first], first.tokens, first.due
        longest = min(LONGEST_OF_ALL * self.usual_deadline, LONGEST_BATCH * (first.deadline - first.arrived))
        for job in near:
            tokens, due = tokens + job.tokens, min(due, job.due)
            longest = min(longest, LONGEST_BATCH * (job.deadline - job.arrived))
            if len(batch) == self.max_batch or tokens > self.max_tokens:
                break
            if self.pace.likely(first.kind, tokens) > longest or now + self.pace.seconds(first.kind, tokens) > due:
                break
            batch.append(job)
        return batch

    def began(self, jobs: list[Job], now: float) -> None:
        """Says that a batch is being thought."""
        self.busy(now, self._cost(jobs))
        self._running = jobs

    def ended(self, jobs: list[Job], began: float, now: float) -> None:
        """Says that it is done, and how long it took."""
        if jobs:
            self.pace.learn(jobs[0].kind, sum(job.tokens for job in jobs), now - began)
        self.idle(now)

    def busy(self, now: float, seconds: float) -> None:
        """Says that the engine is taken for so long."""
        self._busy_until = now + seconds

    def idle(self, now: float) -> None:
        """Says that the engine is free."""
        self._running, self._busy_until, self._idle_since = [], 0.0, now


__all__ = ["Batcher", "Job", "Refused", "Taken"]

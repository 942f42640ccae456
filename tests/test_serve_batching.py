"""The queue's rules, with a clock that tests set: who is thought with whom, who waits, who is refused."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from l2d.serve.answering import Kind, first_guess
from l2d.serve.batching import Batcher, Job
from l2d.serve.errors import Refused
from l2d.serve.pace import FIRST_GUESS, Line, Pace

PER_TOKEN, PER_BATCH = 0.0001, 0.002
KINDS = ("auto", "vote")


def batcher(*, capacity: int = 100, max_batch: int = 8, max_tokens: int = 400, max_wait: float = 0.002) -> Batcher:
    """One that knows exactly how long things take."""
    pace = Pace()
    for kind in KINDS:
        for tokens in (10, 100, 400):
            pace.learn(kind, tokens, PER_BATCH + PER_TOKEN * tokens)
    return Batcher(
        pace, capacity=capacity, max_batch=max_batch, max_tokens=max_tokens, max_wait=max_wait, usual_deadline=1.0
    )


def job(tokens: int = 20, *, arrived: float = 0.0, within: float = 1.0, kind: str = "auto", alone: bool = False) -> Job:
    return Job(kind, tokens, arrived, arrived + within, alone=alone)


@dataclass
class Day:
    """An engine that takes exactly as long as its pace says, played through on a clock of its own."""

    queue: Batcher
    now: float = 0.0
    answered: list[tuple[Job, float]] = field(default_factory=list)
    refused: list[Job] = field(default_factory=list)
    late: list[Job] = field(default_factory=list)
    batches: list[list[Job]] = field(default_factory=list)

    def live(self, jobs: list[Job]) -> None:
        """Lets requests arrive at their times and thinks until none is left."""
        coming = sorted(jobs, key=lambda one: one.arrived)
        while coming or len(self.queue):
            while coming and coming[0].arrived <= self.now:
                one = coming.pop(0)
                try:
                    self.queue.admit([one], self.now)
                except Refused:
                    self.refused.append(one)
            taken = self.queue.take(self.now)
            self.late += taken.late
            if taken.jobs:
                self.think(taken.jobs, coming)
            elif not taken.late:
                waits = [self.now + taken.wait] if taken.wait else []
                arrivals = [coming[0].arrived] if coming else []
                if waits or arrivals:
                    self.now = max(self.now, min(waits + arrivals))

    def think(self, jobs: list[Job], coming: list[Job]) -> None:
        self.queue.began(jobs, self.now)
        began, ends = self.now, self.now + PER_BATCH + PER_TOKEN * sum(one.tokens for one in jobs)
        while coming and coming[0].arrived <= ends:
            one = coming.pop(0)
            try:
                self.queue.admit([one], max(began, one.arrived))
            except Refused:
                self.refused.append(one)
        self.now = ends
        self.queue.ended(jobs, began, ends)
        self.batches.append(jobs)
        self.answered += [(one, ends) for one in jobs]


requests = some.lists(
    some.builds(
        job,
        some.integers(1, 300),
        arrived=some.floats(0, 0.5),
        within=some.floats(0.001, 1.0),
        kind=some.sampled_from(KINDS),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=150)
@given(requests, some.integers(1, 10), some.integers(1, 30))
def test_every_request_is_answered_in_time_or_refused_and_never_both(
    jobs: list[Job], max_batch: int, capacity: int
) -> None:
    day = Day(batcher(max_batch=max_batch, capacity=capacity))
    day.live(jobs)
    ends = [one for one, _ in day.answered] + day.refused + day.late
    assert sorted(map(id, ends)) == sorted(map(id, jobs))
    assert all(at <= one.deadline + 1e-9 for one, at in day.answered)
    for batch in day.batches:
        assert len(batch) <= max_batch
        assert len({one.kind for one in batch}) == 1
        assert len(batch) == 1 or sum(one.tokens for one in batch) <= day.queue.max_tokens


@settings(deadline=None, max_examples=50)
@given(requests)
def test_an_engine_without_pressure_refuses_nobody(jobs: list[Job]) -> None:
    patient = [Job(one.kind, one.tokens, one.arrived, one.arrived + 1000.0) for one in jobs]
    day = Day(batcher())
    day.live(patient)
    assert (day.refused, day.late) == ([], [])
    assert len(day.answered) == len(jobs)


@settings(deadline=None, max_examples=50)
@given(some.lists(some.integers(1, 300), min_size=1, max_size=60))
def test_the_oldest_request_is_always_in_the_next_batch(lengths: list[int]) -> None:
    queue = batcher(max_wait=0)
    jobs = [Job("auto", tokens, 0.0, 100.0) for tokens in lengths]
    queue.admit(jobs, 0.0)
    left = list(jobs)
    while left:
        batch = queue.take(0.0).jobs
        assert left[0] in batch
        left = [one for one in left if one not in batch]
    assert queue.ahead(0.0) == 0


def test_a_single_request_finds_an_idle_engine_without_waiting() -> None:
    queue = batcher()
    queue.idle(1.0)
    queue.admit([job(arrived=2.0)], 2.0)
    assert len(queue.take(2.0).jobs) == 1


def test_a_few_wait_for_company_as_long_as_they_may_and_a_full_batch_does_not() -> None:
    queue = batcher(max_batch=3)
    queue.admit([job(arrived=0.0), job(arrived=0.001)], 0.001)
    taken = queue.take(0.001)
    assert (taken.jobs, taken.wait) == ([], pytest.approx(0.001))
    assert len(queue.take(0.0021).jobs) == 2
    queue.admit([job(arrived=1.0) for _ in range(3)], 1.0)
    assert len(queue.take(1.0).jobs) == 3


def test_what_came_while_the_engine_was_busy_waits_for_company_too() -> None:
    queue = batcher()
    queue.idle(5.0)
    queue.admit([job(arrived=4.999)], 4.999)
    assert queue.take(5.0).wait == pytest.approx(0.001)


def test_like_lengths_go_together_while_the_oldest_goes_first() -> None:
    queue = batcher(max_batch=3, max_wait=0)
    lengths = [120, 20, 125, 22, 121, 21]
    queue.admit([job(tokens) for tokens in lengths], 0.0)
    assert [one.tokens for one in queue.take(0.0).jobs] == [120, 125, 121]
    assert [one.tokens for one in queue.take(0.0).jobs] == [20, 22, 21]


def test_other_lengths_fill_a_batch_that_would_be_small() -> None:
    queue = batcher(max_batch=3, max_wait=0)
    queue.admit([job(20), job(100), job(24)], 0.0)
    assert [one.tokens for one in queue.take(0.0).jobs] == [20, 24, 100]


def test_a_batch_is_no_longer_than_its_most_urgent_request_allows() -> None:
    queue = batcher(max_wait=0)
    patient = [job(100, within=1.0) for _ in range(3)]
    urgent = job(100, within=0.06)  # alone .012; with one more .022; with two .032, more than .4 of its deadline
    queue.admit([urgent], 0.0)
    queue.admit(patient, 0.0)
    assert queue.take(0.0).jobs == [urgent, patient[0]]
    late = job(100, arrived=-0.03, within=0.055)  # due at .0239
    queue = batcher(max_wait=0)
    queue.admit([late], 0.0)
    queue.admit(patient, 0.0)
    assert queue.take(0.0).jobs == [late, patient[0]]


def test_patient_requests_may_make_a_long_batch_but_not_one_that_locks_others_out() -> None:
    def seconds(within: float) -> float:
        queue = batcher(max_batch=1000, max_tokens=10**6, max_wait=0)
        queue.capacity = 200
        queue.admit([job(100, within=within)], 0.0)
        queue.admit([job(100, within=9.0) for _ in range(150)], 0.0)
        return PER_BATCH + PER_TOKEN * sum(one.tokens for one in queue.take(0.0).jobs)

    assert seconds(1.0) == pytest.approx(0.4, abs=0.011)
    assert seconds(10.0) == pytest.approx(0.8, abs=0.011)


def test_a_request_that_would_be_late_is_refused_at_once_and_told_when_to_come_back() -> None:
    queue = batcher()
    queue.admit([job(100, within=10.0) for _ in range(80)], 0.0)
    with pytest.raises(Refused) as refusal:
        queue.admit([job(within=0.5)], 0.0)
    assert (refusal.value.status_code, refusal.value.reason) == (503, "late")
    assert refusal.value.headers == {"Retry-After": "1"}
    queue.admit([job(within=5.0)], 0.0)


def test_running_work_counts_against_a_deadline() -> None:
    queue = batcher()
    running = [job(300, within=10.0)]
    queue.admit(running, 0.0)
    queue.began(queue.take(0.0).jobs, 0.0)
    with pytest.raises(Refused):
        queue.admit([job(10, within=0.02)], 0.0)
    queue.ended(running, 0.0, 0.032)
    queue.admit([job(10, arrived=0.032, within=0.02)], 0.032)


def test_a_full_queue_takes_nobody_and_a_group_goes_in_whole_or_not_at_all() -> None:
    queue = batcher(capacity=5)
    queue.admit([job(1) for _ in range(3)], 0.0)
    with pytest.raises(Refused) as refusal:
        queue.admit([job(1) for _ in range(3)], 0.0)
    assert refusal.value.reason == "full"
    assert len(queue) == 3
    queue.admit([job(1) for _ in range(2)], 0.0)


def test_what_became_late_in_the_queue_is_not_thought() -> None:
    queue = batcher()
    one, other = job(within=0.1), job(within=5.0)
    queue.admit([one, other], 0.0)
    taken = queue.take(0.0999)
    assert (taken.late, taken.jobs) == ([one], [other])


def test_a_client_that_left_takes_no_place() -> None:
    queue = batcher(capacity=1)
    one = job()
    queue.admit([one], 0.0)
    assert queue.remove(one)
    assert not queue.remove(one)
    queue.admit([job()], 0.0)


def test_only_one_request_of_a_kind_that_is_answered_alone_is_in_the_house() -> None:
    queue = batcher(max_wait=0)
    first = job(alone=True)
    queue.admit([first], 0.0)
    with pytest.raises(Refused) as refusal:
        queue.admit([job(alone=True)], 0.0)
    assert (refusal.value.status_code, refusal.value.reason) == (429, "alone")
    queue.admit([job()], 0.0)
    assert queue.take(0.0).jobs == [first]
    queue.began([first], 0.0)
    with pytest.raises(Refused):
        queue.admit([job(alone=True)], 0.0)
    queue.ended([first], 0.0, 0.01)
    queue.admit([job(alone=True)], 0.01)


def test_a_pace_finds_the_line_that_times_lie_on() -> None:
    line = Line()
    for tokens in (10, 40, 160, 30, 500, 90):
        line.learn(tokens, 0.003 + 0.0002 * tokens)
    assert line.predict(1000) == pytest.approx(0.203)
    assert line.predict(1000, 4) == pytest.approx(0.212)
    assert line.overshoot == pytest.approx(1.0, abs=0.5)


@settings(deadline=None, max_examples=100)
@given(some.lists(some.tuples(some.integers(1, 5000), some.floats(1e-4, 1.0)), min_size=1, max_size=30))
def test_a_pace_never_promises_that_more_work_takes_less_time(times: list[tuple[int, float]]) -> None:
    pace = Pace()
    for tokens, seconds in times:
        pace.learn("auto", tokens, seconds)
    estimates = [pace.seconds("auto", tokens) for tokens in (1, 10, 100, 1000, 10_000)]
    assert estimates == sorted(estimates)
    assert estimates[0] >= 0


def test_a_pace_gets_careful_at_once_and_trusting_slowly() -> None:
    pace = Pace()
    assert pace.seconds("auto", 100) == FIRST_GUESS
    assert Pace(first_guess).seconds(Kind("vote"), 100) == FIRST_GUESS < Pace(first_guess).seconds(Kind("beam"), 100)
    for _ in range(30):
        pace.learn("auto", 100, 0.01)
    assert pace.seconds("auto", 100) == pytest.approx(0.01)
    pace.learn("auto", 100, 0.03)
    assert 0.02 < pace.seconds("auto", 100) <= 2 * pace.likely("auto", 100)
    for _ in range(100):
        pace.learn("auto", 100, 0.01)
    assert pace.seconds("auto", 100) == pytest.approx(0.01, rel=0.1)

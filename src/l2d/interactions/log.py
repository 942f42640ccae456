"""Log -> per-user histories -> examples (history, target); splits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from l2d.errors import DataError

UNKNOWN_TIME = -1
"""Timestamp of an interaction whose time nobody recorded."""

SplitName = Literal["train", "valid", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "valid", "test")


@dataclass(frozen=True)
class Interactions:
    """Who took what, when: one entry per interaction, each user's entries together and oldest first.

    Args:
        user_ids: the user's ids as text, unique.
        user: index into `user_ids`. Shape: (interactions,), int32.
        row: catalogue row. Shape: (interactions,), int32.
        timestamp: unix seconds, or `UNKNOWN_TIME`. Shape: (interactions,), int64.
    """

    user_ids: tuple[str, ...]
    user: NDArray[np.int32]
    row: NDArray[np.int32]
    timestamp: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not len(self.user) == len(self.row) == len(self.timestamp):
            raise DataError(
                "interaction columns differ in length", got=(len(self.user), len(self.row), len(self.timestamp))
            )
        if len(self.user) == 0:
            raise DataError("there are no interactions", cure="check the file and the filters")

    def __len__(self) -> int:
        return len(self.row)

    @property
    def timed(self) -> bool:
        """Whether every interaction has a time."""
        return bool((self.timestamp != UNKNOWN_TIME).all())

    @cached_property
    def user_starts(self) -> NDArray[np.int64]:
        """Where each run of one user begins, closed by the number of interactions. Shape: (runs + 1,)."""
        changes = np.flatnonzero(np.diff(self.user)) + 1
        return np.concatenate([[0], changes, [len(self.user)]]).astype(np.int64)


class Example(NamedTuple):
    """One sample: the rows of a history, oldest first, and the row that came next."""

    history: NDArray[np.int32]
    target: int


@dataclass(frozen=True)
class Examples:
    """Samples as views into interactions: sample i has history `row[start[i]:end[i]]` and target `row[end[i]]`.

    Args:
        interactions: the log that the positions point into.
        start: first position of the history. Shape: (examples,), int64.
        end: position of the target, one past the history. Shape: (examples,), int64.
        numbers: see `sample`; None where nobody numbered them. Shape: (examples,), int64.
    """

    interactions: Interactions
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    numbers: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, index: int) -> Example:
        return Example(self.history(index), int(self.interactions.row[self.end[index]]))

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))

    def history(self, index: int) -> NDArray[np.int32]:
        """Rows of one history, oldest first."""
        return self.interactions.row[self.start[index] : self.end[index]]

    def histories(self) -> list[NDArray[np.int32]]:
        """Rows of every history."""
        return [self.history(index) for index in range(len(self))]

    @property
    def target(self) -> NDArray[np.int32]:
        """Row of every target. Shape: (examples,)."""
        return self.interactions.row[self.end]

    @property
    def user(self) -> NDArray[np.int32]:
        """Index of every example's user. Shape: (examples,)."""
        return self.interactions.user[self.end]

    @property
    def timestamp(self) -> NDArray[np.int64]:
        """Time of every target, unix seconds. Shape: (examples,)."""
        return self.interactions.timestamp[self.end]

    @property
    def last_timestamp(self) -> NDArray[np.int64]:
        """Time of every history's last item, `UNKNOWN_TIME` for an empty history. Shape: (examples,)."""
        last = self.interactions.timestamp[np.maximum(self.end - 1, 0)]
        return np.where(self.end > self.start, last, UNKNOWN_TIME)

    @property
    def history_length(self) -> NDArray[np.int64]:
        """Items in every history. Shape: (examples,)."""
        return self.end - self.start

    @property
    def sample(self) -> NDArray[np.int64]:
        """The number each example is known by in a memory, for good; its place, without numbers. Shape: (examples,)."""
        return np.arange(len(self)) if self.numbers is None else self.numbers

    def places(self, samples: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Where the examples of these numbers stand, -1 for numbers that are not here. Shape: (samples,)."""
        order = np.argsort(self.sample, kind="stable")
        found = np.searchsorted(self.sample, samples, sorter=order)
        place = order[np.minimum(found, len(order) - 1)] if len(order) else np.zeros(len(samples), np.int64)
        return np.where(self.sample[place] == samples, place, -1) if len(order) else place - 1

    def take(self, indices: NDArray[np.integer[Any]]) -> Examples:
        """The examples at the given places, in that order."""
        numbers = None if self.numbers is None else self.numbers[indices]
        return Examples(self.interactions, self.start[indices], self.end[indices], numbers)


@dataclass(frozen=True)
class Splits:
    """Examples to learn from, to choose by and to report. Those without numbers are counted through all three."""

    train: Examples
    valid: Examples
    test: Examples

    def __post_init__(self) -> None:
        first = 0
        for name in SPLITS:
            part = self[name]
            if part.numbers is None:
                object.__setattr__(self, name, replace(part, numbers=np.arange(first, first + len(part))))
            first += len(part)

    def __getitem__(self, name: SplitName) -> Examples:
        return {"train": self.train, "valid": self.valid, "test": self.test}[name]


def block_start(position: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Where a history that ends before `position` begins, if it may hold at most `limit` items.

    A history over the limit loses its oldest half at once (with limit 10: 11 items become 6, which grow to 10
    again), so that neighbouring prompts of one user stay prefixes of each other.

    Args:
        position: number of earlier interactions of the same user. Shape: (n,).
        limit: most items in a history.
    """
    step = max(1, limit // 2)
    over = np.maximum(position - limit, 0)
    return -(-over // step) * step


def examples_of(interactions: Interactions, max_history: int) -> Examples:
    """Every interaction that has an earlier one of the same user, as a target with its history."""
    starts = interactions.user_starts
    first = np.repeat(starts[:-1], np.diff(starts))
    position = np.arange(len(interactions)) - first
    end = np.flatnonzero(position > 0)
    start = first[end] + block_start(position[end], max_history)
    return Examples(interactions, start.astype(np.int64), end.astype(np.int64))


def split_by_time(
    interactions: Interactions, *, max_history: int = 10, fractions: tuple[float, float] = (0.8, 0.1)
) -> Splits:
    """Cuts at two global times, so that no training target is later than a validation target.

    All targets of one instant fall on the same side of a cut.

    Raises:
        DataError: some interaction has no time, or a part stays empty.
    """
    if not interactions.timed:
        raise DataError(
            "a split by time needs a time for every interaction",
            cure="name the --time-column, or use --split leave-last-out",
        )
    examples = examples_of(interactions, max_history)
    times = np.sort(examples.timestamp)
    if len(times) < 3:
        raise DataError(
            "too few interactions to split", got=f"{len(times)} targets", expected="at least 3", cure="use a larger log"
        )
    valid_from, test_from = (
        times[min(len(times) - 1, int(len(times) * share))] for share in (fractions[0], sum(fractions))
    )
    when = examples.timestamp
    parts = (when < valid_from, (when >= valid_from) & (when < test_from), when >= test_from)
    return _checked(Splits(*(examples.take(np.flatnonzero(part)) for part in parts)))


def split_leave_last_out(interactions: Interactions, *, max_history: int = 10) -> Splits:
    """Each user's last item is for test, the last but one for validation, the rest for training.

    Other users' training targets may be later than a user's test target: this protocol leaks time.
    """
    examples = examples_of(interactions, max_history)
    last = interactions.user_starts[1:] - 1
    is_test = np.isin(examples.end, last)
    # Before a user's only item lies the last item of the user before: a test target, which must not be chosen by.
    is_valid = np.isin(examples.end, last - 1) & ~is_test
    parts = (~is_test & ~is_valid, is_valid, is_test)
    return _checked(Splits(*(examples.take(np.flatnonzero(part)) for part in parts)))


def _checked(splits: Splits) -> Splits:
    for name in SPLITS:
        if len(splits[name]) == 0:
            raise DataError(
                f"the {name} split is empty",
                expected="at least one example in each part",
                cure="use a longer log, or another --split; users with a single item give no example",
            )
    return splits


def chains(examples: Examples) -> list[NDArray[np.int32]]:
    """Undoes the cutting into samples: maximal item sequences in which each sample extends the one before it.

    A user's next sample is joined to the one before it where its history ends with that one's history and target.
    """
    sequences: list[list[int]] = []
    previous_user = -1
    users = examples.user
    for index in np.argsort(users, kind="stable").tolist():
        history, target = examples[index]
        user = int(users[index])
        known = sequences[-1] if user == previous_user else []
        if known and len(history) <= len(known) and known[-len(history) :] == history.tolist():
            known.append(target)
        else:
            sequences.append([*history.tolist(), target])
        previous_user = user
    return [np.array(sequence, dtype=np.int32) for sequence in sequences]

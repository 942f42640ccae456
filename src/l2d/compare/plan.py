"""How a comparison is made: who is asked, how long lists are, what is timed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from l2d.compare.asking import TIMED, sample
from l2d.compare.contestants import Contestant
from l2d.compare.timing import SECONDS
from l2d.errors import ConfigError
from l2d.interactions import Examples, SplitName


@dataclass(frozen=True)
class Plan:
    """The options of a comparison.

    Args:
        split: name of the examples' split, for the record.
        users: most users that language contestants are asked about; None for all.
        exclude_seen: whether the items of an example's history are excluded, in quality, latency and throughput.
        seed: of the samples, the bootstrap and the tests.
        scored_length: length of the lists by which rows are judged that score every item anyway.
        searched_length: the same for language rows, which search longer for a longer list. Beyond `timed_length` they
            search wider when judged than when timed: quality and latency are then both in their favour.
        timed_length: length of the lists that are timed.
        timed: single requests that are timed per row; 0 for none. A 95th percentile wants 100.
        seconds: time per row for finding its best batch size.

    Raises:
        ConfigError: a number out of range.
    """

    split: SplitName = "test"
    users: int | None = 1000
    exclude_seen: bool = False
    seed: int = 0
    scored_length: int = 100
    searched_length: int = 50
    timed_length: int = 10
    timed: int = TIMED
    seconds: float = SECONDS

    def __post_init__(self) -> None:
        lengths = (self.scored_length, self.searched_length, self.timed_length)
        if min(lengths) < 1:
            raise ConfigError("a list length is too small", got=lengths, expected="at least 1")
        if self.timed < 0 or self.seed < 0:
            raise ConfigError(
                "a number of requests or a seed is too small", got=(self.timed, self.seed), expected="at least 0"
            )

    def length(self, contestant: Contestant, items: int) -> int:
        """Length of the lists that a contestant is judged by."""
        return min(items, self.searched_length if contestant.kind == "language" else self.scored_length)


@dataclass(frozen=True)
class Users:
    """Who is asked: all examples by most rows, a sample of them by language rows.

    Args:
        places: every example. Shape: (examples,).
        sample: increasing places of the sample. Shape: (sample,).
    """

    places: NDArray[np.int64]
    sample: NDArray[np.int64]

    @classmethod
    def draw(cls, examples: Examples, plan: Plan) -> Users:
        """The users of a plan.

        Raises:
            ConfigError: nobody to ask.
        """
        if not len(examples):
            raise ConfigError("there are no examples to compare on", got=0, expected="at least 1")
        return cls(np.arange(len(examples)), sample(examples, plan.users, plan.seed))

    def of(self, contestant: Contestant) -> NDArray[np.int64]:
        """Places of the examples that a contestant is judged on."""
        return self.sample if contestant.kind == "language" else self.places

"""What a search is asked, and what it finds: filters of requests, and their neighbours as runs of one long list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from l2d.errors import InternalError

Places = NDArray[np.int64]
"""Places of points among the searched ones."""

Request = NDArray[np.int64]
"""Places of the requests that points belong to."""


@dataclass(frozen=True)
class Filter:
    """Which points one request may have: `only` some, or all but the `barred` ones.

    Args:
        barred: places that are none of its neighbours; repeats are allowed.
        only: the only places that may be, each once; None for all.

    Raises:
        InternalError: both are given.
    """

    barred: Places | None = None
    only: Places | None = None

    def __post_init__(self) -> None:
        if self.barred is not None and self.only is not None:
            raise InternalError("a filter either bars points or names the only ones")

    @property
    def idle(self) -> bool:
        """Whether it lets everything pass."""
        return self.only is None and (self.barred is None or not len(self.barred))


@dataclass(frozen=True)
class Near:
    """Points near several requests, nearest first, ties by the smaller place.

    Args:
        starts: where each request's points begin, closed by their number. Shape: (requests + 1,), int64.
        index: places of the points. Shape: (n,), int64.
        squared: squared Euclidean distances, in double precision. Shape: (n,), float64.
    """

    starts: NDArray[np.int64]
    index: Places
    squared: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @classmethod
    def sorted(cls, request: Request, index: Places, squared: NDArray[np.float64], requests: int) -> Near:
        """Puts (request, point, distance) triples in order."""
        order = np.lexsort((index, squared, request))
        return cls(starts_of(request[order], requests), index[order], squared[order])

    @property
    def request(self) -> Request:
        """Whose point each is. Shape: (n,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def first(self, count: int) -> Near:
        """The `count` nearest of each request, or as many as there are."""
        request = self.request
        kept = np.arange(len(self.index)) - self.starts[request] < count
        return Near(starts_of(request[kept], len(self)), self.index[kept], self.squared[kept])

    def limits(self, count: int) -> NDArray[np.float64]:
        """Squared distance of each request's `count`-th point; infinite where it has fewer. Shape: (requests,)."""
        limits = np.full(len(self), np.inf)
        full = np.flatnonzero(np.diff(self.starts) >= count)
        limits[full] = self.squared[self.starts[full] + count - 1]
        return limits

    def within(self, limits: NDArray[np.float64]) -> Near:
        """The points whose squared distance is at most the request's limit. Shape of the limits: (requests,)."""
        request = self.request
        kept = self.squared <= limits[request]
        return Near(starts_of(request[kept], len(self)), self.index[kept], self.squared[kept])

    @classmethod
    def joined(cls, parts: Sequence[Near]) -> Near:
        """The requests of several, one after the other."""
        ends = np.cumsum([0, *(len(part.index) for part in parts)])
        starts = [part.starts[:-1] + end for part, end in zip(parts, ends, strict=False)]
        return cls(
            np.concatenate([*starts, ends[-1:]]),
            np.concatenate([np.empty(0, dtype=np.int64), *(part.index for part in parts)]),
            np.concatenate([np.empty(0), *(part.squared for part in parts)]),
        )

    def part(self, requests: slice) -> Near:
        """The points of some consecutive requests."""
        starts = self.starts[requests.start : requests.stop + 1]
        points = slice(starts[0], starts[-1])
        return Near(starts - starts[0], self.index[points], self.squared[points])

    def parts(self, points: int) -> list[slice]:
        """Consecutive requests that have together no more than so many points, or are single."""
        cuts, begin = [0], 0
        while begin < len(self):
            end = int(np.searchsorted(self.starts, self.starts[begin] + points, side="right")) - 1
            begin = min(len(self), max(begin + 1, end))
            cuts.append(begin)
        return [slice(a, b) for a, b in pairwise(cuts)]


def starts_of(request: Request, requests: int) -> NDArray[np.int64]:
    """Where each request's run begins in an ascending list of requests, closed by its length."""
    return np.searchsorted(request, np.arange(requests + 1)).astype(np.int64)

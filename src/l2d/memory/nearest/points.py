"""Exact nearest neighbours: a scan in half precision that may not lose anybody, then distances in double precision.

The scan expands |a - b|^2 = |a|^2 + |b|^2 - 2ab, which a matrix product does fast and rounding spoils: thoughts share a
large common part, so the small difference of two large numbers is what ranks them. Two things repair it. Requests are
centred by the points' mean first, and the scan's error is bounded, so that every point whose true distance might be
among the smallest is kept. Only those are measured directly, and only those distances are handed out. Hence the result
depends neither on how requests were batched nor on the type that the scan computes in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2d.errors import ConfigError, InputError
from l2d.memory.nearest.near import Filter, Near, Places, Request
from l2d.memory.nearest.products import Mask
from l2d.memory.nearest.scan import TIE_SLACK, Halves, check_size

TOGETHER = 256
"""Requests scanned at once."""

MEASURED = 1 << 17
"""Coordinates of differences held in double precision at once: 1 MiB, half of the time of 4 MiB."""

DIRECT = 64
"""A request that may have one point in so many, or fewer, has them measured without a scan."""


class Points:
    """Vectors to search among. float16 ones are scanned where they lie, float32 ones as a float16 copy.

    Args:
        vectors: float16 or float32, finite. Shape: (n, width).
        known: points that may be found; None for all. Shape: (n,).

    Raises:
        InputError: a coordinate beyond 2^50, whose square and sums would leave single precision.
    """

    recall = 1.0
    """Share of the true neighbours that are found."""

    def __init__(self, vectors: NDArray[Any], known: Mask | None = None) -> None:
        # torch takes no negative strides.
        self.vectors = vectors if min(vectors.strides, default=0) >= 0 else np.ascontiguousarray(vectors)
        self._known = known
        self._halves = Halves(self.vectors, known)

    def __len__(self) -> int:
        return len(self.vectors)

    def follow(self, vectors: NDArray[Any], places: Places, known: Mask | None = None) -> None:
        """Goes over to vectors of which some are new or were changed; what is known of the others is kept.

        Args:
            vectors: all of them, the former ones first. Shape: (n, width).
            places: where new ones stand, and those that were changed in place.
            known: points that may be found; None for all. Shape: (n,).

        Raises:
            InputError: as when points are made.
        """
        self.vectors, self._known = vectors, known
        self._halves = self._halves.followed(vectors, places, known)

    def near(
        self,
        thoughts: NDArray[np.float32],
        count: int,
        filters: Sequence[Filter] = (),
        known: Mask | None = None,
    ) -> Near:
        """Of each request the `count` nearest points it may have, and those that tie with the last one as float32.

        Args:
            thoughts: finite. Shape: (requests, width).
            count: number of neighbours wanted.
            filters: what each request may have; empty for everything.
            known: points that any of them may have; None for all. Shape: (n,).

        Raises:
            ConfigError: another width than the points', or a count below 1.
            InputError: a thought is not finite, or a coordinate lies beyond 2^50.
        """
        self._check(thoughts, count)
        count = min(count, max(1, len(self)))
        wanted = thoughts.astype(np.float64)
        parts = [slice(start, start + TOGETHER) for start in range(0, len(wanted), TOGETHER)]
        return Near.joined([self._near(wanted[part], count, filters[part], known) for part in parts])

    def _near(self, wanted: NDArray[np.float64], count: int, filters: Sequence[Filter], known: Mask | None) -> Near:
        few = max(count, len(self) // DIRECT)
        direct = {i: one.only for i, one in enumerate(filters) if one.only is not None and len(one.only) <= few}
        found = [(np.full(len(places), i), places) for i, places in direct.items()]
        scanned = np.array([i for i in range(len(wanted)) if i not in direct], dtype=np.int64)
        if len(scanned):
            request, places = self._scan(
                wanted[scanned], count, [filters[i] for i in scanned] if filters else (), known
            )
            found.append((scanned[request], places))
        request, places = (np.concatenate(column) for column in zip(*found, strict=True))
        for mask in (self._known, known):
            if mask is not None and direct:
                request, places = request[mask[places]], places[mask[places]]
        near = self._sorted(wanted, request, places)
        return near.within(near.limits(count) * (1 + TIE_SLACK))

    def _scan(
        self, wanted: NDArray[np.float64], count: int, filters: Sequence[Filter], known: Mask | None
    ) -> tuple[Request, Places]:
        return self._halves.near(wanted, count, filters, known)

    def _sorted(self, wanted: NDArray[np.float64], request: Request, places: Places) -> Near:
        return Near.sorted(request, places, self._measured(wanted, request, places), len(wanted))

    def _measured(self, wanted: NDArray[np.float64], request: Request, places: Places) -> NDArray[np.float64]:
        squared = np.empty(len(places))
        step = max(1, MEASURED // max(1, self.vectors.shape[1]))
        for part in (slice(start, start + step) for start in range(0, len(places), step)):
            difference = self.vectors[places[part]].astype(np.float64)
            difference -= wanted[request[part]]
            squared[part] = np.einsum("ij,ij->i", difference, difference)
        return squared

    def _check(self, thoughts: NDArray[np.float32], count: int) -> None:
        if thoughts.ndim != 2 or thoughts.shape[1] != self.vectors.shape[1]:
            raise ConfigError(
                "thoughts do not fit the memory", got=thoughts.shape, expected=f"(requests, {self.vectors.shape[1]})"
            )
        if count < 1:
            raise ConfigError("too few neighbours asked for", got=count, expected="at least 1")
        if not np.isfinite(thoughts).all():
            raise InputError("a thought is not finite", cure="run the backbone in float32")
        check_size(thoughts)

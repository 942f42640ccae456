"""The first stage: points in half precision, scanned block by block, with a bound on every error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from l2d.errors import InputError
from l2d.memory.growing import Room
from l2d.memory.nearest.near import Filter, Places, Request, starts_of
from l2d.memory.nearest.products import CELLS, SINGLE, Factors, Mask, fastest, mean

TIE_SLACK = 2.0**-20
"""Relative widening of the last kept squared distance, so that scores that only tie as float32 are all there."""

FAR = 2.0
"""Length of the common part, in mean distances from it, above which float16 vectors are copied and centred, too."""

SAMPLE = 1 << 12
"""Vectors that this distance is measured on, at least."""

PRODUCTS = 1 << 18
"""Products held at once: 1 MiB."""

LARGEST = np.finfo(np.float32).max

WIDEST = 2.0**50
"""Greatest coordinate: squares and sums of such stay within single precision."""


def check_size(vectors: NDArray[Any]) -> None:
    """Refuses what single precision cannot square.

    Raises:
        InputError: a coordinate beyond `WIDEST`.
    """
    greatest = float(np.abs(vectors).max(initial=0.0))
    if greatest > WIDEST:
        raise InputError("a thought is too large", got=greatest, expected="coordinates within 2^50")


def rows_at_once(requests: int) -> int:
    """Points whose products with so many requests stay in the cache, while a block of them is worth its overhead."""
    return min(max(PRODUCTS // requests, PRODUCTS >> 6), PRODUCTS >> 3)


class Kept(NamedTuple):
    """Points that a scan keeps, in any order.

    Args:
        request: whose they are.
        place: which points.
        value: squared distances as the scan sees them, less what is the same for all points of a request.
    """

    request: Request
    place: Places
    value: NDArray[np.float32]

    def at(self, places: Any) -> Kept:
        """Some of them."""
        return Kept(self.request[places], self.place[places], self.value[places])

    @classmethod
    def joined(cls, parts: Sequence[Kept]) -> Kept:
        """Several as one."""
        none = cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
        return cls(*(np.concatenate(column) for column in zip(none, *parts, strict=True)))


class Halves:
    """Vectors as float16: where they lie if that is their type and they are near the origin, else as a centred copy.

    Args:
        vectors: float16 or float32, finite. Shape: (n, width).
        known: points that may be found, and that the centre is the mean of; None for all. Shape: (n,).
    """

    def __init__(self, vectors: NDArray[Any], known: Mask | None = None) -> None:
        self._vectors = vectors
        self.centre = mean(vectors, known)
        self._in_place = vectors.dtype == np.float16 and not self._far()
        self._values = vectors if self._in_place else np.empty(vectors.shape, dtype=np.float16)
        self._scale = 1.0 if self._in_place else self._scale_of_copies()
        self._norms, self._squares = np.empty((2, len(vectors)), dtype=np.float32)
        # A copy is off by at most `rounding` times the norm of its vector plus `floor`.
        self._rounding, self._floor = 0.0, 0.0 if self._in_place else 2.0**-25 * vectors.shape[1] ** 0.5 / self._scale
        for part in self.blocks(CELLS):
            check_size(vectors[part])
            self._prepare(part)
        if known is not None:
            self._squares[~known] = np.inf
        self._greatest = self._scale * (float(self._norms.max(initial=0.0)) * (1 + self._rounding) + self._floor)

    def blocks(self, cells: int) -> Iterator[slice]:
        """Consecutive points with no more than so many coordinates."""
        n, width = self._vectors.shape
        step = max(1, cells // max(1, width))
        return (slice(start, min(start + step, n)) for start in range(0, n, step))

    def _far(self) -> bool:
        """Whether the vectors lie so far from the origin that the products' errors would drown their differences."""
        some = self._vectors[:: max(1, len(self._vectors) // SAMPLE)] - self.centre
        distances = np.sqrt(np.einsum("ij,ij->i", some, some))
        return bool(np.linalg.norm(self.centre) > FAR * distances.mean()) if len(some) else False

    def _scale_of_copies(self) -> float:
        """The power of two that lifts the greatest centred coordinate to 2^13, well within float16."""
        peaks = (float(np.abs(self._vectors[part] - self.centre).max(initial=0.0)) for part in self.blocks(CELLS))
        greatest = max(peaks, default=0.0)
        return float(np.exp2(13 - np.floor(np.log2(greatest)))) if greatest else 1.0

    def followed(self, vectors: NDArray[Any], places: Places, known: Mask | None) -> Halves:
        """The same after some vectors were added or changed, in place; made anew once twice as many are there.

        Any centre will do for the bounds. That of vectors long gone makes them wider, hence the second case; copies
        whose scale is too large for a new vector are made anew as well.
        """
        size, longest = self._made_of
        if len(vectors) >= 2 * size or not self._fits(vectors[places]):
            return Halves(vectors, known)
        more = np.empty((len(vectors) - len(self._norms), 1), dtype=np.float32)
        values, norms, squares = self._rooms
        self._vectors = vectors
        self._values = vectors if self._in_place else values.add(np.empty((len(more), vectors.shape[1]), np.float16))
        self._norms, self._squares = norms.add(more[:, 0]), squares.add(more[:, 0])
        check_size(vectors[places])
        self._prepare(places)
        if known is not None:
            self._squares[places[~known[places]]] = np.inf
        longest = max(longest, float(self._norms[places].max(initial=0.0)))
        self._made_of = size, longest
        self._greatest = self._scale * (longest * (1 + self._rounding) + self._floor)
        return self

    def _fits(self, vectors: NDArray[Any]) -> bool:
        """Whether copies of some vectors would stay within float16."""
        if self._in_place:
            return True
        return float(np.abs(vectors - self.centre).max(initial=0.0)) * self._scale <= float(np.finfo(np.float16).max)

    @cached_property
    def _rooms(self) -> tuple[Room, Room, Room]:
        return Room(self._values), Room(self._norms), Room(self._squares)

    @cached_property
    def _made_of(self) -> tuple[int, float]:
        """How many vectors it was made of, and the greatest norm since."""
        return len(self._norms), float(self._norms.max(initial=0.0))

    def _prepare(self, part: slice | Places) -> None:
        centred = self._vectors[part] - self.centre
        self._squares[part] = np.einsum("ij,ij->i", centred, centred)
        multiplied = self._vectors[part].astype(np.float64) if self._in_place else centred
        norms = np.sqrt(np.einsum("ij,ij->i", multiplied, multiplied))
        self._norms[part] = norms * (1 + 2 * SINGLE)
        if not self._in_place:
            self._values[part] = centred * self._scale
            centred -= self._values[part].astype(np.float64) / self._scale
            lost = np.sqrt(np.einsum("ij,ij->i", centred, centred)) - self._floor
            self._rounding = max(self._rounding, float((lost / np.maximum(norms, 1e-300)).max(initial=0.0)))

    def near(
        self, wanted: NDArray[np.float64], count: int, filters: Sequence[Filter] = (), known: Mask | None = None
    ) -> tuple[Request, Places]:
        """All points that may be among the `count` nearest, or tie with the last of them as float32; a few more.

        Args:
            wanted: requests. Shape: (requests, width).
            count: neighbours of each.
            filters: what each request may have; empty for everything.
            known: points that any of them may have; None for all. Shape: (n,).

        Returns:
            Requests and their points, in any order.
        """
        pass_ = _Pass(self, wanted, count)
        squares = self._squares if known is None else np.where(known, self._squares, np.float32(np.inf))
        barred = Barred.of(filters, len(squares))
        for part in self.blocks(rows_at_once(len(wanted)) * wanted.shape[1]):
            values = pass_.factors(self._values[part])
            values += squares[part]
            barred.strike(values, part)
            pass_.take(values, part, self._norms[part])
        kept = pass_.tightened()
        return kept.request, kept.place


class _Pass:
    """One pass over all points for some requests: what it keeps, and the limits that grow tighter as it goes on.

    With c the centre and t the request, |p - t|^2 = |p - c|^2 - 2 v (t - c) + the same for all p, where v is p, or its
    centred copy. A limit is on the sum of the first two terms.
    """

    def __init__(self, points: Halves, wanted: NDArray[np.float64], count: int) -> None:
        self.count, self.norms = count, points._norms
        centred = wanted - points.centre
        lengths = np.sqrt(np.einsum("ij,ij->i", centred, centred))
        scale, rounding, floor = points._scale, points._rounding, points._floor
        self.factors = Factors(fastest(len(wanted)), centred * (-2 / scale), points._greatest)
        # The error of a value is at most slope |v| + least + what rounds in adding |p - c|^2, (|v| + |c|)^2 at most.
        missed = scale * self.factors.error
        self.slope = missed * (1 + rounding) + (2 * rounding + 8 * SINGLE) * lengths
        self.least = floor * (missed + 2 * lengths) + self.factors.least + 2.0**-140
        self.origin = float(np.linalg.norm(points.centre)) if points._in_place else 0.0
        self.rest = lengths**2 + (2 * centred @ points.centre if points._in_place else 0.0)
        self.limits = np.full(len(wanted), np.inf)
        self.kept: list[Kept] = []
        self.blocks = 0

    def error(self, norms: NDArray[np.float32] | np.float32, request: Request | slice) -> NDArray[np.float64]:
        """The greatest error of values of points with these norms."""
        return self.slope[request] * norms + self.least[request] + 4 * SINGLE * (norms + self.origin) ** 2

    def take(self, values: NDArray[np.float32], part: slice, norms: NDArray[np.float32]) -> None:
        """Keeps the points of a block that may be within the limits; those that are infinitely far never are."""
        margin = self.error(norms.max(), slice(None))
        if not self.blocks and values.shape[1] >= self.count:
            last = np.partition(values, self.count - 1, axis=1)[:, self.count - 1]
            self.limits = self._widened(last + margin)
        # A little wider, for the cast to float32, and finite: barred points are at infinity.
        ceiling = self.limits + margin
        ceiling = np.minimum(ceiling + 4 * SINGLE * np.abs(ceiling), LARGEST).astype(np.float32)
        cells = np.flatnonzero(values <= ceiling[:, None])
        request, place = np.divmod(cells, values.shape[1])
        self.kept.append(Kept(request, place + part.start, values.ravel()[cells]))
        self.blocks += 1
        if self.blocks & (self.blocks - 1) == 0:  # after 1, 2, 4, 8, ... blocks: what is kept at most doubles between
            self.kept = [self.tightened()]

    def tightened(self) -> Kept:
        """What may be within limits drawn from all that is kept so far."""
        kept = Kept.joined(self.kept)
        error = self.error(self.norms[kept.place], kept.request)
        greatest = kept.value + error
        # One line per request, filled up with infinity: sorting by two keys takes ten times as long.
        order = np.argsort(kept.request.astype(np.int16), kind="stable")
        request = kept.request[order]
        starts = starts_of(request, len(self.limits))
        lines = np.full((len(self.limits), max(self.count, int(np.diff(starts).max()))), np.inf)
        lines[request, np.arange(len(request)) - starts[request]] = greatest[order]
        last = np.partition(lines, self.count - 1, axis=1)[:, self.count - 1]
        self.limits = np.minimum(self.limits, self._widened(last))
        inside = kept.value - error <= self.limits[kept.request]
        return kept.at(inside)

    def _widened(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return values + TIE_SLACK * np.maximum(values + self.rest, 0.0)


class Barred:
    """Points that single requests may not have.

    Args:
        request, place: of each such point, by ascending place.
        masks: the points that a request may have, for those where these are the shorter thing to write down.
    """

    def __init__(self, request: Request, place: Places, masks: Mapping[int, Mask]) -> None:
        self.request, self.place, self.masks = request, place, masks

    @classmethod
    def of(cls, filters: Sequence[Filter], n: int) -> Barred:
        """Collects those of all requests."""
        struck = {i: one.barred for i, one in enumerate(filters) if one.barred is not None}
        request = np.repeat(np.array([*struck], dtype=np.int64), [len(places) for places in struck.values()])
        place = np.concatenate([np.empty(0, dtype=np.int64), *struck.values()])
        order = np.argsort(place, kind="stable")
        masks = {i: np.zeros(n, dtype=bool) for i, one in enumerate(filters) if one.only is not None}
        for i, mask in masks.items():
            mask[filters[i].only] = True
        return cls(request[order], place[order], masks)

    def strike(self, values: NDArray[np.float32], part: slice) -> None:
        """Puts them infinitely far. Shape of the values: (requests, points of the part)."""
        first, last = np.searchsorted(self.place, [part.start, part.stop])
        values[self.request[first:last], self.place[first:last] - part.start] = np.inf
        for i, mask in self.masks.items():
            values[i, ~mask[part]] = np.inf

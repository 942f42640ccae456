"""An approximate first stage for very many points: FAISS finds candidates, distances stay exact.

An inverted file over 8-bit codes reads a few of its lists instead of every point. How many lists is settled when the
index is made: enough for `RECALL` of the true neighbours of a sample, and the recall reached is kept for the caller.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2d.memory.nearest.near import Filter, Places, Request
from l2d.memory.nearest.points import Points
from l2d.memory.nearest.products import Mask

LEAST = 1_000_000
"""Points from which on an index pays."""

RECALL = 0.98
"""Share of the true neighbours of the sample that the number of lists is chosen for."""

SAMPLE = 64
"""Points, moved a little, whose neighbours are searched both ways."""

NEIGHBOURS = 100
"""Neighbours of each that are compared."""

TRAINING = 39
"""Points per list that the lists' centres are learned from: what FAISS asks for at least."""

MORE = 4
"""Candidates taken per neighbour wanted, since 8-bit codes order them only roughly."""


class Indexed(Points):
    """Points whose neighbours are found by an approximate index; the distances handed out are exact.

    Args:
        vectors: float16 or float32, finite. Shape: (n, width).
        known: points that may be found; None for all. Shape: (n,).
        seed: of the sample.

    `recall` is the share of the true `NEIGHBOURS` of the sample's points that were found, `probes` the number of lists
    that are read for a request. The codes are a copy of half the size of float16 vectors.
    """

    def __init__(self, vectors: NDArray[Any], known: Mask | None = None, *, seed: int = 0) -> None:
        faiss = _faiss()
        super().__init__(vectors, known)
        n, width = vectors.shape
        lists = max(1, round(n**0.5))
        quantizer = faiss.IndexFlatL2(width)
        self._origin = self._halves.centre
        self._index = faiss.IndexIVFScalarQuantizer(quantizer, width, lists, faiss.ScalarQuantizer.QT_8bit)
        rng = np.random.default_rng(seed)
        learned = np.sort(rng.permutation(n)[: lists * TRAINING])
        self._index.train(self._centred(learned))
        for start in range(0, n, 1 << 14):
            self._index.add(self._centred(np.arange(start, min(n, start + (1 << 14)))))
        self.probes, self.recall = self._settle(rng)

    def _centred(self, places: Places) -> NDArray[np.float32]:
        return (self.vectors[places] - self._origin).astype(np.float32)

    def follow(self, vectors: NDArray[Any], places: Places, known: Mask | None = None) -> None:
        """As for `Points`, where all places are new ones; the lists and `recall` stay those of the first points."""
        super().follow(vectors, places, known)
        self._index.add(self._centred(places))

    def _settle(self, rng: np.random.Generator) -> tuple[int, float]:
        """The fewest lists, doubling from one, that reach the recall."""
        places = rng.permutation(len(self))[:SAMPLE]
        moved = self.vectors[places].astype(np.float64)
        moved += rng.standard_normal(moved.shape) * 0.5 * (moved - self._halves.centre).std()
        count = min(NEIGHBOURS, len(self))
        request, true = self._halves.near(moved, count)
        exact = self._exactly(moved, request, true, count)
        self.probes = 1
        while True:
            found = self._exactly(moved, *self._scan(moved, count, (), None), count)
            recall = len(np.intersect1d(exact, found)) / max(1, len(exact))
            if recall >= RECALL or self.probes >= self._index.nlist:
                return self.probes, recall
            self.probes *= 2

    def _exactly(self, wanted: NDArray[np.float64], request: Request, places: Places, count: int) -> NDArray[np.int64]:
        """The nearest of what was found, each as one number of request and place."""
        near = self._sorted(wanted, request, places).first(count)
        return near.request * len(self) + near.index

    def _scan(
        self, wanted: NDArray[np.float64], count: int, filters: Sequence[Filter], known: Mask | None
    ) -> tuple[Request, Places]:
        """Lists for requests without filters; all points for the others, and where the lists hold too few."""
        faiss = _faiss()
        plain = known is None and self._known is None
        free = np.array([i for i in range(len(wanted)) if plain and (not filters or filters[i].idle)], dtype=np.int64)
        wide = min(len(self), MORE * count)
        asked = (wanted[free] - self._origin).astype(np.float32)
        parameters = faiss.SearchParametersIVF(nprobe=self.probes)
        listed = self._index.search(asked, wide, params=parameters)[1] if len(free) else np.empty((0, wide), np.int64)
        enough = (listed >= 0).sum(axis=1) >= min(count, len(self))
        line, column = np.nonzero(listed[enough] >= 0)
        request, places = free[enough][line], listed[enough][line, column]
        rest = np.setdiff1d(np.arange(len(wanted)), free[enough])
        if len(rest):
            some = [filters[i] for i in rest] if filters else ()
            its_request, its_places = self._halves.near(wanted[rest], count, some, known)
            request, places = np.concatenate([request, rest[its_request]]), np.concatenate([places, its_places])
        return request, places


def _faiss() -> Any:
    import faiss

    return faiss


def pays(points: int) -> bool:
    """Whether an index may be made of so many points and is worth it: from `LEAST` on, where FAISS is installed."""
    return points >= LEAST and importlib.util.find_spec("faiss") is not None

"""Products of requests with points in low precision, and how far from the exact ones they may be.

Points lie in memory as float16, which is what a memory stores: no copy is made of it. One request is a product of that
matrix with a vector, which is bound by reading, hence twice as fast as in single precision. Several requests are a
matrix product, block by block in the cache, in whatever type this machine multiplies fastest.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Mask = NDArray[np.bool_]

FEW = 4
"""Requests from which on a matrix product is faster than one product with a vector for each."""

CELLS = 1 << 19
"""Coordinates of points widened at once: 2 MiB in single precision."""

SINGLE = 2.0**-24
"""Unit roundoff of float32."""


@dataclass(frozen=True)
class Kind:
    """A way to multiply.

    Args:
        name: torch's name of the type.
        points: greatest relative error of a point's coordinate.
        products: greatest relative error of a result, beside that of summing in single precision.
    """

    name: str
    points: float
    products: float


HALF = Kind("float16", 0.0, 2.0**-11)
BRIEF = Kind("bfloat16", 2.0**-8, 2.0**-8)
FULL = Kind("float32", 0.0, SINGLE)


class Factors:
    """Requests, ready to be multiplied with blocks of points.

    Args:
        kind: how.
        vectors: one per request. Shape: (requests, width), float64.
        greatest: norm that no point exceeds.
    """

    def __init__(self, kind: Kind, vectors: NDArray[np.float64], greatest: float) -> None:
        import torch

        self.kind = kind
        self._type: torch.dtype = getattr(torch, kind.name)
        self._vector = kind.name == HALF.name
        self._shift = np.ones((len(vectors), 1))
        if self._vector:  # results and coordinates must stay within 2^16, and far above the smallest number there is
            norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
            self._shift = np.exp2(15 - np.ceil(np.log2(np.maximum(norms, 2.0**-900) * max(greatest, 1.0))))
        self._rounded = torch.from_numpy(vectors * self._shift).to(self._type)
        told = self._rounded.double().numpy() / self._shift
        missed, norms = vectors - told, np.sqrt(np.einsum("ij,ij->i", told, told))
        summed = (vectors.shape[1] + 2) * SINGLE
        # A hundredth covers products of errors, and the rounding of this line.
        self.error = 1.01 * (
            norms * (kind.points + kind.products + summed) + np.sqrt(np.einsum("ij,ij->i", missed, missed))
        )
        # bfloat16 units take coordinates below 2^-126 for zero, on either side.
        tiny, width = 2.0**-126, vectors.shape[1]
        self.error += 0.0 if self._vector else tiny * width**0.5
        lost = 2 * width * tiny * max(1.0, greatest, float(np.abs(vectors).max(initial=0.0)))
        self.least = 2.0**-24 / self._shift[:, 0] if self._vector else np.full(len(vectors), lost)
        room = (0 if self._vector else max(1, CELLS // max(1, vectors.shape[1])), vectors.shape[1])
        self._wide = _room(room, torch.float32)
        self._narrow = self._wide if self._type == torch.float32 else _room(room, self._type)

    def __call__(self, points: NDArray[np.float16]) -> NDArray[np.float32]:
        """Products with some points. (n, width) -> (requests, n).

        Each is off by no more than the request's `error` times the norm of the point, plus the request's `least`.
        """
        import torch

        with torch.autocast("cpu", enabled=False):
            return self._products(torch.from_numpy(points))

    def _products(self, block: torch.Tensor) -> NDArray[np.float32]:
        import torch

        if self._vector:
            found = torch.stack([torch.mv(block, request) for request in self._rounded]).float()
            return found.mul_(torch.from_numpy((1 / self._shift).astype(np.float32))).numpy()
        found = _room((len(self._rounded), len(block)), torch.float32)
        step = len(self._wide)
        for start in range(0, len(block), step):
            part = block[start : start + step]
            wide, narrow = self._wide[: len(part)], self._narrow[: len(part)]
            wide.copy_(part)
            if narrow is not wide:  # by way of float32: the direct conversion takes four times as long
                narrow.copy_(wide)
            found[:, start : start + step] = torch.mm(narrow, self._rounded.T).T
        return found.numpy()


def _room(shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    """An empty matrix on the CPU, whatever torch's defaults are."""
    import torch

    return torch.empty(shape, dtype=dtype, device="cpu")


def fastest(requests: int) -> Kind:
    """The way to multiply so many requests that is the fastest on this machine; no result depends on it."""
    return _probed(1 if requests < FEW else 32)


@cache
def _probed(requests: int) -> Kind:
    """Tries the kinds on random points for some milliseconds. One whose error exceeds its bound here is left out."""
    rng = np.random.default_rng(0)
    # Of one sign, so that errors of summing add up and show.
    points = np.abs(rng.standard_normal((1 << 13, 256))).astype(np.float16)
    vectors = np.abs(rng.standard_normal((requests, 256)))
    norms = np.linalg.norm(points.astype(np.float64), axis=1)
    exact = vectors @ points.astype(np.float64).T
    times = {}
    for kind in (FULL, HALF, BRIEF) if requests < FEW else (FULL, BRIEF):
        factors = Factors(kind, vectors, float(norms.max()))
        if (np.abs(factors(points) - exact) <= factors.error[:, None] * norms + factors.least[:, None]).all():
            times[kind] = min(_seconds(factors, points) for _ in range(5))
    return min(times, key=lambda kind: times[kind])


def _seconds(factors: Factors, points: NDArray[np.float16]) -> float:
    start = time.perf_counter()
    factors(points)
    return time.perf_counter() - start


def product(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Matrix product in single precision.

    By torch and not by numpy: each brings threads of its own, which wait by spinning and keep the other's from running.
    With numpy's, a request of a 5-million-parameter backbone took 16 ms on two cores where thinking alone took 7.
    """
    import torch

    return (torch.from_numpy(a) @ torch.from_numpy(b)).numpy()


def mean(vectors: NDArray[Any], known: Mask | None = None) -> NDArray[np.float64]:
    """Mean of the known vectors in double precision, without a copy. Zeros for no vectors. Shape: (width,)."""
    total = np.zeros(vectors.shape[1])
    step = max(1, CELLS // max(1, vectors.shape[1]))
    for part in (slice(start, start + step) for start in range(0, len(vectors), step)):
        block = vectors[part] if known is None else vectors[part][known[part]]
        total += block.sum(axis=0, dtype=np.float64)
    return total / max(1, len(vectors) if known is None else int(known.sum()))

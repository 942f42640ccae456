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

BRIEF_CELLS = 1 << 20
"""Coordinates of points made bfloat16 at once: 2 MiB."""

SINGLE = 2.0**-24
"""Unit roundoff of float32."""


@dataclass(frozen=True)
class Kind:
    """A way to multiply.

    Args:
        name: torch's name of the type.
        points: greatest relative error of a point's coordinate.
        products: greatest relative error of a result, beside that of summing in single precision.
        smallest: greatest absolute error of a coordinate that is taken for zero.
        lift: what points are too small by when they are multiplied, a power of two.
    """

    name: str
    points: float
    products: float
    smallest: float = 0.0
    lift: float = 1.0


HALF = Kind("float16", 0.0, 2.0**-11)
BRIEF = Kind("bfloat16", 2.0**-8, 2.0**-8, smallest=2.0**-14, lift=2.0**112)
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
        width = vectors.shape[1]
        self._shift = _shift(kind, vectors, greatest)
        self._rounded = torch.from_numpy(vectors * self._shift).to(self._type)
        told = self._rounded.double().numpy() / self._shift
        missed, norms = vectors - told, np.sqrt(np.einsum("ij,ij->i", told, told))
        summed = (width + 2) * SINGLE
        # A hundredth covers products of errors, and the rounding of this line.
        self.error = 1.01 * (
            norms * (kind.points + kind.products + summed) + np.sqrt(np.einsum("ij,ij->i", missed, missed))
        )
        self._back = torch.from_numpy((kind.lift / self._shift).astype(np.float32))
        if kind.name == HALF.name:
            self.least = 2.0**-24 / self._shift[:, 0]
        else:  # units may take what is below 2^-126, a request's coordinate, a product or a sum of them, for zero
            tiny = 2.0**-126
            self.error += tiny * width**0.5 / self._shift[:, 0]
            lost = 2 * width * tiny * kind.lift * max(1.0, greatest, float(np.abs(vectors).max(initial=0.0)))
            self.least = lost / self._shift[:, 0] + 1.01 * norms * kind.smallest * width**0.5
        room = (max(1, (BRIEF_CELLS if kind.name == BRIEF.name else CELLS) // max(1, width)), width)
        self._room = _room((0, width) if kind.name == HALF.name else room, self._type)

    def __call__(self, points: NDArray[np.float16]) -> NDArray[np.float32]:
        """Products with some points. (n, width) -> (requests, n).

        Each is off by no more than the request's `error` times the norm of the point, plus the request's `least`.
        """
        import torch

        with torch.autocast("cpu", enabled=False):
            return self._products(torch.from_numpy(points))

    def _products(self, block: torch.Tensor) -> NDArray[np.float32]:
        import torch

        if self.kind.name == HALF.name:
            found = torch.stack([torch.mv(block, request) for request in self._rounded])
            return found.float().mul_(self._back).numpy()
        found = _room((len(block), len(self._rounded)), self._type)
        step = len(self._room)
        for start in range(0, len(block), step):
            part = block[start : start + step]
            ready = self._room[: len(part)]
            _shorten(part, ready) if self.kind.name == BRIEF.name else ready.copy_(part)
            torch.mm(ready, self._rounded.T, out=found[start : start + step])
        # Turned in its own type: half the bytes.
        return found.T.contiguous().float().mul_(self._back).numpy()


def _shift(kind: Kind, vectors: NDArray[np.float64], greatest: float) -> NDArray[np.float64]:
    """The powers of two that requests are multiplied by, so that all that is computed stays in the type's range.

    Shape: (requests, 1).
    """
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    if kind.name == HALF.name:  # results and coordinates within 2^16, and far above the smallest number there is
        return np.exp2(15 - np.ceil(np.log2(np.maximum(norms, 2.0**-900) * max(greatest, 1.0))))
    if kind.name == BRIEF.name:  # far above 2^-126 though points come 2^-112 too small, and `_back` no less than that
        return np.exp2(100 - np.ceil(np.log2(np.maximum(norms, 2.0**-138))))
    return np.ones_like(norms)


def _shorten(points: torch.Tensor, out: torch.Tensor) -> None:
    """float16 to bfloat16 times 2^-112, by three integer operations on the bits.

    Three bits of the mantissa go, rounded away from zero at a half: off by no more than 2^-8 of the coordinate. The
    exponent keeps its five bits in a field of eight. What was below 2^-14 is below 2^-126 then, which units may take
    for zero. torch's conversion by way of float32 takes half again as long, its direct one seven times.
    """
    import torch

    bits, short = points.view(torch.int16).numpy(), out.view(torch.int16).numpy()
    np.add(bits, 4, out=short)
    np.right_shift(short, 3, out=short)  # copies the sign, which the next line takes out of the exponent's upper bits
    np.bitwise_and(short, np.int16(-0x7001), out=short)


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

"""Values to coordinates, and ticks at round values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
"""Distances between ticks that read well, times a power of ten."""


@dataclass(frozen=True)
class Linear:
    """Equal differences are equal lengths.

    Args:
        low: value at `start`.
        high: value at `stop`, above `low`.
        start: coordinate of the smallest value.
        stop: coordinate of the largest; below `start` on a vertical axis, where SVG counts downwards.
        ticks: values that get a line and a number.
    """

    low: float
    high: float
    start: float
    stop: float
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> float:
        """The coordinate of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)

    @classmethod
    def fitting(
        cls, values: Iterable[float], start: float, stop: float, *, zero: bool = True, wanted: int = 5
    ) -> Linear:
        """The scale from tick to tick that holds all values, and 0 if wanted."""
        held = [*values, *([0.0] if zero else [])] or [0.0]
        low, high = min(held), max(held)
        if low == high:
            low, high = (min(low, 0.0), max(high, 0.0)) if low else (0.0, 1.0)
        step = round_step((high - low) / wanted)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        # step * n for whole n, rounded: adding steps up would print .30000000000000004
        ticks = tuple(round(step * number, 12) for number in range(first, last + 1))
        return cls(ticks[0], ticks[-1], start, stop, ticks)


@dataclass(frozen=True)
class Log:
    """Equal ratios are equal lengths. Arguments as for `Linear`; `low` is above 0."""

    low: float
    high: float
    start: float
    stop: float
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> float:
        """The coordinate of a value above 0."""
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.stop - self.start)

    @classmethod
    def fitting(cls, values: Iterable[float], start: float, stop: float, *, at: Iterable[float] | None = None) -> Log:
        """The scale that holds all values above 0 with some air around them.

        Args:
            values: to be held.
            start: coordinate of the low end.
            stop: coordinate of the high end.
            at: ticks to use instead of round ones.
        """
        held = [value for value in values if value > 0] or [1.0]
        air = max((max(held) / min(held)) ** 0.06, 1.15)
        low, high = min(held) / air, max(held) * air
        ticks = tuple(sorted(at)) if at is not None else log_ticks(low, high)
        return cls(low, high, start, stop, ticks)


Scale = Linear | Log


def round_step(raw: float) -> float:
    """The smallest of the round steps that is not below `raw`."""
    power = 10.0 ** math.floor(math.log10(raw))
    return next(step * power for step in STEPS if step * power >= raw * (1 - 1e-9))


def log_ticks(low: float, high: float) -> tuple[float, ...]:
    """Powers of ten within the bounds; with 2 and 5 times them where that makes no more than six."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    candidates = [round(digit * 10.0**exponent, 12) for exponent in exponents for digit in (1, 2, 5)]
    fine = tuple(value for value in candidates if low <= value <= high)
    tens = tuple(round(10.0**exponent, 12) for exponent in exponents if low <= 10.0**exponent <= high)
    return fine if len(fine) <= 6 or len(tens) < 2 else tens

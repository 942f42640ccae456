"""How long answering takes: learnt from the batches that were answered."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

FORGETTING = 0.95
"""Weight of all former batches at each new one: about the last 20 count."""

MOST_OVERSHOOT = 2.0
"""Most by which an estimate is raised for batches that took longer than estimated."""

FIRST_GUESS = 0.02
"""Seconds of a request of a kind that was never answered."""


@dataclass
class Line:
    """Seconds of a batch as a line over its tokens: a constant and a slope, by least squares over recent batches."""

    weight: float = 0.0
    tokens: float = 0.0
    seconds: float = 0.0
    squares: float = 0.0
    products: float = 0.0
    overshoot: float = 1.0

    def learn(self, tokens: int, seconds: float) -> None:
        """Takes in a batch."""
        if self.weight:
            ratio = seconds / max(self.predict(tokens), 1e-6)
            # Rises at once, falls slowly: a promise is kept in the slow moments, too.
            self.overshoot = min(MOST_OVERSHOOT, max(ratio, 1 + (self.overshoot - 1) * FORGETTING))
        for name, value in (
            ("weight", 1.0),
            ("tokens", tokens),
            ("seconds", seconds),
            ("squares", tokens * tokens),
            ("products", tokens * seconds),
        ):
            setattr(self, name, getattr(self, name) * FORGETTING + value)

    def predict(self, tokens: float, batches: float = 1.0) -> float:
        """Seconds that so many tokens take in so many batches."""
        if not self.weight:
            return FIRST_GUESS * batches
        mean_tokens, mean_seconds = self.tokens / self.weight, self.seconds / self.weight
        spread = self.squares / self.weight - mean_tokens**2
        slope = 0.0
        if spread > 1e-3 * mean_tokens**2:
            slope = (self.products / self.weight - mean_tokens * mean_seconds) / spread
        elif mean_tokens:
            slope = mean_seconds / mean_tokens
        # Neither part may be negative: a line through noise must not promise that more work takes less time.
        slope = min(max(slope, 0.0), mean_seconds / mean_tokens if mean_tokens else 0.0)
        return max(mean_seconds - slope * mean_tokens, 0.0) * batches + slope * tokens


class Pace:
    """Estimates by kind of work.

    Args:
        guess: seconds of a request of a kind that was never answered.
    """

    def __init__(self, guess: Callable[[Hashable], float] = lambda _: FIRST_GUESS) -> None:
        self._guess = guess
        self._lines: dict[Hashable, Line] = {}

    def learn(self, kind: Hashable, tokens: int, seconds: float) -> None:
        """Takes in that a batch took so long."""
        self._lines.setdefault(kind, Line()).learn(tokens, seconds)

    def likely(self, kind: Hashable, tokens: float, batches: float = 1.0) -> float:
        """What so many tokens in so many batches will probably take."""
        line = self._lines.get(kind)
        return self._guess(kind) * batches if line is None else line.predict(tokens, batches)

    def seconds(self, kind: Hashable, tokens: float, batches: float = 1.0) -> float:
        """The same, rather too long than too short: what a promise is made by."""
        line = self._lines.get(kind)
        return self.likely(kind, tokens, batches) * (1.0 if line is None else line.overshoot)

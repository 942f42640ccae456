"""auto and what it is made of, written as loops in double precision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from l2d.decode import Recipe
from l2d.memory import Entries
from l2d.ranking import Requests
from planted import DAY, Planted

TINY = float(np.finfo(np.float32).tiny)

Vector = NDArray[np.float64]


def plain_associations(
    windows: Sequence[Sequence[int]], backwards: float, damping: float
) -> dict[tuple[int, int], float]:
    """Links as (from, to): weight."""
    together: Counter[tuple[int, int]] = Counter()
    for *history, target in windows:
        for lag, item in enumerate(reversed(history), start=1):
            together[item, target] += 1 / lag  # type: ignore[assignment]
    return plain_both_ways(together, backwards, damping)


def plain_both_ways(
    together: Mapping[tuple[int, int], float], backwards: float, damping: float
) -> dict[tuple[int, int], float]:
    """Links with what leads backwards added, divided by a power of their sums."""
    both: Counter[tuple[int, int]] = Counter()
    for (before, after), weight in together.items():
        both[before, after] += weight
        if backwards:
            both[after, before] += backwards * weight  # type: ignore[assignment]
    totals: Counter[int] = Counter()
    for (source, _), weight in both.items():
        totals[source] += weight
    return {pair: weight / max(1.0, totals[pair[0]]) ** damping for pair, weight in both.items()}


def plain_link_scores(
    links: dict[tuple[int, int], float], history: Sequence[int], fading: float, items: int
) -> list[float]:
    """Every item's sum over a history."""
    sums = [0.0] * items
    for lag, source in enumerate(reversed(history), start=1):
        for target in range(items):
            sums[target] += links.get((source, target), 0.0) / lag**fading
    return sums


def plain_spread(entries: Entries) -> tuple[Vector, Vector, Vector]:
    """Centre, total and within: sums over entries, and over items with two or more."""
    thoughts = [thought.astype(np.float64) for thought in entries.thoughts]
    centre = sum(thoughts, np.zeros(entries.width)) / len(thoughts)
    total = sum((np.outer(t - centre, t - centre) for t in thoughts), np.zeros((entries.width,) * 2)) / len(thoughts)
    within, several = np.zeros_like(total), 0
    for row in set(entries.row.tolist()):
        own = [thought for thought, of in zip(thoughts, entries.row.tolist(), strict=True) if of == row]
        if len(own) > 1:
            mean = sum(own, np.zeros(entries.width)) / len(own)
            scatter = sum((np.outer(t - mean, t - mean) for t in own), np.zeros_like(total)) / (len(own) - 1)
            within += len(own) * scatter
            several += len(own)
    return centre, total, within / several if several else total


def plain_distance(entries: Entries, shrinkage: float | None) -> Vector:
    """The matrix A of squared distances (x - y)' A (x - y), of which the entries' mean from their centre is 1."""
    centre, _, within = plain_spread(entries)
    shape = np.eye(entries.width)
    if shrinkage is not None:
        shape = np.linalg.inv(within / (np.trace(within) / entries.width) + shrinkage * np.eye(entries.width))
    away = [float((t - centre) @ shape @ (t - centre)) for t in entries.thoughts.astype(np.float64)]
    return shape / (sum(away) / len(away))


def plain_probabilities(
    thought: Vector, vectors: Sequence[Vector], prior: Sequence[float], shape: Vector, temperature: float
) -> list[float]:
    """Softmax of log prior - distance² / temperature; what is possible stays above zero."""
    powers = [
        np.log(before) - float((thought - vector) @ shape @ (thought - vector)) / temperature if before else -np.inf
        for vector, before in zip(vectors, prior, strict=True)
    ]
    parts = [float(np.exp(power - max(powers))) for power in powers]
    return [max(part / sum(parts), TINY) if before else 0.0 for part, before in zip(parts, prior, strict=True)]


class PlainAuto:
    """The score of every item, one request at a time."""

    def __init__(self, world: Planted, recipe: Recipe) -> None:
        self.world, self.recipe = world, recipe
        entries, text = world.materials.entries, world.materials.text
        self.entries_of = Counter(entries.row.tolist())
        newest = max(entries.timestamp.tolist())
        recent = [0.0] * world.items
        for row, time in zip(entries.row.tolist(), entries.timestamp.tolist(), strict=True):
            age = (newest - time) / DAY
            recent[row] += 1.0 if recipe.half_life is None else 2.0 ** (-age / recipe.half_life)
        self.vectors, self.prior = [], []
        for row in range(world.items):
            own = [t.astype(np.float64) for t, of in zip(entries.thoughts, entries.row, strict=True) if of == row]
            title = None if text is None else text[row].astype(np.float64)
            if own:
                heavy = 0.0 if title is None else recipe.text
                drawn = sum(own, heavy * (0.0 if title is None else title)) / (len(own) + heavy)
                self.vectors.append(drawn)
                self.prior.append(recent[row] ** recipe.prior)
            else:
                given = 0.0 if title is None else recipe.newcomer * sum(recent) / len(self.entries_of)
                self.vectors.append(np.zeros(entries.width) if title is None else title)
                self.prior.append(given**recipe.prior if given else 0.0)
        self.shape = plain_distance(entries, recipe.shrinkage)
        self.links = plain_associations(world.windows, recipe.backwards, recipe.damping)

    def scores(self, history: Sequence[int], thought: Vector) -> list[float]:
        recipe = self.recipe
        said = plain_probabilities(thought, self.vectors, self.prior, self.shape, recipe.temperature)
        counted = plain_link_scores(self.links, history, recipe.fading, self.world.items)
        shares = []
        for part in (said, counted):
            kept = [value * self._factor(history, row) for row, value in enumerate(part)]
            total = sum(kept)
            shares.append([value / total if total else 0.0 for value in kept])
        return [recipe.thought * a + (1 - recipe.thought) * b for a, b in zip(*shares, strict=True)]

    def candidates(self, requests: Requests, line: int) -> set[int]:
        allowed = set(range(self.world.items))
        if requests.allow is not None and requests.allow[line] is not None:
            allowed &= set(requests.allow[line].tolist())
        if requests.exclude is not None:
            allowed -= set(requests.exclude[line].tolist())
        return {row for row in allowed if self.entries_of[row] >= requests.minimum_entries}

    def lists(self, requests: Requests, k: int) -> list[dict[int, float]]:
        """Rows and scores of each list, best first."""
        found = []
        assert requests.thoughts is not None
        for line, (history, thought) in enumerate(zip(requests.histories, requests.thoughts, strict=True)):
            scores = self.scores(history.tolist(), thought.astype(np.float64))
            listed = [row for row in self.candidates(requests, line) if scores[row] > 0]
            best = sorted(listed, key=lambda row: (-scores[row], row))[:k]
            found.append({row: scores[row] for row in best})
        return found

    def _factor(self, history: Sequence[int], row: int) -> float:
        if row not in history:
            return 1.0
        return self.recipe.repeat_last if row == history[-1] else self.recipe.repeat

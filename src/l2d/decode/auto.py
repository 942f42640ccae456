"""auto: what the thought says and what training histories count, added as probabilities.

Both kinds of evidence give each item a probability; their weighted sum is the score. The thought sees what titles mean
and reaches deep into the catalogue, the counts know which items follow each other, and each is blind where the other
sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2d.decode.classes import ItemClasses, Spread, blended
from l2d.decode.prior import Prior
from l2d.errors import ConfigError
from l2d.evidence import Evidence, Links, blocks
from l2d.memory import Entries, ItemVectors, aggregate
from l2d.ranking import Rankings, Requests, Rows, top_k

Cells = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Places in a matrix: lines and columns."""


@dataclass(frozen=True)
class Recipe:
    """The constants of auto. The defaults are where a calibration starts.

    Args:
        thought: share of the thought in the score, 0 to 1; the rest is the counts'.
        shrinkage: of the covariance within items toward a sphere; None for plain Euclidean distances.
        temperature: of squared distances, in units of the thoughts' mean squared distance from their centre.
        prior: power of the item's recent entries in its probability given a thought.
        half_life: days after which an entry counts half for `prior`; None for never.
        text: entries that an item's title is worth in its vector.
        newcomer: entries that an item without any is given in `prior`, as a multiple of the known items' mean; 0 leaves
            such items out of what the thought can find.
        backwards: what an item that came before counts, against 1 for one that came after.
        damping: power of an item's sum of counts by which its counts are divided.
        fading: power of 1/lag that an item of the history weighs.
        repeat: factor on items of the history, which seldom come again.
        repeat_last: factor on the history's last item.
    """

    thought: float = 0.5
    shrinkage: float | None = 3.0
    temperature: float = 0.1
    prior: float = 0.4
    half_life: float | None = None
    text: float = 2.0
    newcomer: float = 0.0
    backwards: float = 0.25
    damping: float = 0.5
    fading: float = 0.75
    repeat: float = 0.3
    repeat_last: float = 0.3

    def __post_init__(self) -> None:
        numbers = {field.name: getattr(self, field.name) for field in fields(self)}
        wrong = [name for name, value in numbers.items() if value is not None and not 0 <= value < float("inf")]
        if wrong or not self.temperature or self.shrinkage == 0 or self.half_life == 0 or self.thought > 1:
            raise ConfigError("impossible constants of auto", got=numbers, cure="run `l2d calibrate RUN` again")

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Recipe:
        """From JSON values.

        Raises:
            TypeError, ValueError: not these constants.
        """
        return cls(**{name: None if value is None else float(value) for name, value in record.items()})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Materials:
    """What auto is made of, whatever its constants.

    Args:
        evidence: counts of the training examples.
        entries: the memory.
        items: its item vectors.
        spread: how thoughts scatter, as measured by the calibration.
        text: vectors that the titles predict; None where they were not read. Shape: (items, width).
    """

    evidence: Evidence
    entries: Entries
    items: ItemVectors
    spread: Spread
    text: NDArray[np.float32] | None = None

    def without(self, rows: NDArray[np.bool_]) -> Materials:
        """As if the marked items had come into the catalogue after the last entry. Shape of the marks: (items,)."""
        entries = self.entries.take(np.flatnonzero(~rows[self.entries.row]))
        items = aggregate(entries, len(self.items))
        return replace(self, evidence=self.evidence.without(rows), entries=entries, items=items)

    def prior(self, recipe: Recipe) -> Prior:
        """How probable items are before a thought is read."""
        newcomer = 0.0 if self.text is None else recipe.newcomer
        return Prior(self.entries, self.items, half_life=recipe.half_life, power=recipe.prior, newcomer=newcomer)

    def classes(self, recipe: Recipe, prior: Prior | None = None) -> ItemClasses:
        """What the thought says."""
        return ItemClasses(
            self.spread,
            blended(self.items, self.text, recipe.text),
            (prior or self.prior(recipe)).weights(),
            shrinkage=recipe.shrinkage,
            temperature=recipe.temperature,
        )

    def links(self, recipe: Recipe) -> Links:
        """What counts say: from an item to those that stood near it."""
        return self.evidence.associations(recipe.backwards, recipe.damping)


@dataclass(frozen=True)
class Seen:
    """Where the histories' own items stand in a matrix of one line per request.

    Args:
        last: the last item of each history.
        older: its other items.
    """

    last: Cells
    older: Cells

    @classmethod
    def of(cls, histories: Sequence[Rows]) -> Seen:
        """Collects them; an item that is last and older counts as last."""
        full = [line for line, history in enumerate(histories) if len(history)]
        last = np.array([histories[line][-1] for line in full], dtype=np.int64)
        older = [np.unique(histories[line][:-1]) for line in full]
        older = [rows[rows != final] for rows, final in zip(older, last.tolist(), strict=True)]
        lines = np.repeat(np.array(full, dtype=np.int64), [len(rows) for rows in older])
        return cls((np.array(full, np.int64), last), (lines, np.concatenate([np.empty(0, np.int64), *older])))

    def damp(self, scores: NDArray[np.float32], recipe: Recipe) -> NDArray[np.float32]:
        """Multiplies the histories' own items, then makes each line that is not all zero sum to one; in place."""
        scores[self.older] *= np.float32(recipe.repeat)
        scores[self.last] *= np.float32(recipe.repeat_last)
        scores /= np.maximum(scores.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return scores


class Auto:
    """Ranks by thought * P(item | thought) + (1 - thought) * P(item | counts).

    An item that neither kind of evidence knows is not listed. With `minimum_entries` of 0 items without entries, known
    by their titles, may be.

    Args:
        materials: memory and counts.
        recipe: the constants.
    """

    name = "auto"
    needs_thoughts = True

    def __init__(self, materials: Materials, recipe: Recipe) -> None:
        self.materials, self.recipe = materials, recipe

    @cached_property
    def prior(self) -> Prior:
        """How probable items are before the thought is read."""
        return self.materials.prior(self.recipe)

    @cached_property
    def classes(self) -> ItemClasses:
        """What the thought says."""
        return self.materials.classes(self.recipe, self.prior)

    @cached_property
    def links(self) -> Links:
        """What counts say."""
        return self.materials.links(self.recipe)

    def follow(self, first: int) -> None:
        """Takes in entries that were appended to the memory, once its item vectors have followed them.

        Only the classes of their items are made again. What counts say, and the metric, stay as they are.

        Args:
            first: place of the first one that is new here.
        """
        if "classes" not in self.__dict__:
            return
        rows = np.unique(self.materials.entries.row[first:]).astype(np.int64)
        self.classes.place(rows, blended(self.materials.items, self.materials.text, self.recipe.text, rows))
        changed = self.prior.follow(first)
        self.classes.weigh(changed, self.prior.weights(changed))

    def recount(self, evidence: Evidence) -> None:
        """Goes over to other counts."""
        self.materials = replace(self.materials, evidence=evidence)
        self.__dict__.pop("links", None)

    def rank(self, requests: Requests, k: int) -> Rankings:
        """Ranks the whole catalogue for each request and keeps the best k.

        Raises:
            ConfigError: k below 1, or requests without thoughts.
        """
        items = len(self.materials.items)
        known = self.materials.items.counts >= requests.minimum_entries
        parts = []
        for block in blocks(len(requests), items):
            part = requests.take(range(len(requests))[block])
            thought, counts = self.evidence(part)
            scores = thought + counts
            allowed = (scores > 0) & known
            if part.filtered and len(part):
                allowed &= np.stack([part.candidates(line, items) for line in range(len(part))])
            parts.append(top_k(scores, k, allowed))
        return Rankings.concatenate(parts)

    def evidence(self, requests: Requests) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What thought and counts add to each item's score. Shapes: (requests, items)."""
        if requests.thoughts is None:
            raise ConfigError("auto needs the requests' thoughts", cure="fill Requests.thoughts with a Thinker")
        seen, share = Seen.of(requests.histories), np.float32(self.recipe.thought)
        thought = seen.damp(self.classes.probabilities(requests.thoughts), self.recipe)
        counts = seen.damp(self.links.scores(requests.histories, self.recipe.fading), self.recipe)
        return share * thought, (1 - share) * counts

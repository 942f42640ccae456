"""Why an item was recommended, as its receiver may read it: nothing that leads back to a single other person.

What is shown rests on people, not on entries, and obeys four rules. An item stands as evidence only where at least
`FEWEST` people carry it. Numbers of people are given as the largest of `STAIRS` that they reach. A share is rounded to
a step at least as wide as what any one person adds to it, so that it looks much the same with that person and without;
where no step of `STEPS` is wide enough, no share is given. And at most `MOST` items of other people's histories are
named, always sorted by how many people share them, so that no list is one person's history.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from l2d.decode import Vote
from l2d.decode.latent import neighbourhoods
from l2d.memory import Entries
from l2d.ranking import Rows
from l2d.recommender.explaining import links_to, sample_histories

if TYPE_CHECKING:
    from l2d.recommender.asked import AskedRun

FEWEST = 3
"""People who must carry what is shown."""

STAIRS = (0, FEWEST, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
"""Numbers of people as they are shown; fewer than `FEWEST` are shown as none."""

STEPS = (0.05, 0.1, 0.2, 0.5)
"""What shares are rounded to."""

MOST = 5
"""Items from other people's histories that are named, at most."""

NEWEST = 500
"""Entries of an item that are looked at: older ones could only add people."""

Parts = dict[str, float]
"""What each person adds to a figure, by user id."""


@dataclass(frozen=True)
class Led:
    """An item of the receiver's own history that led to a recommendation.

    Args:
        item_id: its id.
        title: its title.
        share: its share of the recommended item's score, rounded; None where that could tell of a single person.
    """

    item_id: str | int
    title: str
    share: float | None


@dataclass(frozen=True)
class Common:
    """An item that people who took the recommended one had in their histories.

    Args:
        item_id: its id.
        title: its title.
        people: at least so many of them had it.
        share: their share of these people, rounded; None where that could tell of a single person.
    """

    item_id: str | int
    title: str
    people: int
    share: float | None


@dataclass(frozen=True)
class PublicExplanation:
    """Why an item is recommended, without anybody else's id, time or history.

    Args:
        item_id: the recommended item.
        title: its title.
        cold: whether it was recommended because it is popular, there being no history.
        people: at least so many took it, of those whose histories are like this one (or of all, if `cold`); 0 for fewer
            than three.
        thought: share of its score in auto that the backbone's reading of the history gave, rounded.
        counts: the share that counting gave: how often it stood near an item of the history. Both are None where the
            run is not calibrated, auto does not know the item, or they could tell of a single person.
        history: the receiver's own items that counts lead from, the largest share first.
        evidence: items that these people had in common, those of most people first.
    """

    item_id: str | int
    title: str
    cold: bool = False
    people: int = 0
    thought: float | None = None
    counts: float | None = None
    history: tuple[Led, ...] = ()
    evidence: tuple[Common, ...] = ()


def disclose(run: AskedRun, rows: Rows, items: Sequence[int]) -> list[PublicExplanation]:
    """See `AskedRun.explain_many`."""
    history, catalog = run.trimmed(rows), run.catalog
    if len(history):
        return Disclosure(run, history).of(items)
    people = [stair(len(took(run.entries, row))) for row in items]
    return [
        PublicExplanation(catalog.item_id(row), catalog.titles[row], True, some)
        for row, some in zip(items, people, strict=True)
    ]


class Disclosure:
    """What one history's recommendations rest on.

    Args:
        run: the open run.
        history: rows, oldest first, trimmed.
    """

    def __init__(self, run: AskedRun, history: Rows) -> None:
        self._run, self._history = run, history
        self._requests = run.requests([history], think=True)
        self._looked_up = sample_histories(run.remembered())
        vote = run.decoder("vote")
        assert isinstance(vote, Vote)
        near = neighbourhoods(vote.entries, vote.items, self._requests, vote.neighbours, approximate=vote.approximate)
        self._near = near.index
        self._rows = vote.entries.row[near.index]
        self._evidence = run.auto.evidence(self._requests) if run.calibrated else None

    def of(self, items: Sequence[int]) -> list[PublicExplanation]:
        """One explanation per row."""
        return [self._one(row) for row in items]

    def _one(self, row: int) -> PublicExplanation:
        name = self._run.catalog.item_id(row), self._run.catalog.titles[row]
        places = self._near[self._rows == row]
        people = {person(self._run.entries, place) for place in places.tolist()}
        thought, counts, led = self._shares(row)
        return PublicExplanation(*name, False, stair(len(people)), thought, counts, led, self._common(places, people))

    def _common(self, places: Iterable[int], people: set[str]) -> tuple[Common, ...]:
        """What people who took the item had."""
        having: defaultdict[int, set[str]] = defaultdict(set)
        for place in map(int, places):
            for seen in self._looked_up(int(self._run.entries.sample[place])):
                having[seen].add(person(self._run.entries, place))
        enough = [(seen, len(some)) for seen, some in having.items() if len(some) >= FEWEST]
        catalog, one = self._run.catalog, 1 / max(1, len(people))
        return tuple(
            Common(catalog.item_id(seen), catalog.titles[seen], stair(some), rounded(some * one, one))
            for seen, some in sorted(enough, key=lambda pair: (-pair[1], pair[0]))[:MOST]
        )

    def _shares(self, row: int) -> tuple[float | None, float | None, tuple[Led, ...]]:
        """Shares of thought and counts, and of each item of the history; counts of few people do not count at all."""
        nothing = None, None, ()
        takers = took(self._run.entries, row)
        if self._evidence is None or len(takers) < FEWEST:
            return nothing
        thought, counts = (float(part[0, row]) for part in self._evidence)
        linked = links_to(self._run.auto, self._history, row)
        weight = sum(linked.values())
        carried = {seen: self._carried(seen, row) for seen, link in linked.items() if link and weight}
        given = {seen: counts * linked[seen] / weight for seen, parts in carried.items() if len(parts) >= FEWEST}
        whole = thought + sum(given.values())
        if not whole:
            return nothing
        added = {seen: scaled(carried[seen], part / whole) for seen, part in given.items()}
        largest = max(joined([*added.values(), scaled(takers, thought / whole)]).values())
        share = rounded(sum(given.values()) / whole, largest)
        catalog = self._run.catalog
        led = [
            Led(catalog.item_id(seen), catalog.titles[seen], rounded(part / whole, max(added[seen].values())))
            for seen, part in sorted(given.items(), key=lambda pair: (-pair[1], pair[0]))
        ]
        return None if share is None else round(1 - share, 2), share, tuple(one for one in led if one.share != 0)

    def _carried(self, seen: int, row: int) -> Parts:
        """What each person adds to the link from one item to another: who took the one after the other, either way."""
        parts: defaultdict[str, float] = defaultdict(float)
        entries, backwards = self._run.entries, self._run.auto.recipe.backwards
        for before, after, weight in ((seen, row, 1.0), (row, seen, backwards)):
            for place in newest(entries, after) if weight else ():
                history = self._looked_up(int(entries.sample[place]))
                for lag, other in enumerate(reversed(history), start=1):
                    if other == before:
                        parts[person(entries, place)] += weight / lag
        return parts


def person(entries: Entries, place: int) -> str:
    """Whose an entry is."""
    return entries.user_ids[entries.user[place]]


def newest(entries: Entries, row: int) -> list[int]:
    """The newest entries of an item."""
    return entries.places(np.array([row]))[-NEWEST:].tolist()


def took(entries: Entries, row: int) -> Parts:
    """Who took an item, and how often."""
    parts: defaultdict[str, float] = defaultdict(float)
    for place in newest(entries, row):
        parts[person(entries, place)] += 1.0
    return parts


def stair(people: int) -> int:
    """A number of people as it is shown."""
    return STAIRS[bisect_right(STAIRS, people) - 1]


def rounded(share: float, largest: float) -> float | None:
    """A share as it is shown, or None where no step is as wide as the largest part that a single person has in it."""
    step = next((step for step in STEPS if step >= largest), None)
    return None if step is None else round(round(share / step) * step, 2)


def scaled(parts: Parts, whole: float) -> Parts:
    """The same parts of another sum."""
    total = sum(parts.values())
    return {who: part * whole / total for who, part in parts.items()}


def joined(several: Iterable[Parts]) -> Parts:
    """What each person adds to a sum of figures."""
    parts: defaultdict[str, float] = defaultdict(float)
    for one in several:
        for who, part in one.items():
            parts[who] += part
    return parts

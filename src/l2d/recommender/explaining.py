"""Why an item was recommended: what each kind of evidence gave, and the memory entries that voted for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from l2d.catalog import Catalog
from l2d.decode import Auto, Vote
from l2d.decode.latent import neighbourhoods
from l2d.ranking import Requests, Rows


class Remembered(Protocol):
    """Histories that entries of a memory were made of, such as `Examples`."""

    def places(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where those of some samples stand, -1 for samples that are not here. Shape: (samples,)."""
        ...

    def history(self, index: int) -> NDArray[np.int32]:
        """Rows of one of them, oldest first."""
        ...


@dataclass(frozen=True)
class Carrier:
    """An item that stood in the histories of the entries which carried a recommendation.

    Args:
        item_id: the user's id of it.
        title: its title.
        entries: how many of those entries had it in their history.
        share: their share of the recommended item's vote, 0 to 1.
    """

    item_id: str | int
    title: str
    entries: int
    share: float


@dataclass(frozen=True)
class Given:
    """What one kind of evidence gave to a recommendation.

    Args:
        kind: `thought`, or `counts`: how often the item stood near one of the history's.
        share: of its score, 0 to 1.
        item_id: the history's item, of counts.
        title: its title.
    """

    kind: str
    share: float
    item_id: str | int | None = None
    title: str | None = None


@dataclass(frozen=True)
class Explanation:
    """What carried one item.

    Args:
        item_id: the recommended item.
        title: its title.
        share: its share of all votes, 0 to 1; 0 where no neighbour carries it and global filled it in.
        entries: neighbouring entries that carry it.
        neighbours: entries that voted at all.
        carriers: items in those entries' histories, the largest share first.
        users: whose histories they were, strongest first; None unless asked for.
        evidence: what the thought and the counts of each item of the history gave to its score in auto, the largest
            share first; empty where the run is not calibrated, or auto does not know the item.
    """

    item_id: str | int
    title: str
    share: float
    entries: int
    neighbours: int
    carriers: tuple[Carrier, ...]
    users: tuple[str, ...] | None = None
    evidence: tuple[Given, ...] = ()


def evidence_for(auto: Auto, requests: Requests, row: int, catalog: Catalog) -> tuple[Given, ...]:
    """Splits an item's score in auto by kind of evidence, and the counts' part by item of the history.

    Args:
        auto: the decoder.
        requests: a single request with its thought.
        row: the item to explain.
        catalog: the items.
    """
    thought, counts = (float(part[0, row]) for part in auto.evidence(requests))
    if not thought + counts:
        return ()
    (history,) = requests.histories
    linked = links_to(auto, history, row)
    whole = sum(linked.values())
    given = [Given("thought", thought / (thought + counts))]
    given += [
        Given("counts", counts / (thought + counts) * weight / whole, catalog.item_id(seen), catalog.titles[seen])
        for seen, weight in linked.items()
        if counts and weight
    ]
    return tuple(sorted(given, key=lambda part: -part.share))


def links_to(auto: Auto, history: Rows, row: int) -> dict[int, float]:
    """What each item of a history adds to an item's counts, its place in the history included."""
    linked: dict[int, float] = {}
    for lag, seen in enumerate(reversed(history.tolist()), start=1):
        targets, weights = auto.links.of(seen)
        weight = float(weights[targets == row].sum()) / lag**auto.recipe.fading
        linked[seen] = linked.get(seen, 0.0) + weight
    return linked


def sample_histories(examples: Sequence[Remembered]) -> Callable[[int], list[int]]:
    """From a sample of the memory to the rows of its history, oldest first; each is looked up once."""

    @cache
    def looked_up(sample: int) -> list[int]:
        for part in examples:
            place = int(part.places(np.array([sample]))[0])
            if place >= 0:
                return part.history(place).tolist()
        return []

    return looked_up


def explain(
    vote: Vote,
    requests: Requests,
    row: int,
    catalog: Catalog,
    examples: Sequence[Remembered],
    *,
    with_users: bool = False,
) -> Explanation:
    """Splits the vote of one request by entry.

    Args:
        vote: the decoder.
        requests: a single request with its thought.
        row: the item to explain.
        catalog: the items.
        examples: what the memory's samples are examples of, part by part.
        with_users: whether users are named.
    """
    near = neighbourhoods(vote.entries, vote.items, requests, vote.neighbours, approximate=vote.approximate)
    weights = np.exp((near.squared[:1] - near.squared) / vote.temperature)
    carrying = vote.entries.row[near.index] == row
    shares = weights[carrying] / weights[carrying].sum() if carrying.any() else weights[carrying]
    places = near.index[carrying]
    carriers: dict[int, tuple[int, float]] = {}
    looked_up = sample_histories(examples)
    for sample, share in zip(vote.entries.sample[places].tolist(), shares.tolist(), strict=True):
        for seen in set(looked_up(sample)):
            count, total = carriers.get(seen, (0, 0.0))
            carriers[seen] = (count + 1, total + share)
    ordered = sorted(carriers.items(), key=lambda item: (-item[1][1], item[0]))
    users = vote.entries.user_ids
    return Explanation(
        catalog.item_id(row),
        catalog.titles[row],
        float(weights[carrying].sum() / weights.sum()) if len(weights) else 0.0,
        int(carrying.sum()),
        len(near.index),
        tuple(Carrier(catalog.item_id(seen), catalog.titles[seen], count, share) for seen, (count, share) in ordered),
        tuple(dict.fromkeys(users[vote.entries.user[place]] for place in places)) if with_users else None,
    )

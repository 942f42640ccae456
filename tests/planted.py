"""Small logs with a planted law: what follows what, and how well a thought knows its target."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from l2d.decode import Materials, Spread
from l2d.evidence import Evidence
from l2d.interactions import UNKNOWN_TIME, Examples, Interactions, split_leave_last_out
from l2d.memory import Entries, aggregate
from l2d.ranking import Requests, Rows

DAY = 86_400


@dataclass(frozen=True)
class Planted:
    """Materials from the training split, and the validation split as requests."""

    windows: list[list[int]]
    """Training examples: a history and, last, its target."""
    materials: Materials
    requests: Requests
    targets: Rows
    users: NDArray[np.int32]

    @property
    def items(self) -> int:
        return len(self.materials.items)


def planted(
    *,
    users: int = 30,
    steps: int = 8,
    items: int = 24,
    unseen: int = 3,
    width: int = 5,
    following: float = 0.7,
    noise: float = 0.7,
    repeats: float = 0.0,
    drift: bool = False,
    timed: bool = True,
    text: bool = False,
    cold: bool = False,
    seed: int = 0,
) -> Planted:
    """A log in which items stand on one ring.

    Args:
        users: with one validation request each.
        steps: items of each user.
        items: catalogue size.
        unseen: last rows of the catalogue, which no training example holds.
        width: of thoughts.
        following: chance that the next item is the last one's neighbour on the ring, and not any other.
        noise: deviation of a thought from its target's place; places deviate by 1 from each other.
        repeats: chance that the next item is one of the history, else it never is.
        drift: whether the first half of the items is taken in the first half of the steps alone, the rest afterwards.
        timed: whether interactions have times.
        text: whether titles predict places, about as well as a thought does.
        cold: whether every fourth validation target is an unseen item.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    known = items - unseen
    rows = np.array([_walk(rng, steps, known, following, repeats, drift) for _ in range(users)], np.int32)
    if cold:
        rows[::4, -2] = rng.integers(known, items, len(rows[::4]))
    days = np.sort(rng.integers(0, 60, (users, steps)), axis=1) * DAY
    times = days if timed else np.full_like(days, UNKNOWN_TIME)
    log = Interactions(
        tuple(f"user {user}" for user in range(users)),
        np.repeat(np.arange(users, dtype=np.int32), steps),
        rows.ravel(),
        times.ravel().astype(np.int64),
    )
    splits = split_leave_last_out(log)
    places = rng.standard_normal((items, width))

    def think(examples: Examples) -> NDArray[np.float32]:
        drawn = places[examples.target] + noise * rng.standard_normal((len(examples), width))
        return drawn.astype(np.float32)

    train, valid = splits.train, splits.valid
    entries = Entries(
        think(train).astype(np.float16),
        train.target,
        train.user,
        train.timestamp,
        np.arange(len(train)),
        log.user_ids,
    )
    vectors = aggregate(entries, items)
    predicted = (places + noise * rng.standard_normal(places.shape)).astype(np.float32)
    spread = Spread.of(entries, vectors)
    return Planted(
        [[*history.tolist(), target] for history, target in train],
        Materials(Evidence.learn(train, items), entries, vectors, spread, predicted if text else None),
        Requests(valid.histories(), think(valid)),
        valid.target,
        valid.user,
    )


def _walk(rng: np.random.Generator, steps: int, known: int, following: float, repeats: float, drift: bool) -> list[int]:
    taken = [int(rng.integers(known))]
    while len(taken) < steps:
        after = (taken[-1] + 1) % known
        if rng.random() < repeats:
            taken.append(int(rng.choice(taken)))
        elif rng.random() < following and after not in taken:
            taken.append(after)
        else:
            late = len(taken) >= steps / 2
            offered = np.arange(known) if not drift else np.arange(known // 2) + late * (known // 2)
            taken.append(int(rng.choice(np.setdiff1d(offered, taken))))
    return taken

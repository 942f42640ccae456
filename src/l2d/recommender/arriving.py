"""Interactions as they arrive, in the user's words and in the program's, and what became of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from l2d.catalog import Catalog
from l2d.catalog.metadata import whole
from l2d.errors import DataError, UnknownItem

AHEAD = 86_400
"""Seconds that the time of an interaction may be ahead of this machine's clock."""


@dataclass(frozen=True)
class Interaction:
    """A user took an item.

    Args:
        user_id: who; a user whom nobody knows yet is a new one.
        item_id: what, by its id in the catalogue.
        timestamp: when, unix seconds; None for now. With a time, writing the same once more does nothing.
    """

    user_id: str | int
    item_id: str | int
    timestamp: int | None = None


@dataclass(frozen=True)
class Written:
    """What `add_interactions` did.

    Args:
        added: interactions that are new.
        known: interactions that were written before, or are in the prepared data.
        entries: how many of the new ones made an entry of the memory: those of users with a history.
        seq: the last number that an interaction has.
        version: of the memory, with them.
    """

    added: int
    known: int
    entries: int
    seq: int
    version: str


@dataclass(frozen=True)
class Arrived:
    """Interactions in the program's words: ids as text, items as rows, every time known."""

    users: list[str]
    rows: list[int]
    times: list[int]

    def take(self, places: Sequence[int]) -> Arrived:
        """Those at the given places."""
        return Arrived(
            [self.users[place] for place in places],
            [self.rows[place] for place in places],
            [self.times[place] for place in places],
        )


def arrived(interactions: Sequence[Interaction], catalog: Catalog) -> Arrived:
    """Reads interactions.

    Raises:
        UnknownItem: an item that is not in the catalogue; names the interaction.
        DataError: an id or a time that cannot be; names the interaction.
    """
    now = int(time.time())
    found = Arrived([], [], [])
    for number, one in enumerate(interactions, start=1):
        when = now if one.timestamp is None else one.timestamp
        if not _whole(when) or not 0 <= when <= now + AHEAD:
            expected = "unix seconds, at most a day ahead of this machine's clock"
            raise DataError(f"interaction {number} has an impossible time", got=repr(when), expected=expected)
        if not (isinstance(one.user_id, str) and one.user_id and whole(one.user_id)) and not _whole(one.user_id):
            expected = "text that can be stored, or an integer"
            raise DataError(f"interaction {number} has an impossible user", got=repr(one.user_id), expected=expected)
        try:
            found.rows.append(catalog.row(one.item_id))
        except UnknownItem as error:
            cure = "add it to the catalogue first: `l2d items add RUN FILE`"
            raise UnknownItem(f"interaction {number} has an unknown item", got=repr(one.item_id), cure=cure) from error
        found.users.append(str(one.user_id))
        found.times.append(int(when))
    return found


def _whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)

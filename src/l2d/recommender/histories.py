"""What every user of a run took, in the prepared data and live, and the history that each live entry was made of."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2d.errors import DataError
from l2d.interactions import UNKNOWN_TIME, Dataset, Examples, Interactions, block_start
from l2d.memory import Log


class Histories:
    """Rows of the data followed by live ones, in the order in which these came.

    Args:
        dataset: the prepared data; its catalogue knows every item of the log.
        log: live interactions.
        base: live interaction `seq` makes sample `base + seq`.
    """

    def __init__(self, dataset: Dataset, log: Log, base: int) -> None:
        self.dataset, self.base, self.last = dataset, base, 0
        self._rows: dict[str, list[int]] = {}
        self._seqs: dict[str, list[int]] = {}
        self._users: dict[int, str] = {}
        self._order: list[int] = []
        self.take(log)

    def take(self, log: Log) -> None:
        """Takes in later interactions."""
        for seq, user, item in zip(log.seq.tolist(), log.user_ids, log.item_ids, strict=True):
            self.add(seq, user, self.dataset.catalog.row(item))

    def add(self, seq: int, user_id: str, row: int) -> None:
        """Takes in one later interaction."""
        self._rows.setdefault(user_id, []).append(row)
        self._seqs.setdefault(user_id, []).append(seq)
        self._users[seq] = user_id
        self._order.append(seq)
        self.last = seq

    def __len__(self) -> int:
        return len(self._users)

    def rows(self, user_id: str) -> NDArray[np.int32]:
        """All that a user took, oldest first; nothing of a user whom nobody knows."""
        return self._joined(user_id, self._rows.get(user_id, []))

    def known_rows(self, user_id: str) -> NDArray[np.int32]:
        """As `rows`.

        Raises:
            DataError: nobody knows the user.
        """
        if user_id not in self._rows and not self.dataset.knows(user_id):
            raise DataError("unknown user", got=repr(user_id), cure="give a history with --history instead")
        return self.rows(user_id)

    def trimmed(self, rows: NDArray[np.int32]) -> NDArray[np.int32]:
        """The newest rows of a history, cut in blocks as the training histories were."""
        return rows[int(block_start(np.array([len(rows)]), self.dataset.longest_history)[0]) :]

    def history(self, seq: int) -> NDArray[np.int32]:
        """What the user of a live interaction had taken before it, cut as it was thought."""
        user = self._users[seq]
        return self.trimmed(self._joined(user, self._rows[user][: bisect_left(self._seqs[user], seq)]))

    def places(self, samples: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """The numbers of the live interactions that memory entries were made of, -1 for other samples."""
        seqs = [sample - self.base for sample in samples.tolist()]
        return np.array([seq if seq in self._users else -1 for seq in seqs], dtype=np.int64)

    def examples(self, after: int = 0) -> Examples:
        """The live interactions after a number that had a history, each with it. Shape of nothing: no example."""
        histories = {seq: self.history(seq) for seq in self._order[bisect_right(self._order, after) :]}
        seqs = [seq for seq, history in histories.items() if len(history)]
        targets = [self._rows[self._users[seq]][bisect_left(self._seqs[self._users[seq]], seq)] for seq in seqs]
        windows = [np.append(histories[seq], target) for seq, target in zip(seqs, targets, strict=True)]
        lengths = np.array([len(window) for window in windows], dtype=np.int64)
        ends = np.cumsum(lengths)
        row = np.concatenate([np.zeros(0 if windows else 1, np.int32), *windows]).astype(np.int32)
        owner = np.repeat(np.arange(len(windows), dtype=np.int32), lengths) if windows else np.zeros(1, np.int32)
        users = tuple(self._users[seq] for seq in seqs) or ("",)
        log = Interactions(users, owner, row, np.full(len(row), UNKNOWN_TIME))
        return Examples(log, ends - lengths, ends - 1, np.array(seqs, dtype=np.int64) + self.base)

    def written(self, user_id: str, row: int, timestamp: int) -> bool:
        """Whether the prepared data hold an interaction, its time known."""
        log, (order, starts) = self.dataset.interactions, self._by_user
        user = self._index.get(user_id)
        if user is None:
            return False
        own = order[starts[user] : starts[user + 1]]
        return bool(((log.row[own] == row) & (log.timestamp[own] == timestamp)).any())

    def _joined(self, user_id: str, live: list[int]) -> NDArray[np.int32]:
        data = self.dataset
        before = data.user_history(user_id, limit=len(data.interactions)) if data.knows(user_id) else ()
        return np.array([*before, *live], dtype=np.int32)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {user: index for index, user in enumerate(self.dataset.interactions.user_ids)}

    @cached_property
    def _by_user(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places of the interactions in order of their users, and where each user's begin."""
        log = self.dataset.interactions
        counts = np.bincount(log.user, minlength=len(log.user_ids))
        return np.argsort(log.user, kind="stable"), np.concatenate([[0], np.cumsum(counts)])

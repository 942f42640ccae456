"""The memory of a run that lives: what Lance holds and what waits in the journal, as one.

A write goes into the journal, durably, and from there into Lance in groups, exactly once: the ledger, replaced in one
step, says up to which interaction the memory has taken them in, and only then does the journal let go of their
thoughts. After a crash the ledger decides. Nothing here asks who may write: see `l2d.artifacts.WriterLock`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2d.errors import ArtifactBusy, ConfigError, OutOfSpace
from l2d.memory.columns import Batch
from l2d.memory.joined import JoinedMemory
from l2d.memory.journal import Journal

MOST_VERSIONS = 64
"""Versions after which moving also compacts: each keeps a list of all files before it."""

KEPT_VERSIONS = 16
"""Versions that are left then."""


class LiveMemory(JoinedMemory):
    """A memory that grows. Make one with `LiveMemory.open`; safe to use from several threads."""

    def known(
        self, user_ids: Sequence[str], item_ids: Sequence[str], timestamps: Sequence[int] | NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Whether an interaction was written live already, or stands earlier in the same call."""
        return self._written().known(user_ids, item_ids, timestamps)

    def append(
        self,
        user_ids: Sequence[str],
        item_ids: Sequence[str],
        timestamps: Sequence[int] | NDArray[np.int64],
        thoughts: NDArray[Any],
        entry: Sequence[bool] | NDArray[np.bool_],
    ) -> NDArray[np.int64]:
        """Writes interactions, with thoughts of those that make an entry; durable when it returns.

        Returns:
            Their numbers; see `Journal.append` for arguments and errors.
        """
        with self._lock:
            return self._written().append(user_ids, item_ids, timestamps, thoughts, entry)

    def rethought(self, seqs: NDArray[np.int64], thoughts: NDArray[Any]) -> None:
        """Gives interactions of `missing` their thoughts again; see `Journal.rethought`."""
        with self._lock:
            self._written().rethought(seqs, thoughts)

    def move(self) -> int:
        """Moves what waits into Lance, as one version; an interaction that is `missing` holds up what came after it.

        Now and then it also compacts, and keeps the newest `KEPT_VERSIONS`.

        Returns:
            How many entries were moved.

        Raises:
            OutOfSpace: the disk is full; everything is where it was.
        """
        with self._lock:
            journal, ledger = self._written(), self.memory.ledger
            batch, upto = journal.pending(ledger.moved), self._upto()
            ready = int(np.searchsorted(batch.samples, journal.base + upto, side="right"))
            if not ready:
                return 0
            self.memory.append(
                batch.thoughts[:ready], batch.item_ids[:ready], batch.user_ids[:ready],
                batch.timestamps[:ready], batch.samples[:ready], moved=upto,
            )  # fmt: skip
            journal.moved(upto)
            if len(self.memory.versions) > MOST_VERSIONS:
                self.memory.compact(keep=KEPT_VERSIONS)
            return ready

    def remove(self, samples: NDArray[np.int64], instead: Batch | None = None) -> int:
        """Removes entries for good, whether they wait or not, and every earlier version; idempotent.

        The interactions behind live entries stay in the journal, as such that make no entry.

        Args:
            samples: theirs; those that are not there are passed over. Shape: (entries,).
            instead: entries that take the place of some of them in the same step, as where a history was thought again.

        Returns:
            How many fewer there are.

        Raises:
            ConfigError: `instead` has other samples, or such as have no entry; those that are `missing` are thought
                first.
        """
        with self._lock:
            journal = self._written()
            before = len(self.memory) + self.pending
            kept = np.empty(0, np.int64) if instead is None else instead.samples
            gone = np.setdiff1d(samples, kept)
            journal.without_entries(gone[gone > journal.base] - journal.base)
            self.move()
            self.memory.remove(samples, instead, moved=self._upto())
            return before - len(self.memory) - self.pending

    def compact(self, *, keep: int = 1) -> None:
        """Moves what waits, joins small files, and drops all versions but the newest; see `Memory.compact`."""
        with self._lock:
            self.move()
            self.memory.compact(keep=keep, moved=self._upto())

    def roll_back(self, version: int) -> int:
        """Goes back to an earlier version of the memory; interactions that it had not taken in are deleted.

        Args:
            version: one of `versions`; the present one undoes what came since it was made.

        Returns:
            How many live interactions were undone.

        Raises:
            ConfigError: no such version is kept; or one from before a forget, or from before the live entries came
                back into a memory that was built anew.
        """
        with self._lock:
            journal = self._written()
            target = next((there for there in self.versions if there.version == version), None)
            if target is not None and target.moved < journal.rebuilt:
                raise ConfigError(
                    f"cannot go back to version {version}: it is a rebuilt memory without its live entries",
                    cure="choose a later version",
                )
            before = len(journal)
            self.memory.roll_back(version, last=journal.last)
            journal.undone = self.memory.ledger.undone
            undone = before - len(self._written())
            if undone:
                with contextlib.suppress(ArtifactBusy, OutOfSpace):  # the wish stays, and the next writer does it
                    journal.erase()
            return undone

    def _upto(self) -> int:
        """The last number before an entry that is missing: what the memory has taken in once nothing waits."""
        missing = self.missing()
        return self._written().last if not len(missing) else int(missing.seq[0]) - 1

    def _written(self) -> Journal:
        if self.journal is None or not self.writer:
            raise ConfigError("this memory was opened for reading", cure="open it with writer=True")
        if self.journal.undone[1]:
            self.journal.settle(self.memory.ledger.moved, self.memory.ledger.dtype)
        return self.journal

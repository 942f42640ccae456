"""A run that lives: interactions come in while it answers, and each takes part in the next request.

A write is thought, then written to the journal, and only once it is on the disk taken into the memory in working form
and acknowledged. One process writes, any number reads. In a process one thread does all of it, answering included:
what answers is changed in place and waits for nobody.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from l2d.artifacts import WriterLock
from l2d.errors import ArtifactBusy, ArtifactMissing, ConfigError, InputError
from l2d.memory import LiveMemory, Version
from l2d.memory.columns import narrow
from l2d.memory.nearest.scan import check_size
from l2d.recommender import forgetting
from l2d.recommender.arriving import Arrived, Interaction, Written, arrived
from l2d.recommender.following import FollowingRun
from l2d.recommender.forgetting import Forgotten
from l2d.recommender.making import StageProgress, silent

MOVE_AT = 512
"""Entries waiting in the journal from which on a write also moves them into Lance."""


class LivingRun(FollowingRun):
    """The verbs that add, move, forget and return. They need a run that was loaded with `writer=True`."""

    _move_at = MOVE_AT

    def begin_writing(self, lock: WriterLock, progress: StageProgress = silent) -> None:
        """Becomes the run's writer, and ends what an earlier one left unfinished.

        Args:
            lock: the right to write; given back by `close`, and not taken where this fails.
            progress: called with (stage, done, total).
        """
        self._lock = lock
        try:
            self.reopen()
            live = self._finished()
            forgetting.finish(self, live, progress=progress)
            if live is not None:
                self.rethink(progress)
        except BaseException:
            self.end_writing()
            raise

    def end_writing(self) -> WriterLock | None:
        """Closes the journal; the run can still be read.

        Returns:
            The right to write, for another object of the same run; None where this one did not have it.
        """
        lock, self._lock = self._lock, None
        live = self.__dict__.pop("live", None)
        if live is not None:
            live.close()
        return lock

    def resume_writing(self, lock: WriterLock) -> None:
        """Takes back what `end_writing` gave away; nothing was written in between, so that nothing is read again."""
        self.end_writing()
        self._lock = lock

    def _finished(self) -> LiveMemory | None:
        """The memory, if one is there whose build came to its end."""
        with contextlib.suppress(ArtifactMissing):
            return self.live
        return None

    @contextlib.contextmanager
    def alone(self) -> Iterator[WriterLock]:
        """While it is open no other process may write; what others wrote or left unfinished is taken in first.

        Raises:
            ArtifactBusy: another one does, or another folder lies where the run did.
        """
        if self._lock is not None:
            self._must_write()
        with contextlib.nullcontext(self._lock) if self._lock is not None else WriterLock(self.run.writer) as lock:
            manifest = self.run.settle(self.run.read_manifest())
            if self._lock is not None:
                self.manifest = manifest
            self.refresh()
            if forgetting.unfinished(self.run):
                with self._as_writer(lock):
                    forgetting.finish(self, self._finished())
            try:
                yield lock
            finally:
                self._see()

    @contextlib.contextmanager
    def _as_writer(self, lock: WriterLock) -> Iterator[None]:
        """While it is open the memory may be written to; a run that was loaded for reading stays so."""
        had, self._lock = self._lock, lock
        if had is None:
            self.reopen()
        try:
            yield
        finally:
            self._lock = had
            if had is None:
                self.reopen()

    def successor(self) -> Self:
        """As `FollowingRun.successor`.

        Raises:
            ArtifactBusy: this is the writer, and another folder lies where the run did.
        """
        if self._lock is not None:
            self._must_write()
        return super().successor()

    def catch_up(self, lock: WriterLock, progress: StageProgress = silent) -> None:
        """Gives a memory that was built anew its live entries back; a run that was loaded for reading stays so."""
        if not self.run.live.exists():
            return
        self.reopen()
        with self._as_writer(lock):
            self.rethink(progress)
        self.reopen()

    def rethink(self, progress: StageProgress = silent) -> int:
        """Thinks the live interactions again whose entry is nowhere, as after the memory was built anew.

        Returns:
            How many there were.
        """
        live = self.writing()
        missing = live.missing().seq
        for start in range(0, len(missing), MOVE_AT):
            part = missing[start : start + MOVE_AT]
            thoughts = self.thoughts([self.histories.history(seq) for seq in part.tolist()])
            live.rethought(part, narrow(thoughts, live.memory.ledger.dtype, live.base + part))
            live.move()
            progress("thinking live interactions again", start + len(part), len(missing))
        if len(missing):
            self.read(self.dataset, self.prompts)
        return len(missing)

    @property
    def in_place(self) -> bool:
        """Whether this is the writer and the run still lies where it was loaded from."""
        return self._lock is not None and self._lock.current

    def writing(self) -> LiveMemory:
        """The memory, for what changes it.

        Raises:
            ConfigError: this run was not loaded with `writer=True`.
            ArtifactBusy: another folder lies where the run did when it was loaded.
        """
        self._must_write()
        return self.live

    def add_interactions(self, interactions: Sequence[Interaction], *, progress: StageProgress = silent) -> Written:
        """Adds interactions, all or none: on the disk when it returns, and part of the next request.

        One with a history becomes an entry of the memory: the thought of what its user took before, in the data, live
        and earlier in the same call, labelled with the item. What auto counts follows with the next move; the links of
        recall when the run is loaded again, or calibrated.

        Args:
            interactions: in the order in which they happened.
            progress: called with (stage, done, total).

        Raises:
            ConfigError: this run was not loaded with `writer=True`.
            ArtifactBusy: another folder lies where the run did when it was loaded.
            UnknownItem: an item that is not in the catalogue; names the interaction.
            DataError: an id or a time that cannot be; names the interaction.
            OutOfSpace: the disk is full; nothing was added.
        """
        live, asked = self.writing(), arrived(interactions, self.catalog)
        new = asked.take(self._new(asked))
        histories = self._histories_of(new)
        made = [place for place, history in enumerate(histories) if len(history)]
        prompts = [self.prompts.prompt(histories[place]) for place in made]
        thoughts = self.thinker.think(prompts, partial(progress, "thinking")) if made else self._no_thoughts()
        stored = narrow(thoughts, live.memory.ledger.dtype, np.array(made, dtype=np.int64))
        check_size(stored)
        if new.users:
            item_ids = [self.catalog.item_ids[row] for row in new.rows]
            entry = np.isin(np.arange(len(histories)), made)
            try:
                seqs = live.append(new.users, item_ids, np.array(new.times, dtype=np.int64), stored, entry)
            except BaseException:
                self.read(self.dataset, self.prompts)  # it may be on the disk all the same
                raise
            self._apply(seqs, new, made, stored)
            self._move_if_many()
        return Written(len(histories), len(interactions) - len(histories), len(made), self.histories.last, self.version)

    def move(self) -> int:
        """Moves the entries that wait in the journal into Lance, and lets auto count what came in since the last time.

        Returns:
            How many entries were moved.

        Raises:
            ConfigError: this run was not loaded with `writer=True`.
            OutOfSpace: the disk is full; nothing is lost, and nothing has changed.
        """
        moved = self.writing().move()
        self._recount()
        return moved

    def compact(self, *, keep: int = 1) -> None:
        """Moves what waits, joins small files and drops old versions.

        Args:
            keep: versions that stay, the present one among them.
        """
        self.writing().compact(keep=keep)
        self._recount()

    def versions(self) -> list[Version]:
        """The states of the memory that `roll_back` can return to, oldest first; the last one is the present one."""
        return list(self.live.versions)

    def roll_back(self, version: int) -> int:
        """Goes back to an earlier version; live interactions that it had not taken in are deleted.

        Args:
            version: the number of one of `versions`; the present one undoes what came since it was made.

        Returns:
            How many live interactions were deleted.

        Raises:
            ConfigError: no such version is kept, or one from before something was forgotten.
        """
        undone = self.writing().roll_back(version)
        self.read(self.dataset, self.prompts)
        return undone

    def forget(
        self,
        *,
        user: str | int | None = None,
        item: str | int | None = None,
        before: int | None = None,
        progress: StageProgress = silent,
    ) -> Forgotten:
        """Forgets a user, an item or the past in every file of the run; see `forgetting.forget`.

        Args:
            user: the id; exactly one of the three is given.
            item: the id; the item itself stays in the catalogue.
            before: unix seconds; what is older is forgotten.
            progress: called with (stage, done, total).
        """
        self._must_write()
        return forgetting.forget(self, self._finished(), user=user, item=item, before=before, progress=progress)

    def close(self) -> None:
        """Closes the journal and lets another process write; the run can still be read. A second time does nothing."""
        lock = self.end_writing()
        if lock is not None:
            lock.release()

    # ---- inside

    def _must_write(self) -> None:
        if self._lock is None:
            cure = "load it with writer=True; the command line does so by itself"
            raise ConfigError(f"{self.path} was opened for reading", cure=cure)
        if not self.in_place:
            raise ArtifactBusy(f"{self.path} is another folder than when it was loaded", cure="load it again")

    def _no_thoughts(self) -> NDArray[np.float32]:
        return np.empty((0, self.live.memory.ledger.width), dtype=np.float32)

    def _new(self, asked: Arrived) -> list[int]:
        """Places of the interactions that were not written before, here or in the prepared data."""
        item_ids = [self.catalog.item_ids[row] for row in asked.rows]
        known = self.live.known(asked.users, item_ids, asked.times)
        every = zip(asked.users, asked.rows, asked.times, known.tolist(), strict=True)
        return [
            place
            for place, (user, row, when, there) in enumerate(every)
            if not there and not self.histories.written(user, row, when)
        ]

    def _histories_of(self, asked: Arrived) -> list[NDArray[np.int32]]:
        """What each user had taken before, earlier in the same call included."""
        taken: dict[str, list[int]] = {}
        found = []
        for user, row in zip(asked.users, asked.rows, strict=True):
            if user not in taken:
                taken[user] = self.histories.rows(user).tolist()
            found.append(self.trimmed(np.array(taken[user], dtype=np.int32)))
            taken[user].append(row)
        return found

    def _apply(self, seqs: NDArray[np.int64], new: Arrived, made: Sequence[int], stored: NDArray[Any]) -> None:
        """Takes interactions that are on the disk into what answers."""
        try:
            for seq, user, row in zip(seqs.tolist(), new.users, new.rows, strict=True):
                self.histories.add(seq, user, row)
            some, samples = new.take(made), self.live.base + seqs[list(made)]
            rows, when = np.array(some.rows, dtype=np.int32), np.array(some.times, dtype=np.int64)
            self._take_in(stored, rows, some.users, when, samples)
        except BaseException:
            self.read(self.dataset, self.prompts)  # what is on the disk is whole, and read again
            raise

    def _move_if_many(self) -> None:
        """Moves what waits once it is much. A disk that is full now may not be so the next time: the write stands."""
        waiting = self.live.pending
        if waiting < self._move_at:
            return
        try:
            self.move()
            self._move_at = MOVE_AT
        except (InputError, OSError) as error:
            self._move_at = waiting + MOVE_AT
            self._notice(f"live entries stay in the journal for now: {error}")

"""A run that follows its memory: what lies in Lance, what waits in the journal, and what another process writes.

Entries that come in are taken into what answers, in place; nothing is read or made anew for them. In a process one
thread does all of it, answering included: what answers waits for nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from l2d.artifacts import WriterLock
from l2d.catalog import Catalog
from l2d.errors import ArtifactMissing
from l2d.evidence import Evidence
from l2d.interactions import Dataset, SplitName
from l2d.memory import Entries, LiveMemory, LiveState, Memory, MemoryInfo
from l2d.prompts import Prompts
from l2d.recommender.asked import AskedRun
from l2d.recommender.explaining import Remembered
from l2d.recommender.histories import Histories
from l2d.recommender.reading import read_data

GROWING = ("state", "entries", "train_entries", "histories")
"""What a longer catalogue leaves as it is."""


News = tuple[LiveState, tuple[int, ...]]
"""A state with the manifest's sign that belongs to it."""


class FollowingRun(AskedRun):
    """An open run whose memory lives."""

    _lock: WriterLock | None = None
    _seen: tuple[int, ...] = ()
    _counted = 0

    # ---- the state

    @cached_property
    def live(self) -> LiveMemory:
        """The memory and its journal.

        Raises:
            ArtifactMissing: there is no memory, or an unfinished one.
            ArtifactMismatch: built by another backbone, prompt or catalogue.
        """
        if not self.run.memory.is_dir():
            raise ArtifactMissing(f"{self.path} has no memory", cure=f"run `l2d memory build {self.path}` first")
        live = LiveMemory.open(
            self.run.memory, self.run.live, expected=self.identity, writer=self._lock is not None,
            base=self.dataset.next_sample,
        )  # fmt: skip
        self._mention_engine(live.memory)
        return live

    @property
    def memory(self) -> Memory:  # type: ignore[override]
        """The part of the memory that is in Lance; raises as `live`."""
        return self.live.memory

    @cached_property
    def state(self) -> LiveState:
        """What was read of the memory when it was first needed; entries grow from there."""
        return self.live.state(self.catalog)

    @cached_property
    def entries(self) -> Entries:
        """The entries in working form, those that wait in the journal included."""
        entries = self.state.entries
        if self._lock is not None:
            entries.reserve()
        return entries

    @cached_property
    def histories(self) -> Histories:
        """What every user took."""
        log = self.state.log if self._lock is None else self.live.log()
        return Histories(self.dataset, log, self.live.base)

    @cached_property
    def evidence(self) -> Evidence:
        """Counts of the training split and of live interactions, as far as they had come in at the last move."""
        self._counted = self.histories.last
        return self._joined_evidence(self.train_evidence, 0)

    def _joined_evidence(self, evidence: Evidence, after: int) -> Evidence:
        more = self.histories.examples(after)
        return evidence.joined(Evidence.learn(more, evidence.items)) if len(more) else evidence

    @property
    def version(self) -> str:
        """The memory's version, `{Lance version}.{last number}`; every state has another one."""
        return self.live.version

    @property
    def stale(self) -> bool:
        """Whether another process has written since this was loaded or refreshed; cheap enough to be asked often."""
        return self._lock is None and (self._sign() != self._seen or ("live" in self.__dict__ and self.live.stale))

    def _sign(self) -> tuple[int, ...]:
        status = self.run.manifest_file.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns

    def user_history(self, user_id: str | int) -> list[str | int]:
        """All item ids of a user, oldest first: those in the prepared data, then live ones in order of arrival.

        Raises:
            DataError: nobody knows the user.
        """
        if "histories" not in self.__dict__ and not self.run.live.exists():
            return super().user_history(user_id)
        return [self.catalog.item_id(int(row)) for row in self.histories.known_rows(str(user_id))]

    def memory_info(self) -> MemoryInfo:
        """What the memory holds, live entries included."""
        return self.live.info()

    def remembered(self) -> Sequence[Remembered]:
        """What gives the history of a memory's sample: the splits that it was built of, then the live interactions."""
        return [*super().remembered(), self.histories]

    def live_targets(self, split: SplitName) -> int:
        """How many of a split's examples have a user and a target that came in live, too."""
        if not self.run.live.exists() or not self.run.memory.is_dir():
            return 0
        examples, log = self.dataset.splits[split], self.live.log()
        taken = set(zip(log.user_ids, log.item_ids, strict=True))
        users, items = examples.interactions.user_ids, self.catalog.item_ids
        pairs = zip(examples.user.tolist(), examples.target.tolist(), strict=True)
        return sum((users[user], items[row]) in taken for user, row in pairs)

    # ---- going over to another state

    def begin(self, dataset: Dataset) -> None:
        """Goes over to data as prepared, and to the items that the manifest says were added to them."""
        super().begin(dataset)
        self._see()

    def _see(self) -> None:
        """Takes what is on the disk for seen, if the manifest there is this one's."""
        self._seen = self._sign()
        if self.run.read_manifest() != self.manifest:
            self._seen = ()

    def read(self, dataset: Dataset, prompts: Prompts) -> None:
        """Goes over to other data and prompts; what was made of the former ones, and of the memory, is forgotten."""
        super().read(dataset, prompts)
        for name in ("state", "histories"):
            self.__dict__.pop(name, None)
        self._cold = None  # it keeps the former entries

    def extend(self, catalog: Catalog) -> None:
        """Goes over to a catalogue that has more items behind those of this one; the memory in working form stays."""
        kept = {name: self.__dict__[name] for name in (*GROWING, "item_vectors") if name in self.__dict__}
        super().extend(catalog)
        self.__dict__.update(kept)
        if "histories" in kept:
            self.histories.dataset = self.dataset
        if "item_vectors" in kept:
            self.item_vectors.extend(len(catalog))

    def reopen(self) -> None:
        """Forgets all that was read of the memory; it is read again when it is needed."""
        live = self.__dict__.pop("live", None)
        if live is not None:
            live.close()
        self.__dict__.pop("constants", None)
        self.read(self.dataset, self.prompts)

    def successor(self) -> Self:
        """This run a second time, sharing nothing that changes: for work that takes long while this one answers.

        This one goes on answering as it is; its memory is closed, and the right to write is the successor's. What that
        answers from is read anew when it is needed; if another process wrote, `refresh` it first.
        """
        _ = self.entries, self.histories  # what this one still answers from
        lock, self._lock = self._lock, None
        live = self.__dict__.pop("live", None)
        other = copy(self)
        other._lock, other._seen, other._opponents = lock, (), {}
        other.__dict__.pop("constants", None)
        other.read(self.dataset, self.prompts)
        if live is not None:
            live.close()
        return other

    def refresh(self) -> bool:
        """Goes over to what another process has written: interactions, items, constants, or what it forgot.

        Returns:
            Whether anything had changed. A writer is always up to date.

        Raises:
            As `load`; nothing has changed here then but what is read anew, and the next time is another try.
        """
        if not self.stale:
            return False
        sign, former = self._sign(), self.manifest
        if self.run.read_manifest() != former:
            manifest, dataset = read_data(self.run, verify=False)
            self.reopen()
            try:
                self.manifest = manifest
                self.begin(dataset)
            except BaseException:
                self.manifest = former
                raise
            return True
        changed = self._follow()
        self._seen = sign
        return changed

    def _follow(self) -> bool:
        """Goes over to what came into the memory, and says whether anything did."""
        if "state" not in self.__dict__:
            return self.live.refresh()
        grown = self._grown()
        if grown is None:
            self.read(self.dataset, self.prompts)
        else:
            self.take_news((grown, self._seen))
        return True

    def news(self) -> News | None:
        """Reads the newest state for `take_news`, beside the thread that answers; nothing of what answers changes.

        Returns:
            It; None where more has happened than that entries came in: then it takes a `refresh`.
        """
        if "state" not in self.__dict__ or self._sign() != self._seen:
            return None
        seen, self._seen = self._seen, ()  # stale until it is taken in
        state = self._grown()
        return None if state is None else (state, seen)

    def _grown(self) -> LiveState | None:
        """The newest state, if it is the one that answers and later entries."""
        state, size = self.live.state(self.catalog), len(self.entries)
        alike = state.epoch == self.state.epoch and state.entries.thoughts.dtype == self.entries.thoughts.dtype
        return state if alike and np.array_equal(state.entries.sample[:size], self.entries.sample) else None

    def take_news(self, news: News) -> None:
        """Goes over to what `news` read, in the thread that answers."""
        state, self._seen = news
        size, fresh, users = len(self.entries), state.entries, state.entries.user_ids
        late = [users[user] for user in fresh.user[size:]]
        self.histories.base = self.live.base  # none before the first interaction
        self.histories.take(state.log.take(np.flatnonzero(state.log.seq > self.histories.last)))
        self._take_in(fresh.thoughts[size:], fresh.row[size:], late, fresh.timestamp[size:], fresh.sample[size:])
        self._recount()

    # ---- inside

    def _take_in(
        self,
        thoughts: NDArray[Any],
        row: NDArray[np.int32],
        users: Sequence[str],
        timestamp: NDArray[np.int64],
        sample: NDArray[np.int64],
    ) -> None:
        if "entries" not in self.__dict__:
            return
        first = len(self.entries)
        self.entries.append(thoughts, row, users, timestamp, sample)
        if "item_vectors" in self.__dict__:
            self.item_vectors.follow(self.entries, first)
        for decoder in (self.__dict__.get(name) for name in ("auto", "recall")):
            if decoder is not None:
                decoder.follow(first)

    def _recount(self) -> None:
        if "evidence" in self.__dict__ and self.histories.last > self._counted:
            self.evidence = self._joined_evidence(self.evidence, self._counted)
            self._counted = self.histories.last
            if "auto" in self.__dict__:
                self.auto.recount(self.evidence)

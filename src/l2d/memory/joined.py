"""A memory and its journal read as one: states that belong together, whoever writes meanwhile."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from l2d.catalog import Catalog
from l2d.errors import ArtifactBusy, ArtifactCorrupt, ArtifactMissing, ConfigError
from l2d.memory.columns import Batch
from l2d.memory.entries import Entries
from l2d.memory.guard import changed
from l2d.memory.info import MemoryInfo, size
from l2d.memory.journal import NOTHING, RESTORE, Journal, Log
from l2d.memory.ledger import LEDGER, REBUILD, Version
from l2d.memory.store import ATTEMPTS, Memory


@dataclass(frozen=True)
class LiveState:
    """One state of a memory that lives: parts that belong together, whoever writes meanwhile.

    Args:
        entries: the memory's and those that wait, in sample order.
        log: all live interactions.
        version: its name.
        epoch: while it stays the same, states only grow.
    """

    entries: Entries
    log: Log
    version: str
    epoch: tuple[int, ...]


class JoinedMemory:
    """A memory and its journal, opened together: what can be asked of both.

    Args:
        memory: the memory.
        journal: None where nothing was ever written live.
        journal_path: where it lies or would lie.
        expected: fingerprints that both must have been made with.
        writer: whether this process writes.
    """

    def __init__(
        self, memory: Memory, journal: Journal | None, journal_path: Path, expected: Mapping[str, str], writer: bool
    ) -> None:
        self.memory = memory
        self.journal = journal
        self.journal_path = journal_path
        self.writer = writer
        self._expected = dict(expected)
        self._lock = threading.RLock()
        self._seen, self._name = self._signs(), self._named()

    @classmethod
    def open(
        cls,
        memory_path: Path,
        journal_path: Path,
        *,
        expected: Mapping[str, str] | None = None,
        writer: bool = False,
        base: int | None = None,
    ) -> Self:
        """Opens a memory and, where there is one, its journal.

        A writer finishes what a process left behind that died, and makes the journal if it is not there; a reader
        changes nothing.

        Args:
            memory_path: the memory's folder.
            journal_path: the journal's file.
            expected: fingerprints (backbone, prompts, catalog) that both must have been made with.
            writer: whether this process writes; it must hold the run's lock.
            base: number of examples in the prepared data, or more: samples from `base + 1` on are the journal's. A
                writer says it in case there is no journal yet.

        Raises:
            ArtifactMissing: no memory, or a journal that the memory has taken entries from is gone.
            ArtifactCorrupt: one of them is damaged.
            ArtifactMismatch: they belong to another run.
            ArtifactBusy: they change faster than they can be opened.
        """
        expected = dict(expected or {})
        for attempt in range(ATTEMPTS):
            memory = Memory.open(memory_path, expected=expected)
            journal = None
            try:
                if writer:
                    memory.recover()
                journal = _journal(memory, journal_path, expected, writer, base)
            except (ArtifactCorrupt, ArtifactMissing):
                if attempt == ATTEMPTS - 1 or not changed(memory_path, memory.ledger):
                    raise
                continue
            opened = cls(memory, journal, journal_path, expected, writer)
            if writer or not changed(memory_path, memory.ledger):
                return opened
            opened.close()
        raise ArtifactBusy(f"{memory_path} changes faster than it can be opened", cure="try again")

    def close(self) -> None:
        """Closes the journal's file; a second time nothing happens."""
        if self.journal is not None:
            self.journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- reading

    @property
    def base(self) -> int:
        """Interaction `seq` makes sample `base + seq`; 0 without a journal."""
        return 0 if self.journal is None else self.journal.base

    @property
    def version(self) -> str:
        """Name of the state, `{Lance version}.{last number}`, each another; a reader's is that of the last refresh."""
        return self._named() if self.writer else self._name

    @property
    def epoch(self) -> tuple[int, ...]:
        """While it stays the same, entries and interactions only come in, and none goes."""
        ledger = self.memory.ledger
        return (ledger.floor, *ledger.undone, 0 if self.journal is None else self.journal.epoch)

    @property
    def versions(self) -> tuple[Version, ...]:
        """The states of the memory that can be returned to, oldest first; the last one is the present one."""
        return self.memory.versions

    def entries(self, catalog: Catalog) -> Entries:
        """The memory's entries and those that wait, in sample order; see `state`."""
        return self.state(catalog).entries

    def state(self, catalog: Catalog) -> LiveState:
        """Entries, interactions and version that belong together; a reader's are the newest there are.

        Args:
            catalog: what the item ids are rows of.

        Raises:
            ArtifactCorrupt: an entry or an interaction does not match its checksum.
            ArtifactMismatch: an item that the catalogue does not have.
            ArtifactBusy: a writer changed the memory again and again while it was read.
        """
        with self._lock:
            for _ in range(1 if self.writer else ATTEMPTS):
                self.refresh()
                memory = self.memory
                with self._snapshot():
                    (more, log), version, epoch = self._waiting(), self._named(), self.epoch
                # A writer replaces the ledger first: while it is the same, the journal has not gone on without it.
                if self.writer or not changed(memory.path, memory.ledger):
                    with contextlib.suppress(*(() if self.writer else (ArtifactBusy,))):
                        entries = memory.entries(catalog, more)
                        self._name = version
                        return LiveState(entries, log, version, epoch)
        raise ArtifactBusy(f"{self.memory.path} changes faster than it can be read", cure="try again")

    def log(self) -> Log:
        """All live interactions, in the order in which they came."""
        return NOTHING if self.journal is None else self.journal.log()

    def missing(self) -> Log:
        """The interactions whose entry is nowhere, as after the memory was built anew; see `rethought`."""
        return NOTHING if self.journal is None else self.journal.missing(self.memory.ledger.moved)

    @property
    def pending(self) -> int:
        """How many entries wait in the journal."""
        return 0 if self.journal is None else self.journal.waiting(self.memory.ledger.moved)

    def info(self) -> MemoryInfo:
        """Counts and sizes of both."""
        if self.journal is None:
            return self.memory.info()
        with self._snapshot():
            more, interactions = self._pending(), len(self.journal)
        files = self.journal_path.parent.glob(f"{self.journal_path.name}*")
        info = self.memory.info(more)
        return replace(
            info,
            bytes=info.bytes + size(files),
            pending=len(more),
            interactions=interactions,
            last_write=self.journal.written,
        )

    @property
    def stale(self) -> bool:
        """Whether another process has written since this was opened or refreshed; cheap enough to be asked often."""
        return not self.writer and self._signs() != self._seen

    def refresh(self) -> bool:
        """Goes over to what is on the disk now; a writer always is there.

        Returns:
            Whether anything had changed.

        Raises:
            ArtifactMissing, ArtifactCorrupt, ArtifactBusy: as `open`; this state stays then.
        """
        with self._lock:
            if not self.stale:
                return False
            for attempt in range(ATTEMPTS):
                memory = Memory.open(self.memory.path, expected=self._expected, known=self.memory.ledger.files)
                try:
                    if self.journal is None:
                        self.journal = _journal(memory, self.journal_path, self._expected, writer=False, base=None)
                    else:
                        _compare(memory, self.journal)
                except (ArtifactCorrupt, ArtifactMissing):
                    if attempt == ATTEMPTS - 1 or not changed(memory.path, memory.ledger):
                        raise
                    continue
                signs = self._signs()
                if not changed(memory.path, memory.ledger):
                    self.memory, self._seen = memory, signs
                    self._name = self._named()
                    return True
            raise ArtifactBusy(f"{self.memory.path} changes faster than it can be opened", cure="try again")

    # ---- inside

    def _snapshot(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext() if self.journal is None else self.journal.snapshot()

    def _waiting(self) -> tuple[Batch, Log]:
        """What waits, and the log, in one state of the journal."""
        with self._snapshot():
            return self._pending(), self.log()

    def _pending(self) -> Batch:
        """What waits."""
        ledger = self.memory.ledger
        none = Batch.empty(ledger.width, ledger.dtype)
        more = none if self.journal is None else self.journal.pending(ledger.moved)
        # After a rebuild in another type nothing waits until a writer has come.
        return more if more.thoughts.dtype == ledger.dtype else none

    def _named(self) -> str:
        return f"{self.memory.ledger.version}.{0 if self.journal is None else self.journal.last}"

    def _signs(self) -> tuple[object, ...]:
        """What changes when somebody writes."""
        log = self.journal_path.with_name(self.journal_path.name + "-wal")
        marks: list[object] = [None if self.journal is None else self.journal.changes]
        for file in (self.memory.path / LEDGER, self.journal_path, log):
            try:
                status = file.stat()
                marks.append((status.st_ino, status.st_size, status.st_mtime_ns))
            except FileNotFoundError:
                marks.append(None)
        return tuple(marks)


def _journal(memory: Memory, path: Path, expected: Mapping[str, str], writer: bool, base: int | None) -> Journal | None:
    """The journal of a memory, brought to what its ledger says; a writer makes it if it is not there."""
    ledger = memory.ledger
    if not path.exists():
        if ledger.moved:
            raise ArtifactMissing(f"the memory holds live entries, and {path} is gone", cure=RESTORE_OR_REBUILD)
        if not writer:
            return None
        if base is None:
            raise ConfigError("a new journal needs the number of examples", got="base None")
        return Journal.create(path, base=base, identity=expected, width=ledger.width, dtype=ledger.dtype)
    journal = Journal.open(path, expected=expected, width=ledger.width, writer=writer)
    try:
        _compare(memory, journal)
        if writer:
            journal.settle(ledger.moved, ledger.dtype)
    except BaseException:
        journal.close()
        raise
    return journal


def _compare(memory: Memory, journal: Journal) -> None:
    ledger = memory.ledger
    journal.undone = ledger.undone
    if ledger.moved > journal.last:
        raise ArtifactCorrupt(
            "the journal is older than the memory", got=f"last number {journal.last}",
            expected=f"at least {ledger.moved}", file=journal.path, cure=RESTORE_OR_REBUILD,
        )  # fmt: skip


RESTORE_OR_REBUILD = f"{RESTORE}: {REBUILD}"

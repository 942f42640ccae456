"""What a memory on disk holds, in one checksummed file beside the data. What it does not list never happened.

Lance commits are atomic, but Lance cannot tell a damaged file: flipping single bits gave wrong values, an older
version without a word, endless loops and panics. So every file of the dataset is listed here with its digest and is
compared before Lance opens it, and the version, the number of entries and the end of the build stand here too.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from l2d.artifacts import fsync, read_json, sha256_file, sha256_text, verify_checksums, write_json
from l2d.errors import ArtifactCorrupt, ArtifactMismatch, ArtifactMissing

LEDGER = "ledger.json"
HINT = "_versions/latest_version_hint.json"
"""Lance's guess at its newest version: rewritten by each commit, never needed where the version is named."""

REBUILD = "restore the memory from a copy, or run `l2d memory build RUN --overwrite`"

DType = Literal["float16", "float32"]
Cause = Literal["build", "move", "forget", "compact", "roll back"]


@dataclass(frozen=True)
class Version:
    """A state of the memory that can be returned to, or the present one.

    Args:
        version: its number; a later one is higher, also after a return.
        entries: number of entries.
        moved: the last live interaction whose entry is in it, or whose turn is over; 0 for none.
        time: when it was made, unix seconds; 0 where nobody recorded it.
        what: what made it.
    """

    version: int
    entries: int
    moved: int
    time: int
    what: Cause


@dataclass(frozen=True)
class Ledger:
    """The record of one memory.

    Args:
        width: length of a thought.
        dtype: type of the stored thoughts.
        metadata: fingerprints of what the memory was made with, and through which split; JSON values.
        plan: digest of the samples that a build writes, empty where nothing is planned.
        version: the Lance version that holds the memory, 0 before the first commit.
        entries: number of entries in that version.
        finished: whether a build wrote all it had planned.
        files: sha256 of every file, by its path below the memory's folder.
        moved: the last live interaction that the memory has taken in; what comes after it waits in the journal.
        undone: first and last live interaction that a roll back took away, (0, 0) if none was; numbers never come
            again, so this stays true for good.
        floor: the version that the last forget left; earlier ones are gone and never come back.
        history: the versions that are kept, oldest first, since the build's end.
    """

    width: int
    dtype: DType
    metadata: dict[str, Any] = field(default_factory=dict)
    plan: str = ""
    version: int = 0
    entries: int = 0
    finished: bool = False
    files: dict[str, str] = field(default_factory=dict)
    moved: int = 0
    undone: tuple[int, int] = (0, 0)
    floor: int = 0
    history: tuple[Version, ...] = ()

    @property
    def versions(self) -> tuple[Version, ...]:
        """The versions that are kept, oldest first; the last one is the present one."""
        return self.history or (Version(self.version, self.entries, self.moved, 0, "build"),)

    @property
    def lived(self) -> bool:
        """Whether it holds anything else than its build wrote, by growth or by removal."""
        return bool(self.moved or self.floor or self.undone[1])

    def dated(self, what: Cause, keep: Sequence[Version] | None = None) -> Ledger:
        """The ledger with its version entered into the history, behind those in `keep` (default: all)."""
        earlier = self.history if keep is None else tuple(keep)
        return replace(
            self, history=(*earlier, Version(self.version, self.entries, self.moved, int(time.time()), what))
        )

    def save(self, folder: Path) -> None:
        """Writes the ledger atomically, with a digest of itself."""
        record = asdict(self)
        write_json(folder / LEDGER, {"format": 1, "sha256": _digest(record), "ledger": record})

    @classmethod
    def load(cls, folder: Path) -> Ledger:
        """Reads what `save` wrote.

        Raises:
            ArtifactMissing: there is no memory here.
            ArtifactCorrupt: the ledger changed since it was written.
        """
        file = folder / LEDGER
        if not file.is_file():
            cure = "run `l2d memory build RUN` first" if unclaimed(folder) else f"its {LEDGER} is gone: {REBUILD}"
            raise ArtifactMissing(f"there is no memory in {folder}", cure=cure)
        content = read_json(file)
        try:
            intact = content["format"] == 1 and content["sha256"] == _digest(content["ledger"])
        except (KeyError, TypeError):
            intact = False
        if not intact:
            raise ArtifactCorrupt("the memory's ledger was changed", file=file, cure=REBUILD)
        record = dict(content["ledger"])
        record["history"] = tuple(Version(**version) for version in record.get("history", ()))
        record["undone"] = tuple(record.get("undone", (0, 0)))
        return cls(**record)

    def verify(self, folder: Path, known: Mapping[str, str] | None = None) -> None:
        """Compares every listed file with its digest, but those that were found right before (`known`).

        Raises:
            ArtifactMissing: a file is gone.
            ArtifactCorrupt: a file's bytes changed.
        """
        known = known or {}
        verify_checksums(folder, {name: digest for name, digest in self.files.items() if known.get(name) != digest})

    def with_new_files(self, folder: Path, **changes: Any) -> Ledger:
        """The ledger after a commit: files not listed so far are flushed to the disk and listed."""
        fresh = [name for name in _files(folder) if name not in (*self.files, LEDGER, HINT) and not _leftover(name)]
        for name in fresh:
            fsync(folder / name)
        digests = {name: sha256_file(folder / name) for name in fresh}
        return replace(self, files=self.files | digests, **changes)

    def without(self, names: Iterable[str]) -> Ledger:
        """The ledger without some files."""
        gone = set(names)
        return replace(self, files={name: digest for name, digest in self.files.items() if name not in gone})

    def drop_unlisted(self, folder: Path) -> None:
        """Removes what an interrupted append left behind, manifests first: so a half-removed commit is no commit."""
        stray = [name for name in _files(folder) if name not in self.files and name != LEDGER]
        for name in sorted(stray, key=lambda name: not name.startswith("_versions/")):
            (folder / name).unlink(missing_ok=True)

    def require(self, folder: Path, expected: dict[str, Any]) -> None:
        """Compares the metadata with what the caller works with.

        Raises:
            ArtifactMismatch: names the first key that differs and both sides.
        """
        for key, value in expected.items():
            if self.metadata.get(key) != value:
                raise ArtifactMismatch(
                    f"the memory in {folder} was made with another {key}",
                    got=f"memory {self.metadata.get(key)!r}",
                    expected=f"{value!r}",
                    cure="use the run it belongs to, or rebuild it with `l2d memory build RUN --overwrite`",
                )


def remove(folder: Path) -> None:
    """Deletes a memory, also one that lost its ledger; anything else is left alone. Afterwards it is there or not."""
    if (folder / LEDGER).is_file() or (folder / "_versions").is_dir():
        doomed = folder.with_name(f".{folder.name}.{os.getpid()}.removed")
        os.replace(folder, doomed)
        shutil.rmtree(doomed)


def unclaimed(folder: Path) -> bool:
    """Whether a memory may be created here: nothing but leftovers of a ledger that was never finished."""
    return not folder.exists() or (folder.is_dir() and all(_leftover(file.name) for file in folder.iterdir()))


def _leftover(name: str) -> bool:
    return name.startswith(f".{LEDGER}.") and name.endswith(".part")


def _files(folder: Path) -> Iterator[str]:
    return (file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*")) if file.is_file())


def _digest(record: dict[str, Any]) -> str:
    return sha256_text(json.dumps(record, sort_keys=True))

"""What happens to a memory after its build: entries leave it, small files are joined, an earlier state comes back.

Each step commits to Lance first and replaces the ledger then. Files of versions that the new ledger does not keep are
removed last; where a process dies before, the next writer removes them. Lance's own clean-up is not used: it would
remove files that the old ledger still lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from l2d.errors import ArtifactCorrupt, ConfigError
from l2d.memory.guard import lance_errors
from l2d.memory.ledger import REBUILD, Cause, Ledger, Version
from l2d.memory.reading import dataset

if TYPE_CHECKING:
    import lance
    import pyarrow as pa

LARGEST = 1 << 17
"""Entries of a file that is not rewritten to join it with its neighbours."""

AT_ONCE = 1 << 14
"""Row ids named in one deletion."""


def without(path: Path, ledger: Ledger, samples: NDArray[np.int64], instead: pa.Table | None = None) -> Ledger:
    """Deletes entries so that no file holds them, nor any earlier version, and writes others in their place.

    Returns the ledger to be saved. What goes is named to Lance by row id: a deletion's words stay readable in
    transaction files and manifests.
    """
    import lance

    with lance_errors(path, writing=True):
        doomed = _row_ids(path, ledger, samples)
        if len(doomed) or instead is not None:
            opened = dataset(path, ledger.version)
            for start in range(0, len(doomed), AT_ONCE):
                opened.delete(f"_rowid IN ({','.join(map(str, doomed[start : start + AT_ONCE]))})")
            if instead is not None:
                opened = lance.write_dataset(instead, dataset(path, opened.latest_version), mode="append")
            _joined(opened)
            ledger = replace(ledger, version=int(opened.latest_version))
    entries = ledger.entries - len(doomed) + (0 if instead is None else len(instead))
    ledger = replace(ledger, entries=entries, floor=ledger.version)
    return kept(path, ledger, (), "forget")


def compacted(path: Path, ledger: Ledger, keep: int) -> Ledger:
    """Joins small files and keeps the newest versions; returns the ledger to be saved.

    Raises:
        ConfigError: fewer than one version to keep.
    """
    if keep < 1:
        raise ConfigError("too few versions to keep", got=keep, expected="at least 1")
    before = ledger.version
    if before:
        with lance_errors(path, writing=True):
            opened = dataset(path, before)
            _joined(opened)
            ledger = replace(ledger, version=int(opened.latest_version))
    earlier = [version for version in ledger.versions if version.version != ledger.version]
    return kept(path, ledger, earlier[max(0, len(earlier) + 1 - keep) :], "compact")


def returned(path: Path, ledger: Ledger, version: int, last: int) -> Ledger:
    """Goes back to an earlier version, as a new one; later ones are gone. Returns the ledger to be saved.

    Args:
        path: the memory's folder.
        ledger: its ledger.
        version: one of the ledger's.
        last: the last number that the journal gave out.

    Raises:
        ConfigError: no such version is kept; says so where a forget removed it.
    """
    places = {there.version: place for place, there in enumerate(ledger.versions)}
    if version not in places:
        gone = f"a forget removed every version before {ledger.floor}" if version < ledger.floor else None
        raise ConfigError(
            f"cannot go back to version {version}" + (f": {gone}" if gone else ""),
            got=version,
            expected=f"one of {', '.join(map(str, places))}",
        )
    target = ledger.versions[places[version]]
    earlier = ledger.versions[: places[version] + 1]
    if version:
        with lance_errors(path, writing=True):
            opened = dataset(path, version)
            opened.restore()
            ledger = replace(ledger, version=int(opened.latest_version))
    ledger = replace(ledger, entries=target.entries, moved=target.moved, undone=(target.moved + 1, last))
    return kept(path, ledger, earlier if version else (), "roll back")


def kept(path: Path, ledger: Ledger, earlier: Sequence[Version], what: Cause) -> Ledger:
    """The ledger with its present version behind some earlier ones, listing only files that one of these needs.

    Args:
        path: the memory's folder.
        ledger: its version may be new.
        earlier: what is kept beside the present version.
        what: what made the present version.
    """
    ledger = ledger.with_new_files(path).dated(what, earlier)
    needed = _needed(path, [version.version for version in ledger.history])
    return ledger.without(name for name in ledger.files if name not in needed)


def _row_ids(path: Path, ledger: Ledger, samples: NDArray[np.int64]) -> NDArray[np.uint64]:
    if ledger.version == 0:
        return np.empty(0, dtype=np.uint64)
    table = dataset(path, ledger.version).to_table(columns=["sample"], with_row_id=True)
    return table["_rowid"].to_numpy()[np.isin(table["sample"].to_numpy(), samples)]


def _joined(opened: lance.LanceDataset) -> None:
    opened.optimize.compact_files(target_rows_per_fragment=LARGEST, materialize_deletions_threshold=0.0, num_threads=1)


def _needed(path: Path, versions: Iterable[int]) -> set[str]:
    """Files that some versions are made of."""
    needed: set[str] = set()
    for version in versions:
        if version == 0:
            continue
        needed.add(_manifest(path, version))
        with lance_errors(path):
            for fragment in dataset(path, version).get_fragments():
                needed |= {f"data/{file.path}" for file in fragment.data_files()}
                deletions = fragment.deletion_file()
                needed |= {deletions} if deletions else set()
    return needed


def _manifest(path: Path, version: int) -> str:
    names = (f"_versions/{2**64 - 1 - version:020}.manifest", f"_versions/{version}.manifest")
    for name in names:
        if (path / name).is_file():
            return name
    raise ArtifactCorrupt(f"version {version} of the memory has no manifest", file=path, cure=REBUILD)

"""Reads the Lance dataset of a memory: every entry compared with its crc, nothing taken on Lance's word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from l2d.catalog import Catalog
from l2d.errors import ArtifactCorrupt, ArtifactMismatch
from l2d.memory.columns import IDENTITY, Batch, entry_crcs, identity_bytes, schema
from l2d.memory.entries import Entries
from l2d.memory.guard import lance_errors
from l2d.memory.ledger import REBUILD, Ledger

if TYPE_CHECKING:
    import lance
    import pyarrow as pa

BATCH = 1 << 13
"""Entries read at once."""


def dataset(path: Path, version: int) -> lance.LanceDataset:
    """A version by its number: Lance's own "latest" falls back to an older one when a manifest is gone."""
    import lance

    return lance.dataset(str(path), version=version)


def read_identity(path: Path, ledger: Ledger, columns: list[str]) -> pa.Table:
    """Some columns of all entries, in the order they lie there.

    Raises:
        ArtifactCorrupt: not as many as the ledger says.
    """
    if ledger.version == 0:
        return schema(ledger.width, ledger.dtype).empty_table().select(columns)
    with lance_errors(path):
        table = dataset(path, ledger.version).to_table(columns=columns)
    if len(table) != ledger.entries or any(column.null_count for column in table.columns):
        raise ArtifactCorrupt(
            "the memory lost entries", got=len(table), expected=ledger.entries, file=path, cure=REBUILD
        )
    return table


def read_entries(path: Path, ledger: Ledger, catalog: Catalog, more: Batch | None = None) -> Entries:
    """See `Memory.entries`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = read_identity(path, ledger, IDENTITY)
    sample = table["sample"].to_numpy()
    order = np.argsort(sample, kind="stable")
    if (np.diff(sample[order]) == 0).any():
        raise ArtifactCorrupt("a sample stands in the memory twice", file=path, cure=REBUILD)
    room = 0 if more is None else len(more)
    thoughts = read_thoughts(path, ledger, table, order, room)
    items, owners = table["item_id"].take(order), table["user_id"].take(order)
    times, sample = table["timestamp"].to_numpy()[order], sample[order]
    if more is not None and room:
        thoughts[len(order) :] = more.thoughts
        items = pa.concat_arrays([items.combine_chunks(), pa.array(more.item_ids, pa.string())])
        owners = pa.concat_arrays([owners.combine_chunks(), pa.array(more.user_ids, pa.string())])
        times, sample = np.concatenate([times, more.timestamps]), np.concatenate([sample, more.samples])
    rows = pc.index_in(items, value_set=pa.array(catalog.item_ids, pa.string()))
    if rows.null_count:
        stranger = items.filter(pc.is_null(rows))[0].as_py()
        raise ArtifactMismatch(
            "the memory holds an item that the catalogue lacks",
            got=f"memory item {stranger!r}",
            expected=f"one of {len(catalog)} catalogue items",
            file=path,
            cure="use the catalogue it was made with",
        )
    users = sorted(pc.unique(owners).to_pylist())
    user = pc.index_in(owners, value_set=pa.array(users, pa.string()))
    row, user = (column.to_numpy(zero_copy_only=False).astype(np.int32) for column in (rows, user))
    return Entries(thoughts, row, user, times, sample, tuple(users))


def read_thoughts(
    path: Path, ledger: Ledger, identity: pa.Table, order: NDArray[np.int64] | None = None, room: int = 0
) -> NDArray[Any]:
    """The thoughts, entry `order[i]` of the dataset at place i, read in batches and compared with the crcs.

    Args:
        path: the memory's folder.
        ledger: its ledger.
        identity: the columns beside the thought.
        order: places in the dataset; None for its own order.
        room: places to leave free behind them.

    Raises:
        ArtifactCorrupt: an entry does not match its crc; names the sample.
    """
    total = len(identity)
    place = np.arange(total)
    if order is not None:
        place[order] = np.arange(total)
    thoughts = np.empty((total + room, ledger.width), dtype=ledger.dtype)
    digests, crcs, sample = identity_bytes(identity), identity["crc"].to_numpy(), identity["sample"].to_numpy()
    done = 0
    for batch in _thought_batches(path, ledger):
        part = slice(done, done + len(batch))
        done += len(batch)
        wrong = np.flatnonzero(entry_crcs(batch, digests[part]) != crcs[part])
        if len(wrong):
            raise ArtifactCorrupt(
                f"the entry of sample {sample[part][wrong[0]]} does not match its crc", file=path, cure=REBUILD
            )
        thoughts[place[part]] = batch
    if done != total:
        raise ArtifactCorrupt("the memory lost thoughts", got=done, expected=total, file=path, cure=REBUILD)
    return thoughts


def _thought_batches(path: Path, ledger: Ledger) -> Iterator[NDArray[Any]]:
    if ledger.version == 0:
        return
    with lance_errors(path):
        for batch in dataset(path, ledger.version).to_batches(columns=["thought"], batch_size=BATCH):
            yield batch.column(0).flatten().to_numpy().reshape(-1, ledger.width)

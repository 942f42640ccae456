"""One memory entry as columns: item_id, user_id, timestamp, thought, sample, and a crc over all of them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from l2d.errors import DataError
from l2d.memory.ledger import DType

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Batch:
    """Entries that are written together, or wait to be.

    Args:
        thoughts: in the memory's dtype. Shape: (entries, width).
        item_ids: the item that came next, by its id. One per entry.
        user_ids: whose history it was. One per entry.
        timestamps: time of the interaction, unix seconds. Shape: (entries,).
        samples: increasing. Shape: (entries,).
    """

    thoughts: NDArray[Any]
    item_ids: tuple[str, ...]
    user_ids: tuple[str, ...]
    timestamps: NDArray[np.int64]
    samples: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.samples)

    @classmethod
    def empty(cls, width: int, dtype: DType) -> Batch:
        """No entries."""
        return cls(np.empty((0, width), dtype), (), (), np.empty(0, np.int64), np.empty(0, np.int64))


IDENTITY = ["item_id", "user_id", "timestamp", "sample", "crc"]
"""The columns beside the thought."""


def narrow(thoughts: NDArray[np.float32], dtype: DType, samples: NDArray[np.int64]) -> NDArray[Any]:
    """Thoughts in the memory's dtype.

    Raises:
        DataError: a value that is not finite there; names the sample and the cure.
    """
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(thoughts, dtype=dtype)
    bad = np.flatnonzero(~np.isfinite(stored).all(axis=1))
    if len(bad):
        worst = np.abs(thoughts[bad[0]]).max()
        cure = (
            "pass --memory-dtype float32"
            if np.isfinite(worst)
            else "the backbone itself gives this: load it in float32"
        )
        raise DataError(
            f"the thought of sample {samples[bad[0]]} is not finite as {dtype}", got=f"a value of {worst:g}", cure=cure
        )
    return stored


def entry_crcs(thoughts: NDArray[Any], identity: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """crc32 of each entry: its thought's bytes, then its identity's. Shape: (entries,).

    A loop, but over C calls: 50 thousand entries of width 256 take 20 ms.
    """
    raw = np.concatenate([np.ascontiguousarray(thoughts).view(np.uint8), identity], axis=1)
    return np.fromiter(map(zlib.crc32, raw), dtype=np.uint32, count=len(raw))


def identity_bytes(table: pa.Table) -> NDArray[np.uint8]:
    """Little-endian timestamp, sample, crc32 of the item id and of the user id. Shape: (entries, 24)."""
    fields = np.empty(len(table), dtype=[("timestamp", "<i8"), ("sample", "<i8"), ("item", "<u4"), ("user", "<u4")])
    fields["timestamp"], fields["sample"] = table["timestamp"].to_numpy(), table["sample"].to_numpy()
    for name in ("item", "user"):
        column = table[f"{name}_id"].combine_chunks().dictionary_encode()
        crcs = np.array([zlib.crc32(text.encode()) for text in column.dictionary.to_pylist()], dtype=np.uint32)
        fields[name] = crcs[column.indices.to_numpy()] if len(crcs) else 0
    return fields.view(np.uint8).reshape(len(table), 24)


def schema(width: int, dtype: DType) -> pa.Schema:
    """Columns of the Lance dataset."""
    import pyarrow as pa

    value = pa.float16() if dtype == "float16" else pa.float32()
    return pa.schema([
        ("item_id", pa.string()), ("user_id", pa.string()), ("timestamp", pa.int64()),
        ("thought", pa.list_(value, width)), ("sample", pa.int64()), ("crc", pa.uint32()),
    ])  # fmt: skip


def entry_table(
    thoughts: NDArray[Any],
    item_ids: Sequence[str],
    user_ids: Sequence[str],
    timestamps: NDArray[np.int64],
    samples: NDArray[np.int64],
) -> pa.Table:
    """One row per entry, its crc included."""
    import pyarrow as pa

    table = pa.table({
        "item_id": pa.array(item_ids, pa.string()), "user_id": pa.array(user_ids, pa.string()),
        "timestamp": pa.array(timestamps, pa.int64()),
        "thought": pa.FixedSizeListArray.from_arrays(pa.array(thoughts.ravel()), thoughts.shape[1]),
        "sample": pa.array(samples, pa.int64()),
    })  # fmt: skip
    return table.append_column("crc", pa.array(entry_crcs(thoughts, identity_bytes(table)), pa.uint32()))

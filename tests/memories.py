"""Memories for tests: random entries written in parts, and the toy world's own."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from l2d.catalog import Catalog
from l2d.memory import Entries, Memory, build
from l2d.memory.ledger import HINT

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1] / "src")}

CATALOG = Catalog.from_titles([f"title {row}" for row in range(9)])


def random_entries(n=400, width=6, items=9, seed=0, dtype=np.float16):
    rng = np.random.default_rng(seed)
    return Entries(
        (rng.standard_normal((n, width)) * 10.0 ** rng.integers(-3, 4, (n, 1))).astype(dtype),
        rng.integers(0, items - 1, n).astype(np.int32),
        rng.integers(0, 20, n).astype(np.int32),
        rng.integers(0, 10**9, n),
        np.sort(rng.choice(10 * n, n, replace=False)),
        tuple(f"user {index:02}" for index in range(20)),
    )


def append(memory, entries, places):
    memory.append(
        entries.thoughts[places].astype(np.float32),
        [CATALOG.item_ids[row] for row in entries.row[places]],
        [entries.user_ids[user] for user in entries.user[places]],
        entries.timestamp[places],
        entries.sample[places],
    )


def written(path, entries, dtype="float16", parts=3, seed=1, metadata=None):
    """A finished memory of the entries, appended in a random order."""
    memory = Memory.create(path, width=entries.width, dtype=dtype, metadata=metadata)
    for part in np.array_split(np.random.default_rng(seed).permutation(len(entries)), parts):
        append(memory, entries, part)
    memory.finish()
    return memory


def contents(path):
    """Every file below a memory but Lance's hint."""
    files = (file for file in path.rglob("*") if file.is_file() and file != path / HINT)
    return {file: file.read_bytes() for file in files}


def assert_same(got, expected):
    assert got.thoughts.dtype == expected.thoughts.dtype
    assert got.thoughts.tobytes() == expected.thoughts.tobytes()
    for name in ("row", "timestamp", "sample"):
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))
    assert [got.user_ids[user] for user in got.user] == [expected.user_ids[user] for user in expected.user]


def toy_memory(path, world, examples=None, thinker=None, shard_size=16, **options):
    return build(
        path,
        thinker or world.thinker,
        world.prompts,
        world.dataset.splits.train if examples is None else examples,
        world.dataset.catalog,
        shard_size=shard_size,
        **options,
    )

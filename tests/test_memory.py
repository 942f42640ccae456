"""The memory: what is read back is what was written, and sums are exact."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from l2d.catalog import Catalog
from l2d.errors import ArtifactExists, ArtifactMismatch, ArtifactMissing, ConfigError, DataError
from l2d.memory import ItemVectors, Memory, aggregate, item_sums
from l2d.memory.columns import entry_crcs
from l2d.testing import toy_world
from memories import CATALOG, assert_same, random_entries, toy_memory, written

# ---- entries and item vectors


def test_item_sums_are_exact_in_any_order():
    entries = random_entries()
    sums, counts = item_sums(entries, 9)
    for row in range(9):
        own = entries.thoughts[entries.row == row]
        assert counts[row] == len(own)
        exact = [float(sum(Fraction(float(value)) for value in column)) for column in own.T]
        assert sums[row].tolist() == exact
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(entries))
        columns = {name: getattr(entries, name)[order] for name in ("thoughts", "row", "user", "timestamp")}
        turned = replace(entries, **columns)
        assert item_sums(turned, 9)[0].tobytes() == sums.tobytes()
        assert aggregate(turned, 9).vectors.tobytes() == aggregate(entries, 9).vectors.tobytes()


def test_item_sums_do_not_depend_on_blocks(monkeypatch):
    entries = random_entries()
    whole = item_sums(entries, 9)[0]
    monkeypatch.setattr("l2d.memory.entries.BLOCK", 7)
    assert item_sums(entries, 9)[0].tobytes() == whole.tobytes()


def test_means_are_plain_means_and_unknown_items_have_no_count():
    entries = random_entries()
    items = aggregate(entries, 9)
    for row in range(8):
        mean = entries.thoughts[entries.row == row].astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(items.vectors[row], mean, rtol=1e-6)
    assert items.counts[8] == 0 and not items.vectors[8].any()
    assert items.vectors.dtype == np.float32


def test_impossible_shapes_are_refused():
    entries = random_entries(5)
    with pytest.raises(ConfigError, match="differ in length"):
        replace(entries, row=entries.row[:4])
    with pytest.raises(ConfigError, match="float16 or float32"):
        replace(entries, thoughts=entries.thoughts.astype(np.float64))
    with pytest.raises(ConfigError, match="sample order"):
        replace(entries, sample=entries.sample[::-1])
    with pytest.raises(ConfigError, match="sample order"):
        replace(entries, sample=np.zeros(5, dtype=np.int64))
    with pytest.raises(ConfigError, match="one count"):
        ItemVectors(np.zeros((3, 2), dtype=np.float32), np.zeros(4, dtype=np.int64))
    with pytest.raises(ConfigError, match="not in the catalogue"):
        aggregate(entries, 2)


# ---- the store


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_read_back_in_sample_order(tmp_path, dtype):
    entries = random_entries(dtype=np.dtype(dtype).type)
    written(tmp_path / "memory.lance", entries, dtype)
    memory = Memory.open(tmp_path / "memory.lance")
    memory.verify()
    assert_same(memory.entries(CATALOG), entries)


def test_small_batches_read_the_same(tmp_path, monkeypatch):
    entries = random_entries()
    memory = written(tmp_path / "memory.lance", entries)
    monkeypatch.setattr("l2d.memory.reading.BATCH", 7)
    assert_same(memory.entries(CATALOG), entries)


def test_rows_follow_the_catalogue_that_reads(tmp_path):
    entries = random_entries()
    memory = written(tmp_path / "memory.lance", entries)
    turned = Catalog(CATALOG.item_ids[::-1], CATALOG.titles[::-1])
    np.testing.assert_array_equal(memory.entries(turned).row, 8 - entries.row)
    with pytest.raises(ArtifactMismatch, match="catalogue lacks"):
        memory.entries(Catalog.from_titles(["only one"]))


def test_info_counts(tmp_path):
    entries = random_entries()
    entries.timestamp[0] = -1
    info = written(tmp_path / "memory.lance", entries, metadata={"through": "valid"}).info()
    known = entries.timestamp[1:]
    assert (info.entries, info.items, info.users) == (400, len(set(entries.row)), len(set(entries.user)))
    assert (info.width, info.dtype, info.versions, info.through, info.finished) == (6, "float16", 3, "valid", True)
    assert (info.first, info.last) == (known.min(), known.max())
    assert info.bytes == sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())


def test_readable_as_plain_lance(tmp_path):
    import lance

    entries = random_entries()
    written(tmp_path / "memory.lance", entries)
    table = lance.dataset(str(tmp_path / "memory.lance")).to_table().sort_by("sample")
    assert table.column_names == ["item_id", "user_id", "timestamp", "thought", "sample", "crc"]
    np.testing.assert_array_equal(table["sample"].to_numpy(), entries.sample)
    assert table["thought"][5].as_py() == entries.thoughts[5].tolist()


def test_empty_memory(tmp_path):
    memory = Memory.create(tmp_path / "memory.lance", width=4)
    memory.finish()
    entries = Memory.open(tmp_path / "memory.lance").entries(CATALOG)
    assert len(entries) == 0 and entries.width == 4
    assert memory.info().first is None
    assert not aggregate(entries, 9).counts.any()


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactExists):
        Memory.create(tmp_path, width=4)
    with pytest.raises(ArtifactMissing, match="no memory"):
        Memory.open(tmp_path)
    with pytest.raises(ArtifactMissing, match="no memory"):
        toy_memory(tmp_path, toy_world(), overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    Memory.create(tmp_path / "empty.lance", width=4)
    with pytest.raises(ArtifactExists):
        Memory.create(tmp_path / "empty.lance", width=4)
    with pytest.raises(ConfigError):
        Memory.create(tmp_path / "new", width=0)


@pytest.mark.parametrize(("value", "cure"), [(7e4, "--memory-dtype float32"), (np.nan, "float32")])
def test_a_value_that_does_not_fit_names_the_sample(tmp_path, value, cure):
    memory = Memory.create(tmp_path / "memory.lance", width=2)
    thoughts = np.array([[1, 2], [3, value]], dtype=np.float32)
    with pytest.raises(DataError, match=r"sample 41 .*not finite as float16") as caught:
        memory.append(thoughts, ["0", "1"], ["a", "b"], np.array([1, 2]), np.array([40, 41]))
    assert cure in str(caught.value)
    assert len(memory) == 0
    wide = Memory.create(tmp_path / "wide.lance", width=2, dtype="float32")
    if np.isfinite(value):
        wide.append(thoughts, ["0", "1"], ["a", "b"], np.array([1, 2]), np.array([40, 41]))
        assert wide.entries(CATALOG).thoughts[1, 1] == np.float32(value)


def test_the_crc_covers_every_byte():
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 255, (1, 12), dtype=np.uint8)
    identity = rng.integers(0, 255, (1, 24), dtype=np.uint8)
    before = entry_crcs(raw, identity)
    for place in range(36):
        changed = np.concatenate([raw, identity], axis=1)
        changed[0, place] ^= 1 << (place % 8)
        assert entry_crcs(changed[:, :12], changed[:, 12:]) != before

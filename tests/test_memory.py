"""The memory: what is read back is what was written, whatever happened in between, or it is refused by name."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from l2d.artifacts import read_json, sha256_file, write_json
from l2d.catalog import Catalog
from l2d.errors import (
    ArtifactCorrupt,
    ArtifactExists,
    ArtifactMismatch,
    ArtifactMissing,
    ConfigError,
    DataError,
    OutOfSpace,
)
from l2d.memory import Entries, ItemVectors, Memory, aggregate, build, item_sums, plan
from l2d.memory.columns import entry_crcs
from l2d.memory.ledger import HINT, LEDGER, Ledger
from l2d.testing import DummyThinker, toy_world

KILLS = int(os.environ.get("L2D_KILLS", "2"))
"""Kills in the middle of a build; a long run asks for more."""

FLIPS = int(os.environ.get("L2D_FLIPS", "8"))
"""Bits flipped in each file."""

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
    monkeypatch.setattr("l2d.memory.store.BATCH", 7)
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


# ---- damage


def damaged(path):
    """Opens and reads a memory completely."""
    memory = Memory.open(path)
    return memory.entries(CATALOG)


def test_a_flipped_byte_anywhere_is_refused_or_harmless(tmp_path):
    path = tmp_path / "memory.lance"
    entries = random_entries(120)
    written(path, entries)
    rng = np.random.default_rng(3)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    assert {file.parent.name for file in files} == {"memory.lance", "data", "_versions", "_transactions"}
    assert path / HINT in files
    for file in files:
        whole = file.read_bytes()
        for place in {0, len(whole) - 1, *rng.integers(0, len(whole), FLIPS).tolist()}:
            flipped = bytearray(whole)
            flipped[place] ^= 1 << int(rng.integers(8))
            file.write_bytes(flipped)
            if file.relative_to(path).as_posix() == HINT:
                assert_same(damaged(path), entries)
            else:
                with pytest.raises(ArtifactCorrupt):
                    damaged(path)
        file.write_bytes(whole)
    assert_same(damaged(path), entries)


def test_missing_and_truncated_files_are_refused(tmp_path):
    path = tmp_path / "memory.lance"
    written(path, random_entries(120))
    for file in sorted(file for file in path.rglob("*") if file.is_file() and file.name != Path(HINT).name):
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ArtifactCorrupt):
            damaged(path)
        file.unlink()
        with pytest.raises(ArtifactMissing):
            damaged(path)
        file.write_bytes(whole)


def test_damage_behind_correct_file_checksums_is_caught_by_the_crc(tmp_path):
    path = tmp_path / "memory.lance"
    entries = random_entries(50, dtype=np.float32)
    memory = written(path, entries, "float32", parts=1)
    (file,) = (path / "data").iterdir()
    whole = bytearray(file.read_bytes())
    place = whole.index(entries.thoughts[7].tobytes())
    whole[place + 5] ^= 4
    file.write_bytes(whole)
    name = file.relative_to(path).as_posix()
    replace(memory.ledger, files=memory.ledger.files | {name: sha256_file(file)}).save(path)
    for read in (damaged, lambda path: Memory.open(path).verify()):
        with pytest.raises(ArtifactCorrupt, match=f"sample {entries.sample[7]} does not match its crc"):
            read(path)


def test_whatever_lance_throws_becomes_one_error(tmp_path):
    path = tmp_path / "memory.lance"
    memory = written(path, random_entries(50))
    newest = min((path / "_versions").glob("*.manifest"))
    newest.write_bytes(b"\xff" * newest.stat().st_size)
    with pytest.raises(ArtifactCorrupt):
        memory.entries(CATALOG)
    newest.unlink()
    with pytest.raises(ArtifactCorrupt):
        memory.entries(CATALOG)


def test_a_ledger_that_says_something_else_is_refused(tmp_path):
    path = tmp_path / "memory.lance"
    memory = written(path, random_entries(50))
    record = read_json(path / LEDGER)
    fewer = {**record["ledger"], "entries": 49}
    for edited in ({**record, "sha256": "0"}, {**record, "ledger": fewer}, {}, [], {"format": 2}):
        write_json(path / LEDGER, edited)
        with pytest.raises(ArtifactCorrupt, match="ledger was changed"):
            Memory.open(path)
    replace(memory.ledger, entries=49).save(path)
    with pytest.raises(ArtifactCorrupt, match="lost entries"):
        damaged(path)


def test_a_sample_that_stands_twice_is_refused(tmp_path):
    entries = random_entries(20)
    memory = Memory.create(tmp_path / "memory.lance", width=6)
    append(memory, entries, np.arange(20))
    append(memory, entries, np.array([4]))
    with pytest.raises(ArtifactCorrupt, match="twice"):
        memory.entries(CATALOG)


# ---- building


def test_a_build_holds_the_thoughts_of_histories_alone(tmp_path):
    world = toy_world()
    train = world.dataset.splits.train
    calls = []
    memory = toy_memory(tmp_path / "memory.lance", world, progress=lambda done, total: calls.append((done, total)))
    entries = memory.entries(world.dataset.catalog)
    alone = [world.thinker.think([world.prompts.prompt(example.history)])[0] for example in train]
    assert entries.thoughts.tobytes() == np.array(alone).astype(np.float16).tobytes()
    np.testing.assert_array_equal(entries.row, train.target)
    np.testing.assert_array_equal(entries.timestamp, train.timestamp)
    np.testing.assert_array_equal(entries.sample, np.arange(len(train)))
    assert [entries.user_ids[user] for user in entries.user] == [f"user {user}" for user in train.user]
    assert calls[-1] == (len(train), len(train)) and [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert memory.info().versions == len(plan(train, world.prompts, world.dataset.catalog, 16).shards) == 9


def test_shards_follow_the_order_of_the_prompts():
    world = toy_world()
    train = world.dataset.splits.train
    planned = plan(train, world.prompts, world.dataset.catalog, 16)
    order = np.concatenate(planned.shards)
    assert sorted(order) == list(range(len(train)))
    ordered = [planned.prompts[sample].tolist() for sample in order]
    assert ordered == sorted(ordered)
    assert {len(shard) for shard in planned.shards[:-1]} == {16}
    with pytest.raises(ConfigError):
        plan(train, world.prompts, world.dataset.catalog, 0)


class Counting(DummyThinker):
    """Counts the prompts that it thinks."""

    thought = 0

    def think(self, prompts, progress=None):
        self.thought += len(prompts)
        return super().think(prompts, progress)


def test_a_finished_build_is_not_repeated_and_others_are_refused(tmp_path):
    world, path = toy_world(), tmp_path / "memory.lance"
    before = toy_memory(path, world, metadata={"backbone": "b1", "through": "train"})
    thinker = Counting()
    again = toy_memory(path, world, thinker=thinker, metadata={"backbone": "b1", "through": "train"})
    assert thinker.thought == 0 and again.info() == before.info()
    with pytest.raises(ArtifactMismatch, match=r"another backbone .*memory 'b1'.*'b2'"):
        toy_memory(path, world, metadata={"backbone": "b2", "through": "train"})
    with pytest.raises(ArtifactMismatch, match="another sample list"):
        toy_memory(path, world, metadata={"backbone": "b1", "through": "train"}, examples=world.dataset.splits.valid)
    with pytest.raises(ArtifactMismatch, match="another sample list"):
        toy_memory(path, world, metadata={"backbone": "b1", "through": "train"}, shard_size=17)
    with pytest.raises(ArtifactMismatch, match=r"another type .*float16.*float32"):
        toy_memory(path, world, metadata={"backbone": "b1", "through": "train"}, dtype="float32")
    with pytest.raises(ArtifactMismatch, match="backbone"):
        Memory.open(path, expected={"backbone": "b2"})
    rebuilt = toy_memory(path, world, metadata={"backbone": "b2", "through": "train"}, overwrite=True)
    assert rebuilt.metadata["backbone"] == "b2"
    (path / LEDGER).unlink()
    with pytest.raises(ArtifactMissing, match=r"ledger.json is gone.*--overwrite"):
        toy_memory(path, world)
    assert len(toy_memory(path, world, overwrite=True)) == len(world.dataset.splits.train)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


class Interrupted(Exception):
    """Stands for whatever stops a process that can still clean up."""


def test_a_stopped_build_resumes_and_ends_the_same(tmp_path):
    world = toy_world()

    class Stopping(Counting):
        def think(self, prompts, progress=None):
            if self.thought >= 50:
                raise Interrupted
            return super().think(prompts, progress)

    stopping, counting = Stopping(), Counting()
    with pytest.raises(Interrupted):
        toy_memory(tmp_path / "memory.lance", world, thinker=stopping)
    with pytest.raises(ArtifactMissing, match="not finished"):
        Memory.open(tmp_path / "memory.lance")
    assert len(Memory.open(tmp_path / "memory.lance", unfinished=True)) == stopping.thought == 64
    resumed = toy_memory(tmp_path / "memory.lance", world, thinker=counting)
    assert counting.thought == len(world.dataset.splits.train) - 64
    whole = toy_memory(tmp_path / "whole.lance", world)
    assert_same(resumed.entries(world.dataset.catalog), whole.entries(world.dataset.catalog))


def test_a_memory_that_holds_other_samples_than_planned_is_refused(tmp_path):
    world, path = toy_world(), tmp_path / "memory.lance"
    memory = toy_memory(path, world)
    digest = memory.ledger.plan
    stray = Memory.create(tmp_path / "stray.lance", width=16, metadata=memory.metadata, plan=digest)
    stray.append(np.ones((1, 16), dtype=np.float32), ["0"], ["user 0"], np.array([1]), np.array([3]))
    with pytest.raises(ArtifactCorrupt, match="other samples"):
        toy_memory(tmp_path / "stray.lance", world)


KILLED = """
import os, signal, sys, time
from pathlib import Path
from l2d.memory import build
from l2d.memory.ledger import Ledger
from l2d.testing import DummyThinker, toy_world

class Slow(DummyThinker):
    def think(self, prompts, progress=None):
        time.sleep(0.02)
        return super().think(prompts, progress)

path, die_at = Path(sys.argv[1]), int(sys.argv[2])
saves, save = 0, Ledger.save
def dying(self, folder):
    global saves
    saves += 1
    if saves == die_at:  # the Lance commit is done, the ledger does not know it yet
        os.kill(os.getpid(), signal.SIGKILL)
    save(self, folder)
    print(saves, flush=True)
Ledger.save = dying
world = toy_world()
build(path, Slow(), world.prompts, world.dataset.splits.train, world.dataset.catalog, shard_size=6)
"""


def run_build(path, die_at=-1, kill_after=None, delay=0.0):
    """Builds in a process of its own; kills it some time after its n-th ledger, if asked to."""
    command = [sys.executable, "-c", KILLED, str(path), str(die_at)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    if kill_after is not None:
        for _ in range(kill_after):
            process.stdout.readline()
        time.sleep(delay)
        process.kill()
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def test_a_killed_build_resumes_bit_equal(tmp_path):
    path, world = tmp_path / "memory.lance", toy_world()
    rng = np.random.default_rng(int.from_bytes(os.urandom(4), "little"))
    assert run_build(path, kill_after=2, delay=0.0)[0] == -signal.SIGKILL
    for kill in range(KILLS):
        before = len(Memory.open(path, unfinished=True))
        if kill % 2:
            delay = float(rng.uniform(0, 0.06))
            assert run_build(path, kill_after=1, delay=delay)[0] == -signal.SIGKILL, f"delay {delay}"
            assert before + 6 <= len(Memory.open(path, unfinished=True)) < len(world.dataset.splits.train)
        else:
            assert run_build(path, die_at=2)[0] == -signal.SIGKILL
            # One more ledger; the second commit never reached its own.
            assert len(Memory.open(path, unfinished=True)) == before + 6
            listed = {Path(name).name for name in Ledger.load(path).files}
            assert any(file.name not in listed for file in (path / "data").iterdir())
    code, errors = run_build(path)
    assert code == 0, errors
    whole = toy_memory(tmp_path / "whole.lance", world, shard_size=6)
    resumed = Memory.open(path)
    assert_same(resumed.entries(world.dataset.catalog), whole.entries(world.dataset.catalog))
    assert resumed.info().versions == whole.info().versions
    listed = {(path / name) for name in resumed.ledger.files} | {path / LEDGER, path / HINT}
    assert {file for file in path.rglob("*") if file.is_file()} <= listed


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from l2d.errors import OutOfSpace
from l2d.memory import Memory

path = Path(sys.argv[1])
memory = Memory.open(path, unfinished=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
n = 40_000
try:
    thoughts = np.random.default_rng(0).standard_normal((n, 6)).astype(np.float32)
    memory.append(thoughts, ["1"] * n, ["u"] * n, np.arange(n), 10**6 + np.arange(n))
except OutOfSpace as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_no_room_leaves_the_memory_as_it_was(tmp_path):
    path, entries = tmp_path / "memory.lance", random_entries(50)
    written(path, entries)
    before = contents(path)
    command = [sys.executable, "-c", FULL, str(path)]
    run = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert run.returncode == OutOfSpace.exit_code == 2, run.stderr
    assert "no space left" in run.stdout and str(path) in run.stdout
    assert contents(path) == before
    assert_same(Memory.open(path).entries(CATALOG), entries)


@pytest.mark.parametrize("where", ["before", "after"])
def test_an_append_that_fails_around_its_ledger_is_whole_or_not_there(tmp_path, monkeypatch, where):
    path, entries = tmp_path / "memory.lance", random_entries(50)
    memory = Memory.create(path, width=6)
    append(memory, entries, np.arange(30))
    before, save = contents(path), Ledger.save

    def failing(self, folder):
        if where == "after":
            save(self, folder)
        raise OSError(errno.EIO, "the disk is gone")

    monkeypatch.setattr(Ledger, "save", failing)
    with pytest.raises(OSError, match="gone"):
        append(memory, entries, np.arange(30, 50))
    monkeypatch.undo()
    if where == "before":
        assert contents(path) == before and len(memory) == 30
        append(memory, entries, np.arange(30, 50))
    assert len(memory) == 50
    memory.finish()
    assert_same(Memory.open(path).entries(CATALOG), entries)

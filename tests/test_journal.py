"""The journal: what it acknowledged is there, whole; what it forgot is in no byte; damage is named."""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from l2d.errors import (
    ArtifactBusy,
    ArtifactCorrupt,
    ArtifactMismatch,
    ArtifactMissing,
    ConfigError,
    DataError,
    InputError,
    InternalError,
)
from l2d.memory import Journal
from l2d.memory.columns import entry_crcs, entry_table, identity_bytes
from memories import ENVIRONMENT
from scale import FLIPS, count

IDENTITY = {"backbone": "b", "prompts": "p", "catalog": "c"}
WIDTH = 4


def created(path, dtype="float16"):
    return Journal.create(path / "live.sqlite", base=100, identity=IDENTITY, width=WIDTH, dtype=dtype)


def reopened(path, **options):
    return Journal.open(path / "live.sqlite", expected=IDENTITY, width=WIDTH, **options)


def thoughts(n, seed=0):
    return np.random.default_rng(seed).standard_normal((n, WIDTH)).astype(np.float32)


def filled(path):
    """Five interactions of three users; all but the first make an entry."""
    journal = created(path)
    journal.append(["ann", "ben"], ["x", "y"], [5, 6], thoughts(1), [False, True])
    journal.append(["ann", "cleo", "ben"], ["y", "x", "z"], [7, 2, 8], thoughts(3, 1), [True, True, True])
    return journal


def altered(folder, change):
    """Changes the file behind the journal's back."""
    connection = sqlite3.connect(folder / "live.sqlite", isolation_level=None)
    connection.execute(change)
    connection.close()


def every_byte(folder):
    return b"\0".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


# ---- what is written is read


def test_what_was_written_is_read_by_another_connection(tmp_path):
    journal = filled(tmp_path)
    for reader in (journal, reopened(tmp_path)):
        log = reader.log()
        assert log.seq.tolist() == [1, 2, 3, 4, 5] and len(reader) == 5
        assert log.user_ids == ("ann", "ben", "ann", "cleo", "ben") and log.item_ids == ("x", "y", "y", "x", "z")
        assert log.timestamp.tolist() == [5, 6, 7, 2, 8] and log.entry.tolist() == [False, True, True, True, True]
        assert reader.log_after(3).seq.tolist() == [4, 5]
        assert reader.find(user="ben").seq.tolist() == [2, 5] and len(reader.find(user="nobody")) == 0
        assert reader.find(item="y").seq.tolist() == [2, 3] and reader.find(before=6).seq.tolist() == [1, 4]
        assert reader.last == 5 and reader.base == 100 and reader.written is not None


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_pending_entries_have_the_bits_and_the_checksum_that_the_memory_would_store(tmp_path, dtype):
    journal = created(tmp_path, dtype)
    given = thoughts(2)
    journal.append(["a", "b", "c"], ["1", "2", "3"], [1, 2, 3], given, [True, False, True])
    batch = journal.pending()
    assert batch.thoughts.tobytes() == given.astype(dtype).tobytes()
    assert (batch.item_ids, batch.user_ids) == (("1", "3"), ("a", "c"))
    assert batch.samples.tolist() == [101, 103] and batch.timestamps.tolist() == [1, 3]
    table = entry_table(batch.thoughts, batch.item_ids, batch.user_ids, batch.timestamps, batch.samples)
    rows = sqlite3.connect(tmp_path / "live.sqlite").execute("SELECT crc FROM thoughts ORDER BY seq").fetchall()
    assert [row[0] for row in rows] == entry_crcs(batch.thoughts, identity_bytes(table)).tolist()
    assert journal.pending(1).samples.tolist() == [103] and journal.waiting(1) == 1


def test_moved_thoughts_are_let_go_and_interactions_stay(tmp_path):
    journal = filled(tmp_path)
    journal.moved(3)
    assert journal.pending().samples.tolist() == [104, 105] and len(journal.log()) == 5
    assert len(journal.missing(3)) == 0
    assert journal.missing(0).seq.tolist() == [2, 3]  # as after a rebuild: the memory has none, nor has the journal
    journal.rethought(np.array([2, 3]), thoughts(2, 9))
    assert len(journal.missing(0)) == 0
    assert journal.pending().thoughts[:2].tobytes() == thoughts(2, 9).astype(np.float16).tobytes()
    with pytest.raises(ConfigError, match="make no entry"):
        journal.rethought(np.array([1]), thoughts(1))


def test_known_finds_exact_repetitions_alone(tmp_path):
    journal = filled(tmp_path)
    users, items, times = ["ann", "ann", "ann", "new", "new"], ["x", "x", "z", "x", "x"], [5, 6, 5, 1, 1]
    assert journal.known(users, items, times).tolist() == [True, False, False, False, True]
    with pytest.raises(InternalError, match="twice"):
        journal.append(["new", "ann"], ["x", "x"], [1, 5], thoughts(2), [True, True])
    assert len(journal) == 5 and journal.last == 5


def test_numbers_never_come_again(tmp_path):
    journal = filled(tmp_path)
    states = {journal.last}
    journal.forget([4, 5])
    states.add(journal.last)
    journal.truncate_after(2)
    states.add(journal.last)
    assert len(states) == 3
    highest = journal.last
    journal.close()
    assert reopened(tmp_path, writer=True).append(["d"], ["x"], [9], thoughts(1), [True])[0] > highest


def test_what_does_not_fit_is_refused_and_nothing_written(tmp_path):
    journal = created(tmp_path)
    with pytest.raises(ConfigError, match="do not fit"):
        journal.append(["a"], ["1", "2"], [1], thoughts(1), [True])
    with pytest.raises(ConfigError, match="do not fit"):
        journal.append(["a"], ["1"], [1], thoughts(2), [True])
    with pytest.raises(DataError, match=r"sample 102 .*not finite"):
        journal.append(["a", "b"], ["1", "1"], [1, 1], thoughts(2) * np.array([[1], [1e9]], np.float32), [True, True])
    for bad in ("\ud800", 7):
        with pytest.raises(DataError, match="an id is not text"):
            journal.append([bad], ["1"], [1], thoughts(1), [True])
    with pytest.raises(ConfigError, match="say what to find"):
        journal.find(user="a", item="b")
    assert len(journal) == 0 and journal.last == 0


def test_strange_ids_come_back_as_they_were(tmp_path):
    journal = created(tmp_path)
    ids = ["", "\0", "a\0b", "ünï", "'; DROP TABLE interactions; --", "x" * 5000, "😀", "1", "01"]
    journal.append(ids, ids[::-1], list(range(9)), thoughts(9), [True] * 9)
    assert journal.log().user_ids == tuple(ids) and journal.pending().item_ids == tuple(ids[::-1])
    assert all(journal.find(user=one).user_ids == (one,) for one in ids)


def test_threads_take_turns(tmp_path):
    journal = created(tmp_path)

    def write(user):
        for stamp in range(20):
            journal.append([user], ["x"], [stamp], thoughts(1), [True])
            journal.known([user], ["x"], [stamp])

    threads = [threading.Thread(target=write, args=(f"u{index}",)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log = journal.log()
    assert log.seq.tolist() == list(range(1, 81))
    for index in range(4):
        assert journal.find(user=f"u{index}").timestamp.tolist() == list(range(20))


def test_a_reader_sees_one_state_in_a_snapshot_and_the_next_after_it(tmp_path):
    journal = filled(tmp_path)
    reader = reopened(tmp_path)
    before = reader.changes
    with reader.snapshot():
        assert len(reader) == 5
        journal.append(["d"], ["x"], [1], thoughts(1), [True])
        assert len(reader) == 5 and reader.last == 5 and len(reader.log()) == 5
    assert len(reader) == 6 and reader.changes != before
    with pytest.raises(InputError, match="readonly"):
        reader.append(["e"], ["x"], [1], thoughts(1), [True])


# ---- wishes, forgetting


def test_wishes_outlive_a_process_until_they_are_fulfilled(tmp_path):
    journal = filled(tmp_path)
    journal.wish({"user": "ann"})
    number = journal.wish({"item": "x"})
    journal.close()
    again = reopened(tmp_path, writer=True)
    assert [wish.content for wish in again.wishes()] == [{"user": "ann"}, {"item": "x"}]
    again.fulfilled(number)
    assert [wish.content for wish in again.wishes()] == [{"user": "ann"}]


def test_no_byte_of_what_was_forgotten_is_left(tmp_path):
    journal = created(tmp_path)
    secret = thoughts(40, 3)
    journal.append(["secret-user"] * 40, [f"i{n}" for n in range(40)], range(40), secret, [True] * 40)
    journal.append(["other"] * 40, [f"i{n}" for n in range(40)], range(40), thoughts(40, 4), [True] * 40)
    number = journal.wish({"user": "secret-user"})
    journal.moved(10)
    needles = [b"secret-user", *(row.astype(np.float16).tobytes() for row in secret)]
    assert sum(needle in every_byte(tmp_path) for needle in needles) > 30
    journal.forget(journal.find(user="secret-user").seq)
    journal.fulfilled(number)
    journal.scrub()
    content = every_byte(tmp_path)
    assert b"other" in content and not [needle for needle in needles if needle in content]
    assert journal.epoch == 1 and len(journal) == 40 and journal.pending().user_ids == ("other",) * 40


def test_deleted_bytes_are_overwritten_even_before_the_file_is_written_anew(tmp_path):
    journal = created(tmp_path)
    secret = thoughts(5, 3)
    journal.append([f"secret-{n}" for n in range(5)], ["x"] * 5, range(5), secret, [True] * 5)
    journal.append(["other"], ["x"], [1], thoughts(1), [True])
    journal.forget([1, 2, 3, 4, 5])
    journal.close()
    content = every_byte(tmp_path)
    assert b"secret" not in content and not any(row.astype(np.float16).tobytes() in content for row in secret)


def test_a_reader_in_the_middle_holds_scrubbing_up(tmp_path, monkeypatch):
    monkeypatch.setattr("l2d.memory.journal.sqlite.WAIT", 0.1)
    journal = filled(tmp_path)
    reader = reopened(tmp_path)
    with reader.snapshot():
        len(reader)
        journal.forget([1])
        with pytest.raises(ArtifactBusy, match="try again"):
            journal.scrub()
    journal.scrub()
    assert len(journal.log()) == len(reader.log()) == 4


def test_entries_can_go_and_interactions_stay(tmp_path):
    journal = filled(tmp_path)
    journal.without_entries([2, 4])
    assert journal.log().entry.tolist() == [False, False, True, False, True]
    assert journal.pending().samples.tolist() == [103, 105] and len(journal.missing(0)) == 0


# ---- what it belongs to, damage


def test_a_journal_of_another_run_is_refused(tmp_path):
    filled(tmp_path).close()
    for wanted, width, what in (({"backbone": "other"}, WIDTH, "backbone"), (IDENTITY, 5, "width")):
        with pytest.raises(ArtifactMismatch, match=f"another {what}"):
            Journal.open(tmp_path / "live.sqlite", expected=wanted, width=width)
    with pytest.raises(ArtifactMissing):
        Journal.open(tmp_path / "elsewhere.sqlite")
    altered(tmp_path, "UPDATE meta SET value = '2' WHERE name = 'format'")
    with pytest.raises(ArtifactMismatch, match="another format"):
        reopened(tmp_path)


def everything(path):
    with reopened(path, writer=True) as journal:
        log, batch = journal.log(), journal.pending()
        return log.seq.tolist(), log.user_ids, log.item_ids, log.timestamp.tolist(), batch.thoughts.tobytes()


@pytest.mark.sized
def test_a_flipped_bit_anywhere_is_refused_or_harmless(tmp_path):
    journal = created(tmp_path)
    users = [f"user {n % 7}" for n in range(300)]
    journal.append(users, [f"item {n % 11}" for n in range(300)], range(300), thoughts(300), [True] * 300)
    journal.close()
    whole, file = everything(tmp_path), tmp_path / "live.sqlite"
    content, rng, refused = file.read_bytes(), np.random.default_rng(1), 0
    flips = 5 * FLIPS
    for place in {*range(0, 100, 5), *rng.integers(0, len(content), flips).tolist()}:
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(flipped)
        try:
            assert everything(tmp_path) == whole
        except (ArtifactCorrupt, ArtifactMismatch):
            refused += 1
        for more in ("-wal", "-shm"):
            file.with_name(file.name + more).unlink(missing_ok=True)
    assert refused > flips // 4  # pages have free room
    count("flipped bits in a journal", flipped=flips, refused=refused)


def test_truncated_and_foreign_files_are_refused(tmp_path):
    filled(tmp_path).close()
    file = tmp_path / "live.sqlite"
    content = file.read_bytes()
    for broken in (content[:100], content[: len(content) // 2], content[:-4096], b"no database" * 100, b""):
        for writer in (True, False):
            file.write_bytes(broken)
            with pytest.raises(ArtifactCorrupt, match=r"journal.*delete it to go on"):
                reopened(tmp_path, writer=writer)


def test_changed_rows_do_not_match_their_checksum(tmp_path):
    filled(tmp_path).close()
    changes = (
        "UPDATE interactions SET user_id = 'eve' WHERE seq = 3",
        "UPDATE interactions SET timestamp = 70 WHERE seq = 3",
        "UPDATE interactions SET entry = 0 WHERE seq = 3",
        "UPDATE interactions SET user_id = x'616e6e' WHERE seq = 3",
        "DELETE FROM interactions WHERE seq = 3",
        "UPDATE thoughts SET thought = zeroblob(8) WHERE seq = 3",
        "UPDATE thoughts SET thought = 'text' WHERE seq = 3",
    )
    content = (tmp_path / "live.sqlite").read_bytes()
    for change in changes:
        (tmp_path / "live.sqlite").write_bytes(content)
        altered(tmp_path, change)
        with pytest.raises(ArtifactCorrupt, match="journal"):
            everything(tmp_path)


# ---- where nothing can be written


@pytest.fixture
def frozen(tmp_path):
    """A folder that can be made read-only for everybody, root included."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a disk here: {done.stderr.strip()}")
    yield place, lambda: subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    subprocess.run(["umount", "-l", place], check=True)


def test_readers_need_no_right_to_write(frozen):
    place, freeze = frozen
    filled(place).close()
    freeze()
    with reopened(place) as reader:
        assert len(reader.log()) == 5 and len(reader.pending()) == 4
    with pytest.raises(InputError, match="cannot open or write"), reopened(place, writer=True) as journal:
        journal.append(["a"], ["1"], [1], thoughts(1), [True])
    with pytest.raises(InputError, match="cannot open or write"):
        Journal.create(place / "other.sqlite", base=0, identity={}, width=1, dtype="float16")


UNMERGED = """
import os, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_journal import filled
journal = filled(Path(sys.argv[1]))
os._exit(0)  # no last merge: the writes stay in the log
"""


def test_unmerged_writes_are_read_or_asked_for_but_never_lost(frozen, tmp_path):
    place, freeze = frozen
    command = [sys.executable, "-c", UNMERGED, str(place), str(Path(__file__).parent)]
    subprocess.run(command, env=ENVIRONMENT, check=True)
    assert (place / "live.sqlite-wal").stat().st_size
    (place / "live.sqlite-shm").unlink()
    moved = tmp_path / "moved"
    shutil.copytree(place, moved)
    freeze()
    with pytest.raises(InputError, match="not merged"):
        reopened(place)
    with reopened(moved) as reader:
        assert len(reader.log()) == 5
    with reopened(moved, writer=True) as journal:
        assert len(journal.log()) == 5


def test_creating_is_whole_or_not_at_all(tmp_path, monkeypatch):
    for stop in itertools.count(1):
        calls = 0
        real = os.fsync

        def failing(descriptor, real=real, stop=stop):
            nonlocal calls
            calls += 1
            if calls == stop:
                raise OSError(5, "the disk is gone")
            real(descriptor)

        monkeypatch.setattr(os, "fsync", failing)
        try:
            created(tmp_path).close()
            break
        except InputError:
            assert not [file for file in tmp_path.iterdir() if file.name != "live.sqlite"]
            if (tmp_path / "live.sqlite").exists():
                monkeypatch.undo()
                assert everything(tmp_path)[0] == []
                (tmp_path / "live.sqlite").unlink()
    assert stop > 1

"""A memory that lives: whatever is appended, moved, removed, undone or cut short, it holds what an oracle holds."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from pathlib import Path

import lance
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from l2d.artifacts import read_json, sha256_text, write_json
from l2d.errors import ArtifactBusy, ArtifactCorrupt, ArtifactMismatch, ArtifactMissing, ConfigError
from l2d.memory import Batch, Journal, LiveMemory, Memory
from l2d.memory.ledger import LEDGER, Ledger
from l2d.testing import toy_world
from memories import CATALOG, append, assert_same, random_entries, toy_memory, written
from scale import FULL

BASE, WIDTH = 5000, 6
IDENTITY = {"backbone": "b", "prompts": "p", "catalog": "c"}


def opened(folder, writer=True):
    return LiveMemory.open(
        folder / "memory.lance", folder / "live.sqlite", expected=IDENTITY, writer=writer, base=BASE if writer else None
    )


def lived(folder, n=60):
    """A built memory of random entries, opened for writing."""
    entries = random_entries(n)
    written(folder / "memory.lance", entries, metadata=IDENTITY)
    return opened(folder), entries


def thoughts(n, seed=0):
    return np.random.default_rng([7, seed]).standard_normal((n, WIDTH)).astype(np.float32)


def some(live, n, start=0, user="new", entry=None):
    """Appends n interactions of one user at the times from `start` on."""
    made = np.ones(n, dtype=bool) if entry is None else np.array(entry)
    times = range(start, start + n)
    return live.append([user] * n, [str(t % 8) for t in times], list(times), thoughts(int(made.sum()), start), made)


def held(entries):
    """Entries as a plain dictionary: sample -> (thought, item, user, time)."""
    rows = zip(entries.sample, entries.thoughts, entries.row, entries.user, entries.timestamp, strict=True)
    return {
        int(sample): (thought.tobytes(), CATALOG.item_ids[row], entries.user_ids[user], int(time))
        for sample, thought, row, user, time in rows
    }


def logged(log):
    rows = zip(log.seq.tolist(), log.user_ids, log.item_ids, log.timestamp.tolist(), log.entry.tolist(), strict=True)
    return list(rows)


def every_byte(folder):
    return b"\0".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


# ---- growing


def test_without_a_journal_a_reader_changes_nothing(tmp_path):
    entries = random_entries(60)
    written(tmp_path / "memory.lance", entries, metadata=IDENTITY)
    before = sorted(tmp_path.rglob("*"))
    with opened(tmp_path, writer=False) as reader:
        assert_same(reader.entries(CATALOG), entries)
        assert (reader.version, reader.pending, len(reader.log()), reader.stale) == ("3.0", 0, 0, False)
        assert reader.info() == reader.memory.info() and reader.info().last_write is None
        with pytest.raises(ConfigError, match="writer=True"):
            some(reader, 1)
    assert sorted(tmp_path.rglob("*")) == before


def test_entries_are_the_same_before_and_after_they_moved(tmp_path):
    live, entries = lived(tmp_path)
    some(live, 5, entry=[False, True, True, False, True])
    some(live, 3, start=10, user="user 03")
    waiting, log = live.entries(CATALOG), logged(live.log())
    assert live.pending == 6 and live.info().pending == 6 and live.info().entries == 66
    assert live.info().users == len(set(entries.user.tolist()) | {3}) + 1
    assert held(waiting).keys() == set(entries.sample.tolist()) | {5002, 5003, 5005, 5006, 5007, 5008}
    expected = thoughts(3).astype(np.float16)
    np.testing.assert_array_equal(waiting.thoughts[60:63], expected)
    assert live.move() == 6 and live.move() == 0 and live.pending == 0
    assert_same(live.entries(CATALOG), waiting)
    assert live.version == "4.8"
    live.close()
    for writer in (False, True):
        with opened(tmp_path, writer=writer) as again:
            assert_same(again.entries(CATALOG), waiting)
            assert logged(again.log()) == log
            assert again.version == "4.8"


def test_readers_follow_a_writer(tmp_path):
    live, _ = lived(tmp_path)
    reader = opened(tmp_path, writer=False)
    names = {reader.version}
    steps = (
        lambda: some(live, 3),
        live.move,
        lambda: some(live, 2, start=50),
        lambda: live.remove(np.array([5002])),
        lambda: some(live, 1, start=70),
        live.compact,
        lambda: (some(live, 2, start=90), live.roll_back(live.versions[-1].version)),
    )
    for step in steps:
        assert not reader.stale
        epoch = reader.epoch
        step()
        assert reader.stale
        assert reader.version in names  # it keeps its name until it goes over
        state = reader.state(CATALOG)
        assert_same(state.entries, live.entries(CATALOG))
        assert logged(state.log) == logged(live.log())
        assert state.version == reader.version == live.version not in names
        names.add(state.version)
        assert (state.epoch == epoch) == (step in (steps[0], steps[1], steps[2], steps[4], steps[5]))
        assert reader.refresh() is False


@pytest.mark.parametrize("step", ["move", "remove", "roll back"])
def test_a_reader_that_is_overtaken_between_ledger_and_journal_reads_again(tmp_path, monkeypatch, step):
    live, entries = lived(tmp_path)
    some(live, 3)
    live.move()
    some(live, 3, start=10)
    reader = opened(tmp_path, writer=False)
    real, steps = reader._waiting, [step]

    def overtaken():
        if steps:
            {
                "move": live.move,
                "remove": lambda: live.remove(entries.sample[:3]),
                "roll back": lambda: live.roll_back(live.versions[1].version),
            }[steps.pop()]()
        return real()

    monkeypatch.setattr(reader, "_waiting", overtaken)
    state = reader.state(CATALOG)
    assert_same(state.entries, live.entries(CATALOG))
    assert logged(state.log) == logged(live.log()) and state.version == live.version


def test_a_reader_of_a_state_that_was_removed_says_so(tmp_path):
    live, entries = lived(tmp_path)
    some(live, 3)
    live.move()
    old = Memory.open(tmp_path / "memory.lance")
    live.remove(entries.sample[:5])
    for read in (lambda: old.entries(CATALOG), old.samples, old.info, old.verify):
        with pytest.raises(ArtifactBusy, match="open it again"):
            read()
    assert len(Memory.open(tmp_path / "memory.lance")) == 58


# ---- what is removed


def test_no_byte_of_a_removed_entry_is_left_in_any_file(tmp_path):
    live, entries = lived(tmp_path, 300)
    some(live, 20, user="SECRET-NEW")
    live.move()
    some(live, 20, start=100, user="SECRET-NEW")
    secret = entries.user == 7
    live.compact(keep=3)
    gone = np.concatenate([entries.sample[secret], BASE + np.arange(1, 41)])
    needles = [b"user 07", b"SECRET-NEW", *(thought.tobytes() for thought in entries.thoughts[secret])]
    needles += [row.astype(np.float16).tobytes() for row in (*thoughts(20), *thoughts(20, 100))]
    content = every_byte(tmp_path)
    assert sum(needle in content for needle in needles) > 40  # some ids Lance compresses, or they would be all
    assert live.remove(gone) == len(gone)
    live.journal.forget(live.journal.find(user="SECRET-NEW").seq)
    live.journal.scrub()
    content = every_byte(tmp_path)
    assert entries.thoughts[~secret][0].tobytes() in content
    assert [needle for needle in needles if needle in content] == []
    (version,) = lance.dataset(str(tmp_path / "memory.lance")).versions()
    assert version["version"] == live.memory.ledger.version
    rest = np.flatnonzero(~secret)
    assert held(live.entries(CATALOG)) == held(entries.take(rest))
    assert {file.parent.name for file in (tmp_path / "memory.lance").rglob("*") if file.is_file()} <= {
        "memory.lance", "data", "_versions",
    }  # fmt: skip
    for where in (live.memory.ledger.version - 1, 3):
        with pytest.raises(ConfigError, match="a forget removed every version before"):
            live.roll_back(where)
    assert live.remove(gone) == 0


def test_entries_can_be_replaced_in_one_step(tmp_path):
    live, entries = lived(tmp_path)
    some(live, 3)
    before = held(live.entries(CATALOG))
    samples = np.array([entries.sample[4], entries.sample[9], BASE + 2])
    new = thoughts(2, 77)
    instead = Batch(new, ("1", "2"), ("u", "v"), np.array([3, 4]), samples[1:])
    assert live.remove(samples, instead) == 1
    after = held(live.entries(CATALOG))
    del before[int(samples[0])]
    for place in (0, 1):
        before[int(samples[place + 1])] = (new[place].astype(np.float16).tobytes(), "12"[place], "uv"[place], 3 + place)
    assert after == before and len(live.memory) == 62
    assert live.log().entry.tolist() == [True] * 3 and len(live.missing()) == 0
    with pytest.raises(ConfigError, match="place of none"):
        live.remove(samples, Batch(new[:1], ("1",), ("u",), np.array([3]), np.array([4])))
    assert held(live.entries(CATALOG)) == before


def test_everything_can_go(tmp_path):
    live, entries = lived(tmp_path)
    some(live, 2)
    assert live.remove(np.concatenate([entries.sample, [5001, 5002]])) == 62
    assert len(live.entries(CATALOG)) == 0 and live.info().entries == 0
    some(live, 2, start=9)
    live.move()
    live.close()
    with opened(tmp_path) as again:
        assert held(again.entries(CATALOG)).keys() == {BASE + int(seq) for seq in again.log().seq[2:]}


# ---- versions


def test_compacting_keeps_contents_and_as_many_versions_as_asked(tmp_path):
    live, _ = lived(tmp_path)
    for turn in range(5):
        some(live, 4, start=10 * turn)
        live.move()
    assert [(version.what, version.entries) for version in live.versions] == [
        ("build", 60), *(("move", 60 + 4 * turn) for turn in range(1, 6)),
    ]  # fmt: skip
    before = live.entries(CATALOG)
    files = len(list((tmp_path / "memory.lance" / "data").iterdir()))
    live.compact(keep=9)
    assert [version.entries for version in live.versions] == [60, 64, 68, 72, 76, 80, 80], "all that there are"
    live.compact(keep=3)
    assert [version.entries for version in live.versions] == [76, 80, 80]
    assert_same(live.entries(CATALOG), before)
    live.compact()
    assert len(live.versions) == 1 and len(list((tmp_path / "memory.lance" / "data").iterdir())) == 1 < files
    assert_same(live.entries(CATALOG), before)
    with pytest.raises(ConfigError, match="at least 1"):
        live.compact(keep=0)
    some(live, 2, start=90)
    live.move()
    live.close()
    assert len(opened(tmp_path, writer=False).entries(CATALOG)) == 82


def test_many_moves_compact_by_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr("l2d.memory.live.MOST_VERSIONS", 5)
    monkeypatch.setattr("l2d.memory.live.KEPT_VERSIONS", 2)
    live, _ = lived(tmp_path)
    for turn in range(9):
        some(live, 1, start=turn)
        live.move()
        assert len(live.versions) <= 5
    assert len(live.entries(CATALOG)) == 69


def test_going_back_undoes_what_came_after(tmp_path):
    live, _ = lived(tmp_path)
    built = live.versions[0].version
    some(live, 3)
    live.move()
    then, log = live.entries(CATALOG), logged(live.log())
    some(live, 3, start=10)
    live.move()
    some(live, 3, start=20)
    target, states = live.versions[1].version, {live.version}
    assert live.roll_back(target) == 6
    assert_same(live.entries(CATALOG), then)
    assert logged(live.log()) == log and live.version not in states
    assert [version.what for version in live.versions] == ["build", "move", "roll back"]
    seqs = some(live, 1, start=10)
    assert seqs[0] > 9 and live.known(["new"], ["2"], [10]).tolist() == [True]
    live.move()
    live.close()
    with opened(tmp_path) as again:
        assert len(again.entries(CATALOG)) == 64
        with pytest.raises(ConfigError, match=r"cannot go back to version 99 .*expected one of 3, "):
            again.roll_back(99)
        assert again.roll_back(built) == 4
        assert len(again.log()) == 0 and len(again.entries(CATALOG)) == 60


def test_a_rebuilt_memory_gets_its_live_entries_back(tmp_path):
    world = toy_world()
    toy_memory(tmp_path / "memory.lance", world, metadata={"backbone": "b"})
    catalog, n = world.dataset.catalog, len(world.dataset.splits.train)

    def live_memory():
        return LiveMemory.open(
            tmp_path / "memory.lance", tmp_path / "live.sqlite", expected={"backbone": "b"}, writer=True, base=n + 9
        )

    items = catalog.item_ids
    given = np.random.default_rng(0).standard_normal((6, world.thinker.width)).astype(np.float32)
    with live_memory() as live:
        live.append(["a"] * 4, items[:4], [1, 2, 3, 4], given[:3], [False, True, True, True])
        live.move()
        live.append(["a"] * 3, items[:3], [5, 6, 7], given[3:], [True, True, True])
        before = live.entries(catalog)
        again = toy_memory(tmp_path / "memory.lance", world, metadata={"backbone": "b"})  # finished: left as it is
        assert len(again) == n + 3 and again.versions == live.versions
        with pytest.raises(ArtifactMismatch, match="another type"):
            toy_memory(tmp_path / "memory.lance", world, metadata={"backbone": "b"}, dtype="float32")
        live.move()
    toy_memory(tmp_path / "memory.lance", world, metadata={"backbone": "b"}, overwrite=True)
    with live_memory() as live:
        missing = live.missing()
        assert missing.seq.tolist() == [2, 3, 4, 5, 6, 7] and len(live.entries(catalog)) == n
        live.append(["b"] * 2, items[:2], [1, 2], given[:1], [False, True])
        assert live.move() == 0  # what is missing comes first
        with pytest.raises(ConfigError, match="without its live entries"):
            live.roll_back(live.versions[0].version)
        live.rethought(missing.seq[:3], given[:3])
        assert live.move() == 3 and live.missing().seq.tolist() == [5, 6, 7]
        live.rethought(missing.seq[3:], given[3:])
        assert live.move() == 4 and len(live.missing()) == 0
        assert_same(live.entries(catalog).take(np.arange(n + 6)), before)
        assert live.roll_back(live.versions[-1].version) == 0
    toy_memory(tmp_path / "memory.lance", world, metadata={"backbone": "b"}, overwrite=True, dtype="float32")
    with live_memory() as live:
        assert len(live.missing()) == 7 and live.pending == 0
        assert live.entries(catalog).thoughts.dtype == np.float32


# ---- what does not belong together, damage


def test_an_old_ledger_opens_and_grows(tmp_path):
    entries = random_entries(60)
    written(tmp_path / "memory.lance", entries, metadata=IDENTITY)
    file = tmp_path / "memory.lance" / LEDGER
    record = read_json(file)["ledger"]
    for name in ("moved", "undone", "floor", "history"):
        del record[name]
    write_json(file, {"format": 1, "sha256": sha256_text(json.dumps(record, sort_keys=True)), "ledger": record})
    live = opened(tmp_path)
    assert [(version.version, version.what) for version in live.versions] == [(3, "build")]
    some(live, 2)
    live.move()
    assert [version.what for version in live.versions] == ["build", "move"]
    assert live.roll_back(3) == 2
    assert_same(live.entries(CATALOG), entries)


def test_a_journal_that_is_gone_older_or_broken_is_named(tmp_path):
    live, _ = lived(tmp_path)
    some(live, 3)
    live.close()
    older = (tmp_path / "live.sqlite").read_bytes()
    live = opened(tmp_path)
    some(live, 3, start=10)
    live.move()
    live.close()
    for writer in (True, False):
        (tmp_path / "live.sqlite").write_bytes(older)
        with pytest.raises(ArtifactCorrupt, match=r"older than the memory.*--overwrite"):
            opened(tmp_path, writer)
        (tmp_path / "live.sqlite").write_bytes(older[:-5000])
        with pytest.raises(ArtifactCorrupt, match="damaged"):
            opened(tmp_path, writer)
        (tmp_path / "live.sqlite").unlink()
        with pytest.raises(ArtifactMissing, match=r"live.sqlite is gone.*--overwrite"):
            opened(tmp_path, writer)
        (tmp_path / "live.sqlite").write_bytes(older)


def test_a_broken_ledger_is_named_and_the_journal_stays(tmp_path):
    live, _ = lived(tmp_path)
    some(live, 3)
    live.move()
    live.close()
    file = tmp_path / "memory.lance" / LEDGER
    content = file.read_bytes()
    for broken in (content[:-30], content.replace(b'"moved": 3', b'"moved": 2'), b""):
        file.write_bytes(broken)
        for writer in (True, False):
            with pytest.raises(ArtifactCorrupt):
                opened(tmp_path, writer)
    file.write_bytes(content)
    assert len(opened(tmp_path).log()) == 3


def test_another_run_is_refused(tmp_path):
    live, _ = lived(tmp_path)
    live.close()
    other = {**IDENTITY, "backbone": "x"}
    with pytest.raises(ArtifactMismatch, match="another backbone"):
        LiveMemory.open(tmp_path / "memory.lance", tmp_path / "live.sqlite", expected=other)
    (tmp_path / "live.sqlite").unlink()
    Journal.create(tmp_path / "live.sqlite", base=1, identity=other, width=WIDTH, dtype="float16").close()
    with pytest.raises(ArtifactMismatch, match="another backbone"):
        opened(tmp_path)


# ---- any order of steps, and deaths in between, against a dictionary


DEATHS = st.none() | st.integers(0, 9)
"""How many moments a step survives; most have fewer."""


class Died(BaseException):
    """Stands for the end of a process: nothing that would tidy up runs any more."""


class Death:
    """Ends the process at the n-th of the moments that matter: before or after a ledger or a journal's commit."""

    def __init__(self):
        self.left = None
        self.real = {"save": Ledger.save, "drop": Ledger.drop_unlisted, "step": Journal._transaction}

    def moment(self):
        if self.left is not None:
            if self.left <= 0:
                raise Died
            self.left -= 1

    def arm(self, moments):
        death = self

        def save(ledger, folder):
            death.moment()
            death.real["save"](ledger, folder)
            death.moment()

        def drop(ledger, folder):
            death.moment()
            death.real["drop"](ledger, folder)

        @contextlib.contextmanager
        def step(journal, begin="BEGIN IMMEDIATE"):
            with death.real["step"](journal, begin) as connection:
                yield connection
                if begin != "BEGIN":
                    death.moment()
            if begin != "BEGIN":
                death.moment()

        Ledger.save, Ledger.drop_unlisted, Journal._transaction = save, drop, step
        self.left = moments

    def disarm(self):
        self.left = None
        Ledger.save, Ledger.drop_unlisted, Journal._transaction = self.real.values()


class Living(RuleBasedStateMachine):
    """The oracle: `entries` and `log` as plain values, and a copy of the entries for each version."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.death = Death()
        self.clock = 0

    @initialize()
    def build(self):
        self.live, entries = lived(self.folder, 20)
        self.reader = opened(self.folder, writer=False)
        self.entries, self.log, self.highest = held(entries), [], 0
        self.past = {self.live.versions[-1].version: (dict(self.entries), 0)}
        self.names = {}

    def view(self):
        return held(self.live.entries(CATALOG)), logged(self.live.log())

    def perform(self, act, expected, dies):
        """Takes a step, perhaps dying on the way; then the state is the one before, or the one after, of the oracle."""
        self.death.arm(dies) if dies is not None else None
        try:
            act()
        except Died:
            self.death.disarm()
            self.live.journal.close()
            self.live = opened(self.folder)
            if self.view() == (self.entries, self.log):
                return False
        finally:
            self.death.disarm()
        self.entries, self.log = expected
        return True

    def note(self):
        self.highest = max(self.highest, self.live.journal.last)
        new = (dict(self.entries), self.highest)
        self.past = {there.version: self.past.get(there.version, new) for there in self.live.versions}

    @rule(
        users=st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1, max_size=4),
        dies=st.none() | st.integers(0, 1),
    )
    def append(self, users, dies):
        made, first = [entry for _, entry in users], self.live.journal.last + 1
        new = thoughts(sum(made), self.clock)
        times = list(range(self.clock, self.clock + len(users)))
        self.clock += len(users)
        entries, log, stored = dict(self.entries), list(self.log), iter(new.astype(np.float16))
        for place, (user, entry) in enumerate(users):
            log.append((first + place, user, str(times[place] % 8), times[place], entry))
            if entry:
                entries[BASE + first + place] = (next(stored).tobytes(), str(times[place] % 8), user, times[place])
        names = [user for user, _ in users]
        self.perform(
            lambda: self.live.append(names, [str(time % 8) for time in times], times, new, made), (entries, log), dies
        )
        self.note()

    @rule(dies=DEATHS)
    def move(self, dies):
        self.perform(self.live.move, (self.entries, self.log), dies)
        if dies is None:
            assert self.live.pending == 0
        self.note()

    @rule(data=st.data(), dies=DEATHS)
    def remove(self, data, dies):
        doomed = data.draw(st.lists(st.sampled_from(sorted(self.entries) or [1]), max_size=3, unique=True))
        entries = {sample: entry for sample, entry in self.entries.items() if sample not in doomed}
        log = [(*row[:4], row[4] and BASE + row[0] not in doomed) for row in self.log]

        def act():
            self.live.remove(np.array(doomed, dtype=np.int64))

        self.death.arm(dies) if dies is not None else None
        try:
            act()
        except Died:
            self.death.disarm()
            self.live.journal.close()
            self.live = opened(self.folder)
            act()  # as the next writer does for an unfinished wish
        finally:
            self.death.disarm()
        self.entries, self.log = entries, log
        assert len(self.live.versions) == 1
        self.past = {}
        self.note()
        content = every_byte(self.folder / "memory.lance")
        assert not any(self.seen[sample] in content for sample in doomed if sample in self.seen)

    @rule(keep=st.integers(1, 3), dies=DEATHS)
    def compact(self, keep, dies):
        self.perform(lambda: self.live.compact(keep=keep), (self.entries, self.log), dies)
        if dies is None:
            assert len(self.live.versions) <= keep
        self.note()

    @precondition(lambda self: self.past)
    @rule(data=st.data(), dies=DEATHS)
    def roll_back(self, data, dies):
        version = data.draw(st.sampled_from(sorted(self.past)))
        entries, last = self.past[version]
        log = [row for row in self.log if row[0] <= last]
        self.perform(lambda: self.live.roll_back(version), (dict(entries), log), dies)
        self.note()

    @rule()
    def reopen(self):
        self.live.close()
        self.live = opened(self.folder)
        self.note()

    @invariant()
    def holds(self):
        if not hasattr(self, "live"):
            return
        assert self.view() == (self.entries, self.log)
        state = self.reader.state(CATALOG)
        assert (held(state.entries), logged(state.log)) == (self.entries, self.log)
        assert self.names.setdefault(state.version, (self.entries, self.log)) == (self.entries, self.log)
        assert len(self.live.missing()) == 0
        self.seen = {sample: entry[0] for sample, entry in self.entries.items()}
        Memory.open(self.folder / "memory.lance", expected=IDENTITY)

    def teardown(self):
        self.death.disarm()
        for one in ("live", "reader"):
            if hasattr(self, one):
                getattr(self, one).close()
        shutil.rmtree(self.folder)


TestLiving = pytest.mark.sized(Living.TestCase)
TestLiving.settings = settings(
    max_examples=60 if FULL else 6,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    stateful_step_count=25 if FULL else 12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_a_build_by_shards_is_one_version(tmp_path):
    memory = Memory.create(tmp_path / "memory.lance", width=WIDTH)
    entries = random_entries(30)
    append(memory, entries, np.arange(10))
    append(memory, entries, np.arange(10, 30))
    memory.finish()
    assert [(version.version, version.entries, version.what) for version in memory.versions] == [(2, 30, "build")]

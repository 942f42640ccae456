"""A writer that is killed at any moment, and one whose disk is full: what was acknowledged is there exactly once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from l2d.errors import ArtifactBusy, OutOfSpace
from l2d.memory import LiveMemory, Memory
from l2d.memory.ledger import LEDGER
from memories import CATALOG, ENVIRONMENT, random_entries, written
from scale import FULL, count

BASE, WIDTH = 5000, 6
IDENTITY = {"backbone": "b"}
KILLS = 60 if FULL else 12

PARENT = """
import json, os, sys
import lance, numpy, pyarrow, pyarrow.compute
import l2d.memory
for line in sys.stdin:
    code, arguments = json.loads(line)
    if not (child := os.fork()):
        sys.argv[1:] = arguments
        exec(code, {})
        sys.stdout.flush()
        os._exit(0)
    print("pid", child, flush=True)
    print("end", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Processes:
    """Runs code in processes of its own, forked from one that has imported everything: so a start costs nothing."""

    def __init__(self):
        self.parent = subprocess.Popen(
            [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
        )

    def start(self, code, *arguments):
        """The process's id; its lines come from `lines`."""
        self.parent.stdin.write(json.dumps([code, [str(argument) for argument in arguments]]) + "\n")
        self.parent.stdin.flush()
        return int(self.line("pid"))

    def line(self, word):
        """What follows a word, in the next line that begins with it."""
        self.before = []
        while not (line := self.parent.stdout.readline()).startswith(word):
            assert line, "the parent process ended"
            self.before.append(line.strip())
        return line.removeprefix(word).strip()

    def end(self):
        """Exit code, and the lines before it."""
        return int(self.line("end")), self.before


@pytest.fixture(scope="module")
def processes():
    started = Processes()
    yield started
    started.parent.stdin.close()
    started.parent.wait(timeout=30)


WRITER = """
import sys
from pathlib import Path
import numpy as np
from l2d.artifacts import WriterLock
from l2d.memory import LiveMemory

folder, first = Path(sys.argv[1]), int(sys.argv[2])
lock = WriterLock(folder / ".writer")
live = LiveMemory.open(
    folder / "memory.lance", folder / "live.sqlite", expected={"backbone": "b"}, writer=True, base=5000
)
print("ready", flush=True)
for turn in range(10_000):
    # A retry of what may or may not have been acknowledged; then something new.
    for number in (first + turn - 1, first + turn):
        users, items, times = [f"u{number % 5}"] * 3, ["0", "1", "2"], [number] * 3
        new = ~live.known(users, items, times)
        thoughts = np.full((3, 6), number, dtype=np.float32)[new]
        if new.any():
            pick = lambda column: [value for value, keep in zip(column, new) if keep]
            entry = np.array([item != "0" for item in pick(items)])
            live.append(pick(users), pick(items), pick(times), thoughts[entry], entry)
        print(number, flush=True)
    if turn % 4 == 3:
        live.move()
    if turn % 17 == 16:
        live.compact(keep=2)
"""


def opened(folder, writer=True):
    return LiveMemory.open(
        folder / "memory.lance", folder / "live.sqlite", expected=IDENTITY, writer=writer, base=BASE if writer else None
    )


def built(folder):
    entries = random_entries(40)
    written(folder / "memory.lance", entries, metadata=IDENTITY)
    return entries


def assert_exactly_once(folder, acknowledged, entries):
    """Each acknowledged write is there once, with the entry it should have, and nothing half is there."""
    states = []
    for writer in (False, True):
        with opened(folder, writer) as live:
            log, state = live.log(), live.entries(CATALOG)
            assert len(live.missing()) == 0
        rows = list(zip(log.user_ids, log.item_ids, log.timestamp.tolist(), strict=True))
        assert len(set(rows)) == len(rows)
        assert set(rows) == {(f"u{n % 5}", item, n) for n in log.timestamp.tolist() for item in "012"}
        assert acknowledged <= set(log.timestamp.tolist())
        assert log.entry.tolist() == [item != "0" for item in log.item_ids]
        made = state.sample > BASE
        np.testing.assert_array_equal(state.sample[made], BASE + log.seq[log.entry])
        np.testing.assert_array_equal(state.timestamp[made], log.timestamp[log.entry])
        assert (state.thoughts[made] == state.timestamp[made][:, None].astype(np.float16)).all()
        np.testing.assert_array_equal(state.sample[~made], entries.sample)
        states.append((rows, state.thoughts.tobytes()))
    assert states[0] == states[1]  # what a reader made of the ruins is what the next writer made of them


@pytest.mark.sized
def test_a_killed_writer_loses_nothing_and_repeats_nothing(tmp_path, processes):
    entries, acknowledged = built(tmp_path), set()
    rng = np.random.default_rng(int.from_bytes(os.urandom(4), "little"))
    for kill in range(KILLS):
        number = max(acknowledged, default=0) + 1
        pid = processes.start(WRITER, tmp_path, number)
        if kill % 2:
            processes.line(str(number))
            acknowledged.add(number)
        else:
            processes.line("ready")
        time.sleep(delay := float(rng.uniform(0, 0.3)))
        os.kill(pid, signal.SIGKILL)
        code, lines = processes.end()
        assert code == -signal.SIGKILL, f"delay {delay}"
        acknowledged |= {int(line) for line in lines if line.isdigit()}
        assert_exactly_once(tmp_path, acknowledged, entries)
    assert len(acknowledged) >= KILLS // 2
    with opened(tmp_path) as live:
        live.move()
    assert_exactly_once(tmp_path, acknowledged, entries)
    count("killed writers of a live memory", kills=KILLS, acknowledged=3 * len(acknowledged), lost=0, repeated=0)


DYING = """
import os, signal, sys
from pathlib import Path
import numpy as np
from l2d.memory import Journal, LiveMemory
from l2d.memory.ledger import Ledger

folder, at = Path(sys.argv[1]), int(sys.argv[2])
live = LiveMemory.open(
    folder / "memory.lance", folder / "live.sqlite", expected={"backbone": "b"}, writer=True, base=5000
)
moments = 0
def moment():
    global moments
    moments += 1
    if moments == at:
        os.kill(os.getpid(), signal.SIGKILL)
def around(owner, name):
    real = getattr(owner, name)
    def wrapped(*args, **options):
        moment()
        result = real(*args, **options)
        moment()
        return result
    setattr(owner, name, wrapped)
for owner, name in (
    (Ledger, "save"), (Ledger, "drop_unlisted"), (Ledger, "with_new_files"),
    (Journal, "moved"), (Journal, "without_entries"), (Journal, "truncate_after"), (Journal, "forget"),
):
    around(owner, name)
versions = [version.version for version in live.versions]
{"move": live.move, "remove": lambda: live.remove(np.array([5002, 5005, int(sys.argv[4])])),
 "roll back": lambda: live.roll_back(versions[1]), "compact": live.compact}[sys.argv[3]]()
print(moments)
"""


@pytest.mark.parametrize("step", ["move", "remove", "roll back", "compact"])
def test_every_moment_of_a_step_is_survived(tmp_path, processes, step):
    entries = random_entries(40)

    def begun(folder):
        written(folder / "memory.lance", entries, metadata=IDENTITY)
        with opened(folder) as live:
            for turn in range(3):
                thoughts = np.random.default_rng([9, turn]).standard_normal((3, WIDTH)).astype(np.float32)
                live.append(["u"] * 3, ["1"] * 3, [3 * turn, 3 * turn + 1, 3 * turn + 2], thoughts, [True] * 3)
                if turn < 2:
                    live.move()
            return live.entries(CATALOG)

    def after(folder, writer):
        with opened(folder, writer) as live:
            state = live.entries(CATALOG)
            return state.sample.tolist(), state.thoughts.tobytes(), live.log().seq.tolist()

    def run(folder, at):
        processes.start(DYING, folder, at, step, entries.sample[3])
        return processes.end()

    (whole := tmp_path / "whole").mkdir()
    before = begun(whole)
    _, (moments,) = run(whole, -1)
    moments, end = int(moments), after(whole, False)
    start = (before.sample.tolist(), before.thoughts.tobytes(), list(range(1, 10)))
    assert moments >= 4 and (end != start) == (step in ("remove", "roll back"))
    for at in range(1, moments + 1) if FULL else sorted({1, moments // 2 + 1, moments}):
        (folder := tmp_path / f"{at}").mkdir()
        begun(folder)
        assert run(folder, at)[0] == -signal.SIGKILL
        read = after(folder, False)
        assert after(folder, True) == read
        if step == "remove":  # a wish that the next writer fulfils; until then a part of it may have happened
            run(folder, -1)
            read = after(folder, False)
            assert read == end
        assert read in (start, end)
        listed = {folder / "memory.lance" / name for name in Memory.open(folder / "memory.lance").ledger.files}
        there = {file for file in (folder / "memory.lance").rglob("*") if file.is_file()}
        assert {file.name for file in there - listed} <= {LEDGER, "latest_version_hint.json"}


# ---- a disk that is full


@pytest.fixture
def disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(place)]
    done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a small disk here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_refuses_writes_and_keeps_what_was_acknowledged(disk):
    entries = built(disk)
    live, number, refused = opened(disk), 0, set()
    thoughts = np.ones((200, WIDTH), dtype=np.float32)

    def write():
        nonlocal number
        live.append([f"u{number}"] * 200, ["1"] * 200, range(200), number % 2000 * thoughts, [True] * 200)
        number += 1

    for step in (write, live.move, lambda: live.compact(keep=2), lambda: live.remove(np.array([BASE + 1]))):
        for _ in range(200):
            try:
                step()
            except OutOfSpace as error:
                assert "no space left" in str(error)
                refused.add(step)
                break
            if step is not write:
                break
    assert write in refused and len(refused) > 1
    before = live.entries(CATALOG)
    assert len(live.log()) == 200 * number
    live.close()
    for writer in (False, True):
        with opened(disk, writer) as again:
            state = again.entries(CATALOG)
            assert state.thoughts.tobytes() == before.thoughts.tobytes()
            np.testing.assert_array_equal(state.sample, before.sample)
    subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
    live = opened(disk)
    write()
    live.move()
    live.compact()
    assert live.remove(entries.sample) == 40
    state = live.entries(CATALOG)
    np.testing.assert_array_equal(state.sample, BASE + live.log().seq[live.log().entry])
    owner = np.array([int(state.user_ids[user][1:]) for user in state.user])
    assert (state.thoughts == (owner % 2000)[:, None].astype(np.float16)).all()
    live.close()


# ---- two writers


HOLDER = """
import os, sys, time
from pathlib import Path
from l2d.artifacts import WriterLock
lock = WriterLock(Path(sys.argv[1]))
holder = os.getpid()
if sys.argv[2] == "fork":
    if os.fork():
        time.sleep(60)
    assert not lock.held
if sys.argv[2] == "start":
    import subprocess
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(holder, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("child", ["none", "fork", "start"])
def test_a_second_writer_is_told_who_writes_until_that_one_ends(tmp_path, child):
    from l2d.artifacts import WriterLock

    file = tmp_path / ".writer"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(file), child], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT,
        start_new_session=True,
    )  # fmt: skip
    try:
        pid = process.stdout.readline().strip()
        with pytest.raises(ArtifactBusy, match=rf"written to by process {pid}.*kill {pid}"):
            WriterLock(file)
        process.kill()
        process.wait()
        with WriterLock(file) as lock:  # though a child of it still lives
            assert lock.held and file.read_text() == f"{os.getpid()}\n"
            with pytest.raises(ArtifactBusy, match="this very process"):
                WriterLock(file)
        assert not lock.held and file.read_text() == ""
        lock.release()
        WriterLock(file).release()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


READER = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_live_kill import CATALOG, IDENTITY, opened
with opened(Path(sys.argv[1]), writer=False) as reader:
    print("ready", flush=True)
    seen, names = 0, {}
    while not (Path(sys.argv[1]) / "stop").exists():
        state = reader.state(CATALOG)
        made = state.entries.sample[state.entries.sample > 5000] - 5000
        assert made.tolist() == state.log.seq[state.log.entry].tolist()
        assert names.setdefault(state.version, len(state.entries)) == len(state.entries)
        seen += 1
    print(seen, len(names))
"""


def test_readers_see_whole_states_while_a_writer_works(tmp_path):
    entries = built(tmp_path)
    command = [sys.executable, "-c", READER, str(tmp_path), str(Path(__file__).parent)]
    reader = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert reader.stdout.readline() == "ready\n", reader.stderr.read()
    rng, end = np.random.default_rng(3), time.monotonic() + (20 if FULL else 1)
    with opened(tmp_path) as live:
        stamp = 0
        while time.monotonic() < end:
            n = int(rng.integers(1, 5))
            entry = rng.random(n) < 0.7
            live.append(["u"] * n, ["1"] * n, range(stamp, stamp + n), np.ones((int(entry.sum()), WIDTH)), entry)
            stamp += n
            if rng.random() < 0.3:
                live.move()
            if rng.random() < 0.05:
                live.compact(keep=2)
            if rng.random() < 0.05:
                gone = rng.choice(entries.sample, 1)
                live.remove(gone)
            if rng.random() < 0.05:
                live.roll_back(live.versions[-1].version)
    (tmp_path / "stop").touch()
    output, errors = reader.communicate(timeout=60)
    assert reader.returncode == 0, errors
    seen, names = map(int, output.split())
    assert seen >= names > 5

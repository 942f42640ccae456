"""A damaged memory, a full disk, a commit that fails half-way: refused by name, or as it was before."""

from __future__ import annotations

import errno
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from l2d.artifacts import read_json, sha256_file, write_json
from l2d.errors import ArtifactCorrupt, ArtifactMissing, OutOfSpace
from l2d.memory import Memory
from l2d.memory.ledger import HINT, LEDGER, Ledger
from memories import CATALOG, ENVIRONMENT, append, assert_same, contents, random_entries, written
from scale import FLIPS, count


def damaged(path):
    """Opens and reads a memory completely."""
    memory = Memory.open(path)
    return memory.entries(CATALOG)


@pytest.mark.sized
def test_a_flipped_byte_anywhere_is_refused_or_harmless(tmp_path):
    path = tmp_path / "memory.lance"
    entries = random_entries(120)
    written(path, entries)
    rng, refused, harmless = np.random.default_rng(3), 0, 0
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
                harmless += 1
            else:
                with pytest.raises(ArtifactCorrupt):
                    damaged(path)
                refused += 1
        file.write_bytes(whole)
    assert_same(damaged(path), entries)
    count("flipped bits in a memory", files=len(files), flipped=refused + harmless, refused=refused, harmless=harmless)


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

"""Building a memory: planned shards, stopped or killed at any moment, end bit-equal to an undisturbed build."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from l2d.errors import ArtifactCorrupt, ArtifactMismatch, ArtifactMissing, ConfigError
from l2d.memory import Memory, plan
from l2d.memory.ledger import HINT, LEDGER, Ledger
from l2d.testing import DummyThinker, toy_world
from memories import ENVIRONMENT, assert_same, toy_memory
from scale import KILLS, count


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


@pytest.mark.sized
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
    count("killed memory builds", kills=KILLS + 1, inside_a_commit=(KILLS + 1) // 2, resumed_bit_equal=KILLS + 1)

"""A write that fails in a process that goes on living: what comes after it stands, and what it began is ended."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forgetful import PLANTED, enliven, make, opened, shop_items
from l2d.errors import OutOfSpace
from l2d.memory import LiveMemory
from l2d.recommender import Interaction, Recommender, calibrating, forgetting
from l2d.run import Run

LATER = 1_760_000_000
"""After everything in the data and in the journal."""


@pytest.fixture(scope="module")
def alive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated run with live interactions; copied and never written to."""
    path = make(tmp_path_factory.mktemp("alive"))
    enliven(path)
    return path


@pytest.fixture
def place(alive: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(alive, tmp_path / "run"))


def full(*_: Any, **__: Any) -> Any:
    raise OutOfSpace("the disk is full")


def test_what_comes_after_a_forget_that_failed_is_not_forgotten(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = shop_items(3, 5)
    back = [Interaction(PLANTED, a, LATER), Interaction(PLANTED, b, LATER + 1)]
    with opened(place) as run:
        with monkeypatch.context() as patch, pytest.raises(OutOfSpace):
            patch.setattr(forgetting, "_replace_data", full)
            run.forget(user=PLANTED)
        assert run.add_interactions(back).added == 2
    with opened(place) as run:
        assert run.live.journal.wishes() == []
        assert run.user_history(PLANTED) == [a, b], "as one who was never here before"
        kept = run.live.log().take(run.live.log().user_ids.index(PLANTED) + np.arange(2))
        assert kept.entry.tolist() == [False, True]
        history = run.histories.history(int(kept.seq[1]))
        entry = run.entries.thoughts[run.entries.sample == run.live.base + kept.seq[1]]
        np.testing.assert_allclose(entry, run.thoughts([history]), atol=2e-2)


def test_a_run_goes_on_with_the_manifest_that_a_failed_forget_left(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest has gone over to the data that are left, and what was to come after it failed."""
    settle = Run.settle

    def failing(self: Run, manifest: dict[str, Any]) -> dict[str, Any]:
        return full() if "moving" in manifest else settle(self, manifest)

    with opened(place) as run:
        with monkeypatch.context() as patch, pytest.raises(OutOfSpace):
            patch.setattr(Run, "settle", failing)
            run.forget(user=PLANTED)
        assert not run.dataset.knows(PLANTED)
        run.add_items({"late": "A Quiet Harbour at Noon"})
    with opened(place) as run:
        assert run.catalog.row("late") == len(run.catalog) - 1
        assert not run.dataset.knows(PLANTED) and run.live.journal.wishes() == []
    Recommender.load(place)


def test_trained_opponents_that_cannot_be_removed_are_no_success(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "peers" / "sasrec").mkdir(parents=True)
    removed = shutil.rmtree

    def failing(path: Path, *arguments: Any, **options: Any) -> None:
        if ".peers" in str(path) or Path(path).name == "peers":
            if options.get("ignore_errors"):
                return
            raise OSError("busy")
        removed(path, *arguments, **options)

    with opened(place) as run:
        with monkeypatch.context() as patch, pytest.raises(OSError, match="busy"):
            patch.setattr(shutil, "rmtree", failing)
            run.forget(user=PLANTED)
        assert not (place / "peers").exists() and len(run.live.journal.wishes()) == 1
    with opened(place) as run:
        assert run.live.journal.wishes() == [] and not list(place.glob(".peers*"))


def test_an_interaction_that_is_on_the_disk_is_there_though_writing_it_was_interrupted(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = LiveMemory.append

    def interrupted(*arguments: Any) -> None:
        append(*arguments)
        raise KeyboardInterrupt

    a, b = shop_items(3, 5)
    with opened(place) as run:
        size, _ = len(run.entries), run.histories
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(LiveMemory, "append", interrupted)
            run.add_interactions([Interaction("late", a, LATER), Interaction("late", b, LATER + 1)])
        assert run.user_history("late") == [a, b] and len(run.entries) == size + 1


@pytest.mark.parametrize("fails", ["_fulfil", "_replace_data"])
def test_who_builds_the_memory_anew_ends_a_forget_first(
    place: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    reader = Recommender.load(place, verify=False)
    with opened(place) as run, monkeypatch.context() as patch, pytest.raises(OutOfSpace):
        patch.setattr(forgetting, fails, full)
        run.forget(user=PLANTED)
    reader.build_memory(through="valid", overwrite=True)
    assert not reader.dataset.knows(PLANTED) and not reader.stale
    reader = Recommender.load(place)
    assert PLANTED not in reader.entries.user_ids and PLANTED not in reader.live.log().user_ids
    assert reader.live.journal.wishes() == []


def test_a_reader_that_calibrates_is_up_to_date_and_remembers_nobody_who_was_forgotten(place: Path) -> None:
    reader = Recommender.load(place, verify=False)
    assert reader.dataset.knows(PLANTED)
    with opened(place) as run:
        run.forget(user=PLANTED)
    reader.calibrate()
    assert not reader.dataset.knows(PLANTED) and not reader.stale
    Recommender.load(place)


@pytest.mark.parametrize("at", range(6))
def test_a_calibration_that_is_stopped_leaves_the_former_one_or_the_new_one(
    place: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Two files and the manifest are written aside, two are moved into place, and the manifest says so."""
    replaced, done = os.replace, [0]
    opened_before = Recommender.load(place, verify=False)
    former = opened_before.constants

    def stopping(*names: Any) -> None:
        done[0] += 1
        if done[0] > at:
            raise KeyboardInterrupt
        replaced(*names)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", stopping)
        patch.setattr(calibrating, "calibrate", lambda *_, **__: replace(former.auto, requests=7))
        patch.setattr(calibrating, "calibrate_recall", lambda *_, **__: former.recall)
        opened_before.calibrate()
    reader = Recommender.load(place)
    assert (reader.constants.auto.requests == 7) == (at > 2)
    assert reader.recommend([reader.catalog.item_id(3)], decoder="auto")
    Recommender.load(place, writer=True).close()
    assert not list(place.glob(".*.next")) and "moving" not in Run(place).read_manifest()
    assert Recommender.load(place).constants == reader.constants

"""Parts of a run are replaced in one step: stopped anywhere, a reader finds the old ones or the new ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from l2d import artifacts, run
from l2d.artifacts import WriterLock, atomic_folder, sha256_file
from l2d.errors import ArtifactBusy, ArtifactCorrupt
from l2d.interactions import Dataset, split_by_time
from l2d.recommender import reading
from l2d.recommender.reading import read_data
from l2d.run import Run
from l2d.sources.demo import demo_world

STEPS: tuple[tuple[Any, str], ...] = (
    (os, "replace"), (os, "unlink"), (os, "rmdir"), (artifacts, "fsync"), (run, "fsync"), (shutil, "rmtree"),
)  # fmt: skip


class Stopped(BaseException):
    """The process ends here."""


@contextmanager
def stopping(monkeypatch: pytest.MonkeyPatch, at: int) -> Iterator[list[int]]:
    """Ends at the at-th step, before it is taken; counts the steps."""
    taken = [0]

    def counted(step: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            taken[0] += 1
            if taken[0] >= at:
                raise Stopped
            return step(*arguments, **options)

        return wrapper

    with monkeypatch.context() as patch:
        for module, name in STEPS:
            patch.setattr(module, name, counted(getattr(module, name)))
        yield taken


def before_and_after() -> tuple[Dataset, Dataset]:
    catalog, log = demo_world(seed=1, users=20, items=60)
    whole = Dataset(catalog, log, split_by_time(log))
    return whole, whole.forgetting(user=log.user_ids[3])


def begun(folder: Path) -> tuple[Run, Dataset, Dataset]:
    """A run with data and a calibration, whose replacements wait."""
    old, new = before_and_after()
    place = Run(folder)
    place.data.mkdir(parents=True)
    old.save(place.data)
    place.calibration.write_text("old")
    place.finish({"data": old.fingerprint, "calibration": sha256_file(place.calibration)})
    with atomic_folder(place.waiting("data")) as waiting:
        new.save(waiting)
    place.waiting("calibration.npz").write_text("new")
    return place, old, new


def goes_over(place: Run, new: Dataset) -> None:
    calibration = sha256_file(place.waiting("calibration.npz"))
    place.replace_parts(
        place.read_manifest(), ["data", "calibration.npz"], data=new.fingerprint, calibration=calibration
    )


def test_stopped_anywhere_readers_find_one_state_and_the_next_writer_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states, at = [], 1
    while True:
        place, old, new = begun(tmp_path / str(at))
        with stopping(monkeypatch, at) as taken:
            try:
                goes_over(place, new)
                ended = True
            except Stopped:
                ended = False
        manifest, data = read_data(place, verify=True)
        assert data.fingerprint == manifest["data"] in (old.fingerprint, new.fingerprint)
        assert sha256_file(place.part("calibration.npz", manifest)) == manifest["calibration"]
        states.append("new" if data.fingerprint == new.fingerprint else "old")
        settled = place.settle(place.read_manifest())
        assert settled["data"] == manifest["data"] and "moving" not in settled == place.read_manifest()
        assert Dataset.load(place.data).fingerprint == manifest["data"]
        assert place.calibration.read_text() == states[-1]
        place.verify(settled)
        place.sweep()
        assert sorted(file.name for file in tmp_path.joinpath(str(at)).iterdir()) == [
            "calibration.npz", "data", "manifest.json",
        ]  # fmt: skip
        if ended:
            break
        at += 1
    assert states == sorted(states, reverse=True), "once new, always new"
    assert len(states) == taken[0] + 1 > 10 and set(states) == {"old", "new"}


def test_a_reader_that_is_overtaken_reads_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, _, new = begun(tmp_path / "run")
    load, passed = Dataset.load, []

    class Overtaken(Dataset):
        @classmethod
        def load(cls, folder: Path) -> Dataset:
            if not passed:
                passed.append(folder)
                goes_over(place, new)
            return load(folder)

    monkeypatch.setattr(reading, "Dataset", Overtaken)
    manifest, data = read_data(place, verify=True)
    assert data.fingerprint == manifest["data"] == new.fingerprint and passed


def test_damage_is_no_reason_to_read_again(tmp_path: Path) -> None:
    place, _, _ = begun(tmp_path / "run")
    (place.data / "users.parquet").write_bytes(b"x")
    with pytest.raises(ArtifactCorrupt, match=r"users\.parquet"):
        read_data(place, verify=True)


def test_what_a_living_process_is_writing_is_not_swept_away(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for owner in (os.getppid(), dead.pid, os.getpid()):
        (tmp_path / f".data.{owner}.part").mkdir()
    Run(tmp_path).sweep()
    assert [left.name for left in tmp_path.iterdir()] == [f".data.{os.getppid()}.part"]


def test_a_run_that_is_written_to_is_not_deleted(tmp_path: Path) -> None:
    place = Run(tmp_path / "run")
    place.claim()
    place.finish({})
    with WriterLock(place.writer), pytest.raises(ArtifactBusy):
        place.claim(overwrite=True)
    assert place.read_manifest()
    place.claim(overwrite=True)
    assert list(place.path.iterdir()) == []

"""A disk that is really full: one clear line, exit code 2, and nothing half-written."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from l2d.cli import run
from l2d.memory import Memory
from l2d.recommender import Recommender
from l2d.sources.demo import demo_world

Disk = Callable[[int], Path]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Makes a file system of so many KiB."""
    mounted: list[Path] = []

    def mount(size: int) -> Path:
        place = tmp_path / f"disk-{len(mounted)}"
        place.mkdir()
        options = ["-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(place)]
        done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount a small disk here: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared shop."""
    folder = tmp_path_factory.mktemp("shop")
    catalog, log = demo_world(users=60, items=120)
    users = [log.user_ids[user] for user in log.user]
    items = [catalog.item_ids[row] for row in log.row]
    pl.DataFrame({"user_id": users, "item_id": items, "timestamp": log.timestamp}).write_csv(folder / "log.csv")
    pl.DataFrame({"item_id": catalog.item_ids, "title": catalog.titles}).write_csv(folder / "items.csv")
    assert run(prepare(folder, folder / "data")) == 0
    return folder


def prepare(folder: Path, out: Path) -> list[str]:
    return ["prepare", str(folder / "log.csv"), "--items", str(folder / "items.csv"), "--out", str(out)]


def tune(folder: Path, out: Path, *more: str) -> list[str]:
    options = ("--backbone", "scratch:tiny", "--epochs", "1", "--device", "cpu")
    return ["tune", str(folder / "data"), *options, "--out", str(out), *more]


def told(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("l2d:")]
    assert len(lines) == 1
    return lines[0]


def test_prepare_leaves_nothing(data: Path, disk: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    small = disk(16)
    assert run(prepare(data, small / "data")) == 2
    assert "no space left" in told(capsys)
    assert list(small.iterdir()) == []


def test_tuning_goes_on_when_there_is_room_again(data: Path, disk: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    small = disk(4_000)  # holds the data and a part of one checkpoint
    assert run(tune(data, small / "run")) == 2
    message = told(capsys)
    assert "no space left" in message
    assert "--resume" in message
    subprocess.run(["mount", "-o", "remount,size=200m", str(small)], check=True)
    assert run(tune(data, small / "run", "--resume")) == 0
    assert Recommender.load(small / "run", device="cpu").manifest["state"] == "ready"


def test_a_memory_build_goes_on_when_there_is_room_again(
    data: Path, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    room = disk(200_000)
    assert run(tune(data, room / "run")) == 0
    (room / "ballast").write_bytes(b"\0" * (shutil.disk_usage(room).free - 60_000))
    capsys.readouterr()
    assert run(["memory", "build", str(room / "run")]) == 2
    assert "space" in told(capsys)
    (room / "ballast").unlink()
    assert run(["memory", "build", str(room / "run")]) == 0
    assert Memory.open(room / "run" / "memory.lance").info().finished

"""`l2d memory add`, `versions`, `compact` and `roll-back`, and the reader of later interactions."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from l2d import Recommender
from l2d.artifacts import WriterLock
from l2d.cli import live
from l2d.errors import DataError
from l2d.sources import Columns
from l2d.sources.arrivals import read_arrivals
from shop import CATALOG, ok, refused

START = 1_760_000_000
IDS = CATALOG.item_ids


def write(file: Path, rows: list[tuple[object, object, object]], header=("user_id", "item_id", "timestamp")) -> Path:
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([header, *rows])
    return file


@pytest.fixture
def place(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def test_a_log_is_added_once_in_the_order_of_its_times(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "AT_ONCE", 3)
    rows = [("anna", IDS[step % 5], START + 60 * step) for step in range(8)]
    file = write(tmp_path / "new.csv", rows[::-1])
    done = ok("memory", "add", place, file)
    assert "8 interactions added, 7 of them as entries; 0 were there already" in done.out
    assert "0 interactions added, 0 of them as entries; 8 were there already" in ok("memory", "add", place, file).out
    assert [str(item) for item in Recommender.load(place).user_history("anna")] == [row[1] for row in rows]
    assert ok("recommend", place, "--user", "anna").out
    assert "8 interactions, 0 entries in the journal" in ok("memory", "info", place).out


def test_unknown_items_are_refused_before_anything_is_written_or_skipped(place: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "new.csv", [("u", IDS[0], START), ("u", "strange", START + 1), ("u", IDS[1], START + 2)])
    assert "1 items of" in (line := refused("memory", "add", place, file)) and "--skip-unknown" in line
    assert Recommender.load(place).memory_info().interactions == 0
    done = ok("memory", "add", place, file, "--skip-unknown")
    assert "2 interactions added, 1 of them" in done.out and "1 skipped, whose 1 items" in done.out


def test_versions_are_listed_returned_to_and_dropped(place: Path, tmp_path: Path) -> None:
    for step in range(3):
        rows = [("anna", IDS[item], START + 100 * step + item) for item in range(4)]
        ok("memory", "add", place, write(tmp_path / "new.csv", rows))
    listed = [line.split() for line in ok("memory", "versions", place).out.splitlines() if "move" in line]
    assert [line[2] for line in listed] == ["4", "8", "12"]
    done = ok("memory", "roll-back", place, listed[0][0])
    assert "8 live interactions deleted" in done.out
    assert len(Recommender.load(place).user_history("anna")) == 4
    assert "999" in refused("memory", "roll-back", place, "999")
    assert "1 versions kept" in ok("memory", "compact", place).out
    assert len([line for line in ok("memory", "versions", place).out.splitlines() if "compact" in line]) == 1


def test_a_second_writer_is_told_who_the_first_one_is(place: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "new.csv", [("u", IDS[0], START)])
    with WriterLock(place / ".writer"):
        for command in (("add", place, file), ("compact", place), ("roll-back", place, "1"), ("build", place)):
            assert "is being written to by" in refused("memory", *command)
        assert ok("memory", "versions", place).out


def test_times_decide_the_order_and_ties_keep_that_of_the_file(tmp_path: Path) -> None:
    rows = [("b", "x", 20), ("a", "y", 10), ("a", "x", 20), ("", "x", 5), ("c", "z", "")]
    found = read_arrivals(write(tmp_path / "log.csv", rows[:4]))
    assert list(zip(found.user_ids, found.item_ids, found.timestamp.tolist(), strict=True)) == [
        ("a", "y", 10), ("b", "x", 20), ("a", "x", 20),
    ]  # fmt: skip
    named = write(tmp_path / "named.csv", [("x", "2020-01-01", "a")], header=("what", "when", "who"))
    found = read_arrivals(named, columns=Columns(user="who", item="what", time="when"))
    assert (found.user_ids, found.timestamp.tolist()) == (["a"], [1_577_836_800])


def test_what_is_no_log_is_refused(tmp_path: Path, data_dir: Path) -> None:
    with pytest.raises(DataError, match="no time column"):
        read_arrivals(write(tmp_path / "log.csv", [("a", "x")], header=("user_id", "item_id")))
    with pytest.raises(DataError, match="is no log"):
        read_arrivals(data_dir / "amazon-cds")


def test_arrivals_count_what_they_hold(tmp_path: Path) -> None:
    found = read_arrivals(write(tmp_path / "log.csv", [("a", "x", 1), ("a", "y", 2)]))
    assert len(found) == 2 and found.untimed == 0 and found.timestamp.dtype == np.int64

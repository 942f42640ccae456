"""The preparation: cleaning, duplicates, k-core, order, splits and the report, against plain loops and worked cases."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2d.errors import ConfigError, DataError, InputError
from l2d.interactions import Dataset
from l2d.sources import prepare, read
from l2d.sources.cleaning import clean_title, cut_words
from l2d.sources.filters import Log, first_of_each, in_order, k_core
from l2d.sources.tables import open_table, whole

Triple = tuple[str, str, int]


def write(folder: Path, triples: list[Triple], titles: dict[str, str] | None = None) -> Path:
    """A log and its item file."""
    items = titles or {item: f"Title {item}" for _, item, _ in triples}
    pl.DataFrame(triples, schema=["user", "item", "time"], orient="row").write_csv(folder / "log.csv")
    pl.DataFrame({"item": list(items), "title": list(items.values())}).write_csv(folder / "items.csv")
    return folder


def triples_of(dataset: Dataset) -> list[Triple]:
    log, catalog = dataset.interactions, dataset.catalog
    columns = zip(log.user.tolist(), log.row.tolist(), log.timestamp.tolist(), strict=True)
    return [(log.user_ids[user], catalog.item_ids[row], time) for user, row, time in columns]


def count(dataset: Dataset, action: str, what: str, why: str = "") -> int:
    return sum(
        record["count"]
        for record in dataset.info["report"]
        if record["action"] == action and record["what"] == what and why in record["why"]
    )


def some_log(seed: int = 0, n: int = 400) -> list[Triple]:
    generator = np.random.default_rng(seed)
    users, items = generator.integers(0, 30, n), generator.zipf(1.4, n) % 40
    times = generator.integers(1_400_000_000, 1_400_000_900, n)
    return [(f"u{user}", f"i{item}", int(time)) for user, item, time in zip(users, items, times, strict=True)]


# Titles -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Okca&reg; Dual &amp; more", "Okca\u00ae Dual & more"),
        ("Universal Int&#39;l &#x2014; x", "Universal Int'l \u2014 x"),
        ("AT&amp;amp;T", "AT&T"),
        ("Rock&reggae; R&B; Q&A", "Rock&reggae; R&B; Q&A"),
        ("<b>Bold</b> and <i class='x'>thin</i><br/>", "Bold and thin"),
        ("&lt;b&gt;Bold&lt;/b&gt;", "Bold"),
        ("A <Love> Story, I <3 you, 3 < 4 > 2", "A <Love> Story, I <3 you, 3 < 4 > 2"),
        ('Jimi Hendrix,Axis: Bold As Love" />', "Jimi Hendrix,Axis: Bold As Love"),
        ('<span class="a-size-medium a-color-secondary a-text-normal"', ""),
        ("var aPageStart = (new Date()).getTime();", ""),
        (" two\tblanks \n and\x00 control\x9f ", "two blanks and control"),
        ("\ufeffElton John &lrm;\u2013 x\u200b", "Elton John \u2013 x"),
        ("Cafe\u0301 \U0001f468\u200d\U0001f469", "Caf\u00e9 \U0001f468\u200d\U0001f469"),
        ("&bogus; &#0; stays a word", "&bogus; \ufffd stays a word"),
        ("Plain title, 2nd ed.", "Plain title, 2nd ed."),
    ],
)
def test_titles_are_cleaned_conservatively(raw: str, clean: str) -> None:
    assert clean_title(raw) == clean


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(st.characters(codec="utf-8") | st.sampled_from("<>&;/\"'#bi= "), max_size=40))
def test_cleaning_settles_and_leaves_no_stray_blank(raw: str) -> None:
    clean = clean_title(raw)
    assert clean_title(clean) == clean == " ".join(clean.split())


def test_cut_words() -> None:
    assert (
        cut_words("one two three", 2) == "one two"
        and cut_words("one two", None) == cut_words("one two", 9) == "one two"
    )


def test_titles_in_the_data_set(tmp_path: Path) -> None:
    """Untitled items go with their interactions, shared titles stay; each is counted."""
    log = [*some_log(), ("u1", "gone", 1_400_000_001), ("u2", "gone", 1_400_000_002), ("u2", "markup", 1_400_000_003)]
    titles = {item: f"Title&nbsp;of {item} and more" for _, item, _ in log} | {
        "gone": " ",
        "markup": "<br>",
        "idle": "Idle",
    }
    titles |= {"i1": "The  same", "i2": "The same"}
    dataset = prepare(write(tmp_path, log, titles), max_title_words=3)
    kept = dict(zip(dataset.catalog.item_ids, dataset.catalog.titles, strict=True))
    assert kept["i0"] == "Title of i0" and kept["i1"] == kept["i2"] == "The same" and kept["idle"] == "Idle"
    assert not kept.keys() & {"gone", "markup"}
    assert count(dataset, "dropped", "interactions", "2 items without a title") == 3
    assert count(dataset, "found", "items", "share their title") == 1
    assert count(dataset, "found", "titles", "nothing but markup") == 1
    assert count(dataset, "changed", "titles", "cut to 3 words") == len(kept) - 3


# Order, duplicates, k-core ------------------------------------------------------------------------------------------


def plain_order(log: list[Triple]) -> list[Triple]:
    """Users by first appearance, each by time, the file's order between equal times, repeats out."""
    users = list(dict.fromkeys(user for user, _, _ in log))
    ordered = [
        event for user in users for event in sorted((e for e in log if e[0] == user), key=lambda event: event[2])
    ]
    return list(dict.fromkeys(ordered))


@pytest.mark.parametrize("seed", range(3))
def test_order_and_duplicates_equal_a_plain_loop(tmp_path: Path, seed: int) -> None:
    log = some_log(seed)
    log += log[:25] + log[10:20]
    dataset = prepare(write(tmp_path, log))
    assert triples_of(dataset) == plain_order(log)
    assert count(dataset, "dropped", "interactions", "same user, item and time") == len(log) - len(set(log))
    backwards = sum(
        later[2] < earlier[2]
        for user in {event[0] for event in log}
        for events in [[event for event in log if event[0] == user]]
        for earlier, later in pairwise(events)
    )
    assert count(dataset, "changed", "interactions", "order of time") == backwards > 0


def plain_core(pairs: list[tuple[int, int]], k: int) -> list[bool]:
    """Removes one offender at a time until none is left: the k-core does not depend on the order."""
    alive = [True] * len(pairs)
    while True:
        users = Counter(user for (user, _), on in zip(pairs, alive, strict=True) if on)
        items = Counter(item for (_, item), on in zip(pairs, alive, strict=True) if on)
        low = next((p for p, (u, i) in enumerate(pairs) if alive[p] and (users[u] < k or items[i] < k)), None)
        if low is None:
            return alive
        alive[low] = False


@settings(max_examples=100, deadline=None, derandomize=True)
@given(pairs=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=50), k=st.integers(1, 4))
def test_k_core_equals_removal_one_by_one(pairs: list[tuple[int, int]], k: int) -> None:
    user, item = np.array(pairs, dtype=np.int32).T
    keep, _ = k_core(Log(user, item, np.arange(len(pairs))), k)
    assert keep.tolist() == plain_core(pairs, k)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=30))
def test_first_of_each_keeps_the_first_of_every_triple(events: list[tuple[int, int, int]]) -> None:
    user, item, instant = (np.array(column) for column in zip(*events, strict=True))
    log, _ = in_order(Log(user.astype(np.int32), item.astype(np.int32), instant))
    kept = log.take(first_of_each(log))
    found = list(zip(kept.user.tolist(), kept.item.tolist(), kept.instant.tolist(), strict=True))
    assert found == list(dict.fromkeys(sorted(events, key=lambda event: (event[0], event[2]))))


def test_k_core_in_the_data_set(tmp_path: Path) -> None:
    log = sorted(set(some_log(4, 700)), key=lambda event: event[2])
    titles = {item: item for _, item, _ in log} | {"idle": "Idle"}
    dataset = prepare(write(tmp_path, log, titles), k_core=5)
    kept = triples_of(dataset)
    assert min(Counter(user for user, _, _ in kept).values()) >= 5 <= min(Counter(item for _, item, _ in kept).values())
    numbers = [(int(user[1:]), int(item[1:])) for user, item, _ in log]
    expected = [event for event, on in zip(log, plain_core(numbers, 5), strict=True) if on]
    assert sorted(kept) == sorted(expected) and len(expected) < len(log)
    assert set(dataset.catalog.item_ids) == {item for _, item, _ in expected}
    assert any("k-core" in warning for warning in dataset.info["warnings"])
    with pytest.raises(DataError, match=r"no interaction is left.*999-core"):
        prepare(tmp_path, k_core=999)


# Splits and options -------------------------------------------------------------------------------------------------


def test_splits_by_default_and_by_name(tmp_path: Path) -> None:
    folder = write(tmp_path, some_log())
    dataset = prepare(folder)
    assert dataset.info["split"] == "temporal" and not dataset.info["warnings"]
    train, valid, test = (dataset.splits[name].timestamp for name in ("train", "valid", "test"))
    assert train.max() < valid.min() and valid.max() < test.min()
    last = prepare(folder, split="leave-last-out", max_history=4)
    assert any("leaks time" in warning for warning in last.info["warnings"])
    assert len(last.splits.test) == len(last.interactions.user_ids) and last.splits.train.history_length.max() == 4


def windows(folder: Path) -> Path:
    header = "user_id,history_item_ids,item_id,timestamp\n"
    for name in ("train", "valid", "test"):
        (folder / f"{name}.csv").write_text(header + "1,0 1 2,3,5\n")
    (folder / "items.csv").write_text('item_id,title\n0,A\n1,B&reg;\n2,"<span class=""a-b"""\n3,D\n')
    return folder


def test_given_windows_keep_every_item_and_take_a_limit(tmp_path: Path) -> None:
    dataset = prepare(windows(tmp_path), max_history=2)
    assert [example.history.tolist() for example in dataset.splits.train] == [[1, 2]]
    assert dataset.catalog.titles == ("A", "B\u00ae", '<span class="a-b"', "D")
    assert count(dataset, "found", "titles", "kept as given") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "temporal"}, r"got temporal, expected given.*--split given"),
        ({"split": "leave-last-out"}, r"--split given"),
        ({"k_core": 5}, r"k-core would change the given examples"),
        ({"user_column": "user_id"}, r"the user column of format windows is fixed"),
        ({"format": "d3"}, r"info.txt is not there"),
        ({"format": "excel", "k_core": 0, "max_history": -1}, r"--format excel.*--k-core 0.*--max-history -1"),
    ],
)
def test_contradictions_about_windows(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare(windows(tmp_path), **options)


def test_contradictions_about_logs(tmp_path: Path) -> None:
    folder = write(tmp_path, some_log())
    with pytest.raises(ConfigError, match=r"got given.*--split temporal"):
        prepare(folder, split="given")
    (folder / "log.csv").write_text("user,item\nu1,i1\nu1,i2\nu1,i3\nu1,i4\n")
    with pytest.raises(DataError, match=r"no time column.*--time-column.*leave-last-out"):
        prepare(folder)
    untimed = prepare(folder, split="leave-last-out")
    assert [len(untimed.splits[name]) for name in ("train", "valid", "test")] == [1, 1, 1]
    (folder / "sequences.csv").write_text("user_id,item_ids\n1,i1 i2 i3 i4\n")
    with pytest.raises(ConfigError, match=r"sequences have no times"):
        prepare(folder, split="temporal")


def test_single_interactions_are_counted_and_refused_only_when_nothing_remains(tmp_path: Path) -> None:
    dataset = prepare(write(tmp_path, [*some_log(), ("once", "i1", 1_400_000_500)]))
    assert count(dataset, "found", "users", "single interaction") == 1
    assert "once" in dataset.interactions.user_ids
    with pytest.raises(DataError, match=r"too few interactions to split.*0 targets"):
        prepare(write(tmp_path, [(f"u{user}", f"i{user}", user) for user in range(9)]))


def test_report_adds_up_and_survives_saving(tmp_path: Path) -> None:
    log = some_log()
    dataset = prepare(write(tmp_path, log + log[:9]))
    dropped = sum(record["count"] for record in dataset.info["report"] if record["action"] == "dropped")
    assert (
        count(dataset, "read", "records") - dropped
        == count(dataset, "kept", "interactions")
        == len(dataset.interactions)
    )
    folder = tmp_path / "data"
    folder.mkdir()
    dataset.save(folder)
    again = Dataset.load(folder)
    assert again.info == dataset.info and again.fingerprint == dataset.fingerprint
    assert triples_of(again) == triples_of(dataset)


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    read(write(tmp_path, some_log()), progress=lambda done, total: calls.append((done, total)))
    assert calls[-1][0] == calls[-1][1] and [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_many_batches_equal_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path, some_log(5, 3000))
    pl.read_csv(folder / "log.csv").write_ndjson(tmp_path / "log.jsonl")
    at_once = prepare(folder / "log.csv", items=folder / "items.csv")
    monkeypatch.setattr("l2d.sources.tables.BATCH", 64)
    for name in ("log.csv", "log.jsonl"):
        assert prepare(folder / name, items=folder / "items.csv").fingerprint == at_once.fingerprint


def test_a_late_stray_quote_changes_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches read before the quote come from polars, the rest from the csv module: nothing is lost or read twice."""
    monkeypatch.setattr("l2d.sources.tables.BATCH", 1000)
    events = [(f"u{k % 50}", f"i{k % 9}", 1_400_000_000 + k, f"Title {k % 9}") for k in range(20_000)]
    events[-50] = (*events[-50][:3], '7" single')
    text = "user,item,time,title\n" + "".join(",".join(map(str, event)) + "\n" for event in events)
    (tmp_path / "log.csv").write_text(text)
    records = whole(open_table(tmp_path / "log.csv"), ["user", "time", "title"]).rows()
    assert records == [(user, str(time), title) for user, _, time, title in events]


def test_memory_benchmark_runs(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "prepare_memory.py"
    out = tmp_path / "result.json"
    command = [sys.executable, str(script), "--smoke", "--out", str(out), "--folder", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert '"peak_rss_gib"' in out.read_text() and not list(tmp_path.glob("l2d-prepare-*"))

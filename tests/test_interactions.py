"""Histories, examples and splits against plain loops; nothing later than a cut; the prepared folder on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from l2d.catalog import Catalog
from l2d.errors import ArtifactCorrupt, ArtifactMissing, DataError
from l2d.interactions import (
    SPLITS,
    UNKNOWN_TIME,
    Dataset,
    Examples,
    Interactions,
    Splits,
    block_start,
    chains,
    examples_of,
    split_by_time,
    split_leave_last_out,
)

ITEMS = 9
Log = list[list[tuple[int, int]]]  # per user: (row, time), oldest first


@st.composite
def logs(draw: st.DrawFn) -> Log:
    users = draw(st.lists(st.integers(1, 14), min_size=1, max_size=8))
    return [
        list(
            zip(
                draw(st.lists(st.integers(0, ITEMS - 1), min_size=count, max_size=count)),
                sorted(draw(st.lists(st.integers(0, 12), min_size=count, max_size=count))),
                strict=True,
            )
        )
        for count in users
    ]


def interactions_from(log: Log) -> Interactions:
    flat = [(user, row, time) for user, entries in enumerate(log) for row, time in entries]
    user, row, time = (np.array(column) for column in zip(*flat, strict=True))
    names = tuple(f"user {index}" for index in range(len(log)))
    return Interactions(names, user.astype(np.int32), row.astype(np.int32), time.astype(np.int64))


Sample = tuple[int, tuple[int, ...], int, int]  # user, history, target, time


def plain_start(position: int, limit: int) -> int:
    """Plays a user's history forward: when it passes the limit, the oldest half of the limit goes."""
    start = 0
    for length in range(1, position + 1):
        if length - start > limit:
            start += max(1, limit // 2)
    return start


def plain_examples(log: Log, limit: int) -> list[Sample]:
    found = []
    for user, entries in enumerate(log):
        rows = [row for row, _ in entries]
        for position in range(1, len(entries)):
            history = tuple(rows[plain_start(position, limit) : position])
            found.append((user, history, rows[position], entries[position][1]))
    return found


def samples(examples: Examples) -> list[Sample]:
    parts = zip(examples.user.tolist(), examples, examples.timestamp.tolist(), strict=True)
    return [(user, tuple(history.tolist()), target, time) for user, (history, target), time in parts]


def test_a_history_over_the_limit_loses_its_oldest_half() -> None:
    positions = np.arange(1, 22)
    kept = positions - block_start(positions, 10)
    assert kept.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 6, 7, 8, 9, 10, 6, 7, 8, 9, 10, 6]


@given(st.integers(1, 300), st.integers(1, 40))
def test_block_start_equals_playing_the_history_forward(position: int, limit: int) -> None:
    start = int(block_start(np.array([position]), limit)[0])
    assert start == plain_start(position, limit)
    assert 1 <= position - start <= limit


@settings(max_examples=100, deadline=None)
@given(logs(), st.integers(1, 12))
def test_examples_equal_a_plain_loop(log: Log, limit: int) -> None:
    examples = examples_of(interactions_from(log), limit)
    assert samples(examples) == plain_examples(log, limit)
    assert examples.history_length.tolist() == [len(history) for _, history, _, _ in samples(examples)]
    times = [[time for _, time in entries] for entries in log]
    assert examples.last_timestamp.tolist() == [before for each in times for before in each[:-1]]


def test_last_timestamp_of_an_empty_history_is_unknown() -> None:
    log = Interactions(("a",), np.zeros(3, np.int32), np.arange(3, dtype=np.int32), np.array([5, 6, 7]))
    examples = Examples(log, np.array([0, 1, 1]), np.array([0, 1, 2]))
    assert examples.last_timestamp.tolist() == [UNKNOWN_TIME, UNKNOWN_TIME, 6]
    assert [history.tolist() for history in examples.take(np.array([2, 0])).histories()] == [[1], []]


@settings(max_examples=150, deadline=None)
@given(logs(), st.integers(1, 12))
def test_split_by_time_equals_a_plain_split(log: Log, limit: int) -> None:
    expected = plain_examples(log, limit)
    times = sorted(time for *_, time in expected)
    assume(len(times) >= 3)
    valid_from, test_from = times[int(len(times) * 0.8)], times[int(len(times) * 0.9)]
    parts = [
        [sample for sample in expected if sample[3] < valid_from],
        [sample for sample in expected if valid_from <= sample[3] < test_from],
        [sample for sample in expected if sample[3] >= test_from],
    ]
    if not all(parts):
        with pytest.raises(DataError, match="split is empty"):
            split_by_time(interactions_from(log), max_history=limit)
        return
    splits = split_by_time(interactions_from(log), max_history=limit)
    assert [samples(splits[name]) for name in SPLITS] == parts


@settings(max_examples=100, deadline=None)
@given(logs())
def test_nothing_in_a_training_example_is_later_than_the_cut(log: Log) -> None:
    interactions = interactions_from(log)
    try:
        splits = split_by_time(interactions)
    except DataError:
        return
    cuts = [int(splits.valid.timestamp.min()), int(splits.test.timestamp.min())]
    for examples, cut in zip((splits.train, splits.valid), cuts, strict=True):
        for start, end in zip(examples.start.tolist(), examples.end.tolist(), strict=True):
            assert (interactions.timestamp[start : end + 1] < cut).all()
    assert cuts[0] < cuts[1]


@settings(max_examples=100, deadline=None)
@given(logs(), st.integers(1, 12))
def test_leave_last_out_equals_a_plain_split(log: Log, limit: int) -> None:
    expected: dict[str, list[Sample]] = {name: [] for name in SPLITS}
    for user in range(len(log)):
        own = [sample for sample in plain_examples(log, limit) if sample[0] == user]
        for sample, name in zip(reversed(own), ["test", "valid", *["train"] * len(own)], strict=False):
            expected[name].append(sample)
    if not all(expected.values()):
        with pytest.raises(DataError, match="split is empty"):
            split_leave_last_out(interactions_from(log), max_history=limit)
        return
    splits = split_leave_last_out(interactions_from(log), max_history=limit)
    assert {name: sorted(samples(splits[name])) for name in SPLITS} == {n: sorted(part) for n, part in expected.items()}


def test_a_user_with_one_item_does_not_move_a_test_target_into_validation() -> None:
    log: Log = [[(0, 0), (1, 1), (2, 2), (3, 3)], [(4, 4)], [(5, 5), (6, 6), (7, 7)]]
    splits = split_leave_last_out(interactions_from(log))
    assert {name: splits[name].end.tolist() for name in SPLITS} == {"train": [1], "valid": [2, 6], "test": [3, 7]}


def test_logs_that_cannot_be_split_are_refused() -> None:
    log = interactions_from([[(0, 1), (1, 2), (2, 3)]])
    with pytest.raises(DataError, match=r"needs a time.*leave-last-out"):
        split_by_time(replace(log, timestamp=np.array([1, UNKNOWN_TIME, 3])))
    with pytest.raises(DataError, match="got 2 targets"):
        split_by_time(log)
    with pytest.raises(DataError, match="no interactions"):
        Interactions((), *(np.empty(0, np.int32),) * 2, np.empty(0, np.int64))
    with pytest.raises(DataError, match=r"differ in length.*\(3, 2, 3\)"):
        replace(log, row=log.row[:2])


@settings(max_examples=100, deadline=None)
@given(logs(), st.integers(1, 12))
def test_chains_undo_the_cutting(log: Log, limit: int) -> None:
    whole = [[row for row, _ in entries] for entries in log if len(entries) > 1]
    assume(whole)
    assert [chain.tolist() for chain in chains(examples_of(interactions_from(log), limit))] == whole


def test_chains_break_where_a_window_does_not_follow() -> None:
    windows = [[0, 1], [0, 1, 2], [5, 6], [5, 6, 7]]
    lengths = np.array([len(window) for window in windows])
    row = np.concatenate([np.array(window, np.int32) for window in windows])
    log = Interactions(("a",), np.zeros(len(row), np.int32), row, np.zeros(len(row), np.int64))
    stops = np.cumsum(lengths)
    assert [chain.tolist() for chain in chains(Examples(log, stops - lengths, stops - 1))] == [[0, 1, 2], [5, 6, 7]]


def dataset_from(log: Log, info: dict[str, object] | None = None) -> Dataset:
    interactions = interactions_from(log)
    catalog = Catalog.from_titles([f"title {row}" for row in range(ITEMS)])
    return Dataset(catalog, interactions, split_leave_last_out(interactions, max_history=4), info or {"name": "toy"})


LOG: Log = [[(row, 10 * row) for row in range(7)], [(8, 1)], [(3, 2), (1, 2), (7, 9), (0, 9)]]


def test_train_rows_are_those_of_training_windows() -> None:
    dataset = dataset_from(LOG)
    seen = {row for history, target in dataset.splits.train for row in [*history.tolist(), target]}
    assert dataset.train_rows.tolist() == sorted(seen)
    # The last two items of the first user and everything of the user with one item stay unseen.
    assert not seen & {5, 6, 8}


def test_user_history_is_the_latest() -> None:
    dataset = dataset_from(LOG)
    assert dataset.user_history("user 0", 3).tolist() == [4, 5, 6]
    assert dataset.user_history("user 2").tolist() == [3, 1, 7, 0]
    assert dataset.user_history("user 1").tolist() == [8]
    with pytest.raises(DataError, match=r"unknown user.*'nobody'.*--history"):
        dataset.user_history("nobody")


def test_user_history_of_windows_is_the_last_window() -> None:
    windows = [(0, [0, 1]), (1, [5, 6]), (0, [0, 1, 2]), (1, [5, 6, 7]), (0, [1, 2, 3])]
    row = np.concatenate([np.array(window, np.int32) for _, window in windows])
    user = np.concatenate([np.full(len(window), who, np.int32) for who, window in windows])
    lengths = np.array([len(window) for _, window in windows])
    stops = np.cumsum(lengths)
    log = Interactions(("a", "b"), user, row, np.zeros(len(row), np.int64))
    every = Examples(log, stops - lengths, stops - 1)
    splits = Splits(*(every.take(np.array(part)) for part in ([0, 1], [2, 3], [4])))
    catalog = Catalog.from_titles([str(item) for item in range(ITEMS)])
    dataset = Dataset(catalog, log, splits, {"windows": True})
    assert dataset.user_history("a").tolist() == [1, 2, 3]
    assert dataset.user_history("b", 2).tolist() == [6, 7]


def test_save_and_load(tmp_path: Path) -> None:
    dataset = dataset_from(LOG, {"name": "toy", "dropped": {"users": 1}})
    dataset.save(tmp_path)
    again = Dataset.load(tmp_path)
    assert again.fingerprint == dataset.fingerprint
    assert again.info == dataset.info
    assert again.interactions.user_ids == dataset.interactions.user_ids
    for name in SPLITS:
        assert samples(again.splits[name]) == samples(dataset.splits[name])
    for column in ("user", "row", "timestamp"):
        assert getattr(again.interactions, column).dtype == getattr(dataset.interactions, column).dtype


def test_the_fingerprint_sees_every_part() -> None:
    dataset = dataset_from(LOG)
    log, splits = dataset.interactions, dataset.splits
    others = [
        replace(dataset, catalog=Catalog.from_titles([str(row) for row in range(ITEMS)])),
        replace(dataset, interactions=replace(log, row=log.row[::-1].copy())),
        replace(dataset, interactions=replace(log, timestamp=log.timestamp + 1)),
        replace(dataset, splits=Splits(splits.train, splits.test, splits.valid)),
    ]
    assert len({dataset.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_a_flipped_byte_in_any_file_is_refused(tmp_path: Path) -> None:
    dataset_from(LOG).save(tmp_path)
    files = sorted(file for file in tmp_path.iterdir() if file.suffix == ".parquet")
    assert len(files) == 4
    for file in files:
        whole = file.read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 1):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(ArtifactCorrupt, match=file.name):
                Dataset.load(tmp_path)
        file.write_bytes(whole)
    files[0].unlink()
    with pytest.raises(ArtifactMissing, match=files[0].name):
        Dataset.load(tmp_path)
    (tmp_path / "dataset.json").write_text("{", encoding="utf-8")
    with pytest.raises(ArtifactCorrupt, match="not valid JSON"):
        Dataset.load(tmp_path)
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(ArtifactMissing, match="l2d prepare"):
        Dataset.load(tmp_path)

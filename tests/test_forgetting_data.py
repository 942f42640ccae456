"""Forgetting in the prepared data: what is left equals a log that is filtered by hand, and keeps its sample numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest

from l2d.artifacts import sha256_text
from l2d.catalog import Catalog
from l2d.errors import ConfigError, DataError, UnknownItem
from l2d.interactions import (
    SPLITS,
    UNKNOWN_TIME,
    Dataset,
    Examples,
    Interactions,
    Splits,
    split_by_time,
    split_leave_last_out,
)
from l2d.sources.demo import demo_world

DAY = 86_400


class Plain(NamedTuple):
    """An example in words: whose, what, when, and its number."""

    split: str
    sample: int
    user: str
    history: list[tuple[int, int]]
    target: tuple[int, int]


def plain(dataset: Dataset) -> list[Plain]:
    log, found = dataset.interactions, []
    for name in SPLITS:
        part = dataset.splits[name]
        for place in range(len(part)):
            start, end = int(part.start[place]), int(part.end[place])
            pairs = [(int(log.row[at]), int(log.timestamp[at])) for at in range(start, end + 1)]
            assert len(set(log.user[start : end + 1].tolist())) == 1, "an example is one user's"
            user = log.user_ids[log.user[end]]
            found.append(Plain(name, int(part.sample[place]), user, pairs[:-1], pairs[-1]))
    return found


def without(examples: list[Plain], gone: Any) -> list[Plain]:
    """The examples left after each pair (row, time) of a user for which `gone` holds is taken out."""
    left = []
    for one in examples:
        history = [pair for pair in one.history if not gone(one.user, *pair)]
        if not gone(one.user, *one.target) and (history or not one.history):
            left.append(one._replace(history=history))
    return left


def logged(seed: int = 0) -> Dataset:
    catalog, interactions = demo_world(seed=seed, users=40, items=60)
    return Dataset(catalog, interactions, split_by_time(interactions, max_history=6), {"format": "demo"})


def windowed(seed: int = 0, known: float = 1.0) -> Dataset:
    """Windows that repeat their histories, times in order, some of them unknown."""
    rng = np.random.default_rng(seed)
    rows, users, times, starts, ends = [], [], [], [], []
    for window in range(90):
        length = int(rng.integers(2, 7))
        starts.append(len(rows))
        ends.append(len(rows) + length - 1)
        rows += rng.integers(0, 12, length).tolist()
        users += [window % 15] * length
        times += (np.sort(rng.integers(0, 100, length)) * DAY).tolist()
    instant = np.where(rng.random(len(rows)) < known, times, UNKNOWN_TIME)
    names = tuple(f"user {index}" for index in range(15))
    log = Interactions(names, np.array(users, np.int32), np.array(rows, np.int32), instant.astype(np.int64))
    bounds = [slice(0, 60), slice(60, 75), slice(75, 90)]
    start, end = np.array(starts, np.int64), np.array(ends, np.int64)
    splits = Splits(*(Examples(log, start[part], end[part]) for part in bounds))
    return Dataset(Catalog.from_titles([f"title {row}" for row in range(12)]), log, splits, {"windows": True})


@pytest.mark.parametrize("dataset", [logged(), windowed()], ids=["log", "windows"])
def test_what_is_left_is_the_filtered_log(dataset: Dataset) -> None:
    cut = int(np.median(dataset.interactions.timestamp)) - 20 * DAY
    user = dataset.interactions.user_ids[3]
    wishes: list[tuple[dict[str, Any], Any]] = [
        ({"user": user}, lambda who, row, time: who == user),
        ({"item": dataset.catalog.item_id(4)}, lambda who, row, time: row == 4),
        ({"before": cut}, lambda who, row, time: time < cut),
    ]
    for wish, gone in wishes:
        left = dataset.forgetting(**wish)
        assert plain(left) == without(plain(dataset), gone) != plain(dataset), wish
        assert left.catalog is dataset.catalog
        marked = dataset.forgotten(**wish)
        log = dataset.interactions
        pairs = zip(log.user.tolist(), log.row.tolist(), log.timestamp.tolist(), strict=True)
        assert marked.tolist() == [gone(log.user_ids[who], row, time) for who, row, time in pairs]
        assert left.forgetting(**wish) is left, "forgetting twice is forgetting once"
        remaining = {left.interactions.user_ids[owner] for owner in left.interactions.user}
        assert remaining == set(left.interactions.user_ids), "nobody is listed who has nothing left"
        for who in left.interactions.user_ids:
            left.user_history(who)


def test_a_log_loses_exactly_what_is_forgotten() -> None:
    dataset = logged()
    kept = ~dataset.forgotten(item=dataset.catalog.item_id(4))
    left = dataset.forgetting(item=dataset.catalog.item_id(4)).interactions
    names = [dataset.interactions.user_ids[owner] for owner in dataset.interactions.user[kept]]
    assert [left.user_ids[owner] for owner in left.user] == names
    np.testing.assert_array_equal(left.row, dataset.interactions.row[kept])
    np.testing.assert_array_equal(left.timestamp, dataset.interactions.timestamp[kept])


def test_data_without_a_user_are_data_prepared_without_the_user() -> None:
    dataset = logged()
    log, gone = dataset.interactions, 5
    kept = log.user != gone
    names = tuple(name for index, name in enumerate(log.user_ids) if index != gone)
    rest = Interactions(
        names, (log.user - (log.user > gone))[kept].astype(np.int32), log.row[kept], log.timestamp[kept]
    )
    whole = Dataset(dataset.catalog, log, split_leave_last_out(log, max_history=6))
    fresh = Dataset(dataset.catalog, rest, split_leave_last_out(rest, max_history=6))
    left = whole.forgetting(user=log.user_ids[gone])
    assert [one._replace(sample=0) for one in plain(left)] == [one._replace(sample=0) for one in plain(fresh)]


@pytest.mark.parametrize("known", [0.6, 0.15])
def test_an_unknown_time_counts_as_older_unless_a_known_one_before_it_is_not(known: float) -> None:
    dataset, cut = windowed(seed=2, known=known), 20 * DAY
    left = []
    for one in plain(dataset):
        times, kept = [time for _, time in (*one.history, one.target)], []
        for place, pair in enumerate((*one.history, one.target)):
            sure = [time for time in times[: place + 1] if time != UNKNOWN_TIME]
            kept.append(pair if sure and sure[-1] >= cut else None)
        history = [pair for pair in kept[:-1] if pair]
        if kept[-1] and history:
            left.append(one._replace(history=history))
    assert plain(dataset.forgetting(before=cut)) == left != plain(dataset)


def test_data_without_times_cannot_forget_the_past() -> None:
    catalog, log = demo_world(users=20, items=60)
    timeless = replace(log, timestamp=np.full(len(log), UNKNOWN_TIME))
    dataset = Dataset(catalog, timeless, split_leave_last_out(timeless))
    with pytest.raises(ConfigError, match="no interaction has a time"):
        dataset.forgetting(before=0)
    assert len(dataset.forgetting(user=log.user_ids[0]).interactions.user_ids) == 19


def test_wishes_that_make_no_sense() -> None:
    dataset = logged()
    assert dataset.forgetting(user="nobody") is dataset
    with pytest.raises(UnknownItem):
        dataset.forgetting(item="nothing")
    for wish in ({}, {"user": "a", "before": 3}):
        with pytest.raises(ConfigError, match="one of them alone"):
            dataset.forgetting(**wish)
    latest = int(dataset.interactions.timestamp.max())
    with pytest.raises(DataError, match="the train split would have no example left"):
        dataset.forgetting(before=latest)


def test_forgotten_data_come_back_from_disk_and_the_rest_is_written_as_ever(tmp_path: Path) -> None:
    dataset = logged()
    for name, one in (("before", dataset), ("after", dataset.forgetting(user=dataset.interactions.user_ids[2]))):
        (tmp_path / name).mkdir()
        one.save(tmp_path / name)
        again = Dataset.load(tmp_path / name)
        assert (plain(again), again.fingerprint, again.next_sample) == (plain(one), one.fingerprint, one.next_sample)
        columns = pl.read_parquet(tmp_path / name / "examples.parquet").columns
        assert ("sample" in columns) == (name == "after")
    log, parts = dataset.interactions, [dataset.splits[name] for name in SPLITS]
    arrays = [log.user, log.row, log.timestamp, *(column for part in parts for column in (part.start, part.end))]
    assert dataset.fingerprint == sha256_text(dataset.catalog.fingerprint, *(array.tobytes() for array in arrays))


def test_numbers_belong_to_the_fingerprint() -> None:
    left = logged().forgetting(user=logged().interactions.user_ids[2])
    parts = (replace(left.splits[name], numbers=None) for name in SPLITS)
    assert replace(left, splits=Splits(*parts)).fingerprint != left.fingerprint


def test_examples_are_found_by_their_numbers() -> None:
    train = logged().forgetting(user=logged().interactions.user_ids[1]).splits.train
    shuffled = train.take(np.random.default_rng(0).permutation(len(train)))
    asked = np.arange(-1, int(train.sample.max()) + 3)
    for part in (train, shuffled, train.take(np.array([], np.int64))):
        place = {int(number): at for at, number in enumerate(part.sample)}
        assert part.places(asked).tolist() == [place.get(int(number), -1) for number in asked]

"""The demo world: deterministic, skewed, drifting, and with room between popularity and what can be known."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from l2d.catalog import Catalog
from l2d.errors import ConfigError
from l2d.interactions import Interactions, Splits, split_by_time
from l2d.sources.demo import DAY, DAYS, FIRST_DAY, GENRES, Customer, Purchase, Shop, demo_world, purchases, stock


@cache
def world() -> tuple[Catalog, Interactions]:
    return demo_world()


@cache
def splits() -> Splits:
    return split_by_time(world()[1])


@cache
def truth() -> tuple[Shop, list[Purchase]]:
    """The generator's inside: its shop, and every purchase with the chances it was drawn from."""
    rng = np.random.default_rng(7)
    shop = stock(rng, 400)
    return shop, list(purchases(shop, rng, 2000))


def train_counts() -> np.ndarray:
    _, log = world()
    return np.bincount(log.row[log.timestamp < splits().valid.timestamp.min()], minlength=400)


def hit_rate(scores_of) -> float:
    """HR@10 on test; `scores_of(example index, history)` gives a score per item, bought ones are never listed."""
    hits = []
    for index, (history, target) in enumerate(splits().test):
        scores = np.array(scores_of(index, history), dtype=np.float64)
        scores[history] = -np.inf
        hits.append(target in np.argsort(-scores, kind="stable")[:10])
    return float(np.mean(hits))


def test_the_same_seed_gives_the_same_world_and_another_seed_another() -> None:
    (catalog, log), (again, log_again) = demo_world(users=50), demo_world(users=50)
    assert catalog.fingerprint == again.fingerprint
    assert catalog.metadata is not None and catalog.metadata.equals(again.metadata)
    for name in ("user", "row", "timestamp"):
        assert (getattr(log, name) == getattr(log_again, name)).all()
    other, other_log = demo_world(seed=8, users=50)
    assert other.fingerprint != catalog.fingerprint
    assert len(other_log) != len(log) or (other_log.row != log.row).any()


def test_size_times_and_lengths() -> None:
    catalog, log = world()
    assert (len(catalog), len(log.user_ids)) == (400, 2000)
    assert 20_000 <= len(log) <= 25_000
    counts = np.bincount(log.user, minlength=2000)
    assert counts.min() >= 4 and counts.max() <= 30
    for begin, end in zip(log.user_starts[:-1], log.user_starts[1:], strict=True):
        assert (np.diff(log.timestamp[begin:end]) >= 0).all()
        assert len(set(log.row[begin:end].tolist())) == end - begin
    days = log.timestamp // DAY - FIRST_DAY
    assert days.min() >= 0 and days.max() < DAYS and days.max() - days.min() > 700
    same = np.mean(splits().test.timestamp == splits().test.last_timestamp)
    assert 0.15 < same < 0.35


def test_titles_are_distinct_and_read_like_titles() -> None:
    catalog, _ = world()
    assert len(set(catalog.titles)) == 400 and len(set(catalog.item_ids)) == 400
    words = [len(title.split()) for title in catalog.titles]
    assert min(words) >= 3 and max(words) <= 8
    assert len(set(demo_world(users=5, items=512)[0].titles)) == 512


def test_metadata_tells_genre_series_price_and_release_and_nothing_is_sold_before_it() -> None:
    catalog, log = world()
    metadata = catalog.metadata
    assert metadata is not None and metadata.columns == ["genre", "series", "price", "released"]
    assert set(metadata["genre"]) == {genre.name for genre in GENRES}
    assert metadata["price"].min() > 0
    series = metadata["series"].to_list()
    assert all((name is not None) == (" by " not in title) for name, title in zip(series, catalog.titles, strict=True))
    released = metadata["released"].to_physical().to_numpy()
    assert (log.timestamp // DAY >= released[log.row]).all()
    assert 0.2 < np.mean(released > FIRST_DAY) < 0.6


def test_ids_and_rows_say_nothing_about_popularity_series_or_time() -> None:
    catalog, log = world()
    shop, _ = truth()
    ids = np.array(catalog.item_ids, dtype=np.int64)
    told = (np.bincount(log.row, minlength=400), shop.released, shop.series, shop.genre, shop.volume)
    for order in (np.arange(400), ids):
        for fact in told:
            assert abs(np.corrcoef(order, fact)[0, 1]) < 0.18  # 3.6 standard errors of no correlation


def test_popularity_is_skewed_and_drifts() -> None:
    _, log = world()
    counts = np.sort(np.bincount(log.row, minlength=400))[::-1]
    assert counts[:40].sum() > 0.3 * len(log)
    assert counts[200:].sum() < 0.25 * len(log)
    early, late = np.quantile(log.timestamp, [1 / 3, 2 / 3])
    there = np.isin(log.row, np.flatnonzero(truth()[0].released <= 0))  # so that releases are not the reason
    parts = (log.timestamp < early, log.timestamp > late)
    first, last = (np.bincount(log.row[part & there], minlength=400) for part in parts)
    distance = 0.5 * np.abs(first / first.sum() - last / last.sum()).sum()
    rng = np.random.default_rng(0)
    joined = np.repeat(np.arange(400), first + last)
    rng.shuffle(joined)
    chance = [np.bincount(part, minlength=400) / len(part) for part in (joined[: first.sum()], joined[first.sum() :])]
    assert distance > 2 * 0.5 * np.abs(chance[0] - chance[1]).sum()


def test_counts_beat_popularity_and_the_truth_beats_both() -> None:
    popularity = train_counts()
    together = np.zeros((400, 400))
    for history, target in splits().train:
        for lag, row in enumerate(reversed(history.tolist()), start=1):
            together[row, target] += 1 / lag

    def cooccurrence(_: int, history: np.ndarray) -> np.ndarray:
        lags = 1 / np.arange(len(history), 0, -1)
        return lags @ together[history] + 1e-6 * popularity

    chances, ends = truth()[1], splits().test.end
    assert [purchase.row for purchase in chances] == world()[1].row.tolist()
    popular = hit_rate(lambda *_: popularity)
    counted = hit_rate(cooccurrence)
    oracle = hit_rate(lambda index, _: chances[ends[index]].chances)
    assert 0.05 < popular < 0.10
    assert counted > popular + 0.12
    assert 0.5 < oracle < 0.62
    assert oracle > counted + 0.15


def test_text_knows_rare_items_that_counts_do_not() -> None:
    """Genre, author and series words of the last titles rank items that training hardly saw, above chance by far."""
    catalog, _ = world()
    counts, words = train_counts(), [set(title.split()) - {"The"} for title in catalog.titles]
    rare = np.flatnonzero(counts <= 5)
    places = []
    for history, target in splits().test:
        if counts[target] <= 5:
            recent = set().union(*(words[row] for row in history[-5:].tolist()))
            shared = np.array([len(recent & words[row]) for row in rare])
            own = shared[np.flatnonzero(rare == target)[0]]
            places.append(((shared > own).sum() + 0.5 * ((shared == own).sum() - 1)) / (len(rare) - 1))
    assert len(places) > 60
    assert np.mean(places) < 0.42  # .5 is chance, with a standard error of .025


def test_browsing_follows_taste_and_taste_moves() -> None:
    shop, rng = truth()[0], np.random.default_rng(0)
    customer, demand = Customer(shop, rng), np.ones(400)
    customer.favours[:] = False
    expected = np.bincount(shop.genre) * (customer.taste + 0.01)
    start = customer.chances(demand, same_order=False)
    np.testing.assert_allclose(np.bincount(shop.genre, weights=start), expected / expected.sum(), atol=1e-12)
    moved = []
    for _ in range(20):
        customer.drift(rng)
        moved.append(0.5 * np.abs(customer.chances(demand, same_order=False) - start).sum())
    assert 0.0 < moved[0] < 0.2 < moved[-1]


def test_taste_drifts() -> None:
    """A customer's genres late in life are closer to their recent ones than to their first ones."""
    _, log = world()
    genre = truth()[0].genre[log.row]
    near, far = [], []
    for begin, end in zip(log.user_starts[:-1], log.user_starts[1:], strict=True):
        if end - begin >= 12:
            near.append(np.mean(genre[end - 4 : end - 1] == genre[end - 1]))
            far.append(np.mean(genre[begin : begin + 3] == genre[end - 1]))
    assert np.mean(near) > np.mean(far) + 0.05


@pytest.mark.parametrize("size", [{"users": 0}, {"items": 10}, {"items": 513}])
def test_impossible_sizes_are_refused(size: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="no demo world"):
        demo_world(**size)

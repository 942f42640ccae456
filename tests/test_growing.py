"""A memory that grows answers as one that was made of all its entries at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2d.decode import Auto, Global, Local, Recipe, Vote
from l2d.errors import ConfigError, InputError
from l2d.memory import Entries, ItemVectors, Points, aggregate, item_sums
from l2d.memory.growing import Room
from l2d.memory.nearest import Indexed, scan
from l2d.memory.nearest.products import BRIEF, FULL, HALF, Kind
from l2d.ranking import Rankings, Requests
from planted import DAY, planted

WIDTH, ITEMS = 6, 12


class Stream:
    """Entries in the order of their samples, taken piece by piece."""

    def __init__(self, seed: int, *, common: float = 0.0, dtype: type = np.float16, days: int = 60) -> None:
        self.rng, self.common, self.dtype, self.days = np.random.default_rng(seed), common, dtype, days
        self.sample = 0
        self.taken: list[tuple[np.ndarray, np.ndarray, list[str], np.ndarray, np.ndarray]] = []

    def take(self, n: int, items: int = ITEMS, scale: float = 1.0):
        thoughts = (self.rng.standard_normal((n, WIDTH)) * scale + self.common).astype(self.dtype)
        row = self.rng.integers(0, items, n).astype(np.int32)
        users = [f"user {user}" for user in self.rng.integers(0, 3 + self.sample // 4, n)]
        times = self.rng.integers(0, self.days, n) * DAY + self.sample * 60
        self.taken.append((thoughts, row, users, times, np.arange(self.sample, self.sample + n)))
        self.sample += n
        return self.taken[-1]

    def whole(self) -> Entries:
        """All that was taken, as if read from a disk."""
        thoughts, row, users, times, sample = zip(*self.taken, strict=True)
        named = [user for part in users for user in part]
        ids = sorted(set(named))
        user = np.array([ids.index(user) for user in named], dtype=np.int32)
        columns = (np.concatenate(column) for column in (row, times, sample))
        rows, time, samples = columns
        return Entries(np.concatenate(thoughts), rows, user, time, samples, tuple(ids))


def begun(stream: Stream, n: int, items: int = ITEMS) -> tuple[Entries, ItemVectors]:
    thoughts, row, users, times, sample = stream.take(n, items)
    ids = sorted(set(users))
    entries = Entries(thoughts, row, np.array([ids.index(u) for u in users], np.int32), times, sample, tuple(ids))
    return entries, aggregate(entries, items)


def grow(entries: Entries, items: ItemVectors, stream: Stream, n: int, **options: float) -> None:
    first = len(entries)
    entries.append(*stream.take(n, len(items), **options))
    items.follow(entries, first)


def asked(rng: np.random.Generator, items: int, common: float) -> Requests:
    """Requests of every kind: free, with exclusions, with an allow-list."""
    thoughts = (rng.standard_normal((6, WIDTH)) + common).astype(np.float32)
    some = [rng.choice(items, 3, replace=False).astype(np.int32) for _ in range(6)]
    none = np.empty(0, np.int32)
    allow = [None, None, some[2], some[3], np.arange(items, dtype=np.int32), None]
    return Requests([none] * 6, thoughts, [none, some[1], none, some[1], none, none], allow)


def assert_same_lists(got: Rankings, expected: Rankings) -> None:
    np.testing.assert_array_equal(got.rows, expected.rows)
    np.testing.assert_array_equal(got.scores, expected.scores)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    sizes=st.lists(st.integers(0, 30), max_size=6),
    common=st.sampled_from([0.0, 5.0, 40.0]),
    dtype=st.sampled_from([np.float16, np.float32]),
    start=st.integers(1, 60),
)
def test_every_decoder_answers_as_from_a_memory_made_at_once(seed, sizes, common, dtype, start) -> None:
    stream = Stream(seed, common=common, dtype=dtype)
    items = ITEMS
    entries, vectors = begun(stream, start)
    rng = np.random.default_rng(seed)
    for size in sizes:
        if rng.random() < 0.5:  # what is searched by is made now, and has to grow with the rest
            assert len(entries.points) == len(entries) and len(vectors.points) == len(vectors)
            entries.places(np.arange(3))
        if rng.random() < 0.3:
            items += int(rng.integers(0, 4))
            vectors.extend(items)
        grow(entries, vectors, stream, size, scale=float(rng.choice([0.1, 1.0, 30.0])))
        whole = stream.whole()
        fresh = aggregate(whole, items)
        np.testing.assert_array_equal(vectors.counts, fresh.counts)
        if dtype == np.float16:
            assert vectors.vectors.tobytes() == fresh.vectors.tobytes()
        else:
            np.testing.assert_allclose(vectors.vectors, fresh.vectors, rtol=1e-5, atol=1e-6)
            fresh = vectors
        requests = asked(rng, items, common)
        for least in (0, 2):
            some = replace(requests, minimum_entries=least)
            assert_same_lists(Global(vectors).rank(some, 5), Global(replace_points(fresh)).rank(some, 5))
            for m in (1, 7):
                grown, made = Local(entries, vectors, m), Local(whole, replace_points(fresh), m)
                assert_same_lists(grown.rank(some, 5), made.rank(some, 5))
                grown, made = Vote(entries, vectors, m, 0.7), Vote(whole, replace_points(fresh), m, 0.7)
                assert_same_lists(grown.rank(some, 5), made.rank(some, 5))


def replace_points(items: ItemVectors) -> ItemVectors:
    """The same vectors, with nothing made of them yet."""
    return ItemVectors(items.vectors, items.counts)


def test_the_columns_and_sums_are_those_of_all_entries() -> None:
    stream = Stream(3)
    entries, vectors = begun(stream, 5)
    for size in (1, 0, 2, 40, 1, 1, 300, 1):
        grow(entries, vectors, stream, size)
    whole = stream.whole()
    sums, counts = item_sums(whole, ITEMS)
    assert item_sums(entries, ITEMS)[0].tobytes() == sums.tobytes()
    np.testing.assert_array_equal(vectors.counts, counts)
    kept = vectors._sums
    assert kept and all(kept[row].tobytes() == sums[row].tobytes() for row in kept)
    for name in ("thoughts", "row", "timestamp", "sample"):
        np.testing.assert_array_equal(getattr(entries, name), getattr(whole, name))
    named = [[some.user_ids[user] for user in some.user] for some in (entries, whole)]
    assert named[0] == named[1]
    for row in range(ITEMS):
        np.testing.assert_array_equal(entries.places(np.array([row])), np.flatnonzero(whole.row == row))


def test_what_came_first_stays_as_it_is() -> None:
    stream = Stream(4)
    entries, vectors = begun(stream, 30)
    before = entries.first(20)
    kept = before.thoughts.copy(), aggregate(before, ITEMS).vectors
    for _ in range(50):
        grow(entries, vectors, stream, 3)
    assert len(before) == 20 and len(entries) == 180
    np.testing.assert_array_equal(before.thoughts, kept[0])
    np.testing.assert_array_equal(aggregate(before, ITEMS).vectors, kept[1])


def test_what_does_not_fit_is_refused_and_leaves_the_memory_as_it_was() -> None:
    stream = Stream(5, dtype=np.float32)
    entries, vectors = begun(stream, 10)
    thoughts, row, users, times, sample = stream.take(2)
    for wrong in (
        (thoughts, row, users, times, sample - 2),
        (thoughts, row, users, times, sample[::-1]),
        (thoughts[:, :3], row, users, times, sample),
        (thoughts.astype(np.float16), row, users, times, sample),
        (thoughts, row[:1], users, times, sample),
    ):
        with pytest.raises(ConfigError):
            entries.append(*wrong)
    with pytest.raises(InputError, match="too large"):
        entries.append(thoughts * np.float32(1e20), row, users, times, sample)
    assert len(entries) == 10 and len(entries.points) == 10
    entries.append(thoughts, np.array([ITEMS, 0], np.int32), users, times, sample)
    with pytest.raises(ConfigError, match="not in the catalogue"):
        vectors.follow(entries, 10)
    assert vectors.counts.sum() == 10


@pytest.mark.parametrize("kind", [FULL, HALF, BRIEF], ids=lambda kind: kind.name)
@pytest.mark.parametrize("common", [0.0, 30.0])
def test_points_far_beyond_the_first_ones_are_found(common: float, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of the first points have a scale that a thousand times as long a vector does not fit, nor do products."""
    monkeypatch.setattr(scan, "fastest", lambda _: kind)
    rng = np.random.default_rng(6)
    vectors = (rng.standard_normal((200, WIDTH)) * 0.01 + common).astype(np.float32)
    points = Points(vectors[:150])
    vectors[150:] += (rng.standard_normal((50, WIDTH)) * 1000).astype(np.float32)
    points.follow(vectors, np.arange(150, 200))
    assert points.near(vectors[[3, 160, 199]], 1).index.tolist() == [3, 160, 199]
    vectors[7] = vectors[160] + 1
    points.follow(vectors, np.array([7]))
    half = (rng.standard_normal((90, WIDTH)) * 0.01).astype(np.float16)
    near = Points(half[:60])
    half[60:] *= np.float16(30_000)
    near.follow(half[:89], np.arange(60, 89))
    half[89] /= np.float16(30_000)
    near.follow(half, np.array([89]))
    assert near.near(half[[3, 60, 80]].astype(np.float32), 1).index.tolist() == [3, 60, 80]
    distances = np.linalg.norm(vectors[160].astype(np.float64) - vectors, axis=1)
    assert points.near(vectors[[160]], 2).index.tolist()[:2] == np.argsort(distances)[:2].tolist()


def test_an_index_finds_what_was_added_to_it() -> None:
    pytest.importorskip("faiss")
    rng = np.random.default_rng(7)
    vectors = (rng.standard_normal((3000, 16)) + np.linspace(0, 3, 3000)[:, None]).astype(np.float16)
    points = Indexed(vectors[:1000])
    for end in range(1500, 3001, 500):  # past the doubling, which moves the centre
        points.follow(vectors[:end], np.arange(end - 500, end))
    found = points.near(vectors[900:2900:100].astype(np.float32), 1)
    assert (found.index == np.arange(900, 2900, 100)).mean() > 0.9


RECIPES = [
    Recipe(),
    Recipe(half_life=30.0, newcomer=2.0, prior=0.8),
    Recipe(half_life=30.0, text=0.0, shrinkage=None, prior=0.0, newcomer=5.0),
    Recipe(thought=1.0, half_life=0.5, newcomer=1.0),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=range(len(RECIPES)))
@pytest.mark.parametrize("text", [True, False], ids=["titles", "no titles"])
@pytest.mark.parametrize("leap", [0, 10, 400], ids="days {}".format)
def test_auto_follows_its_memory(recipe: Recipe, text: bool, leap: int) -> None:
    """Days without entries lie between the writes; unseen items come in by and by."""
    world = planted(text=text, unseen=6, seed=len(str(recipe)) + leap)
    materials, rng = world.materials, np.random.default_rng(leap)
    entries, items = materials.entries, materials.items
    auto = Auto(materials, recipe)
    auto.rank(world.requests, 3)
    time = int(entries.timestamp.max())
    for write, size in enumerate((1, 3, 0, 20, 1)):
        first, time = len(entries), time + leap * DAY
        row = rng.integers(0, world.items - 4 + write, size).astype(np.int32)
        thoughts = rng.standard_normal((size, entries.width)).astype(np.float16)
        sample = np.arange(size) + entries.sample[-1] + 1
        entries.append(thoughts, row, ["new"] * size, np.full(size, time) - rng.integers(0, 5 * DAY, size), sample)
        items.follow(entries, first)
        auto.follow(first)
        copy = Entries(entries.thoughts, entries.row, entries.user, entries.timestamp, entries.sample, entries.user_ids)
        fresh = Auto(replace(materials, entries=copy, items=aggregate(copy, world.items)), recipe)
        for least in (0, 1, 3):
            requests = replace(world.requests, minimum_entries=least)
            got, expected = dense(auto, requests), dense(fresh, requests)
            np.testing.assert_array_equal(got > 0, expected > 0)
            np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-30)


def dense(auto: Auto, requests: Requests) -> np.ndarray:
    """Scores of all items that a whole list holds, 0 for the others."""
    found = auto.rank(requests, len(auto.materials.items))
    scores = np.zeros((len(requests), len(auto.materials.items)))
    lines, columns = np.nonzero(found.rows >= 0)
    scores[lines, found.rows[lines, columns]] = found.scores[lines, columns]
    return scores


def test_other_counts_are_gone_over_to() -> None:
    world, other = planted(seed=1), planted(seed=2)
    auto = Auto(world.materials, Recipe())
    auto.rank(world.requests, 3)
    auto.recount(other.materials.evidence)
    fresh = Auto(replace(world.materials, evidence=other.materials.evidence), Recipe())
    assert_same_lists(auto.rank(world.requests, 9), fresh.rank(world.requests, 9))


def test_room_is_doubled_and_never_shared_by_two_ends() -> None:
    start = np.arange(3)
    room = Room(start)
    views = [room.add(np.arange(size)) for size in (0, 1, 2, 2000, 1)]
    assert [len(view) for view in views] == [3, 4, 6, 2006, 2007]
    np.testing.assert_array_equal(views[-1][:6], [0, 1, 2, 0, 0, 1])
    views[1][0] = 9
    assert start[0] == 0, "what was given is not written to"
    assert np.shares_memory(views[3], views[4]) and not np.shares_memory(views[2], views[3])

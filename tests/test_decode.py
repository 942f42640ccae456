"""Latent decoders against loops in double precision, the contract, and the fit of their constants."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest

from l2d.decode import Constants, Global, Local, Vote, fit
from l2d.decode.fit import gains
from l2d.errors import ArtifactCorrupt, ConfigError, InputError
from l2d.memory import Entries, Points, aggregate
from l2d.memory.nearest.products import BRIEF, FULL, HALF
from l2d.memory.nearest.scan import Halves
from l2d.ranking import NOTHING, Rankings, Requests
from l2d.testing import DummyThinker, check_decoder, toy_world

ITEMS = 25
KINDS = (HALF, BRIEF, FULL)


def world(kind, seed, n=240, width=7, requests=9):
    """Entries and thoughts; the last three items have none."""
    rng = np.random.default_rng(seed)
    if kind == "grid":  # small integers: exact duplicates and ties everywhere
        thoughts, asked = rng.integers(-1, 2, (n, width)), rng.integers(-1, 2, (requests, width))
    else:
        offset = {"plain": 0.0, "far": 300.0}[kind]  # far: a large part in common, where |a|^2 + |b|^2 - 2ab cancels
        thoughts, asked = rng.standard_normal((n, width)) + offset, rng.standard_normal((requests, width)) + offset
        thoughts[n // 2 : n // 2 + 20] = thoughts[: min(20, n - n // 2)]
        asked[0] = thoughts[3].astype(np.float16)
    # A skewed draw, so that items with one, two and many entries are there.
    row = (rng.random(n) ** 2 * (ITEMS - 3)).astype(np.int32)
    entries = Entries(
        thoughts.astype(np.float16), row, np.zeros(n, np.int32), np.zeros(n, np.int64), np.arange(n) * 3 + 1, ("u",)
    )
    return entries, asked.astype(np.float32)


def filters(seed, requests):
    """Nothing, exclusion, allow-list, both, minimum entries."""
    rng = np.random.default_rng(seed)
    exclude = [rng.choice(ITEMS, 4, replace=False).astype(np.int32) for _ in range(requests)]
    allow = [None if i % 3 == 0 else rng.choice(ITEMS, 12, replace=False).astype(np.int32) for i in range(requests)]
    return [
        {},
        {"exclude": exclude},
        {"allow": allow},
        {"exclude": exclude, "allow": allow, "minimum_entries": 2},
        {"minimum_entries": 9},
    ]


def squared(a, b):
    return math.fsum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True))


def inverse(distance):
    return float(np.float32(1 / distance)) if distance else math.inf


def candidates(requests, i, counts):
    rows = set(range(ITEMS)) if requests.allow is None or requests.allow[i] is None else set(requests.allow[i].tolist())
    rows -= set(requests.exclude[i].tolist()) if requests.exclude is not None else set()
    return {row for row in rows if counts[row] >= max(1, requests.minimum_entries)}


def best(scores, k):
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:k]


def oracle(name, entries, requests, k, neighbours=1, temperature=1.0):
    """The three decoders as loops over entries, from the definitions."""
    counts = [int((entries.row == row).sum()) for row in range(ITEMS)]
    vectors = [
        entries.thoughts[entries.row == row].astype(np.float64).mean(axis=0).astype(np.float32) if counts[row] else None
        for row in range(ITEMS)
    ]
    lists = []
    for i, thought in enumerate(requests.thoughts):
        allowed = candidates(requests, i, counts)
        away = {row: math.sqrt(squared(thought, vectors[row])) for row in allowed}
        if name == "global":
            lists.append(best({row: inverse(distance) for row, distance in away.items()}, k))
            continue
        places = [place for place in range(len(entries)) if entries.row[place] in allowed]
        near = sorted((squared(thought, entries.thoughts[place]), place) for place in places)[:neighbours]
        scores = {}
        for row in {int(entries.row[place]) for _, place in near}:
            own = [(distance, place) for distance, place in near if entries.row[place] == row]
            if name == "vote":
                total = math.fsum(math.exp(-(distance - near[0][0]) / temperature) for distance, _ in own)
                scores[row] = max(float(np.float32(total)), float(np.finfo(np.float32).tiny))
            else:
                mean = [
                    math.fsum(column) / len(own)
                    for column in zip(*(entries.thoughts[place].astype(float) for _, place in own), strict=True)
                ]
                scores[row] = inverse(math.sqrt(squared(thought, mean)))
        listed = best(scores, k)
        filled = best(
            {row: -float(np.float32(distance)) for row, distance in away.items() if row not in scores}, k - len(listed)
        )
        lists.append(listed + filled)
    return lists


def decoders(entries, neighbours, temperature):
    items = aggregate(entries, ITEMS)
    return [Global(items), Local(entries, items, neighbours), Vote(entries, items, neighbours, temperature)]


def assert_lists(rankings, expected, k):
    for rows, scores, pairs in zip(rankings.rows, rankings.scores, expected, strict=True):
        assert rows[: len(pairs)].tolist() == [row for row, _ in pairs]
        np.testing.assert_allclose(scores[: len(pairs)], [score for _, score in pairs], rtol=3e-7)
        assert (rows[len(pairs) :] == NOTHING).all() and len(rows) == k


@pytest.mark.parametrize("kind", ["plain", "far", "grid"])
@pytest.mark.parametrize(
    ("neighbours", "temperature", "k"), [(1, 1.0, 5), (7, 0.5, 10), (60, 3.0, 10), (10_000, 20.0, 40)]
)
def test_decoders_equal_loops(kind, neighbours, temperature, k):
    entries, thoughts = world(kind, seed=neighbours)
    for options in filters(neighbours, len(thoughts)):
        requests = Requests([np.empty(0, np.int32)] * len(thoughts), thoughts, **options)
        for decoder in decoders(entries, neighbours, temperature):
            expected = oracle(decoder.name, entries, requests, k, neighbours, temperature)
            assert_lists(decoder.rank(requests, k), expected, k)


@pytest.mark.parametrize("kind", ["plain", "far", "grid"])
def test_the_contract(kind):
    entries, thoughts = world(kind, seed=5, n=300, width=33, requests=7)
    requests = Requests([np.empty(0, np.int32)] * len(thoughts), thoughts)
    for decoder in decoders(entries, 20, 2.0):
        check_decoder(decoder, requests, ITEMS)


def test_the_withheld_item_comes_first():
    toy = toy_world()
    train, catalog = toy.dataset.splits.train, toy.dataset.catalog
    entries = Entries(
        toy.thinker.think([toy.prompts.prompt(history) for history in train.histories()]),
        train.target, train.user, train.timestamp, np.arange(len(train)), toy.dataset.interactions.user_ids,
    )  # fmt: skip
    items = aggregate(entries, len(catalog))
    for decoder in (Global(items), Local(entries, items, 5), Vote(entries, items, 12, 1.0)):
        check_decoder(decoder, toy.requests(), toy.items, targets=toy.targets)
        assert (decoder.rank(toy.requests(), toy.items).rows != catalog.row(36)).all(), "the unseen item is unknown"


def test_counts_keep_the_contract():
    if importlib.util.find_spec("l2d.baselines") is None:
        pytest.skip("l2d.baselines is not there")
    from l2d.baselines import count_decoders
    from l2d.evidence import Evidence

    toy = toy_world()
    evidence = Evidence.learn(toy.dataset.splits.train, toy.items)
    for decoder in count_decoders(evidence).values():
        known = toy.targets if decoder.name in ("transitions", "cooccurrence") else None
        check_decoder(decoder, toy.requests(), toy.items, targets=known)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_neither_blocks_nor_the_type_of_the_scan_change_anything(monkeypatch, kind):
    entries, thoughts = world("far", seed=2)
    requests = Requests([np.empty(0, np.int32)] * len(thoughts), thoughts)
    whole = [decoder.rank(requests, 10) for decoder in decoders(entries, 20, 2.0)]
    for name in ("TOGETHER", "MEASURED"):
        monkeypatch.setattr(f"l2d.memory.nearest.points.{name}", 4)
    monkeypatch.setattr("l2d.memory.nearest.scan.CELLS", 80)
    monkeypatch.setattr("l2d.memory.nearest.scan.fastest", lambda _: kind)
    monkeypatch.setattr("l2d.memory.nearest.scan.PRODUCTS", 256)
    monkeypatch.setattr("l2d.memory.nearest.products.CELLS", 40)
    monkeypatch.setattr("l2d.decode.latent.TOGETHER", 50)
    for before, decoder in zip(whole, decoders(entries, 20, 2.0), strict=True):
        after = decoder.rank(requests, 10)
        np.testing.assert_array_equal(after.rows, before.rows)
        assert after.scores.tobytes() == before.scores.tobytes()


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_neighbours_are_exact_where_single_precision_cannot_tell(scale):
    # Clusters far from the mean, with differences near the last bit of float32: a plain scan orders them at random.
    rng = np.random.default_rng(0)
    centres = rng.choice([-1.0, 1.0], (6, 16)) * 100
    vectors = ((np.repeat(centres, 150, axis=0) + rng.standard_normal((900, 16)) * 2e-4) * scale).astype(np.float32)
    thoughts = (vectors[::90] + np.float32(1e-4 * scale)).astype(np.float32)
    found = Points(vectors).near(thoughts, 40)
    for place, thought in enumerate(thoughts):
        near = found.part(slice(place, place + 1))
        exact = ((vectors.astype(np.float64) - thought.astype(np.float64)) ** 2).sum(axis=1)
        expected = np.lexsort((np.arange(900), exact))[:40]
        np.testing.assert_array_equal(near.first(40).index, expected)
        np.testing.assert_allclose(near.first(40).squared, exact[expected], rtol=1e-12)


@pytest.mark.parametrize(("kind", "most"), [(HALF, 58), (BRIEF, 90), (FULL, 52)], ids=str)
@pytest.mark.parametrize(("dtype", "offset"), [(np.float16, 0.2), (np.float32, 300)])
def test_the_scan_hands_on_few_more_than_asked_for(monkeypatch, kind, most, dtype, offset):
    rng = np.random.default_rng(1)
    vectors = (rng.standard_normal((5000, 64)) + offset).astype(dtype)
    thoughts = (rng.standard_normal((8, 64)) + offset).astype(np.float32)
    monkeypatch.setattr("l2d.memory.nearest.scan.fastest", lambda _: kind)
    request, _ = Halves(vectors).near(thoughts.astype(np.float64), 50)
    sizes = np.bincount(request)
    assert all(50 <= size <= most for size in sizes), sizes
    assert np.diff(Points(vectors).near(thoughts, 50).starts).max() <= 53


def test_a_thought_on_a_vector_scores_infinity_and_ties_go_by_row():
    thoughts = np.zeros((4, 2), dtype=np.float16)
    entries = Entries(
        thoughts, np.array([3, 1, 2, 1], np.int32), np.zeros(4, np.int32), np.zeros(4, np.int64), np.arange(4), ("u",)
    )
    items = aggregate(entries, 5)
    requests = Requests([np.empty(0, np.int32)], np.zeros((1, 2), dtype=np.float32))
    for decoder in (Global(items), Local(entries, items, 4)):
        ranked = decoder.rank(requests, 4)
        assert ranked.rows.tolist() == [[1, 2, 3, NOTHING]]
        assert ranked.scores.tolist() == [[math.inf, math.inf, math.inf, -math.inf]]
    # Two neighbours, ties by the smaller sample: items 3 and 1; item 2 is filled in at distance zero, below them.
    assert Local(entries, items, 2).rank(requests, 3).scores.tolist() == [[math.inf, math.inf, 0.0]]
    voted = Vote(entries, items, 2, 1.0).rank(requests, 3)
    assert (voted.rows.tolist(), voted.scores.tolist()) == ([[1, 3, 2]], [[1.0, 1.0, 0.0]])


def test_a_vote_that_rounds_to_nothing_stays_above_filled_items():
    thoughts = np.array([[0.0], [200.0], [201.0]], dtype=np.float16)
    entries = Entries(
        thoughts, np.array([2, 1, 0], np.int32), np.zeros(3, np.int32), np.zeros(3, np.int64), np.arange(3), ("u",)
    )
    requests = Requests([np.empty(0, np.int32)], np.zeros((1, 1), dtype=np.float32))
    ranked = Vote(entries, aggregate(entries, 3), 2, 1e-3).rank(requests, 3)
    assert ranked.rows.tolist() == [[2, 1, 0]]
    assert ranked.scores[0, 0] == 1 and ranked.scores[0, 1] > 0 > ranked.scores[0, 2] == -201


def test_bad_arguments_are_refused():
    entries, thoughts = world("plain", 0)
    items = aggregate(entries, ITEMS)
    histories = [np.empty(0, np.int32)] * len(thoughts)
    with pytest.raises(ConfigError, match="neighbours"):
        Local(entries, items, 0)
    for temperature in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="temperature"):
            Vote(entries, items, 5, temperature)
    with pytest.raises(ConfigError, match="k is too small"):
        Vote(entries, items, 5, 1.0).rank(Requests(histories, thoughts), 0)
    with pytest.raises(ConfigError, match="need the requests' thoughts"):
        Global(items).rank(Requests(histories), 5)
    with pytest.raises(ConfigError, match="do not fit"):
        Global(items).rank(Requests(histories, thoughts[:, :3]), 5)
    thoughts[2, 1] = np.nan
    with pytest.raises(InputError, match="not finite"):
        Global(items).rank(Requests(histories, thoughts), 5)


def test_the_contract_notices_what_is_wrong():
    entries, thoughts = world("plain", 4)
    requests = Requests([np.empty(0, np.int32)] * len(thoughts), thoughts)
    items = aggregate(entries, ITEMS)

    class Leaky(Global):
        def rank(self, requests, k):
            return super().rank(Requests(requests.histories, requests.thoughts, allow=requests.allow), k)

    class Loose(Global):
        def rank(self, requests, k):
            return super().rank(Requests(requests.histories, requests.thoughts, exclude=requests.exclude), k)

    class Batchy(Global):
        def rank(self, requests, k):
            ranked = super().rank(requests, k)
            return Rankings(ranked.rows, ranked.scores + np.float32(len(requests)))

    class Backwards(Global):
        def rank(self, requests, k):
            ranked = super().rank(requests, k)
            return Rankings(ranked.rows[:, ::-1].copy(), np.zeros_like(ranked.scores))

    for broken, rule in ((Leaky, "excluded"), (Loose, "allow"), (Batchy, "batch"), (Backwards, "smaller row|-inf")):
        with pytest.raises(AssertionError, match=rule):
            check_decoder(broken(items), requests, ITEMS)


# ---- fitting


@pytest.fixture(scope="module")
def fitted():
    entries, thoughts = world("plain", seed=8, requests=40)
    requests = Requests(
        [np.empty(0, np.int32)] * 40, thoughts, exclude=[np.array([i % ITEMS], np.int32) for i in range(40)]
    )
    # A target is the item of an entry nearby, so that the grid has something to win.
    targets = np.array(
        [pairs[i % 3][0] for i, pairs in enumerate(oracle("vote", entries, requests, 3, 15, 2.0))], np.int32
    )
    return (
        entries,
        requests,
        targets,
        fit(entries, aggregate(entries, ITEMS), requests, targets, neighbours=(5, 20, 100)),
    )


def test_each_figure_of_the_grid_is_the_decoder_s_own(fitted):
    entries, requests, targets, constants = fitted
    items = aggregate(entries, ITEMS)
    assert len(constants.grid) == 1 + 3 + 3 * 5
    for point in constants.grid:
        if point["decoder"] == "global":
            decoder = Global(items)
        elif point["decoder"] == "local":
            decoder = Local(entries, items, point["neighbours"])
        else:
            decoder = Vote(entries, items, point["neighbours"], point["temperature"])
        ranked = decoder.rank(requests, 10).rows.tolist()
        total = sum(
            1 / math.log2(2 + rows.index(target))
            for rows, target in zip(ranked, targets.tolist(), strict=True)
            if target in rows
        )
        assert point["ndcg@10"] == pytest.approx(total / 40, abs=1e-12)


def test_temperatures_are_multiples_of_the_mean_squared_distance(fitted):
    entries, requests, _, constants = fitted
    for size in (5, 20, 100):
        distances = []
        for i, thought in enumerate(requests.thoughts):
            allowed = [place for place in range(len(entries)) if entries.row[place] != i % ITEMS]
            distances += sorted(squared(thought, entries.thoughts[place]) for place in allowed)[:size]
        for point in constants.grid:
            if point["decoder"] == "vote" and point["neighbours"] == size:
                assert point["temperature"] == pytest.approx(point["multiple"] * sum(distances) / len(distances))


def test_the_best_point_wins(fitted):
    entries, *_, constants = fitted
    items = aggregate(entries, ITEMS)
    figures = {name: [point for point in constants.grid if point["decoder"] == name] for name in ("local", "vote")}
    top = {name: max(point["ndcg@10"] for point in points) for name, points in figures.items()}
    assert len({point["ndcg@10"] for point in figures["vote"]}) > 3, "the grid must have something to choose"
    local, vote = constants.local(entries, items), constants.vote(entries, items)
    assert next(p for p in figures["local"] if p["neighbours"] == local.neighbours)["ndcg@10"] == top["local"]
    chosen = [p for p in figures["vote"] if (p["neighbours"], p["temperature"]) == (vote.neighbours, vote.temperature)]
    assert [p["ndcg@10"] for p in chosen] == [top["vote"]]


def test_constants_come_back_from_disk(fitted, tmp_path):
    constants = fitted[3]
    constants.save(tmp_path / "decoder.json")
    assert Constants.load(tmp_path / "decoder.json") == constants
    (tmp_path / "decoder.json").write_text("{}")
    with pytest.raises(ArtifactCorrupt, match="not the constants"):
        Constants.load(tmp_path / "decoder.json")


def test_fitting_is_deterministic_and_reports_its_progress(fitted):
    entries, requests, targets, constants = fitted
    steps = []
    again = fit(
        entries,
        aggregate(entries, ITEMS),
        requests,
        targets,
        neighbours=(100, 20, 5, 5000),
        progress=lambda *at: steps.append(at),
    )
    assert again == constants
    total = steps[-1][1]
    assert steps[-1] == (total, total) and [done for done, _ in steps] == sorted({done for done, _ in steps})


def test_a_small_memory_is_its_own_neighbourhood():
    entries, thoughts = world("plain", 0, n=12)
    requests = Requests([np.empty(0, np.int32)] * len(thoughts), thoughts)
    constants = fit(
        entries, aggregate(entries, ITEMS), requests, np.zeros(len(thoughts), np.int32), neighbours=(50, 100)
    )
    assert constants.local_neighbours == constants.vote_neighbours == 12
    with pytest.raises(ConfigError, match="nothing to fit"):
        fit(entries, aggregate(entries, ITEMS), requests.take([]), np.empty(0, np.int32))


def test_gains_by_hand():
    ranked = Rankings(np.array([[4, 2, 7], [4, 2, 7], [4, 2, 7]], np.int32), np.array([[3, 2, 1]] * 3, np.float32))
    np.testing.assert_allclose(gains(ranked, np.array([4, 7, 1], np.int32)), [1.0, 0.5, 0.0])


def test_dummy_thoughts_do_not_depend_on_company():
    prompts = [np.array(ids, np.int32) for ids in ([5, 6, 7], [5], [9, 9], [5, 6, 7])]
    thinker = DummyThinker(8)
    together = thinker.think(prompts)
    alone = np.concatenate([DummyThinker(8).think([prompt]) for prompt in prompts])
    assert together.tobytes() == alone.tobytes()
    assert not np.array_equal(together[0], DummyThinker(8, seed=1).think(prompts)[0])

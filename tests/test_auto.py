"""auto and its parts against loops in double precision, independent formulas and cases worked by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from l2d.decode import Auto, Materials, Recipe, Spread, TitleMap, classes
from l2d.decode.auto import Seen
from l2d.decode.classes import RIDGE, ItemClasses, blended
from l2d.decode.prior import recent_counts
from l2d.errors import ConfigError
from l2d.evidence import Evidence
from l2d.memory import Entries, ItemVectors, aggregate
from l2d.ranking import Rankings, Requests
from l2d.testing import ToyWorld, check_decoder, toy_world
from plain_auto import TINY, PlainAuto, plain_distance, plain_probabilities, plain_spread
from planted import DAY, Planted, planted


def rows(*of: int) -> np.ndarray:
    return np.array(of, np.int32)


def entries_of(thoughts: np.ndarray, row: list[int] | np.ndarray, days: list[float] | None = None) -> Entries:
    n = len(row)
    times = np.zeros(n, np.int64) if days is None else (np.array(days) * DAY).astype(np.int64)
    return Entries(thoughts, np.array(row, np.int32), np.zeros(n, np.int32), times, np.arange(n), ("u",))


def slanted(seed: int, n: int = 60, width: int = 4, items: int = 9) -> Entries:
    """Entries that scatter more along some directions, far from the origin; the last item has one, item 0 none."""
    rng = np.random.default_rng(seed)
    row = np.append(rng.integers(1, items - 1, n - 1), items - 1)
    places = rng.standard_normal((items, width)) * 3
    scatter = rng.standard_normal((n, width)) @ rng.standard_normal((width, width))
    return entries_of((places[row] + scatter + 5).astype(np.float32), row)


# ---- how thoughts scatter


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_spread_equals_loops_however_many_blocks(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = slanted(0)
    entries = replace(entries, thoughts=entries.thoughts.astype(dtype))
    items = aggregate(entries, 9)
    whole = Spread.of(entries, items)
    monkeypatch.setattr(classes, "ROWS", 7)
    in_blocks = Spread.of(entries, items)
    for found, blocked, plain in zip(
        (whole.centre, whole.total, whole.within),
        (in_blocks.centre, in_blocks.total, in_blocks.within),
        plain_spread(entries),
        strict=True,
    ):
        # Item vectors are float32, the loops' means are not.
        np.testing.assert_allclose(found, plain, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(blocked, found, rtol=1e-12, atol=1e-12)


def test_spread_within_items_by_hand() -> None:
    # Item 0 has 1 and 3 (variance 2), item 1 has 10, 10 and 13 (variance 3), item 2 one entry, which has no say.
    entries = entries_of(np.array([[1], [3], [10], [10], [13], [99]], np.float32), [0, 0, 1, 1, 1, 2])
    spread = Spread.of(entries, aggregate(entries, 4))
    assert spread.within.item() == pytest.approx((2 * 2 + 3 * 3) / 5)
    assert spread.centre.item() == pytest.approx(136 / 6)


def test_without_repeated_items_the_scatter_within_is_the_total_one() -> None:
    entries = slanted(1, n=8)
    entries = replace(entries, row=np.arange(8, dtype=np.int32))
    spread = Spread.of(entries, aggregate(entries, 9))
    np.testing.assert_array_equal(spread.within, spread.total)


@pytest.mark.parametrize("shrinkage", [None, 0.01, 1.0, 30.0])
def test_the_metric_measures_mahalanobis_distances_in_units_of_the_scatter(shrinkage: float | None) -> None:
    entries = slanted(2)
    spread = Spread.of(entries, aggregate(entries, 9))
    metric = spread.metric(shrinkage)
    centred = entries.thoughts.astype(np.float64) - spread.centre
    assert float(((centred @ metric) ** 2).sum(axis=1).mean()) == pytest.approx(1.0, rel=1e-9)
    shape = plain_distance(entries, shrinkage)
    for one, other in zip(centred[:20], centred[20:40], strict=True):
        away = one - other
        assert float(((away @ metric) ** 2).sum()) == pytest.approx(float(away @ shape @ away), rel=1e-5)


def test_the_plain_metric_is_a_multiple_of_the_identity_and_shrinkage_leads_to_it() -> None:
    entries = slanted(3)
    spread = Spread.of(entries, aggregate(entries, 9))
    plain = spread.metric(None)
    np.testing.assert_allclose(plain, np.eye(4) / np.sqrt(np.trace(spread.total)), rtol=1e-14)
    strong, weak = (spread.metric(shrinkage) for shrinkage in (1e9, 1e-3))
    np.testing.assert_allclose(strong @ strong.T, plain @ plain.T, rtol=1e-6, atol=1e-9)
    assert not np.allclose(weak @ weak.T, plain @ plain.T, rtol=0.1)


def test_thoughts_that_are_all_the_same_leave_a_finite_metric() -> None:
    entries = entries_of(np.ones((3, 2), np.float32), [0, 0, 1])
    spread = Spread.of(entries, aggregate(entries, 2))
    for shrinkage in (None, 1.0):
        assert np.isfinite(spread.metric(shrinkage)).all()


# ---- the probability of an item


@pytest.mark.parametrize(("shrinkage", "temperature"), [(None, 1.0), (0.3, 0.2), (3.0, 0.05)])
def test_probabilities_are_a_softmax_of_distances_and_priors(shrinkage: float | None, temperature: float) -> None:
    rng = np.random.default_rng(4)
    entries = slanted(4)
    items = aggregate(entries, 9)
    prior = rng.random(9)
    prior[[2, 5]] = 0.0
    made = ItemClasses(Spread.of(entries, items), items.vectors, prior, shrinkage=shrinkage, temperature=temperature)
    asked = (entries.thoughts[:12] + rng.standard_normal((12, 4))).astype(np.float32)
    found = made.probabilities(asked)
    shape = plain_distance(entries, shrinkage)
    for thought, line in zip(asked.astype(np.float64), found, strict=True):
        vectors = list(items.vectors.astype(np.float64))
        expected = plain_probabilities(thought, vectors, prior.tolist(), shape, temperature)
        np.testing.assert_allclose(line, expected, rtol=5e-4, atol=1e-7)
    assert (found[:, [2, 5]] == 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-5)


def test_a_far_item_stays_possible_and_one_without_a_prior_never_is() -> None:
    entries = entries_of(np.array([[0.0], [1.0], [0.5], [0.7]], np.float32), [0, 1, 0, 1])
    vectors = np.array([[0.0], [1.0], [1e4], [0.0]], np.float32)
    spread = Spread.of(entries, aggregate(entries, 4))
    made = ItemClasses(spread, vectors, np.array([1.0, 1.0, 1.0, 0.0]), shrinkage=None, temperature=0.1)
    found = made.probabilities(np.array([[0.1], [9e3]], np.float32))
    assert found[0, 2] == found[1, 0] == TINY
    assert found[0, 0] > 0.9 and found[1, 2] == 1
    assert (found[:, 3] == 0).all()


def test_at_equal_distances_the_priors_are_the_odds() -> None:
    entries = entries_of(np.array([[-1.0], [1.0]], np.float32), [0, 1])
    items = aggregate(entries, 2)
    made = ItemClasses(Spread.of(entries, items), items.vectors, np.array([1.0, 3.0]), shrinkage=None, temperature=0.5)
    np.testing.assert_allclose(made.probabilities(np.zeros((1, 1), np.float32)), [[0.25, 0.75]], rtol=1e-6)
    # A thought on item 1: squared distances 4 and 0 over a mean squared distance of 1.
    odds = 3 * np.exp(4 / 0.5)
    np.testing.assert_allclose(made.probabilities(np.ones((1, 1), np.float32))[0, 1], odds / (1 + odds), rtol=1e-6)


def test_an_entry_counts_half_of_one_that_is_a_half_life_younger() -> None:
    entries = entries_of(np.zeros((4, 1), np.float32), [0, 2, 2, 0], days=[0, 10, 20, 20])
    assert recent_counts(entries, 4, None).tolist() == [2, 0, 2, 0]
    np.testing.assert_allclose(recent_counts(entries, 4, 10.0), [0.25 + 1, 0, 0.5 + 1, 0])
    np.testing.assert_allclose(recent_counts(entries, 4, 20.0), [0.5 + 1, 0, 0.5**0.5 + 1, 0])
    nothing = entries.take(np.array([], np.int64))
    assert recent_counts(nothing, 3, 10.0).tolist() == [0, 0, 0]


# ---- what titles predict


def test_vectors_are_drawn_toward_their_titles_by_entries() -> None:
    items = ItemVectors(np.array([[1.0, 0.0], [0.0, 0.0], [2.0, 4.0]], np.float32), np.array([3, 0, 1]))
    text = np.array([[0.0, 1.0], [5.0, 6.0], [0.0, 0.0]], np.float32)
    np.testing.assert_allclose(blended(items, text, 1.0), [[0.75, 0.25], [5, 6], [1, 2]])
    np.testing.assert_allclose(blended(items, text, 0.0), [[1, 0], [5, 6], [2, 4]])
    np.testing.assert_array_equal(blended(items, None, 1.0), items.vectors)


def title_world(n: int, seed: int, noise: float = 0.0, law: float = 1.0) -> tuple[np.ndarray, ItemVectors, np.ndarray]:
    """Thoughts of titles, item vectors that depend on them linearly, and the law; every fifth item has no entries."""
    rng = np.random.default_rng(seed)
    thoughts = (rng.standard_normal((n, 4)) * [1, 5, 0.2, 1] + [0, 3, 0, -9]).astype(np.float32)
    truth = (law * (thoughts @ rng.standard_normal((4, 3)) + 7) + noise * rng.standard_normal((n, 3))).astype(
        np.float32
    )
    counts = rng.integers(1, 30, n)
    counts[::5] = 0
    vectors = np.where(counts[:, None] > 0, truth, 0).astype(np.float32)
    return thoughts, ItemVectors(vectors, counts), truth


def test_a_linear_law_without_noise_is_found_for_items_without_entries_too() -> None:
    thoughts, items, truth = title_world(2000, 0)
    predicted = TitleMap.fit(thoughts, items)(thoughts)
    unknown = items.counts == 0
    missed = ((predicted - truth)[unknown] ** 2).sum() / ((truth - truth.mean(axis=0))[unknown] ** 2).sum()
    assert missed < 1e-4


@pytest.mark.parametrize(
    ("n", "noise", "law", "penalties"), [(300, 0.0, 1.0, RIDGE[:1]), (40, 1.0, 0.0, RIDGE[3:]), (60, 3.0, 1.0, RIDGE)]
)
def test_the_title_map_is_a_weighted_ridge_regression_whose_penalty_suits_the_noise(
    n: int, noise: float, law: float, penalties: tuple[float, ...]
) -> None:
    thoughts, items, _ = title_world(n, 1, noise, law)
    fitted = TitleMap.fit(thoughts, items, seed=3)
    known = items.counts > 0
    source, target = thoughts[known].astype(np.float64), items.vectors[known].astype(np.float64)
    source = (source - source.mean(axis=0)) / source.std(axis=0)
    root = items.counts[known] ** 0.25  # of the weight, itself the root of the entries
    matches = []
    for tried in RIDGE:
        lines = np.vstack([root[:, None] * np.c_[source, np.ones(len(source))], np.sqrt(tried) * np.eye(4, 5)])
        goal = np.vstack([root[:, None] * target, np.zeros((4, 3))])
        solved = np.linalg.lstsq(lines, goal, rcond=None)[0]
        if np.allclose(fitted.weight, solved[:4], atol=1e-8) and np.allclose(fitted.bias, solved[4], atol=1e-8):
            matches.append(tried)
    assert len(matches) == 1
    assert matches[0] in penalties


def test_only_known_items_teach_the_title_map() -> None:
    thoughts, items, _ = title_world(80, 2, noise=0.5)
    changed = thoughts.copy()
    changed[items.counts == 0] += 100
    first, second = TitleMap.fit(thoughts, items), TitleMap.fit(changed, items)
    for part in ("mean", "scale", "weight", "bias"):
        np.testing.assert_array_equal(getattr(first, part), getattr(second, part))


def test_a_single_known_item_is_what_every_title_predicts() -> None:
    thoughts = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    items = ItemVectors(np.array([[0.0, 0.0], [8.0, 9.0]], np.float32), np.array([0, 2]))
    np.testing.assert_allclose(TitleMap.fit(thoughts, items)(thoughts), [[8, 9], [8, 9]])


# ---- the decoder

RECIPES = [
    Recipe(),
    Recipe(thought=0.8, shrinkage=None, temperature=0.4, prior=0.0, text=0.0, repeat=1.0, repeat_last=0.0),
    Recipe(thought=0.3, half_life=3.0, newcomer=2.0, text=1.0, backwards=1.0, damping=1.0, fading=0.0, repeat=3.0),
    Recipe(thought=1.0, shrinkage=0.3, prior=1.0, newcomer=0.5, text=4.0, repeat=0.0, repeat_last=2.0),
    Recipe(thought=0.0, backwards=0.0, damping=0.0, fading=1.0, repeat=0.01, repeat_last=0.5),
    Recipe(thought=0.5, temperature=2.0, prior=0.0, newcomer=1.0, half_life=20.0, damping=0.25, repeat_last=1.0),
]


def asked(world: Planted) -> Requests:
    """Histories of the log, an empty one, and some with an item twice; the last row is in no training example."""
    unseen = world.items - 1
    histories = [
        *world.requests.histories[:3],
        rows(),
        rows(4, 7, 4),
        rows(7, 4, 7, 7, 2),
        rows(unseen),
        rows(9, unseen),
    ]
    assert world.requests.thoughts is not None
    return Requests(histories, world.requests.thoughts[: len(histories)])


def filtered(requests: Requests, items: int) -> list[Requests]:
    rng = np.random.default_rng(0)
    exclude = [rng.choice(items, 6, replace=False).astype(np.int32) for _ in requests.histories]
    allow = [
        None if i % 3 == 0 else rng.choice(items, 12, replace=False).astype(np.int32) for i in range(len(requests))
    ]
    return [
        requests,
        replace(requests, minimum_entries=1),
        replace(requests, exclude=exclude, allow=allow),
        replace(requests, allow=allow, minimum_entries=6),
    ]


def assert_lists(ranked: Rankings, expected: list[dict[int, float]], everything: list[dict[int, float]]) -> None:
    """Rows may change places only where their scores are as good as equal."""
    for found, scores, best, possible in zip(ranked.rows, ranked.scores, expected, everything, strict=True):
        listed = found[: len(best)].tolist()
        assert len(best) == (found >= 0).sum()
        assert set(listed) <= set(possible)
        np.testing.assert_allclose(scores[: len(best)], list(best.values()), rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(scores[: len(best)], [possible[row] for row in listed], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("recipe", RECIPES)
def test_auto_equals_loops(recipe: Recipe, text: bool) -> None:
    world = planted(text=text, repeats=0.3, seed=1)
    auto, plain = Auto(world.materials, recipe), PlainAuto(world, recipe)
    for requests in filtered(asked(world), world.items):
        everything = plain.lists(requests, world.items)
        for k in (5, world.items + 2):
            assert_lists(auto.rank(requests, k), [dict(list(line.items())[:k]) for line in everything], everything)


def test_an_item_that_is_last_and_older_counts_as_last() -> None:
    seen = Seen.of([rows(4, 7, 4), rows(), rows(1), rows(3, 3, 2, 5)])
    assert [cells.tolist() for cells in seen.last] == [[0, 2, 3], [4, 1, 5]]
    assert [cells.tolist() for cells in seen.older] == [[0, 3, 3], [7, 2, 3]]
    damped = seen.damp(np.ones((4, 8), np.float32), Recipe(repeat=0.5, repeat_last=2.0))
    np.testing.assert_allclose(damped[0], np.array([1, 1, 1, 1, 2, 1, 1, 0.5]) / 8.5, rtol=1e-6)
    np.testing.assert_allclose(damped[1], np.full(8, 1 / 8), rtol=1e-6)
    assert not seen.damp(np.zeros((4, 8), np.float32), Recipe()).any()


def test_the_two_kinds_of_evidence_sum_to_the_scores_and_each_to_its_share() -> None:
    world = planted(text=True, seed=2)
    auto = Auto(world.materials, Recipe(thought=0.35))
    thought, counts = auto.evidence(world.requests)
    np.testing.assert_allclose(thought.sum(axis=1), 0.35, rtol=1e-5)
    np.testing.assert_allclose(counts.sum(axis=1), 0.65, rtol=1e-5)
    ranked = auto.rank(world.requests, 10)
    np.testing.assert_allclose(ranked.scores, np.take_along_axis(thought + counts, ranked.rows, axis=1), rtol=1e-6)


def test_thoughts_and_counts_alone_are_the_ends_of_the_share() -> None:
    world = planted(seed=3)
    (thought, nothing), (none, counts) = (
        Auto(world.materials, Recipe(thought=share)).evidence(world.requests) for share in (1.0, 0.0)
    )
    assert not nothing.any() and not none.any()
    half = Auto(world.materials, Recipe(thought=0.5)).evidence(world.requests)
    np.testing.assert_allclose(half[0], thought / 2, rtol=1e-6)
    np.testing.assert_allclose(half[1], counts / 2, rtol=1e-6)


def test_blocks_of_requests_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = planted(text=True, seed=4)
    requests = filtered(asked(world), world.items)[2]
    auto = Auto(world.materials, Recipe(newcomer=1.0))
    whole = auto.rank(requests, 10)
    monkeypatch.setattr("l2d.evidence.CELLS", 3 * world.items)
    apart = auto.rank(requests, 10)
    np.testing.assert_array_equal(apart.rows, whole.rows)
    np.testing.assert_allclose(apart.scores, whole.scores, rtol=1e-5)


def test_an_item_without_entries_is_listed_where_its_title_is_worth_something() -> None:
    world = planted(text=True, unseen=3, seed=5)
    requests = replace(world.requests, histories=[history[:2] for history in world.requests.histories])
    unseen = {world.items - 3, world.items - 2, world.items - 1}

    def listed(newcomer: float, minimum: int, materials: Materials = world.materials) -> list[set[int]]:
        auto = Auto(materials, Recipe(newcomer=newcomer))
        return [set(line) for line in auto.rank(replace(requests, minimum_entries=minimum), world.items).rows.tolist()]

    assert all(not unseen & line for line in listed(0.0, 0))
    assert all(unseen <= line for line in listed(1.0, 0))
    assert all(not unseen & line for line in listed(1.0, 1))
    assert all(not unseen & line for line in listed(1.0, 0, replace(world.materials, text=None)))


def test_a_newcomer_is_found_by_a_thought_near_its_title() -> None:
    world = planted(text=True, seed=6)
    text = world.materials.text
    assert text is not None
    unseen = world.items - 1
    requests = Requests([rows(0)], text[[unseen]])
    ranked = Auto(world.materials, Recipe(thought=0.9, newcomer=1.0, temperature=0.05)).rank(requests, 3)
    assert ranked.rows[0, 0] == unseen


def test_an_item_whose_entries_are_too_old_to_weigh_anything_stays_known() -> None:
    entries = entries_of(np.array([[0.0], [1.0], [1.1]], np.float32), [0, 1, 1], days=[0, 9000, 9000])
    items = aggregate(entries, 2)
    materials = replace(planted().materials, entries=entries, items=items, spread=Spread.of(entries, items))
    found = materials.classes(Recipe(half_life=1.0, text=0.0)).probabilities(np.zeros((1, 1), np.float32))
    assert 0 < found[0, 0] < 1e-6


def test_materials_without_some_items_are_those_of_a_log_that_never_met_them() -> None:
    world = planted(text=True, seed=7)
    gone = np.zeros(world.items, bool)
    gone[[2, 5, 6]] = True
    left = world.materials.without(gone)
    entries = [row for row in world.materials.entries.row.tolist() if row not in (2, 5, 6)]
    assert left.entries.row.tolist() == entries
    assert left.items.counts.tolist() == [entries.count(row) for row in range(world.items)]
    np.testing.assert_array_equal(left.items.vectors[~gone], world.materials.items.vectors[~gone])
    requests = replace(world.requests, histories=[rows(2, 9), *world.requests.histories[1:]])
    assert not np.isin(Auto(left, Recipe()).rank(requests, world.items).rows, [2, 5, 6]).any()
    listed = Auto(left, Recipe(newcomer=1.0)).rank(requests, world.items).rows
    assert all({2, 5, 6} <= set(line) for line in listed.tolist())
    thought = Auto(left, Recipe(newcomer=1.0, temperature=0.05))
    at_title = Requests([rows()], world.materials.text[[5]])  # type: ignore[index]
    assert thought.rank(at_title, 1).rows.item() == 5


@pytest.fixture(scope="module")
def toy() -> tuple[ToyWorld, Materials]:
    world = toy_world()
    train = world.dataset.splits.train
    entries = Entries(
        world.thinker.think([world.prompts.prompt(history) for history in train.histories()]),
        train.target, train.user, train.timestamp, np.arange(len(train)), world.dataset.interactions.user_ids,
    )  # fmt: skip
    items = aggregate(entries, world.items)
    titles = world.thinker.think([world.prompts.prompt(rows(row)) for row in range(world.items)])
    text = TitleMap.fit(titles, items)(titles)
    return world, Materials(Evidence.learn(train, world.items), entries, items, Spread.of(entries, items), text)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(text=0.0, repeat=0.01, repeat_last=0.01),
        Recipe(thought=0.1, newcomer=3.0, half_life=2.0, repeat=0.01, repeat_last=0.01),
        Recipe(thought=1.0, shrinkage=None, temperature=0.05, text=0.0, repeat=0.01, repeat_last=0.01),
    ],
)
def test_auto_keeps_the_contract_and_finds_the_withheld_item(toy: tuple[ToyWorld, Materials], recipe: Recipe) -> None:
    world, materials = toy
    check_decoder(Auto(materials, recipe), world.requests(), world.items, targets=world.targets, tolerance=1e-6)


def test_bad_arguments_are_refused() -> None:
    for wrong in (
        {"thought": 1.1}, {"thought": -0.1}, {"shrinkage": 0.0}, {"temperature": 0.0}, {"half_life": 0.0},
        {"prior": float("nan")}, {"repeat": float("inf")}, {"text": -1.0},
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="impossible constants"):
            Recipe(**wrong)
    with pytest.raises(TypeError):
        Recipe.of({"thought": 0.5, "luck": 1.0})
    assert Recipe.of({"shrinkage": None, "thought": 1}) == Recipe(shrinkage=None, thought=1.0)
    world = planted()
    auto = Auto(world.materials, Recipe())
    with pytest.raises(ConfigError, match="thoughts"):
        auto.rank(Requests(world.requests.histories), 5)
    with pytest.raises(ConfigError, match="k is too small"):
        auto.rank(world.requests, 0)

"""recall: the thought after each item, the links it makes, and the decoder that reads them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from l2d.decode import Auto, Materials, Recall, Recipe, Spread, TitleMap, after_items, calibrate_recall, recalled
from l2d.errors import ConfigError
from l2d.evidence import Evidence
from l2d.interactions import Examples, Interactions
from l2d.memory import Entries, aggregate
from l2d.testing import check_decoder, toy_world
from plain_auto import PlainAuto, plain_both_ways, plain_probabilities
from planted import Planted, planted


def log(*histories: list[int]) -> Examples:
    """One user and one example per list, the last item of which is the target; a lone item has an empty history."""
    flat = np.concatenate([np.array(history, np.int32) for history in histories])
    lengths = np.array([len(history) for history in histories])
    starts = np.cumsum(lengths) - lengths
    users = np.repeat(np.arange(len(histories), dtype=np.int32), lengths)
    times = np.arange(len(flat), dtype=np.int64)
    interactions = Interactions(tuple(str(user) for user in range(len(histories))), users, flat, times)
    return Examples(interactions, starts.astype(np.int64), (starts + lengths - 1).astype(np.int64))


def entries_of(train: Examples, thoughts: np.ndarray, sample: list[int]) -> Entries:
    target = train.target[sample]
    return Entries(
        thoughts, target, train.user[sample], train.timestamp[sample], np.array(sample), train.interactions.user_ids
    )


def test_thoughts_after_an_item_by_hand() -> None:
    train = log([3, 1, 0], [2, 1, 3], [0, 3], [2])
    alone = np.array([[10, 0], [0, 10], [1, 1], [2, 2]], np.float32)
    # Example 1 has no entry; the last one has no history.
    entries = entries_of(train, np.array([[4, 2], [1, 8], [7, 7]], np.float16), [0, 2, 3])
    after = after_items(entries, train, alone, weight=2.0)
    np.testing.assert_allclose(after, [[21 / 3, 8 / 3], [4 / 3, 22 / 3], [1, 1], [2, 2]], rtol=1e-6)
    nothing = after_items(entries.take(np.arange(0)), train, alone)
    np.testing.assert_array_equal(nothing, alone)


def test_entries_of_other_examples_are_refused() -> None:
    train = log([3, 1, 0], [2, 1, 3])
    entries = entries_of(train, np.ones((2, 2), np.float16), [0, 1])
    with pytest.raises(ConfigError, match="no training example"):
        after_items(entries, train.take(np.arange(1)), np.zeros((4, 2), np.float32))


RECIPES = [
    Recipe(thought=0.4, backwards=0.3, damping=0.0, fading=1.0, text=1.0),
    Recipe(thought=0.0, backwards=0.0, damping=0.5, fading=0.5, repeat=1.0, repeat_last=0.0),
    Recipe(thought=0.7, backwards=1.0, damping=1.0, newcomer=1.0, prior=0.0),
]
TABLES = [Recipe(), Recipe(shrinkage=None, temperature=0.3, prior=1.0, newcomer=0.5)]


def world(text: bool = True) -> tuple[Planted, np.ndarray]:
    made = planted(text=text, repeats=0.3, seed=6)
    after = np.random.default_rng(6).standard_normal((made.items, made.materials.entries.width)).astype(np.float32)
    return made, after


@pytest.mark.parametrize("most", [4, 100])
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_recall_equals_loops(recipe: Recipe, table: Recipe, most: int) -> None:
    made, after = world()
    plain, of_table = PlainAuto(made, recipe), PlainAuto(made, table)
    said = [
        plain_probabilities(thought, of_table.vectors, of_table.prior, of_table.shape, table.temperature)
        for thought in after.astype(np.float64)
    ]
    links = {
        (source, target): line[target]
        for source, line in enumerate(said)
        for target in sorted(range(made.items), key=lambda row: (-line[row], row))[:most]
        if line[target]
    }
    plain.links = plain_both_ways(links, recipe.backwards, recipe.damping)
    recall = Recall(recalled(made.materials, after, table, most), recipe)
    ranked = recall.rank(made.requests, 8)
    assert made.requests.thoughts is not None
    for line, (history, thought) in enumerate(zip(made.requests.histories, made.requests.thoughts, strict=True)):
        scores = plain.scores(history.tolist(), thought.astype(np.float64))
        best = sorted((score for score in scores if score), reverse=True)[:8]
        listed = ranked.rows[line][: len(best)]
        np.testing.assert_allclose(ranked.scores[line][: len(best)], best, rtol=1e-4)
        np.testing.assert_allclose([scores[row] for row in listed], best, rtol=1e-4)


def test_links_are_the_most_probable_items_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    made, after = world()
    whole = recalled(made.materials, after, most=3).evidence.cooccurrence
    said = made.materials.classes(Recipe()).probabilities(after)
    for row in range(made.items):
        targets, weights = whole.of(row)
        assert targets.tolist() == sorted(np.argsort(-said[row], kind="stable")[:3].tolist())
        np.testing.assert_array_equal(weights, said[row][targets])
    monkeypatch.setattr("l2d.evidence.CELLS", 5 * made.items)
    apart = recalled(made.materials, after, most=3).evidence.cooccurrence
    np.testing.assert_array_equal(apart.targets, whole.targets)
    np.testing.assert_array_equal(apart.starts, whole.starts)


def test_impossible_links_are_refused() -> None:
    made, after = world()
    with pytest.raises(ConfigError, match="cannot link items"):
        recalled(made.materials, after[1:])
    with pytest.raises(ConfigError, match="cannot link items"):
        recalled(made.materials, after, most=0)


def test_no_count_is_read() -> None:
    made, after = world()
    shuffled = replace(made.materials, evidence=made.materials.evidence.without(np.ones(made.items, dtype=bool)))
    first, second = (Recall(recalled(m, after), RECIPES[0]).rank(made.requests, 10) for m in (made.materials, shuffled))
    np.testing.assert_array_equal(first.rows, second.rows)


def test_an_older_item_of_the_history_is_recalled_where_the_thought_has_lost_it() -> None:
    """A thought that knows the last item alone: the items that follow an older one are found by recall only."""
    made = planted(users=60, items=24, unseen=0, noise=0.3, following=1.0, seed=7)
    items = made.items
    places = aggregate(made.materials.entries, items).vectors
    after = places[(np.arange(items) + 1) % items]
    histories = [np.array([row, (row + 9) % items], np.int32) for row in range(items)]
    requests = replace(
        made.requests.take([0] * items), histories=histories, thoughts=after[(np.arange(items) + 9) % items]
    )
    wanted = (np.arange(items) + 1) % items

    def found(materials: Materials, share: float) -> float:
        recipe = Recipe(thought=share, temperature=0.1, backwards=0.0, damping=0.0, repeat=0.0, repeat_last=0.0)
        return float((Recall(materials, recipe).rank(requests, 2).rows == wanted[:, None]).any(axis=1).mean())

    linked = recalled(made.materials, after)
    assert found(linked, 0.5) > 0.9
    assert found(linked, 1.0) < 0.4


def test_recall_is_auto_on_other_materials() -> None:
    made, after = world()
    materials = recalled(made.materials, after)
    ranked = [kind(materials, RECIPES[0]).rank(made.requests, 10) for kind in (Auto, Recall)]
    np.testing.assert_array_equal(ranked[0].rows, ranked[1].rows)
    assert Recall.name == "recall"


@pytest.mark.parametrize("recipe", [Recipe(repeat=0.01, repeat_last=0.01), Recipe(0.9, repeat=0.01, repeat_last=0.01)])
def test_recall_keeps_the_contract_and_finds_the_withheld_item(recipe: Recipe) -> None:
    world = toy_world()
    train = world.dataset.splits.train
    thoughts = world.thinker.think([world.prompts.prompt(history) for history in train.histories()])
    entries = entries_of(train, thoughts, list(range(len(train))))
    items = aggregate(entries, world.items)
    alone = world.thinker.think([world.prompts.prompt(np.array([row], np.int32)) for row in range(world.items)])
    evidence = Evidence.learn(train, world.items)
    materials = Materials(evidence, entries, items, Spread.of(entries, items), TitleMap.fit(alone, items)(alone))
    recall = Recall(recalled(materials, after_items(entries, train, alone)), recipe)
    check_decoder(recall, world.requests(), world.items, targets=world.targets, tolerance=1e-6)


def test_a_calibration_says_what_each_ingredient_gives_and_leaves_two_constants_alone() -> None:
    made, after = world()
    steps: list[tuple[int, int]] = []
    found = calibrate_recall(
        made.materials, after, made.requests, made.targets, made.users, progress=lambda *step: steps.append(step)
    )
    assert (found.recipe.shrinkage, found.recipe.text) == (Recipe().shrinkage, Recipe().text)
    materials, (thought, links) = recalled(made.materials, after), (found.recipe, replace(found.recipe, thought=0.0))
    for name, recipe in {"recall": thought, "without thought": links}.items():
        listed = Recall(materials, recipe).rank(made.requests, 10).rows == made.targets[:, None]
        gains = (listed / np.log2(np.arange(10) + 2)).sum(axis=1)
        assert found.ndcg[name] == pytest.approx(gains.mean(), abs=1e-12)
    assert found.ndcg["recall"] >= found.ndcg["start"]
    assert {"without links", "without links backwards", "without damped links"} < found.ndcg.keys()
    assert steps[-1][0] == steps[-1][1]

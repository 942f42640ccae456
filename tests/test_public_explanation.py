"""What an end user is told rests on at least three people, and on none of them so much that it could be read off."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2d.catalog import Catalog
from l2d.decode import Auto, Materials, Recipe, Spread, Vote
from l2d.errors import UnknownItem
from l2d.evidence import Evidence
from l2d.interactions import Dataset, Examples, Interactions, Splits, examples_of
from l2d.memory import Entries, aggregate
from l2d.ranking import Requests, Rows
from l2d.recommender import PublicExplanation, Recommender
from l2d.recommender.disclosing import FEWEST, MOST, STAIRS, STEPS, disclose, rounded, stair
from shop import CATALOG

ITEMS = 6
WIDTH = 4


class Small:
    """What an explanation reads of an open run, over the log of a few people.

    Args:
        log: the items that each person took, in order.
        neighbours: M of the vote.
        seed: of the thoughts.
    """

    calibrated = True

    def __init__(self, log: Sequence[Sequence[int]], neighbours: int = 50, seed: int = 0) -> None:
        self.catalog = Catalog.from_titles([f"title {row}" for row in range(ITEMS)])
        users = [user for user, taken in enumerate(log) for _ in taken]
        rows = [row for taken in log for row in taken]
        names = tuple(f"person-{user}" for user in range(len(log)))
        times = np.arange(len(rows)) + 1_600_000_000
        interactions = Interactions(names, np.array(users, np.int32), np.array(rows, np.int32), times)
        self.examples = examples_of(interactions, 10)
        none = self.examples.take(np.empty(0, np.int64))
        self.dataset = Dataset(self.catalog, interactions, Splits(self.examples, none, none))
        size = len(self.examples)
        thoughts = np.random.default_rng(seed).standard_normal((size, WIDTH)).astype(np.float16)
        part = self.examples
        self.entries = Entries(thoughts, part.target, part.user, part.timestamp, np.arange(size), names)
        items = aggregate(self.entries, ITEMS)
        self.vote = Vote(self.entries, items, neighbours, 1.0)
        spread = Spread.of(self.entries, items)
        self.auto = Auto(Materials(Evidence.learn(self.examples, ITEMS), self.entries, items, spread), Recipe())

    def remembered(self) -> list[Examples]:
        return [self.examples]

    def trimmed(self, rows: Rows) -> Rows:
        return rows

    def requests(self, histories: list[Rows], *, think: bool) -> Requests:
        return Requests(histories, np.full((len(histories), WIDTH), 0.5, np.float32))

    def decoder(self, name: str) -> Vote:
        assert name == "vote"
        return self.vote

    def told(self, history: Sequence[int], items: Sequence[int] = range(ITEMS)) -> list[PublicExplanation]:
        some: Any = self
        return disclose(some, np.array(history, np.int32), items)


def people(examples: Examples, target: int, seen: int | None = None) -> set[int]:
    """Who took an item, or who took it with another one in the history: a plain loop."""
    return {
        int(examples.user[place]) for place, (history, row) in enumerate(examples)
        if row == target and (seen is None or seen in history.tolist())
    }  # fmt: skip


rows = st.integers(0, ITEMS - 1)
logs = st.lists(st.lists(rows, min_size=2, max_size=6), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(logs, st.lists(rows, max_size=4), st.integers(1, 30), st.integers(0, 5))
def test_nothing_that_is_shown_is_carried_by_fewer_than_three(
    log: list[list[int]], history: list[int], neighbours: int, seed: int
) -> None:
    small = Small(log, neighbours, seed)
    for row, found in enumerate(small.told(history)):
        takers = people(small.examples, row)
        assert found.people in STAIRS
        assert found.people <= len(takers)
        assert found.cold == (not history)
        assert len(found.evidence) <= MOST
        for one in found.evidence:
            carriers = people(small.examples, row, int(one.item_id))
            assert FEWEST <= one.people <= len(carriers)
            assert found.people >= FEWEST
        for led in found.history:
            seen = int(led.item_id)
            assert seen in history
            assert len(people(small.examples, row, seen) | people(small.examples, seen, row)) >= FEWEST
        if len(takers) < FEWEST:
            empty = PublicExplanation(row, f"title {row}", cold=not history)
            assert found == empty
        if found.thought is not None:
            assert found.counts is not None
            assert found.thought + found.counts == pytest.approx(1)
        assert "person" not in repr(found)
        assert "16000000" not in json.dumps(asdict(found))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=30), st.floats(0, 1))
def test_a_share_is_never_finer_than_what_one_person_adds(parts: list[float], scale: float) -> None:
    parts = [part * scale / sum(parts) for part in parts]
    shown = rounded(sum(parts), max(parts))
    if shown is None:
        assert max(parts) > STEPS[-1]
        return
    step = next(step for step in STEPS if step >= max(parts))
    assert abs(shown - sum(parts)) <= step / 2 + 0.006
    assert min(abs(shown - step * number) for number in range(21)) < 0.006
    without = rounded(sum(parts) - max(parts), max(parts))
    assert without is not None
    assert abs(shown - without) <= step + 0.011


def test_numbers_of_people_are_told_in_stairs() -> None:
    assert [stair(number) for number in (0, 1, 2, 3, 4, 5, 9, 10, 49, 50, 10**6)] == [
        0, 0, 0, 3, 3, 5, 5, 10, 20, 50, 10_000,
    ]  # fmt: skip


def test_what_three_people_share_is_told() -> None:
    small = Small([[0, 1, 2], [0, 1, 2], [1, 2], [0, 3, 2], [4, 5]])
    found = small.told([0, 1], [2])[0]
    assert (found.item_id, found.title, found.cold, found.people) == (2, "title 2", False, 3)
    assert {one.item_id: one.people for one in found.evidence} == {0: 3, 1: 3}
    assert {led.item_id for led in found.history} == {0, 1}
    assert found.counts is not None and found.counts > 0
    cold = small.told([], [2, 4])
    assert [(one.cold, one.people, one.thought, one.evidence) for one in cold] == [
        (True, 3, None, ()), (True, 0, None, ()),
    ]  # fmt: skip


def test_a_link_that_one_person_made_leaves_no_trace() -> None:
    others = [[0, 2], [0, 2], [0, 2], [1, 3], [1, 3], [1, 3]]
    with_link, without = Small([*others, [4, 2]]), Small([*others, [4, 5]])
    (told,) = with_link.told([4], [2])
    assert with_link.auto.links.of(4)[0].tolist() == [2]
    assert (told.thought, told.counts, told.history) == (1.0, 0.0, ())
    assert [told] == without.told([4], [2])


def test_many_are_explained_as_one_by_one(run: Path, tmp_path: Path) -> None:
    opened = Recommender.load(run, device="cpu", verify=False)
    history = [CATALOG.titles[3], CATALOG.titles[8]]
    items = [one.item_id for one in opened.recommend(history)]
    together = opened.explain_many(history, items)
    assert together == [opened.explain_to_user(history, item) for item in items]
    assert [one.item_id for one in together] == items
    assert all(one.thought is None for one in together), "auto is not calibrated here"
    assert any(one.evidence for one in together)
    audit = {item: opened.explain(history, item, with_users=True) for item in items}
    entries = opened.entries
    for one in together:
        named = {carrier.item_id for carrier in audit[one.item_id].carriers}
        assert {common.item_id for common in one.evidence} <= named
        assert one.people <= len(audit[one.item_id].users or ())
        assert not any(user in json.dumps(asdict(one)) for user in entries.user_ids if not user.isdecimal())
    with pytest.raises(UnknownItem):
        opened.explain_to_user(history, "No Such Book")
    with pytest.raises(UnknownItem):
        opened.explain_to_user(["No Such Book"], items[0])


def test_shares_are_those_of_the_audit_where_many_people_carry_them(run: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(run, tmp_path / "run")
    opened = Recommender.load(tmp_path / "run", device="cpu")
    opened.calibrate()
    history = [CATALOG.titles[3], CATALOG.titles[8], CATALOG.titles[12]]
    compared = 0
    for item in (one.item_id for one in opened.recommend(history, k=30)):
        parts: defaultdict[str, float] = defaultdict(float)
        for given_ in opened.explain(history, item).evidence:
            parts[given_.kind] += given_.share
        found = opened.explain_to_user(history, item)
        links = sum(kind.kind == "counts" for kind in opened.explain(history, item).evidence)
        if found.counts is not None and links == len(found.history):
            assert abs(found.counts - parts["counts"]) <= STEPS[-1] / 2
            compared += 1
    assert compared

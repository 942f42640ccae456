"""Packs against a prefix tree made of tuples: every sequence once, ancestors are prefixes, weights count answers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2d.errors import ConfigError
from l2d.packing import ROOT, Pack, common_prefix, lexicographic, pack

Tokens = tuple[int, ...]


@st.composite
def samples(draw: st.DrawFn) -> tuple[list[Tokens], list[int], int]:
    """Sequences over a small alphabet (shared prefixes, equal ones, prefixes of others), answer starts, a budget."""
    sequences = draw(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8).map(tuple), min_size=1, max_size=20))
    starts = [draw(st.integers(0, len(sequence))) for sequence in sequences]
    return sequences, starts, draw(st.integers(1, 30))


def arrays(sequences: list[Tokens]) -> list[np.ndarray]:
    return [np.array(sequence, dtype=np.int32) for sequence in sequences]


def paths(tree: Pack) -> list[Tokens]:
    """The tokens from the root to each node, along `parent`."""
    found: list[Tokens] = []
    for node, parent in enumerate(tree.parent.tolist()):
        assert parent < node
        found.append((*(found[parent] if parent != ROOT else ()), int(tree.ids[node])))
    return found


def check(tree: Pack, sequences: list[Tokens], starts: list[int]) -> None:
    """One pack against the tree of its sequences, made of tuples."""
    inside = [sequences[index] for index in tree.sequences]
    prefixes = {sequence[:length] for sequence in inside for length in range(1, len(sequence) + 1)}
    nodes = paths(tree)
    assert Counter(nodes) == Counter(prefixes), "each prefix is one node"
    assert tree.depth.tolist() == [len(path) - 1 for path in nodes]
    assert [nodes[place] for place in tree.read] == inside
    for low, path in enumerate(nodes):
        below = {high for high in range(len(nodes)) if nodes[high][: len(path)] == path}
        assert below == set(range(low, tree.end[low])), "a subtree is one run that `end` closes"
    passed = Counter(
        sequences[index][: place + 1]
        for index in tree.sequences
        for place in range(starts[index], len(sequences[index]))
    )
    assert tree.weight.tolist() == [passed[path] for path in nodes]


@given(samples())
@settings(max_examples=300, deadline=None)
def test_packs_are_the_prefix_trees_of_their_sequences(case: tuple[list[Tokens], list[int], int]) -> None:
    sequences, starts, budget = case
    packs = pack(arrays(sequences), budget, starts)
    assert sorted(index for tree in packs for index in tree.sequences.tolist()) == list(range(len(sequences)))
    for tree in packs:
        assert len(tree) <= budget or len({sequences[index] for index in tree.sequences}) == 1
        check(tree, sequences, starts)
    assert [len(tree) for tree in packs] == sorted((len(tree) for tree in packs), reverse=True)


@given(samples(), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_packs_do_not_depend_on_input_order(case: tuple[list[Tokens], list[int], int], random) -> None:  # type: ignore[no-untyped-def]
    sequences, _, budget = case
    order = list(range(len(sequences)))
    random.shuffle(order)
    first = pack(arrays(sequences), budget)
    second = pack(arrays([sequences[index] for index in order]), budget)
    assert [tree.ids.tolist() for tree in first] == [tree.ids.tolist() for tree in second]
    assert [tree.end.tolist() for tree in first] == [tree.end.tolist() for tree in second]
    for one, other in zip(first, second, strict=True):
        assert [sequences[i] for i in one.sequences] == [sequences[order[i]] for i in other.sequences]


def test_a_pack_by_hand() -> None:
    #        5 ── 6 ── 7        samples: [5 6 | 7], [5 6 | 8], [5 6 | 7] again, and [9 |]
    #             └─── 8
    #        9
    (tree,) = pack(arrays([(5, 6, 7), (5, 6, 8), (5, 6, 7), (9,)]), 10, [2, 2, 2, 1])
    assert tree.ids.tolist() == [5, 6, 7, 8, 9]
    assert tree.parent.tolist() == [ROOT, 0, 1, 1, ROOT]
    assert tree.depth.tolist() == [0, 1, 2, 2, 0]
    assert tree.end.tolist() == [4, 4, 3, 4, 5]
    assert tree.weight.tolist() == [0, 0, 2, 1, 0]
    assert tree.sequences.tolist() == [0, 2, 1, 3]
    assert tree.read.tolist() == [2, 2, 3, 4]


def test_a_prompt_that_passes_another_samples_answer_does_not_weigh_it() -> None:
    (tree,) = pack(arrays([(1, 2, 3), (1, 2, 3, 4)]), 10, [1, 3])
    assert tree.weight.tolist() == [0, 1, 1, 1]


def test_a_sequence_over_the_budget_gets_a_pack_of_its_own() -> None:
    packs = pack(arrays([(1, 2), (1,) * 9, (3,)]), 4)
    assert [tree.ids.tolist() for tree in packs] == [[1] * 9, [1, 2, 3]]


def test_without_answers_nothing_weighs_and_nothing_gives_no_pack() -> None:
    (tree,) = pack(arrays([(1, 2)]), 4)
    assert tree.weight.tolist() == [0, 0]
    assert pack([], 4) == []


def test_impossible_input_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs room"):
        pack(arrays([(1,)]), 0)
    with pytest.raises(ConfigError, match="empty sequence"):
        pack(arrays([(1,), ()]), 4)


@given(st.lists(st.lists(st.integers(0, 2**24), max_size=4).map(tuple), max_size=12))
def test_the_order_is_that_of_tuples(sequences: list[Tokens]) -> None:
    # The key is bytes: big-endian, or 256 would stand before 1.
    assert lexicographic(arrays(sequences)) == sorted(range(len(sequences)), key=sequences.__getitem__)


@given(*[st.lists(st.integers(0, 1), max_size=6)] * 2)
def test_common_prefix(a: list[int], b: list[int]) -> None:
    shared = next((place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    assert common_prefix(np.array(a, dtype=np.int32), np.array(b, dtype=np.int32)) == shared

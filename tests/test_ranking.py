"""top_k against a plain sort, filters against sets, and lists that cannot be made."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from l2d.artifacts import write_arrays
from l2d.errors import ArtifactCorrupt, ArtifactMissing, ConfigError, InternalError
from l2d.ranking import NOTHING, Rankings, Requests, top_k

# Few distinct values: most lists have ties, many of them across the k-th place.
few_scores = st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 1.0])
matrices = arrays.arrays(np.float32, st.tuples(st.integers(0, 4), st.integers(1, 12)), elements=few_scores)


def rows(values: list[int]) -> np.ndarray:
    return np.array(values, np.int32)


def plain_top_k(scores: list[float], k: int, allowed: list[bool]) -> tuple[list[int], list[float]]:
    found = [row for row in range(len(scores)) if allowed[row] and scores[row] > -math.inf]
    best = sorted(found, key=lambda row: (-scores[row], row))[:k]
    missing = k - len(best)
    return best + [NOTHING] * missing, [scores[row] for row in best] + [-math.inf] * missing


@settings(max_examples=200, deadline=None)
@given(matrices, st.integers(1, 15), st.data())
def test_top_k_equals_a_plain_sort(scores: np.ndarray, k: int, data: st.DataObject) -> None:
    requests, items = scores.shape
    shape = data.draw(st.sampled_from([None, (items,), (requests, items)]))
    allowed = None if shape is None else data.draw(arrays.arrays(bool, shape))
    ranked = top_k(scores, k, allowed)
    assert ranked.rows.dtype == np.int32
    assert ranked.scores.dtype == np.float32
    assert ranked.rows.shape == (requests, k)
    masks = np.broadcast_to(True if allowed is None else allowed, scores.shape)
    for index in range(requests):
        expected = plain_top_k(scores[index].tolist(), k, masks[index].tolist())
        assert (ranked.rows[index].tolist(), ranked.scores[index].tolist()) == expected


def test_ties_at_the_edge_go_to_the_smaller_row() -> None:
    assert top_k(np.array([[1, 3, 1, 3, 1, 3]], np.float32), 4).rows.tolist() == [[1, 3, 5, 0]]
    assert top_k(np.zeros((1, 50), np.float32), 3).rows.tolist() == [[0, 1, 2]]


def test_scores_are_compared_as_float32() -> None:
    # Beyond float32 the scores of a list could not say why one row stands before another.
    assert top_k(np.array([[1.0, 1.0 + 1e-12]]), 2).rows.tolist() == [[0, 1]]


def test_top_k_refuses_what_it_cannot_order() -> None:
    with pytest.raises(ConfigError, match="k is too small"):
        top_k(np.zeros((1, 3), np.float32), 0)
    with pytest.raises(InternalError, match="not a number"):
        top_k(np.array([[1.0, math.nan, 2.0]]), 1)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_candidates_equal_sets(data: st.DataObject) -> None:
    items, count = 8, data.draw(st.integers(1, 4))
    some = st.lists(st.integers(0, items - 1), max_size=5)
    exclude = data.draw(st.none() | st.lists(some, min_size=count, max_size=count))
    allow = data.draw(st.none() | st.lists(st.none() | some, min_size=count, max_size=count))
    requests = Requests(
        [rows([0])] * count,
        exclude=None if exclude is None else [rows(part) for part in exclude],
        allow=None if allow is None else [None if part is None else rows(part) for part in allow],
    )
    for index in range(count):
        left = set(range(items))
        if allow is not None and (wanted := allow[index]) is not None:
            left &= set(wanted)
        left -= set(exclude[index]) if exclude is not None else set()
        assert np.flatnonzero(requests.candidates(index, items)).tolist() == sorted(left)
    restricted = any(len(requests.candidates(index, items).nonzero()[0]) < items for index in range(count))
    assert requests.filtered or not restricted


def test_take_keeps_every_field_in_place() -> None:
    requests = Requests(
        [rows([0]), rows([1, 2]), rows([3])],
        np.arange(6, dtype=np.float32).reshape(3, 2),
        [rows([7]), rows([8]), rows([9])],
        [None, rows([5]), rows([6])],
        minimum_entries=2,
    )
    part = requests.take([2, 0])
    assert [history.tolist() for history in part.histories] == [[3], [0]]
    assert part.thoughts is not None and part.thoughts.tolist() == [[4, 5], [0, 1]]
    assert part.exclude is not None and [line.tolist() for line in part.exclude] == [[9], [7]]
    assert (
        part.allow is not None and part.allow[0] is not None and part.allow[0].tolist() == [6] and part.allow[1] is None
    )
    assert part.minimum_entries == 2
    assert len(requests.take([])) == 0


def test_requests_whose_parts_disagree_are_refused() -> None:
    histories = [rows([0]), rows([1])]
    wrong: dict[str, Any] = {"thoughts": np.zeros((1, 3), np.float32), "exclude": [rows([1])], "allow": [None] * 3}
    for name, value in wrong.items():
        with pytest.raises(ConfigError, match=rf"{name} must match.*expected 2"):
            Requests(histories, **{name: value})
    with pytest.raises(ConfigError, match="minimum_entries"):
        Requests(histories, minimum_entries=-1)


@pytest.mark.parametrize(
    ("listed", "scores", "reason"),
    [
        ([[0, NOTHING, 1]], [[3, 2, 1]], "gap"),
        ([[0, 1]], [[1, 2]], "rise"),
        ([[0, 1]], [[math.nan, 0]], "not numbers"),
        ([[0, 2, 0]], [[3, 2, 1]], "twice"),
        ([[0, 1]], [[1, 0, 0]], "equal matrices"),
        ([0, 1], [1, 0], "equal matrices"),
    ],
)
def test_impossible_rankings_are_refused(listed: list, scores: list, reason: str) -> None:
    with pytest.raises(InternalError, match=reason):
        Rankings(np.array(listed, np.int32), np.array(scores, np.float32))


def test_short_lists_may_end_in_nothing() -> None:
    short = Rankings(rows([4, NOTHING, NOTHING])[None], np.array([[1, -np.inf, -np.inf]], np.float32))
    assert (len(short), short.k) == (1, 3)


def test_save_and_load_are_bit_equal(tmp_path: Path) -> None:
    ranked = top_k(np.random.default_rng(0).standard_normal((5, 30)), 40)
    ranked.save(tmp_path / "test.npz")
    again = Rankings.load(tmp_path / "test.npz")
    assert again.rows.tobytes() == ranked.rows.tobytes()
    assert again.scores.tobytes() == ranked.scores.tobytes()


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "test.npz"
    with pytest.raises(ArtifactMissing, match=r"test\.npz"):
        Rankings.load(path)
    top_k(np.zeros((2, 5)), 3).save(path)
    whole = path.read_bytes()
    for content in (whole[:-30], whole[:50], b""):
        path.write_bytes(content)
        with pytest.raises(ArtifactCorrupt, match=r"test\.npz"):
            Rankings.load(path)
    for parts in ({"rows": np.zeros((1, 1), np.int32)}, {"rows": rows([0, 1]), "scores": np.zeros(2, np.float32)}):
        write_arrays(path, parts)
        with pytest.raises(ArtifactCorrupt, match="does not hold rankings"):
            Rankings.load(path)


def test_concatenate_joins_batches_in_order() -> None:
    scores = np.random.default_rng(1).standard_normal((4, 9))
    whole = top_k(scores, 3)
    joined = Rankings.concatenate([top_k(scores[:1], 3), top_k(scores[1:1], 3), top_k(scores[1:], 3)])
    assert np.array_equal(joined.rows, whole.rows)
    assert np.array_equal(joined.scores, whole.scores)

"""Metrics against hand-worked lists, a plain loop and ir-measures; slices and intervals against plain loops."""

from __future__ import annotations

import json
import math

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import RR, R, Success, nDCG

from l2d.catalog import Catalog
from l2d.errors import ArtifactMismatch, ConfigError
from l2d.evaluate import CUTOFFS, MISSED, bootstrap, evaluate, hit_ranks, mean_metrics, per_example, slices_of
from l2d.interactions import UNKNOWN_TIME, Examples, Interactions
from l2d.ranking import NOTHING, Rankings

METRICS = ("hr", "recall", "ndcg", "mrr")


def examples_from(windows: list[list[int]], times: list[list[int]] | None = None) -> Examples:
    """One example per window, whose last row is the target."""
    lengths = np.array([len(window) for window in windows])
    stops = np.cumsum(lengths)
    row = np.concatenate([np.array(window, np.int32) for window in windows])
    time = np.concatenate([np.array(part, np.int64) for part in times]) if times else np.zeros(len(row), np.int64)
    users = tuple(str(user) for user in range(len(windows)))
    log = Interactions(users, np.repeat(np.arange(len(windows), dtype=np.int32), lengths), row, time)
    return Examples(log, stops - lengths, stops - 1)


def lists(rows: list[list[int]]) -> Rankings:
    """Rankings with the given rows and falling scores."""
    array = np.array(rows, np.int32)
    scores = np.tile(-np.arange(array.shape[1], dtype=np.float32), (len(array), 1))
    return Rankings(array, np.where(array == NOTHING, -np.inf, scores).astype(np.float32))


def random_lists(generator: np.random.Generator, requests: int, items: int, k: int) -> Rankings:
    rows = [generator.permutation(items)[:k].tolist() + [NOTHING] * max(0, k - items) for _ in range(requests)]
    return lists(rows)


CATALOG = Catalog.from_titles(
    ["kind of blue", "giant steps", "kind of blue", "mingus ah um", "time out", "giant steps"]
)


def test_hand_worked() -> None:
    rankings = lists([[3, 4, 1, 0, 2], [0, 1, 2, 3, 4], [5, 4, 3, 2, 1]])
    result = evaluate(rankings, examples_from([[0, 4], [1, 0], [2, 0]]), CATALOG, np.zeros(6, np.int64))
    # Item 4 stands second, item 0 first, item 0 not at all; by title, row 2 is item 0's twin and stands fourth.
    assert result.ranks.tolist() == [2, 1, MISSED]
    assert result.title_ranks.tolist() == [2, 1, 4]
    assert result.metrics == pytest.approx(
        {
            **{"hr@1": 1 / 3, "recall@1": 1 / 3, "ndcg@1": 1 / 3, "mrr@1": 1 / 3},
            **{"hr@5": 2 / 3, "recall@5": 2 / 3, "ndcg@5": (1 / math.log2(3) + 1) / 3, "mrr@5": (1 / 2 + 1) / 3},
        }
    )
    assert result.title_match["hr@5"] == 1.0
    assert result.title_match["ndcg@5"] == pytest.approx((1 / math.log2(3) + 1 + 1 / math.log2(5)) / 3)


def test_title_match_keeps_the_places_of_other_duplicates() -> None:
    # "giant steps" twice before: the target's title stands third, not second.
    ranks = hit_ranks(lists([[1, 5, 2]]), np.array([0], np.int32), CATALOG, "title")
    assert ranks.tolist() == [3]


def plain_metric(name: str, listed: list[int], wanted: set[int]) -> float:
    kind, cutoff = name.split("@")
    for place, row in enumerate(listed[: int(cutoff)], start=1):
        if row in wanted:
            return {"hr": 1.0, "recall": 1.0, "ndcg": 1 / math.log2(place + 1), "mrr": 1 / place}[kind]
    return 0.0


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 130), st.integers(1, 110), st.integers(0, 2**32 - 1))
def test_equals_a_plain_loop(requests: int, items: int, k: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    catalog = Catalog.from_titles([f"title {generator.integers(1 + items // 2)}" for _ in range(items)])
    rankings = random_lists(generator, requests, items, k)
    targets = generator.integers(items, size=requests).astype(np.int32)
    for match in ("id", "title"):
        found = per_example(rankings, targets, catalog, match)
        assert list(found) == [f"{kind}@{cutoff}" for kind in METRICS for cutoff in CUTOFFS if cutoff <= k]
        for name, values in found.items():
            for index, target in enumerate(targets.tolist()):
                twins = {row for row in range(items) if catalog.titles[row] == catalog.titles[target]}
                wanted = {target} if match == "id" else twins
                assert values[index] == pytest.approx(plain_metric(name, rankings.rows[index].tolist(), wanted))


def test_equals_ir_measures() -> None:
    generator = np.random.default_rng(3)
    requests, items, k = 60, 150, 100
    catalog = Catalog.from_titles([str(row) for row in range(items)])
    rankings = random_lists(generator, requests, items, k)
    targets = generator.integers(items, size=requests).astype(np.int32)
    ours = per_example(rankings, targets, catalog)
    truth = [ir_measures.Qrel(str(index), str(target), 1) for index, target in enumerate(targets)]
    for cutoff in CUTOFFS:
        run = [
            ir_measures.ScoredDoc(str(index), str(row), float(-place))
            for index, line in enumerate(rankings.rows[:, :cutoff])
            for place, row in enumerate(line)
        ]
        names = {Success @ cutoff: "hr", R @ cutoff: "recall", nDCG @ cutoff: "ndcg", RR: "mrr"}
        measured = list(ir_measures.iter_calc(list(names), truth, run))
        assert len(measured) == 4 * requests
        for result in measured:
            mine = ours[f"{names[result.measure]}@{cutoff}"][int(result.query_id)]
            assert mine == pytest.approx(result.value, abs=1e-6), result.measure


def test_a_cutoff_beyond_the_list_is_left_out() -> None:
    generator = np.random.default_rng(0)
    catalog = Catalog.from_titles([str(row) for row in range(200)])
    targets = np.arange(3, dtype=np.int32)
    assert {name.split("@")[1] for name in per_example(random_lists(generator, 3, 200, 49), targets, catalog)} == {
        *("1", "5", "10", "20")
    }
    assert "hr@50" in per_example(random_lists(generator, 3, 200, 50), targets, catalog)


def test_lists_padded_behind_a_small_catalogue_count_in_full() -> None:
    padded = lists([[1, 0, NOTHING, NOTHING, NOTHING]])
    catalog = Catalog.from_titles(["a", "b", "c"])
    assert per_example(padded, np.array([0], np.int32), catalog)["hr@5"].tolist() == [1.0]
    for match in ("id", "title"):
        assert per_example(padded, np.array([2], np.int32), catalog, match)["hr@5"].tolist() == [0.0]


def test_intervals_agree_with_drawing_examples() -> None:
    ranks = (
        np.random.default_rng(5).choice([MISSED, 1, 2, 3, 9], p=[0.6, 0.1, 0.1, 0.1, 0.1], size=300).astype(np.int32)
    )
    generator = np.random.default_rng(6)
    drawn = [mean_metrics(ranks[generator.integers(300, size=300)], 10) for _ in range(3000)]
    for name, (low, high) in bootstrap(ranks, 10, np.random.default_rng(7), 3000).items():
        means = [one[name] for one in drawn]
        assert (low, high) == pytest.approx((np.percentile(means, 2.5), np.percentile(means, 97.5)), abs=0.006)
        assert low < mean_metrics(ranks, 10)[name] < high


def test_intervals_follow_the_seed_and_nothing_else() -> None:
    generator = np.random.default_rng(1)
    examples = examples_from([[0, int(target)] for target in generator.integers(6, size=50)])
    rankings = random_lists(generator, 50, 6, 5)
    counts = np.zeros(6, np.int64)
    once, again, other = (evaluate(rankings, examples, CATALOG, counts, seed=seed) for seed in (1, 1, 2))
    assert once.intervals == again.intervals != other.intervals
    assert once.metrics == other.metrics
    sure = lists([[0, 1], [0, 1]])
    assert evaluate(sure, examples_from([[1, 0], [1, 0]]), CATALOG, counts).intervals["hr@1"] == (1.0, 1.0)


def plain_slices(window: list[int], times: list[int], count: int) -> set[str]:
    *history, target = window
    if UNKNOWN_TIME in times[-2:]:
        names = {"unknown_time"}
    else:
        names = {"same_time"} if times[-1] == times[-2] else {"later"} if times[-1] > times[-2] else set()
    names.add("freq_0" if count == 0 else "freq_1_2" if count < 3 else "freq_3_5" if count < 6 else "freq_6_more")
    length = len(history)
    names.add(
        "history_1"
        if length == 1
        else "history_2_4"
        if length < 5
        else "history_5_9"
        if length < 10
        else "history_10_more"
    )
    return names | {"repeat" if target in history else "new"}


@st.composite
def timed_windows(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]]]:
    windows = draw(st.lists(st.lists(st.integers(0, 5), min_size=2, max_size=13), min_size=1, max_size=8))
    return windows, [draw(st.lists(st.integers(-1, 2), min_size=len(one), max_size=len(one))) for one in windows]


@settings(max_examples=60, deadline=None)
@given(timed_windows(), st.lists(st.integers(0, 8), min_size=6, max_size=6), st.integers(0, 2**32 - 1))
def test_slices_equal_a_plain_loop(
    world: tuple[list[list[int]], list[list[int]]], counts: list[int], seed: int
) -> None:
    windows, times = world
    examples = examples_from(windows, times)
    expected = [plain_slices(*pair, counts[pair[0][-1]]) for pair in zip(windows, times, strict=True)]
    found = slices_of(examples, np.array(counts))
    for name, part in found.items():
        assert part.tolist() == [name in names for names in expected], name
    assert set().union(*expected) <= set(found)
    rankings = random_lists(np.random.default_rng(seed), len(windows), 6, 5)
    result = evaluate(rankings, examples, CATALOG, np.array(counts))
    for name, part in found.items():
        hits = result.values("hr@5")[part]
        assert result.slices[name] == (
            {"users": 0} if not part.any() else {**mean_metrics(result.ranks[part], 5), "users": int(part.sum())}
        )
        assert not part.any() or result.slices[name]["hr@5"] == pytest.approx(hits.mean())


def test_json_has_the_agreed_fields() -> None:
    examples = examples_from([[0, 4], [1, 0]], [[5, 5], [5, 6]])
    result = evaluate(lists([[4, 0, 1, 2, 3], [4, 0, 1, 2, 3]]), examples, CATALOG, np.arange(6))
    record = json.loads(json.dumps(result.to_json()))
    assert list(record) == ["metrics", "intervals", "title_match", "slices"]
    assert record["metrics"]["hr@1"] == 0.5
    assert list(record["metrics"]) == list(record["intervals"]) == list(record["title_match"])
    assert record["slices"]["same_time"]["users"] == 1
    assert record["slices"]["same_time"]["hr@1"] == 1.0
    assert record["slices"]["later"]["ndcg@5"] == pytest.approx(1 / math.log2(3))
    assert record["slices"]["unknown_time"] == {"users": 0}
    assert all(low <= high for low, high in record["intervals"].values())


def test_values_are_per_example_and_by_name() -> None:
    rankings = lists([[3, 4, 1, 0, 2], [0, 1, 2, 3, 4], [5, 4, 3, 2, 1]])
    examples = examples_from([[0, 4], [1, 0], [2, 0]])
    result = evaluate(rankings, examples, CATALOG, np.zeros(6, np.int64))
    assert result.values("mrr@5").tolist() == [0.5, 1.0, 0.0]
    assert result.values("mrr@5", "title").tolist() == [0.5, 1.0, 0.25]
    with pytest.raises(ConfigError, match=r"got hr@10, expected hr@1, hr@5"):
        result.values("hr@10")


def test_what_cannot_be_judged_is_refused() -> None:
    examples, counts = examples_from([[0, 4], [1, 0]]), np.zeros(6, np.int64)
    good = lists([[0, 1], [0, 1]])
    with pytest.raises(ConfigError, match="no examples"):
        evaluate(lists([[0]]), examples.take(np.empty(0, np.int64)), CATALOG, counts)
    with pytest.raises(ConfigError, match="got 1, expected 2"):
        evaluate(lists([[0, 1]]), examples, CATALOG, counts)
    with pytest.raises(ConfigError, match="train_counts"):
        evaluate(good, examples, CATALOG, counts[:5])
    with pytest.raises(ConfigError, match="resamples"):
        evaluate(good, examples, CATALOG, counts, resamples=0)
    with pytest.raises(ArtifactMismatch, match=r"a ranking points outside .*row 6"):
        evaluate(lists([[0, 6], [0, 1]]), examples, CATALOG, counts)
    with pytest.raises(ArtifactMismatch, match="a target points outside"):
        hit_ranks(good, np.array([0, 9], np.int32), CATALOG)

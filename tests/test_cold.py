"""Lists for those without a history: a plain loop over entries, how the half-life is chosen, and what a run does."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2d.artifacts import sha256_file
from l2d.decode import USUAL_HALF_LIFE, Cold, Fading, fit_fading
from l2d.errors import ArtifactCorrupt, ConfigError
from l2d.interactions import UNKNOWN_TIME
from l2d.memory import Entries
from l2d.ranking import NOTHING, Requests
from l2d.recommender import DECODERS, Interaction, Recommender, RecommendRequest
from l2d.run import Run
from shop import CATALOG, ok

DAY = 86_400
NOW = 1_000 * DAY
ITEMS = 8
EMPTY = np.empty(0, np.int32)


def memory(taken: list[tuple[int, float]]) -> Entries:
    """Entries of (row, day); no thoughts that matter."""
    size = len(taken)
    rows = np.array([row for row, _ in taken], dtype=np.int32)
    times = np.array([UNKNOWN_TIME if day < 0 else round(day * DAY) for _, day in taken], dtype=np.int64)
    return Entries(np.zeros((size, 1), np.float16), rows, np.zeros(size, np.int32), times, np.arange(size), ("u",))


days = st.integers(0, 1_200).map(float) | st.just(-1.0)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, ITEMS - 1), days), max_size=20),
    st.sampled_from([None, 1.0, 30.0, 365.0]),
    st.lists(st.integers(0, ITEMS - 1), max_size=3),
    st.none() | st.lists(st.integers(0, ITEMS - 1), max_size=5),
    st.integers(0, 3),
)
def test_lists_are_those_of_a_loop_over_entries(
    taken: list[tuple[int, float]], life: float | None, barred: list[int], only: list[int] | None, fewest: int
) -> None:
    known = [min(day, NOW / DAY) for _, day in taken if day >= 0]
    weights = [0.0] * ITEMS
    for row, day in taken:
        age = 0.0 if not known else max(known) - (min(known) if day < 0 else min(day, NOW / DAY))
        weights[row] += 1.0 if life is None else 0.5 ** (age / life)
    counts = [sum(row == other for other, _ in taken) for row in range(ITEMS)]
    allowed = [
        row for row in range(ITEMS)
        if counts[row] >= max(1, fewest) and row not in barred and (only is None or row in only)
    ]  # fmt: skip
    requests = Requests(
        [EMPTY, np.array([1], np.int32)],
        exclude=[np.array(barred, np.int32), EMPTY],
        allow=[None if only is None else np.array(only, np.int32), None],
        minimum_entries=fewest,
    )
    rankings = Cold(memory(taken), ITEMS, life, now=NOW).rank(requests, ITEMS)
    listed = [row for row in rankings.rows[0].tolist() if row != NOTHING]
    assert sorted(listed) == allowed
    scores = dict(zip(listed, rankings.scores[0].tolist(), strict=False))
    for row in listed:
        assert 0 < scores[row] <= 1
        assert scores[row] == pytest.approx(weights[row] / max(weights), rel=1e-6, abs=1e-37)
    assert listed == sorted(listed, key=lambda row: (-np.float32(scores[row]), row))
    assert set(listed) <= set(rankings.rows[1].tolist())


def test_an_entry_of_the_far_future_does_not_bury_the_rest() -> None:
    entries = memory([(0, 100_000), (1, 990), (1, 995), (2, 500)])
    list_of = Cold(entries, 4, 30.0, now=NOW).rank(Requests([EMPTY]), 4)
    assert list_of.rows[0].tolist() == [1, 0, 2, NOTHING]
    behind = Cold(entries, 4, 30.0, now=0.0).rank(Requests([EMPTY]), 4)  # a clock that was set back
    assert behind.rows[0].tolist() == [1, 0, 2, NOTHING]


def test_items_that_nobody_took_for_ages_stay_listed() -> None:
    rankings = Cold(memory([(0, 0), (1, 900)]), 3, 1.0, now=NOW).rank(Requests([EMPTY]), 3)
    assert rankings.rows[0].tolist() == [1, 0, NOTHING]
    assert rankings.scores[0, 1] > 0


def test_the_half_life_is_what_validation_likes_best() -> None:
    taken = [(0, 0.0)] * 9 + [(1, 300.0)] * 6 + [(2, 395.0), (2, 400.0)]
    lives = (None, 100.0, 5.0)
    gains = {
        "never": [1, 1 / np.log2(3), 0.5],
        "100": [0.5, 1, 1 / np.log2(3)],
        "5": [0.5, 1 / np.log2(3), 1],
    }
    for targets, best in (([0, 0, 1], None), ([1, 1, 2], 100.0), ([2, 2, 2], 5.0), ([3], None)):
        found = fit_fading(memory(taken), ITEMS, np.array(targets, np.int32), half_lives=lives)
        assert found.half_life == best
        assert found.requests == len(targets)
        for name, gain in gains.items():
            assert found.ndcg[name] == pytest.approx(np.mean([[*gain, 0][target] for target in targets]))


def test_without_times_nothing_fades() -> None:
    found = fit_fading(memory([(0, -1.0), (1, -1.0)]), ITEMS, np.array([1], np.int32))
    assert found.half_life is None
    assert len(set(found.ndcg.values())) == 1
    with pytest.raises(ConfigError, match="nothing to fit on"):
        fit_fading(memory([]), ITEMS, EMPTY)


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    shutil.copytree(run, tmp_path / "copy")
    return tmp_path / "copy"


def test_an_empty_history_gets_one_list_whatever_the_decoder_is(run: Path) -> None:
    opened = Recommender.load(run, device="cpu", verify=False)
    names = [name for name, kind in DECODERS.items() if kind in ("latent", "baseline") or name == "beam"]
    names = [name for name in names if name in opened.every_decoder()]
    entries, fading = opened.entries, opened.constants.cold
    assert fading is not None
    assert fading.requests == len(opened.dataset.splits.valid)
    rows = Cold(entries, len(CATALOG), fading.half_life).rank(Requests([EMPTY]), 5).rows[0]
    for name in names:
        found = opened.recommend([], k=5, decoder=name)
        assert [one.item_id for one in found] == [CATALOG.item_id(int(row)) for row in rows]
        assert all(0 < one.score <= 1 for one in found)
    first, second = opened.recommend([], k=2)
    assert opened.recommend([], k=1, exclude=[first.item_id]) == [second]
    assert opened.recommend([], k=3, allow=[second.item_id]) == [second]


def test_strangers_and_customers_in_one_batch_get_their_own_lists(run: Path) -> None:
    opened = Recommender.load(run, device="cpu", verify=False)
    histories = [[CATALOG.titles[3]], [], [CATALOG.titles[8], CATALOG.titles[5]], []]
    requests = [RecommendRequest(history, k) for history, k in zip(histories, (3, 4, 5, 2), strict=True)]
    assert [opened.is_cold(request) for request in requests] == [False, True, False, True]
    together = opened.recommend_batch(requests)
    warm = opened.recommend_batch([requests[0], requests[2]])
    assert [together[0], together[2]] == warm
    assert [together[1], together[3]] == [opened.recommend([], k=4), opened.recommend([], k=2)]


def test_the_list_follows_the_memory(run: Path) -> None:
    opened = Recommender.load(run, device="cpu", verify=False)
    before = opened.recommend([], k=1)
    rare = int(np.argmin(opened.item_vectors.counts))
    entries = opened.entries
    opened.__dict__["entries"] = replace(entries, row=np.full(len(entries), rare, np.int32))
    assert (
        [one.item_id for one in opened.recommend([], k=3)] == [CATALOG.item_id(rare)] != [one.item_id for one in before]
    )


def test_a_live_interaction_counts_in_the_next_list(copy: Path) -> None:
    with Recommender.load(copy, device="cpu", writer=True) as opened:
        known, rare = opened.recommend([], k=len(CATALOG)), int(np.argmin(opened.item_vectors.counts))
        item, latest = CATALOG.item_id(rare), int(opened.entries.timestamp.max())
        opened.add_interactions([Interaction("17", item, latest + second) for second in range(200)])
        found = opened.recommend([], k=len(CATALOG))
        assert found[0].item_id == item != known[0].item_id
        rest = [one.item_id for one in found[1:]]
        assert rest == [one.item_id for one in known if one.item_id != item]
        alike = Recommender.load(copy, device="cpu").recommend([], k=len(CATALOG))
    assert [one.item_id for one in alike] == [one.item_id for one in found]


def without_fading(path: Path, cold: object = None) -> None:
    """Makes a run as they were before popularity faded, or one whose constants say something else."""
    place = Run(path)
    manifest = place.read_manifest()
    record = json.loads(place.constants.read_text())
    del record["cold"]
    place.constants.write_text(json.dumps(record | ({} if cold is None else {"cold": cold})))
    place.record(manifest, constants=sha256_file(place.constants))


def test_an_older_run_fades_by_the_usual_half_life_until_it_is_calibrated(copy: Path) -> None:
    without_fading(copy)
    opened = Recommender.load(copy, device="cpu")
    assert opened.constants.cold is None
    assert opened.cold.half_life == USUAL_HALF_LIFE
    opened.calibrate()
    again = Recommender.load(copy, device="cpu").constants.cold
    assert again == fit_fading(opened.train_entries, len(CATALOG), opened.dataset.splits.valid.target)


@pytest.mark.parametrize("cold", [{}, {"half_life": 0, "requests": 1, "ndcg": {}}, {"half_life": "x"}, [1], "never"])
def test_constants_that_make_no_sense_are_refused(copy: Path, cold: object) -> None:
    without_fading(copy, cold)
    with pytest.raises(ArtifactCorrupt, match="not the constants"):
        Recommender.load(copy, device="cpu").recommend([])


def test_fading_survives_json() -> None:
    for life in (None, 30.0):
        fading = Fading(life, 7, {"never": 0.1, "30": 0.2})
        record = json.loads(json.dumps({"half_life": life, "requests": 7, "ndcg": dict(fading.ndcg)}))
        assert Fading.of(record) == fading


def test_a_line_without_a_history_is_answered(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text('{"history": [], "k": 3}\n')
    (line,) = ok("recommend", run, "--requests", file).out.splitlines()
    found = Recommender.load(run, device="cpu", verify=False).recommend([], k=3)
    assert [one["item_id"] for one in json.loads(line)["items"]] == [one.item_id for one in found]

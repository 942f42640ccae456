"""Measured without the histories' own items: no list holds one, and the figures are those of lists made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from l2d import Recommender
from l2d.baselines import count_decoders
from l2d.compare import Comparison, Contestant, Kind, Plan, compare, sample
from l2d.compare.report import render
from l2d.evaluate import Evaluation, evaluate
from l2d.evidence import Evidence
from l2d.interactions import Examples
from l2d.ranking import Decoder, Rankings, Requests
from l2d.testing import toy_world
from shop import ok

NAMES = ("global", "beam", "repeat-last")
SAID = "The items of each history are left out."


class Watched:
    """A decoder that notes how many requests came together, and how many lists held an item of their history."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.asked: set[int] = set()
        self.repeating = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.decoder, name)

    def rank(self, requests: Requests, k: int) -> Rankings:
        lists = self.decoder.rank(requests, k)
        self.asked.add(len(requests))
        self.repeating += sum(bool(np.isin(*pair).any()) for pair in zip(lists.rows, requests.histories, strict=True))
        return lists


# On a toy world


class Small:
    """A toy world with counts, each asked twice, as rows of two seeds are."""

    def __init__(self) -> None:
        self.world = toy_world(rings=2, ring=9, walk=7)
        self.examples = self.world.dataset.splits.test
        self.evidence = Evidence.learn(self.world.dataset.splits.train, self.world.items)
        self.counted = count_decoders(self.evidence)

    def compared(self, plan: Plan) -> tuple[dict[str, Watched], Comparison]:
        kinds: dict[str, Kind] = {"repeat-last": "baseline", "cooccurrence": "peer", "popularity": "language"}
        rows = {name: Watched(self.counted[name]) for name in kinds}
        contestants = [Contestant(name, kind, rows[name], [rows[name]]) for name, kind in kinds.items()]
        catalog, prompts, thinker = self.world.dataset.catalog, self.world.prompts, self.world.thinker
        found = compare(contestants, self.examples, catalog, self.evidence.popularity, prompts, thinker, plan)
        return rows, found

    def by_hand(self, name: str, k: int) -> Evaluation:
        histories = self.examples.histories()
        lists = self.counted[name].rank(Requests(histories, exclude=histories), k)
        return evaluate(lists, self.examples, self.world.dataset.catalog, self.evidence.popularity)


@pytest.fixture(scope="module")
def small() -> Small:
    return Small()


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_lists_that_are_judged_and_timed_hold_nothing_seen(small: Small, exclude_seen: bool) -> None:
    rows, found = small.compared(Plan(users=5, exclude_seen=exclude_seen, timed=3, seconds=0.05))
    assert found.to_json()["exclude_seen"] is exclude_seen
    for name, row in rows.items():
        assert row.asked >= {1, 5 if name == "popularity" else len(small.examples)}
        assert (row.repeating == 0) is exclude_seen


def test_rows_samples_and_tests_are_of_lists_without_the_histories(small: Small) -> None:
    plan = Plan(users=5, exclude_seen=True, scored_length=12, searched_length=10, timed=0)
    rows = small.compared(plan)[1].rows
    places = np.sort(np.random.default_rng([0, 11]).choice(len(small.examples), 5, replace=False))
    first = small.by_hand("repeat-last", 12).values("ndcg@10")
    for name, row in rows.items():
        language = row.kind == "language"
        expected = small.by_hand(name, 10 if language else 12)
        values = expected.values("ndcg@10")
        assert values.any() and (language or row.quality.metrics == pytest.approx(expected.metrics))
        on_sample = row.quality if language else row.sample
        assert on_sample is not None and on_sample.metrics["ndcg@10"] == pytest.approx(values[places].mean())
        if name != "repeat-last":
            common = places if language else np.arange(len(small.examples))
            assert row.versus["ndcg@10"].difference == pytest.approx((values - first)[common].mean())


# On a run


@pytest.fixture
def opened(run: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Recommender, dict[str, Watched]]:
    """A run, and its decoders as they are opened."""
    recommender = Recommender.load(run, device="cpu")
    watched: dict[str, Watched] = {}
    plain = recommender.decoder

    def decoder(name: str, **options: Any) -> Watched:
        return watched.setdefault(name, Watched(plain(name, **options)))

    monkeypatch.setattr(recommender, "decoder", decoder)
    return recommender, watched


def by_hand(run: Recommender, name: str, examples: Examples, k: int) -> dict[str, float]:
    histories = examples.histories()
    requests = Requests(histories, run.thoughts(histories), exclude=histories)
    lists = run.decoder(name).rank(requests, min(k, len(run.catalog)))
    return evaluate(lists, examples, run.catalog, run.evidence.popularity).metrics


def test_evaluate_leaves_the_histories_out(opened: tuple[Recommender, dict[str, Watched]]) -> None:
    run, watched = opened
    report = run.evaluate(NAMES, split="test", users=30, exclude_seen=True)
    everybody = run.dataset.splits.test
    examples = everybody.take(sample(everybody, 30, 0))
    assert report.to_json()["exclude_seen"] is True
    for name, row in report.rows.items():
        assert watched[name].repeating == 0 and watched[name].asked >= {1, len(examples)}
        expected = by_hand(run, name, examples, 10 if name == "beam" else 100)
        assert row.evaluation.metrics == pytest.approx(expected)
    plain = run.evaluate(["repeat-last"], split="test", users=30, timing=False)
    assert plain.to_json()["exclude_seen"] is False and watched["repeat-last"].repeating
    assert plain.rows["repeat-last"].evaluation.metrics != report.rows["repeat-last"].evaluation.metrics


def test_compare_leaves_the_histories_out_of_rows_and_curves(opened: tuple[Recommender, dict[str, Watched]]) -> None:
    run, watched = opened
    record = run.compare(["global", "beam"], users=None, timed=2, exclude_seen=True).to_json()
    examples = run.dataset.splits.test
    assert record["exclude_seen"] is True
    for name, row in record["rows"].items():
        assert watched[name].repeating == 0 and 1 in watched[name].asked
        assert row["metrics"] == pytest.approx(by_hand(run, name, examples, row["k"]))
    for curve, whole in (("neighbours", {"neighbours": None}), ("memory", {"decoder": "global", "share": 1.0})):
        point = next(point for point in record["curves"][curve]["points"] if whole.items() <= point.items())
        expected = by_hand(run, "global", examples, 10)
        assert (point["hr@10"], point["ndcg@10"]) == pytest.approx((expected["hr@10"], expected["ndcg@10"]))


def test_the_commands_pass_it_on_and_say_so(run: Path, tmp_path: Path) -> None:
    options = ("--decoder", "cooccurrence", "--users", "all", "--no-timing", "--split", "test", "--exclude-seen")
    made = {}
    for command in ("evaluate", "compare"):
        file = tmp_path / f"{command}.json"
        report = ("--report", tmp_path / "page.html") if command == "compare" else ()
        assert "test users, their own histories left out" in ok(command, run, *options, "--json", file, *report).out
        made[command] = json.loads(file.read_text())
        assert made[command]["exclude_seen"] is True
    one, other = made["evaluate"]["decoders"]["cooccurrence"], made["compare"]["rows"]["cooccurrence"]
    assert one["metrics"] == other["metrics"]
    assert SAID in (tmp_path / "page.html").read_text()
    older = {key: value for key, value in made["compare"].items() if key != "exclude_seen"}
    for record in (older, older | {"exclude_seen": False}):
        assert SAID not in render(record) and "nothing is left out" in render(record)

"""A comparison against its definitions: who is asked, what is booked, what is held, what the record says."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, lru_cache, partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from l2d.baselines import count_decoders
from l2d.compare import (
    Contestant,
    Latent,
    Plan,
    Service,
    ask,
    compare,
    latency_by_length,
    quality_by_memory,
    quality_by_neighbours,
    rank_in_blocks,
    sample,
    timed_histories,
)
from l2d.compare.contestants import check_names
from l2d.compare.holding import held_mib
from l2d.compare.quality import Quality, against_first
from l2d.compare.significance import holm, mean_interval, sign_flip_p
from l2d.compare.timing import Throughput, latencies, throughput
from l2d.costs import Meter
from l2d.decode import Constants, Global, Local, Vote
from l2d.errors import ConfigError
from l2d.evaluate import evaluate
from l2d.evidence import Evidence
from l2d.memory import Entries, aggregate
from l2d.ranking import Rankings, Requests, top_k
from l2d.testing import ToyWorld, toy_world


@pytest.fixture(scope="module")
def world() -> ToyWorld:
    return toy_world(rings=3, ring=12, walk=7)


@pytest.fixture(scope="module")
def evidence(world: ToyWorld) -> Evidence:
    return Evidence.learn(world.dataset.splits.train, world.items)


@pytest.fixture(scope="module")
def latent(world: ToyWorld) -> Latent:
    train, test = world.dataset.splits.train, world.dataset.splits.test
    thoughts = ask(train, world.prompts, world.thinker, think=True).thoughts
    assert thoughts is not None
    thoughts = thoughts + 2.5 * np.random.default_rng(0).standard_normal(thoughts.shape)  # so that lists err
    entries = Entries(
        thoughts.astype(np.float16), train.target, train.user, train.timestamp, np.arange(len(train)), ("u",) * 36
    )
    requests = ask(test, world.prompts, world.thinker, think=True)
    constants = Constants(20, 50, 4.0, len(requests), ())
    return Latent(entries, aggregate(entries, world.items), constants, requests, test.target, world.dataset.catalog)


class Writer:
    """A language decoder in shape: lists drawn by history, so that it errs, and phases of known length."""

    name = "writer"
    needs_thoughts = False

    def __init__(self, items: int, seed: int = 0, metered: bool = True) -> None:
        self.items = items
        self.seed = seed
        self.asked: list[tuple[int, int]] = []
        if metered:
            self.meter = Meter()

    def rank(self, requests: Requests, k: int) -> Rankings:
        self.asked.append((len(requests), k))
        if hasattr(self, "meter"):
            for phase, passes in (("prefill", 1), ("decode", 2)):
                with self.meter.phase(phase):
                    time.sleep(0.002 * passes)
                self.meter.model_calls += passes
            self.meter.draft_calls += 3
        scores = [
            np.random.default_rng([self.seed, *history.tolist()]).random(self.items) for history in requests.histories
        ]
        return top_k(np.array(scores), k)


def field(world: ToyWorld, latent: Latent, evidence: Evidence) -> list[Contestant]:
    known, _, vote = latent.decoders
    counted = count_decoders(evidence)
    return [
        Contestant("vote", "latent", vote),
        Contestant("global", "latent", known),
        Contestant("writer", "language", Writer(world.items)),
        Contestant("sasrec", "peer", Writer(world.items, 1, False), [Writer(world.items, s, False) for s in (2, 3)]),
        Contestant("cooccurrence", "baseline", counted["cooccurrence"]),
    ]


PLAN = Plan(users=12, seed=5, scored_length=40, searched_length=20, timed=6, seconds=0.05)


@pytest.fixture(scope="module")
def compared(world: ToyWorld, latent: Latent, evidence: Evidence) -> Any:
    contestants = field(world, latent, evidence)
    return contestants, run(world, evidence, contestants, PLAN)


def run(world: ToyWorld, evidence: Evidence, contestants: list[Contestant], plan: Plan, **hooks: Any) -> Any:
    test, catalog = world.dataset.splits.test, world.dataset.catalog
    return compare(contestants, test, catalog, evidence.popularity, world.prompts, world.thinker, plan, **hooks)


# Who is asked, and what their lists are worth


def test_rows_stand_in_order_and_are_judged_as_evaluate_judges(world, latent, evidence, compared) -> None:
    contestants, found = compared
    test, catalog = world.dataset.splits.test, world.dataset.catalog
    assert list(found.rows) == ["vote", "global", "writer", "sasrec", "cooccurrence"]
    assert (found.users, found.sample_users, found.against) == (36, 12, "vote")
    requests = ask(test, world.prompts, world.thinker, think=True)
    places = np.sort(np.random.default_rng([5, 11]).choice(36, 12, replace=False))
    for contestant in contestants:
        if contestant.others:
            continue
        language = contestant.kind == "language"
        lists = contestant.decoder.rank(requests, 20 if language else 37)
        part = Rankings(lists.rows[places], lists.scores[places])
        on_sample = evaluate(part, test.take(places), catalog, evidence.popularity, seed=5)
        on_all = evaluate(lists, test, catalog, evidence.popularity, seed=5)
        record = found.rows[contestant.name].to_json()
        whole = on_sample if language else on_all
        assert {key: record[key] for key in ("metrics", "intervals", "title_match", "slices")} == whole.to_json()
        assert record["users"] == (12 if language else 36) and record["k"] == lists.k
        if language:
            assert "sample" not in record
        else:
            assert record["sample"] == {"users": 12, **on_sample.to_json()}


def test_language_rows_search_shorter_lists_on_the_sample_alone(world, evidence) -> None:
    writer, scorer = Writer(world.items), Writer(world.items)
    contestants = [Contestant("writer", "language", writer), Contestant("scorer", "peer", scorer)]
    run(world, evidence, contestants, replace(PLAN, timed=0))
    assert writer.asked == [(12, 20)] and scorer.asked == [(36, 37)]


def test_users_beyond_the_examples_and_none_mean_all(world, evidence) -> None:
    for users in (None, 1000):
        found = run(world, evidence, [Contestant("w", "language", Writer(37))], replace(PLAN, users=users, timed=0))
        assert found.sample_users == found.users == 36 and found.rows["w"].sample is None


def test_a_sample_is_seeded_sorted_and_without_repetition(world: ToyWorld) -> None:
    test = world.dataset.splits.test
    first, again, other = (sample(test, 20, seed) for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()
    assert len(np.unique(first)) == 20 and (np.diff(first) > 0).all()
    with pytest.raises(ConfigError, match="too few users"):
        sample(test, 0, 1)


def test_ranking_in_blocks_changes_nothing(latent: Latent) -> None:
    vote, steps = latent.decoders[2], []
    blocks = rank_in_blocks(vote, latent.requests, 5, lambda done, total: steps.append((done, total)), block=16)
    whole = vote.rank(latent.requests, 5)
    assert np.array_equal(blocks.rows, whole.rows) and np.array_equal(blocks.scores, whole.scores)
    assert steps == [(16, 36), (32, 36), (36, 36)]


def test_seeds_are_averaged_and_their_spread_stands_beside(world, evidence, compared) -> None:
    test, catalog = world.dataset.splits.test, world.dataset.catalog
    record = compared[1].rows["sasrec"].to_json()
    each = [
        evaluate(Writer(37, seed).rank(Requests(test.histories()), 37), test, catalog, evidence.popularity)
        for seed in (1, 2, 3)
    ]
    hits = [evaluation.metrics["hr@10"] for evaluation in each]
    assert record["seeds"]["n"] == 3
    assert record["metrics"]["hr@10"] == pytest.approx(sum(hits) / 3)
    mean = sum(hits) / 3
    assert record["seeds"]["sd"]["hr@10"] == pytest.approx((sum((hit - mean) ** 2 for hit in hits) / 2) ** 0.5)
    new = [evaluation.slices["new"]["ndcg@5"] for evaluation in each]
    assert record["slices"]["new"]["ndcg@5"] == pytest.approx(sum(new) / 3)
    titles = [evaluation.title_match["mrr@20"] for evaluation in each]
    assert record["title_match"]["mrr@20"] == pytest.approx(sum(titles) / 3)
    assert record["slices"]["new"]["users"] == 36
    low, high = record["intervals"]["hr@10"]
    assert low <= record["metrics"]["hr@10"] <= high
    assert all("seeds" not in compared[1].rows[name].to_json() for name in ("vote", "writer"))


# Tests against the first row


def test_rows_are_tested_against_the_first_on_common_users(compared) -> None:
    rows = compared[1].rows
    assert rows["vote"].versus == {}
    first, writer = rows["vote"].quality, rows["writer"].quality
    assert set(rows["writer"].versus) == {"hr@10", "ndcg@10", "hr@20", "ndcg@20"}, "lists end at 20 there, at 37 here"
    for metric, versus in rows["writer"].versus.items():
        differences = writer.values(metric) - first.values(metric)[writer.places]
        assert versus.users == 12 and versus.difference == pytest.approx(differences.mean())
        assert (versus.low, versus.high) == mean_interval(differences, np.random.default_rng([5, 17]))
    assert rows["global"].versus["hr@10"].users == 36


def test_holm_corrects_one_metric_over_all_rows(compared) -> None:
    rows = compared[1].rows
    names = [name for name in rows if name != "vote"]
    ps = []
    for name in names:
        quality, first = rows[name].quality, rows["vote"].quality
        differences = quality.values("ndcg@10") - first.values("ndcg@10")[quality.places]
        ps.append(sign_flip_p(differences, np.random.default_rng([5, 19])))
    assert [rows[name].versus["ndcg@10"].p_holm for name in names] == holm(ps)


def test_a_first_row_on_the_sample_meets_the_others_there(compared) -> None:
    few, all_of_them = compared[1].rows["writer"].quality, compared[1].rows["sasrec"].quality
    for first, row in ((few, all_of_them), (all_of_them, few)):
        versus = against_first({"first": first, "row": row}, 5)["row"]["ndcg@20"]
        difference = all_of_them.values("ndcg@20")[few.places].mean() - few.values("ndcg@20").mean()
        assert versus.users == 12 and versus.difference == pytest.approx(difference if first is few else -difference)
        assert difference != 0 and versus.low <= versus.difference <= versus.high


def test_a_row_of_several_seeds_is_tested_by_its_mean(compared) -> None:
    rows = compared[1].to_json()["rows"]
    for metric, versus in rows["sasrec"]["versus"].items():
        difference = rows["sasrec"]["metrics"][metric] - rows["vote"]["metrics"][metric]
        assert versus["difference"] == pytest.approx(difference)


def test_a_row_against_its_own_lists_differs_by_nothing(compared) -> None:
    quality: Quality = compared[1].rows["vote"].quality
    versus = against_first({"a": quality, "b": quality}, 0)["b"]["hr@10"]
    assert (versus.difference, versus.low, versus.high, versus.p_holm) == (0, 0, 0, 1)


# What answers cost


def test_a_decoder_that_needs_thoughts_is_booked_from_outside(world, latent) -> None:
    histories = world.dataset.splits.test.histories()[:3]
    lists, cost = Service(latent.decoders[0], world.prompts, world.thinker).answer(histories, 5)
    assert lists.rows.tolist() == latent.decoders[0].rank(latent.requests.take([0, 1, 2]), 5).rows.tolist()
    assert (cost.model_calls, cost.draft_calls) == (1, 0)
    assert cost.seconds["decode"] == 0 < min(cost.seconds[phase] for phase in ("tokenise", "prefill", "search"))


def test_a_meter_is_reset_and_what_no_phase_claims_is_search(world) -> None:
    writer = Writer(37)
    service = Service(writer, world.prompts, world.thinker)
    for _ in range(2):
        start = time.perf_counter()
        _, cost = service.answer(world.dataset.splits.test.histories()[:1], 5)
        whole = time.perf_counter() - start
        assert (cost.model_calls, cost.draft_calls) == (3, 3)
        assert cost.seconds["tokenise"] == 0 and cost.seconds["prefill"] >= 0.002 and cost.seconds["decode"] >= 0.004
        assert cost.seconds["search"] > 0 and sum(cost.seconds.values()) <= whole


def test_without_a_meter_everything_is_search(world) -> None:
    _, cost = Service(Writer(37, metered=False), world.prompts, world.thinker).answer([np.array([1], np.int32)], 5)
    assert cost.seconds["search"] == sum(cost.seconds.values()) > 0 and cost.model_calls == 0


def test_latencies_leave_warming_up_out_and_phases_add_up(world) -> None:
    class Slowing(Writer):
        def rank(self, requests: Requests, k: int) -> Rankings:
            self.meter.model_calls += len(self.asked)  # each call counts one pass more than the one before
            return super().rank(requests, k)

    writer = Slowing(37)
    histories = timed_histories(world.dataset.splits.test, 0, 8)
    latency = latencies({"writer": Service(writer, world.prompts, world.thinker)}, histories, 7)["writer"]
    assert writer.asked == [(1, 7)] * 13, "five rounds of warming up"
    assert latency.timed == 8 and latency.draft_calls == 3
    assert latency.model_calls == 3 + sum(range(5, 13)) / 8
    assert latency.p50 <= latency.p95 and latency.phases["decode"] >= 4
    assert latency.mean == pytest.approx(sum(latency.phases.values())) and latency.mean >= 6


def test_timed_histories_are_of_different_users_while_there_are_enough(world) -> None:
    test = world.dataset.splits.test
    known = {tuple(history.tolist()) for history in test.histories()}
    assert {tuple(history.tolist()) for history in timed_histories(test, 3, 36)} == known
    assert len(timed_histories(test, 3, 100)) == 100
    assert timed_histories(test, 3, 0) == []
    with pytest.raises(ConfigError, match="no requests"):
        timed_histories(test.take(np.empty(0, np.int64)), 3)


class Clocked:
    """A service on a clock of its own: a call takes a constant and a part for each request."""

    def __init__(self, fixed: float, each: float) -> None:
        self.fixed = fixed
        self.each = each
        self.now = 0.0
        self.sizes: list[int] = []

    def answer(self, histories: list[Any], k: int) -> None:
        self.sizes.append(len(histories))
        self.now += self.fixed + self.each * len(histories)

    def best(self, seconds: float) -> Throughput:
        single = 1 / (self.fixed + self.each)
        return throughput(self, [0, 1, 2], 10, single, seconds=seconds, clock=lambda: self.now)  # type: ignore[arg-type]


def test_throughput_is_that_of_the_best_batch() -> None:
    assert Clocked(0.1, 0.01).best(100) == Throughput(pytest.approx(128 / 1.38), 128)
    # Nothing to gain from batches: one at a time stays the best.
    assert Clocked(0.0, 0.01).best(100).requests_per_second == pytest.approx(100)


def test_throughput_keeps_to_its_time() -> None:
    for seconds in (0.05, 1, 3, 10):
        clocked = Clocked(0.02, 0.02)
        clocked.best(seconds)
        assert clocked.now <= seconds * 1.001
    steady = Clocked(0.0, 0.125)
    steady.best(10)
    assert steady.sizes == [8, 8, 8, 32], "a third of the time for each size; 128 would take 16 seconds"
    slow = Clocked(0.0, 1.0)
    assert slow.best(3) == Throughput(1, 1) and slow.sizes == []


# What is held


def test_every_storage_counts_once() -> None:
    array = np.zeros((256, 1024), dtype=np.float32)  # 1 MiB
    tensor = torch.zeros(512, 1024)  # 2 MiB
    assert held_mib(array) == 1 and held_mib(tensor) == 2
    assert held_mib([array, array], {"again": array}, (array[3:], array.T[::-1])) == 1
    assert held_mib(tensor.view(-1), tensor[5:], tensor.T) == 2
    assert held_mib(torch.from_numpy(array), array) == 1
    assert held_mib(array, tensor, array.copy()) == 4
    assert held_mib() == 0 and held_mib("text", 3, None) == 0


def test_a_view_counts_with_the_whole_that_it_keeps() -> None:
    view = np.zeros((256, 1024), dtype=np.float32)[7, ::-2]
    assert held_mib(view) == 1
    assert held_mib(torch.zeros(512, 1024)[:1]) == 2


def test_modules_count_with_parameters_and_buffers_and_tied_weights_once() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(512, 512, bias=False), torch.nn.Linear(512, 512, bias=False))
    assert held_mib(module) == 2
    module[1].weight = module[0].weight
    assert held_mib(module) == 1
    module.register_buffer("table", torch.zeros(512, 512))
    assert held_mib(module) == 2


def test_a_memory_map_counts_once(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((256, 1024), dtype=np.float32))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert held_mib(mapped, mapped[:9], np.asarray(mapped)) == pytest.approx(1)


def test_arrays_are_found_wherever_an_object_keeps_them() -> None:
    def mebibyte() -> np.ndarray:
        return np.zeros(2**20, dtype=np.uint8)

    class Slotted:
        __slots__ = ("array",)

        def __init__(self) -> None:
            self.array = mebibyte()

    class Lazy:
        @cached_property
        def array(self) -> np.ndarray:
            return mebibyte()

        def method(self) -> None: ...

    kept = mebibyte()

    @lru_cache
    def remembered(_: int) -> np.ndarray:
        return mebibyte()

    lazy = Lazy()
    assert held_mib(lazy) == 0
    assert lazy.array.size and held_mib(lazy) == 1
    assert held_mib(lazy.method) == 1
    assert held_mib(Slotted()) == 1
    assert held_mib(lambda: kept) == 1
    assert held_mib(partial(print, kept)) == 1
    assert remembered(0).size and held_mib(remembered) == 1
    circle: list[Any] = [kept]
    circle.append(circle)
    assert held_mib({1: {frozenset([1]): circle}}) == 1


def test_a_thinker_counts_for_who_needs_thoughts(world, latent, evidence) -> None:
    class Heavy(type(world.thinker)):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(16)
            self.weights = torch.zeros(2**22)

    contestants = [Contestant("global", "latent", latent.decoders[0]), Contestant("w", "language", Writer(37))]
    test, catalog = world.dataset.splits.test, world.dataset.catalog
    plan = replace(PLAN, timed=0)
    found = compare(contestants, test, catalog, evidence.popularity, world.prompts, Heavy(), plan).rows
    assert 16 < found["global"].memory_mib < 17 and found["w"].memory_mib == 0


# The record


def test_the_record_has_the_shape_that_readers_rely_on(compared) -> None:
    record = json.loads(json.dumps(compared[1].to_json(), allow_nan=False))
    assert record["split"] == "test" and record["against"] == "vote"
    assert record["list_length"] == 10 and record["searched_length"] == PLAN.searched_length
    for name, row in record["rows"].items():
        assert row["kind"] in ("latent", "language", "peer", "baseline")
        assert {"users", "metrics", "title_match", "slices", "intervals", "memory_mib", "versus", "k"} <= set(row)
        assert set(row["latency_ms"]) == {"p50", "p95", "tokenise", "prefill", "decode", "search"}
        assert row["requests_per_second"] > 0 and row["batch"] in (1, 8, 32, 128) and row["timed"] == 6
        assert row["model_calls"] == {"vote": 1, "global": 1, "writer": 3}.get(name, 0)
        if name != "vote":
            assert set(row["versus"]["hr@10"]) == {"difference", "low", "high", "p_holm", "users"}


def test_untimed_rows_have_no_times(world, evidence) -> None:
    found = run(world, evidence, [Contestant("w", "language", Writer(37))], replace(PLAN, timed=0))
    assert not {"latency_ms", "requests_per_second", "model_calls"} & set(found.to_json()["rows"]["w"])


def test_the_same_seed_finds_the_same(world, latent, evidence, compared) -> None:
    again = run(world, evidence, field(world, latent, evidence), replace(PLAN, timed=0)).to_json()
    for name, row in compared[1].to_json()["rows"].items():
        assert {key: row[key] for key in again["rows"][name]} == again["rows"][name]


def test_progress_and_the_sample_are_told(world, evidence) -> None:
    told: list[str] = []
    steps: list[tuple[str, int, int]] = []
    contestants = [Contestant("w", "language", Writer(37))]
    run(world, evidence, contestants, PLAN, progress=lambda *step: steps.append(step), notice=told.append)
    assert told == ["language decoders: 12 of 36 test examples, seed 5"]
    assert ("w", 12, 12) in steps and ("timing", 6, 6) in steps and ("batches", 1, 1) in steps


def test_what_cannot_be_compared_is_refused(world, evidence) -> None:
    one = Contestant("w", "peer", Writer(37))
    for contestants in ([], [one, one]):
        with pytest.raises(ConfigError, match="different names"):
            check_names(contestants)
    nobody = world.dataset.splits.test.take(np.empty(0, np.int64))
    with pytest.raises(ConfigError, match="no examples"):
        compare([one], nobody, world.dataset.catalog, evidence.popularity, world.prompts, world.thinker, PLAN)
    for wrong in ({"scored_length": 0}, {"timed": -1}, {"seed": -1}):
        with pytest.raises(ConfigError, match="too small"):
            Plan(**wrong)


# Curves


def means(lists: Rankings, latent: Latent) -> tuple[float, float]:
    places = [
        row.tolist().index(target) + 1 if target in row else None
        for row, target in zip(lists.rows[:, :10], latent.targets, strict=True)
    ]
    hits = [place is not None for place in places]
    gains = [0.0 if place is None else 1 / np.log2(place + 1) for place in places]
    return float(np.mean(hits)), float(np.mean(gains))


def test_quality_against_neighbours_is_that_of_decoders_with_that_m(latent: Latent) -> None:
    curve = quality_by_neighbours(latent, (5, 20, 80, 10**6))
    made = {
        ("global", None): Global(latent.items),
        **{("local", m): Local(latent.entries, latent.items, m) for m in (5, 20, 80)},
        **{("vote", m): Vote(latent.entries, latent.items, m, 4.0) for m in (5, 20, 80)},
    }
    assert {(point["decoder"], point["neighbours"]) for point in curve["points"]} == set(made)
    for point in curve["points"]:
        lists = made[point["decoder"], point["neighbours"]].rank(latent.requests, 10)
        assert (point["hr@10"], point["ndcg@10"]) == pytest.approx(means(lists, latent))
    assert curve["fitted"] == {"local": 20, "vote": 50} and curve["users"] == 36


def test_quality_against_memory_is_that_of_the_entries_kept(latent: Latent) -> None:
    curve = quality_by_memory(latent, (1.0, 0.3), seed=2)
    assert [(point["decoder"], point["share"]) for point in curve["points"]] == [
        (name, share) for share in (1.0, 0.3) for name in ("global", "local", "vote")
    ]
    whole = {point["decoder"]: point for point in curve["points"] if point["share"] == 1}
    for decoder in latent.decoders:
        lists = decoder.rank(latent.requests, 10)
        assert (whole[decoder.name]["hr@10"], whole[decoder.name]["ndcg@10"]) == pytest.approx(means(lists, latent))
    part = latent.keep(0.3, 2)
    assert len(part.entries) == round(0.3 * len(latent.entries)) and curve["entries"] == len(latent.entries)
    lists = Vote(part.entries, aggregate(part.entries, len(latent.items)), 50, 4.0).rank(latent.requests, 10)
    assert curve["points"][-1]["hr@10"] == pytest.approx(means(lists, latent)[0])


def test_a_smaller_part_of_the_memory_lies_in_a_larger_one(latent: Latent) -> None:
    kept = [set(latent.keep(share, 7).entries.sample.tolist()) for share in (1.0, 0.5, 0.1)]
    assert kept[2] < kept[1] < kept[0] == set(latent.entries.sample.tolist())
    assert set(latent.keep(0.5, 8).entries.sample.tolist()) != kept[1]
    assert len(latent.keep(1e-9, 0).entries) == 1
    for share in (0, 1.1):
        with pytest.raises(ConfigError, match="out of range"):
            quality_by_memory(latent, (share,))


def test_latency_against_length_asks_every_decoder_for_every_length(world: ToyWorld) -> None:
    ticks: Iterator[int] = count()
    writers = {name: Writer(37) for name in ("a", "b")}
    services = {name: Service(writer, world.prompts, world.thinker) for name, writer in writers.items()}
    curve = latency_by_length(
        services, timed_histories(world.dataset.splits.test, 0, 4), (1, 10), lambda *_: next(ticks)
    )
    assert [(point["decoder"], point["k"]) for point in curve["points"]] == [("a", 1), ("a", 10), ("b", 1), ("b", 10)]
    assert all(point["p50_ms"] >= 6 for point in curve["points"]) and curve["requests"] == 4 == next(ticks)
    assert writers["a"].asked == [(1, 1), (1, 10)] * 5, "one round of warming up, then four"

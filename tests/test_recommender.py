"""The facade: a run is complete in itself, its parts belong together, and nothing from after the cut is in it."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from l2d.catalog import Catalog
from l2d.decode import Vote
from l2d.errors import ArtifactExists, ArtifactMismatch, ArtifactMissing, ConfigError, UnknownItem
from l2d.evidence import Evidence
from l2d.interactions import Dataset, Interactions, split_by_time
from l2d.latency import in_turn
from l2d.memory import nearest
from l2d.prompts import COMPACT, Prompts
from l2d.recommender import Recommender, RecommendRequest
from l2d.recommender.making import ranking_score, sample_users
from l2d.run import Run
from l2d.sources.demo import demo_world
from l2d.thoughts import TorchThinker
from l2d.tuning import TuningConfig, TuningPlan

QUICK = TuningConfig(epochs=1, tokens_per_batch=512, pack_tokens=128, evaluations=1, learning_rate=3e-3)
LATENT = ("global", "local", "vote")


def small_dataset(seed: int = 3) -> Dataset:
    catalog, interactions = demo_world(seed=seed, users=60, items=120)
    return Dataset(catalog, interactions, split_by_time(interactions), {"format": "demo"})


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return small_dataset()


@pytest.fixture(scope="module")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    out = tmp_path_factory.mktemp("runs") / "tuned"
    made = Recommender.tune(dataset, backbone="scratch:tiny", out=out, config=QUICK, device="cpu")
    made.build_memory()
    return made


@pytest.fixture
def copy(run: Recommender, tmp_path: Path) -> Iterator[Path]:
    """A copy of the run that a test may spoil."""
    shutil.copytree(run.path, tmp_path / "copy")
    yield tmp_path / "copy"


def lists(run: Recommender, decoder: str, k: int = 8) -> list[list[tuple[object, float]]]:
    requests = [RecommendRequest([run.catalog.item_id(int(row)) for row in history], k) for history in histories(run)]
    return [[(item.item_id, item.score) for item in found] for found in run.recommend_batch(requests, decoder=decoder)]


def histories(run: Recommender) -> list[np.ndarray]:
    return run.dataset.splits.test.histories()[:12]


def test_a_loaded_run_ranks_as_the_one_that_was_made(run: Recommender) -> None:
    loaded = Recommender.load(run.path, device="cpu")
    for decoder in (*LATENT, "beam", "cooccurrence"):
        assert lists(loaded, decoder) == lists(run, decoder)


def test_adopting_the_exported_backbone_ranks_as_tuning_did(run: Recommender, tmp_path: Path) -> None:
    told: list[str] = []
    adopted = Recommender.adopt(
        run.dataset, backbone=str(run.run.backbone), template="compact", out=tmp_path / "adopted", device="cpu",
        notice=told.append,
    )  # fmt: skip
    adopted.build_memory()
    for decoder in LATENT:
        assert lists(adopted, decoder) == lists(run, decoder)
    assert any("log-likelihood" in line for line in told)


def test_the_answers_likelihood_is_the_models_own_loss(run: Recommender) -> None:
    import torch

    from l2d.recommender.making import ADOPT_SAMPLES, answer_likelihood

    valid = run.dataset.splits.valid
    chosen = np.random.default_rng(0).permutation(len(valid))[:ADOPT_SAMPLES]
    total = 0.0
    for index in chosen:
        prompt, answer = run.prompts.prompt(valid.history(int(index))), run.prompts.answer(int(valid.target[index]))
        ids = torch.from_numpy(np.concatenate([prompt, answer]).astype(np.int64))[None]
        labels = ids.clone()
        labels[:, : len(prompt)] = -100
        with torch.inference_mode():
            total -= float(run.backbone.model(input_ids=ids, labels=labels).loss) * len(answer)
    own, _ = answer_likelihood(run.dataset, run.backbone, run.prompts)
    assert own == pytest.approx(total / len(chosen), rel=1e-4)


@pytest.mark.parametrize("decoder", [*LATENT, "beam", "popularity", "cooccurrence"])
def test_batch_equals_single_under_filters(run: Recommender, decoder: str) -> None:
    ids = [[run.catalog.item_id(int(row)) for row in history] for history in histories(run)]
    requests = [
        RecommendRequest(ids[0], 5),
        RecommendRequest(ids[1], 9, exclude=ids[1]),
        RecommendRequest(ids[2], 3, allow=[run.catalog.item_id(row) for row in range(20)]),
    ]
    together = run.recommend_batch(requests, decoder=decoder)
    for request, found in zip(requests, together, strict=True):
        alone = run.recommend(
            request.history, k=request.k, decoder=decoder, exclude=request.exclude, allow=request.allow
        )
        assert [item.item_id for item in alone] == [item.item_id for item in found]
        assert np.allclose([item.score for item in alone], [item.score for item in found], rtol=1e-4)
    assert not {item.item_id for item in together[1]} & set(ids[1])
    assert {run.catalog.row(item.item_id) for item in together[2]} <= set(range(20))


def test_seen_items_are_excluded_even_those_before_the_trimmed_history(run: Recommender) -> None:
    long = [run.catalog.item_id(row) for row in range(30)]
    assert len(run.trimmed(run.rows(long))) <= run.longest_history < len(long)
    found = run.recommend(long, k=len(run.catalog), exclude_seen=True, decoder="popularity")
    assert not {item.item_id for item in found} & set(long)


def test_titles_and_ids_mean_the_same_and_unknown_ones_get_a_suggestion(run: Recommender) -> None:
    rows = [0, 3, 7]
    by_id = run.recommend([run.catalog.item_id(row) for row in rows], k=4)
    assert by_id == run.recommend([run.catalog.titles[row] for row in rows], k=4)
    with pytest.raises(UnknownItem, match="nearest titles"):
        run.recommend([run.catalog.titles[0] + "x"])


def test_nothing_after_the_cut_reaches_tokenizer_tuning_counts_or_memory(dataset: Dataset) -> None:
    """Everything from the first validation target on is made another: other items, other titles for later items."""
    log, train = dataset.interactions, dataset.splits.train
    later = log.timestamp > train.timestamp.max()
    assert later.sum() > 50
    row = log.row.copy()
    row[later] = np.random.default_rng(0).integers(0, len(dataset.catalog), int(later.sum()))
    unseen = np.setdiff1d(np.arange(len(dataset.catalog)), dataset.train_rows)
    titles = list(dataset.catalog.titles)
    for item in unseen:
        titles[item] = f"zzqx later {item}"
    changed = Interactions(log.user_ids, log.user, row, log.timestamp)
    other = Dataset(Catalog(dataset.catalog.item_ids, tuple(titles)), changed, split_by_time(changed), {})

    from l2d.backbone import scratch_backbone

    assert np.array_equal(dataset.train_rows, other.train_rows)
    seen = []
    for world in (dataset, other):
        backbone = scratch_backbone("scratch:tiny", [world.catalog.titles[row] for row in world.train_rows])
        prompts = Prompts.compile(COMPACT, backbone.tokenizer, world.catalog)
        plan = TuningPlan(world.splits.train, prompts, 512, 128, 12, 0)
        batches = [tree.ids.tolist() for index in range(plan.batches_per_epoch * 2) for tree in plan.batch(index)]
        counts = Evidence.learn(world.splits.train, len(world.catalog))
        memory = [prompts.prompt(history).tolist() for history in world.splits.train.histories()]
        seen.append((backbone.tokenizer.fingerprint, batches, memory, world.splits.train.target.tolist(), counts))
    (*first, counts), (*second, other_counts) = seen
    assert first == second
    assert np.array_equal(counts.popularity, other_counts.popularity)
    some = dataset.splits.train.histories()[:20]
    assert np.array_equal(counts.cooccurrence_scores(some), other_counts.cooccurrence_scores(some))


def test_a_memory_of_another_backbone_is_refused_by_name(run: Recommender, copy: Path, tmp_path: Path) -> None:
    other = Recommender.tune(
        run.dataset, backbone="scratch:tiny", out=tmp_path / "other", config=QUICK, seed=5, device="cpu"
    )
    other.build_memory()
    shutil.rmtree(copy / "memory.lance")
    shutil.copytree(other.run.memory, copy / "memory.lance")
    with pytest.raises(ArtifactMismatch, match="backbone") as caught:
        _ = Recommender.load(copy, device="cpu").entries
    assert run.manifest["backbone"]["fingerprint"][:12] in str(caught.value)
    assert other.manifest["backbone"]["fingerprint"][:12] in str(caught.value)


def test_parts_of_another_run_are_refused_even_without_checksums(run: Recommender, copy: Path, tmp_path: Path) -> None:
    with_other_cut = Recommender.adopt(
        run.dataset, backbone=str(run.run.backbone), template="compact", out=tmp_path / "cut", max_title_tokens=2
    )
    shutil.copy(with_other_cut.run.prompt, copy / "prompt.json")
    with pytest.raises(ArtifactMismatch, match="prompt"):
        Recommender.load(copy, device="cpu", verify=False)
    shutil.copy(run.run.prompt, copy / "prompt.json")
    Recommender.load(copy, device="cpu", verify=False)
    shutil.rmtree(copy / "data")
    (copy / "data").mkdir()
    small_dataset(seed=4).save(copy / "data")
    with pytest.raises(ArtifactMismatch, match="data set"):
        Recommender.load(copy, device="cpu", verify=False)


def test_an_unfinished_run_says_how_to_go_on(dataset: Dataset, tmp_path: Path) -> None:
    place = Run(tmp_path / "begun")
    place.path.mkdir()
    place.write_manifest({"state": "tuning", "asked": {}, "tuning": {}, "data": dataset.fingerprint})
    with pytest.raises(ArtifactMissing, match="--resume"):
        Recommender.load(place.path)
    with pytest.raises(ArtifactMismatch, match="backbone or template"):
        Recommender.tune(dataset, backbone="scratch:tiny", out=place.path, config=QUICK, resume=True)


def test_a_folder_that_is_no_run_is_never_deleted(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(ArtifactExists):
        Recommender.tune(dataset, backbone="scratch:tiny", out=tmp_path / "thesis", config=QUICK, overwrite=True)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_evaluate_refuses_a_memory_that_holds_the_splits_targets(run: Recommender, copy: Path) -> None:
    wide = Recommender.load(copy, device="cpu")
    wide.build_memory(through="valid", overwrite=True)
    assert wide.memory_info().entries == len(wide.dataset.splits.train) + len(wide.dataset.splits.valid)
    with pytest.raises(ArtifactMismatch, match="valid"):
        wide.evaluate(["global"], split="valid", timing=False)
    assert wide.evaluate(["global"], split="test", timing=False).users == len(wide.dataset.splits.test)
    # The constants come from the training entries alone, so they are those of the narrower memory; thoughts differ in
    # their last bits, having met other prompts in their packs.
    assert wide.constants.vote_neighbours == run.constants.vote_neighbours
    assert wide.constants.vote_temperature == pytest.approx(run.constants.vote_temperature, rel=1e-5)


def test_the_report_has_every_row_and_the_same_users(run: Recommender) -> None:
    report = run.evaluate(["global", "beam", "popularity"], split="test", users=20, seed=1)
    record = report.to_json()
    assert list(record) == ["split", "users", "exclude_seen", "decoders"]
    assert list(record["decoders"]) == ["global", "beam", "popularity"]
    for name, row in record["decoders"].items():
        assert {"metrics", "title_match", "slices", "ms_per_request"} <= set(row), name
        assert row["slices"]["same_time"]["users"] + row["slices"]["later"]["users"] <= report.users == 20
    assert "hr@100" not in record["decoders"]["beam"]["metrics"]
    assert report.rows["global"].evaluation.metrics["hr@10"] == pytest.approx(brute_force_hit_rate(run, 20, 1))


def brute_force_hit_rate(run: Recommender, users: int, seed: int) -> float:
    test = run.dataset.splits.test
    chosen = np.sort(np.random.default_rng([seed, 11]).choice(len(test), users, replace=False))
    entries, vectors = run.entries, {}
    for row in set(entries.row.tolist()):
        vectors[row] = entries.thoughts[entries.row == row].astype(np.float64).mean(axis=0).astype(np.float32)
    hits = 0
    for index in chosen:
        thought = run.thinker.think([run.prompts.prompt(test.history(int(index)))])[0]
        ranked = sorted(vectors, key=lambda row: (float(np.linalg.norm(vectors[row] - thought)), row))
        hits += int(test.target[index]) in ranked[:10]
    return hits / users


def test_explain_names_the_entries_that_voted(run: Recommender) -> None:
    history = [run.catalog.item_id(int(row)) for row in histories(run)[0]]
    best = run.recommend(history, k=1)[0]
    told = run.explain(history, best.item_id)
    thought = run.thinker.think([run.prompts.prompt(run.trimmed(run.rows(history)))])[0].astype(np.float64)
    squared = ((run.entries.thoughts.astype(np.float64) - thought) ** 2).sum(axis=1)
    near = np.lexsort((run.entries.sample, squared))[: run.constants.vote_neighbours]
    weights = np.exp((squared[near[0]] - squared[near]) / run.constants.vote_temperature)
    carrying = run.entries.row[near] == run.catalog.row(best.item_id)
    assert told.entries == carrying.sum() > 0
    assert told.share == pytest.approx(weights[carrying].sum() / weights.sum(), rel=1e-6)
    assert told.users is None
    named = run.explain(history, best.item_id, with_users=True).users
    assert named is not None
    assert set(named) == {run.entries.user_ids[run.entries.user[place]] for place in near[carrying]}
    held = [set(run.dataset.splits.train.history(int(run.entries.sample[place])).tolist()) for place in near[carrying]]
    for carrier in told.carriers:
        assert carrier.entries == sum(run.catalog.row(carrier.item_id) in rows for rows in held)


def test_similar_items_are_the_nearest_vectors(run: Recommender) -> None:
    known = np.flatnonzero(run.item_vectors.counts)
    item = int(known[0])
    vectors = run.item_vectors.vectors.astype(np.float64)
    others = [row for row in known if row != item]
    expected = sorted(others, key=lambda row: (float(np.linalg.norm(vectors[row] - vectors[item])), row))[:5]
    found = run.similar_items(run.catalog.item_id(item), k=5)
    assert [run.catalog.row(similar.item_id) for similar in found] == expected
    unknown = np.flatnonzero(run.item_vectors.counts == 0)
    if len(unknown):
        with pytest.raises(ConfigError, match="nothing is known"):
            run.similar_items(run.catalog.item_id(int(unknown[0])))


def test_options_that_cannot_work_are_refused(run: Recommender, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown decoder"):
        run.decoder("best")
    with pytest.raises(ConfigError, match="no such constant"):
        run.decoder("global", neighbours=3)
    with pytest.raises(ConfigError, match="neighbours"):
        run.decoder("local", neighbours=0)
    with pytest.raises(ConfigError, match="epochs"):
        Recommender.tune(dataset, backbone="scratch:tiny", out=tmp_path / "x", epochs=0)
    with pytest.raises(ConfigError, match="device"):
        Recommender.tune(dataset, backbone="scratch:tiny", out=tmp_path / "x", device="abacus")
    assert not (tmp_path / "x").exists()


def test_early_stopping_looks_at_whole_users(run: Recommender, dataset: Dataset) -> None:
    train = dataset.splits.train
    part = sample_users(train, len(train) // 3, np.random.default_rng(0))
    assert 0 < len(part) < len(train)
    for user in np.unique(part.user):
        assert (part.user == user).sum() == (train.user == user).sum()
    score = ranking_score(dataset, run.prompts, run.thinker.probe, seed=0)
    # Every example of this small set is in the sample, so the score is the whole validation split's NDCG@10.
    report = run.evaluate(["global"], split="valid", timing=False)
    assert score(run.backbone) == pytest.approx(report.rows["global"].evaluation.metrics["ndcg@10"], abs=1e-6)


def test_calls_are_timed_in_turn() -> None:
    order: list[tuple[str, int]] = []
    times = in_turn({name: lambda n, name=name: order.append((name, n)) for name in "ab"}, [1, 2, 3], warmup=1)
    assert order == [("a", 3), ("b", 3), ("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 3), ("b", 3)]
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}


@pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="faiss is not installed")
def test_an_index_is_used_when_asked_for_and_its_share_is_said(
    run: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(nearest.index, "LEAST", 100)
    opened = Recommender.load(run.path, approximate=True, notice=said.append)
    assert isinstance(opened.decoder("vote"), Vote)
    opened.decoder("local")
    found = [line for line in said if "index" in line]
    assert len(found) == 1 and f"{opened.entries.indexed.recall:.1%}" in found[0]
    histories = [opened.dataset.splits.test.history(i) for i in range(30)]
    exact, near = (each.decoder("vote").rank(each.requests(histories, think=True), 10).rows for each in (run, opened))
    assert np.mean([len(np.intersect1d(a, b)) for a, b in zip(exact, near, strict=True)]) > 8
    exactly = Recommender.load(run.path, notice=said.append)
    exactly.decoder("vote")
    assert "indexed" not in exactly.entries.__dict__


def test_a_user_who_comes_back_gets_the_same_list_from_what_is_known(run: Recommender) -> None:
    opened = Recommender.load(run.path, reuse_bytes=1 << 24)
    assert isinstance(opened.answering, TorchThinker) and isinstance(opened.thinker, TorchThinker)
    history = opened.user_history(opened.dataset.interactions.user_ids[0])[:6]
    for length in range(2, len(history) + 1):
        ours, theirs = (each.recommend(history[:length], decoder="global") for each in (opened, run))
        assert [item.item_id for item in ours] == [item.item_id for item in theirs]
        assert [item.score for item in ours] == pytest.approx([item.score for item in theirs], rel=1e-3)
    assert len(opened.answering._former) == 1, "each prompt took the place of the one it goes on from"
    assert not len(opened.thinker._former), "what is measured or kept does not depend on former requests"
    assert run.answering is run.thinker

"""Calibration of auto: its figures are the decoder's own, its choice a local optimum, and a run keeps it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from l2d.artifacts import read_arrays, sha256_file, write_arrays
from l2d.backbone import scratch_backbone
from l2d.decode import (
    Auto,
    Calibration,
    Constants,
    Materials,
    Recall,
    Recipe,
    after_items,
    calibrate,
    enough,
    recalled,
)
from l2d.decode.calibrate import GRID, NEWCOMER_COST, NEWCOMERS, WITHOUT
from l2d.errors import ArtifactCorrupt, ArtifactMissing, ConfigError
from l2d.interactions import UNKNOWN_TIME, Dataset, Examples, Interactions, Splits, split_by_time
from l2d.memory import Entries
from l2d.ranking import Requests
from l2d.recommender import Recommendation, Recommender, RecommendRequest
from l2d.run import Run
from l2d.sources.demo import demo_world
from planted import Planted, planted
from shop import flipped, ok, refused

SMALL: Mapping[str, tuple[float | None, ...]] = {
    "thought": (0.1, 0.5, 0.9),
    "repeat": (0.01, 0.3, 1.0, 3.0),
    "repeat_last": (0.01, 0.3, 1.0, 3.0),
    "half_life": (None, 20.0),
    "prior": (0.0, 0.4),
    "temperature": (0.05, 0.1, 0.3),
    "shrinkage": (None, 3.0),
    "backwards": (0.0, 1.0),
}


def gains(materials: Materials, recipe: Recipe, requests: Requests, targets: np.ndarray) -> list[float]:
    """NDCG@10 of each list."""
    lists = Auto(materials, recipe).rank(requests, 10).rows.tolist()
    ranks = [line.index(target) if target in line else None for line, target in zip(lists, targets, strict=True)]
    return [0.0 if rank is None else 1 / math.log2(rank + 2) for rank in ranks]


def ndcg(materials: Materials, recipe: Recipe, requests: Requests, targets: np.ndarray) -> float:
    found = gains(materials, recipe, requests, targets)
    return sum(found) / len(found)


def of(world: Planted, **options: Any) -> Calibration:
    return calibrate(world.materials, world.requests, world.targets, world.users, **{"grid": SMALL, **options})


def with_filters(world: Planted) -> Planted:
    """Every second request has an allow-list, every third excludes its target, all exclude some rows."""
    rng = np.random.default_rng(0)
    exclude, allow = [], []
    for index, target in enumerate(world.targets.tolist()):
        drawn = rng.choice(world.items, 5, replace=False)
        exclude.append((np.append(drawn, target) if index % 3 == 0 else drawn[drawn != target]).astype(np.int32))
        allow.append(None if index % 2 else np.unique([target, *rng.choice(world.items, 15)]).astype(np.int32))
    return replace(world, requests=replace(world.requests, exclude=exclude, allow=allow))


# ---- what it reports


@pytest.mark.parametrize("kind", ["plain", "filtered", "titles", "tied"])
def test_every_figure_is_the_decoder_s_own(kind: str) -> None:
    world = planted(text=kind == "titles", cold=kind == "titles", items=64 if kind == "titles" else 24, repeats=0.2)
    world = with_filters(world) if kind == "filtered" else world
    # Few short histories: many items are counted once.
    world = planted(steps=4, users=40, following=0.0, items=16) if kind == "tied" else world
    found = of(world)
    recipes = {"auto": found.recipe, "start": Recipe() if kind == "titles" else Recipe(text=0.0)}
    recipes |= {f"without {name}": replace(found.recipe, **off) for name, off in WITHOUT.items()}
    assert list(found.ndcg) == list(recipes)
    for name, recipe in recipes.items():
        expected = ndcg(world.materials, recipe, world.requests, world.targets)
        assert found.ndcg[name] == pytest.approx(expected, abs=1e-12), name
    assert found.requests == len(world.requests)
    assert found.ndcg["auto"] >= found.ndcg["start"] or found.recipe.newcomer


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_single_change_of_a_constant_is_better(seed: int) -> None:
    world = planted(seed=seed, repeats=0.3)
    found = of(world)
    best = ndcg(world.materials, found.recipe, world.requests, world.targets)
    for name, values in SMALL.items():
        for value in values:
            changed = replace(found.recipe, **{name: value})
            assert ndcg(world.materials, changed, world.requests, world.targets) <= best + 1e-12, (name, value)


def test_filters_are_respected() -> None:
    world = planted(seed=3)
    targets = [np.array([target], np.int32) for target in world.targets]
    nothing, certain = (
        of(replace(world, requests=replace(world.requests, **{name: targets})), grid={"thought": (0.1, 0.5)})
        for name in ("exclude", "allow")
    )
    assert set(nothing.ndcg.values()) == {0.0}
    assert certain.ndcg["auto"] == 1.0


def test_the_held_out_figure_is_of_constants_chosen_on_the_other_half_of_the_users() -> None:
    world = planted(seed=4, users=24)
    world = replace(world, users=(np.arange(24) % 4).astype(np.int32))
    possible = []
    for half in combinations(range(4), 2):
        inside = np.isin(world.users, half)
        total = 0.0
        for learnt, judged in ((inside, ~inside), (~inside, inside)):
            part = part_of(world, learnt)
            other = part_of(world, judged)
            total += sum(gains(world.materials, of(part).recipe, other.requests, other.targets))
        possible.append(total / 24)
    assert len(set(possible)) == 3  # as many ways to halve four users, and each has a figure of its own
    for seed in range(3):
        assert min(abs(of(world, seed=seed).held_out - figure) for figure in possible) < 1e-12


def part_of(world: Planted, chosen: np.ndarray) -> Planted:
    places = np.flatnonzero(chosen)
    return replace(
        world, requests=world.requests.take(places.tolist()), targets=world.targets[places], users=world.users[places]
    )


def test_a_seed_gives_the_same_result_and_decides_the_held_out_figure_alone() -> None:
    world = planted(seed=5, noise=1.5)
    first, again, other = of(world, seed=1), of(world, seed=1), of(world, seed=2)
    assert again == first
    assert replace(other, held_out=first.held_out) == first
    assert other.held_out != first.held_out


def test_progress_reaches_its_total_without_a_step_back() -> None:
    steps: list[tuple[int, int]] = []
    of(planted(), progress=lambda *at: steps.append(at))
    total = steps[-1][1]
    assert {of for _, of in steps} == {total}
    done = [done for done, _ in steps]
    assert done == sorted(done) and done[-1] == total


def test_a_calibration_comes_back_from_json_and_from_a_run_s_constants(tmp_path: Path) -> None:
    found = of(planted(text=True, cold=True, timed=False))
    assert found.recipe.half_life is None
    assert Calibration.of(json.loads(json.dumps(found.to_json()))) == found
    constants = Constants(5, 10, 0.5, 3, (), found)
    constants.save(tmp_path / "decoder.json")
    assert Constants.load(tmp_path / "decoder.json") == constants
    record = json.loads((tmp_path / "decoder.json").read_text())
    for part, wrong in (("recipe", {"thought": 2.0}), ("recipe", {"luck": 1.0}), ("ndcg", {"auto": "good"})):
        (tmp_path / "decoder.json").write_text(json.dumps({**record, "auto": {**record["auto"], part: wrong}}))
        with pytest.raises(ArtifactCorrupt, match="not the constants"):
            Constants.load(tmp_path / "decoder.json")


def test_nothing_to_calibrate_on_is_refused() -> None:
    world = planted()
    for changed in (
        part_of(world, np.zeros(len(world.users), bool)),
        replace(world, requests=Requests(world.requests.histories)),
        replace(world, targets=world.targets[1:]),
        replace(world, users=world.users[1:]),
    ):
        with pytest.raises(ConfigError, match="nothing to calibrate on"):
            of(changed)


def test_large_catalogues_are_calibrated_on_fewer_requests() -> None:
    assert enough(300, 10**9) == 300
    assert enough(10_000, 10**9) == 500
    assert enough(10_000, 36_000) == 1000
    assert enough(10_000, 50) == 10_000


# ---- what it chooses


def test_entries_fade_where_taste_drifts_and_only_if_all_have_times() -> None:
    tried: Mapping[str, tuple[float | None, ...]] = {"half_life": (None, 10.0), "prior": (0.4, 1.0)}
    world = planted(drift=True, following=0.0, noise=1.5, users=60, seed=1)
    assert of(world, grid=tried).recipe.half_life is not None
    entries = world.materials.entries
    for times in (
        np.full(len(entries), UNKNOWN_TIME),
        np.full(len(entries), 7),
        np.where(np.arange(len(entries)) == 5, UNKNOWN_TIME, entries.timestamp),
    ):
        untimed = replace(world.materials, entries=replace(entries, timestamp=times))
        assert of(replace(world, materials=untimed), grid=tried).recipe.half_life is None


def test_what_knows_nothing_gets_a_small_share() -> None:
    random = planted(following=0.0, noise=0.8, users=60, items=40, seed=2)
    assert of(random, grid=GRID).recipe.thought >= 0.8
    blind = planted(following=0.9, noise=50.0, users=60, items=40, seed=2)
    assert of(blind, grid=GRID).recipe.thought <= 0.2


def test_items_of_the_history_are_damped_where_they_never_return_and_lifted_where_they_do() -> None:
    never = of(planted(repeats=0.0, noise=1.5, seed=3)).recipe
    assert never.repeat < 0.3 and never.repeat_last < 1.0
    often = of(planted(repeats=0.9, noise=1.5, seed=3)).recipe
    assert often.repeat > never.repeat and often.repeat_last >= 1.0


@pytest.mark.parametrize(("noise", "seed"), [(0.4, 0), (1.0, 0), (1.0, 3)])
def test_newcomers_get_what_finds_them_best_and_the_others_can_afford_while_one_item_is_withheld(
    noise: float, seed: int
) -> None:
    world = planted(text=True, items=130, unseen=70, users=40, noise=noise, seed=1)
    found = of(world, grid={"thought": (0.5, 0.8)}, seed=seed)
    known = np.flatnonzero(world.materials.items.counts)
    assert 50 <= len(known) < 100  # of which a fiftieth is one item; which one is not for this test to know
    figures = [withheld_figures(world, item, found.recipe, NEWCOMERS[:1]) for item in known]
    alike = [
        item for item, (warm, _) in zip(known, figures, strict=True) if warm["0"] == pytest.approx(found.warm["0"])
    ]
    assert len(alike) < len(known) / 2
    possible = [withheld_figures(world, item, found.recipe, NEWCOMERS) for item in alike]
    assert any(found.warm == pytest.approx(warm) and found.cold == pytest.approx(cold) for warm, cold in possible)
    assert list(found.warm) == list(found.cold) == [f"{value:g}" for value in NEWCOMERS]
    affordable = [value for value in NEWCOMERS[1:] if found.warm[f"{value:g}"] >= found.warm["0"] * (1 - NEWCOMER_COST)]
    reached = [found.cold[f"{value:g}"] for value in affordable]
    assert found.recipe.newcomer == (affordable[reached.index(max(reached))] if affordable else 0.0)


def withheld_figures(
    world: Planted, item: int, recipe: Recipe, values: tuple[float, ...]
) -> tuple[dict[str, float], dict[str, float]]:
    """NDCG@10 of all other targets and HR@50 of one item that was withheld, by what newcomers are given."""
    materials = world.materials.without(np.arange(world.items) == item)
    new = part_of(world, world.targets == item)
    others = part_of(world, world.targets != item)
    warm, cold = {}, {}
    for value in values:
        auto = Auto(materials, replace(recipe, newcomer=value))
        warm[f"{value:g}"] = ndcg(materials, auto.recipe, others.requests, others.targets)
        hits = [item in line for line in auto.rank(new.requests, 50).rows] if len(new.targets) else [False]
        cold[f"{value:g}"] = sum(hits) / len(hits)
    return warm, cold


def test_without_titles_nothing_is_tried_that_needs_them() -> None:
    found = of(planted(cold=True, items=64), grid={"text": (1.0, 4.0), "thought": (0.5,)})
    assert found.recipe.text == found.recipe.newcomer == 0
    assert found.warm == found.cold == {}


# ---- in a run


def make(folder: Path) -> Recommender:
    """A run of an untuned backbone, without a memory."""
    catalog, log = demo_world(seed=3, users=60, items=60)
    dataset = Dataset(catalog, log, split_by_time(log), {"format": "demo"})
    backbone = scratch_backbone("scratch:tiny", [catalog.titles[row] for row in dataset.train_rows])
    (folder / "backbone").mkdir()
    backbone.save(folder / "backbone")
    return Recommender.adopt(
        dataset, backbone=str(folder / "backbone"), template="compact", out=folder / "bare", device="cpu"
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run `bare`, `remembering` with a memory, and `calibrated` by the program, which said `said`."""
    folder = tmp_path_factory.mktemp("runs")
    run = make(folder)
    shutil.copytree(run.path, folder / "remembering")
    Recommender.load(folder / "remembering", device="cpu").build_memory()
    shutil.copytree(folder / "remembering", folder / "calibrated")
    (folder / "said").write_text(ok("calibrate", folder / "calibrated", "--device", "cpu").out)
    return folder


def load(run: Path) -> Recommender:
    return Recommender.load(run, device="cpu", verify=False)


@pytest.fixture
def copy(runs: Path, tmp_path: Path) -> Path:
    """A copy of the calibrated run that a test may spoil."""
    shutil.copytree(runs / "calibrated", tmp_path / "copy")
    return tmp_path / "copy"


def answers(run: Recommender, decoder: str | None = None) -> list[list[Recommendation]]:
    histories = run.dataset.splits.test.histories()[:12]
    requests = [RecommendRequest([run.catalog.item_id(int(row)) for row in history]) for history in histories]
    return run.recommend_batch(requests, decoder=decoder)


def test_auto_answers_once_it_is_calibrated_and_vote_before(runs: Path) -> None:
    before, after = load(runs / "remembering"), load(runs / "calibrated")
    assert answers(before) == answers(before, "vote")
    assert answers(after) == answers(after, "auto") != answers(after, "vote")
    assert answers(load(runs / "calibrated")) == answers(after)
    assert answers(after, "vote") == answers(before)


def test_calibrating_makes_auto_answer_at_once_as_a_fresh_load_does(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "remembering", tmp_path / "run")
    run = load(tmp_path / "run")
    assert run.usual == "vote"
    found = run.calibrate(seed=4)
    assert run.constants.auto == found
    assert answers(run) == answers(load(tmp_path / "run"), "auto") == answers(run, "auto")


def test_auto_in_a_run_is_auto_of_its_parts(runs: Path) -> None:
    run = load(runs / "calibrated")
    test, constants = run.dataset.splits.test, run.constants.auto
    assert constants is not None
    requests = Requests(test.histories()[:12], run.thoughts(test.histories()[:12]))
    ranked = Auto(run.auto.materials, constants.recipe).rank(requests, 10)
    for rows, scores, listed in zip(ranked.rows, ranked.scores, answers(run), strict=True):
        assert [run.catalog.row(item.item_id) for item in listed] == rows.tolist()
        np.testing.assert_allclose([item.score for item in listed], scores, rtol=1e-6)
    assert run.auto.materials.entries is run.entries


@pytest.mark.parametrize("name", ["auto", "recall"])
def test_asking_too_early_names_the_command(runs: Path, name: str) -> None:
    with pytest.raises(ArtifactMissing, match=r"is not calibrated.*`l2d calibrate"):
        answers(load(runs / "remembering"), name)


def test_recall_in_a_run_is_recall_of_its_parts(runs: Path) -> None:
    """From the stored thoughts after items, which are those of the training entries and of each item alone."""
    run = load(runs / "calibrated")
    train, fitted = run.dataset.splits.train, run.constants.recall
    assert fitted is not None
    alone = run.thoughts([np.array([row], np.int32) for row in range(len(run.catalog))])
    after = after_items(run.entries, train, alone)
    np.testing.assert_allclose(
        read_arrays(runs / "calibrated" / "calibration.npz")["after"], after, rtol=1e-4, atol=1e-5
    )
    histories = run.dataset.splits.test.histories()[:12]
    parts = recalled(run.auto.materials, after)
    expected = Recall(parts, fitted.recipe).rank(Requests(histories, run.thoughts(histories)), 10)
    for scores, listed in zip(expected.scores, answers(run, "recall"), strict=True):
        np.testing.assert_allclose([item.score for item in listed], scores, rtol=1e-3)
    assert answers(run, "recall") != answers(run, "auto")


def test_recall_is_calibrated_by_its_own_figures(runs: Path) -> None:
    run = load(runs / "calibrated")
    found, valid = run.constants.recall, run.dataset.splits.valid
    assert found is not None
    requests = Requests(valid.histories(), run.thoughts(valid.histories()))
    materials = run.recall.materials
    asked = {"recall": found.recipe, "without links": replace(found.recipe, thought=1.0)}
    for name, recipe in asked.items():
        assert found.ndcg[name] == pytest.approx(ndcg(materials, recipe, requests, valid.target), abs=1e-9), name
    assert found.ndcg["recall"] >= found.ndcg["start"]
    assert not any("count" in name for name in found.ndcg)


def test_recall_of_a_memory_that_holds_validation_too(runs: Path, tmp_path: Path) -> None:
    """What stands after each item comes from training entries; the classes come from all of the memory."""
    shutil.copytree(runs / "remembering", tmp_path / "run")
    run = load(tmp_path / "run")
    run.build_memory(through="valid", overwrite=True)
    run.calibrate()
    train = run.dataset.splits.train
    alone = run.thoughts([np.array([row], np.int32) for row in range(len(run.catalog))])
    expected = after_items(run.entries.take(np.flatnonzero(run.entries.sample < len(train))), train, alone)
    after = read_arrays(tmp_path / "run" / "calibration.npz")["after"]
    np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-5)
    assert len(run.recall.materials.entries) == len(train) + len(run.dataset.splits.valid)
    links, parts = run.recall.materials.evidence.cooccurrence, recalled(run.auto.materials, after)
    np.testing.assert_array_equal(links.weights, parts.evidence.cooccurrence.weights)
    assert answers(run, "recall") == answers(load(tmp_path / "run"), "recall")


def test_a_calibration_from_before_recall_still_answers(copy: Path) -> None:
    """As a run that was calibrated without it: neither file knows of recall."""
    record, arrays = json.loads((copy / "decoder.json").read_text()), read_arrays(copy / "calibration.npz")
    del record["recall"], arrays["after"]
    (copy / "decoder.json").write_text(json.dumps(record))
    write_arrays(copy / "calibration.npz", arrays)
    place = Run(copy)
    digests = {"constants": sha256_file(place.constants), "calibration": sha256_file(place.calibration)}
    place.record(place.read_manifest(), **digests)
    run = load(copy)
    assert answers(run) == answers(run, "auto") and run.usual == "auto"
    assert "auto" in run.every_decoder() and "recall" not in run.every_decoder()
    with pytest.raises(ArtifactMissing, match=r"without recall.*`l2d calibrate .*` again"):
        answers(run, "recall")


@pytest.mark.parametrize("name", ["decoder.json", "calibration.npz"])
def test_a_damaged_calibration_is_refused_by_name(copy: Path, name: str) -> None:
    with flipped(copy / name), pytest.raises(ArtifactCorrupt, match=name):
        answers(load(copy))
    (copy / name).unlink()
    with pytest.raises(ArtifactMissing, match="l2d"):
        answers(load(copy))


def test_a_calibration_of_another_run_is_refused(copy: Path) -> None:
    arrays = read_arrays(copy / "calibration.npz")
    write_arrays(copy / "calibration.npz", {**arrays, "text": arrays["text"] + 1})
    with pytest.raises(ArtifactCorrupt, match=r"calibration\.npz.*l2d calibrate"):
        answers(load(copy))


def test_building_the_memory_again_drops_the_calibration(copy: Path) -> None:
    run = load(copy)
    assert run.usual == "auto" and answers(run)
    run.build_memory()
    for same in (run, load(copy)):
        assert answers(same) == answers(same, "vote")
        for name in ("auto", "recall"):
            with pytest.raises(ArtifactMissing, match="`l2d calibrate"):
                answers(same, name)


class Forbidden:
    """A split that must not be looked at."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"the test split was asked for its {name}")

    def __len__(self) -> int:
        raise AssertionError("the test split was asked for its length")


def test_calibration_knows_nothing_of_the_test_split_and_repeats_to_the_byte(runs: Path, tmp_path: Path) -> None:
    """Test targets are other items, the memory knows them, and whoever asks for the test split fails."""
    shutil.copytree(runs / "remembering", tmp_path / "run")
    run = load(tmp_path / "run")
    log, splits = run.dataset.interactions, run.dataset.splits
    row = log.row.copy()
    row[splits.test.end] = np.random.default_rng(0).integers(0, len(run.catalog), len(splits.test))
    assert (row != log.row).sum() > 20
    changed = Interactions(log.user_ids, log.user, row, log.timestamp)
    train, valid = (Examples(changed, part.start, part.end) for part in (splits.train, splits.valid))
    targets = splits.test.target
    entries = run.entries
    run.__dict__["entries"] = Entries(
        np.concatenate([entries.thoughts, run.thoughts(splits.test.histories()).astype(entries.thoughts.dtype)]),
        np.concatenate([entries.row, targets]),
        np.concatenate([entries.user, np.zeros(len(targets), np.int32)]),
        np.concatenate([entries.timestamp, splits.test.timestamp]),
        np.concatenate([entries.sample, len(train) + np.arange(len(targets))]),
        entries.user_ids,
    )
    shown = Splits(train, valid, splits.test)
    object.__setattr__(shown, "test", Forbidden())
    run.dataset = Dataset(run.catalog, changed, shown, {})
    with pytest.raises(AssertionError, match="length"):
        len(run.dataset.splits.test)
    run.calibrate(seed=0)
    for name in ("decoder.json", "calibration.npz"):
        assert (tmp_path / "run" / name).read_bytes() == (runs / "calibrated" / name).read_bytes(), name


def test_the_command_says_what_every_ingredient_gives(runs: Path) -> None:
    said = [line.split() for line in (runs / "said").read_text().splitlines()]
    found = load(runs / "calibrated").constants.auto
    assert found is not None
    for name, value in vars(found.recipe).items():
        assert [name, "none" if value is None else f"{value:g}"] in said
    assert ["auto", f"{found.ndcg['auto']:.4f}"] in said
    for name in WITHOUT:
        judged = found.ndcg[f"without {name}"]
        line = ["without", *name.split(), f"{judged:.4f}", f"{judged - found.ndcg['auto']:+.4f}"]
        assert line in said
    assert any(f"{found.held_out:.4f}" in words and f"{found.requests:,}" in words for words in said)
    other = load(runs / "calibrated").constants.recall
    assert other is not None
    assert any("recall," in words and f"{other.held_out:.4f}" in words for words in said)


def test_the_command_needs_a_memory_and_a_run(runs: Path, tmp_path: Path) -> None:
    assert "l2d memory build" in refused("calibrate", runs / "bare")
    assert "not a run" in refused("calibrate", tmp_path)
    assert "--seed" in refused("calibrate", runs / "bare", "--seed", -1)
    assert not (runs / "bare" / "calibration.npz").exists()


# ---- at the edges of a list


def test_a_target_that_cannot_be_listed_gains_nothing_in_a_tiny_catalogue() -> None:
    world = planted(items=8, unseen=2, steps=5, seed=1)
    targets = world.targets.copy()
    targets[::2] = world.items - 1  # without entries, counts or a title
    world = replace(world, targets=targets)
    found = of(world, grid={"thought": (0.5,)})
    assert found.ndcg["auto"] == pytest.approx(ndcg(world.materials, found.recipe, world.requests, targets), abs=1e-12)


def test_requests_for_items_with_entries_alone_are_judged_as_such() -> None:
    world = planted(text=True, cold=True, items=100, unseen=30, noise=0.3, seed=2)
    world = replace(world, requests=replace(world.requests, minimum_entries=1))
    found = of(world, grid={"thought": (0.5, 0.8)})
    for name, recipe in {"auto": found.recipe, "without counts": replace(found.recipe, thought=1.0)}.items():
        expected = ndcg(world.materials, recipe, world.requests, world.targets)
        assert found.ndcg[name] == pytest.approx(expected, abs=1e-12), name
    assert set(found.cold.values()) == {0.0}

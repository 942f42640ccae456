"""Items that join a run by their titles: whole or not at all, known at once, and nothing old changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from l2d.catalog import Catalog
from l2d.decode import Recipe
from l2d.errors import ArtifactCorrupt, ArtifactMissing, DataError
from l2d.prompts import COMPACT, Prompts
from l2d.ranking import Requests
from l2d.recommender import DECODERS, Recommender
from l2d.recommender.calibrating import open_title_map
from l2d.run import Run
from l2d.sources.items import read_items
from l2d.testing import WordTokenizer
from shop import ok

NEW = {"900001": "The Silent Harbour", "900002": "A Guide to Bread"}


@pytest.fixture(scope="module")
def calibrated(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("calibrated") / "run"
    shutil.copytree(run, out)
    Recommender.load(out, device="cpu").calibrate()
    return out


@pytest.fixture
def copy(calibrated: Path, tmp_path: Path) -> Path:
    shutil.copytree(calibrated, tmp_path / "copy")
    return tmp_path / "copy"


def test_item_files_are_read_with_their_titles_cleaned(tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("asin,title\nb2,Salt &amp; Bread\nb1,  Two   blanks \n")
    assert read_items(path) == {"b2": "Salt & Bread", "b1": "Two blanks"}


def test_an_item_without_a_title_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("item_id,title\nb1,Bread\nb2,<br>\n")
    with pytest.raises(DataError, match=r"new\.csv:3: an item has no title .*b2"):
        read_items(path)


def test_old_prompts_stay_as_they_are_behind_longer_titles() -> None:
    old = Catalog.from_titles(["one two", "three"])
    prompts = Prompts.compile(COMPACT, WordTokenizer(), old)
    more = prompts.extended(WordTokenizer(), ["four five six seven", "eight"])
    for history in ([0], [1, 0], [0, 1, 0]):
        rows = np.array(history, np.int32)
        assert more.prompt(rows).tolist() == prompts.prompt(rows).tolist()
    assert more.history_budget == prompts.history_budget
    assert more.title(2).tolist() == Prompts.compile(
        COMPACT, WordTokenizer(), Catalog.from_titles(["four five"])
    ).title(0).tolist()  # fmt: skip
    assert len(more.title(3)) == 1


def test_metadata_of_new_items_is_missing() -> None:
    import polars as pl

    catalog = Catalog(("a", "b"), ("A", "B"), pl.DataFrame({"price": [1.0, 2.0]}))
    grown = catalog.extended({"c": "C"})
    assert grown.item_ids == ("a", "b", "c")
    assert grown.metadata is not None
    assert grown.metadata["price"].to_list() == [1.0, 2.0, None]
    with pytest.raises(DataError, match="twice"):
        catalog.extended({"a": "again"})


def test_new_items_are_kept_and_placed_by_their_titles(copy: Path) -> None:
    opened = Recommender.load(copy, device="cpu")
    before, text = len(opened.catalog), opened.auto.materials.text
    found = opened.add_items(NEW)
    assert (found.added, found.known, found.recommendable) == (2, 0, True)
    again = Recommender.load(copy, device="cpu")
    assert again.catalog.item_ids[before:] == tuple(NEW)
    assert again.catalog.titles[before:] == tuple(NEW.values())
    thoughts = again.thoughts([np.array([row], np.int32) for row in (before, before + 1)])
    for run in (opened, again):
        placed = run.auto.materials.text
        assert placed is not None and text is not None
        assert np.array_equal(placed[:before], text)
        np.testing.assert_allclose(placed[before:], open_title_map(again)(thoughts), rtol=1e-4, atol=1e-4)
    rows = again.auto.materials.classes(again.auto.recipe).known
    assert rows[before:].tolist() == [again.auto.recipe.newcomer > 0] * 2


def test_old_lists_change_only_by_the_new_items(copy: Path) -> None:
    opened = Recommender.load(copy, device="cpu")
    histories = opened.dataset.splits.test.histories()[:6]
    names = ("global", "vote", "cooccurrence", "item-head")
    before = {name: opened.decoder(name).rank(opened.requests(histories, think=True), 5) for name in names}
    size = len(opened.catalog)
    opened.add_items(NEW)
    for name in names:
        after = opened.decoder(name).rank(opened.requests(histories, think=True), 5)
        assert np.array_equal(after.rows, before[name].rows)
        assert np.array_equal(after.scores, before[name].scores)
    everything = opened.decoder("auto").rank(opened.requests(histories, think=True), size + 2)
    assert not np.isin([size, size + 1], everything.rows).any() or opened.auto.recipe.newcomer > 0
    kept = Requests(histories, opened.thoughts(histories), minimum_entries=1)
    assert (opened.decoder("auto").rank(kept, size + 2).rows < size).all()


def test_a_new_item_may_stand_in_a_history(copy: Path) -> None:
    opened = Recommender.load(copy, device="cpu")
    opened.add_items(NEW)
    for decoder in ("auto", "recall", "vote", "beam", "cooccurrence"):
        assert len(opened.recommend(["900001", opened.catalog.titles[0]], k=3, decoder=decoder)) == 3


def test_after_a_new_item_stands_its_own_thought_and_links_lead_to_old_items(copy: Path) -> None:
    opened = Recommender.load(copy, device="cpu")
    size = len(opened.catalog)
    before = opened.recall.materials.evidence.cooccurrence
    opened.add_items(NEW)
    for run in (opened, Recommender.load(copy, device="cpu")):
        links = run.recall.materials.evidence.cooccurrence
        assert links.items == size + 2
        alone = run.thoughts([np.array([row], np.int32) for row in (size, size + 1)])
        said = run.auto.materials.classes(Recipe()).probabilities(alone)
        for row, line in zip((size, size + 1), said, strict=True):
            targets, weights = links.of(row)
            assert len(targets) and (targets < size).all()
            np.testing.assert_allclose(weights, line[targets], rtol=1e-4)
        for row in range(size):
            for old, new in zip(before.of(row), links.of(row), strict=True):
                np.testing.assert_array_equal(new, old)


def test_known_items_are_skipped_and_other_titles_refused(copy: Path) -> None:
    opened = Recommender.load(copy, device="cpu")
    opened.add_items(NEW)
    manifest = (copy / "manifest.json").read_bytes()
    assert opened.add_items(NEW).known == 2
    with pytest.raises(DataError, match="another title"):
        opened.add_items({"900003": "fine", "900001": "Another Harbour"})
    assert (copy / "manifest.json").read_bytes() == manifest
    assert "900003" not in Recommender.load(copy, device="cpu").catalog.item_ids


def test_an_id_that_would_change_the_type_of_all_others_is_refused(copy: Path) -> None:
    opened = Recommender.load(copy, device="cpu")
    with pytest.raises(DataError, match=r"not an integer .*'b-7'"):
        opened.add_items({"900001": "fine", "b-7": "Bread"})
    assert "900001" not in opened.catalog.item_ids


def test_later_additions_keep_the_earlier_ones_in_one_file(copy: Path) -> None:
    opened = Recommender.load(copy, device="cpu")
    opened.add_items({"900001": NEW["900001"]})
    opened.add_items({"900002": NEW["900002"]})
    assert len(list(copy.glob("items-*.parquet"))) == 1
    again = Recommender.load(copy, device="cpu")
    assert again.catalog.item_ids[-2:] == tuple(NEW)
    assert again.auto.materials.text is not None
    assert len(again.auto.materials.text) == len(again.catalog)


def test_calibrating_again_takes_added_items_along(copy: Path) -> None:
    opened = Recommender.load(copy, device="cpu")
    opened.add_items(NEW)
    opened.calibrate()
    again = Recommender.load(copy, device="cpu")
    again.add_items({"900003": "Bread and Salt"})
    text = Recommender.load(copy, device="cpu").auto.materials.text
    assert text is not None
    thoughts = again.thoughts([np.array([len(again.catalog) - 1], np.int32)])
    np.testing.assert_allclose(text[-1:], open_title_map(again)(thoughts), rtol=1e-4, atol=1e-4)


def test_a_stop_before_the_manifest_leaves_the_run_as_it_was(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Recommender.load(copy, device="cpu")
    before = opened.catalog.item_ids

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "record", stopped)
    with pytest.raises(KeyboardInterrupt):
        opened.add_items(NEW)
    assert Recommender.load(copy, device="cpu").catalog.item_ids == before


def test_a_damaged_or_missing_item_file_is_refused(copy: Path) -> None:
    Recommender.load(copy, device="cpu").add_items(NEW)
    (file,) = copy.glob("items-*.parquet")
    whole = file.read_bytes()
    file.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises(ArtifactCorrupt, match="items-"):
        Recommender.load(copy, device="cpu")
    file.unlink()
    with pytest.raises(ArtifactMissing, match="items-"):
        Recommender.load(copy, device="cpu")


def test_the_command_adds_and_says_how_many(copy: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.csv"
    path.write_text("item_id,title\n" + "".join(f"{item},{title}\n" for item, title in NEW.items()))
    assert "2 items added, 0 were there already" in ok("items", "add", copy, path).out
    assert "0 items added, 2 were there already" in ok("items", "add", copy, path).out


def test_a_run_that_is_not_calibrated_is_told_so(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "plain")
    opened = Recommender.load(tmp_path / "plain", device="cpu")
    assert not opened.add_items(NEW).recommendable
    opened.calibrate()
    text = Recommender.load(tmp_path / "plain", device="cpu").auto.materials.text
    assert text is not None
    assert len(text) == len(opened.catalog)


def test_a_memory_is_built_behind_added_items(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    opened = Recommender.load(tmp_path / "run", device="cpu")
    before = opened.entries
    opened.add_items(NEW)
    opened.build_memory()
    opened.build_memory(overwrite=True)
    again = Recommender.load(tmp_path / "run", device="cpu")
    assert np.array_equal(again.entries.thoughts, before.thoughts)
    assert np.array_equal(again.entries.row, before.row)
    assert len(again.item_vectors) == len(again.catalog)
    assert len(again.recommend(["900001"], k=3)) == 3


def test_a_stop_while_titles_are_read_leaves_the_open_run_as_it_was(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Recommender.load(copy, device="cpu")
    before = opened.catalog.item_ids

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(type(opened.thinker), "think", stopped)
        with pytest.raises(KeyboardInterrupt):
            opened.add_items(NEW)
    assert opened.catalog.item_ids == before
    assert opened.add_items(NEW).added == 2
    assert Recommender.load(copy, device="cpu").catalog.item_ids[-2:] == tuple(NEW)


def test_what_needs_no_memory_is_judged_without_one(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare" / "memory.lance")
    (tmp_path / "bare" / "decoder.json").unlink()
    opened = Recommender.load(tmp_path / "bare", device="cpu")
    assert set(opened.evaluate(["popularity"], timing=False).rows) == {"popularity"}


def test_no_requests_get_no_lists_and_a_constant_means_vote(copy: Path) -> None:
    opened = Recommender.load(copy, device="cpu")
    assert opened.recommend_batch([]) == []
    assert opened.every_decoder() == list(DECODERS)
    history = [opened.catalog.titles[0]]
    assert opened.recommend(history, neighbours=5) == opened.recommend(history, decoder="vote", neighbours=5)

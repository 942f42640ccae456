"""Items that join a run by their titles: whole or not at all, known at once, and nothing old changes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from l2d.catalog import Catalog
from l2d.decode import Recipe
from l2d.errors import ArtifactBusy, ArtifactCorrupt, ArtifactMissing, ConfigError, DataError, UnknownItem
from l2d.prompts import COMPACT, Prompts
from l2d.ranking import Requests
from l2d.recommender import DECODERS, Interaction, Item, Recommender, adding
from l2d.recommender.calibrating import open_title_map
from l2d.run import Run
from l2d.sources.items import read_items, read_metadata
from l2d.testing import WordTokenizer
from shop import CATALOG, ok, refused

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


# Metadata

PUT = [
    Item("900001", NEW["900001"], {"price": 3, "tags": ["sea", "night"], "stock": True}),
    Item(CATALOG.item_ids[4], CATALOG.titles[4], {"price": 7.5, "brand": "Sony"}),
    Item(CATALOG.item_ids[5], None, {"price": None}),
    Item(CATALOG.item_ids[6], CATALOG.titles[6]),
    Item("900002", NEW["900002"]),
]


def known_of(run: Recommender) -> dict[str, dict[str, Any]]:
    """Metadata of every item that has any."""
    found = {item: run.catalog.described(row) for row, item in enumerate(run.catalog.item_ids)}
    return {item: record for item, record in found.items() if record}


def test_items_and_metadata_are_put_together_and_are_there_again(copy: Path) -> None:
    opened = Recommender.load(copy, device="cpu")
    identity, fingerprint = opened.identity, opened.dataset.fingerprint
    lists = opened.recommend([CATALOG.titles[3]], k=5, decoder="vote")
    found = opened.put_items(PUT)
    assert (found.added, found.known, found.updated, found.recommendable) == (2, 3, 2, True)
    expected = {
        "900001": {"price": 3.0, "tags": ["sea", "night"], "stock": True},
        CATALOG.item_ids[4]: {"price": 7.5, "brand": "Sony"},
    }
    again = Recommender.load(copy, device="cpu")
    for run in (opened, again):
        assert known_of(run) == expected
        assert run.catalog.item_ids[-2:] == tuple(NEW)
        assert run.identity == identity
        assert run.recommend([CATALOG.titles[3]], k=5, decoder="vote") == lists
        assert run.catalog.where({"tags": "sea"}).tolist() == [len(CATALOG)]
    assert again.dataset.splits.train.interactions.row.tobytes() == opened.dataset.interactions.row.tobytes()
    assert fingerprint == Recommender.load(copy, device="cpu").manifest["data"]


def test_what_a_change_does_not_name_stays_and_nothing_takes_away(copy: Path) -> None:
    opened = Recommender.load(copy, device="cpu")
    first, second = CATALOG.item_ids[:2]
    opened.put_items([Item(first, None, {"price": 1, "brand": "a"}), Item(second, None, {"price": 2})])
    opened.put_items([Item(first, None, {"price": 5, "year": 1999})])
    opened.put_items([Item(second, None, {"price": None}), Item("900001", NEW["900001"], {"year": 2001})])
    opened.put_items([Item("900002", NEW["900002"])])
    expected = {first: {"price": 5, "brand": "a", "year": 1999}, "900001": {"year": 2001}}
    assert known_of(opened) == known_of(Recommender.load(copy, device="cpu")) == expected
    assert len(list(copy.glob("metadata-*.parquet"))) == len(list(copy.glob("items-*.parquet"))) == 1


def test_a_change_of_metadata_alone_leaves_what_was_computed(copy: Path) -> None:
    opened = Recommender.load(copy, device="cpu")
    entries, auto = opened.entries, opened.auto
    found = opened.put_items([Item(CATALOG.item_ids[0], None, {"price": 1})])
    assert (found.added, found.known, found.updated) == (0, 1, 1)
    assert opened.entries is entries
    assert opened.auto is auto
    assert opened.put_items([Item(CATALOG.item_ids[0], None, {})]).updated == 0


def test_a_reader_that_puts_items_takes_along_what_a_writer_wrote_meanwhile(copy: Path) -> None:
    reader, first = Recommender.load(copy, device="cpu"), CATALOG.item_ids[0]
    with Recommender.load(copy, device="cpu", writer=True) as writer:
        writer.put_items([Item(first, None, {"price": 1}), Item("900001", NEW["900001"])])
        with pytest.raises(ArtifactBusy):
            reader.put_items([Item(first, None, {"brand": "Sony"})])
        writer.add_interactions([Interaction("17", "900001", 1_700_000_000)])
    assert reader.put_items([Item(first, None, {"brand": "Sony"})]).updated == 1
    reader.put_items([Item("900002", NEW["900002"], {"price": 2})])
    for run in (reader, Recommender.load(copy, device="cpu")):
        assert known_of(run) == {first: {"price": 1, "brand": "Sony"}, "900002": {"price": 2}}
        assert run.catalog.item_ids[-2:] == ("900001", "900002")
        assert run.item_vectors.counts[-2:].tolist() == [1, 0]
        assert run.find_items("silent harb")[0].entries == 1


def test_metadata_lies_over_that_of_the_data(copy: Path) -> None:
    data = CATALOG.with_metadata({CATALOG.item_ids[0]: {"price": 4}})
    assert data.metadata is not None
    later = pl.DataFrame({"item_id": [CATALOG.item_ids[1]], "price": [0.5], "brand": ["Sony"]})
    laid = data.overlaid(later)
    assert laid.described(0) == data.described(0)
    assert laid.described(1) == {"price": 0.5, "brand": "Sony"} | {
        name: value for name, value in CATALOG.described(1).items() if name != "price"
    }
    assert laid.fingerprint == data.fingerprint == CATALOG.fingerprint


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ([Item("900001")], "no title"),
        ([Item("900001", " ")], "no title"),
        ([Item("900001", "x" * 2_001)], "no title"),
        ([Item("900001", "half \ud800")], "no title"),
        ([Item("", "Bread")], "not an integer|cannot be kept"),
        ([Item("900001", "Bread"), Item(900001, "Bread")], "occurs twice"),
        ([Item("900001", "Bread", {"title": "Butter"})], "impossible name"),
        ([Item("900001", "Bread", {"item_id": 1})], "impossible name"),
        ([Item("900001", "Bread", {"": 1})], "impossible name"),
        ([Item("900001", "Bread", {"x" * 101: 1})], "impossible name"),
        ([Item("900001", "Bread", {"a": {"b": 1}})], "cannot be kept"),
        ([Item("900001", "Bread", {"a": [["b"]]})], "cannot be kept"),
        ([Item("900001", "Bread", {"a": float("nan")})], "cannot be kept"),
        ([Item("900001", "Bread", {"a": 10**400})], "cannot be kept"),
        ([Item("900001", "Bread", {"a": "\ud800"})], "cannot be kept"),
        ([Item("900001", "Bread", {"a": "x" * 20_001})], "cannot be kept"),
        ([Item("900001", "Bread", {"a": list(range(1_001))})], "too long"),
        ([Item("900001", "Bread", {f"c{number}": 1 for number in range(201)})], "too many metadata columns"),
        ([Item("900001", "Bread", {"a": 1}), Item("900002", "Butter", {"a": "x"})], "several types"),
        ([Item("900001", "Bread", {"a": 1}), Item("900002", "Butter", {"a": [1]})], "lists and single values"),
        ([Item("900001", "Bread", {"price": "dear"})], "'price' has another type.*a text.*Float64"),
        ([Item("900001", "Bread", {"price": True})], "'price' has another type"),
        ([Item("900001", "Bread", {"price": [1]})], "'price' has another type.*a list"),
        ([Item("900001", "Bread", {"tags": "sea"})], "'tags' has another type.*a single value"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_kept_is_refused_whole(copy: Path, items: list[Item], told: str) -> None:
    opened = Recommender.load(copy, device="cpu")
    opened.put_items([Item(CATALOG.item_ids[0], None, {"price": 1.5, "tags": ["a"]})])
    manifest, known = (copy / "manifest.json").read_bytes(), known_of(opened)
    with pytest.raises(DataError, match=told) as caught:
        opened.put_items([Item("900009", "fine", {"year": 2}), *items])
    assert len(str(caught.value).encode()) < 600
    assert (copy / "manifest.json").read_bytes() == manifest
    assert known_of(opened) == known_of(Recommender.load(copy, device="cpu")) == known
    assert "900009" not in opened.catalog.item_ids


def test_types_widen_but_do_not_change() -> None:
    catalog = CATALOG.with_metadata({CATALOG.item_ids[0]: {"count": 3, "seen": "2024-01-05"}})
    assert catalog.metadata is not None
    assert catalog.metadata["count"].dtype == pl.Int64
    wider = catalog.with_metadata({CATALOG.item_ids[1]: {"count": 3.5}})
    assert [wider.described(row)["count"] for row in (0, 1)] == [3.0, 3.5]
    released = CATALOG.described(0)["released"]  # a date column of the data takes text as ISO writes it
    moved = CATALOG.with_metadata({CATALOG.item_ids[0]: {"released": "2031-02-03"}})
    assert (released, moved.described(0)["released"]) != ("2031-02-03", released)
    assert moved.metadata is not None and CATALOG.metadata is not None
    assert moved.metadata["released"].dtype == CATALOG.metadata["released"].dtype
    with pytest.raises(DataError, match="no ISO date"):
        CATALOG.with_metadata({CATALOG.item_ids[0]: {"released": "soon"}})
    with pytest.raises(UnknownItem):
        CATALOG.with_metadata({"nobody": {"price": 1}})


@pytest.mark.parametrize("step", range(4))
def test_a_stop_at_any_step_leaves_all_or_nothing(copy: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    opened = Recommender.load(copy, device="cpu")
    opened.put_items([Item("900005", "Bread and Salt", {"price": 1})])
    before, done = known_of(opened), -1

    def counted(work: Any) -> Any:
        def stopping(*arguments: Any, **named: Any) -> Any:
            nonlocal done
            done += not Path(getattr(arguments[0], "name", "")).name.startswith(".")  # but for temporary files
            if done == step:
                raise KeyboardInterrupt
            return work(*arguments, **named)

        return stopping

    with monkeypatch.context() as patched:
        patched.setattr(adding, "atomic_file", counted(adding.atomic_file))  # items, then metadata
        patched.setattr(Run, "record", counted(Run.record))
        patched.setattr(Path, "unlink", counted(Path.unlink))
        with pytest.raises(KeyboardInterrupt):
            opened.put_items(PUT)
    again = Recommender.load(copy, device="cpu")
    whole = step == 3
    assert ("900001" in again.catalog.item_ids) == whole
    assert (known_of(again) == before) != whole
    assert again.put_items(PUT).added == (0 if whole else 2)
    assert known_of(Recommender.load(copy, device="cpu"))["900001"]["price"] == 3


def test_a_damaged_or_missing_metadata_file_is_refused(copy: Path) -> None:
    Recommender.load(copy, device="cpu").put_items(PUT)
    (file,) = copy.glob("metadata-*.parquet")
    whole = file.read_bytes()
    file.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises(ArtifactCorrupt, match="metadata-"):
        Recommender.load(copy, device="cpu")
    file.unlink()
    with pytest.raises(ArtifactMissing, match="metadata-"):
        Recommender.load(copy, device="cpu")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_columns_of_an_item_file_become_metadata(copy: Path, tmp_path: Path, kind: str) -> None:
    records = [
        {"item_id": "900001", "title": NEW["900001"], "price": 3.5, "code": "007", "stock": True, "year": 1999},
        {
            "item_id": CATALOG.item_ids[4],
            "title": CATALOG.titles[4],
            "price": 4.0,
            "code": None,
            "stock": False,
            "year": 5,
        },
    ]
    path, frame = tmp_path / f"new.{kind}", pl.DataFrame(records)
    {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[kind](path)
    names = ("price", "code", "stock", "year")
    expected = {record["item_id"]: {name: record[name] for name in names} for record in records}
    assert read_metadata(path, names) == expected
    with pytest.raises(ConfigError, match="colour"):
        read_metadata(path, ["colour"])
    words = [word for name in names for word in ("--metadata", name)]
    out = ok("items", "add", copy, path, *words).out
    assert "1 items added, 1 were there already" in out
    assert "metadata set of 1" in out
    found = known_of(Recommender.load(copy, device="cpu"))
    assert found == {item: {k: v for k, v in record.items() if v is not None} for item, record in expected.items()}
    assert "colour" in refused("items", "add", copy, path, "--metadata", "colour")


def test_a_text_column_stays_text_however_a_file_spells_it(copy: Path, tmp_path: Path) -> None:
    Recommender.load(copy, device="cpu").put_items([Item(CATALOG.item_ids[0], None, {"code": "a7"})])
    path = tmp_path / "new.csv"
    path.write_text(f"item_id,title,code\n{CATALOG.item_ids[1]},{CATALOG.titles[1]},12\n")
    ok("items", "add", copy, path, "--metadata", "code")
    assert known_of(Recommender.load(copy, device="cpu"))[CATALOG.item_ids[1]] == {"code": "12"}


def test_lists_come_from_json_lines_and_parquet(tmp_path: Path) -> None:
    frame = pl.DataFrame({"item_id": ["1", "2"], "title": ["a", "b"], "tags": [["x", "y"], None]})
    frame.write_ndjson(tmp_path / "a.jsonl")
    frame.write_parquet(tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        assert read_metadata(tmp_path / name, ["tags"]) == {"1": {"tags": ["x", "y"]}, "2": {"tags": None}}

"""The catalogue: what it finds, what it refuses, what survives the disk."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l2d.catalog import Catalog
from l2d.errors import DataError, UnknownItem

CATALOG = Catalog(("b7", "a1", "42", "c3"), ("Blue Train", "Giant Steps", "Blue Train", "b7"))

texts = st.text(min_size=1, max_size=6).filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(st.lists(texts, min_size=1, max_size=20, unique=True), st.data())
def test_ids_titles_and_groups_equal_a_scan(ids: list[str], data: st.DataObject) -> None:
    titles = data.draw(st.lists(st.sampled_from(["x", "y", "z z"]), min_size=len(ids), max_size=len(ids)))
    catalog = Catalog(tuple(ids), tuple(titles))
    assert len(catalog) == len(ids)
    assert [catalog.row(item) for item in ids] == list(range(len(ids)))
    assert catalog.rows(reversed(ids)).tolist() == list(reversed(range(len(ids))))
    assert catalog.title_group.tolist() == [titles.index(title) for title in titles]
    for title in set(titles):
        assert catalog.find(f"title:{title}") == titles.index(title)
    for row, item in enumerate(ids):
        assert catalog.find(f"id:{item}") == row


def test_an_id_wins_over_an_equal_title_unless_told() -> None:
    assert CATALOG.find("b7") == CATALOG.find("id:b7") == 0
    assert CATALOG.find("title:b7") == 3
    assert CATALOG.find("Blue Train") == 0
    assert CATALOG.find(42) == CATALOG.row(42) == 2
    with pytest.raises(UnknownItem):
        CATALOG.find("id:Giant Steps")


def test_unknown_items_get_the_nearest_titles() -> None:
    with pytest.raises(UnknownItem, match=r"got 'giant step'.*nearest titles: 'Giant Steps'"):
        CATALOG.find("giant step")
    with pytest.raises(UnknownItem, match="'Blue Train'"):
        CATALOG.find("title:trai")
    with pytest.raises(UnknownItem, match="none is close"):
        CATALOG.find("zzzzzzzzzzzzzzz")
    with pytest.raises(UnknownItem, match="got 'b8'"):
        CATALOG.row("b8")
    assert CATALOG.suggest("BLUE TRAIN") == ["Blue Train"]
    assert len(Catalog.from_titles([f"song {row}" for row in range(9)]).suggest("song", n=2)) == 2


def test_integer_ids_stay_integers_only_where_all_are() -> None:
    assert CATALOG.item_id(2) == "42"
    numbers = Catalog(("0", "-3", "17"), ("a", "b", "c"))
    assert [numbers.item_id(row) for row in range(3)] == [0, -3, 17]
    for odd in ("007", "+1", "1.0", "-0", "1_0", "٣", "1\n"):
        assert Catalog(("1", odd), ("a", "b")).item_id(1) == odd


@pytest.mark.parametrize(
    ("ids", "titles", "reason"),
    [
        ((), (), "empty"),
        (("a", "a"), ("x", "y"), "twice.*'a'"),
        (("a", "b"), ("x",), r"differ in length.*\[1, 2\]"),
        (("a", "b"), ("x", " \t"), "'b' has no title"),
        (("a", ""), ("x", "y"), "no title or no id"),
    ],
)
def test_bad_catalogues_are_refused(ids: tuple[str, ...], titles: tuple[str, ...], reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        Catalog(ids, titles)
    assert caught.value.exit_code == 2
    assert caught.value.cure


def test_metadata_must_be_as_long() -> None:
    with pytest.raises(DataError, match="differ in length"):
        Catalog(("a", "b"), ("x", "y"), pl.DataFrame({"year": [1959]}))


def test_the_fingerprint_sees_ids_titles_and_their_order_only() -> None:
    first = Catalog(("ab", "c"), ("x", "y")).fingerprint
    assert first == Catalog(("ab", "c"), ("x", "y"), pl.DataFrame({"year": [1, 2]})).fingerprint
    others = [
        (("a", "bc"), ("x", "y")),
        (("c", "ab"), ("y", "x")),
        (("ab", "c"), ("x", "z")),
        (("ab", "c"), ("y", "x")),
    ]
    assert len({first, *(Catalog(*other).fingerprint for other in others)}) == 5


@pytest.mark.parametrize(
    "metadata", [None, pl.DataFrame({"year": [1957, 1960, None, 1958], "tags": [["a"], [], ["b"], []]})]
)
def test_save_and_load(tmp_path: Path, metadata: pl.DataFrame | None) -> None:
    catalog = Catalog(CATALOG.item_ids, CATALOG.titles, metadata)
    catalog.save(tmp_path / "catalog.parquet")
    again = Catalog.load(tmp_path / "catalog.parquet")
    assert (again.item_ids, again.titles, again.fingerprint) == (catalog.item_ids, catalog.titles, catalog.fingerprint)
    assert (again.metadata is None) == (metadata is None)
    assert metadata is None or (again.metadata is not None and again.metadata.equals(metadata))


def test_from_frame_reads_integer_ids_as_text() -> None:
    catalog = Catalog.from_frame(pl.DataFrame({"title": ["x", "y"], "item_id": [5, 7], "price": [1.5, 2.5]}))
    assert (catalog.item_ids, catalog.titles) == (("5", "7"), ("x", "y"))
    assert catalog.metadata is not None and catalog.metadata.columns == ["price"]
